//! Whose turn it is on a bus, and what is sent next. Pure: no channel, no clock, no line. What the line says of a call
//! is asked through [`Manners`], and times are answers.
//!
//! ```text
//! give ──► holder ──ask──► due ──► sent ──► end
//!             │  ▲
//!       waits │  │ ready
//!             ▼  │
//!            parked, in order
//! ```
//!
//! Invariants
//! - One turn holds the bus. Others are given in the order in which they were asked for.
//! - A turn whose first request must wait for a late answer to come or to lapse is parked meanwhile, so that a silent
//!   unit holds up nobody but itself. Of those parked the first that may go is the next.
//! - A turn of which something was sent is not parked: nobody comes between.
//! - Parked turns are bounded: one more keeps the bus while it waits, until one of those may go.
//! - Who was parked is not made to wait anew, again and again, by those who came later: these give way.
//! - What its caller has abandoned before it was sent is not sent.
//! - A line that must show first how it takes a request is tried with a harmless read, at most [`TRIES_MAX`] times.

use std::collections::VecDeque;
use std::time::Instant;

use crate::bus::call::Call;
use crate::peripheral::exchange::Request;

/// Turns that are parked at most.
const PARKED_MAX: usize = 32;

/// How often a line is tried before a request, if it is lost or disturbed each time before it has shown anything.
pub(in crate::bus) const TRIES_MAX: u32 = 3;

/// What a line says of a call, as it is now.
pub(in crate::bus) trait Manners {
    /// Until when it must wait, because a late answer could be taken for its own; or, if it `gives_way`, since it would
    /// make somebody wait anew.
    fn held_until(&self, call: &Call, caller: u64, gives_way: bool) -> Option<Instant>;
    /// Whether the line should show by a read how it behaves before it is asked this.
    fn is_to_be_tried(&self, call: &Call) -> bool;
}

/// What the holder of a turn asks for.
pub(in crate::bus) trait Asked {
    /// Its request.
    fn call(&self) -> &Call;
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// The turns of one bus. `K` is how the holder of one is heard, `A` what it asks for.
#[derive(Debug)]
pub(in crate::bus) struct Turns<K, A> {
    holder: Option<Given<K, A>>,
    parked: VecDeque<Given<K, A>>,
    /// Turns that were given.
    given: u64,
}

/// A turn that was given.
#[derive(Debug)]
pub(in crate::bus) struct Given<K, A> {
    pub(in crate::bus) key: K,
    /// The number of the turn, in the order in which they are given.
    number: u64,
    caller: u64,
    /// A read of the same unit that changes nothing, and how often the line was tried with it.
    harmless: Option<Request>,
    tries: u32,
    /// What was asked for, and not begun.
    pub(in crate::bus) waiting: Option<A>,
    /// It had to wait with the bus, since no more could be parked.
    kept: bool,
    /// Whether a request of it was sent: then others may not come between.
    begun: bool,
}

/// What is to be sent.
#[derive(Debug)]
pub(in crate::bus) enum Due<A> {
    /// A read that goes before a request.
    First(Box<Call>),
    /// What was asked for.
    Ask(A),
}

/// Whether a line, as it is now, may be asked something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Leave {
    Given,
    /// It must show first how it takes that.
    AfterATry,
    /// It never has, as often as it was tried.
    Denied,
}

impl<K, A: Asked> Turns<K, A> {
    /// Nobody has the bus, and nobody waits.
    pub(in crate::bus) fn new() -> Turns<K, A> {
        Turns { holder: None, parked: VecDeque::new(), given: 0 }
    }

    /// Whether nobody has the bus.
    pub(in crate::bus) fn is_free(&self) -> bool {
        self.holder.is_none()
    }

    /// Whether nobody has the bus, and nobody waits with a turn for it.
    pub(in crate::bus) fn is_empty(&self) -> bool {
        self.holder.is_none() && self.parked.is_empty()
    }

    /// Gives the free bus to a caller.
    pub(in crate::bus) fn give(&mut self, key: K, caller: u64, harmless: Option<Request>) {
        debug_assert!(self.is_free());
        self.given += 1;
        self.holder = Some(Given {
            key,
            number: self.given,
            caller,
            harmless,
            tries: 0,
            waiting: None,
            kept: false,
            begun: false,
        });
    }

