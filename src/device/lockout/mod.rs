//! Which devices are locked, while somebody has hands in their machines: nothing is written or sent to them then.
//!
//! Invariants
//! - When [`Lockouts::lock`] returns, no command that the lock bars begins any more: its first byte has left before, or
//!   never will. What waited is barred also if the device is unlocked meanwhile.
//! - A lock is in force before it is on the disk, and is taken off the disk before it ends.
//! - A file that can't be read bars every device.

pub mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::call::Permit;
use crate::command::outcome::{Code, Fault, Outcome, State};
use crate::health::snapshot;
use crate::time::Timestamp;
pub use file::{Lock, Locks};

/// The locks of a running daemon. They outlive devices that leave and come back.
#[derive(Debug)]
pub struct Lockouts {
    path: PathBuf,
    book: Mutex<Book>,
    /// Told of every lock.
    locked: watch::Sender<()>,
    /// Held while the file is written.
    writing: tokio::sync::Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    /// The file is not this daemon's any more.
    is_over: bool,
    /// A lock is in force that the file may not have.
    is_behind: bool,
}

#[derive(Debug)]
struct Book {
    /// As the file is to have them.
    locks: Locks,
    /// Why the file can't be read, if so.
    unreadable: Option<String>,
    /// When each device was locked or unlocked last, by this daemon.
    changed: HashMap<String, Instant>,
    /// Of commands that may be about to begin, by device.
    permits: HashMap<String, Vec<Permit>>,
}

/// A command that a lock may bar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Barred<'a> {
    /// Its device.
    pub(super) device: &'a str,
    /// When it came first.
    pub(super) received: Instant,
    /// The same by the wall clock, if an earlier life of the daemon, or of its device, has left it.
    pub(super) left_of: Option<Timestamp>,
}

impl Lockouts {
    /// As a file has them.
    pub fn at(path: PathBuf) -> Lockouts {
        let (locks, unreadable) = match file::read(&path) {
            Ok(locks) => (locks, None),
            Err(why) => {
                tracing::error!("{why}");
                (Locks::default(), Some(why.to_string()))
            }
        };
        for (device, lock) in &locks.locks {
            tracing::warn!(%device, "is locked {lock}");
        }
        let book = Book { locks, unreadable, changed: HashMap::new(), permits: HashMap::new() };
        let (locked, _) = watch::channel(());
        Lockouts { path, book: Mutex::new(book), locked, writing: tokio::sync::Mutex::default() }
    }

    /// Locks a device. It is in force as soon as nobody else is being locked or unlocked, and on the disk on return.
    ///
    /// # Errors
    /// A sentence. It is not in force unless that says so.
    pub async fn lock(&self, device: &str, lock: Lock) -> Result<(), String> {
        let mut writing = self.writing.lock().await;
        writing.check(&self.book())?;
        let is_written_again = writing.is_behind && self.has(device);
        let locks = self.book().lock(device, lock).or_else(|(locks, why)| match is_written_again {
            // It stays whose it is.
            true => Ok(locks),
            false => Err(why),
        })?;
        self.locked.send_replace(());
        writing.is_behind = true;
        self.write(locks).await.map_err(|error| {
            format!(
                "{device} is locked, but not beyond the end of this daemon: {} can't be written: {error}; look at the disk, \
                 and lock it again",
                self.path.display()
            )
        })?;
        writing.is_behind = false;
        Ok(())
    }

    /// Unlocks a device, at a time of the wall clock if that is believed. On return that is on the disk.
    ///
    /// # Errors
    /// A sentence. The device is as it was.
    pub async fn unlock(&self, device: &str, now: Option<Timestamp>) -> Result<(), String> {
        let mut writing = self.writing.lock().await;
        writing.check(&self.book())?;
        let mut locks = self.book().locks.clone();
        locks.unlock(device, now)?;
        self.write(locks.clone()).await.map_err(|error| {
            writing.is_behind = true;
            format!("{device} stays locked: {} can't be written: {error}; look at the disk", self.path.display())
        })?;
        writing.is_behind = false;
        let mut book = self.book();
        book.locks = locks;
        // What came while it was locked, and was not told yet, is not to begin now.
        book.changed.insert(device.to_owned(), Instant::now());
        Ok(())
    }

