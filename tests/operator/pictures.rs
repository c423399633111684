//! The pictures of terminals in docs/pictures are of real runs, and say what the program says today, but for numbers.
//! `FIELDBRIDGE_WRITE=1 cargo test --features proof --test operator pictures::` makes them anew.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::hub::Hub;
use crate::support::person;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::Slave;
use crate::support::{eventually, signal};
use fieldbridge::demo::hub::{Auth, Options};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fieldbridge");
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const HOST: &str = "contoso.azure-devices.net";
/// The adapter's name, as documents have it.
const ADAPTER: &str = "/dev/serial/by-id/usb-FTDI_FT232R-if00-port0";
/// Columns of the terminal.
const WIDTH: usize = 100;

/// A gateway's folder, with a simulated hub and a slave on a serial line.
struct Scene {
    folder: tempfile::TempDir,
    hub: Hub,
    slave: Slave,
    port: Port,
}

impl Scene {
    fn new() -> Scene {
        let slave = Slave::new();
        slave.set_register(0, 1450);
        let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
        let hub = Hub::start(Options { host: HOST.into(), ..Options::default() });
        hub.add_device("pump-7", Auth::Key((0..32).collect()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("hub-ca.pem"), hub.ca_pem()).expect("it can be written");
        Scene { folder, hub, slave, port }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The same with a second device, whose peripheral does not answer.
    fn with_a_silent_one() -> Scene {
        let scene = Scene::new();
        scene.hub.add_device("pump-8", Auth::Key((0..32).collect()));
        scene.configure("[device.pump-8]\nbus = \"line-a\"\nunit = 8\nprofile = \"pump\"\nkey_file = \"pump-7.key\"\n");
        scene.slave.silence(8);
        scene
    }

    fn around(&self, command: &mut Command) {
        command.env("FIELDBRIDGE__HUB__ADDRESS", self.hub.addr().to_string());
        command.env("FIELDBRIDGE__HUB__CA_FILE", self.path("hub-ca.pem"));
        command.env("FIELDBRIDGE__ADMIN__SOCKET", self.path("admin.sock"));
        command.env("FIELDBRIDGE__LEDGER__PATH", self.path("ledger.db"));
        command.env_remove("NOTIFY_SOCKET").env_remove("NO_COLOR").env("TERM", "xterm-256color");
    }

    /// What a terminal shows of a command, with the names of the documents in place of those of this machine.
    fn shown(&self, words: &[&str], answers: &str) -> String {
        // The list of adapters is of this machine: in a namespace of its own it has one.
        let port = self.port.path().display().to_string();
        let adapter = format!(
            "mkdir -p /dev/serial && mount -t tmpfs none /dev/serial && mkdir /dev/serial/by-id && ln -s {port} {ADAPTER} \
             && exec \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &adapter, "sh", "python3"]).args(person::answering(answers, WIDTH));
        // What is wrong is shown, and how that ends is of no interest here.
        command.args(["/bin/sh", "-c", "\"$@\"; true", "sh", PROGRAM]).args(words);
        command.args(["--config", &self.path("fieldbridge.toml")]).stdin(Stdio::null());
        self.around(&mut command);
        let output = command.output().expect("this test needs python3 and unshare");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !shown.contains(&KEY[..8]), "{shown}");
        let of_here = [
            (self.folder.path().display().to_string(), "/etc/fieldbridge".to_owned()),
            (self.hub.addr().to_string(), format!("{HOST}:8883")),
            (self.hub.addr().ip().to_string(), HOST.to_owned()),
            (port, ADAPTER.to_owned()),
        ];
        of_here.iter().fold(shown, |text, (here, there)| text.replace(here, there))
    }

    fn configure(&self, more: &str) {
        let bus = format!(
            "[hub]\nhost = \"{HOST}\"\n[bus.line-a]\nkind = \"modbus-rtu\"\nport = \"{}\"\nbaud = 19200\nresponse_timeout = \
             \"100ms\"\nretries = 0\n[device.pump-7]\nbus = \"line-a\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"pump-7.key\"\n\
             [profile.pump.command.read-speed]\nread = {{ table = \"holding\", address = 0 }}\n{more}",
            self.port.path().display()
        );
        std::fs::write(self.path("fieldbridge.toml"), bus).expect("it can be written");
        std::fs::write(self.path("pump-7.key"), KEY).expect("it can be written");
        std::fs::set_permissions(self.path("pump-7.key"), Permissions::from_mode(0o600)).expect("it is ours");
    }
}

/// A run of characters in one colour.
type Run = (&'static str, String);

/// What stands on the screen at the end, line by line: colours (ECMA-48, 8.3.117), and lines that are written anew.
fn lines(shown: &str) -> Vec<Vec<Run>> {
    let mut lines: Vec<Vec<Run>> = vec![Vec::new()];
    let (mut colour, mut rest) = ("", shown);
    while let Some(c) = rest.chars().next() {
        let line = lines.last_mut().expect("there is one");
        if let Some(sequence) = rest.strip_prefix("\u{1b}[") {
            let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends");
            match &sequence[..=end] {
                "0m" => colour = "",
                "32m" => colour = "good",
                "33m" => colour = "doubtful",
                "1;31m" => colour = "bad",
                "1m" => colour = "strong",
                "K" => line.clear(),
                other => panic!("{other:?} is shown in no picture"),
            }
            rest = &sequence[end + 1..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        let columns: usize = line.iter().map(|(_, text)| text.chars().count()).sum();
        match c {
            '\n' => lines.push(Vec::new()),
            '\r' if rest.starts_with('\n') => {}
            '\r' => line.clear(),
            c => {
                let line = match columns {
                    WIDTH => {
                        lines.push(Vec::new());
                        lines.last_mut().expect("there is one")
                    }
                    _ => line,
                };
                match line.last_mut() {
                    Some((last, text)) if *last == colour => text.push(c),
                    _ => line.push((colour, c.to_string())),
                }
            }
        }
    }
    while lines.last().is_some_and(|line| line.iter().all(|(_, text)| text.trim().is_empty())) {
        lines.pop();
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn picture(title: &str, command: &str, lines: &[Vec<Run>]) -> String {
    let (line, margin, width) = (18, 16, WIDTH * 8 + 32);
    let height = (lines.len() + 1) * line + 2 * margin;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"t\">\n<title id=\"t\">{title}</title>\n<style>\n\
         text {{ font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre }}\n\
         .good {{ fill: #56d364 }} .doubtful {{ fill: #e3b341 }} .bad {{ fill: #ff7b72; font-weight: 700 }}\n\
         .strong {{ font-weight: 700 }} .typed {{ fill: #9198a1 }}\n</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#0d1117\"/>\n"
    );
    let typed = vec![("typed", "$ ".to_owned()), ("", command.to_owned())];
    for (n, runs) in std::iter::once(&typed).chain(lines).enumerate() {
        let y = margin + line * (n + 1) - 5;
        let runs = runs.iter().map(|(class, text)| match *class {
            "" => escaped(text),
            class => format!("<tspan class=\"{class}\">{}</tspan>", escaped(text)),
        });
        out += &format!("<text x=\"{margin}\" y=\"{y}\" xml:space=\"preserve\">{}</text>\n", runs.collect::<String>());
    }
    out + "</svg>\n"
}

/// What a picture says, whatever its numbers are, and whatever is found of the machine itself.
fn words(picture: &str) -> String {
    let mut out = String::new();
    let is_of_here =
        |line: &&str| ["clock", "ledger", "disk", "service", "file"].iter().any(|about| line.contains(about));
    let lines = picture.lines().filter(|line| line.starts_with("<text") && !is_of_here(line));
    // Which line it stands on is a number, too.
    for c in lines.collect::<Vec<_>>().join("\n").chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false if c == ' ' && out.ends_with(' ') => {}
            false => out.push(c),
        }
    }
    // A time is told in seconds or in milliseconds.
    out.replace("#ms", "#s").replace("#s #s", "#s")
}

/// Writes a picture if that is asked for, and else holds it against what the program says.
fn hold(name: &str, title: &str, command: &str, shown: &str) {
    let made = picture(title, command, &lines(shown));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(name);
    if std::env::var_os("FIELDBRIDGE_WRITE").is_some() {
        std::fs::write(&path, &made).expect("it can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let anew = "FIELDBRIDGE_WRITE=1 cargo test --features proof --test operator pictures:: makes it anew";
    assert_eq!(words(&there), words(&made), "docs/pictures/{name} is of another time: {anew}");
}

fn may_mount() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        eprintln!("SKIPPED: this test needs root, to show an adapter that this machine does not have");
    }
    may
}

#[test]
fn the_dialogue_of_init_is_as_its_picture_shows_it() {
    if !may_mount() {
        return;
    }
    let scene = Scene::new();
    let answers = format!("1|{HOST}|pump-7|1|1|||7|{KEY}|y|o|1|||1|y|y");
    scene.slave.silence(7);
    let shown = scene.shown(&["init", "--transport", "mqtt"], &answers);
    let (shown, _) = shown.split_once("Next:").unwrap_or_else(|| panic!("it wrote nothing: {shown}"));
    hold("init.svg", "A terminal with the dialogue of fieldbridge init", "sudo fieldbridge init", shown);
}

#[test]
fn a_check_of_what_is_there_is_as_its_picture_shows_it() {
    if !may_mount() {
        return;
    }
    let scene = Scene::with_a_silent_one();
    let shown = scene.shown(&["check", "--live"], "");
    hold(
        "check-live.svg",
        "A terminal with what fieldbridge check --live found",
        "sudo fieldbridge check --live",
        &shown,
    );
}

#[test]
fn a_status_with_something_wrong_is_as_its_picture_shows_it() {
    if !may_mount() {
        return;
    }
    let scene = Scene::with_a_silent_one();
    let mut daemon = Command::new(PROGRAM);
    daemon.args(["run", "--config", &scene.path("fieldbridge.toml")]).stdin(Stdio::null()).stderr(Stdio::null());
    scene.around(&mut daemon);
    let mut daemon = daemon.spawn().expect("the built program can be run");
    let are_there = || ["pump-7", "pump-8"].iter().all(|id| scene.hub.is_connected(id) && scene.hub.is_subscribed(id));
    eventually("both are connected", || are_there().then_some(()));
    let exec = |device: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["exec", device, "read-speed", "--config", &scene.path("fieldbridge.toml")]);
        scene.around(&mut command);
        command.stdin(Stdio::null()).output().expect("the built program can be run");
    };
    exec("pump-7");
    // Three requests without an answer, and it is away.
    (0..3).for_each(|_| exec("pump-8"));
    let shown = scene.shown(&["status"], "");
    signal(daemon.id(), "TERM");
    daemon.wait().expect("it ends");
    assert!(shown.contains("AWAY"), "{shown}");
    hold("status.svg", "A terminal with the status of a gateway on which a unit is away", "fieldbridge status", &shown);
}
