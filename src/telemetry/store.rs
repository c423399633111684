//! The store as others have it: pollers add what they have read, identities take what goes to the hub.
//!
//! Invariants
//! - Nobody waits here for a disk. The thread that touches it begins with the first device that has polls: without one
//!   there is no file.
//! - Jobs for the thread are bounded: one writing, and one loading of each device.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, Notify};
use tokio::time::{sleep_until, timeout, Instant};

use super::batch::{Batch, Shown};
use super::keeper::{Job, Keeper};
use super::shelf::{Next, Shelf};
use super::{Sample, Settings, FLUSH_PERIOD};
use crate::time::until;

/// How long a stop waits for the disk.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);

/// What was read and is not at the hub yet. Clones are one.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    shelf: Mutex<Shelf>,
    desk: Mutex<Desk>,
    /// Rung when something is collected that was not before.
    bell: Notify,
}

/// How the thread is reached.
#[derive(Debug, Default)]
struct Desk {
    /// `None`: it has not begun.
    jobs: Option<Sender<Job>>,
    is_to_write: bool,
    trouble: Option<String>,
}

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Samples that were read and are told, since the start.
    pub samples: u64,
    /// Messages that the hub has taken, since the start.
    pub published: u64,
    /// Samples that were lost, since the start.
    pub lost: u64,
    /// Messages that the hub does not have yet.
    pub pending: u64,
    /// Such messages of devices that are not configured any more: each goes when its device is back.
    pub of_removed_devices: u64,
    /// Bytes that the file uses.
    pub bytes: u64,
    /// Why the file can't be written.
    pub trouble: Option<String>,
}

impl Inner {
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // It is right between two calls, whoever panicked in one.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread is about to write: another writing may be asked for.
    pub(super) fn note_written(&self) {
        self.desk().is_to_write = false;
    }

    /// While there is some the file is tried now and then.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        let is_new = trouble.is_some();
        self.desk().trouble = trouble;
        if is_new {
            self.bell.notify_one();
        }
    }
}

impl Store {
    /// One that has nothing, and touches nothing yet.
    pub fn new(settings: Settings) -> Store {
        let life = format!("{:016x}", fastrand::u64(..));
        let shelf = Mutex::new(Shelf::new(settings, life, Instant::now().into_std()));
        Store(Arc::new(Inner { shelf, desk: Mutex::default(), bell: Notify::new() }))
    }

