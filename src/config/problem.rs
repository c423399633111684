//! What is wrong or suspicious in a configuration: where it stands, how much it matters, and the way out.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{json, Value as Json};

use crate::complaint::Complaint;

/// What stands in [`Problem::source`] for values from the environment.
pub(super) const ENVIRONMENT: &str = "environment";

/// A place in a file, for people and their editors: both count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// With it nothing runs.
    Error,
    /// It runs, and most likely does not do what was meant.
    Warning,
    /// It runs; somebody may want to look.
    Note,
}

impl Severity {
    /// Its name in messages and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something wrong or suspicious in the configuration, with the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `environment`.
    pub source: String,
    /// Where in the file, if it could be read.
    pub place: Option<Place>,
    /// Key path as written in TOML, e.g. `device.pump-7.bus`; empty for a whole file.
    pub key: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, and what to do.
    pub complaint: Complaint,
}

impl Problem {
    pub(super) fn new(source: &str, key: &str, why: impl Into<Complaint>) -> Self {
        Problem {
            source: source.to_owned(),
            place: None,
            key: key.to_owned(),
            severity: Severity::Error,
            complaint: why.into(),
        }
    }

    pub(super) fn of(severity: Severity, source: &str, key: &str, why: impl Into<Complaint>) -> Self {
        Problem { severity, ..Problem::new(source, key, why) }
    }

    /// What is suspicious about a key in a configuration that was loaded.
    pub(crate) fn warning(origins: &Origins, key: &str, why: impl Into<Complaint>) -> Self {
        let (source, place) = origins.of(key).map_or((ENVIRONMENT, None), |(source, place)| (source, Some(place)));
        Problem { place, ..Problem::of(Severity::Warning, source, key, why) }
    }

    /// Why a configuration that was loaded can't be used here.
    pub(crate) fn error(origins: &Origins, key: &str, why: impl Into<Complaint>) -> Self {
        Problem { severity: Severity::Error, ..Problem::warning(origins, key, why) }
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// What is wrong, without the way out.
    pub fn message(&self) -> &str {
        &self.complaint.what
    }

    /// What to do about it; empty where nothing is said.
    pub fn remedy(&self) -> &str {
        &self.complaint.remedy
    }

    /// As `check --json` prints it.
    pub fn to_json(&self) -> Json {
        json!({
            "file": self.source,
            "line": self.place.map(|place| place.line),
            "column": self.place.map(|place| place.column),
            "key": self.key,
            "severity": self.severity.as_str(),
            "message": self.message(),
            "remedy": self.remedy(),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        match self.key.as_str() {
            "" => write!(f, ": {}", self.complaint),
            key => write!(f, ": {key}: {}", self.complaint),
        }
    }
}

/// Where each key stands, source by source in the order of reading.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    sources: Vec<(String, BTreeMap<String, Place>)>,
}

impl Origins {
    pub(super) fn add(&mut self, source: &str, places: BTreeMap<String, Place>) {
        self.sources.push((source.to_owned(), places));
    }

    /// The file that has the last word on a key, and where in it.
    pub fn of(&self, key: &str) -> Option<(&str, Place)> {
        let found = self.sources.iter().rev().find_map(|(source, places)| Some((source, places.get(key)?)));
        found.map(|(source, place)| (source.as_str(), *place))
    }

    /// Where a key stands in a source, or the table that it is missing from.
    pub(super) fn place(&self, source: &str, key: &str) -> Option<Place> {
        let (_, places) = self.sources.iter().find(|(name, _)| name == source)?;
        let mut path = Some(key);
        while let Some(key) = path {
            if let Some(place) = places.get(key) {
                return Some(*place);
            }
            path = parent(key);
        }
        Some(Place { line: 1, column: 1 })
    }
}

/// The path of the table that holds a key.
fn parent(path: &str) -> Option<&str> {
    let (mut is_quoted, mut is_escaped, mut last) = (false, false, None);
    for (at, c) in path.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => last = Some(at),
            _ => {}
        }
    }
    last.map(|at| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_file_place_key_and_sentence() {
        let why = ("no bus is called \"line-b\"", "did you mean \"line-a\"?");
        let problem = Problem::new("fieldbridge.toml", "device.pump-7.bus", why);
        assert_eq!(
            problem.to_string(),
            "fieldbridge.toml: device.pump-7.bus: no bus is called \"line-b\"; did you mean \"line-a\"?"
        );
        assert_eq!(
            problem.clone().at(Place { line: 3, column: 5 }).to_string(),
            "fieldbridge.toml:3:5: device.pump-7.bus: no bus is called \"line-b\"; did you mean \"line-a\"?"
        );
        let whole_file = Problem::new("fieldbridge.toml", "", ("there is no such file", "create it"));
        assert_eq!(whole_file.to_string(), "fieldbridge.toml: there is no such file; create it");
    }

    #[test]
    fn the_place_of_a_missing_key_is_that_of_its_table() {
        let mut origins = Origins::default();
        let place = |line| Place { line, column: 1 };
        origins.add("a", BTreeMap::from([("device".into(), place(1)), ("device.\"b.c\"".into(), place(2))]));
        origins.add("b", BTreeMap::from([("device".into(), place(9))]));
        assert_eq!(origins.place("a", "device.\"b.c\".unit"), Some(place(2)));
        assert_eq!(origins.place("a", "device.x.unit"), Some(place(1)));
        assert_eq!(origins.place("a", "hub.host"), Some(place(1)));
        assert_eq!(origins.place("environment", "hub.host"), None);
        assert_eq!(origins.of("device"), Some(("b", place(9))));
        assert_eq!(origins.of("hub"), None);
    }
}
