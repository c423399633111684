//! What goes over the wires. Proves G3, G8, G11, G12 and G13 at the line.
//!
//! - `modbus_line`, `modbus_rtu`, `modbus_ascii`, `modbus_tcp`, `serial`, `framed`: the bus of the library, against
//!   peers that are scripted byte by byte.
//! - `events`: what an instrument says by itself, beside answers.
//! - `in_flight`: several requests at once on one connection.
//! - `quirks`: the same, against peers that bend the protocol.
//! - `broadcast`: what goes to all units of a line, at the line and through the built daemon.
//! - `scan`: which units are there, against such peers.
//! - `pymodbus`: the same, against a slave that is not ours.
//! - `libmodbus`: the built daemon, against another one, and beside a master that is not ours.
//! - `watch`: the built program, which shows what goes over a line.
//! - `captures`: what Wireshark makes of what that has captured.
//! - `read_back`, `late_answers`, `values`: the built daemon, from a hub to a slave and back.
//! - `troubleshooting`: what the built daemon says of each trouble, and what the page of them has.
//! - `sequences`: the built daemon, with what is asked in a row.
//! - `profiles`: the built daemon, with each profile that is shipped, against what its manual says.

#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

#[path = "../peers/mod.rs"]
mod peers;
#[path = "../support/mod.rs"]
mod support;

mod broadcast;
mod captures;
mod events;
mod framed;
mod in_flight;
mod late_answers;
mod libmodbus;
mod modbus_ascii;
mod modbus_line;
mod modbus_rtu;
mod modbus_tcp;
mod profiles;
mod pymodbus;
mod quirks;
mod read_back;
mod scan;
mod sequences;
mod serial;
mod troubleshooting;
mod values;
mod watch;
