//! Deliveries of one connection that wait for their end, which the hub is told in the order of receipt (G5). Pure.

use std::collections::VecDeque;

/// What waits: `K` is what the transport knows each by, `H` how it may end.
#[derive(Debug)]
pub struct InOrder<K, H> {
    /// The number of the last one.
    last: u64,
    waiting: VecDeque<Slot<K, H>>,
}

#[derive(Debug)]
struct Slot<K, H> {
    number: u64,
    key: K,
    settled: Option<H>,
}

impl<K, H> Default for InOrder<K, H> {
    fn default() -> Self {
        InOrder { last: 0, waiting: VecDeque::new() }
    }
}

impl<K, H> InOrder<K, H> {
    /// One that came now. Gives its number on the connection, from 1 on.
    pub fn push(&mut self, key: K) -> u64 {
        self.last += 1;
        self.waiting.push_back(Slot { number: self.last, key, settled: None });
        self.last
    }

    /// Says how one ends: the first word counts. Numbers that were never given out, or whose end was told, are none.
    pub fn settle(&mut self, number: u64, how: H) {
        if let Some(slot) = self.waiting.iter_mut().find(|slot| slot.number == number) {
            slot.settled.get_or_insert(how);
        }
    }

    /// The one whose turn it is to be told of, if it is known how it ends.
    pub fn first(&self) -> Option<(&K, &H)> {
        self.waiting.front().and_then(|slot| Some((&slot.key, slot.settled.as_ref()?)))
    }

    /// The same, taken out.
    pub fn take_first(&mut self) -> Option<(K, H)> {
        self.first()?;
        self.waiting.pop_front().and_then(|slot| Some((slot.key, slot.settled?)))
    }

    /// One that waits, by its number.
    pub fn get(&self, number: u64) -> Option<&K> {
        self.waiting.iter().find(|slot| slot.number == number).map(|slot| &slot.key)
    }

    /// One is not to be told of any more.
    pub fn remove(&mut self, number: u64) {
        self.waiting.retain(|slot| slot.number != number);
    }

    /// Those that wait, the oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.waiting.iter().map(|slot| &slot.key)
    }

    /// The number of the oldest that waits.
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|slot| slot.number)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_the_order_of_receipt() {
        let mut order = InOrder::default();
        let numbers = ['a', 'b', 'c'].map(|key| order.push(key));
        assert_eq!((numbers, order.len()), ([1, 2, 3], 3));
        order.settle(3, "third");
        order.settle(99, "never given out");
        assert_eq!(order.first(), None);
        assert_eq!(order.take_first(), None);
        order.settle(1, "first");
        assert_eq!(order.take_first(), Some(('a', "first")));
        assert_eq!(order.take_first(), None);
        assert_eq!(order.oldest(), Some(2));
        order.settle(1, "once more");
        order.settle(2, "second");
        assert_eq!(order.keys().collect::<String>(), "bc");
        assert_eq!(order.take_first(), Some(('b', "second")));
        assert_eq!(order.take_first(), Some(('c', "third")));
        assert!(order.is_empty());
    }
}
