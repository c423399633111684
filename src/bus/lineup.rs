//! Who waits for a bus, and who is given it next. Pure: no channel, no clock.
//!
//! Invariants
//! - Commands go before what can wait: attempts at somebody who is away, what an operator looks at, and behind both
//!   what is polled. After so many in a row that went before those one of them goes all the same: nobody waits for
//!   ever.
//! - Among commands the devices take turns, one command each: next is a command of the device that had the bus longest
//!   ago. Those of one device go in the order in which they came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Turns in a row that may go before what can wait behind them.
pub(in crate::bus) const IN_A_ROW_MAX: u32 = 8;

/// Devices of which it is remembered when they had the bus. With more, all are forgotten: it begins anew.
const DEVICES_MAX: usize = 4096;

/// What a turn is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A command.
    Command,
    /// What can wait: an attempt at somebody who is away, or what an operator looks at.
    Look,
    /// What is read again and again: it can wait for both.
    Poll,
}

/// Those who wait.
#[derive(Debug)]
pub(in crate::bus) struct Lineup<G> {
    /// In the order in which they came.
    waiting: VecDeque<Waits<G>>,
    /// The number of the last turn of each device.
    served: HashMap<Arc<str>, u64>,
    turns: u64,
    /// Commands that went while something to be looked at waited, since one of those went last.
    in_a_row: u32,
    /// Turns that went while a poll waited, since one went last.
    before_polls: u32,
}

#[derive(Debug)]
struct Waits<G> {
    class: Class,
    of: Option<Arc<str>>,
    grant: G,
}

impl<G> Lineup<G> {
    /// Nobody waits.
    pub(in crate::bus) fn new() -> Lineup<G> {
        Lineup { waiting: VecDeque::new(), served: HashMap::new(), turns: 0, in_a_row: 0, before_polls: 0 }
    }

    /// How many wait.
    pub(in crate::bus) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody comes, on behalf of a device, or of none.
    pub(in crate::bus) fn push(&mut self, class: Class, of: Option<Arc<str>>, grant: G) {
        self.waiting.push_back(Waits { class, of, grant });
    }

    /// Takes out who does not want the bus any more.
    pub(in crate::bus) fn retain(&mut self, is_wanted: impl Fn(&G) -> bool) {
        self.waiting.retain(|waits| is_wanted(&waits.grant));
    }

    /// Takes out who is next.
    pub(in crate::bus) fn next(&mut self) -> Option<G> {
        let first = |class| self.waiting.iter().position(|waits| waits.class == class);
        let (look, poll) = (first(Class::Look), first(Class::Poll));
        let at = match (self.command(), look) {
            (None, None) => poll?,
            (Some(_), Some(look)) if self.in_a_row >= IN_A_ROW_MAX => look,
            (command, look) => command.or(look)?,
        };
        let at = poll.filter(|_| self.before_polls >= IN_A_ROW_MAX).unwrap_or(at);
        let Waits { class, of, grant } = self.waiting.remove(at)?;
        match class {
            Class::Command if look.is_some() => self.in_a_row += 1,
            // A poll between two commands makes nobody's wait shorter.
            Class::Poll if look.is_some() => {}
            _ => self.in_a_row = 0,
        }
        self.before_polls = if class != Class::Poll && poll.is_some() { self.before_polls + 1 } else { 0 };
        self.turns += 1;
        if let Some(device) = of {
            if self.served.len() >= DEVICES_MAX {
                self.served.clear();
            }
            self.served.insert(device, self.turns);
        }
        Some(grant)
    }

