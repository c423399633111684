//! Calls of direct methods: two links of an identity's own, whose end takes nothing else from it.

use super::*;
use crate::amqp::types::messaging::MessageId;
use crate::amqp::Value;
use crate::command::{Answer, Method};
use crate::hub::call::{Answered, CallId};

/// A pair of links as the hub has it: its channel, and the handles for answers and for calls.
type Pair = (u16, u32, u32);

/// One that is attached, and asks for its messages and its calls.
async fn listening(amqp: &Amqp, account: &Account, hub: &mut Hub) -> (Box<dyn Attachment>, Pair) {
    let mut device = with_hub(hub, ready(amqp, account, "d")).await;
    let pair = asks(&mut device, hub).await;
    (device, pair)
}

/// What is due is done; gives the pair that the hub is asked for.
async fn asks(device: &mut Box<dyn Attachment>, hub: &mut Hub) -> Pair {
    tokio::time::sleep_until(device.keep_alive_at()).await;
    device.keep_alive().await.unwrap();
    let (answers, calls) = (hub.methods("d").await, hub.methods("d").await);
    (answers.0, answers.1, calls.1)
}

async fn next_call(device: &mut Box<dyn Attachment>) -> (CallId, Method) {
    match device.next().await {
        Ok(Inbound::Call { call, method }) => (call, method),
        Ok(_) => panic!("something else than a call"),
        Err(trouble) => panic!("{trouble}"),
    }
}

fn answered(call: CallId, status: u16) -> Answered {
    Answered { call, answer: Answer { status, body: "{}".into() } }
}

fn uuid(last: u8) -> MessageId {
    MessageId::Uuid([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last].into())
}

