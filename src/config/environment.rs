//! `FIELDBRIDGE__HUB__HOST=…` as a layer over the files.
//!
//! Names of variables are upper case by custom and hold no hyphens, so a part of one is matched to the keys that the
//! files hold without regard to case and with `_` for `-` and `.`: `FIELDBRIDGE__DEVICE__PUMP_7__UNIT` reaches
//! `device.pump-7.unit` and `device."pump.7".unit` alike, if only one of them is there.

use config::{Map, Value, ValueKind};

use super::layer::Layer;
use super::problem::ENVIRONMENT;
use super::{keys, Problem, Severity};
use crate::complaint::Complaint;

const PREFIX: &str = "FIELDBRIDGE__";
const SEPARATOR: &str = "__";

/// One layer for each variable that is ours, in order of their names; what is wrong with others of them, and those
/// that are passed over although somebody means them to be ours.
pub(super) fn layers(
    files: &Map<String, Value>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> (Vec<Layer>, Vec<Problem>, Vec<Problem>) {
    let (mut ours, others): (Vec<_>, Vec<_>) = variables.into_iter().partition(|(name, _)| name.starts_with(PREFIX));
    ours.sort_unstable();
    let mut notes: Vec<Problem> = others.iter().filter_map(|(name, _)| passed_over(name)).collect();
    notes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let mut layers = Vec::with_capacity(ours.len());
    let mut problems = Vec::new();
    for (name, text) in ours {
        match key_path(files, &name) {
            Ok(path) => layers.push(layer(&path, text)),
            Err(why) => problems.push(Problem::new(ENVIRONMENT, &name, why)),
        }
    }
    (layers, problems, notes)
}

/// A variable that is none of ours, and seems to be meant as one: `FIELDBRIDGE_HUB_HOST`.
fn passed_over(name: &str) -> Option<Problem> {
    let upper = name.to_uppercase();
    let rest = upper.strip_prefix(PREFIX.trim_end_matches('_'))?.trim_start_matches(['_', '.', '-']);
    let section = keys::ROOT.keys.iter().find_map(|section| {
        let behind = rest.strip_prefix(&section.to_uppercase())?;
        behind
            .starts_with(['_', '.', '-'])
            .then(|| (section.to_uppercase(), behind.trim_start_matches(['_', '.', '-'])))
    });
    let (section, behind) = section.filter(|(_, behind)| !behind.is_empty())?;
    let why = (
        "is passed over",
        format!("two underlines stand between the parts of a key, so write {PREFIX}{section}__{behind}"),
    );
    Some(Problem::of(Severity::Warning, ENVIRONMENT, name, why))
}

fn key_path(files: &Map<String, Value>, name: &str) -> Result<Vec<String>, Complaint> {
    let mut level = Some(files);
    let mut path = Vec::new();
    for part in name[PREFIX.len()..].split(SEPARATOR) {
        if part.is_empty() {
            return Err(Complaint::new("has an empty part", "write it like FIELDBRIDGE__HUB__HOST"));
        }
        let key = match level {
            Some(entries) => known_key(entries, part)?,
            None => invented(part),
        };
        level = level.and_then(|entries| match &entries.get(&key)?.kind {
            ValueKind::Table(entries) => Some(entries),
            _ => None,
        });
        path.push(key);
    }
    Ok(path)
}

/// The key of a table that a part of a variable's name stands for.
fn known_key(entries: &Map<String, Value>, part: &str) -> Result<String, Complaint> {
    if entries.contains_key(part) {
        return Ok(part.to_owned());
    }
    let mut matches: Vec<&String> = entries.keys().filter(|key| folded(key) == folded(part)).collect();
    matches.sort_unstable();
    match matches.as_slice() {
        [] => Ok(invented(part)),
        [key] => Ok((*key).clone()),
        [first, second, ..] => {
            Err(Complaint::new(format!("may mean {first:?} or {second:?}"), "set it in a file instead"))
        }
    }
}

/// A key that no file holds: a name all in capitals is so by the custom of the environment.
fn invented(part: &str) -> String {
    if part.chars().any(char::is_lowercase) {
        part.to_owned()
    } else {
        part.to_lowercase()
    }
}

fn folded(key: &str) -> String {
    key.to_lowercase().replace(['-', '.', ':'], "_")
}

fn layer(path: &[String], text: String) -> Layer {
    let origin = ENVIRONMENT.to_owned();
    let leaf = Value::new(Some(&origin), ValueKind::String(text));
    let mut entries = Map::new();
    if let Some((last, tables)) = path.split_last() {
        entries.insert(last.clone(), leaf);
        for key in tables.iter().rev() {
            let table = Value::new(Some(&origin), ValueKind::Table(entries));
            entries = Map::from([(key.clone(), table)]);
        }
    }
    Layer { source: origin, entries }
}

#[cfg(test)]
mod tests {
    use config::{FileFormat, Format};

    use super::*;

    fn files() -> Map<String, Value> {
        let text = "[device.pump-7]\nunit = 1\n[device.\"Pump.8\"]\n[bus.a-b]\n[bus.\"a.b\"]\n[bus.A]\n[bus.a]";
        FileFormat::Toml.parse(None, text).unwrap()
    }

    #[test]
    fn a_variable_finds_the_key_that_the_files_hold() {
        for (name, path) in [
            ("FIELDBRIDGE__HUB__HOST", "hub/host"),
            ("FIELDBRIDGE__HUB__KEY_FILE", "hub/key_file"),
            ("FIELDBRIDGE__DEVICE__PUMP_7__UNIT", "device/pump-7/unit"),
            ("FIELDBRIDGE__DEVICE__PUMP-7__UNIT", "device/pump-7/unit"),
            ("FIELDBRIDGE__DEVICE__PUMP_8__UNIT", "device/Pump.8/unit"),
            ("FIELDBRIDGE__DEVICE__NEW__UNIT", "device/new/unit"),
            ("FIELDBRIDGE__DEVICE__New__UNIT", "device/New/unit"),
            ("FIELDBRIDGE__BUS__A__PORT", "bus/A/port"),
            ("FIELDBRIDGE__BUS__a__PORT", "bus/a/port"),
        ] {
            assert_eq!(key_path(&files(), name).unwrap().join("/"), path, "{name}");
        }
    }

    #[test]
    fn a_variable_that_may_mean_two_keys_is_refused() {
        let why = key_path(&files(), "FIELDBRIDGE__BUS__A_B__PORT").unwrap_err().to_string();
        assert!(why.contains("\"a-b\" or \"a.b\""), "{why}");
    }

    #[test]
    fn a_variable_with_an_empty_part_is_refused() {
        for name in ["FIELDBRIDGE__", "FIELDBRIDGE____HOST", "FIELDBRIDGE__HUB__"] {
            assert!(key_path(&files(), name).is_err(), "{name}");
        }
    }

    #[test]
    fn other_variables_are_nobodys_business() {
        let variables = ["PATH", "FIELDBRIDGE_LOG", "FIELDBRIDGE_DEVICES", "HUB_HOST"];
        let (layers, problems, notes) = layers(&files(), variables.map(|n| (n.into(), "x".into())));
        assert!(layers.is_empty() && problems.is_empty() && notes.is_empty());
    }

    #[test]
    fn a_variable_that_is_nearly_ours_is_told_how_to_be() {
        for (name, written) in [
            ("FIELDBRIDGE_HUB_HOST", "FIELDBRIDGE__HUB__HOST"),
            ("FIELDBRIDGE_HUB__HOST", "FIELDBRIDGE__HUB__HOST"),
            ("FieldBridge__hub__host", "FIELDBRIDGE__HUB__HOST"),
            ("FIELDBRIDGE_LEDGER_PATH", "FIELDBRIDGE__LEDGER__PATH"),
        ] {
            let (layers, problems, notes) = layers(&files(), [(name.to_owned(), "x".to_owned())]);
            assert!(layers.is_empty() && problems.is_empty());
            let [note] = notes.as_slice() else { panic!("{name}: {notes:?}") };
            assert!(note.complaint.to_string().ends_with(&format!("write {written}")), "{note}");
        }
    }
}
