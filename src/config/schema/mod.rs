//! The JSON Schema (2020-12) of a file of the configuration, for editors. Pure.
//!
//! It is made of the tables of [`keys`], of what `shapes` says of each key's value, and of what the reference
//! configuration says of the key. `tests/operator/config/schema.rs` holds it to what `check` takes and refuses.
//!
//! Invariants
//! - What `check` takes is valid. What is not valid is refused by `check`; the other way round, much is not seen here:
//!   what one key means for another, and what is missing, for a file may hold a part of the configuration only.

pub(super) mod shapes;

use serde_json::{json, Map, Value as Json};

use self::shapes::{shape, Shape};
use super::bus::KINDS;
use super::keys::{self, Section};
use super::reference::{self, Entry};
use super::tree::as_json;
use super::NAME_CHARS_MAX;
use crate::peripheral::STEPS_MAX;

/// Numbers with units in a row, as the crate `humantime` reads them. What the units are, and the range of each key, is
/// for `check`.
const DURATION: &str = "^( *[0-9]+ *[a-zA-Zµ]+)+ *$|^0$";

/// A number with its unit.
const SIZE: &str = "^ *[0-9]+ *([kKMG]i?)?B? *$";

/// Where the package has it.
pub const INSTALLED: &str = "/usr/share/fieldbridge/fieldbridge.schema.json";

/// The line by which an editor finds it, for the head of a file of the configuration.
pub const LINE: &str = "#:schema /usr/share/fieldbridge/fieldbridge.schema.json";

/// The schema.
pub fn schema() -> Json {
    let entries = reference::entries();
    let mut schema = table(keys::ROOT, &entries);
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("Configuration of fieldbridge"));
    let about = "One file of the configuration: fieldbridge.toml, or one in conf.d beside it. What one key means for \
                 another, and what is missing, is told by `fieldbridge check`.";
    schema.insert("description".into(), json!(about));
    Json::Object(schema)
}

/// A table with the keys of a section.
fn table(section: Section, entries: &[Entry]) -> Map<String, Json> {
    let properties = section.keys.iter().map(|key| ((*key).to_owned(), property(section, key, entries)));
    let mut table = Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), Json::Object(properties.collect())),
        ("additionalProperties".to_owned(), json!(false)),
    ]);
    if section == keys::BUS {
        table.insert("allOf".into(), KINDS.iter().map(|(name, kind)| keys_of(name, kind.section())).collect());
    }
    table
}

/// That a bus of a kind has the keys of that kind and no other.
fn keys_of(kind: &str, section: Section) -> Json {
    json!({
        "if": { "properties": { "kind": { "const": kind } }, "required": ["kind"] },
        "then": { "propertyNames": { "enum": section.keys } },
    })
}

/// What a key may hold, and what the reference says of it.
fn property(section: Section, key: &str, entries: &[Entry]) -> Json {
    let mut property = shape(section, key).map(|shape| value(shape, entries)).unwrap_or_default();
    let said = said(section, key, entries);
    let mut texts: Vec<&str> = said.iter().map(|entry| entry.text.as_str()).collect();
    texts.retain(|text| !text.is_empty() && !text.starts_with("As above"));
    texts.dedup();
    if !texts.is_empty() {
        property.insert("description".into(), json!(texts.join("\n\n")));
    }
    let default = said.first().and_then(|entry| entry.default()).filter(|default| {
        // Where kinds of bus differ, the text says so.
        said.iter().all(|entry| entry.default() == Some(default))
    });
    if let Some(default) = default.and_then(reference::literal).as_ref().and_then(as_json) {
        property.insert("default".into(), default);
    }
    Json::Object(property)
}

/// Where the reference explains a key; of a bus, for each kind.
fn said(section: Section, key: &str, entries: &[Entry]) -> Vec<Entry> {
    let sections = match section == keys::BUS {
        true => KINDS.map(|(_, kind)| kind.section()).to_vec(),
        false => vec![section],
    };
    let with_key = sections.iter().filter(|section| section.keys.contains(&key));
    with_key.filter_map(|section| reference::explained(section, key, entries)).collect()
}

/// What a value of a shape is.
fn value(shape: Shape, entries: &[Entry]) -> Map<String, Json> {
    let byte = || json!({ "type": "integer", "minimum": 0, "maximum": 255 });
    let value = match shape {
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Pair => {
            json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 })
        }
        Shape::Duration => json!({ "type": "string", "pattern": DURATION }),
        Shape::Size => json!({ "type": "string", "pattern": SIZE }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::OneOf(numbers) => json!({ "enum": numbers }),
        Shape::Words(words) => json!({ "type": "array", "items": { "enum": words } }),
        Shape::Texts => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
        Shape::Bytes => json!({ "anyOf": [
            { "type": "string", "minLength": 1 },
            byte(),
            { "type": "array", "items": byte(), "minItems": 1 },
        ] }),
        Shape::Units => {
            json!({ "type": "array", "minItems": 1, "uniqueItems": true,
                    "items": { "type": "integer", "minimum": 1, "maximum": 255 } })
        }
        Shape::Value => json!({ "type": ["boolean", "number", "string", "array"] }),
        Shape::Names => {
            json!({ "type": "object", "minProperties": 1, "additionalProperties": { "type": ["number", "string"] } })
        }
        Shape::Table(section) => return table(section, entries),
        Shape::Tables(section) => json!({
            "type": "object",
            "propertyNames": { "minLength": 1, "maxLength": NAME_CHARS_MAX },
            "additionalProperties": table(section, entries),
        }),
        Shape::List(section) => {
            json!({ "type": "array", "minItems": 1, "maxItems": STEPS_MAX, "items": table(section, entries) })
        }
    };
    match value {
        Json::Object(value) => value,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_shape() {
        for section in keys::SECTIONS.into_iter().chain([keys::BUS]) {
            for key in section.keys {
                assert!(
                    shape(section, key).is_some(),
                    "the schema does not know what {key} of {} holds: say it in src/config/schema/shapes.rs",
                    section.title
                );
            }
        }
    }

    #[test]
    fn a_default_and_a_description_come_from_the_reference() {
        let schema = schema();
        let hub = &schema["properties"]["hub"]["properties"];
        assert_eq!(hub["tls"]["default"], json!(true));
        assert_eq!(hub["connect_rate"]["maximum"], json!(1000));
        assert!(hub["host"]["description"].as_str().is_some_and(|text| text.contains("Required")));
        let bus = &schema["properties"]["bus"]["additionalProperties"]["properties"];
        assert_eq!(bus["retries"]["default"], json!(2));
        // Modbus and lines of text have another.
        assert_eq!(bus["parity"].get("default"), None);
        assert_eq!(bus["response_timeout"].get("default"), None);
    }

    #[test]
    fn the_line_names_the_installed_file() {
        assert_eq!(LINE, format!("#:schema {INSTALLED}"));
    }
}
