//! Identities over AMQP against a hub that is written out: it answers as a hub does, unless a test says otherwise.

mod calls;
mod hub;
mod leaving;
mod order;
mod pressure;
mod sharing;
mod tokens;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::time::{timeout, Instant};

use super::Amqp;
use crate::amqp::frame::{Frame, Item, Protocol, Sasl};
use crate::amqp::message::text;
use crate::amqp::types::definitions::{AmqpError, Error, ErrorCondition, LinkError};
use crate::amqp::types::messaging::{Accepted, DeliveryState, Rejected, Released};
use crate::amqp::types::performatives::{Close, Performative};
use crate::amqp::types::sasl::SaslMechanisms;
use crate::command::Message;
use crate::config::{self, Credential, Settle, TransportKind};
use crate::handles::Places;
use crate::hub::account::{Access, Account};
use crate::hub::dial::{Dial, Dialing};
use crate::hub::transport::{Attachment, Entry, Inbound, Transport as _};
use crate::hub::trouble::Trouble;
use crate::hub::Settlement;
use crate::ledger::row::{Event, EventKind};
use crate::net::Stream;
use hub::{Heard, Hub};

/// Dials one stream after the other.
struct Local(Mutex<VecDeque<DuplexStream>>);

impl Dial for Local {
    fn dial<'a>(&'a self, _: &'a str) -> Dialing<'a> {
        let stream = self.0.lock().unwrap().pop_front();
        Box::pin(async { Ok(Box::new(stream.ok_or(Trouble::Closed)?) as Box<dyn Stream>) })
    }
}

/// A transport with so many connections at hand, and the hub's ends of them.
fn transport(connections: usize) -> (Amqp, Vec<Hub>) {
    let (near, far): (VecDeque<_>, Vec<_>) = (0..connections).map(|_| tokio::io::duplex(100_000)).unzip();
    (amqp_over(near, Places::new(usize::MAX)), far.into_iter().map(Hub::on).collect())
}

fn amqp_over(streams: VecDeque<DuplexStream>, places: Arc<Places>) -> Amqp {
    Amqp::over(Arc::new(Local(Mutex::new(streams))), places)
}

fn access() -> Arc<Access> {
    access_with("")
}

/// A hub with these lines beside.
fn access_with(lines: &str) -> Arc<Access> {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main.toml");
    let hub = format!("[hub]\nhost = \"localhost\"\naddress = \"localhost:1\"\ntls = false\n{lines}");
    std::fs::write(&main, hub).unwrap();
    Arc::new(Access { hub: config::load(&main, []).unwrap().config.hub, trust: None })
}

fn account(access: &Arc<Access>) -> Account {
    Account {
        access: access.clone(),
        transport: TransportKind::Amqp,
        credential: Credential::Key(vec![0; 32]),
        secondary: None,
        settle: Settle::AfterExecution,
        form: Arc::default(),
        desired: Arc::default(),
    }
}

fn entry<'a>(account: &'a Account, device: &'a str) -> Entry<'a> {
    let token = matches!(account.credential, Credential::Key(_)).then(|| format!("token of {device}"));
    let hub = &account.access.hub;
    let (settle, note_late) = (account.settle, Arc::new(drop));
    Entry { hub, device, token, is_to_stay: true, wants_messages: true, hears_desired: false, settle, note_late }
}

async fn attach(amqp: &Amqp, account: &Account, device: &str) -> Result<Box<dyn Attachment>, Trouble> {
    amqp.reach(account).await?.attach(entry(account, device)).await
}

/// One that is attached, and asks for its messages.
async fn ready(amqp: &Amqp, account: &Account, device: &str) -> Box<dyn Attachment> {
    let mut attachment = attach(amqp, account, device).await.unwrap();
    attachment.receive().await.unwrap();
    assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));
    attachment
}

/// Both at once: the hub's end goes on until ours has come to its end.
async fn with_hub<T>(hub: &mut Hub, ours: impl std::future::Future<Output = T>) -> T {
    tokio::pin!(ours);
    loop {
        tokio::select! {
            biased;
            done = &mut ours => return done,
            heard = hub.hear() => drop(heard),
        }
    }
}

