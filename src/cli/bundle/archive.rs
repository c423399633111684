//! A compressed archive of small files: ustar (POSIX.1-1988) in gzip.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use flate2::Compression;

/// Bytes of a block: every part of an archive is whole blocks.
const BLOCK: usize = 512;
/// Longest name of a member, its end included.
const NAME_BYTES_MAX: usize = 100;

/// An archive that is being written.
pub(super) struct Archive<W: Write> {
    out: GzEncoder<W>,
    folder: String,
    /// Seconds since 1970, of every member.
    time: u64,
}

impl<W: Write> Archive<W> {
    /// An archive whose members stand in a folder of this name.
    pub(super) fn new(out: W, folder: &str, time: u64) -> Self {
        Archive { out: GzEncoder::new(out, Compression::default()), folder: folder.to_owned(), time }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let header = header(&format!("{}/{name}", self.folder), content.len(), self.time)
            .ok_or_else(|| io::Error::other(format!("the name {name:?} is too long for an archive")))?;
        self.out.write_all(&header)?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; BLOCK][..content.len().next_multiple_of(BLOCK) - content.len()])
    }

    /// Writes its end.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

/// The header of a plain file that only its owner can read; `None` where the name is too long.
fn header(name: &str, size: usize, time: u64) -> Option<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    if name.len() >= NAME_BYTES_MAX {
        return None;
    }
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, &format!("{time:011o}\0"));
    // The checksum is computed with blanks in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_fields_at_their_places() {
        let header = header("a/b.txt", 5, 0o17).unwrap();
        assert_eq!(&header[..8], b"a/b.txt\0");
        assert_eq!(&header[124..148], b"00000000005\x0000000000017\0");
        let stored = std::str::from_utf8(&header[148..154]).unwrap();
        let sum: u32 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        assert_eq!(u32::from_str_radix(stored, 8), Ok(sum));
        assert!(super::header(&"x".repeat(100), 0, 0).is_none());
    }
}
