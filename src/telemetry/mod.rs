//! What polls have read, on its way to the hub: made into batches, kept in a file of its own until the hub has it.
//!
//! ```text
//! poll ── add ──► open batch ──full, or old──► waiting in memory ──take──► on the wire ──► acknowledged: forgotten
//!                                                  │        ▲
//!                                        10 s later ▼        │ load
//!                                                 telemetry.db
//! ```
//!
//! [`sample`] says what is told of one reading; `budget` how many messages a day may be sent; `shelf` decides, for each
//! device, what is on its way and what goes next; `file` is the SQLite file, `keeper` the thread that alone touches it;
//! [`Store`] is what others have of it.
//!
//! Invariants
//! - Commands never wait for it: it shares no file, no thread and no lock with the ledger, and nobody who calls it
//!   waits for a disk.
//! - What the hub acknowledges within [`FLUSH_PERIOD`] never touches the disk. What it does not is in the file then,
//!   without a flush of its own (`synchronous=NORMAL`): a crash loses what was read since the last writing, and a power
//!   cut what the system had not written yet. The file is sound after either.
//! - A batch has one id for as long as it lives. It leaves the store after the hub's acknowledgement only, or as lost.
//! - Memory and file are bounded. What is lost for want of room, the oldest first, is counted, and told in a gap event.
//! - A life that ended without a word is told of by the next one: what was lost with it, nobody knows.
//! - A file that can't be opened or is damaged is moved aside; one that can't be written holds up nobody.

mod batch;
mod budget;
mod file;
mod keeper;
mod life;
pub mod sample;
mod shelf;
mod store;

use std::path::PathBuf;
use std::time::Duration;

pub use batch::{Batch, Gap, Kind, FROM};
pub use budget::{units, UNIT_BYTES};
pub use sample::{Sample, ELEMENT_BYTES, PROPERTY_BYTES, VALUE_BYTES};
pub use store::{Outlet, Standing, Store, Taken};

/// How often what waits is written to the disk.
pub const FLUSH_PERIOD: Duration = Duration::from_secs(10);

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The database file.
    pub path: PathBuf,
    /// What it may hold, bytes, 1 MiB to 64 GiB.
    pub max_size: u64,
    /// Longest message, bytes, 512 to 256 KiB.
    pub batch_size: usize,
    /// How long a batch is collected, 0 to 1 day.
    pub batch_delay: Duration,
    /// Whether what was read last goes first.
    pub newest_first: bool,
    /// Messages a day that are sent at most, over all devices; 0: as many as there are.
    pub daily_messages: u32,
}

#[cfg(test)]
impl Settings {
    /// A small file in this folder; each sample is a message at once.
    pub fn to_test(folder: &std::path::Path) -> Settings {
        Settings {
            path: folder.join("telemetry.db"),
            max_size: 1 << 20,
            batch_size: 4096,
            batch_delay: Duration::ZERO,
            newest_first: false,
            daily_messages: 0,
        }
    }
}
