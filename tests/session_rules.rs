//! The rules of the hub's session, with a broker that does just what the test says. Proves G1, G2, G3, G5 and G6 from outside: the built
//! daemon, real sockets, a slave that counts.

mod support;

use std::time::Duration;

use support::broker::{Broker, Client, Packet};
use support::slave::{Mood, Slave};
use support::{eventually, pump, Site};

/// A site with one pump, its broker and its slave.
fn site(settle: &str) -> (Site, Broker, Slave) {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), settle, "response_timeout = \"2s\""));
    (site, broker, slave)
}

fn command(name: &str, value: u16) -> String {
    format!(r#"{{"command":"{name}","value":{value}}}"#)
}

const BOTH: [&str; 2] = ["after-execution", "after-accept"];

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
        let mut events = Vec::new();
        assert_eq!(client.next_puback(&mut events), 1);
        let (topic, event) = events.pop().unwrap_or_else(|| client.next_event());
        assert!(topic.starts_with("devices/pump/messages/events/"), "{topic}");
        for part in ["%24.cid=m-1", "%24.ct=application%2Fjson", "%24.ce=utf-8", "fieldbridge=command-result"] {
            assert!(topic.contains(part), "{topic} lacks {part}");
        }
        assert_eq!((&event["status"], &event["value"]), (&"succeeded".into(), &7.into()));
        assert_eq!(slave.writes(), [(2, 7)]);
    }
}
