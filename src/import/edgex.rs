//! Device profiles of EdgeX for its Modbus service: `deviceResources` with the attributes `primaryTable`,
//! `startingAddress` and `rawType`, as device-modbus 2 to 4 take them, and `properties.value` as version 1 did. Pure.

use super::document::{others, Node};
use super::draft::{comment, number, place, values, Command, Draft, Key};
use super::{fault, Fault};
use crate::peripheral::registers::Table;

/// The tables by EdgeX's names.
const TABLES: [(&str, Table); 5] = [
    ("COILS", Table::Coil),
    ("DISCRETES_INPUT", Table::Discrete),
    ("DISCRETE_INPUTS", Table::Discrete),
    ("INPUT_REGISTERS", Table::Input),
    ("HOLDING_REGISTERS", Table::Holding),
];

/// The types by EdgeX's names, in small letters, and how many registers they take.
const TYPES: [(&str, &str, u8); 10] = [
    ("bool", "bool", 1),
    ("int16", "i16", 1),
    ("uint16", "u16", 1),
    ("int32", "i32", 2),
    ("uint32", "u32", 2),
    ("float32", "f32", 2),
    ("int64", "i64", 4),
    ("uint64", "u64", 4),
    ("float64", "f64", 4),
    ("string", "string", 1),
];

/// What is understood of a resource's attributes and properties. What else stands there is told.
const ATTRIBUTES: [&str; 7] =
    ["primaryTable", "startingAddress", "rawType", "isByteSwap", "isWordSwap", "stringRegisterSize", "description"];
const PROPERTIES: [&str; 15] = [
    "valueType",
    "type",
    "readWrite",
    "scale",
    "offset",
    "minimum",
    "maximum",
    "units",
    "defaultValue",
    "mediaType",
    "size",
    "floatEncoding",
    "base",
    "mask",
    "shift",
];

/// Makes commands of a profile's resources.
pub(super) fn profile(root: &Node, draft: &mut Draft) -> Result<(), Fault> {
    let Some(resources) = root.get("deviceResources") else {
        let why = "is not a device profile of EdgeX: it has no \"deviceResources\"";
        return Err(fault(root, why, "take the profile, and not the list of devices"));
    };
    let text = |key: &str| root.get(key).and_then(Node::text);
    let name = text("name").unwrap_or("edgex");
    draft.name = name.to_owned();
    draft.about.push(format!("From the EdgeX device profile {:?}.", comment(name)));
    draft.about.extend(text("description").map(comment).filter(|said| !said.is_empty()));
    for resource in resources.items() {
        let name = resource.get("name").and_then(Node::text).unwrap_or("unnamed");
        if let Err(why) = resource_of(root, resource, name, draft) {
            draft.leave_out(resource.line, name, why);
        }
    }
    for command in root.get("deviceCommands").map(Node::items).unwrap_or_default() {
        let operations = command.get("resourceOperations").map_or(0, |all| all.items().len());
        if operations > 1 {
            let name = command.get("name").and_then(Node::text).unwrap_or("unnamed");
            let why = "it is several resources at once, and each of them is a command of its own here";
            draft.leave_out(command.line, &format!("device command {name}"), why);
        }
    }
    Ok(())
}

/// The commands of one resource.
fn resource_of(root: &Node, resource: &Node, name: &str, draft: &mut Draft) -> Result<(), String> {
    let attributes = resource.get("attributes").ok_or("it has no attributes, so nobody knows where it lies")?;
    let properties = resource.get("properties").ok_or("it has no properties, so nobody knows what it is")?;
    // Version 1 had them one level deeper.
    let value = properties.get("value").filter(|value| !value.entries().is_empty()).unwrap_or(properties);
    let table = table(attributes)?;
    let (kind, words) = kind(attributes, value)?;
    let mut keys = place(table, address(attributes)?);
    let is_bits = matches!(table, Table::Coil | Table::Discrete);
    if !is_bits {
        keys.push(("type", format!("{kind:?}")));
    } else if kind != "bool" {
        return Err(format!("it is of the type {kind}, and lies among single bits"));
    }
    if kind == "string" {
        let size = attributes.get("stringRegisterSize").and_then(Node::integer);
        keys.push(("count", size.ok_or("a text needs its stringRegisterSize")?.to_string()));
    }
    keys.extend(order(attributes, kind, words)?);
    let is_number = !matches!(kind, "bool" | "string");
    for (key, none) in [("scale", 1.0), ("offset", 0.0)] {
        let factor = factor(value, key)?.filter(|factor| *factor != none);
        if let Some(factor) = factor.filter(|_| is_number) {
            keys.push((key, number(factor)));
        }
    }
    untold(value)?;
    let mut beside: Vec<Key> = Vec::new();
    beside.extend(mapped(root, name)?.map(|names| values(&names)));
    let mut about: Vec<String> = resource.get("description").and_then(Node::text).map(comment).into_iter().collect();
    let units = properties.get("units").and_then(|units| units.text().or_else(|| units.get("defaultValue")?.text()));
    about.extend(units.filter(|units| !units.trim().is_empty()).map(|units| comment(&format!("In {units}."))));
    for (what, node, known) in [("attribute", attributes, &ATTRIBUTES[..]), ("property", value, &PROPERTIES)] {
        for other in others(node, known) {
            about.push(comment(&format!("Its {what} {other:?} is not known here, and was passed over.")));
        }
    }
    let access = value.get("readWrite").and_then(Node::text).unwrap_or("R").to_ascii_uppercase();
    // Names are the narrower limits.
    let limits = if is_number && beside.is_empty() { limits(value)? } else { None };
    for (verb, word, is_there) in [("read", "read", access.contains('R')), ("write", "set", access.contains('W'))] {
        if !is_there {
            continue;
        }
        let mut beside = beside.clone();
        if let Some((low, high)) = limits.filter(|_| verb == "write") {
            beside.push(("range", format!("[{}, {}]", number(low), number(high))));
        }
        let (name, line, about) = (format!("{word}-{name}"), resource.line, about.clone());
        draft.add(Command { name, line, about, verb, point: keys.clone(), beside });
    }
    Ok(())
}

