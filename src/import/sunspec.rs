//! SunSpec models as they are published: JSON with a group of points (SunSpec Device Information Model Specification
//! 1.1, 4 for types and their values for what is not implemented, 6 for scale factors). Pure.
//!
//! A model lies in holding registers from an address that only the device knows. Its points follow one another, so each
//! address is known from that of the model's first register, up to the first group that repeats as the device likes.

use super::document::Node;
use super::draft::{comment, number, place, values, Command, Draft, Key};
use super::{fault, Fault};
use crate::peripheral::registers::Table;

/// The first registers of a model: its number and its length, which say nothing of the machine.
const HEAD: [&str; 2] = ["ID", "L"];
/// Groups that are repeated a fixed number of times are written out up to this.
const REPEATS_MAX: i64 = 100;
/// Registers that one point may have: a text.
const REGISTERS_MAX: i64 = 125;
/// Powers of ten that SunSpec allows.
const POWERS: std::ops::RangeInclusive<i64> = -10..=10;

/// What a type is: how many registers, the type here, and the bits for a value that is not implemented.
struct Type {
    registers: i64,
    kind: Option<&'static str>,
    unavailable: Option<i64>,
}

fn type_of(name: &str) -> Option<Type> {
    let (registers, kind, unavailable) = match name {
        "int16" => (1, Some("i16"), Some(0x8000)),
        "uint16" | "enum16" => (1, Some("u16"), Some(0xFFFF)),
        "acc16" | "bitfield16" | "count" => (1, Some("u16"), None),
        "int32" => (2, Some("i32"), Some(0x8000_0000)),
        "uint32" | "enum32" => (2, Some("u32"), Some(0xFFFF_FFFF)),
        "acc32" | "bitfield32" => (2, Some("u32"), None),
        "int64" => (4, Some("i64"), Some(i64::MIN)),
        "uint64" => (4, Some("u64"), Some(-1)),
        "acc64" | "bitfield64" => (4, Some("u64"), None),
        "float32" => (2, Some("f32"), Some(0x7FC0_0000)),
        "float64" => (4, Some("f64"), Some(0x7FF8_0000_0000_0000)),
        "string" => (1, Some("string"), None),
        "ipaddr" => (2, None, None),
        "ipv6addr" => (8, None, None),
        "eui48" => (4, None, None),
        "sunssf" | "pad" => (1, None, None),
        _ => return None,
    };
    Some(Type { registers, kind, unavailable })
}

/// A point with its place.
struct Placed<'a> {
    node: &'a Node,
    /// Of it and of the groups around it.
    name: String,
    /// The type's name.
    kind: &'a str,
    address: i64,
    registers: i64,
}

/// The points so far, and where the next one lies.
struct Walk<'a> {
    points: Vec<Placed<'a>>,
    next: i64,
    /// Where addresses end to be known, and why.
    unknown: Option<String>,
}

/// Makes commands of a model's points.
pub(super) fn model(root: &Node, base: u16, draft: &mut Draft) -> Result<(), Fault> {
    let Some(group) = root.get("group") else {
        return Err(fault(root, "is no SunSpec model: it has no \"group\"", "take a file such as model_103.json"));
    };
    let id = root.get("id").and_then(Node::integer);
    let name = group.get("name").and_then(Node::text).unwrap_or("model");
    let (id_text, id_name) = id.map_or((String::new(), String::new()), |id| (format!(" {id}"), format!("-{id}")));
    draft.name = format!("sunspec{id_name}-{name}");
    let label = group.any(&["label", "desc"]).and_then(Node::text).unwrap_or(name);
    draft
        .about
        .push(format!("From SunSpec model{id_text} ({}), with its first register at address {base}.", comment(label)));
    let mut walk = Walk { points: Vec::new(), next: i64::from(base), unknown: None };
    points_of(group, "", &mut walk, draft)?;
    let points = &walk.points;
    for (at, point) in points.iter().enumerate() {
        if HEAD.contains(&&*point.name) && at < HEAD.len() || matches!(point.kind, "sunssf" | "pad") {
            continue;
        }
        commands(point, points, draft);
    }
    Ok(())
}

fn points_of<'a>(group: &'a Node, within: &str, walk: &mut Walk<'a>, draft: &mut Draft) -> Result<(), Fault> {
    for node in group.get("points").map(Node::items).unwrap_or_default() {
        let Some(name) = node.get("name").and_then(Node::text) else {
            return Err(fault(node, "a point has no \"name\"", "correct it there"));
        };
        let kind = node.get("type").and_then(Node::text).unwrap_or_default();
        let Some(known) = type_of(kind) else {
            let why = format!("the point {name:?} has the type {:?}, which SunSpec does not know", comment(kind));
            return Err(fault(node, why, "without it, nobody knows where the points behind it lie; correct it"));
        };
        let registers = match node.get("size").and_then(Node::integer) {
            None if kind == "string" => {
                return Err(fault(node, format!("the text {name:?} has no \"size\""), "write its registers"));
            }
            size => size.unwrap_or(known.registers),
        };
        if !(1..=REGISTERS_MAX).contains(&registers) {
            return Err(fault(node, format!("the point {name:?} has {registers} registers"), "correct its \"size\""));
        }
        let full = format!("{within}{name}");
        if node.get("count").is_some_and(|count| count.integer() != Some(1)) {
            walk.unknown.get_or_insert(format!("it lies behind {full}, of which there are as many as the device has"));
        }
        match &walk.unknown {
            Some(why) => draft.leave_out(node.line, &full, why),
            None => walk.points.push(Placed { node, name: full, kind, address: walk.next, registers }),
        }
        walk.next += registers;
    }
    for inner in group.get("groups").map(Node::items).unwrap_or_default() {
        let name = inner.get("name").and_then(Node::text).unwrap_or("group");
        let count = match inner.get("count") {
            None => Some(1),
            Some(count) => count.integer().filter(|count| (1..=REPEATS_MAX).contains(count)),
        };
        let Some(count) = count else {
            let why = "it is there as often as the device says, so its addresses can't be known; write those that you \
                       need by hand";
            draft.leave_out(inner.line, &format!("group {within}{name}"), why);
            walk.unknown.get_or_insert(format!("it lies behind the group {name}, whose length only the device knows"));
            continue;
        };
        for n in 1..=count {
            let within = if count == 1 { format!("{within}{name}-") } else { format!("{within}{name}-{n}-") };
            points_of(inner, &within, walk, draft)?;
        }
    }
    Ok(())
}

