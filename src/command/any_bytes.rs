//! What must hold for any message, whatever transport brought it.

use serde_json::{json, Value as Json};

use super::message::{Message, Order, BODY_BYTES_MAX, COMMAND_BYTES_MAX, MESSAGE_ID_BYTES_MAX};
use super::outcome::Code;
use crate::proof::bytes::Source;

/// A message is an order or a fault, of bounded size and always the same; an order that is written is the one that is
/// read; no two bodies have one digest.
pub fn message(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let flags = source.u8();
    let has = |bit: u8| flags >> bit & 1 == 1;
    let message = Message {
        id: has(0).then(|| source.text(700)),
        command: has(1).then(|| source.text(200)),
        malformed: has(2).then(|| "it came from elsewhere".into()),
        // Now and then one that is too large.
        body: if has(3) && has(4) && has(5) { vec![b' '; BODY_BYTES_MAX + 1] } else { source.rest().to_vec() },
        ..Message::default()
    };
    is_order_or_fault(&message);
    what_is_kept_is_small_and_the_same(&message);
    digests_differ(&message);
    an_order_is_read_as_it_was_written(&message);
}

fn is_order_or_fault(message: &Message) {
    let judged = message.order();
    assert_eq!(judged, message.order());
    match &judged {
        Ok(order) => {
            assert!(order.command.len() <= COMMAND_BYTES_MAX);
            assert!(message.command.as_ref().is_none_or(|name| *name == order.command));
            assert!(message.malformed.is_none() && message.body.len() <= BODY_BYTES_MAX);
        }
        Err(fault) => {
            assert!(!fault.message.is_empty() && fault.message.len() < 1000, "{}", fault.message);
            assert!(!fault.message.contains(char::is_control), "{:?}", fault.message);
        }
    }
    let whole = message.id.as_deref().unwrap_or_default();
    let kept = message.ledger_id().unwrap_or_default();
    assert!(whole.starts_with(kept) && kept.len() <= MESSAGE_ID_BYTES_MAX);
    assert!(kept.len() == whole.len() || judged.is_err());
    assert!(message.claimed_command().is_none_or(|name| name.len() <= COMMAND_BYTES_MAX));
}

/// While it waits a message takes little memory, and nothing that matters of it is lost.
fn what_is_kept_is_small_and_the_same(message: &Message) {
    let gist = message.clone().condense();
    assert_eq!((gist.digest, gist.id.as_deref()), (message.digest(), message.ledger_id()));
    assert!(gist.weight() < 128 * 1024);
    match (gist.fault, message.order()) {
        (fault, Err(expected)) => assert_eq!(fault, Some(expected)),
        (None, Ok(order)) => assert_eq!((gist.command, gist.value), (Some(order.command), order.value)),
        (Some(fault), Ok(order)) => {
            let scalar = |value: &Json| !matches!(value, Json::Array(_) | Json::Object(_));
            let short = order.value.as_ref().is_none_or(|value| scalar(value) && value.to_string().len() <= 4096);
            assert!(!short && fault.code == Code::BadValue, "{fault:?}");
        }
    }
}

fn digests_differ(message: &Message) {
    let digest = message.digest();
    let mut other = message.clone();
    other.body.push(0);
    assert_ne!(digest, other.digest());
    // The border between property and body is part of what is signed.
    if let (Some(command), Some(first)) = (&message.command, message.body.first()) {
        let moved = Message {
            command: Some(format!("{command}{}", char::from(first & 0x7F))),
            body: message.body[1..].to_vec(),
            ..message.clone()
        };
        assert_ne!(digest, moved.digest());
    }
    // The id is no part of it: a redelivery is found by both.
    assert_eq!(digest, Message { id: None, ..message.clone() }.digest());
}

fn an_order_is_read_as_it_was_written(message: &Message) {
    let Ok(value) = serde_json::from_slice::<Json>(&message.body) else { return };
    let name = message.command.clone().unwrap_or_else(|| "set-speed".into());
    if name.len() > COMMAND_BYTES_MAX || message.body.len() > BODY_BYTES_MAX / 8 {
        return;
    }
    let expected = Ok(Order { command: name.clone(), value: Some(value.clone()) });
    let body = json!({ "command": name, "note": 1, "value": value }).to_string();
    let alone = Message { body: body.clone().into_bytes(), ..Message::default() };
    assert_eq!(alone.order(), expected);
    let beside = Message { command: Some(name), body: body.into_bytes(), ..Message::default() };
    assert_eq!(beside.order(), expected);
}
