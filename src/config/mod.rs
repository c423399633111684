//! The configuration: files, drop-ins and environment in, a checked [`Config`] or every [`Problem`] out.
//!
//! [`load`] reads and merges the sources, then walks the merged tree once; [`keys`] lists what the walk knows. No
//! module but this one sees raw configuration: whatever leaves it is in range and refers to something that exists.
//!
//! Invariants
//! - There is no default file and no default for what could not be read: a problem is a refusal.
//! - No secret, and nothing that looks like one, is repeated in a message.

mod address;
#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod bus;
mod credential;
mod device;
mod environment;
mod fingerprint;
mod frame;
mod hub;
pub mod keys;
mod layer;
mod load;
mod message;
mod point;
mod poll;
mod problem;
mod profile;
mod provisioning;
pub mod reference;
mod registration;
pub mod schema;
mod secret;
pub mod shipped;
pub mod show;
mod slips;
mod standing;
mod steps;
mod syntax;
mod telemetry;
mod text;
mod transport;
mod tree;
mod unit;
mod view;
mod way;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::command::decide::Settle;
use crate::command::Form;
use crate::complaint::Complaint;
use crate::handles::Others;
use crate::peripheral::frame::Frame;
use crate::peripheral::quirks::Quirks;
use crate::peripheral::{Command, Events, Poll};
pub use address::is_loopback;
pub use fingerprint::{of_device_and_bus, Fingerprints};
pub use load::{load, load_adding, load_telling, places, profile_problems, Loaded, Places, Refused};
pub use point::{meant_by, ENCODINGS, ORDERS, PADS, TABLES, TYPES};
pub use problem::{Origins, Place, Problem, Severity};
pub use registration::{group_key, registration_id};
pub use standing::Standing;
pub use telemetry::{messages_a_day, S1_MESSAGES};
pub use transport::TransportKind;
pub use way::proxy_address;
#[cfg(feature = "backend")]
pub use way::{address, proxy_credentials};

/// Longest name of a bus, profile, command or device; the hub's own limit for devices.
const NAME_CHARS_MAX: usize = 128;

/// A configuration in which every reference resolves and every value is in range.
#[derive(Debug, Clone)]
pub struct Config {
    /// The hub and how to reach it.
    pub hub: Hub,
    /// The service that says which hub a device belongs to, if one does.
    pub provisioning: Option<Provisioning>,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// The ledger file.
    pub ledger: Ledger,
    /// Where what polls read waits for the hub, and how it is sent.
    pub telemetry: crate::telemetry::Settings,
    /// Where metrics are told, if they are.
    pub metrics: Option<View>,
    /// Where the page is shown, if it is.
    pub web: Option<View>,
    /// Buses by name.
    pub buses: BTreeMap<String, Bus>,
    /// Devices by their id at the hub.
    pub devices: BTreeMap<String, Device>,
}

impl Config {
    /// What needs handles beside the connections to the hub.
    pub fn other_handles(&self) -> Others {
        Others { buses: self.buses.len(), views: [&self.metrics, &self.web].into_iter().flatten().count() }
    }
}

/// `[hub]`
#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    /// Host name of the hub, lower case: TLS server name, user name, SAS audience. Empty where every device has its
    /// own, which it is assigned to.
    pub host: String,
    /// The transport of every device that names none.
    pub transport: TransportKind,
    /// Where to connect by each transport, `HOST:PORT`.
    pub addresses: BTreeMap<TransportKind, String>,
    /// An IoT Edge parent to connect to in the hub's place, lower case: TLS server name.
    pub gateway: Option<String>,
    /// Goes before every connection.
    pub proxy: Option<Proxy>,
    /// Trust anchors to use instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `false` only towards a loopback address.
    pub tls: bool,
    /// MQTT keep-alive, 5 s to 1177 s (the hub waits at most 1767 s, 1.5 times that).
    pub keepalive: Duration,
    /// New connections a second over all identities, 1 to 1000.
    pub connect_rate: u32,
    /// `api-version` in the user name.
    pub api_version: String,
    /// Life of a SAS token, 10 s to 1 day.
    pub token_lifetime: Duration,
    /// HTTPS: how long an empty queue is left alone, 1 s to 1 day.
    pub poll_interval: Duration,
}

impl Hub {
    /// Where to connect by a transport, `HOST:PORT`.
    pub fn address(&self, transport: TransportKind) -> &str {
        self.addresses.get(&transport).expect("each transport has an address")
    }

