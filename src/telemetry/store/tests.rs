use serde_json::json;

use super::*;
use crate::telemetry::Kind;
use crate::time::Timestamp;

fn settings(folder: &std::path::Path) -> Settings {
    Settings::to_test(folder)
}

fn sample(at: i64, text: &str) -> Sample {
    Sample { at: Timestamp(at), clock_ok: true, readings: vec![("value".into(), Ok(json!(text)))] }
}

/// What comes next, once it is there.
async fn next(outlet: &mut Outlet) -> Batch {
    loop {
        match outlet.take() {
            Some(batch) => return batch,
            None => outlet.stirred().await,
        }
    }
}

/// Waits until it is so, but not for ever.
async fn becomes(what: &str, mut is_it: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_it() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} does not become true");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Has what waits written, and waits until it is.
async fn written(store: &Store) {
    store.0.shelf().close_due(Instant::now().into_std(), true);
    becomes("what waits is written", || {
        store.write();
        !store.0.shelf().has_to_write()
    })
    .await;
}

fn trouble(store: &Store) -> Option<String> {
    store.standing(|_| true)?.trouble
}

#[tokio::test]
async fn what_the_hub_did_not_acknowledge_is_there_in_the_next_life_under_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(settings(folder.path()));
    assert_eq!(store.standing(|_| true), None);
    store.begin(["pump"]);
    let (device, mut outlet) = (Arc::from("pump"), store.outlet("pump"));
    for at in 1..=3 {
        store.add(&device, &sample(at, "x"));
    }
    let first = next(&mut outlet).await;
    outlet.acknowledged(first.number);
    let second = next(&mut outlet).await;
    store.finish().await;
    drop((store, outlet));

    let store = Store::new(settings(folder.path()));
    let mut outlet = store.outlet("pump");
    store.begin(["pump"]);
    store.add(&device, &sample(9, "x"));
    let again = next(&mut outlet).await;
    assert_eq!((&again.id, &again.body, again.holds.first), (&second.id, &second.body, 2));
    outlet.acknowledged(again.number);
    let third = next(&mut outlet).await;
    outlet.acknowledged(third.number);
    let new = next(&mut outlet).await;
    outlet.acknowledged(new.number);
    assert_eq!((third.holds.first, new.holds.first), (3, 9));
    assert!(new.number > third.number && new.id != third.id);
    store.finish().await;
    let standing = store.standing(|_| true).unwrap();
    assert_eq!((standing.pending, standing.published, standing.lost), (0, 3, 0));
}

#[tokio::test]
async fn a_life_that_ended_without_a_word_is_told_of_by_the_next_and_one_that_stopped_in_order_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let device = Arc::from("pump");
    let mut kinds = Vec::new();
    for is_stopped in [false, true, true] {
        let store = Store::new(Settings::to_test(folder.path()));
        let mut outlet = store.outlet("pump");
        store.begin(["pump"]);
        store.add(&device, &sample(1, "x"));
        let mut before = Vec::new();
        while before.last() != Some(&Kind::Samples) {
            let batch = next(&mut outlet).await;
            outlet.acknowledged(batch.number);
            before.push(batch.kind);
        }
        kinds.push(before);
        if is_stopped {
            store.finish().await;
        }
        drop((store, outlet));
        // Its file is given up a moment later.
        let lock = std::fs::File::open(folder.path().join("telemetry.db.lock")).unwrap();
        while lock.try_lock().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(kinds, [vec![Kind::Samples], vec![Kind::Gap, Kind::Samples], vec![Kind::Samples]]);
}

/// Lives for as long as it takes until the hub has a sample of each of these, and gives what it was told of each. The
/// others are read, and nothing of them gets to the hub.
async fn lives(folder: &std::path::Path, reaches: &[&str], is_stopped: bool) -> Vec<Vec<Kind>> {
    let store = Store::new(settings(folder));
    store.begin(["pump", "valve"]);
    let mut all = Vec::new();
    for device in ["pump", "valve", "newcomer"] {
        store.add(&Arc::from(device), &sample(1, "x"));
        let (mut outlet, mut kinds) = (store.outlet(device), Vec::new());
        while reaches.contains(&device) && kinds.last() != Some(&Kind::Samples) {
            let batch = next(&mut outlet).await;
            outlet.acknowledged(batch.number);
            kinds.push(batch.kind);
        }
        all.push(kinds);
    }
    written(&store).await;
    if is_stopped {
        store.finish().await;
    }
    drop(store);
    // Its file is given up a moment later.
    let lock = std::fs::File::open(folder.join("telemetry.db.lock")).unwrap();
    while lock.try_lock().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    all
}

