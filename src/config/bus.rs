//! `[bus.NAME]`

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::address::host_and_port;
use super::keys::{self, Section};
use super::text::{no_end, note_bytes};
use super::tree::{Span, Table};
use super::{frame, Bus, BusKind, Cut, Endpoint, LowLatency, Parity, Rs485, SerialPort, Wake};
use crate::complaint::Complaint;

const DEFAULT_RETRIES: u32 = 2;
const DEFAULT_UNREACHABLE_AFTER: u32 = 3;
const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Instruments that sleep stay awake for longer, and waking one that is awake costs little.
const DEFAULT_WAKE_AFTER: Duration = Duration::from_secs(5);
const MODBUS_PORT: u16 = 502;
/// Longer than any terminator in use.
const DELIMITER_BYTES_MAX: usize = 64;
/// What serial hardware can be set to.
const BAUD: RangeInclusive<i64> = 50..=4_000_000;
/// What peripherals are set to.
const USUAL_BAUD: [u32; 14] =
    [300, 600, 1200, 2400, 4800, 9600, 14_400, 19_200, 38_400, 57_600, 76_800, 115_200, 230_400, 460_800];

/// How long an answer may be waited for: the next command on the bus waits as long.
pub(super) const RESPONSE_TIMEOUT: Span =
    Span { min: Duration::from_millis(1), max: Duration::from_secs(600), because: "" };
pub(super) const TURNAROUND: Span = Span { min: Duration::ZERO, max: Duration::from_secs(60), because: "" };
/// More attempts keep others on the bus waiting for too long.
pub(super) const RETRIES: RangeInclusive<i64> = 0..=10;
/// A window of nothing would let a late answer pass for another command's.
const LATE_WINDOW: Span = Span {
    min: Duration::from_millis(100),
    max: Duration::from_secs(600),
    because: ", or a late answer would be taken for another command's",
};
const WAKE_AFTER: Span = Span { min: Duration::ZERO, max: Duration::from_secs(24 * 3600), because: "" };
const RETRY_PAUSE: Span = Span { min: Duration::ZERO, max: Duration::from_secs(60), because: "" };
const CONNECT_PAUSE: Span = Span { min: Duration::ZERO, max: Duration::from_secs(60), because: "" };
/// More silence than that tells nothing new.
const UNREACHABLE_AFTER: RangeInclusive<i64> = 0..=100;
const PROBE_INTERVAL: Span = Span { min: Duration::from_millis(100), max: Duration::from_secs(3600), because: "" };
const IDLE_CLOSE: Span = Span { min: Duration::ZERO, max: Duration::from_secs(86_400), because: "" };

/// Enough for a gateway with as many lines; more would only wait in its queue.
const MAX_IN_FLIGHT: RangeInclusive<i64> = 1..=16;

const RTS_DELAY: Span =
    Span { min: Duration::ZERO, max: Duration::from_millis(100), because: ", as the kernel keeps no longer one" };

/// What a device needs to know of its bus, whatever else is wrong with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ModbusRtu,
    ModbusAscii,
    ModbusTcp,
    Serial,
}

/// One `[bus.NAME]`; `None` for what is wrong with it, so that its devices still find it.
pub(super) struct Entry {
    pub kind: Option<Kind>,
    pub bus: Option<Bus>,
}

pub(super) const KINDS: [(&str, Kind); 4] = [
    ("modbus-rtu", Kind::ModbusRtu),
    ("modbus-ascii", Kind::ModbusAscii),
    ("modbus-tcp", Kind::ModbusTcp),
    ("serial", Kind::Serial),
];

impl Kind {
    pub(super) fn section(self) -> Section {
        match self {
            Kind::ModbusRtu => keys::MODBUS_RTU,
            Kind::ModbusAscii => keys::MODBUS_ASCII,
            Kind::ModbusTcp => keys::MODBUS_TCP,
            Kind::Serial => keys::SERIAL,
        }
    }

    fn response_timeout(self) -> Duration {
        match self {
            Kind::ModbusRtu => Duration::from_millis(500),
            // A character of an ASCII frame may come a second after the last.
            Kind::ModbusAscii | Kind::ModbusTcp | Kind::Serial => Duration::from_secs(1),
        }
    }
}

/// Whether an address may be another bus's too.
#[derive(Debug, Clone, Copy)]
enum Shares {
    /// Each connection has its own answers.
    May,
    /// A line stands behind it, on which everything meets.
    Never,
}

