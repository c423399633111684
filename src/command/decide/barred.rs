//! What becomes of a command that may not begin any more, by reason of something beside it.

use super::{Execution, Verdict};
use crate::command::outcome::{Fault, Outcome};

impl Verdict {
    /// The same while something bars the command, if it does: what would be begun is rejected. What may have been
    /// begun before is not told to be undone.
    pub fn unless_barred(self, why: impl FnOnce() -> Option<Fault>) -> Verdict {
        match self {
            Verdict::Accept | Verdict::Run => why().map_or(self, Verdict::Reject),
            Verdict::Complete | Verdict::Refuse | Verdict::Reject(_) | Verdict::Doubt(_) | Verdict::Resume => self,
        }
    }
}

impl Execution {
    /// There is no other attempt behind the one that was made: who was asked is away.
    pub fn make_no_more(&mut self) {
        self.route.attempts_max = self.attempts.max(1);
    }

    /// The end of a command that is not sent once more, for the reason that stands in this end.
    pub fn not_repeated(&self, end: Outcome) -> Outcome {
        let Some(Outcome { state, fault: Some(fault), .. }) = self.last.clone() else { return self.cut_short(end) };
        let why = end.fault.map(|fault| fault.message).unwrap_or_default();
        let message = format!("{}; it was not repeated: {why}", fault.message);
        Outcome::ended(state, Fault { message, ..fault })
    }

    /// The end of a command that is not sent any more, which would be this one if nothing of it had been sent before.
    pub fn cut_short(&self, end: Outcome) -> Outcome {
        let Some(fault) = self.doubt.clone() else { return end };
        let why = end.fault.map(|fault| fault.message).unwrap_or_default();
        let message = format!("{}; it was not repeated: {why}", fault.message);
        Outcome::ended(self.unclear_end(), Fault { message, ..fault })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::decide::{Attempt, Route, Step};
    use crate::command::outcome::{Code, State};

    fn fault() -> Fault {
        Fault::new(Code::LockedOut, "the pump is locked")
    }

    #[test]
    fn only_what_would_be_begun_is_rejected_for_a_lock() {
        for verdict in [Verdict::Accept, Verdict::Run] {
            assert_eq!(verdict.clone().unless_barred(|| Some(fault())), Verdict::Reject(fault()));
            assert_eq!(verdict.clone().unless_barred(|| None), verdict);
        }
        let doubt = Fault::new(Code::UnknownHistory, "who knows");
        for verdict in [Verdict::Complete, Verdict::Refuse, Verdict::Doubt(doubt), Verdict::Resume] {
            assert_eq!(verdict.clone().unless_barred(|| Some(fault())), verdict);
        }
    }

    #[test]
    fn a_command_of_which_something_was_sent_ends_as_its_last_attempt_has_and_not_as_if_nothing_was() {
        let end = || Outcome::ended(State::Rejected, fault());
        let pause = Duration::from_millis(100);
        let route = Route { idempotent: true, verify: None, attempts_max: 3, retry_pause: pause };
        let mut execution = Execution::new(route);
        assert_eq!(execution.begin(), Step::Send);
        assert_eq!(execution.cut_short(end()), end());
        let timeout = Fault::new(Code::Timeout, "no answer");
        assert_eq!(execution.attempted(Attempt::Unclear(timeout)), Step::AgainAfter(pause));
        let told = "no answer; it was not repeated: the pump is locked";
        let expected = Outcome::ended(State::Failed, Fault::new(Code::Timeout, told));
        assert_eq!(execution.cut_short(end()), expected);
    }
}
