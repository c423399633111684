//! Every command in README.md and docs/ is executed, or stands in a list that says where it is. A command that is in no
//! class fails the test: run it here, or add it to the list with the place that runs it.
//!
//! - What docs/GETTING-STARTED.md and README.md say of `fieldbridge` is executed in that order, on a site with a
//!   simulated hub and a slave on a serial line. What `systemctl` and `az` would do is done there in their places.
//! - `az` is not run: its options are held against a list from its own source.
//! - A command in the middle of a sentence must at least be one that the program understands.

mod elsewhere;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use self::elsewhere::{AZ, ELSEWHERE};
use crate::support;
use crate::support::eventually;
use crate::support::hub::Hub;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::Slave;
use clap::Parser as _;
use fieldbridge::cli::Cli;
use fieldbridge::command::outcome::{Code, Fault, Outcome, Report, State};
use fieldbridge::command::Envelope;
use fieldbridge::demo::hub::{Auth, C2d, D2c, MethodCall, Options};
use fieldbridge::time::Timestamp;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fieldbridge");

/// README and everything in docs, by its name.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).expect("there is documentation");
    let docs = docs.map(|entry| entry.expect("it is there").path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root.join("README.md"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).expect("it is below").display().to_string();
        (name, std::fs::read_to_string(path).expect("it can be read"))
    };
    paths.iter().map(read).collect()
}

/// The lines of a document that are commands: in a block of `sh`, or indented by four.
fn commands(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    let mut before = "";
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => {
                let is_known = ["sh", "toml", "json", "text"].contains(&language);
                assert!(is_known, "{name}: a block is marked {language:?}: mark commands as sh");
                block = Some(language);
            }
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => found.push(line),
            (None, Some(_)) => {}
            (None, None) => {
                let is_block = before.trim().is_empty() || before.starts_with("    ");
                found.extend(line.strip_prefix("    ").filter(|_| is_block));
            }
        }
        before = line;
    }
    // What a person reads behind a command is none.
    let bare = |line: &&str| line.split(" #").next().unwrap_or_default().trim().to_owned();
    found.iter().map(bare).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Code in the middle of sentences.
fn mentions(text: &str) -> Vec<String> {
    let mut fenced = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence && !line.starts_with("    ")
    });
    let prose = prose.collect::<Vec<_>>().join(" ");
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words of a command, as a shell takes simple quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, piece) in command.split('\'').enumerate() {
        match n % 2 {
            0 => words.extend(piece.split_whitespace().map(str::to_owned)),
            _ => words.push(piece.to_owned()),
        }
    }
    words
}

fn bare(command: &str) -> &str {
    command.strip_prefix("sudo ").unwrap_or(command)
}

fn is_elsewhere(command: &str) -> bool {
    let found = ELSEWHERE.iter().find(|(begins, _)| command.starts_with(begins));
    found.inspect(|(_, place)| println!("{command}: {place}")).is_some()
}

fn check_az(command: &str) {
    let (_, options) =
        AZ.iter().find(|(begins, _)| command.starts_with(begins)).unwrap_or_else(|| panic!("{command} is in no list"));
    for option in words(command).iter().filter(|word| word.starts_with('-')) {
        assert!(options.contains(&option.as_str()), "{command}: {option} is no option of it");
    }
}

/// Where the commands of a document are executed: its paths are led to a folder, its hub and its port to simulations.
struct Story {
    folder: tempfile::TempDir,
    hub: Hub,
    slave: Slave,
    port: Port,
    daemon: Option<Child>,
    /// Messages that a reader has sent.
    sent: BTreeSet<String>,
    executed: usize,
}

const HOST: &str = "contoso.azure-devices.net";
const DEVICE: &str = "pump-7";
/// The port of the documents.
const PORT: &str = "/dev/serial/by-id/usb-FTDI_FT232R-if00-port0";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

