//! What the parser of TOML says of a mistake.

/// What is wrong at a place, before anybody has looked at what is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Mistake {
    /// No 64 bits hold this number.
    TooLarge,
    /// The parser stumbled.
    Syntax(Heard),
}

/// What the parser says. It has no codes: what it means is known by its words, which are read here and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Heard(String);

impl Heard {
    pub(in crate::config) fn of(message: &str) -> Mistake {
        Mistake::Syntax(Heard(message.to_owned()))
    }

    /// As it is.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn begins(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.0.starts_with(words))
    }

    fn has(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.0.contains(words))
    }

    pub(super) fn is_of_a_second_key(&self) -> bool {
        self.0 == "duplicate key"
    }

    pub(super) fn misses_an_assignment(&self) -> bool {
        self.begins(&["missing assignment"])
    }

    pub(super) fn misses_a_comma(&self) -> bool {
        self.begins(&["missing comma"])
    }

    pub(super) fn misses_an_end(&self) -> bool {
        self.has(&["unclosed"])
    }

    pub(super) fn is_of_the_key(&self) -> bool {
        self.begins(&["invalid unquoted key", "key with no value"])
    }

    pub(super) fn is_of_bare_text(&self) -> bool {
        self.begins(&["string values must be quoted", "invalid"])
    }

    pub(super) fn is_of_an_escape(&self) -> bool {
        self.has(&["escape", "unicode", "hexadecimal"])
    }

    pub(super) fn is_of_quotes(&self) -> bool {
        self.has(&["basic string", "literal string"])
    }

    pub(super) fn is_of_a_control(&self) -> bool {
        self.has(&["visible characters"])
    }
}
