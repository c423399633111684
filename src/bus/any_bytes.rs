//! What must hold for any bytes from a line.

use std::sync::LazyLock;
use std::time::Duration;

use regex_lite::Regex;
use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{sleep, Instant};

use crate::bus::call::{Call, Wire};
use crate::bus::debts::{self, Debts, Question};
use crate::bus::link::Link as _;
use crate::bus::modbus::ended;
use crate::bus::modbus::frame::{Framing, Shape};
use crate::bus::modbus::late::Sifted;
use crate::bus::modbus::line::ModbusLine;
use crate::bus::modbus::pdu::Pdu;
use crate::bus::modbus::tcp;
pub use crate::bus::text::any_bytes::frames;
use crate::bus::{port, text};
use crate::config::{Endpoint, LowLatency, Parity, SerialPort};
use crate::peripheral::exchange::{Answer, Refusal, Request};
use crate::peripheral::quirks::Quirks;
use crate::proof::bytes::{run, Source};

const TIMEOUT: Duration = Duration::from_millis(500);

impl port::Port for DuplexStream {
    fn discard(&self) {}
}

/// A Modbus request within the protocol's limits.
fn request(source: &mut Source) -> Request {
    let address = u16::from(source.u8() % 4);
    let count = *source.pick(&[1, 2, 3, 8, 9, 17, 125]);
    let word = u16::from(source.u8() % 3);
    match source.u8() % 8 {
        0 => Request::ReadBits { coils: true, address, count },
        1 => Request::ReadBits { coils: false, address, count },
        2 => Request::ReadWords { holding: true, address, count },
        3 => Request::ReadWords { holding: false, address, count },
        4 => {
            let bits = (0..count.min(17)).map(|at| (at + word) % 3 == 0).collect();
            Request::WriteBits { address, bits, multiple: source.flag() }
        }
        5 => Request::WriteWords { address, words: vec![word; usize::from(count.min(9))], multiple: source.flag() },
        6 => Request::MaskWord { address, and: !count, or: word },
        _ => Request::WriteAndReadWords { address: 7, words: vec![word; 3], read_address: address, count },
    }
}

fn call(unit: u8, request: Request) -> Call {
    Call::new(unit, request)
}

