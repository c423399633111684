//! fieldbridge.toml(5): the hand-written part, with the keys as the reference configuration explains them.

use std::collections::BTreeSet;

use fieldbridge::config::keys::{self, Section};

use super::read;
use super::roff::{escape, paragraph};

/// The tables that hold only other tables. The page has a section for each of those.
const OF_TABLES: [Section; 2] = [keys::ROOT, keys::PROFILE];

/// One place in the reference where a key stands.
#[derive(Debug, Clone)]
struct Entry {
    section: &'static str,
    key: String,
    value: String,
    /// Written as a comment without a space: what holds where nothing is said.
    is_default: bool,
    /// The paragraph of comment above, and which one it is.
    text: String,
    block: usize,
}

/// The page. `@VERSION@` and each `@keys TITLE@` are replaced.
pub fn page(template: &str) -> String {
    let entries = entries(&read("config/fieldbridge.reference.toml"));
    let mut text = template.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    for section in keys::SECTIONS.iter().filter(|section| !OF_TABLES.contains(section)) {
        let mark = format!("@keys {}@\n", section.title);
        assert_eq!(text.matches(&mark).count(), 1, "fieldbridge.toml.5.in must have one line {mark:?}");
        text = text.replace(&mark, &paragraphs(section, &entries));
    }
    assert!(!text.contains("@keys "), "fieldbridge.toml.5.in names a section that there is not");
    text
}

/// The paragraphs on a section's keys, in the order of the reference.
fn paragraphs(section: &Section, entries: &[Entry]) -> String {
    let mut chosen: Vec<Entry> = section.keys.iter().map(|key| explained(section, key, entries)).collect();
    chosen.sort_by_key(|entry| entry.block);
    let mut text = String::new();
    for group in chosen.chunk_by(|a, b| a.block == b.block) {
        for (n, entry) in group.iter().enumerate() {
            text += if n == 0 { ".TP\n" } else { ".TQ\n" };
            text += &format!("\\fB{}\\fR ({}", escape(&entry.key), kind(entry));
            if entry.is_default && !["Default: ", "Default for "].iter().any(|word| entry.text.contains(word)) {
                text += &format!("; default \\fB{}\\fR", escape(&entry.value));
            }
            text += ")\n";
        }
        let words = match group[0].text.strip_prefix("As above") {
            Some(rest) => format!("As for modbus-rtu{rest}"),
            None => group[0].text.clone(),
        };
        text += &paragraph(&words);
    }
    text
}

/// The place where the reference explains a key of a section.
fn explained(section: &Section, key: &str, entries: &[Entry]) -> Entry {
    let here = |entry: &&Entry| entry.section == section.title && entry.key == key;
    let of_another_bus =
        |entry: &&Entry| entry.key == key && entry.section.starts_with("[bus.") && section.title.starts_with("[bus.");
    let explained = || entries.iter().filter(|entry| !entry.text.is_empty());
    if let Some(entry) = explained().find(here) {
        return entry.clone();
    }
    if let (Some(entry), Some(_)) = (entries.iter().find(here), explained().find(of_another_bus)) {
        return Entry { text: "As above.".into(), ..entry.clone() };
    }
    if let Some(entry) = as_elsewhere(section, key, entries) {
        return entry;
    }
    match key {
        // They stand in the reference as tables, whose keys have a section of their own.
        "read" | "write" => Entry {
            section: section.title,
            key: key.to_owned(),
            value: "{}".into(),
            is_default: false,
            text: "The coils or registers to read or to write; the keys of this table are below.".into(),
            block: 0,
        },
        "read_back" => Entry {
            section: section.title,
            key: key.to_owned(),
            value: "{}".into(),
            is_default: false,
            text: "In place of verify: where what was written is to show, and when; the keys of this table are below."
                .into(),
            block: usize::MAX,
        },
        "scale_register" => Entry {
            section: section.title,
            key: key.to_owned(),
            value: "{}".into(),
            is_default: false,
            text: "Where the power of ten stands by which scale is multiplied; the keys of this table are below."
                .into(),
            block: usize::MAX,
        },
        "rs485" | "frame" | "length" | "checksum" => Entry {
            section: section.title,
            key: key.to_owned(),
            value: "{}".into(),
            is_default: false,
            text: match key {
                "rs485" => "As above; the keys of this table are below.",
                "frame" => {
                    "In place of delimiter: how the frames of the line are made; the keys of this table are below."
                }
                "length" => "The field of a frame that says how long it is; the keys of this table are below.",
                _ => "The checksum of a frame; the keys of this table are below.",
            }
            .into(),
            block: usize::MAX,
        },
        "addresses" => Entry {
            section: section.title,
            key: key.to_owned(),
            value: "{}".into(),
            is_default: false,
            text: "Where to connect with one transport; the keys of this table are below.".into(),
            block: usize::MAX,
        },
        _ => panic!("the reference does not explain {key} of {}", section.title),
    }
}

