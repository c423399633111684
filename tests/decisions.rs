//! The decision core, walked through exhaustively. Proves G2, G3, G4 and G8 as far as they are decided there:
//! whatever the ledger holds and the wire says, a final row is not run again, a non-idempotent command is sent at
//! most once and only after its record, and every command comes to an end.

use std::time::Duration;

use fieldbridge::clock::{Timestamp, EARLIEST_BELIEVABLE};
use fieldbridge::command::decide::{
    check_identity, on_delivery, on_left_behind, past, until_nothing_is_left, Age, Attempt, Checked, Deadline,
    Execution, Freshness, Known, Past, ReadBack, Route, Step, Verdict, RESOLVE_PATIENCE, TAKE_UP_PATIENCE,
};
use fieldbridge::command::outcome::{Code, Fault, Outcome, State};
use fieldbridge::config::Settle;
use serde_json::json;

const SETTLES: [Settle; 2] = [Settle::AfterExecution, Settle::AfterAccept];

fn fault(code: Code) -> Fault {
    Fault::new(code, "because")
}

const PASTS: [Past; 3] = [Past::Known, Past::Unknown, Past::Elsewhere];
const REPEATABLE: Checked = Checked { idempotent: true };
const ONCE: Checked = Checked { idempotent: false };

#[test]
fn a_final_row_is_completed_and_never_run_again() {
    for state in State::ALL.into_iter().filter(|state| state.is_final()) {
        for settle in SETTLES {
            for past in PASTS {
                for order in [Ok(REPEATABLE), Ok(ONCE), Err(fault(Code::UnknownCommand))] {
                    assert_eq!(on_delivery(Known::Row(state), past, order, settle), Verdict::Complete);
                }
            }
        }
    }
}

#[test]
fn an_unfinished_row_is_never_begun_again_by_a_redelivery() {
    for state in [State::Accepted, State::Executing] {
        for settle in SETTLES {
            for past in PASTS {
                let verdict = on_delivery(Known::Row(state), past, Ok(ONCE), settle);
                assert!(matches!(verdict, Verdict::Complete | Verdict::Resume), "{state} {settle:?}: {verdict:?}");
            }
        }
    }
}

#[test]
fn the_same_id_with_another_body_is_rejected_even_if_it_would_be_fine() {
    for settle in SETTLES {
        for past in PASTS {
            let Verdict::Reject(fault) = on_delivery(Known::OtherBody, past, Ok(ONCE), settle) else {
                panic!("not rejected")
            };
            assert_eq!(fault.code, Code::MessageIdReused);
        }
    }
}

#[test]
fn only_what_must_not_be_repeated_is_in_doubt_where_somebody_may_have_done_it_before() {
    for settle in SETTLES {
        let begun = match settle {
            Settle::AfterAccept => Verdict::Accept,
            Settle::AfterExecution => Verdict::Run,
        };
        for past in PASTS {
            assert_eq!(on_delivery(Known::New, past, Ok(REPEATABLE), settle), begun);
            let rejected = on_delivery(Known::New, past, Err(fault(Code::OutOfRange)), settle);
            assert_eq!(rejected, Verdict::Reject(fault(Code::OutOfRange)));
        }
        assert_eq!(on_delivery(Known::New, Past::Known, Ok(ONCE), settle), begun);
        for past in [Past::Unknown, Past::Elsewhere] {
            let Verdict::Doubt(fault) = on_delivery(Known::New, past, Ok(ONCE), settle) else { panic!("{past:?}") };
            assert_eq!(fault.code, Code::UnknownHistory);
        }
    }
}

