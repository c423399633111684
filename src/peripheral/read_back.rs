//! Whether what was written stands where it is to show, and when that is looked for.
//!
//! Invariants
//! - In the place and form in which it was written, a number is compared bit by bit: an engineering value could hide a
//!   difference. Elsewhere, and where a tolerance is given, engineering values are compared. So are texts: with what a
//!   peripheral fills its registers up behind one is its own affair.
//! - Of a register of which one bit was written, nothing but that bit is looked at.
//! - What is no number is never nearly right.
//! - What says that there is no value neither confirms nor denies one.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value as Json;

use super::first::First;
use super::registers::{DataType, Point};
use super::{Action, Command, Prepared};
use crate::peripheral::exchange::{Answer, Request};

/// A double holds fifteen digits, and a scaled value is kept to fourteen: what differs by less is the same.
const ROUNDING: f64 = 1e-12;

/// How a write is read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it shows.
    pub point: Point,
    /// On which units, all of them, if not on the one that was written.
    pub units: Vec<u8>,
    /// How long after the write it is looked for first.
    pub after: Duration,
    /// How long after the write it must show at the latest; not less than `after`.
    pub within: Duration,
    /// By how much an engineering value may differ; not negative.
    pub tolerance: f64,
}

/// What stands where a write is to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The engineering value.
    pub value: Json,
    /// Whether it is what was written.
    pub fits: bool,
}

impl Rule {
    /// `verify = true`: the same place, at once, again until it fits for 2 s, exactly.
    pub fn exact(point: &Point) -> Rule {
        Rule { point: point.clone(), units: vec![], after: Duration::ZERO, within: Rule::PATIENCE, tolerance: 0.0 }
    }

    /// How long a write is looked for, after the first look, where nothing else is said.
    pub const PATIENCE: Duration = Duration::from_secs(2);
}

impl Command {
    /// What the answer to [`Prepared::read_back`] says.
    ///
    /// # Errors
    /// A sentence about an answer that isn't one to that request, or has no value in it.
    pub fn found(&self, prepared: &Prepared, answer: &Answer) -> Result<Found, String> {
        self.found_by(prepared, 0, answer)
    }

    /// The same where the scale register of the place it is to show at was read just before, with this power of ten.
    ///
    /// # Errors
    /// A sentence about an answer that isn't one to that request, or has no value in it.
    pub fn found_by(&self, prepared: &Prepared, exponent: i8, answer: &Answer) -> Result<Found, String> {
        let rule = self.read_back.as_ref().ok_or_else(|| format!("{} is not read back", self.name))?;
        let value = self.decoded(&rule.point.by_power(exponent), answer)?;
        if value.is_null() || value.as_array().is_some_and(|all| all.contains(&Json::Null)) {
            let bits = self.unavailable.unwrap_or_default();
            return Err(format!("where it is to show stands {bits:#X}, which says that there is no value"));
        }
        // Before a crash it may have been written by a scale that nobody remembers.
        let prepared = &self.as_written_by(prepared, rule, exponent);
        let is_whole = |point: &Point| is_same_form(point, &rule.point) && point.bit.is_none();
        let as_written =
            matches!(&self.action, Action::Write(point) if is_whole(point)) && prepared.exponent == exponent;
        let fits = match (&prepared.request, answer) {
            (Request::WriteBits { bits, .. }, Answer::Bits(found)) => bits == found,
            (Request::WriteWords { words, .. } | Request::WriteAndReadWords { words, .. }, Answer::Words(found))
                if as_written && rule.tolerance == 0.0 && rule.point.kind != DataType::String =>
            {
                words == found
            }
            _ => {
                let written = prepared.written.as_ref().and_then(|written| self.resolved(written).ok());
                written.is_some_and(|written| is_near(&written, &value, rule.tolerance))
            }
        };
        Ok(Found { value: self.named(value), fits })
    }
}

impl Command {
    /// Whether the answer to a write has shown already that what was written stands where it is to show: one that
    /// reads it back in the same exchange (V1.1b3, 6.17).
    pub fn is_shown_by(&self, prepared: &Prepared, answer: &Answer) -> bool {
        let scales = |rule: &Rule| rule.point.scale_register.is_some();
        matches!(prepared.request, Request::WriteAndReadWords { .. })
            && !self.read_back.as_ref().is_some_and(scales)
            && self.found(prepared, answer).is_ok_and(|found| found.fits)
    }

