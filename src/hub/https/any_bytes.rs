//! What must hold for any bytes in an answer of the hub's.

use super::message::{is_of_the_hub, lock_of, message_of};
use crate::proof::bytes::Source;

const NAMES: [&str; 9] = [
    "iothub-messageid",
    "iothub-correlationid",
    "iothub-app-command",
    "iothub-expiry",
    "iothub-sequencenumber",
    "iothub-enqueuedtime",
    "iothub-deliverycount",
    "ContentEncoding",
    "iothub-app-note",
];

/// Any headers give a message with the body as it came; what was read of them is read again from headers written anew;
/// names count in any case, and only the first of each; a lock is never more than its tag.
pub fn https(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut headers: Vec<(Vec<u8>, &[u8])> = Vec::new();
    for _ in 0..source.within(0..=12) {
        let name = match source.flag() {
            true => source.pick(&NAMES).as_bytes(),
            false => source.piece(40),
        };
        let name = name.iter().map(|byte| if source.flag() { byte.to_ascii_uppercase() } else { *byte });
        let name = name.collect();
        headers.push((name, source.piece(80)));
    }
    let body = source.rest();
    let listed = |headers: &[(Vec<u8>, &[u8])]| {
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.clone(), value.to_vec())).collect();
        message_of(pairs.iter().map(|(name, value)| (&name[..], &value[..])), body.to_vec())
    };
    let message = listed(&headers);
    assert_eq!((&message.body[..], &message.malformed), (body, &None));
    assert!(message.unread_expiry.as_ref().is_none_or(|text| text.len() <= 60));
    assert!(message.expires_at.is_none() || message.unread_expiry.is_none());
    for text in [&message.id, &message.command, &message.correlation_id].into_iter().flatten() {
        assert!(!text.is_empty() && text.len() <= 240);
    }

    let lower: Vec<_> = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
    let twice: Vec<_> = lower.iter().chain(&lower).cloned().collect();
    assert_eq!((listed(&lower), listed(&twice)), (message.clone(), message.clone()));

    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let again = [
        ("iothub-messageid", message.id.clone()),
        ("iothub-app-command", message.command.clone()),
        ("iothub-correlationid", message.correlation_id.clone()),
        ("iothub-contentencoding", message.content_encoding.clone()),
        ("iothub-sequencenumber", number(message.sequence_number)),
        ("iothub-deliverycount", number(message.delivery_count.map(u64::from))),
    ];
    let again: Vec<_> =
        again.iter().filter_map(|(name, value)| Some((name.as_bytes(), value.as_ref()?.as_bytes()))).collect();
    let mut again = message_of(again, message.body.clone());
    // A time has several forms, and one that can't be read is cut.
    (again.expires_at, again.enqueued_at) = (message.expires_at, message.enqueued_at);
    again.unread_expiry = message.unread_expiry.clone();
    assert_eq!(again, message);

    for (name, value) in &headers {
        assert_eq!(is_of_the_hub(name), name.to_ascii_lowercase().starts_with(b"iothub-"));
        let etag = String::from_utf8_lossy(value);
        assert!(lock_of(&etag).is_none_or(|lock| !lock.is_empty() && etag.contains(lock)));
    }
}
