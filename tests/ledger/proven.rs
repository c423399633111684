//! When a ledger is proven: beside the service where the process before had no I/O error, before anything connects
//! where nobody knows. Proves G9 and G16.

use std::os::unix::fs::FileExt as _;

use crate::support;
use crate::support::slave::Slave;
use crate::support::Site;
use rusqlite::Connection;

/// As many that most of the file is rows of old, which no start looks at.
const ROWS: u32 = 30_000;
const PAGE: u64 = 4096;

/// A site whose ledger has many rows and was closed in order.
fn site() -> (Site, Slave) {
    let slave = Slave::new();
    let site = Site::new("127.0.0.1:1", &support::pump(slave.address(), "after-execution", ""));
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    let db = Connection::open(site.path("ledger.db")).expect("it was made");
    db.execute_batch(&format!(
        "BEGIN;
         INSERT OR IGNORE INTO hub (id, host, since) VALUES (1, 'hub.example', 0);
         WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {ROWS})
         INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, finished_at, seen,
            history)
         SELECT 'pump', 'm-' || n, zeroblob(32), 'set', 'succeeded', 1, 1, 1800000000000, 1800000000100, 0,
            hex(zeroblob(100)) FROM number;
         COMMIT;"
    ))
    .expect("rows can be added");
    drop(db);
    (site, slave)
}

/// Destroys a page in the middle of the file.
fn damage(site: &Site) {
    let file = std::fs::OpenOptions::new().write(true).open(site.path("ledger.db")).expect("it is there");
    let pages = file.metadata().expect("it has a length").len() / PAGE;
    file.write_all_at(&[0xa5; PAGE as usize], pages / 2 * PAGE).expect("it can be written");
}

/// What only the proof that runs beside the service says of a sound file, and of another. It may be done before the
/// service is ready as well as after it: the two don't wait for each other.
const PROVEN: &str = "the whole ledger is proven";
const GIVEN_UP: &str = "the ledger can't be trusted any more";
const READY: &str = " ready ";

/// One life that ends in order.
fn live(site: &Site) {
    assert!(site.start().terminate().success());
}

/// The next life, which ends by itself with 74; what it has logged.
fn ends_by_itself(site: &Site) -> String {
    let begun = std::fs::read_to_string(site.path("daemon.log")).map_or(0, |log| log.len());
    let mut daemon = site.spawn(&[], &[]);
    assert_eq!(daemon.wait().code(), Some(74), "{}", daemon.log());
    daemon.log()[begun..].to_owned()
}

#[test]
fn a_file_of_which_nothing_is_known_is_proven_before_the_service_and_a_sound_one_beside_it() {
    let (site, _slave) = site();
    // Whoever changed the file may have done anything to it.
    let _ = std::fs::remove_file(site.path("ledger.db.sound"));
    let daemon = site.start();
    assert!(site.path("ledger.db.sound").exists(), "the next start may rely on that");
    daemon.kill();
    let begun = std::fs::read_to_string(site.path("daemon.log")).expect("there is a log").len();
    let daemon = site.start();
    support::eventually("it is proven beside", || daemon.log()[begun..].contains(PROVEN).then_some(()));
    assert!(daemon.log()[begun..].contains(READY), "{}", daemon.log());
}

#[test]
fn damage_that_is_found_beside_the_service_ends_it_and_the_next_one_does_not_begin() {
    let (site, slave) = site();
    live(&site);
    damage(&site);
    let log = ends_by_itself(&site);
    assert!(log.contains(GIVEN_UP), "{log}");
    assert!(!site.path("ledger.db.sound").exists(), "the next one must not rely on it");
    let log = ends_by_itself(&site);
    assert!(!log.contains(READY) && !log.contains(GIVEN_UP) && log.contains("damaged"), "{log}");
    assert_eq!(slave.writes(), []);
}

#[test]
fn another_file_in_the_ledgers_place_is_proven_first() {
    let (site, _slave) = site();
    live(&site);
    let (ledger, copy) = (site.path("ledger.db"), site.path("copy.db"));
    std::fs::copy(&ledger, &copy).expect("it can be copied");
    std::fs::rename(&copy, &ledger).expect("it can be put there");
    damage(&site);
    let log = ends_by_itself(&site);
    assert!(!log.contains(READY) && !log.contains(GIVEN_UP) && log.contains("damaged"), "{log}");
}

/// SQLite has no checksums: a bit that falls over within a row is found by who reads the row.
#[test]
fn a_row_that_cant_be_read_ends_with_a_sentence_that_says_what_to_do() {
    let (site, slave) = site();
    let db = Connection::open(site.path("ledger.db")).expect("it was made");
    let fallen = "UPDATE command SET state = 'accepted', finished_at = NULL, requested = '{' WHERE message_id = 'm-7'";
    assert_eq!(db.execute(fallen, []).expect("it can be changed"), 1);
    drop(db);
    let remedy = "a row of it is damaged";
    let log = ends_by_itself(&site);
    assert!(log.contains(remedy) && log.contains("fieldbridge ledger restore"), "{log}");
    let told = site.command(&["ledger", "show", "pump", "m-7"]);
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.code() == Some(74) && said.contains(remedy), "{said}");
    assert_eq!(slave.writes(), []);
}
