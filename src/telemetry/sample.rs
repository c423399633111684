//! What is told of one reading: when, what, and how good it is. Pure.

use serde_json::{Map, Value as Json};

use crate::command::outcome::Code;
use crate::health::snapshot::GOOD;
use crate::time::Timestamp;

/// Bytes of an element beside its values.
pub const ELEMENT_BYTES: usize = 60;
/// Bytes of a value, beside its name, which stands there twice: a number, a quality, and what stands between.
pub const VALUE_BYTES: usize = 25;
/// Bytes of a message's properties: the hub counts them as part of it.
pub const PROPERTY_BYTES: usize = 160;

/// What was read at one time of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When the answer had come, as the wall clock shows it.
    pub at: Timestamp,
    /// Whether the clock is believed.
    pub clock_ok: bool,
    /// What each poll came to, by its name.
    pub readings: Vec<(String, Result<Json, Code>)>,
}

/// The quality that a reading is told with.
pub fn quality_of(reading: &Result<Json, Code>) -> &'static str {
    match reading {
        Ok(_) => GOOD,
        Err(code) => code.as_str(),
    }
}

impl Sample {
    /// As an element of a message. Where there is no value, null stands in its place, and its quality says why.
    pub fn element(&self) -> String {
        let (mut values, mut quality) = (Map::new(), Map::new());
        for (name, reading) in &self.readings {
            let (value, word) = (reading.clone().unwrap_or_default(), quality_of(reading));
            values.insert(name.clone(), value);
            quality.insert(name.clone(), word.into());
        }
        let mut element = Map::new();
        element.insert("ts".into(), self.at.to_string().into());
        if !self.clock_ok {
            element.insert("clockOk".into(), false.into());
        }
        element.insert("values".into(), values.into());
        element.insert("quality".into(), quality.into());
        Json::Object(element).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_element_says_when_what_and_how_good() {
        let at = Timestamp(1_800_000_000_000);
        let readings = vec![("speed".to_owned(), Ok(json!(42.5))), ("level".to_owned(), Err(Code::Timeout))];
        let sample = Sample { at, clock_ok: true, readings };
        let told = |sample: &Sample| serde_json::from_str::<Json>(&sample.element()).unwrap();
        assert_eq!(
            told(&sample),
            json!({ "ts": "2027-01-15T08:00:00.000Z", "values": { "speed": 42.5, "level": null },
                    "quality": { "speed": "good", "level": "timeout" } })
        );
        assert_eq!(told(&Sample { clock_ok: false, ..sample })["clockOk"], false);
    }

    #[test]
    fn what_is_reckoned_for_an_element_is_about_what_it_takes() {
        let readings = (0..10).map(|n| (format!("value-{n}"), Ok(json!(1234.5)))).collect();
        let element = Sample { at: Timestamp(1_800_000_000_000), clock_ok: true, readings }.element();
        let reckoned = ELEMENT_BYTES + 10 * (VALUE_BYTES + 2 * "value-0".len());
        assert!(reckoned.abs_diff(element.len()) < element.len() / 5, "{reckoned} for {}", element.len());
    }
}