impl Story {
    fn new() -> Story {
        let slave = Slave::new();
        let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
        let hub = Hub::start(Options { host: HOST.into(), ..Options::default() });
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("hub-ca.pem"), hub.ca_pem()).expect("it can be written");
        std::fs::write(folder.path().join("service.connection"), hub.service_connection_string())
            .expect("it can be written");
        // As the package installs it.
        let installed = include_str!("../../config/fieldbridge.toml");
        std::fs::write(folder.path().join("fieldbridge.toml"), installed).expect("it can be written");
        Story { folder, hub, slave, port, daemon: None, sent: BTreeSet::new(), executed: 0 }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The program, with the simulations in the places of the real ones.
    fn program(&self, words: &[String]) -> Command {
        let mut command = Command::new(PROGRAM);
        let port = self.port.path().display().to_string();
        command.args(words.iter().map(|word| match word.strip_prefix("/media/usb/") {
            Some(name) => self.path(name),
            None if word == PORT => port.clone(),
            None if word == "service.connection" => self.path(word),
            None => word.clone(),
        }));
        command.args(["--config", &self.path("fieldbridge.toml")]);
        command.env("FIELDBRIDGE__HUB__ADDRESS", self.hub.addr().to_string());
        command.env("FIELDBRIDGE__HUB__CA_FILE", self.path("hub-ca.pem"));
        command.env("FIELDBRIDGE__ADMIN__SOCKET", self.path("admin.sock"));
        command.env("FIELDBRIDGE__LEDGER__PATH", self.path("ledger.db"));
        command.env("FIELDBRIDGE__TELEMETRY__PATH", self.path("telemetry.db"));
        command.env("FIELDBRIDGE__TELEMETRY__BATCH_DELAY", "0s");
        command.env_remove("NOTIFY_SOCKET");
        command
    }

    fn run(&mut self, words: &[String]) -> Output {
        let child = self.program(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the built program can be run");
        // The one thing that is asked for. Whoever does not ask does not read it.
        let _ = child.stdin.take().expect("it is piped").write_all(KEY.as_bytes());
        self.executed += 1;
        child.wait_with_output().expect("it ends")
    }

    fn start(&mut self) {
        self.stop();
        let quiet = || Stdio::null();
        let mut command = self.program(&["run".into()]);
        let child = command.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().expect("it can be started");
        self.daemon = Some(child);
        self.executed += 1;
        eventually("a subscription", || {
            self.hub.is_connected(DEVICE).then(|| self.hub.is_subscribed(DEVICE).then_some(())).flatten()
        });
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            support::signal(daemon.id(), "TERM");
            daemon.wait().expect("it ends");
        }
    }

