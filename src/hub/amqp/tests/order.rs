//! What an ended link has left is not overtaken (G5), whether the hub frees it at once or keeps it locked.

use super::*;
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
