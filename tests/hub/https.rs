//! HTTPS as a device's transport, against the simulator of the hub: the built daemon, real sockets, TLS. Proves G1, G2,
//! G3, G5, G6 and G7 of it from outside.

use std::time::Duration;

use fieldbridge::demo::hub::{Ack, Auth, C2d, Fault, Feedback, Options, Status, Wire};

use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{self, eventually, signal, Daemon, Site};

fn hub(options: Options) -> Hub {
    let hub = Hub::start(Options { keeps_from_start: true, ..options });
    hub.add_device("pump", Auth::Key((0..32).collect()));
    hub
}

/// A site whose device polls the hub, as often as it may.
fn site(hub: &Hub, slave: &Slave, settle: &str, hub_keys: &str) -> Site {
    let head = format!(
        "host = \"{}\"\ntransport = \"https\"\naddresses = {{ https = \"{}\" }}\nca_file = \"hub-ca.pem\"\n{hub_keys}",
        hub.host(),
        hub.https_addr()
    );
    let head = match hub_keys.contains("poll_interval") {
        true => head,
        false => head + "poll_interval = \"1s\"\n",
    };
    let site = Site::with_hub(&head, &support::pump(slave.address(), settle, ""));
    site.write("hub-ca.pem", &hub.ca_pem());
    // A transport without sessions can't say that a device is new: the operator does.
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    site
}

/// The daemon, which takes the hub's locks for as short as they are here.
fn start(site: &Site) -> Daemon {
    let daemon = site.spawn(&[], &[("FIELDBRIDGE_LOCK_MS", "1500")]);
    daemon.wait_until_ready();
    daemon
}

fn send(hub: &Hub, id: &str, command: &str, value: u16) {
    hub.send("pump", C2d::new(id, value.to_string()).property("command", command).ack(Ack::Full)).unwrap();
}

/// The feedback of a message.
fn feedback(hub: &Hub, id: &str) -> Feedback {
    let is_its = |feedback: &Feedback| feedback.original_message_id.as_deref() == Some(id);
    eventually(&format!("feedback of {id}"), || hub.feedback().into_iter().find(is_its))
}

/// The states in the result events, by the order in which the hub took them.
fn events(hub: &Hub) -> Vec<(String, String)> {
    let text = |json: &serde_json::Value, name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let bodies = hub.telemetry().into_iter().map(|event| serde_json::from_slice(&event.body).unwrap());
    bodies.map(|body: serde_json::Value| (text(&body, "messageId"), text(&body, "status"))).collect()
}

#[test]
fn commands_run_in_order_and_the_hub_hears_what_became_of_them() {
    for settle in ["after-execution", "after-accept"] {
        for bare_etag in [false, true] {
            let (hub, slave) = (hub(Options { bare_etag, ..Options::default() }), Slave::new());
            let site = site(&hub, &slave, settle, "");
            for number in 1..=20 {
                send(&hub, &format!("m-{number}"), "pulse", number);
            }
            let _daemon = site.start();
            for number in 1..=20 {
                assert_eq!(feedback(&hub, &format!("m-{number}")).status, Status::Success);
            }
            let writes = eventually("20 writes", || Some(slave.writes()).filter(|writes| writes.len() == 20));
            assert_eq!(writes, (1..=20).map(|value| (2, value)).collect::<Vec<_>>(), "{settle}");
            let told = eventually("20 events", || Some(events(&hub)).filter(|events| events.len() == 20));
            let expected: Vec<_> = (1..=20).map(|number| (format!("m-{number}"), "succeeded".to_owned())).collect();
            assert_eq!(told, expected, "{settle}");
            let status = site.device_status("pump");
            assert_eq!((&status["hub"], &status["transport"]), (&"connected".into(), &"https".into()));
            assert_eq!(hub.queue_len("pump"), 0);
        }
    }
}