/// Every bus by name.
pub(super) fn buses(root: &Table) -> BTreeMap<String, Entry> {
    let mut buses = BTreeMap::new();
    let mut taken = Taken::default();
    let used = root.mentioned("device", "bus");
    for (name, table) in root.tables("bus", keys::BUS) {
        if let Err(why) = super::check_name(name) {
            table.wrong_here(why);
        }
        if used.as_ref().is_some_and(|used| !used.contains(name)) {
            table.note_here((
                "no device is on this bus, and it is opened all the same",
                "put a device on it, or remove it",
            ));
        }
        let kind = kind(&table);
        let bus = bus(&table, kind);
        if let Some(bus) = &bus {
            taken.take(&table, name, &bus.kind);
        }
        buses.insert(name.to_owned(), Entry { kind, bus });
    }
    buses
}

/// The ports and addresses that are a bus's, with its name.
#[derive(Default)]
struct Taken {
    ports: HashMap<PathBuf, String>,
    addresses: HashMap<String, (String, Shares)>,
}

impl Taken {
    /// Takes the place of a bus, and reports that another has it.
    fn take(&mut self, table: &Table, name: &str, kind: &BusKind) {
        match kind {
            BusKind::ModbusRtu(Endpoint::Tcp(address))
            | BusKind::ModbusAscii(Endpoint::Tcp(address))
            | BusKind::Serial { endpoint: Endpoint::Tcp(address), .. } => {
                if let Some((other, _)) = self.addresses.insert(address.clone(), (name.to_owned(), Shares::Never)) {
                    let why = (
                        format!("is the address of bus {other:?} too"),
                        "what two buses say there would meet on one line, so put the devices of both on one bus",
                    );
                    table.wrong("address", why);
                }
            }
            BusKind::ModbusRtu(Endpoint::Serial(port))
            | BusKind::ModbusAscii(Endpoint::Serial(port))
            | BusKind::Serial { endpoint: Endpoint::Serial(port), .. } => {
                // `/dev/ttyUSB0` and its link in `by-id` are one port.
                let real = fs::canonicalize(&port.path).unwrap_or_else(|_| port.path.clone());
                if let Some(other) = self.ports.insert(real, name.to_owned()) {
                    let why = (
                        format!("is the port of bus {other:?} too"),
                        "a port is opened once, so put the devices of both on one bus",
                    );
                    table.wrong("port", why);
                }
            }
            BusKind::ModbusTcp { address } => {
                match self.addresses.insert(address.clone(), (name.to_owned(), Shares::May)) {
                    Some((other, Shares::May)) => {
                        let what = format!("is the address of bus {other:?} too");
                        table.note("address", (what, "one bus can serve all units behind it"));
                    }
                    Some((other, Shares::Never)) => {
                        let what = format!("is the address of bus {other:?} too, which is of another kind");
                        table.wrong("address", (what, "one is wrong"));
                    }
                    None => {}
                }
            }
        }
    }
}

fn kind(table: &Table) -> Option<Kind> {
    if !table.has("kind") {
        let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        let why = ("is missing", format!("it is one of {}", names.join(", ")));
        table.absent("kind", why);
    }
    let kind = table.choice("kind", &KINDS)?;
    refuse_keys_of_other_kinds(table, kind);
    Some(kind)
}

fn bus(table: &Table, kind: Option<Kind>) -> Option<Bus> {
    let response_timeout = table.duration("response_timeout", &RESPONSE_TIMEOUT);
    let retries = table.small("retries", RETRIES);
    let turnaround = table.duration("turnaround", &TURNAROUND);
    let late_window = table.duration("late_window", &LATE_WINDOW);
    let retry_pause = table.duration("retry_pause", &RETRY_PAUSE);
    let connect_pause = table.duration("connect_pause", &CONNECT_PAUSE);
    let idle_close = table.duration("idle_close", &IDLE_CLOSE);
    let max_in_flight = table.small("max_in_flight", MAX_IN_FLIGHT);
    let unreachable_after = table.small("unreachable_after", UNREACHABLE_AFTER);
    let probe_interval = table.duration("probe_interval", &PROBE_INTERVAL);
    let strips_echo = table.choice("echo", &[("none", false), ("strip", true)]);
    let kind = kind?;
    let specific = match kind {
        Kind::ModbusRtu => BusKind::ModbusRtu(endpoint(table, kind)?),
        Kind::ModbusAscii => BusKind::ModbusAscii(endpoint(table, kind)?),
        Kind::ModbusTcp => BusKind::ModbusTcp { address: address(table, Some(MODBUS_PORT))? },
        Kind::Serial => {
            let endpoint = endpoint(table, kind);
            let wake = wake(table);
            check_wake(table, endpoint.as_ref(), wake.as_ref());
            BusKind::Serial { cut: cut(table)?, endpoint: endpoint?, wake }
        }
    };
    Some(Bus {
        kind: specific,
        response_timeout: response_timeout.unwrap_or_else(|| kind.response_timeout()),
        retries: retries.unwrap_or(DEFAULT_RETRIES),
        turnaround: turnaround.unwrap_or(Duration::ZERO),
        late_window,
        retry_pause: retry_pause.unwrap_or(DEFAULT_RETRY_PAUSE),
        strips_echo: strips_echo.unwrap_or(false),
        connect_pause: connect_pause.unwrap_or(Duration::ZERO),
        idle_close,
        max_in_flight: max_in_flight.unwrap_or(1),
        unreachable_after: unreachable_after.unwrap_or(DEFAULT_UNREACHABLE_AFTER),
        probe_interval: probe_interval.unwrap_or(DEFAULT_PROBE_INTERVAL),
    })
}