    /// What was written, if that is not known, by the scale that is read now, and if it is the same scale.
    fn as_written_by<'a>(&self, prepared: &'a Prepared, rule: &Rule, exponent: i8) -> Cow<'a, Prepared> {
        match (&self.action, &prepared.first) {
            (Action::Write(point), Some(First::Scale(Some(value))))
                if point.scale_register == rule.point.scale_register =>
            {
                self.by_exponent(point, value, exponent).map_or(Cow::Borrowed(prepared), Cow::Owned)
            }
            _ => Cow::Borrowed(prepared),
        }
    }
}

/// Whether the same bits mean the same value at both.
fn is_same_form(a: &Point, b: &Point) -> bool {
    let elsewhere = Point { table: a.table, address: a.address, ..b.clone() };
    *a == elsewhere && a.is_bits() == b.is_bits()
}

fn is_near(written: &Json, found: &Json, tolerance: f64) -> bool {
    match (written, found) {
        (Json::Array(written), Json::Array(found)) => {
            written.len() == found.len() && written.iter().zip(found).all(|(a, b)| is_near(a, b, tolerance))
        }
        // Integers are compared whole: a double does not hold all of them.
        (Json::Number(a), Json::Number(b)) if tolerance == 0.0 && !a.is_f64() && !b.is_f64() => a == b,
        (Json::Number(a), Json::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance + ROUNDING * a.abs().max(b.abs()),
            _ => false,
        },
        // A bit is 1 or 0, and may have been written by a name that stands for one of them.
        (Json::Number(number), Json::Bool(on)) | (Json::Bool(on), Json::Number(number)) => {
            number.as_f64() == Some(f64::from(u8::from(*on)))
        }
        (a, b) => a == b && !a.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::registers::{DataType, Table};
    use super::*;

    fn point(address: u16, kind: DataType, scale: f64) -> Point {
        Point { scale, ..Point::new(Table::Holding, address, kind) }
    }

    fn command(write: Point, rule: Rule) -> Command {
        Command { idempotent: true, read_back: Some(rule), ..Command::new("set", Action::Write(write)) }
    }

    fn fits(command: &Command, written: Json, words: &[u16]) -> bool {
        let prepared = command.prepare(Some(&written)).unwrap();
        command.found(&prepared, &Answer::Words(words.to_vec())).unwrap().fits
    }

    #[test]
    fn the_same_place_is_compared_bit_by_bit_and_another_by_its_value() {
        let float = point(0, DataType::F32, 1.0);
        let same = command(float.clone(), Rule::exact(&float));
        assert!(fits(&same, json!(0.0), &[0, 0]));
        assert!(!fits(&same, json!(0.0), &[0x8000, 0]), "a negative zero is not what was written");

        // Written in tenths, shown in hundredths.
        let tenths = point(0, DataType::U16, 0.1);
        let hundredths = Rule { point: point(9, DataType::U16, 0.01), ..Rule::exact(&tenths) };
        let elsewhere = command(tenths.clone(), hundredths);
        assert!(fits(&elsewhere, json!(42.3), &[4230]));
        assert!(!fits(&elsewhere, json!(42.3), &[4231]));
        assert!(!fits(&elsewhere, json!(42.3), &[423]));

        let whole = point(0, DataType::U64, 1.0);
        let far = Rule { point: point(9, DataType::U64, 1.0), ..Rule::exact(&whole) };
        let far = command(whole, far);
        assert!(fits(&far, json!(u64::MAX), &[0xFFFF; 4]));
        assert!(!fits(&far, json!(u64::MAX), &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE]), "a double can't tell these two");
    }

    #[test]
    fn a_tolerance_is_in_engineering_units_and_holds_for_each_value() {
        let tenths = Point { count: Some(2), ..point(0, DataType::I16, 0.1) };
        let rule = Rule { tolerance: 0.5, ..Rule::exact(&tenths) };
        let command = command(tenths, rule);
        for (found, is_near) in [
            ([100, 200], true),
            ([105, 195], true),
            ([106, 200], false),
            ([100, 194], false),
            ([(-100_i16) as u16, 200], false),
        ] {
            assert_eq!(fits(&command, json!([10, 20]), &found), is_near, "{found:?}");
        }
        assert!(!is_near(&json!(null), &json!(null), 1.0));
        assert!(!is_near(&json!("a"), &json!("b"), 1.0));
    }

    #[test]
    fn what_is_no_answer_to_the_read_back_is_said_so() {
        let word = point(0, DataType::U16, 1.0);
        let command = command(word.clone(), Rule::exact(&word));
        let prepared = command.prepare(Some(&json!(5))).unwrap();
        for answer in [Answer::Bits(vec![true]), Answer::Words(vec![5, 5]), Answer::Written] {
            assert!(command.found(&prepared, &answer).is_err(), "{answer:?}");
        }
    }
}
