//! A typed walk over the merged tree of values that never stops at a problem.
//!
//! Invariants
//! - Every problem found is kept, with the file that the value came from and its key path as TOML writes it.
//! - A reader that returns `None` for a key that is present has reported why.
//! - Text from the environment is parsed as the type that the key expects; text from a file never is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{FileFormat, Format, Map, Value, ValueKind};
use serde_json::Value as Json;

use super::keys::{self, nearest, unknown_key, Section};
use super::problem::ENVIRONMENT;
use super::shipped::Shipped;
use super::{words, Problem, Severity};
use crate::complaint::Complaint;

/// What to write where a whole number is wanted.
const WHOLE: &str = "write a whole number, without quotes";

/// Characters of a value that a message repeats; what is longer was not meant for the key it stands at.
const LONGEST_SHOWN: usize = 40;

/// What a walk needs at every table, and what it finds.
pub(super) struct Walk {
    /// The main file, named where nothing more precise is known.
    pub main: String,
    /// The folder that relative paths are relative to.
    pub folder: PathBuf,
    /// The profiles that come with the program.
    pub shipped: Shipped,
    /// The first file that each table was seen in, by key path: merging forgets it.
    pub tables: BTreeMap<String, String>,
    /// A file could not be read, so that what seems to be missing may stand in it.
    pub incomplete: bool,
    /// What is wrong.
    pub problems: RefCell<Vec<Problem>>,
    /// What is suspicious.
    pub notes: RefCell<Vec<Problem>>,
    /// Every file that was read.
    pub files: RefCell<Vec<PathBuf>>,
}

impl Walk {
    /// Records a problem.
    pub fn problem(&self, source: &str, key: &str, why: impl Into<Complaint>) {
        self.problems.borrow_mut().push(Problem::new(source, key, why));
    }

    /// Warns of a key of a table that is named by its path.
    pub fn warn(&self, table: &str, key: &str, why: impl Into<Complaint>) {
        let source = self.tables.get(table).unwrap_or(&self.main);
        self.notes.borrow_mut().push(Problem::of(Severity::Warning, source, &join(table, key), why));
    }

    /// The top of the tree.
    pub fn root<'a>(&'a self, entries: &'a Map<String, Value>, section: Section) -> Table<'a> {
        let root = Table { walk: self, path: String::new(), section, entries: Some(entries) };
        root.refuse_unknown_keys();
        root
    }
}

/// Shortest and longest that a duration may be, and why.
pub(super) struct Span {
    pub min: Duration,
    pub max: Duration,
    /// Appended to the message, e.g. ` (the hub waits …)`.
    pub because: &'static str,
}

/// One table of the tree.
pub(super) struct Table<'a> {
    pub walk: &'a Walk,
    path: String,
    section: Section,
    entries: Option<&'a Map<String, Value>>,
}

impl<'a> Table<'a> {
    /// The path of a key of this table, as written in TOML.
    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Its own path.
    pub fn path_of(&self) -> &str {
        &self.path
    }

