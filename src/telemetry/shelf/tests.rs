use std::time::Duration;

use super::*;
use crate::time::Timestamp;

const DEVICE: &str = "pump";

/// Small batches that are collected for a while.
fn settings() -> Settings {
    let small = Settings::to_test(std::path::Path::new(""));
    Settings { batch_size: 512, batch_delay: Duration::from_secs(10), ..small }
}

/// A shelf with so many complete batches of one sample each.
fn with(settings: Settings, count: i64) -> (Shelf, Instant) {
    let now = Instant::now();
    let mut shelf = Shelf::new(settings, "life".into(), now);
    shelf.note_known();
    (1..=count).for_each(|at| add(&mut shelf, at, now));
    (shelf, now)
}

fn add(shelf: &mut Shelf, at: i64, now: Instant) {
    shelf.add(&DEVICE.into(), "{}", shown(at), now);
    shelf.close_due(now, true);
}

fn shown(at: i64) -> Shown {
    Shown { at: Timestamp(at), clock_ok: true }
}

/// What goes next, by the time of its first sample.
fn next(shelf: &mut Shelf, now: Instant) -> Option<(i64, i64)> {
    match shelf.take(&DEVICE.into(), now) {
        Next::Batch(batch) => Some((batch.number, batch.holds.first)),
        _ => None,
    }
}

/// Writes as a file does that has room for so many batches.
fn write(shelf: &mut Shelf, file: &mut BTreeMap<i64, Batch>, room: usize) {
    let plan = shelf.plan();
    plan.delete.iter().for_each(|number| drop(file.remove(number)));
    file.extend(plan.insert.iter().map(|batch| (batch.number, Batch { is_stored: true, ..batch.clone() })));
    let mut dropped = Vec::new();
    while file.len() > room {
        let (number, batch) = file.pop_first().unwrap();
        dropped.push((batch.device, number, batch.holds));
    }
    let mut stored = Stored::default();
    file.values().for_each(|batch| *stored.batches.entry(batch.device.clone()).or_default() += 1);
    shelf.written(&plan, &dropped, stored);
}

fn load(shelf: &mut Shelf, file: &BTreeMap<i64, Batch>) {
    let Some(load) = shelf.begin_load(&DEVICE.into()) else { return };
    let all: Vec<Batch> = match load.newest_first {
        true => file.values().rev().take(load.most).cloned().collect(),
        false => file.values().take(load.most).cloned().collect(),
    };
    shelf.loaded(&load, Some(all));
}

/// Everything that goes, each acknowledged at once.
fn all(shelf: &mut Shelf, file: &BTreeMap<i64, Batch>, now: Instant) -> Vec<i64> {
    let mut went = Vec::new();
    loop {
        match shelf.take(&DEVICE.into(), now) {
            Next::Batch(batch) => {
                shelf.acknowledged(&DEVICE.into(), batch.number);
                went.push(batch.holds.first);
            }
            Next::Load => load(shelf, file),
            Next::Later(_) | Next::Nothing => return went,
        }
    }
}

