//! An identity's links for calls of direct methods: one that brings them, and one that their answers go out on.
//!
//! Both have one address, and the hub is told by a property that they belong together; each message is settled by
//! whoever sends it (IoT Hub's SDK for .NET). A hub may refuse them, or end them: that takes nothing from the messages
//! and events of the identity.
//!
//! Invariants
//! - The two end together, and nothing else of the identity ends with them.
//! - An answer goes out on the pair that brought its call, or not at all: the hub has given that call up (G6).
//! - Of each pair that is asked for, its identity learns an end before it asks for another: one that the hub does not
//!   answer to in time is ended here.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::handle::ATTACH_PATIENCE;
use crate::amqp::engine::{Attaching, Direction, Engine, LinkId, SessionId, Settle};
use crate::amqp::message::text;
use crate::amqp::types::definitions::Fields;
use crate::amqp::Value;
use crate::hub::call::CALLS_MAX;

/// Calls on their way to the identity, which takes each at once: it tells whoever calls too often.
const WINDOW: u32 = 4;
/// The pause before calls are asked for again, which doubles up to the longest. Half of it is up to chance.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// A pause of so long is told to whoever reads the log: before that, it may pass.
const TOLD_FROM: Duration = Duration::from_secs(60);
/// Links that have stood for so long after that stand again.
const STEADY: Duration = Duration::from_secs(60);
/// Links that have stood for so long were wanted.
const LONG: Duration = Duration::from_secs(600);

/// Two links that belong together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// What no other pair of the connection has.
    pub(super) number: u64,
    /// Each, until its end is told of or wanted: another link has its name then.
    calls: Option<LinkId>,
    answers: Option<LinkId>,
    /// Those that the hub has not answered to: the answers, and the calls.
    unanswered: [bool; 2],
    stands: bool,
}

impl Pair {
    /// Asks the hub for a pair. `None`: the session has no room for it.
    pub(super) fn attach(
        engine: &mut Engine,
        session: SessionId,
        (number, name): (u64, &str),
        address: &str,
        client: &Fields,
    ) -> Option<Pair> {
        let mut properties = client.clone();
        let channel = Value::Uuid(fastrand::u128(..).to_be_bytes().into());
        let channel = format!("methods:{}", text(&channel).unwrap_or_default());
        properties.insert("com.microsoft:channel-correlation-id".into(), Value::String(channel));
        let mut link = |direction, which| {
            let (name, address) = (format!("{name}-{which}-{number}"), address.to_owned());
            let properties = Some(properties.clone());
            engine.attach(session, Attaching { name, address, local: None, direction, properties })
        };
        let answers = link(Direction::OutOnce(CALLS_MAX), "answers")?;
        match link(Direction::InOnce(WINDOW), "calls") {
            Some(calls) => {
                let (calls, answers) = (Some(calls), Some(answers));
                Some(Pair { number, calls, answers, unanswered: [true; 2], stands: true })
            }
            None => {
                engine.detach(answers);
                None
            }
        }
    }

    /// Whether calls come on a link that somebody is to hear of.
    pub(super) fn brings(&self, link: LinkId) -> bool {
        self.stands && self.calls == Some(link)
    }

    /// There is room for another call in the place of one.
    pub(super) fn taken(&self, engine: &mut Engine, delivery: u32) {
        if let Some(calls) = self.calls {
            engine.settle(calls, delivery, Settle::Accept);
        }
    }

    /// Sends an answer. `false`: it goes nowhere.
    pub(super) fn answer(&self, engine: &mut Engine, message: Bytes) -> bool {
        self.answers.is_some_and(|answers| self.stands && engine.send(answers, 0, message))
    }

    /// The hub has answered to a link. Whether it has to both now, for the first time.
    pub(super) fn on_attached(&mut self, link: LinkId) -> bool {
        let Some(at) = [self.answers, self.calls].iter().position(|own| *own == Some(link)) else { return false };
        self.stands && std::mem::take(&mut self.unanswered[at]) && self.unanswered == [false; 2]
    }

    /// Ends it if the hub has not answered to both yet. Whether it had to.
    pub(super) fn give_up(&mut self, engine: &mut Engine) -> bool {
        let is_late = self.stands && self.unanswered != [false; 2];
        if is_late {
            self.end(engine);
        }
        is_late
    }

    /// The hub has ended a link. `None`: it is none of the two; else whether the pair has stood until now.
    pub(super) fn on_detached(&mut self, engine: &mut Engine, link: LinkId) -> Option<bool> {
        [&mut self.calls, &mut self.answers].into_iter().find(|own| **own == Some(link))?.take();
        let has_stood = self.stands;
        self.end(engine);
        Some(has_stood)
    }

