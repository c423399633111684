//! What an identity has of a connection: what it may want of it, what it is told, and its hold on it.
//!
//! Invariants
//! - An identity counts as one of the connection's from the moment that it is given it until it lets it go; who keeps
//!   the connection for somebody who may come back does not count.
//! - Nobody waits here longer than a turn of an identity may take, however slowly the uplink takes what is to be sent.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch, Notify};
use tokio::time::{sleep, timeout, timeout_at, Instant};

use super::cbs::IDENTITIES_MAX;
use super::locked::Late;
use super::message::c2d;
use crate::amqp::engine::{Delivery, Settle};
use crate::command::Message;
use crate::hub::trouble::Trouble;

/// How long a connection may take for what one identity wants of it in one go. It is less than the identity may go
/// without a sign of life.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the hub may take to answer to a Close.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the hub may take to answer to an Attach. It throttles by delaying it.
pub(super) const ATTACH_PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection is kept for an identity whose part of it has ended: a little longer than identities wait.
const LINGER: Duration = Duration::from_secs(60);
/// Commands that wait for the task, of all identities together.
const COMMANDS_MAX: usize = 64;

/// What an identity wants of the connection.
pub(super) enum Command {
    /// To show a token for what it is of. Without `told`, it is in place of one that counts still.
    Show { user: u64, of: String, token: String, told: Option<oneshot::Sender<Result<(), Trouble>>> },
    /// To be served. `late` is for what comes when it is not any more.
    Join { user: u64, signals: mpsc::Sender<Signal>, late: Late },
    /// To have messages from there, so many at a time.
    Receive { user: u64, from: String, window: u32 },
    /// To have no more messages than are on their way.
    TakeNoMore { user: u64 },
    /// To have calls of direct methods from there.
    Listen { user: u64, at: String },
    /// To ask for calls no longer, if the hub has not answered yet.
    GiveUp { user: u64 },
    /// It has the call that came as this delivery, and has room for another.
    Taken { user: u64, delivery: u32 },
    /// To have a call answered that this pair of links brought.
    Answer { user: u64, pair: u64, message: Bytes },
    /// To have an event sent to there.
    Publish { user: u64, to: String, seq: i64, message: Bytes },
    /// To have the hub told of a delivery.
    Settle { user: u64, delivery: u32, how: Settle },
    /// To be served no longer.
    Leave { user: u64 },
}

/// What an identity is told.
pub(super) enum Signal {
    /// Its messages come from now on.
    Ready,
    /// A message, and when it had come.
    Delivered(Delivery, Instant),
    /// A call, and the pair of links that brought it.
    Called(Delivery, u64),
    /// Its calls come from now on, if the hub permits it.
    Heard,
    /// No calls come, or none come any more, for this reason.
    Deaf(String),
    /// The hub has the event with this number of the ledger.
    Published(i64),
    /// The hub does not take the event with this number, for this reason.
    Refused(i64, String),
    /// The hub takes no events at present, or not this one, and why; and whether it may be for this event.
    Postponed(i64, String, bool),
    /// The hub did not take the last token now.
    NotRenewed(Trouble),
    /// Its part of the connection is over.
    Over(Trouble),
}

/// A message, which the connection may have read while its device had something else in hand.
pub(super) fn read(delivery: &Delivery, came: Instant) -> Message {
    Message { came: Some(came.into_std()), ..c2d(&delivery.payload, delivery.is_whole) }
}

impl Signal {
    /// The message that has come, if that is it.
    pub(super) fn message(self) -> Option<Message> {
        match self {
            Signal::Delivered(delivery, came) => Some(read(&delivery, came)),
            _ => None,
        }
    }
}

/// How far a connection is.
#[derive(Debug, Clone)]
pub(super) enum State {
    Connecting,
    Up,
    Down(Trouble),
}

/// A connection, as identities see it. It is closed when nobody has this any more.
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    /// Rung when an identity has gone without a word.
    left: Arc<Notify>,
    users: AtomicU64,
    /// Identities that have it.
    taken: AtomicUsize,
    /// Identities that it takes.
    room: Arc<AtomicUsize>,
}

