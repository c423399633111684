//! A row of a command, for tests to which it does not matter which.

use fieldbridge::command::Envelope;
use fieldbridge::ledger::row::Source;
use fieldbridge::ledger::NewRow;
use fieldbridge::time::Timestamp;

/// The hub that it came from.
pub const HUB: &str = "a.azure-devices.net";

/// `reset` for the device `pump`, as it comes.
pub fn reset(id: Option<&str>) -> NewRow {
    NewRow {
        hub: HUB.into(),
        source: Source::Hub,
        device: "pump".into(),
        message_id: id.map(str::to_owned),
        digest: [1; 32],
        command: Some("reset".into()),
        value: None,
        received_at: Timestamp(1_800_000_000_000),
        expires_at: None,
        envelope: Envelope::default(),
    }
}