#[test]
fn a_message_that_was_enqueued_clearly_after_the_ledgers_epoch_is_of_no_earlier_ledger() {
    let epoch = EARLIEST_BELIEVABLE.plus(Duration::from_secs(86_400));
    let after = |seconds| Some(epoch.plus(Duration::from_secs(seconds)));
    assert_eq!(past(false, None, None, false), Past::Known);
    for (enqueued, epoch, expected) in [
        (None, Some(epoch), Past::Unknown),
        (after(300), Some(epoch), Past::Unknown),
        (after(301), Some(epoch), Past::Known),
        (Some(Timestamp(epoch.0 - 1)), Some(epoch), Past::Unknown),
        // Before there was a time to believe, none proves anything.
        (after(301), None, Past::Unknown),
        (None, None, Past::Unknown),
    ] {
        assert_eq!(past(true, enqueued, epoch, false), expected, "{enqueued:?} {epoch:?}");
    }
    for distrusted in [false, true] {
        assert_eq!(past(distrusted, after(301), Some(epoch), true), Past::Elsewhere);
    }
}

#[test]
fn the_hub_holds_nothing_of_before_after_a_pause_with_nothing_unsettled_that_lies_past_every_lock() {
    let left = |connected, quiet, unsettled| {
        until_nothing_is_left(Duration::from_secs(connected), Duration::from_secs(quiet), unsettled)
            .map(|left| left.as_secs())
    };
    assert_eq!(left(0, 0, 0), Some(80), "nothing ever comes");
    assert_eq!(left(74, 74, 0), Some(6), "silence before the locks have run out shows nothing");
    assert_eq!(left(80, 80, 0), Some(0));
    assert_eq!(left(80, 3, 0), Some(2), "the last one came a moment ago");
    assert_eq!(left(1000, 1000, 1), None, "something is unsettled");
    assert_eq!(left(1000, 0, 0), Some(5));
}

#[test]
fn what_an_operator_asked_for_is_not_begun_by_a_later_life_of_the_daemon() {
    for verify in [false, true] {
        for idempotent in [false, true] {
            let route = Route { idempotent, verify, attempts_max: 3 };
            let unsent = on_left_behind(route, false).unwrap();
            assert_eq!((unsent.state, unsent.fault.unwrap().code), (State::Expired, Code::Interrupted));
            let interrupted = on_left_behind(route, true);
            match interrupted {
                Some(outcome) => {
                    assert!(idempotent && !verify);
                    assert_eq!((outcome.state, outcome.fault.unwrap().code), (State::Failed, Code::Interrupted));
                }
                None => assert!(verify || !idempotent, "nobody would tell what came of it"),
            }
            let mut execution = Execution::on_the_record(route);
            assert_eq!(execution.begin(), Step::RecordExecuting);
            assert_eq!(execution.recorded(), Step::Send);
        }
    }
}

#[test]
fn only_an_idempotent_command_may_come_without_a_message_id() {
    assert_eq!(check_identity(None, true), Ok(()));
    assert_eq!(check_identity(Some("m"), false), Ok(()));
    assert_eq!(check_identity(None, false).unwrap_err().code, Code::NoMessageId);
}

/// Everything the wire can say to one attempt.
fn attempts() -> Vec<Attempt> {
    vec![
        Attempt::Confirmed(Some(json!(1))),
        Attempt::Refused(fault(Code::Exception)),
        Attempt::NotSent(fault(Code::BusUnavailable)),
        Attempt::Unclear(fault(Code::Timeout)),
        Attempt::Unclear(fault(Code::BadReply)),
        Attempt::Unconfirmed(fault(Code::Exception)),
    ]
}

fn read_backs() -> Vec<ReadBack> {
    vec![ReadBack::Same, ReadBack::Other("other".into()), ReadBack::Unknown(fault(Code::Timeout))]
}

