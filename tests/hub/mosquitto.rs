//! The daemon against a broker that is not ours: Mosquitto, with its persistent sessions and its own idea of packet
//! ids. Proves G1, G2, G5 and G7 where the broker keeps the queue.

use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::slave::{Mood, Slave};
use crate::support::visitor::Visitor;
use crate::support::{eventually, free_address, pump, require, signal, Site};

/// A Mosquitto with a folder of its own, in which it keeps its sessions while it is away.
struct Mosquitto {
    folder: TempDir,
    address: String,
    /// Where it takes WebSockets.
    websocket: String,
    child: Option<Child>,
}

impl Mosquitto {
    fn new() -> Mosquitto {
        require("mosquitto", "mosquitto");
        // It takes WebSockets on every address of the machine, where anybody may have the port by now.
        (0..20).find_map(|_| Mosquitto::try_new()).expect("a port is free")
    }

    fn try_new() -> Option<Mosquitto> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let ((host, port), (ws_host, ws_port)) = (free_address(), free_address());
        // `user` counts for a start by root only: without it the broker would change to a user who may not write in
        // the folder.
        let text = format!(
            "listener {port} {host}\nlistener {ws_port} {ws_host}\nprotocol websockets\n\
             allow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).expect("the configuration can be written");
        let (address, websocket) = (format!("{host}:{port}"), format!("{ws_host}:{ws_port}"));
        let mut broker = Mosquitto { folder, address, websocket, child: None };
        broker.start().then_some(broker)
    }

    /// Starts it. `false`: it has ended at once.
    fn start(&mut self) -> bool {
        let log = std::fs::File::create(self.folder.path().join("mosquitto.log")).expect("a log can be made");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("mosquitto");
        // Debian keeps it where only an administrator's PATH leads.
        command.env("PATH", format!("{path}:/usr/sbin")).arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it can be started");
        let child = self.child.insert(child);
        let log = self.folder.path().join("mosquitto.log");
        eventually("the broker runs, or has ended", || {
            let runs = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("running"));
            (runs || child.try_wait().is_ok_and(|ended| ended.is_some())).then_some(runs)
        })
    }

    /// Stops it, which has it save its sessions.
    fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "TERM");
        child.wait().expect("a child can be waited for");
    }

    fn visit(&self, name: &str) -> Visitor {
        Visitor::new(&self.address, name)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("mosquitto.log")).unwrap_or_default();
            eprintln!("--- the broker's log ---\n{log}");
        }
    }
}

fn site(broker: &Mosquitto, slave: &Slave, settle: &str) -> Site {
    Site::new(&broker.address, &pump(slave.address(), settle, "response_timeout = \"20s\""))
}