#[test]
fn what_is_refused_is_rejected_at_the_hub() {
    let (hub, slave) = (hub(Options::default()), Slave::new());
    let site = site(&hub, &slave, "after-execution", "");
    let _daemon = site.start();
    send(&hub, "m-1", "explode", 1);
    assert_eq!(feedback(&hub, "m-1").status, Status::Rejected);
    site.wait_for_row("m-1", "rejected");
    site.settled();
    assert_eq!(events(&hub), [("m-1".to_owned(), "rejected".to_owned())]);
    assert_eq!(site.settled_how("m-1"), "rejected by https");
    let row = &site.rows()[0];
    assert!(row["sequenceNumber"].is_u64() && row["enqueuedAt"].is_string(), "{row}");
}

#[test]
fn a_command_that_takes_longer_than_its_lock_runs_once_and_is_completed_when_it_comes_again() {
    let (hub, slave) = (hub(Options { lock: Duration::from_millis(300), ..Options::default() }), Slave::new());
    let site = site(&hub, &slave, "after-execution", "");
    slave.set_take_up(Duration::from_millis(400));
    let _daemon = site.start();
    send(&hub, "m-1", "pulse", 7);
    assert_eq!(feedback(&hub, "m-1").status, Status::Success);
    assert_eq!(slave.writes(), [(2, 7)]);
    eventually("both deliveries are counted", || (site.rows()[0]["deliveries"] == 2).then_some(()));
}

#[test]
fn a_message_id_that_comes_again_while_the_first_is_locked_is_one_command_and_every_message_is_settled() {
    for settle in ["after-execution", "after-accept"] {
        let (hub, slave) = (hub(Options::default()), Slave::new());
        let site = site(&hub, &slave, settle, "");
        let _daemon = site.start();
        slave.set_mood(Mood::Held);
        send(&hub, "m-1", "pulse", 1);
        slave.wait_for_requests(1);
        send(&hub, "m-1", "pulse", 1);
        send(&hub, "m-1", "pulse", 2);
        slave.set_mood(Mood::Good);
        let told = eventually("the ends of three messages", || Some(hub.feedback()).filter(|told| told.len() == 3));
        let told: Vec<Status> = told.into_iter().map(|feedback| feedback.status).collect();
        assert_eq!(told, [Status::Success, Status::Success, Status::Rejected], "{settle}");
        eventually("the command is done", || (slave.writes() == [(2, 1)]).then_some(()));
        site.settled();
        let ends: Vec<_> = site.rows().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect();
        let expected = |state: &str| ends.iter().filter(|end| *end == state).count();
        assert_eq!((ends.len(), expected("succeeded"), expected("rejected")), (2, 1, 1), "{settle}: {ends:?}");
        assert_eq!((hub.queue_len("pump"), slave.writes()), (0, vec![(2, 1)]));
    }
}

#[test]
fn a_message_id_that_was_sent_again_before_a_kill_stays_the_first_ones() {
    let (hub, slave) = (hub(Options { lock: Duration::from_secs(1), ..Options::default() }), Slave::new());
    let site = site(&hub, &slave, "after-execution", "");
    let daemon = start(&site);
    slave.set_mood(Mood::Held);
    send(&hub, "m-1", "set", 1);
    slave.wait_for_requests(1);
    // It is idempotent, so nothing is recorded of it yet.
    send(&hub, "m-1", "set", 2);
    daemon.kill();
    slave.set_mood(Mood::Good);
    let _daemon = start(&site);
    let told = eventually("the ends of both", || Some(hub.feedback()).filter(|told| told.len() == 2));
    let told: Vec<Status> = told.into_iter().map(|feedback| feedback.status).collect();
    assert_eq!(told, [Status::Success, Status::Rejected]);
    assert!(slave.writes().iter().all(|(_, value)| *value == 1), "{:?}", slave.writes());
}

