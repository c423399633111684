//! What a daemon says of itself: what is wrong first, then who is connected, which lines are open, and how each
//! peripheral did last.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::page::{Page, Tone};
use super::printable;
use crate::health::snapshot::{Device, LinkState, Lock, Snapshot};

/// The whole picture.
pub fn status(of: &Snapshot, page: Page) -> String {
    let mut out = verdict(of, page);
    out.push('\n');
    out += &settings(of, page);
    for (id, lock) in of.devices.iter().filter_map(|device| Some((&device.id, device.locked.as_ref()?))) {
        out += &page.wrap(2, &format!("{} is LOCKED{}", printable(id), lock_told(lock)));
    }
    for device in of.devices.iter().filter(|device| device.hub == LinkState::WaitingForLocks) {
        let why = device.last_error.as_deref().unwrap_or("the hub may keep messages locked");
        out += &page.wrap(2, &printable(&format!("{} waits: {why}", device.id)));
    }
    let heads = ["id", "transport", "received", "duplicates", "calls", "pending", "hub"];
    let _ = write!(out, "\nidentities\n{}", page.table(&heads, &of.devices.iter().map(identity).collect::<Vec<_>>()));
    let buses: Vec<Vec<String>> = of.buses.iter().map(bus).collect();
    let heads = ["name", "kind", "state", "exchanges", "timeouts", "last error"];
    let _ = write!(out, "\nbuses\n{}", page.table(&heads, &buses));
    let heads = ["device", "bus", "answers", "executed", "in doubt", "last success", "last failure"];
    let rows: Vec<Vec<String>> = of.devices.iter().map(peripheral).collect();
    let _ = write!(out, "\nperipherals\n{}", page.table(&heads, &rows));
    let rows: Vec<Vec<String>> = of.devices.iter().flat_map(polls).collect();
    if !rows.is_empty() {
        let heads = ["device", "poll", "quality", "read", "value"];
        let _ = write!(out, "\npolls\n{}", page.table(&heads, &rows));
    }
    out
}

fn verdict(of: &Snapshot, page: Page) -> String {
    let mut out = String::new();
    let tone = if of.attention.is_empty() { Tone::Good } else { Tone::Bad };
    let told = match of.attention.len() {
        0 => "Everything works.".to_owned(),
        1 => "One thing needs you:".to_owned(),
        more => format!("{more} things need you:"),
    };
    let _ = writeln!(out, "{}", page.paint(tone, &told));
    for (n, one) in of.attention.iter().enumerate() {
        let number = format!("  {}. ", n + 1);
        out += &page.wrap(number.len(), &format!("{number}{}", printable(&one.what)));
        if !one.remedy.is_empty() {
            let indent = number.len();
            out += &page.wrap(indent + 2, &format!("{:indent$}> {}", "", printable(&one.remedy)));
        }
    }
    out
}

/// The program, its configuration, the hub and the ledger.
fn settings(of: &Snapshot, page: Page) -> String {
    let mut out = String::new();
    let up = humantime::format_duration(std::time::Duration::from_secs(of.uptime_seconds));
    out += &page.wrap(2, &format!("fieldbridge {}, up {up}", printable(&of.version)));
    let configuration = &of.configuration;
    if !configuration.file.is_empty() {
        let state = match (configuration.ok, configuration.changed_files.is_empty()) {
            (true, true) => "in force as it stands in the files",
            (false, _) => "REFUSED at the last reload; the one before it is in force",
            (true, false) => "changed since it was read; the one before that is in force",
        };
        out += &page.wrap(2, &format!("configuration {}: {state}", printable(&configuration.file)));
    }
    let hub = &of.hub;
    let held = match of.devices.iter().filter(|device| device.hub == LinkState::Held).count() {
        0 => String::new(),
        held => format!(", {held} held since their units are away"),
    };
    let host = match printable(&hub.host).as_str() {
        // Each device is assigned to its own, or to none yet.
        "" => "hubs".to_owned(),
        host => format!("hub {host}"),
    };
    out += &page.wrap(2, &format!("{host}: {} of {} identities connected{held}", hub.connected, hub.identities));
    let state = if of.ledger.ok { "ok" } else { "NOT WRITABLE" };
    let rows = counted(of.ledger.rows.unsigned_abs(), "row", "rows");
    let events = counted(of.outbox.pending.unsigned_abs(), "event", "events");
    let doubts = of.ledger.in_doubt_open;
    out += &page.wrap(2, &format!("ledger {state}, {rows}, {doubts} in doubt; outbox {events}"));
    if of.ledger.distrusted {
        let is = "is new, or from a backup: what must not be repeated, and may have been done before, ends in doubt";
        out += &page.wrap(2, &format!("the ledger {is}"));
    }
    if let Some(telemetry) = &of.telemetry {
        let state = if telemetry.ok { "ok" } else { "NOT WRITABLE" };
        let pending = counted(telemetry.pending, "message waits", "messages wait");
        let (samples, lost) = (counted(telemetry.samples, "sample", "samples"), telemetry.lost);
        out += &page.wrap(2, &format!("telemetry {state}, {samples}, {lost} lost; {pending}"));
        if telemetry.of_removed_devices > 0 {
            let more = counted(telemetry.of_removed_devices, "more message", "more messages");
            let is = "of telemetry, of devices that are not configured any more: they go when their devices are back";
            out += &page.wrap(2, &format!("{more} {is}"));
        }
    }
    if of.outbox.of_removed_devices > 0 {
        let more = of.outbox.of_removed_devices;
        let is = "of devices that are not configured any more: each is published when its device is back";
        out += &page.wrap(2, &format!("{more} more events are {is}"));
    }
    out
}

fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

fn identity(device: &Device) -> Vec<String> {
    let [received, duplicates, pending] =
        [device.received, device.duplicates, device.pending].map(|count| count.to_string());
    let names = [&device.id, &device.transport].map(String::clone);
    [names.to_vec(), vec![received, duplicates, calls(device), pending], vec![device.hub.as_str().to_owned()]].concat()
}

/// How many calls of direct methods were answered, and of how many the command was not done.
pub fn calls(device: &Device) -> String {
    match device.calls_told() {
        (all, 0) => all.to_string(),
        (all, failed) => format!("{all}, {failed} failed"),
    }
}

fn polls(device: &Device) -> impl Iterator<Item = Vec<String>> + '_ {
    device.polls.iter().map(|(name, poll)| {
        let (quality, read) = (poll.quality.clone(), format!("{} ago", age(poll.seconds_ago)));
        vec![device.id.clone(), name.clone(), quality, read, value(&poll.value)]
    })
}

/// What a poll has read: a text without quotes, and a dash where there is no value.
pub fn value(of: &Json) -> String {
    match of {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn bus(bus: &crate::health::snapshot::Bus) -> Vec<String> {
    let names = [&bus.name, &bus.kind, bus.state.as_str()].map(str::to_owned);
    let counts = [bus.exchanges, bus.timeouts].map(|count| count.to_string());
    [names.to_vec(), counts.to_vec(), vec![bus.last_error.clone().unwrap_or_else(|| "-".into())]].concat()
}

fn peripheral(device: &Device) -> Vec<String> {
    let answers = match device.present {
        Some(true) => "yes",
        Some(false) => "AWAY",
        None => "-",
    };
    let nothing = || "-".to_owned();
    let success = device.last_success.as_ref();
    let success = success.map_or_else(nothing, |done| format!("{} ago: {}", age(done.seconds_ago), done.command));
    let failure = device.last_failure.as_ref().map_or_else(nothing, |undone| {
        format!("{} ago: {}, {} ({})", age(undone.seconds_ago), undone.command, undone.state, undone.code)
    });
    let counts = [device.executed, device.in_doubt_open].map(|count| count.to_string());
    [&[device.id.clone(), device.bus.clone(), answers.to_owned()][..], &counts, &[success, failure]].concat()
}

/// How long ago something was, as a person says it.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Since when, by whom and why: the end of a sentence.
fn lock_told(lock: &Lock) -> String {
    let told = [("since", &lock.since), ("by", &lock.by)];
    let told = told.into_iter().filter_map(|(word, of)| Some(format!(" {word} {}", printable(of.as_deref()?))));
    let reason = lock.reason.iter().map(|reason| format!(": {}", printable(reason)));
    told.chain(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::snapshot::{self, Attention, Done, Poll, Undone};

    #[test]
    fn what_is_wrong_comes_first_and_then_how_each_peripheral_did() {
        let mut snapshot = Snapshot {
            ledger: snapshot::Ledger { ok: true, rows: 1, ..Default::default() },
            devices: vec![Device {
                id: "pump-7".into(),
                bus: "line".into(),
                hub: LinkState::Connected,
                present: Some(true),
                last_success: Some(Done { seconds_ago: 300, command: "set".into(), at: None }),
                last_failure: Some(Undone { seconds_ago: 90_000, code: "timeout".into(), ..Undone::default() }),
                calls: [("200".to_owned(), 4), ("202".to_owned(), 1), ("503".to_owned(), 2)].into(),
                polls: [
                    ("level".to_owned(), Poll { quality: "timeout".into(), seconds_ago: 600, ..Poll::default() }),
                    ("speed".to_owned(), Poll { value: 42.5.into(), quality: "good".into(), ..Poll::default() }),
                ]
                .into(),
                ..Device::default()
            }],
            ..Snapshot::default()
        };
        let text = status(&snapshot, Page::default());
        assert!(text.starts_with("Everything works.\n\nfieldbridge "), "{text}");
        assert!(text.contains("ledger ok, 1 row, 0 in doubt; outbox 0 events\n"), "{text}");
        assert!(text.contains("pump-7  line  yes      0         0         5 min ago: set  25 h ago: "), "{text}");
        assert!(text.contains("  7, 2 failed  "), "{text}");
        assert!(text.contains("pump-7  level  timeout  10 min ago  -\n"), "{text}");
        assert!(text.contains("pump-7  speed  good     0 s ago     42.5\n"), "{text}");
        let attention = |what: &str| Attention { what: what.into(), remedy: "do this".into() };
        snapshot.attention = vec![attention("one is wrong"), attention("another is")];
        let text = status(&snapshot, Page { width: Some(14), colour: false });
        let told =
            "2 things need you:\n  1. one is\n     wrong\n     > do this\n  2. another\n     is\n     > do this\n\n";
        assert!(text.starts_with(told), "{text}");
    }
}
