//! `[profile.NAME]` and its commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex_lite::Regex;

use super::bus::RESPONSE_TIMEOUT;
use super::tree::{Span, Table};
use super::{keys, point};
use crate::peripheral::registers::{DataType, Point};
use crate::peripheral::{Action, Command, Rule, Template};

/// What stands for the message's value in `send`.
const PLACEHOLDER: &str = "{value}";
/// Longer than any line that a peripheral reads at once.
const SEND_BYTES_MAX: usize = 4096;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
const DEADLINE: Span = Span { min: Duration::from_millis(100), max: Duration::from_secs(24 * 3600), because: "" };

const READ_BACK_AFTER: Span = Span { min: Duration::ZERO, max: Duration::from_secs(600), because: "" };
const READ_BACK_WITHIN: Span = Span { min: Duration::ZERO, max: Duration::from_secs(600), because: "" };

/// One profile, and which of its commands need which kind of bus.
pub(super) struct Profile {
    /// The path of its table.
    pub path: String,
    /// By name; those that something is wrong with are left out.
    pub commands: Arc<BTreeMap<String, Command>>,
    /// Commands that need a Modbus bus.
    pub registers: Vec<String>,
    /// Commands that need a serial line.
    pub sends: Vec<String>,
}

/// Every profile by name.
pub(super) fn profiles(root: &Table) -> BTreeMap<String, Profile> {
    let used = root.mentioned("device", "profile");
    let mut profiles = BTreeMap::new();
    for (name, table) in root.tables("profile", keys::PROFILE) {
        if let Err(why) = super::check_name(name) {
            table.wrong_here(why);
        }
        if used.as_ref().is_some_and(|used| !used.contains(name)) {
            table.note_here("no device has this profile; name it in a device, or remove it");
        }
        profiles.insert(name.to_owned(), profile(&table));
    }
    profiles
}

fn profile(table: &Table) -> Profile {
    let tables = table.tables("command", keys::COMMAND);
    if tables.is_empty() {
        table.note_here("has no commands, so a device with it can do nothing; add [profile.NAME.command.NAME]");
    }
    let mut commands = BTreeMap::new();
    let (mut registers, mut sends) = (Vec::new(), Vec::new());
    for (name, table) in tables {
        if let Err(why) = super::check_name(name) {
            table.wrong_here(why);
        }
        match action_key(&table) {
            Some("send") => sends.push(name.to_owned()),
            Some(_) => registers.push(name.to_owned()),
            None => {}
        }
        if let Some(command) = command(&table, name) {
            commands.insert(name.to_owned(), command);
        }
    }
    Profile { path: table.path_of().to_owned(), commands: Arc::new(commands), registers, sends }
}

/// The one key of a command that says what it does.
fn action_key(table: &Table) -> Option<&'static str> {
    let given: Vec<&str> = ["read", "write", "send"].into_iter().filter(|key| table.has(key)).collect();
    match given.as_slice() {
        [key] => Some(key),
        _ => None,
    }
}

fn command(table: &Table, name: &str) -> Option<Command> {
    refuse_keys_of_other_actions(table);
    let action = action(table);
    let range = range(table);
    let fixed = table.json("value");
    let timeout = table.duration("timeout", &RESPONSE_TIMEOUT);
    let deadline = table.duration("deadline", &DEADLINE);
    let read_back = match action.as_ref() {
        Some(Action::Write(point)) => read_back(table, point),
        _ => None,
    };
    let idempotent = idempotent(table);
    let command = Command {
        name: name.to_owned(),
        action: action?,
        // A command that doesn't say is refused below; the rest of it is still looked at.
        idempotent: idempotent.unwrap_or(false),
        read_back,
        fixed,
        range,
        timeout,
        deadline: deadline.unwrap_or(DEFAULT_DEADLINE),
    };
    match &command.action {
        Action::Read(_) => {}
        Action::Write(point) => check_written(table, point, range),
        Action::Send(template) => check_sent(table, template),
    }
    check_fixed(table, &command);
    if let Some(timeout) = timeout.filter(|timeout| command.deadline < *timeout) {
        table.warn("deadline", too_soon(command.deadline, "timeout", timeout));
    }
    idempotent.map(|_| command)
}

/// Reports a fixed value that every message would end in a refusal of: it is asked of what carries messages out.
fn check_fixed(table: &Table, command: &Command) {
    if command.fixed.is_none() || !["write", "send"].iter().any(|key| table.has(key)) {
        return;
    }
    if let Err(fault) = command.prepare(None) {
        let ways = if command.range.is_some() { "correct it, or range" } else { "correct it" };
        table.wrong("value", format!("can't be carried out: {}; {ways}", fault.message));
    }
}

/// What is said of a deadline that passes while one answer is waited for.
pub(super) fn too_soon(deadline: Duration, what: &str, timeout: Duration) -> String {
    let told = humantime::format_duration;
    format!(
        "{} is shorter than the {what}, {}: while one answer is waited for, the deadline of whatever waits behind it \
         passes; make it longer",
        told(deadline),
        told(timeout)
    )
}

