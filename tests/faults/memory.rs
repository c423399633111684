//! Proves G11 and G16 for a small machine: 100 identities over TLS, each with a full queue, and a network that goes
//! away and comes back again and again, in 64 MB of memory, page cache of the ledger included, as `MemoryMax=64M`
//! counts it. Also with bodies as large as a hub lets through, and peripherals that hold everything up.
//!
//! The limit is the kernel's own: a memory cgroup of version 1 or 2. This needs root. Figures for docs/PERFORMANCE.md
//! come from `cargo test --test faults memory:: -- --nocapture`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::fleet::Fleet;
use crate::support::process::Figures;
use crate::support::slave::Mood;
use crate::support::{eventually, eventually_within};
use fieldbridge::demo::hub::{Cut, Options, Redelivery};

const LIMIT: u64 = 64 * 1024 * 1024;
const IDENTITIES: usize = 100;
/// What a hub's queue holds.
const QUEUED: usize = 50;
const STORMS: usize = 3;
/// One at a time: each has the whole machine.
static TURN: Mutex<()> = Mutex::new(());
const PATIENCE: Duration = Duration::from_secs(120);

/// A memory cgroup of the test's own.
struct Cage {
    folder: PathBuf,
    /// Files of the limit, of the peak, and of the processes that were killed, by version.
    files: [&'static str; 3],
}

impl Cage {
    /// One with a limit, in whichever hierarchy has the controller.
    fn new() -> Cage {
        let v1 = ["memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"];
        let v2 = ["memory.max", "memory.peak", "memory.events"];
        static CAGES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fieldbridge-test-{}-{}", std::process::id(), CAGES.fetch_add(1, Ordering::Relaxed));
        for (root, files) in [("/sys/fs/cgroup/memory", v1), ("/sys/fs/cgroup", v2)] {
            let cage = Cage { folder: Path::new(root).join(&name), files };
            if !Path::new(root).join("cgroup.procs").exists() || std::fs::create_dir(&cage.folder).is_err() {
                continue;
            }
            if std::fs::write(cage.folder.join(files[0]), LIMIT.to_string()).is_ok() {
                return cage;
            }
        }
        panic!("this test sets a limit in a memory cgroup: run it as root where there is one");
    }

    /// The words under which a program lives in it.
    fn wrapper(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }

    fn read(&self, file: usize) -> String {
        std::fs::read_to_string(self.folder.join(self.files[file])).expect("a cgroup can be read")
    }

    /// The most that was ever charged to it, in bytes.
    fn peak(&self) -> u64 {
        self.read(1).trim().parse().expect("it is a number")
    }

    /// Processes that the kernel has killed for want of memory.
    fn killed(&self) -> u64 {
        let text = self.read(2);
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("it is counted");
        line.trim().parse().expect("it is a number")
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // Its last process may be about to end; what remains is an empty folder.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_hundred_identities_with_full_queues_and_reconnect_storms_live_in_64_megabytes() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cage = Cage::new();
    let options = Options { redelivery: Redelivery::SameConnection, ..Options::default() };
    let mut fleet = Fleet::new(IDENTITIES, 4, "connect_rate = 1000", options);
    let wrapper = cage.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let daemon = fleet.start_under_program(&wrapper);
    fleet.connected(PATIENCE);
    println!("idle: {:?}, of the cgroup at most {} kB", Figures::of(daemon.pid()), cage.peak() / 1024);
    assert!(daemon.terminate().success());

    for device in 0..IDENTITIES {
        assert!((0..QUEUED).all(|_| fleet.send(device)), "a queue has 50 places");
    }
    let daemon = fleet.start_under_program(&wrapper);
    for storm in 0..STORMS {
        // Each with a part of the work done.
        let part = fleet.sent() * (storm + 1) / (STORMS + 1);
        eventually("a part of the work", || (fleet.tally() >= part).then_some(()));
        for device in fleet.devices() {
            fleet.hub.cut(device, Cut::Reset);
        }
        fleet.hub.unplug();
        std::thread::sleep(Duration::from_millis(500));
        fleet.hub.plug_in();
    }
    fleet.work_is_done(PATIENCE);
    fleet.connected(PATIENCE);
    fleet.check();
    let figures = Figures::of(daemon.pid());
    println!(
        "{} commands, {STORMS} storms: {figures:?}; peak resident {} kB, peak of the cgroup {} kB of {} kB, {} killed",
        fleet.sent(),
        figures.peak,
        cage.peak() / 1024,
        LIMIT / 1024,
        cage.killed(),
    );
    assert_eq!(cage.killed(), 0);
    assert!(daemon.terminate().success());
}

/// Deliveries that the daemon has counted since its start, over all identities.
fn deliveries(fleet: &Fleet) -> u64 {
    let status = fleet.status();
    let devices = status["devices"].as_array().expect("it lists them");
    devices.iter().map(|device| device["received"].as_u64().expect("it counts")).sum()
}

#[test]
fn bodies_of_60_kilobytes_that_wait_behind_silent_peripherals_and_flapping_links_are_not_kept() {
    const FLAPS: u64 = 3;
    /// Of 60 kB each: enough to fill the limit with the first connection alone, if they were kept.
    const EACH: usize = 20;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cage = Cage::new();
    let options = Options { redelivery: Redelivery::SameConnection, window: EACH, ..Options::default() };
    let mut fleet = Fleet::new(IDENTITIES, 4, "connect_rate = 1000", options);
    fleet.site.configure("kind = \"modbus-tcp\"", "kind = \"modbus-tcp\"\nresponse_timeout = \"170s\"");
    let wrapper = cage.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let daemon = fleet.start_under_program(&wrapper);
    fleet.connected(PATIENCE);
    println!("idle: {:?}, of the cgroup at most {} kB", Figures::of(daemon.pid()), cage.peak() / 1024);

    fleet.set_mood(Mood::Held);
    let note = "x".repeat(60_000);
    for device in 0..IDENTITIES {
        assert!((0..EACH).all(|_| fleet.send_with_note(device, &note)), "a queue has 50 places");
    }
    let each = fleet.sent() as u64;
    for flaps in 0..=FLAPS {
        if flaps > 0 {
            for device in fleet.devices() {
                fleet.hub.cut(device, Cut::Reset);
            }
        }
        // Each connection brings the whole queue.
        eventually_within(PATIENCE, "everything delivered", || {
            (deliveries(&fleet) >= each * (flaps + 1)).then_some(())
        });
        println!("{flaps} flaps: {:?}, of the cgroup at most {} kB", Figures::of(daemon.pid()), cage.peak() / 1024);
    }
    fleet.set_mood(Mood::Good);
    fleet.work_is_done(PATIENCE);
    fleet.check();
    println!("{each} commands: {:?}, of the cgroup at most {} kB", Figures::of(daemon.pid()), cage.peak() / 1024);
    assert_eq!(cage.killed(), 0);
    assert!(daemon.terminate().success());
}
