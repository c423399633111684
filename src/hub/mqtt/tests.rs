//! What an ended connection has left at the hub, for those who reach the device otherwise.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use super::Mqtt;
use crate::config::{self, Credential, Settle, TransportKind};
use crate::hub::account::{Access, Account};
use crate::hub::dial::{Dial, Dialing};
use crate::hub::transport::{Attachment, Crash, Entry, Inbound, Rest, Transport};
use crate::hub::trouble::Trouble;
use crate::hub::Settlement::Complete;
use crate::net::Stream;

/// Dials what was put here.
#[derive(Default)]
struct Put(Mutex<Option<DuplexStream>>);

impl Dial for Put {
    fn dial<'a>(&'a self, _: &'a str) -> Dialing<'a> {
        let stream = self.0.lock().unwrap().take();
        Box::pin(async { Ok(Box::new(stream.ok_or(Trouble::Closed)?) as Box<dyn Stream>) })
    }
}

struct Site {
    dial: Arc<Put>,
    transport: Mqtt,
    account: Account,
}

/// A device with a key, at a hub that is nowhere.
pub(super) fn account() -> Account {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main.toml");
    std::fs::write(&main, "[hub]\nhost = \"localhost\"\naddress = \"localhost:1\"\ntls = false\n").unwrap();
    let hub = config::load(&main, []).unwrap().config.hub;
    Account {
        access: Arc::new(Access { hub, trust: None }),
        transport: TransportKind::Mqtt,
        credential: Credential::Key(vec![0; 32]),
        secondary: None,
        settle: Settle::AfterExecution,
        form: Arc::default(),
        desired: Arc::default(),
    }
}

fn site() -> Site {
    let dial = Arc::new(Put::default());
    Site { transport: Mqtt::over(dial.clone()), dial, account: account() }
}

/// What a hub sends: that it lets in and doesn't, and two messages.
const LETS_IN: &[u8] = &[0x20, 2, 0, 0];
const REFUSES: &[u8] = &[0x20, 2, 0, 5];
const FIRST: &[u8] = b"\x32\x24\x00\x1fdevices/d/messages/devicebound/\x00\x01a";
const SECOND: &[u8] = b"\x32\x24\x00\x1fdevices/d/messages/devicebound/\x00\x02b";

impl Site {
    /// Attaches at a hub that answers to CONNECT with this, if with anything.
    async fn attach(&self, answer: &[u8]) -> (Result<Box<dyn Attachment>, Trouble>, DuplexStream) {
        let (near, mut far) = duplex(1024);
        self.dial.0.lock().unwrap().replace(near);
        let reached = self.transport.reach(&self.account).await.unwrap();
        let entry = Entry {
            hub: &self.account.access.hub,
            device: "d",
            token: Some("token".into()),
            is_to_stay: true,
            wants_messages: true,
            hears_desired: false,
            settle: self.account.settle,
            note_late: Arc::new(drop),
        };
        far.write_all(answer).await.unwrap();
        let attached = tokio::time::timeout(Duration::from_secs(60), reached.attach(entry)).await;
        (attached.unwrap_or(Err(Trouble::Slow(60))), far)
    }

    /// The same, and takes so many messages.
    async fn attach_and_take(&self, messages: &[&[u8]]) -> (Box<dyn Attachment>, DuplexStream) {
        let (attached, mut far) = self.attach(LETS_IN).await;
        let mut attachment = attached.unwrap_or_else(|trouble| panic!("{trouble}"));
        for message in messages {
            far.write_all(message).await.unwrap();
            assert!(matches!(attachment.next().await, Ok(Inbound::Delivery { .. })));
        }
        (attachment, far)
    }

    /// For how many seconds another transport waits, and what the next daemon is told.
    fn left(&self) -> (u64, Rest) {
        let by = |transport| Account { transport, access: self.account.access.clone(), ..self.account() };
        for again in [TransportKind::Mqtt, TransportKind::MqttWs] {
            assert_eq!(self.transport.locked_until(&by(again), "d"), None, "the next connection takes over");
        }
        let [until, other] = [TransportKind::Https, TransportKind::AmqpWs]
            .map(|transport| self.transport.locked_until(&by(transport), "d"));
        assert_eq!(until, other);
        (until.map_or(0, |until| until.duration_since(Instant::now()).as_secs()), self.transport.rest())
    }

    fn account(&self) -> Account {
        Account {
            access: self.account.access.clone(),
            transport: self.account.transport,
            credential: self.account.credential.clone(),
            secondary: None,
            settle: self.account.settle,
            form: self.account.form.clone(),
            desired: Arc::default(),
        }
    }
}

