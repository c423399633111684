//! Instruments with the manners of the field at the far end of a line in memory, on paused time. Proves G12 and G13 for
//! lines of text.

use regex_lite::Regex;
use tokio::io::{duplex, split, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::{LowLatency, Parity, SerialPort};
use crate::peripheral::exchange::{Answer, Refusal};

mod idle;
mod wake;

const MS: Duration = Duration::from_millis(1);

/// A line, and both directions of its far end.
struct Bench {
    text: Text,
    hear: ReadHalf<DuplexStream>,
    say: WriteHalf<DuplexStream>,
}

fn bench(baud: u32, turnaround: Duration) -> Bench {
    let port = SerialPort {
        path: "line".into(),
        baud,
        parity: Parity::None,
        data_bits: 8,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    };
    let (near, far) = duplex(1 << 16);
    let (endpoint, lines): (_, Arc<dyn port::Lines>) = (Endpoint::Serial(port), Arc::new(port::SystemLines));
    let mut text = Text::new(endpoint, b"\r\n".to_vec(), Duration::from_secs(1), turnaround, &lines);
    text.attach(Box::new(near));
    let (hear, say) = split(far);
    Bench { text, hear, say }
}

fn call(text: &str, expect: &str, refuse: Option<&str>) -> Call {
    let regex = |pattern: &str| Regex::new(pattern).unwrap();
    let request = Request::line(text.as_bytes().to_vec(), Some(regex(expect)), refuse.map(regex));
    Call::new(0, request)
}

/// The same, where all that is wanted is what the reply says.
fn reading(mut call: Call) -> Call {
    if let Request::Line { is_reading, .. } = &mut call.request {
        *is_reading = true;
    }
    call
}

fn answered(text: &str) -> Wire {
    Wire::Answered(Answer::Line(text.into()))
}

fn is_unclear(wire: &Wire) -> bool {
    matches!(wire, Wire::NoAnswer(_) | Wire::BadReply(_))
}

/// Listens for a time, as a bus does while nothing is asked.
async fn listen(text: &mut Text, time: Duration) {
    let listening = async {
        loop {
            assert_eq!(text.listen().await, None);
        }
    };
    let _ = timeout(time, listening).await;
}

/// One exchange as the worker does it: the line is listened to until the call may go out.
async fn ask(text: &mut Text, call: &Call, caller: u64) -> Wire {
    while let Some(until) = text.held_until(call, caller, false) {
        listen(text, until.saturating_duration_since(Instant::now()).min(10 * MS)).await;
    }
    text.put(call, caller).await.wire
}

/// Says these bytes one by one at the line's speed, in pieces as an adapter collects them.
async fn trickle(say: &mut WriteHalf<DuplexStream>, bytes: &[u8], baud: u32, piece: usize) {
    let character = Duration::from_secs(10) / baud;
    for piece in bytes.chunks(piece) {
        sleep(character * piece.len() as u32).await;
        say.write_all(piece).await.unwrap();
    }
}

fn seeded() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

#[tokio::test(start_paused = true)]
async fn a_scale_that_reports_all_the_time_is_never_read_in_the_middle_of_a_line() {
    let mut rng = seeded();
    for round in 0..300 {
        let baud = [300, 1200, 2400, 9600, 19_200, 115_200][round % 6];
        let pause = Duration::from_millis([0, 0, 20, 100, 700][rng.usize(..5)]);
        let piece = [1, 1, 3, 8, 62][rng.usize(..5)];
        let Bench { mut text, mut say, hear: _hear } = bench(baud, Duration::ZERO);
        let report = async {
            loop {
                trickle(&mut say, b"W +0012.5 kg\r\n", baud, piece).await;
                sleep(pause).await;
            }
        };
        let weigh = async {
            listen(&mut text, Duration::from_millis(rng.u64(..3000))).await;
            // Longer than a line and a pause at any speed.
            let weigh = Call { timeout: Some(Duration::from_secs(3)), ..call("S\r\n", r"([0-9.]+) kg", None) };
            ask(&mut text, &reading(weigh), 1).await
        };
        let wire = tokio::select! {
            wire = weigh => wire,
            () = report => unreachable!("it never stops"),
        };
        assert_eq!(wire, answered("0012.5"), "{baud} baud, pauses of {pause:?}, pieces of {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_behind_a_report_which_was_taken_for_it_is_nobody_elses() {
    let Bench { mut text, mut say, hear: _hear } = bench(9600, Duration::ZERO);
    let report = async {
        // It reports twice a second, answers the first command late, and never the second.
        for tenth in 0..1000 {
            sleep(100 * MS).await;
            if tenth % 5 == 0 {
                say.write_all(b"W +0012.5 kg\r\n").await.unwrap();
            }
            if tenth == 118 {
                say.write_all(b"ERR busy\r\n").await.unwrap();
            }
        }
    };
    let commands = async {
        listen(&mut text, Duration::from_secs(10)).await;
        let weigh = reading(call("S\r\n", r"([0-9.]+) kg", Some("^ERR")));
        assert_eq!(ask(&mut text, &weigh, 1).await, answered("0012.5"));
        let dose = call("D 9\r\n", "^OK", Some("^ERR"));
        assert!(is_unclear(&ask(&mut text, &dose, 2).await));
    };
    tokio::select! {
        () = commands => {}
        () = report => unreachable!("it goes on for longer"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_instrument_that_only_ever_says_not_ok_confirms_nothing() {
    let mut rng = seeded();
    for round in 0..300 {
        let baud = [300, 1200, 9600, 115_200][round % 4];
        let pause = Duration::from_millis([0, 5, 50, 400, 2000][rng.usize(..5)]);
        let halt = Duration::from_millis([0, 0, 30, 200, 900][rng.usize(..5)]);
        let piece = [1, 4, 10, 62][rng.usize(..4)];
        let Bench { mut text, mut say, hear: _hear } = bench(baud, Duration::ZERO);
        let report = async {
            loop {
                trickle(&mut say, b"STATE NOT ", baud, piece).await;
                sleep(halt).await;
                trickle(&mut say, b"OK\r\n", baud, piece).await;
                sleep(pause).await;
            }
        };
        let open = async {
            listen(&mut text, Duration::from_millis(rng.u64(..5000))).await;
            ask(&mut text, &call("OPEN\r\n", "^OK$", Some("^ERR")), 1).await
        };
        let wire = tokio::select! {
            wire = open => wire,
            () = report => unreachable!("it never stops"),
        };
        assert!(is_unclear(&wire), "{wire:?} at {baud} baud, pauses of {pause:?} and {halt:?}, pieces of {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_line_of_a_reply_never_answers_the_next_command() {
    for delay in [0, 1, 5, 20, 30, 80, 150, 300, 500, 800, 990] {
        for refuses in [true, false] {
            let Bench { mut text, mut hear, mut say } = bench(9600, Duration::ZERO);
            let instrument = async {
                let mut version = [0; 6];
                hear.read_exact(&mut version).await.unwrap();
                say.write_all(b"1999.0\r\n").await.unwrap();
                if delay > 0 {
                    sleep(Duration::from_millis(delay)).await;
                }
                say.write_all(b"OK\r\nERR 7\r\n12.5\r\n").await.unwrap();
                let mut dispense = [0; 3];
                hear.read_exact(&mut dispense).await.unwrap();
                sleep(50 * MS).await;
                say.write_all(if refuses { b"ERR interlock\r\n" } else { b"OK\r\n" }).await.unwrap();
                std::future::pending::<()>().await;
            };
            let asking = async {
                let version = ask(&mut text, &call("VERS\r\n", "^([0-9.]+)$", None), 1).await;
                assert_eq!(version, answered("1999.0"));
                ask(&mut text, &call("D\r\n", "^OK$", Some("^ERR ?(.*)")), 2).await
            };
            let wire = tokio::select! {
                wire = asking => wire,
                () = instrument => unreachable!("it stays"),
            };
            let right = if refuses { Wire::Refused(Refusal::Text("interlock".into())) } else { answered("OK") };
            assert_eq!(wire, right, "a second line after {delay} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_tail_at_the_speed_of_the_line_never_answers_the_next_command() {
    for baud in [300, 1200, 9600] {
        let Bench { mut text, mut hear, mut say } = bench(baud, Duration::ZERO);
        let instrument = async {
            let mut help = [0; 6];
            hear.read_exact(&mut help).await.unwrap();
            trickle(&mut say, b"HELP:\r\nOK is a reply\r\nERR is one\r\nOK\r\n", baud, 1).await;
            let mut open = [0; 3];
            hear.read_exact(&mut open).await.unwrap();
            trickle(&mut say, b"ERR 1\r\n", baud, 1).await;
            std::future::pending::<()>().await;
        };
        let asking = async {
            assert_eq!(ask(&mut text, &call("HELP\r\n", "^HELP", None), 1).await, answered("HELP:"));
            ask(&mut text, &call("O\r\n", "^OK", Some("^ERR ?(.*)")), 2).await
        };
        let wire = tokio::select! {
            wire = asking => wire,
            () = instrument => unreachable!("it stays"),
        };
        assert_eq!(wire, Wire::Refused(Refusal::Text("1".into())), "{baud} baud");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_fragment_neither_eats_a_reply_nor_makes_one() {
    for age in [0, 10, 400, 1_100, 5_000] {
        let Bench { mut text, mut hear, mut say } = bench(9600, Duration::ZERO);
        listen(&mut text, Duration::from_secs(2)).await;
        say.write_all(b"W +00").await.unwrap();
        listen(&mut text, Duration::from_millis(age)).await;
        let instrument = async {
            let mut tare = [0; 3];
            hear.read_exact(&mut tare).await.unwrap();
            say.write_all(b"OK\r\n").await.unwrap();
            std::future::pending::<()>().await;
        };
        let tare = call("T\r\n", "^OK$", None);
        let wire = tokio::select! {
            wire = ask(&mut text, &tare, 1) => wire,
            () = instrument => unreachable!("it stays"),
        };
        assert_eq!(wire, answered("OK"), "a fragment {age} ms old");
    }
}

#[tokio::test(start_paused = true)]
async fn chatter_stretches_no_timeout() {
    for (chatter, baud) in [(&b"W +0012.5 kg\r\n"[..], 300), (b"x", 300), (b"W 1\r\n", 9600), (b"\r\n", 115_200)] {
        let Bench { mut text, mut say, hear: _hear } = bench(baud, Duration::ZERO);
        listen(&mut text, Duration::from_secs(10)).await;
        let tare = call("T\r\n", "^OK$", None);
        let exchange = async {
            text.put(&tare, 1).await;
            Instant::now()
        };
        let began = Instant::now();
        let chatting = async {
            loop {
                trickle(&mut say, chatter, baud, 1).await;
            }
        };
        let ended = tokio::select! {
            ended = exchange => ended,
            () = chatting => unreachable!("it never stops"),
        };
        let most = Duration::from_secs(1) + Duration::from_secs(10) / baud * (256 + 20 + 3);
        assert!(ended - began <= most, "{:?} at {baud} baud", ended - began);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_began_in_time_is_heard_to_its_end() {
    let Bench { mut text, mut hear, mut say } = bench(300, Duration::ZERO);
    listen(&mut text, Duration::from_secs(10)).await;
    let mut slow = call("T\r\n", "^OK (.*)", None);
    slow.timeout = Some(100 * MS);
    let instrument = async {
        let mut tare = [0; 3];
        hear.read_exact(&mut tare).await.unwrap();
        trickle(&mut say, b"OK 0123456789 0123456789 0123456789\r\n", 300, 1).await;
        std::future::pending::<()>().await;
    };
    let wire = tokio::select! {
        wire = text.put(&slow, 1) => wire.wire,
        () = instrument => unreachable!("it stays"),
    };
    assert_eq!(wire, answered("0123456789 0123456789 0123456789"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_the_line_is_waited_for_sends_nothing() {
    // A turnaround, the rest of a reply, and a fragment.
    for (turnaround, said) in [(6_000, &b"OK\r\n"[..]), (0, b"OK\r\nmore"), (0, b"OK\r\nmore\r\n")] {
        let Bench { mut text, mut hear, mut say } = bench(9600, Duration::from_millis(turnaround));
        let first = call("A\r\n", "^OK$", None);
        let instrument = async {
            let mut heard = [0; 3];
            hear.read_exact(&mut heard).await.unwrap();
            say.write_all(said).await.unwrap();
        };
        let (wire, ()) = tokio::join!(ask(&mut text, &first, 1), instrument);
        assert_eq!(wire, answered("OK"));
        let mut second = call("B\r\n", "^OK$", None);
        let limit = Instant::now() + 300 * MS;
        second.not_after = Some(limit);
        let wire = text.put(&second, 2).await.wire;
        assert!(matches!(wire, Wire::NotSent(_)), "{wire:?}");
        assert!(Instant::now() <= limit + 2 * MS, "it is told so when the deadline passes");
        assert!(timeout(Duration::from_secs(20), hear.read_u8()).await.is_err(), "nothing was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn an_echo_confirms_nothing() {
    let Bench { mut text, mut hear, mut say } = bench(9600, Duration::ZERO);
    let regex = Regex::new("OPEN (.*)").unwrap();
    for (caller, expect) in [None, Some(regex)].into_iter().enumerate() {
        let request = Request::line(b"OPEN 5\r\n".to_vec(), expect, None);
        let open = Call::new(0, request);
        let echo = async {
            let mut line = [0; 8];
            hear.read_exact(&mut line).await.unwrap();
            say.write_all(&line).await.unwrap();
            std::future::pending::<()>().await;
        };
        let wire = tokio::select! {
            wire = ask(&mut text, &open, caller as u64) => wire,
            () = echo => unreachable!("it stays"),
        };
        assert!(matches!(&wire, Wire::BadReply(why) if why.contains("only the echo")), "{wire:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_takes_the_late_answer_and_another_command_does_not() {
    for (again, expected) in [(true, "first"), (false, "second")] {
        let Bench { mut text, mut hear, mut say } = bench(9600, Duration::ZERO);
        let instrument = async {
            let mut heard = [0; 3];
            hear.read_exact(&mut heard).await.unwrap();
            sleep(Duration::from_millis(1_500)).await;
            say.write_all(b"OK first\r\n").await.unwrap();
            hear.read_exact(&mut heard).await.unwrap();
            sleep(500 * MS).await;
            say.write_all(b"OK second\r\n").await.unwrap();
            std::future::pending::<()>().await;
        };
        let read = call("R\r\n", "^OK (.*)", None);
        let asking = async {
            assert!(is_unclear(&ask(&mut text, &read, 1).await));
            ask(&mut text, &read, if again { 1 } else { 2 }).await
        };
        let wire = tokio::select! {
            wire = asking => wire,
            () = instrument => unreachable!("it stays"),
        };
        assert_eq!(wire, answered(expected));
    }
}

/// What an instrument says by itself, and how often.
async fn report(say: &mut WriteHalf<DuplexStream>, line: &[u8], every: Duration) {
    loop {
        sleep(every).await;
        say.write_all(line).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_instrument_says_by_itself_neither_confirms_a_command_nor_refuses_it() {
    // A command without `expect`, one that captures a number, and one that such a report would refuse.
    let table =
        [("", None, &b"W +0012.5 kg\r\n"[..]), ("([0-9.]+)", None, b"12.5\r\n"), ("^OK", Some("^E"), b"E 7\r\n")];
    for (expect, refuse, line) in table {
        for every in [100, 700, 3_000, 20_000].map(Duration::from_millis) {
            let Bench { mut text, mut say, hear: _hear } = bench(9600, Duration::ZERO);
            let tare = async {
                listen(&mut text, 4 * every + Duration::from_secs(20)).await;
                let tare = Call { timeout: Some(2 * every), ..call("T\r\n", expect, refuse) };
                ask(&mut text, &tare, 1).await
            };
            let wire = tokio::select! {
                wire = tare => wire,
                () = report(&mut say, line, every) => unreachable!("it never stops"),
            };
            assert!(
                matches!(&wire, Wire::BadReply(why) if why.contains("by itself") && why.contains("`expect`")),
                "{wire:?} to {expect:?}, a report each {every:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_unlike_every_report_confirms_a_command_among_them() {
    for every in [100, 700, 3_000].map(Duration::from_millis) {
        let Bench { mut text, mut say, mut hear } = bench(9600, Duration::ZERO);
        let instrument = async {
            let (mut told, mut next) = ([0; 3], Instant::now());
            loop {
                if Instant::now() >= next {
                    say.write_all(b"W +0012.5 kg\r\n").await.unwrap();
                    next += every;
                }
                if timeout(100 * MS, hear.read_exact(&mut told)).await.is_ok() {
                    sleep(50 * MS).await;
                    say.write_all(b"TARED\r\n").await.unwrap();
                }
            }
        };
        let tare = async {
            listen(&mut text, Duration::from_secs(20)).await;
            ask(&mut text, &call("T\r\n", "", None), 1).await
        };
        let wire = tokio::select! {
            wire = tare => wire,
            () = instrument => unreachable!("it never stops"),
        };
        assert_eq!(wire, answered("TARED"), "a report each {every:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instrument_that_is_asked_again_and_again_is_heard_to_report_by_itself() {
    let mut rng = seeded();
    // Where it is seldom silent it is asked all the time, else with a pause in which it may be heard.
    for (every, pause) in [(90, 0), (400, 0), (1_100, 10), (3_700, 10), (9_000, 10)] {
        let (every, pause) = (Duration::from_millis(every), Duration::from_secs(pause));
        let Bench { mut text, mut say, mut hear } = bench(9600, Duration::ZERO);
        let mut phases = rng.fork();
        let instrument = async {
            let mut next = Instant::now() + every;
            loop {
                let mut asked = [0; 3];
                tokio::select! {
                    heard = hear.read_exact(&mut asked) => {
                        heard.unwrap();
                        if asked == *b"P\r\n" {
                            sleep(Duration::from_millis(phases.u64(5..60))).await;
                            say.write_all(b"PRESENT\r\n").await.unwrap();
                        }
                    }
                    () = tokio::time::sleep_until(next) => {
                        say.write_all(b"W +0012.5 kg\r\n").await.unwrap();
                        next += every;
                    }
                }
            }
        };
        let asking = async {
            let began = Instant::now();
            while began.elapsed() < 60 * every.max(Duration::from_secs(1)) {
                assert_eq!(ask(&mut text, &call("P\r\n", "^PRESENT", None), 1).await, answered("PRESENT"));
                listen(&mut text, pause).await;
            }
            let tare = Call { timeout: Some(2 * every), ..call("T\r\n", "", None) };
            ask(&mut text, &tare, 2).await
        };
        let wire = tokio::select! {
            wire = asking => wire,
            () = instrument => unreachable!("it never stops"),
        };
        assert!(is_unclear(&wire), "{wire:?}, a report each {every:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_reply_an_echo_and_a_late_answer_are_no_reports() {
    for (tail, pause) in [(&b"OK\r\n"[..], 0), (b"OK\r\n", 60), (b"OK\r\n", 500), (b"P\r\nOK\r\n", 900)] {
        let Bench { mut text, mut say, mut hear } = bench(9600, Duration::ZERO);
        let instrument = async {
            let mut late = true;
            loop {
                let mut asked = [0; 3];
                hear.read_exact(&mut asked).await.unwrap();
                say.write_all(&asked).await.unwrap();
                match &asked {
                    b"P\r\n" => {
                        say.write_all(b"1999.0\r\n").await.unwrap();
                        sleep(pause * MS).await;
                        say.write_all(tail).await.unwrap();
                    }
                    _ => {
                        // The first time later than it is waited for.
                        sleep(if late { Duration::from_millis(3_900) } else { 20 * MS }).await;
                        say.write_all(b"OK\r\n").await.unwrap();
                        late = false;
                    }
                }
            }
        };
        let asking = async {
            assert!(is_unclear(&ask(&mut text, &call("D\r\n", "^OK", None), 0).await));
            for caller in 1..40 {
                assert_eq!(ask(&mut text, &call("P\r\n", "^1999", None), caller).await, answered("1999.0"));
            }
            listen(&mut text, Duration::from_secs(60)).await;
            ask(&mut text, &call("D\r\n", "^OK", None), 99).await
        };
        let wire = tokio::select! {
            wire = asking => wire,
            () = instrument => unreachable!("it stays"),
        };
        assert_eq!(wire, answered("OK"), "{tail:?} after {pause} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_could_not_be_sent_in_time_is_not_being_asked() {
    let Bench { mut text, .. } = bench(9600, Duration::ZERO);
    // A line that takes one command and no more.
    let (near, far) = duplex(3);
    let (_hear, mut say) = split(far);
    text.attach(Box::new(near));
    let mut open = call("O\r\n", "^OK", None);
    assert!(is_unclear(&ask(&mut text, &open, 1).await));
    open.not_after = Some(Instant::now() + 300 * MS);
    assert!(matches!(text.put(&open, 1).await.wire, Wire::NotSent(_)));
    listen(&mut text, Duration::from_secs(20)).await;
    // The first may be the answer to the one that was sent.
    for _ in 0..2 {
        let (_, written) = tokio::join!(listen(&mut text, Duration::from_secs(5)), say.write_all(b"READY\r\n"));
        written.unwrap();
    }
    assert!(text.listening.may_be_a_report("READY", Instant::now().into_std()));
}
