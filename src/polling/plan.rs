//! Which polls of a device are asked together. Pure.
//!
//! Invariants
//! - One request reads what lies side by side in one table and is due at the same times: nothing between is read that
//!   no poll names, for what a map leaves out may be forbidden, or mean something when it is read.
//! - A request is within the protocol's limits.
//! - Of what is read together each poll is given its own part, as if it had been asked alone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::peripheral::exchange::{Answer, Request};
use crate::peripheral::registers::{Point, Table};
use crate::peripheral::{Action, Poll};

/// What is asked in one exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    /// How often.
    pub every: Duration,
    /// The polls that it is for, each with where its part begins.
    pub polls: Vec<(String, usize)>,
    /// What is read for several; `None`: it is one poll's own request.
    pub span: Option<Span>,
}

/// Coils or registers in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    table: Table,
    address: u16,
    count: u16,
}

impl Span {
    /// The request that reads it.
    pub fn read(self) -> Request {
        let Span { table, address, count } = self;
        match table {
            Table::Coil | Table::Discrete => Request::ReadBits { coils: table == Table::Coil, address, count },
            Table::Holding | Table::Input => Request::ReadWords { holding: table == Table::Holding, address, count },
        }
    }
}

/// The part of an answer that is one poll's.
pub fn part(answer: &Answer, from: usize, length: usize) -> Option<Answer> {
    match answer {
        Answer::Bits(bits) => bits.get(from..from + length).map(|bits| Answer::Bits(bits.to_vec())),
        Answer::Words(words) => words.get(from..from + length).map(|words| Answer::Words(words.to_vec())),
        _ => None,
    }
}

/// The point of a poll that may be read with others: what is scaled by a register of its own is read in two exchanges.
fn point(poll: &Poll) -> Option<&Point> {
    match &poll.command.action {
        Action::Read(point) if point.scale_register.is_none() => Some(point),
        _ => None,
    }
}

/// Bits or registers that a poll's own part has.
pub fn length(poll: &Poll) -> usize {
    point(poll).map_or(0, Point::span)
}

/// How the polls of a device are asked, in the order of their tables and addresses.
pub fn askings(polls: &BTreeMap<String, Poll>) -> Vec<Asking> {
    let rank = |table: Table| match table {
        Table::Coil => 0,
        Table::Discrete => 1,
        Table::Holding => 2,
        Table::Input => 3,
    };
    let (together, alone): (Vec<_>, Vec<_>) = polls.iter().partition(|(_, poll)| point(poll).is_some());
    let mut together: Vec<(&String, &Poll, &Point)> =
        together.into_iter().filter_map(|(name, poll)| Some((name, poll, point(poll)?))).collect();
    together.sort_by_key(|(_, poll, point)| (poll.every, rank(point.table), point.address, point.span()));
    let mut askings: Vec<Asking> = Vec::new();
    for (name, poll, point) in together {
        if let Some(last) = askings.last_mut().filter(|last| last.every == poll.every) {
            if last.take_in(name, point) {
                continue;
            }
        }
        let count = u16::try_from(point.span()).unwrap_or(u16::MAX);
        let span = Some(Span { table: point.table, address: point.address, count });
        askings.push(Asking { every: poll.every, polls: vec![(name.clone(), 0)], span });
    }
    askings.extend(alone.into_iter().map(|(name, poll)| Asking::alone(name, poll.every)));
    askings
}

impl Asking {
    fn alone(name: &str, every: Duration) -> Asking {
        Asking { every, polls: vec![(name.to_owned(), 0)], span: None }
    }

    /// Whether it is for several.
    pub fn is_for_several(&self) -> bool {
        self.polls.len() > 1
    }

    /// The same, each asked alone.
    pub fn parts(&self) -> Vec<Asking> {
        self.polls.iter().map(|(name, _)| Asking::alone(name, self.every)).collect()
    }

