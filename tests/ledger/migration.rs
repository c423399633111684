//! A ledger of the first release, with rows, is brought up to date at the start of the daemon: whole, or not at all,
//! and again if it was cut short. Proves that G2, G3, G7 and G16 hold over the upgrade.
//!
//! The times of the kills are random: the seed is printed, and taken from `FIELDBRIDGE_SEED`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support;
use crate::support::disk::{copy_of_ledger, SmallDisk};
use crate::support::Site;
use fieldbridge::command::decide::Known;
use fieldbridge::command::outcome::State;
use fieldbridge::ledger::disk::beside;
use fieldbridge::ledger::row::Resolution;
use fieldbridge::ledger::{Ledger, Reader};
use fieldbridge::proof::crash::Point;
use fieldbridge::time::Timestamp;
use rusqlite::Connection;

const HUB: &str = "hub.example";

/// A site with a ledger that the first release has left by a crash.
struct Place {
    site: Site,
    ledger: PathBuf,
}

impl Place {
    /// Rows, every tenth with an event that waits, and two that are not finished.
    fn with(rows: u32, disk: Option<&SmallDisk>) -> Place {
        let site = Site::new("127.0.0.1:1", "[bus.b]\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:1\"\n");
        let ledger = disk.map_or(site.path("ledger.db"), |disk| disk.path().join("ledger.db"));
        if let Some(disk) = disk {
            site.keep_ledger_in(disk.path());
        }
        let db = Connection::open(&ledger).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.execute_batch(&support::old_ledger::schema(2)).unwrap();
        db.execute_batch(&format!(
            "BEGIN;
             INSERT INTO ledger (one, uuid, age, ended_well, wall) VALUES (1, 'abcdefghijkl', 86400, 0, 1800000000000);
             WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {rows})
             INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, finished_at,
                 value, seen, history)
             SELECT 'pump', 'm-' || n, unhex(printf('%064d', 1)), 'set', 'succeeded', 1, 1, 1800000000000, 1800000000100,
                 '5', 80000, '{{\"at\":1800000000000,\"state\":\"succeeded\"}}' FROM number;
             INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, input, seen,
                 history)
             VALUES ('pump', 'accepted', unhex(printf('%064d', 1)), 'set', 'accepted', 0, 1, 1800000000000, '5', 80000, ''),
                 ('pump', 'executing', unhex(printf('%064d', 1)), 'reset', 'executing', 1, 1, 1800000000000, '6', 80000, '');
             INSERT INTO outbox (device, message_id, body)
             SELECT device, message_id, '{{}}' FROM command WHERE id % 10 = 0 AND finished_at IS NOT NULL;
             DELETE FROM command WHERE id = 1;
             COMMIT;"
        ))
        .unwrap();
        drop(db);
        Place { site, ledger }
    }

    fn version(&self) -> i64 {
        let folder = copy_of_ledger(&self.ledger);
        let db = Connection::open(folder.path().join("ledger.db")).unwrap();
        db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    /// Everything that was there is there, and is found in the new ways.
    async fn check(&self, rows: u32) {
        let ledger = Ledger::open(&self.ledger, HUB, &[]).unwrap();
        assert!(!ledger.distrusts(HUB, "pump"), "it knows all of its past");
        let digest = |last| std::array::from_fn(|i| if i == 31 { last } else { 0 });
        let known = async |id: &str, last| ledger.lookup(HUB, "pump", Some(id), digest(last)).await.unwrap().known;
        for id in ["m-2", &format!("m-{rows}"), &format!("m-{}", rows / 2)] {
            assert_eq!(known(id, 1).await, Known::Row(State::Succeeded), "{id}");
        }
        assert_eq!(known("accepted", 1).await, Known::Row(State::Accepted));
        assert_eq!(known("executing", 1).await, Known::Row(State::Executing));
        assert_eq!(known("m-1", 1).await, Known::New, "it was pruned by the first release");
        assert_eq!(known("m-2", 2).await, Known::OtherBody);
        let counts = ledger.counts().await.unwrap();
        assert_eq!(counts, (i64::from(rows) + 1, i64::from(rows) / 10), "rows, and events that wait");
        let unfinished = ledger.unfinished(Some("pump")).await.unwrap();
        let unfinished: Vec<_> = unfinished.iter().map(|one| one.message_id.as_deref().unwrap_or_default()).collect();
        assert_eq!(unfinished, ["accepted", "executing"]);
        ledger.close().await;
    }
}

