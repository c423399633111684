//! The tables that `read` and `write` hold.

use std::ops::RangeInclusive;

use super::keys;
use super::tree::Table as Section;
use crate::peripheral::registers::{DataType, Encoding, Order, Pad, Point, ScaleRegister, Table, BITS_READ_MAX};

/// The tables by their names.
pub const TABLES: [(&str, Table); 4] =
    [("coil", Table::Coil), ("discrete", Table::Discrete), ("holding", Table::Holding), ("input", Table::Input)];

/// The types by their names.
pub const TYPES: [(&str, DataType); 12] = [
    ("bool", DataType::Bool),
    ("u16", DataType::U16),
    ("i16", DataType::I16),
    ("u32", DataType::U32),
    ("i32", DataType::I32),
    ("u64", DataType::U64),
    ("i64", DataType::I64),
    ("f32", DataType::F32),
    ("f64", DataType::F64),
    ("bcd16", DataType::Bcd16),
    ("bcd32", DataType::Bcd32),
    ("string", DataType::String),
];

/// Values of a point: the most that any request moves.
const COUNTS: RangeInclusive<i64> = 1..=BITS_READ_MAX as i64;

/// What a text is filled up with, by its names.
pub const PADS: [(&str, Pad); 2] = [("nul", Pad::Nul), ("space", Pad::Space)];

/// How the characters of a text are bytes, by its names.
pub const ENCODINGS: [(&str, Encoding); 2] = [("utf-8", Encoding::Utf8), ("latin-1", Encoding::Latin1)];

const ENDS: [(&str, Order); 2] = [("big", Order::Big), ("little", Order::Little)];

/// Word order and byte order by the letters of manuals: A is the most significant of four bytes.
pub const ORDERS: [(&str, (Order, Order)); 4] = [
    ("ABCD", (Order::Big, Order::Big)),
    ("CDAB", (Order::Little, Order::Big)),
    ("BADC", (Order::Big, Order::Little)),
    ("DCBA", (Order::Little, Order::Little)),
];

/// The keys that say how bytes lie.
const OF_ORDER: [&str; 3] = ["order", "word_order", "byte_order"];

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
    let (word_order, byte_order) = orders(&section);
    let given_kind = section.choice("type", &TYPES);
    let count = section.small::<u16>("count", COUNTS);
    let scale = section.number("scale");
    let offset = section.number("offset");
    if scale == Some(0.0) {
        section.wrong("scale", ("must not be 0, as every value would be the same", "write 1, or leave it out"));
    }
    let (table, address) = place(&section);
    let table = table?;
    let bit = bit(&section, table, count);
    if is_write && matches!(table, Table::Discrete | Table::Input) {
        let key = ["table", "register"].into_iter().find(|k| section.has(k));
        let why = (format!("{} can only be read", plural(table)), "write to a coil or a holding register");
        section.wrong(key.unwrap_or("table"), why);
    }
    if section.has("type") && given_kind.is_none() {
        return None;
    }
    let default_kind = match table {
        Table::Holding | Table::Input if !section.has("bit") => DataType::U16,
        _ => DataType::Bool,
    };
    let kind = given_kind.unwrap_or(default_kind);
    check_type(&section, table, kind, count);
    check_order(&section, kind, word_order);
    let scale_register = scale_register(&section, table, kind);
    let pad = section.choice("pad", &PADS);
    if !is_write && kind == DataType::String && section.has("pad") {
        section.wrong("pad", ("is for what is written: read, neither zeros nor spaces are of the text", "remove it"));
    }
    let encoding = section.choice("encoding", &ENCODINGS);
    if is_write && table == Table::Holding && kind == DataType::Bool && !section.has("bit") {
        let why = (
            "writes the whole register as 0 or 1, over whatever its other 15 bits hold",
            "if they mean something, say which bit is the value, such as bit = 0",
        );
        section.warn("type", why);
    }
    let length = length(&section, table, kind, count.unwrap_or(1), is_write);
    let address = address?;
    check_end(&section, address, length?);
    Some(Point {
        count,
        word_order: word_order.unwrap_or(Order::Big),
        byte_order: byte_order.unwrap_or(Order::Big),
        scale: scale.unwrap_or(1.0),
        offset: offset.unwrap_or(0.0),
        bit,
        scale_register,
        pad: pad.unwrap_or(Pad::Nul),
        encoding: encoding.unwrap_or(Encoding::Utf8),
        ..Point::new(table, address, kind)
    })
}

