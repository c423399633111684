//! What an instrument says by itself and its device has for an event (`events`): it says that among its answers, before
//! and behind them, and in bursts. What must be true of the events that reach the hub is judged here, from what was
//! said and read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{sleep, Instant};

use super::hub::News;
use super::instrument::LINE;
use super::manners::{Manner, Manners};
use super::plant::Plant;
use super::record::Record;
use super::scenario::Scenario;
use super::world::World;

/// What is said in a schedule without bursts: fewer than wait for the hub at most.
const FEW: usize = 50;
/// Bursts in one with them.
const ROUNDS: u64 = 200;

/// Which lines are events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// Alarms, which nothing else looks like.
    Alarms,
    /// And readings, as they are asked for.
    Readings,
    /// And what the instrument reports without end, which looks like answers.
    Reports,
}

/// The alarms of a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Alarms {
    pattern: Pattern,
    /// Many come at once now and then: more than may wait.
    come_in_bursts: bool,
}

impl Alarms {
    /// By dice of their own.
    pub fn of(world: &World, manners: &Manners) -> Alarms {
        let mut dice = world.dice("alarms");
        let pattern = match dice.u8(..2) {
            0 if manners.have(Manner::Streams) => Pattern::Reports,
            // An answer that is one is passed over: what follows it must not look like another.
            0 if !manners.have(Manner::Frames) && !manners.have(Manner::Tails) => Pattern::Readings,
            _ => Pattern::Alarms,
        };
        Alarms { pattern, come_in_bursts: dice.u8(..3) == 0 }
    }

    /// The key of the device.
    pub fn key(self) -> String {
        let pattern = match self.pattern {
            Pattern::Alarms => r"ALARM ([0-9]+)$",
            Pattern::Readings => r"^(?:ALARM|R) (\S+)$",
            Pattern::Reports => r"ALARM ([0-9]+)$|kg$|NOT OK$",
        };
        format!("events = '{pattern}'\n")
    }

    /// Whether a reading that is asked for is an event.
    pub fn are_readings(self) -> bool {
        self.pattern == Pattern::Readings
    }

    /// Whether what the instrument reports is an event, so that it confirms and refuses nothing from the beginning.
    pub fn are_reports(self) -> bool {
        self.pattern == Pattern::Reports
    }
}

/// An alarm that was said, by its number.
#[derive(Debug, Clone, Copy)]
pub struct Alarm {
    /// In which life of the process, on which opening of the line, and under which configuration.
    stay: (u64, usize, usize),
    at: Instant,
    /// Since when nobody has opened the line, or changed the configuration.
    calm_since: Instant,
    /// It was read to its end.
    is_read: bool,
}

/// Says the next one, if anybody has the line open.
pub(super) fn say(plant: &Arc<Plant>) {
    let Some(alarms) = plant.alarms else { return };
    let mut inner = plant.lock();
    let Some(wire) = inner.open.get(LINE).cloned().filter(|wire| wire.is_held()) else { return };
    let number = inner.record.alarms.len();
    if !alarms.come_in_bursts && number >= FEW {
        return;
    }
    let (opening, opened) = inner.opened.unwrap_or((0, Instant::now()));
    let calm_since = inner.changed_at.map_or(opened, |changed| changed.max(opened));
    let stay = (wire.life, opening, inner.under);
    inner.record.alarms.push(Alarm { stay, at: Instant::now(), calm_since, is_read: false });
    drop(inner);
    plant.world.count("instrument: an alarm");
    let (bytes, of) = (plant.framing.put(format!("ALARM {number}\r\n").as_bytes()), Arc::downgrade(plant));
    wire.send_and_tell(&bytes, move || {
        of.upgrade().into_iter().for_each(|plant| plant.lock().record.alarms[number].is_read = true);
    });
}

/// Says one now and then, or many.
pub(super) async fn live(plant: Arc<Plant>) {
    let Some(alarms) = plant.alarms else { return };
    let world = plant.world.clone();
    for _ in 0..ROUNDS {
        sleep(world.time(100, 6_000)).await;
        if world.faults_are_over() {
            return;
        }
        let most = if alarms.come_in_bursts && world.chance(100) { 120 } else { 2 };
        if most > 2 {
            world.count("instrument: a burst of alarms");
        }
        (0..world.pick(1..most)).for_each(|_| say(&plant));
    }
}

