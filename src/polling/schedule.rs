//! When what is asked on one bus is due. Pure: times are arguments.
//!
//! Invariants
//! - What is due longest goes first. What is under way is not due.
//! - A bus that does not keep up leaves out times, evenly, and catches up on none: each is asked as often as there is
//!   room for.
//! - A device that stays as it is keeps its times over a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::plan::{askings, Asking};
use crate::config::Device;
use crate::peripheral::poll::Told;
use crate::peripheral::Reading;

/// What is asked on one bus.
#[derive(Debug, Default)]
pub struct Schedule {
    devices: BTreeMap<String, Polled>,
}

/// A device that is polled.
#[derive(Debug)]
struct Polled {
    device: Arc<Device>,
    askings: Vec<Planned>,
    /// Polls that are asked alone, since what they were asked with was refused.
    apart: BTreeSet<String>,
    told: BTreeMap<String, Option<Told>>,
}

#[derive(Debug)]
struct Planned {
    asking: Arc<Asking>,
    due: Instant,
    is_under_way: bool,
}

/// What is to be asked.
#[derive(Debug, Clone)]
pub struct Due {
    /// Of whom.
    pub device: Arc<Device>,
    /// What.
    pub asking: Arc<Asking>,
}

impl Schedule {
    /// These devices are polled from now on.
    pub fn take_up(&mut self, devices: &[Arc<Device>], now: Instant) {
        let mut before = std::mem::take(&mut self.devices);
        for device in devices.iter().filter(|device| !device.polls.is_empty()) {
            let stays = before.remove(&device.id).filter(|polled| polled.device == *device);
            let polled = stays.unwrap_or_else(|| Polled::new(device.clone(), now));
            self.devices.insert(device.id.clone(), polled);
        }
    }

    /// When something is due, if anything is asked.
    pub fn due_at(&self) -> Option<Instant> {
        self.waiting().map(|(planned, _)| planned.due).min()
    }

    fn waiting(&self) -> impl Iterator<Item = (&Planned, &Polled)> {
        let each = self.devices.values().flat_map(|polled| polled.askings.iter().map(move |asking| (asking, polled)));
        each.filter(|(planned, _)| !planned.is_under_way)
    }

    /// What is due longest. It is under way from then on.
    pub fn begin(&mut self, now: Instant) -> Option<Due> {
        let each = self.devices.values_mut().flat_map(|polled| {
            let device = polled.device.clone();
            polled.askings.iter_mut().map(move |planned| (planned, device.clone()))
        });
        let due = each.filter(|(planned, _)| !planned.is_under_way && planned.due <= now);
        let (planned, device) = due.min_by_key(|(planned, _)| planned.due)?;
        planned.is_under_way = true;
        Some(Due { device, asking: planned.asking.clone() })
    }

    /// It was asked.
    pub fn ended(&mut self, due: &Due, now: Instant) {
        let Some(polled) = self.of(due) else { return };
        let own = polled.askings.iter_mut().find(|planned| Arc::ptr_eq(&planned.asking, &due.asking));
        let Some(planned) = own else { return };
        planned.is_under_way = false;
        let (every, late) = (planned.asking.every, now.saturating_duration_since(planned.due));
        let times = u32::try_from(late.as_millis() / every.as_millis().max(1)).unwrap_or(u32::MAX - 1);
        planned.due += every.saturating_mul(times + 1);
    }

    /// What was read together is refused, perhaps for one of them: each is asked alone from now on. `false`: it was
    /// one.
    pub fn part(&mut self, due: &Due, now: Instant) -> bool {
        if due.asking.polls.len() < 2 {
            return false;
        }
        let Some(polled) = self.of(due) else { return false };
        polled.apart.extend(due.asking.polls.iter().map(|(name, _)| name.clone()));
        polled.askings.retain(|planned| !Arc::ptr_eq(&planned.asking, &due.asking));
        let all = askings(&polled.device.polls, |name| polled.apart.contains(name));
        let is_new =
            |asking: &Asking| asking.polls.iter().any(|(name, _)| due.asking.polls.iter().any(|(old, _)| old == name));
        let new = all.into_iter().filter(is_new);
        polled.askings.extend(new.map(|asking| Planned { asking: Arc::new(asking), due: now, is_under_way: false }));
        true
    }

    /// Those of these readings that are told, at a time. Of a device that has changed meanwhile none is.
    pub fn news(&mut self, due: &Due, readings: Vec<(String, Reading)>, now: Instant) -> Vec<(String, Reading)> {
        let Some(polled) = self.of(due) else { return Vec::new() };
        let Polled { device, told, .. } = polled;
        let is_told = |(name, reading): &(String, Reading)| {
            let Some(poll) = device.polls.get(name) else { return false };
            poll.report.is_news(told.entry(name.clone()).or_default(), reading, now)
        };
        readings.into_iter().filter(is_told).collect()
    }

