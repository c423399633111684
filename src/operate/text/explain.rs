//! One command's story in plain words, with times: what the ledger knows of it, and nothing else.

use serde_json::Value as Json;

use super::{printable, status::age};
use crate::command::outcome::State;
use crate::ledger::explanation::Around;
use crate::ledger::row::{Record, Source};
use crate::time::Timestamp;

/// Commands that it waited behind, by name.
const BEHIND_MAX: usize = 3;

/// The story, a line each: when, if that is known, and what.
pub fn story(row: &Record, around: &Around) -> Vec<(Option<String>, String)> {
    let mut story = Vec::new();
    asked(row, &mut story);
    behind(around, &mut story);
    let is_end = |entry: &Json| State::from_name(text(entry, "event")).is_some_and(State::is_final);
    for entry in row.history.iter().filter(|entry| !matches!(text(entry, "event"), "received" | "settled")) {
        let at = entry["at"].as_str().map(str::to_owned);
        match text(entry, "event") {
            "accepted" if row.source == Source::Method => {
                story.push((at, "recorded as accepted, so that its end could be promised to who had called".into()));
            }
            "accepted" => story.push((at, "recorded as accepted: it is not lost any more".into())),
            "sent" => story.push((at, "its first byte went on the wire".into())),
            "executing" => {
                story.push((at, "recorded as about to go on the wire, as it must not be repeated".into()));
            }
            "delivered-again" if row.source == Source::Method => {
                let what = "called for again, or sent as a message; it was known, and not run again for that";
                story.push((at, what.into()));
            }
            "delivered-again" => {
                story.push((at, "the hub delivered it again; it was known, and not run again for that".into()));
            }
            "resolved" => story.push((at, format!("looked at {}", text(entry, "detail")))),
            _ if is_end(entry) => end(row, at, &mut story),
            other => story.push((at, format!("{other} {}", text(entry, "detail")).trim().to_owned())),
        }
    }
    settled(row, &mut story);
    if !row.state.is_final() {
        let what = match row.state {
            State::Accepted => "it waits for its turn",
            _ => "it may be on the wire now, or was when the daemon ended last",
        };
        story.push((None, what.into()));
    } else if !matches!(row.source, Source::Local { .. }) {
        let what = match around.event_waits {
            true => "that the hub has its result event is not noted yet",
            false => "the hub has its result event",
        };
        story.push((None, what.into()));
    }
    story.into_iter().map(|(at, what)| (at.map(|at| printable(&at)), printable(&what))).collect()
}

fn text<'a>(entry: &'a Json, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

fn has(row: &Record, event: &str) -> bool {
    row.history.iter().any(|entry| text(entry, "event") == event)
}

/// When the hub was told what became of the message: recorded later, and told where it happened.
fn settled(row: &Record, story: &mut Vec<(Option<String>, String)>) {
    for entry in row.history.iter().filter(|entry| text(entry, "event") == "settled") {
        let at = entry["at"].as_str().map(str::to_owned);
        let then = match text(entry, "detail").starts_with("rejected") {
            true => "its sender can learn that it is refused",
            false => "it does not deliver it again",
        };
        let place = story.iter().position(|(other, _)| other.is_some() && at.is_some() && *other > at);
        let what = format!("the hub was told: {}; {then}", text(entry, "detail"));
        story.insert(place.unwrap_or(story.len()), (at, what));
    }
    if matches!(row.source, Source::Hub) && row.state.is_final() && !has(row, "settled") {
        let what =
            "when the hub was told of this is not noted: that follows within seconds, unless the daemon ended before";
        story.push((None, what.into()));
    }
}

/// Who asked for what, when that came.
fn asked(row: &Record, story: &mut Vec<(Option<String>, String)>) {
    if let Some(enqueued) = row.envelope.enqueued_at {
        let number = row.envelope.sequence_number.map(|number| format!(" as number {number}")).unwrap_or_default();
        story.push((Some(enqueued.to_string()), format!("the hub {} took it{number}", row.hub)));
    }
    let command = row.command.as_deref().unwrap_or("no command that could be read");
    let value = row.requested.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
    let from = match &row.source {
        Source::Hub => format!("from the hub {}", row.hub),
        Source::Method => format!("from the hub {}, by a direct method", row.hub),
        Source::Twin => format!("from the hub {}, by a desired property of the device's twin", row.hub),
        Source::Local { user } => format!("from {user}, at the gateway"),
    };
    let at = row.received_at.known().map(|at| at.to_string());
    story.push((at, format!("received {from}, for {}: {command}{value}", row.device)));
}