#[test]
fn after_a_crash_each_device_that_was_polled_is_told_once_that_something_may_be_missing_and_until_when() {
    let now = Instant::now();
    let mut shelf = Shelf::new(settings(), "life".into(), now);
    let other: Arc<str> = "valve".into();
    // One was read before it was known, and one is after; one is polled since later, and one was never read.
    add(&mut shelf, 7_000, now);
    shelf.owe_word_of_a_crash([DEVICE, "silent", "valve"].map(|device| (device.into(), None)).into());
    shelf.note_known();
    shelf.add(&other, "{}", Shown { clock_ok: false, ..shown(9_000) }, now);
    shelf.add(&"newcomer".into(), "{}", shown(9_000), now);
    shelf.close_due(now, true);
    let word = |shelf: &mut Shelf, device: &Arc<str>| match shelf.take(device, now) {
        Next::Batch(batch) => (batch.number, batch.kind, batch.body),
        other => panic!("{other:?}"),
    };
    let body = |until: &str| format!(r#"{{"gap":{{"from":null,"samples":null,"until":"{until}"}}}}"#);
    let (number, kind, told) = word(&mut shelf, &DEVICE.into());
    assert_eq!((kind, told), (Kind::Gap, body("1970-01-01T00:00:07.000Z")));
    let unclear = r#"{"gap":{"clockOk":false,"from":null,"samples":null,"until":"1970-01-01T00:00:09.000Z"}}"#;
    assert_eq!(word(&mut shelf, &other).2, unclear);
    assert_eq!(word(&mut shelf, &"newcomer".into()).1, Kind::Samples, "it has lost nothing");
    assert!(matches!(shelf.take(&"silent".into(), now), Next::Nothing), "nothing is read of it");
    // It is owed until the hub has it, and told again under its id.
    shelf.again(&DEVICE.into(), number, false);
    let owed = [
        (DEVICE.into(), Some(shown(7_000))),
        ("silent".into(), None),
        (other.clone(), Some(Shown { clock_ok: false, ..shown(9_000) })),
    ];
    assert_eq!(shelf.owes_word_of_a_crash(), Owed::from(owed));
    assert_eq!(word(&mut shelf, &DEVICE.into()).0, number);
    shelf.acknowledged(&DEVICE.into(), number);
    shelf.lose(&other, number + 1);
    assert_eq!(shelf.owes_word_of_a_crash(), Owed::from([("silent".into(), None)]));
    assert_eq!(next(&mut shelf, now).map(|(_, first)| first), Some(7_000));
    assert!(next(&mut shelf, now).is_none());
}

#[test]
fn the_word_of_a_crash_tells_of_the_time_until_which_it_is_owed_and_not_of_the_life_that_tells_it() {
    let now = Instant::now();
    let mut shelf = Shelf::new(settings(), "life".into(), now);
    shelf.note_known();
    shelf.owe_word_of_a_crash([(DEVICE.into(), Some(shown(7_000)))].into());
    let Next::Batch(word) = shelf.take(&DEVICE.into(), now) else { panic!("nothing is to be read first") };
    assert_eq!(word.body, body_of_a_crash(shown(7_000)));
    add(&mut shelf, 9_000, now);
    assert_eq!(shelf.owes_word_of_a_crash(), Owed::from([(DEVICE.into(), Some(shown(7_000)))]));
    shelf.acknowledged(&DEVICE.into(), word.number);
    assert_eq!((next(&mut shelf, now).map(|(_, first)| first), next(&mut shelf, now)), (Some(9_000), None));
    assert_eq!(shelf.owes_word_of_a_crash(), Owed::new());
}

#[test]
fn a_batch_is_complete_when_it_is_full_or_old_and_holds_what_fits() {
    let (mut shelf, now) = with(settings(), 0);
    let element = "x".repeat(100);
    assert!(shelf.add(&DEVICE.into(), &element, shown(1), now));
    assert_eq!(shelf.due_at(), Some(now + Duration::from_secs(10)));
    assert!(!shelf.add(&DEVICE.into(), &element, shown(2), now));
    assert!(!shelf.add(&DEVICE.into(), &element, shown(3), now));
    assert_eq!(next(&mut shelf, now), None);
    assert!(shelf.add(&DEVICE.into(), &element, shown(4), now), "512 bytes with its properties are full");
    let Next::Batch(batch) = shelf.take(&DEVICE.into(), now) else { panic!("it is complete") };
    assert_eq!((batch.holds.samples, batch.id.as_str()), (3, "life-1"));
    shelf.close_due(now + Duration::from_secs(10), false);
    assert_eq!(next(&mut shelf, now).map(|(_, first)| first), Some(4));
}

#[test]
fn what_the_hub_acknowledges_before_it_is_written_never_touches_the_file() {
    let (mut shelf, now) = with(settings(), 3);
    assert!(shelf.has_to_write());
    assert_eq!(all(&mut shelf, &BTreeMap::new(), now), [1, 2, 3]);
    assert!(shelf.plan().is_empty() && !shelf.has_to_write());
    assert_eq!((shelf.pending(|_| true), shelf.counts.published), (0, 3));
}

#[test]
fn what_was_written_comes_back_in_order_and_leaves_the_file_after_the_acknowledgement_only() {
    for (newest_first, expected) in [(false, (1..=40).collect()), (true, (1..=40).rev().collect::<Vec<i64>>())] {
        let (mut shelf, now) = with(Settings { newest_first, ..settings() }, 40);
        let mut file = BTreeMap::new();
        write(&mut shelf, &mut file, 100);
        assert_eq!((file.len(), shelf.pending(|_| true)), (40, 40));
        assert_eq!(all(&mut shelf, &file, now), expected);
        assert_eq!((file.len(), shelf.pending(|_| true)), (40, 0));
        write(&mut shelf, &mut file, 100);
        assert_eq!((file.len(), shelf.pending(|_| true)), (0, 0));
    }
}

#[test]
fn the_newest_goes_first_where_that_is_asked_for_and_behind_the_backlog_where_not() {
    for (newest_first, expected) in [(true, [4, 5, 3]), (false, [1, 2, 3])] {
        let (mut shelf, now) = with(Settings { newest_first, ..settings() }, 3);
        let mut file = BTreeMap::new();
        write(&mut shelf, &mut file, 100);
        let mut went = Vec::new();
        for newer in [4, 5, 6] {
            if newer < 6 {
                add(&mut shelf, newer, now);
            }
            if let Next::Load = shelf.take(&DEVICE.into(), now) {
                load(&mut shelf, &file);
            } else {
                let taken: Vec<i64> = shelf.devices[DEVICE].taken.values().map(|batch| batch.holds.first).collect();
                went.extend(taken.into_iter().filter(|first| !went.contains(first)).collect::<Vec<_>>());
                continue;
            }
            went.extend(next(&mut shelf, now).map(|(_, first)| first));
        }
        assert_eq!(went, expected);
    }
}

#[test]
fn what_a_connection_leaves_goes_again_under_its_id_and_what_ends_three_of_them_is_lost_and_told() {
    let (mut shelf, now) = with(settings(), 2);
    let device: Arc<str> = DEVICE.into();
    let (first, _) = next(&mut shelf, now).unwrap();
    for _ in 0..2 {
        shelf.again(&device, first, true);
        assert_eq!(next(&mut shelf, now).map(|(number, _)| number), Some(first));
    }
    shelf.again(&device, first, false);
    assert_eq!(next(&mut shelf, now).map(|(number, _)| number), Some(first));
    shelf.again(&device, first, true);
    let Next::Batch(gap) = shelf.take(&device, now) else { panic!("a gap is told first") };
    assert_eq!((gap.kind, gap.holds), (Kind::Gap, Gap { samples: 1, first: 1, last: 1 }));
    shelf.again(&device, gap.number, false);
    let Next::Batch(again) = shelf.take(&device, now) else { panic!("it is told again") };
    assert_eq!(again.id, gap.id);
    shelf.acknowledged(&device, gap.number);
    assert_eq!(next(&mut shelf, now).map(|(_, first)| first), Some(2));
    assert_eq!(shelf.counts.lost, 1);
}

#[test]
fn for_want_of_room_the_oldest_go_and_one_gap_tells_of_all() {
    let (mut shelf, now) = with(settings(), 10);
    let mut file = BTreeMap::new();
    write(&mut shelf, &mut file, 4);
    (11..=12).for_each(|at| add(&mut shelf, at, now));
    write(&mut shelf, &mut file, 4);
    assert!(shelf.plan().gaps.is_empty(), "the file has counted it as well");
    let Next::Batch(gap) = shelf.take(&DEVICE.into(), now) else { panic!("a gap is told first") };
    assert_eq!(gap.holds, Gap { samples: 8, first: 1, last: 8 });
    // It stands in the file until the hub has it.
    assert!(shelf.plan().gaps.is_empty());
    shelf.acknowledged(&DEVICE.into(), gap.number);
    assert_eq!(shelf.plan().gaps, [(DEVICE.into(), Gap::default())]);
    assert_eq!(all(&mut shelf, &file, now), [9, 10, 11, 12]);
    assert_eq!(shelf.counts.lost, 8);
}

#[test]
fn what_a_full_file_puts_out_while_it_is_on_the_wire_is_in_memory_and_is_written_when_it_comes_back() {
    let (mut shelf, now) = with(settings(), 2);
    let (device, mut file): (Arc<str>, _) = (DEVICE.into(), BTreeMap::new());
    write(&mut shelf, &mut file, 100);
    load(&mut shelf, &file);
    let (first, _) = next(&mut shelf, now).unwrap();
    add(&mut shelf, 3, now);
    write(&mut shelf, &mut file, 2);
    assert_eq!(file.values().map(|batch| batch.holds.first).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((shelf.counts.lost, shelf.pending(|_| true)), (0, 3));
    // It would put out others each time.
    assert!(!shelf.has_to_write() && shelf.plan().is_empty());
    shelf.again(&device, first, false);
    assert!(shelf.has_to_write());
    write(&mut shelf, &mut file, 3);
    assert_eq!((file.len(), shelf.counts.lost), (3, 0));
    // The second was loaded before.
    assert_eq!(all(&mut shelf, &file, now), [2, 1, 3]);
    assert!(shelf.plan().gaps.is_empty());
}

/// With two batches, of which the first is put out of the file by a writing in which this happens before and between;
/// what gets to the hub then, and what is lost.
fn put_out(before: fn(&mut Shelf, Instant), between: fn(&mut Shelf, Instant)) -> (Vec<i64>, u64) {
    let (mut shelf, now) = with(settings(), 2);
    let mut file = BTreeMap::new();
    write(&mut shelf, &mut file, 100);
    load(&mut shelf, &file);
    before(&mut shelf, now);
    let plan = shelf.plan();
    between(&mut shelf, now);
    let (number, batch) = file.pop_first().unwrap();
    let stored = Stored { batches: [(DEVICE.into(), 1)].into(), bytes: 0 };
    shelf.written(&plan, &[(DEVICE.into(), number, batch.holds)], stored);
    // What is on the wire still comes back.
    shelf.again(&DEVICE.into(), number, false);
    let lost = shelf.counts.lost;
    let mut went = all(&mut shelf, &file, now);
    write(&mut shelf, &mut file, 100);
    assert_eq!((file.len(), shelf.pending(|_| true), shelf.has_to_write()), (0, 0, false));
    // A gap is told before all, and has the time of the first that it is for.
    went.sort_unstable();
    (went, lost)
}

#[test]
fn what_is_put_out_of_the_file_is_lost_only_if_it_was_nowhere_else() {
    let nothing = |_: &mut Shelf, _| {};
    let take = |shelf: &mut Shelf, now| assert_eq!(next(shelf, now).map(|(_, first)| first), Some(1));
    let back = |shelf: &mut Shelf, _| shelf.again(&DEVICE.into(), FROM + 1, false);
    let told = |shelf: &mut Shelf, _| shelf.acknowledged(&DEVICE.into(), FROM + 1);
    let take_and_told = |shelf: &mut Shelf, now| {
        assert!(next(shelf, now).is_some());
        shelf.acknowledged(&DEVICE.into(), FROM + 1);
    };
    // The first of these is the gap.
    assert_eq!(put_out(nothing, nothing), (vec![1, 2], 1));
    assert_eq!(put_out(take, nothing), (vec![1, 2], 0), "it is on the wire");
    assert_eq!(put_out(nothing, take), (vec![1, 2], 0), "it is on the wire since");
    assert_eq!(put_out(take, back), (vec![1, 2], 0), "it was on the wire");
    assert_eq!(put_out(take, told), (vec![2], 0), "the hub has it");
    assert_eq!(put_out(nothing, take_and_told), (vec![2], 0), "the hub has it");
}

#[test]
fn what_was_to_be_written_and_put_out_at_once_is_told_if_it_came_back_from_the_wire_meanwhile() {
    let (mut shelf, now) = with(settings(), 2);
    let (number, _) = next(&mut shelf, now).unwrap();
    let plan = shelf.plan();
    assert!(plan.taken.contains(&number) && plan.insert.len() == 2);
    shelf.again(&DEVICE.into(), number, false);
    let holds = Gap { samples: 1, first: 1, last: 1 };
    let stored = Stored { batches: [(DEVICE.into(), 1)].into(), bytes: 0 };
    shelf.written(&plan, &[(DEVICE.into(), number, holds)], stored);
    assert_eq!((shelf.plan().insert.len(), shelf.counts.lost), (1, 0));
    let second = plan.insert.iter().find(|batch| batch.number != number).unwrap();
    let file = [(second.number, Batch { is_stored: true, ..second.clone() })].into();
    assert_eq!(all(&mut shelf, &file, now), [1, 2]);
}

#[test]
fn while_nothing_can_be_written_memory_is_bounded_and_the_oldest_goes() {
    let (mut shelf, now) = with(settings(), 0);
    let element = "x".repeat(300);
    for at in 0..10_000 {
        shelf.add(&DEVICE.into(), &element, shown(at), now);
    }
    assert!(shelf.waiting <= MEMORY_MAX, "{}", shelf.waiting);
    let Next::Batch(gap) = shelf.take(&DEVICE.into(), now) else { panic!("a gap is told first") };
    assert_eq!((gap.kind, gap.holds.first, gap.holds.samples), (Kind::Gap, 0, shelf.counts.lost));
    let (_, oldest) = next(&mut shelf, now).unwrap();
    assert_eq!(oldest, gap.holds.last + 1);
}

#[test]
fn a_file_that_is_lost_takes_with_it_what_it_alone_held() {
    let (mut shelf, now) = with(settings(), 3);
    let mut file = BTreeMap::new();
    write(&mut shelf, &mut file, 100);
    load(&mut shelf, &file);
    assert_eq!(next(&mut shelf, now).map(|(_, first)| first), Some(1));
    shelf.file_is_lost();
    assert_eq!(shelf.plan().insert.len(), 3, "all three were in memory");
    assert_eq!(all(&mut shelf, &BTreeMap::new(), now), [2, 3]);
}

#[test]
fn no_more_goes_than_the_day_has_messages_for() {
    let (mut shelf, now) = with(Settings { daily_messages: 24, ..settings() }, 3);
    assert!(next(&mut shelf, now).is_some());
    let Next::Later(at) = shelf.take(&DEVICE.into(), now) else { panic!("one an hour") };
    assert!(at > now + Duration::from_secs(1800));
    assert!(next(&mut shelf, at).is_some());
}

#[test]
fn nothing_goes_before_the_file_is_known_and_what_was_read_before_that_goes_behind_it() {
    let now = Instant::now();
    let mut shelf = Shelf::new(settings(), "life".into(), now);
    add(&mut shelf, 9, now);
    assert!(next(&mut shelf, now).is_none());
    let stored = Stored { batches: [(DEVICE.into(), 2)].into(), bytes: 0 };
    shelf.begin_with(FROM + 7, stored, Vec::new());
    shelf.note_known();
    let (earlier, _) = with(settings(), 7);
    let batches = earlier.devices[DEVICE].fresh.values().skip(5);
    let file: BTreeMap<i64, Batch> =
        batches.map(|batch| (batch.number, Batch { is_stored: true, ..batch.clone() })).collect();
    assert_eq!(all(&mut shelf, &file, now), [6, 7, 9]);
    assert_eq!(shelf.next, FROM + 9);
}

#[test]
fn every_gap_that_was_on_the_wire_is_told_again() {
    let (mut shelf, now) = with(settings(), 4);
    let device: Arc<str> = DEVICE.into();
    let mut gaps = Vec::new();
    for lost in 1..=2 {
        let (number, first) = next(&mut shelf, now).unwrap();
        assert_eq!(first, lost);
        shelf.lose(&device, number);
        let Next::Batch(gap) = shelf.take(&device, now) else { panic!("a gap is told first") };
        gaps.push((gap.number, gap.id, gap.holds));
    }
    // The connection ends with both on the wire.
    gaps.iter().for_each(|(number, ..)| shelf.again(&device, *number, false));
    assert_eq!(shelf.plan().gaps, [(device.clone(), Gap { samples: 2, first: 1, last: 2 })]);
    for told in gaps {
        let Next::Batch(gap) = shelf.take(&device, now) else { panic!("it is told again") };
        assert_eq!((gap.number, gap.id, gap.holds), told);
        shelf.acknowledged(&device, gap.number);
    }
    assert_eq!(next(&mut shelf, now).map(|(_, first)| first), Some(3));
    assert!(shelf.plan().gaps.is_empty());
}

#[test]
fn what_waits_is_counted_apart_for_devices_that_are_gone() {
    let (mut shelf, now) = with(settings(), 3);
    let mut file = BTreeMap::new();
    write(&mut shelf, &mut file, 100);
    let other: Arc<str> = "valve".into();
    shelf.add(&other, "{}", shown(9), now);
    shelf.close_due(now, true);
    let counts = |shelf: &Shelf| [DEVICE, "valve"].map(|id| shelf.pending(|device| device == id));
    assert_eq!(counts(&shelf), [3, 1]);
    load(&mut shelf, &file);
    let (number, _) = next(&mut shelf, now).unwrap();
    shelf.acknowledged(&DEVICE.into(), number);
    assert_eq!(counts(&shelf), [2, 1]);
    write(&mut shelf, &mut file, 100);
    assert_eq!((counts(&shelf), file.len()), ([2, 1], 3));
}
