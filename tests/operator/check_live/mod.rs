//! `check --live` tells the truth about everything that the configuration names, changes nothing at a peripheral and
//! takes no message from the hub (G1, G3: what it looks at is neither executed nor acknowledged). Each line is seen
//! when things are as they should be, and when they are not: in this file what only one may use, `site` and `hub` have
//! the rest.

mod hub;
mod site;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use crate::support::hub::Hub;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::Slave;
use crate::support::{eventually, pump, Site, PUMP};
use fieldbridge::demo::hub::{Ack, Auth, C2d, End, Options, Wire};
use serde_json::Value as Json;

/// The site's device key, as its file has it.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What was found, with the exit status.
struct Found {
    status: i32,
    findings: Vec<Json>,
}

impl Found {
    /// The one finding about something that says this.
    fn says(&self, verdict: &str, about: &str, fragment: &str) {
        let shown = |finding: &&Json| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            format!("{}; {}", text("said"), text("remedy"))
        };
        let of_it: Vec<&Json> = self.findings.iter().filter(|finding| finding["about"] == about).collect();
        let found = of_it.iter().find(|finding| finding["verdict"] == verdict && shown(finding).contains(fragment));
        assert!(found.is_some(), "no {verdict} of {about} says {fragment:?}: {of_it:#?}");
        if verdict != "ok" {
            assert!(self.status == 1 || verdict == "warn", "a failure, and exit status {}", self.status);
        }
    }

    /// Nothing failed.
    fn is_good(&self) {
        let failed: Vec<&Json> = self.findings.iter().filter(|finding| finding["verdict"] == "fail").collect();
        assert!(failed.is_empty() && self.status == 0, "{failed:#?}");
    }
}

fn read(output: &Output) -> Found {
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    for said in [&text, &error] {
        assert!(!said.contains(KEY) && !said.contains(&KEY[..16]) && !said.contains("sig="), "a secret: {said}");
    }
    let document: Json = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}\n{error}"));
    let findings = document["findings"].as_array().expect("there are findings").clone();
    let status = output.status.code().expect("it ends by itself");
    assert_eq!(document["ok"] == true, status == 0, "{document:#}");
    Found { status, findings }
}

fn live(site: &Site) -> Found {
    read(&site.command(&["check", "--live", "--json"]))
}

/// The same in an environment, under another program if need be.
fn live_under(site: &Site, wrapper: &[&str], environment: &[(&str, &str)]) -> Found {
    let mut words = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_fieldbridge")]);
    let mut command = Command::new(words.next().expect("there is a program"));
    command.args(words).args(["check", "--live", "--json", "--config"]).arg(site.path("fieldbridge.toml"));
    read(&command.envs(environment.iter().copied()).stdin(Stdio::null()).output().expect("it can be run"))
}

/// A hub over TLS with the device `pump`, and a site for it.
struct Plant {
    hub: Hub,
    slave: Slave,
    site: Site,
}

fn plant_with(options: Options, more: impl Fn(&Slave) -> String) -> Plant {
    let (hub, slave) = (Hub::start(options), Slave::new());
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let head = format!("host = \"{}\"\naddress = \"{}\"\nca_file = \"hub-ca.pem\"\n", hub.host(), hub.addr());
    let site = Site::with_hub(&head, &more(&slave));
    site.write("hub-ca.pem", &hub.ca_pem());
    Plant { hub, slave, site }
}

fn plant() -> Plant {
    plant_with(Options::default(), |slave| pump(slave.address(), "after-execution", "response_timeout = \"300ms\""))
}

/// The same on a serial line.
fn serial_plant(port: &Port) -> Plant {
    plant_with(Options::default(), |_| on_a_line(port))
}

fn on_a_line(port: &Port) -> String {
    format!(
        "[bus.line]\nkind = \"modbus-rtu\"\nport = \"{}\"\nbaud = 115200\nresponse_timeout = \"300ms\"\n\
         [device.pump]\nbus = \"line\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n{PUMP}",
        port.path().display()
    )
}

