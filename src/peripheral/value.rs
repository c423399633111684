//! Engineering values: what a message says and a person reads, and how it becomes a raw value and back.
//!
//! Invariants
//! - With scale 1 and a whole offset an integer goes through no float: every `u64` and `i64` is exact both ways.
//! - What is reported as written is computed from the raw value, never from the message.
//! - A value outside of the command's range is never encoded, not even after it was rounded to the device's step.

use serde_json::Value as Json;

use super::registers::{DataType, Point, Raw};
use crate::command::outcome::{Code, Fault};
use crate::complaint::Complaint;
use crate::peripheral::exchange::Answer;

/// Significant digits kept of a scaled value: few enough to hide the noise of binary fractions (423 × 0.1 is
/// 42.300000000000004), more than any instrument has.
const SIGNIFICANT_DIGITS: i32 = 14;

/// Longest piece of a value that a message to a person repeats, in characters.
const SHOWN_MAX: usize = 40;

/// From here on a double doesn't hold every integer (IEEE 754): 2^53.
pub(super) const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A number as a double, which may be beside it.
pub(super) fn number(value: &Json) -> Option<f64> {
    Number::of(value).map(Number::as_f64)
}

/// The whole number that a value is, 5.0 included.
pub(super) fn whole_number(value: &Json) -> Option<i128> {
    Number::of(value)?.whole()
}

/// Inclusive limits of an engineering value.
pub(super) type Range = Option<(f64, f64)>;

/// A number as JSON gave it; an integer is kept whole.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Json) -> Option<Number> {
        let number = value.as_number()?;
        if let Some(int) = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)) {
            return Some(Number::Int(int));
        }
        number.as_f64().filter(|float| float.is_finite()).map(Number::Float)
    }

    fn as_f64(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }

    /// The whole number it is, 5.0 included.
    fn whole(self) -> Option<i128> {
        const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
        match self {
            Number::Int(int) => Some(int),
            // JSON's reader makes a float of an integer beyond 64 bits, and rounds it, perhaps to one that would fit.
            Number::Float(float) if float >= TWO_TO_63 => Some(i128::MAX),
            Number::Float(float) if float <= -TWO_TO_63 => Some(i128::MIN),
            Number::Float(float) => (float.fract() == 0.0).then_some(float as i128),
        }
    }
}

/// The raw value of one element, and the engineering value that it stands for.
pub(super) fn encode(point: &Point, value: &Json, range: Range) -> Result<(Raw, Json), Fault> {
    if point.kind == DataType::Bool {
        let on = truth(value).ok_or_else(|| wrong("true or false", value))?;
        return Ok((Raw::Bool(on), Json::Bool(on)));
    }
    let number = Number::of(value).ok_or_else(|| wrong("a number", value))?;
    within(number.as_f64(), range)?;
    let raw = match point.kind {
        DataType::F32 => {
            let raw = unscaled(point, number.as_f64()) as f32;
            Some(Raw::F32(raw)).filter(|_| raw.is_finite())
        }
        DataType::F64 => {
            let raw = unscaled(point, number.as_f64());
            Some(Raw::F64(raw)).filter(|_| raw.is_finite())
        }
        _ => Some(Raw::Int(encode_int(point, number, value)?)),
    };
    let raw =
        raw.ok_or_else(|| Fault::new(Code::OutOfRange, format!("{} is too large for the device's type", show(value))))?;
    let written = decode(point, raw);
    // Rounding to the device's step can leave the range that a person set for safety.
    if let Some(number) = Number::of(&written) {
        within(number.as_f64(), range)?;
    }
    Ok((raw, written))
}

fn encode_int(point: &Point, number: Number, value: &Json) -> Result<i128, Fault> {
    let raw = match (exact_offset(point), number.whole()) {
        (Some(offset), Some(whole)) => whole.saturating_sub(offset),
        // In which steps it is written is not known to who asks, if that stands at the peripheral.
        (Some(_), None) if point.scale_register.is_none() => return Err(wrong("a whole number", value)),
        _ => {
            let raw = unscaled(point, number.as_f64());
            // Cleaned first, so that 0.15 in steps of 0.1 is one and a half steps, not 1.4999999999999998.
            tidy(raw, raw.abs()).round() as i128
        }
    };
    match point.kind.limits() {
        Some((low, high)) if raw < low || raw > high => {
            let (a, b) = (decode(point, Raw::Int(low)), decode(point, Raw::Int(high)));
            // A negative scale turns the limits round.
            let (low, high) = if point.scale < 0.0 { (b, a) } else { (a, b) };
            let value = show(value);
            Err(Fault::new(
                Code::OutOfRange,
                format!("expected a number from {low} to {high}, which is what the device's type holds, got {value}"),
            ))
        }
        _ => Ok(raw),
    }
}

