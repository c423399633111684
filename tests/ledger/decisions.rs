//! The decision core, walked through exhaustively. Proves G2, G3, G4 and G8 as far as they are decided there:
//! whatever the ledger holds and the wire says, a final row is not run again, a non-idempotent command is sent at
//! most once and only after its record, and every command comes to an end.

mod broadcast;
mod deadlines;

use std::time::Duration;

use fieldbridge::command::decide::{
    age_at_receipt, check_message_id, on_delivery, on_left_behind, past, until_nothing_is_left, Attempt, Checked,
    Execution, Known, Looks, Past, ReadBack, Route, Settle, Step, Verdict, RESOLVE_PATIENCE, TAKE_UP_PATIENCE,
};
use fieldbridge::command::outcome::{Code, Fault, Outcome, State};
use fieldbridge::command::Envelope;
use fieldbridge::time::{Timestamp, EARLIEST_BELIEVABLE};
use serde_json::json;

const SETTLES: [Settle; 2] = [Settle::AfterExecution, Settle::AfterAccept];

fn fault(code: Code) -> Fault {
    Fault::new(code, "because")
}

const PASTS: [Past; 3] = [Past::Known, Past::Unknown, Past::Elsewhere];
const REPEATABLE: Checked = Checked { idempotent: true };
const ONCE: Checked = Checked { idempotent: false };

