//! Tokens that the hub does not take now, or does not answer to.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_renewal_that_the_hub_can_not_answer_now_ends_nothing() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_hub(hub, ready(&amqp, &account, "d")).await;
    hub.status = "503";
    device.show("second token".into()).await.unwrap();
    let throttled = with_hub(hub, device.next()).await;
    assert!(matches!(throttled, Ok(Inbound::NotRenewed(Trouble::TokenRefused { status: 503, .. }))));
    hub.silent_to = "d";
    let begun = Instant::now();
    device.show("third token".into()).await.unwrap();
    let unanswered = with_hub(hub, device.next()).await;
    assert!(matches!(unanswered, Ok(Inbound::NotRenewed(Trouble::TokenUnanswered(30)))));
    assert_eq!(begun.elapsed().as_secs(), 30);
    (hub.status, hub.silent_to) = ("200", "");
    device.show("fourth token".into()).await.unwrap();
    assert!(timeout(Duration::from_secs(60), with_hub(hub, device.next())).await.is_err(), "it goes on");
    hub.status = "404";
    device.show("fifth token".into()).await.unwrap();
    let gone = with_hub(hub, device.next()).await;
    assert!(matches!(gone, Err(Trouble::TokenRefused { status: 404, .. })), "the device is no more");
}

#[tokio::test(start_paused = true)]
async fn after_a_silence_tokens_go_out_on_links_of_their_own_though_others_wait_on_those_before() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut first = with_hub(hub, ready(&amqp, &account, "first")).await;
    let mut second = with_hub(hub, ready(&amqp, &account, "second")).await;
    hub.silent_to = "first";
    first.show("unanswered".into()).await.unwrap();
    let (_, of_first) = hub.token().await;
    // Half its time later another one asks on the same links, and waits still when the first is given up.
    assert!(timeout(Duration::from_secs(15), hub.hear()).await.is_err());
    hub.silent_to = "second";
    second.show("answered late".into()).await.unwrap();
    let (_, of_second) = hub.token().await;
    assert_eq!(of_second.channel, of_first.channel);
    assert!(matches!(first.next().await, Ok(Inbound::NotRenewed(Trouble::TokenUnanswered(_)))));
    first.show("on links of its own".into()).await.unwrap();
    let (token, of_third) = hub.token().await;
    assert_eq!(token, "on links of its own");
    assert_ne!(of_third.channel, of_first.channel);
    // The late answer is taken, and the links before end with it.
    hub.answer(&of_second, "503").await;
    let late = with_hub(hub, second.next()).await;
    assert!(matches!(late, Ok(Inbound::NotRenewed(Trouble::TokenRefused { status: 503, .. }))));
    let ended = hub.until(|heard| match heard {
        Heard::Ended { channel } => Some(*channel),
        _ => None,
    });
    assert_eq!(ended.await, of_first.channel);
}

#[tokio::test(start_paused = true)]
async fn links_for_tokens_that_the_hub_detaches_are_made_anew_and_who_waited_on_them_is_told() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_hub(hub, ready(&amqp, &account, "d")).await;
    hub.silent_to = "d";
    let begun = Instant::now();
    device.show("on the way".into()).await.unwrap();
    let (_, asked) = hub.token().await;
    hub.detach((asked.channel, 1), AmqpError::InternalError).await;
    let told = with_hub(hub, device.next()).await;
    assert!(matches!(told, Ok(Inbound::NotRenewed(Trouble::Detached { .. }))));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    hub.silent_to = "";
    device.show("on new links".into()).await.unwrap();
    let (token, _) = hub.token().await;
    assert_eq!(token, "on new links");
    assert!(timeout(Duration::from_secs(60), with_hub(hub, device.next())).await.is_err(), "it goes on");
}
