//! The worker on a line that does what a test says, under a clock that does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::super::{BusHandle, Closed};
use super::*;
use crate::bus::turns::TRIES_MAX;
use crate::peripheral::exchange::{Answer, Request};

/// What happened on the line, and what shall happen.
#[derive(Default)]
struct Script {
    /// When it was tried to be opened.
    attempts: Vec<Instant>,
    /// Whether opening fails.
    absent: bool,
    open: bool,
    /// How it gets lost while nothing is asked.
    loses: Option<Lost>,
    /// Units whose requests must wait until then.
    held: Vec<(u8, Instant)>,
    /// How the next exchanges end; `Answered` when it is empty.
    ends: VecDeque<Ended>,
    /// The units that were asked.
    sent: Vec<u8>,
    /// How long an exchange takes.
    takes: Duration,
    /// Whether a read must show how the line takes writes, each time that it was opened; and whether one has.
    must_show: bool,
    has_shown: bool,
    /// Whether what was sent were writes.
    writes: Vec<bool>,
    /// When something was sent.
    sent_at: Vec<Instant>,
    /// What stands in the bus's settings.
    connect_pause: Duration,
    idle_close: Option<Duration>,
}

#[derive(Clone, Default)]
struct Line(Arc<Mutex<Script>>);

impl Line {
    fn with<T>(&self, what: impl FnOnce(&mut Script) -> T) -> T {
        what(&mut self.0.lock().unwrap())
    }

    fn sent(&self) -> Vec<u8> {
        self.with(|script| script.sent.clone())
    }
}

impl Link for Line {
    async fn open(&mut self) -> Result<(), NotOpened> {
        self.with(|script| {
            script.attempts.push(Instant::now());
            script.open = !script.absent;
            script.has_shown = false;
            if script.absent {
                return Err("it is absent".into());
            }
            Ok(())
        })
    }

    fn close(&mut self) {
        self.with(|script| script.open = false);
    }

    fn is_open(&self) -> bool {
        self.with(|script| script.open)
    }

