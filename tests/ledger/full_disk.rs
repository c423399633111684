//! Proves G9 with the whole daemon: where the ledger can't be written, nothing is begun and nothing is completed. A
//! full disk is waited out; a disk that fails ends the process, and what it left is sorted out by the next one. The
//! disk is a small tmpfs, its failures are strace's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::disk::SmallDisk;
use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::trace::Call;
#[cfg(feature = "proof")]
use crate::support::transports::By;
use crate::support::{eventually, program, pump, require, signal, trace, Daemon, Site, PATIENCE};
use fieldbridge::demo::hub::{Ack, C2d, Status};
#[cfg(feature = "proof")]
use fieldbridge::demo::hub::{Auth, Effect, Options, Wire, WireEvent};
use serde_json::{json, Value as Json};

const BOTH: [&str; 2] = ["after-execution", "after-accept"];

/// What throws a message away that is given back once, and has what is not given back ready soon.
#[cfg(feature = "proof")]
fn strict() -> Options {
    let lock = Duration::from_millis(400);
    Options { tls: false, max_delivery_count: 1, lock, lock_outlives_connection: true, ..Options::default() }
}

/// A pump at a simulated hub, with its ledger on a small disk.
struct Plant {
    site: Site,
    hub: Hub,
    slave: Slave,
    disk: SmallDisk,
}

impl Plant {
    fn new(settle: &str) -> Plant {
        let (hub, slave, disk) = (Hub::plain(&["pump"]), Slave::new(), SmallDisk::new("8m"));
        let site = Site::at(&hub, &pump(slave.address(), settle, "response_timeout = \"20s\""));
        site.keep_ledger_in(disk.path());
        Plant { site, hub, slave, disk }
    }

    /// The same by another transport, at such a hub.
    #[cfg(feature = "proof")]
    fn by(by: By, options: Options, settle: &str) -> Plant {
        let (hub, slave, disk) = (Hub::start(options), Slave::new(), SmallDisk::new("8m"));
        hub.add_device("pump", Auth::Key((0..32).collect()));
        let head = format!("host = \"{}\"\ntls = false\n{}", hub.host(), by.keys(by.address(&hub)));
        let site = Site::with_hub(&head, &pump(slave.address(), settle, "response_timeout = \"20s\""));
        site.keep_ledger_in(disk.path());
        by.trust(&site);
        Plant { site, hub, slave, disk }
    }

    /// Starts the daemon and waits until the hub has its subscription.
    fn start(&self) -> Daemon {
        let daemon = self.site.start();
        self.connected();
        daemon
    }

    fn connected(&self) {
        let subscribed = || self.hub.is_connected("pump") && self.site.status()["hub"]["connected"] == 1;
        eventually("a connection", || subscribed().then_some(()));
    }

    /// Sends a command whose id is its value.
    fn send(&self, command: &str, value: u16) {
        let body = json!({ "command": command, "value": value }).to_string();
        self.hub.send("pump", C2d::new(value.to_string(), body).ack(Ack::Full)).expect("the hub takes it");
    }

    /// Waits until so many messages are completed and so many commands have told their result: status and code by
    /// message id.
    fn results(&self, count: usize) -> BTreeMap<String, (String, String)> {
        let results = || {
            let mut results = BTreeMap::new();
            for event in self.hub.telemetry() {
                let body = event.json();
                let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
                let result = (text(&body["status"]), text(&body["error"]["code"]));
                let id = text(&body["messageId"]);
                let before = results.insert(id.clone(), result.clone());
                assert!(before.is_none_or(|before| before == result), "{id} has two results");
            }
            results
        };
        let results = eventually("every message completed, every result at the hub", || {
            let results = results();
            (self.hub.queue_len("pump") == 0 && results.len() == count).then_some(results)
        });
        let feedback = self.hub.feedback();
        assert_eq!(feedback.len(), count, "each message is completed once");
        assert!(feedback.iter().all(|record| record.status == Status::Success), "{feedback:?}");
        results
    }

    fn done(&self) -> Vec<u16> {
        self.slave.writes().into_iter().map(|(_, value)| value).collect()
    }

    /// Waits until the daemon says that it can't write, and has given its connection up.
    fn given_up(&self) {
        eventually("an unwell ledger", || (self.site.status()["ledger"]["ok"] == false).then_some(()));
        eventually("no connection", || (!self.hub.is_connected("pump")).then_some(()));
    }
}

fn succeeded() -> (String, String) {
    ("succeeded".into(), String::new())
}

