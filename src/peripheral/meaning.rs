//! What the captured part of a reply means. Pure.
//!
//! Invariant: it is told as a number only where nothing else can be meant, or where the profile says so.

use serde_json::Value as Json;

/// As many decimal digits always survive a double.
const EXACT_DIGITS: usize = 15;

/// Longest piece of a reply that a message to a person repeats, in characters.
const SHOWN_CHARS_MAX: usize = 40;

/// What the captured text of a reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Meaning {
    /// A number where it is spelt as one and as nothing else, else text.
    #[default]
    Plain,
    /// Text, whatever it looks like.
    Text,
    /// A decimal number, padded or with an exponent as it may be.
    Number,
    /// The hexadecimal digits of a number.
    Hex,
}

/// What a captured text means. The error is a sentence about a text that isn't what the profile says it is.
pub(super) fn meaning(text: &str, result: Meaning) -> Result<Json, String> {
    let trimmed = text.trim();
    let found = match result {
        Meaning::Text => Some(text.into()),
        Meaning::Plain if is_plainly_spelt(trimmed) => Some(exact(trimmed).unwrap_or_else(|| text.into())),
        Meaning::Plain => Some(text.into()),
        Meaning::Number => integer(trimmed).or_else(|| {
            trimmed.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| (number + 0.0).into())
        }),
        Meaning::Hex => {
            let is_hex = !trimmed.is_empty() && trimmed.chars().all(|digit| digit.is_ascii_hexdigit());
            u64::from_str_radix(trimmed, 16).ok().filter(|_| is_hex).map(Json::from)
        }
    };
    found.ok_or_else(|| {
        let shown: String = text.escape_debug().take(SHOWN_CHARS_MAX).collect();
        let what = if result == Meaning::Hex { "at most 64 bits in hexadecimal digits" } else { "a decimal number" };
        format!("the reply holds \"{shown}\" where the profile's result expects {what}")
    })
}

/// Whether a text is the shortest or a fixed-point spelling of a number: a sign, no leading zeros, no exponent. `007`
/// and `00E6` may be something else.
fn is_plainly_spelt(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

fn integer(text: &str) -> Option<Json> {
    text.parse::<i64>().map(Json::from).or_else(|_| text.parse::<u64>().map(Json::from)).ok()
}

/// The number that a text spells, if it comes out as no other one.
fn exact(text: &str) -> Option<Json> {
    let digits = text.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    let float = || text.parse::<f64>().ok().filter(|_| digits <= EXACT_DIGITS).map(|number| (number + 0.0).into());
    integer(text).or_else(float)
}
