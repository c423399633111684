//! The demo's books: what was sent, and what must have come of it, counted at the hub and on the peripherals and
//! never in the daemon.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::stage::Stage;

/// What a message must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A read: no effect.
    Read,
    /// Must take effect, more than once does no harm.
    Idempotent,
    /// Must take effect once, or be reported as not done or in doubt.
    Once,
    /// Can't be executed: no effect.
    Invalid,
}

/// One message that was sent.
struct Entry {
    id: String,
    /// The line that a peripheral records when it takes effect.
    effect: Option<String>,
    kind: Kind,
    /// How often it was sent: with the same id.
    sent: usize,
    /// It was called as a direct method, which settles nothing.
    is_call: bool,
}

/// All messages that were sent.
#[derive(Default)]
pub struct Tally {
    entries: Vec<Entry>,
}

/// The counts at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    sent: usize,
    settled: usize,
    called: usize,
    executed: usize,
    refused: usize,
    duplicates: usize,
    in_doubt: usize,
    lost: usize,
    repeated: usize,
    false_success: usize,
    /// Effects on peripherals that no message asked for.
    unexplained: usize,
}

impl Tally {
    /// Books a message that was sent. A second time with the same id is a duplicate.
    pub fn sent(&mut self, id: &str, kind: Kind, effect: Option<String>) {
        match self.entries.iter_mut().find(|entry| entry.id == id) {
            Some(entry) => entry.sent += 1,
            None => self.entries.push(Entry { id: id.to_owned(), effect, kind, sent: 1, is_call: false }),
        }
    }

    /// Books a direct method that was called, and answered. A second time with the same id is a duplicate.
    #[cfg(feature = "backend")]
    pub fn called(&mut self, id: &str, kind: Kind, effect: Option<String>) {
        self.sent(id, kind, effect);
        self.entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.is_call = true);
    }

    /// Counts.
    pub fn count(&self, stage: &Stage) -> Counts {
        let effects = stage.effects();
        let mut counts = Counts { unexplained: effects.len(), ..Counts::default() };
        for entry in &self.entries {
            let status = stage.events(&entry.id).first().map(|event| event["status"].clone()).unwrap_or(Json::Null);
            let settlements = stage.settlements(&entry.id);
            let done = entry.effect.as_ref().map_or(0, |effect| effects.iter().filter(|line| *line == effect).count());
            let to_settle = if entry.is_call { 0 } else { entry.sent };
            counts.called += entry.sent - to_settle;
            counts.sent += to_settle;
            counts.settled += settlements;
            counts.duplicates += entry.sent.saturating_sub(done.max(1));
            counts.unexplained -= done;
            counts.in_doubt += usize::from(status == "in_doubt");
            let ran = if entry.kind == Kind::Read { usize::from(status == "succeeded") } else { done };
            counts.executed += ran;
            counts.refused += usize::from(status == "failed" || status == "rejected" || status == "expired");
            let reported_otherwise = status != "succeeded" && !status.is_null();
            counts.lost += usize::from(settlements < to_settle || (ran == 0 && !reported_otherwise));
            counts.repeated += if entry.kind == Kind::Once { done.saturating_sub(1) } else { 0 };
            counts.false_success += usize::from(status == "succeeded" && ran == 0);
        }
        counts
    }
}

impl Counts {
    /// What is wrong with the counts, if anything.
    pub fn verdict(&self) -> Result<(), String> {
        let mut wrong = String::new();
        for (what, count) in [
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("falsely reported", self.false_success),
            ("done without being asked for", self.unexplained),
        ] {
            if count > 0 {
                let _ = write!(wrong, "{count} {what}; ");
            }
        }
        if self.sent != self.settled {
            let _ = write!(wrong, "{} sent, {} settled; ", self.sent, self.settled);
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("the counts are wrong: {wrong}"))
        }
    }

    /// The table at the end.
    pub fn table(&self) -> String {
        let rows = [
            ("messages sent by the back end", self.sent, ""),
            ("completed or rejected", self.settled, "counted in the hub's feedback"),
            ("calls answered", self.called, ""),
            ("executed", self.executed, "counted on the peripherals (reads: by their result)"),
            ("duplicates suppressed", self.duplicates, "completed or answered again, not executed again"),
            ("refused, with a reason", self.refused, "bad value, refusal of the peripheral"),
            ("in doubt, and said so", self.in_doubt, "the daemon was killed in the middle"),
            ("lost", self.lost, ""),
            ("repeated", self.repeated, ""),
        ];
        let mut table = String::new();
        for (what, count, how) in rows {
            let _ = writeln!(table, "  {what:32} {count:>4}   {how}");
        }
        table
    }
}