    /// Takes in another point, which begins no sooner than the last, if it lies beside what there is or in it.
    fn take_in(&mut self, name: &str, point: &Point) -> bool {
        let Some(span) = &mut self.span else { return false };
        let (from, end) = (usize::from(span.address), usize::from(span.address) + usize::from(span.count));
        let begins = usize::from(point.address);
        let count = end.max(begins + point.span()) - from;
        if span.table != point.table || begins > end || count > point.table.most(false) {
            return false;
        }
        span.count = u16::try_from(count).unwrap_or(u16::MAX);
        self.polls.push((name.to_owned(), begins - from));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peripheral::registers::{DataType, ScaleRegister};
    use crate::peripheral::{Command, Report};

    fn poll(point: Point, seconds: u64) -> Poll {
        let command = Command { idempotent: true, ..Command::new("p", Action::Read(point)) };
        Poll { command, every: Duration::from_secs(seconds), report: Report::Always }
    }

    /// What is asked: where from, how much, and which polls.
    fn asked(polls: &[(&str, Table, u16, DataType, u64)]) -> Vec<(u16, u16, Vec<String>)> {
        let polls = polls.iter().map(|(name, table, address, kind, every)| {
            ((*name).to_owned(), poll(Point::new(*table, *address, *kind), *every))
        });
        let polls: BTreeMap<String, Poll> = polls.collect();
        let names = |asking: &Asking| asking.polls.iter().map(|(name, at)| format!("{name}@{at}")).collect();
        let askings = askings(&polls);
        let told = |asking: &Asking| {
            let (address, count) = asking.span.map_or((0, 0), |span| (span.address, span.count));
            (address, count, names(asking))
        };
        askings.iter().map(told).collect()
    }

    #[test]
    fn neighbours_of_one_table_and_time_are_one_request_and_nothing_between_them_is_read() {
        use DataType::{F32, U16};
        use Table::{Holding, Input};
        let polls = [
            ("a", Holding, 10, U16, 10),
            ("b", Holding, 11, F32, 10),
            ("c", Holding, 14, U16, 10),
            ("d", Holding, 13, U16, 60),
            ("e", Input, 15, U16, 10),
            ("f", Holding, 12, U16, 10),
        ];
        let of = |address: u16, count: u16, names: &[&str]| {
            (address, count, names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            asked(&polls),
            [of(10, 3, &["a@0", "b@1", "f@2"]), of(14, 1, &["c@0"]), of(15, 1, &["e@0"]), of(13, 1, &["d@0"])]
        );
    }

    #[test]
    fn no_request_reads_more_than_the_protocol_allows() {
        let polls: BTreeMap<String, Poll> = (0..300_u16)
            .map(|at| (format!("p{at:03}"), poll(Point::new(Table::Holding, at, DataType::U16), 1)))
            .collect();
        let askings = askings(&polls);
        let counts: Vec<u16> = askings.iter().filter_map(|asking| asking.span).map(|span| span.count).collect();
        assert_eq!(counts, [125, 125, 50]);
    }

    #[test]
    fn what_has_a_scale_register_is_asked_alone_and_so_is_each_part_of_what_is_parted() {
        let place = ScaleRegister { table: Table::Holding, address: 5 };
        let scaled = Point { scale_register: Some(place), ..Point::new(Table::Holding, 1, DataType::I16) };
        let polls = BTreeMap::from([
            ("a".to_owned(), poll(Point::new(Table::Holding, 0, DataType::U16), 1)),
            ("b".to_owned(), poll(scaled, 1)),
        ]);
        assert_eq!(askings(&polls).len(), 2);
        let polls = BTreeMap::from(["a", "b"].map(|name| {
            let address = u16::from(name == "b");
            (name.to_owned(), poll(Point::new(Table::Holding, address, DataType::U16), 1))
        }));
        let askings = askings(&polls);
        let [both] = &askings[..] else { panic!("they lie side by side") };
        let parts = both.parts();
        let part = |at: usize| (parts[at].polls.clone(), parts[at].span, parts[at].every);
        assert_eq!(part(0), (vec![("a".to_owned(), 0)], None, both.every));
        assert_eq!(part(1), (vec![("b".to_owned(), 0)], None, both.every));
    }

    #[test]
    fn each_has_its_part_of_an_answer_and_none_of_one_that_is_too_short() {
        let words = Answer::Words(vec![1, 2, 3]);
        assert_eq!(part(&words, 1, 2), Some(Answer::Words(vec![2, 3])));
        assert_eq!(part(&words, 2, 2), None);
        assert_eq!(part(&Answer::Bits(vec![true, false]), 1, 1), Some(Answer::Bits(vec![false])));
        assert_eq!(part(&Answer::Written, 0, 1), None);
    }
}
