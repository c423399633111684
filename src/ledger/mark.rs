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

    /// Whether it is there, and is this file's: another one under the same name has another number.
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
        Ok(format!("inode {}\n", self.disk.look(&self.ledger)?.file.1))
    }
}
