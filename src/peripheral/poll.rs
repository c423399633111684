//! What is read of a peripheral again and again, and which of what is read is news. Pure: times are arguments.
//!
//! Invariants
//! - What was never told is news, and so is every change between a value and none.
//! - A value that creeps is told when it has left the last one that was told by more than the deadband, not the last
//!   one that was read.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::registers::DataType;
use super::{Action, Command};
use crate::command::outcome::Code;

/// One configured poll of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// What is asked: a read, or a line that is sent for its reply. It carries no value.
    pub command: Command,
    /// From one asking to the next, 100 ms to 1 day.
    pub every: Duration,
    /// What of it is told.
    pub report: Report,
}

/// Which of what is read is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Report {
    /// All of it.
    Always,
    /// What differs from what was told last.
    Change {
        /// A number that differs by no more than this, to either side, is no change.
        deadband: f64,
        /// After so long without a change it is told all the same.
        max_silence: Duration,
    },
}

/// What a poll came to: a value, or a word for why there is none.
pub type Reading = Result<Json, Code>;

impl Command {
    /// Whether its value may be a number.
    pub fn may_be_a_number(&self) -> bool {
        match &self.action {
            Action::Read(point) => self.names.is_none() && !matches!(point.kind, DataType::Bool | DataType::String),
            Action::Send(_) => true,
            Action::Write(_) | Action::Steps(_) => false,
        }
    }
}

/// What was told last of a poll, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    reading: Reading,
    at: Instant,
}

impl Report {
    /// Whether a reading is to be told. It stands as what was told last then.
    pub fn is_news(&self, told: &mut Option<Told>, reading: &Reading, at: Instant) -> bool {
        let is_news = match (self, &*told) {
            (Report::Always, _) | (_, None) => true,
            (Report::Change { deadband, max_silence }, Some(last)) => {
                at.saturating_duration_since(last.at) >= *max_silence || differs(&last.reading, reading, *deadband)
            }
        };
        if is_news {
            *told = Some(Told { reading: reading.clone(), at });
        }
        is_news
    }
}

fn differs(told: &Reading, read: &Reading, deadband: f64) -> bool {
    match (told, read) {
        (Ok(told), Ok(read)) => is_another(told, read, deadband),
        (told, read) => told != read,
    }
}

/// Whether a value, or one of several, is another.
fn is_another(told: &Json, read: &Json, deadband: f64) -> bool {
    match (told, read) {
        (Json::Number(told), Json::Number(read)) => match (told.as_f64(), read.as_f64()) {
            (Some(one), Some(other)) if deadband > 0.0 => (one - other).abs() > deadband,
            // Without a deadband two large integers that are one double are two.
            _ => told != read,
        },
        (Json::Array(told), Json::Array(read)) => {
            told.len() != read.len() || told.iter().zip(read).any(|(told, read)| is_another(told, read, deadband))
        }
        (told, read) => told != read,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Which of these readings, a second apart, are told.
    fn told(report: Report, readings: &[Reading]) -> Vec<usize> {
        let (mut told, begun) = (None, Instant::now());
        let is_news = |(at, reading): (usize, &Reading)| {
            let now = begun + Duration::from_secs(at as u64);
            report.is_news(&mut told, reading, now).then_some(at)
        };
        readings.iter().enumerate().filter_map(is_news).collect()
    }

    fn change(deadband: f64, silence: u64) -> Report {
        Report::Change { deadband, max_silence: Duration::from_secs(silence) }
    }

    #[test]
    fn a_value_that_creeps_is_told_when_it_has_left_what_was_told_by_more_than_the_deadband() {
        let creeps: Vec<Reading> = (0..10).map(|n| Ok(json!(20.0 + f64::from(n) * 0.25))).collect();
        assert_eq!(told(change(0.5, 3600), &creeps), [0, 3, 6, 9]);
        assert_eq!(told(change(0.0, 3600), &creeps).len(), 10);
        assert_eq!(told(Report::Always, &[Ok(json!(1)), Ok(json!(1))]), [0, 1]);
    }

    #[test]
    fn a_value_that_stands_still_is_told_after_the_longest_silence() {
        let still = vec![Ok(json!(7)); 12];
        assert_eq!(told(change(0.0, 5), &still), [0, 5, 10]);
    }

    #[test]
    fn every_change_between_a_value_and_none_is_news_and_each_of_several_values_counts() {
        let read = [Ok(json!(1)), Err(Code::Timeout), Err(Code::Timeout), Err(Code::Unreachable), Ok(json!(1))];
        assert_eq!(told(change(5.0, 3600), &read), [0, 1, 3, 4]);
        let several = [Ok(json!([1, 2])), Ok(json!([1, 3])), Ok(json!([1, 9])), Ok(json!(null)), Ok(json!("a"))];
        assert_eq!(told(change(2.0, 3600), &several), [0, 2, 3, 4]);
        let large = [Ok(json!(9_007_199_254_740_992_u64)), Ok(json!(9_007_199_254_740_993_u64))];
        assert_eq!(told(change(0.0, 3600), &large), [0, 1]);
    }
}
