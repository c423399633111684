//! Deadlines, by every clock that there is.

use std::time::Duration;

use fieldbridge::command::decide::{Age, Deadline, Freshness};
use fieldbridge::time::{Timestamp, EARLIEST_BELIEVABLE};

#[test]
fn a_deadline_counts_by_the_monotonic_clock_and_by_the_expiry_whichever_is_sooner() {
    let now = EARLIEST_BELIEVABLE.plus(Duration::from_secs(86_400));
    let limit = Duration::from_secs(30);
    let at = |seconds, now| Age { monotonic: Duration::from_secs(seconds), received_at: None, now };
    let age = |seconds, now| at(seconds, Some(now));
    let plain = Deadline { limit, expires_at: None };
    assert_eq!(plain.judge(age(29, now)), Freshness::Fresh);
    assert_eq!(plain.judge(age(30, now)), Freshness::Expired);
    assert_eq!(plain.judge(at(0, None)), Freshness::Fresh, "a clock that is not believed ages nothing");

    let expiring = Deadline { limit, expires_at: Some(now) };
    assert_eq!(expiring.judge(age(0, now)), Freshness::Expired);
    assert_eq!(expiring.judge(age(0, Timestamp(now.0 - 1))), Freshness::Fresh);
    assert_eq!(expiring.judge(at(0, None)), Freshness::Fresh, "and lets nothing expire");
}

#[test]
fn a_command_of_an_earlier_life_waits_for_a_clock_that_can_judge_it() {
    let received = EARLIEST_BELIEVABLE.plus(Duration::from_secs(86_400));
    let deadline = Deadline { limit: Duration::from_secs(30), expires_at: None };
    let judge =
        |up: u64, now| deadline.judge(Age { monotonic: Duration::from_secs(up), received_at: Some(received), now });
    assert_eq!(judge(1, Some(received.plus(Duration::from_secs(10)))), Freshness::Fresh);
    assert_eq!(judge(1, Some(received.plus(Duration::from_secs(31)))), Freshness::Expired);
    assert_eq!(judge(1, Some(Timestamp(received.0 - 1))), Freshness::Unknown, "a clock that was put back");
    assert_eq!(judge(1, None), Freshness::Unknown, "booted in the past");
    assert_eq!(judge(31, None), Freshness::Expired, "the daemon alone has run for longer");
}
