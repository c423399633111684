//! A device's twin at the hub, on its way between its identity and its commands: set points go down, what became of
//! them comes back. What the twin is to be told waits here in memory only: the ledger has what became of each command,
//! and who asks once more is told once more.
//!
//! Invariants
//! - A [`Wish`] belongs to the connection on which it was read, and dies with it as long as nothing of it has begun:
//!   the next connection reads the twin again (G6).
//! - Of each name only the newest wish counts. Whoever holds an older one sees that at once.
//! - Whatever becomes of a wish, the board hears of it: its end, or that it was given back with nothing done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::room::Held;
use crate::command::message::Gist;
use crate::command::twin::{Acknowledgement, Wanted};
use crate::command::Outcome;
use crate::time::Timestamp;

/// Most names that set points may have: a twin's section has 32 KiB.
const NAMES_MAX: usize = 1024;

/// A set point that is to be done.
#[derive(Debug)]
pub struct SetPoint {
    /// Host name of the hub, lower case.
    pub hub: Arc<str>,
    /// What it asks for.
    pub gist: Gist,
    /// When it was read, by the wall clock.
    pub received_at: Timestamp,
    /// When it was read, by the monotonic clock.
    pub received: Instant,
    /// Where its end is told.
    pub wish: Wish,
    /// Its place among what the gateway keeps: to be held for as long as it waits or runs.
    pub room: Held,
}

/// What somebody desires, until it is done, or is not wanted any more. Dropped, it is given back: nothing was done.
#[derive(Debug)]
pub struct Wish {
    board: Arc<Board>,
    wanted: Wanted,
    value: Json,
    outdated: CancellationToken,
    /// Cancelled when the connection has ended.
    ended: CancellationToken,
    is_over: bool,
}

/// What a wish has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Which.
    pub wanted: Wanted,
    /// What is to be told. `None`: nothing was done.
    pub told: Option<Acknowledgement>,
}

/// Where the wishes of one device come from, and where their ends are told.
#[derive(Debug, Default)]
pub struct Board {
    written: Mutex<Written>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Written {
    /// The newest wish of each name.
    newest: BTreeMap<String, CancellationToken>,
    ends: BTreeMap<String, End>,
}

/// What is reported of a device by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// A digest of what is configured for it.
    pub configuration: Arc<str>,
    /// Whether its peripheral is there; `None`: it has shown neither.
    pub present: Option<bool>,
}

/// Says how things stand at that moment. It must not wait.
pub type Stand = Box<dyn Fn() -> Facts + Send + Sync>;

impl Board {
    /// A wish for a value, in place of an older one of the same name. `ended` is cancelled with the connection that it
    /// was read on. `None`: there are too many names.
    pub fn wish(self: &Arc<Self>, wanted: Wanted, value: Json, ended: &CancellationToken) -> Option<Wish> {
        let outdated = CancellationToken::new();
        let mut written = self.written();
        if !written.newest.contains_key(&wanted.name) && written.newest.len() >= NAMES_MAX {
            return None;
        }
        let older = written.newest.insert(wanted.name.clone(), outdated.clone());
        written.ends.remove(&wanted.name);
        // Before anybody else writes here, or its end would stand as that of the newer one.
        older.into_iter().for_each(|older| older.cancel());
        drop(written);
        Some(Wish { board: self.clone(), wanted, value, outdated, ended: ended.clone(), is_over: false })
    }

    /// Nothing is desired under this name any more.
    pub fn withdraw(&self, name: &str) {
        let mut written = self.written();
        let older = written.newest.remove(name);
        written.ends.remove(name);
        older.into_iter().for_each(|older| older.cancel());
        drop(written);
    }

    /// What the newest wishes have come to, of each name one.
    pub fn take_ends(&self) -> Vec<End> {
        std::mem::take(&mut self.written().ends).into_values().collect()
    }

    /// Returns when a wish has ended, perhaps long ago. Cancel-safe.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// A wish has ended. Of one that is outdated nobody wants to know.
    fn end(&self, end: End, outdated: &CancellationToken) {
        let mut written = self.written();
        if outdated.is_cancelled() {
            return;
        }
        written.ends.insert(end.wanted.name.clone(), end);
        drop(written);
        self.bell.notify_one();
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // What is written is right, whoever panicked while holding it.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wish {
    /// Whether the connection stands on which it was read.
    pub fn is_live(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Returns when that connection has ended. Cancel-safe.
    pub async fn dies(&self) {
        self.ended.cancelled().await;
    }

    /// Whether something else is desired by now, or nothing.
    pub fn is_outdated(&self) -> bool {
        self.outdated.is_cancelled()
    }

    /// Returns when something else is desired, or nothing. Cancel-safe.
    pub async fn is_replaced(&self) {
        self.outdated.cancelled().await;
    }

    /// Its command has ended so, which is durable.
    pub fn tell(&mut self, outcome: &Outcome) {
        let told = Acknowledgement::ended(outcome, std::mem::take(&mut self.value), self.wanted.version);
        self.end(Some(told));
    }

    fn end(&mut self, told: Option<Acknowledgement>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.board.end(End { wanted: self.wanted.clone(), told }, &self.outdated);
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(version: u64) -> Wanted {
        Wanted { name: "speed".into(), version }
    }

    #[tokio::test]
    async fn of_a_name_only_the_newest_wish_counts_and_its_end_is_told_once() {
        let (board, ended) = (Arc::new(Board::default()), CancellationToken::new());
        let mut first = board.wish(wanted(1), json!(1), &ended).unwrap();
        let mut second = board.wish(wanted(2), json!(2), &ended).unwrap();
        assert!(first.is_outdated() && !second.is_outdated());
        first.is_replaced().await;
        first.tell(&Outcome::succeeded(None));
        assert_eq!(board.take_ends(), []);
        second.tell(&Outcome::succeeded(None));
        drop(second);
        board.rung().await;
        let ends = board.take_ends();
        assert_eq!((ends.len(), &ends[0].wanted), (1, &wanted(2)));
        assert_eq!(ends[0].told.as_ref().unwrap().to_json(), json!({"value": 2, "ac": 200, "av": 2, "ad": "done"}));
        assert_eq!(board.take_ends(), []);
    }

    #[tokio::test]
    async fn what_is_dropped_is_given_back_and_what_is_withdrawn_is_not() {
        let (board, ended) = (Arc::new(Board::default()), CancellationToken::new());
        let wish = board.wish(wanted(1), json!(1), &ended).unwrap();
        ended.cancel();
        wish.dies().await;
        assert!(!wish.is_live());
        drop(wish);
        assert_eq!(board.take_ends(), [End { wanted: wanted(1), told: None }]);
        let wish = board.wish(wanted(2), json!(1), &CancellationToken::new()).unwrap();
        board.withdraw("speed");
        assert!(wish.is_outdated() && wish.is_live());
        drop(wish);
        assert_eq!(board.take_ends(), []);
    }

    #[test]
    fn names_are_bounded() {
        let (board, ended) = (Arc::new(Board::default()), CancellationToken::new());
        let wish = |at: usize| board.wish(Wanted { name: at.to_string(), version: 1 }, json!(1), &ended);
        assert!((0..NAMES_MAX).all(|at| wish(at).is_some()));
        assert!(wish(NAMES_MAX).is_none() && wish(0).is_some());
    }
}