    /// Ends what is left of it. That of one which the hub has ended as well will be told of still.
    pub(super) fn end(&mut self, engine: &mut Engine) {
        for link in [&mut self.calls, &mut self.answers] {
            link.take_if(|link| engine.detach(*link));
        }
        self.stands = false;
    }
}

/// When an identity asks for its calls, and what is said of that.
pub(super) struct Listening {
    next: Option<(Instant, Step)>,
    since: Instant,
    pause: Duration,
    /// It was said that there are none.
    is_told: bool,
}

/// What is to be done when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// To ask.
    Ask,
    /// To end what was asked for, if the hub has not answered.
    GiveUp,
    /// To say that calls come again.
    Tell,
}

/// The hub has ended it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// It is asked again after that.
    pub(super) pause: Duration,
    /// It is to be said that there are none.
    pub(super) is_news: bool,
}

impl Listening {
    /// Of one that does not yet.
    pub(super) fn new(now: Instant) -> Listening {
        Listening { next: None, since: now, pause: PAUSE, is_told: false }
    }

    /// It is to ask now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next = Some((now, Step::Ask));
    }

    /// When something is to be done, if anything is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// What is to be done now. It is from then on.
    pub(super) fn step(&mut self, now: Instant) -> Option<Step> {
        let (_, step) = self.next.take_if(|(at, _)| *at <= now)?;
        match step {
            Step::Ask => (self.since, self.next) = (now, Some((now + ATTACH_PATIENCE, Step::GiveUp))),
            Step::GiveUp => {}
            Step::Tell => self.is_told = false,
        }
        Some(step)
    }

    /// The hub has answered. Some do so before they look whether they permit it.
    pub(super) fn stands(&mut self, now: Instant) {
        self.next = self.is_told.then_some((now + STEADY, Step::Tell));
    }

    /// The hub has ended it, or does not answer. `chance`: from 0 to 1.
    pub(super) fn ended(&mut self, now: Instant, chance: f64) -> Ended {
        if now.duration_since(self.since) >= LONG {
            self.pause = PAUSE;
        }
        let is_long = self.pause >= TOLD_FROM;
        let is_news = is_long && !self.is_told;
        self.is_told |= is_long;
        let pause = self.pause.mul_f64(0.5 + chance / 2.0);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.next = Some((now + pause, Step::Ask));
        Ended { pause, is_news }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_has_no_calls_is_asked_ever_more_seldom_and_one_that_had_them_for_long_soon() {
        let mut now = Instant::now();
        let mut listening = Listening::new(now);
        let mut pauses = Vec::new();
        listening.begin(now);
        for _ in 0..12 {
            assert_eq!(listening.step(now), Some(Step::Ask));
            let Ended { pause, .. } = listening.ended(now, 1.0);
            assert_eq!(listening.due(), Some(now + pause));
            now += pause;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(listening.step(now), Some(Step::Ask));
        now += LONG;
        assert_eq!(listening.ended(now, 0.0).pause, PAUSE / 2);
    }

    /// The hub is asked, which ends what it was asked for after so long, and again after the pause; what is said.
    fn asked(listening: &mut Listening, now: &mut Instant, stands_for: Option<Duration>) -> Vec<&'static str> {
        let mut said = Vec::new();
        assert_eq!(listening.step(*now), Some(Step::Ask));
        assert_eq!(listening.due(), Some(*now + ATTACH_PATIENCE));
        match stands_for {
            None => {
                *now += ATTACH_PATIENCE;
                assert_eq!(listening.step(*now), Some(Step::GiveUp));
            }
            Some(stands_for) => {
                listening.stands(*now);
                *now += stands_for;
                said.extend(listening.step(*now).map(|step| if step == Step::Tell { "again" } else { "?" }));
            }
        }
        assert_eq!(listening.due().filter(|_| stands_for.is_none()), None);
        let Ended { pause, is_news } = listening.ended(*now, 1.0);
        said.extend(is_news.then_some("none"));
        *now += pause;
        said
    }

    #[test]
    fn that_no_calls_come_is_said_once_when_it_does_not_pass_and_that_they_come_again_once_they_do() {
        let mut now = Instant::now();
        let mut listening = Listening::new(now);
        listening.begin(now);
        let mut ask = |stands_for| asked(&mut listening, &mut now, stands_for);
        let (refused, short) = (Some(Duration::ZERO), Some(STEADY / 2));
        assert_eq!(ask(refused), [""; 0]);
        for _ in 0..2 {
            // What the hub ends, and what it does not answer to.
            for stands_for in [None, refused, short] {
                assert_eq!(ask(stands_for), [""; 0]);
            }
            assert_eq!(ask(refused), ["none"]);
            for stands_for in [None, refused, short, None] {
                assert_eq!(ask(stands_for), [""; 0]);
            }
            // It was wanted, and is asked for soon: the first pause follows.
            assert_eq!(ask(Some(LONG)), ["again"]);
        }
    }
}