fn table(attributes: &Node) -> Result<Table, String> {
    let name = attributes.get("primaryTable").and_then(Node::text).ok_or("it has no primaryTable: is it of Modbus?")?;
    let upper = name.trim().to_ascii_uppercase();
    let known = TABLES.iter().find(|(known, _)| *known == upper);
    known
        .map(|(_, table)| *table)
        .ok_or_else(|| format!("its primaryTable {:?} is not a table of Modbus", comment(name)))
}

fn address(attributes: &Node) -> Result<u16, String> {
    let given = attributes.get("startingAddress").ok_or("it has no startingAddress")?;
    let address = given.integer().and_then(|address| u16::try_from(address).ok());
    let shown = || comment(given.text().unwrap_or_default());
    address.ok_or_else(|| format!("its startingAddress {:?} is not a number from 0 to 65535", shown()))
}

fn kind(attributes: &Node, value: &Node) -> Result<(&'static str, u8), String> {
    let raw = attributes.get("rawType").or_else(|| value.any(&["valueType", "type"]));
    let name = raw.and_then(Node::text).ok_or("it has no valueType")?;
    let lower = name.trim().to_ascii_lowercase();
    let known = TYPES.iter().find(|(known, ..)| *known == lower);
    known.map(|(_, kind, words)| (*kind, *words)).ok_or_else(|| format!("a profile has no type {:?}", comment(name)))
}

/// How the registers of a number lie.
fn order(attributes: &Node, kind: &str, words: u8) -> Result<Option<Key>, String> {
    let swapped = |key: &str| match attributes.get(key) {
        None => Ok(false),
        Some(node) => node.flag().ok_or_else(|| format!("its {key} is neither true nor false")),
    };
    let order = match (swapped("isWordSwap")?, swapped("isByteSwap")?) {
        (false, false) => return Ok(None),
        (true, false) => "CDAB",
        (false, true) => "BADC",
        (true, true) => "DCBA",
    };
    match words {
        2 => Ok(Some(("order", format!("{order:?}")))),
        _ => Err(format!("it is swapped, which EdgeX means for two registers, and {kind} has {words}")),
    }
}

/// A scale or an offset.
fn factor(value: &Node, key: &str) -> Result<Option<f64>, String> {
    let Some(given) = value.get(key).filter(|given| given.text() != Some("")) else { return Ok(None) };
    given.number().map(Some).ok_or_else(|| format!("its {key} is not a number"))
}

/// What changes a value on its way in EdgeX, and has no like here.
fn untold(value: &Node) -> Result<(), String> {
    for (key, none) in [("mask", 0.0), ("shift", 0.0), ("base", 0.0)] {
        if factor(value, key)?.is_some_and(|given| given != none) {
            return Err(format!("its {key} has no like in a profile: without it, another value would be read"));
        }
    }
    Ok(())
}

fn limits(value: &Node) -> Result<Option<(f64, f64)>, String> {
    Ok(factor(value, "minimum")?.zip(factor(value, "maximum")?))
}

/// The names that device commands give a resource's values, if they all give the same.
fn mapped(root: &Node, resource: &str) -> Result<Option<Vec<(String, i64)>>, String> {
    let commands = root.get("deviceCommands").map(Node::items).unwrap_or_default();
    let operations = commands.iter().filter_map(|command| command.get("resourceOperations")).flat_map(Node::items);
    let own = operations.filter(|operation| operation.get("deviceResource").and_then(Node::text) == Some(resource));
    let mut found: Option<Vec<(String, i64)>> = None;
    for mappings in own.filter_map(|operation| operation.get("mappings")) {
        let entries = mappings.entries().iter().map(|(value, name)| {
            let number = match &*value.to_ascii_lowercase() {
                "true" => Some(1),
                "false" => Some(0),
                other => other.parse().ok(),
            };
            Some((name.text()?.to_owned(), number?))
        });
        let names: Option<Vec<(String, i64)>> = entries.collect();
        let names = names.ok_or("its mappings are of something else than numbers")?;
        if found.as_ref().is_some_and(|found| *found != names) {
            return Err("two device commands give its values different names".to_owned());
        }
        found = Some(names).filter(|names| !names.is_empty());
    }
    Ok(found)
}
