//! What the pieces mean that went over a line: its frames, a line of text for each. Pure.
//!
//! Where it is known what was sent from here, that is a request, and what came is an answer, or an echo. Whoever only
//! listens has to tell the two apart by what was said before.
//!
//! Invariants
//! - Every byte is told of once: in a frame, or as what is none.
//! - What is not understood yet has a limit.

mod words;

use crate::bus::modbus::frame::Framing;
use crate::bus::port;
use crate::bus::tap::Piece;
use crate::config::BusKind;

/// Bytes that are kept to find a frame in.
const KEPT_MAX: usize = 1024;
/// What is no whole frame so long after its last byte is none, in microseconds.
const UNFINISHED_MAX: i64 = 500_000;
/// Transaction, protocol and length (Modbus Messaging on TCP/IP V1.0b, 3.1.3).
const PREFIX: usize = 6;

/// What a line speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Modbus RTU.
    Rtu,
    /// Modbus ASCII.
    Ascii,
    /// Modbus TCP.
    Tcp,
    /// Lines of text.
    Text,
}

impl Speech {
    /// That of a bus of this kind, by its name in the configuration.
    pub fn of(kind: &str) -> Option<Speech> {
        match kind {
            "modbus-rtu" => Some(Speech::Rtu),
            "modbus-ascii" => Some(Speech::Ascii),
            "modbus-tcp" => Some(Speech::Tcp),
            "serial" => Some(Speech::Text),
            _ => None,
        }
    }
}

impl From<&BusKind> for Speech {
    fn from(kind: &BusKind) -> Speech {
        match kind {
            BusKind::ModbusRtu(_) => Speech::Rtu,
            BusKind::ModbusAscii(_) => Speech::Ascii,
            BusKind::ModbusTcp { .. } => Speech::Tcp,
            BusKind::Serial { .. } => Speech::Text,
        }
    }
}

/// One thing that was said on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When its last byte was written or had come, in microseconds since 1970.
    pub at: i64,
    /// Whether it goes to the peripherals.
    pub is_request: bool,
    /// Which opening of the line it was.
    pub opening: u64,
    /// As it stood on the line.
    pub bytes: Vec<u8>,
    /// What it says, in a line.
    pub text: String,
}

/// A request that may be answered.
#[derive(Debug, Clone)]
struct Asked {
    unit: u8,
    pdu: Vec<u8>,
    at: i64,
    transaction: Option<u16>,
    frame: Vec<u8>,
}

/// What stands somewhere in the bytes of a line.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Bytes in front of it that are no frame.
    skipped: usize,
    len: usize,
    unit: u8,
    pdu: Vec<u8>,
    transaction: Option<u16>,
    is_request: bool,
}

/// Understands what goes over one line.
#[derive(Debug)]
pub struct Watcher {
    speech: Speech,
    /// Nothing is sent from here: who speaks is not known.
    only_listens: bool,
    opening: u64,
    /// What has come and is not understood yet.
    heard: Vec<u8>,
    heard_at: i64,
    asked: Option<Asked>,
}

impl Watcher {
    /// Of a line that speaks so. One that `only_listens` is told nothing of who speaks.
    pub fn new(speech: Speech, only_listens: bool) -> Watcher {
        Watcher { speech, only_listens, opening: 0, heard: Vec::new(), heard_at: 0, asked: None }
    }

    /// What was said, as far as that is known with this piece.
    pub fn take(&mut self, piece: &Piece) -> Vec<Said> {
        let mut said = Vec::new();
        if piece.opening != self.opening {
            said.extend(self.rest());
            (self.opening, self.asked) = (piece.opening, None);
        }
        if self.speech == Speech::Text {
            let text = port::text(&piece.bytes);
            said.push(self.said(piece.at, piece.sent, piece.bytes.clone(), text));
            return said;
        }
        said.extend(self.idle(piece.at));
        if piece.sent {
            said.extend(self.rest());
            said.push(self.sent(piece));
            return said;
        }
        self.heard.extend_from_slice(&piece.bytes);
        self.heard_at = piece.at;
        while let Some(found) = self.find() {
            if found.skipped > 0 {
                said.push(self.noise(found.skipped));
            }
            said.push(self.understood(&found));
        }
        if self.heard.len() > KEPT_MAX {
            said.push(self.noise(self.heard.len() - KEPT_MAX));
        }
        said
    }

