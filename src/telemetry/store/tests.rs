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

#[tokio::test]
async fn what_the_hub_did_not_acknowledge_is_there_in_the_next_life_under_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(settings(folder.path()));
    assert_eq!(store.standing(), None);
    store.begin();
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
    store.begin();
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
    let standing = store.standing().unwrap();
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
        store.begin();
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
    }
    assert_eq!(kinds, [vec![Kind::Samples], vec![Kind::Gap, Kind::Samples], vec![Kind::Samples]]);
}

#[tokio::test]
async fn a_store_that_is_full_loses_the_oldest_and_says_so_also_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(settings(folder.path()));
    store.begin();
    let device = Arc::from("pump");
    let text = "x".repeat(3000);
    for round in 0..4 {
        (0..200).for_each(|at| store.add(&device, &sample(1 + round * 200 + at, &text)));
        store.finish().await;
    }
    let standing = store.standing().unwrap();
    assert!(standing.bytes <= 1 << 20 && standing.lost > 400, "{standing:?}");
    assert_eq!((standing.pending + standing.lost, standing.trouble), (800, None));
    drop(store);
    let store = Store::new(settings(folder.path()));
    store.begin();
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
    store.begin();
    store.add(&Arc::from("pump"), &sample(1, "x"));
    store.finish().await;
    store.finish().await;
    assert!(folder.path().join("telemetry.db.damaged").exists());
    let standing = store.standing().unwrap();
    assert_eq!((standing.pending, standing.trouble), (1, None));
    drop(store);
    let store = Store::new(settings(folder.path()));
    store.begin();
    assert_eq!(next(&mut store.outlet("pump")).await.holds.first, 1);
}

#[tokio::test]
async fn a_file_that_is_another_programs_stays_and_telemetry_goes_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("telemetry.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (a)").unwrap();
    let store = Store::new(settings(folder.path()));
    store.begin();
    let mut outlet = store.outlet("pump");
    store.add(&Arc::from("pump"), &sample(1, "x"));
    store.finish().await;
    let standing = store.standing().unwrap();
    assert!(standing.trouble.is_some_and(|why| why.contains("another program")));
    assert_eq!(next(&mut outlet).await.holds.first, 1);
    assert!(path.exists() && !folder.path().join("telemetry.db.damaged").exists());
}

#[tokio::test]
async fn what_was_collected_for_long_enough_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Settings { batch_delay: Duration::from_millis(50), ..settings(folder.path()) });
    store.begin();
    let mut outlet = store.outlet("pump");
    let keeping = tokio::spawn({
        let store = store.clone();
        async move { store.keep().await }
    });
    store.add(&Arc::from("pump"), &sample(1, "x"));
    assert_eq!(next(&mut outlet).await.holds.samples, 1);
    keeping.abort();
}
