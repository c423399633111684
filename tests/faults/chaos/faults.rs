//! What goes wrong: when it begins, when it has struck, when it ends.
//!
//! A fault has organs. Two that share one never overlap; others do as chance has it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Cut, End, Wire, WireEvent};

use super::daemon::Supervisor;
use super::plant::{Plant, ANSWER, KEEPALIVE};
use super::proxy::Weather;
use crate::support::slave::Mood;
use crate::support::transports::By;

/// One that has not struck by then is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL and a new start.
    Kill,
    /// SIGTERM and a new start.
    Terminate,
    /// SIGSTOP, and SIGCONT before the hub minds.
    Stop,
    /// SIGSTOP until the hub has given up the connections, or over AMQP and HTTPS the locks.
    LongStop,
    /// Every connection to the hub is reset.
    Reset,
    /// Every connection to the hub is ended.
    Fin,
    /// Every connection to the hub swallows what is sent; over MQTT until the gateway minds, which takes minutes by the
    /// others.
    HalfOpen,
    SlowLink,
    SplitBytes,
    /// The hub goes down and comes back; what was not completed comes again, under other packet ids.
    HubDown,
    /// The hub loses a PUBACK or an event, or cuts a connection at a bad moment.
    HubFault,
    UnplugRtu,
    UnplugText,
    /// A peripheral does it and says nothing.
    Mute,
    /// A peripheral does nothing and says nothing.
    Deaf,
    /// A peripheral answers too late.
    Late,
    Garbling,
    Refusing,
    /// A peripheral does it and hangs up.
    HangUp,
    DiskFull,
    /// The file system is read-only when the daemon starts, again and again, until it is not.
    ReadOnly,
    /// The daemon starts with a clock far in the future.
    ClockAhead,
    /// The clock goes back while the daemon runs.
    ClockBack,
    /// The daemon starts with a clock that was never set.
    ClockUnset,
}

pub const KINDS: [Kind; 24] = [
    Kind::Kill,
    Kind::Terminate,
    Kind::Stop,
    Kind::LongStop,
    Kind::Reset,
    Kind::Fin,
    Kind::HalfOpen,
    Kind::SlowLink,
    Kind::SplitBytes,
    Kind::HubDown,
    Kind::HubFault,
    Kind::UnplugRtu,
    Kind::UnplugText,
    Kind::Mute,
    Kind::Deaf,
    Kind::Late,
    Kind::Garbling,
    Kind::Refusing,
    Kind::HangUp,
    Kind::DiskFull,
    Kind::ReadOnly,
    Kind::ClockAhead,
    Kind::ClockBack,
    Kind::ClockUnset,
];

/// What a fault takes hold of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Organ {
    Process,
    Link,
    Hub,
    Lines,
    Slaves,
    Disk,
    Clock,
}

impl Kind {
    fn organs(self) -> &'static [Organ] {
        match self {
            Kind::Kill | Kind::Terminate | Kind::Stop => &[Organ::Process],
            Kind::LongStop => &[Organ::Process, Organ::Link, Organ::Hub],
            Kind::Reset | Kind::Fin | Kind::HalfOpen | Kind::SlowLink | Kind::SplitBytes => &[Organ::Link],
            Kind::HubDown | Kind::HubFault => &[Organ::Hub],
            Kind::UnplugRtu | Kind::UnplugText => &[Organ::Lines],
            Kind::Mute | Kind::Deaf | Kind::Late | Kind::Garbling | Kind::Refusing | Kind::HangUp => &[Organ::Slaves],
            Kind::DiskFull => &[Organ::Disk],
            Kind::ReadOnly => &[Organ::Disk, Organ::Process],
            Kind::ClockAhead | Kind::ClockUnset => &[Organ::Clock, Organ::Process],
            Kind::ClockBack => &[Organ::Clock],
        }
    }

    /// How long it lasts, in milliseconds, unless it takes longer to strike.
    fn lasts(self) -> std::ops::Range<u64> {
        match self {
            Kind::Kill | Kind::Terminate | Kind::Reset | Kind::Fin => 0..300,
            Kind::LongStop => KEEPALIVE.as_millis() as u64 * 3 / 2..KEEPALIVE.as_millis() as u64 * 2,
            Kind::SlowLink | Kind::SplitBytes => 1000..3000,
            _ => 300..2000,
        }
    }

    fn mood(self) -> Option<Mood> {
        Some(match self {
            Kind::Mute => Mood::Mute,
            Kind::Deaf => Mood::Deaf,
            Kind::Late => Mood::Slow(ANSWER * 9 / 4),
            Kind::Garbling => Mood::Garbling,
            Kind::Refusing => Mood::Refusing(4),
            Kind::HangUp => Mood::HangUp,
            _ => return None,
        })
    }
}

