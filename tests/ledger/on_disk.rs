//! The ledger on a real disk: what is durable, what is refused, what a full disk does. Proves G2, G7, G9 and G10 as
//! far as they are the ledger's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support;
use crate::support::disk::SmallDisk;
use crate::support::rows::{reset, HUB};
use fieldbridge::command::decide::Known;
use fieldbridge::command::outcome::{Code, Fault, Outcome, State};
use fieldbridge::ledger::row::Source;
use fieldbridge::ledger::{Finish, Ledger, LedgerError, NewRow, Reader};
use fieldbridge::time::Timestamp;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

const DAY: Duration = Duration::from_secs(86_400);

/// A new ledger, the way to it, and its folder, which goes when that is dropped.
fn fresh() -> (TempDir, PathBuf, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    (folder, path, ledger)
}

fn message(id: Option<&str>, body: u8) -> NewRow {
    NewRow { digest: [body; 32], value: Some(json!(7)), ..reset(id) }
}

fn finish(new: NewRow) -> Finish {
    Finish {
        row: None,
        new,
        outcome: Outcome::succeeded(Some(json!(7))),
        attempts: 1,
        finished_at: Timestamp(1_800_000_000_500),
    }
}

async fn known(ledger: &Ledger, id: &str, body: u8) -> Known {
    ledger.lookup(HUB, "pump", Some(id), [body; 32]).await.unwrap().known
}

#[tokio::test]
async fn an_outcome_and_its_event_are_there_after_a_restart() {
    let (_folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("m-1"), 1))).await.unwrap();
    ledger.close().await;

    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    assert_eq!(known(&ledger, "m-1", 1).await, Known::Row(State::Succeeded));
    assert_eq!(known(&ledger, "m-1", 2).await, Known::OtherBody);
    assert_eq!(known(&ledger, "M-1", 1).await, Known::New, "message ids are compared byte by byte");
    let events = ledger.events("pump", 0, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    let body: serde_json::Value = serde_json::from_str(&events[0].body).unwrap();
    assert_eq!(
        body,
        json!({"messageId": "m-1", "command": "reset", "requested": 7, "status": "succeeded", "value": 7, "attempts": 1,
               "receivedAt": "2027-01-15T08:00:00.000Z", "finishedAt": "2027-01-15T08:00:00.500Z"})
    );
    ledger.close().await;
}

