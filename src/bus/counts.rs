//! What became of the exchanges of a bus, unit by unit, for `status`. Each id is a byte: there are at most 256.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bus::call::Wire;
use crate::bus::meter::Meter;
use crate::health::snapshot::{Bar, Times, Unit};
use crate::peripheral::exchange::Refusal;

/// Where the histogram of round trips has its steps, in milliseconds. No answer is waited for longer than the last.
const STEPS: [u32; 14] = [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000, 4_000_000];

/// The counts of one bus since the start.
#[derive(Debug, Default)]
pub(in crate::bus) struct Counts {
    units: Mutex<BTreeMap<u8, Counted>>,
    /// The same for whoever watches it over months.
    pub(in crate::bus) meter: Meter,
}

#[derive(Debug, Default)]
struct Counted {
    unit: Unit,
    /// Exchanges that were answered, and how long all of them took.
    answered: u32,
    took: Duration,
    /// How many of them took up to each of the steps.
    steps: [u64; STEPS.len()],
}

impl Counts {
    /// An exchange with a unit has ended. `garbled`: what came was no intact frame.
    pub(in crate::bus) fn ended(&self, unit: u8, wire: &Wire, garbled: bool, took: Duration) {
        let mut all = self.all();
        let counted = all.entry(unit).or_default();
        counted.unit.unit = unit;
        match wire {
            Wire::NotSent(_) => return,
            Wire::NoAnswer(_) => counted.unit.timeouts += 1,
            Wire::BadReply(_) => {
                counted.unit.bad_replies += 1;
                counted.unit.checksum_errors += u64::from(garbled);
            }
            Wire::Refused(Refusal::Exception(code)) => *counted.unit.exceptions.entry(*code).or_default() += 1,
            Wire::Answered(_) | Wire::Refused(Refusal::Text(_)) | Wire::Broadcast => {}
        }
        counted.unit.exchanges += 1;
        if matches!(wire, Wire::Answered(_) | Wire::Refused(_)) {
            counted.answered = counted.answered.saturating_add(1);
            counted.took = counted.took.saturating_add(took);
            let step = STEPS.iter().position(|step| took.as_micros() <= u128::from(*step) * 1000);
            counted.steps[step.unwrap_or(STEPS.len() - 1)] += 1;
            let (last, mean) = (milliseconds(took), milliseconds(counted.took / counted.answered));
            let times = counted.unit.milliseconds.get_or_insert_default();
            (times.last, times.mean, times.max) = (last, mean, times.max.max(last));
        }
    }

    /// Each unit of which something was sent to.
    pub(in crate::bus) fn units(&self) -> Vec<Unit> {
        let all = self.all();
        all.values().filter(|counted| counted.unit.exchanges > 0).map(Counted::told).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u8, Counted>> {
        // What was counted is right, whoever panicked while holding it.
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn told(&self) -> Unit {
        let bars = STEPS.iter().zip(self.steps).map(|(up_to, count)| Bar { up_to: *up_to, count });
        let histogram = bars.filter(|bar| bar.count > 0).collect();
        let milliseconds = self.unit.milliseconds.clone().map(|times| Times { histogram, ..times });
        Unit { milliseconds, ..self.unit.clone() }
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
        counts.ended(7, &Wire::Answered(Answer::Written), false, took(10_000));
        counts.ended(7, &Wire::Refused(Refusal::Exception(2)), false, took(20_040));
        counts.ended(7, &Wire::Refused(Refusal::Exception(2)), false, took(3_000));
        counts.ended(7, &Wire::NoAnswer("silence".into()), false, took(900_000));
        counts.ended(9, &Wire::BadReply("noise".into()), true, took(900_000));
        counts.ended(9, &Wire::BadReply("another unit".into()), false, took(900_000));
        counts.ended(11, &Wire::NotSent("closed".into()), false, took(0));
        let bar = |up_to| Bar { up_to, count: 1 };
        let times = Times { last: 3.0, mean: 11.0, max: 20.0, histogram: vec![bar(5), bar(10), bar(50)] };
        let seven = Unit {
            unit: 7,
            exchanges: 4,
            timeouts: 1,
            bad_replies: 0,
            checksum_errors: 0,
            exceptions: [(2, 2)].into(),
            milliseconds: Some(times),
        };
        let nine = Unit { unit: 9, exchanges: 2, bad_replies: 2, checksum_errors: 1, ..Unit::default() };
        assert_eq!(counts.units(), [seven, nine]);
    }
}