/// The engineering value of one element.
pub(super) fn decode(point: &Point, raw: Raw) -> Json {
    match raw {
        Raw::Bool(on) => Json::Bool(on),
        Raw::Int(int) => match exact_offset(point) {
            Some(offset) => whole(int.saturating_add(offset)),
            None => float(scaled(point, int as f64)),
        },
        Raw::F32(single) if is_plain(point) => of_single(single),
        Raw::F32(single) => float(scaled(point, shortest(single))),
        Raw::F64(double) => float(if is_plain(point) { double } else { scaled(point, double) }),
    }
}

/// The value of a single.
pub(super) fn of_single(single: f32) -> Json {
    float(shortest(single))
}

/// By its shortest decimal: 0.1 in a single is 0.1, not 0.10000000149011612.
fn shortest(single: f32) -> f64 {
    single.to_string().parse().unwrap_or(f64::from(single))
}

/// `true`, `false`, 1 and 0.
fn truth(value: &Json) -> Option<bool> {
    if let Json::Bool(on) = value {
        return Some(*on);
    }
    match Number::of(value)?.whole()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Whether a number is within the command's range.
pub(super) fn within(value: f64, range: Range) -> Result<(), Fault> {
    match range {
        Some((low, high)) if !(low..=high).contains(&value) => {
            Err(Fault::new(Code::OutOfRange, format!("expected a number from {low} to {high}, got {value}")))
        }
        _ => Ok(()),
    }
}

/// Whether a value can be written, as far as that is known without the scale at the peripheral.
pub(super) fn is_allowed(value: &Json, range: Range) -> Result<(), Fault> {
    let number = Number::of(value).ok_or_else(|| wrong("a number", value))?;
    within(number.as_f64(), range)
}

/// Least and greatest engineering value of a point that holds numbers.
fn limits(point: &Point) -> Option<(f64, f64)> {
    let (low, high) = match point.kind {
        DataType::Bool | DataType::String => return None,
        DataType::F32 => (Raw::F32(f32::MIN), Raw::F32(f32::MAX)),
        DataType::F64 => (Raw::F64(f64::MIN), Raw::F64(f64::MAX)),
        kind => {
            let (low, high) = kind.limits()?;
            (Raw::Int(low), Raw::Int(high))
        }
    };
    // What is beyond a double has no limit there.
    let (a, b) = (decode(point, low).as_f64(), decode(point, high).as_f64());
    let (a, b) = (a.unwrap_or(f64::MIN), b.unwrap_or(f64::MAX));
    Some((a.min(b), a.max(b)))
}

impl Point {
    /// Whether limits of the engineering value are ones that the point's type and scale can keep to.
    ///
    /// # Errors
    /// A sentence without subject.
    pub fn check_range(&self, (low, high): (f64, f64)) -> Result<(), Complaint> {
        // What fits by another scale is known when that is read.
        let Some((least, most)) = limits(self).filter(|_| self.scale_register.is_none()) else { return Ok(()) };
        if low < least || high > most {
            let [low, high, least, most] = [low, high, least, most].map(brief);
            return Err(Complaint::new(
                format!(
                    "is {low} to {high}, and the point's type and scale hold {least} to {most}, so that messages within it \
                     would be refused"
                ),
                "narrow it, or correct type, scale or offset",
            ));
        }
        let Some((raw_least, raw_most)) = self.kind.limits() else { return Ok(()) };
        let first = unscaled(self, if self.scale < 0.0 { high } else { low }).ceil() as i128;
        // Rounding may be off by a step, so its neighbours are looked at, too.
        let mut steps = (first - 1..=first + 1).filter(|raw| (raw_least..=raw_most).contains(raw));
        let holds = |raw| decode(self, Raw::Int(raw)).as_f64().is_some_and(|value| (low..=high).contains(&value));
        match steps.any(holds) {
            true => Ok(()),
            false => Err(Complaint::new(
                format!(
                    "is {low} to {high}, and the point holds no value between them, as its scale is {}",
                    self.scale
                ),
                "widen it, or correct scale or offset",
            )),
        }
    }
}

impl Point {
    /// The values in an answer to reads of the point, however many requests those took; a text is one value.
    ///
    /// # Errors
    /// A sentence: what stands there is no value of the point's type.
    pub fn values(&self, answer: &Answer) -> Result<Vec<Json>, String> {
        match answer {
            Answer::Bits(bits) if self.is_bits() => Ok(bits.iter().map(|&on| Json::Bool(on)).collect()),
            Answer::Words(words) if !self.is_bits() && self.kind == DataType::String => {
                Ok(vec![self.unpack_text(words).into()])
            }
            Answer::Words(words) if !self.is_bits() => {
                Ok(self.unpack(words, None)?.into_iter().flatten().map(|raw| decode(self, raw)).collect())
            }
            _ => Err("the answer is of another kind than was asked for".into()),
        }
    }
}

/// A limit for people: what has many digits is told by its magnitude.
fn brief(limit: f64) -> String {
    match limit.abs() < 1e15 {
        true => limit.to_string(),
        false => format!("{limit:e}"),
    }
}

/// A number's place in the command's range, for a value that is sent as text.
pub(super) fn within_text(value: &Json, range: Range) -> Result<(), Fault> {
    match (range, Number::of(value)) {
        (None, _) => Ok(()),
        (Some(_), Some(number)) => within(number.as_f64(), range),
        (Some(_), None) => Err(wrong("a number", value)),
    }
}

/// Whether two values mean the same: 1 and 1.0 do.
pub(super) fn same(a: &Json, b: &Json) -> bool {
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => a == b,
        (Some(a), Some(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// A value that is not what the command takes.
pub(super) fn wrong(expected: &str, got: &Json) -> Fault {
    Fault::new(Code::BadValue, format!("expected {expected}, got {}", show(got)))
}

/// A value as a person is shown it, shortened.
pub(super) fn show(value: &Json) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    text.chars().take(SHOWN_MAX).chain(['…']).collect()
}

/// The offset, where integers need no float: scale 1 and a whole offset that a float holds exactly.
fn exact_offset(point: &Point) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let exact = point.scale == 1.0 && point.offset.fract() == 0.0 && point.offset.abs() <= EXACT;
    exact.then_some(point.offset as i128)
}

fn is_plain(point: &Point) -> bool {
    point.scale == 1.0 && point.offset == 0.0
}

fn unscaled(point: &Point, engineering: f64) -> f64 {
    if is_plain(point) {
        return engineering;
    }
    (engineering - point.offset) / point.scale
}

fn scaled(point: &Point, raw: f64) -> f64 {
    let product = raw * point.scale;
    tidy(product + point.offset, product.abs().max(point.offset.abs()))
}

/// Rounds off the noise of binary fractions. It is as large as the last digit of the largest number in the sum, which
/// can be far larger than the sum: 100.1 − 100 must give 0.1, not 0.09999999999999432.
fn tidy(value: f64, largest: f64) -> f64 {
    if !value.is_finite() || !largest.is_normal() {
        return value + 0.0;
    }
    let exponent = largest.log10().floor() as i32;
    let decimals = SIGNIFICANT_DIGITS - 1 - exponent;
    if decimals <= 0 {
        return value;
    }
    // Digits are rounded as text: a division by a power of ten would bring new noise. No double needs more of them.
    let decimals = usize::try_from(decimals).unwrap_or_default().min(340);
    let tidied: f64 = format!("{value:.decimals$}").parse().unwrap_or(value);
    // No minus in front of nothing.
    tidied + 0.0
}

pub(super) fn whole(int: i128) -> Json {
    if let Ok(int) = i64::try_from(int) {
        return int.into();
    }
    match u64::try_from(int) {
        Ok(int) => int.into(),
        // An offset can lead out of 64 bits; JSON has no limit, our integers do.
        Err(_) => float(int as f64),
    }
}

/// JSON has no word for what a float may also be; a text says it without losing it.
pub(super) fn float(value: f64) -> Json {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    value.into()
}
