//! Whether the life before this one ended in order: a mark that lies beside the file from its first opening in a
//! life to the last writing.
//!
//! Invariants
//! - Who finds a mark that nobody has taken away knows that something which was read may be lost, and not what: what
//!   was under way stood in memory only.
//! - It costs two entries of a folder in a life, and no flush: after a power cut within seconds of a start it may be
//!   missing.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

fn mark(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-open");
    PathBuf::from(name)
}

/// Begins a life. Says whether the one before ended without a word.
pub(super) fn begin(database: &Path) -> bool {
    let made = OpenOptions::new().write(true).create_new(true).open(mark(database));
    match made {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
        Err(error) => {
            let path = mark(database).display().to_string();
            tracing::debug!(path, %error, "a crash from now on will not be told of in telemetry");
            false
        }
    }
}

/// Ends it: all that was read is at the hub, in the file, or told as lost.
pub(super) fn end(database: &Path) {
    match fs::remove_file(mark(database)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let path = mark(database).display().to_string();
            tracing::warn!(path, %error, "this file stays: the next start takes it for a crash; remove it");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_did_not_end_is_known_to_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("telemetry.db");
        assert!(!begin(&database), "the first");
        assert!(begin(&database), "it was ended by nobody");
        end(&database);
        assert!(!begin(&database));
        end(&database);
        end(&database);
        assert!(!begin(&folder.path().join("none/telemetry.db")), "nobody knows");
    }
}
