//! Names for values: `values = { off = 0, on = 1 }`. Pure.
//!
//! Invariants
//! - What is written stands in the table, as a name or as a number; nothing else is.
//! - What is read and stands in the table is told by its name; another value stays what it is.

use serde_json::Value as Json;

use super::value;
use crate::command::outcome::{Code, Fault};

/// Names that a message to a person lists.
const LISTED_MAX: usize = 10;

/// The table of a command: names, and the values that they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Names(Vec<(String, Json)>);

impl Names {
    /// A table of names for numbers, or, where lines are sent, for texts. Its names and its values are each told apart.
    pub fn new(entries: Vec<(String, Json)>) -> Names {
        Names(entries)
    }

    /// The names and what they stand for.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// What a value of the hub's side stands for; of an array, each of its elements.
    pub(super) fn resolve(&self, value: &Json) -> Result<Json, Fault> {
        let found = match value {
            Json::Array(all) => return all.iter().map(|value| self.resolve(value)).collect(),
            Json::String(given) => self.0.iter().find(|(name, _)| name == given),
            Json::Number(_) => self.0.iter().find(|(_, known)| value::same(known, value)),
            _ => None,
        };
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let names: Vec<String> = self.0.iter().take(LISTED_MAX).map(|(name, _)| format!("{name:?}")).collect();
            let more = if self.0.len() > LISTED_MAX { ", …" } else { "" };
            let message = format!("expected one of {}{more}, got {}", names.join(", "), value::show(value));
            Fault::new(Code::OutOfRange, message)
        })
    }

    /// A value by its name, where it has one; of an array, each of its elements.
    pub(super) fn name(&self, value: Json) -> Json {
        let same = |known: &Json| match &value {
            // A coil is 1 or 0.
            Json::Bool(on) => value::same(known, &u8::from(*on).into()),
            _ => value::same(known, &value),
        };
        match value {
            Json::Array(all) => all.into_iter().map(|value| self.name(value)).collect(),
            _ => match self.0.iter().find(|(_, known)| same(known)) {
                Some((name, _)) => name.clone().into(),
                None => value,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Names {
        Names::new(vec![("off".into(), json!(0)), ("on".into(), json!(1)), ("auto".into(), json!("A"))])
    }

    #[test]
    fn only_names_and_numbers_of_the_table_stand_for_something() {
        for (given, value) in
            [(json!("off"), json!(0)), (json!(1), json!(1)), (json!(1.0), json!(1)), (json!("auto"), json!("A"))]
        {
            assert_eq!(table().resolve(&given), Ok(value));
        }
        assert_eq!(table().resolve(&json!(["on", 0])), Ok(json!([1, 0])));
        for other in [json!("A"), json!(2), json!(true), json!("On"), json!(null), json!(["on", 2]), json!({"on": 1})] {
            let fault = table().resolve(&other).unwrap_err();
            assert_eq!(fault.code, Code::OutOfRange, "{other}");
            assert!(fault.message.starts_with("expected one of \"off\", \"on\", \"auto\", got "), "{}", fault.message);
        }
    }

    #[test]
    fn what_is_read_has_its_name_or_stays_what_it_is() {
        for (read, told) in [
            (json!(1), json!("on")),
            (json!(0.0), json!("off")),
            (json!(false), json!("off")),
            (json!("A"), json!("auto")),
            (json!(7), json!(7)),
            (json!("B"), json!("B")),
            (json!([0, 1, 2]), json!(["off", "on", 2])),
        ] {
            assert_eq!(table().name(read), told);
        }
    }
}
