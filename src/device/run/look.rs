//! One look at what a command has written: whether it shows everywhere where it is to show.
//!
//! Invariants
//! - Between two looks, and between two places that are looked at, others have the bus.
//! - What scales a value is read in the turn in which the value is.

use super::attempt::Sent;
use super::away::Asking;
use super::{shown, Part, Plan};
use crate::bus::call::{Call, Wire};
use crate::bus::Turn;
use crate::command::decide::{Attempt, ReadBack};
use crate::command::outcome::{Code, Fault};
use crate::peripheral::exchange::{Answer, Request};
use crate::peripheral::{Found, Prepared, Rule};

/// The number of the read of a scale register, among the requests of one place.
const OF_SCALE: u32 = 1 << 16;

/// One place that is looked at.
struct Place<'a> {
    part: &'a Part<'a>,
    rule: &'a Rule,
    /// As it was written.
    written: &'a Prepared,
    /// Its number among the parts.
    number: u32,
    unit: u8,
}

impl Plan<'_> {
    /// Looks whether everything shows that can be read back, on each unit that is to show it, as far as it does.
    pub(super) async fn read_back(
        &self,
        sent: &Sent,
        turn: &mut Option<Turn>,
        asking: &Asking<'_>,
        look: u32,
    ) -> ReadBack {
        let mut places = 0;
        for (at, (part, written)) in self.parts.iter().zip(&sent.made).enumerate() {
            let Some(rule) = &part.command.read_back else { continue };
            let own = [self.device.unit];
            let units = if rule.units.is_empty() { &own[..] } else { &rule.units[..] };
            for unit in units {
                if places > 0 {
                    *turn = None;
                }
                places += 1;
                let number = u32::try_from(at).unwrap_or_default();
                let place = Place { part, rule, written, number, unit: *unit };
                let found = self.look_at(&place, turn, asking, look).await;
                if found != ReadBack::Same {
                    let unit = (!rule.units.is_empty()).then_some(*unit);
                    return named(found, (at + 1, self.parts.len()), unit);
                }
            }
        }
        match places {
            0 => {
                let why = "this command has no `read_back` any more";
                ReadBack::Unknown(Fault::new(Code::Interrupted, why))
            }
            _ => ReadBack::Same,
        }
    }

    /// One look at one place, in the turn that is held, or in one of its own.
    async fn look_at(&self, place: &Place<'_>, turn: &mut Option<Turn>, asking: &Asking<'_>, look: u32) -> ReadBack {
        let held = match turn {
            Some(held) => held,
            None => match asking.turn_at_once().await {
                Ok(granted) => turn.insert(granted),
                Err(closed) => return ReadBack::Unknown(Fault::new(Code::BusUnavailable, closed.to_string())),
            },
        };
        let Place { part, rule, written, number, unit } = *place;
        // A write's own timeout is for what it sets in motion.
        let call = |request: Request, part| Call { unit, look, part, ..self.call(request) };
        let no_reply = |why| Fault::new(Code::BadReply, why);
        let looked = async {
            let exponent = match &rule.point.scale_register {
                Some(scale) => {
                    let wire = held.exchange(&call(scale.read(), OF_SCALE + number)).await;
                    scale.exponent(&self.answer(place, wire)?).map_err(no_reply)?
                }
                None => 0,
            };
            let wire = held.exchange(&call(rule.point.read(), number)).await;
            part.command.found_by(written, exponent, &self.answer(place, wire)?).map_err(no_reply)
        };
        match looked.await {
            Ok(Found { fits: true, .. }) => ReadBack::Same,
            Ok(Found { value, .. }) => {
                ReadBack::Other(format!("read back {value} where {} was to stand", shown(&written.written)))
            }
            Err(fault) => ReadBack::Unknown(fault),
        }
    }

    fn answer(&self, place: &Place, wire: Wire) -> Result<Answer, Fault> {
        match wire {
            Wire::Answered(answer) => Ok(answer),
            other => match self.ended(place.part, place.written, other, true) {
                Attempt::Refused(fault)
                | Attempt::Busy { fault, .. }
                | Attempt::NotSent(fault)
                | Attempt::NoPath(fault)
                | Attempt::Unclear(fault)
                | Attempt::Unconfirmed(fault)
                | Attempt::Broadcast(fault)
                | Attempt::Broken { fault, .. }
                | Attempt::Lost { fault, .. } => Err(fault),
                Attempt::Confirmed(_) | Attempt::Shown(_) => unreachable!("only an answer confirms"),
            },
        }
    }
}

/// What was found, with where that was, as far as there are several.
fn named(found: ReadBack, (step, of): (usize, usize), unit: Option<u8>) -> ReadBack {
    let step = if of > 1 { format!("step {step} of {of}: ") } else { String::new() };
    let unit = unit.map_or_else(String::new, |unit| format!("unit {unit}: "));
    match found {
        ReadBack::Same => ReadBack::Same,
        ReadBack::Other(what) => ReadBack::Other(format!("{step}{unit}{what}")),
        ReadBack::Unknown(fault) => {
            let message = format!("{step}{unit}{}", fault.message);
            ReadBack::Unknown(Fault { message, ..fault })
        }
    }
}
