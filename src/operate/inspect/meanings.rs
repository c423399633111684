//! What registers may mean: their values by every type and every order of bytes. Pure.

use serde_json::Value as Json;

use crate::config::{ORDERS, TYPES};
use crate::peripheral::exchange::Answer;
use crate::peripheral::registers::{DataType, Order, Point, Table};

/// The values of registers, by the name of a type and, where another order gives other values, the letters of that.
/// Types that take more registers than there are have none; what is no value of a type is null.
pub fn meanings(words: &[u16]) -> Vec<(String, Vec<Json>)> {
    let mut all = Vec::new();
    // A register that is not 0 says no more as a bool.
    for (name, kind) in TYPES.into_iter().filter(|(_, kind)| *kind != DataType::Bool) {
        for (letters, order) in ORDERS.into_iter().filter(|(_, order)| is_another(kind, *order)) {
            let name = match (kind.words(), order) {
                (1, (Order::Big, Order::Big)) => name.to_owned(),
                _ => format!("{name} {letters}"),
            };
            let values = values(words, kind, order);
            if !values.is_empty() {
                all.push((name, values));
            }
        }
    }
    all
}

/// Which register comes first says nothing of what lies in one, or of a text, whose registers stay in order.
fn is_another(kind: DataType, (words, _): (Order, Order)) -> bool {
    kind.words() > 1 || words == Order::Big
}

fn values(words: &[u16], kind: DataType, (word_order, byte_order): (Order, Order)) -> Vec<Json> {
    let is_text = kind == DataType::String;
    let width = if is_text { words.len().max(1) } else { kind.words() };
    let count = is_text.then_some(u16::try_from(width).unwrap_or(u16::MAX));
    let point = Point { count, word_order, byte_order, ..Point::new(Table::Holding, 0, kind) };
    let value = |words: &[u16]| {
        let values = point.values(&Answer::Words(words.to_vec())).unwrap_or_default();
        values.into_iter().next().unwrap_or(Json::Null)
    };
    words.chunks_exact(width).map(value).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(words: &[u16], name: &str) -> Option<Json> {
        meanings(words).into_iter().find(|(other, _)| other == name).map(|(_, values)| values.into())
    }

    #[test]
    fn registers_are_shown_by_every_type_and_order() {
        // 50.0 is 42 48 00 00.
        for (words, order) in
            [([0x4248, 0], "ABCD"), ([0, 0x4248], "CDAB"), ([0x4842, 0], "BADC"), ([0, 0x4842], "DCBA")]
        {
            assert_eq!(of(&words, &format!("f32 {order}")), Some(json!([50.0])), "{order}");
        }
        let words = [0x1234, 0xFFFE, 0x4142, 0x4300];
        for (name, values) in [
            ("u16", json!([0x1234, 0xFFFE, 0x4142, 0x4300])),
            ("u16 BADC", json!([0x3412, 0xFEFF, 0x4241, 0x0043])),
            ("i16", json!([0x1234, -2, 0x4142, 0x4300])),
            ("bcd16", json!([1234, null, 4142, 4300])),
            ("bcd32 ABCD", json!([null, 41_424_300])),
            ("u32 CDAB", json!([0xFFFE_1234_u32, 0x4300_4142])),
            ("u64 ABCD", json!([0x1234_FFFE_4142_4300_u64])),
        ] {
            assert_eq!(of(&words, name), Some(values), "{name}");
        }
        assert_eq!(of(&[0x4142, 0x4300], "string"), Some(json!(["ABC"])));
        assert_eq!(of(&[0x4241, 0x0043], "string BADC"), Some(json!(["ABC"])));
    }

    #[test]
    fn a_type_that_takes_more_registers_than_there_are_is_not_shown() {
        let names = |words: &[u16]| meanings(words).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let of_one = ["u16", "u16 BADC", "i16", "i16 BADC", "bcd16", "bcd16 BADC", "string", "string BADC"];
        assert_eq!(names(&[7]), of_one);
        assert_eq!(names(&[7, 7]).len(), of_one.len() + 4 * 4);
        assert_eq!(names(&[7; 5]).len(), of_one.len() + 7 * 4);
        assert_eq!(of(&[1, 2, 3], "u32 ABCD"), Some(json!([0x1_0002])), "what is left over is not a value");
    }
}
