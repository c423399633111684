//! The keep-alive of a connection: when to send PINGREQ, and how long its answer may take.

use std::time::Duration;

use tokio::time::Instant;

/// How long PINGRESP may take at most; a shorter keep-alive shortens it.
const PING_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// When to ping, and whether the answer is overdue.
pub(in crate::hub) struct Ping {
    keepalive: Duration,
    patience: Duration,
    last_sent: Instant,
    waiting_since: Option<Instant>,
}

impl Ping {
    pub(in crate::hub) fn new(keepalive: Duration) -> Self {
        Ping { keepalive, patience: keepalive.min(PING_TIMEOUT_MAX), last_sent: Instant::now(), waiting_since: None }
    }

    pub(in crate::hub) fn next(&self) -> Instant {
        match self.waiting_since {
            Some(since) => since + self.patience,
            None => self.last_sent + self.keepalive,
        }
    }

    pub(in crate::hub) fn is_overdue(&self) -> bool {
        self.waiting_since.is_some()
    }

    pub(in crate::hub) fn sent(&mut self) {
        self.last_sent = Instant::now();
        self.waiting_since = Some(self.last_sent);
    }

    pub(in crate::hub) fn answered(&mut self) {
        self.waiting_since = None;
    }

    /// Anything that comes in shows that the hub is there, and a busy hub may answer late.
    pub(in crate::hub) fn heard(&mut self) {
        if let Some(since) = &mut self.waiting_since {
            *since = Instant::now();
        }
    }
}
