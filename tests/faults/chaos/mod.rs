//! Proves G1 to G7, G9, G10 and G11 for the real process while everything around it goes wrong, in seeded confusion:
//! the process itself, the network, the hub, the peripherals, their lines, the disk, the clock. When it is over, every
//! message must be completed, in bounded time, and every effect be told truly.
//!
//! Every kind of fault strikes at least once. The seed is printed first; `FIELDBRIDGE_SEED` plays a run's choices
//! again, as far as the machine's timing lets them be the same. `FIELDBRIDGE_SECONDS` makes the run longer (every kind
//! strikes again and again), `FIELDBRIDGE_ROUNDS` asks for so many runs, each with the next seed. It needs root (a
//! small tmpfs) and libfaketime.

mod daemon;
mod faults;
mod plant;
mod proxy;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::books::{number, with_seeds, Fate};
use crate::support::transports::By;
use daemon::Supervisor;
use faults::{Faults, KINDS};
use fieldbridge::demo::hub::Status;
use plant::Plant;

/// How long what the faults have left may take, undisturbed. A hub that was gone for long is tried again after up to
/// 45 s.
const REST: Duration = Duration::from_secs(120);
/// How long all kinds of faults may take to strike once, each tried again where it found nothing to strike.
const CONFUSION: Duration = Duration::from_secs(600);
/// How often the run looks around.
const STEP: Duration = Duration::from_millis(5);
/// How often a command is sent.
const SEND: Duration = Duration::from_millis(30);

#[test]
fn whatever_goes_wrong_around_it_nothing_is_lost_repeated_or_falsely_reported() {
    whatever_goes_wrong(By::Mqtt);
}

#[test]
fn whatever_goes_wrong_around_it_nothing_is_lost_repeated_or_falsely_reported_over_amqp() {
    whatever_goes_wrong(By::Amqp);
}

#[cfg(feature = "proof")] // without it a lock is waited for a minute
#[test]
fn whatever_goes_wrong_around_it_nothing_is_lost_repeated_or_falsely_reported_over_https() {
    whatever_goes_wrong(By::Https);
}

fn whatever_goes_wrong(by: By) {
    with_seeds(&format!("chaos over {by:?}"), |seed| {
        let mut plant = Plant::new(by, seed);
        let mut daemon = Supervisor::new();
        let faults = confuse(&mut plant, &mut daemon);
        println!("{:6.1} s all faults are over", daemon.elapsed());
        let quiet = Instant::now();
        while !plant.books.are_closed(&plant.hub) {
            daemon.tend(&plant);
            assert!(quiet.elapsed() < REST, "{REST:?} after the last fault there is still something to do");
            std::thread::sleep(STEP);
        }
        plant.site.settled();
        println!("{:6.1} s everything is done, {:?} after the last fault", daemon.elapsed(), quiet.elapsed());
        let (starts, refusals) = (daemon.starts, daemon.refusals);
        assert!(daemon.into_daemon().terminate().success());

        let struck: Vec<String> = faults.struck.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        println!("struck: {}; {} had to be tried again", struck.join(", "), faults.missed);
        println!("{starts} starts, {refusals} of them ended by a bad disk");
        judge(&plant);
        for kind in KINDS {
            assert!(faults.struck.contains_key(&kind), "{kind:?} has never struck");
        }
    });
}

/// Lets every kind of fault strike while messages flow.
fn confuse(plant: &mut Plant, daemon: &mut Supervisor) -> Faults {
    let least = Duration::from_secs(number("FIELDBRIDGE_SECONDS").unwrap_or(0));
    let most = least + CONFUSION;
    let mut faults = Faults::default();
    let began = Instant::now();
    let (mut next_fault, mut next_send) = (began + Duration::from_secs(1), began);
    faults.refill(&mut plant.random);
    loop {
        let now = Instant::now();
        daemon.tend(plant);
        faults.end_due(plant, daemon);
        if faults.are_over() {
            if began.elapsed() >= least {
                return faults;
            }
            faults.refill(&mut plant.random);
        }
        assert!(began.elapsed() < most, "after {most:?} there is more to strike: {}", faults.left());
        if now >= next_fault {
            faults.begin_one(plant, daemon);
            next_fault = now + Duration::from_millis(plant.random.u64(200..1200));
        }
        if now >= next_send {
            plant.send_one();
            next_send = now + SEND;
        }
        std::thread::sleep(STEP);
    }
}

/// Counts what became of the commands, and judges it.
fn judge(plant: &Plant) {
    let (books, hub, done) = (&plant.books, &plant.hub, plant.done());
    let fates = books.fates(hub, &done);
    books.print(hub, &fates);
    // Over AMQP and HTTPS what has expired is rejected.
    let is_settled = |status: &Status| matches!(status, Status::Success | Status::Rejected);
    let feedback = hub.feedback().into_iter().filter(|record| is_settled(&record.status));
    let settled: BTreeSet<_> = feedback.filter_map(|record| record.original_message_id).collect();
    let count = |is: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
    let lost = count(&|fate| !settled.contains(&fate.command.id));
    let repeated = count(&|fate| !fate.command.route.is_idempotent() && fate.done > 1);
    let false_success = count(&|fate| fate.status == "succeeded" && fate.done == 0);
    println!(
        "sent {}, executed {}, settled {}, lost {lost}, repeated {repeated}, in doubt {}, false success {false_success}, \
         result events {}",
        books.sent,
        done.len(),
        settled.len(),
        count(&|fate| fate.status == "in_doubt"),
        fates.len(),
    );
    assert_eq!((lost, repeated, false_success), (0, 0, 0));
    books.check(hub, &done);
}
