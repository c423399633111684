//! The configurations of a schedule, and what of them is left to the dice.

use std::fmt::Write as _;
use std::time::Duration;

use super::alarms::Alarms;
use super::bends::Bends;
use super::framing::Framing;
use super::manners::{Manner, Manners};
use super::patience::Patience;
use super::request::{PULSE, PULSE_VERIFIED, READ, READS, SET, SET_VERIFIED, SHOWN};
use super::scenario::{Configuration, Device, Over, HUBS};
use super::sequences::{self, Sequence};
use super::world::World;

/// What the bus on the RTU line is: that, the same on a port at which nobody is, and one of another kind in its place.
const RTU: [&str; 3] = [
    "kind = \"modbus-rtu\"\nport = \"/dev/rtu\"\nbaud = 19200\nparity = \"even\"\n",
    "kind = \"modbus-rtu\"\nport = \"/dev/spare-rtu\"\nbaud = 19200\nparity = \"even\"\n",
    "kind = \"serial\"\nport = \"/dev/rtu\"\nbaud = 9600\ndelimiter = \"\\r\\n\"\n",
];
/// The same of the text line.
const TEXT: [&str; 3] = [
    "kind = \"serial\"\nport = \"/dev/text\"\nbaud = 9600\ndelimiter = \"\\r\\n\"\n",
    "kind = \"serial\"\nport = \"/dev/spare-text\"\nbaud = 9600\ndelimiter = \"\\r\\n\"\n",
    "kind = \"modbus-rtu\"\nport = \"/dev/text\"\nbaud = 19200\nparity = \"even\"\n",
];

/// What of a configuration is left to the dice.
#[derive(Clone)]
pub struct Tuning {
    retries: u64,
    keepalive: &'static str,
    token_lifetime: &'static str,
    /// How often a queue is looked at that has to be.
    poll_interval: &'static str,
    pub deadline: Duration,
    /// Whoever asks a peripheral waits so long, ms.
    timeout: u64,
    /// For how long an answer may be owed, if that is said, ms.
    late_window: Option<u64>,
    /// Silence on each serial line after each exchange.
    turnaround: &'static str,
    pause: &'static str,
    /// When the network's bus and that on the RTU line are closed if nobody needs them, and how long they are left
    /// alone after each opening.
    rests: &'static str,
    /// The names of the buses on the RTU line and on the text line.
    rtu: &'static str,
    text: &'static str,
    /// What these are, and on which ports.
    rtu_kind: &'static str,
    text_kind: &'static str,
    /// The hub's host.
    host: &'static str,
    /// Whether what must not be done twice may be asked for at all.
    pulses: bool,
    /// What the instrument says by itself answers commands, too, as they are written.
    lax: bool,
    /// The instrument answers in several lines.
    several: bool,
    /// Where, when and how nearly a value shows that was written, if not in its own place.
    pub shows: Option<Shows>,
    /// MQTT and AMQP go through WebSockets.
    websockets: bool,
    /// Whether those devices that are completed when a command is accepted are so now.
    after_accept: bool,
    /// How the instrument speaks.
    pub framing: Framing,
    /// The serial line speaks Modbus ASCII.
    ascii: bool,
    /// How peripherals on the network and on the serial line bend Modbus.
    pub bends: [Bends; 2],
    /// When a unit is away, and what becomes of its commands then; `None`: nothing is said of that.
    away: Option<Away>,
    /// What messages ask for in a row.
    pub rows: Vec<(Sequence, u16)>,
    /// So many requests may be under way at once on the network's connection.
    pub in_flight: usize,
    /// What of what the instrument says by itself is an event.
    pub alarms: Option<Alarms>,
    /// How long who calls a direct method waits for its end.
    method_timeout: &'static str,
}

/// What is said of units that are away.
#[derive(Debug, Clone, Copy)]
struct Away {
    unreachable_after: u64,
    /// Seconds.
    probe_interval: u64,
    on_unreachable: &'static str,
}

impl Away {
    fn of(dice: &mut fastrand::Rng) -> Away {
        let unreachable_after = [1, 1, 2, 3, 0][dice.usize(..5)];
        let probe_interval = [1, 5, 10][dice.usize(..3)];
        let on_unreachable = ["fail", "hold", "mirror"][dice.usize(..3)];
        Away { unreachable_after, probe_interval, on_unreachable }
    }
}

/// How a value shows elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Shows {
    table: &'static str,
    /// The first look, and the last, so many ms after the write.
    after: u64,
    pub within: u64,
    /// In tenths, of which some may be too many or too few.
    pub in_tenths: bool,
}

/// Tenths by which a value that shows in tenths may be off.
pub const OFF_MAX: u64 = 4;

