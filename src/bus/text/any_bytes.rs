//! What must hold for any bytes of a line with frames.

use std::time::{Duration, Instant};

use super::frames::Frames;
use super::splitter::Place;
use crate::peripheral::checksum::{Checksum, Spelling, KINDS};
use crate::peripheral::frame::{Ends, Frame, Length, FRAME_BYTES_MAX};
use crate::proof::bytes::Source;

/// A frame as a configuration may declare one.
fn frame(source: &mut Source) -> Frame {
    let escape = source.flag().then_some(0x10);
    let start = source.pick(&[&[][..], &[2], &[0xAA, 0x55], b":"]).to_vec();
    let end = source.pick(&[&[3][..], b"\r\n", b"\r", b"aa"]).to_vec();
    let spelling = *source.pick(&[Spelling::LittleEndian, Spelling::BigEndian, Spelling::Hex]);
    let checksum = Checksum { kind: source.pick(&KINDS).1, spelling, covers_start: source.flag() };
    let checksum = source.flag().then_some(checksum);
    let length = Length { at: start.len(), size: 1 + source.within(0..=1), little: source.flag(), adds: 4 };
    let frame = match source.u8() % 4 {
        0 => Frame { start, end, ends: Ends::AtItsEnd, escape: None, checksum },
        1 => Frame { start, end: vec![], ends: Ends::Length(length), escape: None, checksum },
        2 => Frame { start, end, ends: Ends::Fixed(source.within(12..=40)), escape: None, checksum },
        _ => Frame { start, end: vec![], ends: Ends::Idle(Duration::from_millis(20)), escape: None, checksum },
    };
    let is_single = frame.start.len() < 2 && frame.end.len() == 1;
    match escape.filter(|_| frame.ends == Ends::AtItsEnd) {
        None => frame,
        escape if is_single => Frame { escape, ..frame },
        // DLE STX and DLE ETX.
        escape => Frame { start: vec![0x10, 2], end: vec![0x10, 3], escape, ..frame },
    }
}

/// Whatever comes in whatever pieces: a frame that is found stood there, made as the bus says; the same are found
/// however the pieces are cut; no more is kept than of one frame; and what is sealed is found as it was.
pub fn frames(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let frame = frame(&mut source);
    let payload = source.piece(24).to_vec();
    what_is_sealed_is_found(&frame, &payload);

    let mut pieces = Vec::new();
    while !source.is_empty() && pieces.len() < 40 {
        pieces.push(match source.u8() % 4 {
            0 => frame.seal(&payload).unwrap_or_default(),
            1 => [&frame.start[..], &frame.end].concat(),
            2 => vec![source.u8(); source.within(0..=1500)],
            _ => source.piece(40).to_vec(),
        });
    }
    let stream = pieces.concat();
    let now = Instant::now();
    let mut cutter = Frames::new(frame.clone());
    let mut found = Vec::new();
    for piece in &pieces {
        found.extend(cutter.feed(piece, now));
        assert!(cutter.rest().len() <= FRAME_BYTES_MAX, "{frame:?}");
    }
    found.extend(cutter.tick(now + Duration::from_secs(1)));
    for line in &found {
        let is_there = |from: usize| {
            let ends = frame.least()..=FRAME_BYTES_MAX;
            let mut to = ends.map(|length| from + length).take_while(|to| *to <= stream.len());
            to.any(|to| frame.open(&stream[from..to]).is_ok_and(|payload| payload == line.bytes))
        };
        // What it says of itself where it began is looked at alone: a frame has one beginning.
        let begun =
            (0..=stream.len()).find(|at| line.is_since(Place(*at as u64)) && !line.is_since(Place(*at as u64 + 1)));
        assert!(begun.is_none_or(is_there), "{frame:?}: {:02X?} is not in {stream:02X?}", line.bytes);
    }
    let mut bytewise = Frames::new(frame.clone());
    let mut again: Vec<_> = stream.iter().flat_map(|byte| bytewise.feed(&[*byte], now)).collect();
    again.extend(bytewise.tick(now + Duration::from_secs(1)));
    assert_eq!(found, again, "{frame:?} {stream:02X?}");
}

fn what_is_sealed_is_found(frame: &Frame, payload: &[u8]) {
    let Ok(whole) = frame.seal(payload) else { return };
    assert_eq!(frame.open(&whole).as_deref(), Ok(payload), "{frame:?}");
    // A length that the payload does not say is no frame of this bus; nor is one whose checksum stands in its place.
    let is_long_enough = whole.len() >= frame.least();
    let fits = match frame.ends {
        Ends::AtItsEnd | Ends::Idle(_) => true,
        Ends::Fixed(length) => length == whole.len(),
        Ends::Length(length) => length.of(&whole) == i64::try_from(whole.len()).ok(),
    };
    let mut cutter = Frames::new(frame.clone());
    cutter.align();
    let now = Instant::now();
    let mut found = cutter.feed(&whole, now);
    found.extend(cutter.tick(now + Duration::from_secs(1)));
    // A checksum may be an end by chance, and the byte before it the checksum of what is before that.
    let is_ambiguous = frame.ends == Ends::AtItsEnd && (0..whole.len()).any(|to| frame.open(&whole[..to]).is_ok());
    if fits && is_long_enough && !whole.is_empty() && !is_ambiguous {
        let found: Vec<&[u8]> = found.iter().map(|line| &line.bytes[..]).collect();
        assert_eq!(found, [payload], "{frame:?} {whole:02X?}");
    }
}
