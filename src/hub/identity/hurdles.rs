//! Events that the hub does not take: it closes the connection for them, or says nothing. One of them must not keep all
//! behind it from being published.
//!
//! MQTT tells no reason, and several events are on the wire at a time. So an event is suspected if connections end with
//! it unacknowledged again and again; suspects are published one at a time; and one with which connections go on ending
//! is set aside: others go first, and it is tried again after growing waits. None is ever given up (G7).
//!
//! Where a transport tells of one event that the hub does not take, that one is set aside at once.
//!
//! Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// From so many connections on that have ended with an event on the wire, one event at a time is published.
const SUSPECTED_AFTER: u32 = 2;
/// From so many on it is set aside.
const SET_ASIDE_AFTER: u32 = 4;
/// The first wait of one that was set aside, and the longest. Each time the wait is doubled.
const WAIT_MIN: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Events that can be remembered here. Beyond that none is set aside.
const HURDLES_MAX: usize = 64;

/// What is known against some of a device's events.
#[derive(Debug, Default)]
pub(in crate::hub) struct Hurdles {
    /// By the event's number.
    events: BTreeMap<i64, Hurdle>,
}

#[derive(Debug, Default)]
struct Hurdle {
    /// Connections in a row that have ended with it unacknowledged.
    ends: u32,
    /// Set aside until then, after this wait.
    aside: Option<(Instant, Duration)>,
}

impl Hurdle {
    /// Sets it aside for longer than before, and says whether it was not.
    fn set_aside(&mut self, now: Instant) -> bool {
        let wait = self.aside.map_or(WAIT_MIN, |(_, wait)| WAIT_MAX.min(2 * wait));
        self.aside.replace((now + wait, wait)).is_none()
    }
}

impl Hurdles {
    /// A connection was ended by the hub, or given up, with these unacknowledged. Gives those that are set aside now
    /// and were not before.
    pub(in crate::hub) fn ended_with(&mut self, events: &[i64], now: Instant) -> Vec<i64> {
        let mut new = Vec::new();
        for seq in events {
            if !self.has_room_for(*seq) {
                continue;
            }
            let hurdle = self.events.entry(*seq).or_default();
            hurdle.ends = hurdle.ends.saturating_add(1);
            // Of several on the wire any may be the one.
            if hurdle.ends < SET_ASIDE_AFTER || events.len() > 1 {
                continue;
            }
            if hurdle.set_aside(now) {
                new.push(*seq);
            }
        }
        new
    }

    /// The hub has said of this one that it does not take it: no other is suspected. Whether it is set aside now and
    /// was not before; `None`: as many are as may be.
    pub(in crate::hub) fn refused(&mut self, seq: i64, now: Instant) -> Option<bool> {
        self.has_room_for(seq).then(|| self.events.entry(seq).or_default().set_aside(now))
    }

    fn has_room_for(&self, seq: i64) -> bool {
        self.events.len() < HURDLES_MAX || self.events.contains_key(&seq)
    }

    /// The hub has this one. Whether it was set aside before.
    pub(in crate::hub) fn taken(&mut self, seq: i64) -> bool {
        self.events.remove(&seq).is_some_and(|hurdle| hurdle.aside.is_some())
    }

    /// It is not in the ledger any more.
    pub(in crate::hub) fn forget(&mut self, seq: i64) {
        self.events.remove(&seq);
    }

    /// Whether others go before this one.
    pub(in crate::hub) fn is_aside(&self, seq: i64) -> bool {
        self.events.get(&seq).is_some_and(|hurdle| hurdle.aside.is_some())
    }

    /// Whether events are to be published one at a time.
    pub(in crate::hub) fn one_at_a_time(&self) -> bool {
        self.events.values().any(|hurdle| hurdle.aside.is_none() && hurdle.ends >= SUSPECTED_AFTER)
    }

    /// One that was set aside and is to be tried again now.
    pub(in crate::hub) fn due(&self, now: Instant) -> Option<i64> {
        self.events.iter().find(|(_, hurdle)| hurdle.aside.is_some_and(|(at, _)| at <= now)).map(|(seq, _)| *seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_one_event_that_the_hub_does_not_take_is_found_among_many_and_set_aside() {
        let (mut hurdles, now) = (Hurdles::default(), Instant::now());
        let mut left: Vec<i64> = (1..=20).collect();
        let (bad, mut connections) = (7, 0);
        // The hub takes one after the other, and closes the connection at the bad one.
        while left != [bad] {
            connections += 1;
            let window = if hurdles.one_at_a_time() { 1 } else { 16 };
            let mut wire: Vec<i64> = Vec::new();
            loop {
                let next = left.iter().find(|seq| !hurdles.is_aside(**seq) && !wire.contains(seq));
                if let Some(next) = next.filter(|_| wire.len() < window) {
                    wire.push(*next);
                } else if wire.is_empty() || wire[0] == bad {
                    break;
                } else {
                    let taken = wire.remove(0);
                    left.retain(|seq| *seq != taken);
                    hurdles.taken(taken);
                }
            }
            hurdles.ended_with(&wire, now);
            assert!(connections < 10, "{left:?}");
        }
        assert!(hurdles.is_aside(bad));
        assert_eq!((hurdles.due(now), hurdles.due(now + WAIT_MIN)), (None, Some(bad)));
        assert!(hurdles.ended_with(&[bad], now + WAIT_MIN).is_empty(), "it is known already");
        assert_eq!(hurdles.due(now + 2 * WAIT_MIN), None, "each wait is longer");
        assert!(hurdles.taken(bad) && !hurdles.is_aside(bad));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_the_hub_refuses_is_set_aside_at_once_and_no_other_is_suspected() {
        let (mut hurdles, now) = (Hurdles::default(), Instant::now());
        assert_eq!(hurdles.refused(7, now), Some(true));
        assert!(hurdles.is_aside(7) && !hurdles.one_at_a_time());
        assert_eq!((hurdles.due(now), hurdles.due(now + WAIT_MIN)), (None, Some(7)));
        assert_eq!(hurdles.refused(7, now + WAIT_MIN), Some(false), "it is known already");
        assert_eq!(hurdles.due(now + 2 * WAIT_MIN), None, "each wait is longer");
        assert!((8..8 + HURDLES_MAX as i64 - 1).all(|seq| hurdles.refused(seq, now) == Some(true)));
        assert_eq!(hurdles.refused(1000, now), None);
        assert_eq!(hurdles.refused(7, now), Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_the_longest_wait_is_an_hour() {
        let (mut hurdles, now) = (Hurdles::default(), Instant::now());
        for seq in 0..1000 {
            for _ in 0..100 {
                hurdles.ended_with(&[seq], now);
            }
        }
        assert_eq!(hurdles.events.len(), HURDLES_MAX);
        assert!(!hurdles.one_at_a_time());
        assert_eq!(hurdles.due(now + WAIT_MAX), Some(0));
    }
}
