//! What an instrument says by itself, at the hub. Proves what such events may not do: cost a result event its place
//! (G7), fill anything (G16), or be lost on a connection that ends.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{json, Value as Json};
use tokio_serial::{SerialPort as _, SerialStream};

use crate::support::broker::{Broker, Client};
use crate::support::hub::Hub;
use crate::support::transports::By;
use crate::support::{eventually, signal, Daemon, Site};
use fieldbridge::demo::hub::D2c;

/// A scale that says what a test has it say, and answers nothing.
struct Scale {
    far: SerialStream,
    /// Held open, so that it sees no hang-up while no daemon lives.
    near: SerialStream,
}

impl Scale {
    fn new() -> Scale {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let (far, near) = SerialStream::pair().expect("a pseudo-terminal can be made");
        Scale { far, near }
    }

    fn path(&self) -> PathBuf {
        self.near.name().expect("a pseudo-terminal has a name").into()
    }

    /// Says all of it, as fast as it is heard.
    fn say(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            rest = &rest[eventually("a pseudo-terminal takes it", || self.far.write(rest).ok())..];
        }
    }

    /// Waits until the line may be asked, and a command is answered on it. By then nothing is owed any more to what an
    /// earlier life of the daemon might have asked, and the line stands at the beginning of one.
    fn is_asked(&mut self, site: &Site) {
        std::thread::scope(|threads| {
            let asking = threads.spawn(|| site.command(&["exec", "scale", "tare"]));
            let mut heard = Vec::new();
            eventually("the scale is asked", || {
                let mut chunk = [0; 16];
                let length = self.far.read(&mut chunk).unwrap_or(0);
                heard.extend(&chunk[..length]);
                heard.ends_with(b"T\r\n").then_some(())
            });
            self.say("OK\r\n");
            let told = asking.join().expect("it ends");
            assert!(told.status.success(), "{told:?}");
        });
    }

    fn config(&self, events: &str) -> String {
        format!(
            "[bus.scale-port]\nkind = \"serial\"\nport = \"{}\"\nbaud = 115200\nresponse_timeout = \"300ms\"\nlate_window = \"100ms\"\n\
             [device.scale]\nbus = \"scale-port\"\nprofile = \"scale\"\nkey_file = \"device.key\"\n{events}\n\
             [profile.scale.command.tare]\nsend = \"T\\r\\n\"\nexpect = \"^OK\"\nidempotent = true\n",
            self.path().display()
        )
    }
}

const EVENTS: &str = "events = \"^ALARM ?([0-9]*)\"";

/// A site at a hub that is reached so.
fn site(hub: &Hub, by: By, scale: &Scale, events: &str) -> Site {
    let head = format!("host = \"{}\"\ntls = false\n{}", hub.host(), by.keys(by.address(hub)));
    let site = Site::with_hub(&head, &scale.config(events));
    by.trust(&site);
    site
}

/// So many events of the instrument, as the hub has them.
fn told(hub: &Hub, count: usize) -> Vec<D2c> {
    let is_of_it = |event: &D2c| event.property("fieldbridge") == Some("event");
    eventually(&format!("{count} events"), || {
        let all: Vec<D2c> = hub.telemetry().into_iter().filter(is_of_it).collect();
        (all.len() >= count).then_some(all)
    })
}

/// Waits until the daemon has its identity at the hub.
fn is_connected(site: &Site) {
    eventually("it is connected", || (site.device_status("scale")["hub"] == "connected").then_some(()));
}

