//! `[profile.NAME.message]`: how the messages to a profile's devices are written.

use super::keys;
use super::tree::Table;
use super::NAME_CHARS_MAX;
use crate::command::Form;
use crate::complaint::Complaint;

/// The form of messages that name their command, and whether numbers and truth may come as text.
pub(super) fn form(profile: &Table) -> (Form, bool) {
    let table = profile.table_or_empty("message", keys::MESSAGE);
    let mut form = Form::default();
    for (key, field) in [("command", &mut form.command_field), ("value", &mut form.value_field)] {
        let Some(given) = table.text(key) else { continue };
        match check_field(given) {
            Ok(()) => *field = given.to_owned(),
            Err(why) => table.wrong(key, why),
        }
    }
    if form.command_field == form.value_field {
        let (key, other) = if table.has("value") { ("value", "command") } else { ("command", "value") };
        let why = (format!("is the name of the field that has the {other}, too"), "give each a field of its own");
        table.wrong(key, why);
    }
    (form, table.boolean("numbers_as_text").unwrap_or(false))
}

fn check_field(name: &str) -> Result<(), Complaint> {
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(Complaint::new(format!("is longer than {NAME_CHARS_MAX} characters"), "choose a shorter name"));
    }
    match name.chars().any(char::is_control) {
        true => Err(Complaint::new("holds a control character", "write the field's name as it stands in the messages")),
        false => Ok(()),
    }
}
