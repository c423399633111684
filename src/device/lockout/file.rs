//! The file of the locks, beside the ledger: what outlives the daemon.
//!
//! Invariants
//! - It is replaced as a whole, under its name only when the new content is on the disk.
//! - What is not wholly understood is taken for nothing at all: who can't read it must take every device for locked.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{chown, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::command::excerpt::truncated;
use crate::complaint::{steers, Complaint};
use crate::health::snapshot;
use crate::time::Timestamp;

/// Longest reason that is kept, bytes.
const REASON_BYTES_MAX: usize = 256;

/// Why a device is locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Since when, by the wall clock, where it was believed.
    since: Option<String>,
    /// The user who has locked it.
    by: String,
    /// What the user said of it.
    reason: Option<String>,
}

impl Lock {
    /// By a user, who may have said why.
    pub fn new(since: Option<String>, by: &str, reason: Option<&str>) -> Lock {
        let line = |text: &str| text.chars().map(|c| if steers(c) { ' ' } else { c }).collect::<String>();
        let reason = reason.map(line).map(|reason| truncated(reason.trim(), REASON_BYTES_MAX).to_owned());
        Lock { since, by: line(by), reason: reason.filter(|reason| !reason.is_empty()) }
    }

    /// As `status` shows it.
    pub fn shown(&self) -> snapshot::Lock {
        let Lock { since, by, reason } = self.clone();
        snapshot::Lock { since, by: Some(by), reason }
    }
}

/// As it stands in a sentence: since when, by whom and why.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = &self.since {
            write!(f, "since {since} ")?;
        }
        write!(f, "by {}", self.by)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// What the file has of the devices, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locks {
    /// Those that are locked.
    pub locks: BTreeMap<String, Lock>,
    /// When others were unlocked last, in ms since 1970; null where the clock was not believed.
    #[serde(default)]
    unlocked: BTreeMap<String, Option<i64>>,
}

impl Locks {
    /// Locks a device.
    ///
    /// # Errors
    /// It is locked already: another's lock would end with the first unlocking.
    pub fn lock(&mut self, device: &str, lock: Lock) -> Result<(), String> {
        if let Some(present) = self.locks.get(device) {
            return Err(format!(
                "{device} is locked already, {present}, and unlocking it once ends that; ask whose lock it is"
            ));
        }
        self.unlocked.remove(device);
        self.locks.insert(device.to_owned(), lock);
        Ok(())
    }

    /// Unlocks a device, at a time if that is known.
    ///
    /// # Errors
    /// It is not locked.
    pub fn unlock(&mut self, device: &str, now: Option<Timestamp>) -> Result<(), String> {
        let missing = || format!("{device} is not locked; `fieldbridge status` shows what is");
        self.locks.remove(device).ok_or_else(missing)?;
        self.unlocked.insert(device.to_owned(), now.map(|now| now.0));
        Ok(())
    }

    /// Whether a command that came at a time may have waited through a lock which is no more.
    pub fn may_have_barred(&self, device: &str, received_at: Timestamp) -> bool {
        match (self.unlocked.get(device), received_at.known()) {
            (None, _) => false,
            (Some(Some(unlocked)), Some(received_at)) => received_at.0 <= *unlocked,
            (Some(_), _) => true,
        }
    }
}

/// Reads the locks. A file that is not there has none.
///
/// # Errors
/// It can't be read or understood.
pub fn read(path: &Path) -> Result<Locks, Complaint> {
    let unreadable = |why: String| {
        Complaint::new(
            format!("the file of the locks {} can't be read: {why}", path.display()),
            "every device counts as locked until a person has made sure that nobody works on a machine, and has \
             corrected the file or moved it aside, and restarted the daemon",
        )
    };
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Locks::default()),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Replaces the file. On return that is on the disk.
///
/// # Errors
/// The system's. The file is as it was, or as it was to be.
pub fn write(path: &Path, locks: &Locks) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    let mut text = serde_json::to_string_pretty(locks)?;
    text.push('\n');
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
    // The daemon reads it, which runs as a user of its own, and this may be another.
    let (own, like) = (file.metadata()?, folder.metadata()?);
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        chown(&new, Some(like.uid()), Some(like.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_no_list_without_locks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks");
        assert_eq!(read(&path).unwrap(), Locks::default());
        let lock = |reason| Lock::new(Some("2026-11-22T10:00:00.000Z".into()), "pi", reason);
        let mut locks = Locks::default();
        for device in ["pump \"7\"", "valve", "fan", "gate"] {
            locks.lock(device, lock(Some("seal").filter(|_| device != "valve"))).unwrap();
        }
        locks.unlock("fan", Some(Timestamp(7))).unwrap();
        locks.unlock("gate", None).unwrap();
        write(&path, &locks).unwrap();
        assert_eq!(read(&path).unwrap(), locks);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        let more = text.replacen('{', "{\"newer\": 1, ", 1);
        for damaged in ["", "{}", "[]", "null", "\0\0\0\0", more.as_str()] {
            std::fs::write(&path, damaged).unwrap();
            assert!(read(&path).is_err(), "{damaged:?}");
        }
        for length in 0..text.trim_end().len() {
            std::fs::write(&path, &text[..length]).unwrap();
            assert!(read(&path).is_err(), "{length} bytes of it");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read(&path).is_err() && write(&path, &locks).is_err());
    }

    #[test]
    fn what_may_have_waited_through_a_lock_is_told_by_its_time_and_by_nothing_if_that_is_not_known() {
        let mut locks = Locks::default();
        let came = |locks: &Locks, at| locks.may_have_barred("pump", at);
        assert!(!came(&locks, Timestamp(7)) && !came(&locks, Timestamp::UNKNOWN));
        locks.lock("pump", Lock::new(None, "pi", None)).unwrap();
        locks.unlock("pump", Some(Timestamp(7))).unwrap();
        assert!(came(&locks, Timestamp(7)) && !came(&locks, Timestamp(8)) && came(&locks, Timestamp::UNKNOWN));
        locks.lock("pump", Lock::new(None, "pi", None)).unwrap();
        locks.unlock("pump", None).unwrap();
        assert!(came(&locks, Timestamp(8)) && !locks.may_have_barred("valve", Timestamp(8)));
    }

    #[test]
    fn a_reason_is_one_line_of_a_few_words_or_none() {
        let of = |reason: &str| Lock::new(None, "pi\n", Some(reason)).reason;
        assert_eq!(of(" new\nseal\x1b[2J ").as_deref(), Some("new seal [2J"));
        assert_eq!((of(" "), of(&"ä".repeat(200)).unwrap().len()), (None, 256));
        assert_eq!(Lock::new(None, "pi", None).to_string(), "by pi");
    }
}