/// What is explained of a section, because its keys are those of another one that stands around it.
fn as_elsewhere(section: &Section, key: &str, entries: &[Entry]) -> Option<Entry> {
    let in_the_section =
        |title: &str| entries.iter().find(|entry| entry.key == key && entry.section == title && !entry.text.is_empty());
    let (title, text, block) = match section.title {
        title if title == keys::READ_BACK.title => {
            (keys::POINT.title, "As in the write, and of it where it is left out.", 0)
        }
        title if title == keys::SCALE_REGISTER.title => (keys::POINT.title, "As in the table around it.", usize::MAX),
        title if title == keys::STEP.title && !["write", "read_back"].contains(&key) => {
            (keys::COMMAND.title, "As in a command, and of this step alone.", 0)
        }
        _ => return None,
    };
    let entry = in_the_section(title)?.clone();
    Some(Entry { text: text.into(), section: section.title, block, is_default: false, ..entry })
}

/// The type of a key, as its value shows it.
fn kind(entry: &Entry) -> &'static str {
    let value = entry.value.as_str();
    let inner = value.trim_matches('"');
    let is_duration = inner.starts_with(|c: char| c.is_ascii_digit())
        && inner.trim_start_matches(|c: char| c.is_ascii_digit()).len() <= 2
        && inner.ends_with(['s', 'm', 'h', 'd']);
    match entry.key.as_str() {
        "value" if entry.section != keys::MESSAGE.title => "a value of the command's type",
        "scale" | "offset" | "tolerance" => "number",
        "range" => "array of two numbers",
        "quirks" => "array of names",
        "units" => "array of integers",
        "steps" => "array of tables",
        "unavailable" | "adds" => "integer",
        "start" | "end" | "escape" | "wake" => "string, byte or array of bytes",
        "values" => "table of names and what they stand for",
        "expect" | "refuse" | "until" | "pattern" => "string, a regular expression",
        "port" | "path" | "socket" => "string, a path",
        key if key.ends_with("_file") => "string, a path",
        _ if value.starts_with('"') && is_duration => "duration",
        _ if value.starts_with('"') => "string",
        _ if value.starts_with('{') => "table",
        _ if value == "true" || value == "false" => "boolean",
        _ if value.parse::<i64>().is_ok() => "integer",
        _ => panic!("of what type is {} = {value}?", entry.key),
    }
}

/// Every key of the reference, with the paragraph of comment that it stands under.
fn entries(reference: &str) -> Vec<Entry> {
    let (mut found, mut section, mut kind_of_bus) = (Vec::new(), keys::ROOT.title, "");
    let (mut text, mut block, mut in_keys) = (String::new(), 0, false);
    let body = &reference[reference.find("\n[hub]").expect("a head, and the first table")..];
    for (number, line) in body.lines().enumerate() {
        let bare = line.trim_start_matches('#').trim_start();
        let assigned = bare.split_once(" = ").filter(|(key, _)| {
            key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
        });
        if let Some(table) = line.strip_prefix('[') {
            if table.starts_with("bus.") {
                let kind = body.lines().skip(number).find_map(|line| line.strip_prefix("kind = \""));
                kind_of_bus = kind.expect("a bus has a kind").trim_end_matches('"');
            }
            section = title(table, kind_of_bus);
            (text, in_keys) = (String::new(), false);
        } else if let Some((key, value)) = assigned {
            let is_default = line.starts_with('#') && !line.starts_with("# ");
            let entry = Entry { section, key: key.into(), value: value.into(), is_default, text: text.clone(), block };
            found.push(entry);
            in_keys = true;
        } else if line.is_empty() || line.starts_with("# ----") {
            (text, in_keys) = (String::new(), false);
        } else if let Some(words) = line.strip_prefix("# ") {
            if in_keys || text.is_empty() {
                (text, in_keys, block) = (String::new(), false, number);
            }
            text += &format!("{}{words}", if text.is_empty() { "" } else { " " });
        }
    }
    found
}

