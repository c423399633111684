//! The back ends in examples/backend, as they stand there, against the hub simulator with the daemon at the other end.
//!
//! The SDKs connect to the ports of the hub and no others, so each test takes a loopback address of its own, which is
//! the hub's name too.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fieldbridge::demo::hub::Options;
use serde_json::Value as Json;

use super::{plant_of, said};
use crate::sdk_agreement::peers;
use crate::support::hub::Hub;
use crate::support::{eventually, Site};

const PORT: u16 = 5671;

fn hub() -> Hub {
    let address = eventually("a loopback address whose port is free", || {
        let octet = || fastrand::u8(1..255);
        let address = std::net::Ipv4Addr::new(127, octet(), octet(), octet());
        TcpListener::bind((address, PORT)).ok().map(|_| address)
    });
    let mut options = Options { host: address.to_string(), amqp_port: PORT, ..Options::default() };
    options.bind.set_ip(address.into());
    Hub::start(options)
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn installed(name: &str) -> PathBuf {
    let path = peers().join(name);
    assert!(path.exists(), "{} is missing: run tests/peers/setup.sh", path.display());
    path
}

fn python() -> Command {
    let mut command = Command::new(installed("python/bin/python"));
    command.arg(file("examples/backend/python/back_end.py")).env("PYTHONPATH", file("tests/peers/trust"));
    command
}

fn node() -> Command {
    let modules = installed("node/node_modules");
    // As if it had been installed beside it: its packages are looked for from where it stands.
    let mut command = Command::new("node");
    command.arg(file("examples/backend/node/back_end.js")).env("NODE_PATH", modules);
    command
}

/// Runs an example to its end; with an id, to send again what has it.
fn run(mut example: Command, hub: &Hub, site: &Site, args: &[&str], id: Option<&str>) -> Output {
    example.env("MESSAGE_ID", id.unwrap_or_default());
    let authority = site.path("hub-ca.pem");
    example.args(args).env("FIELDBRIDGE_CA_FILE", &authority).env("NODE_EXTRA_CA_CERTS", &authority);
    example.env("SERVICE_CONNECTION_STRING", hub.service_connection_string());
    example.env("EVENTS_CONNECTION_STRING", hub.event_connection_string());
    example.output().expect("the interpreter is installed")
}

/// The message id that an example has printed, and its lines after that.
fn told(output: &Output) -> (String, Vec<String>) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    let id = lines.next().and_then(|line| line.strip_prefix("message id ").map(str::to_owned));
    assert_eq!(lines.next().as_deref(), Some("sent"), "{}", said(output));
    (id.unwrap_or_else(|| panic!("a message id: {}", said(output))), lines.collect())
}

fn an_example_tells_what_became_of_a_command(example: impl Fn() -> Command) {
    let (hub, slave, site) = plant_of(hub(), "");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    let done = run(example(), &hub, &site, &["pump", "set", "7"], None);
    let (id, lines) = told(&done);
    assert_eq!(lines, ["feedback: Success", "result: succeeded"], "{}", said(&done));
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(slave.writes(), [(0, 7)]);
    assert_eq!(site.wait_for_row(&id, "succeeded")["correlationId"], "order-4711");

    let again = run(example(), &hub, &site, &["pump", "set", "7"], Some(&id));
    assert_eq!(told(&again), (id, lines), "{}", said(&again));
    assert_eq!(slave.writes(), [(0, 7)], "what comes twice is run once");

    let rejected = run(example(), &hub, &site, &["pump", "dance"], None);
    let (id, lines) = told(&rejected);
    assert_eq!(lines[0], "feedback: Rejected", "{}", said(&rejected));
    assert!(lines[1].starts_with("result: rejected (unknown-command: "), "{}", said(&rejected));
    assert_eq!(rejected.status.code(), Some(1), "{}", said(&rejected));
    assert_eq!(site.wait_for_row(&id, "rejected")["attempts"], 0);
    assert_eq!((slave.writes().len(), hub.feedback_waiting()), (1, 0));
    let usage = run(example(), &hub, &site, &["pump", "set", "7", "8"], None);
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));
}

#[test]
fn the_example_in_python_tells_what_became_of_a_command() {
    an_example_tells_what_became_of_a_command(python);
}

#[test]
fn the_example_in_node_tells_what_became_of_a_command() {
    an_example_tells_what_became_of_a_command(node);
}

#[test]
fn what_the_example_in_node_needs_is_what_it_is_tried_with() {
    let dependencies = |name: &str| {
        let text = std::fs::read_to_string(file(name)).expect("it is there");
        let json: Json = serde_json::from_str(&text).expect("it is JSON");
        json["dependencies"].as_object().expect("it has dependencies").clone()
    };
    let tried = dependencies("tests/peers/package.json");
    for (name, version) in dependencies("examples/backend/node/package.json") {
        assert_eq!(tried.get(&name), Some(&version), "{name}");
    }
}
