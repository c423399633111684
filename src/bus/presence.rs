//! Who on a bus is there: what is known of each unit, or of each device of a line of text, for whoever wants to ask it.
//! What follows from what is decided in `bus::breaker`.
//!
//! Invariants
//! - The worker alone notes how exchanges end, and before the next one can begin: who holds the bus knows how things
//!   stand.
//! - New settings of a bus begin with nothing known.
//! - Parties are bounded: a unit's id is a byte; of devices beyond so many nothing is kept, and they are never away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::breaker::{Breaker, Change, Leave, Rule, Sign};
use crate::bus::call::{at, Call, Wire};
use crate::bus::link::{Ended, Lost};
use crate::config::{Bus, BusKind};
use crate::peripheral::exception;
use crate::peripheral::exchange::Refusal;

/// Parties that are known at once.
const PARTIES_MAX: usize = 4096;

/// Who is asked: two devices that share a unit are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A Modbus unit.
    Unit(u8),
    /// A device on a line of text, which has no units.
    Device(Arc<str>),
}

impl Party {
    /// That of a device on a bus of this kind, which has this unit there.
    pub fn of(kind: &BusKind, unit: u8, device: &Arc<str>) -> Party {
        match kind.is_modbus() {
            true => Party::Unit(unit),
            false => Party::Device(device.clone()),
        }
    }
}

/// What is known of the parties of one bus. Clones are one.
#[derive(Debug, Clone)]
pub struct Presence(Arc<watch::Sender<Known>>);

#[derive(Debug)]
struct Known {
    rule: Rule,
    parties: BTreeMap<Party, Breaker>,
    /// Attempts that leave was given for.
    attempts: u64,
}

/// How things stand with one party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is there; `None`: it has shown neither.
    pub present: Option<bool>,
    /// Since when it is away.
    pub away_since: Option<Instant>,
    /// When it is tried next, if it is away and nobody tries.
    pub tried_at: Option<Instant>,
    /// Requests in a row that it has left unanswered.
    pub unanswered: u32,
}

/// Leave to ask somebody. Of who is away it is for one attempt, and nobody else has one until it is dropped.
#[derive(Debug)]
pub struct Pass {
    presence: Presence,
    party: Party,
    attempt: Option<u64>,
}

impl Presence {
    /// Nothing is known.
    pub(in crate::bus) fn new(settings: &Bus) -> Presence {
        let known = Known { rule: rule(settings), parties: BTreeMap::new(), attempts: 0 };
        Presence(Arc::new(watch::Sender::new(known)))
    }

    /// Nothing is known any more.
    pub(in crate::bus) fn forget(&self, settings: &Bus) {
        self.0.send_modify(|known| {
            known.rule = rule(settings);
            known.parties.clear();
        });
    }

    /// An exchange has ended. What that has changed, and since when who is back was away.
    pub(in crate::bus) fn ended(&self, party: Party, sign: Sign) -> Option<(Change, Option<Duration>)> {
        let mut change = None;
        self.0.send_if_modified(|known| {
            if !known.parties.contains_key(&party) && known.parties.len() >= PARTIES_MAX {
                return false;
            }
            let breaker = known.parties.entry(party).or_default();
            let away_since = breaker.away_since();
            let changed = breaker.ended(sign, known.rule, Instant::now().into_std());
            change = changed.map(|change| (change, away_since.map(|since| since.elapsed())));
            away_since.is_some() || changed.is_some()
        });
        change
    }

    /// How things stand.
    pub fn standing(&self, party: &Party) -> Standing {
        let known = self.0.borrow();
        let breaker = known.parties.get(party).cloned().unwrap_or_default();
        Standing {
            present: breaker.is_present(),
            away_since: breaker.away_since().map(Instant::from_std),
            tried_at: breaker.tried_at().map(Instant::from_std),
            unanswered: breaker.unanswered(),
        }
    }

    /// Whether it is away.
    pub fn is_away(&self, party: &Party) -> bool {
        self.0.borrow().parties.get(party).is_some_and(|breaker| breaker.away_since().is_some())
    }

    /// Leave to ask it now, if there is.
    pub fn pass(&self, party: &Party) -> Option<Pass> {
        let mut attempt = None;
        let mut is_given = true;
        self.0.send_if_modified(|known| {
            let Some(breaker) = known.parties.get_mut(party) else { return false };
            known.attempts += 1;
            match breaker.leave(known.attempts, Instant::now().into_std()) {
                Leave::Given => {}
                Leave::Once => attempt = Some(known.attempts),
                Leave::NotBefore(_) | Leave::Tried => is_given = false,
            }
            attempt.is_some()
        });
        is_given.then(|| Pass { presence: self.clone(), party: party.clone(), attempt })
    }

    /// Returns when leave to ask it may be had. Cancel-safe.
    pub async fn may_be_asked(&self, party: &Party) {
        self.comes_to(party, |standing| match (standing.away_since, standing.tried_at) {
            (None, _) => Some(Instant::now()),
            (Some(_), tried_at) => tried_at,
        })
        .await;
    }