    /// The holder, which may ask for something if nothing waits, and may give up what does.
    pub(in crate::bus) fn holder(&mut self) -> Option<&mut Given<K, A>> {
        self.holder.as_mut()
    }

    /// The holder asks for something, or does so again.
    pub(in crate::bus) fn ask(&mut self, asked: A) {
        if let Some(turn) = &mut self.holder {
            turn.waiting = Some(asked);
        }
    }

    /// The holder has gone.
    pub(in crate::bus) fn end(&mut self) {
        self.holder = None;
    }

    /// What is to be sent now, if there is something. The bus is its holder's.
    pub(in crate::bus) fn due(&mut self, line: &impl Manners) -> Option<Due<A>> {
        // Nothing of theirs was sent, and nothing will be.
        self.parked.retain(|turn| !turn.is_abandoned());
        if let Some(turn) = self.holder.as_mut().filter(|turn| turn.is_abandoned()) {
            turn.waiting = None;
        }
        self.make_way(line);
        if self.holder.is_none() {
            let ready = self.ready(line);
            self.holder = ready.and_then(|ready| self.parked.remove(ready));
        }
        let eldest = self.eldest();
        let turn = self.holder.as_mut()?;
        if turn.held_until(line, eldest).is_some() {
            return None;
        }
        if let Some(first) = turn.first(line) {
            turn.tries += 1;
            return Some(Due::First(Box::new(first)));
        }
        turn.kept = false;
        turn.waiting.take().map(Due::Ask)
    }

    /// A holder that must wait is parked. Where there is no room for it, it changes places with who came before and may
    /// go by now.
    fn make_way(&mut self, line: &impl Manners) {
        let (eldest, room) = (self.eldest(), self.parked.len() < PARKED_MAX);
        let Some(turn) = self.holder.as_mut().filter(|turn| !turn.begun && turn.waiting.is_some()) else { return };
        let waits = turn.held_until(line, eldest).is_some();
        if waits && room {
            self.parked.extend(self.holder.take());
            return;
        }
        turn.kept |= waits;
        if !turn.kept {
            return;
        }
        let number = turn.number;
        let elder = self.ready(line).filter(|ready| self.parked[*ready].number < number);
        if let Some(elder) = elder.and_then(|elder| self.parked.remove(elder)) {
            self.parked.extend(self.holder.replace(elder));
        }
    }

    /// Which of those parked goes next, if one may.
    fn ready(&self, line: &impl Manners) -> Option<usize> {
        let eldest = self.eldest();
        let ready = |turn: &Given<K, A>| turn.held_until(line, eldest).is_none();
        let all = self.parked.iter().enumerate().filter(|(_, turn)| ready(turn));
        all.min_by_key(|(_, turn)| turn.number).map(|(at, _)| at)
    }

    /// When to ask again what is due, if nothing happens before.
    pub(in crate::bus) fn due_at(&self, line: &impl Manners) -> Option<Instant> {
        let eldest = self.eldest();
        let parked = || self.parked.iter().filter_map(|turn| turn.held_until(line, eldest)).min();
        match &self.holder {
            Some(turn) if turn.kept && !turn.begun => parked().into_iter().chain(turn.held_until(line, eldest)).min(),
            Some(turn) => turn.held_until(line, eldest),
            None => parked(),
        }
    }

    /// The number of the turn that has been parked for longest.
    fn eldest(&self) -> Option<u64> {
        self.parked.iter().map(|turn| turn.number).min()
    }

    /// An exchange of the holder's begins. Gives its caller.
    pub(in crate::bus) fn begin(&mut self) -> Option<u64> {
        let turn = self.holder.as_mut()?;
        turn.begun = true;
        Some(turn.caller)
    }

    /// Whether the holder may ask this of the line.
    pub(in crate::bus) fn leave(&self, call: &Call, line: &impl Manners) -> Leave {
        match &self.holder {
            Some(turn) if !turn.must_try(call, line) => Leave::Given,
            Some(turn) if turn.tries >= TRIES_MAX => Leave::Denied,
            _ => Leave::AfterATry,
        }
    }

    /// Takes over everybody who has a turn, in order.
    pub(in crate::bus) fn take_all(&mut self) -> Vec<Given<K, A>> {
        let mut all: Vec<Given<K, A>> = self.parked.drain(..).chain(self.holder.take()).collect();
        all.sort_by_key(|turn| turn.number);
        all
    }

