//! The text of a body, by the content encoding that its sender names. Pure.
//!
//! Invariants
//! - A body is decoded whole or not at all: no replacement character ever stands for what could not be read.
//! - What is compressed, or in an encoding that is not known here, is never taken for text.

use std::borrow::Cow;

use super::excerpt::truncated;

/// Which end of a unit of two or four bytes comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Big,
    Little,
}

/// The encodings that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    /// `None`: the byte order mark says which end comes first, or else the text itself.
    Utf16(Option<End>),
    Utf32(Option<End>),
}

/// What people set a content encoding to, without letter case, hyphens and underscores.
const NAMES: [(&str, Encoding); 10] = [
    ("", Encoding::Utf8),
    ("utf8", Encoding::Utf8),
    ("ascii", Encoding::Utf8),
    ("usascii", Encoding::Utf8),
    ("utf16", Encoding::Utf16(None)),
    ("utf16be", Encoding::Utf16(Some(End::Big))),
    ("utf16le", Encoding::Utf16(Some(End::Little))),
    ("utf32", Encoding::Utf32(None)),
    ("utf32be", Encoding::Utf32(Some(End::Big))),
    ("utf32le", Encoding::Utf32(Some(End::Little))),
];

/// Longest piece of a sender's name for an encoding that is repeated to a person, in bytes.
const NAME_SHOWN_MAX: usize = 40;

/// The text of a body, without its byte order mark. No encoding is UTF-8.
///
/// # Errors
/// Why it can't be read, with what to do; it names the encoding.
pub fn text<'a>(body: &'a [u8], encoding: Option<&str>) -> Result<Cow<'a, str>, String> {
    let named = encoding.unwrap_or_default().trim();
    let plain: String = named.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_lowercase();
    let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == plain) else {
        let shown = truncated(named, NAME_SHOWN_MAX);
        return Err(format!(
            "the content encoding is {shown:?}, which is not read here; send text in UTF-8, UTF-16 or UTF-32, not \
             compressed"
        ));
    };
    match known {
        Encoding::Utf8 => utf8(body).map(Cow::Borrowed),
        Encoding::Utf16(end) => utf16(body, *end).map(Cow::Owned).ok_or_else(|| undecoded(named)),
        Encoding::Utf32(end) => utf32(body, *end).map(Cow::Owned).ok_or_else(|| undecoded(named)),
    }
}

fn undecoded(named: &str) -> String {
    let shown = truncated(named, NAME_SHOWN_MAX);
    format!("the body is not text in {shown}, which its content encoding says; send it in what it says, or in UTF-8")
}

fn utf8(body: &[u8]) -> Result<&str, String> {
    let bare = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    std::str::from_utf8(bare).map_err(|error| {
        let hint = match body {
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "; if it is UTF-16, set the content encoding to utf-16",
            _ => "; send text in UTF-8, or set the content encoding",
        };
        format!("the body is not text in UTF-8 ({error}){hint}")
    })
}

/// Units of `N` bytes as numbers.
fn units<const N: usize>(body: &[u8], end: End) -> Option<impl Iterator<Item = u32> + '_> {
    let (units, rest) = body.as_chunks::<N>();
    let number = move |unit: &[u8; N]| {
        let add = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        match end {
            End::Big => unit.iter().fold(0, add),
            End::Little => unit.iter().rev().fold(0, add),
        }
    };
    rest.is_empty().then(|| units.iter().map(number))
}

const MARK: char = '\u{FEFF}';
/// The mark with its bytes the wrong way round: no character.
const TURNED_MARK: char = '\u{FFFE}';

/// Without its mark. One that is turned round is of the other end than what was named.
fn unmarked(text: String) -> Option<String> {
    match text.chars().next() {
        Some(MARK) => Some(text[MARK.len_utf8()..].to_owned()),
        Some(TURNED_MARK) => None,
        _ => Some(text),
    }
}

fn utf16(body: &[u8], end: Option<End>) -> Option<String> {
    let end = end.unwrap_or_else(|| end_of_utf16(body));
    let units = units::<2>(body, end)?.map(|unit| unit as u16);
    unmarked(char::decode_utf16(units).collect::<Result<String, _>>().ok()?)
}

