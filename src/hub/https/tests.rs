//! An attachment against a hub that says what the test wants, over a stream that is no TCP.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

mod leaving;
mod locks;
mod pace;

use super::Https;
use crate::command::message::Form;
use crate::config::{self, Credential, Settle, TransportKind};
use crate::hub::account::{Access, Account};
use crate::hub::dial::{Dial, Dialing};
use crate::hub::transport::{Attachment, Crash, Entry, Inbound, Transport as _};
use crate::hub::trouble::Trouble;
use crate::hub::Settlement::{Abandon, Complete, Leave, Reject};
use crate::ledger::row::{Event, EventKind};
use crate::net::Stream;

const MINUTES_25: Duration = Duration::from_secs(25 * 60);
const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const VERSION: &str = "api-version=2021-04-12";

/// Dials pairs of streams, whose far ends go to the hub.
struct Pairs(mpsc::Sender<DuplexStream>);

impl Dial for Pairs {
    fn dial<'a>(&'a self, _: &'a str) -> Dialing<'a> {
        Box::pin(async {
            let (near, far) = duplex(1024 * 1024);
            self.0.try_send(far).map_err(|_| Trouble::Closed)?;
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

/// The far side: one connection after the other.
struct Hub {
    dialled: mpsc::Receiver<DuplexStream>,
    stream: Option<DuplexStream>,
    connections: usize,
}

impl Hub {
    /// The next request: its first line without the protocol, and its head in lower case with the body.
    async fn hear(&mut self) -> (String, String) {
        loop {
            if self.stream.is_none() {
                self.stream = Some(self.dialled.recv().await.expect("somebody dials"));
                self.connections += 1;
            }
            match self.read().await {
                Some(request) => return request,
                None => self.stream = None,
            }
        }
    }

    async fn read(&mut self) -> Option<(String, String)> {
        let stream = self.stream.as_mut()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        Some((line, head + &String::from_utf8(body).unwrap()))
    }

    async fn say(&mut self, answer: &str) {
        self.stream.as_mut().unwrap().write_all(answer.as_bytes()).await.unwrap();
    }

    /// Hears a request with this first line, and answers it. Gives the request.
    async fn expect(&mut self, line: String, answer: &str) -> String {
        let (heard, whole) = self.hear().await;
        assert_eq!(heard, line);
        self.say(answer).await;
        whole
    }

    fn hang_up(&mut self) {
        self.stream = None;
    }
}

fn poll() -> String {
    format!("GET /devices/p%231/messages/devicebound?{VERSION}")
}

fn complete(lock: &str) -> String {
    format!("DELETE /devices/p%231/messages/devicebound/{lock}?{VERSION}")
}

fn publish() -> String {
    format!("POST /devices/p%231/messages/events?{VERSION}")
}

/// A message with this ETag.
fn message(id: &str, etag: &str) -> String {
    let etag = if etag.is_empty() { String::new() } else { format!("ETag: {etag}\r\n") };
    format!("HTTP/1.1 200 OK\r\n{etag}iothub-messageid: {id}\r\niothub-deliverycount: 0\r\nContent-Length: 1\r\n\r\nx")
}

struct Site {
    hub: Hub,
    account: Account,
    transport: Https,
}

fn site(settle: Settle) -> Site {
    site_with(settle, "")
}

/// With these lines beside the hub's name.
fn site_with(settle: Settle, lines: &str) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main.toml");
    let hub = format!("[hub]\nhost = \"localhost\"\naddress = \"localhost:1\"\ntls = false\n{lines}");
    std::fs::write(&main, hub).unwrap();
    let configured = config::load(&main, []).unwrap().config.hub;
    let (dialled, far) = mpsc::channel(16);
    Site {
        hub: Hub { dialled: far, stream: None, connections: 0 },
        account: Account {
            access: Arc::new(Access { hub: configured, trust: None }),
            transport: TransportKind::Https,
            credential: Credential::Key(vec![0; 32]),
            secondary: None,
            settle,
            form: Arc::default(),
            desired: Arc::default(),
        },
        transport: Https::over(Arc::new(Pairs(dialled)), Arc::default()),
    }
}

fn entry(account: &Account) -> Entry<'_> {
    Entry {
        hub: &account.access.hub,
        device: "p#1",
        token: None,
        is_to_stay: true,
        wants_messages: true,
        hears_desired: false,
        settle: account.settle,
        note_late: Arc::new(drop),
    }
}

impl Site {
    /// For how long the next attachment has to wait.
    fn locked_for(&self, crashed: Option<Instant>) -> Option<Duration> {
        crashed.inspect(|begun| {
            self.transport.note_crash(
                &self.account,
                "p#1",
                Crash { begun: *begun, by_others: false, for_others: false },
            )
        });
        let until = self.transport.locked_until(&self.account, "p#1");
        until.map(|until| until.duration_since(Instant::now()))
    }

    async fn attach(&mut self, token: Option<&str>, answer: &str) -> Result<Box<dyn Attachment>, Trouble> {
        let Site { hub, account, transport } = self;
        let reached = transport.reach(account).await?;
        let entry = Entry { token: token.map(str::to_owned), ..entry(account) };
        tokio::join!(reached.attach(entry), hub.expect(poll(), answer)).0
    }
}

/// An attachment to a hub that had this for its first poll, and has said that it is ready.
async fn attached(settle: Settle, answer: &str) -> (Site, Box<dyn Attachment>) {
    let mut site = site(settle);
    let mut attachment = site.attach(Some("token"), answer).await.unwrap();
    assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
    (site, attachment)
}

/// What comes next while the hub hears this request and answers it.
async fn next(attachment: &mut Box<dyn Attachment>, hub: &mut Hub, line: String, answer: &str) -> Inbound {
    tokio::join!(attachment.next(), hub.expect(line, answer)).0.unwrap()
}

fn is_delivery(inbound: &Inbound, expected: u64, expected_id: &str) -> bool {
    match inbound {
        Inbound::Delivery { number, message } => {
            (*number, message.id.as_deref()) == (Some(expected), Some(expected_id))
        }
        _ => false,
    }
}

fn event(seq: i64, message_id: Option<&str>) -> Event {
    Event {
        kind: EventKind::Result,
        seq,
        id: format!("e-{seq}"),
        message_id: message_id.map(str::to_owned),
        body: "{\"a\":1}".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_gateway_requests_are_for_the_gateway() {
    let mut site = site_with(Settle::AfterExecution, "gateway = \"edge.plant\"\n");
    let Site { hub, account, transport } = &mut site;
    let reached = transport.reach(account).await.unwrap();
    let (attached, heard) = tokio::join!(reached.attach(entry(account)), hub.expect(poll(), EMPTY));
    assert!(attached.is_ok() && heard.contains("\r\nhost: edge.plant\r\n"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_lives_by_polls_and_settles_and_publishes() {
    let (mut site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", "\"lock-1\"")).await;
    let hub = &mut site.hub;
    assert!(attachment.was_known() && attachment.takes_tokens());
    attachment.receive().await.unwrap();
    let first = attachment.next().await.unwrap();
    assert!(is_delivery(&first, 1, "m-1"));
    assert_eq!((attachment.unsettled(), attachment.oldest()), (1, Some(1)));

    // While one is unsettled, no other is asked for.
    let quiet = tokio::time::timeout(MINUTES_25 * 3, attachment.next()).await;
    assert!(quiet.is_err());

    let (told, heard) =
        tokio::join!(attachment.settle(vec![Complete(1)]), hub.expect(complete("lock-1"), "HTTP/1.1 204 \r\n\r\n"));
    assert_eq!(told, Ok(true));
    for header in ["host: localhost", "authorization: token", "if-match: lock-1", "user-agent: fieldbridge/"] {
        assert!(heard.contains(header), "{heard}");
    }
    assert_eq!((attachment.unsettled(), attachment.oldest()), (0, None));

    attachment.publish(event(70, Some("m-1"))).await.unwrap();
    attachment.show("token-2".into()).await.unwrap();
    let (published, heard) = tokio::join!(attachment.next(), hub.expect(publish(), EMPTY));
    assert!(matches!(published, Ok(Inbound::Published(70))));
    for part in [
        "authorization: token-2\r\n",
        "iothub-messageid: e-70\r\n",
        "iothub-correlationid: m-1\r\n",
        "iothub-contenttype: application/json\r\n",
        "iothub-contentencoding: utf-8\r\n",
        "iothub-app-fieldbridge: command-result\r\n",
        "\r\n\r\n{\"a\":1}",
    ] {
        assert!(heard.contains(part), "{heard}");
    }
    // Then what is behind the first message.
    assert!(is_delivery(&next(&mut attachment, hub, poll(), &message("m-2", "lock-2")).await, 2, "m-2"));
    attachment.detach().await;
}

#[tokio::test(start_paused = true)]
async fn only_an_empty_queue_waits_for_the_interval_and_a_fresh_one_is_looked_at_once_more() {
    let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
    let (hub, begun) = (&mut site.hub, Instant::now());
    // When the locks of an earlier attachment have run out.
    let unpolled = async {
        hub.expect(poll(), EMPTY).await;
        assert_eq!(begun.elapsed().as_secs(), 65);
        let second = Instant::now();
        hub.expect(poll(), &message("m-1", "\"l\"")).await;
        assert_eq!(second.elapsed().as_secs(), MINUTES_25.as_secs());
    };
    let (delivery, ()) = tokio::join!(attachment.next(), unpolled);
    assert!(is_delivery(&delivery.unwrap(), 1, "m-1"));
    // No connection was kept from poll to poll.
    assert_eq!(hub.connections, 3);
}

#[tokio::test(start_paused = true)]
async fn as_many_are_asked_for_at_once_as_are_settled_in_time() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    assert!(is_delivery(&attachment.next().await.unwrap(), 1, "m-1"));
    for number in 2..=16 {
        let (id, lock) = (format!("m-{number}"), format!("\"l-{number}\""));
        assert!(is_delivery(&next(&mut attachment, hub, poll(), &message(&id, &lock)).await, number, &id));
    }
    assert_eq!(attachment.unsettled(), 16);
    assert!(tokio::time::timeout(MINUTES_25, attachment.next()).await.is_err(), "16 are enough");

    // The third is settled first, and waits for those before it (G5); one is refused.
    assert_eq!(attachment.settle(vec![Complete(3), Reject(2)]).await, Ok(false));
    let told = async {
        hub.expect(complete("l-1"), EMPTY).await;
        hub.expect(format!("{}&reject", complete("l-2")), EMPTY).await;
        hub.expect(complete("l-3"), EMPTY).await;
    };
    assert_eq!(tokio::join!(attachment.settle(vec![Complete(1)]), told).0, Ok(true));
    assert_eq!((attachment.unsettled(), attachment.oldest()), (13, Some(4)));
    assert!(is_delivery(&next(&mut attachment, hub, poll(), &message("m-17", "l-17")).await, 17, "m-17"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_lost_when_whoever_waits_for_it_leaves() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    // The poll is asked, and half of its answer has come.
    let answer = message("m-2", "l-2");
    let (half, rest) = answer.split_at(40);
    let left = tokio::time::timeout(Duration::from_secs(1), attachment.next());
    assert!(tokio::join!(left, hub.expect(poll(), half)).0.is_err());
    // Something is settled meanwhile: the message of that poll is not kept waiting for it.
    assert_eq!(tokio::join!(attachment.settle(vec![Complete(1)]), hub.say(rest)).0, Ok(false));
    assert!(is_delivery(&attachment.next().await.unwrap(), 2, "m-2"));
    assert_eq!(tokio::join!(attachment.settle(vec![]), hub.expect(complete("l-1"), EMPTY)).0, Ok(true));
    assert_eq!(hub.connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_came_and_was_not_taken_is_left_behind() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    let left = tokio::time::timeout(Duration::from_secs(1), attachment.next());
    assert!(tokio::join!(left, hub.hear()).0.is_err(), "the poll is under way");
    let came = message("m-2", "l-2");
    assert_eq!(tokio::join!(attachment.settle(vec![Complete(1)]), hub.say(&came)).0, Ok(false));
    assert_eq!(attachment.left_behind().and_then(|message| message.id).as_deref(), Some("m-2"));
    assert_eq!(attachment.left_behind(), None);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_the_hub_is_slow_to_answer_holds_nothing_up_and_is_told_of_later() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    let (told, heard) = tokio::join!(attachment.settle(vec![Complete(1)]), hub.hear());
    assert_eq!((told, heard.0), (Ok(false), complete("l-1")));
    assert_eq!(attachment.unsettled(), 1, "the hub has not answered");
    let rest = async {
        hub.say(EMPTY).await;
        hub.expect(poll(), &message("m-2", "l-2")).await;
    };
    assert!(is_delivery(&tokio::join!(attachment.next(), rest).0.unwrap(), 2, "m-2"));
    assert_eq!(attachment.settle(vec![]).await, Ok(true), "what was told meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_has_run_out_is_no_trouble_and_the_message_is_asked_for_again_at_once() {
    for status in [412, 404] {
        let (mut site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", "l-1")).await;
        let hub = &mut site.hub;
        attachment.next().await.unwrap();
        let lost = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\n{{}}");
        let told = tokio::join!(attachment.settle(vec![Complete(1)]), hub.expect(complete("l-1"), &lost)).0;
        assert_eq!((told, attachment.unsettled()), (Ok(false), 0));
        assert!(is_delivery(&next(&mut attachment, hub, poll(), &message("m-1", "l-2")).await, 2, "m-1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_lock_is_not_run() {
    for etag in ["", "\"\""] {
        let (_site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", etag)).await;
        let Ok(Inbound::Unclear { message, why }) = attachment.next().await else { panic!("it can't be settled") };
        assert_eq!(message.id.as_deref(), Some("m-1"));
        assert!(Trouble::Ambiguous(why).to_string().contains("ETag"));
        assert_eq!(attachment.unsettled(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_hub_has_closed_in_between_is_made_anew_without_a_word() {
    let (mut site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    hub.hang_up();
    let told = tokio::join!(attachment.settle(vec![Complete(1)]), hub.expect(complete("l-1"), EMPTY)).0;
    assert_eq!((told, hub.connections), (Ok(true), 2));

    // Closed at the very moment of the request: it does no harm to ask that twice.
    attachment.publish(event(1, None)).await.unwrap();
    let told = async {
        assert_eq!(hub.hear().await.0, publish());
        hub.hang_up();
        hub.expect(publish(), EMPTY).await;
    };
    assert!(matches!(tokio::join!(attachment.next(), told).0, Ok(Inbound::Published(1))));
    assert_eq!(hub.connections, 3);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_can_not_be_taken_now_ends_nothing() {
    let page = "HTTP/1.1 403 No\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    let quota = "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n{}";
    for (answer, expected) in [(page, true), (quota, false)] {
        let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
        attachment.publish(event(1, None)).await.unwrap();
        let told = next(&mut attachment, &mut site.hub, publish(), answer).await;
        let Inbound::EventPostponed { event: 1, is_suspect, .. } = told else { panic!("{answer}") };
        assert_eq!(is_suspect, expected, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_connection_that_is_closed_or_cut_or_garbled_or_silent_ends_the_attachment() {
    for (answer, expected) in [
        ("", "broke"),
        ("HTTP/1.1 200 OK\r\nETag: \"l\"\r\niothub-messageid: m\r\nContent-Length: 9\r\n\r\nhalf", "broke"),
        ("\u{15}\u{3}\u{1}\r\n\r\n", "not understood"),
    ] {
        let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
        let hub = &mut site.hub;
        let heard = async {
            hub.expect(poll(), answer).await;
            hub.hang_up();
        };
        let Err(trouble) = tokio::join!(attachment.next(), heard).0 else { panic!("{answer:?} was taken") };
        assert!(trouble.to_string().contains(expected), "{trouble}");
    }
    let (mut site, mut attachment) = attached(Settle::AfterExecution, EMPTY).await;
    let heard = async { site.hub.hear().await };
    let Err(trouble) = tokio::join!(attachment.next(), heard).0 else { panic!("nothing came") };
    assert_eq!(trouble, Trouble::Slow(60));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_chunked_and_without_a_length_and_one_that_is_too_large_is_a_message_still() {
    let headers = "iothub-messageid: m\r\nETag: \"l\"\r\n";
    let chunked =
        format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n");
    let endless = format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\nabc");
    let large = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 300000\r\n\r\n{}", "x".repeat(300_000));
    for (answer, length) in [(chunked, 3), (endless, 3), (large, 256 * 1024)] {
        let mut site = site(Settle::AfterExecution);
        let Site { hub, account, transport } = &mut site;
        let reached = transport.reach(account).await.unwrap();
        let entry = entry(account);
        let heard = async {
            let heard = hub.expect(poll(), &answer).await;
            hub.hang_up();
            heard
        };
        let (attachment, heard) = tokio::join!(reached.attach(entry), heard);
        assert!(!heard.contains("authorization"), "{heard}");
        let mut attachment = attachment.unwrap();
        assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
        let Ok(Inbound::Delivery { number: Some(1), message }) = attachment.next().await else { panic!("it came") };
        assert_eq!((message.body.len(), message.order(&Form::default()).is_err()), (length, true));
        // It is settled over another connection, as any other.
        let told = tokio::join!(attachment.settle(vec![Reject(1)]), hub.expect(complete("l") + "&reject", EMPTY)).0;
        assert_eq!(told, Ok(true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_says_no_ends_the_attachment_or_keeps_it_from_being_made() {
    for (answer, expected) in [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "key or certificate"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "quota"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "device id"),
        ("HTTP/1.1 429 Slow\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", "for 9 s"),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status page"),
        ("HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n", "log-in"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", "hub's place"),
    ] {
        let mut site = site(Settle::AfterExecution);
        let Err(trouble) = site.attach(Some("token"), answer).await else { panic!("{answer}") };
        assert!(trouble.to_string().contains(expected), "{trouble}");

        let (mut site, mut attachment) = attached(Settle::AfterExecution, &message("m-1", "l-1")).await;
        attachment.next().await.unwrap();
        let told = tokio::join!(attachment.settle(vec![Complete(1)]), site.hub.expect(complete("l-1"), answer)).0;
        if !answer.contains(" 404 ") {
            assert_eq!(told, Err(trouble), "a page that says 200 completes nothing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_and_polls_take_turns_and_one_that_is_refused_is_told_apart() {
    let (mut site, mut attachment) = attached(Settle::AfterAccept, &message("m-1", "l-1")).await;
    let hub = &mut site.hub;
    attachment.next().await.unwrap();
    for seq in 1..=3 {
        attachment.publish(event(seq, Some("an id\nof two lines"))).await.unwrap();
    }
    let (published, heard) = tokio::join!(attachment.next(), hub.expect(publish(), EMPTY));
    assert!(matches!(published, Ok(Inbound::Published(1))));
    assert!(!heard.contains("correlation"), "no header holds it: {heard}");
    assert!(is_delivery(&next(&mut attachment, hub, poll(), &message("m-2", "l-2")).await, 2, "m-2"));
    assert!(matches!(next(&mut attachment, hub, publish(), EMPTY).await, Inbound::Published(2)));
    let turns = async {
        hub.expect(poll(), EMPTY).await;
        hub.expect(publish(), "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await;
    };
    let Ok(Inbound::EventRefused { event: 3, why }) = tokio::join!(attachment.next(), turns).0 else {
        panic!("it was refused")
    };
    assert!(why.starts_with("HTTP 413"), "{why}");
}
