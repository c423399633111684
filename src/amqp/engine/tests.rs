//! The engine against a peer that is written out frame by frame.

mod once;

use fe2o3_amqp_types::definitions::{AmqpError, Handle, Role};
use fe2o3_amqp_types::messaging::{Accepted, DeliveryState, Rejected};
use fe2o3_amqp_types::performatives::{Attach, Begin, Detach, Disposition, End as EndFrame, Flow, Transfer};
use fe2o3_amqp_types::sasl::{SaslMechanisms, SaslOutcome};

use super::*;

const IDLE: Duration = Duration::from_secs(120);

struct Talk {
    engine: Engine,
    now: Instant,
}

fn settings() -> Settings {
    Settings {
        container_id: "c".into(),
        hostname: "hub.example".into(),
        mechanisms: &["EXTERNAL", "ANONYMOUS"],
        idle_timeout: IDLE,
    }
}

fn peers_open(frame_max: u32) -> Performative {
    Performative::Open(Open {
        container_id: "hub".into(),
        hostname: None,
        max_frame_size: frame_max.into(),
        channel_max: 4.into(),
        idle_time_out: Some(60_000),
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

impl Talk {
    fn begun() -> Talk {
        let now = Instant::now();
        Talk { engine: Engine::new(settings(), now), now }
    }

    fn open() -> Talk {
        Talk::open_with_frames_of(65_536)
    }

    fn open_with_frames_of(frame_max: u32) -> Talk {
        let mut talk = Talk::begun();
        assert!(matches!(talk.heard()[..], [Item::Header(Protocol::Sasl)]));
        talk.hear(Item::Header(Protocol::Sasl)).unwrap();
        talk.hear(sasl(Sasl::Mechanisms(SaslMechanisms::default()))).unwrap();
        let init = talk.heard();
        assert!(matches!(&init[..], [Item::Frame(Frame { body: Body::Sasl(Sasl::Init(init)), .. })]
            if init.mechanism.0 == "ANONYMOUS"));
        talk.hear(sasl(Sasl::Outcome(SaslOutcome { code: SaslCode::Ok, additional_data: None }))).unwrap();
        let open = talk.heard();
        assert!(matches!(open[0], Item::Header(Protocol::Amqp)));
        let Performative::Open(open) = performative(&open[1]).1 else { panic!("an Open") };
        assert_eq!((open.hostname.as_deref(), open.idle_time_out), (Some("hub.example"), Some(120_000)));
        talk.hear(Item::Header(Protocol::Amqp)).unwrap();
        talk.say(0, peers_open(frame_max)).unwrap();
        assert_eq!(talk.engine.event(), Some(Event::Opened { sessions: 5 }));
        talk
    }

    fn hear(&mut self, item: Item) -> Result<(), Wrong> {
        self.engine.receive(item, self.now)
    }

    fn say(&mut self, channel: u16, performative: Performative) -> Result<(), Wrong> {
        self.hear(Item::Frame(Frame::of(channel, performative)))
    }

    /// What the engine has written.
    fn heard(&mut self) -> Vec<Item> {
        let bytes = self.engine.bytes();
        let mut items = Vec::new();
        while let Some(item) = frame::decode(bytes, FRAME_MAX).unwrap() {
            items.push(item);
        }
        assert!(bytes.is_empty());
        items
    }

    fn said(&mut self) -> Vec<(u16, Performative)> {
        self.heard().iter().map(performative).collect()
    }

    /// A session with a link, which the peer has on channel 9 under handle 5, with its Begin and Attach taken off.
    fn attached(&mut self, direction: Direction) -> LinkId {
        let session = self.engine.begin().unwrap();
        assert!(matches!(self.said()[..], [(0, Performative::Begin(_))]));
        let attaching =
            Attaching { name: "l-1".into(), address: "/a".into(), local: None, direction, properties: None };
        let link = self.engine.attach(session, attaching).unwrap();
        assert!(self.said().is_empty(), "the session has not begun");
        self.say(9, begin(0)).unwrap();
        let said = self.said();
        let [(0, Performative::Attach(asked))] = &said[..] else { panic!("an Attach") };
        assert_eq!((asked.name.as_str(), &asked.rcv_settle_mode), ("l-1", &definitions::ReceiverSettleMode::First));
        self.say(9, answer(asked, 5)).unwrap();
        assert_eq!(self.engine.event(), Some(Event::Attached(link)));
        link
    }
}

fn sasl(sasl: Sasl) -> Item {
    Item::Frame(Frame::sasl(sasl))
}

fn performative(item: &Item) -> (u16, Performative) {
    match item {
        Item::Frame(Frame { channel, body: Body::Performative(performative), .. }) => (*channel, performative.clone()),
        _ => panic!("a performative"),
    }
}

fn begin(own: u16) -> Performative {
    Performative::Begin(Begin {
        remote_channel: Some(own),
        next_outgoing_id: 100,
        incoming_window: 3,
        outgoing_window: 100,
        handle_max: 15.into(),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

/// The peer's Attach for one of ours.
fn answer(asked: &Attach, handle: u32) -> Performative {
    let role = if asked.role == Role::Sender { Role::Receiver } else { Role::Sender };
    let initial_delivery_count = (role == Role::Sender).then_some(40);
    Performative::Attach(Attach { handle: Handle(handle), role, initial_delivery_count, ..asked.clone() })
}

fn transfer(id: Option<u32>, more: bool, payload: &[u8]) -> Item {
    let transfer = Transfer {
        handle: Handle(5),
        delivery_id: id,
        delivery_tag: id.map(|id| id.to_be_bytes().to_vec().into()),
        message_format: Some(0),
        settled: None,
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    let body = Body::Performative(Performative::Transfer(transfer));
    Item::Frame(Frame { channel: 9, body, payload: Bytes::copy_from_slice(payload) })
}

fn flow(handle: Option<u32>, delivery_count: u32, link_credit: u32) -> Flow {
    Flow {
        next_incoming_id: Some(0),
        incoming_window: 3,
        next_outgoing_id: 100,
        outgoing_window: 100,
        handle: handle.map(Handle),
        delivery_count: handle.map(|_| delivery_count),
        link_credit: handle.map(|_| link_credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    }
}

fn told(first: u32, last: u32, state: DeliveryState) -> Performative {
    let (role, last, state) = (Role::Receiver, Some(last), Some(state));
    Performative::Disposition(Disposition { role, first, last, settled: true, state, batchable: false })
}

fn error() -> Option<definitions::Error> {
    Some(definitions::Error::new(AmqpError::NotFound, Some("no such\ndevice".to_owned()), None))
}

fn problem() -> Option<Problem> {
    Some(Problem { condition: "amqp:not-found".into(), description: "no such device".into() })
}

fn credit(said: &[(u16, Performative)]) -> Option<u32> {
    said.iter().rev().find_map(|(_, performative)| match performative {
        Performative::Flow(flow) if flow.handle.is_some() => flow.link_credit,
        _ => None,
    })
}

#[test]
fn deliveries_come_as_credit_is_given_and_are_settled_at_once() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::In(2));
    assert_eq!(credit(&talk.said()), Some(2));
    talk.hear(transfer(Some(7), false, b"one")).unwrap();
    talk.hear(transfer(Some(8), true, b"t")).unwrap();
    talk.hear(transfer(None, true, b"w")).unwrap();
    talk.hear(transfer(Some(8), false, b"o")).unwrap();
    for (id, payload) in [(7, &b"one"[..]), (8, b"two")] {
        let payload = Bytes::copy_from_slice(payload);
        let delivery = Delivery { id, payload, is_whole: true };
        assert_eq!(talk.engine.event(), Some(Event::Delivered(link, delivery)));
    }
    assert!(talk.said().is_empty(), "no credit before something is settled");
    talk.engine.settle(link, 7, Settle::Accept);
    talk.engine.settle(link, 7, Settle::Reject);
    let said = talk.said();
    let accepted = Some(DeliveryState::Accepted(Accepted {}));
    assert!(matches!(&said[0].1, Performative::Disposition(told)
        if (told.first, told.settled, &told.state) == (7, true, &accepted) && told.role == Role::Receiver));
    assert_eq!((said.len(), credit(&said)), (2, Some(1)));
    let Performative::Flow(flow) = &said[1].1 else { panic!("a Flow") };
    assert_eq!((flow.delivery_count, flow.next_incoming_id), (Some(42), Some(104)));
    // What is forgotten makes room, and the peer is told nothing of it.
    talk.engine.settle(link, 8, Settle::Forget);
    let said = talk.said();
    assert_eq!((said.len(), credit(&said)), (1, Some(2)));
}

#[test]
fn more_than_was_asked_for_ends_the_link_alone() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::In(1));
    talk.said();
    talk.hear(transfer(Some(1), false, b"")).unwrap();
    talk.hear(transfer(Some(2), false, b"")).unwrap();
    assert!(matches!(talk.engine.event(), Some(Event::Delivered(..))));
    assert!(matches!(talk.engine.event(), Some(Event::Detached(of, Some(_))) if of == link));
    assert!(matches!(&talk.said()[..], [(0, Performative::Detach(detach))] if detach.error.is_some()));
    talk.hear(transfer(Some(3), false, b"")).unwrap();
    talk.engine.settle(link, 1, Settle::Accept);
    assert!(talk.said().is_empty());
    assert!(talk.engine.begin().is_some(), "the connection stands");
}

#[test]
fn on_a_link_that_is_paused_comes_what_was_on_its_way_and_after_that_nothing_until_it_goes_on() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::In(8));
    talk.said();
    talk.hear(transfer(Some(1), false, b"")).unwrap();
    talk.engine.pause(link);
    let said = talk.said();
    let Performative::Flow(flow) = &said[0].1 else { panic!("a Flow") };
    assert_eq!((flow.link_credit, flow.delivery_count, said.len()), (Some(0), Some(41), 1));
    talk.engine.pause(link);
    assert!(talk.said().is_empty(), "it is told once");
    talk.hear(transfer(Some(2), false, b"")).unwrap();
    for (id, how) in [(1, Settle::Release), (2, Settle::Accept)] {
        assert!(matches!(talk.engine.event(), Some(Event::Delivered(_, delivery)) if delivery.id == id));
        talk.engine.settle(link, id, how);
    }
    assert_eq!(credit(&talk.said()), None, "no credit while it is paused");
    talk.engine.resume(link);
    assert_eq!(credit(&talk.said()), Some(8));
    talk.engine.resume(link);
    assert!(talk.said().is_empty(), "it is told once");
    // However little room there is.
    (3..10).for_each(|id| talk.hear(transfer(Some(id), false, b"")).unwrap());
    talk.engine.pause(link);
    talk.engine.resume(link);
    assert_eq!(credit(&talk.said()), Some(1));
    // Not more than was ever asked for.
    talk.engine.pause(link);
    [10, 11].into_iter().for_each(|id| talk.hear(transfer(Some(id), false, b"")).unwrap());
    let ended = std::iter::from_fn(|| talk.engine.event()).last();
    assert!(matches!(ended, Some(Event::Detached(of, Some(_))) if of == link), "{ended:?}");
}

#[test]
fn a_delivery_that_is_too_large_comes_in_part_and_an_aborted_one_not_at_all() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::In(4));
    talk.said();
    let piece = vec![7; 60_000];
    talk.hear(transfer(Some(1), true, &piece)).unwrap();
    for _ in 0..20 {
        talk.hear(transfer(None, true, &piece)).unwrap();
    }
    talk.hear(transfer(None, false, &piece)).unwrap();
    let Some(Event::Delivered(_, delivery)) = talk.engine.event() else { panic!("a delivery") };
    assert_eq!((delivery.payload.len(), delivery.is_whole), (DELIVERY_MAX, false));
    talk.engine.settle(link, 1, Settle::Accept);
    talk.said();
    talk.hear(transfer(Some(2), true, b"half")).unwrap();
    let Item::Frame(Frame { channel, body: Body::Performative(Performative::Transfer(mut aborted)), .. }) =
        transfer(None, false, b"")
    else {
        panic!("a Transfer")
    };
    aborted.aborted = true;
    talk.say(channel, Performative::Transfer(aborted)).unwrap();
    assert_eq!(talk.engine.event(), None);
    assert_eq!(credit(&talk.said()), Some(4));
}