#[tokio::test]
async fn an_event_has_the_same_id_however_often_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut ids = Vec::new();
    for round in 0..2 {
        let ledger = Ledger::open(&path, HUB, &[]).unwrap();
        if round == 0 {
            ledger.finish(finish(message(Some("m-1"), 1))).await.unwrap();
        }
        ids.push(ledger.events("pump", 0, 10).await.unwrap()[0].id.clone());
        ledger.close().await;
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn what_was_begun_is_found_unfinished_in_the_order_of_receipt() {
    let (_folder, path, ledger) = fresh();
    let (accepted, _receipt) = ledger.accept(message(Some("a"), 1)).await.unwrap();
    ledger.begin(None, message(Some("b"), 2)).await.unwrap();
    ledger.accept(message(Some("c"), 3)).await.unwrap();
    ledger.begin(Some(accepted), message(Some("a"), 1)).await.unwrap();
    ledger.close().await;

    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    let left: Vec<_> = ledger
        .unfinished(None)
        .await
        .unwrap()
        .into_iter()
        .map(|left| (left.message_id.unwrap(), left.state, left.attempts, left.value))
        .collect();
    let value = || Some(json!(7));
    assert_eq!(
        left,
        [
            ("a".into(), State::Executing, 1, value()),
            ("b".into(), State::Executing, 1, value()),
            ("c".into(), State::Accepted, 0, value()),
        ]
    );
    ledger.close().await;
}

#[tokio::test]
async fn a_call_and_a_message_of_one_id_are_the_same_by_command_and_value_and_their_row_tells_the_event() {
    let (_folder, _path, ledger) = fresh();
    let call = |id, body, value| NewRow { source: Source::Method, value: Some(value), ..message(Some(id), body) };
    ledger.finish(finish(call("by-call", 1, json!(7)))).await.unwrap();
    ledger.finish(finish(message(Some("by-message"), 2))).await.unwrap();
    let refused = Outcome::ended(State::Rejected, Fault::new(Code::MessageIdReused, "because"));
    ledger.finish(Finish { outcome: refused, ..finish(call("by-call", 3, json!(8))) }).await.unwrap();
    let other_command = |new: NewRow| NewRow { command: Some("other".into()), ..new };
    for (asked, expected) in [
        (message(Some("by-call"), 9), Known::Row(State::Succeeded)),
        (call("by-message", 9, json!(7.0)), Known::Row(State::Succeeded)),
        (call("by-message", 9, json!(8)), Known::OtherBody),
        (other_command(call("by-message", 9, json!(7))), Known::OtherBody),
        // Among themselves their bytes decide, or what a call's digest is of.
        (message(Some("by-message"), 9), Known::OtherBody),
        (call("by-call", 9, json!(7)), Known::OtherBody),
        // What was refused under the id of another is no command's.
        (NewRow { value: Some(json!(8)), ..message(Some("by-call"), 9) }, Known::OtherBody),
        (message(Some("new"), 9), Known::New),
    ] {
        assert_eq!(ledger.find(&asked).await.unwrap().known, expected, "{asked:?}");
    }
    let row = ledger.find(&message(Some("by-call"), 9)).await.unwrap().row.unwrap();
    let (outcome, event) = ledger.record(row).await.unwrap().and_then(|record| record.end()).unwrap();
    let told = ledger.events("pump", 0, 1).await.unwrap().remove(0);
    assert_eq!((outcome.state, serde_json::from_str(&told.body).ok()), (State::Succeeded, Some(event)));
    ledger.close().await;
}

#[tokio::test]
async fn messages_without_an_id_are_never_taken_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.db"), HUB, &[]).unwrap();
    for _ in 0..2 {
        assert_eq!(ledger.lookup(HUB, "pump", None, [1; 32]).await.unwrap().known, Known::New);
        ledger.finish(finish(message(None, 1))).await.unwrap();
    }
    assert_eq!(ledger.counts().await.unwrap(), (2, 2));
    ledger.close().await;
}

#[tokio::test]
async fn the_same_id_with_another_body_gets_a_row_of_its_own_once() {
    let (_folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("m"), 1))).await.unwrap();
    let rejected = Outcome::ended(State::Rejected, Fault::new(Code::MessageIdReused, "reused"));
    ledger.finish(Finish { outcome: rejected, attempts: 0, ..finish(message(Some("m"), 2)) }).await.unwrap();
    assert_eq!(known(&ledger, "m", 1).await, Known::Row(State::Succeeded));
    assert_eq!(known(&ledger, "m", 2).await, Known::Row(State::Rejected));
    assert_eq!(known(&ledger, "m", 3).await, Known::OtherBody);
    let shown = Reader::open(&path).unwrap().show("pump", "m").unwrap().unwrap();
    assert_eq!(shown.state, State::Succeeded, "the first message is the one under this id");
    ledger.close().await;
}

#[tokio::test]
async fn redeliveries_are_counted_and_seen_beside_the_running_daemon() {
    let (_folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("m"), 1))).await.unwrap();
    let row = ledger.lookup(HUB, "pump", Some("m"), [1; 32]).await.unwrap().row.unwrap();
    let _receipt = ledger.delivered_again(row);
    // A later write takes the note along.
    ledger.finish(finish(message(Some("n"), 1))).await.unwrap();
    let record = Reader::open(&path).unwrap().show("pump", "m").unwrap().unwrap();
    assert_eq!(record.deliveries, 2);
    let events: Vec<_> = record.history.iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["received", "succeeded", "delivered-again"]);
    ledger.close().await;
}