    /// Whether a key is present, whatever it holds.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether a key is present and holds empty text.
    pub fn is_empty_text(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| matches!(&value.kind, ValueKind::String(text) if text.is_empty()))
    }

    /// Reports what is wrong with a key's value.
    pub fn wrong(&self, key: &str, why: impl Into<Complaint>) {
        let path = self.key(key);
        self.walk.problem(self.source_of(key), &path, why);
    }

    /// Reports a key that must be there, or a name that nothing answers to, unless it may stand in an unread file or
    /// stands there misspelt, which is reported already.
    pub fn absent(&self, key: &str, why: impl Into<Complaint>) {
        let is_misspelt = || {
            let known = self.section.keys;
            let mut unknown = self.present().into_iter().filter(|k| !known.contains(k));
            let meant = |other| words::meant(other, known).map(|(meant, _)| meant);
            unknown.any(|other| {
                let meant = meant(other).or_else(|| nearest(other, known.iter().copied()));
                meant == Some(key) || self.is_part_of_a_name(other)
            })
        };
        if !self.walk.incomplete && (self.has(key) || !is_misspelt()) {
            self.wrong(key, why);
        }
    }

    /// Reports what the table as a whole lacks, unless it may stand in an unread file.
    pub fn absent_here(&self, why: impl Into<Complaint>) {
        if !self.walk.incomplete {
            self.wrong_here(why);
        }
    }

    /// Reports what is wrong with the table as a whole.
    pub fn wrong_here(&self, why: impl Into<Complaint>) {
        self.walk.problem(self.source(), &self.path, why);
    }

    /// Remarks on a key's value.
    pub fn note(&self, key: &str, why: impl Into<Complaint>) {
        self.remark(Severity::Note, self.source_of(key), &self.key(key), why);
    }

    /// Warns of a key's value, which can hardly be what was meant.
    pub fn warn(&self, key: &str, why: impl Into<Complaint>) {
        self.remark(Severity::Warning, self.source_of(key), &self.key(key), why);
    }

    /// Remarks on the table as a whole.
    pub fn note_here(&self, why: impl Into<Complaint>) {
        self.remark(Severity::Note, self.source(), &self.path, why);
    }

    fn remark(&self, severity: Severity, source: &str, key: &str, why: impl Into<Complaint>) {
        self.walk.notes.borrow_mut().push(Problem::of(severity, source, key, why));
    }

    /// The keys that are present, sorted.
    pub fn present(&self) -> Vec<&'a str> {
        let mut keys: Vec<&str> =
            self.entries.map_or_else(Vec::new, |entries| entries.keys().map(String::as_str).collect());
        keys.sort_unstable();
        keys
    }

    /// Reports every key that the section doesn't know.
    fn refuse_unknown_keys(&self) {
        for key in self.present() {
            if self.section.keys.contains(&key) {
                continue;
            }
            if self.is_part_of_a_name(key) {
                let (kind, name) = self.path.split_once('.').unwrap_or_default();
                let whole = format!("{}.{key}", name.trim_matches('"'));
                let why =
                    ("a dot in a name begins another table", format!("put the name in quotes: [{kind}.{whole:?}]"));
                self.wrong(key, why);
                continue;
            }
            self.wrong(key, unknown_key(key, &self.section));
        }
    }

    /// Whether a key is what stands behind a dot in a name of the user's own: `[device.pump.7]` is a table `7` in
    /// `device.pump`.
    fn is_part_of_a_name(&self, key: &str) -> bool {
        let has_a_name = self.section.title.ends_with(".ID]") || self.section.title.ends_with(".NAME]");
        let is_table = self.value(key).is_some_and(|value| matches!(value.kind, ValueKind::Table(_)));
        has_a_name && is_table && nearest(key, self.section.keys.iter().copied()).is_none()
    }

    /// Text, of at least one character.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        match &value.kind {
            ValueKind::String(text) if text.is_empty() => {
                self.wrong(key, ("is empty", "give it a value or remove the key"));
                None
            }
            ValueKind::String(text) => Some(text),
            ValueKind::I64(number) => self.mistyped(key, value, "a string", &words::of_number(key, *number)),
            _ => self.mistyped(key, value, "a string", "write text, in quotes"),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        match &value.kind {
            ValueKind::Boolean(yes) => Some(*yes),
            ValueKind::String(text) if is_from_environment(value) && text == "true" => Some(true),
            ValueKind::String(text) if is_from_environment(value) && text == "false" => Some(false),
            ValueKind::String(text) if text == "true" || text == "false" => {
                self.mistyped(key, value, "true or false", "remove the quotes")
            }
            _ => self.mistyped(key, value, "true or false", "write true or false, without quotes"),
        }
    }

    /// An integer within bounds.
    pub fn integer(&self, key: &str, bounds: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(key)?;
        let number = match &value.kind {
            ValueKind::I64(number) => *number,
            ValueKind::String(text) => match text.trim().parse() {
                Ok(number) if is_from_environment(value) => number,
                Ok(_) => return self.mistyped(key, value, "an integer", "remove the quotes"),
                Err(_) => return self.mistyped(key, value, "an integer", WHOLE),
            },
            _ => return self.mistyped(key, value, "an integer", WHOLE),
        };
        if bounds.contains(&number) {
            return Some(number);
        }
        let (low, high) = bounds.into_inner();
        self.wrong(key, (format!("{number} is out of range"), format!("it must be {low} to {high}")));
        None
    }

    /// An integer within the bounds of a smaller type.
    pub fn small<T: TryFrom<i64>>(&self, key: &str, bounds: RangeInclusive<i64>) -> Option<T> {
        T::try_from(self.integer(key, bounds)?).ok()
    }

    /// A finite number, with or without decimals.
    pub fn number(&self, key: &str) -> Option<f64> {
        let value = self.value(key)?;
        let number = as_number(value, is_from_environment(value));
        if number.is_none() {
            return self.mistyped(key, value, "a number", unquote_hint(value));
        }
        number
    }

    /// Two finite numbers.
    pub fn pair(&self, key: &str) -> Option<(f64, f64)> {
        let value = self.value(key)?;
        let parsed = parsed_from_environment(value);
        let value = parsed.as_ref().unwrap_or(value);
        if let ValueKind::Array(items) = &value.kind {
            if let [low, high] = items.as_slice() {
                if let (Some(low), Some(high)) = (as_number(low, false), as_number(high, false)) {
                    return Some((low, high));
                }
            }
        }
        self.mistyped(key, value, "two numbers such as [0, 100]", "write the lower and the upper limit in brackets")
    }

    /// A duration within bounds.
    pub fn duration(&self, key: &str, span: &Span) -> Option<Duration> {
        let value = self.value(key)?;
        let expected = "a duration such as \"500ms\", \"30s\", \"5m\" or \"7d\"";
        let text = match &value.kind {
            ValueKind::String(text) => text,
            ValueKind::I64(_) | ValueKind::Float(_) => {
                return self.mistyped(key, value, expected, "add its unit, in quotes");
            }
            _ => return self.mistyped(key, value, expected, "write it so, in quotes"),
        };
        let Ok(duration) = humantime::parse_duration(text) else {
            self.wrong(key, (format!("{} is not a duration", shown(text)), format!("write {expected}")));
            return None;
        };
        if duration < span.min || duration > span.max {
            self.wrong(
                key,
                (
                    format!("{} is out of range", shown(text)),
                    format!("it must be {} to {}{}", in_one_unit(span.min), in_one_unit(span.max), span.because),
                ),
            );
            return None;
        }
        Some(duration)
    }

    /// One word of a list.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        if let Some(told) = words::instead(key, text) {
            self.wrong(key, told);
            return None;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let hint = nearest(text, choices.iter().map(|(word, _)| *word))
            .map_or_else(|| "write one of these".to_owned(), |word| format!("did you mean {word:?}?"));
        self.wrong(key, (format!("{} is not one of {}", shown(text), words.join(", ")), hint));
        None
    }

    /// A path, made absolute from the folder of the main file.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        if text.contains('\0') {
            self.wrong(key, ("holds a zero byte, which no path can", "remove it"));
            return None;
        }
        if text.chars().any(char::is_control) {
            let why = (
                "holds a control character, as a backslash in double quotes makes one",
                "write the path in single quotes: '…'",
            );
            self.wrong(key, why);
            return None;
        }
        Some(self.walk.folder.join(Path::new(text)))
    }

    /// Any scalar or array, as JSON.
    pub fn json(&self, key: &str) -> Option<Json> {
        let value = self.value(key)?;
        let parsed = parsed_from_environment(value);
        let json = as_json(parsed.as_ref().unwrap_or(value));
        if json.is_none() {
            return self.mistyped(key, value, "a boolean, a number, a string or an array", "write one of these");
        }
        json
    }

    /// The scalars of a table whose keys are names of the user's own, sorted by name; `None` where it is absent or no
    /// table. What is no scalar is null.
    pub fn scalars(&self, key: &str) -> Option<Vec<(&'a str, Json)>> {
        let value = self.value(key)?;
        let ValueKind::Table(entries) = &value.kind else {
            return self.mistyped(key, value, "a table", "write one such as { off = 0, on = 1 }");
        };
        let mut scalars: Vec<_> =
            entries.iter().map(|(name, value)| (name.as_str(), as_json(value).unwrap_or_default())).collect();
        scalars.sort_unstable_by_key(|(name, _)| *name);
        Some(scalars)
    }

    /// A table by key; `None` where it is absent or no table.
    pub fn table(&self, key: &str, section: Section) -> Option<Table<'a>> {
        let value = self.value(key)?;
        let ValueKind::Table(entries) = &value.kind else {
            let hint = if section == keys::POINT {
                format!("write {key} = {{ table = \"holding\", address = 0 }}")
            } else if section == keys::SCALE_REGISTER {
                format!("write {key} = {{ address = 5 }}")
            } else if section == keys::RS485 {
                format!("write {key} = {{ rts_on_send = true }}")
            } else {
                format!("write [{}], and its keys below", self.key(key))
            };
            return self.mistyped(key, value, "a table", &hint);
        };
        let table = Table { walk: self.walk, path: self.key(key), section, entries: Some(entries) };
        table.refuse_unknown_keys();
        Some(table)
    }

    /// A table by key; an empty one where it is absent or no table.
    pub fn table_or_empty(&self, key: &str, section: Section) -> Table<'a> {
        self.table(key, section).unwrap_or(Table { walk: self.walk, path: self.key(key), section, entries: None })
    }

    /// The tables of a table whose keys are names of the user's own, sorted by name.
    pub fn tables(&self, key: &str, section: Section) -> Vec<(&'a str, Table<'a>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let ValueKind::Table(entries) = &value.kind else {
            let hint = format!("write [{}], once for each", self.section_of(key));
            self.mistyped::<()>(key, value, "tables by name", &hint);
            return Vec::new();
        };
        let path = self.key(key);
        let mut names: Vec<_> = entries.iter().collect();
        names.sort_unstable_by_key(|(name, _)| name.as_str());
        let mut tables = Vec::with_capacity(names.len());
        for (name, value) in names {
            let path = join(&path, name);
            let ValueKind::Table(entries) = &value.kind else {
                let source = value.origin().unwrap_or(&self.walk.main);
                let why = (
                    format!("expected a table, found {}", found(&value.kind)),
                    format!("write [{path}], and its keys below"),
                );
                self.walk.problem(source, &path, why);
                continue;
            };
            let table = Table { walk: self.walk, path, section, entries: Some(entries) };
            table.refuse_unknown_keys();
            tables.push((name.as_str(), table));
        }
        tables
    }

    /// The tables of a list; `None` where it is absent or no such list.
    pub fn list(&self, key: &str, section: Section) -> Option<Vec<Table<'a>>> {
        let value = self.value(key)?;
        let tables = |items: &'a Vec<Value>| {
            let tables = items.iter().enumerate().map(|(at, item)| match &item.kind {
                ValueKind::Table(entries) => Some((format!("{}[{}]", self.key(key), at + 1), entries)),
                _ => None,
            });
            tables.collect::<Option<Vec<_>>>()
        };
        let ValueKind::Array(items) = &value.kind else {
            return self.mistyped(key, value, "a list of tables", "write them in brackets: [ { … }, { … } ]");
        };
        let Some(tables) = tables(items) else {
            self.wrong(key, ("holds something else than tables", "write each in braces: [ { … }, { … } ]"));
            return None;
        };
        let table = |(path, entries)| Table { walk: self.walk, path, section, entries: Some(entries) };
        let tables: Vec<Table<'a>> = tables.into_iter().map(table).collect();
        tables.iter().for_each(Table::refuse_unknown_keys);
        Some(tables)
    }

    /// The texts that a key holds in any of the tables by name; `None` where there are no such tables.
    pub fn mentioned(&self, tables: &str, key: &str) -> Option<BTreeSet<&'a str>> {
        let ValueKind::Table(tables) = &self.value(tables)?.kind else {
            return None;
        };
        let mentioned = tables.values().filter_map(|value| {
            let ValueKind::Table(entries) = &value.kind else {
                return None;
            };
            match &entries.get(key)?.kind {
                ValueKind::String(text) => Some(text.as_str()),
                _ => None,
            }
        });
        Some(mentioned.collect())
    }

    /// How the tables by name below a key are written.
    fn section_of(&self, key: &str) -> String {
        let name = if key == "device" { "ID" } else { "NAME" };
        format!("{}.{name}", self.key(key))
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.entries?.get(key)
    }

    /// The file of a key's value; of the table where the key is absent.
    fn source_of(&self, key: &str) -> &str {
        let Some(value) = self.value(key) else {
            return self.source();
        };
        match value.origin() {
            Some(origin) => origin,
            None => self.source_of_path(&self.key(key)),
        }
    }

    fn source(&self) -> &str {
        self.source_of_path(&self.path)
    }

    fn source_of_path(&self, path: &str) -> &str {
        self.walk.tables.get(path).unwrap_or(&self.walk.main)
    }

    fn mistyped<T>(&self, key: &str, value: &Value, expected: &str, remedy: &str) -> Option<T> {
        let found = match &value.kind {
            ValueKind::String(text) if is_from_environment(value) => shown(text),
            kind => found(kind),
        };
        self.wrong(key, (format!("expected {expected}, found {found}"), remedy));
        None
    }
}

