//! The peripherals: slow, mute, late, garbled, refusing, or doing what they were told without saying so. What they have
//! done and said is kept here, and nowhere else.

mod late;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{sleep, sleep_until, Instant};

use super::absences::Absence;
use super::alarms::Alarms;
use super::bends::Bends;
use super::fates::{Fate, Meaning, Saying, FATES};
use super::framing::Framing;
use super::instrument::{self, Spoke};
use super::ledger::Witness;
use super::manners::{Manner, Manners};
use super::patience::{Patiences, TAKING_UP};
use super::record::{Heard, Last, Place, Record};
use super::request::{request, Protocol, Request};
use super::scenario::{Asks, Faults, Message, Scenario};
use super::sequences;
use super::tuning::{Shows, OFF_MAX};
use super::wire::{End, Wire};
use super::world::World;

/// How long a value is looked for that was written, where nothing else is said, ms.
const LOOKS_MS: u64 = 2_000;
/// So long before the last look a peripheral shows it at the latest, ms.
const SHOWS_BEFORE_MS: u64 = 300;

/// The plant of a world.
pub struct Plant {
    pub(super) world: Arc<World>,
    witness: Arc<Witness>,
    /// Its peripherals' manners.
    pub(super) manners: Manners,
    /// How long whoever asks waits. What comes later on a line without transaction ids can't be told from another
    /// answer.
    pub(super) patiences: Patiences,
    /// The line that its bus has left, by configuration.
    left: Vec<Option<&'static str>>,
    /// So long before its window ends an answer comes at the latest.
    ahead: Duration,
    /// How a value shows that was written, if not in its own place.
    shows: Option<Shows>,
    /// How the instrument speaks.
    pub(super) framing: Framing,
    /// How peripherals on the network and on the serial line bend Modbus.
    bends: [Bends; 2],
    /// Chance in a thousand that a request goes wrong.
    trouble: u64,
    /// What is asked in a row is often answered late.
    late_in_a_row: bool,
    /// Two of the fates are all that goes wrong here: so they meet more often.
    habits: Option<[u64; 2]>,
    /// A request in a thousand cuts the process's life short.
    killing: u64,
    /// The line on which nobody answers.
    dead_line: Option<&'static str>,
    /// When peripherals are away.
    absences: Vec<Absence>,
    /// What the instrument says by itself that is an event.
    pub(super) alarms: Option<Alarms>,
    /// The network's server is asked several things at once.
    is_crowded: bool,
    messages: Vec<Message>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) record: Record,
    registers: BTreeMap<Place, Register>,
    /// The open wire of each serial line.
    pub(super) open: BTreeMap<String, Wire>,
    /// Makes readings differ.
    pub(super) readings: u16,
    /// When the instrument was last asked.
    pub(super) asked_at: Option<Instant>,
    /// What it says by itself can be known to whoever has its line open.
    pub(super) spoke: Spoke,
    /// How often its line was opened before, and when it was last.
    pub(super) opened: Option<(usize, Instant)>,
    /// How often registers were asked for of which something is made.
    first_reads: BTreeMap<Place, u16>,
    /// How many configurations were read, in all lives, and when the last was in this one but for its first.
    pub(super) under: usize,
    pub(super) changed_at: Option<Instant>,
}

/// What stands in a register.
#[derive(Debug, Clone, Copy)]
struct Register {
    value: u16,
    before: u16,
    /// From when on the value is shown.
    shown_from: Instant,
}

impl std::fmt::Debug for Plant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated plant")
    }
}