#[tokio::test]
async fn rows_are_kept_for_the_retention_time_whatever_the_wall_clock_said() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.db"), HUB, &[]).unwrap();
    // Received when the clock stood in 1970, and in a far future.
    for (id, received_at) in [("past", Timestamp(0)), ("future", Timestamp(32_503_680_000_000))] {
        ledger.finish(finish(NewRow { received_at, ..message(Some(id), 1) })).await.unwrap();
    }
    ledger.prune(2 * DAY).await;
    for id in ["past", "future"] {
        assert_eq!(known(&ledger, id, 1).await, Known::Row(State::Succeeded), "{id}");
    }
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn only_final_rows_that_were_not_delivered_for_the_retention_time_are_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.db"), HUB, &[]).unwrap();
    for id in ["old", "seen-again"] {
        ledger.finish(finish(message(Some(id), 1))).await.unwrap();
    }
    ledger.accept(message(Some("unfinished"), 1)).await.unwrap();
    tokio::time::advance(2 * DAY - Duration::from_secs(10)).await;
    let row = ledger.lookup(HUB, "pump", Some("seen-again"), [1; 32]).await.unwrap().row.unwrap();
    let _receipt = ledger.delivered_again(row);
    ledger.prune(2 * DAY).await;
    assert_eq!(known(&ledger, "old", 1).await, Known::Row(State::Succeeded), "too early");

    tokio::time::advance(Duration::from_secs(20)).await;
    ledger.prune(2 * DAY).await;
    assert_eq!(known(&ledger, "old", 1).await, Known::New);
    assert_eq!(known(&ledger, "seen-again", 1).await, Known::Row(State::Succeeded));
    assert_eq!(known(&ledger, "unfinished", 1).await, Known::Row(State::Accepted));
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_ledgers_age_goes_on_where_it_stood_and_never_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    for round in 0..3 {
        let ledger = Ledger::open(&path, HUB, &[]).unwrap();
        if round == 0 {
            ledger.finish(finish(message(Some("m"), 1))).await.unwrap();
        }
        tokio::time::advance(DAY).await;
        ledger.prune(2 * DAY + Duration::from_secs(60)).await;
        let expected = if round < 2 { Known::Row(State::Succeeded) } else { Known::New };
        assert_eq!(known(&ledger, "m", 1).await, expected, "after day {}", round + 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        ledger.close().await;
    }
}

