//! What a schedule is made of: the site, what the back end sends, and what goes wrong when. All of it from the seed.

use std::time::Duration;

use fieldbridge::time::Timestamp;
use serde_json::json;

use super::absences::{absences, Absence};
use super::alarms::Alarms;
use super::bends::Bends;
use super::calls;
use super::framing::Framing;
use super::manners::{Manner, Manners};
use super::patience::Patience;
use super::request::READS;
use super::sequences::{self, Sequence, Turning};
use super::tuning::{configured, reload, Shows, Tuning};
use super::world::{World, BEGIN};

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    Set,
    SetVerified,
    Pulse,
    PulseVerified,
    /// One of the registers, by the message's value.
    Read,
    /// A reading of an instrument, with the value sent along.
    Ask,
    /// What lies on its scale.
    Weigh,
    /// Several things in a row.
    Row(Sequence),
    /// Nothing that could be done.
    Nothing,
}

impl Asks {
    /// The name of its command.
    pub fn command(self) -> &'static str {
        match self {
            Asks::Set => "set",
            Asks::SetVerified => "set-verified",
            Asks::Pulse => "pulse",
            Asks::PulseVerified => "pulse-verified",
            Asks::Read => "read",
            Asks::Ask => "ask",
            Asks::Weigh => "weigh",
            Asks::Row(sequence) => sequence.command(),
            Asks::Nothing => "self-destruct",
        }
    }

    /// Whether it changes something.
    pub fn writes(self) -> bool {
        matches!(self, Asks::Set | Asks::SetVerified | Asks::Row(_)) || self.once()
    }

    /// Whether it is of several writes, of which some may be done and others not.
    pub fn has_steps(self) -> bool {
        matches!(self, Asks::Row(sequence) if sequence.parts().len() > 1)
    }

    /// Whether it must not be done twice.
    pub fn once(self) -> bool {
        match self {
            Asks::Row(sequence) => sequence.once(),
            _ => matches!(self, Asks::Pulse | Asks::PulseVerified),
        }
    }
}

/// The hubs. The gateway is at the first one, but for a while perhaps.
pub const HUBS: [&str; 2] = ["simulated.azure-devices.net", "another.azure-devices.net"];

/// The protocol by which a device reaches its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Mqtt,
    Amqp,
    Https,
}

impl Over {
    /// What all devices of a schedule speak; `None`: each what it likes.
    fn of_all(world: &World) -> Option<Over> {
        match world.pick(0..100) {
            0..45 => Some(Over::Mqtt),
            45..65 => Some(Over::Amqp),
            65..85 => Some(Over::Https),
            _ => None,
        }
    }

    pub fn any(world: &World) -> Over {
        [Over::Mqtt, Over::Amqp, Over::Https][world.pick(0..3) as usize]
    }

    /// As a configuration says it.
    pub fn word(self, through_websocket: bool) -> &'static str {
        match self {
            Over::Mqtt if through_websocket => "mqtt-ws",
            Over::Amqp if through_websocket => "amqp-ws",
            Over::Mqtt => "mqtt",
            Over::Amqp => "amqp",
            Over::Https => "https",
        }
    }
}

/// A message of the back end's.
#[derive(Clone, PartialEq)]
pub struct Message {
    pub hub: &'static str,
    pub device: String,
    pub id: Option<String>,
    pub asks: Asks,
    /// Its own, so that it is known wherever it turns up.
    pub value: u16,
    pub body: Vec<u8>,
    /// How its device is reached at first.
    pub over: Over,
    /// The line of its device, and its unit on it.
    pub line: &'static str,
    pub unit: u8,
    /// Its device's commands are completed when they are accepted.
    pub after_accept: bool,
    /// `$.exp`, s after the beginning.
    pub expiry: Option<u64>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} of {} for {}", self.id, self.asks.command(), self.value, self.device)?;
        match self.hub == HUBS[0] {
            true => Ok(()),
            false => write!(f, " at {}", self.hub),
        }
    }
}

