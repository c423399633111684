//! The endpoint at which the back end reads what devices have sent: an event hub with partitions, at the hub's own
//! address. No I/O.
//!
//! Sources: "Read device-to-cloud messages from the built-in endpoint" (Microsoft), and its SDKs for event hubs.
//!
//! - What a device sends is in one partition, in order.
//! - A reader has its place for itself: nothing is taken out, and each begins where its filter says.

use serde_amqp::primitives::{Array, OrderedMap, Symbol};
use serde_amqp::Value;

use super::message::{reply, section, Received};
use crate::amqp::types::messaging::annotations::OwnedKey;
use crate::amqp::types::messaging::{
    ApplicationProperties, Data, FilterSet, MessageAnnotations, MessageId, Properties,
};
use crate::amqp::types::primitives::SimpleValue;
use crate::demo::hub::auth::EVENTS_NAME;
use crate::demo::hub::message::D2c;
use crate::demo::hub::state::State;
use crate::demo::hub::wire::Ring;

/// Two are enough to show who reads only one.
const PARTITIONS: usize = 2;
const FILTER: &str = "apache.org:selector-filter:string";

/// The partition in `{name}/ConsumerGroups/{group}/Partitions/{partition}`, in lower case.
pub(super) fn partition(path: &str) -> Option<usize> {
    let mut parts = path.strip_prefix(EVENTS_NAME)?.strip_prefix("/consumergroups/")?.split('/');
    let (_group, word, number) = (parts.next()?, parts.next()?, parts.next()?);
    let number = number.parse().ok().filter(|number| *number < PARTITIONS)?;
    (word == "partitions" && parts.next().is_none()).then_some(number)
}

fn partition_of(device: &str) -> usize {
    device.bytes().map(usize::from).sum::<usize>() % PARTITIONS
}

/// The number of the first event that a reader with this filter wants; without one, every event.
pub(super) fn start(filter: Option<&FilterSet>, telemetry: &Ring<D2c>) -> Option<u64> {
    let Some(value) = filter.and_then(|filter| filter.get(&Symbol::from(FILTER))) else { return Some(0) };
    let text = match value {
        Value::Described(described) => &described.value,
        other => other,
    };
    let Value::String(text) = text else { return None };
    // amqp.annotation.x-opt-offset > '17'
    let mut words = text.split_ascii_whitespace();
    let (name, operator, position) = (words.next()?, words.next()?, words.next()?.trim_matches('\''));
    let behind = match operator {
        ">" => 1,
        ">=" => 0,
        _ => return None,
    };
    match (name.strip_prefix("amqp.annotation.")?, position) {
        ("x-opt-offset", "-1") => Some(0),
        ("x-opt-offset", "@latest") => Some(telemetry.end()),
        ("x-opt-offset" | "x-opt-sequence-number", number) => Some(number.parse::<u64>().ok()? + behind),
        ("x-opt-enqueued-time", millis) => {
            let since = millis.parse::<i64>().ok()? + i64::try_from(behind).ok()?;
            let first = telemetry.from(0).find(|(_, event)| event.at.0 >= since);
            Some(first.map_or(telemetry.end(), |(number, _)| number))
        }
        _ => None,
    }
}

impl State {
    /// The next event of a partition for a reader who has come to this number.
    pub fn next_event(&self, partition: usize, from: u64) -> Option<(u64, &D2c)> {
        self.telemetry.from(from).find(|(_, event)| partition_of(&event.device) == partition)
    }
}

/// An event as a reader gets it.
pub(super) fn message(number: u64, event: &D2c) -> Vec<u8> {
    let mut bytes = Vec::new();
    let at = Value::Timestamp(event.at.0.into());
    let annotations = [
        ("x-opt-sequence-number", Value::Long(signed(number))),
        ("x-opt-offset", Value::String(number.to_string())),
        ("x-opt-enqueued-time", at.clone()),
        ("iothub-connection-device-id", Value::String(event.device.clone())),
        ("iothub-enqueuedtime", at),
        ("iothub-message-source", Value::String("Telemetry".into())),
    ];
    let annotations: OrderedMap<OwnedKey, Value> =
        annotations.into_iter().map(|(name, value)| (OwnedKey::from(name), value)).collect();
    section(&mut bytes, &MessageAnnotations(annotations));
    let text = |name: &str| event.property(name).map(str::to_owned);
    let properties = Properties {
        message_id: text("$.mid").map(MessageId::String),
        user_id: text("$.uid").map(|user| user.into_bytes().into()),
        to: Some(format!("/devices/{}/messages/events", event.device)),
        correlation_id: text("$.cid").map(MessageId::String),
        content_type: text("$.ct").map(Symbol::from),
        content_encoding: text("$.ce").map(Symbol::from),
        ..Properties::default()
    };
    section(&mut bytes, &properties);
    let own = event.properties.iter().filter(|(name, _)| !name.starts_with("$."));
    let simple = |value: &Option<String>| value.clone().map_or(SimpleValue::Null, SimpleValue::String);
    let own: OrderedMap<String, SimpleValue> = own.map(|(name, value)| (name.clone(), simple(value))).collect();
    section(&mut bytes, &ApplicationProperties(own));
    section(&mut bytes, &Data(event.body.clone().into()));
    bytes
}