fn action(table: &Table) -> Option<Action> {
    match action_key(table) {
        Some("read") => point::point(table, "read").map(Action::Read),
        Some("write") => point::point(table, "write").map(Action::Write),
        Some(_) => template(table).map(Action::Send),
        None => {
            let present = table.present();
            let given: Vec<&str> = present.into_iter().filter(|key| ["read", "write", "send"].contains(key)).collect();
            match given.as_slice() {
                [] => table.absent_here("does nothing; give it one of read, write or send"),
                [first, others @ ..] => {
                    let others = others.join(" and ");
                    let why = format!("stands beside {others}; a command does one thing: make two commands of it");
                    table.wrong(first, why);
                    // Each is still looked at: what is wrong with it stays wrong in a command of its own.
                    for key in given.iter().filter(|key| **key != "send") {
                        point::point(table, key);
                    }
                }
            }
            None
        }
    }
}

fn idempotent(table: &Table) -> Option<bool> {
    let given = table.boolean("idempotent");
    let action = action_key(table)?;
    if action == "read" {
        if given == Some(false) {
            let why = "a read changes nothing, so repeating it is always safe; remove this line";
            table.wrong("idempotent", why);
        }
        return Some(true);
    }
    if !table.has("idempotent") {
        table.absent(
            "idempotent",
            "is missing, and nobody can guess it; the person who knows the machine must say whether doing this twice \
             is the same as doing it once (true) or not (false)",
        );
    }
    given
}

/// Reports keys that mean nothing beside the command's action.
fn refuse_keys_of_other_actions(table: &Table) {
    let Some(action) = action_key(table) else {
        return;
    };
    for (key, owners) in [
        ("value", ["write", "send"].as_slice()),
        ("range", &["write", "send"]),
        ("verify", &["write"]),
        ("read_back", &["write"]),
        ("expect", &["send"]),
        ("refuse", &["send"]),
    ] {
        if table.has(key) && !owners.contains(&action) {
            let owners = owners.join(" or ");
            let why = format!("belongs to a {owners}, and this command is a {action}; remove it");
            table.wrong(key, why);
        }
    }
}

/// How a write is read back, by `read_back` or by `verify = true`.
fn read_back(table: &Table, write: &Point) -> Option<Rule> {
    let verify = table.boolean("verify");
    if !table.has("read_back") {
        return verify.filter(|verify| *verify).map(|_| Rule::exact(write));
    }
    if table.has("verify") {
        table.wrong("verify", "stands beside read_back, which says how to verify; remove it");
    }
    let section = table.table("read_back", keys::READ_BACK)?;
    let point = point::shown_at(&section, write);
    let after = section.duration("after", &READ_BACK_AFTER).unwrap_or(Duration::ZERO);
    let within = section.duration("within", &READ_BACK_WITHIN);
    let tolerance = section.number("tolerance").unwrap_or(0.0);
    if within.is_some_and(|within| within < after) {
        section.wrong("within", "is shorter than after, so that nothing is ever looked for; make it longer");
    }
    if tolerance < 0.0 {
        section.wrong("tolerance", "must not be negative; it is how far the value may be off, to either side");
    }
    if tolerance != 0.0 && matches!(write.kind, DataType::Bool | DataType::String) {
        section.wrong("tolerance", "is for numbers, and this command writes none; remove it");
    }
    Some(Rule { point: point?, after, within: within.unwrap_or(after + Rule::PATIENCE), tolerance })
}

fn range(table: &Table) -> Option<(f64, f64)> {
    let (low, high) = table.pair("range")?;
    if low > high {
        table.wrong("range", format!("its lower limit {low} is above its upper limit {high}; swap them"));
        return None;
    }
    Some((low, high))
}

fn template(table: &Table) -> Option<Template> {
    let send = table.text("send");
    if let Some(send) = send {
        if send.len() > SEND_BYTES_MAX {
            table.wrong("send", format!("is longer than {SEND_BYTES_MAX} bytes; shorten it"));
        }
        if let Some(other) = other_placeholder(send) {
            let why = format!("{other} is sent as it stands; only {PLACEHOLDER} is replaced");
            table.note("send", why);
        }
    }
    let expect = regex(table, "expect");
    let refuse = regex(table, "refuse");
    Some(Template { send: send?.to_owned(), expect, refuse })
}

fn regex(table: &Table, key: &str) -> Option<Regex> {
    let text = table.text(key)?;
    Regex::new(text).map_err(|error| table.wrong(key, format!("is no regular expression: {error}; correct it"))).ok()
}

/// A word in braces that looks like a placeholder and is none.
fn other_placeholder(send: &str) -> Option<&str> {
    let word = Regex::new(r"\{[A-Za-z_]+\}").ok()?;
    let mut words = word.find_iter(send).map(|found| found.as_str());
    words.find(|found| *found != PLACEHOLDER)
}

fn check_written(table: &Table, point: &Point, range: Option<(f64, f64)>) {
    let is_numeric = !matches!(point.kind, DataType::Bool | DataType::String);
    if table.has("range") && !is_numeric {
        table.wrong("range", "limits a number, and this command writes none; remove it");
    } else if let Some(Err(why)) = range.map(|range| point.check_range(range)) {
        table.wrong("range", why);
    }
}

fn check_sent(table: &Table, template: &Template) {
    let takes_value = template.send.contains(PLACEHOLDER);
    for key in ["value", "range"] {
        if table.has(key) && !takes_value {
            let why = format!("has no effect, because send holds no {PLACEHOLDER}; remove it");
            table.wrong(key, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_that_is_none_is_found() {
        for (send, found) in [
            ("SP {value}\r\n", None),
            ("SP {Value}\r\n", Some("{Value}")),
            ("{value} {setpoint}", Some("{setpoint}")),
            ("JSON {\"a\":1}", None),
            ("{}{", None),
            ("} {", None),
        ] {
            assert_eq!(other_placeholder(send), found, "{send}");
        }
    }
}
