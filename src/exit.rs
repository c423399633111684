//! The one error that ends the process, with its exit status. The numbers are an interface (sysexits.h where they fit).

use crate::config::Problem;
use crate::ledger::LedgerError;

/// Why the process ends with a status other than 0.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The command ran, and the answer is no; empty where what it has printed says so.
    #[error("{0}")]
    No(String),
    /// Something was not said that has to be.
    #[error("{0}")]
    Usage(String),
    /// The configuration can't be used. systemd does not restart on it.
    #[error("{}", listed(.0))]
    Config(Vec<Problem>),
    /// Something else that only a person can put right, like the configuration.
    #[error("{0}")]
    Setup(String),
    /// The ledger can't be trusted.
    #[error("{0}")]
    Ledger(String),
    /// The daemon isn't running or can't be reached.
    #[error("{0}")]
    NotRunning(String),
    /// Something around the program is out of order, and may be in order at the next start.
    #[error("{0}")]
    Surroundings(String),
    /// A fault of the program's own.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Exit {
    /// The exit status.
    pub fn exit_status(&self) -> u8 {
        match self {
            Exit::No(_) => 1,
            Exit::Usage(_) => 2,
            Exit::Surroundings(_) | Exit::Internal(_) => 70,
            Exit::Ledger(_) => 74,
            Exit::NotRunning(_) => 75,
            Exit::Config(_) | Exit::Setup(_) => 78,
        }
    }
}

impl From<LedgerError> for Exit {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Missing(_) | LedgerError::Denied(_) | LedgerError::Refused(_) => Exit::No(error.to_string()),
            _ => Exit::Ledger(error.to_string()),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("\n")
}
