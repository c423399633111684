//! Why a port or a connection could not be opened.

use std::fmt;

pub use crate::health::snapshot::Cause;

/// Why something could not be opened. Shown, it is a sentence that names it, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOpened {
    /// What kept it from that.
    pub cause: Cause,
    /// The sentence.
    pub why: String,
}

impl NotOpened {
    /// For this cause, in these words.
    pub fn new(cause: Cause, why: impl Into<String>) -> NotOpened {
        NotOpened { cause, why: why.into() }
    }
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<String> for NotOpened {
    fn from(why: String) -> NotOpened {
        NotOpened::new(Cause::Other, why)
    }
}

impl From<&str> for NotOpened {
    fn from(why: &str) -> NotOpened {
        NotOpened::new(Cause::Other, why)
    }
}
