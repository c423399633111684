//! Feedback: the hub's records of what became of messages, and whose they are. Pure.
//!
//! A batch is one message of the hub's, with a list of records in it. There is one queue for the whole hub.

use serde_json::Value as Json;

/// A batch that was given back so often is not given back again: nobody takes it, and the hub throws away what comes
/// back too often (`feedback.maxDeliveryCount`, 10 unless it is set otherwise).
pub const RETURNS_MAX: u32 = 3;

/// Largest batch that is read, in bytes: 64 records of a few hundred.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The hub's record of the end of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Record(Json);

impl Record {
    /// As the hub says it.
    pub fn to_json(&self) -> &Json {
        &self.0
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Json::as_str)
    }

    /// The id of the message that it is of.
    pub fn message_id(&self) -> Option<&str> {
        self.text("originalMessageId")
    }

    /// The device that it was for.
    pub fn device(&self) -> Option<&str> {
        self.text("deviceId")
    }

    /// How it ended: `Success`, `Expired`, `DeliveryCountExceeded`, `Rejected`, `Purged`.
    pub fn status(&self) -> &str {
        self.text("statusCode").or_else(|| self.text("description")).unwrap_or("unknown")
    }

    /// Whether the device has completed it.
    pub fn is_success(&self) -> bool {
        self.status().eq_ignore_ascii_case("success")
    }
}

/// A batch of records.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What is in it.
    pub records: Vec<Record>,
    /// How often it was delivered before.
    pub returns: u32,
}

/// What is to become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is taken out of the queue.
    Complete,
    /// It goes back into the queue, and the hub counts that: after ten times, or as many as it is set to, it throws the
    /// batch away. It comes again at once to whoever listens; to this connection after the next
    /// [`next_batch`](super::Backend::next_batch).
    GiveBack,
    /// It stays locked, and comes again when its lock has run out, a minute unless the hub is set otherwise. That is
    /// not counted.
    Forget,
}

impl Batch {
    /// Reads a batch. What can't be read as a list of records is one that nobody knows.
    pub fn read(body: &[u8], returns: u32) -> Batch {
        let list = match body.len() <= BATCH_BYTES_MAX {
            true => serde_json::from_slice::<Json>(body).ok(),
            false => None,
        };
        let records = match list {
            Some(Json::Array(records)) => records.into_iter().map(Record).collect(),
            Some(one @ Json::Object(_)) => vec![Record(one)],
            _ => vec![Record(Json::String(String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned()))],
        };
        Batch { records, returns }
    }

    /// The record of a message to a device, if it is in here.
    pub fn record_of(&self, device: &str, message_id: &str) -> Option<&Record> {
        self.records.iter().find(|record| is_of(record, device, message_id))
    }

    /// What whoever waited for this message alone makes of it.
    pub fn end_for(&self, device: &str, message_id: &str) -> End {
        let is_own = self.records.iter().all(|record| is_of(record, device, message_id));
        match (is_own, self.returns < RETURNS_MAX) {
            (true, _) => End::Complete,
            (false, true) => End::GiveBack,
            (false, false) => End::Forget,
        }
    }

    /// Whether it goes round: given back again and again, as nobody takes it.
    pub fn goes_round(&self, device: &str, message_id: &str) -> bool {
        self.end_for(device, message_id) == End::Forget
    }
}

fn is_of(record: &Record, device: &str, message_id: &str) -> bool {
    record.message_id() == Some(message_id) && record.device().is_none_or(|of| of == device)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(id: &str, device: &str, status: &str) -> Json {
        json!({"originalMessageId": id, "deviceId": device, "statusCode": status, "description": status})
    }

    fn batch(records: &[Json], returns: u32) -> Batch {
        Batch::read(json!(records).to_string().as_bytes(), returns)
    }

    #[test]
    fn only_what_holds_nobody_elses_record_is_taken_out() {
        let own = record("m", "d", "Success");
        let foreign = record("n", "d", "Rejected");
        for (records, end) in [
            (vec![own.clone()], End::Complete),
            (vec![own.clone(), own.clone()], End::Complete),
            (vec![own.clone(), foreign.clone()], End::GiveBack),
            (vec![foreign.clone()], End::GiveBack),
            // The same id to another device.
            (vec![record("m", "e", "Success")], End::GiveBack),
        ] {
            assert_eq!(batch(&records, 0).end_for("d", "m"), end, "{records:?}");
        }
        let mixed = batch(&[foreign.clone(), own], 5);
        assert!(mixed.record_of("d", "m").unwrap().is_success());
        assert!(mixed.goes_round("d", "m") && !batch(std::slice::from_ref(&foreign), 2).goes_round("d", "m"));
        // The hub throws away what is given back too often.
        assert_eq!(batch(&[foreign], RETURNS_MAX).end_for("d", "m"), End::Forget);
    }

    #[test]
    fn what_is_no_list_of_records_is_kept_for_who_knows_it() {
        for body in [&b"not json"[..], b"", b"7", b"\xff\xfe", b"{\"x\":1}", b"[1,null,{}]"] {
            let read = Batch::read(body, 0);
            assert_eq!((read.record_of("d", "m"), read.end_for("d", "m")), (None, End::GiveBack), "{body:?}");
        }
        // An empty list is nobody's.
        assert_eq!(Batch::read(b"[]", 0).end_for("d", "m"), End::Complete);
    }
}
