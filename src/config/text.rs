//! The keys of a command that sends text, and the traps in writing one.

use std::fmt::Display;

use regex_lite::Regex;

use super::tree::Table;
use crate::complaint::Complaint;
use crate::peripheral::{Meaning, Pattern, Picture, Template, Wording, PLACEHOLDER};

/// Longer than any line that a peripheral reads at once.
const SEND_BYTES_MAX: usize = 4096;

const MEANINGS: [(&str, Meaning); 3] = [("text", Meaning::Text), ("number", Meaning::Number), ("hex", Meaning::Hex)];

/// What people write for an end of line where it is none, and what they mean.
const NO_ENDS: [(&str, &str); 8] = [
    ("\\r\\n", "\\r\\n"),
    ("\\n", "\\n"),
    ("\\r", "\\r"),
    ("/r/n", "\\r\\n"),
    ("<CR><LF>", "\\r\\n"),
    ("<CRLF>", "\\r\\n"),
    ("<CR>", "\\r"),
    ("<LF>", "\\n"),
];

/// What a command sends, and how its reply is understood.
pub(super) fn template(table: &Table) -> Option<Template> {
    let send = wording(table);
    let regex = |key| expression(table, key, Regex::new);
    let (expect, refuse, until) = (regex("expect"), regex("refuse"), regex("until"));
    let picture = picture(table);
    let result = table.choice("result", &MEANINGS);
    let pattern = expression(table, "pattern", Pattern::new);
    let send = send?;
    if let Some(fixed) = send.fixed() {
        let text = String::from_utf8_lossy(fixed);
        let is_own_echo = [
            ("expect", expect.as_ref().is_some_and(|expect| expect.is_match(text.trim()))),
            ("expect_hex", picture.as_ref().is_some_and(|picture| picture.read(fixed).is_some())),
        ];
        for (key, _) in is_own_echo.into_iter().filter(|(_, is_own)| *is_own) {
            table.note(
                key,
                (
                    "matches what is sent itself, and an echo confirms nothing: nobody can tell who said it",
                    "expect what only the peripheral says",
                ),
            );
        }
    }
    Some(Template { send, expect, picture, refuse, until, pattern, result: result.unwrap_or_default() })
}

/// The key that says what is sent.
fn sent_by(table: &Table) -> &'static str {
    if table.has("send_hex") {
        "send_hex"
    } else {
        "send"
    }
}

fn wording(table: &Table) -> Option<Wording> {
    let key = sent_by(table);
    let text = table.text(key)?;
    let wording = match key {
        "send_hex" => Wording::of_hex(text),
        _ => {
            check_send(table, text);
            Wording::of_text(text)
        }
    };
    if key == "send_hex" && text.len() > 3 * SEND_BYTES_MAX {
        table.wrong(key, (format!("is longer than {SEND_BYTES_MAX} bytes"), "shorten it"));
    }
    wording.map_err(|why| table.wrong(key, why)).ok()
}

/// What is expected of a reply that is no text.
fn picture(table: &Table) -> Option<Picture> {
    let text = table.text("expect_hex")?;
    for (key, why) in [
        ("expect", "stands beside expect_hex, which says what confirms"),
        ("until", "is of lines of text, and expect_hex of one reply"),
        ("result", "says what a text is, and in expect_hex its place says what the value is"),
    ] {
        if table.has(key) {
            table.wrong(key, (why, "remove one of them"));
        }
    }
    Picture::new(text).map_err(|why| table.wrong("expect_hex", why)).ok()
}

pub(super) fn expression<T, E: Display>(
    table: &Table,
    key: &str,
    compile: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let text = table.text(key)?;
    compile(text)
        .map_err(|error| table.wrong(key, (format!("is not a regular expression: {error}"), "correct it")))
        .ok()
}