fn event(seq: i64) -> Event {
    Event { kind: EventKind::Result, seq, id: format!("e-{seq}"), message_id: Some("m".into()), body: "{}".into() }
}

#[tokio::test(start_paused = true)]
async fn behind_a_gateway_the_connection_and_its_tokens_are_for_the_hub() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access_with("gateway = \"edge.plant\"\n")), &mut hubs[0]);
    assert_eq!(account.access.hub.server_name(), "edge.plant");
    // Its end of the connection wants the hub's name in Open.
    let heard = async {
        hub.until(|heard| match heard {
            Heard::Token { of, .. } => Some(of.clone()),
            _ => None,
        })
        .await
    };
    let (device, of) = tokio::join!(attach(&amqp, &account, "d"), heard);
    assert!(device.is_ok());
    assert_eq!(of, "localhost%2Fdevices%2Fd");
}

#[tokio::test(start_paused = true)]
async fn identities_share_a_connection_which_the_last_of_them_closes() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let devices = async { tokio::join!(ready(&amqp, &account, "one"), ready(&amqp, &account, "two")) };
    let script = async {
        let mut seen = Vec::new();
        while seen.len() < 4 {
            match hub.hear().await {
                Heard::Token { of, token, .. } => seen.push(format!("{of}: {token}")),
                Heard::Link { address, .. } => seen.push(address),
                _ => {}
            }
        }
        seen.sort();
        seen
    };
    let ((mut one, two), seen) = tokio::join!(devices, script);
    assert_eq!(
        seen,
        [
            "/devices/one/messages/devicebound",
            "/devices/two/messages/devicebound",
            "localhost%2Fdevices%2Fone: token of one",
            "localhost%2Fdevices%2Ftwo: token of two"
        ]
    );
    assert!(one.was_known() && one.takes_tokens());
    // One leaves; the other's events go on.
    with_hub(hub, two.detach()).await;
    one.publish(event(5)).await.unwrap();
    let published = async {
        let (channel, id) = hub
            .until(|heard| match heard {
                Heard::Event { channel, id, message, .. } => {
                    assert_eq!(message.correlation_id.as_ref().and_then(text).as_deref(), Some("m"));
                    Some((*channel, *id))
                }
                _ => None,
            })
            .await;
        hub.tell(channel, id, DeliveryState::Accepted(Accepted {})).await;
    };
    let (inbound, ()) = tokio::join!(one.next(), published);
    assert!(matches!(inbound, Ok(Inbound::Published(5))));
    let closed = async {
        hub.until(|heard| match heard {
            Heard::Closed { why } => Some(why.clone()),
            _ => None,
        })
        .await
    };
    let (_, why) = tokio::join!(one.detach(), closed);
    assert_eq!(why, None);
    assert!(matches!(attach(&amqp, &account, "one").await, Err(Trouble::Closed)), "the next one is dialled anew");
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_settled_in_the_order_of_their_receipt() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let script = async {
        let link = hub.link("d").await;
        let credit = hub
            .until(|heard| match heard {
                Heard::Credit { channel, credit } if *channel == link.0 => Some(*credit),
                _ => None,
            })
            .await;
        assert_eq!(credit, 4);
        for id in 1..=3 {
            hub.deliver(link, 10 + id, &format!("m-{id}"), id as usize).await;
        }
        link
    };
    let (mut device, link) = tokio::join!(ready(&amqp, &account, "d"), script);
    for expected in 1..=3 {
        let Ok(Inbound::Delivery { number, message }) = device.next().await else { panic!("a delivery") };
        assert_eq!((number, message.id), (Some(expected), Some(format!("m-{expected}"))));
        assert_eq!((message.command.as_deref(), &message.body[..]), (Some("set"), &b"12.5"[..]));
    }
    assert_eq!((device.unsettled(), device.oldest()), (3, Some(1)));
    assert!(!device.settle(vec![Settlement::Reject(2)]).await.unwrap());
    assert!(device.settle(vec![Settlement::Complete(1)]).await.unwrap());
    assert_eq!((hub.told().await, hub.told().await), ((11, "accepted"), (12, "rejected")));
    // What is given back ends nothing here.
    hub.deliver(link, 14, "m-4", 1).await;
    assert!(matches!(device.next().await, Ok(Inbound::Delivery { number: Some(4), .. })));
    assert!(!device.settle(vec![Settlement::Complete(4)]).await.unwrap());
    assert!(device.settle(vec![Settlement::Abandon(3)]).await.unwrap());
    assert_eq!((hub.told().await, hub.told().await), ((13, "released"), (14, "accepted")));
    assert_eq!((device.unsettled(), device.oldest()), (0, None));
    hub.deliver(link, 15, "m-5", 1).await;
    assert!(matches!(device.next().await, Ok(Inbound::Delivery { number: Some(5), .. })));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_came_too_often_is_not_given_back_but_left_to_its_lock() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let script = async {
        let (channel, handle) = hub.link("d").await;
        let header = [0x00, 0x53, 0x70, 0xc0, 7, 5, 0x40, 0x40, 0x40, 0x40, 0x52, 3];
        hub.transfer(channel, handle, 1, &header, 1).await;
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    let Ok(Inbound::Delivery { message, .. }) = device.next().await else { panic!("a delivery") };
    assert_eq!(message.delivery_count, Some(3));
    assert!(!device.settle(vec![Settlement::Abandon(1)]).await.unwrap());
    assert_eq!(device.unsettled(), 0);
    let silence = timeout(Duration::from_secs(20), hub.told()).await;
    assert!(silence.is_err(), "the hub is told nothing");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_or_not_answered_is_one_devices_trouble() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    hub.silent_to = "quiet";
    let begun = Instant::now();
    let devices = async {
        let (bad, quiet) = (attach(&amqp, &account, "bad"), attach(&amqp, &account, "quiet"));
        let (good, bad, quiet) = tokio::join!(ready(&amqp, &account, "good"), bad, quiet);
        (good, bad.err().unwrap(), quiet.err().unwrap())
    };
    let (mut good, bad, quiet) = with_hub(hub, devices).await;
    assert!(matches!(&bad, Trouble::TokenRefused { status: 401, description } if description == "as it is"), "{bad}");
    assert_eq!((quiet, begun.elapsed().as_secs()), (Trouble::TokenUnanswered(30), 30));
    // A token is renewed in place; a refusal ends that device's part alone.
    good.show("new token".into()).await.unwrap();
    assert_eq!(hub.token().await.0, "new token");
    let mut other = with_hub(hub, ready(&amqp, &account, "other")).await;
    other.show("expired".into()).await.unwrap();
    let refused = with_hub(hub, other.next()).await.err();
    assert!(matches!(refused, Some(Trouble::TokenRefused { status: 401, .. })));
    assert!(timeout(Duration::from_secs(5), with_hub(hub, good.next())).await.is_err(), "it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_detached_is_one_devices_trouble() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut other = with_hub(hub, ready(&amqp, &account, "other")).await;
    type IsRight = fn(&Trouble) -> bool;
    let conditions: [(ErrorCondition, IsRight); 5] = [
        (AmqpError::UnauthorizedAccess.into(), |trouble| matches!(trouble, Trouble::Unauthorized(_))),
        (AmqpError::NotFound.into(), |trouble| matches!(trouble, Trouble::NotFound(_))),
        (LinkError::Stolen.into(), |trouble| matches!(trouble, Trouble::Stolen)),
        (ErrorCondition::Custom("com.microsoft:device-container-throttled".into()), |trouble| {
            matches!(trouble, Trouble::Throttled(_))
        }),
        (
            ErrorCondition::Custom("com.microsoft:anything".into()),
            |trouble| matches!(trouble, Trouble::Detached { condition, .. } if condition == "com.microsoft:anything"),
        ),
    ];
    for (condition, is_right) in conditions {
        let mut device = with_hub(hub, attach(&amqp, &account, "d")).await.unwrap();
        device.receive().await.unwrap();
        let link = hub.link("d").await;
        hub.detach(link, condition).await;
        assert!(matches!(device.next().await, Ok(Inbound::Ready)));
        let trouble = device.next().await.err().unwrap();
        assert!(is_right(&trouble), "{trouble}");
        with_hub(hub, device.detach()).await;
    }
    assert!(timeout(Duration::from_secs(5), with_hub(hub, other.next())).await.is_err(), "it goes on");
}

/// A device attaches, has its link ended by the hub, and leaves.
async fn has_a_trouble_of_its_own(amqp: &Amqp, account: &Account, hub: &mut Hub) {
    let mut device = with_hub(hub, attach(amqp, account, "d")).await.unwrap();
    device.receive().await.unwrap();
    let link = hub.link("d").await;
    assert!(matches!(device.next().await, Ok(Inbound::Ready)));
    hub.detach(link, AmqpError::InternalError).await;
    assert!(matches!(device.next().await, Err(Trouble::Detached { .. })));
    with_hub(hub, device.detach()).await;
}

#[tokio::test(start_paused = true)]
async fn the_only_one_comes_back_to_its_connection_after_a_trouble_of_its_own() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    for _ in 0..2 {
        has_a_trouble_of_its_own(&amqp, &account, hub).await;
    }
    let begun = Instant::now();
    hub.until(|heard| matches!(heard, Heard::Closed { .. }).then_some(())).await;
    assert_eq!(begun.elapsed().as_secs(), 60, "and when it does not come, it is closed");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_never_answers_to_an_attach_is_given_up() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_hub(hub, attach(&amqp, &account, "d")).await.unwrap();
    device.receive().await.unwrap();
    let due = device.keep_alive_at();
    assert!(timeout(due - Instant::now(), device.next()).await.is_err());
    assert_eq!(device.keep_alive().await, Err(Trouble::Slow(60)));
}

