//! What must hold for any bytes that the back end's half reads.

use base64::prelude::{Engine as _, BASE64_STANDARD};

use super::entra;
use super::feedback::{Batch, End, RETURNS_MAX};
use super::run::shown;
use super::who::Policy;
use crate::proof::bytes::{inserted, Source};

/// Stands in a secret, and nowhere else.
const CANARY: &str = "qZ7Jw2Kx9VtB5nYd8RmH3pLc6GfS4aEu";

/// A policy's connection string, a batch of feedback, and whatever answers in Entra's place are understood or refused
/// in a sentence, which repeats nothing of a secret; what was read is read again from what is written anew; nobody's
/// feedback is taken out of the queue but by whom it is for.
pub fn backend(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let (at, returns) = (source.u8(), source.u8() % 8);
    let rest = source.rest();
    let text = String::from_utf8_lossy(rest).into_owned();
    let with_canary = inserted(&text, usize::from(at), CANARY);
    for text in [&text, &with_canary] {
        a_policy(text);
    }
    feedback(rest, returns.into());
    entra::any_bytes::answers(rest, usize::from(at));
}

fn a_policy(text: &str) {
    match Policy::parse(text) {
        Err(why) => {
            assert!(!why.is_empty() && why.len() < 300 && why.contains("; "), "{why}");
            assert!(!why.contains(&CANARY[..6]), "{why}");
        }
        Ok(policy) => {
            let key = BASE64_STANDARD.encode(policy.key());
            let (host, name) = (&policy.host, &policy.name);
            assert!(!host.is_empty() && !name.is_empty() && !key.is_empty());
            let written = format!(" sharedaccesskey={key};SHAREDACCESSKEYNAME={name} ;; HostName = {host};\r\n");
            assert!(Policy::parse(&written).as_ref() == Ok(&policy), "{host} of {text:?}");
            let debug = format!("{policy:?}");
            assert!(key.len() < 16 || host.contains(&key) || name.contains(&key) || !debug.contains(&key), "{debug}");
        }
    }
}

fn feedback(body: &[u8], returns: u32) {
    let batch = Batch::read(body, returns);
    assert_eq!(batch, Batch::read(body, returns));
    let records: Vec<_> = batch.records.iter().map(|record| record.to_json().clone()).collect();
    let said: usize = records.iter().map(|record| record.to_string().len()).sum();
    // What is no JSON is kept in part, as a text in which each byte may become six.
    assert!(said <= 2 + 6 * body.len().max(16), "{said} of {}", body.len());
    if let Ok(serde_json::Value::Array(list)) = serde_json::from_slice(body) {
        assert_eq!(records, list);
        let again = serde_json::Value::from(list).to_string();
        assert_eq!(Batch::read(again.as_bytes(), returns), batch);
    } else {
        assert_eq!(records.len(), 1);
    }
    for record in &batch.records {
        let line = shown(record);
        assert!(!line.contains(char::is_control), "{line:?}");
        assert_eq!(record.is_success(), record.status().eq_ignore_ascii_case("success"));
    }
    let first = batch.records.first();
    let id = first.and_then(|record| record.message_id()).unwrap_or("m").to_owned();
    let device = first.and_then(|record| record.device()).unwrap_or("d").to_owned();
    for (device, id) in [(&*device, &*id), (&device, "another's"), ("another", &id)] {
        let is_own = |record: &super::feedback::Record| {
            record.message_id() == Some(id) && record.device().is_none_or(|of| of == device)
        };
        let end = batch.end_for(device, id);
        assert_eq!(end == End::Complete, batch.records.iter().all(is_own));
        assert_eq!(end == End::Forget, batch.goes_round(device, id));
        // The hub throws away what is given back too often.
        assert!(end != End::GiveBack || returns < RETURNS_MAX);
        assert_eq!(batch.record_of(device, id), batch.records.iter().find(|record| is_own(record)));
    }
}