    /// The hub of this name in its place: what devices are assigned to. What was said of where it is, and not of where
    /// the configured one is, holds for it, too.
    #[must_use]
    pub fn assigned(&self, host: &str) -> Hub {
        let usual = |host: &str, kind: TransportKind| format!("{host}:{}", kind.port(self.tls));
        let address = |(kind, address): (&TransportKind, &String)| match *address == usual(&self.host, *kind) {
            true => (*kind, usual(host, *kind)),
            false => (*kind, address.clone()),
        };
        Hub { host: host.to_owned(), addresses: self.addresses.iter().map(address).collect(), ..self.clone() }
    }

    /// The name that is expected in TLS.
    pub fn server_name(&self) -> &str {
        self.gateway.as_deref().unwrap_or(&self.host)
    }
}

/// `[provisioning]`: the Device Provisioning Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioning {
    /// Which instance of the service: what it was given when it was made.
    pub id_scope: String,
    /// Host name, lower case: TLS server name.
    pub host: String,
    /// Where to connect, `HOST:PORT`.
    pub address: String,
    /// Trust anchors to use instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// An HTTP proxy that connections are made through, by CONNECT. `Debug` never shows the password.
#[derive(Clone, PartialEq)]
pub struct Proxy {
    /// `HOST:PORT`
    pub address: String,
    /// `user:password`
    pub credentials: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map(|_| "…");
        f.debug_struct("Proxy").field("address", &self.address).field("credentials", &credentials).finish()
    }
}

/// `[ledger]`
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// The database file.
    pub path: PathBuf,
    /// How long a finished row is kept, 2 to 3650 days.
    pub retention: Duration,
}

/// `[metrics]` or `[web]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Where.
    pub listen: Listen,
    /// Names by which it may be asked, in lower case, beside addresses and the machine's own.
    pub hosts: Vec<String>,
}

/// Where it is listened for whoever looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address of this machine. Port 0: one that the system chooses, which the log tells.
    Tcp(SocketAddr),
    /// A socket in the file system, at most 107 bytes.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "http://{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One `[bus.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Bus {
    /// What kind of line, and where.
    pub kind: BusKind,
    /// How long to wait for an answer, 1 ms to 600 s.
    pub response_timeout: Duration,
    /// Attempts after the first, where repeating is safe: 0 to 10.
    pub retries: u32,
    /// Silence kept after each exchange, 0 to 60 s.
    pub turnaround: Duration,
    /// How long after a request its answer may come, 100 ms to 600 s; `None`: four timeouts, at least 2 s, at most
    /// 10 s.
    pub late_window: Option<Duration>,
    /// How long is waited before another attempt, 0 to 60 s.
    pub retry_pause: Duration,
    /// Whether the line's adapter hears what it sends, and this is to be taken out.
    pub strips_echo: bool,
    /// Silence kept after opening, before the first request, 0 to 60 s.
    pub connect_pause: Duration,
    /// When the open line is closed if there is nothing to ask, up to a day; zero: after each turn.
    pub idle_close: Option<Duration>,
    /// Requests of different units that may be under way at once, 1 to 16; more than one on Modbus TCP only.
    pub max_in_flight: usize,
    /// After how many requests in a row that it left unanswered a unit is away, 1 to 100; 0: never.
    pub unreachable_after: u32,
    /// How long a unit that is away is left alone at first, 100 ms to 1 h.
    pub probe_interval: Duration,
}

/// The kinds of bus.
#[derive(Debug, Clone, PartialEq)]
pub enum BusKind {
    /// Modbus RTU.
    ModbusRtu(Endpoint),
    /// Modbus ASCII.
    ModbusAscii(Endpoint),
    /// Modbus TCP, `HOST:PORT`.
    ModbusTcp {
        /// Where to connect; a name is looked up afresh for each connection.
        address: String,
    },
    /// A line protocol.
    Serial {
        /// Where its line is.
        endpoint: Endpoint,
        /// How what comes is cut into replies.
        cut: Cut,
        /// What wakes the instrument.
        wake: Option<Wake>,
    },
}

/// What is sent before a command after a silence.
#[derive(Debug, Clone, PartialEq)]
pub struct Wake {
    /// As it goes out.
    pub bytes: Vec<u8>,
    /// The silence, 0 s to 1 day.
    pub after: Duration,
}

