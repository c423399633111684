//! A first configuration, judged and tried before it is written.
//!
//! Invariants
//! - What is judged lies in memory only (memfd_create(2)), a key too: no file is made for it, and it goes with the
//!   process.
//! - What is tried is tried as `check --live` does: a peripheral is only read, and every message stays with the hub.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{memfd_create, MemfdFlags};

use super::text::{Draft, Secret};
use crate::config::{self, Loaded, Problem};
use crate::doctor::{self, Finding};

/// Stands for a key where another answer is judged: 32 bytes.
const ANY_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The line, and the unit on it.
    Line,
    /// The hub, and whether it lets the device in.
    Hub,
}

/// A draft as a configuration.
pub(super) struct Trial {
    loaded: Loaded,
    /// What it was read from.
    _files: Vec<File>,
}

/// Why there is none.
enum Failed {
    /// It is wrong.
    Wrong(Vec<Problem>),
    /// It can't be looked at here.
    Io(io::Error),
}

impl Trial {
    /// Of a draft with the key that is to be written.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub(super) fn of(
        draft: &Draft,
        key: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Trial, String> {
        Trial::made(draft, key, environment).map_err(|failed| match failed {
            Failed::Wrong(problems) => problems.first().map_or_else(String::new, sentence),
            Failed::Io(error) => format!("nothing can be tried before it is written: {error}"),
        })
    }

    fn made(
        draft: &Draft,
        key: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Trial, Failed> {
        let mut files = Vec::new();
        let mut draft = draft.clone();
        if let Secret::NewKey = draft.secret {
            let (file, path) = in_memory(key.unwrap_or(ANY_KEY)).map_err(Failed::Io)?;
            files.push(file);
            draft.secret = Secret::Key(path);
        }
        let (file, path) = in_memory(&draft.text(Path::new(""))).map_err(Failed::Io)?;
        files.push(file);
        let loaded = config::load(&path, environment).map_err(Failed::Wrong)?;
        Ok(Trial { loaded, _files: files })
    }

    /// Tries a part of it. Gives what was found, a line each.
    ///
    /// # Errors
    /// Nothing can be tried on this machine.
    pub(super) fn tried(&self, part: Part) -> Result<Vec<Finding>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("nothing can be tried: {error}"))?;
        let config = self.loaded.config.clone();
        let found = runtime.block_on(async {
            match part {
                Part::Line => doctor::lines(config).await,
                Part::Hub => doctor::hub(config).await,
            }
        });
        // A name that is still being looked up must not hold up a person.
        runtime.shutdown_background();
        Ok(found)
    }
}

/// What is wrong with a draft in which one answer is not known to be right.
pub(super) fn judge(draft: &Draft, key: Option<&str>) -> Option<String> {
    match Trial::made(draft, key, config::shipped::elsewhere()) {
        Err(Failed::Wrong(problems)) => problems.first().map(sentence),
        // It is judged when it is written.
        Err(Failed::Io(_)) | Ok(_) => None,
    }
}

/// What a person is told, who knows of no file yet.
fn sentence(problem: &Problem) -> String {
    let named = problem.complaint.to_string();
    let named = named.split_inclusive(' ').map(|word| if word.starts_with("/proc/") { "the key " } else { word });
    format!("{}: {}", problem.key.rsplit('.').next().unwrap_or_default(), named.collect::<String>())
}

/// A file without a name in any folder, and where this process finds it.
fn in_memory(text: &str) -> io::Result<(File, PathBuf)> {
    let mut file = File::from(memfd_create("fieldbridge-init", MemfdFlags::CLOEXEC)?);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok((file, path))
}

#[cfg(test)]
mod tests {
    use super::super::text::At;
    use super::*;

    #[test]
    fn each_answer_is_judged_as_check_would_and_leaves_no_file() {
        let sound = Draft::to_judge_by;
        assert_eq!(judge(&sound(), None), None);
        let why = |draft: Draft, key: Option<&str>| judge(&draft, key).expect("it is wrong");
        assert!(
            why(Draft { at: At::Hub("https://contoso".into()), ..sound() }, None).starts_with("host: "),
            "it says which"
        );
        assert!(why(Draft { device: "d e".into(), ..sound() }, None).contains("device id"));
        let assigned = |id_scope: &str, registration_id: Option<&str>| {
            let registration_id = registration_id.map(str::to_owned);
            Draft { at: At::Assigned { id_scope: id_scope.into(), registration_id }, ..sound() }
        };
        if cfg!(feature = "https") {
            assert_eq!(judge(&assigned("0ne00123ABC", Some("sn-007")), None), None);
            assert!(why(assigned("hub.example", None), None).contains("ID Scope"));
            assert!(why(assigned("0ne00123ABC", Some("sn 007")), None).contains("registration id"));
        }
        let new_key = || Draft { secret: Secret::NewKey, ..sound() };
        assert_eq!(judge(&new_key(), Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")), None);
        let said = why(new_key(), Some("no base64!"));
        assert!(
            said.contains("put only the key into it") && !said.contains("no base64!") && !said.contains("/proc/"),
            "{said}"
        );
    }
}
