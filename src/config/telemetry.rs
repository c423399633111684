//! `[telemetry]`, and what the polls of a configuration come to in a day.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tree::{Span, Table};
use super::{keys, Device};
use crate::complaint::Complaint;
use crate::peripheral::{Action, Poll};
use crate::telemetry::{Settings, ELEMENT_BYTES, PROPERTY_BYTES, UNIT_BYTES, VALUE_BYTES};

/// Its name, beside the ledger.
const DEFAULT_NAME: &str = "telemetry.db";
const DEFAULT_SIZE: u64 = 64 << 20;
const DEFAULT_BATCH: u64 = 4 << 10;
const DEFAULT_DELAY: Duration = Duration::from_secs(10);
const DELAY: Span = Span { min: Duration::ZERO, max: Duration::from_secs(86_400), because: "" };
const DAY: f64 = 86_400.0;

/// Messages that a unit of the edition S1 takes a day ("IoT Hub quotas and throttling", Microsoft).
pub const S1_MESSAGES: u64 = 400_000;

/// `[telemetry]`; `None` where something is wrong with it.
pub(super) fn telemetry(root: &Table, ledger: Option<&Path>) -> Option<Settings> {
    let table = root.table_or_empty("telemetry", keys::TELEMETRY);
    // Where the ledger can't be read, nothing comes of this either.
    let beside = || ledger.map(beside_the_ledger);
    let path = if table.has("path") { table.path("path") } else { beside() };
    if path.as_ref().is_some_and(|path| path.is_dir()) {
        table.wrong("path", ("is a folder", "name the database file in it"));
    }
    if path.as_deref().zip(ledger).is_some_and(|(path, ledger)| path == ledger) {
        table.wrong("path", ("is the ledger's, which nothing else writes to", "name another file"));
    }
    let max_size = table.size("max_size", 1 << 20..=64 << 30).unwrap_or(DEFAULT_SIZE);
    // What a hub takes at most ("IoT Hub quotas and throttling", Microsoft).
    let batch_size = table.size("batch_size", 512..=256 << 10).unwrap_or(DEFAULT_BATCH);
    let batch_delay = table.duration("batch_delay", &DELAY).unwrap_or(DEFAULT_DELAY);
    let newest_first = table.boolean("newest_first").unwrap_or(false);
    let daily_messages = table.small("daily_messages", 0..=1_000_000_000).unwrap_or(0);
    let batch_size = usize::try_from(batch_size).unwrap_or(UNIT_BYTES);
    Some(Settings { path: path?, max_size, batch_size, batch_delay, newest_first, daily_messages })
}

/// Where it is if nothing is said: a ledger has its own, so that two daemons with a ledger each have two.
pub(super) fn beside_the_ledger(ledger: &Path) -> PathBuf {
    ledger.with_file_name(DEFAULT_NAME)
}

/// Warns of more than is sent a day.
pub(super) fn check_day(root: &Table, settings: &Settings, devices: &BTreeMap<String, Device>) {
    let (most, daily) = (messages_a_day(settings, devices.values()), u64::from(settings.daily_messages));
    if daily == 0 || most <= daily {
        return;
    }
    let why = Complaint::new(
        format!(
            "the polls make up to {most} messages a day, and {daily} are sent: what is over waits, and the oldest is lost \
             when max_size is reached"
        ),
        "make every or batch_delay longer, report only changes, or raise it",
    );
    root.table_or_empty("telemetry", keys::TELEMETRY).warn("daily_messages", why);
}

/// How many messages, as a hub counts them, the polls of these devices come to in a day, if all that can be told is.
pub fn messages_a_day<'a>(settings: &Settings, devices: impl Iterator<Item = &'a Device>) -> u64 {
    let body = settings.batch_size.saturating_sub(PROPERTY_BYTES).max(1) as f64;
    let of_device = |device: &Device| {
        let polls = || device.polls.iter();
        let times = |poll: &Poll| DAY / poll.every.as_secs_f64();
        let samples: f64 = polls().map(|(_, poll)| times(poll)).sum();
        let bytes: f64 = polls().map(|(name, poll)| times(poll) * element(name, poll) as f64).sum();
        let by_time = match settings.batch_delay.as_secs_f64() {
            0.0 => samples,
            delay => samples.min(DAY / delay),
        };
        let batches = by_time.max(bytes / body);
        if batches == 0.0 {
            return 0.0;
        }
        // Each is counted in units that it has begun.
        let size = (bytes / batches + PROPERTY_BYTES as f64).min(settings.batch_size as f64);
        batches * (size / UNIT_BYTES as f64).ceil()
    };
    devices.map(of_device).sum::<f64>().ceil() as u64
}

/// Bytes of one sample of a poll, about.
fn element(name: &str, poll: &Poll) -> usize {
    let more = match &poll.command.action {
        Action::Read(point) => 8 * point.count.map_or(0, |count| usize::from(count) - 1),
        _ => 0,
    };
    ELEMENT_BYTES + VALUE_BYTES + 2 * name.len() + more
}
