//! The configuration as it is merged, with what holds where nothing is said, and where each value comes from. Pure but
//! for the reading.
//!
//! Invariants
//! - No secret, and nothing that looks like one, is shown: of files with secrets the paths, as they stand; of a key
//!   that the configuration does not know no value.
//! - What is shown is TOML that loads as what it was made of, as long as nothing had to be hidden. Defaults are
//!   comments in it, as in the reference.

use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};
use serde_json::{json, Value as Json};

use super::keys::{self, Section};
use super::load::{merged, Merged};
use super::reference::{self, Entry};
use super::schema::shapes::{shape, Shape};
use super::tree::{as_json, join};
use super::{bus, secret, telemetry, Place, Problem};

/// What stands in the place of what is not shown.
const HIDDEN: &str = "…";
/// Files that are named beside those with secrets, and hold none.
const PUBLIC_FILES: [&str; 2] = ["ca_file", "cert_file"];
/// Where the origin of a value begins, in characters, if the value leaves room.
const ORIGIN_COLUMN: usize = 40;

/// The configuration as it is merged.
pub struct Shown {
    /// Tables and settings, in the order of the reference.
    pub items: Vec<Item>,
    /// The sources that could not be read, or are no TOML: what stands in them is missing.
    pub problems: Vec<Problem>,
    /// The files whose content is secret.
    pub secret_files: Vec<PathBuf>,
    /// The texts that are not shown.
    pub secrets: Vec<String>,
}

/// A line of it.
pub enum Item {
    /// The header of a table.
    Table(String),
    /// A value in the last table.
    Setting(Setting),
}

/// A value that is in force.
pub struct Setting {
    /// Its whole path, e.g. `hub.host`.
    pub key: String,
    /// The key in its table.
    name: String,
    /// As TOML.
    value: String,
    json: Json,
    /// Where it comes from; `None` for a default.
    pub origin: Option<Origin>,
}

/// Where a value comes from.
pub struct Origin {
    /// The file, or `environment`.
    pub source: String,
    /// Where in the file.
    pub place: Option<Place>,
}

impl Shown {
    /// As TOML; each value with where it comes from, if that is wanted.
    pub fn to_toml(&self, with_origin: bool) -> String {
        let lines = self.items.iter().map(|item| match item {
            Item::Table(header) => format!("\n{header}\n"),
            Item::Setting(setting) => setting.line(with_origin) + "\n",
        });
        lines.collect::<String>().trim_start().to_owned()
    }

    /// As a list of `{"key", "value", "file", "line"}`; `file` is null for a default.
    pub fn to_json(&self) -> Json {
        let settings = self.items.iter().filter_map(|item| match item {
            Item::Setting(setting) => Some(setting),
            Item::Table(_) => None,
        });
        settings.map(Setting::to_json).collect()
    }
}

impl Setting {
    fn line(&self, with_origin: bool) -> String {
        // As in the reference: what is a default is a comment without a space.
        let mark = if self.origin.is_none() { "#" } else { "" };
        let line = format!("{mark}{} = {}", super::key_path(&[&self.name]), self.value);
        match (with_origin, &self.origin) {
            (false, _) => line,
            (true, None) => format!("{line:ORIGIN_COLUMN$}  # default"),
            (true, Some(Origin { source, place: Some(place) })) => {
                format!("{line:ORIGIN_COLUMN$}  # {source}:{}", place.line)
            }
            (true, Some(Origin { source, place: None })) => format!("{line:ORIGIN_COLUMN$}  # {source}"),
        }
    }

    fn to_json(&self) -> Json {
        let place = self.origin.as_ref().and_then(|origin| origin.place);
        json!({
            "key": self.key,
            "value": self.json,
            "file": self.origin.as_ref().map(|origin| &origin.source),
            "line": place.map(|place| place.line),
        })
    }
}

/// Reads the files and the environment, as [`super::load`] does, and judges nothing.
pub fn show(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Shown {
    let merged = merged(main, environment);
    let mut showing = Showing {
        merged: &merged,
        entries: reference::entries(),
        items: Vec::new(),
        secret_files: Vec::new(),
        secrets: Vec::new(),
    };
    showing.root();
    let Showing { items, secret_files, secrets, .. } = showing;
    // Relative ones are from the folder of the main file, as everywhere.
    let folder = main.parent().unwrap_or(Path::new(""));
    let secret_files = secret_files.iter().map(|file| folder.join(file)).collect();
    Shown { items, problems: merged.problems, secret_files, secrets }
}

/// The walk.
struct Showing<'a> {
    merged: &'a Merged,
    entries: Vec<Entry>,
    items: Vec<Item>,
    secret_files: Vec<String>,
    secrets: Vec<String>,
}