/// What a frame's function and data say to a request, read by the specification (Modbus Application Protocol V1.1b3,
/// section 6) and not by the library; `None` if they don't answer it.
fn reading(request: &Request, pdu: &[u8]) -> Option<Wire> {
    let be = |at: usize| Some(u16::from_be_bytes([*pdu.get(at)?, *pdu.get(at + 1)?]));
    let data = |bytes: usize| (pdu.len() == 2 + bytes && usize::from(pdu[1]) == bytes).then(|| &pdu[2..]);
    let echo = |address: u16, second: u16| pdu.len() == 5 && be(1) == Some(address) && be(3) == Some(second);
    let function = match request {
        Request::ReadBits { coils, .. } => [2, 1][usize::from(*coils)],
        Request::ReadWords { holding, .. } => [4, 3][usize::from(*holding)],
        Request::WriteBits { bits, multiple, .. } => [15, 5][usize::from(bits.len() == 1 && !multiple)],
        Request::WriteWords { words, multiple, .. } => [16, 6][usize::from(words.len() == 1 && !multiple)],
        Request::MaskWord { .. } => 22,
        Request::WriteAndReadWords { .. } => 23,
        Request::Line { .. } => return None,
    };
    if pdu.first() == Some(&(function | 0x80)) && pdu.len() == 2 {
        return Some(Wire::Refused(Refusal::Exception(pdu[1])));
    }
    if pdu.first() != Some(&function) {
        return None;
    }
    Some(Wire::Answered(match request {
        Request::ReadBits { count, .. } => {
            let bytes = data(usize::from(*count).div_ceil(8))?;
            Answer::Bits((0..usize::from(*count)).map(|at| bytes[at / 8] >> (at % 8) & 1 == 1).collect())
        }
        Request::ReadWords { count, .. } | Request::WriteAndReadWords { count, .. } => {
            let bytes = data(usize::from(*count) * 2)?;
            Answer::Words(bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
        }
        Request::WriteBits { address, bits, .. } => {
            let second = if function == 5 { u16::from(bits[0]) * 0xFF00 } else { bits.len() as u16 };
            echo(*address, second).then_some(Answer::Written)?
        }
        Request::WriteWords { address, words, .. } => {
            let second = if function == 6 { words[0] } else { words.len() as u16 };
            echo(*address, second).then_some(Answer::Written)?
        }
        Request::MaskWord { address, and, or } => {
            let is_echo = pdu.len() == 7 && [be(1), be(3), be(5)] == [Some(*address), Some(*and), Some(*or)];
            is_echo.then_some(Answer::Written)?
        }
        Request::Line { .. } => return None,
    }))
}

/// The function and data of an answer that may be right: mostly the request's own, with some of it changed.
fn pdu(request: &Request, source: &mut Source) -> Vec<u8> {
    let bytes = |count: usize, source: &mut Source| (0..count).map(|_| source.u8()).collect::<Vec<u8>>();
    let with_length = |function: u8, data: Vec<u8>| [&[function, data.len() as u8][..], &data].concat();
    let echo = |function: u8, address: u16, second: u16| {
        [&[function][..], &address.to_be_bytes(), &second.to_be_bytes()].concat()
    };
    let mut pdu = match request {
        Request::ReadBits { coils, count, .. } => {
            with_length([2, 1][usize::from(*coils)], bytes(usize::from(*count).div_ceil(8), source))
        }
        Request::ReadWords { holding, count, .. } => {
            with_length([4, 3][usize::from(*holding)], bytes(usize::from(*count) * 2, source))
        }
        Request::WriteAndReadWords { count, .. } => with_length(23, bytes(usize::from(*count) * 2, source)),
        Request::WriteBits { address, bits, multiple } => match bits[..] {
            [on] if !multiple => echo(5, *address, u16::from(on) * 0xFF00),
            _ => echo(15, *address, bits.len() as u16),
        },
        Request::WriteWords { address, words, multiple } => match words[..] {
            [word] if !multiple => echo(6, *address, word),
            _ => echo(16, *address, words.len() as u16),
        },
        Request::MaskWord { address, and, or } => [&echo(22, *address, *and)[..], &or.to_be_bytes()].concat(),
        Request::Line { .. } => Vec::new(),
    };
    match source.u8() % 8 {
        0..=2 => {}
        3 => pdu = vec![pdu[0] | 0x80, source.u8()],
        4 => pdu.truncate(source.within(0..=pdu.len())),
        5 => pdu.extend(source.piece(4)),
        6 => {
            let at = source.within(0..=pdu.len() - 1);
            pdu[at] ^= source.u8();
        }
        _ => pdu = source.piece(60).to_vec(),
    }
    pdu
}

fn rtu_frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = [&[unit], pdu].concat();
    let sum = frame.iter().fold(0xFFFF_u16, |mut sum, byte| {
        sum ^= u16::from(*byte);
        for _ in 0..8 {
            let carry = sum & 1 == 1;
            sum >>= 1;
            if carry {
                sum ^= 0xA001;
            }
        }
        sum
    });
    frame.extend(sum.to_le_bytes());
    frame
}

fn ascii_frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let content = [&[unit], pdu].concat();
    let sum = content.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
    let digits: String = content.iter().map(|byte| format!("{byte:02X}")).collect();
    format!(":{digits}{:02X}\r\n", (0x100 - sum % 0x100) % 0x100).into_bytes()
}

/// A PDU in either of the frames that it has on a line.
fn line_frame(framing: Framing, unit: u8, pdu: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Rtu => rtu_frame(unit, pdu),
        Framing::Ascii => ascii_frame(unit, pdu),
    }
}