fn behind(around: &Around, story: &mut Vec<(Option<String>, String)>) {
    let Some(last) = around.behind.last() else { return };
    let named = around.behind.iter().rev().take(BEHIND_MAX);
    let named = named.map(|one| format!("row {} ({})", one.row.number(), one.command.as_deref().unwrap_or("-")));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = around.behind.len().saturating_sub(BEHIND_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = format!("its device was done with what came before it: {named}{more}");
    story.push((Some(last.finished_at.to_string()), what));
}

fn end(row: &Record, at: Option<String>, story: &mut Vec<(Option<String>, String)>) {
    let attempts = match row.attempts {
        0 => "nothing was sent".to_owned(),
        1 => "after one attempt on the wire".to_owned(),
        more => format!("after {more} attempts on the wire"),
    };
    if row.attempts > 0 && !has(row, "sent") && !has(row, "executing") {
        story.push((None, "when it went on the wire is not noted".into()));
    }
    let what = match row.state {
        State::Succeeded => format!("done, {attempts}: the peripheral confirmed"),
        State::Failed => format!("failed, {attempts}"),
        State::InDoubt => format!("in doubt, {attempts}: whether it was done is not known"),
        State::Rejected => "rejected: it can never be run".to_owned(),
        State::Expired => "expired: it did not reach the wire in time".to_owned(),
        other => other.to_string(),
    };
    let value = row.value.as_ref().map(|value| format!(", with the value {value}")).unwrap_or_default();
    let fault = row.fault.as_ref().map(|fault| format!(": {} ({})", fault.message, fault.code.as_str()));
    let took = row.received_at.known().zip(row.finished_at.and_then(Timestamp::known));
    let took = took.map(|(from, to)| to.since(from)).map(|took| match took.as_millis() {
        under @ 0..=9_999 => format!("; {under} ms after it came"),
        _ => format!("; {} after it came", age(took.as_secs())),
    });
    let recorded = "recorded with its result event, in one";
    let recorded = if matches!(row.source, Source::Local { .. }) { "recorded" } else { recorded };
    let (fault, took) = (fault.unwrap_or_default(), took.unwrap_or_default());
    story.push((at, format!("{what}{value}{fault}; {recorded}{took}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::outcome::{Code, Fault};
    use crate::command::Envelope;
    use crate::ledger::explanation::Behind;
    use crate::ledger::row::RowId;
    use serde_json::json;

    fn record() -> Record {
        Record {
            row: RowId::of(12),
            hub: "h.example".into(),
            source: Source::Hub,
            device: "pump-7".into(),
            message_id: Some("m-1".into()),
            command: Some("reset".into()),
            requested: Some(json!(5)),
            state: State::InDoubt,
            attempts: 1,
            deliveries: 2,
            received_at: Timestamp(1_800_000_000_000),
            finished_at: Some(Timestamp(1_800_000_002_500)),
            envelope: Envelope::default(),
            value: None,
            fault: Some(Fault::new(Code::Timeout, "unit 7 did not answer".to_owned())),
            resolved: None,
            history: [("received", 0), ("executing", 1), ("in_doubt", 2), ("delivered-again", 9)]
                .map(|(event, at)| json!({ "at": format!("T{at}"), "event": event }))
                .to_vec(),
        }
    }

    #[test]
    fn a_story_is_told_in_the_order_in_which_it_happened_and_says_only_what_is_known() {
        let behind =
            Behind { row: RowId::of(11), command: Some("set".into()), finished_at: Timestamp(1_800_000_001_000) };
        let around = Around { behind: vec![behind], event_waits: true };
        let told = |row: &Record, around: &Around| -> Vec<String> {
            let line = |(at, what): (Option<String>, String)| format!("{} {what}", at.unwrap_or_default());
            story(row, around).into_iter().map(line).collect()
        };
        assert_eq!(
            told(&record(), &around),
            [
                "2027-01-15T08:00:00.000Z received from the hub h.example, for pump-7: reset 5",
                "2027-01-15T08:00:01.000Z its device was done with what came before it: row 11 (set)",
                "T1 recorded as about to go on the wire, as it must not be repeated",
                "T2 in doubt, after one attempt on the wire: whether it was done is not known: unit 7 did not answer (timeout); \
                 recorded with its result event, in one; 2500 ms after it came",
                "T9 the hub delivered it again; it was known, and not run again for that",
                " when the hub was told of this is not noted: that follows within seconds, unless the daemon ended before",
                " that the hub has its result event is not noted yet",
            ]
        );
        // What is noted late is told where it belongs.
        let events = [("received", 0), ("sent", 1), ("succeeded", 2), ("delivered-again", 9)];
        let mut history = events.map(|(event, at)| json!({ "at": format!("T{at}"), "event": event })).to_vec();
        history.push(json!({ "at": "T3", "event": "settled", "detail": "completed by mqtt" }));
        let row = Record { state: State::Succeeded, fault: None, history, ..record() };
        assert_eq!(
            told(&row, &Around::default())[1..],
            [
                "T1 its first byte went on the wire",
                "T2 done, after one attempt on the wire: the peripheral confirmed; recorded with its result event, in one; \
                 2500 ms after it came",
                "T3 the hub was told: completed by mqtt; it does not deliver it again",
                "T9 the hub delivered it again; it was known, and not run again for that",
                " the hub has its result event",
            ]
        );
        let history = row.history.iter().filter(|entry| entry["event"] != "sent").cloned().collect();
        assert_eq!(told(&Record { history, ..row }, &Around::default())[1], " when it went on the wire is not noted");
        let row = Record {
            source: Source::Local { user: "pi".into() },
            received_at: Timestamp::UNKNOWN,
            state: State::Executing,
            history: vec![json!({ "at": null, "event": "received" })],
            ..record()
        };
        let called = Record {
            source: Source::Method,
            history: ["received", "accepted", "delivered-again"].map(|event| json!({ "event": event })).to_vec(),
            ..record()
        };
        assert_eq!(
            told(&called, &Around::default())[..3],
            [
                "2027-01-15T08:00:00.000Z received from the hub h.example, by a direct method, for pump-7: reset 5",
                " recorded as accepted, so that its end could be promised to who had called",
                " called for again, or sent as a message; it was known, and not run again for that",
            ]
        );
        let told = told(&row, &Around::default());
        assert_eq!(told[0], " received from pi, at the gateway, for pump-7: reset 5");
        assert_eq!(told[1..], [" it may be on the wire now, or was when the daemon ended last"]);
    }
}