    async fn write(&self, locks: Locks) -> Result<(), String> {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || file::write(&path, &locks)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Returns when nothing of this daemon's writes the file any more, now or later.
    pub async fn close(&self) {
        self.writing.lock().await.is_over = true;
    }

    /// Whether a device is locked by name.
    pub fn has(&self, device: &str) -> bool {
        self.book().locks.locks.contains_key(device)
    }

    /// A device's lock, as `status` shows it.
    pub fn shown(&self, device: &str) -> Option<snapshot::Lock> {
        let book = self.book();
        match (&book.unreadable, book.locks.locks.get(device)) {
            (Some(why), _) => Some(snapshot::Lock { reason: Some(why.clone()), ..snapshot::Lock::default() }),
            (None, lock) => lock.map(Lock::shown),
        }
    }

    /// Told of every lock from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.locked.subscribe()
    }

    /// How a command ends, if it is barred.
    pub(super) fn end_of(&self, command: Barred<'_>) -> Option<Outcome> {
        self.book().fault(command).map(|fault| Outcome::ended(State::Rejected, fault))
    }

    /// Leave to send a command, which a lock takes back, or has taken back.
    pub(super) fn permit(&self, command: Barred<'_>) -> Permit {
        let (mut book, permit) = (self.book(), Permit::default());
        match book.fault(command) {
            Some(_) => drop(permit.take_back()),
            None => {
                let permits = book.permits.entry(command.device.to_owned()).or_default();
                permits.retain(|permit| !permit.is_over());
                permits.push(permit.clone());
            }
        }
        permit
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics while holding the locks")
    }
}

