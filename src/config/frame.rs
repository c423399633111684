//! `[bus.NAME.frame]`

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;

use super::keys::{self, nearest};
use super::text::{no_end, note_bytes};
use super::tree::{Span, Table};
use crate::peripheral::checksum::{self, Checksum, Spelling};
use crate::peripheral::frame::{hex, Ends, Frame, Length, FRAME_BYTES_MAX};

/// Longer than any start or end in use.
const MARK_BYTES_MAX: usize = 16;
/// As many as go before what slow buses say: the optical heads of heat meters are woken by about 2.2 s of 0x55, which
/// are 528 bytes at 2400 baud, and HART begins with a preamble of up to 20.
const WAKE_BYTES_MAX: usize = 1024;
/// From less than a character of most lines on, up to as long as any instrument pauses within what it says.
const IDLE: Span = Span { min: Duration::from_millis(2), max: Duration::from_secs(5), because: "" };
const LENGTH_AT: RangeInclusive<i64> = 0..=255;

/// What people call a checksum elsewhere, and what it is here.
const OTHER_NAMES: [(&[&str], &str); 8] = [
    (&["bcc", "xor", "exor", "parity"], "write \"xor8\", all bytes by exclusive or"),
    (&["lrc"], "write \"lrc8\", the two's complement of the sum, or \"xor8\", which is called LRC too"),
    (&["sum", "checksum", "add", "mod256"], "write \"sum8\""),
    (&["crc8", "crc-8"], "say which: \"crc8-smbus\" is the plain one, \"crc8-maxim-dow\" that of 1-Wire"),
    (&["crc", "crc16", "crc-16", "modbus"], "say which: \"crc16-modbus\" begins with FFFF, \"crc16-arc\" with 0000"),
    (
        &["crc16-ccitt", "ccitt", "crc-ccitt", "crc16-ccitt-false"],
        "say which: \"crc16-ibm-3740\" begins with FFFF, \"crc16-xmodem\" with 0000, \"crc16-kermit\" is reflected",
    ),
    (&["crc32", "crc-32"], "write \"crc32-iso-hdlc\", that of Ethernet and ZIP, or \"crc32-iscsi\" for CRC-32C"),
    (&["none", ""], "leave checksum out"),
];

/// How the frames of a bus are made.
pub(super) fn frame(table: &Table) -> Option<Frame> {
    let (start, end) = (mark(table, "start"), mark(table, "end"));
    let escape = mark(table, "escape");
    let checksum = table.table("checksum", keys::CHECKSUM).map(|section| checksum(&section));
    let ends = ends(table);
    // What is there and wrong has been told.
    let right = |key: &str, found: bool| found || !table.has(key);
    let all = right("start", start.is_some()) && right("end", end.is_some()) && right("escape", escape.is_some());
    let checksum = match checksum {
        Some(checksum) => Some(checksum?),
        None if table.has("checksum") => return None,
        None => None,
    };
    let (start, end, ends) = (start.unwrap_or_default(), end.unwrap_or_default(), ends.filter(|_| all)?);
    if checksum.is_some_and(|checksum| checksum.covers_start) && start.is_empty() {
        table.wrong("checksum", ("covers the start of a frame, and there is none", "write start, or remove covers"));
    }
    check_marks(table, &start, &end, ends)?;
    let escape = match escape {
        Some(escape) => Some(check_escape(table, &escape, [&start, &end], ends)?),
        None => None,
    };
    let frame = Frame { start, end, ends, escape, checksum };
    check_length(table, &frame)?;
    Some(frame)
}

/// What stands around a payload.
fn mark(table: &Table, key: &str) -> Option<Vec<u8>> {
    bytes(table, key, MARK_BYTES_MAX)
}

/// What wakes an instrument.
pub(super) fn wake(table: &Table) -> Option<Vec<u8>> {
    bytes(table, "wake", WAKE_BYTES_MAX)
}

/// Bytes that are written as a text, as the number of one, or as the numbers of some.
fn bytes(table: &Table, key: &str, most: usize) -> Option<Vec<u8>> {
    if !table.has(key) {
        return None;
    }
    let byte = |value: &Json| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let bytes = match table.json(key)? {
        Json::String(text) => {
            if let Some(why) = no_end(&text) {
                table.wrong(key, (format!("is {}", why.what), why.remedy));
                return None;
            }
            note_bytes(table, key, &text);
            Some(text.into_bytes())
        }
        Json::Array(all) => all.iter().map(byte).collect(),
        value => byte(&value).map(|byte| vec![byte]),
    };
    let expected = "write a text, as \"\\u0002\", the number of a byte, as 0x02, or of some, as [0xAA, 0x55]";
    match bytes {
        Some(bytes) if (1..=most).contains(&bytes.len()) => return Some(bytes),
        Some(bytes) if bytes.is_empty() => table.wrong(key, ("is empty", "remove it, or write a byte")),
        Some(_) => table.wrong(key, (format!("is longer than {most} bytes"), expected)),
        None => table.wrong(key, ("holds what is not a byte", expected)),
    }
    None
}

/// How the last byte of a frame is known.
fn ends(table: &Table) -> Option<Ends> {
    let fixed = table.small("fixed", 1..=FRAME_BYTES_MAX as i64).map(Ends::Fixed);
    let length = table.table("length", keys::LENGTH).and_then(|section| length(&section)).map(Ends::Length);
    let idle = table.duration("idle", &IDLE).map(Ends::Idle);
    let given: Vec<&str> = ["idle", "length", "fixed"].into_iter().filter(|key| table.has(key)).collect();
    match given.as_slice() {
        [] if table.has("end") => Some(Ends::AtItsEnd),
        [] => {
            let why = ("does not say where a frame ends", "write end, fixed, length or idle");
            table.absent_here(why);
            None
        }
        ["idle"] if table.has("end") => {
            table.wrong("idle", ("stands beside end, which says where a frame ends", "remove one of them"));
            None
        }
        [_] => fixed.or(length).or(idle),
        [first, second, ..] => {
            table.wrong(
                first,
                (format!("stands beside {second}, which says how long a frame is"), "remove one of them"),
            );
            None
        }
    }
}

