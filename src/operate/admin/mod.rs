//! The admin socket: how the operator's commands reach the running daemon. One JSON object a line each way.
//!
//! Invariants
//! - Whoever may open the socket may act: it is made for its owner and group only. Who it was is asked of the kernel.
//! - Requests are bounded in size, number and time.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

/// Longest request.
pub(crate) const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest reply: a status has up to 2 KiB of each of a thousand devices, and as much of their units.
pub(crate) const REPLY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What the operator asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the daemon sees.
    // Braces: of a variant without them serde passes over unknown members.
    Status {},
    /// What it sees and has counted, in the OpenMetrics text format.
    Metrics {},
    /// What it runs on, in a form that shows no secret: [`crate::config::Fingerprints`].
    Running {},
    /// Take up the configuration as it stands in the files.
    Reload {},
    /// Run a command now.
    Exec {
        /// The device's id.
        device: String,
        /// The command's name.
        command: String,
        /// Its value.
        #[serde(default)]
        value: Option<Json>,
        /// It is to be run also if the device is locked. An older daemon does not know the word.
        #[serde(default, rename = "override", skip_serializing_if = "is_false")]
        overrides: bool,
    },
    /// Write and send nothing to a device from now on.
    Lock {
        /// The device's id.
        device: String,
        /// What the person says of it.
        #[serde(default)]
        reason: Option<String>,
    },
    /// End that.
    Unlock {
        /// The device's id.
        device: String,
    },
    /// Read what stands in a table of a device, by one request of the protocol.
    Read {
        /// The device's id.
        device: String,
        /// The table's name.
        table: String,
        /// Protocol address of the first bit or register, from 0.
        address: u16,
        /// How many of them.
        count: u16,
    },
    /// Ask a unit of a bus whether it is there.
    Scan {
        /// The bus's name.
        bus: String,
        /// The unit.
        unit: u8,
    },
    /// What has gone over a bus's line.
    Watch {
        /// The bus's name.
        bus: String,
        /// What the answer before has told to ask with.
        #[serde(default)]
        after: Option<u64>,
    },
    /// Note that somebody has looked at what a command in doubt has done.
    Resolve {
        /// The number of its row.
        row: i64,
        /// What the person has found.
        #[serde(default)]
        note: Option<String>,
    },
    /// Have the log say more or less.
    LogLevel {
        /// A level, or a list of them by module.
        level: String,
    },
    /// Ask a device's peripheral whether it answers, without changing anything.
    Probe {
        /// The device's id.
        device: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(yes: &bool) -> bool {
    !yes
}

/// Who asks, as the kernel tells it.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The user's number.
    pub uid: u32,
    /// Cancelled when nobody waits for the answer any more.
    pub gone: CancellationToken,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The document that was asked for.
    Ok(Json),
    /// The request was not understood or not possible.
    Error(String),
    /// The ledger can't be written.
    Unrecorded(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::snapshot::{Attention, Device, Poll, Snapshot, Undone};

    #[test]
    fn the_status_of_a_thousand_devices_that_all_fail_is_one_reply() {
        let words = |count| "lost ".repeat(count);
        let device = |n: usize| Device {
            id: format!("{n:0128}"),
            bus: words(10),
            hub_host: words(20),
            last_error: Some(words(100)),
            last_failure: Some(Undone { message: words(60), command: words(25), ..Undone::default() }),
            ..Device::default()
        };
        let attention = vec![Attention { what: words(100), remedy: words(100) }; 100];
        // As many polls as are told, each with as long a value as is kept.
        let polls = |n: usize| {
            (0..9)
                .filter(move |_| n < 456)
                .map(|n| (words(6) + &n.to_string(), Poll { value: words(50).into(), ..Poll::default() }))
        };
        let device = |n: usize| Device { polls: polls(n).collect(), ..device(n) };
        let snapshot = Snapshot { devices: (0..1000).map(device).collect(), attention, ..Snapshot::default() };
        let reply = serde_json::to_vec(&Reply::Ok(serde_json::json!(snapshot))).unwrap();
        assert!((reply.len() as u64) < REPLY_BYTES_MAX / 2, "{} bytes", reply.len());
    }
}