/// Which end comes first in UTF-16 of which only that is known. Without a mark RFC 2781 (4.3) says the big one, and
/// .NET's `Encoding.Unicode`, which calls itself utf-16, writes the little one. Commands are mostly ASCII, in which the
/// high byte of a unit is zero.
fn end_of_utf16(body: &[u8]) -> End {
    match body {
        [0xFE, 0xFF, ..] => return End::Big,
        [0xFF, 0xFE, ..] => return End::Little,
        _ => {}
    }
    let zeros = |at: usize| body.iter().skip(at).step_by(2).filter(|byte| **byte == 0).count();
    match zeros(0) > zeros(1) {
        true => End::Big,
        false => End::Little,
    }
}

/// Of which only UTF-32 is known, the one end makes characters, and the other hardly ever.
fn utf32(body: &[u8], end: Option<End>) -> Option<String> {
    let read = |end| unmarked(units::<4>(body, end)?.map(char::from_u32).collect::<Option<String>>()?);
    match end {
        Some(end) => read(end),
        None => read(End::Little).or_else(|| read(End::Big)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide<const N: usize>(text: &str, end: End, mark: bool) -> Vec<u8> {
        let text = if mark { format!("{MARK}{text}") } else { text.to_owned() };
        let bytes = |unit: u32| {
            let mut bytes = unit.to_be_bytes()[4 - N..].to_vec();
            if end == End::Little {
                bytes.reverse();
            }
            bytes
        };
        match N {
            2 => text.encode_utf16().flat_map(|unit| bytes(unit.into())).collect(),
            _ => text.chars().flat_map(|char| bytes(char.into())).collect(),
        }
    }

    #[test]
    fn text_is_read_in_every_spelling_of_its_encoding_with_its_mark_or_without() {
        for body in [r#"{"command":"set","value":"ä😀"}"#, "42", "Cloud to device message.", ""] {
            for mark in [false, true] {
                for end in [End::Big, End::Little] {
                    let (name, other) = if end == End::Big { ("be", "BE") } else { ("le", "LE") };
                    let (two, four) = (wide::<2>(body, end, mark), wide::<4>(body, end, mark));
                    for named in [format!("utf-16{name}"), format!("UTF_16_{other}"), format!("Utf16{other}")] {
                        assert_eq!(text(&two, Some(&named)).as_deref(), Ok(body), "{named} {mark}");
                    }
                    for named in [format!("utf-32{name}"), format!("UTF32{other}")] {
                        assert_eq!(text(&four, Some(&named)).as_deref(), Ok(body), "{named} {mark}");
                    }
                    assert_eq!(text(&two, Some("utf-16")).as_deref(), Ok(body), "{end:?} {mark}");
                    assert_eq!(text(&four, Some(" UTF-32 ")).as_deref(), Ok(body), "{end:?} {mark}");
                }
                let plain = if mark { format!("{MARK}{body}") } else { body.to_owned() };
                for named in [None, Some(""), Some("utf-8"), Some("UTF8"), Some("us-ascii")] {
                    assert_eq!(text(plain.as_bytes(), named).as_deref(), Ok(body), "{named:?} {mark}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_in_its_encoding_is_refused_by_a_sentence_that_names_it() {
        let long = "x".repeat(500);
        for (body, encoding, told) in [
            (&b"\xFF\xFE4\x002\x00"[..], None, "set the content encoding to utf-16"),
            (b"\xC3", Some("utf-8"), "not text in UTF-8"),
            (b"abc", Some("utf-16"), "not text in utf-16,"),
            (b"\xD8\x00", Some("UTF-16BE"), "not text in UTF-16BE,"),
            (b"\xFE\xFF\x004", Some("utf-16le"), "not text in utf-16le,"),
            (b"\x00\x11\x00\x00", Some("utf-32be"), "not text in utf-32be,"),
            (b"\x00\xD8\x00\x00", Some("utf-32"), "not text in utf-32,"),
            (b"\x1F\x8B", Some("gzip"), "is \"gzip\", which is not read here"),
            (b"42", Some("deflate"), "is \"deflate\", which is not read here"),
            (b"42", Some("latin\n1"), "is \"latin\\n1\", which"),
            (b"42", Some(&long), "which is not read here"),
        ] {
            let why = text(body, encoding).unwrap_err();
            assert!(why.contains(told) && why.contains("; ") && why.len() < 300, "{encoding:?}: {why}");
        }
    }
}
