//! What came of a bus's exchanges and how long its callers waited, for whoever watches it over months. Each unit is a
//! byte and each end one of five words: it is bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::bus::call::Wire;
use crate::health::meters::{BusReadings, Histogram};

/// The words for what came of an exchange.
pub const RESULTS: [&str; 5] = ["ok", "exception", "timeout", "bad_reply", "not_sent"];

/// The meter of one bus, since the start.
#[derive(Debug, Default)]
pub(in crate::bus) struct Meter {
    results: Mutex<BTreeMap<u8, [u64; RESULTS.len()]>>,
    waits: Histogram,
}

impl Meter {
    /// An exchange with a unit has ended.
    pub(in crate::bus) fn ended(&self, unit: u8, wire: &Wire) {
        let at = match wire {
            Wire::Answered(_) | Wire::Broadcast => 0,
            Wire::Refused(_) => 1,
            Wire::NoAnswer(_) => 2,
            Wire::BadReply(_) => 3,
            Wire::NotSent(_) => 4,
        };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).entry(unit).or_default()[at] += 1;
    }

    /// Somebody has waited so long for a turn, and was given it.
    pub(in crate::bus) fn waited(&self, time: Duration) {
        self.waits.observe(time);
    }

    /// As it is now. Where the protocol has no units, none is named.
    pub(in crate::bus) fn reading(&self, has_units: bool) -> BusReadings {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let exchanges = results.into_iter().flat_map(|(unit, counts)| {
            let unit = if has_units { unit.to_string() } else { String::new() };
            RESULTS.into_iter().zip(counts).map(move |(result, count)| ((unit.clone(), result), count))
        });
        BusReadings { exchanges: exchanges.collect(), waits: self.waits.reading() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peripheral::exchange::{Answer, Refusal};

    #[test]
    fn each_end_is_counted_under_its_word_and_a_line_of_text_has_no_unit() {
        let meter = Meter::default();
        meter.ended(7, &Wire::Answered(Answer::Written));
        meter.ended(7, &Wire::Broadcast);
        meter.ended(7, &Wire::Refused(Refusal::Exception(2)));
        meter.ended(7, &Wire::NoAnswer("silence".into()));
        meter.ended(7, &Wire::BadReply("noise".into()));
        meter.ended(9, &Wire::NotSent("closed".into()));
        meter.waited(Duration::from_millis(3));
        let BusReadings { exchanges, waits } = meter.reading(true);
        let of = |unit: &str| RESULTS.map(|result| exchanges[&(unit.to_owned(), result)]);
        assert_eq!((of("7"), of("9")), ([2, 1, 1, 1, 0], [0, 0, 0, 0, 1]));
        assert_eq!(waits.counts.iter().sum::<u64>(), 1);
        let text = Meter::default();
        text.ended(0, &Wire::Refused(Refusal::Text("ERR".into())));
        assert_eq!(text.reading(false).exchanges[&(String::new(), "exception")], 1);
    }
}
