//! What an instrument says by itself and somebody wants to know: which of its lines that are, and what they say. Pure.

use regex_lite::Regex;
use serde_json::Value as Json;

use super::meaning::{meaning, Meaning};

/// Which lines of an instrument are events of its device: those that this matches.
#[derive(Debug, Clone)]
pub struct Events(Regex);

impl Events {
    /// Of a regular expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Events, regex_lite::Error> {
        Regex::new(text).map(Events)
    }

    /// Whether a line is one.
    pub fn has(&self, line: &str) -> bool {
        self.0.is_match(line)
    }

    /// What the expression's first group has captured, if it has one: a number where it is spelt as nothing else, as in
    /// the reply to a command.
    pub fn value(&self, line: &str) -> Option<Json> {
        let captured = self.0.captures(line)?;
        meaning(captured.get(1)?.as_str(), Meaning::Plain).ok()
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_that_matches_is_an_event_with_what_the_first_group_captures_as_in_a_reply() {
        let value = |pattern: &str, line: &str| {
            let events = Events::new(pattern).unwrap();
            (events.has(line), events.value(line))
        };
        assert_eq!(value("^ALARM", "ALARM 3"), (true, None));
        assert_eq!(value("^ALARM", "NO ALARM"), (false, None));
        assert_eq!(value(r"^W +(\S+) kg", "W  -12.50 kg"), (true, Some(json!(-12.5))));
        assert_eq!(value("^CODE (.*)$", "CODE 0042"), (true, Some(json!("0042"))), "it may be more than a number");
        assert_eq!(value("^DOOR( open)?$", "DOOR"), (true, None));
        assert!(Events::new("(").is_err());
        assert_eq!(Events::new("a").unwrap(), Events::new("a").unwrap());
        assert_ne!(Events::new("a").unwrap(), Events::new("b").unwrap());
    }
}