fn refusal(path: &Path) -> String {
    match Ledger::open(path, HUB, &[]) {
        Err(error @ (LedgerError::Untrusted { .. } | LedgerError::InUse(_))) => error.to_string(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

/// A file of version 0.1.0, and of the one before it, with a final row, an unfinished one and an event.
fn old(path: &Path, version: usize) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(&support::old_ledger::schema(version)).unwrap();
    db.execute_batch(
        "INSERT INTO ledger (one, uuid, age, ended_well) VALUES (1, 'abc', 1000, 1);
         INSERT INTO command (id, device, message_id, digest, name, state, attempts, deliveries, received_at, finished_at,
            value, seen, history)
         VALUES (7, 'pump', 'm-1', zeroblob(32), 'reset', 'succeeded', 1, 1, 1800000000000, 1800000000500, '7', 900, '');
         INSERT INTO command (id, device, message_id, digest, name, state, attempts, deliveries, received_at, input, seen,
            history)
         VALUES (9, 'pump', 'm-2', zeroblob(32), 'reset', 'executing', 1, 1, 1800000000000, '7', 1200, '');
         INSERT INTO outbox (seq, device, message_id, body) VALUES (5, 'pump', 'm-1', '{}')",
    )
    .unwrap();
    db.close().unwrap();
}

#[tokio::test]
async fn a_ledger_of_an_earlier_version_is_brought_up_to_date_and_its_rows_belong_to_the_hub_that_is_configured() {
    for version in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        old(&path, version);
        let ledger = Ledger::open(&path, HUB, &[]).unwrap();
        let look = |hub, id| ledger.lookup(hub, "pump", Some(id), [0; 32]);
        assert_eq!(look(HUB, "m-1").await.unwrap().known, Known::Row(State::Succeeded));
        assert_eq!(look(HUB, "m-2").await.unwrap().known, Known::Row(State::Executing));
        assert_eq!(look("b.azure-devices.net", "m-1").await.unwrap().known, Known::New);
        assert_eq!(ledger.counts().await.unwrap(), (2, 1), "numbers that were skipped are not counted");
        assert!(!ledger.distrusts(HUB, "pump"), "it has seen what it has seen");
        let left = ledger.unfinished(None).await.unwrap();
        assert_eq!((left.len(), &left[0].hub, &left[0].value), (1, &HUB.to_owned(), &Some(json!(7))));
        let outcome = Outcome::succeeded(None);
        let end = Finish { row: Some(left[0].row), outcome, ..finish(message(Some("m-2"), 0)) };
        ledger.finish(end).await.unwrap();
        assert_eq!(ledger.counts().await.unwrap(), (2, 2));
        let record = Reader::open(&path).unwrap().show("pump", "m-2").unwrap().unwrap();
        assert_eq!((record.requested, record.row.number()), (Some(json!(7)), 9));
        assert_eq!(ledger.wall_clock().seen(), Timestamp(0), "nothing was seen yet");
        let now = ledger.wall_clock().now().expect("this machine's clock is right");
        assert_eq!(ledger.wall_clock().seen(), Timestamp(0), "a clock is no witness of itself");
        ledger.wall_clock().hub_agrees(now);
        ledger.close().await;
        let ledger = Ledger::open(&path, HUB, &[]).unwrap();
        assert!(ledger.wall_clock().seen() >= now);
        ledger.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_message_from_another_hub_is_new_and_told_of_while_one_hub_may_have_two_names() {
    const OTHER: &str = "b.azure-devices.net";
    let (_folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("m"), 1))).await.unwrap();
    let rejected = Outcome::ended(State::Rejected, Fault::new(Code::OutOfRange, "too much"));
    let elsewhere = NewRow { hub: "c.azure-devices.net".into(), ..message(Some("m"), 1) };
    ledger.finish(Finish { outcome: rejected, ..finish(elsewhere) }).await.unwrap();
    let look = |ledger: &Ledger, hub| {
        let ledger = ledger.clone();
        async move { ledger.lookup(hub, "pump", Some("m"), [1; 32]).await.unwrap() }
    };
    let found = look(&ledger, OTHER).await;
    assert_eq!((found.known, found.row, found.elsewhere), (Known::New, None, Some(State::Succeeded)), "{found:?}");
    assert_eq!(ledger.lookup(OTHER, "pump", Some("m"), [2; 32]).await.unwrap().elsewhere, None, "another body");
    assert_eq!(look(&ledger, HUB).await.known, Known::Row(State::Succeeded));
    ledger.close().await;

    // The gateway is moved. What came before the move may come again for two days.
    let ledger = Ledger::open(&path, OTHER, &[]).unwrap();
    tokio::time::advance(2 * DAY - Duration::from_secs(10)).await;
    assert_eq!(look(&ledger, OTHER).await.elsewhere, Some(State::Succeeded));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(look(&ledger, OTHER).await.elsewhere, None);
    ledger.finish(finish(NewRow { hub: OTHER.into(), ..message(Some("m"), 1) })).await.unwrap();
    assert_eq!(look(&ledger, OTHER).await.known, Known::Row(State::Succeeded));
    assert_eq!(look(&ledger, HUB).await.known, Known::Row(State::Succeeded), "each hub's row is its own");
    ledger.close().await;
}

#[tokio::test]
async fn a_row_keeps_what_was_asked_for_and_who_asked() {
    let (_folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("m"), 1))).await.unwrap();
    let source = Source::Local { user: "anna".into() };
    let local = NewRow { source, received_at: Timestamp::UNKNOWN, ..message(None, 1) };
    let row = ledger.begin(None, local.clone()).await.unwrap();
    ledger.finish(Finish { row: Some(row), ..finish(local) }).await.unwrap();
    assert_eq!(ledger.counts().await.unwrap(), (2, 1), "a local operator was answered: there is no event");
    let reader = Reader::open(&path).unwrap();
    let shown = reader.show_row(row.number()).unwrap().unwrap().to_json();
    for (key, expected) in [
        ("row", json!(2)),
        ("hub", json!(HUB)),
        ("messageId", json!(null)),
        ("source", json!("local")),
        ("user", json!("anna")),
        ("requested", json!(7)),
        ("receivedAt", json!(null)),
    ] {
        assert_eq!(shown[key], expected, "{key}");
    }
    let shown = reader.show("pump", "m").unwrap().unwrap().to_json();
    assert_eq!((&shown["source"], &shown["user"], &shown["requested"]), (&json!("hub"), &json!(null), &json!(7)));
    assert!(reader.show_row(3).unwrap().is_none());
    ledger.close().await;
}

