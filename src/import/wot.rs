//! Thing Descriptions of the Web of Things (W3C, Thing Description 1.1) with forms of the Modbus binding (W3C, WoT
//! Modbus Binding): its terms stand under the prefix `modv` or `modbus`. Pure.
//!
//! What a form does not say is as the binding has it: addresses count from 1 unless `zeroBasedAddressing` is true, the
//! most significant register and byte come first, and numbers have a sign.

use super::document::Node;
use super::draft::{comment, number, place, Command, Draft, Key};
use super::{fault, Fault};
use crate::peripheral::registers::Table;

const SCHEMES: [&str; 4] = ["modbus+tcp://", "modbus+rtu://", "modbus+ascii://", "modbus://"];
const PREFIXES: [&str; 2] = ["modv", "modbus"];

/// Functions by name and number, the table that each is of, and whether it writes.
const FUNCTIONS: [(&str, i64, Table, bool); 10] = [
    ("readCoil", 1, Table::Coil, false),
    ("readDiscreteInput", 2, Table::Discrete, false),
    ("readHoldingRegisters", 3, Table::Holding, false),
    ("readHoldingRegister", 3, Table::Holding, false),
    ("readInputRegisters", 4, Table::Input, false),
    ("readInputRegister", 4, Table::Input, false),
    ("writeSingleCoil", 5, Table::Coil, true),
    ("writeSingleHoldingRegister", 6, Table::Holding, true),
    ("writeMultipleCoils", 15, Table::Coil, true),
    ("writeMultipleHoldingRegisters", 16, Table::Holding, true),
];

const ENTITIES: [(&str, Table); 4] = [
    ("Coil", Table::Coil),
    ("DiscreteInput", Table::Discrete),
    ("HoldingRegister", Table::Holding),
    ("InputRegister", Table::Input),
];

/// Types of the binding that say everything, and the registers of one value.
const TYPES: [(&str, &str, i64); 9] = [
    ("xsd:short", "i16", 1),
    ("xsd:unsignedShort", "u16", 1),
    ("xsd:int", "i32", 2),
    ("xsd:unsignedInt", "u32", 2),
    ("xsd:long", "i64", 4),
    ("xsd:unsignedLong", "u64", 4),
    ("xsd:float", "f32", 2),
    ("xsd:double", "f64", 4),
    ("xsd:string", "string", 1),
];

/// Makes commands of a thing's properties and actions.
pub(super) fn thing(root: &Node, draft: &mut Draft) -> Result<(), Fault> {
    if root.any(&["properties", "actions"]).is_none() {
        let why = "is no Thing Description: it has neither \"properties\" nor \"actions\"";
        return Err(fault(root, why, "take the thing's own description"));
    }
    let title = root.any(&["title", "id"]).and_then(Node::text).unwrap_or("thing");
    draft.name = title.to_owned();
    draft.about.push(format!("From the Thing Description {:?}.", comment(title)));
    draft.about.extend(root.get("description").and_then(Node::text).map(comment));
    let base = root.get("base").and_then(Node::text).unwrap_or_default();
    let mut unit = None;
    for (of, word) in [("properties", "property"), ("actions", "action")] {
        for (name, affordance) in root.get(of).map(Node::entries).unwrap_or_default() {
            let what = format!("{word} {name}");
            for form in affordance.get("forms").map(Node::items).unwrap_or_default() {
                let thing = Affordance { name, node: affordance, is_action: of == "actions" };
                if let Err(why) = commands(&thing, form, base, &mut unit, draft) {
                    draft.leave_out(form.line, &what, why);
                }
            }
        }
    }
    for (name, event) in root.get("events").map(Node::entries).unwrap_or_default() {
        draft.leave_out(event.line, &format!("event {name}"), "Modbus knows no events");
    }
    if let Some(unit) = unit {
        draft.about.push(format!("Its device has the unit {unit}."));
    }
    Ok(())
}

/// A property or an action.
struct Affordance<'a> {
    name: &'a str,
    node: &'a Node,
    is_action: bool,
}

