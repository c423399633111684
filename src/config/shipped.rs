//! Profiles that come with the program, each in a file of its name: `NAME.toml` holds `[profile.NAME]` and nothing
//! else.
//!
//! Invariants
//! - A profile that the configuration defines itself, be it only a part of it, is never looked for here.
//! - A file here adds nothing but the profile of its name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

/// Where packages put them.
const FOLDER: &str = "/usr/share/fieldbridge/profiles";
/// The environment's word for another folder.
const ELSEWHERE: &str = "FIELDBRIDGE_PROFILES";
/// More than will ever be shipped.
const PROFILES_MAX: usize = 1000;

/// A folder of profiles.
#[derive(Debug, Clone)]
pub struct Shipped {
    folder: PathBuf,
}

/// A profile that is shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As a device names it.
    pub name: String,
    /// The first sentence of its file: which peripherals it is for.
    pub about: String,
    /// Its file.
    pub path: PathBuf,
}

/// What the environment of this process says of the folder, if anything.
pub fn elsewhere() -> Option<(String, String)> {
    std::env::var(ELSEWHERE).ok().map(|value| (ELSEWHERE.to_owned(), value))
}

impl Shipped {
    /// As this environment has it.
    pub fn of(environment: &[(String, String)]) -> Shipped {
        let elsewhere = environment.iter().find(|(name, value)| name == ELSEWHERE && !value.is_empty());
        Shipped { folder: elsewhere.map_or_else(|| FOLDER.into(), |(_, value)| value.into()) }
    }

    /// As the environment of this process has it.
    pub fn of_this_process() -> Shipped {
        Shipped::of(&elsewhere().into_iter().collect::<Vec<_>>())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all, in order; none where there is no such folder.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?.strip_suffix(".toml")?.to_owned();
            is_plain(&name).then_some(name)
        });
        names.take(PROFILES_MAX).collect::<BTreeSet<String>>().into_iter().collect()
    }

    /// The file of a profile, if there is one.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let path = self.folder.join(format!("{name}.toml"));
        (is_plain(name) && path.is_file()).then_some(path)
    }

    /// The text of a profile's file.
    ///
    /// # Errors
    /// It can't be read.
    pub fn text(&self, name: &str) -> io::Result<Option<String>> {
        self.file(name).map(fs::read_to_string).transpose()
    }

    /// All of them, in order of their names. A file that can't be read says so in its place.
    pub fn list(&self) -> Vec<Entry> {
        let entry = |name: String| {
            let about = match self.text(&name) {
                Ok(text) => about(&text.unwrap_or_default()),
                Err(error) => format!("it can't be read: {error}"),
            };
            Entry { path: self.folder.join(format!("{name}.toml")), about, name }
        };
        self.names().into_iter().map(entry).collect()
    }
}

/// Whether a name names a file in a folder, and can't lead out of it.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
}

/// The first sentence of the comment at the head of a file.
fn about(text: &str) -> String {
    let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    let comment = comment.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    comment.split_once(". ").map_or(comment.trim_end_matches('.'), |(first, _)| first).to_owned()
}

/// The profiles that devices name and nobody defines.
pub(super) fn wanted(root: &Map<String, Value>) -> BTreeSet<String> {
    let tables = |key: &str| match root.get(key).map(|value| &value.kind) {
        Some(ValueKind::Table(entries)) => Some(entries),
        _ => None,
    };
    let defined = tables("profile");
    let named = tables("device").into_iter().flatten().filter_map(|(_, device)| match &device.kind {
        ValueKind::Table(device) => match &device.get("profile")?.kind {
            ValueKind::String(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    });
    named.filter(|name| defined.is_none_or(|defined| !defined.contains_key(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_profile_is_for_is_the_first_sentence_of_its_file() {
        assert_eq!(
            about("# A meter, and its like: by RTU. As delivered: 9600.\n#\n# More.\n"),
            "A meter, and its like: by RTU"
        );
        assert_eq!(about("# One\n# meter.\n[profile.a]\n"), "One meter");
        assert_eq!(about("[profile.a]\n"), "");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("out.toml"), "").unwrap();
        fs::write(inner.join("in.toml"), "").unwrap();
        let shipped = Shipped { folder: inner };
        assert!(shipped.file("in").is_some());
        assert_eq!(shipped.names(), ["in"]);
        for name in ["../out", "", ".", "..", "in.toml/..", "/etc/passwd"] {
            assert_eq!(shipped.file(name), None, "{name}");
        }
    }
}
