//! The configuration: files, drop-ins and environment in, a checked [`Config`] or every [`Problem`] out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::peripheral::Command;

/// A configuration in which every reference resolves and every value is in range.
#[derive(Debug, Clone)]
pub struct Config {
    /// The hub and how to reach it.
    pub hub: Hub,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// The ledger file.
    pub ledger: Ledger,
    /// Buses by name.
    pub buses: BTreeMap<String, Bus>,
    /// Devices by their id at the hub.
    pub devices: BTreeMap<String, Device>,
}

/// `[hub]`
#[derive(Debug, Clone)]
pub struct Hub {
    /// Host name of the hub, lower case: TLS server name, user name, SAS audience.
    pub host: String,
    /// Where to connect, `HOST:PORT`; default `host:8883`.
    pub address: String,
    /// Trust anchors to use instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `false` only towards a loopback address.
    pub tls: bool,
    /// MQTT keep-alive, 5 s to 1177 s (the hub waits at most 1767 s, 1.5 times that).
    pub keepalive: Duration,
    /// New connections a second over all identities.
    pub connect_rate: u32,
    /// `api-version` in the user name.
    pub api_version: String,
    /// Life of a SAS token.
    pub token_lifetime: Duration,
}

/// `[ledger]`
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The database file.
    pub path: PathBuf,
    /// How long a finished row is kept, at least 2 days.
    pub retention: Duration,
}

/// One `[bus.NAME]`
#[derive(Debug, Clone)]
pub struct Bus {
    /// What kind of line, and where.
    pub kind: BusKind,
    /// How long to wait for an answer.
    pub response_timeout: Duration,
    /// Attempts after the first, where repeating is safe.
    pub retries: u32,
    /// Silence kept after each exchange.
    pub turnaround: Duration,
}

/// The kinds of bus.
#[derive(Debug, Clone)]
pub enum BusKind {
    /// Modbus RTU on a serial port.
    ModbusRtu(SerialPort),
    /// Modbus TCP, `HOST:PORT`.
    ModbusTcp {
        /// Where to connect; a name is looked up afresh for each connection.
        address: String,
    },
    /// A line protocol on a serial port.
    Serial {
        /// The port.
        port: SerialPort,
        /// How a reply ends.
        delimiter: Vec<u8>,
    },
}

/// A serial port and its settings.
#[derive(Debug, Clone)]
pub struct SerialPort {
    /// Device file.
    pub path: PathBuf,
    /// Bits a second.
    pub baud: u32,
    /// Parity.
    pub parity: Parity,
    /// 5 to 8.
    pub data_bits: u8,
    /// 1 or 2.
    pub stop_bits: u8,
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

/// One `[device.ID]`
#[derive(Debug, Clone)]
pub struct Device {
    /// Its id at the hub.
    pub id: String,
    /// Name of its bus.
    pub bus: String,
    /// Modbus unit id; 0 where the bus has none.
    pub unit: u8,
    /// How it proves its identity.
    pub credential: Credential,
    /// When its messages are completed.
    pub settle: Settle,
    /// Its profile's commands by name.
    pub commands: std::sync::Arc<BTreeMap<String, Command>>,
}

/// When a message is completed at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// After a final state is durable.
    AfterExecution,
    /// After `accepted` is durable.
    AfterAccept,
}

/// How an identity is proven. `Debug` never shows the secret.
#[derive(Clone)]
pub enum Credential {
    /// Symmetric device key, decoded.
    Key(Vec<u8>),
    /// X.509 client certificate: PEM files.
    Certificate {
        /// Certificate chain, leaf first.
        cert_file: PathBuf,
        /// Private key.
        key_file: PathBuf,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(_) => f.write_str("Key(…)"),
            Self::Certificate { cert_file, .. } => {
                f.debug_struct("Certificate").field("cert_file", cert_file).finish_non_exhaustive()
            }
        }
    }
}

/// Something wrong in the configuration, with the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `environment`.
    pub source: String,
    /// Key path as written in TOML, e.g. `device.pump-7.bus`; empty for a whole file.
    pub key: String,
    /// What is wrong and what to do.
    pub why: String,
}

/// Whether an address is certain to stay on this machine.
pub fn is_loopback(address: &str) -> bool {
    address.parse::<SocketAddr>().map(|a| a.ip().is_loopback()).unwrap_or_else(|_| {
        address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost")
    })
}
