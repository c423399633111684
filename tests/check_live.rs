//! `check --live` tells the truth about everything that the configuration names, changes nothing at a peripheral and
//! takes no message from the hub (G1, G3: what it looks at is neither executed nor acknowledged). Each line is seen
//! when things are as they should be, and when they are not.
#![cfg(feature = "demo")]

mod support;

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fieldbridge::sim::{Ack, Auth, C2d, End, Options, Wire};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value as Json;
use support::disk::SmallDisk;
use support::hub::Hub;
use support::pty::{Port, Protocol};
use support::slave::{Mood, Slave};
use support::tls::{authority, server, Server};
use support::wall::Wall;
use support::{eventually, pump, Site, PUMP};

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

/// A child that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    found.says("ok", "peripheral tcp-pump", "unit 1 answers (read holding register 0 of read)");
    found.says("ok", "peripheral pump", "unit 1 answers");
    found.says("warn", "peripheral scale", "fieldbridge exec scale open");
    found.says("ok", "hub name", "has an address");
    found.says("ok", "hub TCP", "takes connections");
    found.says("ok", "hub TLS", "hub.fieldbridge.test");
    found.says("ok", "certificate of the hub", "counts until");
    found.says("ok", "certificate of hub.ca_file", "counts until");
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
        let ended = |event: &&fieldbridge::sim::WireEvent| matches!(event.what, Wire::Closed { .. });
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

    // The same for people: a line each, and none steers the terminal.
    let output = plant.site.command(&["check", "--live"]);
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    assert_eq!(text.lines().count(), found.findings.len(), "{text}");
    for line in text.lines() {
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
fn a_port_that_is_missing_or_held_is_named_with_its_holder() {
    let slave = Slave::new();
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
    let plant = serial_plant(&port);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(port.path()).expect("a port can be opened");
    // The command has the file as well, until it is dropped.
    let holder = Process(Command::new("sleep").arg("600").stdin(file).spawn().expect("sleep can be run"));
    let found = live(&plant.site);
    found.says("fail", "bus line", &format!("is held by sleep (pid {})", holder.0.id()));
    found.says("warn", "peripheral pump", "not asked: its bus can't be used");
    assert_eq!(slave.requests(), 0, "its line was used");
    drop(holder);
    live(&plant.site).says("ok", "peripheral pump", "answers");

    port.unplug();
    let found = live(&plant.site);
    found.says("fail", "bus line", "is the adapter plugged in?");
    found.says("fail", "bus line", "/dev/serial/by-id");
    let file = plant.site.write("no-port", "");
    plant.site.configure(&port.path().display().to_string(), &file.display().to_string());
    live(&plant.site).says("fail", "bus line", "is it a serial port");
}

#[test]
fn a_slave_that_says_nothing_fails_and_one_that_refuses_answers() {
    let slave = Slave::new();
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
    let plant = serial_plant(&port);
    for exception in [1, 2, 3, 4, 6] {
        slave.set_unreadable(Some(exception));
        live(&plant.site).says("ok", "peripheral pump", &format!("answers, by Modbus exception {exception}"));
    }
    for exception in [10, 11] {
        slave.set_unreadable(Some(exception));
        live(&plant.site).says("fail", "peripheral pump", "the gateway before it answers");
    }
    // One that is switched off, beside one that answers. Its line is left only when nothing late can come of it.
    let two = "[device.off]\nbus = \"line\"\nunit = 9\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
    plant.site.configure("[profile.pump.command.set]", &format!("{two}[profile.pump.command.set]"));
    slave.set_unreadable(None);
    slave.silence(9);
    let began = Instant::now();
    let found = live(&plant.site);
    assert!(began.elapsed() > Duration::from_secs(2), "the line was left after {:?}", began.elapsed());
    found.says("fail", "peripheral off", "A and B (swapped?)");
    found.says("ok", "peripheral pump", "unit 1 answers");
    // A device that only takes writes is read all the same, and never written.
    plant.site.configure("[profile.pump.command.read]\nread = { table = \"holding\", address = 0 }\n", "");
    live(&plant.site).says("ok", "peripheral pump", "unit 1 answers");
    assert_eq!(slave.writes(), []);

    // Two that take connections: one says nothing, the other what nobody understands.
    let answers: [(&str, &'static [u8]); 2] = [("no answer", b""), ("what comes back", support::slave::GARBAGE)];
    for (said, answer) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address").to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                        assert!([1, 2, 3, 4].contains(&buffer[7]), "function {} changes something", buffer[7]);
                        std::io::Write::write_all(&mut stream, answer).expect("it listens");
                    }
                });
            }
        });
        let plant =
            plant_with(Options::default(), |_| pump(&address, "after-execution", "response_timeout = \"200ms\""));
        live(&plant.site).says("fail", "peripheral pump", said);
    }
    let (host, free) = support::free_address();
    let address = format!("{host}:{free}");
    let plant = plant_with(Options::default(), |_| pump(&address, "after-execution", ""));
    live(&plant.site).says("fail", "bus plant", "refuses the connection");
}

