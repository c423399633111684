//! Commands in text: what a value becomes in the line that is sent. Pure.
//!
//! Invariants
//! - No text of a sender reaches a line unless the command's `pattern` matches all of it; never with a control
//!   character in it, never with a sign that stands behind its place, which may end it or a command, and never with
//!   what ends a line on its bus: a value can't smuggle in a second command.

use regex_lite::Regex;
use serde_json::Value as Json;

use super::meaning::Meaning;
use super::value::{self, EXACT_MAX};
use super::wording::{Picture, Wording};
use crate::command::outcome::{Code, Fault};

/// Longest text that a value may put into a line, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = 1024;

/// What stands for the message's value in a line that is sent.
pub const PLACEHOLDER: &str = "{value}";

/// A line-protocol command.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// What is sent.
    pub send: Wording,
    /// The reply that confirms.
    pub expect: Option<Regex>,
    /// The same where it is no text; in place of `expect`.
    pub picture: Option<Picture>,
    /// The reply that refuses.
    pub refuse: Option<Regex>,
    /// The last line of a reply that has several.
    pub until: Option<Regex>,
    /// What a text value must match.
    pub pattern: Option<Pattern>,
    /// What the captured text is.
    pub result: Meaning,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        let text = |regex: &Option<Regex>| regex.as_ref().map(|regex| regex.as_str().to_owned());
        self.send == other.send
            && text(&self.expect) == text(&other.expect)
            && self.picture == other.picture
            && text(&self.refuse) == text(&other.refuse)
            && text(&self.until) == text(&other.until)
            && self.pattern == other.pattern
            && self.result == other.result
    }
}

/// A regular expression that the whole of a value must match.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    whole: Regex,
}

impl Pattern {
    /// Of a regular expression, which is to fit the whole of a value.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(text: &str) -> Result<Pattern, String> {
        // By itself first: what is only right in brackets would mean something else there.
        Regex::new(text).map_err(|error| error.to_string())?;
        let whole = Regex::new(&format!(r"\A(?:{text})\z")).map_err(|error| error.to_string())?;
        Ok(Pattern { text: text.to_owned(), whole })
    }

    fn matches(&self, value: &str) -> bool {
        self.whole.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Template {
    /// What is sent for a value that was resolved, and the number that stands there, if it can be nothing else.
    /// `delimiter`: what ends a line on the bus. `own`: it is the profile's own and no sender's.
    pub(super) fn filled(
        &self,
        (command, delimiter): (&str, Option<&str>),
        value: &Json,
        own: bool,
    ) -> Result<(Vec<u8>, Option<Json>), Fault> {
        if self.send.takes_numbers_alone() && !value.is_number() {
            return Err(value::wrong("a number", value));
        }
        let text = printed(value)?;
        if !own {
            self.allow((command, delimiter), value, &text)?;
        }
        self.send.filled(value, &text)
    }

    /// Whether all that can be wanted of it is a part of the reply: it carries nothing.
    pub(super) fn is_for_its_reply(&self) -> bool {
        /// The whole match counts as one.
        const GROUPS: usize = 1;
        let captures = self.expect.as_ref().is_some_and(|expect| expect.captures_len() > GROUPS);
        let captures = captures || self.picture.as_ref().is_some_and(Picture::has_value);
        captures && !self.send.takes_value()
    }

    /// Whether a sender may say this.
    fn allow(&self, (command, delimiter): (&str, Option<&str>), value: &Json, text: &str) -> Result<(), Fault> {
        match &self.pattern {
            Some(pattern) if !pattern.matches(text) => {
                return Err(value::wrong(&format!("a value that matches {:?}", pattern.text), value));
            }
            None if value.is_string() => {
                let message = format!(
                    "{command} takes numbers, true and false, got {}; to allow texts, write in the command's profile \
                     which: pattern = \"[A-Z]+\", or values = {{ name = \"TEXT\" }}",
                    value::show(value)
                );
                return Err(Fault::new(Code::BadValue, message));
            }
            _ => {}
        }
        if !value.is_string() {
            return Ok(());
        }
        let signs = || self.send.behind_places().filter(u8::is_ascii_punctuation).map(char::from);
        if let Some(sign) = signs().find(|sign| text.contains(*sign)) {
            let expected = format!("a text without {sign:?}, which stands behind the value in the line and may end it");
            return Err(value::wrong(&expected, value));
        }
        match delimiter.filter(|delimiter| ends(text, delimiter)) {
            Some(delimiter) => {
                Err(value::wrong(&format!("a text without {delimiter:?}, which ends a line on this bus"), value))
            }
            None => Ok(()),
        }
    }
}

/// Whether a text ends a line, or nearly so: what stands around it in the line may do the rest.
fn ends(text: &str, delimiter: &str) -> bool {
    text.contains(delimiter) || text.contains(|sign: char| sign.is_ascii_punctuation() && delimiter.contains(sign))
}

/// A value as it stands in a line: numbers by their shortest digits and never with an exponent, which few instruments
/// read.
fn printed(value: &Json) -> Result<String, Fault> {
    let text = match value {
        Json::Bool(on) => on.to_string(),
        Json::String(text) => text.clone(),
        Json::Number(number) => {
            match number.as_f64() {
                // What JSON's reader has rounded already must not go out as if it were meant so.
                Some(float) if number.is_f64() && float.abs() >= EXACT_MAX => {
                    return Err(Fault::new(
                    Code::OutOfRange,
                    format!("{number} has more digits than can be passed on exactly; send it as a text, if that is allowed"),
                ));
                }
                // Adding zero takes the sign from a negative zero.
                Some(float) if number.is_f64() => (float + 0.0).to_string(),
                _ => number.to_string(),
            }
        }
        Json::Null | Json::Array(_) | Json::Object(_) => {
            return Err(value::wrong("a number, true, false or a text", value));
        }
    };
    no_control(&text)?;
    if text.len() > VALUE_BYTES_MAX {
        return Err(Fault::new(
            Code::OutOfRange,
            format!("expected a text of at most {VALUE_BYTES_MAX} bytes, got {}", text.len()),
        ));
    }
    Ok(text)
}

/// Refuses line ends, escapes and the rest of U+0000–U+001F and U+007F–U+009F.
pub(super) fn no_control(text: &str) -> Result<(), Fault> {
    match text.chars().find(|char| char.is_control()) {
        None => Ok(()),
        Some(char) => Err(Fault::new(
            Code::BadValue,
            format!("expected a text without control characters, got one with {:?}", char),
        )),
    }
}
