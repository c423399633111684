//! Proves G2, G3, G5, G7 and G11 under load: a whole site's identities connect at once, each with a full queue, and
//! every command is performed once, completed once, and told of. Also what a hub costs that refuses, throttles or
//! kicks for long, and how soon all identities are back when it ends.
//!
//! `FIELDBRIDGE_ROUNDS=1` (or more) runs the full size: 1,000 identities with 50 commands each, 90 s of each trouble.
//! Figures for docs/PERFORMANCE.md come from
//! `FIELDBRIDGE_ROUNDS=1 cargo test --release --test faults load:: -- --nocapture`.

use std::time::{Duration, Instant};

use crate::support::fleet::Fleet;
use crate::support::process::{cpu_of_threads, Figures};
use crate::support::{eventually_within, hub};
use fieldbridge::demo::hub::{Cut, Kick, Options, Redelivery, Wire};
use fieldbridge::hub::identity::backoff::Backoff;

/// How soon all identities are to be connected again after the hub's trouble has ended.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long a load may take at most.
const REST: Duration = Duration::from_secs(300);

fn is_long() -> bool {
    std::env::var_os("FIELDBRIDGE_ROUNDS").is_some()
}

#[test]
fn all_identities_connect_at_once_with_full_queues_and_each_command_is_done_once() {
    let (identities, queued) = if is_long() { (1000, 50) } else { (200, 20) };
    // On a slow machine a PUBACK may come when the message's lock has run out.
    let options = Options { redelivery: Redelivery::SameConnection, ..Options::default() };
    let mut fleet = Fleet::new(identities, 8, "connect_rate = 1000", options);
    // The hub keeps nothing for a device that has never subscribed.
    let daemon = fleet.start();
    fleet.connected(REST);
    println!("{identities} identities, idle: {:?}", Figures::of(daemon.pid()));
    assert!(daemon.terminate().success());
    for device in 0..identities {
        assert!((0..queued).all(|_| fleet.send(device)), "a queue has 50 places");
    }

    let (began, hub_before) = (Instant::now(), cpu_of_threads(hub::THREAD));
    let daemon = fleet.start();
    let (mut all_connected, mut shown) = (None, 0);
    let done = eventually_within(REST, "every command performed, completed and told of", || {
        let done = fleet.tally();
        if all_connected.is_none() && fleet.connections() == identities {
            all_connected = Some(began.elapsed());
        }
        if done / 10_000 > shown {
            shown = done / 10_000;
            println!("{:6.1} s: {done} done, {:?}", began.elapsed().as_secs_f32(), Figures::of(daemon.pid()));
        }
        std::thread::sleep(Duration::from_millis(20));
        (done == fleet.sent()).then_some(done)
    });
    let time = began.elapsed();
    let figures = Figures::of(daemon.pid());
    println!(
        "all connected after {all_connected:?}; {done} commands in {time:?}: {:.0}/s",
        done as f64 / time.as_secs_f64()
    );
    // Other tests' hubs count as well, and such a one may have ended meanwhile.
    let hubs = cpu_of_threads(hub::THREAD).saturating_sub(hub_before);
    println!("the daemon: {figures:?}; the simulated hub: {hubs:?} of processor time");
    fleet.check();
    fleet.site.settled();
    assert_eq!(fleet.status()["ledger"]["rows"], fleet.sent());
    assert!(daemon.terminate().success());
}

/// Most attempts of one identity in a time, by the design of the waits between them: all of them as short as they can
/// be.
fn attempts_max(time: Duration) -> usize {
    let mut backoff = Backoff::default();
    let mut waited = Duration::ZERO;
    let mut attempts = 1;
    loop {
        waited += backoff.next(0.0);
        if waited > time {
            return attempts;
        }
        attempts += 1;
    }
}

/// A hub that is in trouble for a time: what it costs, and that all are back soon after.
fn trouble(name: &str, begin: impl FnOnce(&mut Fleet), end: impl FnOnce(&mut Fleet)) {
    let (identities, time) = if is_long() { (1000, 90) } else { (50, 8) };
    let time = Duration::from_secs(time);
    let mut fleet = Fleet::new(identities, 1, "", Options::default());
    let daemon = fleet.start();
    fleet.connected(REST);
    fleet.hub.take_wire();
    let log_before = daemon.log().len();
    begin(&mut fleet);
    let (began, before) = (Instant::now(), Figures::of(daemon.pid()));
    std::thread::sleep(time);
    let (elapsed, after) = (began.elapsed(), Figures::of(daemon.pid()));
    let lines = daemon.log()[log_before..].lines().count();
    end(&mut fleet);
    let ended = Instant::now();
    fleet.connected(RECOVERY);
    let back = ended.elapsed();

    let mut attempts = std::collections::BTreeMap::<String, usize>::new();
    for event in fleet.hub.take_wire().into_iter().filter(|event| event.at < (began + elapsed).into()) {
        if matches!(event.what, Wire::Connected { .. } | Wire::Refused { .. }) {
            *attempts.entry(event.device).or_default() += 1;
        }
    }
    let most = attempts.values().copied().max().unwrap_or(0);
    println!(
        "{name}, {identities} identities, {elapsed:.0?}: {:.2} % of a core, {} attempts that the hub saw ({most} at most of \
         one identity, {} allowed), {lines} lines logged, back after {back:.1?}",
        100.0 * (after.cpu - before.cpu).as_secs_f64() / elapsed.as_secs_f64(),
        attempts.values().sum::<usize>(),
        attempts_max(elapsed),
    );
    assert!(most <= attempts_max(elapsed), "{name}: {most}");
    assert!(daemon.terminate().success());
}

fn cut_all(fleet: &mut Fleet) {
    for device in fleet.devices() {
        fleet.hub.cut(device, Cut::Fin);
    }
}

fn refusing(code: u8) {
    let begin = |fleet: &mut Fleet| {
        fleet.hub.refuse_for(Duration::from_secs(3600), code);
        cut_all(fleet);
    };
    trouble(&format!("refused with {code}"), begin, |fleet| fleet.hub.refuse_for(Duration::ZERO, code));
}

fn throttling() {
    let begin = |fleet: &mut Fleet| {
        fleet.hub.delay_connack(if is_long() { Duration::from_secs(50) } else { Duration::from_secs(6) });
        cut_all(fleet);
    };
    trouble("throttled", begin, |fleet| fleet.hub.delay_connack(Duration::ZERO));
}

fn kicking(kick: Kick) {
    let begin = |fleet: &mut Fleet| {
        fleet.hub.kick(Some(kick));
        cut_all(fleet);
    };
    trouble(&format!("kicked {kick:?}"), begin, |fleet| fleet.hub.kick(None));
}

#[test]
fn a_hub_in_trouble_is_left_alone_and_all_identities_are_back_within_a_minute() {
    let cases: [fn(); 6] = [
        || refusing(5),
        || refusing(3),
        || trouble("no network", |fleet| fleet.hub.unplug(), |fleet| fleet.hub.plug_in()),
        throttling,
        || kicking(Kick::AfterConnack),
        || kicking(Kick::AfterSuback),
    ];
    // They do little but wait, so that they can do it side by side.
    std::thread::scope(|scope| cases.into_iter().for_each(|case| drop(scope.spawn(case))));
}
