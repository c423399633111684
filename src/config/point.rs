//! The tables that `read` and `write` hold, and whether a fixed value fits its point.

use std::ops::RangeInclusive;

use serde_json::Value as Json;

use super::keys;
use super::tree::Table as Section;
use crate::peripheral::registers::{DataType, Order, Point, Table};

const TABLES: [(&str, Table); 4] =
    [("coil", Table::Coil), ("discrete", Table::Discrete), ("holding", Table::Holding), ("input", Table::Input)];

const TYPES: [(&str, DataType); 10] = [
    ("bool", DataType::Bool),
    ("u16", DataType::U16),
    ("i16", DataType::I16),
    ("u32", DataType::U32),
    ("i32", DataType::I32),
    ("u64", DataType::U64),
    ("i64", DataType::I64),
    ("f32", DataType::F32),
    ("f64", DataType::F64),
    ("string", DataType::String),
];

const ORDERS: [(&str, Order); 2] = [("big", Order::Big), ("little", Order::Little)];

/// Reference numbers, five digits and six (Modbus Application Protocol V1.1b3, 4.4, and the custom of vendors).
const REFERENCES: [(RangeInclusive<i64>, Table); 7] = [
    (1..=9_999, Table::Coil),
    (10_001..=19_999, Table::Discrete),
    (30_001..=39_999, Table::Input),
    (40_001..=49_999, Table::Holding),
    (100_001..=165_536, Table::Discrete),
    (300_001..=365_536, Table::Input),
    (400_001..=465_536, Table::Holding),
];

/// The point at `read` or `write`; `None` where something is wrong with it.
pub(super) fn point(command: &Section, key: &str) -> Option<Point> {
    let section = command.table(key, keys::POINT)?;
    let is_write = key == "write";
    let word_order = section.choice("word_order", &ORDERS);
    let byte_order = section.choice("byte_order", &ORDERS);
    let given_kind = section.choice("type", &TYPES);
    let count = section.small::<u16>("count", 1..=2000);
    let scale = section.number("scale");
    let offset = section.number("offset");
    if scale == Some(0.0) {
        section.wrong("scale", "must not be 0: every value would be the same");
    }
    let (table, address) = place(&section);
    let table = table?;
    if is_write && matches!(table, Table::Discrete | Table::Input) {
        let key = ["table", "register"].into_iter().find(|k| section.has(k));
        let why = format!("{} can only be read; write to a coil or a holding register", plural(table));
        section.wrong(key.unwrap_or("table"), why);
    }
    if section.has("type") && given_kind.is_none() {
        return None;
    }
    let default_kind = match table {
        Table::Coil | Table::Discrete => DataType::Bool,
        Table::Holding | Table::Input => DataType::U16,
    };
    let kind = given_kind.unwrap_or(default_kind);
    check_type(&section, table, kind);
    let length = length(&section, table, kind, count.unwrap_or(1), is_write);
    let address = address?;
    check_end(&section, address, length?);
    Some(Point {
        table,
        address,
        kind,
        count,
        word_order: word_order.unwrap_or(Order::Big),
        byte_order: byte_order.unwrap_or(Order::Big),
        scale: scale.unwrap_or(1.0),
        offset: offset.unwrap_or(0.0),
    })
}