fn check_send(table: &Table, send: &str) {
    if send.len() > SEND_BYTES_MAX {
        table.wrong("send", (format!("is longer than {SEND_BYTES_MAX} bytes"), "shorten it"));
    }
    if let Some(other) = other_placeholder(send) {
        let why = (format!("{other} is sent as it stands"), format!("only {PLACEHOLDER} is replaced"));
        table.note("send", why);
    }
    if let Some(why) = no_end(send) {
        table.wrong("send", (format!("ends with {}", why.what), why.remedy));
    }
    note_bytes(table, "send", send);
}

/// Why what stands at the end of a text is no end of line, if it looks like one.
pub(super) fn no_end(text: &str) -> Option<Complaint> {
    let (written, meant) = NO_ENDS.into_iter().find(|(written, _)| {
        text.len() >= written.len()
            && text.is_char_boundary(text.len() - written.len())
            && text[text.len() - written.len()..].eq_ignore_ascii_case(written)
    })?;
    let count = written.len();
    let because = if written.starts_with('\\') {
        ": in single quotes, or behind a second backslash, a backslash stands for itself"
    } else {
        ""
    };
    Some(Complaint::new(
        format!("the {count} characters {written}, which are no end of line{because}"),
        format!("write \"{meant}\", in double quotes"),
    ))
}

/// Says what goes out for characters that are more than one byte.
pub(super) fn note_bytes(table: &Table, key: &str, text: &str) {
    if let Some(char) = text.chars().find(|char| !char.is_ascii()) {
        let mut bytes = [0; 4];
        let bytes: Vec<String> = char.encode_utf8(&mut bytes).bytes().map(|byte| format!("{byte:02X}")).collect();
        let why = (
            format!("holds {char:?}, which is UTF-8 on the line, the bytes {}", bytes.join(" ")),
            "is that what the peripheral speaks?",
        );
        table.note(key, why);
    }
    if text.contains("\n\r") {
        table.note(key, ("holds \"\\n\\r\"", "is it meant to be \"\\r\\n\"?"));
    }
}

/// A word in braces that looks like a placeholder and is none.
fn other_placeholder(send: &str) -> Option<&str> {
    let word = Regex::new(r"\{[A-Za-z_]+\}").ok()?;
    let mut words = word.find_iter(send).map(|found| found.as_str());
    words.find(|found| *found != PLACEHOLDER)
}

/// Whether a line is sent without an end, where replies on its bus end with this.
pub(super) fn lacks_end(template: &Template, delimiter: &[u8]) -> bool {
    let ends_in_control = |bytes: &[u8]| bytes.last().is_some_and(u8::is_ascii_control);
    let send = template.send.end();
    ends_in_control(delimiter) && !ends_in_control(send) && !send.ends_with(delimiter)
}

/// The key whose expression wants a sign of the end of a line, where replies on its bus end with this.
pub(super) fn looks_for_end(template: &Template, delimiter: &[u8]) -> Option<&'static str> {
    let cut = |sign: char| delimiter.contains(&(sign as u8));
    // The lines of a reply of several are joined by line feeds.
    let feeds_count = template.until.is_some();
    let keys = [
        ("expect", &template.expect, feeds_count),
        ("refuse", &template.refuse, false),
        ("until", &template.until, false),
    ];
    let wants = |regex: &Regex, sign, escape| cut(sign) && is_needed(regex.as_str(), sign, escape);
    keys.into_iter().find_map(|(key, regex, feeds_count)| {
        let regex = regex.as_ref()?;
        (wants(regex, '\r', "\\r") || !feeds_count && wants(regex, '\n', "\\n")).then_some(key)
    })
}

/// Whether an expression matches nothing without this sign, as far as that is plain: where there is no choice in it,
/// and nothing in brackets may be left out.
fn is_needed(expression: &str, sign: char, escape: &str) -> bool {
    if ["|", ")?", ")*", "){0"].iter().any(|choice| expression.contains(choice)) {
        return false;
    }
    let Ok(other) = Regex::new(r"\\\\|\[(?:\\.|[^\]])*\]") else { return false };
    let plain = other.replace_all(expression, "");
    let may_lack = |behind: &str| ["?", "*", "{0"].iter().any(|often| behind.starts_with(often));
    let needed = |written: &str| plain.match_indices(written).any(|(at, _)| !may_lack(&plain[at + written.len()..]));
    needed(escape) || needed(&sign.to_string())
}

