//! `init` writes a configuration that `check` finds good, overwrites nothing that a person has written, and puts the
//! device's key nowhere but into a file of its own. On a terminal each answer is judged when it is given, and line and
//! hub are tried before anything is written.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fieldbridge::demo::hub::{Auth, Enrollment, Options};

use crate::support::hub::Hub;
use crate::support::person;
use crate::support::profiles;
use crate::support::slave::Slave;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fieldbridge");
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::write(place.path("pump-7.key"), format!("{KEY}\n")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.path("fieldbridge.toml")).unwrap()
    }

    /// Runs `init` with this on its standard input; then whatever it wrote is checked.
    fn init(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("init").args(args).arg("--config").arg(self.path("fieldbridge.toml")).current_dir(self.0.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(!text(&output).contains(KEY), "the key was shown");
        output
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

fn check(config: &Path) {
    let output = Command::new(PROGRAM).args(["check", "--config"]).arg(config).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    // A group that may read is what a key of a test is exposed to.
    assert!(!text(&output).contains("no device has this profile"), "{}", text(&output));
}

const HUB: [&str; 4] = ["--host", "contoso.azure-devices.net", "--device", "pump-7"];
const KEY_FILE: [&str; 2] = ["--key-file", "pump-7.key"];

#[test]
fn what_it_writes_passes_check_for_every_bus_and_profile() {
    let tcp = &["--modbus-tcp", "10.0.0.12:502", "--unit", "7"][..];
    let rtu = &["--port", "/dev/ttyUSB0", "--baud", "9600", "--parity", "odd", "--unit", "247"];
    let mut written = 0;
    for profile in
        [None, Some("boiler"), Some("chiller"), Some("heat-meter"), Some("pump"), Some("valve"), Some("scale")]
    {
        for bus in [tcp, rtu] {
            if profile == Some("scale") && bus.len() == tcp.len() {
                continue;
            }
            let bus = if profile == Some("scale") { &bus[..bus.len() - 2] } else { bus };
            let place = Place::new();
            let profile: Vec<&str> = profile.iter().flat_map(|profile| ["--profile", profile]).collect();
            let output = place.init(&[&HUB[..], &KEY_FILE, bus, &profile].concat(), "");
            assert!(output.status.success(), "{}", text(&output));
            check(&place.path("fieldbridge.toml"));
            let config = place.config();
            assert!(!config.contains(KEY) && config.contains("key_file = \"pump-7.key\""), "{config}");
            assert!(config.lines().any(|line| line.starts_with('#')), "{config}");
            assert_eq!(place.names(), ["fieldbridge.toml", "pump-7.key"]);
            let next = String::from_utf8(output.stdout).unwrap();
            let option = format!("--config {}", place.path("fieldbridge.toml").display());
            for step in ["fieldbridge check ", "fieldbridge check --live ", "fieldbridge exec pump-7 "] {
                assert!(next.lines().any(|line| line.contains(step) && line.contains(&option)), "{step}: {next}");
            }
            written += 1;
        }
    }
    assert_eq!(written, 13);
}

#[test]
fn a_profile_that_is_shipped_is_taken_with_the_way_in_which_its_replies_end() {
    let run = |args: &[&str], place: &Place| {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--config").arg(place.path("fieldbridge.toml")).current_dir(place.0.path());
        command.env("FIELDBRIDGE_PROFILES", profiles::folder()).stdin(Stdio::null()).output().unwrap()
    };
    for name in profiles::names() {
        let place = Place::new();
        let unit = ["--unit", "1"];
        let unit = if profiles::speaks_text(&name) { &[][..] } else { &unit };
        let port = ["--port", "/dev/ttyUSB0", "--baud", "9600", "--parity", "even", "--profile", &name];
        let output = run(&[&["init"][..], &HUB, &KEY_FILE, &port, unit].concat(), &place);
        assert!(output.status.success(), "{name}: {}", text(&output));
        let output = run(&["check"], &place);
        assert!(output.status.success(), "{name}: {}", text(&output));
        let config = place.config();
        let is_framed = profiles::bus(&name).contains(&"[bus.line.frame]".to_owned());
        assert_eq!(config.contains("[bus.line-a.frame]"), is_framed, "{config}");
        assert_eq!(config.contains("delimiter = "), profiles::speaks_text(&name) && !is_framed, "{config}");
    }
}

#[test]
fn without_a_profile_it_can_only_read() {
    let place = Place::new();
    let output = place.init(&[&HUB[..], &KEY_FILE, &["--port", "/dev/ttyUSB0", "--unit", "1"]].concat(), "");
    assert!(output.status.success(), "{}", text(&output));
    let config = place.config();
    assert!(!config.lines().any(|line| line.starts_with("write") || line.starts_with("send")), "{config}");
    assert!(config.contains("baud = 19200\nparity = \"even\""), "{config}");
    // The group of the service must be able to read it, whoever wrote it.
    let mode = std::fs::metadata(place.path("fieldbridge.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn nothing_that_was_written_by_hand_is_overwritten() {
    let args = [&HUB[..], &KEY_FILE, &["--modbus-tcp", "h:502", "--unit", "1"]].concat();
    let place = Place::new();
    for content in ["", "[hub]\nhost = \"mine.example\"\n"] {
        std::fs::write(place.path("fieldbridge.toml"), content).unwrap();
        let output = place.init(&args, "");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains("is not overwritten"), "{}", text(&output));
        assert_eq!(place.config(), content);
    }
    // What the package has installed says nothing yet.
    let installed = include_str!("../../config/fieldbridge.toml");
    std::fs::write(place.path("fieldbridge.toml"), installed).unwrap();
    let output = place.init(&args, "");
    assert!(output.status.success(), "{}", text(&output));
    check(&place.path("fieldbridge.toml"));
    // A name that leads nowhere is a name all the same.
    let link = place.path("link.toml");
    std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
    let output = place.init(&[&args[..], &["--output", "link.toml"]].concat(), "");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let output = place.init(&[&args[..], &["--output", "other.toml"]].concat(), "");
    assert!(output.status.success(), "{}", text(&output));
    check(&place.path("other.toml"));
    // A key that is there already is somebody's.
    std::fs::create_dir(place.path("keys")).unwrap();
    std::fs::write(place.path("keys/pump-7.key"), "another").unwrap();
    let piped = [&HUB[..], &["--modbus-tcp", "h:502", "--key-file", "-", "--output", "third.toml"]].concat();
    let output = place.init(&piped, KEY);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(place.path("keys/pump-7.key")).unwrap(), "another");
    assert!(!place.path("third.toml").exists());
}

#[test]
fn a_key_from_standard_input_gets_a_file_that_others_cant_read() {
    let place = Place::new();
    let args = [&HUB[..], &["--modbus-tcp", "h:502", "--unit", "1", "--key-file", "-"]].concat();
    let output = place.init(&args, &format!("{KEY}\n"));
    assert!(output.status.success(), "{}", text(&output));
    check(&place.path("fieldbridge.toml"));
    let file = place.path("keys/pump-7.key");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), KEY);
    assert!(!place.config().contains(KEY));
    for path in [file, place.path("keys")] {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0, "{}", path.display());
    }
}