#[test]
fn no_more_is_written_than_may_wait_and_the_rest_goes_when_that_is_sent() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::Out(64));
    let message = Bytes::from(vec![1; 16 * 1024]);
    assert!((0..64).all(|number| talk.engine.send(link, number, message.clone())));
    let mut all = flow(Some(5), 0, 64);
    all.incoming_window = 64;
    talk.say(9, Performative::Flow(all)).unwrap();
    let mut sent = Vec::new();
    while !talk.engine.bytes().is_empty() {
        assert!(talk.engine.bytes().len() < OUT_MAX + FRAME_MAX);
        sent.push(talk.said().len());
        talk.engine.sent(talk.now);
    }
    assert_eq!(sent.iter().sum::<usize>(), 64);
    assert!(sent.len() > 3, "{sent:?}");
}

#[test]
fn a_peer_that_asks_and_does_not_listen_is_given_up() {
    let mut talk = Talk::open();
    talk.attached(Direction::In(4));
    let mut echo = flow(Some(5), 0, 4);
    echo.echo = true;
    let given_up = (0..100_000).find_map(|_| talk.say(9, Performative::Flow(echo.clone())).err());
    assert!(matches!(&given_up, Some(Wrong::Protocol(why)) if why.contains("more answers")), "{given_up:?}");
    assert!(talk.engine.bytes().len() < OUT_END + FRAME_MAX);
}

