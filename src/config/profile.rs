//! `[profile.NAME]` and its commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::bus::RESPONSE_TIMEOUT;
use super::text::{check_sent, template};
use super::tree::{Span, Table};
use super::{keys, message, point, poll, steps};
use crate::command::{twin, Form};
use crate::complaint::Complaint;
use crate::peripheral::registers::{self, DataType, Point, WORDS_WRITTEN_AND_READ_MAX};
use crate::peripheral::{Action, Command, Function, Names, Poll, Rule};

const DEADLINE: Span = Span { min: Duration::from_millis(100), max: Duration::from_secs(24 * 3600), because: "" };
const MIN_INTERVAL: Span = Span { min: Duration::ZERO, max: Duration::from_secs(24 * 3600), because: "" };

const READ_BACK_AFTER: Span = Span { min: Duration::ZERO, max: Duration::from_secs(600), because: "" };
const READ_BACK_WITHIN: Span = Span { min: Duration::ZERO, max: Duration::from_secs(600), because: "" };

/// One profile, and which of its commands need which kind of bus.
pub(super) struct Profile {
    /// The path of its table.
    pub path: String,
    /// By name; those that something is wrong with are left out.
    pub commands: Arc<BTreeMap<String, Command>>,
    /// The names of all, in order.
    pub names: Vec<String>,
    /// What is read again and again, by name.
    pub polls: Arc<BTreeMap<String, Poll>>,
    /// The form of messages to devices with it.
    pub form: Form,
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
            table.note_here(("no device has this profile", "name it in a device, or remove it"));
        }
        profiles.insert(name.to_owned(), profile(&table));
    }
    profiles
}

fn profile(table: &Table) -> Profile {
    let (form, numbers_as_text) = message::form(table);
    let tables = table.tables("command", keys::COMMAND);
    let polls = poll::polls(table);
    if tables.is_empty() && !table.has("poll") {
        table.note_here(("has no commands, so a device with it can do nothing", "add [profile.NAME.command.NAME]"));
    }
    let names = tables.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut commands = BTreeMap::new();
    let (mut registers, mut sends) = (Vec::new(), Vec::new());
    for (name, table) in &tables {
        let name = *name;
        if let Err(why) = super::check_name(name) {
            table.wrong_here(why);
        }
        match action_key(table) {
            Some("send" | "send_hex") => sends.push(name.to_owned()),
            Some(_) => registers.push(name.to_owned()),
            None => {}
        }
        if let Some(command) = command(table, name) {
            commands.insert(name.to_owned(), command.taking_numbers_as_text(numbers_as_text));
        }
    }
    check_desired(&tables, &commands);
    let (path, commands, polls) = (table.path_of().to_owned(), Arc::new(commands), Arc::new(polls));
    Profile { path, commands, names, polls, form, registers, sends }
}

/// The keys that say what a command does.
const ACTIONS: [&str; 5] = ["read", "write", "steps", "send", "send_hex"];

/// The one key of a command that says what it does.
fn action_key(table: &Table) -> Option<&'static str> {
    let given: Vec<&str> = ACTIONS.into_iter().filter(|key| table.has(key)).collect();
    match given.as_slice() {
        [key] => Some(key),
        _ => None,
    }
}

fn command(table: &Table, name: &str) -> Option<Command> {
    refuse_keys_of_other_actions(table);
    let command = beside(table, action(table, name), name);
    let timeout = table.duration("timeout", &RESPONSE_TIMEOUT);
    let deadline = table.duration("deadline", &DEADLINE).unwrap_or(Command::DEADLINE);
    if let Some(timeout) = timeout.filter(|timeout| deadline < *timeout) {
        table.warn("deadline", too_soon(deadline, "timeout", timeout));
    }
    let min_interval = table.duration("min_interval", &MIN_INTERVAL).unwrap_or_default();
    if min_interval > deadline {
        table.warn("min_interval", too_rare(min_interval, deadline));
    }
    let latest_wins = table.boolean("latest_wins").unwrap_or(false);
    let idempotent = idempotent(table)?;
    let command = command?;
    let desired = desired(table, &command, idempotent);
    Some(Command { idempotent, timeout, deadline, min_interval, latest_wins, desired, ..command })
}

