//! Why the ledger did not do what was asked: whoever decides by it reads the kind, whoever reads it is told what to do.

use std::path::PathBuf;

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
