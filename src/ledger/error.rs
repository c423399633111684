//! Why the ledger did not do what was asked: whoever decides by it reads the kind, whoever reads it is told what to do.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::complaint::Complaint;

/// Why the ledger did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Not committed, nothing changed; it may work again later.
    #[error("{0}")]
    Full(String),
    /// Not committed, nothing changed: another program holds the ledger; it may work again later.
    #[error("{0}")]
    Locked(String),
    /// Not committed, and the ledger must not be used again by this process.
    #[error("{0}")]
    Failed(String),
    /// The file can't be used.
    #[error("{}", self.complaint())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: Complaint,
    },
    /// A daemon holds it.
    #[error("{}", self.complaint())]
    InUse(PathBuf),
    /// This user may not read it.
    #[error("{}", self.complaint())]
    Denied(PathBuf),
    /// What was asked for can't be done, and nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// There is no ledger yet.
    #[error("{}", self.complaint())]
    Missing(PathBuf),
    /// The writer has ended; what it had in hand may be committed.
    #[error("the ledger is closed")]
    Closed,
}

impl LedgerError {
    /// What is wrong, and what to do. What goes wrong with a ledger in use says both in its sentence.
    pub fn complaint(&self) -> Complaint {
        match self {
            LedgerError::Untrusted { path, why } => {
                Complaint::new(format!("the ledger {} {}", path.display(), why.what), why.remedy.as_str())
            }
            LedgerError::InUse(path) => Complaint::new(
                format!("the ledger {} is in use by another fieldbridge daemon", path.display()),
                "two on one ledger would both act on it",
            ),
            LedgerError::Denied(path) => Complaint::bare(format!(
                "the ledger {} may not be read by this user: use sudo, or join the group that it belongs to (sudo usermod \
                 -aG fieldbridge USER) and log in again",
                path.display()
            )),
            LedgerError::Missing(path) => Complaint::new(
                format!("there is no ledger at {}", path.display()),
                "the daemon makes it when it first starts",
            ),
            LedgerError::Full(why) | LedgerError::Locked(why) | LedgerError::Failed(why) | LedgerError::Refused(why) => {
                Complaint::bare(why)
            }
            LedgerError::Closed => Complaint::bare("the ledger is closed"),
        }
    }
}

/// The file can't be used, for this reason.
pub(super) fn untrusted(path: &Path, error: &dyn std::fmt::Display) -> LedgerError {
    LedgerError::Untrusted { path: path.to_owned(), why: Complaint::bare(format!("can't be used: {error}")) }
}

/// Only what SQLite calls damage is called so: to start with an empty ledger is no remedy for a full disk.
pub(super) fn not_sound(path: &Path, error: &rusqlite::Error) -> LedgerError {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            Complaint::new(
                format!(
                    "can't be read and written: {error}. Is its disk full, read-only or failing, and may this user write \
                     there? Nothing in it was changed"
                ),
                "put that right, and start the daemon again",
            )
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Complaint::new(format!("can't be used: {error}"), "end the program that holds it")
        }
        _ => Complaint::new(
            format!("is damaged: {error}. Nothing was changed. Copy it away with its -wal and -shm files"),
            "restore a backup, or move all three away to start with an empty ledger (commands that the hub still holds may \
             then be executed again)",
        ),
    };
    LedgerError::Untrusted { path: path.to_owned(), why }
}
