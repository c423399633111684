//! What holds for any bytes in place of AMQP frames, and for any frames in place of those that may come.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::definitions::{Handle, Role};
use fe2o3_amqp_types::messaging::{Accepted, DeliveryState, Source as Address, Target, TargetArchetype};
use fe2o3_amqp_types::performatives::{
    Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, Transfer,
};
use fe2o3_amqp_types::sasl::{SaslCode, SaslMechanisms, SaslOutcome};

use super::engine::{Attaching, Direction, Engine, Event, LinkId, Settings, Settle};
use super::frame::{decode, encode, Body, Frame, Item, Protocol, Sasl, FRAME_MAX};
use crate::proof::bytes::Source;

/// Deliveries at a time on the engine's link.
const WINDOW: usize = 3;

/// Frames: whatever they are, they end in items or in one sentence, the same ones in whatever pieces they come; what
/// was read is read again from what is written of it. An engine that takes them, or any others, stays within its
/// bounds, and what it says can be read.
pub fn amqp(bytes: &[u8]) {
    let (items, why) = read(&mut BytesMut::from(bytes));
    if let Some(why) = &why {
        assert!(!why.is_empty() && why.len() < 1000, "{why}");
    }
    let (mut pieces, mut again) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(3) {
        pieces.extend_from_slice(piece);
        let (more, failed) = read(&mut pieces);
        again.extend(more);
        if failed.is_some() {
            assert_eq!(failed, why);
            break;
        }
    }
    assert_eq!(written(&again), written(&items));
    let (reread, why) = read(&mut written(&items));
    assert_eq!((reread.len(), why), (items.len(), None));
    assert_eq!(written(&reread), written(&items));
    Play::begun().run(items.clone());
    Play::open().run(items);
    let mut source = Source::new(bytes);
    let frames: Vec<Item> = std::iter::from_fn(|| (!source.is_empty()).then(|| any_frame(&mut source))).collect();
    Play::open().run(frames.clone());
    Play::ended().run(frames);
}

fn read(bytes: &mut BytesMut) -> (Vec<Item>, Option<String>) {
    let mut items = Vec::new();
    loop {
        match decode(bytes, FRAME_MAX) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, None),
            Err(error) => return (items, Some(error.to_string())),
        }
    }
}

fn written(items: &[Item]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for item in items {
        // What was packed more tightly may be longer when it is written again.
        encode(item, 4 * FRAME_MAX, &mut bytes).expect("what was read can be written");
    }
    bytes
}

/// An engine, and what is expected of it.
struct Play {
    engine: Engine,
    now: Instant,
    links: Vec<LinkId>,
    unsettled: Vec<(LinkId, u32)>,
    sent: u64,
    told: u64,
}

impl Play {
    fn begun() -> Play {
        let settings = Settings {
            container_id: "c".into(),
            hostname: "h".into(),
            mechanisms: &["ANONYMOUS"],
            idle_timeout: Duration::from_secs(120),
        };
        let now = Instant::now();
        let engine = Engine::new(settings, now);
        Play { engine, now, links: Vec::new(), unsettled: Vec::new(), sent: 0, told: 0 }
    }

