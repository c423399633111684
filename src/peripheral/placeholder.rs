//! The places of a value in what is sent and in what comes back: how it is written there, and read. Pure.
//!
//! Invariants
//! - A value stands there exactly, or not at all: what has more digits than its place is refused, and so is what would
//!   be another number there.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::Value as Json;

use super::meaning::{meaning, Meaning};
use super::value;
use crate::command::outcome::{Code, Fault};
use crate::complaint::Complaint;

/// Most digits that a place may have.
const WIDTH_MAX: usize = 32;

/// Relative error of a number that counts for none: the noise of sums of binary fractions.
const NOISE: f64 = 1e-12;

/// A place of the value, as in `{value:05.1f}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it is written.
    spelling: String,
    form: Form,
}

/// How a value stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the text that it is, or by a number's shortest digits.
    Plain,
    /// By decimal digits.
    Decimal { sign: bool, padding: Padding, decimals: usize },
    /// By hexadecimal digits.
    Hex { upper: bool, padding: Padding },
    /// As bytes.
    Bytes { kind: Kind, size: usize, little: bool },
}

/// What fills a place that has a width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    /// It has none: as many digits as it takes.
    None,
    /// Zeros, behind the sign.
    Zeros(usize),
    /// Spaces.
    Spaces(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// The types of bytes, without their order.
const TYPES: [(&str, Kind, usize); 10] = [
    ("u8", Kind::Unsigned, 1),
    ("i8", Kind::Signed, 1),
    ("u16", Kind::Unsigned, 2),
    ("i16", Kind::Signed, 2),
    ("u32", Kind::Unsigned, 4),
    ("i32", Kind::Signed, 4),
    ("u64", Kind::Unsigned, 8),
    ("i64", Kind::Signed, 8),
    ("f32", Kind::Float, 4),
    ("f64", Kind::Float, 8),
];

impl Place {
    /// What stands between `{value` and `}`: nothing, or a colon and a form.
    ///
    /// # Errors
    /// What is wrong with the place, with a remedy.
    pub(super) fn of(between: &str) -> Result<Place, Complaint> {
        let spelling = format!("{{value{between}}}");
        let form = match between.strip_prefix(':') {
            None if between.is_empty() => Some(Form::Plain),
            None => None,
            Some(form) => bytes(form).or_else(|| digits(form)),
        };
        if let Some(form) = form {
            return Ok(Place { spelling, form });
        }
        let form = between.trim_start_matches(':');
        let remedy = match TYPES.iter().find(|(name, ..)| *name == form) {
            Some((name, ..)) => format!("say which byte is the first: {{value:{name}be}} or {{value:{name}le}}"),
            None => "write it such as {value:03d}, {value:05.1f}, {value:02X} or {value:u16be}".to_owned(),
        };
        Err(Complaint::new(format!("{spelling} is no place for a value"), remedy))
    }

    /// Whether it takes whatever there is, texts too.
    pub(super) fn is_plain(&self) -> bool {
        self.form == Form::Plain
    }

    /// Whether it stands for bytes, and not for characters.
    pub(super) fn is_of_bytes(&self) -> bool {
        matches!(self.form, Form::Bytes { .. })
    }

    /// How many bytes it has, where that is always the same.
    pub(super) fn width(&self) -> Option<usize> {
        match self.form {
            Form::Bytes { size, .. } => Some(size),
            Form::Decimal { padding, .. } | Form::Hex { padding, .. } => padding.width(),
            Form::Plain => None,
        }
    }

    /// Whether limits of the value are ones that stand there.
    pub(super) fn check_range(&self, (low, high): (f64, f64)) -> Result<(), Complaint> {
        let Some((least, most)) = self.limits().filter(|(least, most)| low < *least || high > *most) else {
            return Ok(());
        };
        let what = format!(
            "is {low} to {high}, and {self} holds {least} to {most}, so that messages within it would be refused"
        );
        Err(Complaint::new(what, format!("narrow it, or write another place than {self}")))
    }

    /// Least and greatest number that stand there, where there are such.
    fn limits(&self) -> Option<(f64, f64)> {
        match self.form {
            Form::Plain | Form::Bytes { kind: Kind::Float, .. } => None,
            Form::Hex { padding, .. } => Some((0.0, hex_most(padding) as f64)),
            Form::Bytes { kind, size, .. } => {
                let (low, high) = limits(kind, size).into_inner();
                Some((low as f64, high as f64))
            }
            Form::Decimal { sign, padding, decimals } => {
                let width = padding.width()?;
                let point = usize::from(decimals > 0);
                // As many nines as there is room for.
                let nines = |sign: usize| match width.saturating_sub(sign + point + decimals) {
                    0 => 0.0,
                    digits => format!("{:9<digits$}.{:9<decimals$}", "", "").parse().unwrap_or(0.0),
                };
                Some((0.0 - nines(1), nines(usize::from(sign))))
            }
        }
    }

    /// The bytes of a number there, and the number that they are.
    pub(super) fn write(&self, value: &Json) -> Result<(Vec<u8>, Json), Fault> {
        let number = value::number(value).ok_or_else(|| value::wrong("a number", value))?;
        match self.form {
            Form::Plain | Form::Decimal { .. } => self.decimal(value, number),
            Form::Hex { upper, padding } => {
                let whole = self.whole(value, 0..=i128::from(hex_most(padding)))?;
                let digits = if upper { format!("{whole:X}") } else { format!("{whole:x}") };
                Ok((padding.filled("", &digits), value::whole(whole)))
            }
            Form::Bytes { kind: Kind::Float, size, little } => {
                let bytes = match size {
                    4 => (number as f32 + 0.0).to_be_bytes().to_vec(),
                    _ => (number + 0.0).to_be_bytes().to_vec(),
                };
                let held = held(Kind::Float, &bytes);
                if !held.is_number() {
                    let why = format!("{} is too large for {self}", value::show(value));
                    return Err(Fault::new(Code::OutOfRange, why));
                }
                Ok((ordered(bytes, little), held))
            }
            Form::Bytes { kind, size, little } => {
                let whole = self.whole(value, limits(kind, size))?;
                let bytes = whole.to_be_bytes()[size_of::<i128>() - size..].to_vec();
                Ok((ordered(bytes, little), value::whole(whole)))
            }
        }
    }

    /// A whole number within limits.
    fn whole(&self, value: &Json, limits: RangeInclusive<i128>) -> Result<i128, Fault> {
        let whole = value::whole_number(value).ok_or_else(|| value::wrong("a whole number", value))?;
        if limits.contains(&whole) {
            return Ok(whole);
        }
        let (low, high) = limits.into_inner();
        let why =
            format!("expected a number from {low} to {high}, which is what {self} holds, got {}", value::show(value));
        Err(Fault::new(Code::OutOfRange, why))
    }

    fn decimal(&self, value: &Json, number: f64) -> Result<(Vec<u8>, Json), Fault> {
        let Form::Decimal { sign, padding, decimals } = self.form else {
            return Err(value::wrong("a number where one stands", value));
        };
        let (digits, held) = match value::whole_number(value) {
            // What JSON's reader has rounded already must not go out as if it were meant so.
            _ if value.is_f64() && number.abs() >= value::EXACT_MAX => {
                let why = format!("{} has more digits than can be passed on exactly", value::show(value));
                return Err(Fault::new(Code::OutOfRange, why));
            }
            Some(whole) => {
                let fraction = if decimals == 0 { String::new() } else { format!(".{}", "0".repeat(decimals)) };
                (format!("{}{fraction}", whole.abs()), value::whole(whole))
            }
            None => {
                let digits = format!("{:.decimals$}", number.abs());
                let held = digits.parse::<f64>().unwrap_or(f64::NAN).copysign(number);
                if decimals == 0 || (held - number).abs() > NOISE * number.abs() {
                    let expected = match decimals {
                        0 => "a whole number".to_owned(),
                        1 => format!("a number with one decimal, which is what {self} holds"),
                        more => format!("a number with {more} decimals, which is what {self} holds"),
                    };
                    return Err(value::wrong(&expected, value));
                }
                (digits, value::float(held))
            }
        };
        let sign = match number < 0.0 {
            true => "-",
            false if sign => "+",
            false => "",
        };
        let takes = sign.len() + digits.len();
        match padding.width().filter(|width| takes > *width) {
            None => Ok((padding.filled(sign, &digits), held)),
            Some(width) => Err(Fault::new(
                Code::OutOfRange,
                format!("{} takes {takes} characters, and {self} has room for {width}", value::show(value)),
            )),
        }
    }

    /// The value of the bytes that stand there; `None`: they are none of this place.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Json> {
        if self.width().is_some_and(|width| width != bytes.len()) {
            return None;
        }
        let text = || std::str::from_utf8(bytes).ok();
        match self.form {
            Form::Bytes { kind, little, .. } => Some(held(kind, &ordered(bytes.to_vec(), little))),
            Form::Hex { .. } => meaning(text()?, Meaning::Hex).ok(),
            Form::Decimal { .. } => {
                let is_of_a_number = |char: char| char.is_ascii_digit() || "+-. ".contains(char);
                let text = text()?;
                text.chars().all(is_of_a_number).then(|| meaning(text, Meaning::Number).ok())?
            }
            Form::Plain => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelling)
    }
}

