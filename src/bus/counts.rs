//! What became of the exchanges of a bus, unit by unit, and how long its callers waited: for `status` now, and for
//! whoever watches the bus over months.
//!
//! Invariants
//! - An exchange is counted once, when it has ended: whoever asks for sums is told what the units add up to.
//! - Each unit is a byte and each end one of five words: it is bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bus::call::Wire;
use crate::health::meters::{BusReadings, Histogram};
use crate::health::snapshot::{Bar, Times, Unit};
use crate::peripheral::exchange::Refusal;

/// The words for what came of an exchange.
pub const RESULTS: [&str; 5] = ["ok", "exception", "timeout", "bad_reply", "not_sent"];

/// Where the histogram of round trips has its steps, in milliseconds. No answer is waited for longer than the last.
const STEPS: [u32; 14] = [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000, 4_000_000];

/// The counts of one bus since the start.
#[derive(Debug, Default)]
pub(in crate::bus) struct Counts {
    units: Mutex<BTreeMap<u8, Counted>>,
    waits: Histogram,
}

#[derive(Debug, Default)]
struct Counted {
    unit: Unit,
    /// Exchanges that ended with a refusal, by an exception or in words.
    refused: u64,
    /// What was asked, and nothing of it left.
    not_sent: u64,
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
            Wire::NotSent(_) => {
                counted.not_sent += 1;
                return;
            }
            Wire::NoAnswer(_) => counted.unit.timeouts += 1,
            Wire::BadReply(_) => {
                counted.unit.bad_replies += 1;
                counted.unit.checksum_errors += u64::from(garbled);
            }
            Wire::Refused(refusal) => {
                counted.refused += 1;
                if let Refusal::Exception(code) = refusal {
                    *counted.unit.exceptions.entry(*code).or_default() += 1;
                }
            }
            Wire::Answered(_) | Wire::Broadcast => {}
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

    /// Somebody has waited so long for a turn, and was given it.
    pub(in crate::bus) fn waited(&self, time: Duration) {
        self.waits.observe(time);
    }

    /// Exchanges of which at least one byte was sent, and those of them to which nothing came back in time.
    pub(in crate::bus) fn sums(&self) -> (u64, u64) {
        let all = self.all();
        all.values().fold((0, 0), |(exchanges, timeouts), counted| {
            (exchanges + counted.unit.exchanges, timeouts + counted.unit.timeouts)
        })
    }

    /// What came of each unit's exchanges, under its word. Where the protocol has no units, none is named.
    pub(in crate::bus) fn reading(&self, has_units: bool) -> BusReadings {
        let all = self.all();
        let exchanges = all.iter().flat_map(|(unit, counted)| {
            let unit = if has_units { unit.to_string() } else { String::new() };
            RESULTS.into_iter().zip(counted.results()).map(move |(result, count)| ((unit.clone(), result), count))
        });
        BusReadings { exchanges: exchanges.collect(), waits: self.waits.reading() }
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
    /// As many as there are [`RESULTS`].
    fn results(&self) -> [u64; RESULTS.len()] {
        let Unit { exchanges, timeouts, bad_replies, .. } = self.unit;
        let ok = exchanges - self.refused - timeouts - bad_replies;
        [ok, self.refused, timeouts, bad_replies, self.not_sent]
    }

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
        assert_eq!(counts.sums(), (6, 1));
    }

    #[test]
    fn each_end_has_its_word_and_the_words_add_up_to_what_was_sent_and_what_was_not() {
        let (counts, took) = (Counts::default(), Duration::from_millis(3));
        let ends = [
            Wire::Answered(Answer::Written),
            Wire::Broadcast,
            Wire::Refused(Refusal::Exception(2)),
            Wire::Refused(Refusal::Text("ERR".into())),
            Wire::NoAnswer("silence".into()),
            Wire::BadReply("noise".into()),
        ];
        ends.iter().for_each(|wire| counts.ended(7, wire, false, took));
        counts.ended(9, &Wire::NotSent("closed".into()), false, took);
        counts.waited(took);
        let BusReadings { exchanges, waits } = counts.reading(true);
        let of = |unit: &str| RESULTS.map(|result| exchanges[&(unit.to_owned(), result)]);
        assert_eq!((of("7"), of("9")), ([2, 2, 1, 1, 0], [0, 0, 0, 0, 1]));
        assert_eq!(waits.counts.iter().sum::<u64>(), 1);
        let sent: u64 = exchanges.iter().filter(|((_, result), _)| *result != "not_sent").map(|(_, count)| count).sum();
        assert_eq!(counts.sums(), (sent, 1));
        // A line of text has no unit.
        let text = Counts::default();
        text.ended(0, &Wire::Refused(Refusal::Text("ERR".into())), false, took);
        assert_eq!(text.reading(false).exchanges[&(String::new(), "exception")], 1);
    }
}