#[test]
fn buses_are_asked_side_by_side_and_the_pace_to_the_hub_is_kept() {
    let mute: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    let plant = plant_with(Options::default(), |_| {
        let one = |(n, listener): (usize, &TcpListener)| {
            let address = listener.local_addr().expect("it has an address");
            format!(
                "[bus.b{n}]\nkind = \"modbus-tcp\"\naddress = \"{address}\"\nresponse_timeout = \"4s\"\n\
                 [device.d{n}]\nbus = \"b{n}\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n"
            )
        };
        mute.iter().enumerate().map(one).collect::<String>() + PUMP
    });
    (0..8).for_each(|n| plant.hub.add_device(&format!("d{n}"), Auth::Key((0..32).collect())));
    plant.site.configure("ca_file", "connect_rate = 4\nca_file");
    let began = Instant::now();
    let found = live(&plant.site);
    // Two attempts of 4 s at each: 64 s if they were asked one after the other.
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    (0..8).for_each(|n| found.says("fail", &format!("peripheral d{n}"), "no answer"));
    (0..8).for_each(|n| found.says("ok", &format!("identity d{n}"), "accepts it"));
    let at: Vec<_> =
        plant.hub.wire().into_iter().filter(|event| matches!(event.what, Wire::Connected { .. })).collect();
    let span = at[7].at.duration_since(at[0].at);
    assert!(span > Duration::from_millis(1200), "8 connections within {span:?} at 4 a second");
}

#[test]
fn each_identity_that_the_hub_refuses_is_named() {
    let plant = plant_with(Options::default(), |slave| {
        let wrong = "[device.wrong]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
        let own = |id: &str| {
            let keys = format!("cert_file = \"{id}.pem\"\ncert_key_file = \"{id}-key.pem\"");
            wrong.replace("wrong", id).replace("key_file = \"device.key\"", &keys)
        };
        format!("{}{wrong}{}{}", pump(slave.address(), "after-execution", ""), own("x"), own("y"))
    });
    plant.hub.add_key_device("wrong");
    let right = plant.hub.add_cert_device("x").expect("a certificate");
    let unknown = plant.hub.issue_client_cert("y").expect("a certificate");
    plant.hub.add_device("y", Auth::Thumbprints(vec![right.thumbprint.clone()]));
    for (id, certificate) in [("x", &right), ("y", &unknown)] {
        plant.site.write(&format!("{id}.pem"), &certificate.cert_pem);
        plant.site.write(&format!("{id}-key.pem"), &certificate.key_pem);
    }
    let found = live(&plant.site);
    found.says("ok", "identity pump", "a token made now");
    found.says("fail", "identity wrong", "check that the device exists at this hub");
    found.says("ok", "identity x", "with its certificate");
    found.says("ok", "certificate x", "counts until");
    found.says("fail", "identity y", "not authorized");
    assert!(plant.hub.wire().iter().any(|event| matches!(event.what, Wire::Refused { code: 5, .. })));
    // A key that belongs to another certificate, with the others as they were.
    plant.site.write("x-key.pem", &unknown.key_pem);
    let found = live(&plant.site);
    found.says("fail", "identity x", "is not the key of");
    found.says("ok", "hub TLS", "the server is");
    found.says("ok", "identity pump", "accepts it");
}

