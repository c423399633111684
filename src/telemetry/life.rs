//! Whether the life before this one ended in order: a mark that lies beside the file from its first opening in a
//! life to the last writing. It stays, with names in it, while somebody is owed the word of an earlier crash.
//!
//! Invariants
//! - Who finds a mark without names, which nobody has taken away, knows that something which was read may be lost, and
//!   not what: what was under way stood in memory only. In a life it is always without names.
//! - One that can't be read, or understood, is one without names.
//! - It costs two entries of a folder in a life, and no flush: after a power cut within seconds of a start it may be
//!   missing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{json, Map, Value as Json};

use super::batch::Shown;
use super::file::beside;
use crate::time::Timestamp;

/// Bytes of a mark that are read at most.
const MARK_MAX: u64 = 1 << 20;

/// Who is owed the word of a crash, and until when something may be missing, as far as that is known.
pub(super) type Owed = BTreeMap<Arc<str>, Option<Shown>>;

/// How the life before has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// In order, or nobody knows.
    InOrder,
    /// In order, but these are owed the word of an earlier one.
    Owing(Owed),
    /// Without a word.
    WithoutAWord,
}

fn mark(database: &Path) -> PathBuf {
    beside(database, "-open")
}

/// Begins a life. Says how the one before ended.
pub(super) fn begin(database: &Path) -> Before {
    let path = mark(database);
    let (found, marked) = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(_) => return Before::InOrder,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match names(&path) {
            Some(owed) => (Before::Owing(owed), File::create(&path).map(drop)),
            None => return Before::WithoutAWord,
        },
        Err(error) => (Before::InOrder, Err(error)),
    };
    if let Err(error) = marked {
        tracing::debug!(path = %path.display(), %error, "a crash from now on will not be told of in telemetry");
    }
    found
}

/// Ends it: all that was read is at the hub, in the file, or told as lost, but for the word that these are owed.
pub(super) fn end(database: &Path, owed: &Owed) {
    let path = mark(database);
    let ended = match owed.is_empty() {
        true => fs::remove_file(&path),
        // If it comes to a part of it only, that is not understood.
        false => fs::write(&path, text(owed)),
    };
    match ended {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let path = path.display().to_string();
            tracing::warn!(path, %error, "this file stays: the next start takes it for a crash; remove it");
        }
        _ => {}
    }
}

/// What stands in a mark with names.
fn text(owed: &Owed) -> String {
    let until = |shown: &Shown| json!({ "until": shown.at.0, "clockOk": shown.clock_ok });
    let names: Map<String, Json> =
        owed.iter().map(|(device, shown)| (device.to_string(), shown.as_ref().map_or(Json::Null, until))).collect();
    Json::Object(names).to_string()
}

/// The names in a mark. `None`: it has none.
fn names(mark: &Path) -> Option<Owed> {
    let mut text = String::new();
    File::open(mark).and_then(|file| file.take(MARK_MAX).read_to_string(&mut text)).ok()?;
    let names: Map<String, Json> = serde_json::from_str(&text).ok()?;
    let until = |shown: &Json| {
        Some(Shown { at: Timestamp(shown.get("until")?.as_i64()?), clock_ok: shown.get("clockOk")?.as_bool()? })
    };
    Some(names.iter().map(|(device, shown)| (Arc::from(device.as_str()), until(shown))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_did_not_end_is_known_to_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("telemetry.db");
        let nobody = Owed::new();
        assert_eq!(begin(&database), Before::InOrder, "the first");
        assert_eq!(begin(&database), Before::WithoutAWord, "it was ended by nobody");
        end(&database, &nobody);
        assert_eq!(begin(&database), Before::InOrder);
        end(&database, &nobody);
        end(&database, &nobody);
        assert_eq!(begin(&folder.path().join("none/telemetry.db")), Before::InOrder, "nobody knows");
    }

    #[test]
    fn who_is_owed_a_word_is_known_to_the_next_life_and_not_to_one_after_a_crash_of_that() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("telemetry.db");
        let until = Some(Shown { at: Timestamp(7_000), clock_ok: false });
        let owed: Owed = [("pump \"7\"".into(), until), ("valve".into(), None)].into();
        assert_eq!(begin(&database), Before::InOrder);
        end(&database, &owed);
        assert_eq!(begin(&database), Before::Owing(owed.clone()));
        assert_eq!(begin(&database), Before::WithoutAWord);
        end(&database, &owed);
        // A part of a mark is none with names.
        let half = &text(&owed)[..20];
        fs::write(mark(&database), half).unwrap();
        assert_eq!(begin(&database), Before::WithoutAWord);
    }
}