#[test]
fn a_settlement_that_is_lost_and_an_answer_that_never_comes_cost_no_command_and_repeat_none() {
    for fault in [Fault::LoseSettlement, Fault::CutAfterSettlement, Fault::CutBeforePublish, Fault::CutInFrame] {
        let (hub, slave) = (hub(Options { lock: Duration::from_secs(1), ..Options::default() }), Slave::new());
        let site = site(&hub, &slave, "after-execution", "");
        let _daemon = start(&site);
        send(&hub, "m-1", "pulse", 1);
        feedback(&hub, "m-1");
        hub.fault("pump", fault);
        send(&hub, "m-2", "pulse", 2);
        send(&hub, "m-3", "pulse", 3);
        for id in ["m-2", "m-3"] {
            assert_eq!(feedback(&hub, id).status, Status::Success, "{fault:?}");
        }
        // What was locked when its answer was lost is not overtaken.
        assert_eq!(slave.writes(), [(2, 1), (2, 2), (2, 3)], "{fault:?}");
    }
}

/// The requests of the device so far that the hub answered so.
fn requests(hub: &Hub, what: &str, with: u16) -> usize {
    let is_one = |event: &Wire| matches!(event, Wire::Request { what: of, status } if of == what && *status == with);
    hub.wire().iter().filter(|event| is_one(&event.what)).count()
}

#[test]
fn a_stop_takes_no_message_that_it_would_only_give_back() {
    for settle in ["after-execution", "after-accept"] {
        let (hub, slave) = (hub(Options::default()), Slave::new());
        let site = site(&hub, &slave, settle, "");
        let mut daemon = site.start();
        slave.set_mood(Mood::Held);
        send(&hub, "m-1", "pulse", 1);
        slave.wait_for_requests(1);
        signal(daemon.pid(), "TERM");
        eventually("the daemon begins to stop", || daemon.log().contains("stopping").then_some(()));
        send(&hub, "m-2", "pulse", 2);
        slave.set_mood(Mood::Good);
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(slave.writes(), [(2, 1)]);
        let counts = ["GET devicebound", "POST devicebound/abandon"];
        assert_eq!((requests(&hub, counts[0], 200), requests(&hub, counts[1], 204)), (1, 0), "{settle}");
        // Its events went out, and nothing that is locked is waited for.
        assert_eq!(events(&hub), [("m-1".to_owned(), "succeeded".to_owned())]);
        let _daemon = site.start();
        site.wait_for_row("m-2", "succeeded");
        assert_eq!(site.rows().iter().find(|row| row["messageId"] == "m-2").unwrap()["deliveryCount"], 0);
    }
}

#[test]
fn a_kill_in_the_middle_repeats_nothing_that_stands_in_the_ledger() {
    let (hub, slave) = (hub(Options { lock: Duration::from_secs(1), ..Options::default() }), Slave::new());
    let site = site(&hub, &slave, "after-execution", "");
    for number in 1..=30 {
        send(&hub, &format!("m-{number}"), "pulse", number);
    }
    for killed_after in [5, 12, 20] {
        let daemon = start(&site);
        eventually("some are written", || (slave.writes().len() >= killed_after).then_some(()));
        drop(daemon);
    }
    let _daemon = start(&site);
    for number in 1..=30 {
        feedback(&hub, &format!("m-{number}"));
    }
    assert!(slave.writes().is_sorted(), "{:?}", slave.writes());
    for number in 1..=30 {
        assert!(slave.count(2, number) <= 1, "{number} was written twice");
        let row = site.rows().into_iter().find(|row| row["messageId"] == format!("m-{number}")).unwrap();
        let written = slave.count(2, number) == 1;
        assert!(written || row["state"] == "in_doubt", "{row}");
    }
}