impl Plant {
    /// A plant that knows what it may be asked for.
    pub fn new(world: &Arc<World>, witness: &Arc<Witness>, scenario: &Scenario) -> Arc<Plant> {
        let (world, witness) = (world.clone(), witness.clone());
        let Faults { plant: trouble, dead_line, crashes, .. } = scenario.faults;
        // What follows an answer, or takes its time, is over by then, too.
        let wordy = [Manner::Tails, Manner::Trickles, Manner::Prefaces, Manner::SeveralLines, Manner::Streams];
        let is_wordy = wordy.into_iter().any(|manner| scenario.manners.have(manner));
        let habits = world.chance(500).then(|| [world.pick(0..FATES), world.pick(0..FATES)]);
        let is_late = scenario.manners.have(Manner::Sequences) && world.dice("late in a row").u8(..10) < 4;
        Arc::new(Plant {
            world,
            witness,
            manners: scenario.manners.clone(),
            patiences: Patiences::of(scenario),
            left: scenario.configurations.iter().map(|one| one.left).collect(),
            ahead: Duration::from_millis(if is_wordy { 200 } else { 6 }),
            shows: scenario.shows,
            framing: scenario.framing,
            bends: scenario.bends.clone(),
            trouble,
            late_in_a_row: is_late && trouble > 0,
            habits,
            killing: crashes / 5,
            dead_line,
            absences: scenario.absences.clone(),
            alarms: scenario.alarms,
            is_crowded: scenario.in_flight > 1,
            messages: scenario.messages(),
            inner: Mutex::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the plant")
    }

    /// Everything that was done and said.
    pub fn record(&self) -> Record {
        std::mem::take(&mut self.lock().record)
    }

    /// The gateway goes by the configuration of this number from now on, or from the beginning of its life.
    pub fn is_asked_under(&self, number: usize, is_new: bool) {
        match (self.patiences.read(number, is_new), is_new) {
            (true, true) => self.world.count("lives: less patience, while an answer is owed"),
            (true, false) => self.world.count("reloads: less patience, while an answer is owed"),
            (false, _) => {}
        }
        let mut inner = self.lock();
        inner.under += 1;
        inner.changed_at = (!is_new).then(Instant::now);
        if let Some(line) = self.left[number] {
            // Nobody can look there any more.
            inner.record.line_failed(line);
        }
    }

    /// Whether somebody may wait for the instrument's answer.
    pub(super) fn is_asked(&self) -> bool {
        self.lock().asked_at.is_some_and(|at| at.elapsed() < self.patiences.longest_window())
    }

    /// Whether a manner shows now.
    pub(super) fn shows(&self, manner: Manner, what: &'static str, permille: u64) -> bool {
        self.manners.have(manner) && self.world.strikes(what, permille)
    }

    /// What becomes of a request that is asked in a row, or whose answer is an event as well, if that is something of
    /// its own: an answer comes a little late, or not at all to the write that ends a command as it began.
    fn own_fate(&self, line: &str, request: &Request) -> Option<Fate> {
        let is_read_first = request.asks.is_none() && sequences::is_read_first(request.address());
        let is_event = request.asks == Some(Asks::Ask) && self.alarms.is_some_and(|alarms| alarms.are_readings());
        let (is_in_a_row, (.., unit, _)) = (request.sequence.is_some() || is_read_first, request.place(line));
        let is_in_a_row = is_in_a_row && self.late_in_a_row;
        if is_in_a_row && self.lock().record.ends_as_it_began(line, unit, request) {
            return self.world.strikes("slave: mute at the last step", 700).then_some(Fate::Mute);
        }
        let is_late = match (is_in_a_row, is_event) {
            (true, _) => {
                let permille = request.sequence.map_or(450, |written| written.often_late());
                self.world.strikes("slave: answers late in a row", permille)
            }
            (_, true) => self.world.strikes("instrument: answers late what is an event", self.trouble.min(400)),
            _ => false,
        };
        is_late.then_some(Fate::Late)
    }

    fn fate(&self, line: &str, request: &Request) -> Fate {
        if let Some(own) = self.own_fate(line, request) {
            return own;
        }
        let is_write = request.asks.is_some();
        let is_verified = match request.asks {
            Some(Asks::Row(sequence)) => sequence.is_verified(),
            asks => matches!(asks, Some(Asks::SetVerified | Asks::PulseVerified)),
        };
        let code = 2 + self.world.pick(0..3) as u8;
        let fates: [_; FATES as usize] = [
            ("slave: mute", Fate::Mute),
            ("slave: does it and is mute", Fate::DoneAndMute),
            ("slave: answers late", Fate::Late),
            ("slave: garbled answer", Fate::Garbled),
            ("slave: refuses", Fate::Refused(code)),
            ("slave: refuses late", Fate::RefusedLate(code)),
            ("slave: exception 5 or 11", Fate::Begun(if self.world.chance(500) { 5 } else { 11 })),
            ("slave: the line ends before an answer", Fate::Cut),
            ("slave: does it, and the line ends in the answer", Fate::DoneAndCut),
            ("slave: confirms and does nothing", Fate::ConfirmedOnly),
            ("slave: answers twice", Fate::SaidTwice),
        ];
        let number = match self.habits {
            Some(habits) => habits[self.world.pick(0..2) as usize],
            None => self.world.pick(0..FATES),
        };
        let (name, fate) = fates[number as usize];
        let possible = match fate {
            Fate::ConfirmedOnly => is_write && is_verified,
            Fate::Begun(_) => is_write && request.protocol != Protocol::Text,
            _ => true,
        };
        match possible && self.world.strikes(name, self.trouble) {
            true => fate,
            false => Fate::Done,
        }
    }

    /// Whether whom a request is for is away.
    fn is_away(&self, line: &str, request: &Request) -> bool {
        let (_, unit, _) = request.place(line);
        let now = self.world.since_the_beginning(Instant::now());
        let is_its = |absence: &&Absence| (absence.line, absence.unit) == (line, unit);
        let mut its = self.absences.iter().filter(is_its);
        !self.world.faults_are_over() && its.any(|absence| (absence.from..absence.until).contains(&now))
    }

    /// The message that a request is for. None: that is a violation, but for what only reads.
    fn order(&self, request: &Request) -> Option<&Message> {
        let asks = request.asks?;
        let is_its =
            |message: &&Message| message.asks == asks && (asks == Asks::Weigh || message.value == request.value);
        let message = self.messages.iter().find(is_its);
        if message.is_none() {
            self.world.violate(format!("G14: nobody asked for {asks:?} with {}", request.value));
        }
        message
    }

    /// A value arrives where it does something.
    fn take_effect(&self, line: &str, request: &Request, asks: Asks) {
        self.world.note(format_args!("effect {} {asks:?}", request.value));
        match self.order(request) {
            Some(message) if asks.once() => {
                let alike = |other: &&Message| (other.value, other.asks) == (message.value, asks);
                let alike: Vec<&Message> = self.messages.iter().filter(alike).collect();
                let may_be_over = self.lock().record.of(request.value).overheard;
                self.witness.expect_executing(&alike, request.written, may_be_over);
            }
            _ => {}
        }
        self.world.count("effects");
        let slow = self.shows(Manner::SlowValues, "slave: shows a written value after a while", 600);
        let shows = self.shows.filter(|_| request.sequence.is_none());
        let within = shows.map_or(LOOKS_MS, |shows| shows.within) - SHOWS_BEFORE_MS;
        let after = if slow { self.world.time(0, within) } else { Duration::ZERO };
        let place = request.place(line);
        let mut inner = self.lock();
        let life = inner.record.of(request.value).asked.last().map_or(0, |(life, _)| *life);
        let address = request.sequence.map(|_| request.address());
        inner.record.effects.push(super::record::Effect { value: request.value, address, life, at: Instant::now() });
        inner.record.heard_at(line, place.1, request.written).for_each(|heard| heard.is_done = true);
        let before = inner.registers.get(&place).map_or(0, |register| register.value);
        let register = Register { value: request.value, before, shown_from: Instant::now() + after };
        inner.registers.insert(place, register);
    }

    /// What a register is seen to hold. What was never written is a reading, each time another.
    fn stands(&self, line: &str, request: &Request) -> u16 {
        let mut inner = self.lock();
        let place = request.place(line);
        if let Some(first) = request.reading() {
            inner.readings += 1;
            let reading = 1000 * (first + 1) + inner.readings % 1000;
            return reading;
        }
        if request.asks.is_none() {
            let time = inner.first_reads.get(&place).map_or(0, |times| times + 1);
            if let Some(told) = sequences::told(&self.world, request.address(), time) {
                inner.first_reads.insert(place, time);
                return told;
            }
        }
        match inner.registers.get(&place) {
            // Nothing shows in its own place if it does elsewhere.
            _ if self.shows.is_some() && request.looks_where_it_was_written() => 0,
            Some(register) if register.shown_from <= Instant::now() => register.value,
            Some(register) => register.before,
            None => 0,
        }
    }

    /// What is written into an answer where a value stands.
    fn shown(&self, request: &Request, stands: u16) -> u16 {
        let Some(shows) = self.shows.filter(|_| request.asks.is_none()) else { return stands };
        if request.shown().is_none() {
            return stands;
        }
        self.world.count("slave: shows a value in another place");
        if !shows.in_tenths {
            return stands;
        }
        self.world.count("slave: shows a value nearly");
        let off = self.world.pick(0..2 * OFF_MAX + 1) as u16;
        (10 * stands + off).saturating_sub(OFF_MAX as u16)
    }

    /// Serves one opened wire to its end.
    async fn serve(self: Arc<Self>, line: String, protocol: Protocol, wire: Wire) {
        let (opened, mut heard) = (Instant::now(), Vec::new());
        while let Some((written, bytes)) = wire.receive().await {
            heard.extend(bytes);
            while let Some(request) = request(&self.world, (protocol, self.framing), &mut heard, written) {
                self.clone().answer(&line, &wire, opened, request).await;
            }
        }
    }

    async fn answer(self: Arc<Self>, line: &str, wire: &Wire, opened: Instant, mut request: Request) {
        let fate = match self.dead_line {
            Some(dead) if dead == line && !self.world.faults_are_over() => Fate::Mute,
            // Nobody is there.
            _ if line.starts_with("/dev/spare") || self.is_away(line, &request) => Fate::Mute,
            _ => self.fate(line, &request),
        };
        self.world.note(format_args!("{line} {request:?} {fate:?}"));
        if self.world.strikes("crash: while a peripheral works", self.killing) {
            self.world.die_within(self.world.time(0, 500));
        }
        self.note_request(line, &request, (wire.life, opened));
        let is_done = match fate {
            Fate::Mute | Fate::Refused(_) | Fate::RefusedLate(_) | Fate::Cut | Fate::ConfirmedOnly => false,
            Fate::Begun(_) => self.world.chance(500),
            _ => true,
        };
        match request.asks {
            Some(asks) if is_done && asks.writes() => self.take_effect(line, &request, asks),
            // It reads, and must have been asked for all the same.
            Some(_) => drop(self.order(&request)),
            None => {}
        }
        if request.protocol == Protocol::Text {
            instrument::hears(&self, wire, &request);
        }
        if request.protocol != Protocol::Text {
            let is_echo = request.asks.is_some() && !request.exchanges() && fate.code().is_none();
            request.bend = self.bends[usize::from(request.protocol != Protocol::Tcp)].next(&self.world, is_echo);
            if request.protocol == Protocol::Tcp && self.is_crowded && request.bend.transaction != 0 {
                // Perhaps that of another that is under way, or was.
                self.lock().record.is_crossed = true;
            }
        }
        let mut saying = match fate {
            Fate::Mute | Fate::DoneAndMute => return self.says_nothing(line, &request),
            Fate::Cut => {
                self.lock().record.line_failed(line);
                return wire.cut(End::Reset);
            }
            _ => self.saying(line, &request, fate),
        };
        let at = match fate.is_late() {
            true => self.late(opened, &request),
            false => Some(Instant::now() + self.world.time(2, 60)),
        };
        let Some(at) = at else { return self.says_nothing(line, &request) };
        if fate == Fate::Garbled {
            self.garble(&request, &mut saying);
        }
        let is_flawed = fate == Fate::Garbled || request.bend.is_unnamed;
        self.lock().record.is_disturbed |= is_flawed && self.is_crowded && request.protocol == Protocol::Tcp;
        if request.bend.is_unnamed {
            saying.meaning = Meaning::Nothing;
        }
        if fate == Fate::SaidTwice && request.protocol != Protocol::Tcp {
            saying.bytes.extend(saying.bytes.clone());
        }
        let (plant, line, wire) = (self.clone(), line.to_owned(), wire.clone());
        tokio::spawn(async move {
            sleep_until(at).await;
            // A serial peripheral answers on the line, whoever has opened it meanwhile.
            let wire = plant.lock().open.get(&line).cloned().unwrap_or(wire);
            if fate == Fate::DoneAndCut {
                wire.send(&saying.bytes[..saying.bytes.len() / 2]);
                plant.lock().record.line_failed(&line);
                return wire.cut(End::Closed);
            }
            plant.say(&line, &wire, &request, saying, fate);
        });
    }

    fn note_request(&self, line: &str, request: &Request, (life, opened): (u64, Instant)) {
        let mut inner = self.lock();
        let Inner { record, spoke, under, changed_at, .. } = &mut *inner;
        let place = request.place(line);
        let under = changed_at.is_none_or(|at| opened > at + TAKING_UP).then_some(*under);
        record.heard(line, place.1, Heard::new(request, (life, opened), under));
        match request.asks {
            // Who weighs does not say for what.
            Some(Asks::Weigh) => {}
            Some(asks) => {
                record.asked(request.value, life, request.written);
                record.of(request.value).overheard |= request.protocol == Protocol::Text && !spoke.is_known();
                if asks.writes() {
                    record.of(request.value).last = Last::Written;
                    record.written.insert(place, request.value);
                }
            }
            None => {
                if let Some(value) = record.written.get(&place).copied() {
                    record.of(value).last = Last::Asked;
                }
            }
        }
    }

    fn garble(&self, request: &Request, saying: &mut Saying) {
        let reply = &mut saying.bytes;
        let at = self.world.pick(0..reply.len() as u64) as usize;
        let bit = self.world.pick(0..8) as u32;
        match request.protocol {
            // A flipped bit must not make one line of text out of another.
            Protocol::Text if self.framing.is_plain() => *reply = b"#?\r\n".to_vec(),
            Protocol::Text => {
                self.world.count("instrument: a frame with a wrong bit");
                reply[at] ^= 1 << if self.framing.may_flip(bit) { bit } else { 0 };
            }
            // Another's transaction, which is under way perhaps, or was.
            Protocol::Tcp if self.is_crowded && bit < 4 => {
                self.world.count("slave: answers under another's transaction");
                self.lock().record.is_crossed = true;
                reply[1] ^= [1, 3, 2, 7][bit as usize];
            }
            // TCP has a checksum: what is garbled there is the frame's form.
            Protocol::Tcp => reply[2] = 0x55,
            Protocol::Rtu => reply[at] ^= 1 << bit,
            // Digits have two cases.
            Protocol::Ascii => reply[at] ^= 1 << if bit == 5 { 0 } else { bit },
        }
        saying.meaning = Meaning::Nothing;
    }

    /// What is said to a request, in its fate.
    fn saying(&self, line: &str, request: &Request, fate: Fate) -> Saying {
        let stands = self.stands(line, request);
        match (request.protocol, fate.code()) {
            (Protocol::Text, code) => instrument::saying(self, request, code.is_some()),
            (_, Some(code)) => Saying { bytes: request.refusal(code), meaning: Meaning::No },
            (_, None) if request.asks.is_some() && !request.exchanges() => {
                Saying { bytes: request.confirmation(stands), meaning: Meaning::Yes }
            }
            (_, None) => {
                let bytes = request.confirmation(self.shown(request, stands));
                Saying { bytes, meaning: Meaning::Stands(stands) }
            }
        }
    }

    /// Says it, and keeps what that means for the one who asked.
    fn say(self: &Arc<Self>, line: &str, wire: &Wire, request: &Request, saying: Saying, fate: Fate) {
        let place = request.place(line);
        {
            let mut inner = self.lock();
            let record = &mut inner.record;
            // By these two codes a gateway says that it has heard nothing itself.
            let in_time = !fate.is_late() && !matches!(fate.code(), Some(10 | 11));
            record.answered(line, place.1, request.written, in_time, &saying.meaning);
            match (&saying.meaning, request.asks) {
                (Meaning::Nothing, _) => {}
                (Meaning::Yes, _) => record.of(request.value).confirmed = true,
                (Meaning::No, Some(_)) => record.of(request.value).refused = true,
                (Meaning::No, None) => drop(record.withheld.insert(place.clone())),
                (Meaning::Reading(text), _) => {
                    record.answers.insert(format!("R {text}"));
                    let told = record.of(request.value);
                    told.readings.push(text.clone());
                    told.confirmed = true;
                }
                (Meaning::Stands(value), _) => {
                    record.readings.entry(place.clone()).or_default().push((request.written, *value));
                }
                (Meaning::Weight(weight), _) => drop(record.answers.insert(format!("W +{weight} kg"))),
            }
        }
        match saying.meaning {
            Meaning::Stands(stands) => {
                // The wire is the plant's own.
                let plant = Arc::downgrade(self);
                wire.send_and_tell(&saying.bytes, move || {
                    let Some(plant) = plant.upgrade() else { return };
                    let mut inner = plant.lock();
                    let record = &mut inner.record;
                    if record.written.get(&place) == Some(&stands) {
                        let told = record.of(stands);
                        told.shown = true;
                        if !fate.is_late() {
                            told.last = Last::Shown;
                        }
                    }
                });
            }
            _ if request.protocol == Protocol::Text => instrument::speak(self, wire, request, &saying, fate.is_late()),
            _ => wire.send(&saying.bytes),
        }
        if request.protocol == Protocol::Tcp && self.is_crowded {
            self.say_again(wire, saying.bytes);
        }
    }

    /// Says something once more on a connection, behind whatever is said there meanwhile, perhaps.
    fn say_again(&self, wire: &Wire, bytes: Vec<u8>) {
        if self.shows(Manner::SideBySide, "slave: says an answer again, behind others", 100) {
            self.lock().record.is_disturbed = true;
            let (wire, pause) = (wire.clone(), self.world.time(0, 3_000));
            tokio::spawn(async move {
                sleep(pause).await;
                wire.send(&bytes);
            });
        }
    }

    /// The gateway opens a line, or connects to it.
    pub(super) fn open(self: &Arc<Self>, line: &str, protocol: Protocol) -> Result<Wire, String> {
        if self.world.strikes("line: can't be opened", self.trouble / 2) {
            self.lock().record.line_failed(line);
            return Err(format!("{line} can't be opened: it is not there"));
        }
        // A serial port is opened by one at a time.
        if protocol != Protocol::Tcp && self.lock().open.get(line).is_some_and(Wire::is_held) {
            self.world.count("line: held by another bus");
            self.lock().record.line_failed(line);
            return Err(format!("{line} can't be opened: it is in use"));
        }
        // A bus has moved here: what was written at the port that it was at is looked for here.
        if let Some(left) = line.strip_prefix("/dev/spare-") {
            self.lock().record.line_failed(&format!("/dev/{left}"));
        }
        let wire = Wire::new(&self.world, (0, 5));
        if protocol != Protocol::Tcp {
            self.lock().open.insert(line.to_owned(), wire.clone());
        }
        if protocol == Protocol::Ascii {
            self.world.count("line: Modbus ASCII");
        }
        if matches!(protocol, Protocol::Rtu | Protocol::Ascii) && self.manners.have(Manner::LineEchoes) {
            self.world.count("line: an adapter that hears itself");
            wire.echo();
        }
        if protocol == Protocol::Text {
            let mut inner = self.lock();
            inner.spoke = Spoke::since(Instant::now());
            let openings = inner.opened.map_or(0, |(openings, _)| openings + 1);
            inner.opened = Some((openings, Instant::now()));
            drop(inner);
            instrument::is_plugged_in(self, &wire);
        }
        tokio::spawn(self.clone().serve(line.to_owned(), protocol, wire.clone()));
        if self.world.strikes("line: is lost", self.trouble / 2) {
            let (plant, line, wire, after) = (self.clone(), line.to_owned(), wire.clone(), self.world.time(0, 20_000));
            tokio::spawn(async move {
                sleep(after).await;
                plant.lock().record.line_failed(&line);
                wire.cut(End::Closed);
            });
        }
        Ok(wire)
    }
}
