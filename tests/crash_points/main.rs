//! Crash points, exhaustively: the real daemon ends by SIGKILL at every point that `fieldbridge::proof::crash` names,
//! for every kind of route and both ways to settle, and over every transport where that matters; and the next one is
//! left to sort it out. What became of two commands is counted from outside: on the slave, at the hub, and in the
//! ledger. Proves G1 to G5 and G7, and the crash table.
//!
//! - `table` says what a crash at a point must leave behind, and what that must lead to: derived from the guarantees.
//! - `cases` lists what is run, and which points a route can't reach, with the reason; those are run too, and must not
//!   strike.
//! - `plant` runs one case and holds it against the table.
//!
//! The sample of double crashes prints its seed, and takes it from `FIELDBRIDGE_SEED`. `FIELDBRIDGE_ROUNDS` makes it
//! longer: so many times as many pairs.

#[path = "../support/mod.rs"]
mod support;

mod books;
mod cases;
mod plant;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use cases::{Case, Settle, Wiring, KINDS};
use fieldbridge::proof::crash::Point;
use plant::{Plant, Told};
use support::transports::By;

/// Cases at once, of all tests together. They mostly wait: for the slave, for a quiet line, for a disk.
const CASES: usize = 64;
/// Pairs of crashes in one round of the sample.
const PAIRS: usize = 60;

/// The states that a command of these cases may end in.
const ENDS: [&str; 4] = ["succeeded", "in_doubt", "failed", "rejected"];

/// How many more cases may run, and that there is one more.
static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(CASES), Condvar::new());

/// Runs a case when there is a place for it. A test that is at its last cases leaves the others to the next one.
fn run_in_its_place(case: &Case) -> std::thread::Result<Told> {
    let (places, freed) = &PLACES;
    *freed.wait_while(places.lock().unwrap(), |places| *places == 0).unwrap() -= 1;
    let told = catch_unwind(AssertUnwindSafe(|| Plant::new(case).run()));
    *places.lock().unwrap() += 1;
    freed.notify_one();
    told
}