#[tokio::test(start_paused = true)]
async fn all_learn_why_their_connection_ended() {
    let why = |error: &str| Some(Error::new(ErrorCondition::Custom(error.into()), Some("bye".to_owned()), None));
    for case in ["cut", "closed", "closed for a reason", "no AMQP", "too large", "silent"] {
        let (amqp, mut hubs) = transport(2);
        let account = account(&access());
        let mut hub = hubs.remove(0);
        let devices = async { tokio::join!(ready(&amqp, &account, "one"), ready(&amqp, &account, "two")) };
        let (mut one, mut two) = with_hub(&mut hub, devices).await;
        let mut held = None;
        match case {
            "cut" => drop(hub),
            "closed" => hub.say(0, Performative::Close(Close { error: None })).await,
            "closed for a reason" => hub.say(0, Performative::Close(Close { error: why("amqp:test") })).await,
            "no AMQP" => hub.framed.get_mut().write_all(&[0, 0, 0, 9, 2, 0, 0, 0, 0x7f]).await.unwrap(),
            "too large" => hub.framed.get_mut().write_all(&[0, 1, 0, 1, 2, 0, 0, 0]).await.unwrap(),
            // It takes all that is sent, and says nothing.
            _ => held = Some(tokio::spawn(async move { while hub.framed.next().await.is_some() {} })),
        }
        let (first, second) = (one.next().await.err().unwrap(), two.next().await.err().unwrap());
        assert_eq!(first, second, "{case}");
        let is_right = match case {
            "cut" | "closed" => matches!(first, Trouble::Lost(_)),
            "closed for a reason" => matches!(&first, Trouble::Dismissed { condition, .. } if condition == "amqp:test"),
            "silent" => first == Trouble::HalfOpen,
            _ => matches!(first, Trouble::Protocol(_)),
        };
        assert!(is_right, "{case}: {first}");
        assert!(two.settle(vec![]).await.is_ok());
        assert_eq!(two.publish(event(1)).await, Err(second));
        // Who leaves a dead connection does not wait, and the next one is another.
        let begun = Instant::now();
        two.detach().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "{case}");
        let mut hub = hubs.remove(0);
        drop(with_hub(&mut hub, ready(&amqp, &account, "one")).await);
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_can_not_be_read_is_delivered_as_that() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let script = async {
        let (channel, handle) = hub.link("d").await;
        hub.transfer(channel, handle, 1, b"\x00\x53\x73\xc0\xff", 1).await;
        hub.deliver((channel, handle), 2, "sound", 1).await;
    };
    let (mut device, ()) = tokio::join!(ready(&amqp, &account, "d"), script);
    let Ok(Inbound::Delivery { number: Some(1), message }) = device.next().await else { panic!("a delivery") };
    assert!(message.malformed.is_some());
    device.settle(vec![Settlement::Reject(1)]).await.unwrap();
    assert_eq!(hub.told().await, (1, "rejected"));
    let Ok(Inbound::Delivery { message, .. }) = device.next().await else { panic!("a delivery") };
    assert_eq!((message.id.as_deref(), message.malformed), (Some("sound"), None));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_hub_rejects_or_gives_back_is_named_and_all_else_goes_on() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut device = with_hub(hub, ready(&amqp, &account, "d")).await;
    for seq in 1..=4 {
        device.publish(event(seq)).await.unwrap();
    }
    let sent = [hub.event().await, hub.event().await, hub.event().await, hub.event().await];
    let rejected = |why: AmqpError| DeliveryState::Rejected(Rejected { error: Some(Error::new(why, None, None)) });
    let states = [
        rejected(AmqpError::NotAllowed),
        DeliveryState::Accepted(Accepted {}),
        DeliveryState::Released(Released {}),
        rejected(AmqpError::ResourceLimitExceeded),
    ];
    for ((channel, id), state) in sent.into_iter().zip(states) {
        hub.tell(channel, id, state).await;
    }
    let Ok(Inbound::EventRefused { event: 1, why }) = device.next().await else { panic!("the first is refused") };
    assert!(why.contains("not-allowed"), "{why}");
    assert!(matches!(device.next().await, Ok(Inbound::Published(2))));
    assert!(matches!(device.next().await, Ok(Inbound::EventPostponed { event: 3, is_suspect: true, .. })));
    // A quota that is used up is no event's fault.
    assert!(matches!(device.next().await, Ok(Inbound::EventPostponed { event: 4, is_suspect: false, .. })));
    device.publish(event(5)).await.unwrap();
    let (channel, id) = hub.event().await;
    hub.tell(channel, id, DeliveryState::Accepted(Accepted {})).await;
    assert!(matches!(device.next().await, Ok(Inbound::Published(5))));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_dropped_ends_its_session_and_nothing_else() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    let mut stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    let mut goes = with_hub(hub, attach(&amqp, &account, "goes")).await.unwrap();
    goes.receive().await.unwrap();
    let (gone, _) = hub.link("goes").await;
    drop(goes);
    let ended = hub
        .until(|heard| match heard {
            Heard::Ended { channel } => Some(*channel),
            _ => None,
        })
        .await;
    assert_eq!(ended, gone);
    assert!(timeout(Duration::from_secs(5), with_hub(hub, stays.next())).await.is_err(), "it goes on");
}

