//! Device twins, against the simulator of the hub: what is desired is a command as a message is, in the same lane and
//! the same ledger, done once and acknowledged; and the twin is told of the gateway by itself. Proves G1, G2, G4, G5,
//! G7, G8 and G14 for set points: also when the daemon or its connection ends meanwhile, when the hub refuses or
//! answers nothing that makes sense, and for what is desired that nobody has a command for.

use std::time::Duration;

use fieldbridge::demo::hub::{C2d, Cut, Fault, Options, Wire};
use serde_json::{json, Value as Json};

use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, eventually_within, pump, Daemon, Site};

/// Longer than any test holds an answer back.
const LONG: &str = "response_timeout = \"20s\"";

/// A site with one pump, whose speed is set by its twin.
struct Plant {
    hub: Hub,
    slave: Slave,
    site: Site,
}

impl Plant {
    fn new() -> Plant {
        Plant::with("after-execution", LONG)
    }

    fn with(settle: &str, timing: &str) -> Plant {
        let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
        let site = Site::at(&hub, &pump(slave.address(), settle, timing));
        let set = "write = { table = \"holding\", address = 0 }\nidempotent = true\n";
        site.configure(set, &format!("{set}desired = \"speed\"\nrange = [0, 100]\n"));
        Plant { hub, slave, site }
    }

    fn start(&self) -> Daemon {
        let daemon = self.site.start();
        self.hears();
        daemon
    }

    fn hears(&self) {
        eventually("the device hears of what is desired", || self.hub.hears_desired("pump").then_some(()));
    }

    /// The acknowledgement that the hub has, once it is of this version and over.
    fn wait_for_end(&self, version: u64) -> Json {
        eventually(&format!("the end of version {version}"), || {
            let told = self.hub.reported("pump")["speed"].clone();
            (told["av"] == version && told["ac"] != 202).then_some(told)
        })
    }

    /// What the twin is told of the gateway, once it says so of the pump.
    fn wait_for_presence(&self, present: &Json) -> Json {
        eventually(&format!("a presence of {present}"), || {
            let told = self.hub.reported("pump")["fieldbridge"].clone();
            (told.is_object() && told["present"] == *present).then_some(told)
        })
    }

    /// The bodies of the result events so far.
    fn events(&self) -> Vec<Json> {
        self.hub.telemetry().iter().map(|event| serde_json::from_slice(&event.body).unwrap()).collect()
    }

    fn wait_for_event(&self, id: &str) -> Json {
        eventually(&format!("the event of {id}"), || self.events().into_iter().find(|event| event["messageId"] == id))
    }

    /// How often the twin was asked for, and reported to, with this status.
    fn requests(&self, status: u16) -> (usize, usize) {
        let wire = self.hub.wire();
        let count = |wanted: &str| {
            let is_one = |what: &Wire| matches!(what, Wire::Twin { what, status: s } if what == wanted && *s == status);
            wire.iter().filter(|event| is_one(&event.what)).count()
        };
        (count("GET"), count("PATCH reported"))
    }

    /// Waits until all of the twin was read so often. One that is new is read twice: it is marked in between.
    fn is_read(&self, count: usize) {
        eventually(&format!("{count} readings of the twin"), || (self.requests(200).0 > count).then_some(()));
    }
}

fn acknowledgement(value: impl Into<Json>, status: u16, version: u64, sentence: &str) -> Json {
    json!({"value": value.into(), "ac": status, "av": version, "ad": sentence})
}

#[test]
fn what_is_desired_is_done_once_recorded_told_and_acknowledged() {
    for settle in ["after-execution", "after-accept"] {
        let plant = Plant::with(settle, LONG);
        let _daemon = plant.start();
        plant.is_read(1);
        assert_eq!(plant.hub.desire("pump", json!({"speed": 42, "colour": "red"})), Ok(2));
        assert_eq!(plant.wait_for_end(2), acknowledgement(42, 200, 2, "done"));
        let event = plant.wait_for_event("desired:speed:2");
        assert_eq!(
            (&event["command"], &event["status"], &event["value"]),
            (&json!("set"), &json!("succeeded"), &42.into())
        );
        let rows = plant.site.rows();
        assert_eq!((rows.len(), &rows[0]["source"], &rows[0]["requested"]), (1, &json!("twin"), &json!(42)));
        assert_eq!(plant.slave.writes(), [(0, 42)]);
        assert_eq!(plant.hub.reported("pump")["colour"], Json::Null, "nobody has a command for it");
        // The same value once more is somebody's wish: the peripheral may have been set otherwise.
        assert_eq!(plant.hub.desire("pump", json!({"speed": 42})), Ok(3));
        assert_eq!(plant.wait_for_end(3)["ac"], 200);
        assert_eq!(plant.slave.writes(), [(0, 42), (0, 42)]);
    }
}

