//! An uplink that takes less than there is to be sent.

use tokio::io::AsyncReadExt as _;

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
