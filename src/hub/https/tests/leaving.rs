//! Whoever wants no messages takes none out of the hub's queue.

use super::*;

const LOST: &str = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n";

/// An answer with the hub's own word for what is wrong.
fn no(status: u16, code: &str) -> String {
    let body = format!("{{\"Message\":\"ErrorCode:{code};\"}}");
    format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The lock that a request under one names.
fn lock_in(line: &str) -> String {
    let start = "DELETE /devices/p%231/messages/devicebound/";
    let lock = line.strip_prefix(start).and_then(|rest| rest.strip_suffix(&format!("?{VERSION}")));
    lock.unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// What becomes of an attachment that wants no messages, whose first request the hub answers so.
async fn look_in(site: &mut Site, answer: &str) -> (Result<Box<dyn Attachment>, Trouble>, String) {
    let Site { hub, account, transport } = site;
    let reached = transport.reach(account).await.unwrap();
    let entry = Entry { wants_messages: false, token: Some("token".into()), ..entry(account) };
    let heard = async {
        let (line, head) = hub.hear().await;
        hub.say(answer).await;
        let lock = lock_in(&line);
        assert!(head.contains("authorization: token") && head.contains(&format!("if-match: {lock}")), "{head}");
        lock
    };
    tokio::join!(reached.attach(entry), heard)
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_no_messages_is_let_in_by_a_lock_that_no_message_has() {
    let mut site = site(Settle::AfterExecution);
    let mut locks = Vec::new();
    for answer in
        [LOST.to_owned(), no(412, "DeviceMessageLockLost"), no(404, "DeviceMessageNotFound"), EMPTY.to_owned()]
    {
        let (attached, lock) = look_in(&mut site, &answer).await;
        let mut attachment = attached.unwrap_or_else(|trouble| panic!("{answer}: {trouble}"));
        assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
        // It asks for no message, however long it stays, and publishes what there is.
        let quiet = tokio::time::timeout(MINUTES_25 * 3, attachment.next()).await;
        assert!(quiet.is_err());
        attachment.publish(event(1, None)).await.unwrap();
        assert!(matches!(next(&mut attachment, &mut site.hub, publish(), EMPTY).await, Inbound::Published(1)));
        attachment.detach().await;
        assert_eq!(site.locked_for(None), None);
        site.hub.hang_up();
        locks.push(lock);
    }
    locks.dedup();
    assert_eq!(locks.len(), 4, "each is made anew: {locks:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_no_messages_is_told_what_the_hub_says_of_the_device() {
    for (answer, expected) in [
        (no(401, "IotHubUnauthorizedAccess"), "key or certificate"),
        (no(404, "DeviceNotFound"), "device id"),
        (no(403, "IotHubQuotaExceeded"), "quota"),
        (no(503, "ServiceUnavailable"), "status page"),
        ("HTTP/1.1 404 No\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".into(), "hub's place"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".into(), "hub's place"),
        // Whoever answers so has not looked for the lock.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".into(), "hub's place"),
        ("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".into(), "hub's place"),
    ] {
        let mut site = site(Settle::AfterExecution);
        let Err(trouble) = look_in(&mut site, &answer).await.0 else { panic!("{answer}") };
        assert!(trouble.to_string().contains(expected), "{answer}: {trouble}");
        assert_eq!(site.locked_for(None), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_says_nothing_of_the_device_is_asked_for_a_message_which_is_given_back_at_once() {
    for answer in [no(400, "ArgumentInvalid"), no(404, ""), no(405, "")] {
        let mut site = site(Settle::AfterExecution);
        let Site { hub, account, transport } = &mut site;
        let reached = transport.reach(account).await.unwrap();
        let heard = async {
            lock_in(&hub.hear().await.0);
            hub.say(&answer).await;
            hub.expect(poll(), &message("m-1", "l-1")).await;
        };
        let entry = Entry { wants_messages: false, ..entry(account) };
        let attachment = tokio::join!(reached.attach(entry), heard).0.unwrap();
        let abandon = format!("POST /devices/p%231/messages/devicebound/l-1/abandon?{VERSION}");
        let (came, _) = tokio::join!(attachment.detach(), hub.expect(abandon, EMPTY));
        assert_eq!((came.len(), site.locked_for(None)), (1, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_in_place_of_a_lock_that_goes_unanswered_lets_nobody_in() {
    let mut site = site(Settle::AfterExecution);
    let Site { hub, account, transport } = &mut site;
    let reached = transport.reach(account).await.unwrap();
    let heard = async {
        hub.hear().await;
        hub.say(&no(400, "ArgumentInvalid")).await;
        assert_eq!(hub.hear().await.0, poll());
        hub.hang_up();
    };
    let entry = Entry { wants_messages: false, ..entry(account) };
    assert!(matches!(tokio::join!(reached.attach(entry), heard).0, Err(Trouble::Broken(_))));
}

#[tokio::test(start_paused = true)]
async fn no_message_is_asked_for_once_nobody_takes_more_and_what_is_under_way_is_settled_still() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    assert!(is_delivery(&next(&mut attachment, hub, poll(), &message("m-2", "l-2")).await, 2, "m-2"));
    attachment.take_no_more().await.unwrap();
    assert!(tokio::time::timeout(MINUTES_25 * 3, attachment.next()).await.is_err());
    let told = tokio::join!(attachment.settle(vec![Complete(1)]), hub.expect(complete("l-1"), EMPTY)).0;
    assert_eq!(told, Ok(true));
    // Nor is one asked for while events go out, which take turns with polls.
    for seq in [1, 2] {
        attachment.publish(event(seq, None)).await.unwrap();
        assert!(matches!(next(&mut attachment, hub, publish(), EMPTY).await, Inbound::Published(of) if of == seq));
    }
    let told = tokio::join!(attachment.settle(vec![Complete(2)]), hub.expect(complete("l-2"), EMPTY)).0;
    assert_eq!(told, Ok(true));
    attachment.detach().await;
    assert_eq!(site.locked_for(None), None);
}