/// The desired property that a command sets, if it can set one.
fn desired(table: &Table, command: &Command, idempotent: bool) -> Option<String> {
    let name = table.text("desired")?;
    let takes_value = match &command.action {
        Action::Read(_) | Action::Steps(_) => false,
        Action::Write(_) => command.fixed.is_none(),
        Action::Send(template) => command.fixed.is_none() && template.send.takes_value(),
    };
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let why = if name == twin::GATEWAY {
        ("is the property by which the gateway tells of itself", "choose another name")
    } else if name.is_empty() || name.len() > twin::NAME_BYTES_MAX || !name.chars().all(is_of_a_name) {
        ("must be 1 to 64 letters, digits, '-' and '_'", "name a desired property, such as \"speed\"")
    } else if matches!(command.action, Action::Steps(_)) {
        ("names a value to be set, and a command of several steps can't be desired", "remove it")
    } else if !takes_value {
        (
            "names a value to be set, and this command takes none",
            "remove it, or name it in a command that takes a value",
        )
    } else if !idempotent {
        (
            "names a value that is set again where nobody knows whether it was set, and this command must not be repeated",
            "remove it, and ask for this command by a message or a direct method",
        )
    } else {
        return Some(name.to_owned());
    };
    table.wrong("desired", why);
    None
}

/// Reports a desired property that two commands would set.
fn check_desired(tables: &[(&str, Table)], commands: &BTreeMap<String, Command>) {
    let mut seen = BTreeMap::new();
    for (name, table) in tables {
        let Some(desired) = commands.get(*name).and_then(|command| command.desired.as_deref()) else { continue };
        if let Some(other) = seen.insert(desired, *name) {
            let why = format!("{desired:?} is set by command {other:?} already");
            table.wrong("desired", (why, "let one command set it"));
        }
    }
}

/// What stands beside an action, in a command, in one of its steps or in a poll.
pub(super) fn beside(table: &Table, action: Option<Action>, name: &str) -> Option<Command> {
    let range = range(table);
    let names = names(table, action.as_ref());
    let unavailable = unavailable(table, action.as_ref());
    let fixed = table.json("value");
    let (read_back, function) = match action.as_ref() {
        Some(Action::Write(point)) => {
            let rule = read_back(table, point);
            let function = function(table, point, rule.as_ref());
            (rule, function)
        }
        _ => (None, Function::Usual),
    };
    let command = Command { read_back, fixed, names, unavailable, function, range, ..Command::new(name, action?) };
    match &command.action {
        Action::Read(_) | Action::Steps(_) => {}
        Action::Write(point) => check_written(table, point, range),
        Action::Send(template) => check_sent(table, template, range),
    }
    check_fixed(table, &command);
    check_names(table, &command);
    Some(command)
}

/// Reports a fixed value that every message would end in a refusal of: it is asked of what carries messages out.
fn check_fixed(table: &Table, command: &Command) {
    if command.fixed.is_none() || !["write", "send", "send_hex"].iter().any(|key| table.has(key)) {
        return;
    }
    if let Err(fault) = command.prepare(None) {
        let remedy = if command.range.is_some() { "correct it, or range" } else { "correct it" };
        table.wrong("value", (format!("can't be carried out: {}", fault.message), remedy));
    }
}

/// What is said of a deadline that passes while one answer is waited for.
pub(super) fn too_soon(deadline: Duration, what: &str, timeout: Duration) -> Complaint {
    let told = humantime::format_duration;
    Complaint::new(
        format!(
            "{} is shorter than the {what}, {}: while one answer is waited for, the deadline of whatever waits behind it \
             passes",
            told(deadline),
            told(timeout)
        ),
        "make it longer",
    )
}

/// What is said of an interval that no deadline outlasts.
fn too_rare(min_interval: Duration, deadline: Duration) -> Complaint {
    let told = humantime::format_duration;
    Complaint::new(
        format!(
            "{} is longer than the deadline, {}: whoever asks again right after it was done waits in vain, and the \
             command expires",
            told(min_interval),
            told(deadline)
        ),
        "make it shorter, or the deadline longer",
    )
}

