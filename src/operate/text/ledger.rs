//! The ledger for people: rows in a table, one row with its history, rows for a spreadsheet.

use std::fmt::Write as _;

use super::{printable, Page};
use crate::command::Envelope;
use crate::ledger::row::{Record, Source};
use crate::time::{local, Timestamp};

/// What a table of rows begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Columns {
    /// The heads were told before.
    pub is_continued: bool,
    /// By how many seconds the local clock is ahead of UTC, for a column of it.
    pub ahead: Option<i64>,
}

/// Rows of the ledger, in a table.
pub fn rows(rows: &[Record], columns: Columns, page: Page) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let nothing = || "-".to_owned();
            let at = row.received_at.known();
            let local = columns.ahead.map(|ahead| at.map_or_else(nothing, |at| local::shown(at, ahead)));
            let rest = [
                row.device.clone(),
                row.message_id.clone().unwrap_or_else(nothing),
                row.command.clone().unwrap_or_else(nothing),
                if row.resolved.is_some() { format!("{}, resolved", row.state) } else { row.state.to_string() },
                row.attempts.to_string(),
                row.deliveries.to_string(),
                end(row),
            ];
            let begin = [row.row.number().to_string(), at.map_or_else(nothing, |at| at.to_string())];
            begin.into_iter().chain(local).chain(rest).collect()
        })
        .collect();
    let local = columns.ahead.map(|_| "local time");
    let rest = ["device", "message", "command", "state", "attempts", "deliveries", "result"];
    let heads: Vec<&str> = ["row", "received"].into_iter().chain(local).chain(rest).collect();
    let table = page.table(&heads, &cells);
    match columns.is_continued {
        true => table.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default(),
        false => table,
    }
}

/// The columns of [`csv`].
pub fn csv_head() -> String {
    "row,receivedAt,hub,source,user,device,messageId,command,requested,state,attempts,deliveries,finishedAt,value,errorCode,\
     errorMessage,resolvedAt,resolvedBy,note"
        .to_owned()
}

/// A row for a spreadsheet (RFC 4180). No text of a sender's begins as a formula does.
pub fn csv(row: &Record) -> String {
    let time = |at: Option<Timestamp>| at.and_then(Timestamp::known).map(|at| at.to_string());
    let value = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
    let resolved = row.resolved.as_ref();
    let cells = [
        Some(row.row.number().to_string()),
        time(Some(row.received_at)),
        Some(row.hub.clone()),
        Some(row.source.as_str().to_owned()),
        row.source.user().map(str::to_owned),
        Some(row.device.clone()),
        row.message_id.clone(),
        row.command.clone(),
        value(&row.requested),
        Some(row.state.to_string()),
        Some(row.attempts.to_string()),
        Some(row.deliveries.to_string()),
        time(row.finished_at),
        value(&row.value),
        row.fault.as_ref().map(|fault| fault.code.as_str().to_owned()),
        row.fault.as_ref().map(|fault| fault.message.clone()),
        time(resolved.map(|resolved| resolved.at)),
        resolved.map(|resolved| resolved.by.clone()),
        resolved.and_then(|resolved| resolved.note.clone()),
    ];
    cells.map(|cell| cell.map_or_else(String::new, |cell| csv_cell(&printable(&cell)))).join(",")
}

fn csv_cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']) && text.parse::<f64>().is_err();
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// What is said where `ledger list` has not looked through all rows.
pub fn not_looked_through(last: i64, device: Option<&str>) -> String {
    match device {
        Some(_) => format!(
            "note: up to row {last} not all were looked at, such as those of `exec`, which have no message id; show one by its \
             row, or ask for more with --limit"
        ),
        None => format!(
            "note: rows up to {last} were not looked through; ask for one device's, for more with --limit, or show one by \
             its row"
        ),
    }
}

/// One row with its history.
pub fn row(row: &Record) -> String {
    let mut out = String::new();
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), printable);
    let _ = writeln!(
        out,
        "row         {}\nhub         {}\nsource      {}\ndevice      {}\nmessage     {}\ncorrelation {}\n\
         enqueued    {}\ncommand     {}",
        row.row.number(),
        printable(&row.hub),
        printable(&source(&row.source)),
        printable(&row.device),
        or_none(&row.message_id),
        or_none(&row.envelope.correlation_id),
        enqueued(&row.envelope),
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
    if let Some(resolved) = &row.resolved {
        let note = resolved.note.iter().map(|note| format!(": {}", printable(note)));
        let _ = writeln!(out, "resolved    by {}{}", printable(&resolved.by), note.collect::<String>());
    }
    for entry in &row.history {
        let text = |key: &str| printable(entry[key].as_str().unwrap_or_default());
        let _ = writeln!(out, "{}  {} {}", text("at"), text("event"), text("detail"));
    }
    out
}

/// What the hub has told of a message, where the transport tells it.
fn enqueued(envelope: &Envelope) -> String {
    let told = [
        envelope.enqueued_at.map(|at| at.to_string()),
        envelope.sequence_number.map(|number| format!("as number {number}")),
        envelope.delivery_count.map(|count| format!("delivered before: {count}")),
    ];
    match told.into_iter().flatten().collect::<Vec<_>>().join(", ") {
        nothing if nothing.is_empty() => "-".into(),
        told => told,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_for_a_spreadsheet_is_quoted_where_it_must_be_and_is_no_formula() {
        for (text, cell) in [
            ("plain", "plain"),
            ("a, \"b\"", "\"a, \"\"b\"\"\""),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-12.5", "-12.5"),
            ("-x", "'-x"),
        ] {
            assert_eq!(csv_cell(text), cell);
        }
    }
}