/// How what comes on a line is cut into replies.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// Into lines, by what ends them.
    Delimiter(Vec<u8>),
    /// Into frames; what is sent stands in one, too.
    Frame(Frame),
}

impl From<Vec<u8>> for Cut {
    fn from(delimiter: Vec<u8>) -> Cut {
        Cut::Delimiter(delimiter)
    }
}

impl BusKind {
    /// The device file of its serial port, if it has one.
    pub fn serial_path(&self) -> Option<&Path> {
        match self {
            BusKind::ModbusRtu(endpoint) | BusKind::ModbusAscii(endpoint) | BusKind::Serial { endpoint, .. } => {
                endpoint.path()
            }
            BusKind::ModbusTcp { .. } => None,
        }
    }

    /// The place, for a person: a device file, or `HOST:PORT`.
    pub fn place(&self) -> String {
        match self {
            BusKind::ModbusRtu(endpoint) | BusKind::ModbusAscii(endpoint) | BusKind::Serial { endpoint, .. } => {
                endpoint.to_string()
            }
            BusKind::ModbusTcp { address } => address.clone(),
        }
    }

    /// Whether Modbus is spoken on it, in one framing or another.
    pub fn is_modbus(&self) -> bool {
        match self {
            BusKind::ModbusRtu(_) | BusKind::ModbusAscii(_) | BusKind::ModbusTcp { .. } => true,
            BusKind::Serial { .. } => false,
        }
    }

    /// Whether what is to be said on the one is understood on the other: a request has its frame already.
    pub fn speaks_as(&self, other: &BusKind) -> bool {
        self.is_modbus() == other.is_modbus() && self.frame() == other.frame()
    }

    fn frame(&self) -> Option<&Frame> {
        match self {
            BusKind::Serial { cut: Cut::Frame(frame), .. } => Some(frame),
            _ => None,
        }
    }

    /// Its name in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            BusKind::ModbusRtu(_) => "modbus-rtu",
            BusKind::ModbusAscii(_) => "modbus-ascii",
            BusKind::ModbusTcp { .. } => "modbus-tcp",
            BusKind::Serial { .. } => "serial",
        }
    }
}

/// Where the line of a bus is.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoint {
    /// A serial port of this machine.
    Serial(SerialPort),
    /// A server at `HOST:PORT` that has a line of its own, and hands bytes on; a name is looked up afresh for each
    /// connection.
    Tcp(String),
}

impl Endpoint {
    /// The device file of a serial port.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Endpoint::Serial(port) => Some(&port.path),
            Endpoint::Tcp(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Serial(port) => write!(f, "{}", port.path.display()),
            Endpoint::Tcp(address) => f.write_str(address),
        }
    }
}

/// A serial port and its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct SerialPort {
    /// Device file.
    pub path: PathBuf,
    /// Bits a second, 50 to 4,000,000.
    pub baud: u32,
    /// Parity.
    pub parity: Parity,
    /// 5 to 8.
    pub data_bits: u8,
    /// 1 or 2.
    pub stop_bits: u8,
    /// How its driver switches the direction of its line, if it is to do that.
    pub rs485: Option<Rs485>,
    /// Whether its adapter is to pass on at once what has come.
    pub low_latency: LowLatency,
}

/// Whether a serial port's driver is asked for low latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LowLatency {
    /// It is, where it knows of it.
    IfPossible,
    /// It is, and somebody wants to know if it does not.
    Wanted,
    /// It is to leave that.
    Unwanted,
}

/// How the driver of a serial port switches the direction of an RS-485 line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rs485 {
    /// RTS is set while it sends; else while it doesn't.
    pub rts_on_send: bool,
    /// Between setting RTS and the first character, 0 to 100 ms.
    pub delay_before: Duration,
    /// Between the last character and setting RTS back, 0 to 100 ms.
    pub delay_after: Duration,
}

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even parity.
    Even,
    /// Odd parity.
    Odd,
}

/// What a device has of its own in the place of its bus's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// How long to wait for its answers, 1 ms to 600 s.
    pub response_timeout: Option<Duration>,
    /// Attempts after the first, where repeating is safe: 0 to 10.
    pub retries: Option<u32>,
    /// Silence kept after each exchange with it, 0 to 60 s.
    pub turnaround: Option<Duration>,
}

/// What becomes of the commands of a device whose unit is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnUnreachable {
    /// They fail at once.
    #[default]
    Fail,
    /// They wait until it is back, or for their deadline.
    Hold,
    /// They stay at the hub, to which the device is not connected meanwhile.
    Mirror,
}

