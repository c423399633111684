//! The mark beside a ledger that says that its file was proven, and that nothing has spoken against it since.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{beside, Disk};

/// The mark of a ledger.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    disk: Arc<dyn Disk>,
    ledger: PathBuf,
    mark: PathBuf,
}

impl Mark {
    pub(super) fn of(disk: Arc<dyn Disk>, ledger: &Path) -> Mark {
        Mark { disk, ledger: ledger.to_owned(), mark: beside(ledger, ".sound") }
    }

    /// Whether it is there, and is this file's: another one under the same name has another number, or was made later.
    pub(super) fn is_there(&self) -> bool {
        let found = self.disk.read(&self.mark);
        found.is_ok_and(|found| self.content().is_ok_and(|content| found == content.as_bytes()))
    }

    pub(super) fn set(&self) {
        let set = || {
            self.disk.write(&self.mark, self.content()?.as_bytes())?;
            match self.mark.parent() {
                Some(folder) => self.disk.sync(folder),
                None => Ok(()),
            }
        };
        if let Err(error) = set() {
            tracing::warn!(%error, "the ledger can't be marked as sound; the next start proves the whole file first");
        }
    }

    pub(super) fn take_away(&self) {
        let found = self.disk.remove(&self.mark);
        match found {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the mark that the ledger is sound can't be taken away");
            }
            _ => {}
        }
    }

    fn content(&self) -> std::io::Result<String> {
        let found = self.disk.look(&self.ledger)?;
        let made = found.made.map(|made| format!(" made {}", made.as_nanos())).unwrap_or_default();
        Ok(format!("inode {}{made}\n", found.file.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::disk::SystemDisk;

    /// Where somebody deletes the ledger and copies another one there, the file system is likely to give it the same
    /// inode.
    #[test]
    fn another_file_is_not_marked_though_it_has_the_inode_of_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let ledger = folder.path().join("ledger.db");
        std::fs::write(&ledger, "proven").expect("it can be written");
        let mark = Mark::of(Arc::new(SystemDisk), &ledger);
        mark.set();
        assert!(mark.is_there());
        for _ in 0..100 {
            std::fs::remove_file(&ledger).expect("it can be deleted");
            std::fs::write(&ledger, "another").expect("it can be written");
            assert!(!mark.is_there());
        }
    }
}