fn refuse_keys_of_other_kinds(table: &Table, kind: Kind) {
    let own = kind.section().keys;
    for key in table.present() {
        if own.contains(&key) || !keys::BUS.keys.contains(&key) {
            continue;
        }
        let owners: Vec<String> = KINDS
            .iter()
            .filter(|(_, other)| other.section().keys.contains(&key))
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let why = (format!("belongs to a bus of kind {}, and this is none", owners.join(" or ")), "remove it");
        table.wrong(key, why);
    }
}

/// Keys of a serial port, which a server sets for a line of its own.
pub(super) const PORT_SETTINGS: [&str; 6] = ["baud", "parity", "data_bits", "stop_bits", "rs485", "low_latency"];

/// A serial port, or a server that has one.
fn endpoint(table: &Table, kind: Kind) -> Option<Endpoint> {
    if !table.has("address") {
        return serial_port(table, kind).map(Endpoint::Serial);
    }
    if table.has("port") {
        table.wrong("address", ("stands beside port, and the line is at one of them", "remove the other"));
        return None;
    }
    for key in PORT_SETTINGS.into_iter().filter(|key| table.has(key)) {
        table.wrong(
            key,
            ("is of a serial port, and this bus has an address", "set it at the server, and remove it here"),
        );
    }
    address(table, None).map(Endpoint::Tcp)
}

fn serial_port(table: &Table, kind: Kind) -> Option<SerialPort> {
    if !table.has("port") {
        let example = "\"/dev/serial/by-id/usb-FTDI_FT232R-if00-port0\"";
        table.absent(
            "port",
            ("is missing", format!("name the serial port, such as {example}, or the address of a serial server")),
        );
    }
    if !table.has("baud") {
        table.absent("baud", ("is missing", "set it as on the peripherals, such as 9600 or 19200"));
    }
    if let Some(why) = table.text("port").and_then(no_port) {
        table.wrong("port", why);
        return None;
    }
    let path = table.path("port");
    if path.is_some() && table.text("port").is_some_and(|text| !text.starts_with('/')) {
        table.note("port", ("is taken from the folder of the configuration", "a serial port is usually under /dev"));
    }
    let baud: Option<u32> = table.small("baud", BAUD);
    if let Some(unusual) = baud.filter(|baud| !USUAL_BAUD.contains(baud)) {
        table.note("baud", (format!("{unusual} is an unusual rate"), "is it right?"));
    }
    // Modbus over serial line V1.02, 2.5.1 and 2.5.2: even parity is the default, beside 8 data bits for RTU and 7 for
    // ASCII; without parity there are two stop bits.
    let (default_parity, usual_bits, possible_bits) = match kind {
        Kind::ModbusRtu => (Parity::Even, 8, 8..=8),
        Kind::ModbusAscii => (Parity::Even, 7, 7..=8),
        Kind::ModbusTcp | Kind::Serial => (Parity::None, 8, 5..=8),
    };
    let parity = table.choice("parity", &[("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)]);
    let parity = parity.unwrap_or(default_parity);
    let data_bits = table.small("data_bits", 5..=8).unwrap_or(usual_bits);
    let stop_bits = table.small("stop_bits", 1..=2).unwrap_or(1);
    if !possible_bits.contains(&data_bits) {
        let why = match kind {
            Kind::ModbusAscii => {
                ("must be 7 or 8, as Modbus ASCII sends ASCII characters", "set it as the peripherals")
            }
            _ => ("must be 8, as Modbus RTU sends whole bytes", "remove it"),
        };
        table.wrong("data_bits", why);
    }
    if kind != Kind::Serial && parity == Parity::None && !table.has("stop_bits") {
        let why = (
            "is \"none\", and stop_bits is not set",
            "Modbus asks for 2 stop bits then, many peripherals for 1: set it to say which",
        );
        table.note("parity", why);
    }
    let rs485 = rs485(table);
    let low_latency = match table.boolean("low_latency") {
        None => LowLatency::IfPossible,
        Some(true) => LowLatency::Wanted,
        Some(false) => LowLatency::Unwanted,
    };
    Some(SerialPort { path: path?, baud: baud?, parity, data_bits, stop_bits, rs485, low_latency })
}

/// What is wrong with the name of a port that is none of this system.
fn no_port(text: &str) -> Option<Complaint> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let place = rest.split(['/', '?']).next().filter(|place| !place.is_empty()).unwrap_or("HOST:PORT");
        let what = format!("is a place in the network ({scheme}), and port is of this machine");
        return Some(Complaint::new(what, format!("write address = {place:?} in the place of port, baud and parity")));
    }
    let name = text.trim_start_matches("\\\\.\\");
    let number = name.get(..3).filter(|com| com.eq_ignore_ascii_case("com")).map(|_| &name[3..])?;
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| {
        Complaint::new(
            format!("{name} is what Windows calls a port"),
            "write its path here, such as \"/dev/ttyS0\", or a name that `ls /dev/serial/by-id` shows",
        )
    })
}

