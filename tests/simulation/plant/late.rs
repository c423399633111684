//! Answers that come late, and those that do not come.

use std::time::Duration;

use tokio::time::Instant;

use super::super::manners::Manner;
use super::super::patience::Patience;
use super::super::request::Request;
use super::Plant;

impl Plant {
    /// Nobody will hear an answer to this.
    pub(super) fn says_nothing(&self, line: &str, request: &Request) {
        let mut inner = self.lock();
        let heard = inner.record.heard_at(line, request.place(line).1, request.written);
        heard.for_each(|heard| heard.is_mute = true);
    }

    /// When an answer comes that comes late, to what was asked on a line that was opened then. `None`: whoever asked
    /// may wait so long that it would not be late within the window of whoever else it may have been.
    pub(super) fn late(&self, opened: Instant, request: &Request) -> Option<Instant> {
        let (world, written) = (&self.world, request.written);
        let Patience { timeout, window } = self.patiences.of_a_line(opened);
        let (soonest, mut latest) = (timeout + Duration::from_millis(50), window - self.ahead);
        if self.late_in_a_row && request.sequence.is_some() {
            // While the same is asked once more.
            latest = latest.min(soonest + Duration::from_millis(600));
        }
        if soonest > latest {
            return None;
        }
        if self.manners.have(Manner::LateAnswers) {
            world.count("slave: answers as late as it can");
        }
        let is_last = self.shows(Manner::OtherPatience, "slave: answers at the end of its window", 500);
        let from = if is_last { latest - Duration::from_millis(20) } else { soonest };
        let at = written + world.time(from.as_millis() as u64, latest.as_millis() as u64);
        self.patiences.owes(at);
        let is_killing = self.killing > 0 && self.manners.have(Manner::OtherPatience);
        if is_killing && world.strikes("crash: while an answer is owed", 500) {
            world.die_within(world.time(timeout.as_millis() as u64, latest.as_millis() as u64));
        }
        Some(at)
    }
}
