//! Instruments that sleep, and are woken before a command.

use super::*;

const AFTER: Duration = Duration::from_secs(5);

fn sleeper() -> Bench {
    let mut bench = bench(9600, Duration::ZERO);
    bench.text.wake = Some(Wake { bytes: b"\r".to_vec(), after: AFTER });
    bench
}

/// Gives what is heard until nothing comes for so long, a mark behind each pause of 200 ms.
async fn heard(hear: &mut ReadHalf<DuplexStream>) -> String {
    let (mut all, mut chunk) = (String::new(), [0; 64]);
    while let Ok(len) = timeout(Duration::from_secs(3), hear.read(&mut chunk)).await {
        let began = Instant::now();
        all.push_str(std::str::from_utf8(&chunk[..len.unwrap()]).unwrap());
        while timeout(200 * MS, hear.read(&mut chunk[..1])).await.is_ok_and(|len| len.is_ok()) {
            all.push(char::from(chunk[0]));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{all:?}");
        all.push('|');
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_command_after_silence_is_sent_behind_a_wake_and_another_at_once() {
    let Bench { mut text, mut hear, mut say } = sleeper();
    let instrument = async {
        let mut woken = [0; 1];
        hear.read_exact(&mut woken).await.unwrap();
        assert_eq!(woken, *b"\r");
        let at = Instant::now();
        sleep(100 * MS).await;
        // What it says to that would confirm or refuse the command.
        say.write_all(b"OK\r\nERR\r\n").await.unwrap();
        for reply in [&b"OK 1\r\n"[..], b"OK 2\r\n"] {
            let mut tare = [0; 3];
            hear.read_exact(&mut tare).await.unwrap();
            assert_eq!(tare, *b"T\r\n");
            assert!(at.elapsed() >= Duration::from_secs(1), "{:?}", at.elapsed());
            say.write_all(reply).await.unwrap();
        }
        sleep(AFTER + Duration::from_secs(2)).await;
        hear.read_exact(&mut woken).await.unwrap();
        assert_eq!(woken, *b"\r", "it sleeps again");
        std::future::pending::<()>().await;
    };
    let tare = call("T\r\n", "^OK ?(.*)", Some("^ERR"));
    let asking = async {
        assert_eq!(ask(&mut text, &tare, 1).await, answered("1"));
        listen(&mut text, AFTER - Duration::from_secs(2)).await;
        assert_eq!(ask(&mut text, &tare, 2).await, answered("2"));
        listen(&mut text, AFTER + MS).await;
        ask(&mut text, &tare, 3).await
    };
    let wire = tokio::select! {
        wire = asking => wire,
        () = instrument => unreachable!("it stays"),
    };
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_answered_is_repeated_behind_a_wake() {
    let Bench { mut text, mut hear, .. } = sleeper();
    let tare = call("T\r\n", "^OK", None);
    let asking = async {
        assert!(is_unclear(&ask(&mut text, &tare, 1).await));
        assert!(is_unclear(&ask(&mut text, &tare, 1).await));
    };
    let ((), heard) = tokio::join!(asking, heard(&mut hear));
    assert_eq!(heard, "\r|T\r\n|\r|T\r\n|");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_behind_a_wake_sends_nothing_more() {
    let Bench { mut text, mut hear, .. } = sleeper();
    let asking = async {
        listen(&mut text, Duration::from_secs(10)).await;
        let late = Call { not_after: Some(Instant::now() + 300 * MS), ..call("T\r\n", "^OK", None) };
        ask(&mut text, &late, 1).await
    };
    let (wire, heard) = tokio::join!(asking, async {
        sleep(Duration::from_secs(9)).await;
        heard(&mut hear).await
    });
    assert!(matches!(wire, Wire::NotSent(_)), "{wire:?}");
    assert_eq!(heard, "\r|");
}

#[tokio::test(start_paused = true)]
async fn a_long_wake_has_gone_over_the_line_before_the_silence_behind_it_begins() {
    let mut bench = bench(2400, Duration::ZERO);
    bench.text.wake = Some(Wake { bytes: vec![0x55; 528], after: AFTER });
    let Bench { mut text, mut hear, .. } = bench;
    let instrument = async {
        let mut woken = [0; 528];
        hear.read_exact(&mut woken).await.unwrap();
        let at = Instant::now();
        let mut tare = [0; 3];
        hear.read_exact(&mut tare).await.unwrap();
        assert_eq!(tare, *b"T\r\n");
        at.elapsed()
    };
    let tare = call("T\r\n", "^OK", None);
    let waited = tokio::select! {
        waited = instrument => waited,
        _ = ask(&mut text, &tare, 1) => panic!("it has heard nothing"),
    };
    // 528 characters of ten bits at 2400 baud are 2.2 s, and as long as an answer may take is silence.
    assert!(waited >= Duration::from_millis(3_000), "{waited:?}");
}
