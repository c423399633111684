//! What is wrong, and what to do about it: the one shape of all that is said to the person on site.
//!
//! Shown, it is one sentence, the remedy behind a semicolon. Sentences that come from elsewhere, such as from a daemon
//! of another version, are taken apart by the same rule.

use std::fmt;

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong: a sentence without its end.
    pub what: String,
    /// What to do; empty where nothing is said.
    pub remedy: String,
}

impl<T: Into<String>> From<T> for Complaint {
    /// Of a sentence: the remedy stands behind the first semicolon outside of quotes. What somebody wrote may hold one.
    fn from(sentence: T) -> Complaint {
        let sentence = sentence.into();
        let (what, remedy) = split(&sentence);
        Complaint { what: what.to_owned(), remedy: remedy.to_owned() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.remedy.as_str() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

fn split(sentence: &str) -> (&str, &str) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in sentence.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ';' if !is_quoted && sentence[at..].starts_with("; ") => return (&sentence[..at], &sentence[at + 2..]),
            _ => {}
        }
    }
    // An odd quote, such as the one that is missing.
    sentence.split_once("; ").unwrap_or((sentence, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_begins_at_the_first_semicolon_that_nobody_has_written() {
        for (sentence, what, remedy) in [
            ("is empty; give it a value; or not", "is empty", "give it a value; or not"),
            ("\"a; b\" is none of \"x\"; write \"x\"", "\"a; b\" is none of \"x\"", "write \"x\""),
            (r#""a\"; b" is wrong; mend it"#, r#""a\"; b" is wrong"#, "mend it"),
            ("its quote \" is missing; add it", "its quote \" is missing", "add it"),
            ("nothing to do", "nothing to do", ""),
        ] {
            let complaint = Complaint::from(sentence);
            assert_eq!((&*complaint.what, &*complaint.remedy), (what, remedy), "{sentence}");
            assert_eq!(complaint.to_string(), sentence);
        }
    }
}
