//! Ledgers that are restored from a backup: taken at some moment by the function behind `fieldbridge ledger backup`,
//! and put in the ledger's place by the one behind `fieldbridge ledger restore`. Both work on the system's own files:
//! the ledger is brought there and back, as what would be left of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::ledger::backup::{backup, restore};
use tempfile::TempDir;
use tokio::time::{sleep_until, Instant};

use super::disk::SimDisk;
use super::ledger::{Row, Witness, PATH};
use super::manners::Manner;
use super::scenario::{Happening, Scenario};
use super::world::World;

/// The chance in a thousand that a backup is restored between two lives.
const RESTORES: u64 = 400;

/// The backups of a schedule, and who takes and restores them.
pub struct Backups {
    world: Arc<World>,
    disk: Arc<SimDisk>,
    witness: Arc<Witness>,
    /// When one is to be taken.
    moments: Vec<Duration>,
    dice: Mutex<fastrand::Rng>,
    taken: Mutex<Vec<Vec<u8>>>,
}

impl Backups {
    /// Of a scenario that has any.
    pub fn new(world: &Arc<World>, disk: &Arc<SimDisk>, witness: &Arc<Witness>, scenario: &Scenario) -> Arc<Backups> {
        let mut dice = world.dice("backups");
        let mut moments = Vec::new();
        if scenario.manners.have(Manner::RestoredLedger) {
            let chaos = scenario.chaos.as_millis() as u64;
            let sent = |(at, happening): &(Duration, Happening)| match happening {
                Happening::Send(message, _) => Some((*at, message.after_accept && message.asks.once())),
                _ => None,
            };
            let sent: Vec<(Duration, bool)> = scenario.happenings.iter().filter_map(sent).collect();
            // What is accepted may wait for its turn.
            let accepted: Vec<Duration> = sent.iter().filter(|(_, waits)| *waits).map(|(at, _)| *at).collect();
            moments.extend((0..dice.u64(1..5)).map(|_| match dice.u64(..10) {
                0..6 if !accepted.is_empty() => {
                    accepted[dice.usize(..accepted.len())] + Duration::from_millis(dice.u64(20..600))
                }
                0..8 => sent[dice.usize(..sent.len())].0 + Duration::from_millis(dice.u64(..1_500)),
                _ => Duration::from_millis(dice.u64(..chaos)),
            }));
            moments.sort();
        }
        let (world, disk, witness) = (world.clone(), disk.clone(), witness.clone());
        Arc::new(Backups { world, disk, witness, moments, dice: Mutex::new(dice), taken: Mutex::default() })
    }

    /// Takes them when it is time.
    pub async fn live(self: Arc<Self>) {
        let began = Instant::now();
        for moment in &self.moments {
            sleep_until(began + *moment).await;
            self.take();
        }
    }

    fn dice(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.dice.lock().expect("nobody panics while holding the dice")
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.taken.lock().expect("nobody panics while holding the backups")
    }

    fn take(&self) {
        let bench = Bench::new();
        if !bench.bring(&self.disk) {
            return;
        }
        match backup(&bench.ledger(), &bench.backup()) {
            Ok(()) => {
                self.world.count("ledger: a backup is taken");
                self.world.note(format_args!("a backup of the ledger is taken"));
                self.taken().push(std::fs::read(bench.backup()).expect("it was written"));
            }
            Err(error) => self.world.violate(format!("no backup can be taken: {error}")),
        }
    }

    /// What one of the backups comes to in the ledger's place, by the dice.
    pub fn restored(&self, home: &str) -> Option<Restored> {
        let taken = self.taken();
        let mut dice = self.dice();
        if self.world.faults_are_over() || taken.is_empty() || dice.u64(..1000) >= RESTORES {
            return None;
        }
        let number = dice.usize(..taken.len());
        let (is_lost, is_cut_short) = (dice.bool(), dice.bool());
        let bench = Bench::new();
        std::fs::write(bench.backup(), &taken[number]).expect("it can be written");
        let is_there = !is_lost && bench.bring(&self.disk);
        let file = match restore(&bench.ledger(), &bench.backup(), home) {
            Ok(_) => std::fs::read(bench.ledger()).expect("it is there"),
            Err(error) => {
                self.world.violate(format!("backup no. {number} can't be restored: {error}"));
                return None;
            }
        };
        let rows = match self.witness.read(file.clone(), None) {
            Ok((rows, _)) => rows,
            Err(error) => {
                self.world.violate(format!("what was restored can't be read: {error}"));
                return None;
            }
        };
        let is_planned = is_there && is_cut_short;
        self.world.count("ledger: replaced by a backup");
        if is_planned {
            self.world.count("ledger: a backup's place is taken by the next life");
        }
        let place = if is_there { "set aside" } else { "lost" };
        self.world
            .note(format_args!("the ledger is {place}, and backup no. {number} restored; cut short: {is_planned}"));
        Some(Restored { file, rows, is_planned })
    }
}

/// A ledger that takes the place of another.
pub struct Restored {
    file: Vec<u8>,
    rows: Vec<Row>,
    /// The tool was cut short when all was ready: whoever comes next ends what it has begun.
    is_planned: bool,
}

impl Restored {
    /// What it has.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Puts it in its place.
    pub fn put(self, disk: &SimDisk) {
        let path = |after: &str| PathBuf::from(format!("{PATH}{after}"));
        if self.is_planned {
            disk.place(&path(".new"), self.file);
            disk.place(&path(".replace"), b"2026-11-22T00-00-00-000Z\n".to_vec());
        } else {
            disk.wipe();
            disk.place(&path(""), self.file);
        }
    }
}

/// A folder of the system's, in memory where there is one: what is synced there costs no time.
struct Bench(TempDir);

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Bench(folder.expect("a temporary folder"))
    }

    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger.db")
    }

    fn backup(&self) -> PathBuf {
        self.0.path().join("backup.db")
    }

    /// Brings what would be left of the ledger. `false`: there is none.
    fn bring(&self, disk: &SimDisk) -> bool {
        let Some(file) = disk.durable(Path::new(PATH)) else { return false };
        std::fs::write(self.ledger(), file).expect("it can be written");
        if let Some(log) = disk.durable(Path::new(&format!("{PATH}-wal"))) {
            std::fs::write(self.0.path().join("ledger.db-wal"), log).expect("it can be written");
        }
        true
    }
}
