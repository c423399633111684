//! When what is asked on one bus is due. Pure: times are arguments.
//!
//! Invariants
//! - What is due longest goes first. What is under way is not due.
//! - A bus that does not keep up leaves out times, evenly, and catches up on none: each is asked as often as there is
//!   room for.
//! - A device that stays as it is keeps its times over a reload.
//! - What is read together has to show that it can be: some peripherals are silent to a request for more registers
//!   than they like. Until it has, it is asked in parts as soon as it was not answered well, before anything else of
//!   the device that might not be either; once the parts have been answered, once more together, and then it is known.
//! - What was answered together and is refused once is asked in parts, and together again once those were answered.
//!   What is refused a second time is asked in parts for good.

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
    /// What is asked in parts, and is to be tried together once more.
    parted: Vec<Parted>,
    told: BTreeMap<String, Option<Told>>,
}

#[derive(Debug)]
struct Planned {
    asking: Arc<Asking>,
    due: Instant,
    is_under_way: bool,
    /// It was answered well.
    has_worked: bool,
    /// It was asked in parts before, which were answered well.
    is_second: bool,
}

#[derive(Debug)]
struct Parted {
    whole: Arc<Asking>,
    /// Polls of it that were answered well.
    well: BTreeSet<String>,
}

/// What was heard of one asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An answer to it.
    Well,
    /// That what it asks for is not there, perhaps a part of it (exceptions 2 and 3).
    ForItsExtent,
    /// Silence, a refusal, or what is no answer.
    Badly,
    /// Nothing: it was not sent.
    Nothing,
}

/// For how long what was asked together is asked in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// Until each part was answered well: perhaps nobody was there.
    ForNow,
    /// Until the next start, or a change of the device.
    ForGood,
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
        self.devices.values().flat_map(|polled| {
            let is_free = polled.is_free();
            polled.askings.iter().filter(move |planned| is_free(planned)).map(move |planned| (planned, polled))
        })
    }

    /// What is due longest. It is under way from then on.
    pub fn begin(&mut self, now: Instant) -> Option<Due> {
        let each = self.devices.values_mut().flat_map(|polled| {
            let (device, is_free) = (polled.device.clone(), polled.is_free());
            let free = polled.askings.iter_mut().filter(move |planned| is_free(planned));
            free.map(move |planned| (planned, device.clone()))
        });
        let due = each.filter(|(planned, _)| planned.due <= now);
        let (planned, device) = due.min_by_key(|(planned, _)| planned.due)?;
        planned.is_under_way = true;
        Some(Due { device, asking: planned.asking.clone() })
    }

    /// It was asked. If it is parted there is nothing to tell of: its parts are asked next.
    pub fn ended(&mut self, due: &Due, heard: Heard, now: Instant) -> Option<Parting> {
        let polled = self.of(due)?;
        let at = polled.askings.iter().position(|planned| Arc::ptr_eq(&planned.asking, &due.asking))?;
        let planned = &mut polled.askings[at];
        planned.has_worked |= heard == Heard::Well;
        if let Some(parting) = planned.parting(heard) {
            polled.part(at, parting);
            return Some(parting);
        }
        planned.is_under_way = false;
        let (every, late) = (planned.asking.every, now.saturating_duration_since(planned.due));
        let times = u32::try_from(late.as_millis() / every.as_millis().max(1)).unwrap_or(u32::MAX - 1);
        planned.due += every.saturating_mul(times + 1);
        if heard == Heard::Well {
            polled.answered(&due.asking);
        }
        None
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
        let askings = askings(&device.polls).into_iter().map(|asking| Planned::new(asking, now)).collect();
        Polled { device, askings, parted: Vec::new(), told: BTreeMap::new() }
    }

    /// Which of its askings may begin: of those that have to show that they can be answered, one at a time.
    fn is_free(&self) -> impl Fn(&Planned) -> bool {
        let is_tried = self.askings.iter().any(|planned| planned.is_under_way && planned.is_on_trial());
        move |planned| !(planned.is_under_way || is_tried && planned.is_on_trial())
    }

    /// The parts are due as it was, and stand in its place.
    fn part(&mut self, at: usize, parting: Parting) {
        let whole = self.askings.remove(at);
        let parts = whole.asking.parts().into_iter().map(|part| Planned::new(part, whole.due));
        self.askings.splice(at..at, parts);
        if parting == Parting::ForNow {
            self.parted.push(Parted { whole: whole.asking, well: BTreeSet::new() });
        }
    }

    /// Each part of what was parted for now has to be, before it is asked together again.
    fn answered(&mut self, asking: &Asking) {
        let is_in = |polls: &[(String, usize)], name: &str| polls.iter().any(|(other, _)| other == name);
        let [(name, _)] = &asking.polls[..] else { return };
        let Some(at) = self.parted.iter().position(|parted| is_in(&parted.whole.polls, name)) else { return };
        let parted = &mut self.parted[at];
        parted.well.insert(name.clone());
        if parted.well.len() < parted.whole.polls.len() {
            return;
        }
        let whole = self.parted.remove(at).whole;
        let is_part = |planned: &Planned| {
            let polls = &planned.asking.polls;
            polls.len() == 1 && is_in(&whole.polls, &polls[0].0)
        };
        let due = self.askings.iter().filter(|planned| is_part(planned)).map(|planned| planned.due).min();
        let place = self.askings.iter().position(is_part);
        self.askings.retain(|planned| !is_part(planned));
        if let Some((due, place)) = due.zip(place) {
            let whole = Asking::clone(&whole);
            self.askings.insert(place, Planned { is_second: true, ..Planned::new(whole, due) });
        }
    }
}