#[test]
fn a_devices_certificate_is_judged_by_its_dates() {
    let plant = plant();
    plant.site.configure("key_file = \"device.key\"", "cert_file = \"own.pem\"\ncert_key_file = \"own-key.pem\"");
    let key = KeyPair::generate().expect("a key");
    plant.site.write("own-key.pem", &key.serialize_pem());
    let day = Duration::from_secs(24 * 3600);
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    for (begins, ends, verdict, said) in [
        (now - 9 * day, now + 300 * day, "ok", "counts until"),
        (now - 9 * day, now + 20 * day, "warn", "expires in 19 days"),
        (now - 9 * day, now - day, "fail", "has expired"),
        (now + day, now + 300 * day, "fail", "counts only from"),
    ] {
        let mut params = CertificateParams::new([]).expect("no names are good names");
        (params.not_before, params.not_after) = (begins, ends);
        plant.site.write("own.pem", &params.self_signed(&key).expect("a certificate").pem());
        live(&plant.site).says(verdict, "certificate pump", said);
    }
}

#[test]
fn a_hub_that_is_not_reached_is_told_by_the_step_that_fails() {
    let mut plant = plant();
    let address = plant.hub.addr().to_string();
    plant.site.configure(&address, "no-such-hub.invalid:8883");
    let found = live(&plant.site);
    found.says("fail", "hub name", "check DNS");
    found.says("warn", "identity pump", "the hub is not reached");
    plant.site.configure("no-such-hub.invalid:8883", &address);
    plant.hub.unplug();
    let found = live(&plant.site);
    found.says("ok", "hub name", "has an address");
    found.says("fail", "hub TCP", "port 8883 is open outwards");
    found.says("warn", "identity pump", "the hub is not reached");
    plant.hub.plug_in();
    live(&plant.site).is_good();
    // A port on which nothing speaks TLS.
    let plain = plant_with(Options { tls: false, ..Options::default() }, |_| String::new());
    plant.site.configure(&address, &plain.hub.addr().to_string());
    let found = live(&plant.site);
    found.says("ok", "hub TCP", "takes connections");
    found.says("fail", "hub TLS", "is this a TLS port");
}

#[test]
fn a_server_whose_certificate_is_wrong_is_told_and_hears_no_token() {
    let ca = authority("the authority that is trusted");
    let day = Duration::from_secs(24 * 3600);
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    let key = KeyPair::generate().expect("a key");
    let slave = Slave::new();
    let more = pump(slave.address(), "after-execution", "");
    let look = |params: CertificateParams, trusted: &str| {
        let server = Server::with(&[&params.signed_by(&key, &ca).expect("a certificate")], &key);
        let found = live(&server.site(trusted, &more));
        (found, server)
    };
    let expired = server(|params| params.not_after = now - day);
    let of_another = server(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("hub.example".try_into().expect("a name"))];
    });
    for (params, said) in [(expired, "has expired"), (of_another, "is not for hub.fieldbridge.test")] {
        let (found, server) = look(params, &ca.pem());
        found.says("fail", "hub TLS", said);
        found.says("warn", "identity pump", "the hub is not reached");
        assert!(server.heard().is_empty());
    }
    let (found, server) = look(support::tls::server(|_| {}), &authority("another").pem());
    found.says("fail", "hub TLS", "not signed by a trusted authority");
    assert!(server.heard().is_empty());
    let (found, _server) = look(support::tls::server(|params| params.not_after = now + 10 * day), &ca.pem());
    found.says("ok", "hub TLS", "the server is");
    found.says("warn", "certificate of the hub", "expires in 9 days");
    // This server ends the connection after CONNECT.
    found.says("fail", "identity pump", "");
}

#[test]
fn a_clock_in_1970_is_told_and_no_token_is_made() {
    let plant = plant();
    let wall = Wall::new(&plant.site.path(""));
    wall.jump_to(60);
    let found = live_under(&plant.site, &[], &wall.environment());
    found.says("fail", "clock", "timedatectl set-ntp true");
    found.says("fail", "hub TLS", "is the clock right?");
    found.says("fail", "certificate of hub.ca_file", "is the clock right?");
    found.says("warn", "identity pump", "not asked");
    found.says("ok", "peripheral pump", "answers");
    assert_eq!(plant.hub.wire().len(), 0);
}

