use super::*;

fn sealed(content: &[u8]) -> Vec<u8> {
    Framing::Rtu.sealed(content[0], &content[1..])
}

fn piece(at: i64, sent: bool, bytes: &[u8]) -> Piece {
    Piece { at, sent, opening: 0, bytes: bytes.to_vec() }
}

fn texts(said: &[Said]) -> Vec<&str> {
    said.iter().map(|said| said.text.as_str()).collect()
}

/// What a watcher says of requests and their answers, however the answers come in pieces.
fn conversation(speech: Speech, requests: &[Vec<u8>], answers: &[Vec<u8>]) -> Vec<String> {
    let mut all = Vec::new();
    for each in [1, 3, 300] {
        let (mut watcher, mut said) = (Watcher::new(speech, false), Vec::new());
        for (asked, answered) in requests.iter().zip(answers) {
            said.extend(watcher.take(&piece(1_000, true, asked)));
            for part in answered.chunks(each) {
                said.extend(watcher.take(&piece(13_340, false, part)));
            }
        }
        assert_eq!(watcher.rest(), None);
        let bytes: Vec<u8> = said.iter().flat_map(|said| said.bytes.clone()).collect();
        let expected: Vec<u8> =
            requests.iter().zip(answers).flat_map(|(one, other)| [one.clone(), other.clone()].concat()).collect();
        assert_eq!(bytes, expected, "every byte is told of once");
        let said: Vec<String> = said.into_iter().map(|said| said.text).collect();
        assert!(all.is_empty() || all == said, "in pieces of {each}: {said:?}");
        all = said;
    }
    all
}

const REQUESTS: [&[u8]; 9] = [
    &[7, 3, 0, 16, 0, 2],
    &[7, 1, 0, 3, 0, 10],
    &[7, 4, 0, 5, 0, 1],
    &[7, 6, 0, 1, 0, 42],
    &[7, 5, 0, 3, 0xFF, 0],
    &[7, 16, 0, 1, 0, 2, 4, 0, 10, 1, 2],
    &[7, 15, 0, 0, 0, 3, 1, 0b101],
    &[7, 22, 0, 4, 0, 0xF2, 0, 0x25],
    &[7, 23, 0, 3, 0, 2, 0, 14, 0, 1, 2, 0, 255],
];
const ANSWERS: [&[u8]; 9] = [
    &[7, 3, 4, 0, 1, 0, 2],
    &[7, 1, 2, 0b0000_0101, 0b10],
    &[7, 0x84, 2],
    &[7, 6, 0, 1, 0, 42],
    &[7, 5, 0, 3, 0xFF, 0],
    &[7, 16, 0, 1, 0, 2],
    &[7, 15, 0, 0, 0, 3],
    &[7, 22, 0, 4, 0, 0xF2, 0, 0x25],
    &[7, 23, 4, 0, 9, 0, 8],
];
const SAID: [&str; 18] = [
    "unit 7: read holding 16 to 17",
    "unit 7 has holding 16 to 17 = 1 2, after 12.3 ms",
    "unit 7: read coil 3 to 12",
    "unit 7 has coil 3 to 12 = 1010000001, after 12.3 ms",
    "unit 7: read input 5",
    "unit 7 refuses function 4 by exception 2: illegal data address, after 12.3 ms",
    "unit 7: write holding 1 = 42",
    "unit 7 confirms: write holding 1 = 42, after 12.3 ms",
    "unit 7: write coil 3 = 1",
    "unit 7 confirms: write coil 3 = 1, after 12.3 ms",
    "unit 7: write holding 1 to 2 = 10 258",
    "unit 7 confirms: write holding 1 to 2, after 12.3 ms",
    "unit 7: write coil 0 to 2 = 101",
    "unit 7 confirms: write coil 0 to 2, after 12.3 ms",
    "unit 7: mask holding 4 with and 0x00F2, or 0x0025",
    "unit 7 confirms: mask holding 4 with and 0x00F2, or 0x0025, after 12.3 ms",
    "unit 7: write holding 14 = 255, read holding 3 to 4",
    "unit 7 has holding 3 to 4 = 9 8, after 12.3 ms",
];

#[test]
fn requests_and_answers_are_told_in_words_in_each_framing() {
    let framed = |frame: &dyn Fn(&[u8]) -> Vec<u8>| {
        [REQUESTS, ANSWERS].map(|all| all.iter().map(|content| frame(content)).collect::<Vec<_>>())
    };
    let [asked, answered] = framed(&sealed);
    assert_eq!(conversation(Speech::Rtu, &asked, &answered), SAID);
    let [asked, answered] = framed(&|content| Framing::Ascii.sealed(content[0], &content[1..]));
    assert_eq!(conversation(Speech::Ascii, &asked, &answered), SAID);
    let of_tcp = |content: &[u8]| [&[1, 2, 0, 0, 0, content.len() as u8], content].concat();
    let [asked, answered] = framed(&of_tcp);
    assert_eq!(conversation(Speech::Tcp, &asked, &answered), SAID);
}

