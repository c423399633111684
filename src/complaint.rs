//! What is wrong, and what to do about it: the one shape of all that is said to the person on site.
//!
//! Shown, it is one sentence, the remedy behind a semicolon. It is made of its two parts, as there may be a semicolon
//! in what it repeats. Only what a status says comes as one sentence and is taken apart ([`Complaint::heard`]): the
//! daemon may be of another version.

use std::fmt;

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong: a sentence without its end.
    pub what: String,
    /// What to do; empty where nothing is said.
    pub remedy: String,
}

impl Complaint {
    /// Of its two parts, whatever stands in them.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { what: what.into(), remedy: remedy.into() }
    }

    /// With nothing to do that is known here; whoever passes it on may add that.
    pub fn bare(what: impl Into<String>) -> Complaint {
        Complaint::new(what, "")
    }

    /// Of a sentence that comes as one: the remedy stands behind the first semicolon outside of quotes.
    pub fn heard(sentence: &str) -> Complaint {
        let (what, remedy) = split(sentence);
        Complaint::new(what, remedy)
    }

    /// With something more to do.
    pub fn and(self, more: &str) -> Complaint {
        let remedy = if self.remedy.is_empty() { more.to_owned() } else { format!("{}; {more}", self.remedy) };
        Complaint { remedy, ..self }
    }

    /// The same of one thing, which is named before it.
    pub fn of(self, thing: impl fmt::Display) -> Complaint {
        Complaint { what: format!("{thing}: {}", self.what), ..self }
    }
}

impl<W: Into<String>, R: Into<String>> From<(W, R)> for Complaint {
    fn from((what, remedy): (W, R)) -> Complaint {
        Complaint::new(what, remedy)
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

/// What a peer may repeat of a token that it was shown begins so, in whatever case; a token of Entra's with `eyJ`.
const SECRETS: [&str; 3] = ["sharedaccesssignature", "sig=", "bearer "];

/// What a peer says, to stand in a sentence: one line of at most so many bytes. Nothing in it steers a terminal, and
/// where it repeats a token it ends.
pub fn said(text: &str, most: usize) -> String {
    let lower = text.to_ascii_lowercase();
    let secrets = SECRETS.iter().filter_map(|secret| lower.find(secret)).chain(text.find("eyJ"));
    let text = text[..secrets.min().unwrap_or(text.len())].trim();
    let mut said = String::new();
    for c in text.chars().map(|c| if steers(c) { ' ' } else { c }) {
        if said.len() + c.len_utf8() > most {
            break;
        }
        said.push(c);
    }
    said
}

/// Whether a character does something to a terminal instead of standing in it: controls, line ends, and those that turn
/// the direction of writing, by which a text can seem to say something else (Unicode Standard Annex 9, 2).
pub fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control()
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
    fn what_a_peer_says_neither_steers_a_terminal_nor_repeats_a_token() {
        for (text, shown) in [
            ("ErrorCode:DeviceNotFound;no \"d\"", "ErrorCode:DeviceNotFound;no \"d\""),
            ("two\r\nlines \u{1b}[2J\u{202e}x", "two  lines  [2J x"),
            ("no: SharedAccessSignature sr=h&sig=hush", "no:"),
            ("no: sharedaccesssignature%20sr%3dh", "no:"),
            ("no: sr=h&sig=hush", "no: sr=h&"),
            ("no: Bearer hush", "no:"),
            ("no: eyJhush", "no:"),
            ("keyjaw", "keyjaw"),
            (&*"é".repeat(99), &*"é".repeat(20)),
            ("", ""),
        ] {
            assert_eq!(said(text, 41), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_made_of_two_parts_is_not_cut_at_what_somebody_has_named() {
        let port = "/srv/a; b";
        let complaint = Complaint::new(format!("{port} is not there"), "plug it in; or correct the name");
        assert_eq!(
            (&*complaint.what, &*complaint.remedy),
            ("/srv/a; b is not there", "plug it in; or correct the name")
        );
        assert_eq!(complaint.to_string(), "/srv/a; b is not there; plug it in; or correct the name");
        let complaint = Complaint::new("is empty", "fill it").of(port);
        assert_eq!((&*complaint.what, &*complaint.remedy), ("/srv/a; b: is empty", "fill it"));
    }

    #[test]
    fn the_remedy_begins_at_the_first_semicolon_that_nobody_has_written() {
        for (sentence, what, remedy) in [
            ("is empty; give it a value; or not", "is empty", "give it a value; or not"),
            ("\"a; b\" is not one of \"x\"; write \"x\"", "\"a; b\" is not one of \"x\"", "write \"x\""),
            (r#""a\"; b" is wrong; mend it"#, r#""a\"; b" is wrong"#, "mend it"),
            ("its quote \" is missing; add it", "its quote \" is missing", "add it"),
            ("nothing to do", "nothing to do", ""),
        ] {
            let complaint = Complaint::heard(sentence);
            assert_eq!((&*complaint.what, &*complaint.remedy), (what, remedy), "{sentence}");
            assert_eq!(complaint.to_string(), sentence);
        }
    }
}
