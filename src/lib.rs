//! fieldbridge: an edge gateway between Azure IoT Hub and serial or Modbus peripherals.

pub mod bus;
pub mod clock;
pub mod command;
pub mod config;
pub mod peripheral;
#[cfg(feature = "demo")]
pub mod sim;
