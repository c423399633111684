//! What the end of one request means for a command of which it is a part: behind a read that a write is made of, and
//! among several writes in a row.

use super::Attempt;
use crate::command::outcome::Fault;

impl Attempt {
    /// The end of a write of which only the read before it has ended so: nothing of it was begun, whatever became of
    /// the read.
    pub fn before_a_write(self) -> Attempt {
        const NOTHING: &str = "nothing was written, as what stands there could not be read";
        let told = |fault: Fault| Fault { message: format!("{NOTHING}: {}", fault.message), ..fault };
        match self {
            Attempt::Refused(fault) => Attempt::Refused(told(fault)),
            Attempt::NoPath(fault) => Attempt::NoPath(told(fault)),
            Attempt::NotSent(fault) => Attempt::NotSent(fault),
            Attempt::Busy { fault, .. } | Attempt::Unclear(fault) | Attempt::Unconfirmed(fault) => {
                Attempt::NotSent(told(fault))
            }
            other => other,
        }
    }

    /// The end of `of` writes in a row that the one with this number, from 1, came to: those before it are done, and
    /// those behind it are not sent. `shows`: whether it can be read back.
    pub fn at_step(self, at: usize, of: usize, shows: bool) -> Attempt {
        if of == 1 {
            return self;
        }
        let told = |fault: Fault| Fault { message: sentence(&fault.message, at, of), ..fault };
        match self {
            Attempt::Refused(fault) if at == 1 => Attempt::Refused(told(fault)),
            Attempt::NotSent(fault) if at == 1 => Attempt::NotSent(told(fault)),
            Attempt::NoPath(fault) if at == 1 => Attempt::NoPath(told(fault)),
            Attempt::Busy { fault, certain } if at == 1 => Attempt::Busy { fault: told(fault), certain },
            Attempt::Refused(fault) => Attempt::Broken { fault: told(fault), may_repeat: false },
            Attempt::NotSent(fault) | Attempt::NoPath(fault) | Attempt::Busy { fault, .. } => {
                Attempt::Broken { fault: told(fault), may_repeat: true }
            }
            // Of what is read back nothing may be missing.
            Attempt::Unclear(fault) if at == of && shows => Attempt::Unclear(told(fault)),
            Attempt::Unconfirmed(fault) if at == of && shows => Attempt::Unconfirmed(told(fault)),
            Attempt::Unclear(fault) => Attempt::Lost { fault: told(fault), may_repeat: true },
            Attempt::Unconfirmed(fault) => Attempt::Lost { fault: told(fault), may_repeat: false },
            whole @ (Attempt::Confirmed(_)
            | Attempt::Shown(_)
            | Attempt::Broadcast(_)
            | Attempt::Broken { .. }
            | Attempt::Lost { .. }) => whole,
        }
    }
}