impl Message {
    /// The topic on which the hub delivers it.
    pub fn topic(&self) -> String {
        let id = self.id.as_ref().map(|id| format!("%24.mid={}&", id.replace(' ', "%20"))).unwrap_or_default();
        let expiry = self.expiry.map(|at| format!("%24.exp={}&", rfc3339(at))).unwrap_or_default();
        let device = &self.device;
        format!("devices/{device}/messages/devicebound/{id}{expiry}%24.to=%2Fdevices%2F{device}%2Fmessages")
    }
}

impl Message {
    /// Its own expiry.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expiry.map(|after| BEGIN.plus(Duration::from_secs(after)))
    }
}

/// 2026-11-22 and some seconds.
fn rfc3339(after: u64) -> String {
    let (day, rest) = (22 + after / 86_400, after % 86_400);
    format!("2026-11-{day:02}T{:02}%3A{:02}%3A{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Chances in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// That a connection is cut.
    pub cuts: u64,
    /// That the hub does not let in.
    pub refusals: u64,
    /// That a packet comes twice.
    pub repetitions: u64,
    /// The hub's lock of a message runs out after a few seconds instead of a minute.
    pub short_locks: bool,
    /// That an acknowledgement or an event is lost.
    pub lost_acks: u64,
    /// That a peripheral does not do as it should.
    pub plant: u64,
    /// That a life of the process is cut short.
    pub crashes: u64,
    /// That an operation on the disk fails.
    pub disk: u64,
    /// That a task of the gateway's is let wait, though it could run.
    pub slowness: u64,
    /// The line on which nobody ever answers, while nothing else goes wrong.
    pub dead_line: Option<&'static str>,
}

/// Something that happens at its time.
#[derive(Debug, Clone)]
pub enum Happening {
    Send(Message, Duration),
    DiskFull(u64),
    DiskFreed,
    /// The gateway's clock is wrong by so many ms, and called synchronised or not.
    Clock(i64, bool),
    Outage(Duration),
    /// The configuration with this number is to be taken up; `None`: one with errors.
    Reload(Option<usize>),
}

impl Happening {
    /// For the story.
    pub fn word(&self) -> String {
        match self {
            Happening::Send(..) => "the back end sends".into(),
            Happening::DiskFull(room) => format!("the disk has {room} bytes left"),
            Happening::DiskFreed => "the disk has room".into(),
            Happening::Clock(error, synchronised) => {
                format!("the gateway's clock is wrong by {error} ms, synchronised: {synchronised}")
            }
            Happening::Outage(length) => format!("the hub is out for {length:?}"),
            Happening::Reload(Some(number)) => format!("configuration no. {number} is to be taken up"),
            Happening::Reload(None) => "a configuration with errors is to be taken up".into(),
        }
    }
}

/// A configuration, and the devices that are in it.
pub struct Configuration {
    pub text: String,
    pub devices: Vec<Device>,
    /// How long it waits for peripherals.
    pub patience: Patience,
    /// The line that its bus has left.
    pub left: Option<&'static str>,
    /// After how many requests that it leaves unanswered a unit is away; 0: never.
    pub unreachable_after: u64,
    /// How long one that is away is left alone, at the least.
    pub probe_interval: Duration,
}

/// A schedule.
pub struct Scenario {
    pub faults: Faults,
    pub manners: Manners,
    /// How a value shows that was written, if not in its own place.
    pub shows: Option<Shows>,
    /// How the instrument speaks.
    pub framing: Framing,
    /// How peripherals on the network and on the serial line bend Modbus.
    pub bends: [Bends; 2],
    /// So many requests may be under way at once on the network's connection.
    pub in_flight: usize,
    /// What of what the instrument says by itself is an event.
    pub alarms: Option<Alarms>,
    /// A command must have reached the wire so long after its receipt.
    pub deadline: Duration,
    /// When the faults end.
    pub chaos: Duration,
    pub happenings: Vec<(Duration, Happening)>,
    /// What is called for by direct methods.
    pub calls: Vec<(Duration, Message)>,
    /// The first is the one at the beginning and at the end.
    pub configurations: Vec<Configuration>,
    pub devices: Vec<String>,
    /// Whether the witness looks at everything.
    pub witnessed: bool,
    /// The operator says that the ledger knows all that was ever done.
    pub trusts: bool,
    /// When peripherals are away.
    pub absences: Vec<Absence>,
}

impl Faults {
    /// Whether nothing goes wrong.
    pub fn is_none(&self) -> bool {
        let Faults { cuts, refusals, repetitions, short_locks, lost_acks, plant, crashes, disk, slowness, dead_line } =
            *self;
        dead_line.is_none()
            && !short_locks
            && slowness + cuts + refusals + repetitions + lost_acks + plant + crashes + disk == 0
    }
}

impl Scenario {
    /// Whether the gateway's clock is never wrong.
    pub fn clock_is_right(&self) -> bool {
        !self.happenings.iter().any(|(_, happening)| matches!(happening, Happening::Clock(..)))
    }

    /// Whether commands may vanish from the configuration.
    pub fn reloads(&self) -> bool {
        self.happenings.iter().any(|(_, happening)| matches!(happening, Happening::Reload(_)))
    }

    /// By what a device is reached, by one configuration or another.
    pub fn ways(&self, device: &str) -> Vec<Over> {
        let all = self.configurations.iter().flat_map(|configuration| &configuration.devices);
        all.filter(|one| one.id == device).map(|one| one.over).collect()
    }

    /// The messages, in the order in which they are sent, and behind them what is called for.
    pub fn messages(&self) -> Vec<Message> {
        let sent = self.happenings.iter().filter_map(|(_, happening)| match happening {
            Happening::Send(message, _) => Some(message.clone()),
            _ => None,
        });
        sent.chain(self.calls.iter().map(|(_, message)| message.clone())).collect()
    }

    /// A schedule from the world's dice.
    pub fn generate(world: &World, key_file: &str) -> Scenario {
        let faults = faults(world);
        let manners = if faults.dead_line.is_some() { Manners::default() } else { Manners::of(world) };
        let long = world.chance(10);
        let chaos = match world.pick(0..10) {
            _ if long => world.time(86_400_000, 2 * 86_400_000),
            0 => world.time(300_000, 1_500_000),
            _ => world.time(20_000, 120_000),
        };
        let devices = devices(world, &manners);
        let mut happenings = sendings(world, &manners, &devices, chaos);
        if faults.disk > 0 {
            for _ in 0..world.pick(0..4) {
                fill_the_disk(world, chaos, &mut happenings);
            }
        }
        // Without a clock that is believed nothing connects, and nobody can be said to be held up by a line.
        if faults.dead_line.is_none() && world.chance(300) {
            set_the_clock_wrong(world, chaos, &mut happenings);
        }
        if faults.cuts > 0 && (long || world.chance(100)) {
            let most = if long { 40 * 3_600_000 } else { 60_000 };
            let at = world.time(0, chaos.as_millis() as u64 / 2);
            happenings.push((at, Happening::Outage(world.time(1_000, most))));
        }
        let mut tuning = Tuning::of(world, &manners, &devices, chaos);
        tuning.rows = sequences::wanted(&happenings);
        let mut configurations = vec![configured(&tuning, &devices, key_file)];
        // On a bus that is opened anew nothing is asked for seconds: the dead line's neighbours are timed.
        let is_impatient = manners.have(Manner::OtherPatience);
        if faults.dead_line.is_none() && (is_impatient || world.chance(350)) {
            for _ in 0..world.pick(1..6) {
                let at = match happenings.get(world.pick(0..2 * happenings.len() as u64) as usize) {
                    // While a peripheral owes an answer, perhaps.
                    Some((sent, Happening::Send(..))) if is_impatient => *sent + world.time(50, 4_000),
                    _ => world.time(0, chaos.as_millis() as u64),
                };
                happenings.push((
                    at,
                    Happening::Reload(reload(world, &manners, &tuning, &devices, key_file, &mut configurations)),
                ));
            }
        }
        if manners.have(Manner::TakenAway) && faults.dead_line.is_none() {
            take_away(world, &mut happenings, &devices, |left| {
                configurations.push(configured(&tuning, left, key_file));
                configurations.len() - 1
            });
        }
        happenings.sort_by_key(|(at, _)| *at);
        let absences = if manners.have(Manner::Leaves) { absences(world, &devices, &happenings) } else { Vec::new() };
        let calls = calls::wanted(world, &manners, (&faults, &configurations), chaos);
        let devices = devices.into_iter().map(|device| device.id).collect();
        // What is lost with a ledger is known to nobody.
        let trusts = !manners.have(Manner::LostLedger) && world.chance(600) && !manners.have(Manner::RestoredLedger);
        Scenario {
            faults,
            trusts,
            manners,
            shows: tuning.shows,
            framing: tuning.framing,
            bends: tuning.bends,
            in_flight: tuning.in_flight,
            alarms: tuning.alarms,
            deadline: tuning.deadline,
            chaos,
            happenings,
            calls,
            configurations,
            devices,
            witnessed: world.chance(250),
            absences,
        }
    }
}

/// A device that is reached by AMQP is taken out of the configuration when a message of its has just been sent, and
/// comes back.
fn take_away(
    world: &World,
    happenings: &mut Vec<(Duration, Happening)>,
    devices: &[Device],
    mut without: impl FnMut(&[Device]) -> usize,
) {
    let mut dice = world.dice("taken away");
    let by_amqp = |id: &str| devices.iter().any(|device| device.id == id && device.over == Over::Amqp);
    let sent: Vec<(Duration, String)> = happenings
        .iter()
        .filter_map(|(at, happening)| match happening {
            Happening::Send(message, _) if by_amqp(&message.device) => Some((*at, message.device.clone())),
            _ => None,
        })
        .collect();
    for _ in 0..dice.u64(1..4).min(sent.len() as u64) {
        let (at, id) = &sent[dice.usize(..sent.len())];
        let left: Vec<Device> = devices.iter().filter(|device| device.id != *id).cloned().collect();
        world.count("reloads: a device is taken away while its messages wait");
        let at = *at + Duration::from_millis(dice.u64(60..800));
        happenings.push((at, Happening::Reload(Some(without(&left)))));
        happenings.push((at + Duration::from_millis(dice.u64(500..20_000)), Happening::Reload(Some(0))));
    }
}

/// Somebody fills the disk, and perhaps what the gateway gives up on it as well, until they are found.
fn fill_the_disk(world: &World, chaos: Duration, happenings: &mut Vec<(Duration, Happening)>) {
    let at = match happenings.get(world.pick(0..2 * happenings.len() as u64) as usize) {
        // While a message is on its way.
        Some((sent, Happening::Send(..))) => *sent + world.time(0, 500),
        _ => world.time(0, chaos.as_millis() as u64),
    };
    let length = world.time(1_000, 40_000);
    let room = if world.chance(500) { 5_000 } else { 200_000 };
    happenings.push((at, Happening::DiskFull(world.pick(0..room))));
    for _ in 0..world.pick(0..5) {
        let again = at + world.time(0, length.as_millis() as u64);
        happenings.push((again, Happening::DiskFull(world.pick(0..room))));
    }
    happenings.push((at + length, Happening::DiskFreed));
}

fn set_the_clock_wrong(world: &World, chaos: Duration, happenings: &mut Vec<(Duration, Happening)>) {
    const DAY: i64 = 86_400_000;
    for _ in 0..world.pick(1..4) {
        // Before the release of the program the first two.
        let errors = [-1_795_305_000_000, -400 * DAY, -3 * DAY, 3_600_000, 3650 * DAY, -3_600_000, -30_000, 0, 0];
        let error = errors[world.pick(0..errors.len() as u64) as usize];
        let clock = Happening::Clock(error, world.chance(400));
        happenings.push((world.time(0, chaos.as_millis() as u64), clock));
    }
}

fn faults(world: &World) -> Faults {
    if world.chance(50) {
        return Faults::default();
    }
    if world.chance(50) {
        world.count("line: a dead one, beside sound ones");
        return Faults { dead_line: Some(LINES[world.pick(0..3) as usize].1), ..Faults::default() };
    }
    let level = |choices: &[u64]| choices[world.pick(0..choices.len() as u64) as usize];
    let disk = level(&[0, 0, 0, 2, 10]);
    Faults {
        cuts: level(&[0, 300, 600, 900]),
        refusals: level(&[0, 0, 50, 300]),
        repetitions: level(&[0, 100, 300]),
        short_locks: world.chance(200),
        lost_acks: level(&[0, 100, 300]),
        plant: level(&[0, 100, 300, 600]),
        crashes: level(&[0, 500, 800, 950]),
        disk,
        // What the ledger's trouble comes to depends on who hears of it first.
        slowness: if disk > 0 { level(&[0, 0, 10, 300, 600]) } else { level(&[0, 0, 0, 10]) },
        dead_line: None,
    }
}

/// The buses, and the lines that they run on.
pub const LINES: [(&str, &str); 3] = [("net", "10.0.0.1:502"), ("rtu", "/dev/rtu"), ("text", "/dev/text")];

/// A device of the site.
#[derive(Clone)]
pub struct Device {
    pub id: String,
    pub unit: usize,
    pub bus: &'static str,
    /// Its commands are completed when they are accepted.
    pub after_accept: bool,
    pub over: Over,
}

fn devices(world: &World, manners: &Manners) -> Vec<Device> {
    let speaks = [
        Manner::Tails,
        Manner::Streams,
        Manner::Fragments,
        Manner::OddReadings,
        Manner::Smuggling,
        Manner::SeveralLines,
        Manner::Frames,
    ];
    let is_heard = speaks.into_iter().any(|manner| manners.have(manner));
    let buses = if is_heard { ["net", "rtu", "text", "text", "text"] } else { ["net", "net", "rtu", "rtu", "text"] };
    let count = world.pick(1..4) as usize;
    let over = Over::of_all(world);
    let mut devices: Vec<Device> = Vec::new();
    let mut gathered = gathering(world, manners);
    for number in 0..count {
        let mut bus = buses[world.pick(0..5) as usize];
        bus = gathered().unwrap_or(bus);
        // One instrument a text line.
        if bus == "text" && devices.iter().any(|device| device.bus == "text") {
            bus = "rtu";
        }
        let (after_accept, over) = (world.chance(400), over.unwrap_or_else(|| Over::any(world)));
        devices.push(Device { id: format!("d{number}"), unit: number + 1, bus, after_accept, over });
    }
    devices
}

/// Where a device is, by dice of its own: most are on the network where several are asked at once, or the first one is
/// an instrument that alarms.
fn gathering(world: &World, manners: &Manners) -> impl FnMut() -> Option<&'static str> {
    let mut dice = world.dice("gathering");
    let (is_crowded, mut alarms) = (manners.have(Manner::SideBySide), manners.have(Manner::Alarms));
    move || match std::mem::take(&mut alarms) {
        true => Some("text"),
        false => (is_crowded && dice.u8(..10) < 8).then_some("net"),
    }
}