impl Shows {
    fn of(world: &World) -> Shows {
        let mut dice = world.dice("shows");
        let after = [0, 300, 1_000][dice.usize(..3)];
        let within = after + [1_000, 2_000, 4_000][dice.usize(..3)];
        Shows { table: if dice.bool() { "input" } else { "holding" }, after, within, in_tenths: dice.bool() }
    }

    /// As a command has it, for a register.
    fn text(&self, of: u16) -> String {
        let Shows { table, after, within, in_tenths } = *self;
        let (at, _) = SHOWN.into_iter().find(|(_, shown)| *shown == of).expect("it shows somewhere");
        let (scale, tolerance) = if in_tenths { ("0.1", "0.5") } else { ("1", "0") };
        format!(
            "read_back = {{ table = \"{table}\", address = {at}, type = \"u16\", scale = {scale}, after = \"{after}ms\", \
             within = \"{within}ms\", tolerance = {tolerance} }}"
        )
    }
}

impl Tuning {
    /// By the dice.
    pub fn of(world: &World, manners: &Manners, devices: &[Device], chaos: Duration) -> Tuning {
        let one = |choices: &[&'static str]| choices[world.pick(0..choices.len() as u64) as usize];
        let is_tight = manners.have(Manner::TightDeadlines);
        let pauses = is_tight && manners.have(Manner::Pauses);
        if pauses {
            world.count("instrument: hardly any time behind a pause");
        }
        if is_tight {
            world.count("sender: hardly any time");
        }
        let deadline = [5, 30, 30, 600][world.pick(0..4) as usize];
        let timeout = if manners.have(Manner::LateAnswers) { 2_000 } else { 400 };
        let mut tuning = Tuning {
            deadline: Duration::from_secs(if is_tight { 1 + world.pick(0..8) } else { deadline }),
            timeout,
            late_window: None,
            turnaround: if is_tight { one(&["0s", "300ms", "3s", "6s"]) } else { "0s" },
            rests: rests(world),
            pause: if pauses { one(&["300ms", "3s", "6s"]) } else { "0s" },
            retries: world.pick(0..3),
            keepalive: one(&["30s", "60s"]),
            token_lifetime: one(&["5m", "1h"]),
            poll_interval: match chaos.as_secs() {
                0..200 => one(&["1s", "2s", "10s", "10s", "60s"]),
                200..2_000 => one(&["10s", "60s", "25m"]),
                _ => "25m",
            },
            rtu: "rtu",
            text: "text",
            rtu_kind: RTU[0],
            text_kind: TEXT[0],
            host: HUBS[0],
            pulses: true,
            lax: manners.have(Manner::Streams),
            websockets: manners.have(Manner::WebSockets),
            several: manners.have(Manner::SeveralLines),
            shows: manners.have(Manner::ShowsElsewhere).then(|| Shows::of(world)),
            after_accept: true,
            framing: Framing::of(world, manners),
            ascii: manners.have(Manner::Ascii),
            bends: Bends::of(world, manners, devices),
            away: manners.have(Manner::Leaves).then(|| Away::of(&mut world.dice("away"))),
            rows: Vec::new(),
            in_flight: 1,
            alarms: manners.have(Manner::Alarms).then(|| Alarms::of(world, manners)),
            method_timeout: ["1s", "3s", "25s"][world.dice("method timeout").usize(..3)],
        };
        if manners.have(Manner::Sequences) {
            tuning.retries = tuning.retries.max(world.dice("repetitions").u64(..3));
        }
        // One that answers under any transaction, unit or length is asked one thing at a time.
        if manners.have(Manner::SideBySide) && tuning.bends[0].goes_by_the_letter() {
            tuning.in_flight = world.dice("side by side").usize(2..5);
        }
        if manners.have(Manner::OtherPatience) {
            tuning.wait_otherwise(&mut world.dice("patience"));
        }
        tuning
    }

    fn wait_otherwise(&mut self, dice: &mut fastrand::Rng) {
        self.timeout = [400, 800, 2_000][dice.usize(..3)];
        let longer = [None, Some(600), Some(3_000), Some(10_000)][dice.usize(..4)];
        self.late_window = longer.map(|longer| self.timeout + longer);
    }

    /// The line that no bus asks on any more as it should.
    fn left(&self) -> Option<&'static str> {
        match (self.rtu_kind == RTU[0], self.text_kind == TEXT[0]) {
            (false, _) => Some("/dev/rtu"),
            (_, false) => Some("/dev/text"),
            _ => None,
        }
    }

