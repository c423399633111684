//! The files of a configuration as they were when it was read: whether somebody has written to them since shows without
//! reading them again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::load::drop_in_files;

/// What each file looked like. One whose name only is known was not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing(BTreeMap<PathBuf, Option<Look>>);

/// Which file it is, how long, and when it was written: s and ns since 1970.
type Look = (u64, u64, i64, i64);

impl Standing {
    /// The main file and its drop-ins, as they are now.
    pub fn of(main: &Path) -> Standing {
        let mut standing = Standing::default();
        standing.add(&[main.to_owned()]);
        if let Ok(found) = drop_in_files(&main.with_file_name("conf.d")) {
            standing.add(&found.read);
        }
        standing
    }

    /// More files, as they are now; those that are known already stay as they were.
    pub fn add(&mut self, files: &[PathBuf]) {
        for file in files {
            if !self.0.contains_key(file) {
                self.0.insert(file.clone(), look(file));
            }
        }
    }

    /// The files that are other ones now, have come or are gone.
    pub fn changed(&self, main: &Path) -> Vec<PathBuf> {
        let mut now = Standing::of(main);
        now.add(&self.0.keys().cloned().collect::<Vec<_>>());
        let is_other = |(file, look): &(&PathBuf, &Option<Look>)| self.0.get(*file) != Some(*look);
        now.0.iter().filter(is_other).map(|(file, _)| file.clone()).collect()
    }
}

fn look(file: &Path) -> Option<Look> {
    let found = fs::metadata(file).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_to_comes_or_goes_is_told_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("conf.d")).unwrap();
        for name in ["main.toml", "conf.d/10-a.toml", "conf.d/20-b.toml", "key"] {
            fs::write(at(name), "x").unwrap();
        }
        let main = at("main.toml");
        let mut standing = Standing::of(&main);
        standing.add(&[at("key"), main.clone()]);
        assert_eq!(standing.changed(&main), [] as [PathBuf; 0]);
        fs::write(at("conf.d/notes.txt"), "no part of it").unwrap();
        assert_eq!(standing.changed(&main), [] as [PathBuf; 0]);
        fs::write(at("key"), "longer").unwrap();
        fs::remove_file(at("conf.d/10-a.toml")).unwrap();
        fs::write(at("conf.d/30-c.toml"), "new").unwrap();
        assert_eq!(standing.changed(&main), [at("conf.d/10-a.toml"), at("conf.d/30-c.toml"), at("key")]);
        // Put in its place under its name, with the same length.
        fs::write(at("other"), "y").unwrap();
        fs::rename(at("other"), &main).unwrap();
        assert!(standing.changed(&main).contains(&main));
    }
}
