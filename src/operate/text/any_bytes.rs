//! What must hold for anything that a person is shown.

use serde_json::{json, Value as Json};

use super::{Columns, Page};
use crate::command::outcome::{Code, Fault, State};
use crate::command::Envelope;
use crate::health::snapshot::{self, Snapshot};
use crate::ledger::explanation::Around;
use crate::ledger::row::Resolution;
use crate::ledger::row::{Record, RowId, Source as Asker};
use crate::operate::attention;
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
        resolved: source.flag().then(|| Resolution {
            at: Timestamp(source.u64() as i64),
            by: source.text(20),
            note: source.flag().then(|| source.text(40)),
        }),
        history: vec![json!({ "at": source.text(20), "event": source.text(20), "detail": source.text(40) })],
    };
    is_lines(&super::row(&record), 14 + usize::from(record.resolved.is_some()));
    is_lines(&super::rows(&[record.clone(), record.clone()], Columns::default(), Page::default()), 3);
    is_lines(&super::csv(&record), 1);
    for (at, what) in super::story(&record, &Around::default()) {
        is_lines(&format!("{} {what}", at.unwrap_or_default()), 1);
    }
    assert_eq!(record.to_json().to_string().lines().count(), 1);
    let rest = source.rest();
    let document = serde_json::from_slice::<Json>(rest).unwrap_or_else(|_| String::from_utf8_lossy(rest).into());
    let text = super::result(&json!({ "status": document, "value": document }));
    assert!(!text.contains(super::steers), "{text:?}");
    let text = super::error(&json!({ "error": { "code": document, "message": document } }));
    assert!(!text.contains(super::steers), "{text:?}");
    is_status(&document.to_string(), &String::from_utf8_lossy(rest));
}

/// Of a daemon that says these texts wherever one can stand. Nothing that steers gives another picture than a space in
/// its place.
fn is_status(text: &str, error: &str) {
    let picture = |text: &str, error: &str| {
        let (text, error) = (text.to_owned(), error.to_owned());
        let device = snapshot::Device { id: text.clone(), last_error: Some(error.clone()), ..Default::default() };
        let bus = snapshot::Bus { name: error.clone(), last_error: Some(text.clone()), ..Default::default() };
        let mut status = Snapshot {
            version: text.clone(),
            hub: snapshot::Hub { host: error.clone(), ..Default::default() },
            configuration: snapshot::Configuration { last_error: Some(error.clone()), ..Default::default() },
            clock: snapshot::Clock { last_error: Some(text), ..Default::default() },
            ledger: snapshot::Ledger { last_error: Some(error), ..Default::default() },
            devices: vec![device],
            buses: vec![bus],
            ..Default::default()
        };
        status.attention = attention::of(&status);
        super::status(&status, Page::default())
    };
    let shown = picture(text, error);
    assert_eq!(shown.lines().count(), picture(&super::printable(text), &super::printable(error)).lines().count());
    assert!(shown.lines().all(|line| !line.contains(super::steers)), "{shown:?}");
}

fn is_lines(text: &str, count: usize) {
    assert_eq!(text.lines().count(), count, "{text:?}");
    assert!(text.lines().all(|line| !line.contains(super::steers)), "{text:?}");
}