fn sendings(world: &World, manners: &Manners, devices: &[Device], chaos: Duration) -> Vec<(Duration, Happening)> {
    let mut sendings: Vec<(Duration, Happening)> = Vec::new();
    let mut sent: Vec<Message> = Vec::new();
    let crowds = world.chance(400);
    let mut turning = Turning::of(world, manners);
    for number in 0..world.pick(1..14) {
        let device = &devices[world.pick(0..devices.len() as u64) as usize];
        let earlier = sent.iter().rev().find(|message| message.device == device.id && message.id.is_some());
        let mut message = message(world, manners, device, number as u16 + 1);
        turning.turn(&mut message);
        match (world.pick(0..100), earlier) {
            (0..6, Some(earlier)) => message = earlier.clone(),
            (6..9, Some(earlier)) => message.id = earlier.id.clone(),
            // Of another device's, perhaps.
            (9..14, _) => message.id = sent.last().map_or(message.id, |earlier| earlier.id.clone()),
            _ => {}
        }
        let life = match world.chance(900) {
            true => Duration::from_secs(2 * 86_400),
            false => world.time(1_000, 60_000),
        };
        let at = match sendings.last() {
            // One on the heels of the other: what is left of its answer meets the next.
            Some((before, _)) if crowds && world.chance(600) => *before + world.time(0, 40),
            _ => world.time(0, chaos.as_millis() as u64 * 3 / 4),
        };
        sendings.push((at, Happening::Send(message.clone(), life)));
        if manners.have(Manner::OtherHub) && world.chance(600) {
            // Two systems number their messages alike.
            let message = Message { hub: HUBS[1], ..message.clone() };
            let at = world.time(0, chaos.as_millis() as u64 * 3 / 4);
            sendings.push((at, Happening::Send(message, life)));
        }
        sent.push(message);
    }
    sendings
}

