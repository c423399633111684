//! What polls read, at the hub. Proves what telemetry may not do: hold up a result event (G7) or a command, be lost
//! without a word, or fill a disk (G16); and G11 for a unit that is away.

mod full_disk;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value as Json};
use tokio_serial::{SerialPort as _, SerialStream};

use crate::support::broker::Broker;
use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::transports::By;
use crate::support::{eventually, pump, Site};
use fieldbridge::demo::hub::D2c;

/// Two polls side by side, and one of another table.
const POLLS: &str =
    "[profile.pump.poll.speed]\nread = { table = \"holding\", address = 20, scale = 0.1 }\nevery = \"200ms\"\n\
                     [profile.pump.poll.level]\nread = { table = \"holding\", address = 21 }\nevery = \"200ms\"\n";

/// A site with one device that is polled, and its store of telemetry beside the ledger.
fn site(hub: &str, slave: &Slave, telemetry: &str, polls: &str) -> Site {
    let site = Site::with_hub(hub, &pump(slave.address(), "after-execution", "response_timeout = \"300ms\""));
    let path = site.path("telemetry.db").display().to_string();
    let config = site.path("fieldbridge.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, format!("{text}\n[telemetry]\npath = \"{path}\"\n{telemetry}\n{polls}")).unwrap();
    site
}

fn at(hub: &Hub, slave: &Slave, telemetry: &str, polls: &str) -> Site {
    let head = format!("host = \"{}\"\naddress = \"{}\"\ntls = false\n", hub.host(), hub.addr());
    site(&head, slave, telemetry, polls)
}

/// What the hub has of a kind.
fn of_kind(hub: &Hub, kind: &str) -> Vec<D2c> {
    hub.telemetry().into_iter().filter(|event| event.property("fieldbridge") == Some(kind)).collect()
}

/// The samples that the hub has, in the order in which they came; what came again is told by its id.
fn samples(hub: &Hub) -> Vec<Json> {
    let mut seen = BTreeSet::new();
    let is_new = |event: &D2c| seen.insert(event.property("$.mid").map(str::to_owned));
    let bodies = of_kind(hub, "telemetry").into_iter().filter(is_new).map(|event| event.json());
    bodies.flat_map(|body| body.as_array().expect("a body is a list").clone()).collect()
}

/// Waits until the hub has a sample that is like this.
fn sampled(hub: &Hub, what: &str, is_it: impl Fn(&Json) -> bool) -> Json {
    eventually(what, || samples(hub).into_iter().find(|sample| is_it(sample)))
}

