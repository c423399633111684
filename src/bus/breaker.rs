//! Whether somebody who is asked on a bus is there, and when somebody who is not is tried again. Pure: no clock, no
//! line.
//!
//! ```text
//! unknown ──answer──► present ──so many requests in a row unanswered──► away ──answer──► present
//! ```
//!
//! Invariants
//! - Only silence makes anybody away, and only so much of it in a row. A bad reply is none; neither is what a line says
//!   of itself: a port that is absent, a connection that is refused or lost.
//! - Any answer shows that somebody is there, whoever asked for it.
//! - Who is away is tried by one attempt at a time, and not before its time. The times lie farther and farther apart.
//! - What is not counted, for it was asked to find out who is there, never makes anybody away.

use std::time::{Duration, Instant};

/// The pause between two attempts grows up to this, or to the interval if that is longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What stands in the bus's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Rule {
    /// After how many requests in a row without an answer somebody is away; 0: never.
    pub(in crate::bus) after: u32,
    /// The first pause.
    pub(in crate::bus) interval: Duration,
}

/// What an exchange says of who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Sign {
    /// Something of an answer came.
    Answered,
    /// Nothing came.
    Silent,
    /// Nothing was sent, and nothing is known.
    NotSent,
}

/// What a sign has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Change {
    /// Who was there, or might have been, is away.
    Left,
    /// Who was away is there.
    Back,
}

/// Whether somebody may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Leave {
    /// As ever.
    Given,
    /// By one attempt, under the number that was given.
    Once,
    /// Not before then.
    NotBefore(Instant),
    /// Not while somebody else tries.
    Tried,
}

/// What is known of one who is asked.
#[derive(Debug, Clone, Default)]
pub(in crate::bus) struct Breaker {
    /// Requests in a row that were left unanswered.
    unanswered: u32,
    has_answered: bool,
    away: Option<Away>,
}

#[derive(Debug, Clone)]
struct Away {
    since: Instant,
    /// When it is tried next, and the pause before that.
    next: Instant,
    pause: Duration,
    /// The attempt that is under way.
    attempt: Option<u64>,
}

impl Breaker {
    /// An exchange has ended.
    pub(in crate::bus) fn ended(&mut self, sign: Sign, rule: Rule, now: Instant) -> Option<Change> {
        match (sign, &mut self.away) {
            (Sign::Answered, away) => {
                let was_away = away.take().is_some();
                (self.unanswered, self.has_answered) = (0, true);
                was_away.then_some(Change::Back)
            }
            (Sign::NotSent, None) => None,
            (Sign::Silent, None) => {
                self.unanswered = self.unanswered.saturating_add(1);
                if rule.after == 0 || self.unanswered < rule.after {
                    return None;
                }
                let (next, pause) = (now + rule.interval, rule.interval);
                self.away = Some(Away { since: now, next, pause, attempt: None });
                Some(Change::Left)
            }
            (_, Some(away)) => {
                self.unanswered = self.unanswered.saturating_add(u32::from(sign == Sign::Silent));
                // A person may ask between the attempts: that makes them no rarer.
                if sign == Sign::Silent && away.attempt.is_some() {
                    away.pause = (away.pause * 2).min(PAUSE_MAX.max(rule.interval));
                }
                (away.next, away.attempt) = (now + away.pause, None);
                None
            }
        }
    }

    /// Whether it may be asked now. An attempt that this gives leave for has this number.
    pub(in crate::bus) fn leave(&mut self, number: u64, now: Instant) -> Leave {
        match &mut self.away {
            None => Leave::Given,
            Some(Away { attempt: Some(_), .. }) => Leave::Tried,
            Some(Away { next, .. }) if now < *next => Leave::NotBefore(*next),
            Some(away) => {
                away.attempt = Some(number);
                Leave::Once
            }
        }
    }

    /// An attempt is not made, or has ended before. `true`: another may be made.
    pub(in crate::bus) fn give_up(&mut self, number: u64) -> bool {
        self.away.as_mut().is_some_and(|away| away.attempt.take_if(|of| *of == number).is_some())
    }

    /// Since when it is away, if it is.
    pub(in crate::bus) fn away_since(&self) -> Option<Instant> {
        self.away.as_ref().map(|away| away.since)
    }