    /// Whether something was sent for the holder of the turn.
    pub(in crate::bus) fn has_begun(&self) -> bool {
        self.holder.as_ref().is_some_and(|turn| turn.begun)
    }

    /// Everybody who has a turn.
    pub(in crate::bus) fn all(&mut self) -> impl Iterator<Item = &mut Given<K, A>> {
        self.holder.iter_mut().chain(&mut self.parked)
    }
}

impl<K, A: Asked> Given<K, A> {
    fn is_abandoned(&self) -> bool {
        self.waiting.as_ref().is_some_and(Asked::is_abandoned)
    }

    /// What is asked before the request that waits, so that the line shows how it takes that.
    fn first(&self, line: &impl Manners) -> Option<Call> {
        let call = self.waiting.as_ref()?.call();
        let request = self.harmless.clone().filter(|_| self.tries < TRIES_MAX && self.must_try(call, line))?;
        // It is asked for the line's sake: that its unit is silent is for the request to find out.
        Some(Call { request, of: None, timeout: None, permit: call.permit.to_try(), ..call.clone() })
    }

    /// Whether the line, as it is now, can't be asked this: it has not shown how it takes that, and could.
    fn must_try(&self, call: &Call, line: &impl Manners) -> bool {
        self.harmless.is_some() && line.is_to_be_tried(call)
    }

