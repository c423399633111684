//! Values that are a number of bytes.

use std::ops::RangeInclusive;

use config::ValueKind;

use super::{shown, Table};

impl Table<'_> {
    /// A number of bytes within bounds.
    pub fn size(&self, key: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let expected = "a size such as \"4KiB\" or \"64MiB\"";
        let text = match &value.kind {
            ValueKind::String(text) => text,
            ValueKind::I64(_) | ValueKind::Float(_) => {
                return self.mistyped(key, value, expected, "add its unit, in quotes");
            }
            _ => return self.mistyped(key, value, expected, "write it so, in quotes"),
        };
        let Some(bytes) = bytes_of(text) else {
            self.wrong(key, (format!("{} is no size", shown(text)), format!("write {expected}")));
            return None;
        };
        if bounds.contains(&bytes) {
            return Some(bytes);
        }
        let (low, high) = (in_bytes(*bounds.start()), in_bytes(*bounds.end()));
        self.wrong(key, (format!("{} is out of range", shown(text)), format!("it must be {low} to {high}")));
        None
    }
}

/// Bytes: a whole number, with or without B, KiB, MiB or GiB; kB and its like count by 1000.
fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "k" | "K" | "kB" | "KB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "ki" | "Ki" | "kiB" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A number of bytes, in the largest unit that it is whole in.
fn in_bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.iter().find(|(shift, _)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_its_unit() {
        for (text, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("4 KiB", Some(4096)),
            ("4k", Some(4000)),
            ("512", Some(512)),
            ("1GB", Some(1_000_000_000)),
            ("1.5MiB", None),
            ("MiB", None),
            ("4 apples", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(bytes_of(text), bytes, "{text}");
        }
        assert_eq!([in_bytes(512), in_bytes(1 << 20), in_bytes(256 << 10)], ["512B", "1MiB", "256KiB"]);
    }
}