    fn of(&mut self, due: &Due) -> Option<&mut Polled> {
        self.devices.get_mut(&due.device.id).filter(|polled| Arc::ptr_eq(&polled.device, &due.device))
    }
}

impl Polled {
    fn new(device: Arc<Device>, now: Instant) -> Polled {
        let planned = |asking| Planned { asking: Arc::new(asking), due: now, is_under_way: false };
        let askings = askings(&device.polls, |_| false).into_iter().map(planned).collect();
        Polled { device, askings, apart: BTreeSet::new(), told: BTreeMap::new() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    /// Devices with polls of these, each every so many seconds.
    pub fn devices(profile: &str, ids: &[&str]) -> Vec<Arc<Device>> {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        std::fs::write(folder.path().join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let mut text = format!(
            "[hub]\nhost = \"h.example\"\n[bus.b]\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:502\"\n{profile}\n"
        );
        for (at, id) in ids.iter().enumerate() {
            text += &format!("[device.{id}]\nbus = \"b\"\nunit = {at}\nprofile = \"p\"\nkey_file = \"k\"\n");
        }
        std::fs::write(&main, text).unwrap();
        let config = config::load(&main, []).unwrap_or_else(|problems| panic!("{problems:?}")).config;
        config.devices.into_values().map(Arc::new).collect()
    }

    pub const TWO: &str = "[profile.p.poll.fast]\nread = { table = \"input\", address = 1 }\nevery = \"1s\"\n\
                       [profile.p.poll.slow]\nread = { table = \"input\", address = 2 }\nevery = \"5s\"";

    /// How often each is asked on a bus where an exchange takes so long, in a minute.
    fn asked(devices: &[Arc<Device>], takes: Duration) -> BTreeMap<String, u32> {
        let begun = Instant::now();
        let (mut schedule, mut now) = (Schedule::default(), begun);
        schedule.take_up(devices, now);
        let mut counts = BTreeMap::new();
        while now < begun + Duration::from_secs(60) {
            let Some(due) = schedule.begin(now) else {
                now = schedule.due_at().unwrap();
                continue;
            };
            now += takes;
            schedule.ended(&due, now);
            *counts.entry(format!("{}.{}", due.device.id, due.asking.polls[0].0)).or_default() += 1;
        }
        counts
    }

    #[test]
    fn each_is_asked_as_often_as_it_is_to_be_and_on_a_slow_bus_as_often_as_there_is_room() {
        let devices = devices(TWO, &["a", "b"]);
        let counts = asked(&devices, Duration::from_millis(10));
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [60, 12, 60, 12]);
        let counts = asked(&devices, Duration::from_millis(900));
        let fast = [counts["a.fast"], counts["b.fast"]];
        assert!(fast.iter().all(|count| (18..=30).contains(count)) && counts["a.slow"] >= 8, "{counts:?}");
    }

    #[test]
    fn a_device_that_stays_as_it_is_keeps_its_times_and_who_has_left_is_not_asked() {
        let (two, now) = (devices(TWO, &["a", "b"]), Instant::now());
        let mut schedule = Schedule::default();
        schedule.take_up(&two, now);
        let mut begun = Vec::new();
        while let Some(due) = schedule.begin(now) {
            begun.push(due);
        }
        assert_eq!((begun.len(), schedule.due_at()), (4, None));
        begun.iter().for_each(|due| schedule.ended(due, now));
        schedule.take_up(&two[..1], now + Duration::from_millis(500));
        assert_eq!(schedule.due_at(), Some(now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(9);
        let names: Vec<String> =
            std::iter::from_fn(|| schedule.begin(later)).map(|due| due.device.id.clone()).collect();
        assert_eq!(names, ["a", "a"]);
        let of_b = begun.iter().find(|due| due.device.id == "b").unwrap();
        assert!(schedule.news(of_b, vec![("fast".into(), Ok(1.into()))], now).is_empty());
    }

    #[test]
    fn what_is_refused_together_is_asked_alone_from_then_on() {
        let profile = "[profile.p.poll.x]\nread = { table = \"input\", address = 1 }\nevery = \"1s\"\n\
                       [profile.p.poll.y]\nread = { table = \"input\", address = 2 }\nevery = \"1s\"";
        let (one, now) = (devices(profile, &["a"]), Instant::now());
        let mut schedule = Schedule::default();
        schedule.take_up(&one, now);
        let due = schedule.begin(now).unwrap();
        assert_eq!(due.asking.polls.len(), 2);
        assert!(schedule.part(&due, now));
        let alone: Vec<Due> = std::iter::from_fn(|| schedule.begin(now)).collect();
        assert_eq!(alone.iter().map(|due| due.asking.polls.len()).collect::<Vec<_>>(), [1, 1]);
        assert!(!schedule.part(&alone[0], now));
    }
}
