//! What strace saw of a daemon, as a list of system calls.

use std::collections::HashMap;
use std::path::Path;

/// One system call. Places in the trace are in the order in which the kernel was entered and left.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// What its first argument, a descriptor, stands for: a path, or `TCP:[…]`.
    pub file: String,
    /// Every byte string among its arguments, one after the other.
    pub data: Vec<u8>,
    pub result: i64,
    pub entered: usize,
    pub left: usize,
}

/// The words that put a daemon under strace. The trace shows whole buffers, as hexadecimal numbers, and what
/// descriptors stand for.
pub fn strace<'a>(output: &'a str, calls: &'a str) -> [&'a str; 11] {
    super::require("strace", "strace");
    ["strace", "-f", "-tt", "-yy", "-xx", "-s", "100000", "-e", calls, "-o", output]
}

/// Reads a trace that [`strace`] made.
pub fn read(path: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(path).expect("there is a trace");
    let mut begun: HashMap<&str, (String, usize)> = HashMap::new();
    let mut calls = Vec::new();
    for (place, line) in text.lines().enumerate() {
        // A short process number is padded.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((_time, rest)) = rest.trim_start().split_once(' ') else { continue };
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, (start.trim_end().to_owned(), place));
        } else if let Some(end) = rest.strip_prefix("<... ") {
            let (_, end) = end.split_once(" resumed>").unwrap_or_else(|| panic!("not understood: {line}"));
            let (start, entered) = begun.remove(thread).unwrap_or_else(|| panic!("resumed, never begun: {line}"));
            calls.extend(parse(&format!("{start}{end}"), entered, place));
        } else {
            calls.extend(parse(rest, place, place));
        }
    }
    calls
}

/// A call on a descriptor; `None` for one that did not return.
fn parse(text: &str, entered: usize, left: usize) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let (arguments, result) = arguments.rsplit_once(" = ")?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    let arguments = arguments.trim_start_matches(|c: char| c.is_ascii_digit());
    let (file, arguments) = match arguments.strip_prefix('<') {
        // The name of a socket has an arrow in it.
        Some(rest) => rest.split_at(rest.find(">,").or_else(|| rest.find(">)"))?),
        None => ("", arguments),
    };
    let data = arguments.split('"').skip(1).step_by(2).flat_map(bytes).collect();
    let file = String::from_utf8_lossy(&bytes(file)).into_owned();
    Some(Call { name: name.to_owned(), file, data, result, entered, left })
}

/// Text in which some or all characters are written as `\x41`.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two hexadecimal digits"));
        rest = &rest[at + 4..];
    }
    bytes.extend(rest.as_bytes());
    bytes
}

impl Call {
    pub fn is_read(&self) -> bool {
        matches!(self.name.as_str(), "read" | "readv" | "recvfrom" | "recvmsg") && self.result > 0
    }

    pub fn is_write(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg") && self.result > 0
    }

    /// A flush that the disk has confirmed.
    pub fn is_flush(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.result == 0
    }

    pub fn is_socket(&self) -> bool {
        self.file.starts_with("TCP:") || self.file.starts_with("socket:")
    }

    pub fn contains(&self, wanted: &[u8]) -> bool {
        self.data.windows(wanted.len()).any(|window| window == wanted)
    }
}