#[test]
fn a_new_connection_and_a_new_life_do_nothing_again_that_the_ledger_has() {
    let plant = Plant::new();
    let daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 7})).unwrap();
    plant.wait_for_end(2);
    plant.hub.cut("pump", Cut::Reset);
    plant.is_read(2);
    daemon.kill();
    let _daemon = plant.start();
    plant.is_read(3);
    // Another property makes the version greater, and is no wish of this one.
    plant.hub.desire("pump", json!({"other": 1})).unwrap();
    plant.hub.cut("pump", Cut::Fin);
    plant.is_read(4);
    plant.hub.desire("pump", json!({"speed": 8})).unwrap();
    assert_eq!(plant.wait_for_end(4), acknowledgement(8, 200, 4, "done"));
    assert_eq!(plant.slave.writes(), [(0, 7), (0, 8)]);
    assert_eq!(plant.site.rows().len(), 2);
}

#[test]
fn what_the_twin_says_is_over_is_not_done_again_when_the_ledger_has_forgotten_it() {
    let plant = Plant::new();
    let daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 7})).unwrap();
    plant.wait_for_end(2);
    assert!(daemon.terminate().success());
    let ledger = rusqlite::Connection::open(plant.site.path("ledger.db")).unwrap();
    assert_eq!(ledger.execute("DELETE FROM command", []).unwrap(), 1, "as it is when the retention is over");
    drop(ledger);
    let _daemon = plant.start();
    plant.is_read(2);
    plant.hub.desire("pump", json!({"speed": 8})).unwrap();
    assert_eq!(plant.wait_for_end(3), acknowledgement(8, 200, 3, "done"));
    assert_eq!(plant.slave.writes(), [(0, 7), (0, 8)]);
}

#[test]
fn a_value_that_failed_and_is_written_again_while_the_device_is_not_connected_is_done_on_the_next_connection() {
    let mut plant = Plant::new();
    let _daemon = plant.start();
    plant.is_read(1);
    plant.slave.next_mood(Mood::Refusing(4));
    plant.hub.desire("pump", json!({"speed": 1})).unwrap();
    assert_eq!(plant.wait_for_end(2)["ac"], 500);
    plant.hub.unplug();
    plant.hub.desire("pump", json!({"speed": 1})).unwrap();
    plant.hub.plug_in();
    assert_eq!(plant.wait_for_end(3), acknowledgement(1, 200, 3, "done"));
    assert_eq!(plant.slave.writes(), [(0, 1)]);
}

#[test]
fn what_was_desired_while_the_gateway_was_away_is_done_when_it_is_back() {
    let plant = Plant::new();
    let daemon = plant.start();
    plant.is_read(1);
    assert!(daemon.terminate().success());
    for speed in [1, 2, 3] {
        plant.hub.desire("pump", json!({ "speed": speed })).unwrap();
    }
    let _daemon = plant.start();
    assert_eq!(plant.wait_for_end(4), acknowledgement(3, 200, 4, "done"));
    assert_eq!(plant.slave.writes(), [(0, 3)]);
}

#[test]
fn of_what_waits_only_the_newest_is_done_and_the_others_are_told_as_superseded() {
    let plant = Plant::new();
    let _daemon = plant.start();
    plant.is_read(1);
    plant.slave.set_mood(Mood::Held);
    plant.hub.send("pump", C2d::new("m-1", "5").property("command", "pulse")).unwrap();
    plant.slave.wait_for_write(5);
    for speed in [1, 2, 3] {
        plant.hub.desire("pump", json!({ "speed": speed })).unwrap();
    }
    // It is not over, and is told so.
    let under_way = eventually("a promise", || {
        let told = plant.hub.reported("pump")["speed"].clone();
        (told["ac"] == 202).then_some(told)
    });
    assert_eq!((&under_way["value"], &under_way["av"]), (&json!(3), &json!(4)));
    plant.slave.set_mood(Mood::Good);
    plant.slave.let_one_go();
    assert_eq!(plant.wait_for_end(4)["value"], 3);
    for version in [2, 3] {
        let event = plant.wait_for_event(&format!("desired:speed:{version}"));
        assert_eq!((&event["status"], &event["error"]["code"]), (&json!("expired"), &json!("superseded")));
    }
    assert_eq!(plant.slave.writes(), [(2, 5), (0, 3)]);
}

