//! The events that are worth an alert, each under an id of its own (systemd's `MESSAGE_ID`), by which the journal finds
//! it whatever its words are: `journalctl MESSAGE_ID=…`. Ids and names are an interface.
//!
//! Where one is logged its name stands at the line, as `name: COMMAND_IN_DOUBT`.

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, which the journal has as `FIELDBRIDGE_EVENT`.
    pub name: &'static str,
    /// Its id: 128 bits in hexadecimal digits.
    pub id: &'static str,
    /// What has happened, as a heading.
    pub subject: &'static str,
    /// What that means, and what to do.
    pub meaning: &'static str,
}

/// A command ended in doubt.
pub const COMMAND_IN_DOUBT: &str = "command-in-doubt";
/// The daemon serves.
pub const READY: &str = "ready";
/// The daemon has stopped.
pub const STOPPED: &str = "stopped";
/// A part does not move.
pub const STUCK: &str = "stuck";
/// The ledger can't be written.
pub const LEDGER_UNWELL: &str = "ledger-unwell";
/// The ledger can be written again.
pub const LEDGER_WELL: &str = "ledger-well";
/// The ledger can't be trusted.
pub const LEDGER_LOST: &str = "ledger-lost";
/// No identity can reach the hub.
pub const HUB_UNREACHABLE: &str = "hub-unreachable";
/// The hub can be reached.
pub const HUB_REACHED: &str = "hub-reached";
/// One device has no connection.
pub const DEVICE_DISCONNECTED: &str = "device-disconnected";
/// A new configuration was refused.
pub const CONFIGURATION_REFUSED: &str = "configuration-refused";
/// A new configuration is in force.
pub const CONFIGURATION_CHANGED: &str = "configuration-changed";
/// A device was locked.
pub const DEVICE_LOCKED: &str = "device-locked";
/// The clock is not believed.
pub use crate::time::trust::CLOCK_DOUBTED;

/// All of them.
pub const KINDS: [Kind; 14] = [
    Kind {
        name: COMMAND_IN_DOUBT,
        id: "2aa254212e9c426888f098f78b6b9750",
        subject: "It is not known whether a command was done",
        meaning: "The command must not be repeated, and its peripheral did not confirm it. Look at the machine, then \
                  mark the row as dealt with: fieldbridge ledger list --state in_doubt shows it.",
    },
    Kind {
        name: READY,
        id: "32da177b48ab4af8a10af72a17345bb6",
        subject: "fieldbridge serves",
        meaning: "It has proven its ledger and begins to connect its devices to the hub. Nothing is to be done.",
    },
    Kind {
        name: STOPPED,
        id: "f0d0de9a8c3f4e548fc9986419111828",
        subject: "fieldbridge has stopped",
        meaning: "It was asked to. Commands wait at the hub until it runs again.",
    },
    Kind {
        name: STUCK,
        id: "b24d3753ced84e499fe8deb284345a2f",
        subject: "A part of fieldbridge does not move",
        meaning: "systemd will start it anew in a minute at the latest. If it comes again, send a support bundle: \
                  fieldbridge support-bundle.",
    },
    Kind {
        name: LEDGER_UNWELL,
        id: "284edb3bef92458b85358efbef06e317",
        subject: "The ledger can't be written",
        meaning: "No command is begun until it can; the hub keeps the messages. Is the disk full, or read-only? df -h \
                  and fieldbridge check --live tell.",
    },
    Kind {
        name: LEDGER_WELL,
        id: "0c61dd73a54049e1bc62398c80f3b1c1",
        subject: "The ledger can be written again",
        meaning: "Commands go on. Nothing is to be done.",
    },
    Kind {
        name: LEDGER_LOST,
        id: "3d8d6eefe67d410ba5bb66f7b0b9d648",
        subject: "The ledger can't be trusted any more",
        meaning:
            "The daemon ends and proves the whole file at its next start. If it does not start, restore a backup, \
                  or make a new ledger: fieldbridge ledger restore, fieldbridge ledger new.",
    },
    Kind {
        name: HUB_UNREACHABLE,
        id: "246e9b8e17e741328ce2d543c3800d2e",
        subject: "No device can reach the hub",
        meaning: "It is tried until it can be reached, and nothing is lost meanwhile. If it lasts: fieldbridge check \
                  --live says whether it is the name, the network, the proxy or the certificate.",
    },
    Kind {
        name: HUB_REACHED,
        id: "1ae5791db3174308bb693332af59f9d6",
        subject: "The hub can be reached",
        meaning: "Nothing is to be done.",
    },
    Kind {
        name: DEVICE_DISCONNECTED,
        id: "423960b6a540489f8dc439f66508508e",
        subject: "A device has no connection to the hub",
        meaning: "The line says why, and what to check. The device is tried again and again; others are not concerned.",
    },
    Kind {
        name: CONFIGURATION_REFUSED,
        id: "e39ac4099dbb4b0495b851c9632d16e0",
        subject: "A new configuration has errors",
        meaning: "The one before stays in force, until the next restart, which would fail. fieldbridge check tells \
                  every error with its file and line.",
    },
    Kind {
        name: CONFIGURATION_CHANGED,
        id: "e368a45109dd40a8aac73e78403fcc3c",
        subject: "A new configuration is in force",
        meaning: "The line says what has changed. Nothing is to be done.",
    },
    Kind {
        name: DEVICE_LOCKED,
        id: "c255dd866f6f4f959fe71293e8701a75",
        subject: "A device was locked",
        meaning: "Somebody works on its machine. Commands that write are rejected until fieldbridge unlock.",
    },
    Kind {
        name: CLOCK_DOUBTED,
        id: "16558c80a0ba483e9ae8ffea89f618e6",
        subject: "The clock is not believed",
        meaning: "Tokens and deadlines need it. It is asked again until it is synchronised: timedatectl tells whether \
                  it will be.",
    },
];

/// The id of the kind of event with this name.
pub(super) fn id(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|kind| kind.name == name).map(|kind| kind.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_event_has_a_name_and_an_id_of_its_own() {
        let ids: BTreeSet<&str> = KINDS.iter().map(|kind| kind.id).collect();
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!((ids.len(), names.len()), (KINDS.len(), KINDS.len()));
        for id in ids {
            assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)), "{id}");
        }
    }
}