#[test]
fn a_final_row_is_settled_as_it_says_and_never_run_again() {
    for state in State::ALL.into_iter().filter(|state| state.is_final()) {
        // The sender's feedback says Rejected of what was not done and will not be, however often it is told.
        let expected = match state {
            State::Rejected | State::Expired => Verdict::Refuse,
            _ => Verdict::Complete,
        };
        for settle in SETTLES {
            for past in PASTS {
                for order in [Ok(REPEATABLE), Ok(ONCE), Err(fault(Code::UnknownCommand))] {
                    assert_eq!(on_delivery(Known::Row(state), past, order, settle), expected, "{state}");
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
fn an_enqueued_time_ends_distrust_for_one_message_only_where_a_ledger_is_distrusted_and_has_an_epoch() {
    let base = EARLIEST_BELIEVABLE.plus(Duration::from_secs(86_400));
    let at = |seconds: i64| Timestamp(base.0 + seconds * 1000);
    let times = [-86_400, -301, -300, -1, 0, 1, 299, 300, 301, 86_400];
    let enqueued: Vec<Option<Timestamp>> = times.iter().map(|time| Some(at(*time))).chain([None]).collect();
    let epochs = [None, Some(at(0)), Some(at(-300)), Some(at(300))];
    for distrusted in [false, true] {
        for enqueued in &enqueued {
            for epoch in epochs {
                let is_young = matches!((enqueued, epoch), (Some(then), Some(epoch)) if then.0 - epoch.0 > 300_000);
                let expected = if distrusted && !is_young { Past::Unknown } else { Past::Known };
                assert_eq!(past(distrusted, *enqueued, epoch, false), expected, "{enqueued:?} {epoch:?}");
                // That a hub took it lately says nothing of what the same hub's other name has brought.
                assert_eq!(past(distrusted, *enqueued, epoch, true), Past::Elsewhere);
                for settle in SETTLES {
                    let verdict = on_delivery(Known::New, expected, Ok(ONCE), settle);
                    let is_begun = matches!(verdict, Verdict::Run | Verdict::Accept);
                    assert_eq!(is_begun, !distrusted || is_young, "{enqueued:?} {epoch:?}: {verdict:?}");
                }
            }
        }
    }
}

#[test]
fn a_message_that_was_given_back_by_an_earlier_life_is_as_old_as_this_life_or_as_its_stay_at_the_hub() {
    let now = EARLIEST_BELIEVABLE.plus(Duration::from_secs(86_400));
    let seconds = Duration::from_secs;
    for count in [None, Some(0), Some(1), Some(u32::MAX)] {
        for stay in [None, Some(-10), Some(0), Some(1), Some(29), Some(30), Some(86_400)] {
            for life in [0, 10, 30, 100_000].map(seconds) {
                let enqueued_at = stay.map(|stay: i64| Timestamp(now.0 - stay * 1000));
                let envelope = Envelope { enqueued_at, delivery_count: count, ..Envelope::default() };
                let expected = match (count, stay) {
                    (Some(1..), Some(stay @ 0..)) => seconds(stay as u64).min(life),
                    // Never delivered, or not told, or a hub whose clock is ahead: it came now.
                    _ => Duration::ZERO,
                };
                assert_eq!(age_at_receipt(&envelope, now, life), expected, "{count:?} {stay:?} {life:?}");
            }
        }
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
            let route = route(idempotent, verify, 3);
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
    assert_eq!(check_message_id(None, true), Ok(()));
    assert_eq!(check_message_id(Some("m"), false), Ok(()));
    assert_eq!(check_message_id(None, false).unwrap_err().code, Code::NoMessageId);
}

const PAUSE: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_secs(5);

/// How effects are looked for, if at all.
fn looked_for(verify: bool) -> Option<Looks> {
    verify.then_some(Looks { after: Duration::ZERO, within: WITHIN })
}

fn route(idempotent: bool, verify: bool, attempts_max: u32) -> Route {
    Route { idempotent, verify: looked_for(verify), attempts_max, retry_pause: PAUSE }
}

/// Every kind of route.
fn routes(attempts_max: u32) -> Vec<Route> {
    let kinds = [(false, false), (false, true), (true, false), (true, true)];
    kinds.into_iter().map(|(idempotent, verify)| route(idempotent, verify, attempts_max)).collect()
}

fn busy(certain: bool) -> Attempt {
    Attempt::Busy { fault: fault(Code::Exception), certain }
}

fn not_sent() -> Attempt {
    Attempt::NotSent(fault(Code::BusUnavailable))
}

/// Everything the wire can say to one attempt.
fn attempts() -> Vec<Attempt> {
    let confirmed = [Attempt::Confirmed(Some(json!(1))), Attempt::Shown(Some(json!(1)))];
    let refused = [Attempt::Refused(fault(Code::Exception)), Attempt::Unconfirmed(fault(Code::Exception))];
    let undone = [busy(true), busy(false), not_sent(), Attempt::NoPath(fault(Code::BusUnavailable))];
    let unclear = [Code::Timeout, Code::BadReply].map(|code| Attempt::Unclear(fault(code)));
    [&confirmed[..], &refused, &undone, &unclear].concat()
}

fn read_backs() -> Vec<ReadBack> {
    vec![ReadBack::Same, ReadBack::Other("other".into()), ReadBack::Unknown(fault(Code::BusUnavailable))]
}

/// What was done and said, in order.
#[derive(Debug, Clone, PartialEq)]
enum Mark {
    Step(Step),
    Attempt(Attempt),
}

/// Follows every possible course of an execution and calls `seen` with each complete trace and its outcome.
fn walk(execution: &Execution, step: Step, trace: &mut Vec<Mark>, seen: &mut impl FnMut(&[Mark], &Outcome)) {
    assert!(trace.len() < 200, "no end: {trace:?}");
    trace.push(Mark::Step(step.clone()));
    match step {
        Step::Finish(outcome) => seen(trace, &outcome),
        Step::RecordExecuting => {
            let mut next = execution.clone();
            let step = next.recorded();
            walk(&next, step, trace, seen);
        }
        Step::AgainAfter(pause) => {
            assert_eq!(pause, PAUSE);
            let mut next = execution.clone();
            let step = next.again();
            walk(&next, step, trace, seen);
        }
        Step::Send => {
            for attempt in attempts() {
                trace.push(Mark::Attempt(attempt.clone()));
                let mut next = execution.clone();
                let step = next.attempted(attempt);
                walk(&next, step, trace, seen);
                trace.pop();
            }
        }
        Step::ReadBack | Step::ReadBackAfter(_) => {
            for result in read_backs() {
                // The patience with it is over at some time; one course is enough.
                let elapsed = if matches!(step, Step::ReadBackAfter(_)) { RESOLVE_PATIENCE } else { Duration::ZERO };
                let mut next = execution.clone();
                let step = next.read_back(result, Some(json!(1)), elapsed);
                walk(&next, step, trace, seen);
            }
        }
    }
    trace.pop();
}

fn every_course(route: Route, interrupted: bool) -> Vec<(Vec<Mark>, Outcome)> {
    let mut execution = if interrupted { Execution::interrupted(route, 1) } else { Execution::new(route) };
    let first = execution.begin();
    let mut all = Vec::new();
    walk(&execution, first, &mut Vec::new(), &mut |trace, outcome| {
        all.push((trace.to_vec(), outcome.clone()));
    });
    all
}

fn sends(trace: &[Mark]) -> usize {
    trace.iter().filter(|mark| **mark == Mark::Step(Step::Send)).count()
}

/// What the wire said, attempt by attempt.
fn told(trace: &[Mark]) -> impl DoubleEndedIterator<Item = &Attempt> {
    trace.iter().filter_map(|mark| match mark {
        Mark::Attempt(attempt) => Some(attempt),
        Mark::Step(_) => None,
    })
}

fn said(trace: &[Mark], attempt: &Attempt) -> usize {
    told(trace).filter(|told| *told == attempt).count()
}

#[test]
fn a_non_idempotent_command_is_sent_once_and_once_more_for_each_attempt_that_was_not_begun_after_its_record() {
    for verify in [false, true] {
        for attempts_max in [1, 3, 5] {
            let route = route(false, verify, attempts_max);
            for (trace, _) in every_course(route, false) {
                assert_eq!(trace[0], Mark::Step(Step::RecordExecuting), "{trace:?}");
                assert!(sends(&trace) <= 1 + said(&trace, &busy(true)) + said(&trace, &not_sent()), "{trace:?}");
                assert!(sends(&trace) <= attempts_max as usize, "{trace:?}");
                for (before, mark) in trace.iter().zip(&trace[1..]) {
                    let is_send = *mark == Mark::Step(Step::Send);
                    assert!(!is_send || *before == Mark::Step(Step::RecordExecuting), "not recorded: {trace:?}");
                }
                for at in (1..trace.len()).filter(|at| trace[*at] == Mark::Step(Step::RecordExecuting)) {
                    let before = told(&trace[..at]).next_back();
                    assert!([busy(true), not_sent()].iter().any(|told| before == Some(told)), "{trace:?}");
                }
            }
            // Whatever the configuration calls it by now.
            let renamed = Route { idempotent: true, ..route };
            for (trace, outcome) in every_course(route, true).into_iter().chain(every_course(renamed, true)) {
                assert_eq!(sends(&trace), 0, "an interrupted command went on the wire again: {trace:?}");
                assert!(outcome.state == State::Succeeded || outcome.fault.unwrap().code == Code::Interrupted);
            }
        }
    }
}

#[test]
fn an_idempotent_command_is_tried_until_its_attempts_are_used_up() {
    for verify in [false, true] {
        let courses = every_course(route(true, verify, 3), false);
        assert!(courses.iter().all(|(trace, _)| (1..=3).contains(&sends(trace))));
        for (trace, outcome) in &courses {
            let code = outcome.fault.as_ref().map(|fault| fault.code);
            if matches!(code, Some(Code::Timeout | Code::BadReply | Code::BusUnavailable | Code::VerifyMismatch)) {
                assert_eq!(sends(trace), 3, "given up early: {trace:?}");
            }
            if told(trace).next_back() == Some(&Attempt::Refused(fault(Code::Exception))) {
                assert_eq!((outcome.state, code), (State::Failed, Some(Code::Exception)), "a refusal is an outcome");
            }
        }
    }
}

#[test]
fn what_was_not_sent_at_last_may_have_been_done_before() {
    let mut execution = Execution::new(route(true, false, 2));
    assert_eq!(execution.begin(), Step::Send);
    assert_eq!(execution.attempted(Attempt::Unclear(fault(Code::Timeout))), Step::AgainAfter(PAUSE));
    assert_eq!(execution.again(), Step::Send);
    let step = execution.attempted(not_sent());
    assert_eq!(step, Step::Finish(Outcome::ended(State::Failed, fault(Code::Timeout))));
}

#[test]
fn no_course_ends_in_a_state_that_says_more_than_is_known() {
    for route in routes(2) {
        for interrupted in [false, true] {
            for (trace, outcome) in every_course(route, interrupted) {
                assert!(outcome.state.is_final());
                assert_eq!(outcome.state == State::Succeeded, outcome.fault.is_none(), "{trace:?}");
                let is_known = route.idempotent && !interrupted;
                assert!(!is_known || outcome.state != State::InDoubt, "an idempotent command is never in doubt");
                let code = outcome.fault.map(|fault| fault.code);
                if outcome.state == State::InDoubt {
                    let unclear = [Code::Timeout, Code::BadReply, Code::Exception, Code::Interrupted];
                    assert!(unclear.contains(&code.unwrap()), "{code:?}");
                }
                // What nobody knows is not told as a definite failure.
                let unclear = told(&trace).any(|told| matches!(told, Attempt::Unclear(_) | Attempt::Unconfirmed(_)));
                if !route.idempotent && (unclear || interrupted) {
                    assert!(matches!(outcome.state, State::Succeeded | State::InDoubt), "{trace:?}");
                }
                // Nor is what may have reached a peripheral told as not sent.
                let reached =
                    unclear || told(&trace).any(|told| matches!(told, Attempt::Confirmed(_) | Attempt::Shown(_)));
                assert!(code != Some(Code::BusUnavailable) || !reached, "{trace:?}");
                if code == Some(Code::VerifyMismatch) {
                    let last = told(&trace).rfind(|told| !matches!(told, Attempt::NotSent(_) | Attempt::NoPath(_)));
                    assert!(matches!(last, Some(Attempt::Confirmed(_))), "{trace:?}");
                }
            }
        }
    }
}

/// How a command ends of which the wire says this to every attempt, and the read-back that to every look.
fn end(route: Route, attempt: &Attempt, read: Option<&ReadBack>) -> (State, Option<Code>, u32) {
    let mut execution = Execution::new(route);
    let mut step = execution.begin();
    let mut elapsed = Duration::ZERO;
    loop {
        step = match step {
            Step::RecordExecuting => execution.recorded(),
            Step::AgainAfter(_) => execution.again(),
            Step::Send => {
                elapsed = Duration::ZERO;
                execution.attempted(attempt.clone())
            }
            Step::ReadBackAfter(pause) => {
                elapsed += pause;
                Step::ReadBack
            }
            Step::ReadBack => {
                let read = read.expect("it is read back").clone();
                execution.read_back(read, Some(json!(7)), elapsed)
            }
            Step::Finish(outcome) => {
                return (outcome.state, outcome.fault.map(|fault| fault.code), execution.attempts());
            }
        };
    }
}

/// The table "What an exchange leads to", row by row.
#[test]
fn the_contracts_table_holds() {
    use Attempt::{Confirmed, NoPath, Refused, Unclear, Unconfirmed};
    use State::{Failed, InDoubt, Succeeded};
    const MAX: u32 = 3;
    let same = ReadBack::Same;
    let other = ReadBack::Other("8".into());
    let unread = ReadBack::Unknown(fault(Code::Timeout));
    for route in routes(MAX) {
        let Route { idempotent, verify, .. } = route;
        // How what is unclear ends, and after how many attempts.
        let (unclear, all) = if idempotent { (Failed, MAX) } else { (InDoubt, 1) };
        for code in [Code::Exception, Code::Refused] {
            assert_eq!(end(route, &Refused(fault(code)), None), (Failed, Some(code), 1));
        }
        assert_eq!(end(route, &busy(true), None), (Failed, Some(Code::Exception), MAX));
        assert_eq!(end(route, &busy(false), None), (Failed, Some(Code::Exception), all));
        assert_eq!(end(route, &not_sent(), None), (Failed, Some(Code::BusUnavailable), MAX));
        let no_path = NoPath(fault(Code::BusUnavailable));
        assert_eq!(end(route, &no_path, None), (Failed, Some(Code::BusUnavailable), all));
        if verify.is_none() {
            assert_eq!(end(route, &Confirmed(None), None), (Succeeded, None, 1));
            assert_eq!(end(route, &Unconfirmed(fault(Code::Exception)), None), (unclear, Some(Code::Exception), 1));
            for code in [Code::Timeout, Code::BadReply] {
                assert_eq!(end(route, &Unclear(fault(code)), None), (unclear, Some(code), all));
            }
            continue;
        }
        assert_eq!(end(route, &Confirmed(None), Some(&same)), (Succeeded, None, 1));
        assert_eq!(end(route, &Confirmed(None), Some(&other)), (Failed, Some(Code::VerifyMismatch), all));
        assert_eq!(end(route, &Confirmed(None), Some(&unread)), (unclear, Some(Code::Timeout), all));
        for (attempt, code) in [
            (Unclear(fault(Code::Timeout)), Code::Timeout),
            (Unclear(fault(Code::BadReply)), Code::BadReply),
            (Unconfirmed(fault(Code::Exception)), Code::Exception),
        ] {
            assert_eq!(end(route, &attempt, Some(&same)), (Succeeded, None, 1));
            assert_eq!(end(route, &attempt, Some(&other)), (unclear, Some(code), all));
            assert_eq!(end(route, &attempt, Some(&unread)), (unclear, Some(code), all));
        }
    }
    for verify in [false, true] {
        // The daemon died meanwhile.
        let mut execution = Execution::interrupted(route(false, verify, MAX), 1);
        let mut step = execution.begin();
        if verify {
            assert_eq!(step, Step::ReadBack);
            step = execution.read_back(other.clone(), Some(json!(7)), WITHIN);
        }
        let Step::Finish(outcome) = step else { panic!("{step:?}") };
        assert_eq!((outcome.state, outcome.fault.unwrap().code), (InDoubt, Code::Interrupted));
    }
}

#[test]
fn a_confirmed_write_is_looked_for_again_and_again_until_its_time_is_up_and_the_bus_is_free_meanwhile() {
    let looks = Looks { after: Duration::from_millis(300), within: Duration::from_secs(5) };
    let mut execution = Execution::new(Route { verify: Some(looks), ..route(false, true, 3) });
    assert_eq!(execution.begin(), Step::RecordExecuting);
    assert_eq!(execution.recorded(), Step::Send);
    let mut step = execution.attempted(Attempt::Confirmed(Some(json!(7))));
    assert_eq!(step, Step::ReadBackAfter(looks.after));
    let (mut elapsed, mut looked) = (Duration::ZERO, 0);
    while let Step::ReadBackAfter(pause) = step {
        assert!(pause <= Duration::from_secs(1));
        elapsed += pause;
        looked += 1;
        step = execution.read_back(ReadBack::Other("8".into()), Some(json!(7)), elapsed);
    }
    assert_eq!(elapsed, looks.within, "the last look is made when time is up");
    assert!((5..15).contains(&looked), "{looked}");
    assert!(matches!(step, Step::Finish(Outcome { state: State::Failed, .. })), "{step:?}");

    let mut execution = Execution::new(route(true, true, 1));
    assert_eq!(execution.begin(), Step::Send);
    assert_eq!(execution.attempted(Attempt::Confirmed(Some(json!(7)))), Step::ReadBack, "at once, in its turn");
    let later = execution.read_back(ReadBack::Other("8".into()), Some(json!(7)), Duration::ZERO);
    assert!(matches!(later, Step::ReadBackAfter(_)), "{later:?}");
    let step = execution.read_back(ReadBack::Same, Some(json!(7)), Duration::from_millis(800));
    assert_eq!(step, Step::Finish(Outcome::succeeded(Some(json!(7)))));
}

#[test]
fn looking_ends_even_if_no_time_passes() {
    for interrupted in [false, true] {
        for result in [ReadBack::Other("8".into()), ReadBack::Unknown(fault(Code::Timeout))] {
            let mut execution = match interrupted {
                true => Execution::interrupted(route(false, true, 3), 1),
                false => Execution::new(route(false, true, 3)),
            };
            let mut step = execution.begin();
            if !interrupted {
                execution.recorded();
                step = execution.attempted(Attempt::Confirmed(None));
            }
            let mut looked = 0;
            while !matches!(step, Step::Finish(_)) {
                looked += 1;
                assert!(looked <= 1000);
                step = execution.read_back(result.clone(), None, Duration::ZERO);
            }
        }
    }
}

#[test]
fn a_command_of_which_nothing_was_begun_can_be_given_up_as_failed_and_no_other() {
    for (attempt, code) in [(busy(true), Code::Exception), (not_sent(), Code::BusUnavailable)] {
        let mut execution = Execution::new(route(false, false, 3));
        execution.begin();
        execution.recorded();
        assert_eq!(execution.given_up(), None);
        assert_eq!(execution.attempted(attempt), Step::AgainAfter(PAUSE));
        assert_eq!(execution.given_up(), Some(Outcome::ended(State::Failed, fault(code))));
        assert_eq!(execution.again(), Step::RecordExecuting);
        execution.recorded();
        assert_eq!(execution.given_up(), None, "it is under way again");
        assert_eq!(execution.attempts(), 2);
    }
}

#[test]
fn a_value_resolved_by_reading_back_is_the_value_that_was_written() {
    let mut execution = Execution::interrupted(route(false, true, 3), 1);
    assert_eq!(execution.begin(), Step::ReadBack);
    let step = execution.read_back(ReadBack::Same, Some(json!(42.5)), Duration::ZERO);
    assert_eq!(step, Step::Finish(Outcome::succeeded(Some(json!(42.5)))));
}

#[test]
fn an_interrupted_command_that_is_not_found_at_once_may_be_on_its_way_still() {
    for within in [Duration::ZERO, WITHIN] {
        let looks = Some(Looks { after: Duration::ZERO, within });
        let mut execution = Execution::interrupted(Route { verify: looks, ..route(false, true, 3) }, 1);
        assert_eq!(execution.begin(), Step::ReadBack);
        let other = || ReadBack::Other("8".into());
        let patience = within.max(TAKE_UP_PATIENCE);
        let soon = execution.read_back(other(), Some(json!(1)), patience - Duration::from_millis(1));
        assert!(matches!(soon, Step::ReadBackAfter(_)), "{soon:?}");
        let Step::Finish(outcome) = execution.read_back(other(), Some(json!(1)), patience) else {
            panic!("it is still looked for");
        };
        let fault = outcome.fault.unwrap();
        assert_eq!((outcome.state, fault.code), (State::InDoubt, Code::Interrupted));
        assert!(fault.message.contains('8'), "{}", fault.message);
    }
}
