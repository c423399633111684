//! The ledger as a file: backup, restore, a new one, trust. Proves G15 as far as it is the ledger's, and that nothing
//! is lost wherever a tool is cut short.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support;
use crate::support::disk::{copy_of_ledger, SmallDisk};
use crate::support::rows::{reset, HUB};
use fieldbridge::command::decide::Known;
use fieldbridge::command::outcome::{Outcome, State};
use fieldbridge::ledger::{backup, Finish, Ledger, Legacy, Life, Locked, CHANGING};
use fieldbridge::proof::crash::Point;
use fieldbridge::time::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Place {
        let configuration = format!(
            "[hub]\nhost = \"{HUB}\"\n[ledger]\npath = \"{}\"\n[bus.b]\nkind = \"modbus-tcp\"\naddress = \
             \"127.0.0.1:1\"\n",
            folder.path().join("ledger.db").display()
        );
        std::fs::write(folder.path().join("fieldbridge.toml"), configuration).unwrap();
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.path("ledger.db"), HUB, &[]).unwrap()
    }

    fn run_at(&self, point: Option<Point>, args: &[&str]) -> Output {
        let mut command = Command::new(support::program());
        command.arg("--config").arg(self.path("fieldbridge.toml")).arg("ledger").args(args);
        if let Some(point) = point {
            command.env("FIELDBRIDGE_CRASH_AT", point.name());
        }
        command.output().unwrap()
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.run_at(None, args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text)
    }

    fn backup(&self) -> String {
        self.path("backup.db").display().to_string()
    }

    /// What was moved aside.
    fn old(&self) -> Vec<PathBuf> {
        let names = std::fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        let is_ledger = |path: &PathBuf| {
            let name = path.display().to_string();
            name.contains("ledger.db.old-") && name.ends_with('Z')
        };
        names.filter(is_ledger).collect()
    }
}

async fn record(ledger: &Ledger, id: &str) {
    let new = reset(Some(id));
    let outcome = Outcome::succeeded(None);
    ledger
        .finish(Finish {
            row: None,
            new,
            outcome,
            attempts: 1,
            sent_at: None,
            finished_at: Timestamp(1_800_000_000_500),
        })
        .await
        .unwrap();
}

async fn knows(ledger: &Ledger, id: &str) -> bool {
    ledger.lookup(HUB, "pump", Some(id), [1; 32]).await.unwrap().known == Known::Row(State::Succeeded)
}

/// A ledger whose log is not moved into the file, as a crash leaves it.
async fn crashed(place: &Place, ids: &[&str]) {
    let scratch = Place::new();
    let ledger = scratch.open();
    for id in ids {
        record(&ledger, id).await;
    }
    for part in ["", "-wal", "-shm"] {
        std::fs::copy(scratch.path(&format!("ledger.db{part}")), place.path(&format!("ledger.db{part}"))).unwrap();
    }
    ledger.close().await;
}

#[tokio::test]
async fn what_a_stop_leaves_on_a_bus_and_what_it_leaves_at_the_hub_are_told_apart() {
    let place = Place::new();
    let locked = [Locked::Nothing, Locked::ForOthers, Locked::Something];
    for (owed, locked) in locked.into_iter().flat_map(|locked| [(false, locked), (true, locked)]) {
        place.open().close_leaving(Legacy { owed, locked, by_any_way: false }).await;
        let ledger = place.open();
        let found = ledger.locked_since().map_or(Locked::Nothing, |(_, locked)| locked);
        assert_eq!((ledger.ended_well(), found), (!owed, locked));
        ledger.close_after_a_fault().await;
        let ledger = place.open();
        let found = ledger.locked_since().map(|(_, locked)| locked);
        assert_eq!((ledger.ended_well(), found), (false, Some(Locked::Something)));
        ledger.close().await;
    }
}