    /// There are polls, of these devices: what an earlier life has left is looked for, and the file is kept from now
    /// on. If that life ended without a word, they are told of it; whoever is polled later is not.
    pub fn begin<'a>(&self, polled: impl IntoIterator<Item = &'a str>) {
        // Never both locks in this order.
        let path = self.0.shelf().settings.path.clone();
        let mut desk = self.0.desk();
        if desk.jobs.is_some() {
            return;
        }
        let (jobs, asked) = mpsc::channel();
        let keeper = Keeper::new(Arc::downgrade(&self.0), path, polled.into_iter().map(Arc::from).collect());
        let thread = std::thread::Builder::new().name("telemetry".into()).spawn(move || keeper.run(&asked));
        match thread {
            Ok(_) => {
                desk.jobs = Some(jobs);
                drop(desk);
                self.write();
            }
            Err(error) => desk.trouble = Some(format!("no thread for the store of telemetry: {error}")),
        }
        self.0.bell.notify_one();
    }

    /// From now on with these settings; the path counts from the next start on.
    pub fn configure(&self, settings: &Settings) {
        let mut shelf = self.0.shelf();
        let path = shelf.settings.path.clone();
        shelf.configure(Settings { path, ..settings.clone() });
        drop(shelf);
        self.0.bell.notify_one();
    }

    /// Where an identity gets what is to be published of its device.
    pub fn outlet(&self, device: &str) -> Outlet {
        let device: Arc<str> = device.into();
        let bell = self.0.shelf().bell(&device);
        Outlet { store: self.clone(), device, bell, held_until: None }
    }

    /// Takes in what was read of a device.
    pub fn add(&self, device: &Arc<str>, sample: &Sample) {
        let (element, shown) = (sample.element(), Shown { at: sample.at, clock_ok: sample.clock_ok });
        if self.0.shelf().add(device, &element, shown, Instant::now().into_std()) {
            self.0.bell.notify_one();
        }
    }

    /// Completes batches in time, and has written what waits, for as long as it is polled.
    pub async fn keep(&self) {
        // Since when something waits to be written: most of it is at the hub before it is. Or since when it could not.
        let mut since: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let (due, waits) = {
                let mut shelf = self.0.shelf();
                shelf.close_due(now.into_std(), false);
                (shelf.due_at().map(Instant::from_std), shelf.has_to_write())
            };
            let waits = waits || self.0.desk().trouble.is_some();
            since = waits.then(|| since.unwrap_or(now));
            if since.is_some_and(|since| since + FLUSH_PERIOD <= now) {
                self.write();
                since = Some(now);
            }
            let next = [due, since.map(|since| since + FLUSH_PERIOD)].into_iter().flatten().min();
            tokio::select! {
                () = self.0.bell.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Nothing more is collected: writes what is left, as far as that is possible soon, and gives up the file.
    pub async fn finish(&self) {
        self.0.shelf().close_due(Instant::now().into_std(), true);
        let (done, finished) = oneshot::channel();
        let Some(jobs) = self.0.desk().jobs.clone() else { return };
        if jobs.send(Job::Finish(done)).is_ok() && timeout(FINISH_PATIENCE, finished).await.is_err() {
            tracing::warn!("the disk did not take the last telemetry in time");
        }
    }

    fn write(&self) {
        let mut desk = self.0.desk();
        if desk.is_to_write {
            return;
        }
        desk.is_to_write = desk.jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Write).is_ok());
    }

    /// How it stands, with these devices configured; `None`: there are no polls.
    pub fn standing(&self, is_configured: impl Fn(&str) -> bool) -> Option<Standing> {
        let desk = self.0.desk();
        if desk.jobs.is_none() && desk.trouble.is_none() {
            return None;
        }
        let trouble = desk.trouble.clone();
        drop(desk);
        let shelf = self.0.shelf();
        let counts = shelf.counts;
        Some(Standing {
            samples: counts.samples,
            published: counts.published,
            lost: counts.lost,
            pending: shelf.pending(&is_configured),
            of_removed_devices: shelf.pending(|device| !is_configured(device)),
            bytes: shelf.stored.bytes,
            trouble,
        })
    }
}

/// What is to be published of one device.
#[derive(Debug)]
pub struct Outlet {
    store: Store,
    device: Arc<str>,
    bell: Arc<Notify>,
    /// So many messages were sent today: no more before then.
    held_until: Option<Instant>,
}

/// What an identity gets.
pub type Taken = Option<Batch>;

impl Outlet {
    /// Waits until something may be there to publish. Cancel-safe.
    pub async fn stirred(&self) {
        match self.held_until {
            None => self.bell.notified().await,
            // Another limit may hold meanwhile.
            Some(at) => tokio::select! {
                () = self.bell.notified() => {}
                () = until(at) => {}
            },
        }
    }

    /// The next that is to be published now, if it is at hand.
    pub fn take(&mut self) -> Taken {
        let now = Instant::now();
        self.held_until = None;
        let mut shelf = self.store.0.shelf();
        match shelf.take(&self.device, now.into_std()) {
            Next::Batch(batch) => Some(batch),
            Next::Nothing => None,
            Next::Later(at) => {
                self.held_until = Some(Instant::from_std(at));
                None
            }
            Next::Load => {
                let desk = self.store.0.desk();
                let Some(jobs) = &desk.jobs else { return None };
                if let Some(load) = shelf.begin_load(&self.device) {
                    let _ = jobs.send(Job::Load(load));
                }
                None
            }
        }
    }

    /// The hub has it.
    pub fn acknowledged(&self, number: i64) {
        self.store.0.shelf().acknowledged(&self.device, number);
        self.store.0.bell.notify_one();
    }

    /// It did not get there, or nobody knows. `is_suspect`: perhaps for its own sake; it is lost after the third time.
    pub fn again(&self, number: i64, is_suspect: bool) {
        let mut shelf = self.store.0.shelf();
        shelf.again(&self.device, number, is_suspect);
        shelf.ring(&self.device);
    }

    /// The hub does not take it: it is lost, and told as a gap.
    pub fn lose(&self, number: i64) {
        self.store.0.shelf().lose(&self.device, number);
    }
}

#[cfg(test)]
mod tests;