    /// The place of the command that is next.
    fn command(&self) -> Option<usize> {
        let commands = self.waiting.iter().enumerate().filter(|(_, waits)| waits.class == Class::Command);
        let last_turn = |of: &Option<Arc<str>>| of.as_ref().and_then(|device| self.served.get(device)).copied();
        commands.min_by_key(|(at, waits)| (last_turn(&waits.of), *at)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who goes, in order, of those who came so: commands of devices, and what can wait as a number.
    fn order(came: &[&str]) -> Vec<String> {
        let mut lineup = Lineup::new();
        for (at, name) in came.iter().enumerate() {
            match name.parse::<u32>() {
                Ok(_) => lineup.push(Class::Look, None, (*name).to_owned()),
                Err(_) => lineup.push(Class::Command, Some((*name).into()), format!("{name}{at}")),
            }
        }
        assert_eq!(lineup.len(), came.len());
        std::iter::from_fn(|| lineup.next()).collect()
    }

    #[test]
    fn the_devices_take_turns_and_each_keeps_the_order_of_its_commands() {
        assert_eq!(order(&["a", "a", "a", "b", "c", "b"]), ["a0", "b3", "c4", "a1", "b5", "a2"]);
        let mut lineup = Lineup::new();
        let mut served = Vec::new();
        for at in 0..30 {
            // One asks for more than its share, and two ask for one after the other.
            lineup.push(Class::Command, Some("greedy".into()), 'g');
            lineup.push(Class::Command, Some("greedy".into()), 'g');
            if at % 3 == 0 {
                lineup.push(Class::Command, Some("b".into()), 'b');
                lineup.push(Class::Command, Some("c".into()), 'c');
            }
            served.extend(lineup.next());
        }
        let waits: Vec<usize> = "bc".chars().map(|of| served.iter().filter(|who| **who == of).count()).collect();
        assert!(waits.iter().all(|count| *count >= 9), "{served:?}");
    }

    #[test]
    fn what_can_wait_goes_behind_commands_but_not_for_ever() {
        assert_eq!(order(&["1", "2", "a", "b"]), ["a2", "b3", "1", "2"]);
        let came: Vec<&str> = "1 2 a b c d e f g h i j k l m n o p q r".split(' ').collect();
        let went = order(&came);
        assert_eq!((went[8].as_str(), went[17].as_str(), went.len()), ("1", "2", 20), "{went:?}");
        // Commands that kept nobody waiting don't count.
        let mut lineup = Lineup::new();
        for n in 0..2 * IN_A_ROW_MAX {
            lineup.push(Class::Command, None, n);
            assert_eq!(lineup.next(), Some(n));
        }
        lineup.push(Class::Look, None, 90);
        lineup.push(Class::Command, None, 91);
        assert_eq!([lineup.next(), lineup.next()], [Some(91), Some(90)]);
    }

    #[test]
    fn polls_go_behind_everything_but_not_for_ever_and_cost_the_others_none_of_their_places() {
        let mut lineup = Lineup::new();
        let mut went = String::new();
        for _ in 0..40 {
            // All three always want it.
            for (class, of) in [(Class::Poll, 'p'), (Class::Look, 'l'), (Class::Command, 'c')] {
                if lineup.waiting.iter().all(|waits| waits.grant != of) {
                    lineup.push(class, None, of);
                }
            }
            went.extend(lineup.next());
        }
        for ten in went.as_bytes().chunks(10) {
            let count = |of: u8| ten.iter().filter(|who| **who == of).count();
            assert_eq!([count(b'c'), count(b'l'), count(b'p')], [8, 1, 1], "{went}");
        }
        let mut lineup = Lineup::new();
        lineup.push(Class::Poll, None, 'p');
        lineup.push(Class::Look, None, 'l');
        lineup.push(Class::Command, None, 'c');
        assert_eq!(std::iter::from_fn(|| lineup.next()).collect::<String>(), "clp");
    }

    #[test]
    fn who_has_gone_is_passed_over() {
        let mut lineup = Lineup::new();
        (0..4).for_each(|n| lineup.push(Class::Command, None, n));
        lineup.retain(|n| n % 2 == 1);
        assert_eq!([lineup.next(), lineup.next(), lineup.next()], [Some(1), Some(3), None]);
    }
}