/// The point at which a write shows: in `read_back`, where what is not said is as in the write.
pub(super) fn shown_at(section: &Section, write: &Point) -> Option<Point> {
    let word_order = section.choice("word_order", &ORDERS);
    let byte_order = section.choice("byte_order", &ORDERS);
    let given_kind = section.choice("type", &TYPES);
    let count = section.small::<u16>("count", 1..=2000).or(write.count);
    let scale = section.number("scale");
    let offset = section.number("offset");
    if scale == Some(0.0) {
        section.wrong("scale", "must not be 0: every value would be the same");
    }
    let table = section.choice("table", &TABLES);
    let (table, address) = match (section.has("register"), section.has("table"), section.has("address")) {
        (true, ..) | (false, true, true) => place(section),
        (false, true, false) => (table, Some(write.address)),
        (false, false, true) => (Some(write.table), section.small("address", 0..=65_535)),
        (false, false, false) => (Some(write.table), Some(write.address)),
    };
    let table = table?;
    if section.has("type") && given_kind.is_none() {
        return None;
    }
    let is_bits = |table| matches!(table, Table::Coil | Table::Discrete);
    let default_kind = match (is_bits(table), is_bits(write.table)) {
        (true, _) => DataType::Bool,
        (false, true) => DataType::U16,
        (false, false) => write.kind,
    };
    let kind = given_kind.unwrap_or(default_kind);
    check_type(section, table, kind);
    let is_alike = |kind: DataType| (kind == DataType::Bool, kind == DataType::String);
    if is_alike(kind) != is_alike(write.kind) || (count != write.count && kind != DataType::String) {
        let key = ["type", "count", "table", "register"].into_iter().find(|key| section.has(key));
        let why = "reads back something else than the command writes; give both the same kind and number of values";
        section.wrong(key.unwrap_or("table"), why);
    }
    let length = length(section, table, kind, count.unwrap_or(1), false);
    let address = address?;
    check_end(section, address, length?);
    // A scale is that of a register.
    let (as_scale, as_offset) = if is_bits(table) { (1.0, 0.0) } else { (write.scale, write.offset) };
    Some(Point {
        table,
        address,
        kind,
        count,
        word_order: word_order.unwrap_or(write.word_order),
        byte_order: byte_order.unwrap_or(write.byte_order),
        scale: scale.unwrap_or(as_scale),
        offset: offset.unwrap_or(as_offset),
    })
}

/// Table and protocol address, from `table` and `address` or from `register`.
fn place(section: &Section) -> (Option<Table>, Option<u16>) {
    let table = section.choice("table", &TABLES);
    let address = section.small("address", 0..=65_535);
    let register = section.integer("register", 1..=465_536);
    if section.has("address") && section.has("register") {
        section.wrong("register", "stands beside address; both say where: keep one of them");
        return (table, None);
    }
    if section.has("register") {
        let Some((fixed, address)) = register.and_then(|number| reference(section, number)) else {
            return (table, None);
        };
        if table.is_some_and(|table| table != fixed) {
            let why = format!("contradicts register, which is among {}; remove it", plural(fixed));
            section.wrong("table", why);
        }
        return (Some(fixed), Some(address));
    }
    if !section.has("table") {
        section.absent("table", "is missing; it is one of coil, discrete, holding or input");
    }
    if !section.has("address") {
        section.absent("address", "is missing; give the protocol address, from 0, or register, such as 40001");
    }
    if let (Some(table), Some(address)) = (table, address) {
        note_reference(section, table, address);
    }
    (table, address)
}

/// Remarks on an address that looks like a reference number.
fn note_reference(section: &Section, table: Table, address: u16) {
    let looks_like = REFERENCES.iter().find(|(range, of)| {
        // Every address of a coil would look like one.
        *of == table && table != Table::Coil && range.contains(&i64::from(address))
    });
    if let Some((range, _)) = looks_like {
        let why = format!(
            "is a protocol address, from 0; if {address} comes from a manual's list of registers, write register = \
             {address}, which is address {}",
            i64::from(address) - range.start()
        );
        section.note("address", why);
    }
}

fn reference(section: &Section, register: i64) -> Option<(Table, u16)> {
    for (range, table) in REFERENCES {
        if range.contains(&register) {
            return Some((table, u16::try_from(register - range.start()).ok()?));
        }
    }
    let why = format!(
        "{register} is no reference number; they are 1 to 9999 for coils, 10001 to 19999 for discrete inputs, 30001 to \
         39999 for input registers, 40001 to 49999 for holding registers, or of six digits, such as 400001"
    );
    section.wrong("register", why);
    None
}

fn plural(table: Table) -> &'static str {
    match table {
        Table::Coil => "coils",
        Table::Discrete => "discrete inputs",
        Table::Holding => "holding registers",
        Table::Input => "input registers",
    }
}

