//! What is sent, with places for the value, and what is expected of a reply that is no text. Pure.

use serde_json::Value as Json;

use super::frame::hex;
use super::placeholder::Place;
use crate::command::outcome::Fault;
use crate::complaint::Complaint;

/// What is sent: bytes, and places for the value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wording {
    parts: Vec<Part>,
}

/// What is expected of a reply: bytes, any bytes, and at most one place of its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Bytes(Vec<u8>),
    Any,
    Value(Place),
}

impl From<&str> for Wording {
    /// What is no place for a value stands for itself.
    fn from(text: &str) -> Wording {
        Wording::of_text(text).unwrap_or_else(|_| Wording { parts: vec![Part::Bytes(text.as_bytes().to_vec())] })
    }
}

impl Wording {
    /// Of a text: `{value}` and its like are places.
    ///
    /// # Errors
    /// What is wrong with a place.
    pub fn of_text(text: &str) -> Result<Wording, Complaint> {
        const BEGINS: &str = "{value";
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut literal = String::new();
        while let Some(at) = rest.find(BEGINS) {
            let (before, place) = rest.split_at(at);
            literal.push_str(before);
            let behind = &place[BEGINS.len()..];
            // A brace that opens a word, or nothing that closes: it is a text like any other.
            let Some(end) = behind.find('}').filter(|_| behind.starts_with([':', '}'])) else {
                literal.push_str(BEGINS);
                rest = behind;
                continue;
            };
            let place = Place::of(&behind[..end])?;
            if place.is_of_bytes() {
                let why = format!("{place} stands for bytes, and this is a text");
                return Err(Complaint::new(
                    why,
                    "write what is sent as send_hex, or the value's digits, as {value:03d}",
                ));
            }
            push_bytes(&mut parts, std::mem::take(&mut literal).into_bytes());
            parts.push(Part::Value(place));
            rest = &behind[end + 1..];
        }
        literal.push_str(rest);
        push_bytes(&mut parts, literal.into_bytes());
        Ok(Wording { parts })
    }

    /// Of bytes in hexadecimal digits, with places for the value between them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_hex(text: &str) -> Result<Wording, Complaint> {
        let parts = parts_of_hex(text)?;
        if parts.contains(&Part::Any) {
            return Err(Complaint::new("holds ??, and nobody knows which byte that is", "write the byte"));
        }
        Ok(Wording { parts })
    }

    /// Whether the message carries a value.
    pub fn takes_value(&self) -> bool {
        self.places().next().is_some()
    }

    /// Whether that can be nothing but a number.
    pub fn takes_numbers_alone(&self) -> bool {
        self.places().any(|place| !place.is_plain())
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(place) => Some(place),
            _ => None,
        })
    }

    /// What is sent, if it is always the same.
    pub fn fixed(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(&[]),
            [Part::Bytes(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// What it ends with, behind the last place.
    pub fn end(&self) -> &[u8] {
        match self.parts.last() {
            Some(Part::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The bytes that stand behind a place.
    pub(super) fn behind_places(&self) -> impl Iterator<Item = u8> + '_ {
        let behind = self.parts.iter().skip_while(|part| !matches!(part, Part::Value(_)));
        behind.filter_map(|part| if let Part::Bytes(bytes) = part { Some(bytes) } else { None }).flatten().copied()
    }

    /// Whether limits of the value are ones that each of its places can hold.
    ///
    /// # Errors
    /// A sentence without subject.
    pub fn check_range(&self, range: (f64, f64)) -> Result<(), Complaint> {
        self.places().try_for_each(|place| place.check_range(range))
    }

    /// What is sent for a value, which stands in plain places as this text. With it the number that stands there, if
    /// one of them is of numbers.
    pub(super) fn filled(&self, value: &Json, plain: &str) -> Result<(Vec<u8>, Option<Json>), Fault> {
        let (mut bytes, mut written) = (Vec::new(), None);
        for part in &self.parts {
            match part {
                Part::Bytes(literal) => bytes.extend(literal),
                Part::Value(place) if place.is_plain() => bytes.extend(plain.as_bytes()),
                Part::Value(place) => {
                    let (digits, held) = place.write(value)?;
                    bytes.extend(digits);
                    written = Some(held);
                }
                Part::Any => {}
            }
        }
        Ok((bytes, written))
    }
}

impl Picture {
    /// Of bytes in hexadecimal digits, `??` for any one, and a place of the value.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(text: &str) -> Result<Picture, Complaint> {
        let parts = parts_of_hex(text)?;
        let places: Vec<&Place> =
            parts.iter().filter_map(|part| if let Part::Value(place) = part { Some(place) } else { None }).collect();
        if places.len() > 1 {
            return Err(Complaint::new(
                "holds more than one {value}",
                "a reply has one value: write ?? for other bytes",
            ));
        }
        if let Some(place) = places.iter().find(|place| place.width().is_none()) {
            let why = format!("{place} may have any number of bytes, and nobody can tell where it ends");
            return Err(Complaint::new(why, "give it a type or a width, such as {value:u16be} or {value:05.1f}"));
        }
        Ok(Picture { parts })
    }

    /// Whether the reply has a value.
    pub fn has_value(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(_)))
    }

    /// The value of a reply that is this as a whole; all of it as hexadecimal digits, if there is no place of a value.
    pub fn read(&self, reply: &[u8]) -> Option<Json> {
        let (mut rest, mut value) = (reply, None);
        for part in &self.parts {
            rest = match part {
                Part::Bytes(bytes) => rest.strip_prefix(&bytes[..])?,
                Part::Any => rest.split_first()?.1,
                Part::Value(place) => {
                    let (bytes, behind) = rest.split_at_checked(place.width()?)?;
                    value = Some(place.read(bytes)?);
                    behind
                }
            };
        }
        rest.is_empty().then(|| value.unwrap_or_else(|| hex(reply).into()))
    }
}

fn push_bytes(parts: &mut Vec<Part>, bytes: Vec<u8>) {
    match parts.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Part::Bytes(before)) => before.extend(bytes),
        _ => parts.push(Part::Bytes(bytes)),
    }
}