impl Padding {
    fn width(self) -> Option<usize> {
        match self {
            Padding::None => None,
            Padding::Zeros(width) | Padding::Spaces(width) => Some(width),
        }
    }

    fn filled(self, sign: &str, digits: &str) -> Vec<u8> {
        let text = match self {
            Padding::None => format!("{sign}{digits}"),
            Padding::Zeros(width) => format!("{sign}{digits:0>0$}", width - sign.len()),
            Padding::Spaces(width) => format!("{:>width$}", format!("{sign}{digits}")),
        };
        text.into_bytes()
    }
}

/// Bytes with the highest first, in this order; and the other way round.
fn ordered(mut bytes: Vec<u8>, little: bool) -> Vec<u8> {
    if little {
        bytes.reverse();
    }
    bytes
}

/// The number that bytes hold, the highest first.
fn held(kind: Kind, bytes: &[u8]) -> Json {
    let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let spare = 64 - 8 * bytes.len();
    match (kind, spare) {
        (Kind::Unsigned, _) => bits.into(),
        (Kind::Signed, _) => (bits.cast_signed() << spare >> spare).into(),
        (Kind::Float, 32) => value::of_single(f32::from_bits(bits as u32)),
        (Kind::Float, _) => value::float(f64::from_bits(bits)),
    }
}