/// Unit and PDU of a whole line frame, read by framing it again.
fn content(framing: Framing, frame: &[u8]) -> Option<(u8, Vec<u8>)> {
    let content = match framing {
        Framing::Rtu => frame.get(..frame.len().checked_sub(2)?)?.to_vec(),
        // Modbus over Serial Line V1.02, 2.5.2.1.
        Framing::Ascii if frame.len() > 513 => return None,
        Framing::Ascii => {
            let digits = std::str::from_utf8(frame.get(1..frame.len().checked_sub(4)?)?).ok()?;
            let pair = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
            (0..digits.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>()?
        }
    };
    let (unit, pdu) = content.split_first()?;
    let again = line_frame(framing, *unit, pdu);
    let is_same = again == frame || framing == Framing::Ascii && again.eq_ignore_ascii_case(frame);
    (is_same && !pdu.is_empty()).then(|| (*unit, pdu.to_vec()))
}

/// A frame on a serial line, in either framing, is an answer exactly if it is whole, of this unit, and answers the
/// request by the letter of the specification; cut short it is none; found by its shape it is understood.
pub fn modbus_rtu(bytes: &[u8]) {
    for framing in [Framing::Rtu, Framing::Ascii] {
        is_an_answer_by_the_letter(framing, bytes);
    }
}

fn is_an_answer_by_the_letter(framing: Framing, bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let request = request(&mut source);
    let shape = Shape::of(7, &request, Quirks::NONE).expect("it is Modbus");
    let unit = if source.u8() % 8 == 7 { source.u8() } else { 7 };
    let pdu = pdu(&request, &mut source);
    let mut frame = line_frame(framing, unit, &pdu);
    if source.u8() % 8 == 7 {
        let at = source.within(0..=frame.len() - 1);
        frame[at] ^= 1 << (source.u8() % 8);
    }
    let whole = content(framing, &frame);
    assert_eq!(framing.opened(&frame), whole);
    let expected = whole.and_then(|(unit, pdu)| reading(&request, &pdu).filter(|_| unit == 7));
    let found = framing.find(&shape, &frame);
    assert!(found.is_none_or(|(_, len)| len <= frame.len()));
    let whole = found.filter(|(_, len)| *len == frame.len());
    assert_eq!(whole.is_some(), expected.is_some(), "{frame:02x?} on {request:?}");
    if let (Some(_), Some(expected)) = (whole, expected) {
        for end in 0..frame.len() {
            assert!(framing.find(&shape, &frame[..end]).is_none_or(|(_, len)| len <= end));
        }
        let behind = [&frame[..], source.rest()].concat();
        assert_eq!(framing.find(&shape, &behind), found);
        let (_, answer) = framing.opened(&frame).expect("it was found");
        let understood = ended(7, Quirks::NONE, &Pdu::of(&request).expect("it is Modbus"), &answer);
        assert_eq!(understood, expected, "{frame:02x?} on {request:?}");
    }
    // Any bytes, of the right shape or not, are understood exactly by the letter.
    let wire = ended(7, Quirks::NONE, &Pdu::of(&request).expect("it is Modbus"), bytes);
    match reading(&request, bytes) {
        Some(expected) => assert_eq!(wire, expected),
        None => assert!(matches!(wire, Wire::BadReply(_)), "{wire:?}"),
    }
}

/// On a TCP connection an answer is the request's exactly if transaction, unit, length and content are its own;
/// anything else ends the connection, after as many bytes as the frame says and no more.
pub fn modbus_tcp(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let request = request(&mut source);
    let pdu = pdu(&request, &mut source);
    let mut frame = [&[0; 4][..], &(pdu.len() as u16 + 1).to_be_bytes(), &[7], &pdu].concat();
    match source.u8() % 8 {
        0..=4 => {}
        5 => {
            let at = source.within(0..=6);
            frame[at] ^= 1 << (source.u8() % 8);
        }
        _ => frame = source.rest().to_vec(),
    }
    let is_header = frame.len() > 7 && frame[..4] == [0; 4] && frame[6] == 7;
    let counted = usize::from(u16::from_be_bytes([*frame.get(4).unwrap_or(&0), *frame.get(5).unwrap_or(&0)]));
    let is_whole = frame.len() >= 6 + counted && (2..=254).contains(&counted);
    let expected = if is_header && is_whole { reading(&request, &frame[7..6 + counted]) } else { None };
    let (wire, read) = run(async {
        let (mut near, mut far) = duplex(1 << 16);
        far.write_all(&frame).await.expect("there is room");
        drop(far);
        let mut answer = tcp::Answering::default();
        let wire = match answer.read(&mut near).await {
            Ok(()) if answer.frame[..4] != [0; 4] || answer.frame[6] != 7 => Wire::BadReply("it is foreign".into()),
            Ok(()) => ended(7, Quirks::NONE, &Pdu::of(&request).expect("it is Modbus"), &answer.frame[7..]),
            Err(broken) => (broken.wire)(broken.why),
        };
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.expect("it is memory");
        (wire, frame.len() - rest.len())
    });
    assert!(read <= frame.len().min(6 + counted.max(1)), "{read} bytes of {frame:02x?}");
    match expected {
        Some(expected) => assert_eq!(wire, expected, "{frame:02x?} on {request:?}"),
        None => assert!(matches!(wire, Wire::BadReply(_) | Wire::NoAnswer(_)), "{wire:?}: {frame:02x?} on {request:?}"),
    }
    assert_eq!(matches!(wire, Wire::NoAnswer(_)), frame.is_empty());
}

/// A peer on a line in memory that says pieces of bytes, with pauses, when something was asked.
async fn says(mut far: DuplexStream, pieces: Vec<(Duration, Vec<u8>)>) {
    let mut asked = [0; 4096];
    if far.read(&mut asked).await.is_err() {
        return;
    }
    for (pause, piece) in pieces {
        sleep(pause).await;
        if far.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The line stays, and is silent.
    std::future::pending::<()>().await;
}

fn pieces(source: &mut Source, mut next: impl FnMut(&mut Source) -> Vec<u8>) -> Vec<(Duration, Vec<u8>)> {
    let mut pieces = Vec::new();
    while !source.is_empty() && pieces.len() < 24 {
        let pause = Duration::from_millis([0, 0, 1, 20, 200, 700][source.within(0..=5)]);
        pieces.push((pause, next(source)));
    }
    pieces
}

/// Whether an exchange ends, and soon: beyond the timeout, it may take what the bytes themselves take, and `ending`.
async fn in_time(
    exchange: impl std::future::Future<Output = Wire>,
    peer: DuplexStream,
    says_what: Vec<(Duration, Vec<u8>)>,
    ending: Duration,
) -> Wire {
    let bytes: usize = says_what.iter().map(|(_, piece)| piece.len()).sum();
    let began = Instant::now();
    let wire = tokio::select! {
        wire = exchange => wire,
        () = says(peer, says_what) => unreachable!("a peer stays"),
    };
    let most = TIMEOUT + ending + Duration::from_secs(2) + Duration::from_millis(2) * bytes as u32;
    assert!(began.elapsed() <= most, "{:?} for {bytes} bytes", began.elapsed());
    wire
}

fn system() -> std::sync::Arc<dyn port::Lines> {
    std::sync::Arc::new(port::SystemLines)
}

fn endpoint() -> Endpoint {
    Endpoint::Serial(SerialPort {
        path: "line".into(),
        baud: 9600,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    })
}

/// Whatever comes on a Modbus line, in either framing and in whatever pieces: the exchange ends in time, and what it
/// takes for the answer is a whole frame of this unit that stood on the line.
pub fn rtu_line(bytes: &[u8]) {
    for framing in [Framing::Rtu, Framing::Ascii] {
        takes_only_what_was_said(framing, bytes);
    }
}

fn takes_only_what_was_said(framing: Framing, bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let call = call(7, request(&mut source));
    let said = pieces(&mut source, |source| match source.u8() % 3 {
        0 => {
            let mut frame = line_frame(framing, 7, &pdu(&call.request, source));
            frame.truncate(if source.flag() { frame.len() } else { source.within(0..=frame.len()) });
            frame
        }
        1 => line_frame(framing, source.u8() % 9, &pdu(&call.request, source)),
        _ => source.piece(40).to_vec(),
    });
    let stream: Vec<u8> = said.iter().flat_map(|(_, piece)| piece.clone()).collect();
    let wire = run(async {
        let (near, far) = duplex(1 << 16);
        let mut line = ModbusLine::new(framing, endpoint(), TIMEOUT, Duration::ZERO, &system());
        line.attach(Box::new(near));
        // An answer whose characters come far apart is heard to its end.
        let ending = framing.apart_max().map_or(Duration::ZERO, |_| Duration::from_secs(5));
        in_time(async { line.put(&call, 1).await.wire }, far, said, ending).await
    });
    match &wire {
        Wire::Answered(_) | Wire::Refused(_) => {
            let frames = (0..stream.len()).flat_map(|from| (from + 5..=stream.len()).map(move |to| (from, to)));
            let begins = |frame: &&[u8]| framing == Framing::Rtu && frame[0] == 7 || frame.starts_with(b":07");
            let mut frames = frames.map(|(from, to)| &stream[from..to]).filter(begins);
            let said = frames.any(|frame| {
                let content = content(framing, frame);
                content.is_some_and(|(unit, pdu)| unit == 7 && reading(&call.request, &pdu).as_ref() == Some(&wire))
            });
            assert!(said, "{wire:?} was not said in {stream:02x?}");
        }
        Wire::BadReply(why) | Wire::NoAnswer(why) => assert!(!why.is_empty() && why.len() < 500, "{why}"),
        Wire::NotSent(why) => panic!("a silent line is written on: {why}"),
        Wire::Broadcast => panic!("one unit was asked"),
    }
    assert!(!stream.is_empty() || matches!(wire, Wire::NoAnswer(_)));
}

static EXPECT: Patterns = LazyLock::new(|| patterns(&["^OK", "([+-]?[0-9.]+) kg", "^(a*)*$"]));
static REFUSE: Patterns = LazyLock::new(|| patterns(&["^ERR ?(.*)", "."]));
static UNTIL: Patterns = LazyLock::new(|| patterns(&["^END", "kg$"]));

/// Patterns that a command may have, made once: most of the time would go into that.
type Patterns = LazyLock<Vec<Option<Regex>>>;

fn patterns(texts: &[&str]) -> Vec<Option<Regex>> {
    let some = texts.iter().map(|text| Some(Regex::new(text).expect("a pattern")));
    std::iter::once(None).chain(some).collect()
}

/// Whatever comes on a line of text, before a command and after it, in whatever pieces: the exchange ends in time, a
/// refusal is looked for first, and what is taken for the reply is a whole line that began after the command was sent.
pub fn text_line(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let delimiter = source.pick(&[&b"\r\n"[..], b"\n", b"\r", b"\x03", b";;"]).to_vec();
    let [expect, refuse, until] = [&EXPECT, &REFUSE, &UNTIL].map(|patterns| source.pick(patterns).clone());
    let bytes = b"T\r\n".to_vec();
    let request = Request::Line { bytes, expect, picture: None, refuse, until, is_reading: false };
    let before = source.within(0..=6);
    let mut said = pieces(&mut source, |source| match source.u8() % 4 {
        0 => delimiter.clone(),
        1 => source.pick(&[&b"OK"[..], b"ERR 7", b"+12.5 kg", b"aaaaaaaa", b"T", b"END"]).to_vec(),
        2 => vec![source.u8(); 1500],
        _ => source.piece(60).to_vec(),
    });
    let before: Vec<_> = said.drain(..before.min(said.len())).collect();
    let old: Vec<u8> = before.iter().flat_map(|(_, piece)| piece.clone()).collect();
    let new: Vec<u8> = said.iter().flat_map(|(_, piece)| piece.clone()).collect();
    let wire = run(async {
        let (near, mut far) = duplex(1 << 16);
        let mut text = text::Text::new(endpoint(), delimiter.clone(), TIMEOUT, Duration::ZERO, &system());
        text.attach(Box::new(near));
        // Where answers may be owed nothing is known for a report, which would be passed over.
        text.suspect(Instant::now() + Duration::from_secs(3600));
        // Of nothing, nothing is heard.
        for (pause, piece) in before.into_iter().filter(|(_, piece)| !piece.is_empty()) {
            sleep(pause).await;
            far.write_all(&piece).await.expect("there is room");
            assert_eq!(text.listen().await, None);
        }
        in_time(async { text.put(&call(0, request.clone()), 1).await.wire }, far, said, Duration::ZERO).await
    });
    match &wire {
        // The first lines that say yes or no, if they came in time: those that began behind what was old, which may
        // have ended there or not.
        Wire::Answered(_) | Wire::Refused(_) => {
            let whole = lines(&[&old[..], &new].concat(), &delimiter);
            let since = whole.into_iter().filter(|(begun, _)| *begun >= old.len()).map(|(_, line)| line).collect();
            let aligned = lines(&new, &delimiter).into_iter().map(|(_, line)| line).collect();
            let may_be = [since, aligned].map(|lines| judged(&request, lines));
            assert!(may_be.contains(&Some(wire.clone())), "{wire:?} is none of {may_be:?}: {old:?} {new:?}");
        }
        Wire::BadReply(why) | Wire::NoAnswer(why) => {
            assert!(!why.is_empty() && why.len() < 1000 && !why.contains(char::is_control), "{why:?}");
        }
        Wire::NotSent(why) => panic!("an open line is written on: {why}"),
        Wire::Broadcast => panic!("a line of text has no units"),
    }
}

/// What lines say to the command `T`, read by the letter of the manual.
fn judged(request: &Request, lines: Vec<String>) -> Option<Wire> {
    let Request::Line { expect, refuse, until, .. } = request else { return None };
    let group = |regex: &Regex, text: &str| {
        let found = regex.captures(text)?;
        Some(found.get(1).map_or(text.to_owned(), |group| group.as_str().to_owned()))
    };
    let echo = lines.iter().position(|line| line.trim().trim_start_matches(['>', '#', '$', ':']).trim_start() == "T");
    let mut reply = Vec::new();
    for (_, line) in lines.into_iter().enumerate().filter(|(at, _)| Some(*at) != echo) {
        if let Some(text) = refuse.as_ref().and_then(|refuse| group(refuse, &line)) {
            return Some(Wire::Refused(Refusal::Text(text)));
        }
        let ends = until.as_ref().is_some_and(|until| until.is_match(&line));
        reply.push(line);
        let whole = if until.is_some() { reply.join("\n") } else { reply.pop().unwrap_or_default() };
        let confirms = expect.as_ref().map_or(Some(whole.clone()), |expect| group(expect, &whole));
        match (until.is_some(), ends, confirms) {
            (true, false, _) | (false, _, None) => {}
            (_, _, Some(text)) => return Some(Wire::Answered(Answer::Line(text))),
            (true, true, None) => return None,
        }
    }
    None
}

/// The whole lines of a stream, and where they begin.
fn lines(stream: &[u8], delimiter: &[u8]) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at + delimiter.len() <= stream.len() {
        if stream[at..].starts_with(delimiter) {
            lines.push((start, String::from_utf8_lossy(&stream[start..at]).into_owned()));
            at += delimiter.len();
            start = at;
        } else {
            at += 1;
        }
    }
    lines
}

/// A question that was asked, and what its unit will say to it.
struct Asked {
    caller: u64,
    call: Call,
    /// When the answer comes, if it does: before it is no longer owed, and after those of the unit's earlier ones.
    answer: Option<(Duration, Vec<u8>)>,
}

/// A line whose units answer in order, correctly, and as late as they like within the time for which an answer is
/// owed, or not at all: what is taken for a question's answer is the answer to that question, of the same caller.
pub fn late(bytes: &[u8]) {
    for framing in [Framing::Rtu, Framing::Ascii] {
        gives_each_its_own(framing, bytes);
    }
}

fn gives_each_its_own(framing: Framing, bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let start = std::time::Instant::now();
    let window = debts::window(TIMEOUT);
    let mut now = Duration::ZERO;
    let mut caller = 1;
    let (mut debts, mut asked) = (Debts::<Shape>::default(), Vec::<Asked>::new());
    let mut rounds = 0;
    while !source.is_empty() && rounds < 200 {
        rounds += 1;
        caller += u64::from(source.flag());
        let call = call(source.u8() % 2 + 1, request(&mut source));
        let shape = Shape::of(call.unit, &call.request, Quirks::NONE).expect("it is Modbus");
        let question = Question::of(caller, &call);
        if let Some(until) = debts.held_until(&question, &shape, start + now) {
            assert!(until <= start + now + window, "a question waits without end");
            let wait = if source.flag() { until - (start + now) } else { Duration::from_millis(source.u8().into()) };
            let then = now + wait;
            overheard(framing, &mut debts, &mut asked, start, (now, then));
            now = then;
            continue;
        }
        debts.asked(question.clone(), shape, start + now + window, start + now);
        let last = asked
            .iter()
            .filter(|other| other.call.unit == call.unit)
            .filter_map(|other| Some(other.answer.as_ref()?.0));
        let earliest = last.max().unwrap_or_default().max(now);
        let delay = Duration::from_millis(u64::from(source.u8()) * 10);
        let comes = Some(earliest.max(now + delay)).filter(|at| *at < now + window && source.u8() % 4 != 3);
        let answer = comes.map(|at| (at, answer(framing, &call, asked.len(), &mut source)));
        asked.push(Asked { caller, call: call.clone(), answer });
        let deadline = now + TIMEOUT;
        now = exchange(framing, &mut debts, &mut asked, (&question, &shape), (caller, &call), (start, now, deadline));
    }
}

/// A right answer, or an exception. What was read is the question's number, so that it can be known again.
fn answer(framing: Framing, call: &Call, number: usize, source: &mut Source) -> Vec<u8> {
    let tag = (number as u16).to_be_bytes();
    let mut answer = pdu(&call.request, &mut Source::new(&[]));
    match source.u8() % 4 {
        3 => answer = vec![answer[0] | 0x80, number as u8],
        _ if answer.len() > 3 && answer[0] <= 4 => answer[2..4].copy_from_slice(&tag),
        _ => {}
    }
    line_frame(framing, call.unit, &answer)
}

/// The next answer that comes before a time, with the number of its question.
fn next(asked: &mut [Asked], before: Duration) -> Option<(usize, Duration, Vec<u8>)> {
    let coming = asked.iter().enumerate().filter_map(|(number, asked)| Some((asked.answer.as_ref()?.0, number)));
    let (at, number) = coming.filter(|(at, _)| *at < before).min()?;
    let (_, frame) = asked[number].answer.take()?;
    Some((number, at, frame))
}

fn overheard(
    framing: Framing,
    debts: &mut Debts<Shape>,
    asked: &mut [Asked],
    start: std::time::Instant,
    (from, to): (Duration, Duration),
) {
    while let Some((_, at, frame)) = next(asked, to) {
        let mut tail = [&[0xEE; 3][..], &frame].concat();
        while let Some(sifted) = debts.sift(framing, &mut tail, None, start + at.max(from)) {
            assert!(matches!(sifted, Sifted::Owed { .. }), "nothing was asked");
        }
    }
}

/// Listens until the answer or the deadline, whichever is sooner.
fn exchange(
    framing: Framing,
    debts: &mut Debts<Shape>,
    asked: &mut [Asked],
    own: (&Question, &Shape),
    (caller, call): (u64, &Call),
    (start, now, deadline): (std::time::Instant, Duration, Duration),
) -> Duration {
    let mut tail = Vec::new();
    while let Some((number, at, frame)) = next(asked, deadline) {
        tail.extend([0xEE; 2]);
        tail.extend(&frame);
        while let Some(sifted) = debts.sift(framing, &mut tail, Some(own), start + at.max(now)) {
            if let Sifted::Own(taken) = sifted {
                assert_eq!(taken, frame);
                let of = &asked[number];
                let is_own = Question::of(of.caller, &of.call).is(own.0);
                assert!(is_own, "{call:?} of caller {caller} is given the answer to {:?} of {}", of.call, of.caller);
                return at.max(now);
            }
        }
    }
    deadline
}