/// The task's ends of what it shares with the identities.
pub(super) struct Ends {
    pub(super) wanted: mpsc::Receiver<Command>,
    pub(super) stands: watch::Sender<State>,
    pub(super) left: Arc<Notify>,
    pub(super) room: Arc<AtomicUsize>,
}

impl Handle {
    /// Of a connection that is about to be made.
    pub(super) fn new() -> (Arc<Handle>, Ends) {
        let (commands, wanted) = mpsc::channel(COMMANDS_MAX);
        let (stands, state) = watch::channel(State::Connecting);
        let (left, room) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(IDENTITIES_MAX)));
        let ends = Ends { wanted, stands, left: left.clone(), room: room.clone() };
        let (users, taken) = (AtomicU64::new(0), AtomicUsize::new(0));
        (Arc::new(Handle { commands, state, left, users, taken, room }), ends)
    }

    /// A hold on it for one more identity. `None`: it is over, or has as many as it takes.
    pub(super) fn hold(self: Arc<Self>) -> Option<Hold> {
        if matches!(*self.state.borrow(), State::Down(_)) || self.commands.is_closed() {
            return None;
        }
        let more = |taken| (taken < self.room.load(Ordering::Relaxed)).then_some(taken + 1);
        let is_taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        is_taken.then(|| Hold(self))
    }

    /// Waits until it stands.
    ///
    /// # Errors
    /// It does not come to that, or stands no longer.
    pub(super) async fn up(&self) -> Result<(), Trouble> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.as_deref() {
            Ok(State::Up) => Ok(()),
            _ => Err(self.why()),
        }
    }

    /// Why it has ended.
    pub(super) fn why(&self) -> Trouble {
        match &*self.state.borrow() {
            State::Down(trouble) => trouble.clone(),
            State::Connecting | State::Up => Trouble::Lost("it ended without a reason".into()),
        }
    }

    /// A name for an identity on it, which no other has or had.
    pub(super) fn user(&self) -> u64 {
        self.users.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps it for a while, though nobody may have it: who has just had a trouble of its own comes back to it.
    fn linger(self: Arc<Self>) {
        if matches!(*self.state.borrow(), State::Up) {
            tokio::spawn(async move {
                sleep(LINGER).await;
                drop(self);
            });
        }
    }

    /// Waits until it is closed, if nobody else has it.
    async fn let_go(self: Arc<Self>) {
        let mut state = self.state.clone();
        if Arc::into_inner(self).is_some() {
            let _ = timeout(2 * CLOSE_PATIENCE, state.wait_for(|state| matches!(state, State::Down(_)))).await;
        }
    }
}

/// An identity's hold on a connection, which tells the connection when it is dropped.
pub(super) struct Hold(Arc<Handle>);

impl Hold {
    /// Lets it go, and keeps it open for a while.
    pub(super) fn come_back(self) {
        let handle = self.0.clone();
        drop(self);
        handle.linger();
    }

    /// Lets it go, and waits until it is closed if nobody else has it.
    pub(super) async fn leave(self) {
        let handle = self.0.clone();
        drop(self);
        handle.let_go().await;
    }
}

impl Deref for Hold {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.left.notify_one();
    }
}

/// How long an identity has been kept waiting by its connection in one turn of its loop.
#[derive(Default)]
pub(super) struct Waiting {
    /// What it wanted has found no room at once since then.
    since: Option<Instant>,
}

impl Waiting {
    /// Another turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.since = None;
    }

    /// Wants something of a connection. One wish after the other that has to wait makes one wait.
    ///
    /// # Errors
    /// It has ended, or takes too little.
    pub(super) async fn want(&mut self, handle: &Handle, command: Command) -> Result<(), Trouble> {
        let Err(full) = handle.commands.try_send(command) else {
            self.since = None;
            return Ok(());
        };
        let due = *self.since.get_or_insert_with(Instant::now) + PATIENCE;
        match timeout_at(due, handle.commands.send(full.into_inner())).await {
            Ok(sent) => sent.map_err(|_| handle.why()),
            Err(_) => Err(Trouble::Lost(format!(
                "it did not come to what the device wants of it within {} s; the uplink takes too little",
                PATIENCE.as_secs()
            ))),
        }
    }
}
