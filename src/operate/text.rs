//! What the operator's commands print for people.
//!
//! Invariants
//! - What came from the hub or from a peripheral is shown without what steers a terminal: it can't steer the terminal.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::command::Envelope;
use crate::complaint::steers;
use crate::health::snapshot::{LinkState, Lock, Snapshot};
use crate::ledger::row::{Record, Source};

/// What a reload has changed.
pub fn changes(document: &Json) -> String {
    let notes = document["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let notes = notes.iter().filter_map(Json::as_str).map(|note| format!("note: {note}"));
    let summary = document["summary"].as_str().unwrap_or_default();
    notes.chain([summary.to_owned()]).map(|line| printable(&line)).collect::<Vec<_>>().join("\n")
}

/// What a daemon says of itself.
pub fn status(of: &Snapshot) -> String {
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), printable);
    let mut out = String::new();
    let up = humantime::format_duration(std::time::Duration::from_secs(of.uptime_seconds));
    let hub = &of.hub;
    let (version, host) = (printable(&of.version), printable(&hub.host));
    let _ = writeln!(out, "fieldbridge {version}, up {up}");
    let held = match of.devices.iter().filter(|device| device.hub == LinkState::Held).count() {
        0 => String::new(),
        held => format!(", {held} held since their units are away"),
    };
    let _ = writeln!(out, "hub {host}: {} of {} identities connected{held}", hub.connected, hub.identities);
    if !of.configuration.ok {
        let why = or_none(&of.configuration.last_error);
        let _ = writeln!(out, "the last reload was REFUSED, and what runs is the configuration before it: {why}");
    }
    if !of.clock.ok {
        let _ = writeln!(out, "clock NOT BELIEVED: {}", or_none(&of.clock.last_error));
    }
    let state = match of.ledger.ok {
        true => "ok".to_owned(),
        false => format!("NOT WRITABLE: {}", or_none(&of.ledger.last_error)),
    };
    let _ = writeln!(out, "ledger {state}, {} rows; outbox {} events", of.ledger.rows, of.outbox.pending);
    if of.outbox.of_removed_devices > 0 {
        let _ = writeln!(
            out,
            "{} more events are of devices that are not configured any more: each is published when its device is back",
            of.outbox.of_removed_devices
        );
    }
    let counts = |counts: &[u64]| counts.iter().map(u64::to_string).collect::<Vec<_>>();
    let devices = of.devices.iter().map(|device| {
        let names = [&device.id, &device.bus, &device.transport, device.hub.as_str()].map(printable).to_vec();
        let counts = counts(&[device.received, device.executed, device.duplicates, device.in_doubt, device.pending]);
        [names, counts, vec![or_none(&device.last_error)]].concat()
    });
    for (id, lock) in of.devices.iter().filter_map(|device| Some((&device.id, device.locked.as_ref()?))) {
        let _ = writeln!(out, "{} is LOCKED{}", printable(id), lock_told(lock));
    }
    for device in of.devices.iter().filter(|device| device.present == Some(false)) {
        let since = device.away_since.iter().map(|since| format!(" since {}", printable(since)));
        let since: String = since.collect();
        let (id, bus) = (printable(&device.id), printable(&device.bus));
        let _ = writeln!(out, "{id} is AWAY{since}: its unit on bus {bus} does not answer");
    }
    let heads =
        ["id", "bus", "transport", "hub", "received", "executed", "duplicates", "inDoubt", "pending", "lastError"];
    let _ = write!(out, "\ndevices\n{}", table(&heads, devices.collect()));
    let buses = of.buses.iter().map(|bus| {
        let names = [&bus.name, &bus.kind, bus.state.as_str()].map(printable).to_vec();
        [names, counts(&[bus.exchanges, bus.timeouts]), vec![or_none(&bus.last_error)]].concat()
    });
    let heads = ["name", "kind", "state", "exchanges", "timeouts", "lastError"];
    let _ = write!(out, "\nbuses\n{}", table(&heads, buses.collect()));
    out
}

/// A device that was locked. `is_running`: the daemon has done so.
pub fn locked(document: &Json, is_running: bool) -> String {
    let device = printable(document["device"].as_str().unwrap_or_default());
    let when = if is_running { "" } else { ", once the daemon runs again," };
    format!("{device} is locked: nothing is written to it{when} until `fieldbridge unlock {device}`")
}

/// Since when, by whom and why: the end of a sentence.
fn lock_told(lock: &Lock) -> String {
    let told = [("since", &lock.since), ("by", &lock.by)];
    let told = told.into_iter().filter_map(|(word, of)| Some(format!(" {word} {}", printable(of.as_deref()?))));
    let reason = lock.reason.iter().map(|reason| format!(": {}", printable(reason)));
    told.chain(reason).collect()
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

/// One line of text, whatever a peripheral or a message put into it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
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
