//! Proves G1 to G15 by deterministic simulation: the whole gateway, with its real ledger on SQLite, lives in one thread
//! among a simulated hub, wires, peripherals, disk and clock, and everything that can go wrong does, by the dice of a
//! seed.
//!
//! The seed of a run is printed first. `FIELDBRIDGE_SEED=n FIELDBRIDGE_ROUNDS=1` plays one schedule again and tells its
//! story; `FIELDBRIDGE_ROUNDS=1000000` is the long run.

mod absences;
mod alarms;
mod amqp;
mod backups;
mod bends;
mod calls;
mod disk;
mod fates;
mod framing;
mod http;
mod hub;
mod instrument;
mod judge;
mod ledger;
mod lines;
mod manners;
mod mqtt;
mod patience;
mod plant;
mod record;
mod request;
mod rows;
mod scenario;
mod schedule;
mod sequences;
mod truth;
mod tuning;
mod tunnel;
mod vfs;
mod wire;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use manners::STRIKES;
use schedule::{run, tell_the_log, watch_for_panics, Desk};
use world::Report;

/// Schedules of a run, unless `FIELDBRIDGE_ROUNDS` says otherwise.
const SCHEDULES: u64 = 5_000;
/// So long a schedule takes at most, in real time. It takes tens of milliseconds.
const SCHEDULE_MAX: Duration = Duration::from_secs(120);
/// Violating schedules that are shown.
const SHOWN_MAX: usize = 5;

/// What must have happened in a run, or it has tested nothing.
const MUST_STRIKE: [&str; 112] = [
    "amqp: a disposition comes too late for its lock",
    "amqp: a disposition is lost with its connection",
    "amqp: a message in several frames",
    "amqp: an event is lost on its way",
    "amqp: closes instead of Open",
    "amqp: closes with an error",
    "amqp: delays its Open",
    "amqp: calls for a method",
    "amqp: delivers again when a lock has run out",
    "amqp: detaches $cbs",
    "amqp: detaches a link of calls",
    "amqp: detaches the link of events",
    "amqp: detaches the link of messages",
    "amqp: ends a session",
    "amqp: gives an event back",
    "amqp: is too busy for a token",
    "amqp: lets events wait for credit",
    "amqp: refuses a link",
    "amqp: refuses a token",
    "amqp: refuses by SASL",
    "amqp: rejects an event",
    "amqp: says nothing of an event",
    "amqp: says nothing to a token",
    "amqp: what is said of an event is lost",
    "calls: an answer comes too late",
    "calls: an answer is lost",
    "calls: failed",
    "calls: in doubt",
    "calls: nobody answers",
    "calls: promised",
    "calls: succeeded",
    "calls: the end again",
    "clock: jumps",
    "clock: put back",
    "clock: put back, and synchronised",
    "crash: while a peripheral works",
    "crashes",
    "disk: a write fails",
    "disk: an fsync fails",
    "disk: full",
    "disk: runs full",
    "ended: expired",
    "ended: failed",
    "ended: in doubt",
    "ended: rejected",
    "ended: succeeded, idempotent",
    "ended: succeeded, not idempotent",
    "https: 401",
    "https: 429",
    "https: 503",
    "https: a message is given back",
    "https: a settlement is lost",
    "https: an answer is cut in the middle",
    "https: an event is lost on its way",
    "https: answers late or never",
    "https: closed",
    "https: delivers again when a lock has run out",
    "https: rejects an event",
    "https: the answer to a poll is lost",
    "https: the answer to a settlement is lost",
    "https: the answer to an event is lost",
    "hub: a PUBACK is lost",
    "hub: a lock had run out",
    "hub: a packet twice",
    "hub: a token has expired",
    "hub: an event is lost on its way",
    "hub: an event's PUBACK is lost",
    "hub: an outage",
    "hub: closes instead of CONNACK",
    "hub: delays its CONNACK",
    "hub: delivers again on the connection, new packet id",
    "hub: delivers again on the connection, same packet id",
    "hub: it was given back before",
    "hub: refuses as busy",
    "hub: refuses the login",
    "judged: a command among reports",
    "judged: a value beside what was said",
    "judged: the order of calls and messages",
    "ledger: trusted",
    "line: a dead one, beside sound ones",
    "line: can't be opened",
    "line: held by another bus",
    "line: is lost",
    "lives ended by the disk",
    "ordered stops",
    "power cuts",
    "rejected",
    "reloads",
    "reloads: a bus moves to another port",
    "reloads: a bus of another kind has a port",
    "reloads: another transport, while a message is unsettled",
    "reloads: another transport, while a message waits",
    "reloads: refused",
    "slave: answers late",
    "slave: answers twice",
    "slave: confirms and does nothing",
    "slave: does it and is mute",
    "slave: does it, and the line ends in the answer",
    "slave: exception 5 or 11",
    "slave: garbled answer",
    "slave: mute",
    "slave: refuses",
    "slave: refuses late",
    "slave: the line ends before an answer",
    "tasks: let wait",
    "tokens renewed",
    "unsynced operations lost: power cuts",
    "wire: closed",
    "wire: half-open",
    "wire: no connection to the hub",
    "wire: reset",
    "witness: rows behind an answer",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

/// What a run of many schedules came to.
#[derive(Default)]
struct Sum {
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, Vec<String>)>,
}

