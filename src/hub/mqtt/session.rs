//! The rules of one connection: which deliveries are new, in which order they are acknowledged, what may not be
//! acknowledged. Pure.
//!
//! A session lives exactly as long as its connection, so nothing in it can reach another one (G6).
//!
//! Invariants
//! - PUBACKs go out in the order of the PUBLISHes (MQTT 3.1.1, [MQTT-4.6.0-2]) (G5).
//! - A packet id that could mean two messages is never acknowledged: the connection is dropped instead, and the hub
//!   delivers again. The DUP flag decides nothing.

use std::collections::{HashMap, VecDeque};

use crate::hub::in_order::InOrder;
use crate::hub::WINDOW_MAX;

/// Acknowledged packet ids that are remembered. The oldest are forgotten; a hub does not reuse them sooner.
const ACKED_MAX: usize = 1024;

/// What a delivery is told from others by on a connection: of its topic and payload.
pub type Digest = [u8; 32];

/// Of a PUBLISH.
pub fn digest(topic: &[u8], payload: &[u8]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(&(topic.len() as u64).to_be_bytes());
    context.update(topic);
    context.update(payload);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// What an incoming PUBLISH is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// A delivery, with its number on this connection.
    New(u64),
    /// The same delivery again while it waits: one PUBACK serves both.
    Repeated,
    /// What it is can't be told apart, or there are too many: drop the connection without an acknowledgement.
    Drop(&'static str),
}

#[derive(Debug)]
struct Slot {
    packet_id: u16,
    digest: Digest,
}

/// The deliveries of one connection.
#[derive(Debug, Default)]
pub struct Session {
    waiting: InOrder<Slot, ()>,
    acked: HashMap<u16, Digest>,
    acked_order: VecDeque<u16>,
}

impl Session {
    /// Judges a PUBLISH with QoS 1.
    pub fn on_publish(&mut self, packet_id: u16, digest: Digest) -> Incoming {
        if let Some(slot) = self.waiting.keys().find(|slot| slot.packet_id == packet_id) {
            return match slot.digest == digest {
                true => Incoming::Repeated,
                false => Incoming::Drop("the hub used a packet id for two messages at once"),
            };
        }
        // Our PUBACK and this repetition may have crossed. A second PUBACK could then complete the next message under
        // this id.
        if self.acked.get(&packet_id) == Some(&digest) {
            return Incoming::Drop(
                "the hub repeated a message that was acknowledged; a new connection tells what it means",
            );
        }
        if self.waiting.len() >= WINDOW_MAX {
            return Incoming::Drop("the hub sent more messages than its queue can hold");
        }
        Incoming::New(self.waiting.push(Slot { packet_id, digest }))
    }

    /// Marks a delivery as settled, and returns the packet ids that are to be acknowledged now, in order.
    pub fn on_complete(&mut self, number: u64) -> Vec<u16> {
        self.waiting.settle(number, ());
        let mut ready = Vec::new();
        while let Some((slot, ())) = self.waiting.take_first() {
            self.remember(slot.packet_id, slot.digest);
            ready.push(slot.packet_id);
        }
        ready
    }

    /// The oldest delivery that waits for its acknowledgement.
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.oldest()
    }

    /// Deliveries that wait for their acknowledgement.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn remember(&mut self, packet_id: u16, digest: Digest) {
        if self.acked.insert(packet_id, digest).is_none() {
            self.acked_order.push_back(packet_id);
        }
        if self.acked_order.len() > ACKED_MAX {
            if let Some(oldest) = self.acked_order.pop_front() {
                self.acked.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = [1; 32];
    const B: Digest = [2; 32];

    #[test]
    fn acknowledgements_keep_the_order_of_receipt() {
        let mut session = Session::default();
        let numbers: Vec<u64> = (1..=3u8)
            .map(|id| match session.on_publish(id.into(), [id; 32]) {
                Incoming::New(number) => number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(session.on_complete(numbers[2]), [] as [u16; 0]);
        assert_eq!(session.on_complete(numbers[0]), [1]);
        assert_eq!(session.on_complete(numbers[1]), [2, 3]);
        assert_eq!(session.waiting(), 0);
    }

    #[test]
    fn a_repetition_while_it_waits_gets_one_acknowledgement() {
        let mut session = Session::default();
        assert_eq!(session.on_publish(7, A), Incoming::New(1));
        assert_eq!(session.on_publish(7, A), Incoming::Repeated);
        assert_eq!(session.on_complete(1), [7]);
    }

    #[test]
    fn the_same_message_under_a_new_packet_id_is_a_delivery_of_its_own() {
        let mut session = Session::default();
        assert_eq!(session.on_publish(7, A), Incoming::New(1));
        assert_eq!(session.on_publish(8, A), Incoming::New(2));
        assert_eq!(session.on_complete(1), [7]);
        assert_eq!(session.on_complete(2), [8]);
    }

    #[test]
    fn two_messages_under_one_waiting_packet_id_end_the_connection() {
        let mut session = Session::default();
        session.on_publish(7, A);
        assert!(matches!(session.on_publish(7, B), Incoming::Drop(_)));
    }

    #[test]
    fn a_repetition_after_the_acknowledgement_ends_the_connection_but_a_reused_id_does_not() {
        let mut session = Session::default();
        session.on_publish(7, A);
        session.on_complete(1);
        assert!(matches!(session.on_publish(7, A), Incoming::Drop(_)));
        assert_eq!(session.on_publish(7, B), Incoming::New(2));
    }

    #[test]
    fn a_settlement_that_this_connection_never_gave_out_acknowledges_nothing() {
        let mut session = Session::default();
        session.on_publish(7, A);
        assert_eq!(session.on_complete(99), [] as [u16; 0]);
    }

    #[test]
    fn the_window_and_the_memory_are_bounded() {
        let mut session = Session::default();
        for id in 1..=WINDOW_MAX as u16 {
            assert!(matches!(session.on_publish(id, A), Incoming::New(_)));
        }
        assert!(matches!(session.on_publish(999, A), Incoming::Drop(_)));
        let mut session = Session::default();
        for number in 1..=5000u64 {
            session.on_publish(number as u16, A);
            session.on_complete(number);
        }
        assert!(session.acked.len() <= ACKED_MAX && session.acked_order.len() <= ACKED_MAX);
    }
}
