//! What a person sees of a bus, through the daemon and without it: `read`, `decode` and `scan`. Nothing is written;
//! commands of others keep their turns (G11), and whoever goes away leaves nothing to be sent.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{json, Value as Json};

use crate::support::pty::{Port, Protocol};
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, program, pump, Daemon, Site, PUMP};

/// A daemon whose hub is away: the buses don't need one.
fn plant(timing: &str) -> (Slave, Site, Daemon) {
    let slave = Slave::new();
    let site = Site::new("127.0.0.1:1", &pump(slave.address(), "after-execution", timing));
    let daemon = site.start();
    (slave, site, daemon)
}

/// A site on a serial line, with no daemon.
fn line(slave: &Slave) -> (Port, Site) {
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
    let config = format!(
        "[bus.line]\nkind = \"modbus-rtu\"\nport = \"{}\"\nbaud = 115200\nresponse_timeout = \"300ms\"\nretries = 0\n\
         [device.pump]\nbus = \"line\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n{PUMP}",
        port.path().display()
    );
    (port, Site::new("127.0.0.1:1", &config))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_of(output: &Output) -> Json {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one document")
}

/// Ends with this status, and says this to a person.
fn says(output: &Output, status: i32, fragment: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(fragment), "{fragment:?} is missing: {said}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

/// Runs in the background, until it is waited for or killed.
fn begin(site: &Site, args: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(args).arg("--config").arg(site.path("fieldbridge.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run")
}

fn fill(slave: &Slave) {
    for (address, value) in [(0, 0x4248), (1, 0), (2, 0xFFFE), (3, 7)] {
        slave.set_register(address, value);
    }
}

/// The same through the daemon and without it.
fn reads_everything(site: &Site, slave: &Slave) {
    fill(slave);
    let read = |args: &[&str]| site.command(&[&["read", "pump"], args].concat());
    let values = |args: &[&str]| json_of(&read(&[args, &["--json"]].concat()));
    assert_eq!(values(&["holding", "0", "4"]), json!({ "values": [0x4248, 0, 0xFFFE, 7] }));
    assert_eq!(values(&["holding", "0x2"]), json!({ "values": [0xFFFE] }));
    assert_eq!(values(&["holding", "2", "--type", "i16"]), json!({ "values": [-2] }));
    assert_eq!(values(&["holding", "0", "--type", "f32"]), json!({ "values": [50.0] }));
    assert_eq!(
        values(&["holding", "0", "2", "--type", "u32", "--order", "CDAB"]),
        json!({ "values": [0x4248, 0x7_FFFE] })
    );
    assert_eq!(values(&["coil", "5", "3"]), json!({ "values": [false, false, false] }));
    let shown = text(&read(&["holding", "0", "2", "--type", "f32"]).stdout);
    assert_eq!(shown.lines().nth(1).map(str::trim_end), Some("0        50.0"), "{shown}");
    assert!(shown.lines().nth(2).is_some_and(|line| line.starts_with("2  ")), "{shown}");
    // More than one request moves.
    let before = slave.requests();
    let all = values(&["holding", "0", "130", "--type", "u32"]);
    assert_eq!(slave.requests() - before, 3);
    let all = all["values"].as_array().expect("a list").clone();
    assert_eq!((all.len(), &all[1], &all[129]), (130, &json!(0xFFFE_0007_u32), &json!(0)));
    let decoded = json_of(&site.command(&["decode", "pump", "holding", "0", "4", "--json"]));
    assert_eq!(decoded["registers"], json!([0x4248, 0, 0xFFFE, 7]));
    assert_eq!(decoded["as"]["u16"], json!([0x4248, 0, 0xFFFE, 7]));
    assert_eq!(decoded["as"]["f32 ABCD"][0], json!(50.0));
    assert_eq!(decoded["as"]["i32 CDAB"], json!([0x4248, 0x7_FFFE]));
    let shown = text(&site.command(&["decode", "pump", "holding", "0"]).stdout);
    for (name, values) in [("registers", "0x4248 0x0000"), ("u16", "16968 0"), ("f32 ABCD", "50.0"), ("string", "BH")] {
        let line = shown.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(line.map(str::trim), Some(values), "{name}: {shown}");
    }
    assert_eq!((slave.writes(), slave.other_writes().len()), (vec![], 0));
}

#[test]
fn registers_are_read_and_decoded_through_the_daemon() {
    let (slave, site, _daemon) = plant("");
    reads_everything(&site, &slave);
}

#[test]
fn registers_are_read_and_decoded_where_no_daemon_runs_and_the_port_is_given_back() {
    let slave = Slave::new();
    let (_port, site) = line(&slave);
    reads_everything(&site, &slave);
    assert!(!site.path("ledger.db").exists() && !site.path("admin.sock").exists(), "something was made");
}

#[test]
fn a_port_that_somebody_else_has_is_not_opened_and_it_is_said_who() {
    let slave = Slave::new();
    let (port, site) = line(&slave);
    let opened = std::fs::OpenOptions::new().read(true).open(port.path()).expect("it can be opened");
    let mut holder = Command::new("sleep").arg("60").stdin(opened).spawn().expect("it can be run");
    let output = site.command(&["read", "pump", "holding", "0"]);
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    says(&output, 1, &format!("sleep (pid {})", holder.id()));
    assert_eq!(slave.requests(), 0);
}

#[test]
fn what_can_not_be_read_is_said_in_a_sentence() {
    let (slave, site, _daemon) = plant("response_timeout = \"200ms\"\nretries = 1\nretry_pause = \"0s\"");
    let read = |args: &[&str]| site.command(&[&["read", "pump"], args].concat());
    says(&site.command(&["read", "valve", "holding", "0"]), 1, "no device is called \"valve\"");
    says(&read(&["coil", "0", "--type", "f32"]), 2, "leave --type out");
    says(&read(&["coil", "0", "--order", "CDAB"]), 2, "the order is of the bytes of a number");
    says(&read(&["holding", "0", "0"]), 2, "COUNT is at least 1");
    says(&read(&["holding", "65535", "2"]), 2, "the last address is 65535");
    says(&read(&["holding", "65536"]), 2, "from 0 to 65535");
    says(&read(&["register", "0"]), 2, "holding");
    says(&site.command(&["decode", "pump", "coil", "0"]), 2, "fieldbridge read");
    assert_eq!(slave.requests(), 0);
    slave.set_register(0, 0xFFFF);
    says(&read(&["holding", "0", "--type", "bcd16"]), 1, "a digit from 0 to 9");
    slave.set_unreadable(Some(2));
    let output = read(&["holding", "40001", "2"]);
    says(&output, 1, "unit 1 refuses holding 40001 to 40002 by Modbus exception 2: illegal data address");
    says(&output, 1, "its address is 0");
    slave.silence(1);
    let before = slave.requests();
    says(&read(&["holding", "0"]), 1, "unit 1 did not answer within 200ms");
    assert_eq!(slave.requests() - before, 2, "as many attempts as the bus makes");
}

#[test]
fn a_line_of_text_is_not_sent_anything() {
    let slave = Slave::new();
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Text);
    let config = format!(
        "[bus.text]\nkind = \"serial\"\nport = \"{}\"\nbaud = 9600\n[device.scale]\nbus = \"text\"\nprofile = \"scale\"\n\
         key_file = \"device.key\"\n[profile.scale.command.open]\nsend = \"S1\\n\"\nidempotent = true\n",
        port.path().display()
    );
    let site = Site::new("127.0.0.1:1", &config);
    says(&site.command(&["read", "scale", "holding", "0"]), 1, "carries lines of text");
    let _daemon = site.start();
    says(&site.command(&["decode", "scale", "holding", "0"]), 1, "carries lines of text");
    assert_eq!(slave.requests(), 0);
}

#[test]
fn a_read_waits_for_its_turn_and_one_whose_operator_goes_is_not_sent() {
    let (slave, site, daemon) = plant("response_timeout = \"20s\"");
    fill(&slave);
    slave.set_mood(Mood::Held);
    let writing = begin(&site, &["exec", "pump", "set", "5"]);
    slave.wait_for_write(5);
    let before = slave.requests();
    let told = |what: &str, times: usize| {
        eventually(what, || (daemon.log().matches(what).count() >= times).then_some(()));
    };
    let mut gone = begin(&site, &["read", "pump", "holding", "1"]);
    told("a local operator reads", 1);
    let stays = begin(&site, &["read", "pump", "holding", "2", "--json"]);
    told("a local operator reads", 2);
    gone.kill().expect("it waits");
    gone.wait().expect("it ends");
    told("went away before the bus was asked", 1);
    assert_eq!(slave.requests(), before, "the bus is another's");
    slave.set_mood(Mood::Good);
    let output = stays.wait_with_output().expect("it ends");
    assert_eq!(json_of(&output), json!({ "values": [0xFFFE] }));
    assert!(writing.wait_with_output().expect("it ends").status.success());
    assert_eq!(slave.requests() - before, 1);
}

/// The same through the daemon and without it.
fn finds_the_units(site: &Site, slave: &Slave, bus: &str) {
    (1..=6).filter(|unit| ![2, 5].contains(unit)).for_each(|unit| slave.silence(unit));
    let before = slave.requests();
    let found = json_of(&site.command(&["scan", bus, "--units", "1-3,5", "--json"]));
    let units: Vec<(u64, bool)> = found
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| (found["unit"].as_u64().expect("a unit"), found["answers"] == true))
        .collect();
    assert_eq!(units, [(1, false), (2, true), (3, false), (5, true)]);
    assert_eq!(found[0], json!({ "unit": 1, "answers": false, "exception": null, "milliseconds": null }));
    assert!(found[1]["milliseconds"].is_number() && found[1].as_object().is_some_and(|found| found.len() == 4));
    assert_eq!(slave.requests() - before, 4, "each is asked once");
    slave.set_unreadable(Some(2));
    let found = json_of(&site.command(&["scan", bus, "--units", "2", "--json"]));
    assert_eq!((&found[0]["answers"], &found[0]["exception"]), (&json!(true), &json!(2)));
    let output = site.command(&["scan", bus, "--units", "2-3"]);
    let said = text(&output.stdout);
    assert!(said.starts_with("unit 2 answers in ") && said.contains("exception 2 (illegal data address)"), "{said}");
    assert!(said.ends_with("1 of 2 units answers\n") && output.stderr.is_empty(), "{said}{}", text(&output.stderr));
    // A gateway that does not reach it is no answer of it.
    slave.set_unreadable(Some(11));
    says(&site.command(&["scan", bus, "--units", "2"]), 1, "none of 1 units");
    says(&site.command(&["scan", "attic"]), 1, &format!("no bus is called \"attic\"; there are: {bus}"));
    assert_eq!((slave.writes(), slave.other_writes().len()), (vec![], 0));
}

#[test]
fn units_that_answer_are_found_through_the_daemon() {
    let (slave, site, _daemon) = plant("response_timeout = \"200ms\"");
    finds_the_units(&site, &slave, "plant");
}

#[test]
fn units_that_answer_are_found_where_no_daemon_runs() {
    let slave = Slave::new();
    let (_port, site) = line(&slave);
    finds_the_units(&site, &slave, "line");
    let before = slave.requests();
    says(
        &site.command(&["scan", "line", "--units", "2,0-255"]),
        2,
        "unit 0 is a broadcast on a bus of kind modbus-rtu",
    );
    let daemon = site.start();
    says(&site.command(&["scan", "line", "--units", "0"]), 2, "leave it out of --units");
    assert_eq!(slave.requests(), before, "nothing was asked");
    drop(daemon);
}

/// A server that answers two requests, and is gone.
fn short_lived() -> String {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = server.local_addr().expect("it has one").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("it is connected to");
        drop(server);
        for _ in 0..2 {
            let mut asked = [0; 12];
            stream.read_exact(&mut asked).expect("it is asked");
            let said = [&asked[..5], &[5], &asked[6..8], &[2, 0, 7]].concat();
            stream.write_all(&said).expect("it answers");
        }
    });
    address
}

#[test]
fn what_was_found_before_a_line_is_lost_is_printed() {
    for args in [&["scan", "plant", "--units", "1-9", "--json"][..], &["scan", "plant", "--units", "1-9"]] {
        let site = Site::new("127.0.0.1:1", &pump(&short_lived(), "after-execution", "response_timeout = \"3s\""));
        let output = site.command(args);
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.code() == Some(1) && error.contains("can't be reached"), "{said}{error}");
        if args.contains(&"--json") {
            let found: Json = serde_json::from_slice(&output.stdout).expect("one document");
            let found: Vec<_> =
                found.as_array().expect("a list").iter().map(|of| (&of["unit"], &of["answers"])).collect();
            assert_eq!(found, [(&json!(1), &json!(true)), (&json!(2), &json!(true))]);
        } else {
            assert!(said.starts_with("unit 1 answers") && said.lines().count() == 2, "{said}");
        }
    }
}
