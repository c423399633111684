//! How many transfers went each way on a session, and how many may (2.5.6).

use fe2o3_amqp_types::performatives::{Begin, Flow};

/// Transfers that the peer may send before it is told that it may go on.
pub(super) const WINDOW: u32 = 2048;

/// The counts of one session.
pub(super) struct Counters {
    next_out: u32,
    /// Transfers that the peer takes still.
    room_out: u32,
    next_in: u32,
    /// Transfers that may come still.
    room_in: u32,
    next_delivery: u32,
}

impl Counters {
    /// Of a session that the peer has not answered to.
    pub(super) fn new() -> Counters {
        Counters { next_out: 0, room_out: 0, next_in: 0, room_in: WINDOW, next_delivery: 0 }
    }

    /// The peer has answered.
    pub(super) fn on_begin(&mut self, begin: &Begin) {
        self.next_in = begin.next_outgoing_id;
        self.room_out = begin.incoming_window;
    }

    /// The peer has said how much it takes.
    pub(super) fn on_flow(&mut self, flow: &Flow) {
        // Before it has our Begin it can't say what it expects: the first number, then.
        let expected = flow.next_incoming_id.unwrap_or_default();
        let on_the_way = self.next_out.wrapping_sub(expected);
        self.room_out = flow.incoming_window.saturating_sub(on_the_way);
    }

    /// Takes the number of a transfer that is sent now. `None`: the peer takes none now.
    pub(super) fn transfer(&mut self) -> Option<()> {
        self.room_out = self.room_out.checked_sub(1)?;
        self.next_out = self.next_out.wrapping_add(1);
        Some(())
    }

    /// The number of a delivery that is sent now.
    pub(super) fn delivery(&mut self) -> u32 {
        let number = self.next_delivery;
        self.next_delivery = number.wrapping_add(1);
        number
    }

    /// Counts a transfer that came. `None`: more came than may.
    pub(super) fn on_transfer(&mut self) -> Option<()> {
        self.next_in = self.next_in.wrapping_add(1);
        self.room_in = self.room_in.checked_sub(1)?;
        Some(())
    }

    /// Whether the peer is to be told that it may go on.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.room_in < WINDOW / 2
    }

    /// What is said of the session in a Flow, with nothing of a link.
    pub(super) fn flow(&mut self) -> Flow {
        self.room_in = WINDOW;
        Flow {
            next_incoming_id: Some(self.next_in),
            incoming_window: self.room_in,
            next_outgoing_id: self.next_out,
            outgoing_window: WINDOW,
            handle: None,
            delivery_count: None,
            link_credit: None,
            available: None,
            drain: false,
            echo: false,
            properties: None,
        }
    }
}
