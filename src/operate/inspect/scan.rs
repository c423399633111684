//! Asking a unit whether it is there, known to the configuration or not.
//!
//! Invariants
//! - It is one read of one register, whose answer, an exception too, says that the unit is there.
//! - An answer that comes later than it is waited for is owed for as long as one to a command: nobody takes it for
//!   another's.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{timeout, Instant};

use super::{unreadable, TURN_LIMIT};
use crate::bus::call::{Call, Wire};
use crate::bus::{late_window, BusHandle};
use crate::peripheral::exception;
use crate::peripheral::exchange::{Refusal, Request};

/// How long a unit may take to answer, where the bus's `response_timeout` is longer: most have no unit.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// What a gateway between networks says of a unit behind it that does not answer.
const NOT_BEHIND_THE_GATEWAY: [u8; 2] = [exception::NO_PATH, exception::NO_RESPONSE];

/// What a unit was found to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The unit.
    pub unit: u8,
    /// It is there.
    pub answers: bool,
    /// The code of the exception that came, from it or from a gateway before it.
    pub exception: Option<u8>,
    /// How long its answer took.
    pub milliseconds: Option<f64>,
    /// What came that is no answer: a sentence.
    pub disturbed: Option<String>,
    /// For so many milliseconds its answer may still come.
    pub owed: u64,
}

impl Found {
    /// As `scan --json` prints it.
    pub fn to_json(&self) -> serde_json::Value {
        let Found { unit, answers, exception, milliseconds, .. } = self;
        serde_json::json!({ "unit": unit, "answers": answers, "exception": exception, "milliseconds": milliseconds })
    }
}

/// Asks a unit. `slowest` is the longest that any command of the bus waits for its answer.
///
/// # Errors
/// A sentence: the bus can't be asked.
pub async fn ask(bus: &BusHandle, unit: u8, slowest: Duration) -> Result<Found, String> {
    let settings = bus.settings();
    if let Some(why) = unreadable(&settings, unit) {
        return Err(format!("bus {:?} can't be scanned: {why}", bus.status().name));
    }
    let usual = slowest.max(settings.response_timeout);
    let request = Request::ReadWords { holding: true, address: 0, count: 1 };
    let patience = settings.response_timeout.min(ANSWER_LIMIT);
    let call = Call { timeout: Some(patience), slowest: Some(usual), ..Call::new(unit, request) };
    let busy = || format!("the bus was not free for {} s, and unit {unit} was not asked", TURN_LIMIT.as_secs());
    let cleared = async {
        let mut turn = bus.turn().await.map_err(|closed| closed.to_string())?;
        // What is waited for here is no time of the unit's.
        turn.clear(&call).await;
        Ok(turn)
    };
    let mut turn = timeout(TURN_LIMIT, cleared).await.unwrap_or_else(|_| Err(busy()))?;
    let begun = Instant::now();
    let call = Call { not_after: Some(begun + TURN_LIMIT), ..call };
    let end = turn.exchange(&call).await;
    drop(turn);
    let took = begun.elapsed();
    let owed = || u64::try_from(late_window(&settings, usual).as_millis()).unwrap_or(u64::MAX);
    told(unit, end, took, owed)
}

fn told(unit: u8, end: Wire, took: Duration, owed: impl Fn() -> u64) -> Result<Found, String> {
    let none = Found { unit, answers: false, exception: None, milliseconds: None, disturbed: None, owed: 0 };
    let milliseconds = Some((took.as_secs_f64() * 10_000.0).round() / 10.0);
    match end {
        Wire::Answered(_) => Ok(Found { answers: true, milliseconds, ..none }),
        Wire::Refused(Refusal::Exception(code)) => {
            let answers = !NOT_BEHIND_THE_GATEWAY.contains(&code);
            Ok(Found { answers, exception: Some(code), milliseconds, ..none })
        }
        Wire::BadReply(why) | Wire::Refused(Refusal::Text(why)) => {
            Ok(Found { disturbed: Some(why), owed: owed(), ..none })
        }
        // Nobody asks all units of a line for something.
        Wire::NoAnswer(_) | Wire::Broadcast => Ok(Found { owed: owed(), ..none }),
        Wire::NotSent(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peripheral::exchange::Answer;

    #[test]
    fn an_exception_is_an_answer_unless_a_gateway_gives_it() {
        let found = |end| told(7, end, Duration::from_micros(12_340), || 2000).unwrap();
        let exception = |code| Wire::Refused(Refusal::Exception(code));
        for (end, answers, code) in [
            (Wire::Answered(Answer::Words(vec![1])), true, None),
            (exception(1), true, Some(1)),
            (exception(2), true, Some(2)),
            (exception(10), false, Some(10)),
            (exception(11), false, Some(11)),
        ] {
            let found = found(end);
            assert_eq!((found.unit, found.answers, found.exception, found.owed), (7, answers, code, 0));
            assert_eq!(found.milliseconds, Some(12.3));
        }
        for (end, disturbed) in [(Wire::NoAnswer("no".into()), None), (Wire::BadReply("noise".into()), Some("noise"))] {
            let found = found(end);
            assert_eq!((found.answers, found.disturbed.as_deref(), found.owed), (false, disturbed, 2000));
            assert_eq!(found.milliseconds, None);
        }
        assert!(told(7, Wire::NotSent("unplugged".into()), Duration::ZERO, || 0).is_err());
    }
}