#[tokio::test]
async fn a_new_ledger_distrusts_what_it_does_not_know_until_that_is_over_for_a_device() {
    let (_folder, path, ledger) = fresh();
    assert!(ledger.distrusts(HUB, "pump"));
    ledger.wall_clock().hub_agrees(Timestamp::now());
    let epoch = ledger.epoch().expect("this machine's clock is right");
    ledger.trust_device(HUB, "pump").await.unwrap();
    let expect = |ledger: &Ledger| {
        assert!(!ledger.distrusts(HUB, "pump"));
        assert!(ledger.distrusts(HUB, "valve"));
        assert!(ledger.distrusts("b.azure-devices.net", "pump"));
    };
    expect(&ledger);
    ledger.close().await;
    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    expect(&ledger);
    assert_eq!(ledger.epoch(), Some(epoch), "it does not begin anew");
    ledger.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_sound_ledger_is_refused_and_left_as_it_is() {
    let (_folder, path, ledger) = fresh();
    for i in 0..200 {
        ledger.finish(finish(message(Some(&format!("m-{i}")), 1))).await.unwrap();
    }
    ledger.close().await;
    let sound = std::fs::read(&path).unwrap();

    let mut torn = sound.clone();
    let middle = torn.len() / 2;
    torn[middle..middle + 4096].fill(0xa5);
    let cut = sound[..sound.len() / 2].to_vec();
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99u32.to_be_bytes()); // user_version
    let mut foreign = sound.clone();
    foreign[68..72].fill(0); // application_id
    let cases = [
        ("torn in the middle", torn, "damaged"),
        ("cut short", cut, "damaged"),
        ("of a newer version", newer, "newer fieldbridge"),
        ("another program's", foreign, "not a fieldbridge ledger"),
        ("no database", b"hello, this is not a database at all".repeat(100), "damaged"),
        ("empty", Vec::new(), "empty"),
    ];
    for (what, bytes, expected) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let why = refusal(&path);
        assert!(why.contains(expected), "{what}: {why}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: the file was changed");
    }
    std::fs::write(&path, &sound).unwrap();
    Ledger::open(&path, HUB, &[]).unwrap().close().await;
}

#[tokio::test]
async fn a_ledger_whose_file_is_gone_but_whose_log_is_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    std::fs::write(folder.path().join("ledger.db-wal"), b"log").unwrap();
    assert!(refusal(&path).contains("moved or deleted"));
}

#[tokio::test]
async fn a_half_made_ledger_of_a_crash_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    std::fs::write(folder.path().join("ledger.db.new"), b"half").unwrap();
    Ledger::open(&path, HUB, &[]).unwrap().close().await;
}

#[test]
fn looking_at_a_ledger_that_is_not_there_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let result = Reader::open(&folder.path().join("ledger.db"));
    assert!(matches!(result, Err(LedgerError::Missing(_))));
}

