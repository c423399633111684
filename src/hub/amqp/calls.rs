//! An identity's links for calls of direct methods: one that brings them, and one that their answers go out on.
//!
//! Both have one address, and the hub is told by a property that they belong together; each message is settled by
//! whoever sends it (IoT Hub's SDK for .NET). A hub may refuse them, or end them: that takes nothing from the messages
//! and events of the identity.
//!
//! Invariants
//! - The two end together, and nothing else of the identity ends with them.
//! - An answer goes out on the pair that brought its call, or not at all: the hub has given that call up (G6).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

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
            Some(calls) => Some(Pair { number, calls: Some(calls), answers: Some(answers), stands: true }),
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

/// When an identity asks for its calls.
pub(super) struct Listening {
    due: Option<Instant>,
    since: Instant,
    pause: Duration,
}

impl Listening {
    /// Of one that does not yet.
    pub(super) fn new(now: Instant) -> Listening {
        Listening { due: None, since: now, pause: PAUSE }
    }

    /// It is to ask now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// When it is to ask, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It asks.
    pub(super) fn asks(&mut self, now: Instant) {
        (self.due, self.since) = (None, now);
    }

    /// The hub has ended it, and is asked again after this pause. `chance`: from 0 to 1.
    pub(super) fn ended(&mut self, now: Instant, chance: f64) -> Duration {
        if now.duration_since(self.since) >= LONG {
            self.pause = PAUSE;
        }
        let pause = self.pause.mul_f64(0.5 + chance / 2.0);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.due = Some(now + pause);
        pause
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
        for _ in 0..12 {
            listening.asks(now);
            assert_eq!(listening.due(), None);
            let pause = listening.ended(now, 1.0);
            assert_eq!(listening.due(), Some(now + pause));
            now += pause;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        listening.asks(now);
        now += LONG;
        assert_eq!(listening.ended(now, 0.0), PAUSE / 2);
    }
}