    /// What has stood unfinished for too long by now, to be told as what it is.
    pub fn idle(&mut self, now: i64) -> Option<Said> {
        match now - self.heard_at > UNFINISHED_MAX {
            true => self.rest(),
            false => None,
        }
    }

    /// What is no whole frame, and won't be one any more.
    fn rest(&mut self) -> Option<Said> {
        (!self.heard.is_empty()).then(|| self.noise(self.heard.len()))
    }

    fn noise(&mut self, len: usize) -> Said {
        let bytes: Vec<u8> = self.heard.drain(..len).collect();
        let shown = if self.speech == Speech::Ascii { port::text(&bytes) } else { port::hex(&bytes) };
        self.said(self.heard_at, false, bytes, format!("no whole frame: {shown}"))
    }

    fn said(&self, at: i64, is_request: bool, bytes: Vec<u8>, text: String) -> Said {
        Said { at, is_request, opening: self.opening, bytes, text }
    }

    /// What was sent from here stands in one piece.
    fn sent(&mut self, piece: &Piece) -> Said {
        let bytes = piece.bytes.clone();
        let whole = match self.speech {
            Speech::Rtu => Framing::Rtu.opened(&bytes).map(|(unit, pdu)| (unit, pdu, None)),
            Speech::Ascii => Framing::Ascii.opened(&bytes).map(|(unit, pdu)| (unit, pdu, None)),
            Speech::Tcp => of_tcp(&bytes).map(|(unit, pdu, transaction)| (unit, pdu, Some(transaction))),
            Speech::Text => None,
        };
        let text = match whole {
            Some((unit, pdu, transaction)) => {
                let text = request(unit, &pdu);
                self.asked = Some(Asked { unit, pdu, at: piece.at, transaction, frame: bytes.clone() });
                text
            }
            None => format!("a part of a request: {}", port::hex(&bytes)),
        };
        self.said(piece.at, true, bytes, text)
    }

    /// Takes a frame that was found.
    fn understood(&mut self, found: &Found) -> Said {
        let bytes: Vec<u8> = self.heard.drain(..found.len).collect();
        let Found { unit, pdu, transaction, is_request, .. } = found;
        if *is_request {
            let is_echo = self.asked.as_ref().is_some_and(|asked| !self.only_listens && asked.frame == bytes);
            let text = match (is_echo, self.only_listens) {
                (true, _) => format!("the echo of the request to unit {unit}"),
                (false, true) => request(*unit, pdu),
                (false, false) => format!("another master: {}", request(*unit, pdu)),
            };
            if self.only_listens {
                let (unit, pdu, frame) = (*unit, pdu.clone(), bytes.clone());
                self.asked = Some(Asked { unit, pdu, at: self.heard_at, transaction: *transaction, frame });
            }
            return self.said(self.heard_at, self.only_listens, bytes, text);
        }
        let is_its =
            |asked: &Asked| asked.unit == *unit && asked.transaction == *transaction && answers(&asked.pdu, pdu);
        let asked = self.asked.take_if(|asked| is_its(asked));
        let took = asked.as_ref().map(|asked| (self.heard_at - asked.at).max(0));
        let mut text = format!("unit {unit} {}", words::answer(pdu, asked.as_ref().map(|asked| &asked.pdu[..])));
        text += &match took {
            Some(took) => format!(", after {}.{} ms", took / 1000, took % 1000 / 100),
            None => ", which nobody waits for".to_owned(),
        };
        self.said(self.heard_at, false, bytes, text)
    }