/// Follows every possible course of an execution and calls `seen` with each complete trace and its outcome.
fn walk(execution: &Execution, step: Step, trace: &mut Vec<String>, seen: &mut impl FnMut(&[String], &Outcome)) {
    assert!(trace.len() < 100, "no end: {trace:?}");
    trace.push(match &step {
        Step::Finish(outcome) => format!("finish {}", outcome.state),
        other => format!("{other:?}"),
    });
    match step {
        Step::Finish(outcome) => seen(trace, &outcome),
        Step::RecordExecuting => {
            let mut next = execution.clone();
            let step = next.recorded();
            walk(&next, step, trace, seen);
        }
        Step::Send => {
            for attempt in attempts() {
                let mut next = execution.clone();
                let step = next.attempted(attempt);
                walk(&next, step, trace, seen);
            }
        }
        Step::ReadBack | Step::ReadBackAfter(_) => {
            for result in read_backs() {
                // The patience with an interrupted command is over at some time; one course is enough.
                let elapsed = if matches!(step, Step::ReadBackAfter(_)) { RESOLVE_PATIENCE } else { Duration::ZERO };
                let mut next = execution.clone();
                let step = next.read_back(result, Some(json!(1)), elapsed);
                walk(&next, step, trace, seen);
            }
        }
    }
    trace.pop();
}

fn every_course(route: Route, interrupted: bool) -> Vec<(Vec<String>, Outcome)> {
    let mut execution = if interrupted { Execution::interrupted(route, 1) } else { Execution::new(route) };
    let first = execution.begin();
    let mut all = Vec::new();
    walk(&execution, first, &mut Vec::new(), &mut |trace, outcome| {
        all.push((trace.to_vec(), outcome.clone()));
    });
    all
}

fn sends(trace: &[String]) -> usize {
    trace.iter().filter(|step| *step == "Send").count()
}

#[test]
fn a_non_idempotent_command_is_sent_at_most_once_and_only_after_its_record() {
    for verify in [false, true] {
        for attempts_max in [1, 3, 11] {
            let route = Route { idempotent: false, verify, attempts_max };
            for (trace, _) in every_course(route, false) {
                assert_eq!(trace[0], "RecordExecuting", "{trace:?}");
                assert_eq!(sends(&trace), 1, "{trace:?}");
            }
            // Whatever the configuration calls it by now.
            let renamed = Route { idempotent: true, ..route };
            for (trace, outcome) in every_course(route, true).into_iter().chain(every_course(renamed, true)) {
                assert_eq!(sends(&trace), 0, "an interrupted command went on the wire again: {trace:?}");
                assert!(verify || outcome.fault.as_ref().unwrap().code == Code::Interrupted);
            }
        }
    }
}

#[test]
fn an_idempotent_command_is_tried_until_its_attempts_are_used_up() {
    for verify in [false, true] {
        let route = Route { idempotent: true, verify, attempts_max: 3 };
        let courses = every_course(route, false);
        assert!(courses.iter().all(|(trace, _)| (1..=3).contains(&sends(trace))));
        for (trace, outcome) in &courses {
            let code = outcome.fault.as_ref().map(|fault| fault.code);
            if matches!(code, Some(Code::Timeout | Code::BadReply | Code::BusUnavailable)) {
                assert_eq!(sends(trace), 3, "given up early: {trace:?}");
            }
            if code == Some(Code::Exception) {
                assert_eq!(trace.last().unwrap(), "finish failed", "an exception is an outcome");
            }
        }
    }
}

#[test]
fn what_was_not_sent_at_last_may_have_been_done_before() {
    let mut execution = Execution::new(Route { idempotent: true, verify: false, attempts_max: 2 });
    assert_eq!(execution.begin(), Step::Send);
    assert_eq!(execution.attempted(Attempt::Unclear(fault(Code::Timeout))), Step::Send);
    let step = execution.attempted(Attempt::NotSent(fault(Code::BusUnavailable)));
    assert_eq!(step, Step::Finish(Outcome::ended(State::Failed, fault(Code::Timeout))));
}

#[test]
fn no_course_ends_in_a_state_that_says_more_than_is_known() {
    for idempotent in [false, true] {
        for verify in [false, true] {
            let route = Route { idempotent, verify, attempts_max: 2 };
            for interrupted in [false, true] {
                for (trace, outcome) in every_course(route, interrupted) {
                    assert!(outcome.state.is_final());
                    assert_eq!(outcome.state == State::Succeeded, outcome.fault.is_none(), "{trace:?}");
                    let is_known = idempotent && !interrupted;
                    assert!(!is_known || outcome.state != State::InDoubt, "an idempotent command is never in doubt");
                    if outcome.state == State::InDoubt {
                        let code = outcome.fault.unwrap().code;
                        assert!(matches!(code, Code::Timeout | Code::BadReply | Code::Interrupted), "{code:?}");
                    }
                }
            }
        }
    }
}