#[test]
fn on_a_full_disk_nothing_is_begun_or_completed_and_with_space_everything_runs_once() {
    for settle in BOTH {
        let plant = Plant::new(settle);
        let daemon = plant.start();
        plant.send("pulse", 100);
        plant.results(1);
        plant.site.settled();

        let filler = plant.disk.fill();
        let commands = ["pulse", "set", "pulse-verified", "set-verified"];
        (1..=20).for_each(|n| plant.send(commands[n % commands.len()], 100 + n as u16));
        plant.given_up();
        daemon.told("THE LEDGER CAN'T BE WRITTEN");
        // The commit that met the full disk was the last; it had its place in what the ballast gave back. Now that is
        // gone too.
        plant.disk.fill();
        let (begun, completed) = (plant.done().len(), plant.hub.feedback().len());
        assert!(begun <= 2 && completed <= 2, "{begun} begun, {completed} completed");

        // Longer than it takes to look for space twice.
        std::thread::sleep(Duration::from_millis(2500));
        let status = plant.site.status();
        assert_eq!((&status["ledger"]["ok"], &status["hub"]["connected"]), (&json!(false), &json!(0)));
        assert!(status["ledger"]["lastError"].as_str().is_some_and(|why| why.contains("the disk is full")), "{status}");
        let text = String::from_utf8(plant.site.command(&["status"]).stdout).expect("it is UTF-8");
        assert!(text.contains("NOT WRITABLE: the disk is full"), "{text}");
        let output = plant.site.command(&["exec", "pump", "pulse", "999"]);
        assert_eq!(output.status.code(), Some(74), "not even for a person at the site");
        assert!(!plant.hub.is_connected("pump"));
        assert_eq!((plant.done().len(), plant.hub.feedback().len()), (begun, completed), "{settle}");

        std::fs::remove_file(filler).expect("the filler is there");
        let results = plant.results(21);
        assert!(results.values().all(|result| *result == succeeded()), "{results:?}");
        let mut done = plant.done();
        done.sort_unstable();
        assert_eq!(done, (100..=120).collect::<Vec<u16>>(), "{settle}: each once");
        assert_eq!(plant.site.status()["ledger"]["ok"], true);
        assert!(daemon.terminate().success());
    }
}

#[test]
#[cfg(feature = "proof")] // without it a lock is waited for a minute
fn what_a_full_disk_keeps_from_being_recorded_is_not_given_back_which_the_hub_would_count() {
    for (by, settle) in [By::Amqp, By::Https].into_iter().flat_map(|by| BOTH.map(|settle| (by, settle))) {
        let plant = Plant::by(by, strict(), settle);
        let daemon = plant.site.spawn(&[], &[("FIELDBRIDGE_LOCK_MS", "1400")]);
        daemon.wait_until_ready();
        eventually("a connection", || (plant.site.status()["hub"]["connected"] == 1).then_some(()));
        plant.send("pulse", 100);
        plant.results(1);
        plant.site.settled();

        let filler = plant.disk.fill();
        (101..=112).for_each(|n| plant.send("pulse", n));
        eventually("an unwell ledger", || (plant.site.status()["ledger"]["ok"] == false).then_some(()));
        eventually("no connection", || (plant.site.status()["hub"]["connected"] == 0).then_some(()));
        plant.disk.fill();
        // Longer than it takes to look for space twice.
        std::thread::sleep(Duration::from_millis(2500));

        std::fs::remove_file(filler).expect("the filler is there");
        let results = plant.results(13);
        assert!(results.values().all(|result| *result == succeeded()), "{by:?}, {settle}: {results:?}");
        assert_eq!(plant.done(), (100..=112).collect::<Vec<u16>>(), "{by:?}, {settle}: each once, in order");
        let given_back = |event: &&WireEvent| matches!(event.what, Wire::Settled { effect: Effect::Abandoned, .. });
        let wire = plant.hub.wire();
        assert_eq!(wire.iter().find(given_back), None, "{by:?}, {settle}");
        assert!(daemon.terminate().success());
    }
}

#[test]
fn what_is_on_the_wire_when_the_disk_fills_up_is_still_recorded() {
    for settle in BOTH {
        let plant = Plant::new(settle);
        let daemon = plant.start();
        plant.slave.set_mood(Mood::Slow(Duration::from_secs(1)));
        plant.send("pulse", 1);
        eventually("the command on the wire", || (plant.done() == [1]).then_some(()));
        let filler = plant.disk.fill();
        plant.given_up();
        let shown = plant.site.command(&["ledger", "list", "--json"]);
        let row: Json = serde_json::from_slice(&shown.stdout).expect("one row");
        assert_eq!(row["state"], "succeeded", "the ballast had room for it");
        daemon.kill();

        std::fs::remove_file(filler).expect("the filler is there");
        let daemon = plant.start();
        assert_eq!(plant.results(1)["1"], succeeded());
        assert_eq!(plant.done(), [1], "{settle}");
        assert!(daemon.terminate().success());
    }
}

