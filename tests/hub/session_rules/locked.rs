//! A device that somebody has locked: what waits is rejected at once, in whatever way it waits, and what is on the wire
//! goes on to its end. Proves G5 and G13 beside it.

use std::time::Duration;

use fieldbridge::demo::hub::{Ack, Auth, C2d, Options, Status};
use serde_json::Value as Json;

use super::{command, fence, message_ids_of, site, site_of_two, wait_for_deliveries, BOTH};
use crate::support::broker::Client;
use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::transports::By;
use crate::support::{eventually, pump, Site};

fn operator(site: &Site, verb: &str) {
    let output = site.command(&[verb, "pump"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What happens next is an event that tells of a command that was locked out.
fn next_is_locked_out(client: &mut Client, message_id: &str) {
    let (_, event) = client.next_event();
    assert_eq!((&event["messageId"], &event["status"]), (&message_id.into(), &"rejected".into()));
    assert_eq!((&event["error"]["code"], &event["attempts"]), (&"locked-out".into(), &0.into()));
}

#[test]
fn what_waits_behind_a_slow_command_is_rejected_at_once_and_is_not_run_when_the_device_is_unlocked_by_then() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "slow", &command("set", 1));
        slave.wait_for_requests(1);
        client.deliver(2, "pulse", &command("pulse", 2));
        client.deliver(3, "set", &command("set", 3));
        client.deliver(4, "read", r#"{"command":"read"}"#);
        wait_for_deliveries(&site, 4);
        if settle == "after-accept" {
            assert_eq!(client.collect(4, 0).0, [1, 2, 3, 4]);
        }
        operator(&site, "lock");
        next_is_locked_out(&mut client, "pulse");
        next_is_locked_out(&mut client, "set");
        site.wait_for_row("set", "rejected");
        operator(&site, "unlock");
        assert!(client.is_silent_for(Duration::from_millis(200)), "something overtook the slow command");

        slave.set_mood(Mood::Good);
        let pubacks = if settle == "after-accept" { &[][..] } else { &[1, 2, 3, 4] };
        let (acknowledged, events) = client.collect(pubacks.len(), 2);
        assert_eq!(acknowledged, pubacks);
        assert_eq!(message_ids_of(&events), ["slow", "read"]);
        assert_eq!(slave.writes(), [(0, 1)]);
        client.deliver(5, "after", &command("pulse", 5));
        assert_eq!(client.collect(1, 1).1[0].1["status"], "succeeded");
        assert_eq!(slave.writes(), [(0, 1), (2, 5)]);
    }
}

#[test]
fn what_waits_for_its_bus_is_rejected_at_once_and_its_neighbour_goes_on() {
    for name in ["set", "pulse"] {
        let (site, broker, slave) = site_of_two("after-execution");
        let _daemon = site.start();
        let [mut client, mut other] = broker.serve_each(["pump", "other"]);
        slave.set_mood(Mood::Held);
        other.publish(1, b"devices/other/messages/devicebound/%24.mid=hold", command("set", 1).as_bytes());
        slave.wait_for_requests(1);
        client.deliver(7, "waits", &command(name, 2));
        wait_for_deliveries(&site, 1);
        operator(&site, "lock");
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!((pubacks, &events[0].1["error"]["code"]), (vec![7], &"locked-out".into()));
        slave.set_mood(Mood::Good);
        assert_eq!(other.collect(1, 1).1[0].1["status"], "succeeded");
        fence(&mut client, 8);
        assert_eq!(slave.writes(), [(0, 1)]);
    }
}

#[test]
fn what_was_accepted_before_a_crash_is_rejected_by_the_next_daemon_also_if_the_device_is_unlocked_by_then() {
    for is_unlocked in [false, true] {
        let (site, broker, slave) = site("after-accept");
        let daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "slow", &command("pulse", 1));
        client.deliver(2, "waits", &command("pulse", 2));
        assert_eq!(client.collect(2, 0).0, [1, 2]);
        slave.wait_for_requests(1);
        daemon.kill();
        operator(&site, "lock");
        if is_unlocked {
            operator(&site, "unlock");
        }
        slave.set_mood(Mood::Good);
        let _daemon = site.start();
        drop(client);
        let mut client = broker.serve();
        let (_, mut events) = client.collect(0, 2);
        events.sort_by_key(|(_, event)| event["messageId"].to_string());
        assert_eq!(message_ids_of(&events), ["slow", "waits"]);
        let ends: Vec<&Json> = events.iter().map(|(_, event)| &event["status"]).collect();
        assert_eq!(ends, ["in_doubt", "rejected"]);
        assert_eq!(events[1].1["error"]["code"], "locked-out");
        if !is_unlocked {
            operator(&site, "unlock");
        }
        client.deliver(3, "after", &command("pulse", 3));
        assert_eq!(client.collect(1, 1).1[0].1["status"], "succeeded");
        assert_eq!(slave.writes(), [(2, 1), (2, 3)]);
    }
}

#[test]
fn what_is_locked_out_is_rejected_at_the_hub_where_the_transport_can() {
    for by in By::ALL {
        let (hub, slave) =
            (Hub::start(Options { feedback_interval: Duration::ZERO, ..Options::default() }), Slave::new());
        hub.add_device("pump", Auth::Key((0..32).collect()));
        let head = format!("host = \"{}\"\nca_file = \"hub-ca.pem\"\n{}", hub.host(), by.keys(by.address(&hub)));
        let site = Site::with_hub(&head, &pump(slave.address(), "after-execution", ""));
        site.write("hub-ca.pem", &hub.ca_pem());
        by.trust(&site);
        operator(&site, "lock");
        let _daemon = site.start();
        eventually("a connection", || (site.device_status("pump")["hub"] == "connected").then_some(()));
        eventually("a subscription", || (by != By::Mqtt || hub.is_subscribed("pump")).then_some(()));
        let message = |id: &str, name: &str| C2d::new(id, "7").property("command", name).ack(Ack::Full);
        hub.send("pump", message("m-1", "set")).unwrap();
        hub.send("pump", message("m-2", "pulse")).unwrap();
        let status = |id: &str| {
            let is_its =
                |feedback: &fieldbridge::demo::hub::Feedback| feedback.original_message_id.as_deref() == Some(id);
            eventually(&format!("feedback of {id} by {by:?}"), || hub.feedback().into_iter().find(is_its)).status
        };
        let expected = if by.rejects() { Status::Rejected } else { Status::Success };
        for id in ["m-1", "m-2"] {
            assert_eq!(status(id), expected, "{by:?}");
            assert_eq!(site.wait_for_row(id, "rejected")["error"]["code"], "locked-out");
        }
        assert_eq!(slave.writes(), [], "{by:?}");
    }
}