#[test]
fn what_can_t_be_done_is_acknowledged_with_the_status_of_its_reason() {
    let plant = Plant::new();
    let _daemon = plant.start();
    plant.is_read(1);
    let mut version = 1;
    for (value, status, said) in [
        (json!(101), 400, "from 0 to 100"),
        (json!("fast"), 400, "number"),
        (json!({"at": {"once": 1}}), 400, "expected one value"),
        (json!(["a"]), 400, "expected"),
    ] {
        version += 1;
        assert_eq!(plant.hub.desire("pump", json!({ "speed": value })), Ok(version));
        let told = plant.wait_for_end(version);
        assert_eq!(told["ac"], status, "{told}");
        assert!(told["ad"].as_str().unwrap().contains(said), "{told}");
    }
    plant.slave.next_mood(Mood::Refusing(4));
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    let told = plant.wait_for_end(6);
    assert_eq!(told["ac"], 500, "{told}");
    assert!(plant.site.command(&["lock", "pump"]).status.success());
    plant.hub.desire("pump", json!({"speed": 6})).unwrap();
    assert_eq!(plant.wait_for_end(7)["ac"], 403);
    assert_eq!(plant.slave.writes(), [] as [(u16, u16); 0]);
    assert_eq!(plant.events().len(), 6);
}

#[test]
fn what_is_desired_no_more_is_not_done_and_its_acknowledgement_goes() {
    let plant = Plant::new();
    let daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    plant.wait_for_end(2);
    plant.hub.desire("pump", json!({"speed": null})).unwrap();
    let is_gone = || plant.hub.reported("pump")["speed"].is_null().then_some(());
    eventually("no acknowledgement", is_gone);
    // The same while the gateway is away.
    plant.hub.desire("pump", json!({"speed": 6})).unwrap();
    plant.wait_for_end(4);
    assert!(daemon.terminate().success());
    plant.hub.desire("pump", json!({"speed": null})).unwrap();
    let _daemon = plant.start();
    eventually("no acknowledgement", is_gone);
    assert_eq!(plant.slave.writes(), [(0, 5), (0, 6)]);
}

#[test]
fn the_twin_is_told_of_the_gateway_and_whether_the_peripheral_is_there() {
    let timing = "response_timeout = \"150ms\"\nretries = 0\nunreachable_after = 1\nprobe_interval = \"1s\"";
    let plant = Plant::with("after-execution", timing);
    let daemon = plant.start();
    let told = plant.wait_for_presence(&Json::Null);
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    let configuration = told["configuration"].as_str().unwrap().to_owned();
    assert_eq!(configuration.len(), 16);
    plant.hub.desire("pump", json!({"speed": 1})).unwrap();
    plant.wait_for_presence(&true.into());
    plant.slave.silence(1);
    plant.hub.desire("pump", json!({"speed": 2})).unwrap();
    plant.wait_for_presence(&false.into());
    plant.slave.wake(1);
    let told = plant.wait_for_presence(&true.into());
    assert_eq!(told["configuration"], configuration.as_str());
    let other_than = |known: &[String]| {
        eventually("another configuration", || {
            let told = plant.hub.reported("pump")["fieldbridge"]["configuration"].as_str().map(str::to_owned);
            told.filter(|told| !known.contains(told))
        })
    };
    // That of the bus alone, taken up by a reload.
    plant.site.configure("response_timeout = \"150ms\"", "response_timeout = \"160ms\"");
    assert!(plant.site.command(&["reload"]).status.success());
    let reloaded = other_than(std::slice::from_ref(&configuration));
    assert!(daemon.terminate().success());
    plant.site.configure("range = [0, 100]", "range = [0, 99]");
    let _daemon = plant.start();
    other_than(&[configuration, reloaded]);
}

#[test]
fn a_device_whose_connection_is_held_back_says_first_that_its_unit_is_away_and_reads_its_twin_when_that_is_back() {
    let timing = "response_timeout = \"150ms\"\nretries = 0\nunreachable_after = 1\nprobe_interval = \"1s\"";
    let plant = Plant::with("after-execution", timing);
    plant.site.configure("unit = 1\n", "unit = 1\non_unreachable = \"mirror\"\n");
    let _daemon = plant.start();
    plant.is_read(1);
    plant.slave.silence(1);
    plant.hub.desire("pump", json!({"speed": 1})).unwrap();
    eventually("it is held back, and has said why", || {
        let told = plant.hub.reported("pump");
        let has_said = told["fieldbridge"]["present"] == false && told["speed"]["ac"] == 500;
        (has_said && plant.site.device_status("pump")["hub"] == "held").then_some(())
    });
    plant.hub.desire("pump", json!({"speed": 2})).unwrap();
    plant.slave.wake(1);
    assert_eq!(plant.wait_for_end(3), acknowledgement(2, 200, 3, "done"));
    plant.wait_for_presence(&true.into());
    assert_eq!(plant.slave.writes(), [(0, 2)]);
}