#[test]
fn a_crash_and_another_transport_after_it_overtake_nothing() {
    for (before, after, stops) in [
        ("https", "mqtt", false),
        ("https", "amqp", false),
        ("mqtt", "https", false),
        // The daemon is stopped in order while it waits, and does not forget that by the next start.
        ("https", "mqtt", true),
        ("https", "https", true),
    ] {
        let (hub, slave) = (hub(Options { lock: Duration::from_secs(1), ..Options::default() }), Slave::new());
        let site = site(&hub, &slave, "after-execution", "");
        let addresses = format!("addresses = {{ mqtt = \"{}\", amqp = \"{}\", ", hub.addr(), hub.amqp_addr());
        site.configure("addresses = { ", &addresses);
        let transport = |kind: &str| format!("transport = \"{kind}\"");
        // By MQTT a hub keeps nothing for a device that has never subscribed.
        site.configure(&transport("https"), &transport("mqtt"));
        let daemon = start(&site);
        eventually("a subscription", || (site.device_status("pump")["hub"] == "connected").then_some(()));
        assert!(daemon.terminate().success());
        site.configure(&transport("mqtt"), &transport(before));
        let daemon = start(&site);
        slave.set_mood(Mood::Held);
        send(&hub, "m-1", "set", 1);
        slave.wait_for_requests(1);
        send(&hub, "m-2", "set", 2);
        daemon.kill();
        site.configure(&transport(before), &transport(after));
        slave.set_mood(Mood::Good);
        if stops {
            assert!(start(&site).terminate().success());
        }
        let _daemon = start(&site);
        for id in ["m-1", "m-2"] {
            assert_eq!(feedback(&hub, id).status, Status::Success, "{before}, {after}, {stops}");
        }
        let values: Vec<u16> = slave.writes().into_iter().map(|(_, value)| value).collect();
        assert!(values.is_sorted() && values.ends_with(&[2]), "{before}, {after}, {stops}: {values:?}");
    }
}

#[test]
fn a_token_is_renewed_in_place_and_a_key_that_is_refused_is_told() {
    let (hub, slave) = (hub(Options { clock_skew: Duration::ZERO, ..Options::default() }), Slave::new());
    let site = site(&hub, &slave, "after-execution", "token_lifetime = \"10s\"\n");
    let daemon = site.start();
    send(&hub, "m-1", "pulse", 1);
    feedback(&hub, "m-1");
    // The second one is shown after the first has expired.
    eventually("two new tokens", || (daemon.log().matches("a new token is shown").count() >= 2).then_some(()));
    send(&hub, "m-2", "pulse", 2);
    feedback(&hub, "m-2");
    let log = daemon.log();
    assert!(!log.contains("no connection") && log.matches("lets the device in").count() == 1, "{log}");
    hub.add_device("pump", Auth::Key(vec![9; 32]));
    site.wait_for_last_error("HTTP 401, ErrorCode:IotHubUnauthorizedAccess;Unauthorized");
    hub.add_device("pump", Auth::Key((0..32).collect()));
    send(&hub, "m-3", "pulse", 3);
    feedback(&hub, "m-3");
    assert_eq!(slave.writes(), [(2, 1), (2, 2), (2, 3)]);
}

#[test]
fn a_device_is_known_by_its_certificate_alone() {
    let (hub, slave) = (hub(Options::default()), Slave::new());
    let site = site(&hub, &slave, "after-execution", "");
    let certificate = hub.add_cert_device("pump").unwrap();
    site.write("pump.pem", &certificate.cert_pem);
    site.write("pump.key", &certificate.key_pem);
    site.configure("key_file = \"device.key\"", "cert_file = \"pump.pem\"\ncert_key_file = \"pump.key\"");
    let _daemon = site.start();
    send(&hub, "m-1", "pulse", 1);
    assert_eq!(feedback(&hub, "m-1").status, Status::Success);
    // The key of the second certificate is another's.
    hub.add_cert_device("pump").unwrap();
    site.wait_for_last_error("HTTP 401");
}

#[test]
fn a_hub_that_throttles_or_is_away_is_waited_for() {
    let (mut hub, slave) = (hub(Options::default()), Slave::new());
    let site = site(&hub, &slave, "after-execution", "");
    // A poll that is cut by the end of the network may have locked something.
    let _daemon = start(&site);
    send(&hub, "m-1", "pulse", 1);
    feedback(&hub, "m-1");
    hub.refuse_for(Duration::from_secs(3), 5);
    site.wait_for_last_error("HTTP 429, ErrorCode:ThrottlingException;Too Many Requests, for 1 s");
    send(&hub, "m-2", "pulse", 2);
    feedback(&hub, "m-2");
    hub.unplug();
    site.wait_for_last_error("can't be reached");
    send(&hub, "m-3", "pulse", 3);
    hub.plug_in();
    feedback(&hub, "m-3");
    assert_eq!(slave.writes(), [(2, 1), (2, 2), (2, 3)]);
}