#[test]
fn a_ledger_that_cant_be_used_is_told_before_the_daemon_starts() {
    let plant = plant();
    live(&plant.site).says("ok", "ledger", "is not there yet; the daemon makes it");
    plant.site.write("ledger.db", "no ledger at all, but long enough to be one".repeat(99).as_str());
    live(&plant.site).says("fail", "ledger", "ledger.db");
    let disk = SmallDisk::new("40m");
    plant.site.keep_ledger_in(disk.path());
    live(&plant.site).says("warn", "ledger", "MiB free");
    disk.fill_but(8 << 20);
    live(&plant.site).says("fail", "ledger", "make room");
    disk.clear();
    disk.remount("ro");
    live(&plant.site).says("fail", "ledger", "mounted read-only");
    let missing = disk.path().join("missing").join("ledger.db").display().to_string();
    plant.site.configure(&disk.path().join("ledger.db").display().to_string(), &missing);
    live(&plant.site).says("warn", "ledger", "is not there yet");
}

#[test]
fn files_that_the_services_user_cant_read_are_told_to_root() {
    let own = std::fs::metadata("/proc/self").map(|found| std::os::unix::fs::MetadataExt::uid(&found));
    if own.expect("there is a process") != 0 {
        eprintln!("SKIPPED: this test needs root, to give this machine another list of users for a moment");
        return;
    }
    use std::os::unix::fs::{chown, PermissionsExt as _};
    let port = Port::that_nobody_holds(Slave::new(), Protocol::Rtu);
    let plant = serial_plant(&port);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode can be set");
    };
    let users = plant.site.write("passwd", "root:x:0:0::/:/bin/sh\nfieldbridge:x:64321:64322::/:/bin/false\n");
    let groups = plant.site.write("group", "root:x:0:\nfieldbridge:x:64322:\ndialout:x:20:\n");
    let script = format!(
        "mount --bind {} /etc/passwd && mount --bind {} /etc/group && exec \"$@\"",
        users.display(),
        groups.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let key = plant.site.path("device.key");
    for name in ["hub-ca.pem", "fieldbridge.toml"] {
        mode(&plant.site.path(name), 0o644);
    }
    mode(&plant.site.path(""), 0o755);
    let found = live_under(&plant.site, &wrapper, &[]);
    found.says("fail", "files", &format!("chmod 0640 {}", key.display()));
    found.says("ok", "files", "2 files of the configuration can be read by fieldbridge");
    found.says("fail", "ledger", "is closed to the user fieldbridge");
    found.says("fail", "bus line", "let the port belong to the group dialout");
    let port = port.path().canonicalize().expect("it is there");
    // As the remedies say.
    chown(&key, None, Some(64322)).expect("root can give files away");
    mode(&key, 0o640);
    chown(&port, None, Some(20)).expect("root can give ports away");
    mode(&port, 0o660);
    chown(plant.site.path(""), Some(64321), None).expect("root can give folders away");
    let found = live_under(&plant.site, &wrapper, &[]);
    found.is_good();
    found.says("ok", "files", "3 files of the configuration can be read by fieldbridge");
    mode(&plant.site.path(""), 0o600);
    live_under(&plant.site, &wrapper, &[]).says("fail", "files", "by the folder");
}

#[test]
fn a_bad_configuration_is_told_as_without_live() {
    let plant = plant();
    plant.site.configure("unit = 1", "unit = 0");
    plant.site.configure("kind = \"modbus-tcp\"", "kind = \"modbus-udp\"");
    let output = plant.site.command(&["check", "--live", "--json"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("modbus-udp"));
    let output = plant.site.command(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!((plant.slave.requests(), plant.hub.wire().len()), (0, 0));
}

#[test]
fn a_slave_in_a_bad_mood_for_writes_is_not_met_at_all() {
    let plant = plant();
    plant.slave.set_mood(Mood::Deaf);
    live(&plant.site).says("ok", "peripheral pump", "answers");
    assert_eq!(plant.slave.met(), 0);
}
