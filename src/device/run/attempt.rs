//! One attempt at a command: all of its requests in a row, in the one turn that is held.
//!
//! Invariants
//! - What a write is made of is read in the same turn, anew for each attempt: nobody comes between.
//! - A write has begun with the first byte of its own, not with one of what is read before it (G13). What is behind it
//!   in a row is not given up for a deadline, and ends with what has been done once a lock keeps it back.

use tokio::time::Instant;

use super::{unless_called_off, unless_locked_out, Gate, Part, Plan, Progress, Ran};
use crate::bus::call::{Call, Wire};
use crate::bus::Turn;
use crate::command::decide::Attempt;
use crate::command::outcome::Outcome;
use crate::peripheral::exchange::Request;
use crate::peripheral::{Action, Prepared};
use crate::proof::crash;

/// Numbers of requests below this are those of the parts; what is read first has one of its own each time.
const FIRST_READS: u32 = 1 << 16;

/// What a command has asked so far.
pub(super) struct Sent {
    /// The requests proper, as they were sent last, or are to be.
    pub(super) made: Vec<Prepared>,
    /// How often something was read first.
    reads: u32,
}

impl Sent {
    pub(super) fn nothing(parts: &[Part]) -> Sent {
        Sent { made: parts.iter().map(|part| part.prepared.clone()).collect(), reads: 0 }
    }
}

impl Plan<'_> {
    /// The first request of the next attempt.
    pub(super) fn first_call(&self, sent: &Sent) -> Call {
        let part = &self.parts[0];
        let number = if part.prepared.is_first() { FIRST_READS + sent.reads } else { 0 };
        self.request(part, part.prepared.request.clone(), number)
    }

    /// Makes all requests in a row, as far as each is confirmed. Gives the end of the whole, and whether a byte of it
    /// has left.
    pub(super) async fn attempt(
        &self,
        held: &mut Turn,
        gate: &mut impl Gate,
        progress: Progress,
        sent: &mut Sent,
    ) -> Result<(Attempt, bool), Ran> {
        let of = self.parts.len();
        let (mut value, mut left, mut all_shown) = (None, false, true);
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                crash::point(crash::Point::BetweenSteps);
            }
            let progress = if left { Progress::OnTheWire } else { progress };
            let (attempt, has_left) = match self.part(at, held, gate, progress, sent).await {
                // What was done stays done, whatever keeps the rest of it back.
                Err(Ran::Finished(Outcome { fault: Some(fault), .. }, _)) if left => (Attempt::NotSent(fault), false),
                ended => ended?,
            };
            left |= has_left;
            all_shown &= matches!(attempt, Attempt::Shown(_)) || part.command.read_back.is_none();
            match attempt {
                Attempt::Confirmed(found) | Attempt::Shown(found) if of == 1 || part.command.fixed.is_none() => {
                    value = found;
                }
                Attempt::Confirmed(_) | Attempt::Shown(_) => {}
                Attempt::Broadcast(_) if at + 1 < of => {}
                other => {
                    let shows = part.command.read_back.is_some();
                    return Ok((other.at_step(at + 1, of, shows), left));
                }
            }
        }
        Ok((if all_shown { Attempt::Shown(value) } else { Attempt::Confirmed(value) }, left))
    }

    /// One request, behind what is read first for it.
    async fn part(
        &self,
        at: usize,
        held: &mut Turn,
        gate: &mut impl Gate,
        mut progress: Progress,
        sent: &mut Sent,
    ) -> Result<(Attempt, bool), Ran> {
        let part = &self.parts[at];
        let mut prepared = part.prepared.clone();
        if prepared.is_first() {
            let is_read = matches!(part.command.action, Action::Read(_));
            let call = self.request(part, prepared.request.clone(), FIRST_READS + sent.reads);
            sent.reads += 1;
            let wire = self.put(call, held, gate, progress).await?;
            let has_left = is_read && !matches!(wire, Wire::NotSent(_));
            prepared = match wire {
                Wire::Answered(answer) => match part.command.follow(&prepared, &answer) {
                    Ok(next) => next,
                    Err(fault) => return Ok((Attempt::Refused(fault), has_left)),
                },
                wire => {
                    let attempt = self.ended(part, &prepared, wire, held.owes());
                    return Ok((if is_read { attempt } else { attempt.before_a_write() }, has_left));
                }
            };
            crash::point(crash::Point::FirstRead);
            progress = if is_read { Progress::OnTheWire } else { progress };
        }
        let number = u32::try_from(at).unwrap_or(FIRST_READS);
        let wire = self.put(self.request(part, prepared.request.clone(), number), held, gate, progress).await?;
        let left = !matches!(wire, Wire::NotSent(_));
        let attempt = self.ended(part, &prepared, wire, held.owes());
        sent.made[at] = prepared;
        Ok((attempt, left))
    }

    fn request(&self, part: &Part, request: Request, number: u32) -> Call {
        // A write's own timeout is for what it sets in motion.
        let is_read = matches!(part.command.action, Action::Read(_));
        let is_own = is_read || number < FIRST_READS;
        Call { timeout: self.command.timeout.filter(|_| is_own), part: number, ..self.call(request) }
    }

    /// One exchange. As long as nothing of the command has left, the gate can call it off. A lock can do so before the
    /// first byte of each.
    async fn put(&self, call: Call, held: &mut Turn, gate: &mut impl Gate, progress: Progress) -> Result<Wire, Ran> {
        let permit = gate.permit();
        if progress == Progress::OnTheWire {
            let call = Call { permit, ..call };
            let wire = held.exchange(&call).await;
            note_time(gate, &call);
            return unless_locked_out(gate, wire);
        }
        let not_after = gate.not_after();
        let call = Call { permit, not_after: Some(not_after), ..call };
        let mut exchange = std::pin::pin!(held.exchange(&call));
        let wire = match unless_called_off(gate, progress, exchange.as_mut()).await {
            Ok(wire) => wire,
            Err(ran) if call.permit.take_back() => return Err(ran),
            Err(_) => exchange.await,
        };
        note_time(gate, &call);
        match wire {
            Wire::NotSent(_) if Instant::now() >= not_after => Err(Ran::Finished(gate.expired(), 0)),
            wire => unless_locked_out(gate, wire),
        }
    }
}

fn note_time(gate: &mut impl Gate, call: &Call) {
    if let Some(at) = call.permit.used_at() {
        gate.has_left(at);
    }
}
