//! What the operator's commands print for people.
//!
//! Invariants
//! - What came from the hub or from a peripheral is shown without what steers a terminal: it can't steer the terminal.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::ledger::row::{Record, Source};

/// What a reload has changed.
pub fn changes(document: &Json) -> String {
    let notes = document["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let notes = notes.iter().filter_map(Json::as_str).map(|note| format!("note: {note}"));
    let summary = document["summary"].as_str().unwrap_or_default();
    notes.chain([summary.to_owned()]).map(|line| printable(&line)).collect::<Vec<_>>().join("\n")
}

/// A status document.
pub fn status(document: &Json) -> String {
    let text = |value: &Json| match value {
        Json::String(text) => printable(text),
        Json::Null => "-".into(),
        other => printable(&other.to_string()),
    };
    let mut out = String::new();
    let hub = &document["hub"];
    let _ = writeln!(
        out,
        "fieldbridge {}, up {}\nhub {}: {} of {} identities connected",
        text(&document["version"]),
        humantime::format_duration(std::time::Duration::from_secs(document["uptimeSeconds"].as_u64().unwrap_or(0))),
        text(&hub["host"]),
        text(&hub["connected"]),
        text(&hub["identities"]),
    );
    let configuration = &document["configuration"];
    if configuration["ok"] == false {
        let why = text(&configuration["lastError"]);
        let _ = writeln!(out, "the last reload was REFUSED, and what runs is the configuration before it: {why}");
    }
    let clock = &document["clock"];
    if clock["ok"] == false {
        let _ = writeln!(out, "clock NOT BELIEVED: {}", text(&clock["lastError"]));
    }
    let ledger = &document["ledger"];
    let state =
        if ledger["ok"] == true { "ok".to_owned() } else { format!("NOT WRITABLE: {}", text(&ledger["lastError"])) };
    let _ = writeln!(
        out,
        "ledger {state}, {} rows; outbox {} events",
        text(&ledger["rows"]),
        text(&document["outbox"]["pending"])
    );
    let left_over = &document["outbox"]["ofRemovedDevices"];
    if left_over.as_i64().is_some_and(|count| count > 0) {
        let _ = writeln!(
            out,
            "{} more events are of devices that are not configured any more: each is published when its device is back",
            text(left_over)
        );
    }
    for (title, list, columns) in [
        (
            "devices",
            &document["devices"],
            &["id", "bus", "hub", "received", "executed", "duplicates", "inDoubt", "pending", "lastError"][..],
        ),
        ("buses", &document["buses"], &["name", "kind", "state", "exchanges", "timeouts", "lastError"][..]),
    ] {
        let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let cells = rows.iter().map(|row| columns.iter().map(|column| text(&row[*column])).collect()).collect();
        let _ = write!(out, "\n{title}\n{}", table(columns, cells));
    }
    out
}

/// Rows of the ledger.
pub fn rows(rows: &[Record]) -> String {
    let cells = rows
        .iter()
        .map(|row| {
            vec![
                row.row.number().to_string(),
                row.received_at.known().map_or_else(|| "-".into(), |at| at.to_string()),
                row.device.clone(),
                row.message_id.clone().unwrap_or_else(|| "-".into()),
                row.command.clone().unwrap_or_else(|| "-".into()),
                row.state.to_string(),
                row.attempts.to_string(),
                row.deliveries.to_string(),
                end(row),
            ]
        })
        .collect();
    table(&["row", "received", "device", "message", "command", "state", "attempts", "deliveries", "result"], cells)
}

/// One row with its history.
pub fn row(row: &Record) -> String {
    let mut out = String::new();
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), printable);
    let _ = writeln!(
        out,
        "row         {}\nhub         {}\nsource      {}\ndevice      {}\nmessage     {}\ncommand     {}",
        row.row.number(),
        printable(&row.hub),
        printable(&source(&row.source)),
        printable(&row.device),
        or_none(&row.message_id),
        or_none(&row.command)
    );
    let _ = writeln!(
        out,
        "requested   {}\nstate       {}\nattempts    {}\ndeliveries  {}\nresult      {}",
        row.requested.as_ref().map_or_else(|| "-".into(), |value| printable(&value.to_string())),
        row.state,
        row.attempts,
        row.deliveries,
        printable(&end(row))
    );
    for entry in &row.history {
        let text = |key: &str| printable(entry[key].as_str().unwrap_or_default());
        let _ = writeln!(out, "{}  {} {}", text("at"), text("event"), text("detail"));
    }
    out
}

/// The result of a command, as its event tells it.
pub fn result(event: &Json) -> String {
    let status = printable(event["status"].as_str().unwrap_or_default());
    match event.get("value") {
        Some(value) => format!("{status}: {}", printable(&value.to_string())),
        None => status,
    }
}

/// Why a command did not succeed, as its event tells it.
pub fn error(event: &Json) -> String {
    let text = |key: &str| printable(event["error"][key].as_str().unwrap_or_default());
    format!("{} ({})", text("message"), text("code"))
}

fn source(source: &Source) -> String {
    match source.user() {
        Some(user) => format!("{}, {user}", source.as_str()),
        None => source.as_str().to_owned(),
    }
}

fn end(row: &Record) -> String {
    match (&row.value, &row.fault) {
        (_, Some(fault)) => format!("{}: {}", fault.code.as_str(), fault.message),
        (Some(value), None) => value.to_string(),
        (None, None) => "-".into(),
    }
}

/// One line of text, whatever a peripheral or a message put into it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Whether a character does something to a terminal instead of standing in it: controls, line ends, and those that turn
/// the direction of writing, by which a text can seem to say something else (Unicode Standard Annex 9, 2).
fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control()
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(i, head)| rows.iter().map(|row| row[i].chars().count()).chain([head.len()]).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{:width$}  ", printable(cell));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