    async fn listen(&mut self) -> Option<Lost> {
        loop {
            if let Some(lost) = self.with(|script| script.loses.take()) {
                self.close();
                return Some(lost);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn held_until(&self, call: &Call, _: u64, _: bool) -> Option<Instant> {
        let until = self.with(|script| script.held.iter().find(|(unit, _)| *unit == call.unit).copied());
        until.map(|(_, until)| until).filter(|until| *until > Instant::now())
    }

    fn is_to_be_tried(&self, call: &Call) -> bool {
        self.with(|script| script.must_show && !(script.open && script.has_shown)) && is_write(call)
    }

    async fn exchange(&mut self, call: &Call, _: u64) -> Ended {
        sleep(self.with(|script| script.takes)).await;
        self.with(|script| {
            let ended = script.ends.pop_front();
            let ended = ended.unwrap_or_else(|| Ended::kept(Wire::Answered(Answer::Written)));
            script.open = ended.lost.is_none();
            if !matches!(ended.wire, Wire::NotSent(_)) {
                script.sent.push(call.unit);
                script.writes.push(is_write(call));
                script.sent_at.push(Instant::now());
            }
            script.has_shown |= script.open;
            ended
        })
    }
}

fn is_write(call: &Call) -> bool {
    matches!(call.request, Request::WriteWords { .. })
}

struct Running {
    handle: BusHandle,
    line: Line,
    stop: CancellationToken,
    worker: JoinHandle<()>,
}

fn start(script: Script) -> Running {
    let (connect_pause, idle_close) = (script.connect_pause, script.idle_close);
    let line = Line(Arc::new(Mutex::new(script)));
    let kind = BusKind::ModbusTcp { address: String::new() };
    let (response_timeout, turnaround) = (Duration::from_secs(1), Duration::ZERO);
    let config = crate::config::Bus {
        kind,
        response_timeout,
        retries: 0,
        turnaround,
        retry_pause: Duration::ZERO,
        late_window: None,
        strips_echo: false,
        connect_pause,
        idle_close,
        max_in_flight: 1,
        unreachable_after: 3,
        probe_interval: Duration::from_secs(10),
    };
    let (handle, Worker { config, queue, status, pulse, counts, presence, .. }) = super::super::new("line-a", &config);
    let callers = Callers::new(queue);
    let stop = CancellationToken::new();
    let worker = {
        let (line, stop) = (line.clone(), stop.clone());
        tokio::spawn(async move {
            let shift = Shift {
                callers,
                status: &status,
                configured: config,
                suspect: None,
                lines: Arc::new(SystemLines),
                page: Owed::default().page(),
                pulse: &pulse,
                counts: &counts,
                presence: &presence,
            };
            shift.on(line).work(&stop).await;
        })
    };
    Running { handle, line, stop, worker }
}

fn call(unit: u8) -> Call {
    let request = Request::WriteWords { address: 0, words: vec![0], multiple: false };
    Call::new(unit, request)
}

impl Running {
    fn ask(&self, unit: u8) -> JoinHandle<Result<Wire, Closed>> {
        let handle = self.handle.clone();
        tokio::spawn(async move { Ok(handle.turn().await?.exchange(&call(unit)).await) })
    }

    /// Writes behind a read, where the line must show something. Gives what was sent for it as well: whether it wrote.
    async fn write_behind_a_read(&self) -> (Result<Wire, Closed>, Vec<bool>) {
        let harmless = Some(Request::ReadWords { holding: true, address: 0, count: 1 });
        self.line.with(|script| script.writes.clear());
        let mut turn = self.handle.caller().with_harmless(harmless).turn().await.unwrap();
        let wire = turn.exchange(&call(1)).await;
        (Ok(wire), self.line.with(|script| script.writes.clone()))
    }

    /// Lets everything happen that happens by now.
    async fn settle(&self) {
        sleep(Duration::from_millis(10)).await;
    }
}

const ANSWERED: Result<Wire, Closed> = Ok(Wire::Answered(Answer::Written));

fn not_sent(why: &str) -> Result<Wire, Closed> {
    Ok(Wire::NotSent(why.into()))
}

#[tokio::test(start_paused = true)]
async fn a_line_that_can_not_be_opened_is_tried_more_and_more_seldom() {
    let bus = start(Script { absent: true, ..Script::default() });
    sleep(Duration::from_secs(30)).await;
    let attempts = bus.line.with(|script| script.attempts.clone());
    let pauses: Vec<_> = attempts.windows(2).map(|w| (w[1] - w[0]).as_millis() / 10 * 10).collect();
    assert_eq!(pauses[..6], [250, 500, 1000, 2000, 4000, 5000]);
    assert!(pauses[6..].iter().all(|pause| *pause == 5000), "{pauses:?}");
    let status = bus.handle.status();
    assert_eq!((status.state.as_str(), status.last_error.as_deref()), ("opening", Some("it is absent")));
    bus.line.with(|script| script.absent = false);
    sleep(Duration::from_secs(6)).await;
    assert_eq!((bus.handle.status().state.as_str(), bus.handle.status().last_error), ("open", None));
}

#[tokio::test(start_paused = true)]
async fn a_call_tries_the_line_once_and_at_once() {
    let bus = start(Script { absent: true, ..Script::default() });
    sleep(Duration::from_secs(9)).await;
    let before = bus.line.with(|script| script.attempts.len());
    let asked = Instant::now();
    assert_eq!(bus.ask(1).await.unwrap(), not_sent("it is absent"));
    assert!(asked.elapsed() < Duration::from_millis(10));
    assert_eq!(bus.line.with(|script| script.attempts.len()), before + 1);
    bus.line.with(|script| script.absent = false);
    assert_eq!(bus.ask(1).await.unwrap(), ANSWERED);
    assert!(asked.elapsed() < Duration::from_millis(10));
    assert_eq!(bus.handle.snapshot().exchanges, 1);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_flaps_is_not_opened_in_a_hurry() {
    let bus = start(Script::default());
    let flaps = Duration::from_secs(20);
    let began = Instant::now();
    while began.elapsed() < flaps {
        bus.line.with(|script| script.loses = Some(Lost::Gone("it was unplugged".into())));
        sleep(Duration::from_millis(5)).await;
    }
    let attempts = bus.line.with(|script| script.attempts.len());
    assert!((5..=9).contains(&attempts), "{attempts}");
    // After it was open for a while, the next loss is an accident again.
    bus.line.with(|script| script.loses = None);
    sleep(Duration::from_secs(20)).await;
    bus.line.with(|script| script.loses = Some(Lost::Gone("it was unplugged".into())));
    bus.settle().await;
    assert_eq!(bus.handle.status().state.as_str(), "opening");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bus.handle.status().state.as_str(), "open");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_was_closed_unnoticed_is_opened_once_more_and_no_oftener() {
    let closed = || Ended { wire: Wire::NotSent("it is closed".into()), lost: Some(Lost::Idle) };
    let bus = start(Script { ends: [closed()].into(), ..Script::default() });
    assert_eq!(bus.ask(1).await.unwrap(), ANSWERED);
    assert_eq!(bus.line.sent(), [1]);
    bus.line.with(|script| script.ends = [closed(), closed()].into());
    assert_eq!(bus.ask(2).await.unwrap(), not_sent("it is closed"));
    assert_eq!(bus.line.sent(), [1]);
    assert_eq!((bus.handle.status().state.as_str(), bus.handle.status().last_error), ("closed", None));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_sent_is_never_sent_again() {
    let gone = || Some(Lost::Gone("it was unplugged".into()));
    for wire in [Wire::NoAnswer(String::new()), Wire::BadReply(String::new())] {
        for lost in [None, Some(Lost::Idle), gone()] {
            let ends = [Ended { wire: wire.clone(), lost }].into();
            let bus = start(Script { ends, ..Script::default() });
            assert_eq!(bus.ask(1).await.unwrap(), Ok(wire.clone()));
            sleep(Duration::from_secs(1)).await;
            assert_eq!(bus.line.sent(), [1]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_must_wait_is_set_aside_until_it_may_go() {
    let until = Instant::now() + Duration::from_secs(2);
    let bus = start(Script { held: vec![(7, until)], ..Script::default() });
    let silent = [bus.ask(7), bus.ask(7)];
    bus.settle().await;
    assert_eq!(bus.ask(8).await.unwrap(), ANSWERED);
    assert_eq!(bus.line.sent(), [8]);
    for ask in silent {
        assert_eq!(ask.await.unwrap(), ANSWERED);
    }
    assert!(Instant::now() >= until);
    assert_eq!(bus.line.sent(), [8, 7, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_has_begun_keeps_the_bus_while_it_waits() {
    let bus = start(Script::default());
    let mut turn = bus.handle.turn().await.unwrap();
    turn.exchange(&call(7)).await;
    let until = Instant::now() + Duration::from_secs(2);
    bus.line.with(|script| script.held = vec![(7, until)]);
    let other = bus.ask(8);
    turn.exchange(&call(7)).await;
    drop(turn);
    assert_eq!(other.await.unwrap(), ANSWERED);
    assert_eq!(bus.line.sent(), [7, 7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_given_up_while_it_waits_with_the_bus_gives_it_back_at_once() {
    let bus = start(Script::default());
    let mut turn = bus.handle.turn().await.unwrap();
    turn.exchange(&call(7)).await;
    let now = Instant::now();
    bus.line.with(|script| script.held = vec![(7, now + Duration::from_secs(9))]);
    let other = bus.ask(8);
    let late = Call { not_after: Some(now + Duration::from_secs(1)), ..call(7) };
    assert!(matches!(turn.exchange(&late).await, Wire::NotSent(_)));
    drop(turn);
    assert_eq!(other.await.unwrap(), ANSWERED);
    assert_eq!((bus.line.sent(), now.elapsed().as_secs()), (vec![7, 8], 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_is_on_the_wire_and_sends_nothing_that_waits() {
    let until = Instant::now() + Duration::from_millis(500);
    let takes = Duration::from_secs(1);
    let bus = start(Script { held: vec![(7, until)], takes, ..Script::default() });
    let waiting = bus.ask(7);
    bus.settle().await;
    let exchanged = bus.ask(8);
    let queued = bus.ask(9);
    sleep(Duration::from_millis(600)).await;
    bus.stop.cancel();
    assert_eq!(exchanged.await.unwrap(), ANSWERED);
    assert_eq!(waiting.await.unwrap(), not_sent("the gateway is stopping"));
    assert_eq!(queued.await.unwrap(), Err(Closed));
    bus.worker.await.unwrap();
    assert_eq!(bus.line.sent(), [8]);
    assert!(!bus.line.with(|script| script.open));
    assert_eq!(bus.handle.status().state.as_str(), "closed");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_gone_gives_the_bus_back() {
    let bus = start(Script { takes: Duration::from_secs(1), ..Script::default() });
    drop(bus.handle.turn().await.unwrap());
    // Gone in the queue, gone with the turn in hand, gone in the middle of an exchange.
    let held = bus.handle.turn().await.unwrap();
    let queued = bus.ask(1);
    bus.settle().await;
    queued.abort();
    drop(held);
    let exchanged = bus.ask(2);
    advance(Duration::from_millis(500)).await;
    exchanged.abort();
    assert_eq!(bus.ask(3).await.unwrap(), ANSWERED);
    assert_eq!(bus.line.sent(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_the_line_beyond_its_time_is_not_sent() {
    let until = Instant::now() + Duration::from_secs(2);
    let bus = start(Script { held: vec![(7, until)], ..Script::default() });
    let late = Call { not_after: Some(Instant::now() + Duration::from_secs(1)), ..call(7) };
    let (asked, wire) = (Instant::now(), bus.handle.turn().await.unwrap().exchange(&late).await);
    assert!(matches!(wire, Wire::NotSent(_)), "{wire:?}");
    assert_eq!(asked.elapsed().as_secs(), 1, "it is told so then");
    assert_eq!(bus.line.sent(), [] as [u8; 0]);
    let in_time = Call { not_after: Some(Instant::now() + Duration::from_secs(2)), ..call(7) };
    assert_eq!(bus.handle.turn().await.unwrap().exchange(&in_time).await, Wire::Answered(Answer::Written));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_to_be_clear_is_set_aside_and_then_goes_at_once() {
    let until = Instant::now() + Duration::from_secs(2);
    let bus = start(Script { held: vec![(7, until)], ..Script::default() });
    let handle = bus.handle.clone();
    let waiting = tokio::spawn(async move {
        let mut turn = handle.turn().await.unwrap();
        turn.clear(&call(7)).await;
        let cleared = Instant::now();
        (cleared, turn.exchange(&call(7)).await, Instant::now())
    });
    bus.settle().await;
    assert_eq!(bus.ask(8).await.unwrap(), ANSWERED, "others have the bus meanwhile");
    let (cleared, wire, ended) = waiting.await.unwrap();
    assert!(cleared >= until && ended == cleared, "{wire:?}");
    assert_eq!(bus.line.sent(), [8, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_line_shows_by_a_read_how_it_takes_a_write_each_time_that_it_was_opened() {
    let bus = start(Script { must_show: true, ..Script::default() });
    bus.settle().await;
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![false, true]));
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![true]));
    // It is lost while nothing is asked.
    bus.line.with(|script| script.loses = Some(Lost::Gone("it was unplugged".into())));
    bus.settle().await;
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![false, true]));
    // It turns out to be closed when the write is to be sent.
    let closed = Ended { wire: Wire::NotSent("it is closed".into()), lost: Some(Lost::Idle) };
    bus.line.with(|script| script.ends = [closed].into());
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![false, true]));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_lost_whenever_it_is_tried_gets_no_write() {
    let bus = start(Script { must_show: true, ..Script::default() });
    let gone = || Ended { wire: Wire::NoAnswer("it is lost".into()), lost: Some(Lost::Gone("it is lost".into())) };
    bus.line.with(|script| script.ends = std::iter::repeat_with(gone).take(TRIES_MAX as usize).collect());
    assert_eq!(bus.write_behind_a_read().await, (not_sent(NEVER_SHOWN), vec![false; TRIES_MAX as usize]));
    // The next one finds a line that stays.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![false, true]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_a_while_after_each_opening_where_the_bus_says_so() {
    let pause = Duration::from_secs(3);
    let bus = start(Script { connect_pause: pause, must_show: true, ..Script::default() });
    let opened = || bus.line.with(|script| *script.attempts.last().unwrap());
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![false, true]));
    // The read that goes first waits, and the write behind it no more.
    assert_eq!(bus.line.with(|script| script.sent_at.clone()), [opened() + pause; 2]);
    assert_eq!(bus.ask(1).await.unwrap(), ANSWERED);
    assert_eq!(Instant::now(), opened() + pause);
    // It is lost, and comes back: the peripheral is deaf again.
    bus.line.with(|script| script.loses = Some(Lost::Gone("it was unplugged".into())));
    bus.settle().await;
    let asked = Instant::now();
    assert_eq!(bus.write_behind_a_read().await, (ANSWERED, vec![false, true]));
    assert!(opened() >= asked - Duration::from_millis(10) && Instant::now() == opened() + pause);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_line_that_was_just_opened_ends_with_its_time_with_the_stop_and_with_the_line() {
    let pause = Duration::from_secs(30);
    let bus = start(Script { connect_pause: pause, ..Script::default() });
    bus.settle().await;
    let asked = Instant::now();
    let late = Call { not_after: Some(asked + Duration::from_secs(1)), ..call(7) };
    assert!(matches!(bus.handle.turn().await.unwrap().exchange(&late).await, Wire::NotSent(_)));
    assert_eq!(asked.elapsed().as_secs(), 1);
    // A server that ends the connection meanwhile gets one more.
    let waiting = bus.ask(8);
    bus.settle().await;
    bus.line.with(|script| script.loses = Some(Lost::Idle));
    assert_eq!(waiting.await.unwrap(), ANSWERED);
    assert_eq!(bus.line.with(|script| (script.attempts.len(), script.sent.clone())), (2, vec![8]));
    assert_eq!(Instant::now(), bus.line.with(|script| script.attempts[1]) + pause);
    bus.line.with(|script| script.loses = Some(Lost::Idle));
    bus.settle().await;
    let waiting = bus.ask(9);
    bus.settle().await;
    bus.stop.cancel();
    assert_eq!(waiting.await.unwrap(), not_sent("the gateway is stopping"));
    assert_eq!(bus.line.sent(), [8]);
}

#[tokio::test(start_paused = true)]
async fn an_open_line_without_work_is_closed_and_that_is_no_fault() {
    let idle_close = Some(Duration::from_secs(10));
    let bus = start(Script { idle_close, takes: Duration::from_secs(1), ..Script::default() });
    let state = || (bus.handle.status().state.as_str(), bus.handle.status().last_error);
    sleep(Duration::from_millis(9_990)).await;
    assert_eq!(state(), ("open", None));
    assert_eq!(bus.ask(1).await.unwrap(), ANSWERED);
    // It counts from the end of the last turn, and not while there is one.
    sleep(Duration::from_millis(9_900)).await;
    let turn = bus.handle.turn().await.unwrap();
    assert_eq!(state(), ("open", None));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(state(), ("open", None), "whoever has the bus may be about to ask");
    drop(turn);
    sleep(Duration::from_millis(10_010)).await;
    assert_eq!(state(), ("closed", None));
    sleep(Duration::from_secs(600)).await;
    assert_eq!((state(), bus.line.with(|script| script.attempts.len())), (("closed", None), 1), "nobody needs it");
    // The next request opens it.
    assert_eq!(bus.ask(2).await.unwrap(), ANSWERED);
    assert_eq!((state(), bus.line.with(|script| script.attempts.len())), (("open", None), 2));
}

#[tokio::test(start_paused = true)]
async fn a_line_stays_open_for_who_must_wait_to_ask_and_no_longer() {
    let until = Instant::now() + Duration::from_secs(60);
    let idle_close = Some(Duration::from_secs(10));
    let bus = start(Script { idle_close, held: vec![(7, until)], ..Script::default() });
    let waiting = bus.ask(7);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(bus.handle.status().state.as_str(), "open", "somebody has something to ask");
    waiting.abort();
    sleep(Duration::from_millis(10_010)).await;
    assert_eq!(bus.handle.status().state.as_str(), "closed");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_never_idles_is_closed_after_each_turn_and_tells_as_ever_that_it_can_not_be_opened() {
    let bus = start(Script { idle_close: Some(Duration::ZERO), ..Script::default() });
    bus.settle().await;
    assert_eq!(bus.handle.status().state.as_str(), "closed", "it was tried once whether it opens");
    let all = [bus.ask(1), bus.ask(2), bus.ask(3)];
    for ask in all {
        assert_eq!(ask.await.unwrap(), ANSWERED);
    }
    bus.settle().await;
    assert_eq!(bus.handle.status().state.as_str(), "closed");
    assert_eq!(bus.line.with(|script| (script.attempts.len(), script.sent.clone())), (4, vec![1, 2, 3]));
    // Exchanges of one turn have one line.
    let mut turn = bus.handle.turn().await.unwrap();
    for _ in 0..2 {
        assert_eq!(turn.exchange(&call(4)).await, Wire::Answered(Answer::Written));
    }
    drop(turn);
    bus.settle().await;
    assert_eq!(bus.line.with(|script| script.attempts.len()), 5);
    bus.line.with(|script| script.absent = true);
    assert_eq!(bus.ask(5).await.unwrap(), not_sent("it is absent"));
    let status = bus.handle.status();
    assert_eq!((status.state.as_str(), status.last_error.as_deref()), ("opening", Some("it is absent")));
    bus.line.with(|script| script.absent = false);
    sleep(Duration::from_secs(6)).await;
    let status = bus.handle.status();
    assert_eq!((status.state.as_str(), status.last_error), ("closed", None));
}

/// In real time: whoever is never done lets no simulated time pass.
#[tokio::test]
async fn settings_that_come_right_before_everybody_goes_do_not_keep_it_busy() {
    let Running { handle, stop, worker, .. } = start(Script::default());
    let mut turn = handle.turn().await.unwrap();
    assert_eq!(turn.exchange(&call(1)).await, Wire::Answered(Answer::Written));
    // They are taken up behind this turn, by when nobody is there who could change them again.
    handle.configure(&crate::config::Bus { retries: 7, ..handle.settings() });
    drop(handle);
    drop(turn);
    tokio::time::timeout(Duration::from_secs(10), worker).await.expect("it comes to its end").unwrap();
    assert!(!stop.is_cancelled());
}
