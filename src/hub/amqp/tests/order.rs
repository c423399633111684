//! What an ended link has left is not overtaken (G5), whether the hub frees it at once or keeps it locked.

use super::*;
use crate::amqp::types::performatives::End;
use crate::hub::transport::Transport as _;

/// The device on a new link, which has brought messages under these numbers.
async fn with_messages(amqp: &Amqp, account: &Account, hub: &mut Hub, numbers: &[u8]) -> Box<dyn Attachment> {
    let script = async {
        let link = hub.link("d").await;
        for (id, number) in (1..).zip(numbers) {
            hub.deliver_number(link, id, *number).await;
        }
    };
    tokio::join!(ready(amqp, account, "d"), script).0
}

/// The numbers of what is delivered next.
async fn delivered(device: &mut Box<dyn Attachment>, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let Ok(Inbound::Delivery { message, .. }) = device.next().await else { panic!("a delivery") };
        numbers.extend(message.sequence_number);
    }
    numbers
}

fn waits(amqp: &Amqp, account: &Account) -> u64 {
    let until = amqp.locked_until(account, "d");
    until.map_or(0, |until| until.duration_since(Instant::now()).as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_message_came_when_its_connection_had_read_it_however_late_its_device_takes_it() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_messages(&amqp, &account, hub, &[5, 6]).await;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let Ok(Inbound::Delivery { message, .. }) = device.next().await else { panic!("a delivery") };
    let left_behind = device.left_behind().expect("the second was not taken");
    for came in [message.came, left_behind.came] {
        assert_eq!(came.map(Instant::from_std), Some(since));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_frees_what_a_link_has_left_is_not_waited_for() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_messages(&amqp, &account, hub, &[5, 6, 7]).await;
    assert_eq!(delivered(&mut device, 3).await, [5, 6, 7]);
    assert!(device.settle(vec![Settlement::Complete(1)]).await.unwrap());
    let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    with_hub(hub, device.detach()).await;
    assert_eq!(waits(&amqp, &account), 0);
    let mut device = with_messages(&amqp, &account, hub, &[6, 7, 8]).await;
    assert_eq!(delivered(&mut device, 3).await, [6, 7, 8]);
    assert!(timeout(Duration::ZERO, stays.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_overtakes_one_that_a_link_has_left_ends_the_next_which_waits_for_both() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    let mut device = with_messages(&amqp, &account, hub, &[5, 6]).await;
    assert_eq!(delivered(&mut device, 1).await, [5]);
    // One was taken, and one had come.
    assert_eq!(device.left_behind().and_then(|message| message.sequence_number), Some(6));
    with_hub(hub, device.detach()).await;
    tokio::time::advance(Duration::from_secs(20)).await;
    let mut device = with_messages(&amqp, &account, hub, &[7]).await;
    let Ok(Inbound::Unclear { message, why }) = device.next().await else { panic!("it is out of turn") };
    assert_eq!(message.sequence_number, Some(7));
    assert!(why.contains("in order") && device.unsettled() == 0, "{why}");
    with_hub(hub, device.detach()).await;
    assert_eq!(waits(&amqp, &account), 65);
    let silence = timeout(Duration::from_secs(64), hub.told()).await;
    assert!(silence.is_err(), "what is out of turn is not given back, which would be counted");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(waits(&amqp, &account), 0);
    let mut device = with_messages(&amqp, &account, hub, &[5, 6, 7]).await;
    assert_eq!(delivered(&mut device, 3).await, [5, 6, 7]);
    assert!(timeout(Duration::ZERO, stays.next()).await.is_err());
}

/// When messages came that nobody took, by their numbers.
type Noted = Arc<Mutex<Vec<(Option<u64>, Instant)>>>;

/// The device on a link, whose late messages are noted there.
async fn noting(amqp: &Amqp, account: &Account, noted: &Noted) -> Box<dyn Attachment> {
    let noted = noted.clone();
    let note_late = Arc::new(move |message: Message| {
        let came = Instant::from_std(message.came.expect("when it came is known"));
        noted.lock().unwrap().push((message.sequence_number, came));
    });
    let entry = Entry { note_late, ..entry(account, "d") };
    let mut attachment = amqp.reach(account).await.unwrap().attach(entry).await.unwrap();
    attachment.receive().await.unwrap();
    assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
    attachment
}

/// A hub that has sent a message under this number before it hears that the link's session has ended.
async fn ends_late(hub: &mut Hub, link: (u16, u32), pause: Duration, number: u8) {
    hub.hear_only(|channel, performative| channel == link.0 && matches!(performative, Performative::End(_))).await;
    tokio::time::sleep(pause).await;
    hub.deliver_number(link, 1, number).await;
    hub.say(link.0, Performative::End(End { error: None })).await;
}

/// The next link brings the second message, and is not let run it before the first.
async fn waits_for_the_first(amqp: &Amqp, account: &Account, hub: &mut Hub, case: &str) {
    let by_https = Account { transport: TransportKind::Https, ..account.clone() };
    let is_known = async {
        while amqp.locked_until(&by_https, "d").is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(1), is_known).await.is_ok(), "{case}: another transport waits, too");
    let mut device = with_messages(amqp, account, hub, &[6]).await;
    let next = device.next().await;
    let Ok(Inbound::Unclear { message, .. }) = next else { panic!("{case}: it is out of turn") };
    assert_eq!(message.sequence_number, Some(6));
    with_hub(hub, device.detach()).await;
    assert_eq!(waits(amqp, account), 65, "{case}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_on_its_way_when_its_device_leaves_is_not_overtaken() {
    for (case, pause) in [("at once", Duration::ZERO), ("when nobody waits any more", Duration::from_secs(5))] {
        let (amqp, mut hubs) = transport(1);
        let (account, hub) = (account(&access()), &mut hubs[0]);
        let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
        let (noted, begun) = (Noted::default(), Instant::now());
        let (device, link) = tokio::join!(noting(&amqp, &account, &noted), hub.link("d"));
        let (came, ()) = tokio::join!(device.detach(), ends_late(hub, link, pause, 5));
        waits_for_the_first(&amqp, &account, hub, case).await;
        // Its deadline counts from when it came, whoever says so.
        let when = |message: Message| Some((message.sequence_number, Instant::from_std(message.came?)));
        let told: Vec<_> = came.into_iter().filter_map(when).collect();
        let late = noted.lock().unwrap().clone();
        assert_eq!([&told[..], &late[..]].concat(), [(Some(5), begun + pause)], "{case}");
        assert_eq!(told.is_empty(), !pause.is_zero(), "{case}");
        assert!(timeout(Duration::ZERO, stays.next()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_on_its_way_when_the_last_device_closes_the_connection_is_not_overtaken() {
    let (amqp, mut hubs) = transport(2);
    let account = account(&access());
    let noted = Noted::default();
    let (device, link) = tokio::join!(noting(&amqp, &account, &noted), hubs[0].link("d"));
    let closed = async {
        let hub = &mut hubs[0];
        hub.hear_only(|_, performative| matches!(performative, Performative::Close(_))).await;
        hub.deliver_number(link, 1, 5).await;
        hub.say(0, Performative::Close(Close { error: None })).await;
    };
    tokio::join!(device.detach(), closed);
    waits_for_the_first(&amqp, &account, &mut hubs[1], "closed").await;
    assert_eq!(noted.lock().unwrap().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [Some(5)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_on_its_way_when_a_device_is_shut_out_is_not_overtaken() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    let (mut device, link) = tokio::join!(ready(&amqp, &account, "d"), hub.link("d"));
    device.show("expired".into()).await.unwrap();
    let (refused, _) = tokio::join!(device.next(), hub.token());
    assert!(matches!(refused, Err(Trouble::TokenRefused { .. })));
    tokio::join!(device.detach(), ends_late(hub, link, Duration::ZERO, 5));
    waits_for_the_first(&amqp, &account, hub, "shut out").await;
    assert!(timeout(Duration::ZERO, stays.next()).await.is_err());
}
