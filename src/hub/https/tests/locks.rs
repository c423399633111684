//! What may be locked at the hub, and by whom it is waited for or given back.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Dials once, and then without ever coming to an end.
struct Once(Pairs, AtomicBool);

impl Dial for Once {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        match self.1.swap(true, Ordering::Relaxed) {
            false => self.0.dial(address),
            true => Box::pin(std::future::pending()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_whose_connection_is_slow_to_be_made_has_asked_for_nothing() {
    for is_stopped in [false, true] {
        let (dialled, far) = mpsc::channel(1);
        let mut site = site(Settle::AfterExecution);
        site.hub.dialled = far;
        site.transport = Https::over(Arc::new(Once(Pairs(dialled), AtomicBool::new(false))), Arc::default());
        let mut attachment = site.attach(None, EMPTY).await.unwrap();
        assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
        site.hub.hang_up();
        let begun = Instant::now();
        let patience = Duration::from_secs(if is_stopped { 70 } else { 200 });
        match tokio::time::timeout(patience, attachment.next()).await {
            Ok(ended) => assert_eq!((ended.err(), begun.elapsed().as_secs()), (Some(Trouble::Slow(60)), 125)),
            Err(_) => assert!(is_stopped),
        }
        attachment.detach().await;
        assert_eq!(site.locked_for(None), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_back_a_few_times_and_then_left_to_its_lock() {
    for (count, is_given_back) in [(0, true), (2, true), (3, false)] {
        let answer = message("m-1", "l-1").replace("count: 0", &format!("count: {count}"));
        let (mut site, mut attachment) = attached(Settle::AfterExecution, &answer).await;
        let hub = &mut site.hub;
        attachment.next().await.unwrap();
        let abandon = format!("POST /devices/p%231/messages/devicebound/l-1/abandon?{VERSION}");
        let heard = async {
            if is_given_back {
                assert!(hub.expect(abandon.clone(), EMPTY).await.contains("if-match: l-1\r\n"));
            }
        };
        assert_eq!(tokio::join!(attachment.settle(vec![Abandon(1)]), heard).0, Ok(false));
        assert_eq!(attachment.unsettled(), usize::from(!is_given_back));
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_unheard_answer_may_have_brought_is_waited_for_before_anything_else_is_asked_for() {
    let (mut site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    let told = tokio::join!(attachment.settle(vec![Complete(1)]), hub.expect(complete("l-1"), EMPTY)).0;
    assert_eq!(told, Ok(true));
    let polls = async {
        // The connection was kept, and is closed instead of an answer.
        assert_eq!(hub.hear().await.0, poll());
        hub.hang_up();
        let unheard = Instant::now();
        hub.expect(poll(), &message("m-2", "l-2")).await;
        unheard.elapsed().as_secs()
    };
    let (delivery, waited) = tokio::join!(attachment.next(), polls);
    assert!(is_delivery(&delivery.unwrap(), 2, "m-2"));
    assert_eq!(waited, 65);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_has_no_poll_made_before_an_unheard_message_is_free() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    attachment.next().await.unwrap();
    let hub = &mut site.hub;
    let unheard = async {
        assert_eq!(hub.hear().await.0, poll());
        hub.hang_up();
    };
    // The connection was kept: the attachment goes on.
    let waits = tokio::time::timeout(Duration::from_secs(5), attachment.next());
    assert!(tokio::join!(waits, unheard).0.is_err());
    let lost = "HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n";
    let told = tokio::join!(attachment.settle(vec![Complete(1)]), hub.expect(complete("l-1"), lost)).0;
    assert_eq!(told, Ok(false));
    let since = Instant::now();
    assert!(is_delivery(&next(&mut attachment, hub, poll(), &message("m-1", "l-3")).await, 2, "m-1"));
    assert_eq!(since.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn whoever_answers_a_poll_in_the_hubs_place_may_have_asked_it() {
    for (answer, may_have) in [
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 408 No\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", true),
        ("HTTP/1.1 403 No\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", true),
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n{}", false),
        ("HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let mut site = site(Settle::AfterExecution);
        assert!(site.attach(None, answer).await.is_err(), "{answer}");
        assert_eq!(site.locked_for(None).is_some(), may_have, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attachment_that_ends_tells_what_it_knows_and_gives_back_the_rest_so_that_nothing_is_overtaken() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    attachment.next().await.unwrap();
    for number in 2..=4 {
        let answer = message(&format!("m-{number}"), &format!("l-{number}"));
        next(&mut attachment, &mut site.hub, poll(), &answer).await;
    }
    // The second is done, and waits for the first.
    assert_eq!(attachment.settle(vec![Complete(2)]).await, Ok(false));
    assert!(tokio::time::timeout(Duration::ZERO, attachment.next()).await.is_err(), "a poll is under way");
    let abandon = |lock: u32| format!("POST /devices/p%231/messages/devicebound/l-{lock}/abandon?{VERSION}");
    let heard = async {
        site.hub.expect(poll(), EMPTY).await;
        site.hub.expect(abandon(1), EMPTY).await;
        site.hub.expect(complete("l-2"), EMPTY).await;
        site.hub.expect(abandon(3), EMPTY).await;
        site.hub.expect(abandon(4), EMPTY).await;
    };
    tokio::join!(attachment.detach(), heard);
    assert_eq!(site.locked_for(None), None);
}

#[tokio::test(start_paused = true)]
async fn a_poll_under_way_when_the_attachment_ends_is_heard_out_and_what_it_brings_is_given_back() {
    for (answer, comes) in [(EMPTY.to_owned(), false), (message("m-1", "l-1"), true)] {
        let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
        tokio::time::advance(Duration::from_secs(65)).await;
        let left = tokio::time::timeout(Duration::from_secs(1), attachment.next());
        let (left, (heard, _)) = tokio::join!(left, site.hub.hear());
        assert!(left.is_err() && heard == poll());
        let abandon = format!("POST /devices/p%231/messages/devicebound/l-1/abandon?{VERSION}");
        let heard = async {
            site.hub.say(&answer).await;
            if comes {
                site.hub.expect(abandon, EMPTY).await;
            }
        };
        let (came, ()) = tokio::join!(attachment.detach(), heard);
        assert_eq!((came.len(), site.locked_for(None)), (usize::from(comes), None));
    }
    // A hub that says nothing is not waited for without end.
    let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
    tokio::time::advance(Duration::from_secs(65)).await;
    let left = tokio::time::timeout(Duration::from_secs(1), attachment.next());
    assert!(tokio::join!(left, site.hub.hear()).0.is_err());
    let since = Instant::now();
    attachment.detach().await;
    assert_eq!((since.elapsed().as_secs(), site.locked_for(None)), (10, Some(Duration::from_secs(65))));
}

#[tokio::test(start_paused = true)]
async fn what_stays_locked_is_waited_for_before_the_next_attachment() {
    let seconds = |count| Some(Duration::from_secs(count));
    // Given back too often already.
    let answer = message("m-1", "l-1").replace("count: 0", "count: 3");
    let (site, mut attachment) = attached(Settle::AfterExecution, &answer).await;
    attachment.next().await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    attachment.detach().await;
    assert_eq!(site.locked_for(None), seconds(60));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(site.locked_for(None), None);

    // It could not be given back.
    let (mut site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", "l-1")).await;
    attachment.next().await.unwrap();
    site.hub.hang_up();
    let gone = async {
        for _ in 0..2 {
            site.hub.hear().await;
            site.hub.hang_up();
        }
    };
    tokio::select! {
        _ = attachment.detach() => {}
        () = async { gone.await; std::future::pending().await } => {}
    }
    assert_eq!(site.locked_for(None), seconds(65));

    // Nobody knows what a poll without an answer has brought.
    let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
    let cut = async {
        site.hub.hear().await;
        site.hub.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await;
        site.hub.hang_up();
    };
    assert!(tokio::join!(attachment.next(), cut).0.is_err());
    attachment.detach().await;
    assert_eq!(site.locked_for(None), seconds(65));

    // One that never reached the hub has brought nothing.
    let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
    site.hub.dialled.close();
    site.hub.hang_up();
    let over = loop {
        match attachment.next().await {
            Err(trouble) => break trouble,
            Ok(_) => continue,
        }
    };
    assert_eq!(over, Trouble::Closed);
    attachment.detach().await;
    assert_eq!(site.locked_for(None), None);

    // Nor what one that was under way has, or the daemon before a crash.
    let (site, attachment) = attached(Settle::AfterExecution, EMPTY).await;
    drop(attachment);
    assert_eq!(site.locked_for(None), None);
    assert_eq!(site.locked_for(Some(Instant::now())), seconds(65));
    tokio::time::advance(Duration::from_secs(66)).await;
    assert_eq!(site.locked_for(Some(Instant::now() - Duration::from_secs(66))), None);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_recorded_is_left_to_its_lock_which_is_waited_for() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    attachment.next().await.unwrap();
    for number in 2..=3 {
        let answer = message(&format!("m-{number}"), &format!("l-{number}"));
        next(&mut attachment, &mut site.hub, poll(), &answer).await;
    }
    assert!(attachment.tells_enqueued_time(), "so that no pause ends distrust");
    attachment.give_nothing_back();
    let ends = vec![Complete(1), Leave(2), Abandon(3)];
    let told = tokio::join!(attachment.settle(ends), site.hub.expect(complete("l-1"), EMPTY)).0;
    assert_eq!((told, attachment.unsettled()), (Ok(true), 2));
    // A poll that is under way is heard out, and that is all that is.
    let heard = async {
        site.hub.expect(poll(), &message("m-4", "l-4")).await;
        assert!(tokio::time::timeout(Duration::from_secs(20), site.hub.hear()).await.is_err());
    };
    let ended = async {
        assert!(tokio::time::timeout(Duration::ZERO, attachment.next()).await.is_err());
        attachment.detach().await
    };
    let (left, ()) = tokio::join!(ended, heard);
    assert_eq!((left.len(), site.locked_for(None).map(|time| time.as_secs())), (1, Some(45)));
}
