//! Who is about to leave, or is left: no message is locked for nobody, and none that came is forgotten (G13).

use super::*;

/// The credit that the hub is given next.
async fn credit(hub: &mut Hub) -> u32 {
    hub.until(|heard| match heard {
        Heard::Credit { credit, .. } => Some(*credit),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn no_message_is_asked_for_once_nobody_takes_more() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let script = async {
        let link = hub.link("d").await;
        assert_eq!(credit(hub).await, 4);
        hub.deliver(link, 1, "m-1", 1).await;
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    assert!(matches!(device.next().await, Ok(Inbound::Delivery { number: Some(1), .. })));
    device.take_no_more().await.unwrap();
    assert_eq!(credit(hub).await, 0);
    // What is settled makes no room for another.
    assert!(device.settle(vec![Settlement::Complete(1)]).await.unwrap());
    assert_eq!(hub.told().await, (1, "accepted"));
    assert!(timeout(Duration::from_secs(5), credit(hub)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_no_messages_gives_no_credit() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let entry = Entry { wants_messages: false, ..entry(&account, "d") };
    let attach = async { amqp.reach(&account).await?.attach(entry).await };
    let mut device = with_hub(hub, attach).await.unwrap();
    device.receive().await.unwrap();
    hub.link("d").await;
    assert!(matches!(device.next().await, Ok(Inbound::Ready)));
    assert!(timeout(Duration::from_secs(5), credit(hub)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_came_right_before_the_end_of_its_connection_is_told_of() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let script = async {
        let link = hub.link("d").await;
        hub.deliver(link, 1, "m-1", 1).await;
        hub.framed.get_mut().write_all(&[0, 0, 0, 9, 2, 0, 0, 0, 0x7f]).await.unwrap();
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    assert!(matches!(device.next().await, Ok(Inbound::Delivery { .. })));
    assert!(matches!(device.next().await, Err(Trouble::Protocol(_))));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_came_right_behind_what_ends_its_session_is_told_of() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_hub(hub, attach(&amqp, &account, "d")).await.unwrap();
    device.receive().await.unwrap();
    let link = hub.link("d").await;
    assert!(matches!(device.next().await, Ok(Inbound::Ready)));
    device.publish(event(1)).await.unwrap();
    let events = hub
        .until(|heard| match heard {
            Heard::Link { channel, handle, .. } => Some((*channel, *handle)),
            _ => None,
        })
        .await;
    hub.event().await;
    hub.detach(events, AmqpError::InternalError).await;
    hub.deliver(link, 1, "m-1", 1).await;
    assert!(matches!(device.next().await, Ok(Inbound::Delivery { .. })));
    assert!(matches!(device.next().await, Err(Trouble::EventRefused(_))));
}