/// A fault that has begun.
struct Active {
    kind: Kind,
    since: Instant,
    lasts: Duration,
    /// What its mark stood at when it began.
    mark: usize,
    /// Which of several.
    which: usize,
}

/// The faults of a run.
#[derive(Default)]
pub struct Faults {
    active: Vec<Active>,
    /// Those still to come.
    bag: Vec<Kind>,
    pub struck: BTreeMap<Kind, usize>,
    pub missed: usize,
}

impl Faults {
    /// Every kind is to come once more, in an order of its own.
    pub fn refill(&mut self, random: &mut fastrand::Rng) {
        self.bag.extend(KINDS);
        random.shuffle(&mut self.bag);
    }

    /// Whether nothing is wrong, and nothing to come.
    pub fn are_over(&self) -> bool {
        self.active.is_empty() && self.bag.is_empty()
    }

    /// What is wrong, and what is to come.
    pub fn left(&self) -> String {
        let active: Vec<Kind> = self.active.iter().map(|active| active.kind).collect();
        format!("{active:?} last, {:?} have not begun", self.bag)
    }

    /// Lets the first begin whose organs are free.
    pub fn begin_one(&mut self, plant: &mut Plant, daemon: &mut Supervisor) {
        let connected = plant.all_in_touch();
        let free = |kind: &Kind| {
            let taken = |organ| self.active.iter().any(|active| active.kind.organs().contains(organ));
            let needs = |organ| kind.organs().contains(&organ);
            // Where there is nothing to strike it would only delay what it is to strike.
            let process_lives = daemon.serves() || !needs(Organ::Process);
            let is_connected = connected || !(needs(Organ::Link) || needs(Organ::Hub));
            !kind.organs().iter().any(taken) && process_lives && is_connected
        };
        let Some(at) = self.bag.iter().position(free) else { return };
        let kind = self.bag.remove(at);
        let lasts = Duration::from_millis(plant.random.u64(kind.lasts()));
        let mut active = Active { kind, since: Instant::now(), lasts, mark: 0, which: 0 };
        active.begin(plant, daemon);
        println!("{:6.1} s {kind:?} for {} ms", daemon.elapsed(), lasts.as_millis());
        self.active.push(active);
    }

    /// Ends those whose time is over.
    pub fn end_due(&mut self, plant: &mut Plant, daemon: &mut Supervisor) {
        let mut at = 0;
        while at < self.active.len() {
            let active = &self.active[at];
            let age = active.since.elapsed();
            let struck = age >= active.lasts && active.has_struck(plant, daemon);
            if !struck && age < active.lasts.max(PATIENCE) {
                at += 1;
                continue;
            }
            let active = self.active.remove(at);
            active.end(plant, daemon);
            if struck {
                *self.struck.entry(active.kind).or_default() += 1;
            } else {
                println!("{:6.1} s {:?} has not struck", daemon.elapsed(), active.kind);
                self.missed += 1;
                assert!(
                    self.missed <= KINDS.len() + self.struck.values().sum::<usize>(),
                    "too many faults strike nothing"
                );
                self.bag.push(active.kind);
            }
        }
        let on_disk = |active: &Active| active.kind.organs().contains(&Organ::Disk);
        daemon.expect_refusals(self.active.iter().any(on_disk));
    }
}

