//! Proves G16 as far as it is the ledger's: what an operation costs does not grow with the rows. Cost is pages that are
//! read and steps that SQLite takes, not time.
//!
//! Ledgers of 100,000 and 1,000,000 rows; `FIELDBRIDGE_SCALE=5000000` adds one of so many. The costs are printed side
//! by side.

mod pages;
mod steps;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::many::{self, DEVICES};
use fieldbridge::command::decide::Known;
use fieldbridge::command::outcome::{Outcome, State};
use fieldbridge::command::Envelope;
use fieldbridge::ledger::row::Source;
use fieldbridge::ledger::{Finish, Ledger, NewRow, Reader};
use fieldbridge::time::Timestamp;
use rusqlite::{params, Connection};
use tempfile::TempDir;

const HUB: &str = "a.azure-devices.net";
/// What a tree that is a level or two deeper may cost more, in pages.
const DEEPER: u64 = 24;
/// What may cost more because other rows lie beside, in steps.
const STEPS_MORE: u64 = 200;

/// A ledger with so many rows, of which a tenth have one message id, whose reuse was refused.
struct Filled {
    _folder: TempDir,
    path: PathBuf,
    rows: u32,
}

async fn filled(rows: u32) -> Filled {
    let folder = tempfile::Builder::new().prefix(pages::FOLDER).tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    Ledger::open(&path, HUB, &[]).unwrap().close().await;
    let begun = Instant::now();
    many::fill(&path, rows);
    // A device that says little: three rows of long ago, and one that came without a message id.
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE command SET device = 'rare' WHERE id IN (11, 12, 13)", []).unwrap();
    let without_id = "UPDATE command SET device = 'rare', message_id = NULL WHERE id = ?1";
    db.execute(without_id, [rows - 5]).unwrap();
    // The newest but one that is in doubt, of an operator's.
    assert_eq!(db.execute(without_id, [rows - 93]).unwrap(), 1);
    // Whoever uses an id again and again for another command has it refused, whether by messages or by calls.
    let reused = "UPDATE command SET error_code = 'message-id-reused', source = ?1
         WHERE hub = 1 AND device = ?2 AND message_id = 'heartbeat' AND id > ?3";
    for (source, device, first) in [("hub", "device-0", DEVICES), ("method", "device-10", 10)] {
        assert!(db.execute(reused, params![source, device, first]).unwrap() as u32 > rows / 300, "{device}");
    }
    db.execute("UPDATE command SET source = 'method' WHERE id = 10", []).unwrap();
    db.close().unwrap();
    println!(
        "{rows} rows: made in {:.1} s, {} MB",
        begun.elapsed().as_secs_f64(),
        path.metadata().unwrap().len() >> 20
    );
    Filled { _folder: folder, path, rows }
}

fn message(device: u32, id: &str, digest: [u8; 32]) -> NewRow {
    NewRow {
        hub: HUB.into(),
        source: Source::Hub,
        device: format!("device-{device}"),
        message_id: Some(id.to_owned()),
        digest,
        command: Some("set-speed".into()),
        value: Some(42.into()),
        received_at: Timestamp(1_800_000_000_000),
        expires_at: None,
        envelope: Envelope::default(),
    }
}

fn finish(new: NewRow) -> Finish {
    Finish {
        row: None,
        new,
        outcome: Outcome::succeeded(None),
        attempts: 1,
        sent_at: None,
        finished_at: Timestamp(1_800_000_000_500),
    }
}

/// What an operation costs.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    pages: u64,
    steps: u64,
    time: Duration,
}

