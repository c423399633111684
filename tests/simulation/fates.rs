//! What becomes of a request, and what is said to it.

/// Number of what can go wrong with a request.
pub(super) const FATES: u64 = 11;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Mute,
    DoneAndMute,
    Late,
    Garbled,
    Refused(u8),
    RefusedLate(u8),
    Begun(u8),
    Cut,
    DoneAndCut,
    ConfirmedOnly,
    SaidTwice,
}

impl Fate {
    /// Whether the peripheral says no, or that it does not know.
    pub(super) fn code(self) -> Option<u8> {
        match self {
            Fate::Refused(code) | Fate::RefusedLate(code) | Fate::Begun(code) => Some(code),
            _ => None,
        }
    }

    pub(super) fn is_late(self) -> bool {
        matches!(self, Fate::Late | Fate::RefusedLate(_))
    }
}

/// Something to be said.
pub(super) struct Saying {
    pub(super) bytes: Vec<u8>,
    pub(super) meaning: Meaning,
}

/// What it means for the one who asked.
pub(super) enum Meaning {
    Yes,
    No,
    Nothing,
    /// A reading, as it is written.
    Reading(String),
    /// A weight, which is true whoever asked.
    Weight(String),
    /// What stands in the register.
    Stands(u16),
}
