//! What a person sees of a bus while others use it: what stands in a device's tables, by a read of its own
//! (`registers`); what it may mean (`meanings`); which units there are (`scan`);
//! what goes over a line ([`Watched`]).
//!
//! Invariants
//! - Nothing is written to a peripheral: what is asked is a Modbus read, and to a line of text nothing is sent.
//! - Each question is one request on a turn of its own, in the order of arrival like any command, and has a limit.

mod meanings;
mod registers;
pub mod scan;

pub use meanings::meanings;
pub use registers::{read, Piece, Registers};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::tap::Heard;
use crate::config::{Bus, BusKind};

/// How long the bus may keep a question waiting: for its turn, and again for a line on which a late answer may come.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// The unit that all hear and none answers on a serial line (Modbus over Serial Line V1.02, 2.2).
const BROADCAST: u8 = 0;

/// What has gone over a bus's line, as the daemon tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// The kind of the bus, by its name in the configuration.
    pub kind: String,
    /// What has gone over it.
    pub heard: Heard,
}

/// Why a unit of a bus can't be read, whatever it is: a sentence.
fn unreadable(bus: &Bus, unit: u8) -> Option<&'static str> {
    match &bus.kind {
        BusKind::Serial { .. } => {
            Some("a bus of kind serial carries lines of text, and there are no registers to read")
        }
        BusKind::ModbusRtu(_) | BusKind::ModbusAscii(_) if unit == BROADCAST => {
            Some("unit 0 is broadcast on a serial line: all units hear it, and none answers")
        }
        BusKind::ModbusRtu(_) | BusKind::ModbusAscii(_) | BusKind::ModbusTcp { .. } => None,
    }
}

/// That there is no bus of this name, but others.
pub fn no_bus<'a>(name: &str, others: impl Iterator<Item = &'a String>) -> String {
    let others: Vec<&str> = others.map(String::as_str).collect();
    match others.is_empty() {
        true => format!("no bus is called {name:?}"),
        false => format!("no bus is called {name:?}; there are: {}", others.join(", ")),
    }
}
