//! Those who want turns on a bus, however far they have come.

use tokio::sync::mpsc;

use crate::bus::call::Call;
use crate::bus::lineup::Lineup;
use crate::bus::turns::{Asked, Turns};
use crate::bus::{Ask, Grant, QUEUE_MAX};

/// Who has the bus, who waits for it, and who may come, whatever the line is.
pub(super) struct Callers {
    pub(super) queue: mpsc::Receiver<Grant>,
    /// Who has come in by the queue.
    pub(super) lineup: Lineup<Grant>,
    pub(super) turns: Turns<mpsc::Receiver<Ask>, Ask>,
    /// Nobody can come any more.
    pub(super) deserted: bool,
}

impl Callers {
    pub(super) fn new(queue: mpsc::Receiver<Grant>) -> Callers {
        Callers { queue, lineup: Lineup::new(), turns: Turns::new(), deserted: false }
    }

    /// Whether nobody has the bus, and nobody will.
    pub(super) fn are_gone(&self) -> bool {
        self.deserted && self.lineup.len() == 0 && self.turns.is_empty()
    }

    /// Takes in who has come by now, while there is room.
    pub(super) fn take_in(&mut self) {
        self.lineup.retain(|grant| !grant.turn.is_closed());
        while self.lineup.len() < QUEUE_MAX {
            let Ok(grant) = self.queue.try_recv() else { return };
            self.line_up(grant);
        }
    }

    pub(super) fn line_up(&mut self, grant: Grant) {
        self.lineup.push(grant.class, grant.of.clone(), grant);
    }
}

impl Asked for Ask {
    fn call(&self) -> &Call {
        &self.call
    }

    fn is_abandoned(&self) -> bool {
        self.wish.is_abandoned()
    }
}