fn length(section: &Table) -> Option<Length> {
    if !section.has("at") {
        section.absent(
            "at",
            ("is missing", "say how many bytes of the frame stand before the length, its start included"),
        );
    }
    let at = section.small("at", LENGTH_AT);
    let size = if section.has("size") { section.small("size", 1..=2) } else { Some(1) };
    let little = section.choice("byte_order", &[("big", false), ("little", true)]);
    if section.has("byte_order") && size == Some(1) {
        section.wrong("byte_order", ("orders bytes, and the length has one", "remove it, or write size = 2"));
    }
    let adds = if section.has("adds") { section.integer("adds", -65_535..=4096) } else { Some(0) };
    Some(Length { at: at?, size: size?, little: little.unwrap_or(false), adds: adds? })
}

fn checksum(section: &Table) -> Option<Checksum> {
    if !section.has("kind") {
        section.absent("kind", ("is missing", "write for example \"xor8\", \"sum8\", \"lrc8\" or \"crc16-modbus\""));
    }
    let kind = section.text("kind").and_then(|name| kind(section, name));
    let spelling = section.choice(
        "as",
        &[("binary-le", Spelling::LittleEndian), ("binary-be", Spelling::BigEndian), ("hex", Spelling::Hex)],
    );
    if !section.has("as") && kind.is_some_and(|kind| kind.size() > 1) {
        let why = ("is missing, and nobody can guess it", "write \"binary-le\", \"binary-be\" or \"hex\"");
        section.absent("as", why);
        return None;
    }
    let covers_start = section.choice("covers", &[("payload", false), ("frame", true)]);
    if section.has("as") && spelling.is_none() || section.has("covers") && covers_start.is_none() {
        return None;
    }
    let spelling = spelling.unwrap_or(Spelling::BigEndian);
    Some(Checksum { kind: kind?, spelling, covers_start: covers_start.unwrap_or(false) })
}

fn kind(section: &Table, name: &str) -> Option<checksum::Kind> {
    if let Some((_, kind)) = checksum::KINDS.into_iter().find(|(known, _)| *known == name) {
        return Some(kind);
    }
    let plain = name.to_lowercase().replace(['_', '/', ' '], "-");
    let other = OTHER_NAMES.iter().find(|(names, _)| names.contains(&plain.as_str()));
    let remedy = match other {
        Some((_, told)) => (*told).to_owned(),
        None => nearest(name, checksum::KINDS.into_iter().map(|(known, _)| known)).map_or_else(
            || "write xor8, sum8, lrc8, or a CRC of the catalogue, such as crc16-modbus".to_owned(),
            |known| format!("did you mean {known:?}?"),
        ),
    };
    section.wrong("kind", ("is not a checksum that is known", remedy));
    None
}

/// Whether a start can be told from an end.
fn check_marks(table: &Table, start: &[u8], end: &[u8], ends: Ends) -> Option<()> {
    let is_ended = !end.is_empty() && start.windows(end.len()).any(|window| window == end);
    if ends == Ends::AtItsEnd && is_ended {
        let why = (
            format!("holds {}, which is the end of a frame", hex(end)),
            "leave start out: without it, a frame begins behind the end of the last",
        );
        table.wrong("start", why);
        return None;
    }
    Some(())
}

fn check_escape(table: &Table, escape: &[u8], marks: [&[u8]; 2], ends: Ends) -> Option<u8> {
    let why = match (escape, ends) {
        (_, Ends::Fixed(_) | Ends::Length(_) | Ends::Idle(_)) => {
            ("is for a frame that ends with end, and this one does not", "remove it")
        }
        ([byte], _) if are_doubled(marks, *byte) => return Some(*byte),
        ([_], _) if marks.iter().any(|mark| mark.len() > 1) => (
            "stands before single bytes, and start or end are longer",
            "make them one byte, or two of which the escape is the first, as [0x10, 0x02] and [0x10, 0x03]",
        ),
        ([byte], _) if marks.contains(&[*byte].as_slice()) => {
            ("is the start or the end of a frame", "correct one of them")
        }
        ([byte], _) => return Some(*byte),
        _ => ("is more than one byte", "write one byte, as 0x10"),
    };
    table.wrong("escape", why);
    None
}

/// Whether start and end are the escape and another byte each, so that the escape alone is doubled within a payload.
fn are_doubled(marks: [&[u8]; 2], escape: u8) -> bool {
    let is_one = |mark: &[u8]| matches!(mark, [first, second] if *first == escape && *second != escape);
    marks.iter().all(|mark| is_one(mark)) && marks[0] != marks[1]
}

/// Whether a frame of the length that is said holds what stands around its payload.
fn check_length(table: &Table, frame: &Frame) -> Option<()> {
    let least = frame.least();
    match frame.ends {
        Ends::Fixed(length) if length < least => {
            let why = format!("is {length}, and start, checksum and end alone take {least} bytes");
            table.wrong("fixed", (why, "count all bytes of a reply on the line"));
            None
        }
        Ends::Length(length) if length.at < frame.start.len() => {
            let why = ("lies within the start of the frame", "count at from the first byte of the frame, which is 0");
            table.wrong("length", why);
            None
        }
        _ => Some(()),
    }
}
