//! What a whole answer of a unit comes to.

use crate::bus::call::Wire;
use crate::bus::modbus::pdu::{Pdu, Said};
use crate::bus::port;
use crate::peripheral::exchange::Refusal;

/// The end of an exchange in which this came, of the unit that was asked.
pub(in crate::bus) fn ended(unit: u8, asked: &Pdu, answer: &[u8]) -> Wire {
    match asked.understand(answer).map(Said::answer) {
        Ok(Ok(answer)) => Wire::Answered(answer),
        Ok(Err(code)) => Wire::Refused(Refusal::Exception(code)),
        Err(why) => Wire::BadReply(format!("the answer of unit {unit} {why}: {}", port::hex(answer))),
    }
}
