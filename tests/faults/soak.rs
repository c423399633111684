//! Proves G2, G3, G7 and G10 over a year, and that nothing grows in it: the real daemon lives hour after hour in
//! seconds, because its clocks, the monotonic one too, are set forward an hour each time that it has done its work
//! (libfaketime). Tokens are renewed, the ledger ages and is pruned, as in a year.
//!
//! Not compressed: what happens within an hour. An hour here has its commands and one renewal of each token, and one
//! ping in place of sixty.
//!
//! `FIELDBRIDGE_ROUNDS` is a number of months, of 30 days and 82,800 commands each: 12 are a year with a million
//! commands. With it renewals go on for two minutes. By default it is five days.

use std::time::{Duration, Instant};

use crate::support::fleet::Fleet;
use crate::support::process::Figures;
use crate::support::rows::{reset, HUB};
use crate::support::wall::Wall;
use crate::support::{eventually_within, PATIENCE};
use fieldbridge::command::decide::Known;
use fieldbridge::command::outcome::{Outcome, State};
use fieldbridge::demo::hub::{End, Options, Wire};
use fieldbridge::ledger::{Finish, Ledger, NewRow};
use fieldbridge::time::Timestamp;

const HOUR: i64 = 3600;
const DEVICES: usize = 5;
/// How long one hour's work may take.
const HOURS_WORK: Duration = Duration::from_secs(60);
/// A log that grows beyond this is not emptied as it should be.
const WAL_BYTES_MAX: u64 = 8 << 20;
/// What the ledger keeps, in hours.
const RETENTION_HOURS: usize = 48;

/// The daemon at a moment of its life.
#[derive(Debug, Clone, Copy)]
struct Sample {
    hour: usize,
    figures: Figures,
    ledger_bytes: u64,
    wal_bytes: u64,
    rows: u64,
    outbox: u64,
}

impl Sample {
    fn take(fleet: &Fleet, pid: u32, hour: usize) -> Sample {
        let size = |name: &str| std::fs::metadata(fleet.site.path(name)).map_or(0, |meta| meta.len());
        let status = fleet.status();
        let number = |of: &str, key: &str| status[of][key].as_u64().expect("status has it");
        Sample {
            hour,
            figures: Figures::of(pid),
            ledger_bytes: size("ledger.db"),
            wal_bytes: size("ledger.db-wal"),
            rows: number("ledger", "rows"),
            outbox: number("outbox", "pending"),
        }
    }

    fn print(&self) {
        let Sample { hour, figures, ledger_bytes, wal_bytes, rows, outbox } = self;
        let Figures { resident, handles, threads, cpu, .. } = figures;
        println!(
            "day {:3}: {resident} kB resident, {handles} handles, {threads} threads, {cpu:.1?} of processor time; ledger \
             {ledger_bytes} bytes, {rows} rows, its log {wal_bytes}, outbox {outbox}",
            hour / 24
        );
    }
}

/// After the first third nothing may grow any more, but for what memory allocators do.
fn check_that_nothing_grows(samples: &[Sample]) {
    let (warm_up, rest) = samples.split_at(samples.len() / 3);
    let (middle, last) = rest.split_at(rest.len() / 2);
    assert!(!warm_up.is_empty() && !middle.is_empty(), "too few samples");
    type Get = fn(&Sample) -> u64;
    let kinds: [(&str, Get, u64); 5] = [
        ("resident memory in kB", |sample| sample.figures.resident, 1024),
        ("handles", |sample| sample.figures.handles as u64, 2),
        ("threads", |sample| sample.figures.threads, 1),
        ("bytes of the ledger", |sample| sample.ledger_bytes, 64 * 1024),
        ("rows", |sample| sample.rows, 0),
    ];
    for (what, get, allowance) in kinds {
        let most = |samples: &[Sample]| samples.iter().map(get).max().expect("there are samples");
        let (before, after) = (most(middle), most(last));
        println!("most {what}: {} at first, then {before}, then {after}", most(warm_up));
        // An hour's rows more or less: pruning and the sample don't meet at the same moment.
        let allowance = allowance + before / 50;
        assert!(after <= before + allowance, "{what} grow: {before}, then {after}");
    }
}

#[test]
fn in_a_year_nothing_grows_and_every_command_is_done_once() {
    let (days, hourly) = match std::env::var("FIELDBRIDGE_ROUNDS") {
        Ok(months) => (30 * months.parse::<usize>().expect("a whole number"), 115),
        Err(_) => (5, 10),
    };
    let mut fleet = Fleet::new(DEVICES, 2, "connect_rate = 1000", Options::default());
    fleet.site.configure("[ledger]\n", "[ledger]\nretention = \"2d\"\n");
    let clocks = Wall::with_monotonic(&fleet.site.path(""));
    let daemon = fleet.start_under(&clocks);
    fleet.connected(PATIENCE);
    let (mut samples, mut connections, began) = (Vec::new(), 0, Instant::now());
    for hour in 0..days * 24 {
        // Gives most acknowledgements of result events time to come: for one that is under way an hour passes, too, and
        // its connection ends. That is as it should be, and takes time.
        std::thread::sleep(Duration::from_millis(10));
        clocks.shift(hour as i64 * HOUR);
        for n in 0..hourly {
            assert!(fleet.send((hour + n) % DEVICES), "a queue has 50 places");
        }
        fleet.work_is_done(HOURS_WORK);
        let wire = fleet.hub.take_wire();
        connections += wire.iter().filter(|event| matches!(event.what, Wire::Connected { .. })).count();
        if hour % 6 == 5 {
            samples.push(Sample::take(&fleet, daemon.pid(), hour));
        }
        if hour % (days * 24 / 30) == 0 {
            samples.iter().next_back().into_iter().for_each(Sample::print);
        }
    }
    println!("{days} days in {:?}: {} commands, {connections} connections", began.elapsed(), fleet.sent());
    fleet.check();
    check_that_nothing_grows(&samples);
    let log = samples.iter().map(|sample| sample.wal_bytes).max().expect("there are samples");
    assert!(log < WAL_BYTES_MAX, "the log has {log} bytes");
    for sample in &samples {
        // Pruned every hour; what came within the retention time is all there.
        let (kept, most) = (hourly * RETENTION_HOURS.min(sample.hour), hourly * (RETENTION_HOURS + 2));
        assert!((kept as u64..=most as u64).contains(&sample.rows), "{} rows at hour {}", sample.rows, sample.hour);
    }
    assert!(connections >= days * 24, "tokens are renewed as time goes by");
    fleet.site.settled();
    assert!(daemon.terminate().success());
}