#[tokio::test(start_paused = true)]
async fn one_with_a_certificate_has_a_connection_of_its_own_and_shows_no_token() {
    let (amqp, mut hubs) = transport(2);
    let mut account = account(&access());
    account.credential =
        Credential::Certificate { cert_file: "c.pem".into(), key_file: "k.pem".into(), contents: [0; 32] };
    for hub in &mut hubs {
        hub.mechanism = "EXTERNAL";
        let script = hub.until(|heard| match heard {
            Heard::Token { .. } => Some(false),
            Heard::Link { .. } => Some(true),
            _ => None,
        });
        let (device, is_without_a_token) = tokio::join!(ready(&amqp, &account, "d"), script);
        assert!(is_without_a_token);
        std::mem::forget(device);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_learns_why_and_a_hub_that_says_nothing_is_given_up() {
    let (amqp, mut hubs) = transport(2);
    let account = account(&access());
    hubs[0].framed.send(Item::Header(Protocol::Sasl)).await.unwrap();
    let mechanisms = SaslMechanisms { sasl_server_mechanisms: vec!["EXTERNAL".into()].into() };
    hubs[0].put(Frame::sasl(Sasl::Mechanisms(mechanisms))).await;
    let trouble = attach(&amqp, &account, "d").await.err().unwrap();
    assert!(matches!(&trouble, Trouble::NotLetIn(why) if why.contains("it offers EXTERNAL")), "{trouble}");
    let begun = Instant::now();
    assert_eq!(attach(&amqp, &account, "d").await.err(), Some(Trouble::Slow(60)));
    assert_eq!(begun.elapsed().as_secs(), 60);
}