#[test]
fn messages_go_as_credit_and_window_allow_in_frames_that_the_peer_takes() {
    let mut talk = Talk::open_with_frames_of(512);
    let link = talk.attached(Direction::Out(3));
    let large = Bytes::from(vec![1; 1500]);
    for number in [70, 71, 72] {
        assert!(talk.engine.send(link, number, if number == 70 { large.clone() } else { Bytes::from_static(b"m") }));
    }
    assert!(!talk.engine.send(link, 73, Bytes::new()), "as many wait as may");
    assert!(talk.said().is_empty(), "there is no credit");
    // Two of credit, and three transfers of window: the first message takes four.
    talk.say(9, Performative::Flow(flow(Some(5), 0, 2))).unwrap();
    assert_eq!(talk.said().len(), 3);
    let mut more = flow(None, 0, 0);
    (more.next_incoming_id, more.incoming_window) = (Some(3), 10);
    talk.say(9, Performative::Flow(more.clone())).unwrap();
    let said = talk.said();
    let ids = said.iter().map(|(_, performative)| match performative {
        Performative::Transfer(transfer) => (transfer.delivery_id, transfer.more),
        _ => panic!("a Transfer"),
    });
    assert_eq!(ids.collect::<Vec<_>>(), [(Some(0), false), (Some(1), false)]);
    // One is accepted and one not; credit for the last comes with an echo and a drain.
    talk.say(9, told(0, 0, DeliveryState::Accepted(Accepted {}))).unwrap();
    talk.say(9, told(1, u32::MAX, DeliveryState::Rejected(Rejected { error: error() }))).unwrap();
    assert_eq!(talk.engine.event(), Some(Event::Sent(link, 70, Outcome::Accepted)));
    assert_eq!(talk.engine.event(), Some(Event::Sent(link, 71, Outcome::Rejected(problem()))));
    let mut drain = flow(Some(5), 2, 5);
    (drain.next_incoming_id, drain.incoming_window, drain.drain) = (Some(5), 10, true);
    talk.say(9, Performative::Flow(drain)).unwrap();
    let said = talk.said();
    assert!(matches!(said[0].1, Performative::Transfer(_)));
    let Performative::Flow(answer) = &said[1].1 else { panic!("a Flow") };
    assert_eq!((answer.delivery_count, answer.link_credit), (Some(7), Some(0)));
}