#[tokio::test]
async fn who_could_not_be_told_of_a_crash_is_told_later_and_nobody_else_takes_the_stops_since_for_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, all) = (folder.path(), ["pump", "valve", "newcomer"]);
    let (word, sample) = (vec![Kind::Gap, Kind::Samples], vec![Kind::Samples]);
    assert_eq!(lives(folder, &all, false).await, [sample.clone(), sample.clone(), sample.clone()]);
    // Nothing of the pump gets to the hub in two lives that are stopped.
    assert_eq!(lives(folder, &all[1..], true).await, [vec![], word.clone(), sample.clone()]);
    assert_eq!(lives(folder, &all[1..], true).await, [vec![], sample.clone(), sample.clone()]);
    assert_eq!(lives(folder, &all, true).await, [word, sample.clone(), sample.clone()]);
    assert!(!folder.join("telemetry.db-open").exists());
    assert_eq!(lives(folder, &all, false).await, [sample.clone(), sample.clone(), sample]);
}

#[tokio::test]
async fn a_store_that_is_full_loses_the_oldest_and_says_so_also_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(settings(folder.path()));
    store.begin(["pump"]);
    let device = Arc::from("pump");
    let text = "x".repeat(3000);
    for round in 0..4 {
        (0..200).for_each(|at| store.add(&device, &sample(1 + round * 200 + at, &text)));
        written(&store).await;
    }
    store.finish().await;
    let standing = store.standing(|_| true).unwrap();
    assert!(standing.bytes <= 1 << 20 && standing.lost > 400, "{standing:?}");
    assert_eq!((standing.pending + standing.lost, standing.trouble), (800, None));
    drop(store);
    let store = Store::new(settings(folder.path()));
    store.begin(["pump"]);
    let mut outlet = store.outlet("pump");
    let gap = next(&mut outlet).await;
    assert_eq!((gap.kind, gap.holds.samples, gap.holds.first), (Kind::Gap, standing.lost, 1));
    outlet.acknowledged(gap.number);
    assert_eq!(next(&mut outlet).await.holds.first, gap.holds.last + 1);
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_a_new_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("telemetry.db"),
        "not a database, and longer than a header of one would be ".repeat(20),
    )
    .unwrap();
    let store = Store::new(settings(folder.path()));
    store.begin(["pump"]);
    store.add(&Arc::from("pump"), &sample(1, "x"));
    written(&store).await;
    store.finish().await;
    assert!(folder.path().join("telemetry.db.damaged").exists());
    let standing = store.standing(|_| true).unwrap();
    assert_eq!((standing.pending, standing.trouble), (1, None));
    drop(store);
    let store = Store::new(settings(folder.path()));
    store.begin(["pump"]);
    assert_eq!(next(&mut store.outlet("pump")).await.holds.first, 1);
}

#[tokio::test]
async fn a_file_that_is_another_programs_stays_and_telemetry_goes_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("telemetry.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (a)").unwrap();
    let store = Store::new(settings(folder.path()));
    store.begin(["pump"]);
    let mut outlet = store.outlet("pump");
    store.add(&Arc::from("pump"), &sample(1, "x"));
    store.finish().await;
    let standing = store.standing(|_| true).unwrap();
    assert!(standing.trouble.is_some_and(|why| why.contains("another program")));
    assert_eq!(next(&mut outlet).await.holds.first, 1);
    assert!(path.exists() && !folder.path().join("telemetry.db.damaged").exists());
}