fn message(world: &World, manners: &Manners, device: &Device, value: u16) -> Message {
    let choices: &[Asks] = match device.bus {
        "text" => &[Asks::Set, Asks::Pulse, Asks::Pulse, Asks::Ask, Asks::Weigh],
        _ => &[Asks::Set, Asks::SetVerified, Asks::Pulse, Asks::Pulse, Asks::PulseVerified, Asks::Read],
    };
    let mut asks = choices[world.pick(0..choices.len() as u64) as usize];
    let mut body = match asks {
        Asks::Read => json!({ "command": format!("read-{}", value % READS) }).to_string().into_bytes(),
        Asks::Weigh => json!({ "command": asks.command() }).to_string().into_bytes(),
        asks => json!({ "command": asks.command(), "value": value }).to_string().into_bytes(),
    };
    if device.bus == "text" && manners.have(Manner::Smuggling) && world.chance(300) {
        world.count("sender: a value with a command in it");
        (asks, body) = (Asks::Nothing, smuggled(world, value));
    } else if world.chance(80) {
        asks = Asks::Nothing;
        body = poison(world, value, device.bus == "text");
    }
    let id = world.chance(960).then(|| format!("no. {value} of {}", device.id));
    let expiry = world.chance(60).then(|| world.pick(10..100));
    let line = LINES.iter().find(|(bus, _)| *bus == device.bus).map_or("", |(_, line)| line);
    let (unit, after_accept, over) = (device.unit as u8, device.after_accept, device.over);
    Message { hub: HUBS[0], device: device.id.clone(), id, asks, value, body, over, line, unit, after_accept, expiry }
}

/// A value that would be a second command for an instrument.
fn smuggled(world: &World, value: u16) -> Vec<u8> {
    let carried = [";D 7777", ";", "\r\nD 7777", " ;D 7777\r\n", "\u{85}D 7777"];
    let carried = carried[world.pick(0..5) as usize];
    let command = if world.chance(500) { "set" } else { "pulse" };
    json!({ "command": command, "value": format!("{value}{carried}") }).to_string().into_bytes()
}

/// An instrument that is spoken to in text takes any value.
fn poison(world: &World, value: u16, text: bool) -> Vec<u8> {
    match world.pick(if text { 2 } else { 0 }..7) {
        0 => json!({ "command": "pulse", "value": "a lot" }).to_string().into_bytes(),
        1 => json!({ "command": "pulse", "value": -1 }).to_string().into_bytes(),
        2 => json!({ "command": "self-destruct", "value": value }).to_string().into_bytes(),
        3 => format!("not JSON, no. {value}").into_bytes(),
        4 => json!({ "command": ["pulse"], "value": value }).to_string().into_bytes(),
        5 => vec![0xff; 64 * 1024],
        _ => Vec::new(),
    }
}
