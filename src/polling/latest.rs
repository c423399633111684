//! What each poll came to last, for whoever looks. It is in memory only.
//!
//! Invariants
//! - It holds what is configured, and of each poll one reading, a long value as an excerpt.
//! - A device that has changed has no readings from before; one that stays as it is keeps them over a reload.
//! - Nobody who looks keeps a poll waiting for longer than a copy takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::command::outcome::in_short;
use crate::config::Device;
use crate::health::snapshot;
use crate::peripheral::Reading;
use crate::telemetry::sample::quality_of;

/// Longest value that is kept as it is, as JSON, in bytes: a status tells of a thousand devices.
const VALUE_BYTES_MAX: usize = 256;

/// The last readings of the devices on one bus. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Latest(Arc<Mutex<Devices>>);

type Devices = BTreeMap<String, (Arc<Device>, BTreeMap<String, Read>)>;

#[derive(Debug)]
struct Read {
    value: Json,
    quality: &'static str,
    at: Instant,
}

impl Latest {
    /// These devices are polled from now on.
    pub fn take_up(&self, devices: &[Arc<Device>]) {
        let mut held = self.lock();
        let mut before = std::mem::take(&mut *held);
        for device in devices {
            let stays = before.remove(&device.id).filter(|(old, _)| old == device);
            held.insert(device.id.clone(), stays.unwrap_or_else(|| (device.clone(), BTreeMap::new())));
        }
    }

    /// What polls of a device came to. Of one that has changed meanwhile nothing is kept.
    pub fn note(&self, device: &Arc<Device>, readings: &[(String, Reading)], at: Instant) {
        let mut held = self.lock();
        let Some((_, polls)) = held.get_mut(&device.id).filter(|(held, _)| Arc::ptr_eq(held, device)) else { return };
        for (name, reading) in readings {
            let value = reading.as_ref().map_or(Json::Null, kept);
            polls.insert(name.clone(), Read { value, quality: quality_of(reading), at });
        }
    }

    /// What those of a device came to last, as it is told. `ago` knows what time it was so long ago, if the clock is
    /// believed.
    pub fn told(
        &self,
        device: &str,
        now: Instant,
        ago: impl Fn(Duration) -> Option<String>,
    ) -> BTreeMap<String, snapshot::Poll> {
        let held = self.lock();
        let Some((_, polls)) = held.get(device) else { return BTreeMap::new() };
        let told = |read: &Read| {
            let (age, quality) = (now.saturating_duration_since(read.at), read.quality.to_owned());
            snapshot::Poll { value: read.value.clone(), quality, at: ago(age), seconds_ago: age.as_secs() }
        };
        polls.iter().map(|(name, read)| (name.clone(), told(read))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        // It is right between two calls, whoever panicked in one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value as it is kept.
fn kept(value: &Json) -> Json {
    let is_short = match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => true,
        other => other.to_string().len() <= VALUE_BYTES_MAX,
    };
    if is_short {
        value.clone()
    } else {
        in_short(value).into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::outcome::Code;
    use crate::polling::schedule::tests::{devices, TWO};

    fn device(unit: u8) -> Arc<Device> {
        let pump = devices(TWO, &["pump"]).remove(0);
        Arc::new(Device { unit, ..Device::clone(&pump) })
    }

    fn names(latest: &Latest) -> Vec<String> {
        latest.told("pump", Instant::now(), |_| None).into_keys().collect()
    }

    #[test]
    fn each_poll_has_its_last_reading_with_its_quality_and_age() {
        let (latest, pump, begun) = (Latest::default(), device(1), Instant::now());
        latest.take_up(std::slice::from_ref(&pump));
        let reading = |name: &str, reading| [(name.to_owned(), reading)];
        latest.note(&pump, &reading("speed", Ok(json!(41))), begun);
        latest.note(&pump, &reading("speed", Ok(json!(42.5))), begun + Duration::from_secs(5));
        latest.note(&pump, &reading("level", Err(Code::Timeout)), begun);
        let told = latest.told("pump", begun + Duration::from_secs(7), |ago| Some(format!("{ago:?}")));
        let speed =
            snapshot::Poll { value: json!(42.5), quality: "good".into(), at: Some("2s".into()), seconds_ago: 2 };
        assert_eq!(told["speed"], speed);
        assert_eq!((&told["level"].value, &*told["level"].quality), (&Json::Null, "timeout"));
        assert!(latest.told("valve", begun, |_| None).is_empty());
    }

    #[test]
    fn a_device_that_has_changed_has_no_readings_from_before_and_a_long_value_is_cut() {
        let (latest, pump, now) = (Latest::default(), device(1), Instant::now());
        latest.take_up(std::slice::from_ref(&pump));
        latest.note(&pump, &[("name".to_owned(), Ok("é".repeat(1000).into()))], now);
        let told = latest.told("pump", now, |_| None);
        assert!(told["name"].value.as_str().is_some_and(|value| value.len() < 300), "{told:?}");
        // It stays as it is, and is polled as before.
        latest.take_up(&[device(1)]);
        assert_eq!(names(&latest), ["name"]);
        let other = device(2);
        latest.take_up(std::slice::from_ref(&other));
        assert!(names(&latest).is_empty());
        latest.note(&pump, &[("late".to_owned(), Ok(json!(1)))], now);
        assert!(names(&latest).is_empty(), "what was asked of it as it was");
        latest.take_up(&[]);
        latest.note(&other, &[("late".to_owned(), Ok(json!(1)))], now);
        assert!(names(&latest).is_empty());
    }
}
