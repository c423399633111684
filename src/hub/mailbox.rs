//! Result events that have just been made, on their way from a lane to its outbox: so that what a device's own lane has
//! just written need not be read back from the ledger.
//!
//! The ledger is the truth. What finds no room here is left out, and the outbox is told to look there.
//!
//! Invariant: whoever makes an event durable says so here afterwards, by handing it over or by ringing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::ledger::row::Event;

/// Events that wait here at most, and their bodies together in bytes.
const EVENTS_MAX: usize = 16;
const BYTES_MAX: usize = 16 * 1024;

/// The mailbox of one device.
#[derive(Debug, Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    bell: Notify,
}

/// What has come since it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Events, in the order in which they were handed over.
    pub(super) events: VecDeque<Event>,
    /// There are others in the ledger, with numbers from here on.
    pub(super) missed_from: Option<i64>,
    /// There are others in the ledger that nobody has handed over.
    pub(super) rung: bool,
    bytes: usize,
}

impl Mailbox {
    /// This event stands in the ledger now.
    pub fn hand_over(&self, event: Event) {
        let mut mail = self.lock();
        if mail.events.len() < EVENTS_MAX && mail.bytes + event.body.len() <= BYTES_MAX {
            mail.bytes += event.body.len();
            mail.events.push_back(event);
        } else {
            mail.missed_from = Some(mail.missed_from.map_or(event.seq, |from| from.min(event.seq)));
        }
        drop(mail);
        self.bell.notify_one();
    }

    /// A new event stands in the ledger, and is to be read there.
    pub fn ring(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }

    /// Waits until something has come. Cancel-safe; one task may wait.
    pub(super) async fn changed(&self) {
        self.bell.notified().await;
    }

    /// Takes what has come.
    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().expect("nobody panics while holding a mailbox")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, bytes: usize) -> Event {
        Event { seq, id: format!("u-{seq}"), message_id: None, body: "x".repeat(bytes) }
    }

    #[test]
    fn what_finds_no_room_is_told_by_its_lowest_number() {
        let mailbox = Mailbox::default();
        (1..=EVENTS_MAX as i64).for_each(|seq| mailbox.hand_over(event(seq, 10)));
        mailbox.hand_over(event(18, 10));
        mailbox.hand_over(event(17, 10));
        let mail = mailbox.take();
        assert_eq!((mail.events.len(), mail.missed_from, mail.rung), (EVENTS_MAX, Some(17), false));
        mailbox.hand_over(event(19, BYTES_MAX));
        mailbox.hand_over(event(20, 1));
        mailbox.ring();
        let mail = mailbox.take();
        assert_eq!((mail.events.len(), mail.missed_from, mail.rung), (1, Some(20), true));
        let mail = mailbox.take();
        assert_eq!((mail.events.len(), mail.missed_from, mail.rung), (0, None, false));
    }
}