    /// When it is tried next, if it is away and nobody tries.
    pub(in crate::bus) fn tried_at(&self) -> Option<Instant> {
        self.away.as_ref().filter(|away| away.attempt.is_none()).map(|away| away.next)
    }

    /// Whether it is there; `None`: it has not answered yet, and was not silent for long enough either.
    pub(in crate::bus) fn is_present(&self) -> Option<bool> {
        match (&self.away, self.has_answered) {
            (Some(_), _) => Some(false),
            (None, true) => Some(true),
            (None, false) => None,
        }
    }

    /// Requests in a row that were left unanswered.
    pub(in crate::bus) fn unanswered(&self) -> u32 {
        self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { after: 3, interval: Duration::from_secs(10) };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One who was silent for long enough.
    fn away(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        let changes = [(); 3].map(|()| breaker.ended(Sign::Silent, RULE, now));
        assert_eq!(changes, [None, None, Some(Change::Left)]);
        breaker
    }

    #[test]
    fn only_so_much_silence_in_a_row_makes_anybody_away() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.is_present(), None);
        for sign in [Sign::Silent, Sign::NotSent, Sign::Silent, Sign::NotSent] {
            assert_eq!(breaker.ended(sign, RULE, now), None);
        }
        assert_eq!((breaker.is_present(), breaker.leave(1, now)), (None, Leave::Given));
        assert_eq!(breaker.ended(Sign::Answered, RULE, now), None);
        for sign in [Sign::Silent, Sign::Silent, Sign::Answered, Sign::Silent, Sign::Silent] {
            assert_eq!((breaker.ended(sign, RULE, now), breaker.is_present()), (None, Some(true)));
        }
        assert_eq!(breaker.ended(Sign::Silent, RULE, now), Some(Change::Left));
        assert_eq!((breaker.is_present(), breaker.away_since(), breaker.unanswered()), (Some(false), Some(now), 3));
        assert_eq!(breaker.ended(Sign::Answered, RULE, now), Some(Change::Back));
        assert_eq!((breaker.is_present(), breaker.leave(1, now)), (Some(true), Leave::Given));
    }

    #[test]
    fn nobody_is_away_where_the_configuration_says_never() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..1000 {
            assert_eq!(breaker.ended(Sign::Silent, Rule { after: 0, ..RULE }, now), None);
        }
        assert_eq!((breaker.is_present(), breaker.leave(1, now)), (None, Leave::Given));
    }

    #[test]
    fn who_is_away_is_tried_by_one_attempt_at_a_time_and_less_and_less_often() {
        let mut now = Instant::now();
        let mut breaker = away(now);
        for pause in [10, 20, 40, 60, 60] {
            assert_eq!(breaker.leave(1, now + s(pause) - Duration::from_millis(1)), Leave::NotBefore(now + s(pause)));
            now += s(pause);
            assert_eq!((breaker.leave(1, now), breaker.leave(2, now + s(900))), (Leave::Once, Leave::Tried));
            assert_eq!(breaker.ended(Sign::Silent, RULE, now), None);
        }
        // A longer interval stays as it is.
        let rule = Rule { interval: s(600), ..RULE };
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            breaker.ended(Sign::Silent, rule, now);
        }
        for _ in 0..3 {
            now += s(600);
            assert_eq!(breaker.leave(1, now), Leave::Once);
            breaker.ended(Sign::Silent, rule, now);
        }
    }

    #[test]
    fn an_attempt_that_is_not_made_may_be_made_by_another_and_one_that_is_not_sent_waits_as_long_again() {
        let start = Instant::now();
        let mut breaker = away(start);
        let now = start + s(10);
        assert_eq!((breaker.leave(1, now), breaker.tried_at()), (Leave::Once, None));
        assert!(!breaker.give_up(2) && breaker.give_up(1) && !breaker.give_up(1));
        assert_eq!((breaker.tried_at(), breaker.leave(2, now)), (Some(now), Leave::Once));
        assert_eq!(breaker.ended(Sign::NotSent, RULE, now), None);
        assert_eq!(breaker.leave(3, now), Leave::NotBefore(now + s(10)));
        // What is no attempt of these, and silent, puts the next one off and makes it no rarer.
        assert_eq!(breaker.ended(Sign::Silent, RULE, now + s(4)), None);
        assert_eq!(breaker.tried_at(), Some(now + s(14)));
    }
}
