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
async fn who_takes_leave_gives_back_what_it_holds_the_oldest_first_and_takes_its_credit_back_before() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (Account { settle: Settle::AfterAccept, ..account(&access()) }, &mut hubs[0]);
    let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    let script = async {
        let link = hub.link("d").await;
        for id in 1..=3 {
            hub.deliver(link, id, &format!("m-{id}"), 1).await;
        }
        // It came too often already.
        let header = [0x00, 0x53, 0x70, 0xc0, 7, 5, 0x40, 0x40, 0x40, 0x40, 0x52, 3];
        hub.transfer(link.0, link.1, 4, &header, 1).await;
        hub.deliver(link, 5, "m-5", 1).await;
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    for _ in 1..=5 {
        assert!(matches!(device.next().await, Ok(Inbound::Delivery { .. })));
    }
    // The second is done, and waits for the first.
    assert!(!device.settle(vec![Settlement::Complete(2)]).await.unwrap());
    let heard = async {
        hub.until(|heard| matches!(heard, Heard::Credit { credit: 0, .. }).then_some(())).await;
        let told = [hub.told().await, hub.told().await, hub.told().await];
        assert_eq!(told, [(1, "released"), (2, "accepted"), (3, "released")]);
        assert!(timeout(Duration::from_secs(20), hub.told()).await.is_err());
    };
    tokio::join!(device.detach(), heard);
    assert!(timeout(Duration::ZERO, stays.next()).await.is_err());
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

#[tokio::test(start_paused = true)]
async fn what_can_not_be_recorded_is_left_to_its_lock_with_all_behind_it() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (Account { settle: Settle::AfterAccept, ..account(&access()) }, &mut hubs[0]);
    let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    let script = async {
        let link = hub.link("d").await;
        for id in 1..=4 {
            hub.deliver(link, id, &format!("m-{id}"), 1).await;
        }
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    for _ in 1..=4 {
        assert!(matches!(device.next().await, Ok(Inbound::Delivery { .. })));
    }
    assert!(device.tells_enqueued_time(), "so that no pause ends distrust");
    device.give_nothing_back();
    let ends = vec![Settlement::Complete(1), Settlement::Leave(2), Settlement::Abandon(3)];
    assert!(device.settle(ends).await.unwrap());
    assert_eq!(hub.told().await, (1, "accepted"));
    let silence = async { assert!(timeout(Duration::from_secs(20), hub.told()).await.is_err()) };
    tokio::join!(device.detach(), silence);
    assert!(timeout(Duration::ZERO, stays.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn whoever_only_wants_to_know_whether_it_is_let_in_asks_for_a_link_and_for_no_message() {
    for is_permitted in [true, false] {
        let (amqp, mut hubs) = transport(1);
        let (account, hub) = (account(&access()), &mut hubs[0]);
        let entry = Entry { wants_messages: false, ..entry(&account, "d") };
        let attach = async { amqp.reach(&account).await?.attach(entry).await };
        let mut device = with_hub(hub, attach).await.unwrap();
        let script = async {
            let link = hub.link("d").await;
            if !is_permitted {
                hub.detach(link, AmqpError::UnauthorizedAccess).await;
            }
            assert!(timeout(Duration::from_secs(1), credit(hub)).await.is_err());
        };
        let (let_in, ()) = tokio::join!(device.is_let_in(), script);
        match is_permitted {
            true => assert_eq!(let_in, Ok(())),
            false => assert!(matches!(let_in, Err(Trouble::Unauthorized(_))), "{let_in:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_as_soon_as_it_is_recorded_comes_sixteen_at_a_time() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (Account { settle: Settle::AfterAccept, ..account(&access()) }, &mut hubs[0]);
    let script = async {
        let link = hub.link("d").await;
        assert_eq!(credit(hub).await, 16);
        for id in 1..=16 {
            hub.deliver(link, id, &format!("m-{id}"), 1).await;
        }
        // Nobody has settled any.
        assert!(timeout(Duration::from_secs(5), credit(hub)).await.is_err());
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    for number in 1..=16 {
        assert!(matches!(device.next().await, Ok(Inbound::Delivery { number: Some(of), .. }) if of == number));
    }
    assert!(device.settle((1..=16).map(Settlement::Complete).collect()).await.unwrap());
    let mut granted = 0;
    while granted < 16 {
        granted = credit(hub).await;
    }
    assert_eq!(granted, 16);
}
