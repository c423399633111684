//! Peripherals that are away for a while, and come back.

use std::time::Duration;

use super::scenario::{Device, Happening, LINES};
use super::world::World;

/// A time in which a peripheral says nothing and does nothing.
#[derive(Debug, Clone)]
pub struct Absence {
    pub line: &'static str,
    /// 0: of an instrument, which has none.
    pub unit: u8,
    /// From the beginning of the schedule.
    pub from: Duration,
    pub until: Duration,
}

/// Peripherals are switched off around the time when something is sent to them, for seconds or minutes.
pub fn absences(world: &World, devices: &[Device], happenings: &[(Duration, Happening)]) -> Vec<Absence> {
    let mut dice = world.dice("absences");
    let mut absences = Vec::new();
    for device in devices {
        let line = LINES.iter().find(|(bus, _)| *bus == device.bus).map_or("", |(_, line)| line);
        let unit = if device.bus == "text" { 0 } else { device.unit as u8 };
        let is_its =
            |happening: &Happening| matches!(happening, Happening::Send(message, _) if message.device == device.id);
        let sent: Vec<Duration> =
            happenings.iter().filter(|(_, happening)| is_its(happening)).map(|(at, _)| *at).collect();
        for _ in 0..dice.u64(0..3).min(sent.len() as u64) {
            let before = Duration::from_millis(dice.u64(0..2_000));
            let from = sent[dice.usize(..sent.len())].saturating_sub(before);
            let until = from + Duration::from_millis(dice.u64(1_000..90_000));
            world.count("slave: is away for a while");
            absences.push(Absence { line, unit, from, until });
        }
    }
    absences
}