#[test]
fn whoever_only_listens_tells_requests_from_answers() {
    let mut watcher = Watcher::new(Speech::Rtu, true);
    let mut said = Vec::new();
    for (n, (asked, answered)) in REQUESTS.iter().zip(&ANSWERS).enumerate() {
        let at = n as i64 * 100_000;
        said.extend(watcher.take(&piece(at, false, &sealed(asked))));
        said.extend(watcher.take(&piece(at + 12_340, false, &sealed(answered))));
    }
    assert_eq!(texts(&said), SAID);
    let to: Vec<bool> = said.iter().map(|said| said.is_request).collect();
    assert_eq!(to, [true, false].repeat(9));
    // A request that nobody answers, and again.
    let again = watcher.take(&piece(2_000_000, false, &[sealed(REQUESTS[0]), sealed(REQUESTS[0])].concat()));
    assert_eq!(texts(&again), [SAID[0], SAID[0]]);
}

#[test]
fn noise_echoes_and_answers_that_nobody_waits_for_are_told_as_such() {
    let mut watcher = Watcher::new(Speech::Rtu, false);
    let (asked, answered) = (sealed(REQUESTS[0]), sealed(ANSWERS[0]));
    watcher.take(&piece(0, true, &asked));
    let heard = [&b"\xFF\0"[..], &asked, &answered, &answered].concat();
    let said = watcher.take(&piece(2_000, false, &heard));
    let shown = texts(&said);
    assert_eq!(shown[..2], ["no whole frame: ff 00", "the echo of the request to unit 7"]);
    assert_eq!(shown[2], "unit 7 has holding 16 to 17 = 1 2, after 2.0 ms");
    assert_eq!(shown[3], "unit 7 has holding 1 2, which nobody waits for");
    // The beginning of a frame is one only as long as the rest may come.
    assert_eq!(watcher.take(&piece(3_000, false, &answered[..4])), []);
    assert_eq!(watcher.idle(400_000), None);
    let said = watcher.idle(600_000).expect("it is told");
    assert_eq!((said.text.as_str(), said.at), ("no whole frame: 07 03 04 00", 3_000));
    // Or as long as nothing else is said.
    watcher.take(&piece(700_000, false, &answered[..4]));
    let said = watcher.take(&piece(701_000, true, &asked));
    assert_eq!(texts(&said), ["no whole frame: 07 03 04 00", SAID[0]]);
    // And it has a limit.
    let said = watcher.take(&piece(702_000, false, &vec![0x55; 3 * KEPT_MAX]));
    assert_eq!(said.iter().map(|said| said.bytes.len()).sum::<usize>(), 2 * KEPT_MAX);
}

#[test]
fn every_byte_is_told_of_once_whatever_stands_on_a_line() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..400 {
        let speech = [Speech::Rtu, Speech::Ascii, Speech::Tcp, Speech::Text][round % 4];
        let mut watcher = Watcher::new(speech, random.bool());
        let (mut put, mut told) = (Vec::new(), Vec::new());
        for at in 0..40 {
            let content = if random.bool() { REQUESTS[random.usize(..9)] } else { ANSWERS[random.usize(..9)] };
            let mut bytes = match (speech, random.u8(..4)) {
                (_, 0) => std::iter::repeat_with(|| random.u8(..)).take(20).collect(),
                (Speech::Rtu, _) => sealed(content),
                (Speech::Ascii, _) => Framing::Ascii.sealed(content[0], &content[1..]),
                _ => [&[1, 2, 0, 0, 0, content.len() as u8], content].concat(),
            };
            bytes.truncate(random.usize(1..=2 * bytes.len()));
            put.extend(bytes.clone());
            let opening = u64::from(random.u8(..9) == 0) + at / 20;
            told.extend(watcher.take(&Piece { at: at as i64 * 90_000, sent: random.bool(), opening, bytes }));
        }
        told.extend(watcher.rest());
        let told: Vec<u8> = told.into_iter().flat_map(|said| said.bytes).collect();
        assert!(told == put, "{speech:?}");
    }
}

#[test]
fn a_line_of_ascii_that_is_none_hides_no_other() {
    let mut watcher = Watcher::new(Speech::Ascii, false);
    watcher.take(&piece(0, true, &Framing::Ascii.sealed(7, &REQUESTS[0][1..])));
    let heard = [&b"x\r\n:0703\r\n"[..], &Framing::Ascii.sealed(7, &ANSWERS[0][1..])].concat();
    let said = watcher.take(&piece(1_000, false, &heard));
    assert_eq!(texts(&said), ["no whole frame: x\\r\\n:0703\\r\\n", "unit 7 has holding 16 to 17 = 1 2, after 1.0 ms"]);
}

#[test]
fn a_new_connection_begins_anew_and_text_is_shown_as_it_stands() {
    let mut watcher = Watcher::new(Speech::Tcp, false);
    let frame = [1, 2, 0, 0, 0, 6, 7, 3, 0, 16, 0, 2];
    watcher.take(&piece(0, true, &frame));
    watcher.take(&piece(1, false, &[1, 2, 0, 0, 0]));
    let next = Piece { opening: 1, ..piece(2, true, &frame) };
    let said = watcher.take(&next);
    assert_eq!(texts(&said), ["no whole frame: 01 02 00 00 00", SAID[0]]);
    assert_eq!((said[0].opening, said[1].opening), (0, 1));
    let mut watcher = Watcher::new(Speech::Text, false);
    assert_eq!(texts(&watcher.take(&piece(0, true, b"S1\r\n"))), ["S1\\r\\n"]);
    assert_eq!(texts(&watcher.take(&piece(0, false, b"OK\x1b\n"))), ["OK\\x1b\\n"]);
}