/// The commands of one form.
fn commands(
    thing: &Affordance<'_>,
    form: &Node,
    base: &str,
    unit: &mut Option<i64>,
    draft: &mut Draft,
) -> Result<(), String> {
    let href = Href::of(form, base)?;
    let own = href.unit.or_else(|| term(form, "unitID").and_then(Node::integer)).unwrap_or(1);
    match unit {
        Some(other) if *other != own => return Err(format!("it is of unit {own}: make another profile of that")),
        _ => *unit = Some(own),
    }
    let (reads, writes) = operations(thing, form)?;
    let schema = if thing.is_action { thing.node.get("input") } else { Some(thing.node) };
    let schema = schema.ok_or("it takes no input, so nobody knows what is to be written")?;
    let (table, of_function) = table(form)?;
    let point = point(form, schema, &href, table)?;
    let said = thing.node.any(&["description", "title"]).and_then(Node::text);
    let mut about: Vec<String> = said.map(comment).into_iter().collect();
    about.extend(schema.get("unit").and_then(Node::text).map(|unit| comment(&format!("In {unit}."))));
    about.extend(schema.get("enum").map(|allowed| {
        let words: Vec<&str> = allowed.items().iter().filter_map(Node::text).collect();
        comment(&format!("The description allows only {}: values can say so, with a name for each.", words.join(", ")))
    }));
    for (verb, word, is_meant) in [("read", "read", reads), ("write", "set", writes)] {
        // A function says what it does, whatever the operations are.
        if !is_meant || of_function.is_some_and(|writes| writes != (verb == "write")) {
            continue;
        }
        let mut beside: Vec<Key> = Vec::new();
        if verb == "write" {
            beside.extend(limits(schema));
        }
        let name = if thing.is_action { thing.name.to_owned() } else { format!("{word}-{}", thing.name) };
        let (line, about) = (form.line, about.clone());
        draft.add(Command { name, line, about, verb, point: point.clone(), beside });
    }
    Ok(())
}

/// A term of the binding, under either of its prefixes.
fn term<'a>(form: &'a Node, name: &str) -> Option<&'a Node> {
    PREFIXES.iter().find_map(|prefix| form.get(&format!("{prefix}:{name}")))
}

/// What a form's address says.
struct Href {
    unit: Option<i64>,
    address: Option<i64>,
    quantity: Option<i64>,
}

impl Href {
    fn of(form: &Node, base: &str) -> Result<Href, String> {
        let href = form.get("href").and_then(Node::text).unwrap_or_default();
        let is_absolute = href.contains("://");
        let whole = if is_absolute { href.to_owned() } else { format!("{base}{href}") };
        let rest = SCHEMES.iter().find_map(|scheme| whole.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| format!("its form {:?} is not of Modbus", comment(&whole)))?;
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{:?} is not a number", comment(text)));
        let of_query = |names: [&str; 2]| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| names.contains(name)).map(|(_, value)| number(value)).transpose()
        };
        let (offset, quantity) = (of_query(["offset", "address"])?, of_query(["quantity", "length"])?);
        let unit = parts.next().map(number).transpose()?;
        let address = parts.next().map(number).transpose()?.or(offset);
        Ok(Href { unit, address, quantity })
    }
}

/// Whether a form reads, and whether it writes.
fn operations(thing: &Affordance<'_>, form: &Node) -> Result<(bool, bool), String> {
    let flag = |key: &str| thing.node.get(key).and_then(Node::flag).unwrap_or(false);
    let names: Vec<&str> = match form.get("op") {
        Some(op) => op.items().iter().filter_map(Node::text).collect(),
        None if thing.is_action => vec!["invokeaction"],
        None => vec!["readproperty", "writeproperty"],
    };
    let has = |name: &str| names.contains(&name);
    let reads = has("readproperty") && !flag("writeOnly");
    let writes = has("writeproperty") && !flag("readOnly") || has("invokeaction");
    match reads || writes {
        true => Ok((reads, writes)),
        false => Err(format!("a profile has no command for {}", comment(&names.join(", ")))),
    }
}

/// The table, and whether the form's function writes, where it has one and nothing wider.
fn table(form: &Node) -> Result<(Table, Option<bool>), String> {
    if let Some(entity) = term(form, "entity") {
        let name = entity.text().unwrap_or_default();
        let known = ENTITIES.iter().find(|(known, _)| *known == name);
        return known.map(|(_, table)| (*table, None)).ok_or_else(|| format!("there is no entity {:?}", comment(name)));
    }
    let Some(function) = term(form, "function") else {
        return Err("it says neither modv:entity nor modv:function".to_owned());
    };
    let name = function.text().unwrap_or_default();
    let known = FUNCTIONS.iter().find(|(known, number, ..)| *known == name || function.integer() == Some(*number));
    let known = known.ok_or_else(|| format!("a profile has no function {:?}", comment(name)))?;
    Ok((known.2, Some(known.3)))
}

