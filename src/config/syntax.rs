//! One TOML file: its tree and where each key stands, or every syntax error in it.
//!
//! Invariants
//! - A file with an error yields no tree: what the parser made of the rest may not be what was meant.
//! - No message repeats a line of the file, which may hold a secret pasted in the wrong place.

use std::collections::{BTreeMap, BTreeSet};

use config::{Map, Value, ValueKind};
use toml::de::{DeArray, DeTable, DeValue};
use toml::Spanned;

use super::problem::Place;
use super::slips::{self, Heard, Mistake};
use super::tree::join;
use crate::complaint::Complaint;

/// Errors of one file that are told; with more it is another kind of file.
const ERRORS_MAX: usize = 20;

/// What is wrong at a place, with the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub place: Place,
    pub why: Complaint,
}

/// A file's top-level table, and where its keys stand by their paths.
#[derive(Debug)]
pub(super) struct Parsed {
    pub entries: Map<String, Value>,
    pub places: BTreeMap<String, Place>,
}

/// Reads a file's text; `source` is what its values are known by.
pub(super) fn parse(source: &str, text: &str) -> Result<Parsed, Vec<SyntaxError>> {
    let lines = Lines::new(text);
    if let Some((at, why)) = slips::another_language(text) {
        return Err(vec![SyntaxError { place: lines.place(at), why }]);
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        source: source.to_owned(),
        lines: &lines,
        places: BTreeMap::new(),
        errors: errors
            .iter()
            .map(|error| (error.span().map_or(0, |span| span.start), Heard::of(error.message())))
            .collect(),
    };
    let entries = reader.table("", table.into_inner());
    match reader.errors.is_empty() {
        true => Ok(Parsed { entries, places: reader.places }),
        false => {
            let mut errors = reader.errors;
            errors.extend(behind_bad_headers(&lines, &errors));
            Err(told(&lines, errors))
        }
    }
}

/// The errors that the parser passes over: it leaves out whatever stands below a table's name that it doesn't
/// understand. Such names are replaced by others, which leaves every line in its place.
fn behind_bad_headers(lines: &Lines, errors: &[(usize, Mistake)]) -> Vec<(usize, Mistake)> {
    let numbers: BTreeSet<u32> = errors.iter().map(|(at, _)| lines.place(*at).line).collect();
    let mut text = String::with_capacity(lines.text.len());
    let mut starts = Vec::new();
    for (number, line) in (1..).zip(lines.text.split('\n')) {
        starts.push(text.len());
        match numbers.contains(&number) && line.trim_start().starts_with('[') {
            true => text.push_str(&format!("[\"line {number}\"]\n")),
            false => text.extend([line, "\n"]),
        }
    }
    let patched = Lines { text: &text, starts: starts.clone() };
    let (_, found) = DeTable::parse_recoverable(&text);
    let found = found.iter().filter_map(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let index = usize::try_from(patched.place(at).line).ok()? - 1;
        Some((lines.starts.get(index)? + (at - starts[index]), Heard::of(error.message())))
    });
    found.collect()
}

/// The place behind a text.
pub(super) fn end_of(text: &str) -> Place {
    Lines::new(text).place(text.len())
}

/// One error a line, in their order: the first on a line is the cause of its others.
fn told(lines: &Lines, mut errors: Vec<(usize, Mistake)>) -> Vec<SyntaxError> {
    // What the parser has said of a line says more than that its number is too large.
    errors.sort_by_key(|(at, mistake)| (lines.place(*at).line, *mistake == Mistake::TooLarge, *at));
    let mut told: BTreeMap<u32, SyntaxError> = BTreeMap::new();
    let mut last = Place { line: 1, column: 1 };
    for (at, mistake) in &errors {
        last = lines.place(*at);
        told.entry(last.line).or_insert_with(|| {
            let line = lines.line(last.line);
            SyntaxError { place: last, why: slips::explain(line, mistake) }
        });
    }
    let more = told.len().saturating_sub(ERRORS_MAX);
    let mut told: Vec<SyntaxError> = told.into_values().take(ERRORS_MAX).collect();
    if more > 0 {
        let why =
            Complaint::new(format!("and {more} more lines like these"), "is this file TOML? See fieldbridge.toml(5)");
        told.push(SyntaxError { place: last, why });
    }
    told
}

/// From the parser's values to the configuration's.
struct Reader<'a> {
    source: String,
    lines: &'a Lines<'a>,
    places: BTreeMap<String, Place>,
    errors: Vec<(usize, Mistake)>,
}

