//! What must hold for anything that a person is shown.

use serde_json::{json, Value as Json};

use crate::command::outcome::{Code, Fault, State};
use crate::command::Envelope;
use crate::health::snapshot::{self, Snapshot};
use crate::ledger::row::{Record, RowId, Source as Asker};
use crate::proof::bytes::Source;
use crate::time::Timestamp;

/// Whatever the cloud or a peripheral has said, what is printed of it steers no terminal and fakes no line.
pub fn show(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let fault = source.flag().then(|| Fault::new(*source.pick(&Code::ALL), source.text(80)));
    let record = Record {
        row: RowId::of(source.u64() as i64),
        hub: source.text(40),
        source: Asker::Local { user: source.text(20) },
        requested: source.flag().then(|| source.text(40).into()),
        device: source.text(40),
        message_id: source.flag().then(|| source.text(40)),
        command: source.flag().then(|| source.text(40)),
        state: *source.pick(&State::ALL),
        attempts: source.u16().into(),
        deliveries: source.u64() as i64,
        received_at: Timestamp(source.u64() as i64),
        finished_at: source.flag().then(|| Timestamp(source.u64() as i64)),
        envelope: Envelope {
            correlation_id: source.flag().then(|| source.text(40)),
            sequence_number: source.flag().then(|| source.u64()),
            enqueued_at: source.flag().then(|| Timestamp(source.u64() as i64)),
            delivery_count: source.flag().then(|| source.u16().into()),
        },
        value: source.flag().then(|| source.text(80).into()),
        fault,
        history: vec![json!({ "at": source.text(20), "event": source.text(20), "detail": source.text(40) })],
    };
    is_lines(&super::row(&record), 14);
    is_lines(&super::rows(&[record.clone(), record.clone()]), 3);
    assert_eq!(record.to_json().to_string().lines().count(), 1);
    let rest = source.rest();
    let document = serde_json::from_slice::<Json>(rest).unwrap_or_else(|_| String::from_utf8_lossy(rest).into());
    let text = super::result(&json!({ "status": document, "value": document }));
    assert!(!text.contains(super::steers), "{text:?}");
    let text = super::error(&json!({ "error": { "code": document, "message": document } }));
    assert!(!text.contains(super::steers), "{text:?}");
    let (text, error) = (document.to_string(), String::from_utf8_lossy(rest).into_owned());
    let device = snapshot::Device { id: text.clone(), last_error: Some(error.clone()), ..Default::default() };
    let bus = snapshot::Bus { name: error.clone(), kind: text.clone(), ..Default::default() };
    let status = Snapshot {
        version: text.clone(),
        hub: snapshot::Hub { host: error.clone(), ..Default::default() },
        configuration: snapshot::Configuration { ok: true, last_error: None },
        clock: snapshot::Clock { last_error: Some(text), ..Default::default() },
        ledger: snapshot::Ledger { last_error: Some(error), ..Default::default() },
        devices: vec![device],
        buses: vec![bus],
        ..Default::default()
    };
    is_lines(&super::status(&status), 12);
}

fn is_lines(text: &str, count: usize) {
    assert_eq!(text.lines().count(), count, "{text:?}");
    assert!(text.lines().all(|line| !line.contains(super::steers)), "{text:?}");
}
