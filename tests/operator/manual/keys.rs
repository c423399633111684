//! fieldbridge.toml(5): the hand-written part, with the keys as the reference configuration explains them.

use std::collections::BTreeSet;

use fieldbridge::config::keys::{self, Section};
use fieldbridge::config::reference::{self, entries, Entry};

use super::read;
use super::roff::{escape, paragraph};

/// The tables that hold only other tables. The page has a section for each of those.
const OF_TABLES: [Section; 2] = [keys::ROOT, keys::PROFILE];

/// The page. `@VERSION@` and each `@keys TITLE@` are replaced.
pub fn page(template: &str) -> String {
    let entries = entries();
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
            if let Some(default) = entry.default() {
                text += &format!("; default \\fB{}\\fR", escape(default));
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
    reference::explained(section, key, entries)
        .unwrap_or_else(|| panic!("the reference does not explain {key} of {}", section.title))
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
        "scale" | "offset" | "tolerance" | "deadband" => "number",
        "max_size" | "batch_size" => "size",
        "range" => "array of two numbers",
        "quirks" | "hosts" => "array of names",
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
    for entry in entries().iter().filter(|entry| entry.is_default) {
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
