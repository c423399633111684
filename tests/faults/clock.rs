//! Proves G10, and that no token is made from a wrong time, against a wall clock that boots in 1970 and jumps: the real
//! daemon runs under libfaketime.

use std::time::Duration;

use crate::support::disk::with_mounts;
use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::wall::Wall;
use crate::support::{eventually, pump, signal, Daemon, Site};
use fieldbridge::demo::hub::{Ack, Auth, C2d, Fault, Options, Wire};
use fieldbridge::time::Timestamp;
use serde_json::{json, Value as Json};

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * 3600;
/// A box without a clock chip has been on for a minute.
const JUST_BOOTED: i64 = 60;

/// Ends a daemon that runs under another program.
fn terminate(mut daemon: Daemon) {
    signal(daemon.inner_pid(), "TERM");
    assert!(daemon.wait().success());
}

/// A pump at a simulated hub, over TLS, and the daemon's clock.
struct Plant {
    site: Site,
    hub: Hub,
    slave: Slave,
    wall: Wall,
}

impl Plant {
    fn new(settle: &str, hub_settings: &str, more: &str) -> Plant {
        Plant::at(Hub::start(Options::default()), settle, hub_settings, more)
    }

    fn at(hub: Hub, settle: &str, hub_settings: &str, more: &str) -> Plant {
        let slave = Slave::new();
        let head = format!(
            "host = \"{}\"\naddress = \"{}\"\nca_file = \"hub-ca.pem\"\n{hub_settings}\n",
            hub.host(),
            hub.addr()
        );
        let site =
            Site::with_hub(&head, &format!("{}\n{more}", pump(slave.address(), settle, "response_timeout = \"20s\"")));
        hub.ca_file(&site.path("")).expect("the certificate can be written");
        hub.add_device("pump", Auth::Key((0..32).collect()));
        let wall = Wall::new(&site.path(""));
        Plant { site, hub, slave, wall }
    }

    fn start(&self) -> Daemon {
        let daemon = self.site.spawn(&[], &self.wall.environment());
        daemon.wait_until_ready();
        daemon
    }

    /// The same under a kernel that calls its clock synchronised, or does not.
    fn start_where(&self, synchronised: bool) -> Daemon {
        let daemon = self.site.spawn(&Wall::kernel(synchronised), &self.wall.environment());
        daemon.wait_until_ready();
        daemon
    }

    fn connected(&self) {
        eventually("a connection", || (self.site.status()["hub"]["connected"] == 1).then_some(()));
    }

    /// Sends a command that must not be repeated, whose id is its value.
    fn pulse(&self, value: u16) {
        let body = json!({ "command": "pulse", "value": value }).to_string();
        self.hub.send("pump", C2d::new(value.to_string(), body).ack(Ack::Full)).expect("the hub takes it");
    }

    fn done(&self) -> Vec<u16> {
        self.slave.writes().into_iter().map(|(_, value)| value).collect()
    }

    /// Waits until the hub keeps nothing more, and has every result.
    fn completed(&self) {
        eventually("every message completed", || (self.hub.queue_len("pump") == 0).then_some(()));
        self.site.settled();
    }

    /// Waits until the device's trouble is this.
    fn waits_because(&self, why: &str) {
        eventually(&format!("a device that waits because {why}"), || {
            let device = self.site.device_status("pump");
            let says = device["lastError"].as_str().is_some_and(|error| error.contains(why));
            (says && device["hub"] != "connected").then_some(())
        });
    }

    /// What the hub saw of CONNECTs: accepted and refused.
    fn connects(&self) -> (usize, usize) {
        let wire = self.hub.wire();
        let count = |is: fn(&Wire) -> bool| wire.iter().filter(|event| is(&event.what)).count();
        (count(|what| matches!(what, Wire::Connected { .. })), count(|what| matches!(what, Wire::Refused { .. })))
    }

    fn rows(&self) -> Vec<(String, String, i64)> {
        let row = |row: &Json| {
            let text = |key: &str| row[key].as_str().expect("it is text").to_owned();
            (text("messageId"), text("state"), row["deliveries"].as_i64().expect("a number"))
        };
        // What an operator asked for has a row without a message.
        self.site.rows().iter().filter(|row| row["source"] == "hub").map(row).collect()
    }
}

fn row(id: u16, state: &str, deliveries: i64) -> (String, String, i64) {
    (id.to_string(), state.to_owned(), deliveries)
}