#[test]
fn what_is_wrong_is_said_and_leaves_nothing_behind() {
    let tcp = &["--modbus-tcp", "h:502"][..];
    for (args, input, status, said) in [
        (vec!["--host", "https://contoso", "--device", "d", "--key-file", "-"], KEY, 78, "hub.host"),
        (
            vec!["--host", "h.example", "--device", "../d", "--key-file", "-"],
            KEY,
            1,
            "no file can be named after the device id",
        ),
        (vec!["--host", "h.example", "--device", "d e", "--key-file", "pump-7.key"], "", 78, "device id holds"),
        (vec!["--host", "h.example", "--device", "d", "--key-file", "-"], "no base64!", 78, "put only the key into it"),
        (vec!["--host", "h.example", "--device", "d", "--key-file", "-"], "", 2, "holds no key"),
        (vec!["--host", "h.example", "--device", "d", "--key-file", "none"], "", 78, "no such file"),
        (vec!["--host", "h.example", "--device", "d"], "", 2, "--key-file is missing"),
        (vec!["--host", "h.example"], "", 2, "--device is missing"),
        (vec![], "", 2, "--host is missing"),
        (vec!["--profile", "pumpe"], "", 2, "there are: boiler, chiller, heat-meter, pump, scale, valve"),
        (vec!["--profile", "scale", "--host", "h.example", "--device", "d"], "", 2, "give --port"),
    ] {
        let place = Place::new();
        let output = place.init(&[&args[..], tcp].concat(), input);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(said), "{args:?}: {}", text(&output));
        assert!(input.is_empty() || !text(&output).contains(input), "{}", text(&output));
        let left: Vec<String> = place.names().into_iter().filter(|name| name != "keys").collect();
        assert_eq!(left, ["pump-7.key"]);
        let keys = std::fs::read_dir(place.path("keys")).into_iter().flatten().count();
        assert_eq!(keys, 0, "a key was left behind");
    }
    let place = Place::new();
    let output = place.init(&HUB, "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--port or --modbus-tcp is missing"), "{}", text(&output));
    // A key has no place among the arguments.
    let output = place.init(&["--key", KEY], "");
    assert_eq!(output.status.code(), Some(2));
}