    /// The first whole frame in what was heard.
    fn find(&self) -> Option<Found> {
        match self.speech {
            Speech::Rtu => (0..self.heard.len()).find_map(|at| self.rtu_at(at)),
            Speech::Ascii => self.ascii(),
            Speech::Tcp => self.tcp(),
            Speech::Text => None,
        }
    }

    /// The RTU frame that begins there. Only its checksum tells its end.
    fn rtu_at(&self, skipped: usize) -> Option<Found> {
        let bytes = &self.heard[skipped..];
        let expects_answer = self.asked.as_ref().is_some_and(|asked| {
            bytes.first() == Some(&asked.unit) && bytes.get(1).is_some_and(|function| asked.pdu[0] == function & 0x7F)
        });
        let (request, answer) = (words::request_len(bytes), words::answer_len(bytes));
        // Of a request that is answered by its own bytes the answer is expected, unless nothing was asked.
        let is_answer_first = expects_answer || !self.only_listens;
        let candidates = match is_answer_first {
            true => [(answer, false), (request, true)],
            false => [(request, true), (answer, false)],
        };
        candidates.into_iter().find_map(|(len, is_request)| {
            let len = len?;
            let (unit, pdu) = Framing::Rtu.opened(bytes.get(..len)?)?;
            Some(Found { skipped, len, unit, pdu, transaction: None, is_request })
        })
    }

    fn ascii(&self) -> Option<Found> {
        let mut ends = self.heard.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        ends.find_map(|end| {
            let skipped = self.heard[..end].iter().rposition(|byte| *byte == b':')?;
            let (unit, pdu) = Framing::Ascii.opened(&self.heard[skipped..end])?;
            let is_request = self.is_request(unit, &pdu);
            Some(Found { skipped, len: end - skipped, unit, pdu, transaction: None, is_request })
        })
    }

    fn tcp(&self) -> Option<Found> {
        let counted = usize::from(u16::from_be_bytes([*self.heard.get(4)?, *self.heard.get(5)?]));
        let frame = self.heard.get(..PREFIX + counted)?;
        let (unit, pdu, transaction) = of_tcp(frame)?;
        let (skipped, len) = (0, frame.len());
        Some(Found { skipped, len, unit, pdu, transaction: Some(transaction), is_request: false })
    }

    /// Whether a whole frame whose bytes don't tell it is a request.
    fn is_request(&self, unit: u8, pdu: &[u8]) -> bool {
        let fits = |len: Option<usize>| len == Some(pdu.len() + 3);
        let framed = [&[unit][..], pdu].concat();
        let is_expected = self.asked.as_ref().is_some_and(|asked| asked.unit == unit && answers(&asked.pdu, pdu));
        match (fits(words::answer_len(&framed)), fits(words::request_len(&framed))) {
            (true, true) => self.only_listens && !is_expected,
            (_, is_request) => is_request,
        }
    }
}

/// A request as a line says it.
fn request(unit: u8, pdu: &[u8]) -> String {
    match unit {
        0 => format!("all units: {}", words::request(pdu)),
        _ => format!("unit {unit}: {}", words::request(pdu)),
    }
}

/// Whether an answer is of the function that was asked.
fn answers(asked: &[u8], answer: &[u8]) -> bool {
    asked.first().zip(answer.first()).is_some_and(|(asked, answer)| *asked == answer & 0x7F)
}

/// Unit, PDU and transaction of a whole Modbus TCP frame.
fn of_tcp(frame: &[u8]) -> Option<(u8, Vec<u8>, u16)> {
    let [high, low, 0, 0, _, _, unit, pdu @ ..] = frame else { return None };
    let counted = usize::from(u16::from_be_bytes([frame[4], frame[5]]));
    let is_whole = frame.len() == PREFIX + counted && !pdu.is_empty();
    is_whole.then(|| (*unit, pdu.to_vec(), u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests;