#[test]
fn what_an_instrument_says_by_itself_reaches_the_hub_by_each_transport() {
    for by in By::ALL {
        let (hub, mut scale) = (Hub::plain(&["scale"]), Scale::new());
        let site = site(&hub, by, &scale, EVENTS);
        let _daemon = site.start();
        is_connected(&site);
        scale.is_asked(&site);
        scale.say("ALARM 3\r\nnoise\r\nALARM\r\n");
        let all = told(&hub, 2);
        let bodies: Vec<Json> = all.iter().map(D2c::json).collect();
        assert_eq!(
            (bodies.len(), &bodies[0]["event"], &bodies[0]["value"]),
            (2, &json!("ALARM 3"), &json!(3)),
            "{by:?}"
        );
        assert_eq!((&bodies[1]["event"], &bodies[1]["value"]), (&json!("ALARM"), &json!("")));
        for (event, body) in all.iter().zip(&bodies) {
            assert_eq!((&body["bus"], body.get("dropped")), (&json!("scale-port"), None));
            assert!(body["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");
            assert_eq!((event.property("$.ct"), event.property("$.ce")), (Some("application/json"), Some("utf-8")));
            assert_eq!(event.property("$.cid"), None);
        }
        assert_ne!(all[0].property("$.mid"), all[1].property("$.mid"));
        // Nothing of it stands in the ledger, beside the operator's command.
        assert_eq!(site.rows().len(), 1);
        assert_eq!(site.status()["outbox"]["pending"], 0);
    }
}

fn start(events: &str) -> (Site, Broker, Scale, Daemon) {
    let (broker, scale) = (Broker::new(), Scale::new());
    let site = Site::new(&broker.address(), &scale.config(events));
    let daemon = site.start();
    (site, broker, scale, daemon)
}

fn event_id(topic: &str) -> &str {
    topic.split("%24.mid=").nth(1).and_then(|rest| rest.split('&').next()).expect("an event has an id")
}

#[test]
fn an_event_is_published_until_the_hub_acknowledges_it_and_one_at_a_time() {
    let (site, broker, mut scale, _daemon) = start(EVENTS);
    let mut client = broker.serve();
    scale.is_asked(&site);
    scale.say("ALARM 1\r\nALARM 2\r\n");
    let (first, body) = client.next_event_unacknowledged();
    assert_eq!(body["event"], "ALARM 1");
    assert!(client.is_silent_for(Duration::from_millis(300)), "the second one does not wait for the first");
    drop(client);
    let mut client = broker.serve();
    let (again, body) = client.next_event();
    assert_eq!((event_id(&again), &body["event"]), (event_id(&first), &json!("ALARM 1")));
    assert_eq!(client.next_event().1["event"], "ALARM 2");
}

#[test]
fn a_result_event_goes_before_all_that_an_instrument_has_said() {
    let (site, broker, mut scale, _daemon) = start(EVENTS);
    let mut client = broker.serve();
    scale.is_asked(&site);
    (0..20).for_each(|n| scale.say(&format!("ALARM {n}\r\n")));
    // The first is on the wire, and the others wait.
    let (_, first) = client.next_event_unacknowledged();
    assert_eq!(first["event"], "ALARM 0");
    client.publish(1, b"devices/scale/messages/devicebound/%24.mid=m-1", br#"{"command":"nothing"}"#);
    let (pubacks, events) = client.collect(1, 1);
    let result = &events[0].1;
    assert_eq!((pubacks, &result["messageId"], &result["status"]), (vec![1], &json!("m-1"), &json!("rejected")));
}

/// All that comes, acknowledged, until one says this.
fn until(client: &mut Client, last: &str) -> Vec<Json> {
    let mut all = Vec::new();
    loop {
        let (_, body) = client.next_event();
        let is_last = body["event"] == last;
        all.push(body);
        if is_last {
            return all;
        }
    }
}

#[test]
fn who_chatters_while_the_hub_is_away_keeps_a_bounded_number_and_is_told_how_many_were_dropped() {
    let (site, broker, mut scale, daemon) = start(EVENTS);
    scale.is_asked(&site);
    (0..500).for_each(|n| scale.say(&format!("ALARM {n}\r\nnoise\r\n")));
    let mut client = broker.serve();
    let (_, first) = client.next_event();
    assert_eq!((&first["event"], first.get("dropped")), (&json!("ALARM 0"), None));
    // There is room now, and what comes next says what is missing.
    scale.say("ALARM 777\r\n");
    let rest = until(&mut client, "ALARM 777");
    let dropped: u64 = rest.iter().filter_map(|body| body["dropped"].as_u64()).sum();
    assert_eq!(1 + rest.len() as u64 + dropped, 501, "{rest:?}");
    assert!(rest.len() < 100, "{}", rest.len());
    assert!(daemon.log().contains("says more by itself than is published"), "{}", daemon.log());
    assert_eq!(site.rows().len(), 1);
}

#[test]
fn events_begin_change_and_end_with_a_reload_and_what_was_heard_before_is_not_forgotten() {
    let (site, broker, mut scale, _daemon) = start("");
    let mut client = broker.serve();
    scale.is_asked(&site);
    scale.say("ALARM 1\r\n");
    let reload = |from: &str, to: &str| {
        site.configure(from, to);
        let told = site.command(&["reload"]);
        assert!(told.status.success(), "{told:?}");
    };
    reload("profile = \"scale\"\n", &format!("profile = \"scale\"\n{EVENTS}\n"));
    scale.say("ALARM 2\r\n");
    let (_, body) = client.next_event_unacknowledged();
    assert_eq!(body["event"], "ALARM 2", "nobody listened before");
    reload(EVENTS, "events = \"^DOOR\"");
    scale.say("ALARM 3\r\nDOOR 4\r\n");
    drop(client);
    let mut client = broker.serve();
    assert_eq!(
        (&client.next_event().1["event"], &client.next_event().1["event"]),
        (&json!("ALARM 2"), &json!("DOOR 4"))
    );
    reload("events = \"^DOOR\"", "");
    scale.say("DOOR 5\r\n");
    assert!(client.is_silent_for(Duration::from_millis(300)));
}

#[test]
fn a_daemon_that_stops_says_what_of_it_is_lost() {
    let (site, broker, mut scale, mut daemon) = start(EVENTS);
    let mut client = broker.serve();
    scale.is_asked(&site);
    scale.say("ALARM 1\r\nALARM 2\r\nALARM 3\r\n");
    // It is never acknowledged, so that the others wait.
    client.next_event_unacknowledged();
    signal(daemon.pid(), "TERM");
    assert!(daemon.wait().success());
    let log = daemon.log();
    assert!(log.contains("what its peripheral has said by itself is lost") && log.contains("left=3"), "{log}");
}