fn files(folder: &Path) -> Vec<(String, u64, SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder can be read")
        .map(|entry| {
            let entry = entry.expect("it is there");
            let found = entry.metadata().expect("it is there");
            (entry.file_name().to_string_lossy().into_owned(), found.len(), found.modified().expect("a time"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_sound_site_is_found_sound_and_nothing_is_changed() {
    let (rtu, text) = (Slave::new(), Slave::new());
    let line = Port::that_nobody_holds(rtu.clone(), Protocol::Rtu);
    let scale = Port::that_nobody_holds(text.clone(), Protocol::Text);
    let plant = plant_with(Options::default(), |slave| {
        let tcp = pump(slave.address(), "after-execution", "").replace("device.pump", "device.tcp-pump");
        let tcp = tcp.replace(PUMP, "");
        format!(
            "{tcp}{}[bus.text]\nkind = \"serial\"\nport = \"{}\"\nbaud = 9600\n[device.scale]\nbus = \"text\"\n\
             profile = \"scale\"\nkey_file = \"device.key\"\n\
             [profile.scale.command.open]\nsend = \"S1\\n\"\nidempotent = true\n",
            on_a_line(&line),
            scale.path().display()
        )
    });
    ["tcp-pump", "scale"].iter().for_each(|id| plant.hub.add_device(id, Auth::Key((0..32).collect())));
    // With a ledger that a daemon has left in order.
    let ids = ["pump", "scale", "tcp-pump"];
    let daemon = plant.site.start();
    eventually("every subscription", || ids.iter().all(|id| plant.hub.is_subscribed(id)).then_some(()));
    assert!(daemon.terminate().success());
    eventually("no connection", || (!ids.iter().any(|id| plant.hub.is_connected(id))).then_some(()));
    plant.hub.take_wire();
    let (asked, before) = ((plant.slave.requests(), rtu.requests()), files(&plant.site.path("")));

    let found = live(&plant.site);
    found.is_good();
    found.says("ok", "daemon", "does not run");
    found.says("ok", "bus plant", "opens");
    found.says("ok", "bus line", &line.path().display().to_string());
    found.says("ok", "bus text", "opens");
    found.says("ok", "peripheral tcp-pump", "unit 1 answers: holding register 0 of read is ");
    found.says("ok", "peripheral pump", "unit 1 answers");
    found.says("warn", "peripheral scale", "fieldbridge exec scale open");
    found.says("ok", "hub name", "has an address");
    found.says("ok", "hub TCP", "takes connections");
    found.says("ok", "hub TLS", "hub.fieldbridge.test");
    found.says("ok", "certificate of the hub", "is valid until");
    found.says("ok", "certificate of hub.ca_file", "is valid until");
    for id in ["identity pump", "identity scale", "identity tcp-pump"] {
        found.says("ok", id, "accepts it, with a token made now");
    }
    found.says("ok", "files", "of the configuration can be read");
    found.says("ok", "ledger", "MiB free");
    found.says("ok", "ledger", "opens");
    assert!(found.findings.iter().any(|finding| finding["about"] == "clock" && finding["verdict"] != "fail"));

    assert!(plant.slave.requests() > asked.0 && rtu.requests() > asked.1);
    assert_eq!((plant.slave.writes(), rtu.writes(), text.requests()), (vec![], vec![], 0), "something was written");
    assert_eq!(files(&plant.site.path("")), before, "a file was changed");
    eventually("every connection ended", || {
        let ended = |event: &&fieldbridge::demo::hub::WireEvent| matches!(event.what, Wire::Closed { .. });
        (plant.hub.wire().iter().filter(ended).count() == 3).then_some(())
    });
    for event in plant.hub.wire() {
        let is_right = match &event.what {
            Wire::Connected { clean_session, .. } => !clean_session,
            Wire::Closed { end, .. } => *end == End::Disconnect,
            _ => false,
        };
        assert!(is_right, "{event:?}");
    }

    // The same for people: a line each and one for all, and none steers the terminal.
    let output = plant.site.command(&["check", "--live"]);
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let (all, each) = lines.split_last().expect("there are some");
    assert_eq!(each.len(), found.findings.len(), "{text}");
    assert!(all.starts_with(&format!("{} checks: ", each.len())), "{all}");
    for line in each {
        assert!(["ok    ", "warn  ", "FAIL  "].iter().any(|word| line.starts_with(word)), "{line}");
    }
}

#[test]
fn what_waits_at_the_hub_is_still_executed_once() {
    let plant = plant();
    let daemon = plant.site.start();
    eventually("a subscription", || plant.hub.is_subscribed("pump").then_some(()));
    assert!(daemon.terminate().success());
    let message = C2d::new("m-1", "7").property("command", "pulse").ack(Ack::Full);
    plant.hub.send("pump", message).expect("the hub takes it");
    for _ in 0..2 {
        live(&plant.site).is_good();
    }
    assert_eq!((plant.hub.queue_len("pump"), plant.slave.writes()), (1, vec![]));
    let _daemon = plant.site.start();
    plant.site.wait_for_row("m-1", "succeeded");
    eventually("it is completed", || (plant.hub.queue_len("pump") == 0).then_some(()));
    assert_eq!(plant.slave.writes(), [(2, 7)]);
}

#[test]
fn what_waits_to_be_polled_is_not_locked_and_not_counted() {
    let (hub, slave) = (Hub::start(Options { keeps_from_start: true, ..Options::default() }), Slave::new());
    let head = format!(
        "host = \"{}\"\ntransport = \"https\"\naddresses = {{ https = \"{}\" }}\nca_file = \"hub-ca.pem\"\n",
        hub.host(),
        hub.https_addr()
    );
    let site = Site::with_hub(&head, &pump(slave.address(), "after-execution", ""));
    site.write("hub-ca.pem", &hub.ca_pem());
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    live(&site).says("fail", "identity pump", "device id");
    hub.add_device("pump", Auth::Key(vec![9; 32]));
    live(&site).says("fail", "identity pump", "HTTP 401");
    hub.add_device("pump", Auth::Key((0..32).collect()));
    hub.send("pump", C2d::new("m-1", "7").property("command", "pulse").ack(Ack::Full)).expect("the hub takes it");
    for _ in 0..12 {
        let found = live(&site);
        found.is_good();
        found.says("ok", "identity pump", "accepts it, with a token made now");
    }
    assert_eq!((hub.queue_len("pump"), slave.writes()), (1, vec![]));
    let daemon = site.start();
    site.wait_for_row("m-1", "succeeded");
    assert_eq!((&site.rows()[0]["deliveryCount"], slave.writes()), (&0.into(), vec![(2, 7)]));
    // After a crash it waits for what may be locked: that is no fault.
    daemon.kill();
    let _daemon = site.start();
    eventually("it waits", || (site.device_status("pump")["hub"] == "waiting-for-locks").then_some(()));
    let why = site.device_status("pump")["lastError"].to_string();
    assert!(why.contains("the hub may keep a message locked"), "{why}");
    let found = live(&site);
    found.is_good();
    found.says("warn", "identity pump", "the hub may keep a message locked");
}

#[test]
fn what_the_running_daemon_holds_is_left_to_it_and_it_is_asked() {
    let slave = Slave::new();
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
    let plant = serial_plant(&port);
    // A daemon that is started with the port there inherits the far end of it, and would hear no hang-up.
    port.unplug();
    let daemon = plant.site.start();
    port.plug();
    eventually("a connection", || plant.hub.is_subscribed("pump").then_some(()));
    eventually("the open bus", || (plant.site.status()["buses"][0]["state"] == "open").then_some(()));
    let connects = || plant.hub.wire().iter().filter(|event| matches!(event.what, Wire::Connected { .. })).count();
    assert_eq!(connects(), 1);

    let found = live(&plant.site);
    found.is_good();
    found.says("ok", "daemon", &format!("(pid {})", daemon.pid()));
    found.says("ok", "bus line", "held by the running fieldbridge");
    found.says("ok", "peripheral pump", "unit 1 answers");
    found.says("ok", "identity pump", "connected, says the running fieldbridge");
    found.says("ok", "ledger", "the running daemon writes it");
    assert_eq!(connects(), 1, "the daemon's connection was ended");
    assert!(plant.hub.is_connected("pump"));
    assert!(slave.requests() > 0 && slave.writes().is_empty());

    // An identity that the daemon does not have is tried, and its peripheral is not.
    let more = "[device.new]\nbus = \"line\"\nunit = 2\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
    plant.site.configure("[profile.pump.command.set]", &format!("{more}[profile.pump.command.set]"));
    plant.hub.add_device("new", Auth::Key((0..32).collect()));
    let found = live(&plant.site);
    found.says("ok", "identity new", "accepts it");
    found.says("warn", "peripheral new", "the running daemon does not have it yet");
    found.says("fail", "daemon", "device new added");
    // What the daemon has with other settings is not judged by them.
    plant.site.configure("baud = 115200", "baud = 9600");
    let found = live(&plant.site);
    found.says("fail", "daemon", "bus line changed");
    found.says("fail", "daemon", "fieldbridge reload");
    found.says("warn", "bus line", "with other settings");
    found.says("warn", "peripheral pump", "not asked");
    plant.site.configure("baud = 9600", "baud = 115200");
    plant.site.configure("unit = 1", "unit = 9");
    let found = live(&plant.site);
    found.says("fail", "daemon", "device pump changed");
    found.says("warn", "peripheral pump", "with other settings");
    found.says("warn", "identity pump", "with other settings");
    plant.site.configure("unit = 9", "unit = 1");
    assert!(plant.hub.is_connected("pump"));
    // The port under another name of a bus is not opened beside the daemon.
    plant.site.configure("bus.line", "bus.other");
    plant.site.configure("bus = \"line\"", "bus = \"other\"");
    live(&plant.site).says("warn", "bus other", "the running daemon, under another bus's name");
    plant.site.configure("bus.other", "bus.line");
    plant.site.configure("bus = \"other\"", "bus = \"line\"");

    // What is wrong, in the daemon's own words.
    slave.set_unreadable(Some(11));
    live(&plant.site).says("fail", "peripheral pump", "unit 1 does not");
    plant.hub.set_enabled("pump", false);
    eventually("no connection", || plant.site.device_status("pump")["lastError"].as_str().map(drop));
    live(&plant.site).says("fail", "identity pump", "");
    port.unplug();
    eventually("the lost port", || (plant.site.status()["buses"][0]["state"] == "opening").then_some(()));
    live(&plant.site).says("fail", "bus line", "plugged");
    assert_eq!(slave.writes(), []);
}

#[test]
fn a_daemon_that_cant_be_asked_is_not_disturbed() {
    let plant = plant();
    let daemon = plant.site.start();
    eventually("a subscription", || plant.hub.is_subscribed("pump").then_some(()));
    let asked = plant.slave.requests();
    plant.hub.take_wire();
    // The configuration names another socket by now; the lock on the ledger tells of the daemon.
    plant.site.configure("admin.sock", "other.sock");
    let found = live(&plant.site);
    found.says("fail", "daemon", &format!("(pid {})", daemon.pid()));
    found.says("warn", "bus plant", "not tried");
    found.says("warn", "identity pump", "not asked");
    assert_eq!((plant.slave.requests(), plant.hub.take_wire()), (asked, vec![]));
    assert!(plant.hub.is_connected("pump"));
}

#[test]
fn a_first_look_leaves_no_session_at_the_hub_and_a_later_one_takes_none_away() {
    let plant = plant();
    let sessions = || {
        let session = |event: &fieldbridge::demo::hub::WireEvent| match event.what {
            Wire::Connected { session_present, clean_session } => Some((session_present, clean_session)),
            _ => None,
        };
        plant.hub.take_wire().iter().filter_map(session).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let found = live(&plant.site);
        found.is_good();
        found.says("ok", "identity pump", "accepts it");
        assert_eq!(sessions(), [(false, false), (false, true)], "a session was left behind");
    }
    let daemon = plant.site.start();
    eventually("a subscription", || plant.hub.is_subscribed("pump").then_some(()));
    assert_eq!(sessions(), [(false, false)], "the daemon's first connection");
    assert!(daemon.terminate().success());
    // A ledger that is gone: the session is the predecessor's, and messages may wait in it.
    std::fs::remove_file(plant.site.path("ledger.db")).expect("there is a ledger");
    plant.hub.send("pump", C2d::new("m-1", "7").property("command", "pulse")).expect("the hub takes it");
    live(&plant.site).is_good();
    assert_eq!(sessions(), [(true, false)]);
    assert_eq!(plant.hub.queue_len("pump"), 1);
}

#[test]
fn every_finding_has_the_members_of_one_in_the_configuration() {
    let plant = plant();
    let found = live(&plant.site);
    for finding in &found.findings {
        for member in ["file", "line", "column", "key", "severity", "message", "remedy", "verdict", "about", "said"] {
            assert!(finding.get(member).is_some(), "no {member}: {finding:#}");
        }
    }
    let bus = found.findings.iter().find(|finding| finding["about"] == "bus plant").expect("the bus is told of");
    assert!(bus["key"] == "bus.plant" && bus["severity"] == "note" && bus["line"].is_u64(), "{bus:#}");
    assert!(bus["file"].as_str().is_some_and(|file| file.ends_with("fieldbridge.toml")), "{bus:#}");
}

#[test]
fn a_bad_configuration_is_told_as_without_live() {
    let plant = plant();
    plant.site.configure("unit = 1", "unit = 0");
    plant.site.configure("kind = \"modbus-tcp\"", "kind = \"modbus-udp\"");
    let output = plant.site.command(&["check", "--live", "--json"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("modbus-udp"));
    let document: Json = serde_json::from_slice(&output.stdout).expect("one document");
    let findings = document["findings"].as_array().expect("there are findings");
    assert!(document["ok"] == false && findings.iter().all(|finding| finding["verdict"] == "fail"), "{document:#}");
    let output = plant.site.command(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!((plant.slave.requests(), plant.hub.wire().len()), (0, 0));
}