/// One `[device.ID]`
#[derive(Clone, PartialEq)]
pub struct Device {
    /// Its id at the hub.
    pub id: String,
    /// Name of its bus.
    pub bus: String,
    /// Modbus unit id; 0 where the bus has none.
    pub unit: u8,
    /// How it is asked, where otherwise than others on its bus.
    pub patience: Patience,
    /// Whether that is all units of a line, none of which answers.
    pub broadcast: bool,
    /// How it bends the protocol.
    pub quirks: Quirks,
    /// What becomes of its commands while it is away.
    pub on_unreachable: OnUnreachable,
    /// How its messages come.
    pub transport: TransportKind,
    /// Under which id it registers with the service that says which hub it belongs to; `None`: it belongs to
    /// `hub.host`.
    pub registration: Option<String>,
    /// How it proves its identity.
    pub credential: Credential,
    /// The key to try when the hub refuses the first.
    pub secondary: Option<Vec<u8>>,
    /// What its instrument says by itself and is told to the hub.
    pub events: Option<Events>,
    /// When its messages are completed.
    pub settle: Settle,
    /// How long who calls a direct method waits for the end before it is only promised.
    pub method_timeout: Duration,
    /// How its messages are read.
    pub form: std::sync::Arc<Form>,
    /// Its profile's commands by name.
    pub commands: std::sync::Arc<BTreeMap<String, Command>>,
    /// What is read of it again and again, by name.
    pub polls: std::sync::Arc<BTreeMap<String, Poll>>,
}

impl Device {
    /// Its commands for desired properties of its twin, by the names of these.
    pub fn desired(&self) -> BTreeMap<String, String> {
        let named = |(name, command): (&String, &Command)| Some((command.desired.clone()?, name.clone()));
        self.commands.iter().filter_map(named).collect()
    }
}

/// How an identity is proven. `Debug` never shows the secret.
#[derive(Clone, PartialEq)]
pub enum Credential {
    /// Symmetric device key, decoded.
    Key(Vec<u8>),
    /// X.509 client certificate: PEM files.
    Certificate {
        /// Certificate chain, leaf first.
        cert_file: PathBuf,
        /// Private key.
        key_file: PathBuf,
        /// SHA-256 of what stood in both, so that a certificate that was renewed in its place is known as another one.
        contents: [u8; 32],
    },
}

/// The path of a key as TOML writes it, for [`Origins`] and [`Problem`].
pub fn key_path(parts: &[&str]) -> String {
    parts.iter().fold(String::new(), |path, part| tree::join(&path, part))
}

/// What is wrong with a name of the user's own, if anything.
fn check_name(name: &str) -> Result<(), Complaint> {
    if name.is_empty() {
        return Err(Complaint::new("has an empty name", "give it one"));
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(Complaint::new(format!("has a name longer than {NAME_CHARS_MAX} characters"), "shorten it"));
    }
    if name.chars().any(char::is_control) {
        return Err(Complaint::new("has a name with a control character in it", "remove that"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_said_on_one_bus_is_understood_on_another_of_the_same_protocol_and_frame() {
        use crate::peripheral::frame::Ends;
        let endpoint = || Endpoint::Tcp("a:1".into());
        let line = |cut| BusKind::Serial { endpoint: endpoint(), cut, wake: None };
        let frame = |ends| Cut::Frame(Frame { start: vec![2], end: vec![3], ends, escape: None, checksum: None });
        let kinds = [
            line(frame(Ends::AtItsEnd)),
            line(frame(Ends::Fixed(9))),
            line(b"\n".to_vec().into()),
            BusKind::ModbusRtu(endpoint()),
        ];
        for (at, kind) in kinds.iter().enumerate() {
            assert!(
                kinds.iter().enumerate().all(|(other, kind_of)| kind.speaks_as(kind_of) == (at == other)),
                "{kind:?}"
            );
        }
        assert!(line(b"\n".to_vec().into()).speaks_as(&line(b"\r".to_vec().into())));
        assert!(BusKind::ModbusAscii(endpoint()).speaks_as(&BusKind::ModbusTcp { address: "a:1".into() }));
    }

    #[test]
    fn a_key_is_never_shown() {
        let shown = format!("{:?}", Credential::Key(b"secret".to_vec()));
        assert_eq!(shown, "Key(…)");
    }
}