/// A table on the walk.
#[derive(Clone)]
struct At {
    /// What it is; `None` for what the configuration does not know.
    section: Option<Section>,
    /// Its path in messages, `profile.a.command.b.steps[1]`, and in TOML, without the number.
    path: String,
    header: String,
}

impl At {
    fn below(&self, key: &str, section: Option<Section>) -> At {
        At { section, path: join(&self.path, key), header: join(&self.header, key) }
    }
}

impl Showing<'_> {
    fn root(&mut self) {
        let root = At { section: Some(keys::ROOT), path: String::new(), header: String::new() };
        let mut entries = self.merged.root.clone();
        // They hold defaults where nobody has written them.
        for key in keys::ROOT.keys.iter().filter(|key| Section::of_table(key).is_some()) {
            entries.entry((*key).to_owned()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
        }
        self.keys(&root, &entries);
    }

    /// The keys of a table in the order of its section: those with values first, as TOML needs it.
    fn keys(&mut self, at: &At, entries: &Map<String, Value>) {
        let known = at.section.map_or(&[][..], |section| section.keys);
        let order = |key: &str| known.iter().position(|known| *known == key).unwrap_or(known.len());
        let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
        sorted.sort_by_key(|(key, _)| (order(key), *key));
        let (tables, plain): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|(_, value)| holds_tables(value));
        for (key, value) in plain {
            self.setting(at, key, value);
        }
        self.defaults(at, entries);
        for (key, value) in tables {
            self.below(at, key, value);
        }
    }

    fn table(&mut self, at: &At, entries: &Map<String, Value>) {
        self.items.push(Item::Table(format!("[{}]", at.header)));
        self.keys(at, entries);
    }

    /// A table, tables by names of the user's own, or a list of tables.
    fn below(&mut self, at: &At, key: &str, value: &Value) {
        let shape = at.section.and_then(|section| shape(section, key));
        match (&value.kind, shape) {
            (ValueKind::Table(named), Some(Shape::Tables(section))) => {
                let around = at.below(key, None);
                let mut named: Vec<_> = named.iter().collect();
                named.sort_unstable_by_key(|(name, _)| *name);
                for (name, value) in named {
                    match &value.kind {
                        ValueKind::Table(entries) => self.table(&around.below(name, Some(section)), entries),
                        // What stands there in place of a table, `check` tells.
                        _ => continue,
                    }
                }
            }
            (ValueKind::Table(entries), Some(Shape::Table(section))) => {
                self.table(&at.below(key, Some(section)), entries);
            }
            (ValueKind::Table(entries), _) => self.table(&at.below(key, None), entries),
            (ValueKind::Array(items), shape) => {
                let section = if let Some(Shape::List(section)) = shape { Some(section) } else { None };
                for (number, item) in (1..).zip(items) {
                    let ValueKind::Table(entries) = &item.kind else { continue };
                    let mut at = at.below(key, section);
                    at.path += &format!("[{number}]");
                    self.items.push(Item::Table(format!("[[{}]]", at.header)));
                    self.keys(&at, entries);
                }
            }
            _ => {}
        }
    }

    fn setting(&mut self, at: &At, name: &str, value: &Value) {
        let key = join(&at.path, name);
        let source = value.origin().or_else(|| self.merged.tables.get(&at.path).map(String::as_str));
        let source = source.unwrap_or(&self.merged.main).to_owned();
        let place = self.merged.origins.place(&source, &key);
        // Names for values and their numbers are of the user's own.
        let is_known = at.section.is_none_or(|section| section.keys.contains(&name))
            && (at.section.is_some() || at.path.ends_with(".values"));
        let shape = at.section.and_then(|section| shape(section, name));
        if let Some(file) = text(value).filter(|_| name.ends_with("_file") && !PUBLIC_FILES.contains(&name)) {
            self.secret_files.push(file.to_owned());
        }
        let (value, json) = match (&value.kind, &shape) {
            _ if hides(value, is_known) => {
                self.secrets.extend(texts(value));
                (quoted(HIDDEN), json!(HIDDEN))
            }
            // From the environment everything comes as text.
            (ValueKind::String(text), Some(shape)) if place.is_none() && !shape.is_text() => {
                (text.clone(), json!(text))
            }
            _ => (as_toml(value), as_json(value).unwrap_or_default()),
        };
        let origin = Some(Origin { source, place });
        self.items.push(Item::Setting(Setting { key, name: name.to_owned(), value, json, origin }));
    }

    /// What holds where nothing is said.
    fn defaults(&mut self, at: &At, entries: &Map<String, Value>) {
        let Some(section) = at.section else { return };
        let is_at_the_top = Section::of_table(&at.header).is_some();
        let defaults: Vec<(&str, String)> = match section {
            _ if is_at_the_top || section == keys::DEVICE => {
                let default = |key: &&'static str| {
                    let entry = reference::explained(&section, key, &self.entries)?;
                    Some((*key, entry.default()?.to_owned()))
                };
                // Quirks are of Modbus alone.
                let applies = |key: &&&str| **key != "quirks" || self.is_on_modbus(entries);
                section.keys.iter().filter(applies).filter_map(default).collect()
            }
            keys::BUS => self.defaults_of_bus(entries),
            _ => return,
        };
        for (name, value) in defaults.into_iter().filter(|(name, _)| !entries.contains_key(*name)) {
            let is_beside = section == keys::TELEMETRY && name == "path";
            let value = if is_beside { self.beside_the_ledger().unwrap_or(value) } else { value };
            let json = reference::literal(&value).as_ref().and_then(as_json).unwrap_or_default();
            let (key, name) = (join(&at.path, name), name.to_owned());
            self.items.push(Item::Setting(Setting { key, name, value, json, origin: None }));
        }
    }

    /// Where telemetry is kept by the side of a ledger that is said.
    fn beside_the_ledger(&self) -> Option<String> {
        let ValueKind::Table(ledger) = &self.merged.root.get("ledger")?.kind else { return None };
        let ledger = ledger.get("path").and_then(text)?;
        Some(quoted(telemetry::beside_the_ledger(Path::new(ledger)).to_str()?))
    }

    /// Whether the bus of a device is known, and no line of text.
    fn is_on_modbus(&self, device: &Map<String, Value>) -> bool {
        let ValueKind::Table(buses) = self.merged.root.get("bus").map_or(&ValueKind::Nil, |buses| &buses.kind) else {
            return false;
        };
        let bus = device.get("bus").and_then(text).and_then(|name| buses.get(name));
        let Some(ValueKind::Table(bus)) = bus.map(|bus| &bus.kind) else { return false };
        bus.get("kind").and_then(text).is_some_and(|kind| kind != "serial")
    }

    /// What holds for a bus of its kind, by the reference's words on that kind.
    fn defaults_of_bus(&self, entries: &Map<String, Value>) -> Vec<(&'static str, String)> {
        let kind = entries.get("kind").and_then(text);
        let Some((_, kind)) = bus::KINDS.iter().find(|(name, _)| Some(*name) == kind) else { return Vec::new() };
        let section = kind.section();
        let has = |key: &str| entries.contains_key(key);
        let applies = |key: &str| match key {
            "delimiter" => !has("frame"),
            _ => !(has("address") && bus::PORT_SETTINGS.contains(&key)),
        };
        let default = |key: &&'static str| {
            let here = |entry: &&Entry| entry.section == section.title && entry.key == **key && entry.is_default;
            Some((*key, self.entries.iter().find(here)?.value.clone()))
        };
        section.keys.iter().filter(|key| applies(key)).filter_map(default).collect()
    }
}

fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// Every text in a value.
fn texts(value: &Value) -> Vec<String> {
    match &value.kind {
        ValueKind::String(text) => vec![text.clone()],
        ValueKind::Array(items) => items.iter().flat_map(texts).collect(),
        ValueKind::Table(entries) => entries.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value is written as tables of its own.
fn holds_tables(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Table(_) => true,
        ValueKind::Array(items) => {
            !items.is_empty() && items.iter().all(|item| matches!(item.kind, ValueKind::Table(_)))
        }
        _ => false,
    }
}

/// Whether a value is not shown: it looks like a secret, or nobody knows what it is.
fn hides(value: &Value, is_known: bool) -> bool {
    match &value.kind {
        ValueKind::String(text) => !is_known || looks_secret(text),
        ValueKind::Array(items) => items.iter().any(|item| hides(item, is_known)),
        ValueKind::Table(entries) => entries.values().any(|value| hides(value, is_known)),
        _ => !is_known,
    }
}

fn looks_secret(text: &str) -> bool {
    let lower = text.to_lowercase();
    let has_password = lower.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    secret::is_secret(text) || has_password || lower.contains("sharedaccess") || lower.contains("-----begin")
}

/// A basic string of TOML (v1.0.0, "String"); JSON's escapes are among its own.
pub(crate) fn quoted(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7F}', "\\u007f")
}

fn as_toml(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => quoted(text),
        ValueKind::Float(number) if number.is_nan() => "nan".to_owned(),
        ValueKind::Float(number) => format!("{number:?}"),
        ValueKind::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entry = |(key, value): (&String, &Value)| format!("{} = {}", join("", key), as_toml(value));
            format!("{{ {} }}", entries.into_iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
