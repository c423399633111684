//! The rules of the hub's session, with a broker that does just what the test says. Proves G1, G2, G3, G5 and G6 from
//! outside: the built daemon, real sockets, a slave that counts.

mod accept;
mod away;
mod cut;
mod deadlines;
mod history;
mod link;
mod locked;
mod message_ids;
mod operators;
mod order;
mod packet_ids;
mod refusals;
mod room;
mod spacing;
mod stop;

use serde_json::Value as Json;

use crate::support::broker::{Broker, Client};
use crate::support::slave::Slave;
use crate::support::{eventually, pump, Site};

const BOTH: [&str; 2] = ["after-execution", "after-accept"];
/// Longer than any test holds an answer back.
const LONG: &str = "response_timeout = \"20s\"";

/// A site with one pump, its broker and its slave.
fn site(settle: &str) -> (Site, Broker, Slave) {
    site_with(settle, LONG)
}

fn site_with(settle: &str, timing: &str) -> (Site, Broker, Slave) {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), settle, timing));
    (site, broker, slave)
}

/// One more device on the pump's bus, with the pump's commands.
fn another_pump(id: &str) -> String {
    format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n")
}

/// A site with two devices on one bus, `pump` and `other`.
fn site_of_two(settle: &str) -> (Site, Broker, Slave) {
    let (broker, slave) = (Broker::new(), Slave::new());
    let devices = format!("{}\n{}", pump(slave.address(), settle, LONG), another_pump("other"));
    (Site::new(&broker.address(), &devices), broker, slave)
}

/// Gives a command of the pump's more keys, which are lines.
fn add_keys(site: &Site, name: &str, keys: &str) {
    let table = format!("[profile.pump.command.{name}]\n");
    site.configure(&table, &format!("{table}{keys}\n"));
}

fn command(name: &str, value: u16) -> String {
    format!(r#"{{"command":"{name}","value":{value}}}"#)
}

/// The register that a command writes.
fn register(name: &str) -> u16 {
    match name {
        "set" => 0,
        "pulse" => 2,
        "pulse-verified" => 3,
        other => panic!("{other} writes no register here"),
    }
}

/// Waits until the daemon has received so many deliveries since its start.
fn wait_for_deliveries(site: &Site, count: u64) {
    eventually(&format!("{count} deliveries"), || {
        (site.device_status("pump")["received"].as_u64() == Some(count)).then_some(())
    });
}

/// Shows that nothing else was on its way: a command that is delivered now is the next to be acknowledged and reported.
fn fence(client: &mut Client, packet_id: u16) {
    let message_id = format!("fence-{packet_id}");
    client.deliver(packet_id, &message_id, r#"{"command":"read"}"#);
    let (pubacks, events) = client.collect(1, 1);
    assert_eq!(pubacks, [packet_id], "a PUBACK too many");
    assert_eq!(message_ids_of(&events), [message_id], "an event too many");
}

fn message_ids_of(events: &[(String, Json)]) -> Vec<&str> {
    events.iter().map(|(_, event)| event["messageId"].as_str().expect("an event names its message")).collect()
}

/// The `$.mid` of an event, which is the same each time that the event is published.
fn event_id(topic: &str) -> &str {
    let (_, bag) = topic.split_once("/messages/events/").expect("an event's topic");
    bag.split('&').find_map(|pair| pair.strip_prefix("%24.mid=")).expect("an event has an id of its own")
}

#[test]
fn a_message_becomes_one_write_one_completion_and_one_event() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        assert_eq!(client.connect.client_id, "pump");
        assert_eq!(client.connect.user_name, "hub.example/pump/?api-version=2021-04-12");
        assert!(!client.connect.clean_session, "a clean session would throw away what waits");
        let password = client.connect.password.clone().unwrap();
        assert!(password.starts_with("SharedAccessSignature sr=hub.example%2Fdevices%2Fpump&sig="), "{password}");

        client.deliver(1, "m-1", &command("pulse", 7));
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!(pubacks, [1]);
        let (topic, event) = &events[0];
        assert!(topic.starts_with("devices/pump/messages/events/"), "{topic}");
        for part in ["%24.cid=m-1", "%24.ct=application%2Fjson", "%24.ce=utf-8", "fieldbridge=command-result"] {
            assert!(topic.contains(part), "{topic} lacks {part}");
        }
        assert_eq!((&event["status"], &event["value"]), (&"succeeded".into(), &7.into()));
        assert_eq!(slave.writes(), [(2, 7)]);
        fence(&mut client, 2);
    }
}