/// Begins a life whose peripherals may owe it answers for so many seconds, and tells for how long those of before may.
fn owing(place: &Place, seconds: u64) -> (Ledger, Option<u64>) {
    let life = Life { late_window: Duration::from_secs(seconds), ..Life::default() };
    let ledger = Ledger::open_for(&place.path("ledger.db"), HUB, life).unwrap();
    let before = ledger.late_window_at_start().map(|window| window.as_secs());
    (ledger, before)
}

#[tokio::test]
async fn answers_are_owed_for_as_long_as_any_configuration_said_since_the_last_life_that_ended_well() {
    let place = Place::new();
    let owed = Legacy { owed: true, ..Legacy::default() };
    let (ledger, before) = owing(&place, 8);
    assert_eq!(before, Some(0), "a new ledger knows of no configuration, nor that nothing is owed");
    ledger.close_after_a_fault().await;
    // Two lives that are cut short with less, one that grows by a reload, and one that leaves something.
    for (seconds, expected) in [(2, 8), (3, 8)] {
        let (ledger, before) = owing(&place, seconds);
        assert_eq!(before, Some(expected));
        ledger.close_after_a_fault().await;
    }
    let (ledger, _) = owing(&place, 1);
    ledger.grow_late_window(Duration::from_secs(30));
    ledger.grow_late_window(Duration::from_secs(20));
    record(&ledger, "m-1").await;
    let copy = copy_of_ledger(&place.path("ledger.db"));
    let copy = Connection::open(copy.path().join("ledger.db")).unwrap();
    let noted: i64 = copy.query_row("SELECT late_window FROM ledger", [], |row| row.get(0)).unwrap();
    assert_eq!(noted, 30_000, "it is durable with whatever is written next");
    ledger.close_leaving(owed).await;
    let (ledger, before) = owing(&place, 4);
    assert_eq!((before, ledger.is_in_earlier_late_window()), (Some(30), true));
    ledger.close().await;
    // Nothing is owed any more, and no longer than by the present one.
    let (ledger, before) = owing(&place, 5);
    assert_eq!((before, ledger.is_in_earlier_late_window()), (None, false));
    ledger.close_leaving(owed).await;
    assert_eq!(owing(&place, 1).1, Some(5));
}

#[tokio::test]
async fn a_ledger_that_takes_the_place_of_another_knows_for_how_long_answers_are_owed() {
    let place = Place::new();
    let path = place.path("ledger.db");
    let backup = place.path("backup.db");
    owing(&place, 1).0.close().await;
    backup::backup(&path, &backup).unwrap();
    owing(&place, 8).0.close_after_a_fault().await;
    backup::renew(&path, HUB).unwrap();
    let (ledger, before) = owing(&place, 1);
    assert_eq!(before, Some(8));
    ledger.close_after_a_fault().await;
    backup::restore(&path, &backup, HUB).unwrap();
    let (ledger, before) = owing(&place, 1);
    assert_eq!(before, Some(8));
    ledger.close().await;
}

/// Opens the ledger by these ways, and tells those of before.
async fn reached_by(place: &Place, ways: &[u8], left: Legacy) -> Option<Vec<u8>> {
    let ledger = Ledger::open(&place.path("ledger.db"), HUB, ways).unwrap();
    let before = ledger.ways_at_start().map(<[u8]>::to_vec);
    ledger.close_leaving(left).await;
    before
}

