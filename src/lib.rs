//! fieldbridge: an edge gateway between Azure IoT Hub and serial or Modbus peripherals.
//!
//! The life of one command, which is also the order of the modules:
//!
//! 1. [`hub`] receives a cloud-to-device message and makes a delivery of it, with a ticket that can complete it.
//! 2. [`device`] takes a device's deliveries in their order, and asks the [`ledger`] what is known of each.
//! 3. [`command`] decides, without any I/O, what it leads to: complete it, reject it, or run it, and in which steps.
//! 4. [`device::run`] carries the steps out: [`peripheral`] gives the command its registers or its line, [`bus`]
//!    puts it on the wire, when the ledger has what must be known before.
//! 5. The [`ledger`] takes the outcome and its result event in one transaction; its receipt lets the ticket complete
//!    the message.
//! 6. [`hub`] acknowledges the message, in order, if the connection that brought it still stands, and publishes the
//!    event until the hub has it.
//!
//! Around it stand [`config`], [`gateway`] (what runs, and in which order it stops), [`systemd`], [`operate`] and
//! [`view`].
//! [`proof::crash`] names the places between any two of these steps, for the tests to strike.

// Tests may unwrap; the program says what it relies on.
#![warn(clippy::unwrap_used)]

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod certificate;
pub mod complaint;
pub mod exit;
pub mod handles;
pub mod health;
pub mod log;
pub mod net;
pub mod proof;
pub mod systemd;
pub mod time;

pub mod command;
pub mod config;
pub mod ledger;
pub mod peripheral;
pub mod telemetry;

pub mod bus;
pub mod device;
pub mod hub;
pub mod import;
pub mod polling;
pub mod provisioning;

pub mod cli;
pub mod doctor;
pub mod gateway;
pub mod operate;
pub mod setup;
pub mod view;

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;

#[cfg(feature = "backend")]
pub mod backend;
#[cfg(feature = "demo")]
pub mod demo;