/// The keys of a form's point.
fn point(form: &Node, schema: &Node, href: &Href, table: Table) -> Result<Vec<Key>, String> {
    let of_term = |name: &str| term(form, name).and_then(Node::integer);
    let given = href.address.or_else(|| of_term("address")).or_else(|| of_term("offset"));
    let given = given.ok_or("it has no address")?;
    let is_from_0 = term(form, "zeroBasedAddressing").and_then(Node::flag).unwrap_or(false);
    let address = if is_from_0 { given } else { given - 1 };
    let address =
        u16::try_from(address).map_err(|_| format!("its address {given} is none from {}", u8::from(!is_from_0)))?;
    let quantity = href.quantity.or_else(|| of_term("quantity")).or_else(|| of_term("length"));
    let mut keys = place(table, address);
    let (kind, words) = match matches!(table, Table::Coil | Table::Discrete) {
        true => (None, 1),
        false => kind(form, schema, quantity)?,
    };
    keys.extend(kind.map(|kind| ("type", format!("{kind:?}"))));
    let quantity = quantity.unwrap_or(words);
    if quantity < words || quantity % words != 0 {
        return Err(format!("its {quantity} registers hold no whole number of values of {words}"));
    }
    let is_list = schema.get("type").and_then(Node::text) == Some("array");
    let count = quantity / words;
    if kind == Some("string") || is_list || count > 1 {
        keys.push(("count", count.to_string()));
    }
    keys.extend(order(form)?.filter(|_| kind.is_some_and(|kind| kind != "string") && words > 1));
    Ok(keys)
}

/// The type of a register's value, and how many registers it takes.
fn kind(form: &Node, schema: &Node, quantity: Option<i64>) -> Result<(Option<&'static str>, i64), String> {
    let named = term(form, "type").and_then(Node::text).unwrap_or_default();
    if let Some((_, kind, words)) = TYPES.iter().find(|(known, ..)| *known == named) {
        return Ok((Some(kind), *words));
    }
    let mut value = schema;
    if schema.get("type").and_then(Node::text) == Some("array") {
        value = schema.get("items").ok_or("it is a list of nobody knows what")?;
    }
    let is_list = !std::ptr::eq(value, schema);
    let of_schema = value.get("type").and_then(Node::text).unwrap_or_default();
    let what = if ["", "xsd:decimal"].contains(&named) { of_schema } else { named };
    let is_unsigned = value.get("minimum").and_then(Node::number).is_some_and(|least| least >= 0.0);
    let registers = if is_list { 1 } else { quantity.unwrap_or(1) };
    let found = match (what, registers, is_unsigned) {
        ("boolean" | "xsd:boolean", ..) => ("bool", 1),
        ("string", ..) => ("string", 1),
        ("integer" | "xsd:integer", 1, true) => ("u16", 1),
        ("integer" | "xsd:integer", 1, false) => ("i16", 1),
        ("integer" | "xsd:integer", 2, true) => ("u32", 2),
        ("integer" | "xsd:integer", 2, false) => ("i32", 2),
        ("integer" | "xsd:integer", 4, true) => ("u64", 4),
        ("integer" | "xsd:integer", 4, false) => ("i64", 4),
        ("number", 2, _) => ("f32", 2),
        ("number", 4, _) => ("f64", 4),
        _ => return Err(format!("a profile has no type {:?} in {registers} registers", comment(what))),
    };
    Ok((Some(found.0), found.1))
}

/// How the bytes of a number lie.
fn order(form: &Node) -> Result<Option<Key>, String> {
    let content = form.get("contentType").and_then(Node::text).unwrap_or_default();
    let sequence = content.split(';').find_map(|part| part.trim().strip_prefix("byteSeq="));
    let is_first = |name: &str| term(form, name).and_then(Node::flag).unwrap_or(true);
    let order = match sequence {
        Some("BIG_ENDIAN") => "ABCD",
        Some("LITTLE_ENDIAN") => "DCBA",
        Some("BIG_ENDIAN_BYTE_SWAP") => "BADC",
        Some("LITTLE_ENDIAN_BYTE_SWAP") => "CDAB",
        Some(other) => return Err(format!("its byteSeq {:?} is none that is known", comment(other))),
        None => match (is_first("mostSignificantWord"), is_first("mostSignificantByte")) {
            (true, true) => "ABCD",
            (false, true) => "CDAB",
            (true, false) => "BADC",
            (false, false) => "DCBA",
        },
    };
    Ok(Some(("order", format!("{order:?}"))).filter(|_| order != "ABCD"))
}

fn limits(schema: &Node) -> Option<Key> {
    let of = |key: &str| schema.get(key).and_then(Node::number).map(number);
    Some(("range", format!("[{}, {}]", of("minimum")?, of("maximum")?)))
}
