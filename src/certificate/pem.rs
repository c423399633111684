//! PEM: blocks of base64 between lines of dashes (RFC 7468), as people's tools and editors leave them.
//!
//! Invariants
//! - Nothing that looks like a block is passed over in silence: it is read, or the file is refused.
//! - Whoever reads a file's certificates or keys, to judge it or to use it, reads it here.
//! - No message repeats what stands in a file.

use std::io::Read as _;
use std::path::Path;

use base64::prelude::{Engine as _, BASE64_STANDARD};

use crate::complaint::Complaint;

/// A whole system's trust anchors are a quarter of this.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Twice the certificates of any system's bundle.
const BLOCKS_MAX: usize = 2000;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// What it says that it is, e.g. `CERTIFICATE`.
    pub label: String,
    /// What stood in it.
    pub der: Vec<u8>,
    /// The line that it begins in, from 1.
    pub line: usize,
    /// It says that it is encrypted.
    pub is_encrypted: bool,
}

/// A regular file's bytes, if it is no larger than what it can be.
///
/// # Errors
/// A sentence without subject, with what to do.
pub fn read(path: &Path) -> Result<Vec<u8>, Complaint> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(Complaint::new("is not a regular file", "name the file that holds it"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(Complaint::new("is larger than 1 MiB", "is it the right file?")),
        false => Ok(bytes),
    }
}

/// Why a file or folder can't be read, with the way out.
pub fn unreadable(error: &std::io::Error) -> Complaint {
    match error.kind() {
        std::io::ErrorKind::NotFound => Complaint::new("there is no such file", "create it, or correct the name"),
        std::io::ErrorKind::NotADirectory => {
            Complaint::new("a part of its path is a file, not a folder", "correct the path")
        }
        std::io::ErrorKind::PermissionDenied => Complaint::new(
            "can't be read: permission denied",
            "the user that runs this (the service runs as fieldbridge) must be able to read it",
        ),
        _ => Complaint::new(format!("can't be read: {error}"), "look at the file and its disk"),
    }
}

/// Every block of a file, in order; at least one. Text around them, in any encoding, is a comment.
///
/// # Errors
/// A sentence without subject, with what to do.
pub fn blocks(bytes: &[u8]) -> Result<Vec<Block>, Complaint> {
    if let Some(why) = wide(bytes) {
        return Err(why);
    }
    let mut found = Vec::new();
    let mut open: Option<(Block, String)> = None;
    // A file may have the ends of lines of an old Macintosh.
    let end = if bytes.contains(&b'\n') { b'\n' } else { b'\r' };
    for (index, raw) in bytes.split(|byte| *byte == end).enumerate() {
        let (number, line) = (index + 1, String::from_utf8_lossy(raw));
        let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        open = match (open.take(), label(line, BEGIN), label(line, END)) {
            (None, Some(label), _) => {
                let block = Block { label: label.to_owned(), der: Vec::new(), line: number, is_encrypted: false };
                Some((block, String::new()))
            }
            (None, None, Some(_)) => return Err(unmatched(number)),
            (None, None, None) if is_mangled(line) => return Err(mangled(number)),
            (None, None, None) => None,
            (Some((block, _)), Some(_), _) => return Err(unclosed(block.line)),
            (Some((mut block, text)), None, Some(label)) if label == block.label => {
                block.der = decode(&block, &text)?;
                found.push(block);
                None
            }
            (Some((block, _)), None, Some(_)) => return Err(unclosed(block.line)),
            (Some((block, _)), None, None) if is_mangled(line) => return Err(unclosed(block.line)),
            (Some((mut block, mut text)), None, None) => {
                // RFC 1421, 4.6: headers before the text, such as those of an encrypted key.
                match line.contains(':') && text.is_empty() {
                    true => block.is_encrypted |= line.contains("ENCRYPTED"),
                    false => text.push_str(line),
                }
                Some((block, text))
            }
        };
        if found.len() > BLOCKS_MAX {
            return Err(Complaint::new(format!("holds more than {BLOCKS_MAX} blocks"), "is it the right file?"));
        }
    }
    match open {
        Some((block, _)) => Err(unclosed(block.line)),
        None if found.is_empty() => Err(none(bytes)),
        None => Ok(found),
    }
}

fn label<'a>(line: &'a str, sign: &str) -> Option<&'a str> {
    line.strip_prefix(sign)?.strip_suffix(DASHES)
}

/// A line that was to begin or end a block.
fn is_mangled(line: &str) -> bool {
    let upper = line.to_uppercase();
    let has_dashes = upper.contains("--") || upper.contains(['–', '—']);
    let names_a_block = ["CERTIFICATE", " KEY", "TRUST"].iter().any(|word| upper.contains(word));
    !line.starts_with('#') && has_dashes && names_a_block && (upper.contains("BEGIN ") || upper.contains("END "))
}

fn decode(block: &Block, text: &str) -> Result<Vec<u8>, Complaint> {
    if block.is_encrypted {
        return Ok(Vec::new());
    }
    let text: String = text.split_whitespace().collect();
    let bad = format!("holds something else than base64 in the block that begins in line {}", block.line);
    match BASE64_STANDARD.decode(text) {
        Ok(der) if der.is_empty() => {
            Err(Complaint::new(format!("has an empty block in line {}", block.line), "copy the file again"))
        }
        Ok(der) => Ok(der),
        Err(_) => Err(Complaint::new(format!("{bad}, or a part of it is missing"), "copy the file again")),
    }
}