impl Writing {
    /// Whether the file may be written.
    fn check(&self, book: &Book) -> Result<(), String> {
        match &book.unreadable {
            _ if self.is_over => Err("the daemon is stopping; try again when it has".into()),
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}

impl Book {
    /// Gives what is to be written. If the device is locked already, why, and what was to be written before.
    fn lock(&mut self, device: &str, lock: Lock) -> Result<Locks, (Locks, String)> {
        self.locks.lock(device, lock).map_err(|why| (self.locks.clone(), why))?;
        self.changed.insert(device.to_owned(), Instant::now());
        for permit in self.permits.remove(device).into_iter().flatten() {
            permit.take_back();
        }
        Ok(self.locks.clone())
    }

    /// Why a command is barred, if so.
    fn fault(&self, Barred { device, received, left_of }: Barred<'_>) -> Option<Fault> {
        let has_waited = || match left_of {
            Some(received_at) => self.locks.may_have_barred(device, received_at),
            None => self.changed.get(device).is_some_and(|changed| *changed >= received),
        };
        let why = match (&self.unreadable, self.locks.locks.get(device)) {
            (Some(why), _) => format!("{device} counts as locked, since {why}"),
            (None, Some(lock)) => format!("{device} is locked {lock}; send it again when it is unlocked"),
            (None, None) if has_waited() => {
                format!("{device} was locked while this waited; send it again if it still makes sense")
            }
            (None, None) => return None,
        };
        Some(Fault::new(Code::LockedOut, why))
    }
}

/// Where the locks of a gateway with this ledger stand.
pub fn path_beside(ledger: &Path) -> PathBuf {
    ledger.with_file_name("locks")
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn lock(reason: &str) -> Lock {
        Lock::new(None, "pi", Some(reason))
    }

    /// A command that came so many seconds after the start of the test.
    fn at(received: Instant) -> Barred<'static> {
        Barred { device: "pump", received, left_of: None }
    }

    /// Whether a first byte leaves under a permit.
    fn leaves(permit: &Permit) -> bool {
        permit.offer(|| Poll::Ready(Ok::<usize, ()>(1))).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_goes_on_and_nothing_that_has_not_begins_after_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Lockouts::at(folder.path().join("locks"));
        let now = Instant::now();
        let (begun, not_begun) = (locks.permit(at(now)), locks.permit(at(now)));
        let other = locks.permit(Barred { device: "valve", ..at(now) });
        assert!(leaves(&begun));
        locks.lock("pump", lock("seal")).await.unwrap();
        assert!(!leaves(&not_begun) && !leaves(&locks.permit(at(now))));
        assert!(leaves(&begun) && leaves(&other), "the rest of what has begun, and another device's");
        let outcome = locks.end_of(at(now)).unwrap();
        let fault = outcome.fault.unwrap();
        assert_eq!((outcome.state, fault.code), (State::Rejected, Code::LockedOut));
        assert!(fault.message.contains("by pi: seal"), "{}", fault.message);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_through_a_lock_is_barred_although_the_device_is_unlocked_by_then() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Lockouts::at(folder.path().join("locks"));
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        locks.lock("pump", lock("seal")).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let meanwhile = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        locks.unlock("pump", Some(Timestamp(7000))).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let after = at(Instant::now());
        let left = |second: i64| Barred { left_of: Some(Timestamp(second * 1000)), ..after };
        for (command, is_barred) in
            [(at(before), true), (at(meanwhile), true), (after, false), (left(6), true), (left(8), false)]
        {
            assert_eq!(locks.end_of(command).is_some(), is_barred, "{command:?}");
            assert_eq!(leaves(&locks.permit(command)), !is_barred, "{command:?}");
        }
        assert!(locks.end_of(Barred { device: "valve", ..left(6) }).is_none());
        let next = Lockouts::at(folder.path().join("locks"));
        assert!(next.end_of(left(6)).is_some() && next.end_of(left(8)).is_none() && next.end_of(after).is_none());
    }

    #[tokio::test]
    async fn a_lock_stands_in_the_file_for_the_next_daemon_until_it_is_unlocked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks");
        let locks = Lockouts::at(path.clone());
        locks.lock("pump", lock("seal")).await.unwrap();
        locks.lock("valve", Lock::new(Some("2026-11-22T10:00:00.000Z".into()), "root", None)).await.unwrap();
        assert!(locks.lock("pump", lock("other")).await.unwrap_err().contains("by pi: seal"));
        let next = Lockouts::at(path.clone());
        assert_eq!((next.shown("pump"), next.shown("valve")), (locks.shown("pump"), locks.shown("valve")));
        assert!(next.end_of(at(Instant::now())).is_some() && !next.has("other"));
        next.unlock("pump", None).await.unwrap();
        assert!(next.unlock("pump", None).await.unwrap_err().contains("is not locked"));
        let last = Lockouts::at(path);
        assert_eq!((last.has("pump"), last.has("valve")), (false, true));
    }

    #[tokio::test]
    async fn a_file_that_cant_be_read_bars_every_device_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks");
        std::fs::write(&path, "{").unwrap();
        let locks = Lockouts::at(path.clone());
        let fault = locks.end_of(at(Instant::now())).unwrap().fault.unwrap();
        assert!(fault.message.contains("counts as locked"), "{}", fault.message);
        assert!(locks.shown("pump").unwrap().reason.unwrap().contains("aside"));
        assert!(locks.lock("pump", lock("seal")).await.is_err() && locks.unlock("pump", None).await.is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{");
    }

    #[tokio::test]
    async fn a_lock_that_cant_be_written_is_in_force_and_told_so_and_an_unlocking_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone/locks");
        let locks = Lockouts::at(path.clone());
        let why = locks.lock("pump", lock("seal")).await.unwrap_err();
        assert!(why.contains("is locked, but not beyond") && locks.has("pump"), "{why}");
        assert!(locks.unlock("pump", None).await.unwrap_err().contains("stays locked") && locks.has("pump"));
        std::fs::create_dir(folder.path().join("gone")).unwrap();
        locks.lock("pump", lock("again")).await.unwrap();
        assert_eq!(Lockouts::at(path).shown("pump").unwrap().reason.as_deref(), Some("seal"));
        locks.close().await;
        assert!(locks.unlock("pump", None).await.unwrap_err().contains("stopping"));
    }
}