/// What is wrong with the keys beside a line that is sent.
pub(super) fn check_sent(table: &Table, template: &Template, range: Option<(f64, f64)>) {
    let (takes_value, sent_by) = (template.send.takes_value(), sent_by(table));
    for key in ["value", "range", "pattern"] {
        if table.has(key) && !takes_value {
            let why = (format!("has no effect, because {sent_by} holds no {PLACEHOLDER}"), "remove it");
            table.wrong(key, why);
        }
    }
    for other in ["values", "value"] {
        if table.has("pattern") && table.has(other) && takes_value {
            let why = (format!("stands beside {other}, which says already what is sent"), "keep one of them");
            table.wrong("pattern", why);
        }
    }
    if let Some(Err(why)) = range.map(|range| template.send.check_range(range)) {
        table.wrong("range", why);
    }
    if table.has("pattern") && template.send.takes_numbers_alone() {
        let why =
            ("is for texts, and this command's place for the value takes numbers", "write their range, or remove it");
        table.wrong("pattern", why);
    }
    let says_what_it_takes = template.send.takes_numbers_alone()
        || ["value", "values", "pattern", "range"].into_iter().any(|key| table.has(key));
    if takes_value && !says_what_it_takes {
        table.note(
            "send",
            (
                "takes numbers, true and false, and no texts",
                "to allow texts, write which: pattern = \"[A-Z]+\" or values = { name = \"TEXT\" }; for numbers alone, \
                 write their range",
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_that_is_none_is_found() {
        for (send, found) in [
            ("SP {value}\r\n", None),
            ("SP {Value}\r\n", Some("{Value}")),
            ("{value} {setpoint}", Some("{setpoint}")),
            ("JSON {\"a\":1}", None),
            ("{}{", None),
            ("} {", None),
        ] {
            assert_eq!(other_placeholder(send), found, "{send}");
        }
    }

    #[test]
    fn an_expression_that_wants_the_end_of_a_line_never_matches_where_that_is_cut_off() {
        for (expect, until, delimiter, is_vain) in [
            (r"^OK\r\n$", None, "\r\n", true),
            ("^OK\r\n", None, "\r\n", true),
            (r"^W ([0-9.]+)\n", None, "\n", true),
            (r"^OK\r$", None, "\r", true),
            (r"^OK\r$", None, "\n", false),
            (r"^OK\r\nREADY", None, ">", false),
            (r"^OK\r?\n*$", None, "\r\n", false),
            (r"^OK(\r\n)?$", None, "\r\n", false),
            (r"^OK|\n", None, "\r\n", false),
            (r"^[^\r\n]+$", None, "\r\n", false),
            (r"^C:\\new$", None, "\r\n", false),
            (r"^A 1\nB 2", Some("^OK$"), "\r\n", false),
            (r"^A 1\r\nB 2", Some("^OK$"), "\r\n", true),
            (r"^A 1\nB 2", Some(r"^OK\n"), "\r\n", true),
        ] {
            let regex = |text: &str| Some(Regex::new(text).unwrap());
            let template = Template { expect: regex(expect), until: until.and_then(regex), ..Template::default() };
            assert_eq!(looks_for_end(&template, delimiter.as_bytes()).is_some(), is_vain, "{expect:?} {delimiter:?}");
        }
    }

    #[test]
    fn what_looks_like_an_end_of_line_and_is_none_is_found() {
        for (text, written) in [
            ("T\\r\\n", "the 4 characters \\r\\n,"),
            ("T\\n", "the 2 characters \\n,"),
            ("\\r", "write \"\\r\""),
            ("T/r/n", "write \"\\r\\n\""),
            ("T<cr>", "the 4 characters <CR>,"),
        ] {
            let why = no_end(text).unwrap().to_string();
            assert!(why.contains(written), "{why}");
        }
        for text in ["T\r\n", "T", "", "é", "n", "\\no", "T\\R1"] {
            assert_eq!(no_end(text), None, "{text}");
        }
    }
}