fn check_type(section: &Section, table: Table, kind: DataType) {
    let is_bits = matches!(table, Table::Coil | Table::Discrete);
    if is_bits && kind != DataType::Bool {
        let why = format!("{} hold single bits; remove it", plural(table));
        section.wrong("type", why);
    }
    if kind == DataType::String && !section.has("count") {
        section.absent("count", "is missing; a string needs its number of registers, two bytes each");
    }
    if matches!(kind, DataType::Bool | DataType::String) {
        for key in ["scale", "offset"] {
            if section.has(key) {
                section.wrong(key, "is for numbers, and this point holds none; remove it");
            }
        }
    }
}

/// Bits or registers of the whole point, if one request of the protocol can carry them (V1.1b3, 6.1 to 6.12).
fn length(section: &Section, table: Table, kind: DataType, count: u16, is_write: bool) -> Option<u32> {
    let is_bits = matches!(table, Table::Coil | Table::Discrete);
    let (most, what) = match (is_bits, is_write) {
        (true, false) => (2000, "bits"),
        (true, true) => (1968, "bits"),
        (false, false) => (125, "registers"),
        (false, true) => (123, "registers"),
    };
    let width = if is_bits { 1 } else { width(kind) };
    let length = u32::from(count) * width;
    if length <= most {
        return Some(length);
    }
    let verb = if is_write { "writes" } else { "reads" };
    let why = format!("makes {length} {what}, and one request {verb} at most {most}; split it");
    section.wrong("count", why);
    None
}

fn check_end(section: &Section, address: u16, length: u32) {
    let last = u32::from(address) + length - 1;
    if last > 65_535 {
        let key = if section.has("register") { "register" } else { "address" };
        let why = format!("it reaches to {last} from here, and the last address is 65535");
        section.wrong(key, why);
    }
}

/// Registers that one value takes; for `string` that is counted in registers already.
fn width(kind: DataType) -> u32 {
    match kind {
        DataType::Bool | DataType::U16 | DataType::I16 | DataType::String => 1,
        DataType::U32 | DataType::I32 | DataType::F32 => 2,
        DataType::U64 | DataType::I64 | DataType::F64 => 4,
    }
}

/// What is wrong with a fixed value for a point, if anything.
pub(super) fn check_fixed(point: &Point, fixed: &Json, range: Option<(f64, f64)>) -> Result<(), String> {
    let count = point.count.filter(|_| point.kind != DataType::String);
    match (count, fixed) {
        (None, Json::Array(_)) => Err("is an array, and the point holds one value; give it a count".into()),
        (None, value) => check_element(point, value, range),
        (Some(count), Json::Array(items)) if items.len() == usize::from(count) => {
            items.iter().try_for_each(|item| check_element(point, item, range))
        }
        (Some(count), Json::Array(items)) => {
            Err(format!("has {} elements, and the point's count is {count}", items.len()))
        }
        (Some(count), _) => Err(format!("must be an array of {count} elements, as the point's count says")),
    }
}

/// What is wrong with a number's place in the range, if anything.
pub(super) fn check_range(number: &Json, range: Option<(f64, f64)>) -> Result<(), String> {
    match (number.as_f64(), range) {
        (Some(number), Some((low, high))) if number < low || number > high => {
            Err(format!("{number} is outside of range, {low} to {high}"))
        }
        _ => Ok(()),
    }
}

fn check_element(point: &Point, value: &Json, range: Option<(f64, f64)>) -> Result<(), String> {
    match (point.kind, value) {
        (DataType::Bool, Json::Bool(_)) => Ok(()),
        (DataType::Bool, _) => Err("must be true or false, as the point holds a bit".into()),
        (DataType::String, Json::String(text)) => {
            let most = usize::from(point.count.unwrap_or(0)) * 2;
            if point.count.is_some() && text.len() > most {
                return Err(format!("has {} bytes, and the point's registers hold {most}", text.len()));
            }
            Ok(())
        }
        (DataType::String, _) => Err("must be a string, as the point holds text".into()),
        (kind, Json::Number(number)) => {
            check_range(value, range)?;
            let number = number.as_f64().unwrap_or(f64::NAN);
            let raw = (number - point.offset) / point.scale;
            let (low, high) = raw_limits(kind);
            // Written so that a NaN, from a scale that was already reported, is refused too.
            if (low..=high).contains(&raw.round()) {
                Ok(())
            } else {
                let name = TYPES.iter().find(|(_, k)| *k == kind).map_or("", |(n, _)| n);
                Err(format!("is {raw} as a raw value, which {name} can't hold"))
            }
        }
        _ => Err("must be a number, as the point holds one".into()),
    }
}

