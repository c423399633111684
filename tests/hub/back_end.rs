//! `fieldbridge send` and `fieldbridge feedback` against the hub simulator, with the daemon at the other end. Proves G2
//! and G7 as a sender sees them: feedback and result event never contradict each other, and nobody's record is lost.

mod examples;
mod feedback;
mod lost;
mod way;

use std::process::{Child, Command, Output, Stdio};

use fieldbridge::demo::hub::{Ack, Auth, C2d, Options, Wire};
use serde_json::Value as Json;

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{self, eventually, Site};

/// A hub with a device on AMQP, and a site that has it and a back end's connection string.
fn plant(more: &str) -> (Hub, Slave, Site) {
    plant_of(Hub::start(Options::default()), more)
}

/// The same of this hub.
fn plant_of(hub: Hub, more: &str) -> (Hub, Slave, Site) {
    let slave = Slave::new();
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let (host, address) = (hub.host(), hub.amqp_addr());
    let head = format!("host = \"{host}\"\naddress = \"{address}\"\ntransport = \"amqp\"\nca_file = \"hub-ca.pem\"\n");
    let site = Site::with_hub(&head, &(support::pump(slave.address(), "after-execution", "") + more));
    site.write("hub-ca.pem", &hub.ca_pem());
    site.write("service.connection", &hub.service_connection_string());
    (hub, slave, site)
}

/// The program as the back end that this hub knows.
fn prepared(hub: &Hub, site: &Site, args: &[&str]) -> Command {
    let mut command = Command::new(support::program());
    command.args(args).arg("--ca-file").arg(site.path("hub-ca.pem")).stdin(Stdio::null());
    if !args.contains(&"--entra") {
        command.arg("--connection-string-file").arg(site.path("service.connection"));
    }
    if !args.contains(&"--address") {
        command.arg("--address").arg(hub.amqp_addr().to_string());
    }
    command
}

/// Runs it to its end.
fn back_end(hub: &Hub, site: &Site, args: &[&str]) -> Output {
    prepared(hub, site, args).output().expect("the built program can be run")
}

/// Begins it.
fn begun(hub: &Hub, site: &Site, args: &[&str]) -> Child {
    let mut command = prepared(hub, site, args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the built program can be run")
}

/// Waits until a back end listens for feedback that has not done so before.
fn listens(hub: &Hub, before: usize) {
    eventually("the back end listens for feedback", || (listeners(hub) > before).then_some(()));
}

/// How often a back end has begun to listen for feedback.
fn listeners(hub: &Hub) -> usize {
    let is_one = |what: &Wire| matches!(what, Wire::Attached { address } if address.contains("feedback"));
    hub.wire().iter().filter(|event| is_one(&event.what)).count()
}

/// Makes so many records of feedback, each in a batch of its own, that nobody waits for.
fn foreign_feedback(hub: &Hub, count: usize) {
    for at in 0..count {
        let id = format!("other-{at}");
        hub.send("pump", C2d::new(id, "1").property("command", "set").ack(Ack::Full)).unwrap();
        // The hub has its record from now on.
        assert_eq!(hub.purge("pump"), 1);
    }
}

/// A hub that keeps messages for a device that was never there.
fn patient_hub() -> Hub {
    Hub::start(Options { keeps_from_start: true, ..Options::default() })
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("it is JSON: {}", said(output)))
}

#[test]
fn a_command_that_is_done_is_a_success_and_one_that_is_rejected_is_told_as_that() {
    let (hub, slave, site) = plant("");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    let done = back_end(
        &hub,
        &site,
        &["send", "pump", "set", "7", "--message-id", "m-1", "--correlation-id", "order 66", "--wait=30s", "--json"],
    );
    assert!(done.status.success(), "{}", said(&done));
    let document = json(&done);
    assert_eq!((&document["messageId"], &document["feedback"]["statusCode"]), (&"m-1".into(), &"Success".into()));
    assert_eq!(slave.writes(), [(0, 7)]);
    let row = site.wait_for_row("m-1", "succeeded");
    assert_eq!(row["correlationId"], "order 66");
    assert!(row["sequenceNumber"].is_u64() && row["enqueuedAt"].is_string(), "{row}");

    let rejected = back_end(&hub, &site, &["send", "pump", "dance", "--wait", "--ttl", "1m"]);
    assert_eq!(rejected.status.code(), Some(1), "{}", said(&rejected));
    assert!(said(&rejected).contains("the message ended as Rejected"), "{}", said(&rejected));
    let id = String::from_utf8_lossy(&rejected.stdout).lines().next().unwrap().replace("message id ", "");
    assert_eq!(site.wait_for_row(&id, "rejected")["error"]["code"], "unknown-command");
}

