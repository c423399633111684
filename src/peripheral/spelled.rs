//! Numbers and truth that senders spell as text (`numbers_as_text`). Pure.
//!
//! Invariants
//! - Only a text is ever taken for something else, and only for what its command needs.
//! - A name of `values`, and what a `pattern` judges, stays the text that it is.

use std::borrow::Cow;

use serde_json::{Number, Value as Json};

use super::registers::DataType;
use super::{Action, Command};

/// What a command needs of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Number,
    Truth,
    /// A line takes either: a number, or the words that are sent for true and false.
    NumberOrWord,
    Text,
}

impl Command {
    /// What a value is meant to be.
    pub(super) fn meant<'a>(&self, value: &'a Json) -> Cow<'a, Json> {
        let need = self.need();
        if !self.numbers_as_text || need == Need::Text {
            return Cow::Borrowed(value);
        }
        let one = |value: &Json| value.as_str().filter(|text| !self.is_name(text)).and_then(|text| need.read(text));
        match value {
            Json::Array(all) => {
                Cow::Owned(all.iter().map(|value| one(value).unwrap_or_else(|| value.clone())).collect())
            }
            _ => one(value).map_or(Cow::Borrowed(value), Cow::Owned),
        }
    }

    fn is_name(&self, text: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.entries().any(|(name, _)| name == text))
    }

    fn need(&self) -> Need {
        match (&self.action, &self.names) {
            (Action::Read(_) | Action::Steps(_), _) => Need::Text,
            (Action::Write(point), _) if point.kind == DataType::String => Need::Text,
            // What stands in `values` is a number, for a coil too.
            (Action::Write(_), Some(_)) => Need::Number,
            (Action::Write(point), None) if point.kind == DataType::Bool => Need::Truth,
            (Action::Write(_), None) => Need::Number,
            (Action::Send(template), _) if !template.send.takes_value() => Need::Text,
            (Action::Send(_), Some(_)) => Need::Number,
            (Action::Send(template), None) if template.send.takes_numbers_alone() => Need::Number,
            (Action::Send(template), None) => match (&self.fixed, &template.pattern, self.range) {
                (Some(Json::String(_)), ..) | (None, Some(_), _) => Need::Text,
                (_, _, Some(_)) | (Some(Json::Number(_)), ..) => Need::Number,
                _ => Need::NumberOrWord,
            },
        }
    }
}

impl Need {
    fn read(self, text: &str) -> Option<Json> {
        let text = text.trim();
        match self {
            Need::Number => number(text),
            Need::Truth => truth(text),
            Need::NumberOrWord => number(text).or_else(|| word(text)),
            Need::Text => None,
        }
    }
}

/// A number in decimal digits, with a sign and a point if it has them. What has zeros in front, or an exponent, is
/// rather a code: "007" and "00E6" are none.
fn number(text: &str) -> Option<Json> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") {
        return None;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
    let float = text.parse::<f64>().ok().filter(|_| is_decimal)?;
    Number::from_f64(float).map(Json::Number)
}

fn truth(text: &str) -> Option<Json> {
    match text.to_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true.into()),
        "false" | "off" | "no" | "0" => Some(false.into()),
        _ => None,
    }
}

fn word(text: &str) -> Option<Json> {
    match text.to_lowercase().as_str() {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use DataType::{Bool, U16, U64};

    use super::*;
    use crate::command::outcome::{Code, Fault};
    use crate::peripheral::registers::{Point, Table};
    use crate::peripheral::{Names, Pattern, Template};

    fn holding(kind: DataType) -> Point {
        Point::new(Table::Holding, 0, kind)
    }

    fn write(point: Point) -> Action {
        Action::Write(point)
    }

    fn spelled(action: Action) -> Command {
        Command { idempotent: true, numbers_as_text: true, ..Command::new("set", action) }
    }

    fn written(command: &Command, value: Json) -> Result<Json, Fault> {
        command.prepare(Some(&value)).map(|prepared| prepared.written.unwrap())
    }

    #[test]
    fn numbers_and_truth_that_come_as_text_are_taken_for_what_the_command_needs_where_that_is_allowed() {
        let speed = spelled(write(Point { scale: 0.1, ..holding(U16) }));
        for (text, meant) in [("12.5", json!(12.5)), (" 12.50\n", json!(12.5)), ("+7", json!(7)), ("0.5", json!(0.5))] {
            let found = written(&speed, json!(text)).unwrap();
            assert_eq!(found.as_f64(), meant.as_f64(), "{text}");
            let strict = Command { numbers_as_text: false, ..speed.clone() };
            assert_eq!(written(&strict, json!(text)).unwrap_err().code, Code::BadValue);
        }
        let codes = ["1e2", "00E6", "007", "007.50", "-01", "1E+3"];
        for text in ["", "12,5", "0x10", "inf", "NaN", "twelve", "true", "1 2"].into_iter().chain(codes) {
            assert_eq!(written(&speed, json!(text)).unwrap_err().code, Code::BadValue, "{text}");
        }
        let whole = spelled(write(holding(U64)));
        assert_eq!(written(&whole, json!("18446744073709551615")).unwrap(), json!(u64::MAX), "no digit is lost");
        let ranged = Command { range: Some((0.0, 10.0)), ..speed.clone() };
        assert_eq!(written(&ranged, json!("10.1")).unwrap_err().code, Code::OutOfRange);

        let coil = spelled(write(Point { table: Table::Coil, kind: Bool, ..holding(U16) }));
        for (on, texts) in [(true, ["true", "ON", "Yes", "1"]), (false, ["FALSE", "off", "nO", "0"])] {
            for text in texts {
                assert_eq!(written(&coil, json!(text)).unwrap(), json!(on), "{text}");
            }
        }
        assert_eq!(written(&coil, json!("open")).unwrap_err().code, Code::BadValue);
        let fixed = Command { fixed: Some(json!(true)), ..coil };
        assert_eq!(written(&fixed, json!("on")).unwrap(), json!(true));
        assert_eq!(written(&fixed, json!("off")).unwrap_err().code, Code::BadValue);

        let two = spelled(write(Point { count: Some(2), ..holding(U16) }));
        assert_eq!(written(&two, json!(["1", 2])).unwrap(), json!([1, 2]));

        // Names stay names, and a number that is spelled stands for what it stands for.
        let names = Names::new(vec![("1".into(), json!(5)), ("ON".into(), json!(6))]);
        let mode = Command { names: Some(names), ..spelled(write(holding(U16))) };
        for (text, name) in [("1", "1"), ("ON", "ON"), ("5", "1"), ("6", "ON")] {
            assert_eq!(written(&mode, json!(text)).unwrap(), json!(name), "{text}");
        }
        assert_eq!(written(&mode, json!("on")).unwrap_err().code, Code::OutOfRange);

        let send = || Template { send: "S {value}\r\n".into(), ..Template::default() };
        let any_text = Template { pattern: Some(Pattern::new(".*").unwrap()), ..send() };
        let text = Point { count: Some(4), ..holding(DataType::String) };
        assert_eq!(written(&spelled(write(text)), json!("12")).unwrap(), json!("12"));
        assert_eq!(written(&spelled(Action::send(any_text)), json!("007")).unwrap(), json!("007"));
        let line = spelled(Action::send(send()));
        assert_eq!(written(&line, json!("7.50")).unwrap(), json!(7.5));
        assert_eq!(written(&line, json!("True")).unwrap(), json!(true));
        assert_eq!(written(&line, json!("on")).unwrap_err().code, Code::BadValue, "it is no word of a line's");
    }
}