fn command(name: &str, value: u16) -> String {
    format!(r#"{{"command":"{name}","value":{value}}}"#)
}

/// Publishes a C2D message, as the back end would by way of the hub.
fn send(visitor: &mut Visitor, message_id: &str, body: &str) {
    let topic = format!("devices/pump/messages/devicebound/%24.mid={message_id}&%24.to=%2Fdevices%2Fpump");
    visitor.publish(&topic, body);
}

fn wait_until_connected(site: &Site) {
    eventually("the daemon is connected", || (site.device_status("pump")["hub"] == "connected").then_some(()));
}

/// Shows that the broker kept nothing back: on a connection of its own, the next message is the only one.
fn nothing_is_left(site: &Site, broker: &Mosquitto, message_id: &str) {
    let daemon = site.start();
    wait_until_connected(site);
    send(&mut broker.visit("back-end"), message_id, r#"{"command":"read"}"#);
    site.wait_for_row(message_id, "succeeded");
    let status = site.device_status("pump");
    assert_eq!((&status["received"], &status["duplicates"]), (&1.into(), &0.into()), "a message came again");
    assert_eq!(daemon.terminate().code(), Some(0));
}

fn writes(values: std::ops::RangeInclusive<u16>) -> Vec<(u16, u16)> {
    values.map(|value| (2, value)).collect()
}

#[test]
fn messages_that_were_sent_while_the_gateway_was_away_are_executed_once_and_in_order() {
    for settle in ["after-execution", "after-accept"] {
        let (mut broker, slave) = (Mosquitto::new(), Slave::new());
        let site = site(&broker, &slave, settle);
        let daemon = site.start();
        wait_until_connected(&site);
        assert_eq!(daemon.terminate().code(), Some(0));

        let mut back_end = broker.visit("back-end");
        for value in 1..=100 {
            send(&mut back_end, &format!("m-{value}"), &command("pulse", value));
        }
        drop(back_end);
        broker.stop();
        assert!(broker.start());
        let daemon = site.start();
        site.wait_for_row("m-100", "succeeded");
        assert_eq!(slave.writes(), writes(1..=100));
        assert!(site.rows().iter().all(|row| row["deliveries"] == 1));
        assert_eq!(daemon.terminate().code(), Some(0));
        nothing_is_left(&site, &broker, "last");
    }
}

#[test]
fn through_a_websocket_the_same_is_done_as_without() {
    let (mut broker, slave) = (Mosquitto::new(), Slave::new());
    let site = site(&broker, &slave, "after-execution");
    site.configure(
        &format!("address = \"{}\"", broker.address),
        &format!("address = \"{}\"\ntransport = \"mqtt-ws\"", broker.websocket),
    );
    let daemon = site.start();
    wait_until_connected(&site);
    assert_eq!(site.device_status("pump")["transport"], "mqtt-ws");
    let mut back_end = broker.visit("back-end");
    for value in 1..=20 {
        send(&mut back_end, &format!("m-{value}"), &command("pulse", value));
    }
    site.wait_for_row("m-20", "succeeded");
    drop(back_end);
    broker.stop();
    assert!(broker.start());
    // Nothing of what was completed comes again, and the daemon comes back by itself.
    let mut back_end = broker.visit("back-end");
    wait_until_connected(&site);
    let body = format!("{:<60000}", command("pulse", 21));
    send(&mut back_end, "large", &body);
    site.wait_for_row("large", "succeeded");
    site.settled();
    assert_eq!(slave.writes(), writes(1..=21));
    assert!(site.rows().iter().all(|row| row["deliveries"] == 1));
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn a_broker_that_restarts_while_a_command_is_on_the_wire_completes_it_without_a_repetition() {
    let (mut broker, slave) = (Mosquitto::new(), Slave::new());
    let site = site(&broker, &slave, "after-execution");
    let daemon = site.start();
    wait_until_connected(&site);
    slave.set_mood(Mood::Held);
    let mut back_end = broker.visit("back-end");
    for value in 1..=5 {
        send(&mut back_end, &format!("m-{value}"), &command("pulse", value));
    }
    slave.wait_for_requests(1);
    drop(back_end);
    broker.stop();
    eventually("the daemon notices", || (site.device_status("pump")["lastError"] != Json::Null).then_some(()));
    assert!(broker.start());
    wait_until_connected(&site);
    // What waited comes again, the command on the wire included.
    eventually("the redelivery", || (site.device_status("pump")["received"].as_u64() == Some(10)).then_some(()));
    slave.set_mood(Mood::Good);
    site.wait_for_row("m-5", "succeeded");
    assert_eq!(slave.writes(), writes(1..=5));
    assert_eq!(site.device_status("pump")["duplicates"], 1, "what was on the wire was known when it came again");
    assert_eq!(daemon.terminate().code(), Some(0));
    nothing_is_left(&site, &broker, "last");
}

#[test]
fn a_gateway_that_dies_with_commands_in_flight_executes_each_once() {
    let (broker, slave) = (Mosquitto::new(), Slave::new());
    let site = site(&broker, &slave, "after-execution");
    let daemon = site.start();
    wait_until_connected(&site);
    slave.set_mood(Mood::Held);
    let mut back_end = broker.visit("back-end");
    for value in 1..=5 {
        send(&mut back_end, &format!("m-{value}"), &command("pulse", value));
    }
    slave.let_one_go();
    slave.wait_for_requests(2);
    daemon.kill();

    slave.set_mood(Mood::Good);
    let daemon = site.start();
    site.wait_for_row("m-5", "succeeded");
    assert_eq!(slave.writes(), writes(1..=5));
    let states: Vec<Json> = site.rows().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["succeeded", "in_doubt", "succeeded", "succeeded", "succeeded"]);
    assert_eq!(daemon.terminate().code(), Some(0));
    nothing_is_left(&site, &broker, "last");
}

#[test]
fn a_result_event_reaches_a_subscriber() {
    let (broker, slave) = (Mosquitto::new(), Slave::new());
    let site = site(&broker, &slave, "after-execution");
    let _daemon = site.start();
    wait_until_connected(&site);
    let mut back_end = broker.visit("back-end");
    back_end.subscribe("devices/pump/messages/events/#");
    let mut sender = broker.visit("sender");
    send(&mut sender, "My%20Message%20ID", &command("pulse", 7));
    let (topic, event) = back_end.next_message();
    assert!(topic.contains("&%24.cid=My%20Message%20ID&"), "{topic}");
    assert_eq!((&event["messageId"], &event["status"]), (&"My Message ID".into(), &"succeeded".into()));
    send(&mut sender, "bad", "\u{fffd}");
    let (_, event) = back_end.next_message();
    assert_eq!((&event["messageId"], &event["status"]), (&"bad".into(), &"rejected".into()));
    eventually("the outbox is empty", || {
        let output = site.command(&["status", "--json"]);
        let status: Json = serde_json::from_slice(&output.stdout).expect("a status is JSON");
        (status["outbox"]["pending"] == 0).then_some(())
    });
}

#[test]
fn a_second_client_with_the_devices_id_loses_no_message() {
    let (broker, slave) = (Mosquitto::new(), Slave::new());
    let site = site(&broker, &slave, "after-execution");
    let _daemon = site.start();
    wait_until_connected(&site);
    let mut back_end = broker.visit("back-end");
    for value in 1..=20 {
        if value % 5 == 0 {
            // The broker closes the daemon's connection for it. It keeps the session, as every client of a hub must.
            drop(Visitor::with_session(&broker.address, "pump"));
        }
        send(&mut back_end, &format!("m-{value}"), &command("pulse", value));
    }
    site.wait_for_row("m-20", "succeeded");
    let mut reached = slave.writes();
    reached.sort_unstable();
    assert_eq!(reached, writes(1..=20), "each once");
}
