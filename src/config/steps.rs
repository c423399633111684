//! `steps` of a command: several writes in a row.

use super::tree::Table;
use super::{keys, point};
use crate::complaint::Complaint;
use crate::peripheral::registers::Point;
use crate::peripheral::{Action, Command, Rule, STEPS_MAX};

/// The tables of `steps`; `None` where there is none that could be run.
pub(super) fn tables<'a>(command: &Table<'a>) -> Option<Vec<Table<'a>>> {
    let tables = command.list("steps", keys::STEP)?;
    if tables.is_empty() || tables.len() > STEPS_MAX {
        let why = format!("holds {} writes, and a command has 1 to {STEPS_MAX} of them", tables.len());
        let remedy = if tables.is_empty() { "name what is to be written" } else { "make two commands of it" };
        command.wrong("steps", (why, remedy));
        return None;
    }
    check_values(command, &tables);
    Some(tables)
}

/// What one of them does.
pub(super) fn action(table: &Table) -> Option<Action> {
    if !table.has("write") {
        table.absent_here(("writes nothing", "give it write = { table = \"holding\", address = 0 }"));
    }
    point::point(table, "write").map(Action::Write)
}

/// Reports more than one step that takes the message's value, of which there is one.
fn check_values(command: &Table, tables: &[Table]) {
    let mut without = (1..).zip(tables).filter(|(_, table)| !table.has("value")).map(|(number, _)| number);
    if let (Some(first), Some(second)) = (without.next(), without.next()) {
        let why = format!("steps {first} and {second} have no value, and both would write the message's");
        command.wrong("steps", (why, "give all but one of them a value"));
    }
}

/// Reports what a later step writes over before it is read back.
pub(super) fn check_read_backs(tables: &[Table], steps: &[Option<Command>]) {
    for (at, table) in tables.iter().enumerate() {
        let Some(rule) = steps[at].as_ref().and_then(|step| step.read_back.as_ref()) else { continue };
        let mut later = (at + 2..).zip(&steps[at + 1..]);
        if let Some((number, _)) = later.find(|(_, step)| step.as_ref().is_some_and(|step| writes_over(step, rule))) {
            let key = if table.has("read_back") { "read_back" } else { "verify" };
            let why = Complaint::new(
                format!("looks at what step {number} writes: what is read back is so when all steps are done"),
                "read back the last step that writes there",
            );
            table.wrong(key, why);
        }
    }
}

/// Whether a step writes where an earlier one is to show.
fn writes_over(step: &Command, rule: &Rule) -> bool {
    let Action::Write(point) = &step.action else { return false };
    let places = |point: &Point| usize::from(point.address)..usize::from(point.address) + point.span();
    let (written, shown) = (places(point), places(&rule.point));
    let is_other_bit = point.bit.zip(rule.point.bit).is_some_and(|(written, shown)| written != shown);
    point.table == rule.point.table && written.start < shown.end && shown.start < written.end && !is_other_bit
}