    /// As a bus has it.
    fn waits(&self) -> String {
        let window = self.late_window.map(|window| format!("late_window = \"{window}ms\"\n")).unwrap_or_default();
        let away = self.away.map(|Away { unreachable_after, probe_interval, .. }| {
            format!("unreachable_after = {unreachable_after}\nprobe_interval = \"{probe_interval}s\"\n")
        });
        format!("response_timeout = \"{}ms\"\n{window}{}", self.timeout, away.unwrap_or_default())
    }

    /// How long whoever asks waits: an answer may be owed for four timeouts, at least 2 s, if nobody says for how long.
    fn patience(&self) -> Patience {
        let window = self.late_window.unwrap_or((4 * self.timeout).max(2_000));
        Patience { timeout: Duration::from_millis(self.timeout), window: Duration::from_millis(window) }
    }
}

/// By dice of its own: often, nothing is said.
fn rests(world: &World) -> &'static str {
    let mut dice = world.dice("rests");
    let said = [
        "",
        "",
        "",
        "idle_close = \"0s\"\n",
        "idle_close = \"3s\"\n",
        "connect_pause = \"700ms\"\n",
        "idle_close = \"0s\"\nconnect_pause = \"200ms\"\n",
    ];
    let said = said[dice.usize(..said.len())];
    if said.contains("idle_close") {
        world.count("bus: is closed when nobody needs it");
    }
    said
}