/// How the port's driver is to switch the direction of the line.
fn rs485(bus: &Table) -> Option<Rs485> {
    let table = bus.table("rs485", keys::RS485)?;
    let delay = |key| {
        let delay = table.duration(key, &RTS_DELAY);
        if delay.is_some_and(|delay| delay.subsec_nanos() % 1_000_000 != 0) {
            table.wrong(key, ("must be whole milliseconds, as the kernel counts them", "write for example \"1ms\""));
        }
        delay.unwrap_or(Duration::ZERO)
    };
    Some(Rs485 {
        rts_on_send: table.boolean("rts_on_send").unwrap_or(true),
        delay_before: delay("delay_before"),
        delay_after: delay("delay_after"),
    })
}

/// Where to connect. `usual_port` is the port where none is given.
fn address(table: &Table, usual_port: Option<u16>) -> Option<String> {
    if !table.has("address") {
        table.absent(
            "address",
            ("is missing", "name the peripheral or gateway as HOST:PORT, such as \"10.0.0.12:502\""),
        );
    }
    host_and_port(table.text("address")?, usual_port)
        .map_err(|why| table.wrong("address", why.and("write it as HOST:PORT")))
        .ok()
}

/// How what comes is cut into replies.
fn cut(table: &Table) -> Option<Cut> {
    if !table.has("frame") {
        return delimiter(table).map(Cut::Delimiter);
    }
    if table.has("delimiter") {
        table.wrong("delimiter", ("stands beside frame, which says where a reply ends", "remove one of them"));
    }
    frame::frame(&table.table("frame", keys::FRAME)?).map(Cut::Frame)
}

/// What is sent before a command after a silence.
fn wake(table: &Table) -> Option<Wake> {
    let after = table.duration("wake_after", &WAKE_AFTER).unwrap_or(DEFAULT_WAKE_AFTER);
    if table.has("wake_after") && !table.has("wake") {
        table.wrong("wake_after", ("has no effect without wake", "write what wakes the instrument, as wake = \"\\r\""));
    }
    Some(Wake { bytes: frame::wake(table)?, after })
}

/// Reports a wake that takes the line for long: whoever waits for a turn waits behind it.
fn check_wake(table: &Table, endpoint: Option<&Endpoint>, wake: Option<&Wake>) {
    /// A character of eight bits with parity.
    const BITS: usize = 11;
    const LONGEST: usize = 10;
    let (Some(Endpoint::Serial(port)), Some(wake)) = (endpoint, wake) else { return };
    let seconds = (wake.bytes.len() * BITS).div_ceil(usize::try_from(port.baud).unwrap_or(usize::MAX).max(1));
    if seconds > LONGEST {
        let why = format!("takes {seconds}s at {} baud, and may take {LONGEST}s", port.baud);
        table.wrong("wake", (why, "shorten it, or correct baud"));
    }
}

fn delimiter(table: &Table) -> Option<Vec<u8>> {
    if table.is_empty_text("delimiter") {
        table.wrong(
            "delimiter",
            ("is empty", "without it nothing tells where a reply ends: write for example \"\\r\\n\""),
        );
        return None;
    }
    if !table.has("delimiter") {
        return Some(b"\r\n".to_vec());
    }
    let text = table.text("delimiter")?;
    if text.len() > DELIMITER_BYTES_MAX {
        let why = (format!("is longer than {DELIMITER_BYTES_MAX} bytes"), "is it the end of a reply?");
        table.wrong("delimiter", why);
    }
    if let Some(why) = no_end(text) {
        table.wrong("delimiter", (format!("is {}", why.what), why.remedy));
        return None;
    }
    note_bytes(table, "delimiter", text);
    Some(text.as_bytes().to_vec())
}
