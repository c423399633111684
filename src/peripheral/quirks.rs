//! What a peripheral does otherwise than by the letter of Modbus. Without its name in the configuration such an answer
//! is none. Each weakens the guarantee that an answer belongs to its request (G12): what it could let through stands
//! beside it.

/// One way to bend the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// It answers under another transaction id, or requests under 0 alone (Modbus TCP). It is asked under 0; what a
    /// server says on a new connection to what it was asked on the one before is taken for the answer.
    TransactionId,
    /// It answers under another unit id. What another unit says, or another master is told, is taken for the answer.
    UnitId,
    /// What stands behind a complete answer is not of it; and the length before an exception is wrong. An answer that
    /// is longer than it should be is taken by its beginning.
    Length,
    /// It answers a write by other content than the one it was sent. Any answer to a write by the same function is
    /// taken, even if another place or value was written.
    Echo,
}

impl Quirk {
    /// Every quirk.
    pub const ALL: [Quirk; 4] = [Quirk::TransactionId, Quirk::UnitId, Quirk::Length, Quirk::Echo];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Quirk::TransactionId => "transaction-id",
            Quirk::UnitId => "unit-id",
            Quirk::Length => "length",
            Quirk::Echo => "echo",
        }
    }

    /// The quirk with this name.
    pub fn from_name(name: &str) -> Option<Quirk> {
        Quirk::ALL.into_iter().find(|quirk| quirk.as_str() == name)
    }
}

/// The quirks of one peripheral: none, unless it is said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks(u8);

impl Quirks {
    /// A peripheral that keeps to the letter.
    pub const NONE: Quirks = Quirks(0);

    /// Whether this is one of them.
    pub fn has(self, quirk: Quirk) -> bool {
        self.0 & bit(quirk) != 0
    }

    /// The first of them by which an answer is told by nothing but its order, so that one request at a time is awaited.
    pub fn one_at_a_time(self) -> Option<Quirk> {
        [Quirk::TransactionId, Quirk::UnitId, Quirk::Length].into_iter().find(|quirk| self.has(*quirk))
    }

    /// The same, and this one.
    #[must_use]
    pub fn and(self, quirk: Quirk) -> Quirks {
        Quirks(self.0 | bit(quirk))
    }

    /// What to write into the configuration, so that a peripheral is understood that always does what it would need
    /// these for: the end of a sentence.
    pub fn hint(self) -> String {
        let names: Vec<String> = Quirk::ALL
            .into_iter()
            .filter(|quirk| self.has(*quirk))
            .map(|quirk| format!("{:?}", quirk.as_str()))
            .collect();
        format!("; if it always does, add quirks = [{}]", names.join(", "))
    }
}

impl FromIterator<Quirk> for Quirks {
    fn from_iter<I: IntoIterator<Item = Quirk>>(quirks: I) -> Quirks {
        quirks.into_iter().fold(Quirks::NONE, Quirks::and)
    }
}

fn bit(quirk: Quirk) -> u8 {
    1 << quirk as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quirk_is_one_of_those_that_were_given_and_no_other() {
        for quirk in Quirk::ALL {
            assert_eq!(Quirk::from_name(quirk.as_str()), Some(quirk));
            assert!(!Quirks::NONE.has(quirk));
            let only: Quirks = [quirk].into_iter().collect();
            assert!(Quirk::ALL.into_iter().all(|other| only.has(other) == (other == quirk)));
        }
        let all: Quirks = Quirk::ALL.into_iter().collect();
        assert!(all.hint().ends_with(r#"add quirks = ["transaction-id", "unit-id", "length", "echo"]"#));
    }
}