/// The number of a configuration that is another in some way.
pub fn reload(
    world: &World,
    manners: &Manners,
    tuning: &Tuning,
    devices: &[Device],
    key_file: &str,
    configurations: &mut Vec<Configuration>,
) -> Option<usize> {
    let mut tuning = tuning.clone();
    let mut devices = devices.to_vec();
    if manners.have(Manner::Leaves) && world.chance(300) {
        tuning.away = Some(Away::of(&mut fastrand::Rng::with_seed(world.pick(0..u64::MAX))));
    }
    if manners.have(Manner::OtherPatience) && world.chance(700) {
        tuning.wait_otherwise(&mut fastrand::Rng::with_seed(world.pick(0..u64::MAX)));
    }
    match world.pick(0..13) {
        _ if manners.have(Manner::OtherHub) && world.chance(400) => {
            world.count("reloads: another hub");
            tuning.host = HUBS[1];
        }
        _ if manners.have(Manner::Moves) && world.chance(300) => {
            let other = 1 + world.pick(0..2) as usize;
            world.count(
                ["", "reloads: a bus moves to another port", "reloads: a bus of another kind has a port"][other],
            );
            // Nobody asks anything there, and what was asked before at the port that it leaves may come still.
            let left = if world.chance(700) { "rtu" } else { "text" };
            match left {
                "rtu" => tuning.rtu_kind = RTU[other],
                _ => tuning.text_kind = TEXT[other],
            }
            devices.retain(|device| device.bus != left);
        }
        _ if manners.have(Manner::Moves) && world.chance(500) => {
            world.count("reloads: a line gets a bus of another name");
            let names = |line: &[&'static str]| line[world.pick(0..3) as usize];
            tuning.rtu = names(&["rtu", "rtu-b", "a-line"]);
            tuning.text = names(&["text", "text-b", "another"]);
        }
        0 => return None,
        // Back to the beginning.
        1 | 2 => return Some(0),
        3 | 4 => drop(devices.remove(world.pick(0..devices.len() as u64) as usize)),
        5 => tuning.rtu = "rtu-b",
        6 => tuning.pulses = false,
        7 => tuning.after_accept = false,
        8 => tuning.keepalive = "45s",
        9..12 => devices.iter_mut().for_each(|device| device.over = Over::any(world)),
        _ => tuning.retries = 3,
    }
    configurations.push(configured(&tuning, &devices, key_file));
    Some(configurations.len() - 1)
}

/// A configuration for these devices.
pub fn configured(tuning: &Tuning, devices: &[Device], key_file: &str) -> Configuration {
    Configuration {
        text: text(tuning, devices, key_file),
        devices: devices.to_vec(),
        patience: tuning.patience(),
        left: tuning.left(),
        unreachable_after: tuning.away.map_or(3, |away| away.unreachable_after),
        probe_interval: Duration::from_secs(tuning.away.map_or(10, |away| away.probe_interval)),
    }
}

/// A configuration, as a file has it.
fn text(tuning: &Tuning, devices: &[Device], key_file: &str) -> String {
    let Tuning { retries, keepalive, token_lifetime, turnaround, rtu, text: line, host, .. } = *tuning;
    let Tuning { deadline, pulses, after_accept, pause, rests, poll_interval, rtu_kind, text_kind, .. } = *tuning;
    let rtu_kind = if tuning.ascii { rtu_kind.replace("modbus-rtu", "modbus-ascii") } else { rtu_kind.to_owned() };
    let text_kind = text_kind.replace("delimiter = \"\\r\\n\"\n", tuning.framing.keys());
    let patience = format!("{}retries = {retries}\n", tuning.waits());
    let deadline = format!("{}s", deadline.as_secs());
    let ways = "addresses = { mqtt-ws = \"127.0.0.1:8443\", amqp-ws = \"127.0.0.1:5443\" }\n";
    let silence = format!("turnaround = \"{turnaround}\"\n");
    let in_flight = match tuning.in_flight {
        1 => String::new(),
        several => format!("max_in_flight = {several}\n"),
    };
    let mut text = format!(
        "[hub]\nhost = \"{host}\"\naddress = \"127.0.0.1:1883\"\ntls = false\n{ways}\
         keepalive = \"{keepalive}\"\ntoken_lifetime = \"{token_lifetime}\"\npoll_interval = \"{poll_interval}\"\n[ledger]\npath = \"{}\"\nretention = \"2d\"\n\
         [admin]\nsocket = \"/sim/admin.sock\"\n\
         [bus.net]\nkind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n{patience}{rests}{in_flight}\
         [bus.{rtu}]\n{rtu_kind}{patience}{silence}{rests}\
         [bus.{line}]\n{text_kind}{patience}turnaround = \"{pause}\"\n",
        super::ledger::PATH,
    );
    for device in devices {
        let profile = if device.bus == "text" { "text" } else { "modbus" };
        let unit = if device.bus == "text" { String::new() } else { format!("unit = {}\n", device.unit) };
        let settle = if device.after_accept && after_accept { "after-accept" } else { "after-execution" };
        let away = tuning.away.map(|Away { on_unreachable, .. }| format!("on_unreachable = \"{on_unreachable}\"\n"));
        let away = away.unwrap_or_default();
        let (bus, quirks) = match device.bus {
            "rtu" => (rtu, tuning.bends[1].key()),
            "text" => (line, tuning.alarms.map(|alarms| alarms.key()).unwrap_or_default()),
            other => (other, tuning.bends[0].key()),
        };
        let _ = write!(
            text,
            "[device.{}]\nbus = \"{bus}\"\n{unit}{quirks}profile = \"{profile}\"\nkey_file = \"{key_file}\"\nsettle = \"{settle}\"\n{away}\
             method_timeout = \"{}\"\ntransport = \"{}\"\n",
            device.id,
            tuning.method_timeout,
            device.over.word(tuning.websockets)
        );
    }
    let register = |name: &str, address: u16, rest: &str| {
        format!(
            "[profile.modbus.command.{name}]\nwrite = {{ table = \"holding\", address = {address}, type = \"u16\" }}\n\
             deadline = \"{deadline}\"\n{rest}\n"
        )
    };
    let verified = |of| tuning.shows.map_or_else(|| "verify = true".to_owned(), |shows| shows.text(of));
    text += &register("set", SET, "idempotent = true");
    text += &register("set-verified", SET_VERIFIED, &format!("idempotent = true\n{}", verified(SET_VERIFIED)));
    if pulses {
        text += &register("pulse", PULSE, "idempotent = false");
        let rest = format!("idempotent = false\n{}", verified(PULSE_VERIFIED));
        text += &register("pulse-verified", PULSE_VERIFIED, &rest);
    }
    for number in 0..READS {
        let _ = write!(
            text,
            "[profile.modbus.command.read-{number}]\nread = {{ table = \"holding\", address = {}, type = \"u16\" }}\n\
             deadline = \"{deadline}\"\n",
            READ + number
        );
    }
    text + &sequences::commands(&tuning.rows, &deadline, pulses) + &lines(tuning, &deadline)
}

/// The commands of the instrument.
fn lines(tuning: &Tuning, deadline: &str) -> String {
    let mut text = String::new();
    let (expect, refuse) = if tuning.lax { ("^OK|kg$", "^ERR|NOT OK$") } else { ("^OK", "^ERR") };
    let (each, until) = if tuning.several { ("(?m)", "until = \"^END$\"\n") } else { ("", "") };
    let lines = [
        ("set", ('S', true), expect, refuse, true),
        ("pulse", ('D', true), expect, refuse, false),
        ("ask", ('Q', true), r"^R (\\S+)$", "^ERR", true),
        ("weigh", ('W', false), r"([0-9.]+) kg$", "^ERR", true),
    ];
    for (name, (letter, has_value), expect, refuse, idempotent) in lines {
        if idempotent || tuning.pulses {
            let exchange = tuning.framing.command(letter, has_value, (&format!("{each}{expect}"), refuse));
            let _ = write!(
                text,
                "[profile.text.command.{name}]\n{exchange}{until}deadline = \"{deadline}\"\nidempotent = {idempotent}\n"
            );
        }
    }
    text
}
