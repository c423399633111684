//! What goes over the wires. Proves G3, G8, G11, G12 and G13 at the line.
//!
//! - `modbus_rtu`, `modbus_ascii`, `modbus_tcp`, `serial`: the bus of the library, against peers that are scripted byte
//!   by byte.
//! - `pymodbus`: the same, against a slave that is not ours.
//! - `read_back`, `late_answers`, `values`: the built daemon, from a hub to a slave and back.
//! - `troubleshooting`: what the built daemon says of each trouble, and what the page of them has.

#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

#[path = "../peers/mod.rs"]
mod peers;
#[path = "../support/mod.rs"]
mod support;

mod late_answers;
mod modbus_ascii;
mod modbus_rtu;
mod modbus_tcp;
mod pymodbus;
mod read_back;
mod serial;
mod troubleshooting;
mod values;
