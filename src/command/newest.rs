//! Which of the commands that wait are outdated by a newer one, where only the newest of a name is to be done. Pure.

use super::outcome::{Code, Fault, Outcome, State};

/// A command that waits, as far as this matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits<'a> {
    /// Its name.
    pub command: &'a str,
    /// Only the newest of this name is to be done.
    pub latest_wins: bool,
    /// A newer one may end it: nothing of it has begun.
    pub may_end: bool,
    /// Whether it ends older ones.
    pub is_new: IsNew,
}

/// Whether a command that waits is one to be done, and not the redelivery of one that is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsNew {
    /// It is to be done when its turn comes.
    Yes,
    /// The ledger would say.
    Unasked,
    /// It may have begun before, or nobody can say yet.
    No,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// End this one: there is a newer one.
    End(usize),
    /// Ask what this one is: if it is to be done, an older one is outdated.
    Ask(usize),
}

/// The first thing to do about commands that wait, the oldest first. Nothing: none is outdated.
pub fn outdated(waiting: &[Waits<'_>]) -> Option<Outdated> {
    let newer = |at: usize, is_new: IsNew| {
        let name = waiting[at].command;
        // The newest first: if that is to be done, it is the one.
        (at + 1..waiting.len()).rev().find(|other| waiting[*other].command == name && waiting[*other].is_new == is_new)
    };
    let older = || (0..waiting.len()).filter(|at| waiting[*at].latest_wins && waiting[*at].may_end);
    let end = older().find(|at| newer(*at, IsNew::Yes).is_some()).map(Outdated::End);
    end.or_else(|| older().find_map(|at| newer(at, IsNew::Unasked)).map(Outdated::Ask))
}

/// Whether the first of these commands would be outdated, if another one is to be done of which that is not known.
pub fn is_in_question(waiting: &[Waits<'_>]) -> bool {
    let Some((first, others)) = waiting.split_first() else { return false };
    let could_end = |other: &Waits<'_>| other.command == first.command && other.is_new == IsNew::Unasked;
    first.latest_wins && first.may_end && others.iter().any(could_end)
}

/// How a command ends that is outdated.
pub fn superseded(command: &str) -> Outcome {
    let why = format!("a newer {command} came before this one was sent, and only the newest is done; nothing was sent");
    Outcome::ended(State::Expired, Fault::new(Code::Superseded, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use IsNew::{No, Unasked, Yes};

    fn waits(command: &'static str, is_new: IsNew) -> Waits<'static> {
        Waits { command, latest_wins: command != "pulse", may_end: is_new != No, is_new }
    }

    #[test]
    fn the_newest_of_a_name_is_done_if_it_is_one_to_be_done_and_others_are_left_alone() {
        for (waiting, expected) in [
            (vec![], None),
            (vec![("set", Yes)], None),
            (vec![("set", Yes), ("turn", Yes), ("pulse", Yes), ("pulse", Yes)], None),
            (vec![("set", Yes), ("turn", Yes), ("set", Yes)], Some(Outdated::End(0))),
            (vec![("turn", Yes), ("set", Unasked), ("set", Yes), ("set", Yes)], Some(Outdated::End(1))),
            // What is not known to be new ends nothing yet.
            (vec![("set", Yes), ("set", Unasked), ("set", Unasked)], Some(Outdated::Ask(2))),
            (vec![("set", Unasked), ("turn", Unasked)], None),
            (vec![("set", Yes), ("set", No)], None),
            // What may have begun is not undone.
            (vec![("set", No), ("set", Yes)], None),
            (vec![("set", No), ("set", Unasked), ("set", Yes)], Some(Outdated::End(1))),
        ] {
            let all: Vec<_> = waiting.iter().map(|(command, is_new)| waits(command, *is_new)).collect();
            assert_eq!(outdated(&all), expected, "{waiting:?}");
            assert_eq!(
                is_in_question(&all),
                waiting == [("set", Yes), ("set", Unasked), ("set", Unasked)],
                "{waiting:?}"
            );
        }
    }

    #[test]
    fn however_the_ledger_answers_the_newest_that_is_to_be_done_stays_and_all_before_it_end() {
        // Each of five is a new one, or a redelivery of one that is at its end: that one goes when it is asked about.
        for redelivered in 0..1 << 5_u32 {
            let mut left: Vec<(usize, IsNew)> = (0..5).map(|number| (number, Unasked)).collect();
            for _ in 0..20 {
                let all: Vec<_> = left.iter().map(|(_, is_new)| waits("set", *is_new)).collect();
                match outdated(&all) {
                    Some(Outdated::End(at)) => drop(left.remove(at)),
                    Some(Outdated::Ask(at)) if redelivered & 1 << left[at].0 != 0 => drop(left.remove(at)),
                    Some(Outdated::Ask(at)) => left[at].1 = Yes,
                    None => break,
                }
            }
            let newest = (0..5).rev().find(|number| redelivered & 1 << number == 0);
            // The oldest may be left unasked, if it is the only one.
            let expected = newest.unwrap_or(0);
            assert_eq!(left.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [expected], "{redelivered:b}");
        }
    }
}