#[tokio::test(start_paused = true)]
async fn a_call_comes_on_links_of_its_own_and_is_answered_under_its_id() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let (mut device, (channel, _, calls)) = listening(&amqp, &account, hub).await;
    assert_eq!(hub.pairs.len(), 2);
    assert!(hub.pairs[0] == hub.pairs[1] && hub.pairs[0].starts_with("methods:"), "{:?}", hub.pairs);
    hub.call((channel, calls), 1, uuid(1), "set", b"42").await;
    let (call, method) = with_hub(hub, next_call(&mut device)).await;
    assert_eq!(method, Method { name: "set".into(), payload: b"42".to_vec(), unread: None });
    assert_eq!((device.unsettled(), device.oldest()), (0, None), "there is nothing to settle");
    device.answer(answered(call, 202)).await.unwrap();
    let said = hub.answer_to_a_call().await;
    assert_eq!(said.correlation_id, Some(Value::Uuid([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into())));
    assert_eq!((said.property("IoThub-status"), &said.body[..]), (Some(&Value::Int(202)), &b"{}"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_hub_without_methods_is_asked_again_later_and_messages_and_events_go_on() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_hub(hub, attach(&amqp, &account, "d")).await.unwrap();
    device.receive().await.unwrap();
    let messages = hub.link("d").await;
    assert!(matches!(with_hub(hub, device.next()).await, Ok(Inbound::Ready)));
    let mut pauses = Vec::new();
    for round in 0..4 {
        let (channel, answers, calls) = asks(&mut device, hub).await;
        // It ends one of them, or both at once.
        for handle in [answers, calls].into_iter().take(1 + round % 2) {
            hub.detach((channel, handle), AmqpError::NotImplemented).await;
        }
        let begun = Instant::now();
        hub.deliver(messages, round as u32, &format!("m-{round}"), 1).await;
        assert!(matches!(with_hub(hub, device.next()).await, Ok(Inbound::Delivery { .. })));
        assert!(device.settle(vec![Settlement::Complete(round as u64 + 1)]).await.unwrap());
        assert_eq!(hub.told().await, (round as u32, "accepted"));
        pauses.push(device.keep_alive_at().duration_since(begun).as_secs_f32());
    }
    let expected = [2.5..=5.0, 5.0..=10.0, 10.0..=20.0, 20.0..=40.0];
    assert!(pauses.iter().zip(&expected).all(|(pause, span)| span.contains(pause)), "{pauses:?}");
    // The link of the events has the name of one that was for calls; its end is not that one's.
    for seq in 1..=2 {
        device.publish(event(seq)).await.unwrap();
        let (link, id) = hub.event_on().await;
        hub.tell(link.0, id, DeliveryState::Accepted(Accepted {})).await;
        assert!(matches!(with_hub(hub, device.next()).await, Ok(Inbound::Published(published)) if published == seq));
        hub.detach(link, AmqpError::InternalError).await;
        assert!(timeout(Duration::from_millis(1), with_hub(hub, device.next())).await.is_err(), "it goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_calls_come_as_are_taken_and_those_that_nobody_can_answer_take_no_place() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let (mut device, (channel, _, calls)) = listening(&amqp, &account, hub).await;
    let mut taken = 0;
    for id in 0..60 {
        while hub.may_send.get(&(channel, calls)).is_none_or(|most| *most <= id) {
            hub.hear().await;
        }
        assert!(hub.may_send[&(channel, calls)] - id <= 4);
        match id % 3 {
            0 => hub.call((channel, calls), id, uuid(id as u8), "", b"1").await,
            1 => hub.transfer(channel, calls, id, b"\x00\x53\x73\xc0\xff", 1).await,
            _ => {
                hub.call((channel, calls), id, uuid(id as u8), "set", b"1").await;
                with_hub(hub, next_call(&mut device)).await;
                taken += 1;
            }
        }
        // What can't be answered is read by the way.
        let read = timeout(Duration::from_millis(1), device.next()).await;
        assert!(read.is_err(), "nothing else comes");
    }
    assert_eq!(taken, 20);
}

#[tokio::test(start_paused = true)]
async fn an_answer_reaches_no_other_pair_of_links() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let (mut device, (channel, _, calls)) = listening(&amqp, &account, hub).await;
    hub.call((channel, calls), 1, uuid(1), "set", b"1").await;
    let (stale, _) = with_hub(hub, next_call(&mut device)).await;
    hub.detach((channel, calls), LinkError::Stolen).await;
    assert!(timeout(Duration::from_millis(1), with_hub(hub, device.next())).await.is_err(), "it goes on");
    let (channel, _, calls) = asks(&mut device, hub).await;
    assert!(hub.pairs[0] != hub.pairs[2] && hub.pairs[2] == hub.pairs[3]);
    hub.call((channel, calls), 2, uuid(2), "set", b"2").await;
    let (call, _) = with_hub(hub, next_call(&mut device)).await;
    device.answer(answered(stale, 200)).await.unwrap();
    device.answer(answered(call, 404)).await.unwrap();
    assert_eq!(hub.answer_to_a_call().await.property("IoThub-status"), Some(&Value::Int(404)));
}

#[tokio::test(start_paused = true)]
async fn links_that_the_hub_does_not_answer_to_are_given_up_and_asked_for_again() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    hub.is_silent_to_calls = true;
    let (mut device, _) = listening(&amqp, &account, hub).await;
    let asked = Instant::now();
    assert!(timeout(device.keep_alive_at() - asked, with_hub(hub, device.next())).await.is_err());
    assert_eq!(asked.elapsed().as_secs(), 60);
    device.keep_alive().await.unwrap();
    assert!(timeout(Duration::from_millis(1), with_hub(hub, device.next())).await.is_err(), "it goes on");
    let pause = device.keep_alive_at() - Instant::now();
    assert!((2..=5).contains(&pause.as_secs()), "{pause:?}");
    hub.is_silent_to_calls = false;
    let (channel, _, calls) = asks(&mut device, hub).await;
    // These are answered to, and stay for longer than that.
    assert!(timeout(Duration::from_secs(90), with_hub(hub, device.next())).await.is_err());
    hub.call((channel, calls), 1, uuid(1), "set", b"1").await;
    let (call, _) = with_hub(hub, next_call(&mut device)).await;
    device.answer(answered(call, 200)).await.unwrap();
    assert_eq!(hub.answer_to_a_call().await.property("IoThub-status"), Some(&Value::Int(200)));
}

#[tokio::test(start_paused = true)]
async fn what_is_called_of_one_who_has_left_is_no_message_that_was_left_behind() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let noted = Arc::new(Mutex::new(0));
    let count = noted.clone();
    let entry = Entry { note_late: Arc::new(move |_| *count.lock().unwrap() += 1), ..entry(&account, "d") };
    let reached = with_hub(hub, amqp.reach(&account)).await.unwrap();
    let mut device = with_hub(hub, reached.attach(entry)).await.unwrap();
    device.receive().await.unwrap();
    let messages = hub.link("d").await;
    assert!(matches!(with_hub(hub, device.next()).await, Ok(Inbound::Ready)));
    let (channel, _, calls) = asks(&mut device, hub).await;
    // It comes before that its part is over is told, and another one behind it.
    hub.call((channel, calls), 1, uuid(1), "set", b"1").await;
    hub.detach(messages, AmqpError::InternalError).await;
    hub.call((channel, calls), 2, uuid(2), "set", b"2").await;
    loop {
        match with_hub(hub, device.next()).await {
            Ok(Inbound::Call { .. }) => {}
            Ok(_) => panic!("a call, or the end"),
            Err(trouble) => break assert!(matches!(trouble, Trouble::Detached { .. }), "{trouble}"),
        }
    }
    assert!(device.left_behind().is_none());
    assert_eq!(with_hub(hub, device.detach()).await, []);
    assert_eq!(*noted.lock().unwrap(), 0);
}
