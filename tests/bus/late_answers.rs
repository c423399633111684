//! An answer that comes after everybody has given it up: it confirms no other command, whatever became of the daemon or
//! of the bus's name meanwhile. Proves G12, against the hub simulator and a slow unit on a serial line.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::hub::Hub;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually_within, program, Daemon, Site, PUMP};
use fieldbridge::demo::hub::C2d;

/// More than the silence and all attempts take, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// The unit confirms so late.
const LATE: Duration = Duration::from_secs(6);

/// A pump on a serial line that has begun a first `set` of 5 and will confirm it late. Whatever comes after that it
/// does not hear.
struct Plant {
    hub: Hub,
    site: Site,
    daemon: Option<Daemon>,
    slave: Slave,
    first: Child,
    _port: Port,
}

impl Plant {
    fn new() -> Plant {
        Plant::with(Protocol::Rtu, "modbus-rtu")
    }

    fn with(protocol: Protocol, kind: &str) -> Plant {
        let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
        let port = Port::new(slave.clone(), protocol);
        let site = Site::at(
            &hub,
            &format!(
                "[bus.plant]\nkind = \"{kind}\"\nport = \"{}\"\nbaud = 115200\nresponse_timeout = \"2s\"\nretries = 0\n\
                 [device.pump]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n{PUMP}",
                port.path().display()
            ),
        );
        let daemon = site.start();
        let subscribed = || hub.is_subscribed("pump").then_some(());
        eventually_within(PATIENCE, "the device is subscribed", subscribed);
        slave.next_mood(Mood::Slow(LATE));
        slave.set_mood(Mood::Deaf);
        // A local one, which does not come again.
        let mut first = Command::new(program());
        first.args(["exec", "pump", "set", "5", "--config"]).arg(site.path("fieldbridge.toml"));
        let first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        slave.wait_for_write(5);
        Plant { hub, site, daemon: Some(daemon), slave, first, _port: port }
    }

    /// Waits until the first command has been given up.
    fn gives_up(&mut self) {
        assert!(!self.first.wait().unwrap().success());
    }

    /// Begins a life whose configuration knows nothing of answers that come so late.
    fn comes_back_in_a_hurry(&mut self) {
        self.site.configure("response_timeout = \"2s\"\nretries = 0", "response_timeout = \"500ms\"\nretries = 10");
        self.daemon = Some(self.site.start());
    }

    /// The same command once more is asked for again and again while the first one's answer comes, and is not confirmed
    /// by it.
    fn is_not_deceived(&self) {
        self.hub.send("pump", C2d::new("m-1", "5").property("command", "set")).unwrap();
        let row = eventually_within(PATIENCE, "the command has ended", || {
            self.site.rows().into_iter().find(|row| row["messageId"] == "m-1" && !row["finishedAt"].is_null())
        });
        assert_eq!((&row["state"], &row["error"]["code"]), (&"failed".into(), &"timeout".into()), "{row}");
        assert_eq!(self.slave.count(0, 5), 1);
    }
}

#[test]
fn after_a_crash() {
    after_a_crash_of(Plant::new());
}

#[test]
fn after_a_crash_on_a_line_with_ascii() {
    after_a_crash_of(Plant::with(Protocol::Ascii, "modbus-ascii"));
}

fn after_a_crash_of(mut plant: Plant) {
    plant.daemon.take().unwrap().kill();
    plant.gives_up();
    plant.site.configure("retries = 0", "retries = 2");
    plant.daemon = Some(plant.site.start());
    plant.is_not_deceived();
}

#[test]
fn after_an_ordered_stop() {
    let mut plant = Plant::new();
    plant.gives_up();
    assert!(plant.daemon.take().unwrap().terminate().success());
    plant.site.configure("retries = 0", "retries = 2");
    plant.daemon = Some(plant.site.start());
    plant.is_not_deceived();
}

#[test]
fn after_a_crash_and_with_a_shorter_timeout() {
    let mut plant = Plant::new();
    plant.daemon.take().unwrap().kill();
    plant.gives_up();
    plant.comes_back_in_a_hurry();
    plant.is_not_deceived();
}

#[test]
fn after_an_ordered_stop_and_with_a_shorter_timeout() {
    let mut plant = Plant::new();
    plant.gives_up();
    assert!(plant.daemon.take().unwrap().terminate().success());
    plant.comes_back_in_a_hurry();
    plant.is_not_deceived();
}

#[test]
fn after_an_ordered_stop_and_with_another_ledger() {
    let mut plant = Plant::new();
    plant.gives_up();
    assert!(plant.daemon.take().unwrap().terminate().success());
    let output = plant.site.command(&["ledger", "new"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    plant.comes_back_in_a_hurry();
    plant.is_not_deceived();
}

#[test]
fn after_an_ordered_stop_and_with_a_ledger_that_is_gone() {
    let mut plant = Plant::new();
    plant.gives_up();
    assert!(plant.daemon.take().unwrap().terminate().success());
    std::fs::remove_file(plant.site.path("ledger.db")).unwrap();
    plant.site.configure("retries = 0", "retries = 2");
    plant.daemon = Some(plant.site.start());
    plant.is_not_deceived();
}

#[test]
fn after_the_bus_was_renamed() {
    let mut plant = Plant::new();
    plant.gives_up();
    plant.site.configure("[bus.plant]", "[bus.line]");
    plant.site.configure("bus = \"plant\"", "bus = \"line\"");
    plant.site.configure("retries = 0", "retries = 2");
    let output = plant.site.command(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    plant.is_not_deceived();
}

#[test]
fn after_the_bus_was_removed_and_another_one_came_on_its_port() {
    let mut plant = Plant::new();
    plant.gives_up();
    let reload = || {
        let output = plant.site.command(&["reload"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let whole = std::fs::read_to_string(plant.site.path("fieldbridge.toml")).unwrap();
    let (head, rest) = whole.split_once("[bus.plant]").unwrap();
    plant.site.write("fieldbridge.toml", head);
    reload();
    let renamed = format!("{head}[bus.line]{rest}").replace("bus = \"plant\"", "bus = \"line\"");
    plant.site.write("fieldbridge.toml", &renamed.replace("retries = 0", "retries = 2"));
    reload();
    plant.is_not_deceived();
}
