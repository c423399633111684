//! Binary coded decimals: a digit in each four bits. Pure.

/// Digits of the longest type.
const DIGITS: u32 = 8;

/// A number of at most eight digits, coded.
pub(super) fn coded(number: i128) -> i128 {
    (0..DIGITS).fold(0, |bits, at| bits | (number / 10_i128.pow(at) % 10) << (4 * at))
}

/// The number in up to eight digits; `None` where one of them is above nine.
pub(super) fn number(bits: u64) -> Option<i128> {
    (0..DIGITS).rev().try_fold(0, |number, at| match bits >> (4 * at) & 0xF {
        digit @ 0..=9 => Some(number * 10 + i128::from(digit)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_stands_in_four_bits() {
        for (decimal, bits) in [(0, 0), (7, 7), (10, 0x10), (1234, 0x1234), (9999, 0x9999), (99_999_999, 0x9999_9999)] {
            assert_eq!((coded(decimal), number(bits as u64)), (bits, Some(decimal)));
        }
        for bits in [0xA, 0x1A34, 0xFFFF, 0xA000_0000, 0x9999_999F] {
            assert_eq!(number(bits), None, "{bits:#x}");
        }
    }
}