#[test]
fn a_device_that_is_held_back_connects_again_to_say_that_its_unit_is_away_if_the_hub_did_not_take_that() {
    let timing = "response_timeout = \"150ms\"\nretries = 0\nunreachable_after = 1\nprobe_interval = \"1s\"";
    let plant = Plant::with("after-execution", timing);
    plant.site.configure("unit = 1\n", "unit = 1\non_unreachable = \"mirror\"\n");
    let _daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 1})).unwrap();
    plant.wait_for_presence(&true.into());
    plant.wait_for_end(2);
    plant.hub.fault("pump", Fault::RefuseTwin(429));
    plant.slave.silence(1);
    plant.hub.desire("pump", json!({"speed": 2})).unwrap();
    eventually("it is held back", || (plant.site.device_status("pump")["hub"] == "held").then_some(()));
    assert_ne!(plant.hub.reported("pump")["fieldbridge"]["present"], false, "the hub did not take it");
    eventually_within(Duration::from_secs(90), "the hub is told", || {
        let told = plant.hub.reported("pump");
        (told["fieldbridge"]["present"] == false && told["speed"]["ac"] == 500).then_some(())
    });
}

#[test]
fn a_device_without_set_points_asks_for_nothing_and_tells_of_the_gateway_once_for_each_connection() {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let site = Site::at(&hub, &pump(slave.address(), "after-execution", LONG));
    let plant = Plant { hub, slave, site };
    let _daemon = plant.site.start();
    let reports = |count| {
        eventually(&format!("{count} reports"), || (plant.requests(204).1 == count).then_some(()));
    };
    reports(1);
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    plant.hub.cut("pump", Cut::Reset);
    reports(2);
    assert!(!plant.hub.hears_desired("pump"));
    assert_eq!((plant.requests(200).0, plant.slave.writes().len()), (0, 0));
}

#[test]
fn what_the_hub_refuses_for_now_is_tried_again_and_commands_go_on_meanwhile() {
    let plant = Plant::new();
    for status in [429, 503] {
        plant.hub.fault("pump", Fault::RefuseTwin(status));
    }
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    let daemon = plant.start();
    eventually("a refusal", || (plant.requests(429).0 == 1).then_some(()));
    plant.hub.send("pump", C2d::new("m-1", "9").property("command", "set")).unwrap();
    plant.wait_for_event("m-1");
    assert_eq!(plant.slave.writes(), [(0, 9)]);
    let is_done = || (plant.hub.reported("pump")["speed"]["ac"] == 200).then_some(());
    eventually_within(Duration::from_secs(90), "the set point is done", is_done);
    assert_eq!(plant.slave.writes(), [(0, 9), (0, 5)]);
    assert!(daemon.log().contains("takes no requests for the device's twin at present (status 429)"));
}

