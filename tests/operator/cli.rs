//! The command line as its users and their scripts meet it: exit statuses, what goes to which output, the shapes of
//! `--json`, and what must never be printed. The daemon's manners towards systemd are at the end.

mod derive;
mod ledger;
mod locking;
mod status;
mod surroundings;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::broker::{Broker, Client};
use crate::support::slave::{Mood, Slave};
use crate::support::{self, pump, signal, Daemon, Site};
use serde_json::{json, Value as Json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fieldbridge");
/// The site's device key, as its file has it.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A running daemon with everything around it.
struct Plant {
    daemon: Daemon,
    client: Client,
    slave: Slave,
    site: Site,
    _broker: Broker,
}

impl Plant {
    fn start() -> Plant {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", "response_timeout = \"2s\""));
        let daemon = site.start();
        let client = broker.serve();
        Plant { daemon, client, slave, site, _broker: broker }
    }

    /// Delivers a message and waits for its PUBACK and its event.
    fn deliver(&mut self, packet_id: u16, message_id: &str, command: &str, value: u16) {
        self.client.deliver(packet_id, message_id, &format!(r#"{{"command":"{command}","value":{value}}}"#));
        let mut events = Vec::new();
        assert_eq!(self.client.next_puback(&mut events), packet_id);
        if events.is_empty() {
            self.client.next_event();
        }
    }
}

/// A site without anything around it.
fn idle_site() -> Site {
    Site::new("127.0.0.1:1", &pump("127.0.0.1:1", "after-execution", ""))
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("its output is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("its messages are UTF-8")
}

/// Asserts on a status, what standard output says, and what standard error says. Empty means that nothing may be there.
fn says(output: &Output, expected: i32, on_stdout: &str, on_stderr: &str) {
    let all = format!("status {}\nstdout: {}\nstderr: {}", status(output), stdout(output), stderr(output));
    assert_eq!(status(output), expected, "{all}");
    for (text, wanted) in [(stdout(output), on_stdout), (stderr(output), on_stderr)] {
        assert!(
            if wanted.is_empty() { text.is_empty() } else { text.contains(wanted) },
            "{wanted:?} is missing\n{all}"
        );
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().expect("the built program can be run")
}

/// Asserts that a document has the members of an example and no others, each of the same type. Null in the example
/// stands for text or null.
fn has_shape(found: &Json, example: &Json, place: &str) {
    match (found, example) {
        (Json::Object(found), Json::Object(example)) => {
            let names = |of: &serde_json::Map<String, Json>| of.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(found), names(example), "members of {place}");
            for (name, example) in example {
                has_shape(&found[name], example, &format!("{place}.{name}"));
            }
        }
        (Json::Array(found), Json::Array(example)) => {
            for element in found {
                has_shape(element, &example[0], &format!("{place}[]"));
            }
        }
        (Json::Null | Json::String(_), Json::Null) => {}
        (Json::Number(_), Json::Number(_)) | (Json::Bool(_), Json::Bool(_)) => {}
        (Json::String(found), Json::String(example)) if example.ends_with('Z') => {
            let pattern =
                |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
            assert_eq!(pattern(found), pattern(example), "{place} is a time");
        }
        (Json::String(_), Json::String(_)) => {}
        _ => panic!("{place} is {found}, not like {example}"),
    }
}

fn json_of(output: &Output) -> Json {
    let text = stdout(output);
    assert_eq!(text.lines().count(), 1, "one document, on one line: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_subcommand_explains_itself_with_an_example() {
    let mut left = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(words) = left.pop() {
        let args: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let output = run(&args);
        says(&output, 0, "Usage:", "");
        let help = stdout(&output);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let inner: Vec<&str> =
            listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
        // A group of commands shows its example above them.
        assert!(words.is_empty() || help.contains("Example: fieldbridge "), "{words:?} has no example:\n{help}");
        assert!(help.contains("--config"), "{words:?} has no --config:\n{help}");
        left.extend(inner.into_iter().map(|name| words.iter().cloned().chain([name.to_owned()]).collect()));
        seen += 1;
    }
    assert!(seen >= 9, "{seen} commands were found");
    says(&run(&["--version"]), 0, concat!("fieldbridge ", env!("CARGO_PKG_VERSION")), "");
}

#[test]
fn wrong_usage_ends_with_2() {
    for args in [
        &[][..],
        &["start"],
        &["run", "--fast"],
        &["ledger"],
        &["ledger", "list", "--state", "done"],
        &["ledger", "list", "--limit", "-1"],
        &["ledger", "show", "pump-7"],
        &["exec", "pump-7"],
        &["exec", "pump-7", "set", "--jsno"],
        &["status", "--config"],
    ] {
        let output = run(args);
        says(&output, 2, "", "help");
    }
}

#[test]
fn check_reports_every_error_with_file_key_and_remedy_and_ends_with_78() {
    let site = idle_site();
    says(&site.command(&["check"]), 0, "the configuration is good: 1 device on 1 bus, hub", "");

    std::fs::create_dir(site.path("conf.d")).expect("a folder can be made");
    site.write(
        "conf.d/10-more.toml",
        "[device.pump-8]\nbus = \"plnt\"\nunit = 300\nprofile = \"pump\"\nkey_file = \"gone.key\"\n",
    );
    site.write("conf.d/20-bad.toml", "[bus.plant]\nretrys = 3\n[ledger]\nretention = \"1d\"\n");
    let output = site.command(&["check"]);
    says(&output, 78, "", "fieldbridge: ");
    let text = stderr(&output);
    for (file, key, remedy) in [
        ("10-more.toml", "device.pump-8.bus", "plant"),
        ("10-more.toml", "device.pump-8.unit", "0 to 255"),
        ("10-more.toml", "device.pump-8.key_file", "gone.key"),
        ("20-bad.toml", "bus.plant.retrys", "retries"),
        ("20-bad.toml", "ledger.retention", "2d"),
    ] {
        let told = text
            .lines()
            .any(|line| line.contains(file) && line.contains(&format!(": {key}: ")) && line.contains(remedy));
        assert!(told, "{file}: {key}: … {remedy} is missing in\n{text}");
    }
    let output = site.command(&["run"]);
    says(&output, 78, "", "device.pump-8.bus");

    site.write("fieldbridge.toml", "[hub\n");
    says(&site.command(&["run"]), 78, "", "fieldbridge.toml");
    let gone = run(&["check", "--config", "/nonexistent/fieldbridge.toml"]);
    says(&gone, 78, "", "/nonexistent/fieldbridge.toml");
}

#[test]
fn check_prints_one_document_of_all_that_it_finds() {
    let site = idle_site();
    std::fs::create_dir(site.path("conf.d")).expect("a folder can be made");
    let main = site.path("fieldbridge.toml").display().to_string();
    site.write("conf.d/10-line.toml", "[bus.line]\nkind = \"modbus-rtu\"\nport = \"/dev/no-such-port\"\nbaud = 9600\n");
    let output = site.command(&["check", "--json"]);
    says(&output, 0, "{", "");
    let document = json_of(&output);
    assert_eq!(document["ok"], true);
    assert!(document["files"].as_array().expect("a list").iter().any(|file| *file == *main), "{document:#}");
    let finding = |document: &Json, key: &str| {
        let found =
            document["findings"].as_array().expect("a list").iter().find(|finding| finding["key"] == key).cloned();
        let found = found.unwrap_or_else(|| panic!("nothing of {key}: {document:#}"));
        assert!(
            ["message", "remedy"].iter().all(|member| !found[*member].as_str().expect("text").is_empty()),
            "{found:#}"
        );
        let text = |member: &str| found[member].as_str().expect("text").to_owned();
        let name = text("file").rsplit('/').next().expect("a name").to_owned();
        (name, found["line"].as_u64(), found["column"].as_u64(), text("severity"))
    };
    let in_line = |line, column| ("10-line.toml".to_owned(), Some(line), Some(column));
    let with = |(file, line, column), severity: &str| (file, line, column, severity.to_owned());
    assert_eq!(finding(&document, "bus.line.port"), with(in_line(3, 1), "warning"));
    assert_eq!(finding(&document, "bus.line"), with(in_line(1, 6), "note"));

    // With errors: the same document, on standard output; the file may be named behind `check`.
    site.write("conf.d/10-line.toml", "[bus.line]\nkind = \"modbus-rtu\"\nport = \"/dev/no-such-port\"\nboud = 9600\n");
    let output = run(&["check", &main, "--json"]);
    says(&output, 78, "{", "bus.line.boud");
    let document = json_of(&output);
    assert_eq!(document["ok"], false);
    assert_eq!(finding(&document, "bus.line.boud"), with(in_line(4, 1), "error"));
    assert_eq!(finding(&document, "bus.line"), with(in_line(1, 6), "note"));
    says(&run(&["check", &main, "--config", &main]), 2, "", "cannot be used with");
}

#[test]
fn without_a_daemon_what_needs_one_ends_with_75() {
    let site = idle_site();
    for args in [&["status"][..], &["status", "--json"], &["exec", "pump", "set", "1"]] {
        says(&site.command(args), 75, "", "is the daemon running?");
    }
    // A dead daemon leaves its socket behind.
    let plant = Plant::start();
    let Plant { daemon, site, .. } = plant;
    daemon.kill();
    assert!(site.path("admin.sock").exists());
    says(&site.command(&["status"]), 75, "", "is the daemon running?");
}

#[test]
fn exec_runs_a_command_and_its_status_says_what_came_of_it() {
    let plant = Plant::start();
    let exec = |args: &[&str]| plant.site.command(&[&["exec"], args].concat());
    says(&exec(&["pump", "set", "42"]), 0, "succeeded: 42", "");
    assert_eq!(plant.slave.writes(), [(0, 42)]);
    says(&exec(&["pump", "read"]), 0, "succeeded: 42", "");
    says(&exec(&["pump", "pulse-verified", "7"]), 0, "succeeded: 7", "");
    for (args, why) in [
        (&["pumpe", "set", "1"][..], "no device is called \"pumpe\""),
        (&["pump", "sett", "1"], "unknown-command"),
        (&["pump", "set"], "bad-value"),
        (&["pump", "set", "-fast"], "bad-value"),
        (&["pump", "set", "-1"], "out-of-range"),
        (&["pump", "set", "65536"], "out-of-range"),
        (&["pump", "read", "1"], "bad-value"),
    ] {
        let output = exec(args);
        assert_eq!((status(&output), stderr(&output).contains(why)), (1, true), "{args:?}: {}", stderr(&output));
    }
    plant.slave.set_mood(Mood::Refusing(2));
    let output = exec(&["pump", "pulse", "1"]);
    says(&output, 1, "failed", "illegal data address");
    assert_eq!(plant.slave.writes().len(), 2);
    let rows = plant.site.rows();
    let row = |at: usize| &rows[at];
    for (at, command, requested, state) in [
        (0, "set", json!(42), "succeeded"),
        (1, "read", Json::Null, "succeeded"),
        (2, "pulse-verified", json!(7), "succeeded"),
        (3, "sett", json!(1), "rejected"),
        (5, "set", json!("-fast"), "rejected"),
        (9, "pulse", json!(1), "failed"),
    ] {
        assert_eq!((&row(at)["command"], &row(at)["state"]), (&json!(command), &json!(state)), "{at}");
        assert_eq!((&row(at)["requested"], &row(at)["messageId"]), (&requested, &Json::Null), "{at}");
        assert_eq!((&row(at)["source"], &row(at)["user"]), (&json!("local"), &json!(user_name())), "{at}");
    }
    assert_eq!(rows.len(), 10, "each command of a device that there is");
    assert_eq!(plant.site.status()["outbox"]["pending"], 0, "the operator was answered, and nobody else is told");
    let told = plant.daemon.log().matches("executed for a local operator").count();
    assert_eq!(told, 10, "each has its line");
}

/// Who runs the tests, as the kernel's number is looked up.
fn user_name() -> String {
    let output = std::process::Command::new("id").arg("-un").output().expect("id can be run");
    String::from_utf8(output.stdout).expect("a name is text").trim().to_owned()
}

#[test]
fn exec_prints_a_result_event() {
    let plant = Plant::start();
    let exec = |args: &[&str]| plant.site.command(&[&["exec", "--json"], args].concat());
    let succeeded = json!({"messageId": null, "command": "set", "requested": 42, "status": "succeeded", "value": 42.5,
        "attempts": 1, "receivedAt": "2026-11-22T10:00:00.123Z", "finishedAt": "2026-11-22T10:00:00.141Z"});
    let event = json_of(&exec(&["pump", "set", "42"]));
    has_shape(&event, &succeeded, "event");
    assert_eq!(
        (&event["command"], &event["status"], &event["value"]),
        (&json!("set"), &json!("succeeded"), &json!(42))
    );

    let mut failed = succeeded;
    failed["error"] = json!({"code": "exception", "message": "…", "modbusException": 2});
    failed.as_object_mut().expect("an object").remove("value");
    plant.slave.set_mood(Mood::Refusing(2));
    let output = exec(&["pump", "set", "42"]);
    assert_eq!(status(&output), 1);
    let event = json_of(&output);
    has_shape(&event, &failed, "event");
    assert_eq!((&event["error"]["code"], &event["error"]["modbusException"]), (&json!("exception"), &json!(2)));

    failed["error"] = json!({"code": "bad-value", "message": "…"});
    failed["requested"] = json!("fast");
    let output = exec(&["pump", "set", "fast"]);
    assert_eq!(status(&output), 1);
    has_shape(&json_of(&output), &failed, "event");
}

#[test]
fn a_row_has_the_shape_that_scripts_rely_on() {
    let mut plant = Plant::start();
    plant.deliver(1, "m-1", "set", 7);
    plant.slave.set_mood(Mood::Refusing(2));
    plant.deliver(2, "m-2", "pulse", 8);
    let example = json!({"row": 12, "hub": "contoso.azure-devices.net", "device": "pump-7", "messageId": "m-1", "source": "hub",
        "user": null, "command": "set-speed", "requested": 42.5, "state": "succeeded", "attempts": 1,
        "deliveries": 2, "receivedAt": "2026-11-22T10:00:00.123Z", "finishedAt": "2026-11-22T10:00:00.141Z",
        "correlationId": null, "sequenceNumber": null, "enqueuedAt": null, "deliveryCount": null, "value": 42.5, "error": null, "resolved": null});
    let row = |args: &[&str]| json_of(&plant.site.command(args));
    let list = row(&["ledger", "list", "--json", "--state", "succeeded"]);
    has_shape(&list, &example, "row");
    let mut with_history = example.clone();
    with_history["history"] = json!([{"at": "2026-11-22T10:00:00.123Z", "event": "received"}]);
    assert_eq!(plant.site.settled_how("m-1"), "completed by mqtt");
    let mut shown = row(&["ledger", "show", "pump", "m-1", "--json"]);
    // What is told in words has them beside the others.
    shown["history"][3].as_object_mut().and_then(|entry| entry.remove("detail")).expect("it has");
    has_shape(&shown, &with_history, "row");
    let events: Vec<_> = shown["history"].as_array().expect("a list").iter().map(|entry| &entry["event"]).collect();
    assert_eq!(events, ["received", "sent", "succeeded", "settled"]);

    let mut failed = example;
    (failed["value"], failed["error"]) =
        (json!(null), json!({"code": "exception", "message": "…", "modbusException": 2}));
    has_shape(&row(&["ledger", "list", "--json", "--state", "failed"]), &failed, "row");
}

#[test]
fn what_the_cloud_or_a_peripheral_says_cant_steer_the_terminal() {
    let mut plant = Plant::start();
    let topic = b"devices/pump/messages/devicebound/%24.mid=m%1B%5B2J%0Ax&command=no%1B%5B2Jsuch";
    plant.client.publish(1, topic, b"");
    assert_eq!(plant.client.next_puback(&mut Vec::new()), 1);
    for args in
        [&["ledger", "list"][..], &["ledger", "show", "pump", "m\x1b[2J\nx"], &["exec", "pump", "no\x1b[2Jsuch"]]
    {
        let output = plant.site.command(args);
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("such") && !text.contains('\x1b'), "{args:?}: {text:?}");
    }
    assert_eq!(stdout(&plant.site.command(&["ledger", "list"])).lines().count(), 3, "a head, and one row a line");
}

#[test]
fn a_reader_that_goes_away_early_is_no_error() {
    let mut plant = Plant::start();
    plant.deliver(1, "m-1", "set", 7);
    let config = plant.site.path("fieldbridge.toml");
    for args in [
        &["check"][..],
        &["status"],
        &["status", "--json"],
        &["ledger", "list"],
        &["ledger", "list", "--json"],
        &["ledger", "show", "pump", "m-1"],
        &["exec", "pump", "set", "1"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--config").arg(&config).stdin(Stdio::null()).stdout(writer);
        says(&command.output().expect("the built program can be run"), 0, "", "");
    }
    // Nobody hears the message either, but the status tells.
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    let mut command = Command::new(PROGRAM);
    command.args(["ledger", "show", "pump", "m-9", "--config"]).arg(&config).stderr(writer);
    assert_eq!(command.status().expect("the built program can be run").code(), Some(1));
}

#[test]
fn a_log_that_nobody_takes_stops_nothing() {
    let (reader, closed) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there is a device that is full");
    for log in [Stdio::from(closed), Stdio::from(full)] {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
        let daemon = site.spawn_logging_to(log, &[], &[]);
        let mut client = broker.serve();
        client.deliver(1, "m-1", r#"{"command":"set","value":7}"#);
        assert_eq!(client.next_puback(&mut Vec::new()), 1);
        assert!(daemon.terminate().success());
    }
}

#[test]
fn no_output_ever_shows_a_secret() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let daemon = site.spawn(&[], &[("FIELDBRIDGE_LOG", "trace")]);
    daemon.wait_until_ready();
    // Refused once: the trouble that is told has no token in it.
    let mut client = broker.accept();
    assert!(client.connect.password.as_ref().is_some_and(|password| password.contains("&sig=")));
    client.connack(5, false);
    let mut client = broker.serve();
    client.deliver(1, "m-1", r#"{"command":"set","value":7}"#);
    assert_eq!(client.next_puback(&mut Vec::new()), 1);
    let commands: [&[&str]; 5] =
        [&["check"], &["status"], &["status", "--json"], &["ledger", "list"], &["ledger", "show", "pump", "m-1"]];
    let mut said: Vec<String> =
        commands.iter().map(|args| site.command(args)).map(|output| stdout(&output) + &stderr(&output)).collect();
    let log = daemon.log();
    assert!(daemon.terminate().success());
    assert!(log.contains("not authorized") && log.contains("DEBUG"), "the log was not at work:\n{log}");
    said.push(log);
    let ledger = std::fs::read(site.path("ledger.db")).expect("there is a ledger");
    said.push(String::from_utf8_lossy(&ledger).into_owned());
    // A key in the wrong place, a key that is no key.
    site.write("device.key", &format!("{KEY}{KEY}{KEY}*"));
    said.push(stderr(&site.command(&["check"])));
    let config = std::fs::read_to_string(site.path("fieldbridge.toml")).expect("there is a configuration");
    site.write("fieldbridge.toml", &config.replace("device.key", KEY));
    said.push(stderr(&site.command(&["run"])));
    for text in said {
        for secret in [KEY, &KEY[..20], "sig=", "SharedAccessSignature"] {
            assert!(!text.contains(secret), "{secret} stands in\n{text}");
        }
    }
}

#[test]
fn the_admin_socket_is_for_its_owner_and_group_and_understands_only_its_own() {
    let plant = Plant::start();
    let socket = plant.site.path("admin.sock");
    let mode = std::fs::metadata(&socket).expect("there is a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    for line in ["", "\n", "hello\n", "{\"op\":\"stop\"}\n", "{\"op\":\"status\",\"more\":1}\n", "\u{0}\n"] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
        stream.write_all(line.as_bytes()).expect("it takes a line");
        stream.shutdown(std::net::Shutdown::Write).expect("a socket can be shut");
        let answer: Json = serde_json::from_reader(stream).expect("it answers with JSON");
        assert!(answer["error"].as_str().is_some_and(|why| why.contains("not understood")), "{line:?}: {answer}");
    }
    assert_eq!(plant.site.status()["hub"]["identities"], 1);
}

#[test]
fn systemd_hears_of_readiness_progress_and_the_stop() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let mut daemon = site.spawn(&[], &[("WATCHDOG_USEC", "300000")]);
    let mut said = daemon.told("READY=1");
    said.extend(daemon.told("STATUS="));
    let _client = broker.serve();
    said.extend(daemon.told("STATUS=1 of 1 identities connected"));
    for _ in 0..3 {
        said.extend(daemon.told("WATCHDOG=1"));
    }
    assert!(said.iter().all(|line| !line.contains("STOPPING=1")), "{said:?}");
    signal(daemon.pid(), "TERM");
    daemon.told("STOPPING=1");
    assert!(daemon.wait().success());

    // Without a watchdog nothing is fed.
    let mut daemon = site.start();
    let _client = broker.serve();
    std::thread::sleep(Duration::from_millis(500));
    signal(daemon.pid(), "INT");
    let said = daemon.told("STOPPING=1");
    assert!(said.iter().all(|line| !line.contains("WATCHDOG")), "{said:?}");
    assert!(daemon.wait().success());
}

#[test]
fn a_systemd_that_does_not_listen_holds_up_nothing() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let daemon = site.spawn(&[], &[("WATCHDOG_USEC", "300000")]);
    daemon.wait_until_ready();
    // Nobody takes from systemd's queue any more, and there is no room in it.
    let other = std::os::unix::net::UnixDatagram::unbound().expect("a socket can be made");
    other.set_nonblocking(true).expect("it can be made impatient");
    while other.send_to(b"X", site.path("notify.sock")).is_ok() {}
    let uptime = || site.status()["uptimeSeconds"].as_u64().expect("it is a number");
    // By then it has had a lot to tell.
    let later = uptime() + 3;
    support::eventually("a daemon that goes on", || (uptime() >= later).then_some(()));
    // Once there is somebody to listen, it is told again.
    daemon.told("WATCHDOG=1");
    assert!(daemon.terminate().success());
}