#[test]
fn hundreds_of_renewals_lose_and_repeat_nothing() {
    let (identities, time) = match std::env::var_os("FIELDBRIDGE_ROUNDS") {
        Some(_) => (200, Duration::from_secs(120)),
        None => (100, Duration::from_secs(12)),
    };
    let mut fleet = Fleet::new(identities, 4, "connect_rate = 1000\ntoken_lifetime = \"10s\"", Options::default());
    let daemon = fleet.start();
    fleet.connected(PATIENCE);
    fleet.hub.take_wire();
    let (began, mut ends, mut others, mut turn) = (Instant::now(), 0, Vec::new(), 0);
    let mut entries = Vec::new();
    while began.elapsed() < time {
        for _ in 0..20 {
            turn += 1;
            fleet.send(turn % identities);
        }
        std::thread::sleep(Duration::from_millis(100));
        fleet.tally();
        entries.extend(fleet.hub.take_wire());
    }
    fleet.work_is_done(HOURS_WORK);
    entries.extend(fleet.hub.take_wire());
    for event in &entries {
        match &event.what {
            // A hub that was just writing does not get to read the DISCONNECT.
            Wire::Closed { end: End::Disconnect | End::Gone } => ends += 1,
            Wire::Closed { .. } | Wire::Refused { .. } => others.push(event),
            _ => {}
        }
    }
    let publishes = entries.iter().filter(|event| matches!(event.what, Wire::Publish { .. })).count();
    println!(
        "{} commands, {publishes} deliveries, {ends} renewals in {:?}, {} events came again",
        fleet.sent(),
        began.elapsed(),
        fleet.repeated_events
    );
    assert!(others.is_empty(), "connections ended otherwise: {others:?}");
    // Each renews within 7 to 8 seconds, or up to 10 later if it has work.
    assert!(ends >= identities / 2, "only {ends} renewals");
    fleet.check();
    assert!(daemon.terminate().success());
}

/// A row that was written, and when.
struct Written {
    id: String,
    at: tokio::time::Instant,
}

/// Opens the ledger once the daemon before has let go of it.
fn reopen(path: &std::path::Path) -> Ledger {
    eventually_within(PATIENCE, "the ledger is free", || Ledger::open(path, HUB, &[]).ok())
}

#[tokio::test(start_paused = true)]
async fn through_reboots_and_power_cuts_a_row_outlives_every_redelivery_and_goes_in_the_end() {
    let seed =
        std::env::var("FIELDBRIDGE_SEED").map_or_else(|_| fastrand::u64(..1_000_000), |text| text.parse().unwrap());
    println!("FIELDBRIDGE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let retention = Duration::from_secs(2 * 86_400);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let (mut written, mut most, mut cuts, mut checks, mut pruned) = (Vec::<Written>::new(), 0, 0, 0, 0);
    for life in 0..150 {
        let ledger = reopen(&path);
        for hour in 0..random.u32(..60) {
            let id = format!("m-{life}-{hour}");
            written.push(Written { id: id.clone(), at: tokio::time::Instant::now() });
            ledger.finish(finished(&id)).await.unwrap();
            tokio::time::advance(Duration::from_secs(random.u64(1..7200))).await;
            ledger.prune(retention).await;
        }
        most = most.max(ledger.counts().await.unwrap().0);
        for row in &written {
            let found = ledger.lookup(HUB, "pump", Some(&row.id), [1; 32]).await.unwrap().known;
            let is_known = found == Known::Row(State::Succeeded);
            if row.at.elapsed() <= retention {
                checks += 1;
                assert!(is_known, "{} is forgotten after {:?}", row.id, row.at.elapsed());
            } else if !is_known {
                pruned += 1;
            }
        }
        written.retain(|row| row.at.elapsed() <= retention * 10);
        // A power cut loses what was not saved of the ledger's age; a stop saves it.
        match random.bool() {
            true => ledger.close().await,
            false => cuts += 1,
        }
        drop(ledger);
        tokio::time::advance(Duration::from_secs(random.u64(..86_400))).await;
    }
    println!("{cuts} power cuts, {checks} rows were to be known, {pruned} were found pruned, {most} rows at most");
    assert!(cuts > 0 && checks > 0 && pruned > 0);
    // About a row an hour, for the retention time; what a power cut loses of the age prolongs it.
    assert!(most < 48 * 5, "{most} rows");
}

fn finished(id: &str) -> Finish {
    let new = NewRow { received_at: Timestamp(0), ..reset(Some(id)) };
    Finish { row: None, new, outcome: Outcome::succeeded(None), attempts: 1, sent_at: None, finished_at: Timestamp(0) }
}
