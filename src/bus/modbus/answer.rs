//! What a whole answer of a unit comes to.

use crate::bus::call::Wire;
use crate::bus::modbus::pdu::{Pdu, Said};
use crate::bus::port;
use crate::peripheral::exchange::Refusal;
use crate::peripheral::quirks::{Quirk, Quirks};

/// The end of an exchange in which this came, of the unit that was asked.
pub(in crate::bus) fn ended(unit: u8, quirks: Quirks, asked: &Pdu, answer: &[u8]) -> Wire {
    match asked.understand(answer, quirks).map(Said::answer) {
        Ok(Ok(answer)) => Wire::Answered(answer),
        Ok(Err(code)) => Wire::Refused(Refusal::Exception(code)),
        Err(why) => {
            let hint = needed(quirks, asked, answer).map_or_else(String::new, Quirks::hint);
            Wire::BadReply(format!("the answer of unit {unit} {why}: {}{hint}", port::hex(answer)))
        }
    }
}

/// The quirks that a unit would have to be said to have, so that this is an answer to what it was asked; `None` if none
/// are enough.
pub(in crate::bus) fn needed(quirks: Quirks, asked: &Pdu, answer: &[u8]) -> Option<Quirks> {
    let (length, echo) = (quirks.and(Quirk::Length), quirks.and(Quirk::Echo));
    let all = [quirks, length, echo, length.and(Quirk::Echo)];
    let enough = all.into_iter().find(|quirks| asked.understand(answer, *quirks).is_ok());
    enough.or_else(|| asked.is_cut_exception(answer).then_some(length))
}
