//! What the worker needs of a line, whatever its protocol.

use std::time::Duration;

use tokio::time::Instant;

use crate::bus::call::{Call, Wire};
use crate::bus::port::error::NotOpened;
use crate::bus::port::Line;
use crate::config::{Bus, Endpoint};

/// Longest wait for one answer. Longer ones would outlive every command's deadline, and time can't be added without
/// end.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Why a call is not sent whose time has passed.
pub(in crate::bus) const TOO_LATE: &str = "the line was not free in time";

/// A configured duration within [`WAIT_MAX`].
pub(in crate::bus) fn bounded(duration: Duration) -> Duration {
    duration.min(WAIT_MAX)
}

/// What the worker needs of a kind of line.
pub(in crate::bus) trait Link {
    /// Takes up the bus's settings that not every kind of line has a use for, before anything is asked.
    fn take_up(&mut self, _settings: &Bus) {}
    /// Opens the line, within seconds.
    async fn open(&mut self) -> Result<(), NotOpened>;
    /// Closes the line.
    fn close(&mut self);
    /// Until then answers may come to what an earlier life of the daemon has asked; nothing is asked meanwhile. Where
    /// requests have ids of their own that does not matter.
    fn suspect(&mut self, _until: Instant) {}
    /// The line on which an answer that comes late could be taken for another's; `None` where requests have ids of
    /// their own.
    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }
    /// Until then answers may come to what somebody else has asked at the port.
    fn shared_until(&mut self, _until: Instant) {}
    /// Whether somebody wants to know what comes while nothing is asked.
    fn is_listened_to(&self) -> bool {
        false
    }
    /// Longest that an exchange takes beside its timeout and the bus's turnaround.
    fn slack(&self) -> Duration {
        Duration::from_secs(60)
    }
    /// Until when answers may come to what was asked, where they could be taken for others. It may have passed.
    fn owed_until(&self) -> Option<Instant> {
        None
    }
    /// Whether the line is open, as far as is known.
    fn is_open(&self) -> bool;
    /// Takes what comes while nothing is asked, and answers nothing. Returns after each piece, or when the line is
    /// lost. Cancel-safe.
    async fn listen(&mut self) -> Option<Lost>;
    /// Until when a call must wait, because a late answer could be taken for its own. Where somebody else has waited
    /// for longer it `gives_way`: what would make that one wait anew waits too.
    fn held_until(&self, call: &Call, caller: u64, gives_way: bool) -> Option<Instant>;
    /// Whether the line should show by a read how it behaves before it is asked this.
    fn is_to_be_tried(&self, _call: &Call) -> bool {
        false
    }
    /// Whether what came in place of the last answer was no intact frame.
    fn has_garbled(&self) -> bool {
        false
    }
    /// What is wrong with the line although it is open, as a sentence.
    fn trouble(&self) -> Option<&str> {
        None
    }
    /// One exchange on the open line. Not cancel-safe.
    async fn exchange(&mut self, call: &Call, caller: u64) -> Ended;
}

/// How a line came to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) enum Lost {
    /// It shouldn't have: open it again as soon as possible. The reason is a sentence.
    Gone(String),
    /// Nothing is wrong: open it for the next request.
    Idle,
    /// The answer to a request has not come, or not to its end: whatever comes of it is not to be heard. Open it for
    /// the next request.
    Timeout {
        /// Whether a byte of the answer had come.
        heard: bool,
    },
}

/// The end of an exchange.
#[derive(Debug)]
pub(in crate::bus) struct Ended {
    pub(in crate::bus) wire: Wire,
    /// The line is closed now, and why.
    pub(in crate::bus) lost: Option<Lost>,
}

impl Ended {
    /// The line is still open.
    pub(in crate::bus) fn kept(wire: Wire) -> Ended {
        Ended { wire, lost: None }
    }

    /// The line is still open, and nothing left.
    pub(in crate::bus) fn not_sent(why: impl Into<String>) -> Ended {
        Ended::kept(Wire::NotSent(why.into()))
    }
}

impl Line {
    /// Closes the line that was lost, for this reason and with this end of the exchange. A serial port is opened again
    /// at once; servers end connections that idle, and the next request makes a new one.
    pub(in crate::bus) fn lost(&mut self, why: &str, wire: fn(String) -> Wire) -> Ended {
        self.close();
        let why = format!("{} {why}", self.endpoint);
        let lost = match &self.endpoint {
            Endpoint::Serial(_) => Lost::Gone(why.clone()),
            Endpoint::Tcp(_) => {
                tracing::debug!(reason = why, "a connection ended");
                Lost::Idle
            }
        };
        Ended { wire: wire(why), lost: Some(lost) }
    }
}