#[test]
fn what_a_person_has_begun_when_the_disk_fills_up_stays_a_persons_command() {
    let plant = Plant::new("after-accept");
    let daemon = plant.start();
    plant.slave.set_mood(Mood::Held);
    let mut operator = Command::new(program());
    operator.args(["exec", "pump", "pulse", "7", "--config"]).arg(plant.site.path("fieldbridge.toml"));
    let mut operator = operator.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be run");
    plant.slave.wait_for_requests(1);
    let filler = plant.disk.fill();
    // It can't be accepted, and takes the ballast's room with it.
    plant.send("set", 1);
    plant.given_up();
    plant.disk.fill();
    plant.slave.set_mood(Mood::Good);
    let status = operator.wait().expect("a child can be waited for");
    assert_eq!(status.code(), Some(74), "the person is told that it can't be recorded");
    let logged = |what: &str| eventually(what, || daemon.log().contains(what).then_some(()));
    logged("an operator's command ended (succeeded), and waits for the ledger");

    std::fs::remove_file(filler).expect("the filler is there");
    logged("executed for a local operator");
    assert_eq!(plant.results(1)["1"], succeeded());
    let log = daemon.log();
    let as_a_message = |line: &&str| line.contains("command finished") && line.contains("pulse");
    assert_eq!(log.lines().find(as_a_message), None, "nor does it count as one");
    assert_eq!(plant.site.status()["devices"][0]["executed"], 2, "both");
    assert_eq!(plant.done(), [7, 1]);
    assert!(daemon.terminate().success());
}

#[test]
fn what_a_kill_on_a_full_disk_interrupts_is_never_repeated() {
    for (command, end) in [("pulse", ("in_doubt", "interrupted")), ("pulse-verified", ("succeeded", ""))] {
        let plant = Plant::new("after-execution");
        let daemon = plant.start();
        plant.slave.set_mood(Mood::Slow(Duration::from_secs(60)));
        plant.send(command, 1);
        eventually("the command on the wire", || (plant.done() == [1]).then_some(()));
        let filler = plant.disk.fill();
        daemon.kill();

        // It starts with what its log gives back.
        plant.slave.set_mood(Mood::Good);
        let daemon = plant.site.start();
        std::fs::remove_file(filler).expect("the filler is there");
        assert_eq!(plant.results(1)["1"], (end.0.to_owned(), end.1.to_owned()), "{command}");
        assert_eq!(plant.done(), [1], "{command}");
        assert!(daemon.terminate().success());
    }
}

#[test]
fn a_start_without_room_for_the_ballast_takes_nothing_until_there_is() {
    let plant = Plant::new("after-execution");
    let filler = plant.disk.fill_but(1024 * 1024);
    let _daemon = plant.site.start();
    assert_eq!(plant.site.status()["ledger"]["ok"], false);
    assert_eq!(plant.site.status()["hub"]["connected"], 0);
    std::fs::remove_file(filler).expect("the filler is there");
    plant.connected();
    plant.send("pulse", 1);
    assert_eq!(plant.results(1)["1"], ("succeeded".to_owned(), String::new()));
}

