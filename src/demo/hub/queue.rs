//! A device's queue at the hub, the same for every protocol: what waits in it, and what is locked for whom.
//!
//! - A message is in the queue from [`Queue::push`] until it is settled once. A delivery locks it; it never leaves.
//! - A lock ends by itself, and the message is deliverable again. That does not count as an attempt; only abandoning
//!   it does.
//! - Which locks were given out is remembered when they have ended: whoever shows one that never was is told apart from
//!   whoever is late.

use std::collections::VecDeque;
use std::fmt;

use tokio::time::Instant;

use super::message::{C2d, Seq};
use crate::time::Timestamp;

/// Locks that are remembered, the newest ones.
const GIVEN_MAX: usize = 1 << 12;

/// What a receiver must show to settle a message: a GUID, made anew by each delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LockToken(pub [u8; 16]);

impl LockToken {
    fn new() -> Self {
        let mut bytes = fastrand::u128(..).to_be_bytes();
        bytes[6] = bytes[6] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        LockToken(bytes)
    }

    /// The token that is spelled so.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let digits = std::str::from_utf8(&digits).ok().filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(|number| LockToken(number.to_be_bytes()))
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lock {
    pub token: LockToken,
    pub until: Instant,
    /// The connection that it was delivered on.
    pub connection: u64,
}

/// A message in a device's queue.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub seq: Seq,
    pub message: C2d,
    pub enqueued: Timestamp,
    pub expires: Timestamp,
    /// How often it was abandoned.
    pub deliveries: u32,
    pub lock: Option<Lock>,
    /// The connection of its latest delivery.
    pub last_connection: Option<u64>,
}

impl Queued {
    /// Whether a lock holds.
    pub fn is_locked(&self, now: Instant) -> bool {
        self.lock.is_some_and(|lock| now < lock.until)
    }

    /// Locks it for a delivery.
    pub fn lock(&mut self, connection: u64, until: Instant) -> LockToken {
        let token = LockToken::new();
        self.lock = Some(Lock { token, until, connection });
        self.last_connection = Some(connection);
        token
    }
}

/// What a lock token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Its lock holds.
    Yes(Seq),
    /// Its lock has ended, and with that what it was good for. The message, if that is still there under this lock.
    Late(Option<Seq>),
    /// It was never given to this device.
    No,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Queued>,
    given: VecDeque<LockToken>,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.messages.iter()
    }

    pub fn push(&mut self, seq: Seq, message: C2d, enqueued: Timestamp, expires: Timestamp) {
        let (deliveries, lock, last_connection) = (0, None, None);
        self.messages.push_back(Queued { seq, message, enqueued, expires, deliveries, lock, last_connection });
    }

    /// Takes out all.
    pub fn drain(&mut self) -> Vec<Queued> {
        self.messages.drain(..).collect()
    }

    /// Takes out what has expired, locked or not.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Queued> {
        if self.messages.iter().all(|queued| now < queued.expires) {
            return vec![];
        }
        let (gone, kept) = self.messages.drain(..).partition(|queued| queued.expires <= now);
        self.messages = kept;
        VecDeque::into(gone)
    }

    pub fn get(&self, seq: Seq) -> Option<&Queued> {
        self.messages.iter().find(|queued| queued.seq == seq)
    }

    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Queued> {
        self.messages.iter_mut().find(|queued| queued.seq == seq)
    }

    /// Takes a message out for good.
    pub fn take(&mut self, seq: Seq) -> Option<Queued> {
        let index = self.messages.iter().position(|queued| queued.seq == seq)?;
        self.messages.remove(index)
    }

    /// Whether something waits that nobody has locked.
    pub fn has_free(&self, now: Instant) -> bool {
        self.messages.iter().any(|queued| !queued.is_locked(now))
    }

    /// The oldest message that nobody has locked, locked for a delivery.
    pub fn lock_next(&mut self, connection: u64, now: Instant, until: Instant) -> Option<(&Queued, LockToken)> {
        let queued = self.messages.iter_mut().find(|queued| !queued.is_locked(now))?;
        let token = queued.lock(connection, until);
        if self.given.len() == GIVEN_MAX {
            self.given.pop_front();
        }
        self.given.push_back(token);
        Some((&*queued, token))
    }

    /// What a lock token is good for.
    pub fn held(&self, token: LockToken, now: Instant) -> Held {
        let is_it = |queued: &&Queued| queued.lock.is_some_and(|lock| lock.token == token);
        match self.messages.iter().find(is_it) {
            Some(queued) if queued.is_locked(now) => Held::Yes(queued.seq),
            Some(queued) => Held::Late(Some(queued.seq)),
            None if self.has_given(token) => Held::Late(None),
            None => Held::No,
        }
    }

    /// Whether it has ever locked something by this token.
    pub fn has_given(&self, token: LockToken) -> bool {
        self.given.contains(&token)
    }

    /// Ends the locks of a connection that is over.
    pub fn unlock(&mut self, connection: u64) {
        for queued in &mut self.messages {
            queued.lock = queued.lock.filter(|lock| lock.connection != connection);
        }
    }

    /// Lets every lock run out.
    pub fn run_out(&mut self, now: Instant) {
        self.messages
            .iter_mut()
            .flat_map(|queued| queued.lock.as_mut())
            .for_each(|lock| lock.until = lock.until.min(now));
    }
}