impl Place {
    /// A person answers so. What the terminal has shown, and how it ended.
    fn dialogue(&self, answers: &str, args: &[&str], environment: &[(&str, &str)]) -> (String, Option<i32>) {
        let mut command = Command::new("python3");
        command.args(person::answering(answers, 0)).args([PROGRAM, "init"]).args(args);
        command.arg("--config").arg(self.path("fieldbridge.toml")).envs(environment.iter().copied());
        let output = command.stdin(Stdio::null()).output().expect("this test needs python3");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!shown.contains(&KEY[..8]), "the key was shown: {shown}");
        (shown, output.status.code())
    }
}

#[test]
fn on_a_terminal_it_asks_and_does_not_show_the_key() {
    let place = Place::new();
    let answers = format!("1|contoso.azure-devices.net|pump-7|1|/dev/ttyUSB7|y|9600|8n1|42|{KEY}|n|n");
    let (shown, status) = place.dialogue(&answers, &["--transport", "mqtt"], &[]);
    assert_eq!(status, Some(0), "{shown}");
    for question in [
        "Which hub does the device belong to?",
        "Host name",
        "Device id",
        "1 Modbus RTU",
        "Port, by number or path",
        "/dev/ttyUSB7 is not there now",
        "Bits a second [19200]",
        "8E1  even parity",
        "8N1  no parity",
        "unit id that the peripheral is set to [1]",
        "not shown",
        "A try would open /dev/ttyUSB7 and read something of unit 42.",
        "A try would connect to contoso.azure-devices.net as pump-7 for a moment.",
    ] {
        assert!(shown.contains(question), "{question}: {shown}");
    }
    check(&place.path("fieldbridge.toml"));
    let config = place.config();
    for line in [
        "port = \"/dev/ttyUSB7\"",
        "baud = 9600",
        "parity = \"none\"\nstop_bits = 1\n",
        "unit = 42",
        "key_file = \"keys/pump-7.key\"",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
    assert_eq!(std::fs::read_to_string(place.path("keys/pump-7.key")).unwrap().trim(), KEY);
}

#[test]
fn each_answer_is_judged_at_once_and_asked_for_again() {
    let place = Place::new();
    let answers = format!(
        "3|||https://contoso|h.example|d e|../d|pump-7|4|3|pump|scale|/dev/null|0|9600|8X1||no base64!|{KEY}|n|n"
    );
    let (shown, status) = place.dialogue(&answers, &["--transport", "mqtt"], &[]);
    assert_eq!(status, Some(0), "{shown}");
    for said in [
        "\"3\" is neither 1 nor 2",
        "this one has no answer of its own",
        "https",
        "device id",
        "no file can be named after the device id \"../d\"",
        "\"4\" is not one of 1, 2 and 3",
        "pump speaks Modbus",
        "\"8X1\" is not one of 8E1, 8N1, 8N2, 8O1",
        "base64",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    assert!(!shown.contains("/proc/"), "{shown}");
    check(&place.path("fieldbridge.toml"));
    assert!(
        place.config().contains("kind = \"serial\"") && place.config().contains("baud = 9600"),
        "{}",
        place.config()
    );
}

#[test]
fn line_and_hub_are_tried_before_anything_is_written_and_again_with_other_answers() {
    let (hub, slave) = (Hub::plain(&["pump-7"]), Slave::new());
    slave.set_register(0, 1234);
    let place = Place::new();
    let (address, socket, ledger) = (hub.addr().to_string(), place.path("admin.sock"), place.path("ledger.db"));
    let environment = [
        ("FIELDBRIDGE__HUB__ADDRESS", &*address),
        ("FIELDBRIDGE__HUB__TLS", "false"),
        ("FIELDBRIDGE__ADMIN__SOCKET", socket.to_str().unwrap()),
        ("FIELDBRIDGE__LEDGER__PATH", ledger.to_str().unwrap()),
    ];
    let (host, slave_at) = (hub.host(), slave.address());
    let begin = format!("|{host}|pump-8|2|127.0.0.1:1|7|{KEY}|y");
    // Whoever ends it in the middle of it has written nothing.
    for end in ["^C", "o|^C", "g|^C"] {
        let (shown, status) = place.dialogue(&format!("{begin}|{end}"), &["--transport", "mqtt"], &environment);
        assert_ne!(status, Some(0), "{shown}");
        assert!(shown.contains("FAIL  bus line-a: "), "{shown}");
        assert_eq!(place.names(), ["pump-7.key"], "{shown}");
    }
    let answers = format!("{begin}|m|o|{slave_at}|1|y|m|o|||pump-7|{KEY}");
    let (shown, status) = place.dialogue(&answers, &["--transport", "mqtt"], &environment);
    assert_eq!(status, Some(0), "{shown}");
    assert_eq!(shown.matches("FAIL  bus line-a: ").count(), 2, "{shown}");
    assert_eq!(shown.matches("FAIL  identity pump-8: ").count(), 2, "{shown}");
    for said in ["unit 1 answers: holding register 0 of read-first is 1234", "ok    identity pump-7: "] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    assert!(shown.find("ok    identity pump-7: ") < shown.find("wrote "), "{shown}");
    let config = place.config();
    assert!(config.contains(slave_at) && config.contains("[device.\"pump-7\"]"), "{config}");
    check(&place.path("fieldbridge.toml"));
    assert!(slave.writes().is_empty());
}

#[test]
fn a_device_that_a_service_assigns_is_asked_for_its_scope_and_its_registration_and_tried_there() {
    let (hub, service, slave) = (Hub::found_by_its_name(), Hub::start(Options::default()), Slave::new());
    let key = || Auth::Key((0..32).collect());
    hub.add_device("pump-7", key());
    let enrollment = Enrollment { hub: Some(hub.host()), device: Some("pump-7".into()), ..Enrollment::new(key()) };
    service.enroll("sn-007", enrollment);
    let place = Place::new();
    std::fs::write(place.path("hub.pem"), hub.ca_pem()).unwrap();
    std::fs::write(place.path("service.pem"), service.ca_pem()).unwrap();
    let paths =
        ["admin.sock", "ledger.db", "hub.pem", "service.pem"].map(|name| place.path(name).display().to_string());
    let (host, address) = (service.host(), service.https_addr().to_string());
    let environment = [
        ("FIELDBRIDGE__ADMIN__SOCKET", &*paths[0]),
        ("FIELDBRIDGE__LEDGER__PATH", &paths[1]),
        ("FIELDBRIDGE__HUB__CA_FILE", &paths[2]),
        ("FIELDBRIDGE__PROVISIONING__CA_FILE", &paths[3]),
        ("FIELDBRIDGE__PROVISIONING__HOST", &host),
        ("FIELDBRIDGE__PROVISIONING__ADDRESS", &address),
    ];
    let slave_at = slave.address();
    let answers =
        format!("2|no scope|0ne00000000|pump-7|sn 7|sn-008|2|{slave_at}|1|{KEY}|n|y|o|2||pump-7|sn-007|{KEY}");
    let (shown, status) = place.dialogue(&answers, &["--transport", "mqtt"], &environment);
    assert_eq!(status, Some(0), "{shown}");
    for said in [
        "ID Scope of the provisioning service",
        "is no ID Scope",
        "Registration id of its enrollment [pump-7]",
        "no registration id holds",
        "register pump-7 with the provisioning service",
        "FAIL  provisioning pump-7: ",
        "ok    provisioning pump-7: ",
        "ok    identity pump-7: ",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let config = place.config();
    for line in
        ["[provisioning]\nid_scope = \"0ne00000000\"\n", "registration_id = \"sn-007\"", "[hub]\ntransport = \"mqtt\""]
    {
        assert!(config.contains(line), "{line}: {config}");
    }
    assert!(!config.contains("host = "), "{config}");
    check(&place.path("fieldbridge.toml"));
    assert_eq!(hub.telemetry().len(), 0);
}

#[test]
fn options_say_the_scope_in_the_place_of_a_hub() {
    let line = &["--device", "pump-7", "--modbus-tcp", "h:502", "--unit", "7", "--key-file", "pump-7.key"][..];
    let place = Place::new();
    let scope = ["--id-scope", "0ne00123ABC"];
    let output = place.init(&[&scope[..], line].concat(), "");
    assert!(output.status.success(), "{}", text(&output));
    let config = place.config();
    assert!(config.contains("[provisioning]\nid_scope = \"0ne00123ABC\"") && !config.contains("[hub]"), "{config}");
    assert!(!config.contains("registration_id"), "{config}");
    check(&place.path("fieldbridge.toml"));
    let place = Place::new();
    let named = ["--registration-id", "sn-007", "--proxy", "http://proxy:3128"];
    let output = place.init(&[&scope[..], &named, line].concat(), "");
    assert!(output.status.success(), "{}", text(&output));
    let config = place.config();
    assert!(config.contains("registration_id = \"sn-007\"") && config.contains("[hub]\nproxy = "), "{config}");
    check(&place.path("fieldbridge.toml"));
    for (wrong, status) in [
        (&["--id-scope", "0ne00123ABC", "--host", "h.example"][..], 2),
        (&["--registration-id", "sn-007", "--host", "h.example"], 2),
        (&["--id-scope", "a scope"], 78),
    ] {
        let place = Place::new();
        let output = place.init(&[wrong, line].concat(), "");
        assert_eq!(output.status.code(), Some(status), "{wrong:?}: {}", text(&output));
        assert_eq!(place.names(), ["pump-7.key"]);
    }
}

#[test]
fn where_only_the_port_of_the_web_is_open_it_proposes_what_goes_through_it() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: this test needs root, to listen at port 443");
        return;
    }
    let host = format!("127.{}.{}.{}", fastrand::u8(1..=254), fastrand::u8(1..=254), fastrand::u8(1..=254));
    let _web = std::net::TcpListener::bind((host.as_str(), 443)).unwrap();
    for (answer, written) in [("", "mqtt-ws"), ("amqp-ws", "amqp-ws")] {
        let place = Place::new();
        let answers = format!("|{host}|{answer}|pump-7|1|/dev/null|9600||42|{KEY}|n|n");
        let (shown, status) = place.dialogue(&answers, &[], &[]);
        assert!(status == Some(0) && shown.contains("443 can. Transport [mqtt-ws]: "), "{shown}");
        assert!(place.config().contains(&format!("transport = \"{written}\"\n")), "{}", place.config());
        check(&place.path("fieldbridge.toml"));
    }
}

/// A proxy that refuses its first visitor, and lets the next ones through to nowhere.
fn proxy() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for (visit, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                asked.extend(byte);
            }
            let status = if visit == 0 { "403 Forbidden" } else { "200 OK" };
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn where_neither_port_is_open_it_asks_for_a_proxy_and_takes_one_that_leads_to_the_hub() {
    // Nobody listens there.
    let host = format!("127.{}.{}.{}", fastrand::u8(1..=254), fastrand::u8(1..=254), fastrand::u8(1..=254));
    let proxy = proxy();
    for (answer, is_taken) in [(format!("https://p:1|{proxy}|{proxy}"), true), (String::new(), false)] {
        let place = Place::new();
        let answers = format!("|{host}|{answer}|pump-7|1|/dev/null|9600||42|{KEY}|n|n");
        let (shown, status) = place.dialogue(&answers, &[], &[]);
        assert!(status == Some(0) && shown.contains("Neither port 8883 nor 443 of the hub"), "{shown}");
        let config = place.config();
        let has = config.contains(&format!("proxy = \"{proxy}\"")) && config.contains("transport = \"mqtt-ws\"");
        assert_eq!(has, is_taken, "{config}");
        if is_taken {
            assert!(shown.contains("by TLS, which is not supported") && shown.contains("403"), "{shown}");
        }
        check(&place.path("fieldbridge.toml"));
    }
}

#[test]
fn where_the_service_is_installed_its_group_may_read_the_key() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: this test needs root, to give this machine another list of groups for a moment");
        return;
    }
    let place = Place::new();
    std::fs::write(place.path("group"), "root:x:0:\nfieldbridge:x:64322:\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind group /etc/group && exec \"$@\"", "sh", PROGRAM, "init"]);
    command.args(HUB).args(["--modbus-tcp", "h:502", "--key-file", "-", "--output", "fieldbridge.toml"]);
    command.current_dir(place.0.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(KEY.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for (name, mode) in [("keys", 0o750), ("keys/pump-7.key", 0o640)] {
        let found = std::fs::metadata(place.path(name)).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o777), (64322, mode), "{name}");
    }
}