fn action(table: &Table, name: &str) -> Option<Action> {
    match action_key(table) {
        Some("read") => point::point(table, "read").map(Action::Read),
        Some("write") => point::point(table, "write").map(Action::Write),
        Some("steps") => steps(table, name).map(Action::Steps),
        Some(_) => template(table).map(Action::send),
        None => {
            let present = table.present();
            let given: Vec<&str> = present.into_iter().filter(|key| ACTIONS.contains(key)).collect();
            match given.as_slice() {
                [] => table.absent_here(("does nothing", "give it one of read, write, steps, send or send_hex")),
                [first, others @ ..] => {
                    let others = others.join(" and ");
                    let why = (format!("stands beside {others}"), "a command does one thing: make two commands of it");
                    table.wrong(first, why);
                    // Each is still looked at: what is wrong with it stays wrong in a command of its own.
                    for key in given.iter().filter(|key| ["read", "write"].contains(key)) {
                        point::point(table, key);
                    }
                }
            }
            None
        }
    }
}

/// The writes of `steps`; `None` where something is wrong with one of them.
fn steps(command: &Table, name: &str) -> Option<Vec<Command>> {
    let tables = steps::tables(command)?;
    let steps: Vec<Option<Command>> = tables.iter().map(|table| beside(table, steps::action(table), name)).collect();
    steps::check_read_backs(&tables, &steps);
    steps.into_iter().collect()
}

fn idempotent(table: &Table) -> Option<bool> {
    let given = table.boolean("idempotent");
    let action = action_key(table)?;
    if action == "read" {
        if given == Some(false) {
            let why = ("a read changes nothing, so repeating it is always safe", "remove this line");
            table.wrong("idempotent", why);
        }
        return Some(true);
    }
    if !table.has("idempotent") {
        if action == "steps" {
            return Some(false);
        }
        table.absent(
            "idempotent",
            (
                "is missing, and nobody can guess it",
                "the person who knows the machine must say whether doing this twice is the same as doing it once (true) \
                 or not (false)",
            ),
        );
    }
    given
}

/// Reports keys that mean nothing beside the command's action.
fn refuse_keys_of_other_actions(table: &Table) {
    let action = match action_key(table) {
        Some("send_hex") => "send",
        Some(action) => action,
        None => return,
    };
    refuse_keys_of(table, action, "command");
}

/// The same where the action is known: of a command or a poll.
pub(super) fn refuse_keys_of(table: &Table, action: &str, what: &str) {
    for (key, owners) in [
        ("value", ["write", "send"].as_slice()),
        ("range", &["write", "send"]),
        ("unavailable", &["read", "write"]),
        ("function", &["write"]),
        ("verify", &["write"]),
        ("read_back", &["write"]),
        ("expect", &["send"]),
        ("expect_hex", &["send"]),
        ("refuse", &["send"]),
        ("until", &["send"]),
        ("result", &["send"]),
        ("pattern", &["send"]),
    ] {
        if table.has(key) && !owners.contains(&action) {
            if action == "steps" {
                let why = ("belongs to one of the steps", "write it in the step that it is of");
                table.wrong(key, why);
                continue;
            }
            let owners = owners.join(" or ");
            let why = (format!("belongs to a {owners}, and this {what} is a {action}"), "remove it");
            table.wrong(key, why);
        }
    }
}

fn is_duration(text: &str) -> bool {
    humantime::parse_duration(text).is_ok()
}

/// How a write is read back, by `read_back` or by `verify = true`.
fn read_back(table: &Table, write: &Point) -> Option<Rule> {
    if let Some(within) = table.json("verify").filter(|given| given.as_str().is_some_and(is_duration)) {
        let why = (
            "is true or false",
            format!("to say for how long it is looked for, write read_back = {{ within = {within} }}"),
        );
        table.wrong("verify", why);
        return Some(Rule::exact(write));
    }
    let verify = table.boolean("verify");
    if !table.has("read_back") {
        return verify.filter(|verify| *verify).map(|_| Rule::exact(write));
    }
    if table.has("verify") {
        table.wrong("verify", ("stands beside read_back, which says how to verify", "remove it"));
    }
    let section = table.table("read_back", keys::READ_BACK)?;
    let point = point::shown_at(&section, write);
    let units = units(&section);
    let after = section.duration("after", &READ_BACK_AFTER).unwrap_or(Duration::ZERO);
    let within = section.duration("within", &READ_BACK_WITHIN);
    let tolerance = section.number("tolerance").unwrap_or(0.0);
    if within.is_some_and(|within| within < after) {
        section.wrong("within", ("is shorter than after, so that nothing is ever looked for", "make it longer"));
    }
    if tolerance < 0.0 {
        section.wrong("tolerance", ("must not be negative", "it is how far the value may be off, to either side"));
    }
    if tolerance != 0.0 && matches!(write.kind, DataType::Bool | DataType::String) {
        section.wrong("tolerance", ("is for numbers, and this command writes none", "remove it"));
    }
    Some(Rule { point: point?, units, after, within: within.unwrap_or(after + Rule::PATIENCE), tolerance })
}