/// The table "What an exchange leads to", row by row.
#[test]
fn the_contracts_table_holds() {
    let outcome = |idempotent, verify, attempt: Attempt, read: Option<ReadBack>| {
        let route = Route { idempotent, verify, attempts_max: 1 };
        let mut execution = Execution::new(route);
        let mut step = execution.begin();
        if step == Step::RecordExecuting {
            step = execution.recorded();
        }
        assert_eq!(step, Step::Send);
        step = execution.attempted(attempt);
        if let Some(read) = read {
            assert_eq!(step, Step::ReadBack);
            step = execution.read_back(read, Some(json!(7)), Duration::ZERO);
        }
        let Step::Finish(outcome) = step else { panic!("{step:?}") };
        (outcome.state, outcome.fault.map(|fault| fault.code))
    };
    use Attempt::{Confirmed, NotSent, Refused, Unclear};
    for idempotent in [true, false] {
        let in_doubt = if idempotent { State::Failed } else { State::InDoubt };
        assert_eq!(outcome(idempotent, false, Confirmed(None), None), (State::Succeeded, None));
        for code in [Code::Exception, Code::Refused] {
            assert_eq!(outcome(idempotent, false, Refused(fault(code)), None), (State::Failed, Some(code)));
        }
        let nothing = NotSent(fault(Code::BusUnavailable));
        assert_eq!(outcome(idempotent, false, nothing, None), (State::Failed, Some(Code::BusUnavailable)));
        for code in [Code::Timeout, Code::BadReply] {
            assert_eq!(outcome(idempotent, false, Unclear(fault(code)), None), (in_doubt, Some(code)));
        }
        let other = || Some(ReadBack::Other("8".into()));
        assert_eq!(outcome(idempotent, true, Confirmed(None), other()), (State::Failed, Some(Code::VerifyMismatch)));
        assert_eq!(outcome(idempotent, true, Confirmed(None), Some(ReadBack::Same)), (State::Succeeded, None));
    }
    let unclear = || Unclear(fault(Code::Timeout));
    assert_eq!(outcome(false, true, unclear(), Some(ReadBack::Same)), (State::Succeeded, None));
    let other = Some(ReadBack::Other("8".into()));
    assert_eq!(outcome(false, true, unclear(), other), (State::Failed, Some(Code::VerifyMismatch)));
}

#[test]
fn a_value_resolved_by_reading_back_is_the_value_that_was_written() {
    let mut execution = Execution::interrupted(Route { idempotent: false, verify: true, attempts_max: 3 }, 1);
    assert_eq!(execution.begin(), Step::ReadBack);
    let step = execution.read_back(ReadBack::Same, Some(json!(42.5)), Duration::ZERO);
    assert_eq!(step, Step::Finish(Outcome::succeeded(Some(json!(42.5)))));
}

#[test]
fn an_interrupted_command_that_is_not_found_at_once_may_be_on_its_way_still() {
    let mut execution = Execution::interrupted(Route { idempotent: false, verify: true, attempts_max: 3 }, 1);
    assert_eq!(execution.begin(), Step::ReadBack);
    let other = || ReadBack::Other("8".into());
    let soon = execution.read_back(other(), Some(json!(1)), TAKE_UP_PATIENCE - Duration::from_millis(1));
    assert!(matches!(soon, Step::ReadBackAfter(_)), "{soon:?}");
    let Step::Finish(outcome) = execution.read_back(other(), Some(json!(1)), TAKE_UP_PATIENCE) else {
        panic!("it is still looked for");
    };
    assert_eq!((outcome.state, outcome.fault.unwrap().code), (State::Failed, Code::VerifyMismatch));
}

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