#[test]
fn a_box_that_boots_in_1970_serves_people_and_connects_when_the_clock_is_right() {
    let plant = Plant::new("after-execution", "", "");
    plant.wall.jump_to(JUST_BOOTED);
    let daemon = plant.start();
    plant.waits_because("the clock is not set");
    let status = plant.site.status();
    assert_eq!(status["clock"]["ok"], false, "{status}");
    assert!(status["clock"]["now"].as_str().is_some_and(|now| now.starts_with("1970-01-01T00:0")), "{status}");
    let text = String::from_utf8(plant.site.command(&["status"]).stdout).expect("it is UTF-8");
    assert!(text.contains("clock NOT BELIEVED: the clock is not set: it shows 1970-01-01T00:0"), "{text}");
    daemon.told("THE CLOCK IS NOT SET");

    let output = plant.site.command(&["exec", "pump", "pulse", "5", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(plant.done(), [5]);
    assert!(daemon.log().contains("executed for a local operator"));
    // Longer than it takes to look at the clock twice.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(plant.connects(), (0, 0));

    plant.wall.show_the_right_time();
    plant.connected();
    let expiry = plant.hub.token_expiry("pump").expect("it has a token");
    let life = expiry.as_secs() - Timestamp::now().as_secs();
    assert!((3300..=3601).contains(&life), "a token for an hour, and for {life} s");
    assert_eq!(plant.connects(), (1, 0));
    let status = plant.site.status();
    assert_eq!((&status["clock"]["ok"], &status["devices"][0]["lastError"]), (&json!(true), &Json::Null));
    let text = String::from_utf8(plant.site.command(&["status"]).stdout).expect("it is UTF-8");
    assert!(!text.contains("clock"), "{text}");
    plant.pulse(7);
    plant.completed();
    assert_eq!(plant.done(), [5, 7]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_clock_that_jumps_while_identities_wait_for_their_turn_makes_no_token() {
    let names = ["a", "b", "c"];
    let more: String = names
        .iter()
        .map(|id| format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n"))
        .collect();
    let plant = Plant::new("after-execution", "connect_rate = 1", &more);
    names.iter().for_each(|id| plant.hub.add_device(id, Auth::Key((0..32).collect())));
    let _daemon = plant.start();
    eventually("the first connection", || (plant.connects().0 == 1).then_some(()));
    plant.wall.jump_to(JUST_BOOTED);
    // The others' turns come and go.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(plant.connects().1, 0, "a token of a wrong time was shown");
    plant.wall.show_the_right_time();
    eventually("all connections", || (plant.site.status()["hub"]["connected"] == 4).then_some(()));
    assert_eq!(plant.connects().1, 0);
}

#[test]
fn jumps_of_the_clock_prune_nothing_and_redeliveries_are_known() {
    let plant = Plant::new("after-execution", "token_lifetime = \"10s\"", "");
    plant.site.configure("[ledger]\n", "[ledger]\nretention = \"2d\"\n");
    let daemon = plant.start();
    plant.connected();
    plant.pulse(1);
    plant.completed();

    // In 1970, with the connection of a right token still there.
    plant.wall.jump_to(JUST_BOOTED);
    plant.pulse(2);
    plant.completed();
    plant.hub.fault("pump", Fault::LosePuback);
    plant.pulse(3);
    eventually("the command", || (plant.done() == [1, 2, 3]).then_some(()));
    plant.waits_because("the clock is not set");
    assert!(daemon.terminate().success());
    let daemon = plant.start();
    plant.waits_because("the clock is not set");

    // Ten years ahead: not even TLS is made, whose certificate is long over by then.
    let before = plant.connects();
    plant.wall.shift(10 * YEAR);
    plant.waits_because("expired; is the clock right?");
    assert!(daemon.terminate().success());
    let daemon = plant.start();
    plant.waits_because("expired; is the clock right?");
    assert_eq!(plant.connects(), before, "a token of a wrong time was shown");
    assert_eq!(plant.rows(), [row(1, "succeeded", 1), row(2, "succeeded", 1), row(3, "succeeded", 1)]);

    // No hub has let it in by that time, so that it left nothing behind.
    plant.wall.show_the_right_time();
    plant.completed();
    let connected = plant.connects();
    // A redelivery is counted with a later commit.
    let rows = [row(1, "succeeded", 1), row(2, "succeeded", 1), row(3, "succeeded", 2)];
    eventually("the same rows, the last delivered twice", || (plant.rows() == rows).then_some(()));
    // A renewal in 1970 waits for the clock, too.
    plant.wall.jump_to(JUST_BOOTED);
    daemon.told("THE CLOCK IS NOT SET");
    plant.wall.show_the_right_time();
    eventually("a new token", || (plant.connects().0 > connected.0).then_some(()));
    plant.connected();
    assert_eq!(plant.connects().1, 0);
    assert_eq!(plant.done(), [1, 2, 3]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_clock_that_has_gone_back_is_believed_when_it_is_synchronised_or_has_passed_what_was_seen() {
    let plant = Plant::new("after-execution", "", "");
    plant.wall.shift(2 * HOUR);
    let daemon = plant.start_where(false);
    plant.connected();
    plant.wall.show_the_right_time();
    daemon.told("THE CLOCK IS BEHIND 20");
    let clock = plant.site.status()["clock"].clone();
    let says = clock["lastError"].as_str().is_some_and(|why| why.contains("and the gateway has seen 20"));
    assert!(clock["ok"] == false && says, "{clock}");
    plant.pulse(1);
    plant.completed();
    assert_eq!(plant.connects(), (1, 0), "what stands is not dropped");
    terminate(daemon);

    // What was seen is remembered.
    let daemon = plant.start_where(false);
    plant.waits_because("and the gateway has seen 20");
    let output = plant.site.command(&["exec", "pump", "pulse", "2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(plant.connects(), (1, 0));
    plant.wall.shift(2 * HOUR);
    plant.connected();
    plant.wall.show_the_right_time();
    daemon.told("THE CLOCK IS BEHIND 20");
    terminate(daemon);

    let daemon = plant.start_where(true);
    plant.connected();
    assert!(daemon.log().contains("which was seen before, was wrong"));
    terminate(daemon);
    let daemon = plant.start_where(false);
    plant.connected();
    assert_eq!((plant.connects().1, plant.done()), (0, vec![1, 2]));
    terminate(daemon);
}

#[test]
fn a_person_can_say_that_the_clock_is_right() {
    let plant = Plant::new("after-execution", "", "");
    plant.wall.shift(2 * HOUR);
    let daemon = plant.start();
    plant.connected();
    assert!(daemon.terminate().success());
    plant.wall.show_the_right_time();
    // A folder of the test's own stands where the system has its file.
    let folder = plant.site.path("run");
    std::fs::create_dir_all(folder.join("systemd/timesync")).expect("a folder can be made");
    let mounts = with_mounts(&format!("mount --bind {} /run", folder.display()));
    let wrapper: Vec<&str> = mounts.iter().map(String::as_str).chain(Wall::kernel(false)).collect();
    let daemon = plant.site.spawn(&wrapper, &plant.wall.environment());
    daemon.wait_until_ready();
    plant.waits_because("touch /run/systemd/timesync/synchronized");
    std::fs::write(folder.join("systemd/timesync/synchronized"), "").expect("a file can be made");
    plant.connected();
    terminate(daemon);
}

#[test]
fn a_renewal_that_can_not_be_made_now_drops_no_connection() {
    // The hub is patient with tokens that have expired, so that only the daemon could end the connection.
    let hub = Hub::start(Options { token_grace: Duration::from_secs(3600), ..Options::default() });
    let plant = Plant::at(hub, "after-execution", "token_lifetime = \"10s\"", "");
    let daemon = plant.start();
    plant.connected();
    plant.wall.jump_to(JUST_BOOTED);
    daemon.told("THE CLOCK IS NOT SET");
    let connects = plant.connects();
    // Longer than the token lives.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(plant.connects(), connects);
    plant.pulse(1);
    plant.completed();
    assert_eq!(plant.connects(), connects, "the connection stands");
    plant.wall.show_the_right_time();
    eventually("a new token", || (plant.connects().0 > connects.0).then_some(()));
    assert!(!daemon.log().contains("no connection to the hub"));
    assert!(daemon.terminate().success());
}

#[test]
fn accepted_commands_of_an_earlier_life_are_run_only_if_they_are_known_to_be_fresh() {
    let seconds = |state: &str| [row(1, "in_doubt", 1), row(2, state, 1), row(3, state, 1)];
    for (booted_at, mended, state) in [
        (None, false, "succeeded"),
        (Some(JUST_BOOTED), true, "succeeded"),
        (Some(JUST_BOOTED), false, "expired"),
        (Some(Timestamp::now().as_secs() + 10 * YEAR), false, "expired"),
    ] {
        let plant = Plant::new("after-accept", "", "");
        plant.site.configure("address = 2 }", "address = 2 }\ndeadline = \"15s\"");
        let daemon = plant.start();
        plant.connected();
        plant.slave.set_mood(Mood::Held);
        (1..=3).for_each(|value| plant.pulse(value));
        eventually("all accepted", || (plant.hub.queue_len("pump") == 0).then_some(()));
        eventually("the first on the wire", || (plant.done() == [1]).then_some(()));
        daemon.kill();

        plant.slave.set_mood(Mood::Good);
        booted_at.into_iter().for_each(|at| plant.wall.jump_to(at));
        let daemon = plant.start();
        if mended {
            plant.waits_because("the clock is not set");
            let output = plant.site.command(&["exec", "pump", "set", "9"]);
            assert!(output.status.success(), "what waits for the clock does not hold up people");
            assert_eq!(plant.done(), [1, 9], "what may be old is not run");
            plant.wall.show_the_right_time();
        }
        eventually("every command's end", || (plant.rows() == seconds(state)).then_some(()));
        let done = plant.done();
        let run = done.iter().filter(|value| [2, 3].contains(*value)).count();
        assert_eq!(run, if state == "succeeded" { 2 } else { 0 }, "{done:?}");
        assert!(daemon.terminate().success());
    }
}