/// The units that are to show what went to all.
fn units(section: &Table) -> Vec<u8> {
    let Some(given) = section.json("units") else { return vec![] };
    let unit = |unit: &Json| u8::try_from(unit.as_i64()?).ok();
    let units: Option<Vec<u8>> = given.as_array().and_then(|units| units.iter().map(unit).collect());
    let Some(units) = units else {
        section.wrong("units", ("is not a list of unit ids", "write it in brackets, such as units = [3, 4]"));
        return vec![];
    };
    let why = match units.iter().enumerate().find(|(at, unit)| units[..*at].contains(unit)) {
        _ if units.is_empty() => Some(("is empty".to_owned(), "name the units that are to show it")),
        _ if units.contains(&0) => Some(("holds 0, which is all units".to_owned(), "name those that are to show it")),
        Some((_, twice)) => Some((format!("{twice} stands there twice"), "remove one")),
        None => None,
    };
    if let Some(why) = why {
        section.wrong("units", why);
    }
    units
}

/// The one that `function` names (V1.1b3, 6.5, 6.6, 6.11, 6.12, 6.16 and 6.17).
fn function(table: &Table, point: &Point, rule: Option<&Rule>) -> Function {
    let Some(function) = table.integer("function", 1..=127) else { return Function::Usual };
    let (one, several, what, not_these) = match point.table.is_bits() {
        true => (5, 15, "coils", "holding registers"),
        false => (6, 16, "holding registers", "coils"),
    };
    let count = point.span();
    match function {
        22 if point.bit.is_some() => return Function::Mask,
        23 if !point.table.is_bits() => {
            check_exchange(table, point, rule);
            return Function::WithReadBack;
        }
        _ if function == several => return Function::Multiple,
        _ if function == one && count == 1 => return Function::Usual,
        _ => {}
    }
    let why = match function {
        22 => "22 writes single bits of a holding register, and this command writes none".to_owned(),
        _ if function == one => format!("{one} writes one of the {what}, and this command writes {count}"),
        5 | 6 | 15 | 16 | 23 => format!("{function} writes {not_these}, and this command writes {what}"),
        1..=4 => format!("{function} reads, and this command writes"),
        _ => format!("{function} is not one of those that write {what}"),
    };
    let remedy = match count {
        _ if function == 22 && !point.table.is_bits() => "say which bit, such as bit = 0, or leave it out".to_owned(),
        _ if point.bit.is_some() => format!("write {one}, {several}, 22 or 23"),
        1 => format!("write {one} or {several}"),
        _ => format!("write {several}, or leave it out"),
    };
    table.wrong("function", (why, remedy));
    Function::Usual
}

/// Reports what one exchange can't both write and read back (V1.1b3, 6.17).
fn check_exchange(table: &Table, point: &Point, rule: Option<&Rule>) {
    const ALONE: &str = "leave function out";
    let span = point.span();
    let Some(rule) = rule else {
        // What is wrong with a read_back has been told.
        if !table.has("read_back") {
            let why =
                ("23 reads back what it writes, and this command is not read back", "add verify = true or read_back");
            table.wrong("function", why);
        }
        return;
    };
    let why = if span > usize::from(WORDS_WRITTEN_AND_READ_MAX) {
        let why = format!("23 writes at most {WORDS_WRITTEN_AND_READ_MAX} registers, and this command writes {span}");
        Complaint::new(why, "write 16, or leave it out")
    } else if !rule.units.is_empty() {
        Complaint::new("23 is answered by one unit, and read_back says that all are told", ALONE)
    } else if rule.point.table != registers::Table::Holding {
        Complaint::new("23 reads back holding registers, and read_back is of another table", ALONE)
    } else if rule.point.scale_register.is_some() {
        Complaint::new("23 reads back in one exchange, and a scale register is read in another", ALONE)
    } else if !rule.after.is_zero() {
        Complaint::new("23 reads back at once, and read_back looks no sooner than after", "leave one of them out")
    } else {
        return;
    };
    table.wrong("function", why);
}