/// Runs every case, some at a time, and gives what was told of each; says which ones failed.
fn run_all(cases: &[Case]) -> Vec<(&Case, Told)> {
    // A case has some fifty files open, and most shells allow a thousand.
    fieldbridge::handles::raise();
    let (next, told, failed) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CASES.min(cases.len()) {
            scope.spawn(|| loop {
                let Some(case) = next.lock().unwrap().next() else { return };
                match run_in_its_place(case) {
                    Ok(one) => told.lock().unwrap().push((case, one)),
                    Err(_) => failed.lock().unwrap().push(case.to_string()),
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
    told.into_inner().unwrap()
}

#[test]
fn a_crash_at_any_point_leads_to_what_the_crash_table_says() {
    run_the_table(&cases::all(), |point| !table::phase(point).is_of_others() && !cases::is_in_a_row(point));
}

#[test]
fn a_crash_among_what_is_asked_in_a_row_leads_to_what_the_crash_table_says() {
    run_the_table(&cases::in_a_row(), cases::is_in_a_row);
}

#[test]
fn over_amqp_a_crash_leads_to_what_the_crash_table_says() {
    run_a_transport(By::Amqp);
}

#[test]
fn over_https_a_crash_leads_to_what_the_crash_table_says() {
    run_a_transport(By::Https);
}

fn run_a_transport(by: By) {
    let cases = cases::over(by);
    let reachable: BTreeSet<_> = cases.iter().filter(|case| case.is_reachable()).map(Case::point).collect();
    run_the_table(&cases, |point| reachable.contains(&point));
}

/// Runs these cases, each of which must end as the table says, and shows how many did at which point. Every point that
/// is wanted must be struck.
fn run_the_table(cases: &[Case], is_wanted: impl Fn(Point) -> bool) {
    let began = Instant::now();
    let told = run_all(cases);
    let mut counts = BTreeMap::<Point, BTreeMap<String, usize>>::new();
    let mut reached = BTreeSet::new();
    for (case, told) in &told {
        let point = case.point();
        let count = counts.entry(point).or_default();
        *count.entry("cases".into()).or_default() += 1;
        if case.is_reachable() {
            reached.insert(point);
            *count.entry("struck".into()).or_default() += 1;
            *count.entry(told.ends[0].clone()).or_default() += 1;
        }
    }
    // Shown at once, as other tests speak, too.
    let mut shown = format!(
        "{:26} {:>6} {:>7} {:>10} {:>9} {:>7} {:>9}\n",
        "point", "cases", "struck", ENDS[0], ENDS[1], ENDS[2], ENDS[3]
    );
    for point in Point::ALL {
        let of = |what: &str| counts.get(point).and_then(|count| count.get(what)).copied().unwrap_or(0);
        let [cases, struck, a, b, c, d] = ["cases", "struck", ENDS[0], ENDS[1], ENDS[2], ENDS[3]].map(of);
        let _ = writeln!(shown, "{:26} {cases:>6} {struck:>7} {a:>10} {b:>9} {c:>7} {d:>9}", point.name());
        assert_eq!(a + b + c + d, struck, "{}: an end of another kind", point.name());
    }
    let lives: usize = told.iter().map(|(_, told)| told.lives).sum();
    println!("{shown}{} cases, {lives} lives of the daemon, {:.1} s", told.len(), began.elapsed().as_secs_f32());
    let is_missing = |point: &&Point| is_wanted(**point) && !reached.contains(point);
    let missing: Vec<_> = Point::ALL.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "never struck: {missing:?}");
}

#[test]
fn a_first_installation_that_dies_while_it_connects_does_each_command_once_or_says_why_not() {
    for (case, told) in run_all(&cases::first_installations()) {
        let is_known = told.ends.iter().all(|end| matches!(end.as_str(), "succeeded" | "in_doubt"));
        assert!(is_known, "{case}: {:?}", told.ends);
    }
}

#[test]
fn a_request_that_is_taken_up_after_the_crash_is_not_called_undone() {
    let cases = cases::taken_up_late();
    for (case, told) in run_all(&cases) {
        assert_eq!(told.ends, ["succeeded", "succeeded"], "{case}");
    }
}

#[test]
fn a_crash_while_a_crash_is_sorted_out_leads_to_what_the_crash_table_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let seed = number("FIELDBRIDGE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let pairs = PAIRS * number("FIELDBRIDGE_ROUNDS").unwrap_or(1) as usize;
    println!("FIELDBRIDGE_SEED={seed}, {pairs} pairs");
    let cases = cases::pairs(&mut fastrand::Rng::with_seed(seed), pairs);
    let told = run_all(&cases);
    let mut ends = BTreeMap::<_, usize>::new();
    told.iter().flat_map(|(_, told)| &told.ends).for_each(|end| *ends.entry(end).or_default() += 1);
    let both = told.iter().filter(|(_, told)| told.struck == 2).count();
    let one = told.iter().filter(|(_, told)| told.struck == 1).count();
    println!("{both} pairs struck twice, {one} once; the commands ended {ends:?}");
    assert!(both > 0 && both + one > pairs / 2, "the sample hardly struck");
}

#[test]
fn every_point_has_a_name_and_a_sentence_of_its_own() {
    let names: BTreeSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
    let sentences: BTreeSet<_> = Point::ALL.iter().map(|point| point.between()).collect();
    assert_eq!((names.len(), sentences.len()), (Point::ALL.len(), Point::ALL.len()));
    for point in Point::ALL {
        assert!(point.between().ends_with('.'), "{}: {:?}", point.name(), point.between());
    }
}

#[test]
fn every_kind_of_route_is_run_on_every_bus_that_can_carry_it() {
    let cases = cases::all();
    let run: BTreeSet<_> = cases.iter().map(|case| (case.wiring, case.kind, case.settle)).collect();
    for kind in KINDS {
        for settle in [Settle::AfterExecution, Settle::AfterAccept] {
            for wiring in [Wiring::Tcp, Wiring::Rtu, Wiring::Text] {
                assert_eq!(run.contains(&(wiring, kind, settle)), kind.runs_on(wiring), "{wiring:?} {kind:?}");
            }
        }
    }
}
