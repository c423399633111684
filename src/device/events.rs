//! What a device's instrument says by itself, as an event of the device says it.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::bus::{BusHandle, Hearing, Overheard};
use crate::config::Device;
use crate::hub::news::News;
use crate::ledger::Ledger;
use crate::peripheral::Events;
use crate::time::Timestamp;

/// Listens on a device's bus for what it has `events` for, if it has any, for as long as what this gives is kept.
pub fn listen(device: &Device, bus: &BusHandle, news: &Arc<News>, ledger: &Ledger) -> Option<Hearing> {
    let events = device.events.as_ref()?;
    let (news, ledger, told, name) = (news.clone(), ledger.clone(), events.clone(), device.bus.clone());
    Some(bus.listen(&device.id, events, move |heard| match heard {
        // The clock may not be believed yet, and nothing waits for it here.
        Overheard::Line { text, bytes } => news.put(event(&told, &name, text, bytes, ledger.wall_clock().now().ok())),
        Overheard::Doubtful => news.pass_over(),
    }))
}

/// The body of an event.
fn event(events: &Events, bus: &str, text: &str, bytes: &[u8], at: Option<Timestamp>) -> Map<String, Json> {
    let mut event = Map::new();
    event.insert("event".into(), text.into());
    if let Some(value) = events.value(text) {
        event.insert("value".into(), value);
    }
    if text.as_bytes() != bytes || text.chars().any(|char| char.is_control() && char != '\t') {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        event.insert("hex".into(), hex.join(" ").into());
    }
    event.insert("at".into(), at.map(|at| at.to_string()).into());
    event.insert("bus".into(), bus.into());
    event
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_says_the_line_what_it_captures_when_and_where() {
        let told = |pattern: &str, bytes: &[u8], at| {
            let text = String::from_utf8_lossy(bytes);
            Json::Object(event(&Events::new(pattern).unwrap(), "scale-port", &text, bytes, at))
        };
        let at = Some(Timestamp(1_800_000_000_000));
        assert_eq!(
            told("^W (.*) kg", b"W 12.5 kg", at),
            json!({ "event": "W 12.5 kg", "value": 12.5, "at": "2027-01-15T08:00:00.000Z", "bus": "scale-port" })
        );
        assert_eq!(
            told("^DOOR", b"DOOR\topen", None),
            json!({ "event": "DOOR\topen", "at": null, "bus": "scale-port" })
        );
        let bytes = told("^A", b"A\x06\xFF", None);
        assert_eq!((&bytes["event"], &bytes["hex"]), (&json!("A\u{6}\u{FFFD}"), &json!("41 06 FF")));
    }
}