    /// Returns when it is away and may be tried. Cancel-safe.
    pub async fn is_to_be_tried(&self, party: &Party) {
        self.comes_to(party, |standing| standing.tried_at).await;
    }

    /// Returns when it is away, and not to be tried at that moment. Cancel-safe.
    pub async fn is_barred(&self, party: &Party) {
        self.comes_to(party, |standing| {
            let is_due = standing.tried_at.is_some_and(|at| at <= Instant::now());
            standing.away_since.filter(|_| !is_due)
        })
        .await;
    }

    /// Returns when it is away. Cancel-safe.
    pub async fn is_gone(&self, party: &Party) {
        self.comes_to(party, |standing| standing.away_since).await;
    }

    /// Returns at the time that is named, as things stand then. Cancel-safe.
    pub async fn comes_to(&self, party: &Party, time: impl Fn(Standing) -> Option<Instant>) {
        let mut changes = self.0.subscribe();
        loop {
            changes.mark_unchanged();
            let due = time(self.standing(party));
            if due.is_some_and(|due| due <= Instant::now()) {
                return;
            }
            tokio::select! {
                // The sender is held here.
                _ = changes.changed() => {}
                () = at(due) => {}
            }
        }
    }
}

impl Pass {
    /// Whether it is for one attempt at somebody who is away.
    pub fn is_for_one_attempt(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether it does not count any more: who was there is away.
    pub fn has_lapsed(&self) -> bool {
        self.attempt.is_none() && self.presence.is_away(&self.party)
    }

    /// Returns when it does not count any more. Cancel-safe.
    pub async fn lapses(&self) {
        match self.attempt {
            None => self.presence.is_gone(&self.party).await,
            Some(_) => std::future::pending().await,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(attempt) = self.attempt else { return };
        let gives_up = |breaker: &mut Breaker| breaker.give_up(attempt);
        self.presence.0.send_if_modified(|known| known.parties.get_mut(&self.party).is_some_and(gives_up));
    }
}

fn rule(settings: &Bus) -> Rule {
    Rule { after: settings.unreachable_after, interval: settings.probe_interval }
}

/// What the end of an exchange says of who was asked, if anything. What is asked for nobody's command is no reason to
/// think somebody away.
pub(in crate::bus) fn sign(call: &Call, ended: &Ended) -> Option<Sign> {
    let sign = match (&ended.wire, &ended.lost) {
        (Wire::Broadcast, _) => return None,
        (Wire::NotSent(_), _) => Sign::NotSent,
        (Wire::NoAnswer(_), None | Some(Lost::Timeout { heard: false })) => Sign::Silent,
        (Wire::NoAnswer(_), Some(Lost::Timeout { heard: true })) => Sign::Answered,
        // The line was lost under way.
        (Wire::NoAnswer(_), Some(Lost::Gone(_) | Lost::Idle)) => Sign::NotSent,
        // A gateway's word for silence, and for having no way to who was asked.
        (Wire::Refused(Refusal::Exception(exception::NO_RESPONSE | exception::NO_PATH)), _) => Sign::Silent,
        (Wire::Answered(_) | Wire::Refused(_) | Wire::BadReply(_), _) => Sign::Answered,
    };
    (call.of.is_some() || sign == Sign::Answered).then_some(sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peripheral::exchange::{Answer, Request};

    #[test]
    fn only_silence_is_silence_and_any_byte_an_answer() {
        let told = || "because".to_owned();
        let gone = || Some(Lost::Gone(told()));
        let refused = |code| Wire::Refused(Refusal::Exception(code));
        for (wire, lost, expected) in [
            (Wire::Answered(Answer::Written), None, Some(Sign::Answered)),
            (refused(2), None, Some(Sign::Answered)),
            (refused(10), None, Some(Sign::Silent)),
            (refused(11), None, Some(Sign::Silent)),
            (Wire::Refused(Refusal::Text(told())), None, Some(Sign::Answered)),
            (Wire::BadReply(told()), Some(Lost::Idle), Some(Sign::Answered)),
            (Wire::BadReply(told()), None, Some(Sign::Answered)),
            (Wire::NoAnswer(told()), None, Some(Sign::Silent)),
            (Wire::NoAnswer(told()), Some(Lost::Timeout { heard: false }), Some(Sign::Silent)),
            (Wire::NoAnswer(told()), Some(Lost::Timeout { heard: true }), Some(Sign::Answered)),
            (Wire::NoAnswer(told()), Some(Lost::Idle), Some(Sign::NotSent)),
            (Wire::NoAnswer(told()), gone(), Some(Sign::NotSent)),
            (Wire::NotSent(told()), gone(), Some(Sign::NotSent)),
            (Wire::Broadcast, None, None),
        ] {
            let request = Request::ReadWords { holding: true, address: 0, count: 1 };
            let call = Call { of: Some("pump".into()), ..Call::new(7, request) };
            let ended = Ended { wire, lost };
            assert_eq!(sign(&call, &ended), expected, "{ended:?}");
            let of_nobody = expected.filter(|sign| *sign == Sign::Answered);
            assert_eq!(sign(&Call { of: None, ..call }, &ended), of_nobody, "{ended:?}");
        }
    }
}
