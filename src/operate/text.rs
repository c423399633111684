//! What the operator's commands print for people.
//!
//! Invariants
//! - What came from the hub or from a peripheral is shown without what steers a terminal: it can't steer the terminal.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod explain;
mod ledger;
pub mod page;
pub mod status;

pub use explain::story;
pub use ledger::{csv, csv_head, not_looked_through, row, rows, Columns};
pub use page::{Page, Tone};
pub use status::status;

use serde_json::Value as Json;

use crate::complaint::steers;

/// What a reload has changed.
pub fn changes(document: &Json) -> String {
    let notes = document["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let notes = notes.iter().filter_map(Json::as_str).map(|note| format!("note: {note}"));
    let summary = document["summary"].as_str().unwrap_or_default();
    notes.chain([summary.to_owned()]).map(|line| printable(&line)).collect::<Vec<_>>().join("\n")
}

/// A device that was locked. `is_running`: the daemon has done so.
pub fn locked(document: &Json, is_running: bool) -> String {
    let device = printable(document["device"].as_str().unwrap_or_default());
    let when = if is_running { "" } else { ", once the daemon runs again," };
    format!("{device} is locked: nothing is written to it{when} until `fieldbridge unlock {device}`")
}

/// The result of a command, as its event tells it.
pub fn result(event: &Json) -> String {
    let status = printable(event["status"].as_str().unwrap_or_default());
    match event.get("value") {
        Some(value) => format!("{status}: {}", printable(&value.to_string())),
        None => status,
    }
}

/// Values of a table, each behind the address where it begins; `width` is what one takes.
pub fn values(address: u16, width: usize, values: &[Json]) -> String {
    let rows = values
        .iter()
        .enumerate()
        .map(|(at, value)| vec![(usize::from(address) + at * width).to_string(), shown(value)]);
    table(&["address", "value"], rows.collect())
}

/// Registers, and what they may mean.
pub fn meanings(words: &[u16], all: &[(String, Vec<Json>)]) -> String {
    let registers = words.iter().map(|word| format!("0x{word:04X}")).collect::<Vec<_>>().join(" ");
    let rows =
        all.iter().map(|(name, values)| vec![name.clone(), values.iter().map(shown).collect::<Vec<_>>().join(" ")]);
    table(&["type", "values"], std::iter::once(vec!["registers".into(), registers]).chain(rows).collect())
}

/// A value without the quotes of a text; what is none of its type is a line.
fn shown(value: &Json) -> String {
    match value {
        Json::Null => "-".into(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Why a command did not succeed, as its event tells it.
pub fn error(event: &Json) -> String {
    let text = |key: &str| printable(event["error"][key].as_str().unwrap_or_default());
    format!("{} ({})", text("message"), text("code"))
}

/// One line of text, whatever a peripheral or a message put into it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    Page::default().table(heads, &rows)
}