#[test]
fn a_link_that_is_answered_and_detached_tells_why_and_leaves_the_others() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::In(1));
    talk.said();
    let detach = Detach { handle: Handle(5), closed: true, error: error() };
    talk.say(9, Performative::Detach(detach.clone())).unwrap();
    assert_eq!(talk.engine.event(), Some(Event::Detached(link, problem())));
    assert!(matches!(talk.said()[..], [(0, Performative::Detach(_))]));
    assert!(matches!(talk.say(9, Performative::Detach(detach)), Err(Wrong::Protocol(_))), "it is gone");
}

#[test]
fn a_link_that_is_refused_is_never_called_attached() {
    let mut talk = Talk::open();
    let session = talk.engine.begin().unwrap();
    talk.say(3, begin(0)).unwrap();
    for direction in [Direction::In(1), Direction::Out(1)] {
        let attaching = Attaching {
            name: format!("{direction:?}"),
            address: "/a".into(),
            local: None,
            direction,
            properties: None,
        };
        talk.engine.attach(session, attaching).unwrap();
        let said = talk.said();
        let Some((_, Performative::Attach(asked))) = said.last() else { panic!("an Attach") };
        let Performative::Attach(mut refusal) = answer(asked, 6) else { panic!("an Attach") };
        (refusal.source, refusal.target) = (None, None);
        talk.say(3, Performative::Attach(refusal)).unwrap();
        assert_eq!((talk.engine.event(), talk.said().len()), (None, 0));
        talk.say(3, Performative::Detach(Detach { handle: Handle(6), closed: true, error: error() })).unwrap();
        assert!(matches!(talk.engine.event(), Some(Event::Detached(_, why)) if why == problem()));
    }
}