fn unclosed(line: usize) -> Complaint {
    Complaint::new(
        format!("is cut short: the block that begins in line {line} has no end"),
        "copy the file again, with its last line",
    )
}

fn unmatched(line: usize) -> Complaint {
    Complaint::new(
        format!("ends a block in line {line} that does not begin"),
        "copy the file again, with its first line",
    )
}

fn mangled(line: usize) -> Complaint {
    Complaint::new(
        format!("has something else around the dashes in line {line} (a quote, a name, or a missing dash)"),
        "let each line with BEGIN or END hold nothing but that",
    )
}

/// Text in two or four bytes a character.
fn wide(bytes: &[u8]) -> Option<Complaint> {
    let has_zeros = bytes.iter().take(64).filter(|byte| **byte == 0).count() > 8 && bytes.first() != Some(&0x30);
    let is_wide = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) || has_zeros;
    is_wide.then_some(Complaint::new("is text in UTF-16", "save it as UTF-8"))
}

/// A file without a single block.
fn none(bytes: &[u8]) -> Complaint {
    let is_der = bytes.first() == Some(&0x30) && bytes.get(1).is_some_and(|length| *length >= 0x80);
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let text = text.trim_start_matches('\u{feff}').trim();
    if bytes.is_empty() || (text.is_empty() && bytes.len() < 200) {
        return Complaint::new("is empty", "copy the file again");
    }
    if is_der {
        return Complaint::new(
            "is no PEM text but DER or PFX",
            "convert it, by `openssl x509 -inform DER`, `openssl pkey -inform DER` or `openssl pkcs12 -nodes`",
        );
    }
    if text.starts_with('{') {
        return Complaint::new("is JSON", "put only the PEM text into it, from -----BEGIN to -----END");
    }
    Complaint::new("holds no PEM text (-----BEGIN …-----)", "is it the right file, and not DER?")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nMAMC\nAQE=\n-----END CERTIFICATE-----\n";

    fn labels(bytes: &[u8]) -> Vec<(String, usize)> {
        let blocks = blocks(bytes).unwrap_or_else(|why| panic!("{why}"));
        assert!(blocks.iter().all(|block| block.der == [0x30, 3, 2, 1, 1]));
        blocks.into_iter().map(|block| (block.label, block.line)).collect()
    }

    #[test]
    fn blocks_are_read_whatever_stands_around_them() {
        let first = ("CERTIFICATE".to_owned(), 1);
        assert_eq!(labels(ONE.as_bytes()), std::slice::from_ref(&first));
        assert_eq!(labels(format!("\u{feff}{ONE}").as_bytes()), std::slice::from_ref(&first));
        assert_eq!(labels(ONE.replace('\n', "\r\n").as_bytes()), std::slice::from_ref(&first));
        assert_eq!(labels(ONE.replace('\n', "\n    ").as_bytes()), std::slice::from_ref(&first));
        assert_eq!(labels(ONE.trim_end().as_bytes()), std::slice::from_ref(&first));
        // Files that were put together, each with a mark of its own.
        let both = [ONE.as_bytes(), b"# Beh\xF6rde \xFF\n\xEF\xBB\xBF", ONE.as_bytes()].concat();
        assert_eq!(labels(&both), [first, ("CERTIFICATE".to_owned(), 6)]);
    }

    #[test]
    fn what_is_no_whole_block_is_refused_and_told() {
        for (bytes, told) in [
            (b"".to_vec(), "is empty"),
            (b"\n\n".to_vec(), "is empty"),
            (ONE.as_bytes()[..40].to_vec(), "cut short: the block that begins in line 1"),
            (ONE.as_bytes()[..50].to_vec(), "cut short"),
            (format!("{ONE}{}", &ONE[..40]).into_bytes(), "begins in line 5"),
            (ONE.as_bytes()[28..].to_vec(), "that does not begin"),
            (ONE.replace("AQE=", "AQ*=").into_bytes(), "something else than base64"),
            (ONE.replace("AQE=", "AQE").into_bytes(), "a part of it is missing"),
            (format!("\"{ONE}\"").into_bytes(), "around the dashes in line 1"),
            (format!("cert = '{ONE}'").into_bytes(), "around the dashes in line 1"),
            (ONE.replace("-----BEGIN", "----BEGIN").into_bytes(), "around the dashes in line 1"),
            (ONE.replace("-----", "—").into_bytes(), "around the dashes in line 1"),
            (ONE.replace("-----END CERTIFICATE-----", "-----END CERTIFICATE----").into_bytes(), "cut short"),
            (format!("{{\"cert\": \"{}\"}}", ONE.replace('\n', "\\n")).into_bytes(), "around the dashes"),
            (b"{\"a\": 1}".to_vec(), "is JSON"),
            (vec![0x30, 0x82, 1, 0, 2], "DER or PFX"),
            (ONE.encode_utf16().flat_map(u16::to_le_bytes).collect(), "UTF-16"),
            (b"hello".to_vec(), "no PEM text"),
        ] {
            let why = blocks(&bytes).map(|blocks| blocks.len()).unwrap_err().to_string();
            assert!(why.contains(told) && why.contains("; "), "{told:?}: {why}");
        }
    }

    #[test]
    fn an_encrypted_key_is_known_by_its_headers() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAMC\n\
                    -----END RSA PRIVATE KEY-----\n";
        let blocks = blocks(text.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
        assert!(blocks[0].is_encrypted);
    }
}