/// The greatest number that so many hexadecimal digits are.
fn hex_most(padding: Padding) -> u64 {
    padding.width().map_or(u64::MAX, |width| u64::MAX >> (64 - 4 * width.min(16)))
}

fn limits(kind: Kind, size: usize) -> RangeInclusive<i128> {
    let span = 1_i128 << (8 * size);
    match kind {
        Kind::Signed => -span / 2..=span / 2 - 1,
        Kind::Unsigned | Kind::Float => 0..=span - 1,
    }
}

/// A form of bytes, as `u16be`.
fn bytes(form: &str) -> Option<Form> {
    TYPES.into_iter().find_map(|(name, kind, size)| match (form.strip_prefix(name)?, size) {
        ("", 1) | ("be", 2..) => Some(Form::Bytes { kind, size, little: false }),
        ("le", 2..) => Some(Form::Bytes { kind, size, little: true }),
        _ => None,
    })
}

/// A form of digits, as `+06.2f`: a sign, zeros in front, a width, decimals, and of what kind they are.
fn digits(form: &str) -> Option<Form> {
    let (rest, sign) = form.strip_prefix('+').map_or((form, false), |rest| (rest, true));
    let kind = rest.chars().last().filter(char::is_ascii)?;
    let rest = &rest[..rest.len() - 1];
    let (width, decimals) = rest.split_once('.').map_or((rest, None), |(width, decimals)| (width, Some(decimals)));
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>().ok().filter(|number| is_number && *number <= WIDTH_MAX)
    };
    let padding = match width {
        "" => Padding::None,
        _ => match (width.strip_prefix('0'), number(width)?) {
            (_, 0) => return None,
            (Some(_), width) => Padding::Zeros(width),
            (None, width) => Padding::Spaces(width),
        },
    };
    match (kind, decimals) {
        ('d', None) => Some(Form::Decimal { sign, padding, decimals: 0 }),
        ('f', Some(decimals)) => Some(Form::Decimal { sign, padding, decimals: number(decimals)? }),
        ('X' | 'x', None) if !sign => Some(Form::Hex { upper: kind == 'X', padding }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(form: &str) -> Place {
        Place::of(&format!(":{form}")).unwrap()
    }

    #[test]
    fn a_value_stands_in_its_place_and_is_read_from_there() {
        let table: [(&str, Json, &[u8]); 23] = [
            ("03d", json!(7), b"007"),
            ("03d", json!(-7), b"-07"),
            ("3d", json!(7), b"  7"),
            ("+d", json!(7), b"+7"),
            ("d", json!(u64::MAX), b"18446744073709551615"),
            ("05.1f", json!(12.5), b"012.5"),
            ("05.1f", json!(-0.5), b"-00.5"),
            ("+06.2f", json!(5), b"+05.00"),
            (".3f", json!(0.1), b"0.100"),
            (".0f", json!(3), b"3"),
            ("02X", json!(171), b"AB"),
            ("04x", json!(171), b"00ab"),
            ("X", json!(4096), b"1000"),
            ("u8", json!(255), &[255]),
            ("i8", json!(-1), &[255]),
            ("u16be", json!(0x0102), &[1, 2]),
            ("u16le", json!(0x0102), &[2, 1]),
            ("i16be", json!(-2), &[0xFF, 0xFE]),
            ("u32le", json!(1), &[1, 0, 0, 0]),
            ("i64be", json!(i64::MIN), &[0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("u64be", json!(u64::MAX), &[0xFF; 8]),
            ("f32be", json!(0.1), &[0x3D, 0xCC, 0xCC, 0xCD]),
            ("f64le", json!(1.0), &[0, 0, 0, 0, 0, 0, 0xF0, 0x3F]),
        ];
        for (form, value, bytes) in table {
            let (written, held) = place(form).write(&value).unwrap();
            assert_eq!(written, bytes, "{form} {value}");
            assert!(value::same(&held, &value), "{form}: {held}");
            let read = place(form).read(bytes).unwrap();
            assert!(value::same(&read, &value), "{form}: {read}");
            let width = place(form).width();
            assert!(width.is_none_or(|width| width == bytes.len()), "{form}");
        }
        // The noise of a sum is none of its digits.
        assert_eq!(place(".1f").write(&json!(0.1 + 0.2)).unwrap(), (b"0.3".to_vec(), json!(0.3)));
        assert_eq!(place("05.1f").write(&json!(-0.0)).unwrap().0, b"000.0");
    }

    #[test]
    fn a_value_that_its_place_does_not_hold_is_refused() {
        let table = [
            ("03d", json!(1000), Code::OutOfRange, "takes 4 characters, and {value:03d} has room for 3"),
            ("03d", json!(-100), Code::OutOfRange, "takes 4 characters"),
            ("03d", json!(1.5), Code::BadValue, "a whole number"),
            (".0f", json!(1.5), Code::BadValue, "a whole number"),
            ("05.1f", json!(12.34), Code::BadValue, "with one decimal, which is what {value:05.1f} holds"),
            ("05.2f", json!(12.345), Code::BadValue, "with 2 decimals"),
            ("05.1f", json!(1000), Code::OutOfRange, "takes 6 characters"),
            (".1f", json!(1e17), Code::OutOfRange, "more digits than can be passed on exactly"),
            ("02X", json!(256), Code::OutOfRange, "from 0 to 255"),
            ("X", json!(-1), Code::OutOfRange, "from 0"),
            ("u8", json!(-1), Code::OutOfRange, "from 0 to 255, which is what {value:u8} holds, got -1"),
            ("u16be", json!(65536), Code::OutOfRange, "from 0 to 65535"),
            ("u16be", json!(1.5), Code::BadValue, "a whole number"),
            ("i8", json!(128), Code::OutOfRange, "from -128 to 127"),
            ("i64be", json!(1e30), Code::OutOfRange, "from -9223372036854775808"),
            ("f32be", json!(1e39), Code::OutOfRange, "too large for {value:f32be}"),
            ("u8", json!(true), Code::BadValue, "a number"),
            ("03d", json!("7"), Code::BadValue, "a number"),
        ];
        for (form, value, code, told) in table {
            let fault = place(form).write(&value).unwrap_err();
            assert!(fault.code == code && fault.message.contains(told), "{form} {value}: {fault:?}");
        }
    }

    #[test]
    fn limits_that_a_place_does_not_hold_are_told() {
        for (form, range, told) in [
            ("02X", (0.0, 255.0), None),
            ("02X", (0.0, 1000.0), Some("is 0 to 1000, and {value:02X} holds 0 to 255")),
            ("02X", (-5.0, 5.0), Some("is -5 to 5, and {value:02X} holds 0 to 255")),
            ("X", (0.0, 1e6), None),
            ("u8", (0.0, 256.0), Some("holds 0 to 255")),
            ("i8", (-128.0, 127.0), None),
            ("u16le", (-1.0, 0.0), Some("holds 0 to 65535")),
            ("f32be", (-1e6, 1e6), None),
            ("03d", (-99.0, 999.0), None),
            ("03d", (0.0, 5000.0), Some("holds -99 to 999")),
            ("03d", (-100.0, 0.0), Some("holds -99 to 999")),
            ("+3d", (-99.0, 100.0), Some("holds -99 to 99")),
            ("d", (-1e9, 1e9), None),
            ("05.1f", (-99.9, 999.9), None),
            ("05.1f", (0.0, 1000.0), Some("holds -99.9 to 999.9")),
            ("+06.2f", (-100.0, 100.0), Some("holds -99.99 to 99.99")),
        ] {
            let why = place(form).check_range(range).err().map(|why| why.to_string());
            match told {
                None => assert_eq!(why, None, "{form} {range:?}"),
                Some(told) => assert!(why.as_ref().is_some_and(|why| why.contains(told)), "{form} {range:?}: {why:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_place_is_told() {
        for form in ["", "q", "u16", "5", "f", "5f", "+X", "-3d", "0d", "99d", "3.1d", ".99f", "u8be", "d ", "é"] {
            let why = Place::of(&format!(":{form}")).unwrap_err();
            assert!(why.to_string().contains("is no place for a value"), "{form}: {why}");
        }
        let why = Place::of(":u16").unwrap_err();
        assert!(why.remedy.contains("{value:u16be} or {value:u16le}"), "{why}");
    }

    #[test]
    fn what_does_not_stand_there_is_not_read() {
        for (form, bytes) in [
            ("03d", &b"0x7"[..]),
            ("03d", b"1e3"),
            ("03d", b"inf"),
            ("02X", b"G0"),
            ("02X", &[0xFF, 0x30]),
            ("u16be", &[1]),
            ("u16be", &[1, 2, 3]),
        ] {
            assert_eq!(place(form).read(bytes), None, "{form}");
        }
    }
}