impl Planned {
    fn new(asking: Asking, due: Instant) -> Planned {
        Planned { asking: Arc::new(asking), due, is_under_way: false, has_worked: false, is_second: false }
    }

    /// Whether it has to show that it can be answered.
    fn is_on_trial(&self) -> bool {
        self.asking.is_for_several() && !self.has_worked
    }

    /// Whether it is asked in parts after that.
    fn parting(&self, heard: Heard) -> Option<Parting> {
        match heard {
            _ if !self.asking.is_for_several() => None,
            // What has worked may be refused in passing, by a peripheral that starts for example.
            Heard::ForItsExtent if self.has_worked && !self.is_second => Some(Parting::ForNow),
            Heard::ForItsExtent => Some(Parting::ForGood),
            Heard::Badly if self.has_worked => None,
            Heard::Badly if self.is_second => Some(Parting::ForGood),
            Heard::Badly => Some(Parting::ForNow),
            Heard::Well | Heard::Nothing => None,
        }
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
            schedule.ended(&due, Heard::Well, now);
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
        begun.iter().for_each(|due| assert_eq!(schedule.ended(due, Heard::Well, now), None));
        schedule.take_up(&two[..1], now + Duration::from_millis(500));
        assert_eq!(schedule.due_at(), Some(now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(9);
        let names: Vec<String> =
            std::iter::from_fn(|| schedule.begin(later)).map(|due| due.device.id.clone()).collect();
        assert_eq!(names, ["a", "a"]);
        let of_b = begun.iter().find(|due| due.device.id == "b").unwrap();
        assert!(schedule.news(of_b, vec![("fast".into(), Ok(1.into()))], now).is_empty());
    }

    const NEIGHBOURS: &str = "[profile.p.poll.x]\nread = { table = \"input\", address = 1 }\nevery = \"1s\"\n\
                              [profile.p.poll.y]\nread = { table = \"input\", address = 2 }\nevery = \"1s\"";

    /// What may begin at that time, by the polls that each is for.
    fn begun(schedule: &mut Schedule, now: Instant) -> Vec<(Due, String)> {
        let names = |due: &Due| due.asking.polls.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("+");
        let with_names = |due: Due| {
            let names = names(&due);
            (due, names)
        };
        std::iter::from_fn(|| schedule.begin(now)).map(with_names).collect()
    }

    /// What was begun is answered so; gives what that is parted for, and what begins next.
    fn asked_so(schedule: &mut Schedule, heard: Heard, now: Instant) -> (Vec<Option<Parting>>, Vec<String>) {
        let all = begun(schedule, now);
        let parted = all.iter().map(|(due, _)| schedule.ended(due, heard, now)).collect();
        (parted, all.into_iter().map(|(_, names)| names).collect())
    }

    #[test]
    fn what_is_refused_together_is_asked_alone_from_then_on() {
        let (one, mut now) = (devices(NEIGHBOURS, &["a"]), Instant::now());
        let mut schedule = Schedule::default();
        schedule.take_up(&one, now);
        let refused = asked_so(&mut schedule, Heard::ForItsExtent, now);
        assert_eq!(refused, (vec![Some(Parting::ForGood)], vec!["x+y".into()]));
        for _ in 0..3 {
            let alone = asked_so(&mut schedule, Heard::Well, now);
            assert_eq!(alone, (vec![None, None], vec!["x".into(), "y".into()]));
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn what_has_worked_together_and_is_refused_in_passing_is_tried_together_again() {
        for is_refused_at_once in [false, true] {
            let (one, mut now) = (devices(NEIGHBOURS, &["a"]), Instant::now());
            let mut schedule = Schedule::default();
            schedule.take_up(&one, now);
            let mut ask = |heard| {
                let asked = asked_so(&mut schedule, heard, now);
                now += Duration::from_secs(1);
                asked
            };
            let (whole, parts) = (vec!["x+y".to_owned()], vec!["x".to_owned(), "y".to_owned()]);
            assert_eq!(ask(Heard::Well), (vec![None], whole.clone()));
            assert_eq!(ask(Heard::ForItsExtent), (vec![Some(Parting::ForNow)], whole.clone()));
            // As long as a part is refused too, they stay apart.
            assert_eq!(ask(Heard::ForItsExtent).1, parts);
            assert_eq!(ask(Heard::Well).1, parts);
            if !is_refused_at_once {
                assert_eq!(ask(Heard::Well), (vec![None], whole.clone()));
                assert_eq!(ask(Heard::Badly), (vec![None], whole.clone()));
            }
            let second = ask(Heard::ForItsExtent);
            assert_eq!(second, (vec![Some(Parting::ForGood)], whole), "the second time decides");
            for _ in 0..3 {
                assert_eq!(ask(Heard::Well), (vec![None, None], parts.clone()));
            }
        }
    }

    #[test]
    fn what_was_never_answered_together_is_tried_apart_and_known_after_one_more_try() {
        for (second, parted, then) in
            [(Heard::Well, None, vec!["x+y"]), (Heard::Badly, Some(Parting::ForGood), vec!["x", "y"])]
        {
            let (one, mut now) = (devices(NEIGHBOURS, &["a"]), Instant::now());
            let mut schedule = Schedule::default();
            schedule.take_up(&one, now);
            let first = asked_so(&mut schedule, Heard::Badly, now);
            assert_eq!(first, (vec![Some(Parting::ForNow)], vec!["x+y".into()]));
            // The peripheral is switched off: nothing is known.
            for heard in [Heard::Badly, Heard::Nothing] {
                assert_eq!(asked_so(&mut schedule, heard, now).1, ["x", "y"]);
                now += Duration::from_secs(1);
            }
            assert_eq!(asked_so(&mut schedule, Heard::Well, now).1, ["x", "y"]);
            now += Duration::from_secs(1);
            assert_eq!(asked_so(&mut schedule, second, now), (vec![parted], vec!["x+y".into()]));
            now += Duration::from_secs(1);
            assert_eq!(asked_so(&mut schedule, Heard::Badly, now).1, then);
            now += Duration::from_secs(1);
            assert_eq!(asked_so(&mut schedule, Heard::Well, now).1, then, "silence of what has worked is silence");
        }
    }

    #[test]
    fn of_what_has_to_show_that_it_can_be_answered_one_is_tried_at_a_time_and_its_parts_go_next() {
        let more = "\n[profile.p.poll.v]\nread = { table = \"holding\", address = 1 }\nevery = \"1s\"\n\
                    [profile.p.poll.w]\nread = { table = \"holding\", address = 2 }\nevery = \"1s\"";
        let (one, now) = (devices(&format!("{NEIGHBOURS}{more}"), &["a"]), Instant::now());
        let mut schedule = Schedule::default();
        schedule.take_up(&one, now);
        let first = begun(&mut schedule, now);
        assert_eq!(first.iter().map(|(_, names)| names.as_str()).collect::<Vec<_>>(), ["v+w"]);
        assert_eq!(schedule.due_at(), None, "nothing else may begin before that has ended");
        let later = now + Duration::from_millis(300);
        assert_eq!(schedule.ended(&first[0].0, Heard::Badly, later), Some(Parting::ForNow));
        let names: Vec<String> = begun(&mut schedule, later).into_iter().map(|(_, names)| names).collect();
        assert_eq!(names, ["v", "w", "x+y"]);
    }
}
