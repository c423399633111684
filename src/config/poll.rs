//! `[profile.NAME.poll.NAME]`

use std::collections::BTreeMap;
use std::time::Duration;

use super::profile::{beside, refuse_keys_of};
use super::text::template;
use super::tree::{Span, Table};
use super::{keys, point};
use crate::peripheral::{Action, Command, Poll, Report};

/// Faster is no telemetry, but a control loop.
const EVERY: Span = Span { min: Duration::from_millis(100), max: Duration::from_secs(24 * 3600), because: "" };
const MAX_SILENCE: Span = Span { min: Duration::from_secs(1), max: Duration::from_secs(30 * 86_400), because: "" };
/// How long nothing is told of what stands still, where nothing is said.
const DEFAULT_SILENCE: Duration = Duration::from_secs(3600);

/// The keys that say what is asked.
const ACTIONS: [&str; 3] = ["read", "send", "send_hex"];

/// What is told of what is read.
#[derive(Clone, Copy, PartialEq)]
enum What {
    All,
    Change,
}

/// The polls of a profile by name; those that something is wrong with are left out.
pub(super) fn polls(profile: &Table) -> BTreeMap<String, Poll> {
    let mut polls = BTreeMap::new();
    for (name, table) in profile.tables("poll", keys::POLL) {
        if let Err(why) = super::check_name(name) {
            table.wrong_here(why);
        }
        if let Some(poll) = poll(&table, name) {
            polls.insert(name.to_owned(), poll);
        }
    }
    polls
}

/// Looks at all of one poll, whatever is wrong with it.
fn poll(table: &Table, name: &str) -> Option<Poll> {
    let given: Vec<&str> = ACTIONS.into_iter().filter(|key| table.has(key)).collect();
    let action = match given.as_slice() {
        ["read"] => point::point(table, "read").map(Action::Read),
        [_] => template(table).map(Action::send),
        [] => {
            table.absent_here(("asks nothing", "give it one of read, send or send_hex"));
            None
        }
        [first, others @ ..] => {
            let why = (format!("stands beside {}", others.join(" and ")), "a poll asks one thing: make two of it");
            table.wrong(first, why);
            None
        }
    };
    if let [action] = given.as_slice() {
        refuse_keys_of(table, if *action == "read" { "read" } else { "send" }, "poll");
    }
    let command = beside(table, action, name);
    if !table.has("every") {
        table.absent("every", ("is missing", "say how often it is asked, such as every = \"10s\""));
    }
    let every = table.duration("every", &EVERY);
    let report = report(table, command.as_ref());
    let command = Command { idempotent: true, ..command? };
    if let Err(fault) = command.prepare(None) {
        let key = if table.has("send_hex") { "send_hex" } else { given.first()? };
        table.wrong(key, (format!("can't be asked without a value: {}", fault.message), "write what is sent in full"));
        return None;
    }
    Some(Poll { command, every: every?, report: report? })
}

fn report(table: &Table, command: Option<&Command>) -> Option<Report> {
    let what = match table.has("report") {
        true => table.choice("report", &[("always", What::All), ("change", What::Change)])?,
        false => What::All,
    };
    let deadband = table.number("deadband");
    let max_silence = table.duration("max_silence", &MAX_SILENCE);
    if deadband.is_some_and(|deadband| deadband < 0.0) {
        table.wrong("deadband", ("must not be negative", "it is how far a value may move, to either side"));
    }
    if table.has("deadband") && command.is_some_and(|command| !command.may_be_a_number()) {
        table.wrong("deadband", ("is for numbers, and this poll reads none", "remove it"));
    }
    if what == What::All {
        for key in ["deadband", "max_silence"].into_iter().filter(|key| table.has(key)) {
            table.wrong(key, ("says what a change is, and all is told here", "write report = \"change\" beside it"));
        }
        return Some(Report::Always);
    }
    let max_silence = if table.has("max_silence") { max_silence? } else { DEFAULT_SILENCE };
    Some(Report::Change { deadband: deadband.unwrap_or(0.0), max_silence })
}