/// The section that a table of the reference belongs to.
fn title(table: &str, kind_of_bus: &str) -> &'static str {
    let table = table.trim_end_matches(']');
    let section = match table.split('.').next().unwrap() {
        "hub" if table.ends_with(".addresses") => keys::ADDRESSES,
        "hub" => keys::HUB,
        "admin" => keys::ADMIN,
        "ledger" => keys::LEDGER,
        "device" => keys::DEVICE,
        "bus" if table.ends_with(".rs485") => keys::RS485,
        "bus" if table.ends_with(".frame") => keys::FRAME,
        "bus" if table.ends_with(".frame.length") => keys::LENGTH,
        "bus" if table.ends_with(".frame.checksum") => keys::CHECKSUM,
        "bus" => match kind_of_bus {
            "modbus-rtu" => keys::MODBUS_RTU,
            "modbus-ascii" => keys::MODBUS_ASCII,
            "modbus-tcp" => keys::MODBUS_TCP,
            _ => keys::SERIAL,
        },
        "profile" if table.ends_with(".read") || table.ends_with(".write") => keys::POINT,
        "profile" if table.ends_with(".scale_register") => keys::SCALE_REGISTER,
        "profile" if table.ends_with(".message") => keys::MESSAGE,
        "profile" if table.ends_with(".read_back") => keys::READ_BACK,
        "profile" => keys::COMMAND,
        other => panic!("the page has no place for the table {other}: give it one in tests/operator/manual/keys.rs"),
    };
    section.title
}

#[test]
fn every_key_that_the_code_knows_is_on_the_page() {
    let page = read("packaging/man/fieldbridge.toml.5");
    for section in keys::SECTIONS.iter().filter(|section| !OF_TABLES.contains(section)) {
        let heading = format!(".SS \"{}\"\n", escape(section.title));
        let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("the page has no {heading:?}"));
        let body = rest.split("\n.S").next().unwrap();
        let tags = body.lines().filter_map(|line| line.strip_prefix("\\fB")?.split_once("\\fR ("));
        let told: BTreeSet<String> = tags.map(|(key, _)| key.replace("\\-", "-")).collect();
        assert_eq!(told, section.keys.iter().map(ToString::to_string).collect(), "{}", section.title);
    }
    for key in keys::ROOT.keys {
        assert!(page.contains(&format!(".SS \"[{key}")), "[{key}] has no section on the page");
    }
}

#[test]
fn every_default_of_the_reference_is_on_the_page() {
    let page = read("packaging/man/fieldbridge.toml.5");
    let (mut told, mut in_words) = (0, 0);
    for entry in entries(&read("config/fieldbridge.reference.toml")).iter().filter(|entry| entry.is_default) {
        let (_, rest) = page.split_once(&format!(".SS \"{}\"\n", escape(entry.section))).unwrap();
        let tag = format!("\\fB{}\\fR ({}", escape(&entry.key), kind(entry));
        let (_, after) = rest.split("\n.S").next().unwrap().split_once(&tag).unwrap_or_else(|| panic!("{entry:?}"));
        if after.starts_with(&format!("; default \\fB{}\\fR)\n", escape(&entry.value))) {
            told += 1;
            continue;
        }
        // Where there is more than one, or none that is a value, a sentence says it.
        let paragraph = after.split(".TP").next().unwrap();
        let is_read = entry.text.starts_with("A read is always");
        assert!(is_read || paragraph.contains("Default"), "{} = {} of {}", entry.key, entry.value, entry.section);
        in_words += 1;
    }
    println!("{told} defaults as values, {in_words} in words");
    assert!(told > 20 && in_words < told, "{told} {in_words}");
}