#[test]
fn a_start_without_any_space_ends_with_74_and_does_not_call_the_ledger_damaged() {
    let plant = Plant::new("after-execution");
    let daemon = plant.start();
    plant.send("pulse", 1);
    plant.results(1);
    assert!(daemon.terminate().success());
    let filler = plant.disk.fill();
    for args in [&["run"][..], &["ledger", "list"]] {
        let output = plant.site.command(args);
        let why = String::from_utf8(output.stderr).expect("it is UTF-8");
        assert_eq!(output.status.code(), Some(74), "{why}");
        assert!(why.contains("disk full") && !why.contains("damaged") && !why.contains("empty"), "{why}");
    }
    std::fs::remove_file(filler).expect("the filler is there");
    let daemon = plant.start();
    plant.send("pulse", 2);
    plant.results(2);
    assert_eq!(plant.done(), [1, 2]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_disk_that_fails_once_ends_the_process_with_74_and_the_next_one_repeats_nothing() {
    require("strace", "strace");
    // Each fails one time only: a daemon that went on would find the next call to succeed.
    for failure in [
        "fsync,fdatasync:error=EIO:when=9",
        "fsync,fdatasync:error=EIO:when=12",
        "pwrite64:error=EIO:when=30",
        "pwrite64:error=EIO:when=47",
    ] {
        for settle in BOTH {
            let plant = Plant::new(settle);
            assert!(plant.start().terminate().success());
            let (inject, output) = (format!("inject={failure}"), plant.site.path("trace").display().to_string());
            let strace = trace::strace(&output, "trace=fsync,fdatasync,pwrite64,ftruncate,unlink");
            let mut daemon = plant.site.start_under(&[&strace[..], &["-e", &inject]].concat());
            let inner = daemon.inner_pid();
            (1..=20).for_each(|n| plant.send(["pulse", "pulse-verified", "set"][n % 3], n as u16));
            let deadline = Instant::now() + PATIENCE;
            while daemon.is_running() {
                if Instant::now() > deadline {
                    // A traced program outlives a strace that is killed.
                    signal(inner, "KILL");
                    panic!("{failure}: the daemon goes on");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(daemon.wait().code(), Some(74), "{failure}");
            assert!(daemon.log().contains("writing the ledger failed"), "{failure}");
            drop(daemon);
            let calls = trace::read(Path::new(&output));
            let is_ledgers = |call: &Call| call.file.contains("/ledger.db") || call.contains(b"/ledger.db");
            let failed = calls.iter().position(|call| call.result < 0 && is_ledgers(call)).expect("a call failed");
            // But for the mark that it is sound: the next one proves the whole file.
            let is_mark = |call: &Call| call.file.ends_with(".sound") || call.contains(b"/ledger.db.sound");
            let after = calls[failed + 1..].iter().filter(|call| is_ledgers(call) && !is_mark(call));
            let after: Vec<&Call> = after.collect();
            assert!(after.is_empty(), "{failure}: it went on with {after:?}");

            let daemon = plant.start();
            let results = plant.results(20);
            let done = plant.done();
            for (id, result) in &results {
                let value: u16 = id.parse().expect("an id is a value");
                let times = done.iter().filter(|one| **one == value).count();
                let (repeatable, verified) = (value % 3 == 2, value % 3 == 1);
                let sound = match (result.0.as_str(), result.1.as_str()) {
                    ("succeeded", _) => times == 1 || (repeatable && times > 1),
                    ("in_doubt", "interrupted") => !repeatable && times <= usize::from(!verified),
                    _ => false,
                };
                assert!(sound, "{failure}, {settle}: {id} is {result:?} and was done {times} times");
            }
            assert!(daemon.terminate().success());
        }
    }
}

/// What happens to one of the ledger's files.
type TakeAway<'a> = &'a dyn Fn(&Path);

#[test]
fn a_ledger_that_is_taken_away_ends_the_process_with_74_before_anything_more_is_done() {
    let gone = |path: &Path| std::fs::remove_file(path).expect("it is there");
    let replaced = |path: &Path| {
        let aside = path.with_extension("aside");
        std::fs::rename(path, &aside).and_then(|()| std::fs::copy(&aside, path)).expect("it can be replaced");
    };
    let cut = |path: &Path| {
        std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(4096)).expect("it can be cut");
    };
    let cases: [(&str, TakeAway, &str); 5] = [
        ("ledger.db", &gone, "was moved or deleted"),
        ("ledger.db", &replaced, "was replaced"),
        ("ledger.db", &cut, "was cut short"),
        ("ledger.db-wal", &gone, "was moved or deleted"),
        ("ledger.db-wal", &replaced, "was replaced"),
    ];
    for (name, take_away, why) in cases {
        let plant = Plant::new("after-execution");
        let mut daemon = plant.start();
        plant.send("pulse", 1);
        plant.results(1);
        plant.site.settled();
        take_away(&plant.disk.path().join(name));
        plant.send("pulse", 2);
        assert_eq!(daemon.wait().code(), Some(74), "{name} {why}");
        assert!(daemon.log().contains(why), "{name} {why}: {}", daemon.log());
        assert_eq!(plant.done(), [1], "{name} {why}");
        assert_eq!(plant.hub.feedback().len(), 1, "{name} {why}");
    }
}

#[test]
fn a_ledger_that_cant_be_read_ends_a_start_with_74_and_is_as_it_was_once_it_can() {
    require("strace", "strace");
    let plant = Plant::new("after-execution");
    let daemon = plant.start();
    plant.send("pulse", 1);
    plant.results(1);
    assert!(daemon.terminate().success());
    let ledger = plant.disk.path().join("ledger.db").display().to_string();
    for place in ["1+", "2", "4"] {
        let inject = format!("inject=pread64:error=EIO:when={place}");
        let strace = ["strace", "-f", "-o", "/dev/null", "-P", &ledger, "-e", "trace=pread64", "-e", &inject];
        let mut daemon = plant.site.spawn(&strace, &[]);
        assert_eq!(daemon.wait().code(), Some(74), "read {place} fails");
        // What a single failed read means is SQLite's to say; a file that can't be read at all is not damaged.
        assert!(place != "1+" || !daemon.log().contains("damaged"), "{}", daemon.log());
    }
    let daemon = plant.start();
    plant.send("pulse", 2);
    plant.results(2);
    assert_eq!(plant.done(), [1, 2]);
    assert!(daemon.terminate().success());
}