    /// Writes a file that a document shows, by its path below `/etc/fieldbridge`, or adds to it what it shows.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder can be made");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("it can be opened");
        file.write_all(text.as_bytes()).expect("it can be written");
    }

    fn send(&mut self, id: &str, body: &str) {
        self.deliver(id, C2d::new(id, body));
    }

    fn deliver(&mut self, id: &str, message: C2d) {
        self.hub.send(DEVICE, message).expect("the hub takes it");
        self.sent.insert(id.to_owned());
        let has_come = || self.hub.telemetry().iter().any(|event| String::from_utf8_lossy(&event.body).contains(id));
        eventually("the result", || has_come().then_some(()));
    }

    /// Does what a reader does with one command.
    fn follow(&mut self, command: &str) {
        let words = words(bare(command));
        let after = |option: &str| {
            let at = words.iter().position(|word| word == option).unwrap_or_else(|| panic!("no {option}"));
            words[at + 1].clone()
        };
        match words[0].as_str() {
            "fieldbridge" if words[1] == "run" => self.start(),
            "fieldbridge" => {
                let mut args = words[1..].to_vec();
                if args[0] == "add" {
                    self.hub.add_device(&args[2], Auth::Key((0..32).collect()));
                }
                if args[0] == "call" {
                    let (address, ca_file) = (self.hub.https_addr().to_string(), self.path("hub-ca.pem"));
                    args.extend(["--address".into(), address, "--ca-file".into(), ca_file]);
                    eventually("the device listens for calls", || self.hub.hears_methods(DEVICE).then_some(()));
                }
                if ["init", "add"].contains(&&*args[0]) {
                    // The key is asked for on a terminal, which tests/operator/init.rs has; here it comes by a pipe.
                    args.extend(["--key-file".to_owned(), "-".to_owned()]);
                }
                let output = self.run(&args);
                let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
                // What a restored ledger can't know is in doubt, and needs a person.
                let is_doubt = args[0] == "status" && output.status.code() == Some(1) && text.contains("in doubt, of");
                assert!(output.status.success() || is_doubt, "{command}: {text}");
                assert!(!text.contains(KEY), "{command}: the key was shown");
                if args[0] == "init" {
                    let config = std::fs::read_to_string(self.path("fieldbridge.toml")).expect("it was written");
                    assert!(!config.contains(KEY) && Path::new(&self.path("keys/pump-7.key")).exists());
                }
                if args.ends_with(&["--live".to_owned()]) {
                    assert!(text.contains("unit 7 answers") && text.contains("the hub accepts it"), "{text}");
                }
            }
            "systemctl" if ["stop", "disable"].contains(&words[1].as_str()) => self.stop(),
            "systemctl" if words[1] == "reload" => {
                let output = self.run(&["reload".into()]);
                assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            }
            "systemctl" => self.start(),
            "az" if command.contains("device-identity create") => {
                self.hub.add_device(DEVICE, Auth::Key((0..32).collect()));
            }
            "az" if command.contains("invoke-device-method") => {
                let payload: serde_json::Value =
                    serde_json::from_str(&after("--method-payload")).expect("a payload is JSON");
                let answer = self.hub.calls(DEVICE, MethodCall::new(&after("--method-name"), payload));
                assert_eq!(answer.expect("the device answers").status, 200, "{command}");
            }
            "az" if command.contains("c2d-message send") => {
                let (id, properties) = (after("--message-id"), after("--properties"));
                let (name, value) = properties.split_once('=').expect("a property has a value");
                self.deliver(&id, C2d::new(id.as_str(), after("--data")).property(name, value));
            }
            _ => {}
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn document(name: &str) -> String {
    let found = documents().into_iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("there is no {name}")).1
}

#[test]
fn the_first_half_hour_leads_to_a_command_that_came_from_the_cloud() {
    let mut story = Story::new();
    let text = document("docs/GETTING-STARTED.md");
    for (n, part) in text.split("```toml\n# /etc/fieldbridge/").enumerate() {
        // Every part but the first begins with a file, which its first line names.
        let mut rest = part;
        if n > 0 {
            let (shown, after) = part.split_once("```\n").expect("a block has an end");
            let (name, file) = shown.split_once('\n').expect("a file has lines");
            story.write(name, file);
            rest = after;
        }
        for command in commands("docs/GETTING-STARTED.md", rest) {
            println!("$ {command}");
            if command.starts_with("sudo fieldbridge exec pump-7 read-current") {
                assert_eq!(story.slave.writes(), [], "nothing was written before anybody wrote a write");
            }
            story.follow(&command);
        }
    }
    assert!(story.executed >= 21, "{} commands were executed", story.executed);
    assert!(story.sent.contains("m-1") && story.sent.contains("m-2"));
    let events = story.hub.telemetry();
    let result = String::from_utf8_lossy(&events[0].body).into_owned();
    assert!(result.contains(r#""messageId":"m-1""#) && result.contains(r#""status":"succeeded""#), "{result}");
    assert_eq!(story.slave.writes(), [(0, 425), (0, 550), (0, 600), (0, 650)]);
    eventually("the hub has what is read regularly", || {
        let events = story.hub.telemetry();
        let has_current =
            |event: &D2c| String::from_utf8_lossy(&event.body).contains(r#""quality":{"current":"good"}"#);
        events.iter().any(has_current).then_some(())
    });
    assert!(story.hub.is_subscribed(DEVICE));
}

#[test]
fn what_the_readme_says_of_the_program_works() {
    let mut story = site_of_the_readme();
    for command in commands("README.md", &document("README.md")) {
        if !command.starts_with("fieldbridge ") {
            continue;
        }
        if command.starts_with("fieldbridge ledger") && story.sent.is_empty() {
            // README says to send it; its list comes before.
            story.send("m-1", r#"{"command": "set-speed", "value": 42.5}"#);
        }
        println!("$ {command}");
        story.follow(&command);
    }
    assert!(story.executed >= 6, "{} commands were executed", story.executed);
    assert_eq!(story.slave.writes(), [(0, 425), (0, 425)]);
}

/// The site of README, with its keys and its identity.
fn site_of_the_readme() -> Story {
    let story = Story::new();
    let text = document("README.md");
    let block = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let port = story.port.path().display().to_string();
    // The pump of the tests' slave has holding registers only.
    std::fs::write(story.path("fieldbridge.toml"), block.replace(PORT, &port)).expect("it can be written");
    std::fs::create_dir(story.path("keys")).expect("a folder can be made");
    std::fs::write(story.path("keys/pump-7.key"), KEY).expect("it can be written");
    story.hub.add_device(DEVICE, Auth::Key((0..32).collect()));
    story
}

#[test]
fn a_replaced_gateway_knows_what_its_page_says() {
    let mut story = site_of_the_readme();
    let page = "docs/REPLACING-A-GATEWAY.md";
    let text = document(page);
    let (planned, dead) = text.split_once("\n## The gateway or its card is dead").expect("the page has this heading");
    story.start();
    story.send("m-1", r#"{"command": "set-speed", "value": 42.5}"#);
    let mut backups = 0;
    for command in commands(page, planned) {
        println!("$ {command}");
        story.follow(&command);
        backups += usize::from(command.contains("ledger backup"));
    }
    assert_eq!(backups, 2, "one while the daemon runs, and the last one");
    // The row has come along, and nothing is in doubt.
    let row = |story: &mut Story, id: &str| {
        let words = ["ledger", "show", DEVICE, id, "--json"].map(str::to_owned);
        serde_json::from_slice::<serde_json::Value>(&story.run(&words).stdout).expect("a row")
    };
    assert_eq!(row(&mut story, "m-1")["state"], "succeeded");
    story.send("m-2", r#"{"command": "reset"}"#);
    assert_eq!(row(&mut story, "m-2")["state"], "succeeded");
    let resets = story.slave.other_writes().len();
    // The older copy does not know of m-2, and the hub still has a message that may have been done.
    for command in commands(page, dead) {
        println!("$ {command}");
        story.follow(&command);
        if command.contains("enable --now") {
            story.send("m-3", r#"{"command": "reset"}"#);
        }
    }
    assert_eq!(row(&mut story, "m-3")["error"]["code"], "unknown-history");
    assert_eq!(story.slave.other_writes().len(), resets, "it was not done");
    assert_eq!(row(&mut story, "m-1")["state"], "succeeded");
}

#[test]
fn what_the_boot_test_is_said_to_run_it_runs() {
    let walk = include_str!("../../packaging/boot-walk.sh");
    let named: Vec<_> = ELSEWHERE.iter().filter(|(_, place)| place.starts_with("the boot test")).collect();
    assert!(named.len() >= 6, "{} commands are said to be run there", named.len());
    for (begins, _) in named {
        // As a line of shell on the booted system; `apt` is not asked whether it may.
        let (program, rest) = begins.split_once(' ').expect("a command has arguments");
        let verb = rest.split(' ').next().unwrap_or_default();
        let line = format!("at \"{program} {verb} --yes{}", &rest[verb.len()..]);
        let runs = walk.contains(&line) || walk.lines().any(|line| line.contains("at \"") && line.contains(begins));
        assert!(runs, "packaging/boot-walk.sh does not run {begins}");
    }
}

#[test]
fn every_command_of_every_document_is_run_somewhere() {
    let mut seen = 0;
    for (name, text) in documents() {
        for command in commands(&name, &text) {
            seen += 1;
            let command = bare(&command);
            match words(command)[0].as_str() {
                "fieldbridge" => {
                    let told = ["README.md", "docs/GETTING-STARTED.md", "docs/REPLACING-A-GATEWAY.md"];
                    let told = told.contains(&name.as_str());
                    assert!(told, "{name}: {command} is executed in no story: add its document to those of this file");
                }
                "az" => check_az(command),
                _ => assert!(is_elsewhere(command), "{name}: {command} is run nowhere"),
            }
        }
    }
    assert!(seen > 20, "{seen} commands were found");
}

/// The cells of the rows of a table, by the head of its first column.
fn table_of(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = text.split_once(&format!("| {heading} |")).unwrap_or_else(|| panic!("no table of {heading}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
    rows.map(cells).collect()
}

#[test]
fn every_error_code_is_explained_to_the_person_at_the_cabinet_and_no_other() {
    let rows = table_of(&document("docs/TROUBLESHOOTING.md"), "code");
    let mut told: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    let mut codes = Code::ALL.map(Code::as_str).to_vec();
    told.sort_unstable();
    codes.sort_unstable();
    assert_eq!(told, codes);
}

#[test]
fn every_error_code_and_every_end_is_explained_to_the_back_end_and_no_other() {
    let text = document("docs/MESSAGES.md");
    let table = |heading: &str| table_of(&text, heading);
    let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<String>>();
    let codes = table("code");
    let told: BTreeSet<String> = codes.iter().map(|row| row[1].clone()).collect();
    assert_eq!(told, named(Code::ALL.map(Code::as_str).to_vec()));
    let ends = named(State::ALL.into_iter().filter(|state| state.is_final()).map(State::as_str).collect());
    assert!(codes.iter().all(|row| ends.contains(&row[2]) && !row[4].is_empty()), "{codes:?}");
    assert_eq!(table("`status` | meaning").into_iter().map(|row| row[1].clone()).collect::<BTreeSet<_>>(), ends);
    // An event with everything that can stand in it has the fields that the page has, and no other.
    let envelope = Envelope {
        correlation_id: Some("c".into()),
        sequence_number: Some(1),
        enqueued_at: Some(Timestamp(0)),
        delivery_count: Some(1),
    };
    let report = Report {
        message_id: Some("m"),
        command: Some("set"),
        requested: None,
        envelope: &envelope,
        attempts: 1,
        received_at: Timestamp(0),
        finished_at: Timestamp(1),
    };
    let fault = Fault { modbus_exception: Some(2), ..Fault::new(Code::Exception, "no") };
    let outcome = Outcome { value: Some(1.into()), ..Outcome::ended(State::Failed, fault) };
    let event = report.to_event(&outcome);
    let told = table("field").into_iter().flat_map(|row| row[1].split(", ").map(str::to_owned).collect::<Vec<_>>());
    let told: BTreeSet<String> = told.map(|name| name.trim_matches('`').to_owned()).collect();
    assert_eq!(told, event.as_object().expect("an object").keys().cloned().collect());
}

/// The source as one text, with its broken lines joined.
fn source() -> String {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut all = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be read") {
            let path = entry.expect("it is there").path();
            match path.is_dir() {
                true => folders.push(path),
                false => all += &std::fs::read_to_string(path).expect("it is text"),
            }
        }
    }
    let lines = all.split("\\\n").map(str::trim_start);
    lines.collect()
}

#[test]
fn what_a_reader_is_told_to_look_for_is_what_the_program_says() {
    let (text, source) = (document("docs/GETTING-STARTED.md"), source());
    let (_, table) = text.split_once("| what you see |").expect("a table");
    let mut seen = 0;
    for row in table.lines().skip(2) {
        let first = row.split('|').nth(1).unwrap_or_default();
        for said in first.split('`').skip(1).step_by(2) {
            let said = said.trim_end_matches(|c: char| c.is_ascii_digit() || c == '…').trim_end();
            assert!(source.contains(said), "{said:?} is said nowhere");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} messages were found");
}

#[test]
fn every_command_in_a_sentence_is_one_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (name, text) in documents() {
        for mention in mentions(&text) {
            let words = words(bare(&mention));
            let Some(first) = words.first() else { continue };
            match first.as_str() {
                "fieldbridge" if words.len() > 1 => {
                    if let Err(error) = Cli::try_parse_from(&words) {
                        panic!("{name}: `{mention}`: {error}");
                    }
                }
                script if script.starts_with("scripts/") => {
                    assert!(root.join(script).is_file(), "{name}: there is no {script}");
                    assert!(is_elsewhere(bare(&mention)), "{name}: {mention} is run nowhere");
                }
                "systemctl" | "journalctl" | "timedatectl" | "apt" | "make" | "cargo" | "ls" if words.len() > 1 => {
                    assert!(is_elsewhere(bare(&mention)), "{name}: {mention} is run nowhere");
                }
                "az" if words.len() > 1 => check_az(&mention),
                _ => continue,
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen} commands were found");
}