/// The commands of one point: to read it, and to write it where it may be written.
fn commands(point: &Placed<'_>, points: &[Placed<'_>], draft: &mut Draft) {
    let (node, name) = (point.node, &point.name);
    let Some(Type { kind: Some(kind), unavailable, .. }) = type_of(point.kind) else {
        return draft.leave_out(node.line, name, format!("a profile has no type for {}", point.kind));
    };
    let Ok(address) = u16::try_from(point.address) else {
        return draft.leave_out(node.line, name, "it lies beyond address 65535; is --base right?");
    };
    let scale = match scale(point, points) {
        Ok(scale) => scale,
        Err(why) => return draft.leave_out(node.line, name, why),
    };
    let mut keys = place(Table::Holding, address);
    keys.push(("type", format!("{kind:?}")));
    if kind == "string" {
        keys.push(("count", point.registers.to_string()));
    }
    keys.extend(scale);
    let symbols = node.get("symbols").map(Node::items).unwrap_or_default();
    let named: Vec<(String, i64)> = symbols
        .iter()
        .filter_map(|symbol| Some((symbol.get("name")?.text()?.to_owned(), symbol.get("value")?.integer()?)))
        .collect();
    let is_enum = point.kind.starts_with("enum");
    let mut beside: Vec<Key> = Vec::new();
    if is_enum && !named.is_empty() {
        beside.push(values(&named));
    }
    beside.extend(unavailable.map(|bits| ("unavailable", bits.to_string())));
    let mut about = vec![said(node)];
    if !is_enum && !named.is_empty() {
        let bits: Vec<String> = named.iter().map(|(name, bit)| format!("{bit} {name}")).collect();
        about.push(comment(&format!("Bits, from 0: {}.", bits.join(", "))));
    }
    about.retain(|line| !line.is_empty());
    let access = node.get("access").and_then(Node::text).unwrap_or("R").to_ascii_uppercase();
    for (verb, word, is_there) in [("read", "read", access.contains('R')), ("write", "set", access.contains('W'))] {
        if is_there {
            let name = format!("{word}-{name}");
            let (line, about) = (node.line, about.clone());
            draft.add(Command { name, line, about, verb, point: keys.clone(), beside: beside.clone() });
        }
    }
}

/// What a point is multiplied by, if by anything.
fn scale(point: &Placed<'_>, points: &[Placed<'_>]) -> Result<Option<Key>, String> {
    let Some(factor) = point.node.get("sf") else { return Ok(None) };
    if let Some(power) = factor.integer() {
        if !POWERS.contains(&power) {
            return Err(format!("its scale factor {power} is not one of -10 to 10"));
        }
        // By its decimal digits: a power that is multiplied out would not be the nearest number.
        let scale = format!("1e{power}").parse().unwrap_or(1.0);
        return Ok(Some(("scale", number(scale))).filter(|_| power != 0));
    }
    let name = factor.text().unwrap_or_default();
    // Of its own group first, then of those around it.
    let groups = point.name.rmatch_indices('-').map(|(at, _)| &point.name[..=at]).chain([""]);
    let mut wanted = groups.map(|group| format!("{group}{name}"));
    let found = wanted.find_map(|wanted| points.iter().find(|other| other.name == wanted && other.kind == "sunssf"));
    match found.map(|found| u16::try_from(found.address)) {
        Some(Ok(address)) => Ok(Some(("scale_register", format!("{{ address = {address} }}")))),
        Some(Err(_)) => Err("its scale factor lies beyond address 65535; is --base right?".to_owned()),
        None => Err(format!("its scale factor {:?} is not in the model", comment(name))),
    }
}

/// What the model says of a point.
fn said(node: &Node) -> String {
    let text = |key: &str| node.get(key).and_then(Node::text).map(str::trim).filter(|text| !text.is_empty());
    let what = text("desc").or_else(|| text("label")).unwrap_or_default().trim_end_matches('.');
    let line = match (what, text("units")) {
        ("", None) => return String::new(),
        ("", Some(units)) => format!("{units}."),
        (what, Some(units)) => format!("{what}, in {units}."),
        (what, None) => format!("{what}."),
    };
    comment(&line)
}