#[test]
fn a_body_of_any_kind_is_sent_as_it_is_and_no_feedback_is_waited_for_unasked() {
    let (hub, slave, site) = plant("");
    site.configure("settle = \"after-execution\"", "settle = \"after-execution\"\ndefault_command = \"set\"");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    site.write("body.json", r#"{"command":"set","value":8}"#);
    let file = site.path("body.json").display().to_string();
    for args in [
        &["send", "pump", "--data", "7", "--message-id", "bare"][..],
        &["send", "pump", "--data-file", &file, "--message-id", "file", "--content-type", "application/json"],
        &["send", "pump", "--data", "9", "--property", "command=set", "--message-id", "property"],
    ] {
        let sent = back_end(&hub, &site, args);
        assert!(sent.status.success() && said(&sent).ends_with("sent\n"), "{}", said(&sent));
        site.wait_for_row(args.iter().skip_while(|arg| **arg != "--message-id").nth(1).unwrap(), "succeeded");
    }
    assert_eq!(slave.writes(), [(0, 7), (0, 8), (0, 9)]);
}

#[test]
fn whoever_waits_for_one_record_loses_nobody_elses_and_feedback_takes_them() {
    let (hub, _slave, site) = plant("");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    for id in ["other-1", "other-2"] {
        hub.send("pump", C2d::new(id, "1").property("command", "set").ack(Ack::Full)).unwrap();
    }
    eventually("their feedback", || (hub.feedback_waiting() > 0).then_some(()));
    let own = back_end(&hub, &site, &["send", "pump", "set", "2", "--message-id", "own", "--wait", "--json"]);
    assert!(own.status.success(), "{}", said(&own));
    assert_eq!(json(&own)["feedback"]["originalMessageId"], "own");
    let all = back_end(&hub, &site, &["feedback", "--json"]);
    assert!(all.status.success(), "{}", said(&all));
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    let ids: Vec<Json> = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()).collect();
    let mut ids: Vec<&str> = ids.iter().map(|record| record["originalMessageId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.starts_with(&["other-1", "other-2"]), "{text}");
    assert_eq!(hub.feedback_waiting(), 0);
    let none = back_end(&hub, &site, &["feedback"]);
    assert!(none.status.success() && none.stdout.is_empty(), "{}", said(&none));
}

#[test]
fn what_does_not_come_about_says_why_by_its_exit_status_and_tells_no_key() {
    let (hub, _slave, site) = plant("");
    let unknown = back_end(&hub, &site, &["send", "nobody", "set", "1"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(said(&unknown).contains("no device \"nobody\""), "{}", said(&unknown));
    let late = back_end(&hub, &site, &["send", "pump", "set", "1", "--wait=1s"]);
    assert_eq!(late.status.code(), Some(1), "{}", said(&late));
    assert!(said(&late).contains("no feedback within 1s"), "{}", said(&late));
    let away = back_end(&hub, &site, &["send", "pump", "set", "1", "--address", "127.0.0.1:1"]);
    assert_eq!(away.status.code(), Some(75), "{}", said(&away));
    for args in [&["send", "pump", "set"][..], &["feedback"]] {
        let nobody = site.command(args);
        assert_eq!(nobody.status.code(), Some(2), "{}", said(&nobody));
        assert!(said(&nobody).contains("--connection-string-file"), "{}", said(&nobody));
    }
    let both = back_end(&hub, &site, &["send", "pump", "set", "1", "--wait", "--ack", "none"]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    let silent = back_end(&hub, &site, &["send", "pump", "set", "1", "--wait=1s", "--ack", "negative"]);
    assert_eq!(silent.status.code(), Some(1), "{}", said(&silent));
    assert!(said(&silent).contains("--ack wants no feedback on"), "{}", said(&silent));
    // It can't now, which is not its no.
    hub.refuse_for(support::PATIENCE, 3);
    let busy = back_end(&hub, &site, &["send", "pump", "set", "1"]);
    assert_eq!(busy.status.code(), Some(75), "{}", said(&busy));
    assert!(said(&busy).contains("try again") && !said(&busy).contains("daemon"), "{}", said(&busy));
    hub.refuse_for(std::time::Duration::ZERO, 3);
    // Another key.
    let wrong = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let host = hub.host();
    site.write("service.connection", &format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={wrong}"));
    let refused = back_end(&hub, &site, &["send", "pump", "set", "1"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("token") && !said(&refused).contains(&wrong[..8]), "{}", said(&refused));
    assert!(said(&refused).contains("ServiceConnect") && !said(&refused).contains("device"), "{}", said(&refused));
}

#[test]
fn through_port_443_it_is_the_same() {
    let (hub, slave, site) = plant("");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    let address = hub.ws_addr().to_string();
    let args = ["send", "pump", "set", "5", "--transport", "amqp-ws", "--address", &address, "--wait"];
    let sent = back_end(&hub, &site, &args);
    assert!(sent.status.success() && said(&sent).contains("Success"), "{}", said(&sent));
    assert_eq!(slave.writes(), [(0, 5)]);
}

#[test]
fn a_call_has_the_answer_of_a_device_that_is_reached_by_amqp_and_again_the_same_one() {
    let (hub, slave, site) = plant("");
    let _daemon = site.start();
    eventually("the device listens for calls", || hub.hears_methods("pump").then_some(()));
    let address = hub.https_addr().to_string();
    let call = |id: &str, method: &str| {
        let args = ["call", "pump", method, "5", "--message-id", id, "--json", "--address", &address];
        let output = back_end(&hub, &site, &args);
        let answered: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output.status.code(), answered)
    };
    let (exit, answered) = call("c-1", "set");
    assert_eq!((exit, &answered["status"], &answered["payload"]["value"]), (Some(0), &200.into(), &5.into()));
    assert_eq!(call("c-1", "set"), (exit, answered));
    let (exit, refused) = call("c-2", "dance");
    assert_eq!((exit, &refused["status"]), (Some(1), &404.into()));
    assert_eq!(slave.writes(), [(0, 5)]);
}