    /// Until when what is asked for must wait, if this is the number of the turn that has been parked for longest.
    fn held_until(&self, line: &impl Manners, eldest: Option<u64>) -> Option<Instant> {
        let gives_way = !self.begun && eldest.is_some_and(|eldest| eldest < self.number);
        let until = |call: &Call| line.held_until(call, self.caller, gives_way);
        let own = until(self.waiting.as_ref()?.call());
        own.max(self.first(line).and_then(|first| until(&first)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What is asked of a unit, and whether its caller is gone.
    #[derive(Debug, Clone)]
    struct Wanted {
        call: Call,
        gone: bool,
    }

    impl Asked for Wanted {
        fn call(&self) -> &Call {
            &self.call
        }

        fn is_abandoned(&self) -> bool {
            self.gone
        }
    }

    /// A line on which answers of some units may still come, and that wants to be tried before writes.
    #[derive(Default)]
    struct Line {
        held: Vec<(u8, Instant)>,
        untried: bool,
        /// Until when everybody waits who gives way.
        given_way: Option<Instant>,
    }

    impl Manners for Line {
        fn held_until(&self, call: &Call, _: u64, gives_way: bool) -> Option<Instant> {
            let held = self.held.iter().find(|(unit, _)| *unit == call.unit).map(|(_, until)| *until);
            held.or(self.given_way.filter(|_| gives_way))
        }

        fn is_to_be_tried(&self, call: &Call) -> bool {
            self.untried && call.request.is_answered_by_itself(call.quirks)
        }
    }

    fn read() -> Request {
        Request::ReadWords { holding: true, address: 0, count: 1 }
    }

    fn of(unit: u8, request: Request) -> Wanted {
        Wanted { call: Call::new(unit, request), gone: false }
    }

    /// What is due, and the unit that it is of.
    fn due(turns: &mut Turns<u8, Wanted>, line: &Line) -> Option<(&'static str, u8)> {
        Some(match turns.due(line)? {
            Due::First(call) => ("first", call.unit),
            Due::Ask(wanted) => ("ask", wanted.call.unit),
        })
    }

    /// Callers, each called by its unit, who ask in this order. Who must wait is parked, while there is room.
    fn asked(units: &[u8], line: &Line) -> Turns<u8, Wanted> {
        let mut turns = Turns::new();
        for unit in units {
            assert!(turns.is_free(), "unit {unit}");
            turns.give(*unit, u64::from(*unit), None);
            turns.ask(of(*unit, read()));
            if line.held.iter().any(|(held, _)| held == unit) {
                assert_eq!(due(&mut turns, line), None);
            }
        }
        turns
    }

    /// The unit of what is due, whose turn ends with it.
    fn next(turns: &mut Turns<u8, Wanted>, line: &Line) -> Option<u8> {
        let (what, unit) = due(turns, line)?;
        assert_eq!(what, "ask");
        turns.begin();
        turns.end();
        Some(unit)
    }

    #[test]
    fn who_must_wait_for_a_late_answer_holds_up_nobody_and_goes_first_when_it_may() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(9));
        let mut line = Line { held: vec![(1, later), (2, now)], ..Line::default() };
        let mut turns = asked(&[1, 2, 3], &line);
        assert_eq!(next(&mut turns, &line), Some(3));
        assert_eq!(next(&mut turns, &line), None);
        assert_eq!(turns.due_at(&line), Some(now));
        line.held.clear();
        assert_eq!([next(&mut turns, &line), next(&mut turns, &line)], [Some(1), Some(2)]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_comes_later_gives_way_to_who_is_parked() {
        let later = Instant::now() + Duration::from_secs(9);
        let mut line = Line { held: vec![(1, later)], given_way: Some(later), ..Line::default() };
        let mut turns = asked(&[1], &line);
        for unit in [2, 3] {
            turns.give(unit, u64::from(unit), None);
            turns.ask(of(unit, read()));
            assert_eq!(due(&mut turns, &line), None, "unit {unit} would make unit 1 wait anew");
            assert_eq!(turns.due_at(&line), Some(later));
        }
        line.held.clear();
        let order = [next(&mut turns, &line), next(&mut turns, &line), next(&mut turns, &line)];
        assert_eq!(order, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_turn_of_which_something_was_sent_keeps_the_bus() {
        let mut line = Line::default();
        let mut turns = asked(&[1], &line);
        assert_eq!(due(&mut turns, &line), Some(("ask", 1)));
        assert_eq!(turns.begin(), Some(1));
        line.held.push((1, Instant::now()));
        turns.ask(of(1, read()));
        assert_eq!(due(&mut turns, &line), None);
        assert!(!turns.is_free() && turns.due_at(&line).is_some());
        line.held.clear();
        assert_eq!(due(&mut turns, &line), Some(("ask", 1)));
    }

    #[test]
    fn no_more_than_so_many_are_parked_and_the_next_one_keeps_the_bus_until_one_of_them_may_go() {
        let line = Line { held: (0..=u8::MAX).map(|unit| (unit, Instant::now())).collect(), ..Line::default() };
        let units: Vec<u8> = (0..=u8::try_from(PARKED_MAX).unwrap()).collect();
        let mut turns = asked(&units, &line);
        assert!(!turns.is_free());
        assert_eq!(turns.parked.len(), PARKED_MAX);
        assert_eq!(due(&mut turns, &line), None);
        let free = Line { held: line.held[2..].to_vec(), ..Line::default() };
        assert_eq!(next(&mut turns, &free), Some(0));
        assert_eq!(turns.parked.len(), PARKED_MAX);
        let order: Vec<_> = std::iter::from_fn(|| next(&mut turns, &Line::default())).collect();
        assert_eq!(order, units[1..], "who came first goes first");
    }

    #[test]
    fn what_was_abandoned_is_not_sent_and_its_turn_stays_unless_it_was_parked() {
        let mut line = Line { held: vec![(1, Instant::now())], ..Line::default() };
        let mut turns = asked(&[1, 2], &line);
        turns.all().for_each(|turn| turn.waiting.as_mut().unwrap().gone = true);
        line.held.clear();
        assert_eq!(due(&mut turns, &line), None);
        let holder = turns.holder().map(|turn| (turn.key, turn.waiting.is_none()));
        assert_eq!(holder, Some((2, true)), "it may ask for something else");
        assert_eq!(turns.parked.len(), 0);
    }

    #[test]
    fn a_line_that_has_shown_nothing_is_tried_with_a_read_so_many_times_and_not_asked() {
        let line = Line { untried: true, ..Line::default() };
        let write = Request::WriteWords { address: 0, words: vec![1], multiple: false };
        let mut turns: Turns<u8, Wanted> = Turns::new();
        turns.give(1, 1, Some(read()));
        turns.ask(of(1, write.clone()));
        let call = of(1, write).call;
        for _ in 0..TRIES_MAX {
            assert_eq!(turns.leave(&call, &line), Leave::AfterATry);
            assert_eq!(due(&mut turns, &line), Some(("first", 1)));
        }
        assert_eq!(turns.leave(&call, &line), Leave::Denied);
        assert_eq!(turns.leave(&call, &Line::default()), Leave::Given);
        assert_eq!(due(&mut turns, &line), Some(("ask", 1)), "it is told that it was not sent");
    }
}