/// What operations cost, by name, in order.
#[derive(Default)]
struct Costs(Vec<(&'static str, Cost)>);

impl Costs {
    async fn of<T>(&mut self, what: &'static str, operation: impl Future<Output = T>) -> T {
        let (pages, steps, begun) = (pages::read_so_far(), steps::taken_so_far(), Instant::now());
        let done = operation.await;
        let (pages, steps) = (pages::read_so_far() - pages, steps::taken_so_far() - steps);
        self.0.push((what, Cost { pages, steps, time: begun.elapsed() }));
        done
    }
}

/// The digest that a row was made with.
fn digest(number: u32) -> [u8; 32] {
    format!("{number:032}").into_bytes().try_into().unwrap()
}

async fn costs(filled: &Filled) -> Costs {
    let mut costs = Costs::default();
    let path = &filled.path;
    let ledger = costs.of("start", async { Ledger::open(path, HUB, &[]).unwrap() }).await;
    let left = costs.of("unfinished, all", ledger.unfinished(None)).await.unwrap();
    assert_eq!(left.len() as u32, filled.rows.min(100_000) / 1000);
    let reload = async {
        for device in 0..DEVICES {
            ledger.unfinished(Some(&format!("device-{device}"))).await.unwrap();
        }
    };
    costs.of("reload, 250 devices", reload).await;
    lookups(&ledger, filled, &mut costs).await;
    writes(&ledger, &mut costs).await;
    costs.of("counts", ledger.counts()).await.unwrap();
    costs.of("list", async { Reader::open(path).unwrap().list(None, None, 50).unwrap() }).await;
    let in_doubt = async { Reader::open(path).unwrap().list(None, Some(State::InDoubt), 50).unwrap().rows };
    assert_eq!(costs.of("list, in doubt", in_doubt).await.len(), 50);
    let newest = i64::from(filled.rows);
    for (what, state, rows) in [
        ("list, a device of few", None, vec![newest - 5, newest - 93, 13, 12, 11]),
        ("list, a device, in doubt", Some(State::InDoubt), vec![newest - 93]),
        ("list, a device, accepted", Some(State::Accepted), vec![]),
    ] {
        let listed = async { Reader::open(path).unwrap().list(Some("rare"), state, 50).unwrap() };
        let found = costs.of(what, listed).await;
        assert_eq!(found.rows.iter().map(|row| row.row.number()).collect::<Vec<_>>(), rows, "{what}");
        // What is not over is found by that. A hundredth of all rows are in doubt, of which a thousand are looked at.
        assert_eq!(found.not_looked_through.is_none(), state == Some(State::Accepted), "{what}");
    }
    let show = async { Reader::open(path).unwrap().show("device-0", "heartbeat").unwrap() };
    assert!(costs.of("show, a reused id", show).await.is_some());
    assert!(costs.of("show, a row", async { Reader::open(path).unwrap().show_row(77).unwrap() }).await.is_some());
    ledger.close().await;
    costs
}

async fn lookups(ledger: &Ledger, filled: &Filled, costs: &mut Costs) {
    let known = 77;
    let (device, id) = (format!("device-{known}"), format!("a0eebc99-9c0b-4ef8-bb6d-{known:012}"));
    let found = costs.of("look-up, known", ledger.lookup(HUB, &device, Some(&id), digest(known))).await.unwrap();
    assert_eq!(found.row.map(|row| row.number()), Some(known.into()));
    let reused = ledger.lookup(HUB, "device-0", Some("heartbeat"), [7; 32]);
    assert_eq!(costs.of("look-up, reused", reused).await.unwrap().known, Known::OtherBody);
    for (what, source, device, value, row) in [
        ("look-up, reused by messages, of a message", Source::Hub, 0, 42.5, None),
        ("look-up, reused by messages, of a call", Source::Method, 0, 42.5, Some(DEVICES)),
        ("look-up, reused by messages, of another call", Source::Method, 0, 1.0, None),
        ("look-up, reused by calls, of a message", Source::Hub, 10, 42.5, Some(10)),
        ("look-up, reused by calls, of another message", Source::Hub, 10, 1.0, None),
        ("look-up, reused by calls, of a call", Source::Method, 10, 42.5, None),
    ] {
        let asked = NewRow { source, value: Some(value.into()), ..message(device, "heartbeat", [7; 32]) };
        let found = costs.of(what, ledger.find(&asked)).await.unwrap();
        assert_eq!(found.row.map(|row| row.number()), row.map(i64::from), "{what}");
        assert_eq!(found.known == Known::OtherBody, row.is_none(), "{what}");
    }
    let elsewhere = ledger.lookup("b.azure-devices.net", &device, Some(&id), digest(known));
    assert!(costs.of("look-up, at another hub", elsewhere).await.unwrap().elsewhere.is_some());
    let new = ledger.lookup(HUB, "device-1", Some("new"), [7; 32]);
    assert_eq!(costs.of("look-up, new", new).await.unwrap().known, Known::New);
    println!("{} rows: {} kB tell which ids are new", filled.rows, ledger.filter_bytes() >> 10);
}

async fn writes(ledger: &Ledger, costs: &mut Costs) {
    let (row, _receipt) = costs.of("accept", ledger.accept(message(1, "accepted", [7; 32]))).await.unwrap();
    costs.of("begin", ledger.begin(Some(row), message(1, "accepted", [7; 32]))).await.unwrap();
    let end = Finish { row: Some(row), ..finish(message(1, "accepted", [7; 32])) };
    costs.of("finish", ledger.finish(end)).await.unwrap();
    costs.of("finish, at once", ledger.finish(finish(message(2, "at once", [7; 32])))).await.unwrap();
    let events = costs.of("events", ledger.events("device-1", 0, 16)).await.unwrap();
    assert_eq!(events.len(), 1);
    costs.of("event removed", ledger.event_acknowledged(events[0].seq)).await;
    costs.of("prune, nothing", ledger.prune(Duration::from_secs(400_000_000))).await;
}

async fn prune_cost(filled: &Filled) -> Cost {
    let db = Connection::open(&filled.path).unwrap();
    db.execute("UPDATE command SET seen = 1 WHERE id BETWEEN 2001 AND 2040", []).unwrap();
    db.close().unwrap();
    let ledger = Ledger::open(&filled.path, HUB, &[]).unwrap();
    let (rows, _) = ledger.counts().await.unwrap();
    let mut costs = Costs::default();
    costs.of("prune", ledger.prune(Duration::from_secs(900_000))).await;
    assert_eq!(ledger.counts().await.unwrap().0, rows - 40, "all but those that were just made old stay");
    ledger.close().await;
    costs.0[0].1
}

/// What versions of before have asked of a ledger, which its schema can't answer without going through all rows.
const SCANS: [&str; 5] = [
    "SELECT count(*) FROM command NOT INDEXED",
    "SELECT max(seen) FROM command NOT INDEXED",
    "SELECT id FROM command NOT INDEXED WHERE finished_at IS NULL",
    "SELECT id, digest FROM command WHERE device = 'device-0' AND message_id = 'heartbeat'",
    "SELECT id FROM command WHERE device = 'rare' ORDER BY id DESC LIMIT 50",
];

fn scan_costs(filled: &Filled) -> Vec<(u64, u64)> {
    let db = Connection::open(&filled.path).unwrap();
    let scan = |sql: &&str| {
        let before = (pages::read_so_far(), steps::taken_so_far());
        let mut statement = db.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while rows.next().unwrap().is_some() {}
        (pages::read_so_far() - before.0, steps::taken_so_far() - before.1)
    };
    SCANS.iter().map(scan).collect()
}

#[tokio::test]
async fn what_an_operation_costs_does_not_grow_with_the_rows() {
    pages::count();
    steps::count();
    let more = std::env::var("FIELDBRIDGE_SCALE").ok().map(|rows| rows.parse().unwrap());
    let sizes: Vec<u32> = [100_000, 1_000_000].into_iter().chain(more).collect();
    let mut columns = Vec::new();
    for rows in &sizes {
        let filled = filled(*rows).await;
        let mut of_size = costs(&filled).await;
        of_size.0.push(("prune, 40 rows", prune_cost(&filled).await));
        columns.push((of_size, scan_costs(&filled)));
    }
    println!("{:46}{}", "pages, steps (ms)", sizes.iter().map(|rows| format!("{rows:>27}")).collect::<String>());
    let mut grown = Vec::new();
    for (number, (what, least)) in columns[0].0 .0.iter().enumerate() {
        let cells: Vec<Cost> = columns.iter().map(|(costs, _)| costs.0[number].1).collect();
        let cell = |Cost { pages, steps, time }: &Cost| {
            format!("{pages:>8} {steps:>8} ({:>6.2})", time.as_secs_f64() * 1000.0)
        };
        println!("{what:46}{}", cells.iter().map(cell).collect::<String>());
        // Each of the devices' questions may go down one level more.
        let deeper = if what.starts_with("reload") { DEEPER + u64::from(DEVICES) } else { DEEPER };
        let has_grown =
            |cost: &Cost| cost.pages > 2 * least.pages + deeper || cost.steps > 2 * least.steps + STEPS_MORE;
        // A person who asks for an id that was reused again and again has all its rows looked at; no command waits.
        let is_asked_by_a_person = *what == "show, a reused id";
        if !is_asked_by_a_person && cells.iter().any(has_grown) {
            grown.push(format!("{what}: {cells:?}"));
        }
    }
    for (number, sql) in SCANS.iter().enumerate() {
        let costs: Vec<(u64, u64)> = columns.iter().map(|(_, scans)| scans[number]).collect();
        let [(pages, steps), (more_pages, more_steps)] = costs[..2] else { unreachable!("two sizes at least") };
        assert!(more_pages > 2 * pages + DEEPER, "the pages show no scan in {sql}: {costs:?}");
        // To count the rows of a table is one step, however many pages that reads.
        let is_one_step = sql.contains("count(*)");
        assert!(is_one_step || more_steps > 2 * steps + STEPS_MORE, "the steps show no scan in {sql}: {costs:?}");
    }
    assert!(grown.is_empty(), "what costs more with more rows: {grown:#?}");
}