/// Versions that a ledger of the first release goes through, each by a transaction of its own.
const VERSIONS: std::ops::RangeInclusive<i64> = 3..=8;

/// Makes of a ledger of this version one of version 6, which did not know that somebody has looked at a doubt.
const WITHOUT_RESOLUTIONS: &str =
    "DROP INDEX command_called; DROP INDEX command_open_doubt; ALTER TABLE command DROP COLUMN resolved_at;
    ALTER TABLE command DROP COLUMN resolved_by; ALTER TABLE command DROP COLUMN resolution; PRAGMA user_version = 6;";

#[tokio::test]
async fn what_was_in_doubt_before_anybody_could_say_that_it_was_looked_at_is_open_but_for_what_nobody_confirms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    Ledger::open(&path, HUB, &[]).unwrap().close_after_a_fault().await;
    let db = Connection::open(&path).unwrap();
    db.execute_batch(WITHOUT_RESOLUTIONS).unwrap();
    for (device, state, code) in [
        ("pump", "in_doubt", "timeout"),
        ("pump", "in_doubt", "unconfirmed"),
        ("valve", "failed", "timeout"),
        ("valve", "in_doubt", "bad-reply"),
    ] {
        db.execute(
            "INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, finished_at,
                error_code, error_message, seen, history)
             VALUES (?1, ?2 || ?3, zeroblob(32), 'set', ?2, 1, 1, 1, 2, ?3, 'x', 0, '')",
            [device, state, code],
        )
        .unwrap();
    }
    drop(db);
    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    let open = ledger.open_doubts().await.unwrap();
    assert_eq!(open, [("pump".to_owned(), 1), ("valve".to_owned(), 1)]);
    let resolution = Resolution::new(Timestamp(5), "pi".into(), Some("it is open".into())).unwrap();
    ledger.resolve(1, resolution.clone()).await.unwrap();
    assert_eq!(ledger.open_doubts().await.unwrap(), [("valve".to_owned(), 1)]);
    for (row, why) in [(1, "was resolved before"), (3, "is failed, not in_doubt"), (9, "has no row 9")] {
        let error = ledger.resolve(row, resolution.clone()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    ledger.close().await;
    let row = Reader::open(&path).unwrap().show_row(1).unwrap().unwrap();
    assert_eq!((row.state, row.resolved), (State::InDoubt, Some(resolution)), "the end stays what it is");
}

/// Of version 5, which knew neither of restored rows nor of how long answers may be owed.
#[tokio::test]
async fn a_ledger_of_the_version_before_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    Ledger::open(&path, HUB, &[]).unwrap().close_after_a_fault().await;
    let db = Connection::open(&path).unwrap();
    db.execute_batch(WITHOUT_RESOLUTIONS).unwrap();
    db.execute_batch(
        "ALTER TABLE ledger DROP COLUMN restored; ALTER TABLE ledger DROP COLUMN late_window; PRAGMA user_version = 5;",
    )
    .unwrap();
    drop(db);
    let ledger = Ledger::open(&path, HUB, &[]).unwrap();
    assert_eq!(ledger.late_window_at_start(), Some(Duration::from_secs(10)), "that of the defaults");
    ledger.close().await;
}