impl Active {
    fn begin(&mut self, plant: &mut Plant, daemon: &mut Supervisor) {
        self.mark = self.count(plant, daemon);
        match self.kind {
            Kind::Kill => daemon.kill(),
            Kind::Terminate => daemon.terminate(),
            Kind::Stop | Kind::LongStop => daemon.stop(),
            Kind::Reset => self.which = plant.proxy.cut(Cut::Reset),
            Kind::Fin => self.which = plant.proxy.cut(Cut::Fin),
            Kind::HalfOpen => self.which = plant.proxy.half_open(),
            Kind::SlowLink => {
                let delay = Duration::from_millis(plant.random.u64(20..200));
                plant.proxy.set_weather(Weather::Slow(delay, plant.random.u32(2000..20_000)));
            }
            Kind::SplitBytes => plant.proxy.set_weather(Weather::Split),
            Kind::HubDown => plant.hub.unplug(),
            Kind::HubFault => {
                let faults = plant.books.by.faults();
                for device in &plant.books.devices {
                    plant.hub.fault(&device.id, faults[plant.random.usize(..faults.len())]);
                }
            }
            Kind::UnplugRtu => plant.ports[0].unplug(),
            Kind::UnplugText => plant.ports[1].unplug(),
            Kind::Mute | Kind::Deaf | Kind::Late | Kind::Garbling | Kind::Refusing | Kind::HangUp => {
                self.which = plant.random.usize(..plant.slaves.len());
                plant.set_weather(self.which, self.kind.mood().into_iter().map(|mood| (100, mood)).collect());
                self.mark = 0;
            }
            Kind::DiskFull => drop(plant.disk.fill()),
            Kind::ReadOnly => {
                daemon.kill();
                plant.disk.remount("ro");
            }
            Kind::ClockAhead => {
                let hours = plant.random.i64(1..1000);
                plant.wall.shift(hours * 3600);
                daemon.kill();
            }
            Kind::ClockBack => {
                // Less than the life of a token.
                let minutes = plant.random.i64(1..1000);
                plant.wall.shift(-minutes * 60);
            }
            Kind::ClockUnset => {
                plant.wall.shift(-2000 * 86_400);
                daemon.kill();
            }
        }
    }

    /// What grows when it strikes.
    fn count(&self, plant: &Plant, daemon: &Supervisor) -> usize {
        let closed = |why: &[End]| {
            let is = |what: &Wire| matches!(what, Wire::Closed { end } if why.contains(end));
            plant.hub.wire().iter().filter(|event| is(&event.what)).count()
        };
        match self.kind {
            Kind::LongStop => closed(&[End::KeepAlive]),
            Kind::HubDown => closed(&[End::Cut]),
            Kind::HubFault if plant.books.by == By::Https => {
                let is_unanswered = |event: &WireEvent| matches!(event.what, Wire::Request { status: 0, .. });
                plant.hub.wire().into_iter().filter(is_unanswered).count()
            }
            Kind::HubFault => closed(&[End::Fault]),
            Kind::HalfOpen | Kind::SlowLink | Kind::SplitBytes => plant.proxy.suffered() as usize,
            Kind::DiskFull => daemon.refusals + usize::from(daemon.is_unwell(plant)),
            Kind::ReadOnly => daemon.refusals,
            Kind::UnplugRtu => plant.log_lines("bus=rtu reason="),
            Kind::UnplugText => plant.log_lines("bus=text reason="),
            Kind::ClockAhead | Kind::ClockUnset => daemon.starts,
            _ if self.kind.mood().is_some() => plant.slaves[self.which].met(),
            _ => 0,
        }
    }

    fn has_struck(&self, plant: &Plant, daemon: &Supervisor) -> bool {
        match self.kind {
            Kind::Kill | Kind::Terminate | Kind::Stop | Kind::ClockBack => true,
            // The hub minds after minutes, or never. Locks have run out by now.
            Kind::LongStop if plant.books.by != By::Mqtt => true,
            // It only refuses connections.
            Kind::HubDown if plant.books.by == By::Https => true,
            Kind::Reset | Kind::Fin => self.which > 0,
            Kind::HalfOpen => self.which > 0 && self.count(plant, daemon) > self.mark,
            _ => self.count(plant, daemon) > self.mark,
        }
    }

    fn end(&self, plant: &mut Plant, daemon: &mut Supervisor) {
        match self.kind {
            Kind::Stop | Kind::LongStop => daemon.go_on(),
            Kind::HalfOpen if plant.books.by != By::Mqtt => drop(plant.proxy.cut_half_open(Cut::Reset)),
            Kind::SlowLink | Kind::SplitBytes => plant.proxy.set_weather(Weather::Fair),
            Kind::HubDown => plant.hub.plug_in(),
            Kind::UnplugRtu => plant.ports[0].plug(),
            Kind::UnplugText => plant.ports[1].plug(),
            Kind::DiskFull => plant.disk.clear(),
            Kind::ReadOnly => plant.disk.remount("rw"),
            Kind::ClockAhead | Kind::ClockBack | Kind::ClockUnset => plant.set_the_clock_right(),
            _ if self.kind.mood().is_some() => plant.clear_up(),
            _ => {}
        }
    }
}