fn range(table: &Table) -> Option<(f64, f64)> {
    let (low, high) = table.pair("range")?;
    if low > high {
        table.wrong("range", (format!("its lower limit {low} is above its upper limit {high}"), "swap them"));
        return None;
    }
    Some((low, high))
}

fn check_written(table: &Table, point: &Point, range: Option<(f64, f64)>) {
    let is_numeric = !matches!(point.kind, DataType::Bool | DataType::String);
    if table.has("range") && !is_numeric {
        table.wrong("range", ("limits a number, and this command writes none", "remove it"));
    } else if let Some(Err(why)) = range.map(|range| point.check_range(range)) {
        table.wrong("range", why);
    }
}

/// The names of `values`, each for a value of its own.
fn names(table: &Table, action: Option<&Action>) -> Option<Names> {
    let entries = table.scalars("values")?;
    if entries.is_empty() {
        table.wrong("values", ("is empty", "name what may be written, such as { off = 0, on = 1 }"));
    }
    let is_send = matches!(action, Some(Action::Send(_)));
    let mut names: Vec<(String, Json)> = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let why = match &value {
            _ if name.is_empty() || name.chars().any(char::is_control) => {
                Some(Complaint::new("has a name that is empty or holds a control character", "give it another"))
            }
            Json::Number(_) => None,
            Json::String(_) if is_send => None,
            _ => Some(Complaint::new(
                format!("{name:?} must stand for a number{}", if is_send { " or a text" } else { "" }),
                "correct it",
            )),
        };
        let same = names.iter().find(|(_, other)| *other == value || same_number(other, &value));
        let why = why.or_else(|| {
            same.map(|(other, _)| {
                Complaint::new(format!("{other:?} and {name:?} stand for the same value"), "remove one")
            })
        });
        match why {
            Some(why) => table.wrong("values", why),
            None => names.push((name.to_owned(), value)),
        }
    }
    Some(Names::new(names))
}

/// The bits of the value that says that there is none: as they are, or as the negative number with the same bits, which
/// is the only way to write some of 64.
fn unavailable(table: &Table, action: Option<&Action>) -> Option<u64> {
    let Some(Action::Read(point) | Action::Write(point)) = action.filter(|_| table.has("unavailable")) else {
        return None;
    };
    if point.table.is_bits() || point.bit.is_some() || point.kind == DataType::String {
        let why = ("is what registers hold in place of a number, and this command has none", "remove it");
        table.wrong("unavailable", why);
        return None;
    }
    let spare = 64 - 16 * point.kind.words();
    let number =
        table.integer("unavailable", i64::MIN >> spare..=i64::try_from(u64::MAX >> spare).unwrap_or(i64::MAX))?;
    Some(number.cast_unsigned() & u64::MAX >> spare)
}

fn same_number(a: &Json, b: &Json) -> bool {
    a.as_f64().is_some() && a.as_f64() == b.as_f64()
}

/// What its names stand for goes the way of every value, so that what is wrong with it is known now.
fn check_names(table: &Table, command: &Command) {
    let (takes_one, is_text) = match &command.action {
        Action::Read(point) | Action::Write(point) => (true, point.kind == DataType::String),
        Action::Send(template) => (template.send.takes_value(), false),
        Action::Steps(_) => return,
    };
    // A fixed value has been asked for already.
    let Some(names) = command.names.as_ref().filter(|_| takes_one && command.fixed.is_none()) else { return };
    if is_text {
        table.wrong("values", ("names numbers, and this command's registers hold a text", "remove it"));
        return;
    }
    for (name, _) in names.entries() {
        if let Err(why) = command.check_name(name) {
            table.wrong("values", (format!("{name:?} {why}"), "correct it"));
        }
    }
}