#[tokio::test]
async fn the_ways_of_a_life_are_noted_as_it_begins_unless_something_is_locked_that_they_have_to_wait_for() {
    let place = Place::new();
    let [nothing, for_others, locked] =
        [Locked::Nothing, Locked::ForOthers, Locked::Something].map(|locked| Legacy { locked, ..Legacy::default() });
    let by_any_way = Legacy { locked: Locked::Something, by_any_way: true, ..Legacy::default() };
    assert_eq!(reached_by(&place, b"amqp", nothing).await, None);
    assert_eq!(reached_by(&place, b"mqtt", for_others).await.as_deref(), Some(&b"amqp"[..]));
    assert_eq!(reached_by(&place, b"amqp", nothing).await.as_deref(), Some(&b"mqtt"[..]));
    assert_eq!(reached_by(&place, b"amqp", nothing).await.as_deref(), Some(CHANGING));
    assert_eq!(reached_by(&place, b"https", locked).await.as_deref(), Some(&b"amqp"[..]));
    // Whoever comes by others than those that may have locked something has to go on waiting if it is cut off, too; and
    // so has who comes by those of before, as they have been taken from.
    assert_eq!(reached_by(&place, b"amqp", locked).await.as_deref(), Some(&b"https"[..]));
    assert_eq!(reached_by(&place, b"https", by_any_way).await.as_deref(), Some(CHANGING));
    assert_eq!(reached_by(&place, b"https", nothing).await.as_deref(), Some(CHANGING));
    assert_eq!(reached_by(&place, b"https", nothing).await.as_deref(), Some(CHANGING));
    assert_eq!(reached_by(&place, b"https", nothing).await.as_deref(), Some(&b"https"[..]));
}

#[tokio::test]
async fn a_backup_is_made_beside_the_running_daemon_and_restored_when_it_has_ended() {
    let place = Place::new();
    let ledger = place.open();
    ledger.trust_device(HUB, "pump").await.unwrap();
    record(&ledger, "before").await;
    let (status, text) = place.run(&["backup", &place.backup()]);
    assert_eq!(status, 0, "{text}");
    let (status, text) = place.run(&["backup", &place.backup()]);
    assert!(status == 1 && text.contains("exists"), "{status} {text}");
    record(&ledger, "after").await;
    let event = ledger.events("pump", 0, 10).await.unwrap()[1].id.clone();
    for tool in [&["restore", &place.backup()][..], &["new"], &["new", "--trust"]] {
        let (status, text) = place.run(tool);
        assert!(status == 1 && text.contains("stop the daemon first"), "{tool:?}: {status} {text}");
    }
    assert!(knows(&ledger, "after").await);
    ledger.close().await;

    let (status, text) = place.run(&["restore", &place.backup()]);
    assert!(status == 0 && text.contains("ledger.db.old-"), "{status} {text}");
    let ledger = place.open();
    assert!(knows(&ledger, "before").await && !knows(&ledger, "after").await);
    assert!(ledger.distrusts(HUB, "pump"), "it does not know what came after the backup");
    record(&ledger, "later").await;
    let events = ledger.events("pump", 0, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|found| found.id != event), "an id that was used is not used for another event");
    assert_eq!(ledger.counts().await.unwrap(), (2, 2));
    ledger.close().await;
    let old = Ledger::open(&place.old()[0], HUB, &[]).unwrap();
    assert!(knows(&old, "before").await && knows(&old, "after").await, "what was replaced is whole");
    old.close().await;
}

#[tokio::test]
async fn what_a_backup_has_as_accepted_stays_so_and_is_known_to_be_of_before() {
    let place = Place::new();
    let ledger = place.open();
    ledger.accept(reset(Some("waits"))).await.unwrap();
    ledger.begin(None, reset(Some("begun"))).await.unwrap();
    assert_eq!(place.run(&["backup", &place.backup()]).0, 0);
    ledger.close().await;
    assert_eq!(place.run(&["restore", &place.backup()]).0, 0);
    // That the hub holds nothing of before says nothing of what the gateway has done for it.
    assert_eq!(place.run(&["new", "--trust"]).0, 0);
    for _ in 0..2 {
        let ledger = place.open();
        ledger.accept(reset(Some(&format!("later {}", fastrand::u32(..))))).await.unwrap();
        let left = ledger.unfinished(Some("pump")).await.unwrap();
        let left: Vec<_> = left.iter().map(|left| (left.state, left.attempts, left.restored)).collect();
        assert_eq!(left[..3], [(State::Accepted, 0, true), (State::Executing, 1, false), (State::Accepted, 0, false)]);
        ledger.close().await;
    }
}

