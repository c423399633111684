//! The deliveries of one attachment: their numbers, their locks, and which of them the hub is to be told of next. Pure.
//!
//! Invariants
//! - The hub is told in the order of receipt (G5): a delivery's end waits for those before it.
//! - A delivery is on the book until the hub has answered, whatever it answered.

use crate::hub::in_order::InOrder;

/// What the hub is to be told of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It may forget it.
    Complete,
    /// The same, and it was refused.
    Reject,
}

#[derive(Debug)]
struct Entry {
    lock: String,
    /// How often the hub has had it back before.
    delivery_count: Option<u32>,
}

/// The deliveries that are not settled, in the order of receipt.
#[derive(Debug, Default)]
pub struct Book(InOrder<Entry, End>);

impl Book {
    /// Enters a delivery, and gives its number.
    pub fn enter(&mut self, lock: &str, delivery_count: Option<u32>) -> u64 {
        self.0.push(Entry { lock: lock.to_owned(), delivery_count })
    }

    /// What became of a delivery. The first word counts; one of a delivery that is not on the book says nothing.
    pub fn ended(&mut self, number: u64, end: End) {
        self.0.settle(number, end);
    }

    /// The lock of the delivery that the hub is to be told of next, and what.
    pub fn due(&self) -> Option<(&str, End)> {
        self.0.first().map(|(entry, end)| (entry.lock.as_str(), *end))
    }

    /// The hub has answered about the one that was due.
    pub fn told(&mut self) {
        self.0.take_first();
    }

    /// The lock of a delivery that is to be left with the hub, and how often it has had it back.
    pub fn lock_of(&self, number: u64) -> Option<(&str, Option<u32>)> {
        self.0.get(number).map(|entry| (entry.lock.as_str(), entry.delivery_count))
    }

    /// The hub has this one back.
    pub fn given_back(&mut self, number: u64) {
        self.0.remove(number);
    }

    /// Deliveries that are not settled.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of the oldest of them.
    pub fn oldest(&self) -> Option<u64> {
        self.0.oldest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_is_told_in_the_order_of_receipt() {
        let mut book = Book::default();
        assert_eq!([book.enter("a", None), book.enter("b", Some(2)), book.enter("c", None)], [1, 2, 3]);
        book.ended(3, End::Complete);
        book.ended(2, End::Reject);
        assert_eq!((book.due(), book.len(), book.oldest()), (None, 3, Some(1)));
        book.told();
        assert_eq!(book.len(), 3, "nothing was due");
        book.ended(1, End::Complete);
        book.ended(1, End::Reject);
        let mut told = Vec::new();
        while let Some((lock, end)) = book.due() {
            told.push((lock.to_owned(), end));
            book.told();
        }
        let expected = [("a", End::Complete), ("b", End::Reject), ("c", End::Complete)];
        assert_eq!(told, expected.map(|(lock, end)| (lock.to_owned(), end)));
        assert_eq!((book.len(), book.oldest(), book.enter("d", None)), (0, None, 4));
    }

    #[test]
    fn a_delivery_that_was_never_entered_has_no_lock_and_no_end() {
        let mut book = Book::default();
        book.enter("a", Some(1));
        book.ended(7, End::Complete);
        assert_eq!((book.due(), book.lock_of(7), book.lock_of(1)), (None, None, Some(("a", Some(1)))));
        book.given_back(7);
        assert_eq!(book.len(), 1);
        book.given_back(1);
        assert_eq!((book.len(), book.oldest()), (0, None));
    }
}
