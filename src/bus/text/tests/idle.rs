//! Frames that end with a silence which is longer than any answer is waited for.

use std::time::{Duration, Instant};

use crate::bus::call::Call;
use crate::bus::debts::Question;
use crate::bus::port::timing::Timing;
use crate::bus::text::listening::Listening;
use crate::config::{Cut, Endpoint};
use crate::peripheral::exchange::Request;
use crate::peripheral::frame::{Ends, Frame};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn question(caller: u64, text: &[u8]) -> Question {
    Question::of(caller, &Call::new(0, Request::line(text.to_vec(), None, None)))
}

#[test]
fn a_frame_that_a_long_silence_ends_is_waited_for_and_no_other_question_goes_out_meanwhile() {
    let (silence, now) = (Duration::from_secs(5), Instant::now());
    let frame = Frame { start: vec![], end: vec![], ends: Ends::Idle(silence), escape: None, checksum: None };
    let timing = Timing::of(&Endpoint::Tcp("plc:4001".into()));
    let mut line = Listening::new(Cut::Frame(frame), timing, ms(500), Duration::ZERO, now);
    let asked_at = now + 10 * silence;
    let asked = line.ask(asked_at);
    line.feed(b"FI", false, asked_at + ms(400));
    // It pauses for longer than its timeout, and goes on.
    let deadline = asked_at + ms(500);
    assert!(line.ends_by(asked, deadline, Duration::ZERO).is_some_and(|until| until >= deadline + ms(3000)));
    line.feed(b"VE", false, asked_at + ms(4000));
    let ends_at = line.silence_ends_at().unwrap();
    assert_eq!(ends_at, asked_at + ms(4000) + silence);
    let lines = line.feed(b"", false, ends_at);
    assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["FIVE"]);
    line.end(question(1, b"A"), true, None, ends_at);
    assert!(line.free_at(&question(2, b"B"), ends_at).is_some_and(|at| at >= ends_at + silence));
}