#[tokio::test]
async fn one_backup_that_is_restored_twice_gives_no_event_the_id_of_another() {
    let place = Place::new();
    let ledger = place.open();
    record(&ledger, "before").await;
    ledger.close().await;
    assert_eq!(place.run(&["backup", &place.backup()]).0, 0);
    let mut ids = std::collections::BTreeSet::new();
    for id in ["first", "second", "third"] {
        assert_eq!(place.run(&["restore", &place.backup()]).0, 0);
        let ledger = place.open();
        record(&ledger, id).await;
        assert_eq!(ledger.counts().await.unwrap(), (2, 2));
        ids.insert(ledger.events("pump", 0, 10).await.unwrap()[1].id.clone());
        ledger.close().await;
    }
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test]
async fn a_plan_that_can_not_be_read_is_not_taken_for_none() {
    let place = Place::new();
    // As good as one that belongs to another user, or lies on a sector that is gone.
    std::fs::create_dir(place.path("ledger.db.replace")).unwrap();
    std::fs::write(place.path("ledger.db.new"), "the ledger that was restored").unwrap();
    assert!(Ledger::open(&place.path("ledger.db"), HUB, &[]).is_err());
    assert!(!place.path("ledger.db").exists(), "no empty one is made");
    assert!(place.path("ledger.db.new").exists());
}

#[tokio::test]
async fn a_backup_touches_no_file_of_others_and_takes_away_what_one_that_was_cut_short_has_left() {
    let place = Place::new();
    place.open().close().await;
    let (mine, left) = (place.path("backup.db.new"), place.path("backup.db.copying-4999999"));
    std::fs::write(&mine, "mine").unwrap();
    std::fs::write(&left, "half").unwrap();
    let (status, text) = place.run(&["backup", &place.backup()]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
    assert!(!left.exists());
}

#[tokio::test]
async fn a_backup_that_is_none_is_refused_with_74_and_the_ledger_stays() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..200 {
        record(&ledger, &format!("m-{number}")).await;
    }
    ledger.close().await;
    assert_eq!(place.run(&["backup", &place.backup()]).0, 0);
    let (sound, before) = (std::fs::read(place.backup()).unwrap(), std::fs::read(place.path("ledger.db")).unwrap());
    let mut torn = sound.clone();
    let middle = torn.len() / 2 / 4096 * 4096;
    torn[middle..middle + 4096].fill(0xa5);
    let mut foreign = sound.clone();
    foreign[68..72].fill(0);
    let cases = [
        ("torn", torn),
        ("cut", sound[..sound.len() / 2].to_vec()),
        ("foreign", foreign),
        ("text", b"hello, this is not a database at all".repeat(100)),
        ("empty", Vec::new()),
    ];
    for (what, bytes) in cases {
        std::fs::write(place.backup(), bytes).unwrap();
        let (status, text) = place.run(&["restore", &place.backup()]);
        assert_eq!(status, 74, "{what}: {text}");
        assert_eq!(std::fs::read(place.path("ledger.db")).unwrap(), before, "{what}: the ledger was changed");
    }
    assert!(place.old().is_empty());
    let (status, text) = place.run(&["restore", "/no/such/file"]);
    assert!(status == 1 && text.contains("/no/such/file"), "{status} {text}");
}