#[test]
fn what_polls_read_reaches_the_hub_by_each_transport_and_neighbours_are_read_in_one_request() {
    for by in By::ALL {
        let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
        slave.set_register(20, 425);
        slave.set_register(21, 7);
        let head = format!("host = \"{}\"\ntls = false\n{}", hub.host(), by.keys(by.address(&hub)));
        let site = site(&head, &slave, "batch_delay = \"300ms\"", POLLS);
        by.trust(&site);
        let _daemon = site.start();
        let sample =
            sampled(&hub, "a sample of both", |sample| sample["values"] == json!({ "speed": 42.5, "level": 7 }));
        assert_eq!(sample["quality"], json!({ "speed": "good", "level": "good" }), "{by:?}");
        assert!(sample["ts"].as_str().is_some_and(|ts| ts.ends_with('Z') && ts.len() == 24), "{sample}");
        assert_eq!(sample.get("clockOk"), None);
        let asked = slave.asked();
        assert!(asked.contains(&vec![3, 0, 20, 0, 2]) && !asked.contains(&vec![3, 0, 20, 0, 1]), "{asked:?}");
        let events = of_kind(&hub, "telemetry");
        let ids: BTreeSet<&str> = events.iter().filter_map(|event| event.property("$.mid")).collect();
        assert_eq!(ids.len(), events.len(), "each has an id of its own");
        assert_eq!(events[0].property("$.ct"), Some("application/json"));
        assert_eq!(events[0].property("$.cid"), None);
        // Nothing of it stands in the ledger.
        assert_eq!((site.rows().len(), site.status()["outbox"]["pending"].clone()), (0, json!(0)));
        let telemetry = eventually("what was sent is acknowledged", || {
            let telemetry = site.status()["telemetry"].clone();
            (telemetry["published"].as_u64() > Some(0)).then_some(telemetry)
        });
        assert_eq!((&telemetry["ok"], &telemetry["lost"]), (&json!(true), &json!(0)));
        let shown = site.status()["devices"][0]["polls"].clone();
        for (poll, value) in [("speed", json!(42.5)), ("level", json!(7))] {
            assert_eq!((&shown[poll]["value"], &shown[poll]["quality"]), (&value, &json!("good")), "{by:?}: {shown}");
            assert!(shown[poll]["secondsAgo"].as_u64().is_some_and(|ago| ago < 30), "{by:?}: {shown}");
            assert!(shown[poll]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{by:?}: {shown}");
        }
    }
}

#[test]
fn only_changes_are_told_where_that_is_asked_for_and_what_stands_still_after_the_longest_silence() {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let polls = "[profile.pump.poll.level]\nread = { table = \"holding\", address = 21 }\nevery = \"100ms\"\n\
                 report = \"change\"\ndeadband = 5\n\
                 [profile.pump.poll.life]\nread = { table = \"holding\", address = 30 }\nevery = \"100ms\"\n\
                 report = \"change\"\nmax_silence = \"1s\"\n";
    let site = at(&hub, &slave, "batch_delay = \"0s\"", polls);
    let _daemon = site.start();
    let told = |name: &str| -> Vec<Json> {
        samples(&hub).iter().filter_map(|sample| sample["values"].get(name).cloned()).collect()
    };
    eventually("the first is told", || (told("level") == [json!(0)]).then_some(()));
    slave.set_register(21, 5);
    let before = slave.requests();
    slave.wait_for_requests(before + 6);
    slave.set_register(21, 6);
    eventually("the change is told", || (told("level") == [json!(0), json!(6)]).then_some(()));
    eventually("what stands still is told", || (told("life").len() >= 3).then_some(()));
    assert_eq!(told("level"), [json!(0), json!(6)]);
}

#[test]
fn a_unit_that_is_away_has_a_quality_and_a_command_is_told_before_all() {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let site = at(&hub, &slave, "batch_delay = \"100ms\"", POLLS);
    site.configure("response_timeout = \"300ms\"", "response_timeout = \"300ms\"\nprobe_interval = \"300ms\"");
    let _daemon = site.start();
    sampled(&hub, "a value", |sample| sample["quality"]["level"] == "good");
    slave.silence(1);
    let silent = sampled(&hub, "silence", |sample| sample["quality"]["level"] == "timeout");
    assert_eq!(silent["values"], json!({ "speed": null, "level": null }));
    sampled(&hub, "it is away", |sample| sample["quality"]["level"] == "unreachable");
    let said = site.command(&["exec", "pump", "read", "--json"]);
    assert!(!said.status.success());
    slave.wake(1);
    let count = samples(&hub).len();
    eventually("it is back", || {
        samples(&hub)[count..].iter().any(|sample| sample["quality"]["level"] == "good").then_some(())
    });
    // One exception of what was asked together is for one of them, perhaps: each is asked alone then.
    slave.set_unreadable(Some(2));
    sampled(&hub, "a refusal", |sample| sample["quality"]["level"] == "exception");
    assert!(slave.asked().contains(&vec![3, 0, 21, 0, 1]));
}

#[test]
fn what_is_not_acknowledged_comes_again_under_its_id_also_after_a_kill() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let head = format!("host = \"hub.example\"\naddress = \"{}\"\ntls = false\n", broker.address());
    let site = site(&head, &slave, "batch_delay = \"0s\"", POLLS);
    let daemon = site.start();
    let mut client = broker.serve();
    let id = |topic: &str| topic.split("%24.mid=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned();
    let (first, body) = client.next_event_unacknowledged();
    assert!(first.ends_with("&fieldbridge=telemetry"), "{first}");
    drop(client);
    let mut client = broker.serve();
    let (again, same) = client.next_event_unacknowledged();
    assert_eq!((id(&again), same), (id(&first), body));
    // Nobody acknowledges it for longer than it waits in memory; then the process ends without a word.
    eventually("it is written", || (site.path("telemetry.db").metadata().ok()?.len() > 0).then_some(()));
    eventually("the batch is in the file", || {
        let db = rusqlite::Connection::open(site.path("telemetry.db")).ok()?;
        let count = db.query_row("SELECT count(*) FROM batch WHERE id = ?1", [id(&first)], |row| row.get::<_, i64>(0));
        (count.ok()? == 1).then_some(())
    });
    daemon.kill();
    let _daemon = site.start();
    let mut client = broker.serve();
    // It comes before what is read now; and whatever was in memory only is told as a gap of which nobody knows more.
    let (mut is_back, mut is_told) = (false, false);
    while !is_back || !is_told {
        let (topic, body) = client.next_event();
        if topic.ends_with("&fieldbridge=telemetry-gap") {
            assert!(body["gap"]["from"].is_null() && body["gap"]["samples"].is_null(), "{body}");
            assert!(body["gap"]["until"].is_string() && !is_told, "{body}");
            is_told = true;
        } else if !is_back {
            assert_eq!(id(&topic), id(&first));
            is_back = true;
        }
    }
}

#[test]
fn a_result_event_waits_for_no_telemetry() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let head = format!("host = \"hub.example\"\naddress = \"{}\"\ntls = false\n", broker.address());
    let site = site(&head, &slave, "batch_delay = \"0s\"", POLLS);
    let _daemon = site.start();
    let mut client = broker.serve();
    // As much telemetry as may be on the wire is never acknowledged.
    for _ in 0..4 {
        assert!(client.next_event_unacknowledged().0.ends_with("&fieldbridge=telemetry"));
    }
    let before = slave.requests();
    slave.wait_for_requests(before + 4);
    client.deliver(7, "m-1", r#"{"command": "set", "value": 5}"#);
    let (topic, body) = client.next_event_unacknowledged();
    assert!(topic.ends_with("&fieldbridge=command-result"), "{topic}");
    assert_eq!((&body["messageId"], &body["status"]), (&json!("m-1"), &json!("succeeded")));
}

#[test]
fn a_time_without_uplink_is_caught_up_in_order_also_over_a_restart() {
    let (mut hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let polls = "[profile.pump.poll.many]\nread = { table = \"holding\", address = 100, count = 125 }\nevery = \"100ms\"\n\
                 [profile.pump.poll.more]\nread = { table = \"holding\", address = 300, count = 125 }\nevery = \"100ms\"\n";
    let site = at(&hub, &slave, "batch_delay = \"100ms\"", polls);
    let daemon = site.start();
    sampled(&hub, "a value", |sample| sample["quality"]["many"] == "good");
    hub.unplug();
    let waits = eventually("it waits in the file", || {
        let telemetry = site.status()["telemetry"].clone();
        (telemetry["pending"].as_u64()? > 20 && telemetry["bytes"].as_u64()? > 20_000).then_some(telemetry)
    });
    assert_eq!(waits["ok"], true);
    assert!(daemon.terminate().success());
    let before = samples(&hub);
    hub.plug_in();
    let _daemon = site.start();
    eventually("all that waited is there", || {
        let pending = site.status()["telemetry"]["pending"].as_u64()?;
        (samples(&hub).len() > before.len() + 20 && pending < 10).then_some(())
    });
    let times: Vec<String> =
        samples(&hub).iter().map(|sample| sample["ts"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(times.is_sorted(), "the oldest goes first");
    assert_eq!(of_kind(&hub, "telemetry-gap").len(), 0);
}

#[test]
fn a_command_waits_for_one_exchange_of_a_bus_that_polls_fill() {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    // More than the bus can carry.
    let polls: String = (0..40)
        .map(|n| {
            format!(
                "[profile.pump.poll.p{n}]\nread = {{ table = \"holding\", address = {} }}\nevery = \"100ms\"\n",
                2 * n + 20
            )
        })
        .collect();
    let site = at(&hub, &slave, "batch_delay = \"200ms\"", &polls);
    let _daemon = site.start();
    sampled(&hub, "a value", |sample| sample["quality"]["p0"] == "good");
    for value in 1..=10 {
        let said = site.command(&["exec", "pump", "set-verified", &value.to_string()]);
        assert!(said.status.success(), "{said:?}");
        assert_eq!(slave.count(1, value), 1);
    }
    // Between the two requests of a command nothing is polled.
    let asked = slave.asked();
    let writes = asked.iter().enumerate().filter(|(_, request)| request[0] == 6);
    for (at, _) in writes {
        if let Some(next) = asked.get(at + 1) {
            assert_eq!(next, &vec![3, 0, 1, 0, 1], "the read-back follows the write");
        }
    }
    eventually("each poll has its turn", || {
        let names: BTreeSet<String> = samples(&hub)
            .iter()
            .filter_map(|sample| sample["values"].as_object().cloned())
            .flat_map(|values| values.into_iter().map(|(name, _)| name))
            .collect();
        (names.len() == 40).then_some(())
    });
}

/// A scale that answers `W` with a weight, until it is dropped.
struct Scale {
    near: SerialStream,
    stop: Arc<AtomicBool>,
    answering: Option<std::thread::JoinHandle<()>>,
}

impl Scale {
    fn new() -> Scale {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let (mut far, near) = SerialStream::pair().expect("a pseudo-terminal can be made");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answering = std::thread::spawn(move || {
            let (mut heard, mut chunk) = (Vec::new(), [0; 64]);
            while !stopped.load(Ordering::Relaxed) {
                let length = far.read(&mut chunk).unwrap_or(0);
                heard.extend(&chunk[..length]);
                if heard.ends_with(b"W\r\n") {
                    heard.clear();
                    far.write_all(b"W   12.5 kg\r\n").expect("a pseudo-terminal takes it");
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Scale { near, stop, answering: Some(answering) }
    }
}

impl Drop for Scale {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.answering.take().into_iter().for_each(|answering| drop(answering.join()));
    }
}

#[test]
fn a_line_of_text_is_polled_too() {
    let (hub, scale) = (Hub::plain(&["scale"]), Scale::new());
    let head = format!("host = \"{}\"\naddress = \"{}\"\ntls = false\n", hub.host(), hub.addr());
    let port = scale.near.name().expect("a pseudo-terminal has a name");
    let site = Site::with_hub(
        &head,
        &format!(
            "[bus.scale-port]\nkind = \"serial\"\nport = \"{port}\"\nbaud = 115200\nresponse_timeout = \"300ms\"\n\
             [device.scale]\nbus = \"scale-port\"\nprofile = \"scale\"\nkey_file = \"device.key\"\n\
             [profile.scale.poll.weight]\nsend = \"W\\r\\n\"\nexpect = \"^W +([0-9.]+) kg\"\nevery = \"100ms\"\n\
             [telemetry]\nbatch_delay = \"0s\"\n"
        ),
    );
    let path = site.path("telemetry.db").display().to_string();
    site.configure("[telemetry]\n", &format!("[telemetry]\npath = \"{path}\"\n"));
    let _daemon = site.start();
    let sample = sampled(&hub, "a weight", |sample| sample["quality"]["weight"] == "good");
    assert_eq!(sample["values"], json!({ "weight": 12.5 }));
}

#[test]
fn devices_of_a_bus_with_several_requests_under_way_are_polled_beside_one_another() {
    let (hub, slave) = (Hub::plain(&["pump", "pump-2", "pump-3"]), Slave::new());
    let device = |unit: u8| {
        format!("[device.pump-{unit}]\nbus = \"plant\"\nunit = {unit}\nprofile = \"pump\"\nkey_file = \"device.key\"\n")
    };
    let site = at(&hub, &slave, "batch_delay = \"0s\"", &format!("{}{}{POLLS}", device(2), device(3)));
    site.configure("response_timeout = \"300ms\"", "response_timeout = \"300ms\"\nmax_in_flight = 4");
    slave.silence(3);
    let _daemon = site.start();
    let told = |device: &str, quality: &str| {
        eventually(&format!("{quality} of {device}"), || {
            let of_it = of_kind(&hub, "telemetry").into_iter().filter(|event| event.device == device);
            of_it.map(|event| event.json()).find(|body| body[0]["quality"]["level"] == quality)
        })
    };
    told("pump", "good");
    told("pump-2", "good");
    told("pump-3", "timeout");
    told("pump-3", "unreachable");
}

#[test]
fn a_unit_that_is_silent_to_long_requests_is_asked_in_parts_and_is_not_away() {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    slave.set_longest_read(1);
    // As many requests for several as make a unit away.
    let names: Vec<String> = (0..6).map(|n| format!("p{n}")).collect();
    let poll = |(n, name): (usize, &String)| {
        let address = 20 + 10 * (n / 2) + n % 2;
        format!(
            "[profile.pump.poll.{name}]\nread = {{ table = \"holding\", address = {address} }}\nevery = \"200ms\"\n"
        )
    };
    let site = at(&hub, &slave, "batch_delay = \"0s\"", &names.iter().enumerate().map(poll).collect::<String>());
    let _daemon = site.start();
    for name in &names {
        sampled(&hub, name, |sample| sample["quality"][name] == "good");
    }
    let before = slave.requests();
    slave.wait_for_requests(before + 20);
    let is_unreachable = |sample: &Json| {
        names.iter().any(|name| sample["quality"][name] == "unreachable" || sample["quality"][name] == "timeout")
    };
    assert_eq!(samples(&hub).into_iter().find(is_unreachable), None);
    assert_eq!(site.device_status("pump")["present"], true);
    let long: Vec<Vec<u8>> = slave.asked().into_iter().filter(|asked| asked[4] > 1).collect();
    assert_eq!(long.len(), 6, "each is tried twice, and never again: {long:?}");
}

#[test]
fn messages_of_a_device_that_is_not_configured_any_more_are_counted_apart_and_go_when_it_is_back() {
    let (mut hub, slave) = (Hub::plain(&["pump", "pump-2"]), Slave::new());
    let second = "[device.pump-2]\nbus = \"plant\"\nunit = 2\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
    let site = at(&hub, &slave, "batch_delay = \"0s\"", &format!("{second}{POLLS}"));
    let _daemon = site.start();
    sampled(&hub, "a value", |sample| sample["quality"]["level"] == "good");
    hub.unplug();
    let count = |name: &str| site.status()["telemetry"][name].as_u64();
    eventually("both wait", || (count("pending") > Some(10)).then_some(()));
    assert_eq!(count("ofRemovedDevices"), Some(0));
    site.configure(second, "");
    assert!(site.command(&["reload"]).status.success());
    let removed =
        eventually("those of the second are told apart", || count("ofRemovedDevices").filter(|count| *count > 3));
    let said = String::from_utf8(site.command(&["status"]).stdout).unwrap();
    assert!(said.contains("of telemetry, of devices that are not configured any more"), "{said}");
    hub.plug_in();
    eventually("the first one's go", || (count("pending") < Some(5)).then_some(()));
    assert_eq!(count("ofRemovedDevices"), Some(removed));
    let text = std::fs::read_to_string(site.path("fieldbridge.toml")).unwrap();
    std::fs::write(site.path("fieldbridge.toml"), format!("{text}{second}")).unwrap();
    assert!(site.command(&["reload"]).status.success());
    eventually("the second one's go", || (count("pending") < Some(5)).then_some(()));
    assert_eq!(count("ofRemovedDevices"), Some(0));
}

#[cfg(feature = "proof")]
mod crashes {
    use std::collections::BTreeMap;

    use super::*;

    /// Ids of the batches in a store, if it is there.
    fn stored(site: &Site) -> rusqlite::Result<BTreeSet<String>> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let db = rusqlite::Connection::open_with_flags(site.path("telemetry.db"), flags)?;
        let mut find = db.prepare("SELECT id FROM batch")?;
        let found = find.query_map([], |row| row.get(0))?;
        found.collect()
    }

    /// The ids under which the hub has each sample, by its time.
    fn told(hub: &Hub) -> BTreeMap<String, BTreeSet<String>> {
        let mut told = BTreeMap::<String, BTreeSet<String>>::new();
        for event in of_kind(hub, "telemetry") {
            let id = event.property("$.mid").expect("it has an id").to_owned();
            for sample in event.json().as_array().expect("a body is a list") {
                told.entry(sample["ts"].to_string()).or_default().insert(id.clone());
            }
        }
        told
    }

    /// The daemon dies there, with an uplink or without one, or as soon as it has one again; then another one lives.
    /// What was written gets to the hub, and nothing gets there twice under several ids.
    fn dies(at: &str, unplugs: bool, is_plugged_in: bool) {
        let (mut hub, slave) = (Hub::plain(&["pump"]), Slave::new());
        let site = super::at(&hub, &slave, "batch_delay = \"0s\"", POLLS);
        if unplugs {
            hub.unplug();
        }
        let mut daemon = site.spawn(&[], &[("FIELDBRIDGE_CRASH_AT", at)]);
        if is_plugged_in {
            eventually("some are written", || stored(&site).ok().filter(|ids| !ids.is_empty()));
            hub.plug_in();
        }
        assert!(!daemon.wait().success(), "{at}");
        let written = stored(&site).unwrap_or_default();
        assert!(!at.starts_with("telemetry-committed") || is_plugged_in || !written.is_empty(), "{at}");
        let before = told(&hub).len();
        if unplugs && !is_plugged_in {
            hub.plug_in();
        }
        let _daemon = site.start();
        eventually(&format!("{at}: what was written is there, and more"), || {
            let told = told(&hub);
            let ids: BTreeSet<&String> = told.values().flatten().collect();
            (written.iter().all(|id| ids.contains(id)) && told.len() > before + written.len()).then_some(())
        });
        let twice: Vec<_> = told(&hub).into_iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(twice.is_empty(), "{at}: {twice:?}");
    }

    #[test]
    fn whenever_the_daemon_dies_nothing_is_told_under_two_ids_and_what_was_written_is_not_lost() {
        std::thread::scope(|scope| {
            for (at, unplugs, is_plugged_in) in [
                ("telemetry-published:3", false, false),
                ("telemetry-acknowledged:3", false, false),
                ("telemetry-uncommitted", true, false),
                ("telemetry-committed", true, false),
                // What the hub has acknowledged is taken out.
                ("telemetry-uncommitted:2", true, true),
                ("telemetry-committed:2", true, true),
            ] {
                scope.spawn(move || dies(at, unplugs, is_plugged_in));
            }
        });
    }
}