#[tokio::test]
async fn a_full_disk_stops_intake_but_not_the_process_and_heals_by_itself() {
    let disk = SmallDisk::new("8m");
    let path = disk.path().join("ledger.db");
    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    let keeper = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.keep(watch::channel(7 * DAY).1).await }
    });
    ledger.finish(finish(message(Some("before"), 1))).await.unwrap();
    let filler = disk.fill();

    // The ballast is given up for the outcomes of what is on its way; sooner or later nothing fits any more.
    let mut recorded = Vec::new();
    let why = loop {
        assert!(recorded.len() < 100_000, "no disk of 8 MB holds so many");
        let id = format!("during-{}", recorded.len());
        match ledger.finish(finish(message(Some(&id), 1))).await {
            Ok(_) => recorded.push(id),
            Err(LedgerError::Full(why)) => break why,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(why.contains("full"), "{why}");
    assert!(!ledger.is_well(), "intake must have stopped");
    assert!(recorded.len() > 10, "the ballast took in only {} outcomes", recorded.len());

    std::fs::remove_file(filler).unwrap();
    tokio::time::timeout(Duration::from_secs(20), ledger.well()).await.expect("it heals when there is space");
    ledger.finish(finish(message(Some("after"), 1))).await.unwrap();
    for id in recorded.iter().map(String::as_str).chain(["before", "after"]) {
        assert_eq!(known(&ledger, id, 1).await, Known::Row(State::Succeeded), "{id}");
    }
    keeper.abort();
    ledger.close().await;
}

#[tokio::test]
async fn many_writers_share_commits_and_each_is_answered_after_its_own() {
    let (_folder, path, ledger) = fresh();
    let writers: Vec<_> = (0..100)
        .map(|i| {
            let (ledger, path) = (ledger.clone(), path.clone());
            tokio::spawn(async move {
                let id = format!("m-{i}");
                ledger.finish(finish(message(Some(&id), 1))).await.unwrap();
                // Another connection sees it: it was committed when the answer came.
                assert!(Reader::open(&path).unwrap().show("pump", &id).unwrap().is_some());
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    ledger.close().await;
}

#[tokio::test]
async fn a_second_daemon_is_refused_under_any_name_of_the_ledger() {
    let (folder, path, ledger) = fresh();
    let (symbolic, hard) = (folder.path().join("symbolic.db"), folder.path().join("hard.db"));
    std::os::unix::fs::symlink(&path, &symbolic).unwrap();
    assert!(refusal(&symbolic).contains("another fieldbridge daemon"));
    std::fs::hard_link(&path, &hard).unwrap();
    assert!(refusal(&hard).contains("another fieldbridge daemon"));
    ledger.close().await;
    assert!(refusal(&path).contains("hard link"), "even alone");
    std::fs::remove_file(hard).unwrap();
    Ledger::open(&symbolic, HUB, &[]).unwrap().close().await;
}

#[tokio::test]
async fn a_ledger_that_another_program_locks_is_waited_for_and_can_be_read() {
    let (folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("before"), 1))).await.unwrap();
    let keeper = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.keep(watch::channel(7 * DAY).1).await }
    });
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = ledger.finish(finish(message(Some("during"), 1))).await.unwrap_err();
    assert!(matches!(&error, LedgerError::Locked(why) if why.contains("another program")), "{error}");
    assert!(!ledger.is_well());
    assert!(folder.path().join("ledger.db.ballast").exists(), "the ballast is for a full disk");
    for _ in 0..3 {
        let read = tokio::time::timeout(Duration::from_secs(3), known(&ledger, "before", 1));
        assert_eq!(read.await.expect("reads go on"), Known::Row(State::Succeeded));
    }
    other.execute_batch("ROLLBACK").unwrap();
    tokio::time::timeout(Duration::from_secs(20), ledger.well()).await.expect("it heals when the lock is gone");
    ledger.finish(finish(message(Some("after"), 1))).await.unwrap();
    keeper.abort();
    ledger.close().await;
}

#[tokio::test]
async fn an_acknowledged_event_is_removed_however_much_the_writer_has_to_do() {
    let (_folder, path, ledger) = fresh();
    ledger.finish(finish(message(Some("m"), 1))).await.unwrap();
    let event = ledger.events("pump", 0, 1).await.unwrap().remove(0);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    // The writer waits for the lock, and more waits for the writer than its queue has places for.
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3000 {
        let ledger = ledger.clone();
        waiting.spawn(async move { known(&ledger, "m", 1).await });
    }
    let writer = ledger.clone();
    let write = tokio::spawn(async move { writer.finish(finish(message(Some("n"), 1))).await });
    tokio::task::yield_now().await;
    let acknowledging = ledger.clone();
    let acknowledge = tokio::spawn(async move { acknowledging.event_acknowledged(event.seq).await });
    tokio::task::yield_now().await;
    other.execute_batch("ROLLBACK").unwrap();
    write.await.unwrap().unwrap();
    acknowledge.await.unwrap();
    while let Some(found) = waiting.join_next().await {
        assert_eq!(found.unwrap(), Known::Row(State::Succeeded));
    }
    // What is noted shares the next commit.
    ledger.finish(finish(message(Some("o"), 1))).await.unwrap();
    assert_eq!(ledger.counts().await.unwrap(), (3, 2), "the events of n and o are left");
    ledger.close().await;
}
