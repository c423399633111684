//! What must hold for any message, whatever transport brought it.

use serde_json::{json, Value as Json};

use super::envelope::Envelope;
use super::message::{Form, Message, Order, BODY_BYTES_MAX, COMMAND_BYTES_MAX, MESSAGE_ID_BYTES_MAX};
use super::method::Method;
use super::outcome::{Code, Outcome};
use super::twin::{Acknowledgement, Desired, Twin, Wanted};
use crate::proof::bytes::Source;

/// A message is an order or a fault, of bounded size and always the same; an order that is written is the one that is
/// read; no two bodies have one digest.
pub fn message(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let flags = source.u8();
    let has = |bit: u8| flags >> bit & 1 == 1;
    let form = form(&mut source);
    let encodings =
        [None, Some("utf-8"), Some("UTF-16"), Some("utf_16be"), Some("utf-16LE"), Some("utf-32"), Some("gzip")];
    let content_encoding = match source.u8() {
        any @ 7.. => (any % 3 == 0).then(|| source.text(60)),
        known => encodings[usize::from(known)].map(str::to_owned),
    };
    let message = Message {
        id: has(0).then(|| source.text(700)),
        command: has(1).then(|| source.text(200)),
        content_encoding,
        correlation_id: has(6).then(|| source.text(700)),
        sequence_number: has(7).then(|| source.u64()),
        malformed: has(2).then(|| "it came from elsewhere".into()),
        // Now and then one that is too large.
        body: if has(3) && has(4) && has(5) { vec![b' '; BODY_BYTES_MAX + 1] } else { source.rest().to_vec() },
        ..Message::default()
    };
    is_order_or_fault(&message, &form);
    what_is_kept_is_small_and_the_same(&message, &form);
    digests_differ(&message);
    an_order_is_read_as_it_was_written(&message, &form);
    a_call_is_the_same_however_it_is_written(bytes);
    a_twin_is_no_twin_or_asks_for_little(bytes);
}

/// A twin is read, or what is wrong is told in a sentence; what is kept of a set point, and told of its end, is small.
fn a_twin_is_no_twin_or_asks_for_little(body: &[u8]) {
    let is_known = |name: &str| name.len() < 8;
    let read = [Twin::read(body, is_known).map(|twin| twin.desired), Desired::read(body, is_known)];
    for read in read {
        let Desired { version, values } = match read {
            Ok(desired) => desired,
            Err(why) => {
                assert!(!why.is_empty() && why.len() < 1000, "{why}");
                continue;
            }
        };
        for (name, value) in values {
            assert!(is_known(&name));
            let gist = Wanted { name, version }.condense("set", value.clone(), "m");
            assert!(gist.weight() < 128 * 1024 && gist.id.is_some_and(|id| id.len() <= MESSAGE_ID_BYTES_MAX));
            let told = Acknowledgement::ended(&Outcome::succeeded(None), value, version).to_json().to_string();
            assert!(told.len() < 4096, "{told}");
        }
    }
}

/// A call is of bounded size, and the same if its payload is written anew.
fn a_call_is_the_same_however_it_is_written(payload: &[u8]) {
    let of = |payload: &[u8]| Method { name: "set".into(), payload: payload.to_vec(), unread: None }.condense();
    let gist = of(payload);
    assert!(gist.weight() < 128 * 1024 && gist.command.as_deref() == Some("set"));
    assert!(gist.id.as_ref().is_none_or(|id| !id.is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX));
    match &gist.fault {
        Some(fault) => assert!(!fault.message.is_empty() && fault.message.len() < 1000, "{}", fault.message),
        None => {
            let again = of(json!({ "value": gist.value, "messageId": gist.id }).to_string().as_bytes());
            assert_eq!((again.id, again.digest), (gist.id, gist.digest));
        }
    }
}

/// Any that can be configured.
fn form(source: &mut Source) -> Form {
    match source.u8() {
        0..=127 => Form::default(),
        flags => {
            let (command_field, value_field) = (source.text(20), source.text(20));
            let differ = command_field != value_field;
            let value_field = if differ { value_field } else { format!("{value_field}-") };
            Form { default_command: (flags & 1 == 1).then(|| "usual".to_owned()), command_field, value_field }
        }
    }
}

fn is_order_or_fault(message: &Message, form: &Form) {
    let judged = message.order(form);
    assert_eq!(judged, message.order(form));
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
fn what_is_kept_is_small_and_the_same(message: &Message, form: &Form) {
    let gist = message.clone().condense(form);
    assert_eq!((gist.digest, gist.id.as_deref()), (message.digest(), message.ledger_id()));
    assert!(gist.weight() < 128 * 1024);
    let Envelope { correlation_id, sequence_number, .. } = &gist.envelope;
    let (kept, whole) = (correlation_id.as_deref().unwrap_or_default(), message.correlation_id.as_deref());
    assert!(whole.unwrap_or_default().starts_with(kept) && kept.len() <= MESSAGE_ID_BYTES_MAX);
    assert!(gist.fault.is_some() || correlation_id.as_deref() == whole);
    assert!(sequence_number.is_none_or(|number| Some(number) == message.sequence_number));
    match (gist.fault, message.order(form)) {
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
    // The id is no part of it: a redelivery is found by both. Nor is how its bytes are to be read.
    let bare = Message { id: None, correlation_id: None, content_encoding: None, ..message.clone() };
    assert_eq!(digest, bare.digest());
}

fn an_order_is_read_as_it_was_written(message: &Message, form: &Form) {
    let Ok(value) = serde_json::from_slice::<Json>(&message.body) else { return };
    let name = message.command.clone().unwrap_or_else(|| "set-speed".into());
    if name.len() > COMMAND_BYTES_MAX || message.body.len() > BODY_BYTES_MAX / 8 {
        return;
    }
    let expected = Ok(Order { command: name.clone(), value: Some(value.clone()) });
    let mut fields = serde_json::Map::from_iter([("a note".to_owned(), json!(1))]);
    fields.insert(form.command_field.clone(), name.clone().into());
    fields.insert(form.value_field.clone(), value);
    let text = Json::Object(fields).to_string();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let four: Vec<u8> = text.chars().flat_map(|char| u32::from(char).to_le_bytes()).collect();
    for (body, encoding) in [(text.into_bytes(), None), (wide, Some("utf-16be")), (four, Some("utf-32"))] {
        let content_encoding = encoding.map(str::to_owned);
        let alone = Message { body, content_encoding, ..Message::default() };
        if alone.body.len() > BODY_BYTES_MAX {
            continue;
        }
        assert_eq!(alone.order(form), expected);
        let beside = Message { command: Some(name.clone()), ..alone };
        assert_eq!(beside.order(form), expected);
    }
}
