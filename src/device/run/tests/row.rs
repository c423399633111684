//! What is asked in a row, where answers come late: each is that of its own request.

use super::*;
use crate::bus::sealed;

const LINE: &str =
    "kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 19200\nresponse_timeout = \"1s\"\nretries = 2\n";

/// What a unit does with its n-th request: how much later it answers, and what.
type Does = Box<dyn FnMut(usize, &[u8]) -> Option<(Duration, Vec<u8>)> + Send>;

/// A unit whose answers overtake one another, on a line whose requests all have eight bytes.
async fn unit(far: DuplexStream, mut does: Does) {
    let (mut hear, mut speak) = tokio::io::split(far);
    let (say, mut said) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(8);
    let speaking = tokio::spawn(async move {
        let mut waiting: Vec<(Instant, Vec<u8>)> = Vec::new();
        loop {
            waiting.sort_by_key(|(at, _)| *at);
            let next = waiting.first().map(|(at, _)| *at);
            tokio::select! {
                Some(one) = said.recv() => waiting.push(one),
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let (_, frame) = waiting.remove(0);
                    let _ = speak.write_all(&frame).await;
                }
                else => return,
            }
        }
    });
    let mut frame = [0; 8];
    for n in 0.. {
        if hear.read_exact(&mut frame).await.is_err() {
            break;
        }
        if let Some((delay, pdu)) = does(n, &frame[1..6]) {
            let _ = say.send((Instant::now() + delay, sealed(&[&[7], &pdu[..]].concat()))).await;
        }
    }
    drop(say);
    speaking.abort();
}

/// Runs the command `c` on a line with such a unit.
async fn ran(command: &str, value: Option<Json>, does: Does) -> Ran {
    let (device, bus) = configured(&format!("{LINE}{command}"));
    let (near, far) = duplex(256);
    let unit = tokio::spawn(unit(far, does));
    let (bus, worker) = crate::bus::new("b", &bus);
    let stop = CancellationToken::new();
    let worker = tokio::spawn(worker.on(Arc::new(Wired(Mutex::new(Some(near))))).run(stop.clone()));
    let plan = Plan::new(&device, "c", value.as_ref()).unwrap();
    let gate = &mut TestGate::new(Duration::from_secs(60));
    let ran = plan.run(&bus, Execution::new(plan.route(&bus)), gate).await;
    stop.cancel();
    worker.await.unwrap();
    unit.abort();
    ran
}

const SOON: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn a_bit_is_written_over_what_was_read_for_it_and_not_over_what_stood_there_an_attempt_ago() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let does = {
        let written = written.clone();
        Box::new(move |n: usize, pdu: &[u8]| match (n, pdu[0]) {
            // What it says of the first read comes when the second is under way, and others have written meanwhile.
            (0, 3) => Some((Duration::from_millis(1300), vec![3, 2, 0, 0])),
            (_, 3) => Some((Duration::from_millis(600), vec![3, 2, 0, 0xF0])),
            _ => {
                written.lock().unwrap().push([pdu[3], pdu[4]]);
                Some((SOON, pdu.to_vec()))
            }
        })
    };
    let command = "[profile.p.command.c]\nidempotent = false\nwrite = { table = \"holding\", address = 3, bit = 3 }\n";
    let ran = ran(command, Some(true.into()), does).await;
    assert!(matches!(&ran, Ran::Finished(outcome, 2) if outcome.state == State::Succeeded), "{ran:?}");
    assert_eq!(*written.lock().unwrap(), [[0, 0xF8]]);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_one_step_does_not_confirm_another_that_is_the_same() {
    let command = "[profile.p.command.c]\nidempotent = true\nsteps = [\n\
                   { write = { table = \"holding\", address = 3 }, value = 5 },\n\
                   { write = { table = \"holding\", address = 3 }, value = 5 },\n]\n";
    let does = Box::new(|n: usize, pdu: &[u8]| match n {
        // So late that it comes while the second step of the next attempt is under way, which is not heard.
        0 => Some((Duration::from_millis(1500), pdu.to_vec())),
        2 => None,
        _ => Some((SOON, pdu.to_vec())),
    });
    let ran = ran(command, None, does).await;
    assert!(matches!(&ran, Ran::Finished(outcome, 3) if outcome.state == State::Succeeded), "{ran:?}");
}

#[test]
fn what_a_crash_has_interrupted_is_read_back_only_if_each_step_is() {
    let step = |address: u16, more: &str| {
        format!("{{ write = {{ table = \"holding\", address = {address} }}, value = 5{more} }},\n")
    };
    for (first, second, is_read_back) in [
        ("", "", false),
        (", verify = true", "", false),
        ("", ", read_back = { address = 9 }", false),
        (", verify = true", ", read_back = { address = 9, after = \"1s\", within = \"9s\" }", true),
    ] {
        let steps = step(3, first) + &step(4, second);
        let (device, bus) = configured(&format!("{LINE}[profile.p.command.c]\nsteps = [\n{steps}]\n"));
        let (bus, _worker) = crate::bus::new("b", &bus);
        let plan = Plan::new(&device, "c", None).unwrap();
        let step = Execution::interrupted(plan.route_after_a_crash(&bus), 1).begin();
        match step {
            Step::ReadBack => assert!(is_read_back, "{first} {second}"),
            Step::Finish(outcome) => {
                assert_eq!((outcome.state, is_read_back), (State::InDoubt, false), "{first} {second}");
            }
            step => panic!("{step:?}"),
        }
        assert_eq!(plan.route(&bus).verify.is_some(), !first.is_empty() || !second.is_empty());
        assert!(!plan.route(&bus).idempotent, "what has several steps is not repeated unless that is said");
    }
}