/// Judges what was told of them at the hub: by all devices, for one only has an instrument.
pub fn judge(world: &World, scenario: &Scenario, news: &News, record: &Record) {
    let Some(alarms) = scenario.alarms else { return };
    let mut ids = BTreeMap::new();
    // By number, and how many were dropped since the one before it.
    let (mut told, mut dropped) = (BTreeMap::new(), 0);
    for event in &news.had {
        let is_new = match ids.insert(&event.id, event) {
            Some(before) if before.body != event.body => {
                world.violate(format!("an event of an instrument's, and two contents: {before:?} and {event:?}"));
                false
            }
            before => before.is_none(),
        };
        if !is_new {
            continue;
        }
        world.count("judged: an event of an instrument's");
        let body: Json = serde_json::from_str(&event.body).unwrap_or_default();
        let (line, before) = (body["event"].as_str().unwrap_or_default(), body["dropped"].as_u64().unwrap_or(0));
        dropped += before;
        if before > 0 {
            world.count("judged: events that were dropped, and that was said");
        }
        match number(line).and_then(|number| Some((number, record.alarms.get(number)?))) {
            Some((number, alarm)) => {
                let is_other = told.insert(number, std::mem::take(&mut dropped)).is_some();
                if is_other || !alarm.is_read || body["value"].as_u64() != u64::try_from(number).ok() {
                    world
                        .violate(format!("alarm no. {number} is told by {event:?}, twice or not as it was: {alarm:?}"));
                }
            }
            None if record.answers.iter().any(|answer| line.ends_with(answer)) => {
                world.violate(format!("G12: an answer is told as an event: {event:?}"));
            }
            None if alarms.pattern == Pattern::Alarms => {
                world.violate(format!("an event that nobody has said: {event:?}"));
            }
            None => {}
        }
    }
    judge_losses(world, scenario, (&told, news), record);
}

/// The number of an alarm, as a line says it.
fn number(line: &str) -> Option<usize> {
    line.rsplit_once("ALARM ").and_then(|(_, number)| number.parse().ok())
}

/// What lies between two that were told was lost, and that is said; and lost is only what may be.
fn judge_losses(world: &World, scenario: &Scenario, (told, news): (&BTreeMap<usize, u64>, &News), record: &Record) {
    let Some(alarms) = scenario.alarms else { return };
    let (faults, has) = (scenario.faults, |manner| scenario.manners.have(manner));
    // Half a line, or a wrong bit in a frame, may spoil the next.
    if has(Manner::Fragments) || faults.plant > 0 && !scenario.framing.is_plain() {
        return;
    }
    // What ends connections that are tried in vain is not seen at the hub.
    if faults.cuts > 0 || has(Manner::Proxy) {
        return;
    }
    let came: BTreeSet<usize> = news.came.iter().filter_map(|line| number(line)).collect();
    // What is behind an acknowledgement that does not come ends with its connection, and the hub has not seen it.
    let ends_links = faults.lost_acks + faults.repetitions > 0;
    let is_no_answer = alarms.pattern == Pattern::Alarms && !has(Manner::SeveralLines);
    let waits = scenario.configurations.iter().map(|one| one.patience.window + one.patience.timeout).max();
    let all: Vec<(&usize, &u64)> = told.iter().collect();
    for pair in all.windows(2) {
        let [(from, _), (to, dropped)] = pair else { continue };
        let (first, last) = (record.alarms[**from], record.alarms[**to]);
        if first.stay != last.stay {
            continue;
        }
        // That the hub has not taken one is told with a later one.
        let between = (**from + 1..**to).filter(|number| !came.contains(number));
        let lost: Vec<&Alarm> = between.map(|number| &record.alarms[number]).filter(|alarm| alarm.is_read).collect();
        if lost.len() as u64 > **dropped {
            world.violate(format!("alarms no. {from} to {to}: {} are missing, and {dropped} are said", lost.len()));
        }
        let is_calm = |alarm: &&&Alarm| alarm.at > alarm.calm_since + waits.unwrap_or(Duration::MAX);
        let wrongly = lost.iter().filter(is_calm).count();
        if is_no_answer && !alarms.come_in_bursts && !ends_links {
            world.count("judged: no alarm is lost that can be no answer");
            if wrongly > 0 {
                world.violate(format!("alarms no. {from} to {to}: {wrongly} are dropped, and nothing speaks for that"));
            }
        }
    }
}

/// What was said as an answer.
pub type Answers = BTreeSet<String>;
