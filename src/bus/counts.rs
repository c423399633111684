//! What became of the exchanges of a bus, unit by unit, for `status`. Each id is a byte: there are at most 256.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bus::call::Wire;
use crate::health::snapshot::{Times, Unit};
use crate::peripheral::exchange::Refusal;

/// The counts of one bus since the start.
#[derive(Debug, Default)]
pub(in crate::bus) struct Counts(Mutex<BTreeMap<u8, Counted>>);

#[derive(Debug, Default)]
struct Counted {
    unit: Unit,
    /// Exchanges that were answered, and how long all of them took.
    answered: u32,
    took: Duration,
}

impl Counts {
    /// An exchange with a unit has ended.
    pub(in crate::bus) fn ended(&self, unit: u8, wire: &Wire, took: Duration) {
        let mut all = self.all();
        let counted = all.entry(unit).or_default();
        counted.unit.unit = unit;
        match wire {
            Wire::NotSent(_) => return,
            Wire::NoAnswer(_) => counted.unit.timeouts += 1,
            Wire::BadReply(_) => counted.unit.bad_replies += 1,
            Wire::Refused(Refusal::Exception(code)) => *counted.unit.exceptions.entry(*code).or_default() += 1,
            Wire::Answered(_) | Wire::Refused(Refusal::Text(_)) | Wire::Broadcast => {}
        }
        counted.unit.exchanges += 1;
        if matches!(wire, Wire::Answered(_) | Wire::Refused(_)) {
            counted.answered = counted.answered.saturating_add(1);
            counted.took = counted.took.saturating_add(took);
            let max = counted.unit.milliseconds.map_or(0.0, |times| times.max).max(milliseconds(took));
            let mean = milliseconds(counted.took / counted.answered);
            counted.unit.milliseconds = Some(Times { last: milliseconds(took), mean, max });
        }
    }

    /// Each unit of which something was sent to.
    pub(in crate::bus) fn units(&self) -> Vec<Unit> {
        let all = self.all();
        all.values().map(|counted| counted.unit.clone()).filter(|unit| unit.exchanges > 0).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u8, Counted>> {
        // What was counted is right, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the tenth of one.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peripheral::exchange::Answer;

    #[test]
    fn each_end_is_counted_for_its_unit_and_what_was_not_sent_for_none() {
        let counts = Counts::default();
        let took = |n| Duration::from_micros(n);
        counts.ended(7, &Wire::Answered(Answer::Written), took(10_000));
        counts.ended(7, &Wire::Refused(Refusal::Exception(2)), took(20_040));
        counts.ended(7, &Wire::Refused(Refusal::Exception(2)), took(3_000));
        counts.ended(7, &Wire::NoAnswer("silence".into()), took(900_000));
        counts.ended(9, &Wire::BadReply("noise".into()), took(900_000));
        counts.ended(11, &Wire::NotSent("closed".into()), took(0));
        let times = Times { last: 3.0, mean: 11.0, max: 20.0 };
        let seven = Unit {
            unit: 7,
            exchanges: 4,
            timeouts: 1,
            bad_replies: 0,
            exceptions: [(2, 2)].into(),
            milliseconds: Some(times),
        };
        let nine = Unit { unit: 9, exchanges: 1, bad_replies: 1, ..Unit::default() };
        assert_eq!(counts.units(), [seven, nine]);
    }
}
