//! Connections that come and go keep to the pace of all that the gateway makes.

use super::*;
use crate::hub::pace::Pace;

#[tokio::test(start_paused = true)]
async fn a_new_connection_waits_for_its_turn_and_its_request_has_its_whole_time_after_that() {
    let (mut site, pace) = (site(Settle::AfterExecution), Arc::new(Pace::default()));
    let rate = site.account.access.hub.connect_rate;
    let (dialled, far) = mpsc::channel(16);
    (site.transport, site.hub.dialled) = (Https::over(Arc::new(Pairs(dialled)), pace.clone()), far);
    let mut attachment = site.attach(None, EMPTY).await.unwrap();
    assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
    site.hub.hang_up();
    // So many others connect first that the turn comes later than a request may take.
    let begun = Instant::now();
    for _ in 0..rate * 100 {
        pace.turn(rate);
    }
    attachment.publish(event(1, None)).await.unwrap();
    let answered = async {
        assert_eq!(site.hub.hear().await.0, publish());
        assert_eq!(begun.elapsed().as_secs(), 100);
        tokio::time::sleep(Duration::from_secs(59)).await;
        site.hub.say(EMPTY).await;
    };
    assert!(matches!(tokio::join!(attachment.next(), answered).0, Ok(Inbound::Published(1))));
    // It takes a turn itself, so that those of others come after it.
    let before = pace.turn(rate);
    site.hub.hang_up();
    attachment.publish(event(2, None)).await.unwrap();
    let answered = async {
        site.hub.expect(poll(), EMPTY).await;
        site.hub.expect(publish(), EMPTY).await;
    };
    assert!(matches!(tokio::join!(attachment.next(), answered).0, Ok(Inbound::Published(2))));
    assert_eq!(pace.turn(rate) - before, Duration::from_secs(2) / rate);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_waits_for_its_turn_is_not_made_once_nobody_takes_more() {
    let (mut site, pace) = (site(Settle::AfterExecution), Arc::new(Pace::default()));
    let (dialled, far) = mpsc::channel(16);
    (site.transport, site.hub.dialled) = (Https::over(Arc::new(Pairs(dialled)), pace.clone()), far);
    let mut attachment = site.attach(None, EMPTY).await.unwrap();
    assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
    site.hub.hang_up();
    // The queue is looked at again after 65 s, and others connect then.
    assert!(tokio::time::timeout(Duration::from_secs(60), attachment.next()).await.is_err());
    let rate = site.account.access.hub.connect_rate;
    for _ in 0..rate * 30 {
        pace.turn(rate);
    }
    assert!(tokio::time::timeout(Duration::from_secs(20), attachment.next()).await.is_err());
    attachment.take_no_more().await.unwrap();
    assert!(tokio::time::timeout(MINUTES_25 * 2, attachment.next()).await.is_err());
    attachment.detach().await;
    assert_eq!(site.locked_for(None), None);
    assert!(site.hub.dialled.try_recv().is_err(), "no connection was made");
}