/// The answer to whoever asks what there is.
pub(super) fn described(state: &State, request: &Received) -> Vec<u8> {
    let is_known = request.application("name").is_some_and(|name| name.eq_ignore_ascii_case(EVENTS_NAME));
    let partition = request.application("partition").and_then(|number| number.parse().ok());
    let found = match (request.application("operation"), request.application("type")) {
        (Some("READ"), Some("com.microsoft:eventhub")) if is_known => Some(whole()),
        (Some("READ"), Some("com.microsoft:partition")) if is_known => {
            partition.filter(|number| *number < PARTITIONS).map(|number| part(state, number))
        }
        _ => None,
    };
    match found {
        Some(facts) => {
            let facts = facts.into_iter().map(|(name, value)| (Value::String(name.into()), value)).collect();
            reply(&request.properties, 200, "OK", Value::Map(facts))
        }
        None => reply(&request.properties, 404, "The messaging entity could not be found.", Value::Null),
    }
}

type Facts = Vec<(&'static str, Value)>;

fn whole() -> Facts {
    let ids: Vec<Value> = (0..PARTITIONS).map(|number| Value::String(number.to_string())).collect();
    vec![
        ("name", Value::String(EVENTS_NAME.into())),
        ("type", Value::String("com.microsoft:eventhub".into())),
        ("created_at", Value::Timestamp(0.into())),
        ("partition_count", Value::Int(i32::try_from(PARTITIONS).expect("they are few"))),
        ("partition_ids", Value::Array(Array::from(ids))),
    ]
}

fn part(state: &State, partition: usize) -> Facts {
    let own = || state.telemetry.from(0).filter(|(_, event)| partition_of(&event.device) == partition);
    let last = own().last();
    let number = last.map_or(0, |(number, _)| number);
    vec![
        ("name", Value::String(EVENTS_NAME.into())),
        ("type", Value::String("com.microsoft:partition".into())),
        ("partition", Value::String(partition.to_string())),
        ("begin_sequence_number", Value::Long(own().next().map_or(0, |(number, _)| signed(number)))),
        ("last_enqueued_sequence_number", Value::Long(last.map_or(-1, |(number, _)| signed(number)))),
        ("last_enqueued_offset", Value::String(number.to_string())),
        ("last_enqueued_time_utc", Value::Timestamp(last.map_or(0, |(_, event)| event.at.0).into())),
        ("is_partition_empty", Value::Bool(last.is_none())),
    ]
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("so many events are never sent")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn telemetry() -> Ring<D2c> {
        let mut ring = Ring::new();
        for at in [1000, 2000, 3000] {
            let (device, body) = ("d".to_owned(), Vec::new());
            ring.push(D2c { device, connection: 1, properties: Vec::new(), body, at: Timestamp(at) });
        }
        ring
    }

    #[test]
    fn a_reader_begins_where_its_filter_says() {
        let begun = |text: &str| {
            let filter = FilterSet::from_iter([(Symbol::from(FILTER), Value::String(text.into()))]);
            start(Some(&filter), &telemetry())
        };
        assert_eq!(start(None, &telemetry()), Some(0));
        assert_eq!(begun("amqp.annotation.x-opt-offset > '-1'"), Some(0));
        assert_eq!(begun("amqp.annotation.x-opt-offset > '@latest'"), Some(3));
        assert_eq!(begun("amqp.annotation.x-opt-offset > '1'"), Some(2));
        assert_eq!(begun("amqp.annotation.x-opt-sequence-number >= '1'"), Some(1));
        assert_eq!(begun("amqp.annotation.x-opt-enqueued-time > '1000'"), Some(1));
        assert_eq!(begun("amqp.annotation.x-opt-enqueued-time > '9000'"), Some(3));
        for wrong in ["", "x", "amqp.annotation.x-opt-offset = '1'", "amqp.annotation.x-opt-colour > '1'"] {
            assert_eq!(begun(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_partition_is_known_by_its_path() {
        assert_eq!(partition("fieldbridge-events/consumergroups/$default/partitions/1"), Some(1));
        for wrong in
            ["fieldbridge-events/consumergroups/$default/partitions/2", "fieldbridge-events", "messages/events"]
        {
            assert_eq!(partition(wrong), None, "{wrong}");
        }
    }
}