/// What a hub does that hears DISCONNECT: it sends what is on its way, and closes.
async fn close_in_order(mut far: DuplexStream, on_its_way: &[u8]) {
    while far.read_u8().await.unwrap() != 0xe0 {}
    far.write_all(on_its_way).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_in_order_with_all_settled_leaves_nothing_to_wait_for() {
    let site = site();
    let (mut attachment, far) = site.attach_and_take(&[FIRST]).await;
    assert_eq!(attachment.settle(vec![Complete(1)]).await, Ok(true));
    let begun = Instant::now();
    let (came, ()) = tokio::join!(attachment.detach(), close_in_order(far, b""));
    assert_eq!((came.len(), site.left(), begun.elapsed().as_secs()), (0, (0, Rest::Nothing), 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_unsettled_when_a_connection_ends_is_waited_for_by_other_transports() {
    // On its way when the hub hears that it is over, too.
    for (taken, on_its_way) in [(&[FIRST, SECOND][..], &b""[..]), (&[FIRST], SECOND)] {
        let site = site();
        let (mut attachment, far) = site.attach_and_take(taken).await;
        assert_eq!(attachment.settle(vec![Complete(1)]).await, Ok(true));
        let (came, ()) = tokio::join!(attachment.detach(), close_in_order(far, on_its_way));
        assert_eq!((taken.len() + came.len(), site.left()), (2, (65, Rest::ForOthers)));
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(site.left(), (0, Rest::Nothing));
    }
    // The hub ended it by itself, perhaps when it had just sent once more what it had not heard of for a minute.
    let site = site();
    let (mut attachment, far) = site.attach_and_take(&[FIRST]).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    drop(far);
    assert!(matches!(attachment.next().await, Err(Trouble::Closed)));
    drop(attachment);
    assert_eq!(site.left(), (65, Rest::ForOthers));
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_end_the_hub_does_not_hear_of_may_hold_messages_until_the_hub_misses_it() {
    let site = site();
    // It is half-open: whatever the hub may have sent since, it holds.
    let (attachment, _far) = site.attach_and_take(&[]).await;
    let begun = Instant::now();
    attachment.detach().await;
    assert_eq!((site.left(), begun.elapsed().as_secs()), ((95, Rest::ForOthers), 1));
    // The next connection ends it at the hub, and gets what it held; or has ended before that came.
    let (attachment, far) = site.attach_and_take(&[]).await;
    assert_eq!(site.left(), (0, Rest::Nothing));
    tokio::time::advance(Duration::from_secs(20)).await;
    tokio::join!(attachment.detach(), close_in_order(far, b""));
    assert_eq!(site.left(), (75, Rest::ForOthers));
    let (attachment, far) = site.attach_and_take(&[]).await;
    tokio::time::advance(Duration::from_secs(75)).await;
    tokio::join!(attachment.detach(), close_in_order(far, b""));
    assert_eq!(site.left(), (0, Rest::Nothing));
    // Nobody waits for the answer to a goodbye where a ping was not answered.
    let (mut attachment, _far) = site.attach_and_take(&[]).await;
    for ends in [false, true] {
        tokio::time::sleep_until(attachment.keep_alive_at()).await;
        assert_eq!(attachment.keep_alive().await.is_err(), ends);
    }
    let begun = Instant::now();
    attachment.detach().await;
    assert_eq!((site.left(), begun.elapsed().as_secs()), ((95, Rest::ForOthers), 0));
    tokio::time::advance(Duration::from_secs(95)).await;
    assert_eq!(site.left(), (0, Rest::Nothing));
}

#[tokio::test(start_paused = true)]
async fn a_hub_may_hold_messages_for_whoever_it_has_not_refused() {
    // It may have let it in, and not be heard.
    let site = site();
    assert!(matches!(site.attach(b"").await.0, Err(Trouble::Slow(60))));
    assert_eq!(site.left(), (95, Rest::ForOthers));
    for answer in [Some(REFUSES), None] {
        let site = self::site();
        match answer {
            Some(answer) => assert!(matches!(site.attach(answer).await.0, Err(Trouble::Refused(5)))),
            // It closes instead.
            None => {
                let (near, far) = duplex(1024);
                site.dial.0.lock().unwrap().replace(near);
                let reached = site.transport.reach(&site.account).await.unwrap();
                let hub = &site.account.access.hub;
                let (settle, token, note_late) = (site.account.settle, None, Arc::new(drop));
                let entry = Entry {
                    hub,
                    device: "d",
                    token,
                    is_to_stay: true,
                    wants_messages: true,
                    hears_desired: false,
                    settle,
                    note_late,
                };
                let closed = async {
                    let mut far = far;
                    assert_eq!(far.read_u8().await.unwrap(), 0x10, "CONNECT");
                    far.shutdown().await.unwrap();
                    std::future::pending::<()>().await;
                };
                let attached = tokio::select! {
                    attached = reached.attach(entry) => attached,
                    () = closed => unreachable!(),
                };
                assert!(matches!(attached, Err(Trouble::Closed)));
            }
        }
        assert_eq!(site.left(), (0, Rest::Nothing));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_other_transports_wait_until_the_hub_has_missed_the_connection_or_it_was_taken_over() {
    let site = site();
    let crash = Crash { begun: Instant::now(), by_others: false, for_others: false };
    site.transport.note_crash(&site.account, "d", crash);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(site.left(), (90, Rest::ForOthers));
    let (_attachment, _far) = site.attach_and_take(&[]).await;
    assert_eq!(site.left(), (0, Rest::Nothing));
}
