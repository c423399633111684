//! Modbus on a line (RTU) or over TCP: frames, what an answer says, and which answers are still owed.

pub(in crate::bus) mod codec;
pub(in crate::bus) mod frame;
pub(in crate::bus) mod late;
pub(in crate::bus) mod rtu;
pub(in crate::bus) mod tcp;