    /// One that is open, with a session on channel 0, that the peer has on 9, and a link each way: their handles at the
    /// peer are theirs here.
    fn open() -> Play {
        let mut play = Play::begun();
        let sasl = |sasl| Item::Frame(Frame::sasl(sasl));
        let frame = |channel, performative| Item::Frame(Frame::of(channel, performative));
        let open = Open {
            container_id: "p".into(),
            hostname: None,
            max_frame_size: 600.into(),
            channel_max: 3.into(),
            idle_time_out: None,
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        let outcome = SaslOutcome { code: SaslCode::Ok, additional_data: None };
        for item in [
            Item::Header(Protocol::Sasl),
            sasl(Sasl::Mechanisms(SaslMechanisms::default())),
            sasl(Sasl::Outcome(outcome)),
            Item::Header(Protocol::Amqp),
            frame(0, Performative::Open(open)),
        ] {
            play.engine.receive(item, play.now).expect("it may come");
        }
        let session = play.engine.begin().expect("it is open");
        for (name, direction) in [("in", Direction::In(WINDOW as u32)), ("out", Direction::Out(8))] {
            let attaching =
                Attaching { name: name.into(), address: "/a".into(), local: None, direction, properties: None };
            play.links.push(play.engine.attach(session, attaching).expect("there is room"));
        }
        for item in [frame(9, begin(0)), frame(9, attach("in", 0)), frame(9, attach("out", 1))] {
            play.engine.receive(item, play.now).expect("it may come");
        }
        play
    }

    /// The same, with its session ended on our side.
    fn ended() -> Play {
        let mut play = Play::open();
        play.engine.end(play.links[0].session);
        play
    }

    fn run(mut self, items: Vec<Item>) {
        for (turn, item) in items.into_iter().enumerate() {
            let ended = self.engine.receive(item, self.now).is_err();
            self.look();
            if ended || self.engine.is_closed() {
                return;
            }
            if turn % 3 == 2 && !self.unsettled.is_empty() {
                let (link, delivery) = self.unsettled.remove(0);
                self.engine.settle(link, delivery, [Settle::Accept, Settle::Forget][turn % 2]);
            }
            if let [_, out] = self.links[..] {
                let message = Bytes::from(vec![7; 700 * (turn % 2)]);
                self.sent += u64::from(self.engine.send(out, self.sent, message));
            }
        }
    }

    fn look(&mut self) {
        while let Some(event) = self.engine.event() {
            match event {
                Event::Delivered(link, delivery) => self.unsettled.push((link, delivery.id)),
                Event::Sent(_, number, _) => {
                    assert!(number < self.sent, "nothing is told of what was not sent");
                    self.told += 1;
                }
                Event::Detached(link, _) => self.unsettled.retain(|(of, _)| *of != link),
                Event::Ended(session, _) => self.unsettled.retain(|(of, _)| of.session != session),
                _ => {}
            }
        }
        assert!(self.unsettled.len() <= WINDOW, "no more than was asked for");
        assert!(self.told <= self.sent, "each is told of once");
        let (_, why) = read(self.engine.bytes());
        assert_eq!((why, self.engine.bytes().len()), (None, 0), "what it says can be read");
    }
}

fn begin(own: u16) -> Performative {
    Performative::Begin(Begin {
        remote_channel: Some(own),
        next_outgoing_id: 0,
        incoming_window: 5,
        outgoing_window: 5,
        handle_max: 15.into(),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

fn attach(name: &str, handle: u32) -> Performative {
    let role = if name == "in" { Role::Sender } else { Role::Receiver };
    Performative::Attach(Attach {
        name: name.into(),
        handle: Handle(handle),
        role,
        snd_settle_mode: Default::default(),
        rcv_settle_mode: Default::default(),
        source: Some(Box::new(Address::default())),
        target: Some(Box::new(TargetArchetype::Target(Target::default()))),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: Some(0),
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

/// A frame that may or may not be one that may come.
fn any_frame(source: &mut Source) -> Item {
    let channel = *source.pick(&[9, 9, 9, 9, 9, 0, 3]);
    let handle = Handle(u32::from(source.u8() % 3));
    let small = |source: &mut Source| u32::from(source.u8() % 8);
    let number = match source.u8() % 16 {
        0 => u32::MAX,
        other => u32::from(other),
    };
    let performative = match source.u8() % 12 {
        0..=3 => Performative::Transfer(Transfer {
            handle: if source.flag() { Handle(0) } else { handle },
            delivery_id: source.flag().then_some(number),
            delivery_tag: None,
            message_format: None,
            settled: source.flag().then_some(true),
            more: source.u8() % 4 == 3,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: source.u8() % 16 == 15,
            batchable: false,
        }),
        4..=6 => Performative::Flow(Flow {
            next_incoming_id: source.flag().then_some(number),
            incoming_window: small(source),
            next_outgoing_id: 0,
            outgoing_window: 0,
            handle: source.flag().then_some(handle),
            delivery_count: source.flag().then_some(number),
            link_credit: source.flag().then(|| small(source)),
            available: None,
            drain: source.flag(),
            echo: source.flag(),
            properties: None,
        }),
        7..=8 => Performative::Disposition(Disposition {
            role: if source.u8() % 8 == 7 { Role::Sender } else { Role::Receiver },
            first: number,
            last: source.flag().then(|| small(source)),
            settled: source.flag(),
            state: source.flag().then_some(DeliveryState::Accepted(Accepted {})),
            batchable: false,
        }),
        9 => Performative::Detach(Detach { handle, closed: source.flag(), error: None }),
        10 => match source.u8() % 4 {
            0 => Performative::End(End { error: None }),
            1 => Performative::Close(Close { error: None }),
            2 => begin(u16::from(source.u8() % 3)),
            _ => attach(["in", "out", "other"][source.within(0..=2)], handle.0),
        },
        _ => return Item::Frame(Frame::heartbeat()),
    };
    let payload = Bytes::copy_from_slice(source.piece(5));
    Item::Frame(Frame { channel, body: Body::Performative(performative), payload })
}