/// A key appended to a path, quoted where TOML needs it.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// A duration in the largest unit that divides it: `7d`, `1177s`, `500ms`.
fn in_one_unit(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis >= length && millis.is_multiple_of(length) {
            return format!("{}{unit}", millis / length);
        }
    }
    format!("{millis}ms")
}

/// Text in quotes, cut where it is too long to be what was asked for.
fn shown(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Names what was found. Strings are not shown: one in the wrong place may be a secret.
fn found(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "nothing".into(),
        ValueKind::Boolean(yes) => format!("the boolean {yes}"),
        ValueKind::I64(number) => format!("the integer {number}"),
        ValueKind::Float(number) => format!("the decimal number {number}"),
        ValueKind::String(_) => "a string".into(),
        ValueKind::Table(_) => "a table".into(),
        ValueKind::Array(_) => "an array".into(),
        ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "an integer".into(),
    }
}

fn is_from_environment(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT)
}

/// What text from the environment means as a TOML value; `None` where it is no such text and stays as it is.
fn parsed_from_environment(value: &Value) -> Option<Value> {
    let ValueKind::String(text) = &value.kind else {
        return None;
    };
    if !is_from_environment(value) {
        return None;
    }
    let mut parsed = FileFormat::Toml.parse(Some(&ENVIRONMENT.to_owned()), &format!("value = {text}")).ok()?;
    parsed.remove("value")
}

fn unquote_hint(value: &Value) -> &'static str {
    match as_number(value, true) {
        Some(_) => "remove the quotes",
        None => "write a number, without quotes",
    }
}

fn as_number(value: &Value, parse: bool) -> Option<f64> {
    let number = match &value.kind {
        // Beyond 2^53 an engineering value has lost its last digits long before it came here.
        #[allow(clippy::cast_precision_loss)]
        ValueKind::I64(number) => *number as f64,
        ValueKind::Float(number) => *number,
        ValueKind::String(text) if parse => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// A scalar or an array as JSON; `None` for what JSON has no value for, or what holds a table.
pub(super) fn as_json(value: &Value) -> Option<Json> {
    match &value.kind {
        ValueKind::Boolean(yes) => Some(Json::Bool(*yes)),
        ValueKind::I64(number) => Some(Json::from(*number)),
        ValueKind::Float(number) => serde_json::Number::from_f64(*number).map(Json::Number),
        ValueKind::String(text) => Some(Json::String(text.clone())),
        ValueKind::Array(items) => items.iter().map(as_json).collect(),
        _ => None,
    }
}

mod size;
#[cfg(test)]
mod tests;