/// Least and greatest raw value. The 64-bit limits are rounded by `f64`; the codec checks them to the last digit.
#[allow(clippy::cast_precision_loss)]
fn raw_limits(kind: DataType) -> (f64, f64) {
    match kind {
        DataType::Bool | DataType::String => (0.0, 0.0),
        DataType::U16 => (0.0, f64::from(u16::MAX)),
        DataType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DataType::U32 => (0.0, f64::from(u32::MAX)),
        DataType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DataType::U64 => (0.0, u64::MAX as f64),
        DataType::I64 => (i64::MIN as f64, i64::MAX as f64),
        DataType::F32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
        DataType::F64 => (f64::MIN, f64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holding(kind: DataType, count: Option<u16>, scale: f64) -> Point {
        Point {
            table: Table::Holding,
            address: 0,
            kind,
            count,
            word_order: Order::Big,
            byte_order: Order::Big,
            scale,
            offset: 0.0,
        }
    }

    #[test]
    fn a_fixed_value_that_fits_its_point_is_accepted() {
        for (point, value) in [
            (holding(DataType::U16, None, 1.0), json!(65535)),
            (holding(DataType::U16, None, 0.1), json!(6553.5)),
            (holding(DataType::I16, None, -1.0), json!(32768)),
            (holding(DataType::U64, None, 1.0), json!(i64::MAX)),
            (holding(DataType::F32, None, 1.0), json!(-1e38)),
            (holding(DataType::U16, Some(2), 1.0), json!([1, 2])),
            (holding(DataType::Bool, None, 1.0), json!(true)),
            (holding(DataType::String, Some(2), 1.0), json!("abcd")),
        ] {
            assert_eq!(check_fixed(&point, &value, None), Ok(()), "{value}");
        }
    }

    #[test]
    fn a_fixed_value_that_does_not_fit_its_point_is_told_why() {
        let single = holding(DataType::U16, None, 1.0);
        let scaled = holding(DataType::U16, None, 0.1);
        let float = holding(DataType::F32, None, 1.0);
        let array = holding(DataType::U16, Some(2), 1.0);
        let flag = holding(DataType::Bool, None, 1.0);
        let text = holding(DataType::String, Some(2), 1.0);
        for (point, value, fragment) in [
            (&single, json!(65536), "u16 can't hold"),
            (&single, json!(-1), "u16 can't hold"),
            (&single, json!(true), "must be a number"),
            (&single, json!("1"), "must be a number"),
            (&single, json!([1]), "give it a count"),
            (&scaled, json!(6554), "u16 can't hold"),
            (&float, json!(1e39), "f32 can't hold"),
            (&array, json!([1]), "1 elements"),
            (&array, json!(1), "array of 2"),
            (&array, json!([1, -1]), "u16 can't hold"),
            (&flag, json!(1), "true or false"),
            (&text, json!("abcde"), "5 bytes"),
            (&text, json!(1), "must be a string"),
        ] {
            let why = check_fixed(point, &value, None).unwrap_err();
            assert!(why.contains(fragment), "{value}: {why}");
        }
        let why = check_fixed(&single, &json!(3), Some((0.0, 2.0))).unwrap_err();
        assert!(why.contains("outside of range"), "{why}");
    }

    #[test]
    fn reference_numbers_do_not_overlap_and_stay_within_the_address_space() {
        for (i, (range, _)) in REFERENCES.iter().enumerate() {
            assert!(range.end() - range.start() <= 65_535);
            for (other, _) in &REFERENCES[i + 1..] {
                assert!(range.end() < other.start());
            }
        }
    }
}