impl Sum {
    fn add(&mut self, seed: u64, report: Report) {
        for (what, count) in report.counts {
            *self.counts.entry(what).or_default() += count;
        }
        if !report.violations.is_empty() {
            self.violations.push((seed, report.violations));
        }
    }
}

/// A violation without what differs from one to the next.
fn kind(violation: &str) -> String {
    let varies =
        |at: &usize| ["Some(", "None ", "\"", "Row", "["].iter().any(|word| violation[*at..].starts_with(word));
    let end = violation.char_indices().map(|(at, _)| at).find(varies).unwrap_or(violation.len());
    let (guarantee, rest) = violation[..end].split_at(end.min(4));
    let without: String = rest.chars().filter(|char| !char.is_ascii_digit()).collect();
    format!("{guarantee}{without}").trim_end_matches([' ', ':']).to_owned()
}

impl Sum {
    /// How many schedules violated what.
    fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for (_, violations) in &self.violations {
            let own: BTreeSet<String> = violations.iter().map(|violation| kind(violation)).collect();
            own.into_iter().for_each(|kind| *kinds.entry(kind).or_default() += 1);
        }
        kinds
    }
}

/// Simulated time stands still while something is busy: who turns in circles comes to no end, and no violation shows
/// it.
fn watch_for_circles(begun: &Mutex<BTreeMap<usize, (u64, Instant)>>, is_over: impl Fn() -> bool) {
    while !is_over() {
        let oldest = begun.lock().expect("nobody panics while adding").values().min_by_key(|(_, at)| *at).copied();
        if let Some((seed, _)) = oldest.filter(|(_, at)| at.elapsed() > SCHEDULE_MAX) {
            eprintln!("scripts/simulate.sh 1 {seed}: it comes to no end: something turns in circles");
            std::process::abort();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Counts whoever has come to the end, of whatever kind.
struct Done<'a>(&'a AtomicU64);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_all(first: u64, count: u64) -> Sum {
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Sum::default()));
    let workers = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let (begun, all_done) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| watch_for_circles(&begun, || all_done.load(Ordering::Relaxed) == workers as u64));
        for worker in 0..workers {
            let (begun, all_done, next, sum) = (&begun, &all_done, &next, &sum);
            scope.spawn(move || {
                let (desk, _done) = (Desk::new(), Done(all_done));
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    begun.lock().expect("nobody panics while adding").insert(worker, (seed, Instant::now()));
                    let report = run(seed, &desk, false);
                    begun.lock().expect("nobody panics while adding").remove(&worker);
                    sum.lock().expect("nobody panics while adding").add(seed, report);
                }
            });
        }
    });
    sum.into_inner().expect("nobody panics while adding")
}

#[test]
fn no_schedule_of_faults_loses_repeats_or_falsely_confirms_a_command() {
    let first = number("FIELDBRIDGE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let count = number("FIELDBRIDGE_ROUNDS").unwrap_or(SCHEDULES);
    println!("FIELDBRIDGE_SEED={first}, {count} schedules");
    watch_for_panics();
    if count == 1 {
        tell_the_log();
        let report = run(first, &Desk::new(), true);
        report.story.iter().for_each(|line| println!("{line}"));
        println!("digest {:016x}", report.digest);
        assert!(report.violations.is_empty(), "{:#?}", report.violations);
        return;
    }
    let sum = run_all(first, count);
    for (what, count) in &sum.counts {
        println!("{count:>12}  {what}");
    }
    for (kind, count) in sum.kinds() {
        println!("{count:>12}  schedules violated: {kind}");
    }
    for (seed, violations) in sum.violations.iter().take(SHOWN_MAX) {
        println!("scripts/simulate.sh 1 {seed}: {violations:#?}");
    }
    if count >= SCHEDULES {
        let idle: Vec<_> = MUST_STRIKE.iter().chain(&STRIKES).filter(|what| !sum.counts.contains_key(*what)).collect();
        assert!(idle.is_empty(), "these never happened, so nothing was tested: {idle:?}");
    }
    assert!(sum.violations.is_empty(), "{} of {count} schedules violated a guarantee", sum.violations.len());
}

#[cfg(tokio_unstable)]
#[test]
fn a_seed_is_a_schedule() {
    let first = number("FIELDBRIDGE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("FIELDBRIDGE_SEED={first}");
    let desk = Desk::new();
    for seed in first..first + 30 {
        let (one, other) = (run(seed, &desk, false), run(seed, &desk, false));
        assert_eq!((one.digest, one.counts), (other.digest, other.counts), "seed {seed}");
    }
}
