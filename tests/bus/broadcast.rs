//! What goes to all units of a line. Proves G3 (it is sent once) and the contract: nobody answers it, it ends as in
//! doubt with a code of its own unless it shows on the units that are to show it, and is no open doubt.

use std::time::{Duration, Instant};

use crate::modbus_tcp::{tcp, Server};
use crate::peers::{ascii, call, patient, read, rtu, write, Peer, Pty, Running};
use crate::support::hub::Hub;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::Slave;
use crate::support::{eventually, Daemon, Site};
use fieldbridge::bus::call::Wire;
use fieldbridge::config::{BusKind, Endpoint};
use fieldbridge::demo::hub::C2d;
use fieldbridge::peripheral::exchange::Answer;
use serde_json::{json, Value as Json};

/// What the specification gives units to take it up, at the least.
const TURNAROUND: Duration = Duration::from_millis(100);

#[tokio::test]
async fn what_goes_to_all_units_is_answered_by_none_and_left_alone_before_the_next_request() {
    type Framed = (fn(Endpoint) -> BusKind, fn(&[u8]) -> Vec<u8>);
    let framings: [Framed; 2] = [(BusKind::ModbusRtu, rtu), (BusKind::ModbusAscii, ascii)];
    for (kind, frame) in framings {
        for longer in [None, Some(Duration::from_millis(500))] {
            let pty = Pty::new();
            let line = Running::with_turnaround(kind(pty.port(115_200)), longer.unwrap_or_default());
            let mut peer = pty.peer;
            let asked = Instant::now();
            assert_eq!(line.call(call(0, write(16, 5))).await, Wire::Broadcast);
            assert!(asked.elapsed() < Duration::from_secs(5), "no answer is waited for");
            peer.hear(&frame(&[0, 6, 0, 16, 0, 5])).await;
            // One that answers all the same, and should not, answers nothing.
            peer.say(&frame(&[0, 6, 0, 16, 0, 5])).await;
            let asking = line.call_meanwhile(call(7, read(16, 1)));
            peer.hear(&frame(&[7, 3, 0, 16, 0, 1])).await;
            assert!(asked.elapsed() >= longer.unwrap_or(TURNAROUND), "{:?}", asked.elapsed());
            peer.say(&frame(&[7, 3, 2, 0, 1])).await;
            assert_eq!(patient(asking).await.unwrap(), Wire::Answered(Answer::Words(vec![1])));
            assert_eq!((line.snapshot().exchanges, line.snapshot().timeouts), (2, 0));
        }
    }
}

#[tokio::test]
async fn all_units_of_a_line_can_not_be_read() {
    let pty = Pty::new();
    let line = Running::start(BusKind::ModbusRtu(pty.port(115_200)));
    let mut peer = pty.peer;
    let wire = line.call(call(0, read(16, 1))).await;
    assert!(matches!(&wire, Wire::NotSent(why) if why.contains("only be written")), "{wire:?}");
    peer.hear_nothing().await;
}

#[tokio::test]
async fn over_modbus_tcp_unit_0_is_one_like_any_other() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    let asking = line.call_meanwhile(call(0, write(16, 5)));
    peer.hear_any().await;
    peer.say(&tcp(0, 0, &[6, 0, 16, 0, 5])).await;
    assert_eq!(patient(asking).await.unwrap(), Wire::Answered(Answer::Written));
}

/// A line with two units, all of which are told, and a device for one of them.
struct Plant {
    hub: Hub,
    site: Site,
    slave: Slave,
    _daemon: Daemon,
    _port: Port,
}

const COMMANDS: &str = r#"
[profile.all.command.set]
write = { table = "holding", address = 0 }
idempotent = true

[profile.all.command.pulse]
write = { table = "holding", address = 2 }
idempotent = false

[profile.all.command.shown]
write = { table = "holding", address = 3 }
read_back = { units = [1, 2], within = "300ms" }
idempotent = true
"#;

fn plant() -> Plant {
    let (hub, slave) = (Hub::plain(&["all"]), Slave::new());
    let port = Port::new(slave.clone(), Protocol::Rtu);
    let site = Site::at(
        &hub,
        &format!(
            "[bus.line]\nkind = \"modbus-rtu\"\nport = \"{}\"\nbaud = 115200\nlate_window = \"100ms\"\n\
             [device.all]\nbus = \"line\"\nunit = 0\nprofile = \"all\"\nkey_file = \"device.key\"\n{COMMANDS}",
            port.path().display()
        ),
    );
    let daemon = site.start();
    eventually("the device is subscribed", || hub.is_subscribed("all").then_some(()));
    Plant { hub, site, slave, _daemon: daemon, _port: port }
}

impl Plant {
    /// Sends a command and gives the row that it ends in.
    fn run(&self, id: &str, command: &str, value: u16) -> Json {
        self.hub.send("all", C2d::new(id, value.to_string()).property("command", command)).unwrap();
        eventually("the command has ended", || {
            self.site.rows().into_iter().find(|row| row["messageId"] == id && !row["finishedAt"].is_null())
        })
    }
}

#[test]
fn a_broadcast_is_sent_once_and_in_doubt_and_that_is_no_doubt_for_somebody_to_settle() {
    let plant = plant();
    for (id, command, address) in [("m-1", "set", 0), ("m-2", "pulse", 2)] {
        let row = plant.run(id, command, 7);
        let end = (&row["state"], &row["error"]["code"], &row["attempts"]);
        assert_eq!(end, (&json!("in_doubt"), &json!("unconfirmed"), &json!(1)), "{row}");
        assert_eq!(plant.slave.count(address, 7), 1);
    }
    let device = plant.site.device_status("all");
    assert_eq!((&device["executed"], &device["inDoubt"]), (&json!(2), &json!(0)), "{device}");
}

#[test]
fn a_broadcast_that_shows_on_all_units_that_are_to_show_it_has_succeeded_and_on_fewer_it_has_not() {
    let plant = plant();
    // On neither; on the first of them only.
    for (id, value) in [("m-1", 7), ("m-2", 8)] {
        if value == 8 {
            plant.slave.set_register(3, 8);
        }
        let row = plant.run(id, "shown", value);
        assert_eq!((&row["state"], &row["error"]["code"]), (&json!("in_doubt"), &json!("unconfirmed")), "{row}");
        let unit = if value == 8 { "unit 2" } else { "unit 1" };
        assert!(row["error"]["message"].as_str().unwrap().contains(unit), "{row}");
    }
    // Nothing stands where nothing was written: on both.
    plant.slave.set_register(3, 0);
    let row = plant.run("m-3", "shown", 0);
    assert_eq!((&row["state"], &row["value"], &row["attempts"]), (&json!("succeeded"), &json!(0), &json!(1)), "{row}");
    for value in [7, 8, 0] {
        assert_eq!(plant.slave.count(3, value), 1);
    }
    assert_eq!(plant.site.device_status("all")["inDoubt"], 0);
}
