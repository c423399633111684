//! An uplink that takes less than there is to be sent.

use tokio::io::AsyncReadExt as _;

use super::super::handle::{Command, Handle, Waiting};
use super::*;

#[tokio::test(start_paused = true)]
async fn an_uplink_that_takes_little_holds_nobody_up_for_long_and_is_given_up() {
    let (amqp, mut hubs) = transport(1);
    let account = account(&access());
    let mut hub = hubs.remove(0);
    let mut device = with_hub(&mut hub, ready(&amqp, &account, "d")).await;
    let mut other = with_hub(&mut hub, ready(&amqp, &account, "other")).await;
    device.publish(event(1)).await.unwrap();
    let (channel, id) = hub.event().await;
    hub.tell(channel, id, DeliveryState::Accepted(Accepted {})).await;
    assert!(matches!(device.next().await, Ok(Inbound::Published(1))));
    // It never stands still for as long as a dead one would.
    let drips = tokio::spawn(async move {
        while hub.framed.get_mut().read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    let (begun, mut held_up) = (Instant::now(), None);
    for seq in 2..=400 {
        let large = Event { body: "x".repeat(16 * 1024), ..event(seq) };
        if let Err(trouble) = device.publish(large).await {
            held_up = Some(trouble);
            break;
        }
    }
    assert!(matches!(&held_up, Some(Trouble::Lost(why)) if why.contains("uplink")), "{held_up:?}");
    assert!(begun.elapsed() <= Duration::from_secs(15), "{:?}", begun.elapsed());
    let lost = timeout(Duration::from_secs(60), other.next()).await.expect("it is given up").err();
    assert!(matches!(&lost, Some(Trouble::Lost(why)) if why.contains("uplink")), "{lost:?}");
    drips.abort();
}

#[tokio::test(start_paused = true)]
async fn waits_of_one_turn_add_up_and_those_of_another_do_not() {
    let (handle, mut ends) = Handle::new();
    let (mut waiting, begun) = (Waiting::default(), Instant::now());
    let wish = || Command::Leave { user: 0 };
    while timeout(Duration::ZERO, waiting.want(&handle, wish())).await.is_ok() {}
    waiting.begin_turn();
    let makes_room = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        ends.wanted.recv().await;
        ends
    });
    assert_eq!(waiting.want(&handle, wish()).await, Ok(()));
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(waiting.want(&handle, wish()).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 15);
    waiting.begin_turn();
    assert!(waiting.want(&handle, wish()).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 30);
    drop(makes_room.await);
}
