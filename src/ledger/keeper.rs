//! What keeps the ledger in order while it serves: notes that wait, a full disk, old rows, its age; and its end.
//!
//! Invariants
//! - What nobody waits for is written with what somebody waits for, or after [`NOTE_PATIENCE`].
//! - Old rows go a few at a time, with a pause between: what somebody waits for never waits for more than one step.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{interval, sleep, sleep_until, Instant};

use super::integrity::ProofTask;
use super::reader::Look;
use super::store::Legacy;
use super::writer::{Ask, Kind};
use super::{store, Ledger};

/// How long a note waits for other work to share a commit with. At a command a second it always finds some. What a
/// power cut takes of it is harmless: an event is published again under the id that it has, a delivery is not counted.
const NOTE_PATIENCE: Duration = Duration::from_secs(5);
/// How often a ledger that could not be written is tried again.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How often old rows are looked for.
const PRUNE_PERIOD: Duration = Duration::from_secs(60);
/// The pause between two steps of pruning: up to 200 rows a second go.
const PRUNE_PAUSE: Duration = Duration::from_millis(250);
/// How often the ledger's age is saved.
const AGE_PERIOD: Duration = Duration::from_secs(3600);
/// How often a clock that was not believed since a new ledger was made is looked at.
const EPOCH_PERIOD: Duration = Duration::from_secs(10);

impl Ledger {
    /// Commits notes that wait, tries a full disk again, prunes, has proven what is not. Runs as long as the daemon
    /// does.
    pub async fn keep(&self, retention: watch::Receiver<Duration>) {
        let (mut prune, mut age, mut epoch) = (interval(PRUNE_PERIOD), interval(AGE_PERIOD), interval(EPOCH_PERIOD));
        let mut health = self.health.clone();
        let mut notes_due: Option<Instant> = None;
        loop {
            let unwell = !health.borrow_and_update().ok;
            let due = notes_due.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = sleep(PROBE_PERIOD), if unwell => self.tick().await,
                _ = health.changed() => {}
                // Those that waited before are committed: the time of these begins.
                () = self.notes.notified() => notes_due = Some(Instant::now() + NOTE_PATIENCE),
                () = sleep_until(due), if notes_due.is_some() => {
                    notes_due = None;
                    self.tick().await;
                }
                _ = age.tick() => {
                    let retention = *retention.borrow();
                    self.save_age(Some(retention)).await;
                }
                _ = epoch.tick() => {
                    self.epoch();
                }
                _ = prune.tick() => {
                    // It does what is due: the proof that was put off, the filter that has become too small.
                    let _ = self.proof_tasks.try_send(ProofTask::Look);
                    let retention = *retention.borrow();
                    if self.prune_step(retention).await {
                        prune.reset_after(PRUNE_PAUSE);
                    }
                }
            }
            if self.asks.is_closed() {
                return std::future::pending().await;
            }
        }
    }

    /// Deletes all rows that are older than `retention`, a few a commit, and saves the ledger's age.
    pub async fn prune(&self, retention: Duration) {
        self.save_age(Some(retention)).await;
        while self.prune_step(retention).await {}
    }

    /// Deletes a few rows that are older than `retention`. Tells whether there may be more.
    async fn prune_step(&self, retention: Duration) -> bool {
        let age = self.age();
        let pruned = match self.look(move |db| store::is_to_be_pruned(db, age, retention)).await {
            Ok(false) => Ok(false),
            Ok(true) => self.ask(Kind::Write, move |db| store::prune(db, age, retention)).await,
            Err(error) => Err(error),
        };
        pruned.unwrap_or_else(|error| {
            tracing::warn!(%error, "old rows could not be pruned");
            false
        })
    }

    /// Saves the ledger's age, the latest wall time that was witnessed, and its epoch; with a step of pruning, if it is
    /// known how long rows are kept.
    async fn save_age(&self, retention: Option<Duration>) {
        let (age, wall, epoch) = (self.age(), self.wall_clock.seen(), self.trust.known_epoch());
        let saved = self.ask(Kind::Write, move |db| {
            store::save_age(db, age, wall)?;
            if let Some((epoch, age)) = epoch {
                store::set_epoch(db, epoch, age)?;
            }
            retention.map_or(Ok(false), |retention| store::prune(db, age, retention))
        });
        if let Err(error) = saved.await {
            tracing::warn!(%error, "the ledger's age could not be saved");
        }
    }

    /// Closes the ledger after everything has stopped in order, and nothing is left to be waited for.
    pub async fn close(&self) {
        self.close_leaving(Legacy::default()).await;
    }

    /// Closes the ledger after everything has stopped but for what is left.
    pub async fn close_leaving(&self, left: Legacy) {
        // If this is not recorded, the next daemon is more careful than it need be.
        let _ = self.ask(Kind::Write, move |db| store::end_life(db, left)).await;
        self.close_after_a_fault().await;
    }

    /// Commits what waits, empties the log and closes the file. Whoever only reads ends before, so that the last
    /// connection to be closed is the writer's.
    pub async fn close_after_a_fault(&self) {
        self.save_age(None).await;
        self.stop_proof.store(true, std::sync::atomic::Ordering::Relaxed);
        let (done, proof_ended) = oneshot::channel();
        if self.proof_tasks.send(ProofTask::Stop(done)).await.is_ok() {
            let _ = proof_ended.await;
        }
        let (done, reader_ended) = oneshot::channel();
        if self.looks.send(Look::Stop(done)).await.is_ok() {
            let _ = reader_ended.await;
        }
        let (done, closed) = oneshot::channel();
        if self.asks.send(Ask::Stop(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn tick(&self) {
        // A closed queue means that the process is about to end.
        let _ = self.asks.send(Ask::Tick).await;
    }
}
