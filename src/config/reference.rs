//! The reference configuration as data: what it says of each key. For the schema and the manual page.

use config::{FileFormat, Format as _, Value};

use super::keys::{self, Section};

/// The file, which the package has too.
const TEXT: &str = include_str!("../../config/fieldbridge.reference.toml");

/// One place in the reference where a key stands.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Title of its section.
    pub section: &'static str,
    /// The key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Written as a comment without a space: what holds where nothing is said.
    pub is_default: bool,
    /// The paragraph of comment above.
    pub text: String,
    /// Which paragraph that is: keys that stand under the same one have the same number.
    pub block: usize,
}

impl Entry {
    /// Of a key that stands in the reference as a table of its own.
    fn of_table(section: &Section, key: &str, text: &str) -> Entry {
        let (key, value, text) = (key.to_owned(), "{}".to_owned(), text.to_owned());
        Entry { section: section.title, key, value, is_default: false, text, block: usize::MAX }
    }

    /// The default that the value is, as TOML, where there is one for every use of the key: else a sentence says it.
    pub fn default(&self) -> Option<&str> {
        let in_words = ["Default: ", "Default for "].iter().any(|word| self.text.contains(word));
        (self.is_default && !in_words).then_some(self.value.as_str())
    }
}

/// What a value of TOML is.
pub(super) fn literal(text: &str) -> Option<Value> {
    FileFormat::Toml.parse(None, &format!("value = {text}")).ok()?.remove("value")
}

/// Every key of the reference, with the paragraph of comment that it stands under, in its order.
pub fn entries() -> Vec<Entry> {
    let (mut found, mut section, mut kind_of_bus) = (Vec::new(), None, "");
    let (mut text, mut block, mut in_keys) = (String::new(), 0, false);
    let body = TEXT.split_once("\n[hub]").map_or("", |(head, _)| &TEXT[head.len()..]);
    for (number, line) in body.lines().enumerate() {
        let bare = line.trim_start_matches('#').trim_start();
        let assigned = bare.split_once(" = ").filter(|(key, _)| {
            key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
        });
        if let Some(table) = line.strip_prefix('[') {
            if table.starts_with("bus.") {
                let kind = body.lines().skip(number).find_map(|line| line.strip_prefix("kind = \""));
                kind_of_bus = kind.unwrap_or_default().trim_end_matches('"');
            }
            section = section_of(table.trim_end_matches(']'), kind_of_bus).map(|section| section.title);
            (text, in_keys) = (String::new(), false);
        } else if let (Some((key, value)), Some(section)) = (assigned, section) {
            let is_default = line.starts_with('#') && !line.starts_with("# ");
            found.push(Entry { section, key: key.into(), value: value.into(), is_default, text: text.clone(), block });
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
fn section_of(table: &str, kind_of_bus: &str) -> Option<Section> {
    let section = match table.split('.').next()? {
        "hub" if table.ends_with(".addresses") => keys::ADDRESSES,
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
        "profile" if table.contains(".poll.") => keys::POLL,
        "profile" => keys::COMMAND,
        name => return Section::of_table(name),
    };
    Some(section)
}

/// What the reference says of a key of a section; `None` where it says nothing.
pub fn explained(section: &Section, key: &str, entries: &[Entry]) -> Option<Entry> {
    let here = |entry: &&Entry| entry.section == section.title && entry.key == key;
    let of_another_bus =
        |entry: &&Entry| entry.key == key && entry.section.starts_with("[bus.") && section.title.starts_with("[bus.");
    let explained = || entries.iter().filter(|entry| !entry.text.is_empty());
    if let Some(entry) = explained().find(here) {
        return Some(entry.clone());
    }
    if let (Some(entry), Some(_)) = (entries.iter().find(here), explained().find(of_another_bus)) {
        return Some(Entry { text: "As above.".into(), ..entry.clone() });
    }
    as_elsewhere(section, key, entries).or_else(|| as_table(section, key))
}

/// What is explained of a section, because its keys are those of another one that stands around it.
fn as_elsewhere(section: &Section, key: &str, entries: &[Entry]) -> Option<Entry> {
    let (title, text, block) = match section.title {
        title if title == keys::READ_BACK.title => {
            (keys::POINT.title, "As in the write, and of it where it is left out.", 0)
        }
        title if title == keys::SCALE_REGISTER.title => (keys::POINT.title, "As in the table around it.", usize::MAX),
        title
            if title == keys::POLL.title && !["read", "every", "report", "deadband", "max_silence"].contains(&key) =>
        {
            (keys::COMMAND.title, "As in a command.", 0)
        }
        title if title == keys::STEP.title && !["write", "read_back"].contains(&key) => {
            (keys::COMMAND.title, "As in a command, and of this step alone.", 0)
        }
        _ => return None,
    };
    let in_the_section = |entry: &&Entry| entry.key == key && entry.section == title && !entry.text.is_empty();
    let entry = entries.iter().find(in_the_section)?.clone();
    Some(Entry { text: text.into(), section: section.title, block, is_default: false, ..entry })
}

/// What is said of a key that stands in the reference as a table, whose keys are explained there.
fn as_table(section: &Section, key: &str) -> Option<Entry> {
    let text = match key {
        "read" | "write" => {
            let text = "The coils or registers to read or to write; the keys of this table are below.";
            return Some(Entry { block: 0, ..Entry::of_table(section, key, text) });
        }
        "read_back" => {
            "In place of verify: where what was written is to show, and when; the keys of this table are below."
        }
        "scale_register" => {
            "Where the power of ten stands by which scale is multiplied; the keys of this table are below."
        }
        "rs485" => "As above; the keys of this table are below.",
        "frame" => "In place of delimiter: how the frames of the line are made; the keys of this table are below.",
        "length" => "The field of a frame that says how long it is; the keys of this table are below.",
        "checksum" => "The checksum of a frame; the keys of this table are below.",
        "addresses" => "Where to connect with one transport; the keys of this table are below.",
        _ => return None,
    };
    Some(Entry::of_table(section, key, text))
}
