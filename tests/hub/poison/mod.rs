//! Poison is harmless: whatever bytes come from the hub or from a peripheral, each message ends in a final state with
//! a reason that a person understands, and the next one is executed. Proves G8.

mod hub;
mod packets;
mod wire;

use serde_json::Value as Json;

fn command(name: &str, value: u16) -> String {
    format!(r#"{{"command":"{name}","value":{value}}}"#)
}

/// Holds the error of an event or a row to what a person can read: a sentence, not a dump.
fn assert_readable(error: &Json) {
    let message = error["message"].as_str().unwrap_or_else(|| panic!("no message in {error}"));
    assert!(message.split_whitespace().count() >= 3, "not a sentence: {message:?}");
    assert!(message.len() <= 600, "a dump of {} bytes: {:.100}…", message.len(), message);
    assert!(!message.chars().any(char::is_control), "control characters in {message:?}");
}
