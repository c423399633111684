//! How a Modbus line keeps its times, by a clock that is the test's.

use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{sleep, timeout};

use super::*;
use crate::bus::modbus::frame::rtu::tests::sealed;
use crate::config::{LowLatency, Parity, SerialPort};
use crate::peripheral::exchange::{Answer, Request};

const TIMEOUT: Duration = Duration::from_millis(500);

/// A line of 10 ms a character, and its far end.
fn line() -> (ModbusLine, DuplexStream) {
    let port = SerialPort {
        path: "line".into(),
        baud: 1100,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    };
    line_at(Endpoint::Serial(port))
}

fn line_at(endpoint: Endpoint) -> (ModbusLine, DuplexStream) {
    framed_line(Framing::Rtu, endpoint)
}

fn framed_line(framing: Framing, endpoint: Endpoint) -> (ModbusLine, DuplexStream) {
    let lines: Arc<dyn port::Lines> = Arc::new(port::SystemLines);
    let (near, far) = duplex(4096);
    let mut line = ModbusLine::new(framing, endpoint, TIMEOUT, Duration::ZERO, &lines);
    line.attach(Box::new(near));
    (line, far)
}

fn call() -> Call {
    let request = Request::ReadWords { holding: true, address: 0, count: 1 };
    Call::new(7, request)
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_never_silent_is_not_written_on() {
    let byte = b"U".to_vec();
    is_not_written_on(line(), byte, Duration::from_millis(30)).await;
    // Of what stands on a server's line each frame comes whole.
    let of_others = [sealed(&[8, 3, 0, 16, 0, 2]), sealed(&[8, 3, 4, 0, 0, 0, 1])].concat();
    is_not_written_on(line_at(Endpoint::Tcp("server:4001".into())), of_others, Duration::from_millis(3)).await;
}

/// While this is said again and again.
async fn is_not_written_on((mut rtu, far): (ModbusLine, DuplexStream), said: Vec<u8>, pause: Duration) {
    let call = call();
    let (mut hearing, mut saying) = tokio::io::split(far);
    let babble = async {
        loop {
            saying.write_all(&said).await.unwrap();
            sleep(pause).await;
        }
    };
    let began = Instant::now();
    let ended = tokio::select! {
        ended = rtu.put(&call, 1) => ended,
        () = babble => unreachable!(),
    };
    assert!(matches!(&ended.wire, Wire::NotSent(why) if why.contains("never silent")));
    assert!(began.elapsed() <= BABBLE_MAX + Duration::from_millis(50));
    assert!(timeout(TIMEOUT, hearing.read_u8()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_out_after_three_and_a_half_characters_of_silence() {
    let (call, (mut rtu, mut far)) = (call(), line());
    sleep(TIMEOUT).await;
    far.write_all(b"U").await.unwrap();
    let began = Instant::now();
    let peer = async {
        let mut request = [0; 8];
        far.read_exact(&mut request).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(35), "{:?}", began.elapsed());
        assert!(began.elapsed() <= Duration::from_millis(40), "{:?}", began.elapsed());
        far.write_all(&sealed(&[7, 3, 2, 0, 5])).await.unwrap();
    };
    let (ended, ()) = tokio::join!(rtu.put(&call, 1), peer);
    assert_eq!(ended.wire, Wire::Answered(Answer::Words(vec![5])));
}

#[tokio::test(start_paused = true)]
async fn the_time_on_the_wire_is_no_part_of_the_timeout() {
    let (mut rtu, _far) = line();
    sleep(TIMEOUT).await;
    let began = Instant::now();
    let ended = rtu.put(&call(), 1).await;
    assert!(matches!(ended.wire, Wire::NoAnswer(_)), "{:?}", ended.wire);
    // 8 characters there, 7 back.
    let expected = TIMEOUT + Duration::from_millis(150);
    let over = began.elapsed().checked_sub(expected).expect("not before");
    assert!(over <= Duration::from_millis(5), "{over:?}");
}

/// An ASCII line of 10 ms a character, and its far end.
fn ascii_line() -> (ModbusLine, DuplexStream) {
    let port = SerialPort {
        path: "line".into(),
        baud: 1000,
        parity: Parity::Even,
        data_bits: 7,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    };
    framed_line(Framing::Ascii, Endpoint::Serial(port))
}

/// What the unit of `call` answers.
const SAYS: &[u8] = b":0703020005EF\r\n";

/// An exchange in which the answer's characters come so far apart, and how long it took.
async fn with_characters_apart(apart: Duration) -> (Wire, Duration) {
    let (call, (mut line, mut far)) = (call(), ascii_line());
    sleep(TIMEOUT).await;
    let began = Instant::now();
    let peer = async {
        far.read_exact(&mut [0; 17]).await.unwrap();
        for byte in SAYS {
            sleep(apart).await;
            far.write_all(&[*byte]).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = line.put(&call, 1) => (ended.wire, began.elapsed()),
        () = peer => unreachable!("a peer stays"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_ascii_answer_that_has_begun_is_heard_to_its_end() {
    let answered = Wire::Answered(Answer::Words(vec![5]));
    for apart in [1, 100, 350] {
        let (wire, took) = with_characters_apart(Duration::from_millis(apart)).await;
        assert_eq!(wire, answered, "{apart} ms apart, {took:?}");
    }
    // Not for ever.
    let (wire, took) = with_characters_apart(Duration::from_millis(490)).await;
    assert!(matches!(wire, Wire::BadReply(_)), "{wire:?}");
    assert!(took <= TIMEOUT + ENDING_MAX + Duration::from_millis(400), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn characters_that_come_more_than_a_second_apart_are_no_ascii_frame() {
    for (pause, is_one) in [(990, true), (1010, false)] {
        let (call, (mut line, mut far)) = (call(), ascii_line());
        let call = Call { timeout: Some(Duration::from_secs(4)), ..call };
        let peer = async {
            far.read_exact(&mut [0; 17]).await.unwrap();
            far.write_all(&SAYS[..5]).await.unwrap();
            sleep(Duration::from_millis(pause)).await;
            far.write_all(&SAYS[5..]).await.unwrap();
        };
        let (ended, ()) = tokio::join!(line.put(&call, 1), peer);
        assert_eq!(matches!(ended.wire, Wire::Answered(_)), is_one, "{pause} ms: {:?}", ended.wire);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ascii_request_waits_for_the_rest_of_a_frame_that_is_under_way_and_no_longer_than_it_may_come() {
    let (whole, half) = (b":0803040000002AC7\r\n", &b":080304"[..]);
    for (said, silent) in [(&whole[..], 35), (half, 1000), (b"08", 35)] {
        let (call, (mut line, mut far)) = (call(), ascii_line());
        sleep(TIMEOUT).await;
        far.write_all(said).await.unwrap();
        let began = Instant::now();
        let peer = async {
            far.read_exact(&mut [0; 17]).await.unwrap();
            let waited = began.elapsed().as_millis();
            assert!((silent..=silent + 5).contains(&waited), "{waited} ms behind {}", said.escape_ascii());
            far.write_all(SAYS).await.unwrap();
        };
        let (ended, ()) = tokio::join!(line.put(&call, 1), peer);
        assert_eq!(ended.wire, Wire::Answered(Answer::Words(vec![5])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_full_of_bytes_takes_bounded_memory_and_time() {
    // The unit's number; and a frame that begins again and again.
    for ((mut line, mut far), byte) in [(line(), 7), (ascii_line(), b':')] {
        let (call, began) = (call(), Instant::now());
        let flood = async {
            far.read_u8().await.unwrap();
            while far.write_all(&[byte; 4096]).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::select! {
            ended = line.put(&call, 1) => ended,
            () = flood => unreachable!(),
        };
        assert!(matches!(ended.wire, Wire::BadReply(_)), "{:?}", ended.wire);
        assert!(line.tail.len() <= line.tail_max());
        assert!(began.elapsed() <= TIMEOUT + line.slack(), "{:?}", began.elapsed());
    }
}