/// What is said of a step, and of those before and behind it.
fn sentence(message: &str, at: usize, of: usize) -> String {
    let before = match at {
        1 => String::new(),
        2 => "; step 1 was done".into(),
        _ => format!("; steps 1 to {} were done", at - 1),
    };
    let behind = match of - at {
        0 => String::new(),
        1 => format!("; step {of} was not sent"),
        _ => format!("; steps {} to {of} were not sent", at + 1),
    };
    format!("step {at} of {of}: {message}{before}{behind}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Execution, Looks, Route, Step};
    use super::*;
    use crate::command::outcome::{Code, Outcome, State};

    fn fault() -> Fault {
        Fault::new(Code::Timeout, "no answer")
    }

    fn attempts() -> Vec<Attempt> {
        vec![
            Attempt::Refused(fault()),
            Attempt::NotSent(fault()),
            Attempt::NoPath(fault()),
            Attempt::Busy { fault: fault(), certain: true },
            Attempt::Unclear(fault()),
            Attempt::Unconfirmed(fault()),
        ]
    }

    fn route(idempotent: bool, is_read_back: bool) -> Route {
        let looks = Looks { after: Duration::ZERO, within: Duration::ZERO };
        let verify = is_read_back.then_some(looks);
        Route { idempotent, verify, attempts_max: 2, retry_pause: Duration::ZERO }
    }

    /// What follows from the first attempt at a command, and the execution.
    fn after(attempt: Attempt, route: Route) -> (Step, Execution) {
        let mut execution = Execution::new(route);
        if execution.begin() == Step::RecordExecuting {
            execution.recorded();
        }
        (execution.attempted(attempt), execution)
    }

    #[test]
    fn what_fails_before_a_write_is_begun_is_never_in_doubt() {
        for attempt in attempts() {
            let before = attempt.clone().before_a_write();
            let (step, _) = after(before.clone(), route(false, true));
            match (attempt, step) {
                (Attempt::Refused(_) | Attempt::NoPath(_), Step::Finish(outcome)) => {
                    assert_eq!(outcome.state, State::Failed);
                    assert!(outcome.fault.unwrap().message.starts_with("nothing was written"));
                }
                (_, Step::AgainAfter(_)) => assert!(matches!(before, Attempt::NotSent(_))),
                (attempt, step) => panic!("{attempt:?}: {step:?}"),
            }
        }
    }

    #[test]
    fn a_single_write_ends_as_it_ends() {
        for attempt in attempts() {
            assert_eq!(attempt.clone().at_step(1, 1, true), attempt);
        }
    }

    #[test]
    fn a_step_that_is_not_done_behind_one_that_is_ends_what_must_not_be_repeated_as_failed_and_says_both() {
        for (attempt, at) in attempts().into_iter().flat_map(|attempt| [(attempt.clone(), 2), (attempt, 3)]) {
            let is_definite = !matches!(attempt, Attempt::Unclear(_) | Attempt::Unconfirmed(_));
            let (step, execution) = after(attempt.clone().at_step(at, 3, false), route(false, true));
            let Step::Finish(outcome) = step else { panic!("{attempt:?} at {at}: {step:?}") };
            let told = outcome.fault.unwrap().message;
            let state = if is_definite { State::Failed } else { State::InDoubt };
            assert_eq!((outcome.state, execution.attempts()), (state, 1), "{attempt:?} at {at}");
            assert!(told.starts_with(&format!("step {at} of 3: no answer; step")), "{told}");
            assert_eq!(told.contains("step 3 was not sent"), at == 2, "{told}");
        }
    }

    #[test]
    fn the_first_step_ends_the_whole_as_a_single_write_would_unless_it_is_unclear() {
        let (step, _) = after(Attempt::NotSent(fault()).at_step(1, 2, true), route(false, true));
        assert_eq!(step, Step::AgainAfter(Duration::ZERO));
        // That the second one shows nothing is no wonder: it was not sent.
        let (step, _) = after(Attempt::Unclear(fault()).at_step(1, 2, true), route(false, true));
        let Step::Finish(Outcome { state: State::InDoubt, fault: Some(fault), .. }) = step else { panic!("{step:?}") };
        assert_eq!(fault.message, "step 1 of 2: no answer; step 2 was not sent");
    }

    #[test]
    fn an_unclear_last_step_is_read_back_if_it_can_be() {
        for shows in [true, false] {
            let (step, _) = after(Attempt::Unclear(fault()).at_step(3, 3, shows), route(false, true));
            match step {
                Step::ReadBackAfter(_) => assert!(shows),
                Step::Finish(outcome) => assert!(!shows && outcome.state == State::InDoubt),
                step => panic!("{step:?}"),
            }
        }
    }

    #[test]
    fn what_may_be_repeated_begins_anew_with_its_first_step_unless_the_peripheral_refused_or_is_at_it() {
        for attempt in attempts() {
            let (step, mut execution) = after(attempt.clone().at_step(2, 3, false), route(true, false));
            match attempt {
                Attempt::Refused(_) | Attempt::Unconfirmed(_) => {
                    assert!(
                        matches!(step, Step::Finish(Outcome { state: State::Failed, .. })),
                        "{attempt:?}: {step:?}"
                    );
                }
                _ => {
                    assert_eq!(step, Step::AgainAfter(Duration::ZERO), "{attempt:?}");
                    // What keeps it from that does not undo what was done.
                    let barred = Outcome::ended(State::Rejected, Fault::new(Code::LockedOut, "locked"));
                    let end = execution.cut_short(barred);
                    assert_eq!(end.state, State::Failed);
                    assert!(end.fault.unwrap().message.contains("step 1 was done"));
                    assert_eq!(execution.again(), Step::Send);
                    assert!(matches!(execution.attempted(Attempt::Confirmed(None)), Step::Finish(_)));
                }
            }
        }
    }

    #[test]
    fn the_sentence_names_what_was_done_and_what_was_not_sent() {
        for (at, of, told) in [
            (1, 2, "step 1 of 2: no; step 2 was not sent"),
            (2, 2, "step 2 of 2: no; step 1 was done"),
            (2, 3, "step 2 of 3: no; step 1 was done; step 3 was not sent"),
            (3, 3, "step 3 of 3: no; steps 1 to 2 were done"),
            (1, 4, "step 1 of 4: no; steps 2 to 4 were not sent"),
        ] {
            assert_eq!(sentence("no", at, of), told);
        }
    }
}