#[tokio::test]
async fn what_was_collected_for_long_enough_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Settings { batch_delay: Duration::from_millis(50), ..settings(folder.path()) });
    store.begin(["pump"]);
    let mut outlet = store.outlet("pump");
    let keeping = tokio::spawn({
        let store = store.clone();
        async move { store.keep().await }
    });
    store.add(&Arc::from("pump"), &sample(1, "x"));
    assert_eq!(next(&mut outlet).await.holds.samples, 1);
    keeping.abort();
}

#[tokio::test]
async fn one_daemon_has_the_file_and_another_waits_in_memory_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Store::new(settings(folder.path())), Store::new(settings(folder.path())));
    let device = Arc::from("pump");
    first.begin(["pump"]);
    first.add(&device, &sample(1, "x"));
    written(&first).await;
    second.begin(["pump"]);
    let mut outlet = second.outlet("pump");
    second.add(&device, &sample(2, "x"));
    becomes("the second has no file", || trouble(&second).is_some()).await;
    assert!(trouble(&second).is_some_and(|why| why.contains("another daemon")), "{:?}", trouble(&second));
    assert_eq!(next(&mut outlet).await.holds.first, 2, "it goes from memory");
    second.add(&device, &sample(3, "x"));
    first.finish().await;
    written(&second).await;
    becomes("the trouble is over", || trouble(&second).is_none()).await;
    assert_eq!((trouble(&first), second.standing(|_| true).map(|standing| standing.pending)), (None, Some(3)));
    assert!(!folder.path().join("telemetry.db.damaged").exists());
}

#[tokio::test]
async fn what_can_be_read_is_no_sign_that_something_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(settings(folder.path()));
    let (device, mut outlet) = (Arc::from("pump"), store.outlet("pump"));
    store.begin(["pump"]);
    store.add(&device, &sample(1, "x"));
    written(&store).await;
    let other = rusqlite::Connection::open(folder.path().join("telemetry.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.add(&device, &sample(2, "x"));
    store.write();
    becomes("it can't be written", || trouble(&store).is_some()).await;
    // One is loaded from the file, and the other goes from memory: nothing is to be written but what went.
    for first in [1, 2] {
        let batch = next(&mut outlet).await;
        assert_eq!(batch.holds.first, first);
        assert!(trouble(&store).is_some());
        outlet.acknowledged(batch.number);
    }
    other.execute_batch("COMMIT").unwrap();
    written(&store).await;
    becomes("the trouble is over", || trouble(&store).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_trouble_ends_when_the_file_can_be_written_though_nothing_is_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(settings(folder.path()));
    let (device, mut outlet) = (Arc::from("pump"), store.outlet("pump"));
    store.begin(["pump"]);
    becomes("it is open", || store.0.shelf().stored.bytes > 0).await;
    let keeping = tokio::spawn({
        let store = store.clone();
        async move { store.keep().await }
    });
    let other = rusqlite::Connection::open(folder.path().join("telemetry.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.add(&device, &sample(2, "x"));
    becomes("it can't be written", || trouble(&store).is_some()).await;
    // What waited in memory is at the hub before it can be written.
    let batch = next(&mut outlet).await;
    outlet.acknowledged(batch.number);
    let waits = store.0.shelf().has_to_write();
    assert!(!waits && trouble(&store).is_some());
    other.execute_batch("COMMIT").unwrap();
    becomes("the trouble is over", || trouble(&store).is_none()).await;
    keeping.abort();
}

#[tokio::test]
async fn a_limit_that_is_taken_away_holds_nothing_back_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Settings { daily_messages: 24, ..settings(folder.path()) });
    let (device, mut outlet) = (Arc::from("pump"), store.outlet("pump"));
    store.begin(["pump"]);
    (1..=2).for_each(|at| store.add(&device, &sample(at, "x")));
    assert_eq!(next(&mut outlet).await.holds.first, 1);
    assert!(outlet.take().is_none() && outlet.held_until.is_some(), "one an hour");
    store.configure(&settings(folder.path()));
    let second = tokio::time::timeout(Duration::from_secs(30), next(&mut outlet)).await;
    assert_eq!(second.map(|batch| batch.holds.first), Ok(2));
}