#[test]
fn sessions_are_bounded_end_alone_and_are_used_again() {
    let mut talk = Talk::open();
    let sessions: Vec<SessionId> = std::iter::from_fn(|| talk.engine.begin()).collect();
    assert_eq!(sessions.len(), 5, "as many as the peer takes");
    talk.said();
    for own in 0..5 {
        talk.say(20 + own, begin(own)).unwrap();
    }
    talk.say(23, Performative::End(EndFrame { error: error() })).unwrap();
    assert_eq!(talk.engine.event(), Some(Event::Ended(sessions[3], problem())));
    assert!(matches!(talk.said()[..], [(3, Performative::End(_))]));
    talk.engine.end(sessions[1]);
    assert!(matches!(talk.said()[..], [(1, Performative::End(_))]));
    talk.say(21, Performative::Flow(flow(None, 0, 0))).unwrap();
    talk.say(21, Performative::End(EndFrame { error: None })).unwrap();
    assert_eq!(talk.engine.event(), Some(Event::Ended(sessions[1], None)));
    assert_eq!(talk.engine.begin(), Some(sessions[1]));
    // One that is ended before the peer has answered its Begin is ended after that.
    talk.said();
    talk.engine.end(sessions[1]);
    assert!(talk.said().is_empty());
    talk.say(30, begin(1)).unwrap();
    assert!(matches!(talk.said()[..], [(1, Performative::End(_))]));
}

/// The numbers of what was delivered.
fn delivered(talk: &mut Talk) -> Vec<u32> {
    let number = |event| match event {
        Event::Delivered(_, delivery) => Some(delivery.id),
        _ => None,
    };
    std::iter::from_fn(|| talk.engine.event()).filter_map(number).collect()
}

#[test]
fn what_is_on_its_way_when_ours_ends_is_told_until_the_peers_end_and_nothing_is_said_of_it() {
    type Ends = fn(&mut Talk, LinkId);
    let ends: [(Ends, Performative); 2] = [
        (|talk, link| talk.engine.end(link.session), Performative::End(EndFrame { error: None })),
        (|talk, _| talk.engine.close(None), Performative::Close(Close { error: None })),
    ];
    for (end, peers_end) in ends {
        let mut talk = Talk::open();
        let link = talk.attached(Direction::In(4));
        talk.hear(transfer(Some(1), false, b"before")).unwrap();
        talk.hear(transfer(Some(2), true, b"the fir")).unwrap();
        end(&mut talk, link);
        talk.said();
        talk.hear(transfer(None, false, b"st piece was before")).unwrap();
        talk.hear(transfer(Some(3), false, b"behind")).unwrap();
        talk.hear(transfer(Some(4), true, b"of this no more comes")).unwrap();
        talk.engine.settle(link, 3, Settle::Accept);
        talk.say(9, Performative::Flow(flow(Some(5), 0, 1))).unwrap();
        assert!(talk.said().is_empty(), "it has taken leave");
        assert_eq!(delivered(&mut talk), [1, 2, 3]);
        talk.say(if matches!(peers_end, Performative::Close(_)) { 0 } else { 9 }, peers_end).unwrap();
        assert!(delivered(&mut talk).is_empty() && talk.said().is_empty());
    }
}

#[test]
fn behind_our_end_no_more_is_taken_than_was_asked_for_and_nonsense_ends_nothing() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::In(2));
    talk.engine.pause(link);
    talk.engine.end(link.session);
    talk.said();
    for id in 1..5_000 {
        talk.hear(transfer(Some(id), false, b"")).unwrap();
    }
    assert_eq!(delivered(&mut talk), [1, 2], "on the credit that was taken back");
    talk.hear(transfer(None, false, b"of nothing")).unwrap();
    talk.say(9, Performative::Detach(Detach { handle: Handle(99), closed: true, error: None })).unwrap();
    assert!(talk.said().is_empty());
    assert!(talk.engine.begin().is_some(), "the connection stands");
}