#[tokio::test]
async fn a_ledger_of_the_first_release_is_brought_up_to_date_whole_wherever_that_is_cut_short() {
    let uncommitted = VERSIONS.map(|version| (Point::MigrationUncommitted, version - 2, version - 1));
    let committed = VERSIONS.map(|version| (Point::MigrationCommitted, version - 2, version));
    for (point, times, version) in [(Point::LedgerOpened, 1, 2)].into_iter().chain(uncommitted).chain(committed) {
        let place = Place::with(5_000, None);
        let trap = format!("{}:{times}", point.name());
        let mut daemon = place.site.spawn(&[], &[("FIELDBRIDGE_CRASH_AT", &trap)]);
        assert_eq!(daemon.wait().code(), None, "{trap} was not struck: {}", daemon.log());
        assert_eq!(place.version(), version, "{trap}");
        place.check(5_000).await;
        assert_eq!(place.version(), *VERSIONS.end());
    }
}

fn log_bytes(ledger: &Path) -> u64 {
    beside(ledger, "-wal").metadata().map_or(0, |log| log.len())
}

#[tokio::test]
async fn what_an_upgrade_leaves_in_the_log_is_in_the_file_before_anything_is_served_and_systemd_hears_of_it() {
    let rows = 200_000;
    let place = Place::with(rows, None);
    // Cut short with a long log, which the next start makes durable and moves first.
    let trap = format!("{}:{}", Point::MigrationCommitted.name(), VERSIONS.count());
    let mut daemon = place.site.spawn(&[], &[("FIELDBRIDGE_CRASH_AT", &trap)]);
    daemon.wait();
    assert!(log_bytes(&place.ledger) > 10 << 20, "the upgrade leaves {} bytes", log_bytes(&place.ledger));
    let (whole, moving) = (Place::with(rows, None), "moving the ledger's log into its file");
    let cases = [(&place, [moving, "proving the ledger"]), (&whole, ["bringing the ledger up to date", moving])];
    for (place, does) in cases {
        let mut daemon = place.site.spawn(&[], &[("FIELDBRIDGE_CRASH_AT", Point::BeforeReady.name())]);
        for what in does {
            let told = daemon.told(what).pop().unwrap();
            assert!(told.starts_with("EXTEND_TIMEOUT_USEC=60000000\nSTATUS="), "{told}");
        }
        daemon.wait();
        assert!(daemon.log().contains("before-ready is struck"), "{}", daemon.log());
        let left = log_bytes(&place.ledger);
        assert!(left < 1 << 20, "{left} bytes are left for the first commits to wait for");
        place.check(rows).await;
    }
}

#[tokio::test]
async fn one_that_is_killed_at_any_moment_of_it_is_whole() {
    let seed =
        std::env::var("FIELDBRIDGE_SEED").map_or_else(|_| fastrand::u64(..1_000_000), |text| text.parse().unwrap());
    println!("FIELDBRIDGE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rows = 50_000;
    let place = Place::with(rows, None);
    let mut kills = 0;
    while place.version() == 2 && kills < 20 {
        let daemon = place.site.spawn(&[], &[]);
        std::thread::sleep(Duration::from_millis(random.u64(5..300)));
        daemon.kill();
        kills += 1;
    }
    println!("{kills} kills");
    place.check(rows).await;
}

#[tokio::test]
async fn on_a_full_disk_it_says_so_and_goes_on_when_there_is_room() {
    let disk = SmallDisk::new("64m");
    let rows = 50_000;
    let place = Place::with(rows, Some(&disk));
    // What the log holds goes into the file, at which it may grow; the indexes find no room.
    disk.fill_but(256 * 1024);
    let mut daemon = place.site.spawn(&[], &[]);
    let (status, log) = (daemon.wait(), daemon.log());
    assert_eq!(status.code(), Some(74), "{log}");
    assert!(log.contains("full"), "{log}");
    disk.clear();
    assert_eq!(place.version(), 2, "the old one stands");
    place.check(rows).await;
}