/// The point at which a write shows: in `read_back`, where what is not said is as in the write.
pub(super) fn shown_at(section: &Section, write: &Point) -> Option<Point> {
    let (word_order, byte_order) = orders(section);
    let given_kind = section.choice("type", &TYPES);
    let own_count = section.small::<u16>("count", COUNTS);
    let count = own_count.or(write.count);
    let scale = section.number("scale");
    let offset = section.number("offset");
    if scale == Some(0.0) {
        section.wrong("scale", ("must not be 0, as every value would be the same", "write 1, or leave it out"));
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
    // One bit of a register shows as one of a register, or as one of a table of bits.
    let own_bit = bit(section, table, own_count);
    let bit = own_bit.or(write.bit.filter(|_| !is_bits(table)));
    let default_kind = match (is_bits(table), is_bits(write.table)) {
        _ if section.has("bit") => DataType::Bool,
        (true, _) => DataType::Bool,
        (false, true) => DataType::U16,
        (false, false) => write.kind,
    };
    let kind = given_kind.unwrap_or(default_kind);
    check_type(section, table, kind, count);
    check_order(section, kind, word_order);
    let scale_register = scale_register(section, table, kind);
    let encoding = section.choice("encoding", &ENCODINGS);
    let is_alike = |kind: DataType| (kind == DataType::Bool, kind == DataType::String);
    if is_alike(kind) != is_alike(write.kind) || (count != write.count && kind != DataType::String) {
        let key = ["type", "count", "table", "register"].into_iter().find(|key| section.has(key));
        let why = ("reads back something else than the command writes", "give both the same kind and number of values");
        section.wrong(key.unwrap_or("table"), why);
    }
    let length = length(section, table, kind, count.unwrap_or(1), false);
    let address = address?;
    check_end(section, address, length?);
    // A scale is that of a register.
    let (as_scale, as_offset) = if is_bits(table) { (1.0, 0.0) } else { (write.scale, write.offset) };
    Some(Point {
        count,
        word_order: word_order.unwrap_or(write.word_order),
        byte_order: byte_order.unwrap_or(write.byte_order),
        scale: scale.unwrap_or(as_scale),
        offset: offset.unwrap_or(as_offset),
        bit,
        scale_register: scale_register.or(write.scale_register.filter(|_| !is_bits(table))),
        encoding: encoding.unwrap_or(write.encoding),
        ..Point::new(table, address, kind)
    })
}

/// The one bit of a register that is the value, if it is one.
fn bit(section: &Section, table: Table, count: Option<u16>) -> Option<u8> {
    let bit = section.small("bit", 0..=15)?;
    if table.is_bits() {
        let why = (format!("is one of a register, and {} are single bits", plural(table)), "remove it");
        section.wrong("bit", why);
    } else if count.is_some() {
        section.wrong("count", ("stands beside bit, which is a single value", "remove one of them"));
    } else {
        return Some(bit);
    }
    None
}

/// Where the power of ten stands that scales the value: among registers of the same table, if nothing else is said.
fn scale_register(point: &Section, table: Table, kind: DataType) -> Option<ScaleRegister> {
    let section = point.table("scale_register", keys::SCALE_REGISTER)?;
    if table.is_bits() || matches!(kind, DataType::Bool | DataType::String) {
        point.wrong("scale_register", ("is for numbers, and this point holds none", "remove it"));
        return None;
    }
    let (table, address) = match section.has("register") || section.has("table") {
        true => place(&section),
        false if section.has("address") => (Some(table), section.small("address", 0..=65_535)),
        false => {
            section.absent("address", ("is missing", "give the protocol address, from 0, or register, such as 40006"));
            return None;
        }
    };
    let (table, address) = (table?, address?);
    if table.is_bits() {
        let key = ["table", "register"].into_iter().find(|key| section.has(key)).unwrap_or("table");
        section.wrong(key, (format!("{} hold no numbers", plural(table)), "it is a holding or an input register"));
        return None;
    }
    Some(ScaleRegister { table, address })
}

/// Word order and byte order, from `order` or from a key for each.
fn orders(section: &Section) -> (Option<Order>, Option<Order>) {
    let word_order = section.choice("word_order", &ENDS);
    let byte_order = section.choice("byte_order", &ENDS);
    let order = section.choice("order", &ORDERS);
    if !section.has("order") {
        return (word_order, byte_order);
    }
    let others: Vec<&str> = OF_ORDER.into_iter().filter(|key| *key != "order" && section.has(key)).collect();
    if !others.is_empty() {
        let others = others.join(" and ");
        let why = (format!("stands beside {others}, which it says too"), format!("keep it, and remove {others}"));
        section.wrong("order", why);
    }
    order.unzip()
}

/// Table and protocol address, from `table` and `address` or from `register`.
fn place(section: &Section) -> (Option<Table>, Option<u16>) {
    let table = section.choice("table", &TABLES);
    let address = section.small("address", 0..=65_535);
    let register = section.integer("register", 1..=465_536);
    if section.has("address") && section.has("register") {
        section.wrong("register", ("stands beside address", "both say where: keep one of them"));
        return (table, None);
    }
    if section.has("register") {
        let Some((fixed, address)) = register.and_then(|number| reference(section, number)) else {
            return (table, None);
        };
        if table.is_some_and(|table| table != fixed) {
            let why = (format!("contradicts register, which is among {}", plural(fixed)), "remove it");
            section.wrong("table", why);
        }
        return (Some(fixed), Some(address));
    }
    if !section.has("table") {
        section.absent("table", ("is missing", "it is one of coil, discrete, holding or input"));
    }
    if !section.has("address") {
        section.absent("address", ("is missing", "give the protocol address, from 0, or register, such as 40001"));
    }
    if let (Some(table), Some(address)) = (table, address) {
        note_reference(section, table, address);
    }
    (table, address)
}

/// Remarks on an address that looks like a reference number.
fn note_reference(section: &Section, table: Table, address: u16) {
    if let Some(meant) = meant_by(table, address) {
        let why = (
            "is a protocol address, from 0",
            format!(
                "if {address} comes from a manual's list of registers, write register = {address}, which is address {meant}"
            ),
        );
        section.note("address", why);
    }
}

/// The protocol address of a reference number, if an address of this table looks like one.
pub fn meant_by(table: Table, address: u16) -> Option<u16> {
    let (range, _) = REFERENCES.iter().find(|(range, of)| {
        // Every address of a coil would look like one.
        *of == table && table != Table::Coil && range.contains(&i64::from(address))
    })?;
    u16::try_from(i64::from(address) - range.start()).ok()
}

fn reference(section: &Section, register: i64) -> Option<(Table, u16)> {
    for (range, table) in REFERENCES {
        if range.contains(&register) {
            return Some((table, u16::try_from(register - range.start()).ok()?));
        }
    }
    let why = (
        format!("{register} is not a reference number"),
        "they are 1 to 9999 for coils, 10001 to 19999 for discrete inputs, 30001 to 39999 for input registers, 40001 to \
         49999 for holding registers, or of six digits, such as 400001",
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

fn check_type(section: &Section, table: Table, kind: DataType, count: Option<u16>) {
    if table.is_bits() && kind != DataType::Bool {
        let why = (format!("{} hold single bits", plural(table)), "remove it");
        section.wrong("type", why);
    } else if section.has("bit") && kind != DataType::Bool {
        section.wrong("type", ("stands beside bit, which is a bool", "remove one of them"));
    }
    for key in OF_ORDER.into_iter().filter(|key| table.is_bits() && section.has(key)) {
        let why = (format!("is for the bytes of registers, and {} hold single bits", plural(table)), "remove it");
        section.wrong(key, why);
    }
    if kind == DataType::String && count.is_none() && !section.has("count") {
        section.absent("count", ("is missing", "a string needs its number of registers, two bytes each"));
    }
    for key in ["pad", "encoding"].into_iter().filter(|key| kind != DataType::String && section.has(key)) {
        section.wrong(key, ("is for texts, and this point holds none", "remove it, or write type = \"string\""));
    }
    if matches!(kind, DataType::Bool | DataType::String) {
        for key in ["scale", "offset"] {
            if section.has(key) {
                section.wrong(key, ("is for numbers, and this point holds none", "remove it"));
            }
        }
    }
}

/// Reports an order of registers for a text, which is no number in them.
fn check_order(section: &Section, kind: DataType, word_order: Option<Order>) {
    if kind == DataType::String && section.has("order") && word_order == Some(Order::Little) {
        let why = (
            "turns the registers of a number round, and those of a text stay where they are",
            "leave it out, or write \"BADC\" if each register has its second letter first",
        );
        section.wrong("order", why);
    }
}

/// Bits or registers of the whole point, if one request of the protocol can carry them (V1.1b3, 6.1 to 6.12).
fn length(section: &Section, table: Table, kind: DataType, count: u16, is_write: bool) -> Option<u32> {
    let is_bits = table.is_bits();
    let (most, what) = (table.most(is_write), if is_bits { "bits" } else { "registers" });
    let width = if is_bits { 1 } else { kind.words() };
    let length = usize::from(count) * width;
    if length <= most {
        return u32::try_from(length).ok();
    }
    let verb = if is_write { "writes" } else { "reads" };
    let why = (format!("makes {length} {what}, and one request {verb} at most {most}"), "split it");
    section.wrong("count", why);
    None
}

fn check_end(section: &Section, address: u16, length: u32) {
    let last = u32::from(address) + length - 1;
    if last > 65_535 {
        let key = if section.has("register") { "register" } else { "address" };
        let why = (format!("it reaches to {last} from here, and the last address is 65535"), "correct it, or count");
        section.wrong(key, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