fn parts_of_hex(text: &str) -> Result<Vec<Part>, Complaint> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        rest = if let Some(behind) = rest.strip_prefix("??") {
            parts.push(Part::Any);
            behind
        } else if let Some((between, behind)) = rest.strip_prefix("{value").and_then(|place| place.split_once('}')) {
            let place = Place::of(between)?;
            if place.is_plain() {
                let remedy = "say which, such as {value:u16be} or {value:03d}";
                return Err(Complaint::new("{value} does not say as which bytes it stands there", remedy));
            }
            parts.push(Part::Value(place));
            behind
        } else {
            let (byte, behind) = byte(rest).ok_or_else(|| {
                let shown: String = rest.chars().take(2).collect();
                Complaint::new(
                    format!("holds {shown:?}, which is not a byte in two hexadecimal digits"),
                    "write bytes such as 02 4F 0D, and the value as {value:u16be}",
                )
            })?;
            push_bytes(&mut parts, vec![byte]);
            behind
        }
        .trim_start();
    }
    if parts.is_empty() {
        return Err(Complaint::new("holds no byte", "write bytes such as 02 4F 0D"));
    }
    Ok(parts)
}

/// The byte of the first two digits.
fn byte(text: &str) -> Option<(u8, &str)> {
    let (digits, behind) = text.split_at_checked(2)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| is_hex).map(|byte| (byte, behind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::outcome::Code;

    fn sent(wording: &Wording, value: &Json) -> Vec<u8> {
        wording.filled(value, &value.to_string()).unwrap().0
    }

    #[test]
    fn what_is_sent_has_the_value_in_its_places() {
        let text = |text| sent(&Wording::of_text(text).unwrap(), &json!(12));
        assert_eq!(text("SP {value}\r\n"), b"SP 12\r\n");
        assert_eq!(text("{value:03d},{value:02X}{value}"), b"012,0C12");
        assert_eq!(text("{valued} {value {\"a\":1}"), b"{valued} {value {\"a\":1}");
        let bytes = |text| sent(&Wording::of_hex(text).unwrap(), &json!(12));
        assert_eq!(bytes("02 41 {value:u16be} 03"), [2, 0x41, 0, 12, 3]);
        assert_eq!(bytes("0241{value:i8}{value:03d}fF"), [2, 0x41, 12, b'0', b'1', b'2', 0xFF]);
        let fixed = Wording::of_hex("02 03").unwrap();
        assert_eq!((fixed.fixed(), fixed.end(), fixed.takes_value()), (Some(&[2, 3][..]), &[2, 3][..], false));
        let open = Wording::from("S {value};\n");
        assert_eq!((open.fixed(), open.end()), (None, &b";\n"[..]));
        assert_eq!(open.behind_places().collect::<Vec<_>>(), b";\n");
        assert!(open.takes_value() && !open.takes_numbers_alone());
        assert!(Wording::from("{value:d}").takes_numbers_alone());
        assert_eq!(Wording::from("{value:q}").fixed(), Some(&b"{value:q}"[..]));
        let fault = Wording::from("{value:02X}").filled(&json!(256), "256").unwrap_err();
        assert_eq!(fault.code, Code::OutOfRange);
    }

    #[test]
    fn a_picture_is_the_whole_of_a_reply() {
        let read = |picture: &str, reply: &[u8]| Picture::new(picture).unwrap().read(reply);
        assert_eq!(read("02 ?? {value:u16be} 03", &[2, 9, 1, 0, 3]), Some(json!(256)));
        for other in [&[2, 9, 1, 0][..], &[2, 9, 1, 0, 4], &[2, 9, 1, 0, 3, 3], &[1, 9, 1, 0, 3], &[2], &[]] {
            assert_eq!(read("02 ?? {value:u16be} 03", other), None, "{other:?}");
        }
        assert_eq!(read("06 ??", &[6, 0xAB]), Some(json!("06 AB")));
        assert_eq!(read("41 {value:05.1f}", b"A012.5"), Some(json!(12.5)));
        assert_eq!(read("41 {value:05.1f}", b"A01x.5"), None);
    }

    #[test]
    fn what_is_wrong_with_bytes_is_told() {
        for (text, told) in [
            ("0", "\"0\", which is not a byte"),
            ("0x02", "\"0x\""),
            ("02 4g", "\"4g\""),
            ("+1", "not a byte"),
            ("é0", "not a byte"),
            ("", "holds no byte"),
            ("02 {value}", "as which bytes"),
            ("02 {value:u16}", "no place"),
            ("02 {Value:u8}", "not a byte"),
        ] {
            for why in [Wording::of_hex(text).unwrap_err(), Picture::new(text).unwrap_err()] {
                assert!(why.to_string().contains(told), "{text}: {why}");
            }
        }
        assert!(Wording::of_hex("02 ??").unwrap_err().to_string().contains("??"));
        assert!(Picture::new("{value:u8} {value:u8}").unwrap_err().to_string().contains("more than one"));
        assert!(Picture::new("{value:d}").unwrap_err().to_string().contains("where it ends"));
        assert!(Wording::of_text("{value:u8}").unwrap_err().to_string().contains("stands for bytes"));
    }
}