#[test]
fn a_silent_peer_is_given_up_and_ours_is_told_that_we_live() {
    let mut talk = Talk::open();
    let begun = talk.now;
    assert_eq!(talk.engine.due(), begun + Duration::from_secs(30));
    talk.engine.on_time(talk.engine.due()).unwrap();
    let heard = talk.heard();
    assert!(matches!(heard[..], [Item::Frame(Frame { body: Body::Heartbeat, .. })]));
    assert_eq!(talk.engine.due(), begun + Duration::from_secs(60));
    talk.now = begun + Duration::from_secs(100);
    talk.hear(Item::Frame(Frame::heartbeat())).unwrap();
    talk.engine.on_time(begun + Duration::from_secs(279)).unwrap();
    assert!(matches!(talk.engine.on_time(begun + Duration::from_secs(280)), Err(Wrong::Silent(_))));
}

#[test]
fn it_is_closed_by_either_side_once() {
    let mut talk = Talk::open();
    talk.engine.close(None);
    talk.engine.close(None);
    assert!(matches!(talk.said()[..], [(0, Performative::Close(_))]));
    talk.hear(transfer(Some(1), false, b"on its way")).unwrap();
    talk.say(0, Performative::Close(Close { error: None })).unwrap();
    assert_eq!((talk.engine.event(), talk.engine.is_closed()), (Some(Event::Closed(None)), true));
    let mut talk = Talk::open();
    talk.say(0, Performative::Close(Close { error: error() })).unwrap();
    assert_eq!(talk.engine.event(), Some(Event::Closed(problem())));
    assert!(matches!(talk.said()[..], [(0, Performative::Close(_))]));
}

#[test]
fn who_is_not_let_in_learns_why() {
    let mut talk = Talk::begun();
    talk.hear(Item::Header(Protocol::Sasl)).unwrap();
    let offered = SaslMechanisms { sasl_server_mechanisms: vec![Symbol::from("PLAIN")].into() };
    let refused = talk.hear(sasl(Sasl::Mechanisms(offered))).unwrap_err();
    assert!(refused.to_string().contains("EXTERNAL or ANONYMOUS ends with that it offers PLAIN"), "{refused}");
    let mut talk = Talk::begun();
    talk.hear(Item::Header(Protocol::Sasl)).unwrap();
    talk.hear(sasl(Sasl::Mechanisms(SaslMechanisms::default()))).unwrap();
    let outcome = SaslOutcome { code: SaslCode::Auth, additional_data: None };
    assert!(matches!(talk.hear(sasl(Sasl::Outcome(outcome))), Err(Wrong::Refused { .. })));
}

#[test]
fn what_a_peer_says_of_an_end_neither_steers_a_terminal_nor_repeats_a_token() {
    let mut talk = Talk::open();
    let why = "no\u{1b}[2J\r\nto SharedAccessSignature sr=h&sig=hush";
    let error = definitions::Error::new(definitions::AmqpError::UnauthorizedAccess, Some(why.into()), None);
    talk.say(0, Performative::Close(Close { error: Some(error) })).unwrap();
    let (condition, description) = ("amqp:unauthorized-access".into(), "no [2J  to".into());
    let last = std::iter::from_fn(|| talk.engine.event()).last();
    assert_eq!(last, Some(Event::Closed(Some(Problem { condition, description }))));
}

#[test]
fn what_may_not_come_ends_the_connection_with_a_word_to_the_peer() {
    let of_no_session = [
        Performative::Begin(match begin(0) {
            Performative::Begin(begin) => Begin { remote_channel: None, ..begin },
            _ => unreachable!(),
        }),
        begin(3),
        Performative::End(EndFrame { error: None }),
        Performative::Flow(flow(None, 0, 0)),
        peers_open(512),
    ];
    for performative in of_no_session {
        let mut talk = Talk::open();
        let why = talk.say(2, performative).unwrap_err();
        assert!(!why.to_string().is_empty());
        assert!(matches!(&talk.said()[..], [(0, Performative::Close(close))] if close.error.is_some()));
        assert!(talk.engine.is_closed());
    }
    let unknown = Detach { handle: Handle(99), closed: true, error: None };
    for performative in [Performative::Detach(unknown), Performative::Flow(flow(Some(99), 0, 1))] {
        let mut talk = Talk::open();
        talk.attached(Direction::In(1));
        assert!(talk.say(9, performative).is_err());
    }
    for items in [vec![transfer(None, false, b"")], vec![transfer(Some(1), true, b""), transfer(Some(2), true, b"")]] {
        let mut talk = Talk::open();
        talk.attached(Direction::In(2));
        let taken: Vec<_> = items.into_iter().map(|item| talk.hear(item)).collect();
        assert!(taken.last().unwrap().is_err());
    }
}