impl Reader<'_> {
    fn table(&mut self, path: &str, table: DeTable<'_>) -> Map<String, Value> {
        let mut entries = Map::new();
        for (key, value) in table {
            let at = key.span().start;
            let key = key.into_inner().into_owned();
            let path = join(path, &key);
            self.places.insert(path.clone(), self.lines.place(at));
            let value = self.value(&path, value);
            entries.insert(key, value);
        }
        entries
    }

    fn array(&mut self, path: &str, array: DeArray<'_>) -> Vec<Value> {
        let item = |(at, item): (usize, Spanned<DeValue<'_>>)| {
            if !matches!(item.get_ref(), DeValue::Table(_)) {
                return self.value(path, item);
            }
            // Counted as people do, and as the rest of what is said of them.
            let path = format!("{path}[{}]", at + 1);
            self.places.insert(path.clone(), self.lines.place(item.span().start));
            self.value(&path, item)
        };
        array.into_iter().enumerate().map(item).collect()
    }

    fn value(&mut self, path: &str, value: Spanned<DeValue<'_>>) -> Value {
        let at = value.span().start;
        let kind = match value.into_inner() {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Boolean(yes) => ValueKind::Boolean(yes),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                Err(_) => self.too_large(at),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(float) if float.is_finite() || number.as_str().contains(['i', 'n']) => ValueKind::Float(float),
                _ => self.too_large(at),
            },
            DeValue::Table(table) => ValueKind::Table(self.table(path, table)),
            DeValue::Array(array) => ValueKind::Array(self.array(path, array)),
        };
        Value::new(Some(&self.source), kind)
    }

    fn too_large(&mut self, at: usize) -> ValueKind {
        // Where the parser has complained of it, this says nothing new.
        self.errors.push((at, Mistake::TooLarge));
        ValueKind::Nil
    }
}

/// From byte offsets to lines and columns.
struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    fn place(&self, at: usize) -> Place {
        // The parser points behind the end where something is missing there.
        let at = at.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let before = self.text.get(self.starts[line - 1]..at).unwrap_or_default();
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { line: small(line), column: small(column) }
    }

    /// A line by its number, without its end.
    fn line(&self, number: u32) -> &'a str {
        let index = usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
        self.text.lines().nth(index).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<(u32, u32, String)> {
        let errors = parse("x.toml", text).map(|_| ()).unwrap_err();
        errors.into_iter().map(|error| (error.place.line, error.place.column, error.why.to_string())).collect()
    }

    #[test]
    fn a_syntax_error_keeps_its_place_and_loses_its_excerpt() {
        let text = "[hub]\nhost = \"secret\nport = 1\n";
        let errors = errors(text);
        let [(line, column, why)] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!((*line, *column), (2, 15));
        assert!(!why.contains("secret") && !why.contains('\n') && why.contains("quote"), "{why}");
    }

    #[test]
    fn every_line_with_an_error_is_told_once_and_in_order() {
        let found = errors("a = 07\nb = True, c = yes\n\n[hub\nd = 'x\ne = 5\n");
        let lines: Vec<u32> = found.iter().map(|(line, ..)| *line).collect();
        assert_eq!(lines, [1, 2, 4, 5], "{found:?}");
    }

    #[test]
    fn a_long_list_of_errors_is_cut() {
        let found = errors(&"a = yes\n".repeat(50));
        assert_eq!(found.len(), ERRORS_MAX + 1);
        assert!(found[ERRORS_MAX].2.contains("30 more"), "{found:?}");
    }

    #[test]
    fn a_number_too_large_for_64_bits_is_an_error_and_no_panic() {
        for number in ["99999999999999999999", "1e999", "-1e999", "0xFFFFFFFFFFFFFFFF"] {
            let found = errors(&format!("a = 1\nbc = {number}"));
            assert_eq!((found[0].0, found[0].1), (2, 6), "{found:?}");
            assert!(found[0].2.contains("too large"), "{found:?}");
        }
        assert!(parse("x", "a = inf\nb = nan\nc = -inf").is_ok());
    }

    #[test]
    fn every_key_has_its_place() {
        let text =
            "\u{feff}[hub]\r\n  host = \"é\"\r\n[device.\"a.b\"]\nread = { table = \"é\", count = 2 }\nx.y = 1\n\
             z = [\n  { a = 1 },\n  { a = 2 } ]\n[[t]]\n[[t]]\nu = 1\n";
        let places = parse("x.toml", text).unwrap_or_else(|errors| panic!("{errors:?}")).places;
        for (key, line, column) in [
            ("hub", 1, 2),
            ("hub.host", 2, 3),
            ("device", 3, 2),
            ("device.\"a.b\"", 3, 9),
            ("device.\"a.b\".read", 4, 1),
            ("device.\"a.b\".read.count", 4, 23),
            ("device.\"a.b\".x.y", 5, 3),
            ("device.\"a.b\".z[1]", 7, 3),
            ("device.\"a.b\".z[2].a", 8, 5),
            ("t[2].u", 11, 1),
        ] {
            assert_eq!(places.get(key), Some(&Place { line, column }), "{key}: {places:?}");
        }
    }
}