#[test]
fn what_makes_no_sense_harms_nothing() {
    let plant = Plant::new();
    let daemon = plant.start();
    plant.is_read(1);
    let publish = |topic: &str, body: &[u8]| {
        let mut packet = vec![0x30];
        let mut left = 2 + topic.len() + body.len();
        while left > 127 {
            packet.push((left & 127) as u8 | 128);
            left >>= 7;
        }
        packet.push(left as u8);
        packet.extend((topic.len() as u16).to_be_bytes());
        packet.extend([topic.as_bytes(), body].concat());
        assert!(plant.hub.inject("pump", packet));
    };
    let desired = "$iothub/twin/PATCH/properties/desired/?$version=2";
    for body in [&b""[..], b"\xff\xfe", b"[]", b"{}", br#"{"speed":1}"#, br#"{"speed":1,"$version":"2"}"#] {
        publish(desired, body);
    }
    publish(desired, &vec![b' '; 300_000]);
    publish(desired, format!("{{\"speed\":{}1{},\"$version\":2}}", "[".repeat(5000), "]".repeat(5000)).as_bytes());
    for topic in
        ["$iothub/twin/res/200/?$rid=77", "$iothub/twin/res/x/", "$iothub/twin/", "$iothub/twin/res/200/?$rid=1"]
    {
        publish(topic, br#"{"desired":{"speed":9,"$version":9}}"#);
    }
    // After a while it reads all, and goes on.
    plant.is_read(2);
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    assert_eq!(plant.wait_for_end(2)["ac"], 200);
    plant.hub.send("pump", C2d::new("m-1", "9").property("command", "set")).unwrap();
    plant.wait_for_event("m-1");
    assert_eq!(plant.slave.writes(), [(0, 5), (0, 9)]);
    let connections = plant.hub.wire().iter().filter(|event| matches!(event.what, Wire::Connected { .. })).count();
    assert_eq!(connections, 1);
    assert!(daemon.log().contains("a change of the device's twin can't be read"), "{}", daemon.log());
}

#[test]
fn the_twin_of_a_device_that_was_registered_anew_is_heeded_although_its_versions_begin_anew() {
    let plant = Plant::new();
    let _daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    plant.wait_for_end(2);
    plant.hub.forget_twin("pump");
    plant.hub.desire("pump", json!({"speed": 6})).unwrap();
    plant.hub.cut("pump", Cut::Reset);
    eventually("the new value is set", || (plant.slave.writes() == [(0, 5), (0, 6)]).then_some(()));
    assert_eq!(plant.wait_for_end(2)["value"], 6);
}

#[test]
fn the_same_value_in_the_twin_of_a_device_that_was_registered_anew_is_set_also_after_a_restart() {
    let plant = Plant::new();
    let daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    plant.wait_for_end(2);
    let mark = plant.hub.reported("pump")["fieldbridge"]["mark"].clone();
    plant.hub.forget_twin("pump");
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    plant.hub.cut("pump", Cut::Reset);
    assert_eq!(plant.wait_for_end(2), acknowledgement(5, 200, 2, "done"));
    assert_eq!(plant.slave.writes(), [(0, 5), (0, 5)]);
    assert_ne!(plant.hub.reported("pump")["fieldbridge"]["mark"], mark);
    assert!(daemon.terminate().success());
    plant.hub.forget_twin("pump");
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    let _daemon = plant.start();
    assert_eq!(plant.wait_for_end(2), acknowledgement(5, 200, 2, "done"));
    assert_eq!(plant.slave.writes(), [(0, 5), (0, 5), (0, 5)]);
    let rows = plant.site.rows();
    assert!(rows.len() == 3 && rows.iter().all(|row| row["deliveries"] == 1), "{rows:?}");
}

#[test]
fn it_goes_through_a_websocket_too() {
    let (hub, slave) = (Hub::start(Options { tls: false, ..Options::default() }), Slave::new());
    hub.add_device("pump", fieldbridge::demo::hub::Auth::Key((0..32).collect()));
    let head = format!(
        "host = \"{}\"\ntransport = \"mqtt-ws\"\naddresses = {{ mqtt-ws = \"{}\" }}\ntls = false\n",
        hub.host(),
        hub.ws_addr()
    );
    let set = "write = { table = \"holding\", address = 0 }\nidempotent = true\n";
    let site = Site::with_hub(&head, &pump(slave.address(), "after-execution", LONG));
    site.configure(set, &format!("{set}desired = \"speed\"\n"));
    let plant = Plant { hub, slave, site };
    let _daemon = plant.start();
    plant.is_read(1);
    plant.hub.desire("pump", json!({"speed": 5})).unwrap();
    assert_eq!(plant.wait_for_end(2), acknowledgement(5, 200, 2, "done"));
}

#[cfg(feature = "proof")]
#[test]
fn whenever_the_daemon_dies_a_set_point_is_done_and_what_the_ledger_has_is_not_done_twice() {
    for (at, most) in [("before-lookup", 1), ("request-written", 2), ("before-outcome", 2), ("outcome-known", 1)] {
        let plant = Plant::new();
        // From now on nothing of before is left at the hub.
        plant.start().terminate();
        let mut daemon = plant.site.spawn(&[], &[("FIELDBRIDGE_CRASH_AT", at)]);
        plant.hub.desire("pump", json!({"speed": 5})).unwrap();
        assert!(!daemon.wait().success(), "{at}");
        let _daemon = plant.start();
        assert_eq!(plant.wait_for_end(2), acknowledgement(5, 200, 2, "done"), "{at}");
        let writes = plant.slave.writes();
        assert!(!writes.is_empty() && writes.len() <= most, "{at}: {writes:?}");
        let rows = plant.site.rows();
        assert_eq!(rows.len(), 1, "{at}");
        if at == "outcome-known" {
            eventually("it is noted that it came again", || (plant.site.rows()[0]["deliveries"] == 2).then_some(()));
        }
    }
}
