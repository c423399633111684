//! systemd's watchdog is fed by the progress of every part: each part is made to stick, and from then on the daemon is
//! silent, so that systemd starts it anew. What was on its way is then sorted out as after any crash (G1, G3, G11).

use std::time::{Duration, Instant};

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{self, eventually_within, Site};
use fieldbridge::demo::hub::C2d;
use fieldbridge::health::pulse;

/// What systemd would allow.
const WATCHDOG: Duration = Duration::from_secs(3);

/// Sticks a part of a daemon, and waits until it says so and feeds the watchdog no more. The next life is sound.
fn sticks(part: &str, says: &str, state: &str) {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let site = Site::at(&hub, &support::pump(slave.address(), "after-execution", ""));
    // The write by which a new ledger comes to be trusted would be the one that sticks.
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    let period = WATCHDOG.as_micros().to_string();
    let daemon = site.spawn(&[], &[("WATCHDOG_USEC", &period), ("FIELDBRIDGE_STICK_AT", part)]);
    // A ledger that sticks does so with its first write, which may come before the first sign of life.
    daemon.told(if part == "ledger" { "READY=1" } else { "WATCHDOG=1" });
    let began = Instant::now();
    let mut sent = false;
    let limit = 3 * (pulse::PATIENCE + Duration::from_secs(95));
    eventually_within(limit, says, || {
        if !sent && hub.is_subscribed("pump") {
            hub.send("pump", C2d::new("m-1", "7").property("command", "pulse")).unwrap();
            sent = true;
        }
        // What nobody reads would wait in the socket.
        daemon.silent_for(Duration::ZERO);
        daemon.log().contains(says).then_some(())
    });
    println!("{part}: stuck after {:.0} s", began.elapsed().as_secs_f32());
    // What it said before that is behind it. From here on systemd would wait in vain.
    let silence = daemon.silent_for(WATCHDOG + WATCHDOG / 2);
    assert!(silence.iter().all(|line| !line.contains("WATCHDOG=1")), "{part}: {silence:?}");
    daemon.kill();
    let daemon = site.start();
    if sent {
        site.wait_for_row("m-1", state);
        assert!(slave.count(2, 7) <= 1);
    }
    drop(daemon);
}

#[test]
fn a_part_that_sticks_stops_the_feeding() {
    // `m-1` is executed in the next life where it was not told before: its deadline passes while the bus sticks.
    let parts = [
        ("session", "the identity pump", "succeeded"),
        ("outbox", "the identity pump", "succeeded"),
        ("bus", "bus plant", "expired"),
        ("ledger", "the ledger is", "succeeded"),
    ];
    std::thread::scope(|scope| {
        for (part, says, state) in parts {
            scope.spawn(move || sticks(part, &format!("{says} "), state));
        }
    });
}

#[test]
fn a_daemon_that_has_nothing_to_do_feeds_the_watchdog() {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let site = Site::at(&hub, &support::pump(slave.address(), "after-execution", ""));
    let daemon = site.spawn(&[], &[("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string())]);
    let began = Instant::now();
    while began.elapsed() < pulse::PATIENCE + pulse::TICK {
        daemon.told("WATCHDOG=1");
    }
    assert!(!daemon.log().contains("stuck"), "{}", daemon.log());
}