#[tokio::test]
async fn a_new_ledger_is_empty_and_distrusted_and_trust_can_be_given_to_what_is_there_or_not() {
    let place = Place::new();
    let (status, text) = place.run(&["new", "--trust"]);
    assert_eq!(status, 0, "{text}");
    let ledger = place.open();
    assert!(!ledger.distrusts(HUB, "pump"));
    record(&ledger, "kept").await;
    ledger.close().await;
    assert_eq!(place.run(&["new"]).0, 0);
    let ledger = place.open();
    assert!(ledger.distrusts(HUB, "pump") && !knows(&ledger, "kept").await);
    record(&ledger, "kept").await;
    ledger.close().await;
    let old = Ledger::open(&place.old()[0], HUB, &[]).unwrap();
    assert!(knows(&old, "kept").await);
    old.close().await;
    assert_eq!(place.run(&["new", "--trust"]).0, 0);
    let ledger = place.open();
    assert!(!ledger.distrusts(HUB, "pump") && knows(&ledger, "kept").await, "its rows are kept");
    ledger.close().await;
    assert_eq!(place.old().len(), 1, "nothing was moved aside");
}

#[tokio::test]
async fn a_tool_that_is_cut_short_anywhere_leaves_the_old_ledger_or_the_new_one_whole() {
    let tools = [Point::ReplacementComplete, Point::ReplacementPlanned, Point::PartMovedAside, Point::ReplacementNamed];
    for point in tools.into_iter().chain([Point::RestoreCopied]) {
        let place = Place::new();
        crashed(&place, &["backed up"]).await;
        assert_eq!(place.run(&["backup", &place.backup()]).0, 0);
        for part in ["", "-wal", "-shm"] {
            std::fs::remove_file(place.path(&format!("ledger.db{part}"))).unwrap();
        }
        crashed(&place, &["in the log"]).await;
        let cut = place.run_at(Some(point), &["restore", &place.backup()]);
        assert_eq!(cut.status.code(), None, "{point:?} was not struck: {}", String::from_utf8_lossy(&cut.stderr));
        let planned = !matches!(point, Point::ReplacementComplete | Point::RestoreCopied);
        let ledger = place.open();
        assert_eq!(knows(&ledger, "backed up").await, planned, "{point:?}");
        assert_eq!(knows(&ledger, "in the log").await, !planned, "{point:?}");
        ledger.close().await;
        match (planned, place.old().first()) {
            (true, Some(old)) => {
                let old = Ledger::open(old, HUB, &[]).unwrap();
                assert!(knows(&old, "in the log").await, "{point:?}: what was replaced has its log");
                old.close().await;
            }
            (planned, old) => assert!(!planned && old.is_none(), "{point:?}: {old:?}"),
        }
    }
    let place = Place::new();
    place.open().close().await;
    let cut = place.run_at(Some(Point::BackupCopied), &["backup", &place.backup()]);
    assert!(cut.status.code().is_none() && !Path::new(&place.backup()).exists(), "it has no name before it is whole");
}

#[tokio::test]
async fn a_full_disk_refuses_every_tool_in_words_and_leaves_nothing_behind() {
    let disk = SmallDisk::new("8m");
    let place = Place::in_folder(tempfile::tempdir_in(disk.path()).unwrap());
    let ledger = place.open();
    for number in 0..200 {
        record(&ledger, &format!("m-{number}")).await;
    }
    ledger.close().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup.db").display().to_string();
    assert_eq!(place.run(&["backup", &backup]).0, 0);
    let files = |place: &Place| {
        let mut names: Vec<_> = std::fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let (before, there) = (std::fs::read(place.path("ledger.db")).unwrap(), files(&place));
    disk.fill();
    let tools: [&[&str]; 3] = [&["backup", &place.backup()], &["restore", &backup], &["new"]];
    for tool in tools {
        let (status, text) = place.run(tool);
        assert!(status == 1 || status == 74, "{tool:?}: {status} {text}");
        assert!(text.contains("full") || text.contains("No space left"), "{tool:?}: {text}");
        assert_eq!(files(&place), there, "{tool:?} leaves something behind");
        assert_eq!(std::fs::read(place.path("ledger.db")).unwrap(), before, "{tool:?}: the ledger was changed");
    }
    disk.clear();
    let ledger = place.open();
    assert!(knows(&ledger, "m-199").await);
    ledger.close().await;
}
