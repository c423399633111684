//! The instrument at the text line's end, and its manners: it repeats commands, says what it is doing, answers in
//! several lines at the line's speed, reports by itself, and leaves halves of lines.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, Instant};

use super::alarms;
use super::fates::{Meaning, Saying};
use super::manners::Manner;
use super::plant::Plant;
use super::record::Reports;
use super::request::Request;
use super::scenario::Asks;
use super::wire::Wire;

/// The instrument's line.
pub const LINE: &str = "/dev/text";
/// Longest pause within an answer, ms.
const PAUSE_MS: u64 = 30;
/// Lines that an instrument reports by itself in a schedule: each costs time.
const REPORTS_MAX: u64 = 400;

/// So long after an opening or a command nothing that the instrument says can be meant for anybody.
const CALM: Duration = Duration::from_secs(20);
/// So many lines in a calm, over so long a time, and the gateway knows them for what they are.
const SPOKE_MIN: (u32, Duration) = (6, Duration::from_secs(2));

/// What the instrument has said by itself on the open line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spoke {
    /// Since when nobody has opened the line or asked.
    calm_since: Option<Instant>,
    /// Lines in this calm, and when the first was said.
    lines: u32,
    first: Option<Instant>,
    is_known: bool,
}

impl Spoke {
    /// Nothing, on a line that was opened then.
    pub(super) fn since(opened: Instant) -> Spoke {
        Spoke { calm_since: Some(opened), ..Spoke::default() }
    }

    /// Whether it can be known what it says by itself.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    fn asked(&mut self, now: Instant) {
        (self.calm_since, self.lines, self.first) = (Some(now), 0, None);
    }

    fn said(&mut self) {
        if self.calm_since.is_some_and(|since| since.elapsed() > CALM) {
            self.lines += 1;
            let first = self.first.get_or_insert_with(Instant::now);
            self.is_known |= self.lines >= SPOKE_MIN.0 && first.elapsed() >= SPOKE_MIN.1;
        }
    }
}

/// A command was heard.
pub(super) fn hears(plant: &Arc<Plant>, wire: &Wire, request: &Request) {
    {
        let mut inner = plant.lock();
        inner.asked_at = Some(request.written);
        inner.spoke.asked(Instant::now());
    }
    if plant.shows(Manner::Alarms, "instrument: an alarm as it hears a command", 300) {
        alarms::say(plant);
    }
    if plant.shows(Manner::Repeats, "instrument: repeats the command", 900) {
        wire.send(&request.text);
    }
}

/// What it says to a command.
pub(super) fn saying(plant: &Plant, request: &Request, refuses: bool) -> Saying {
    let mut saying = said(plant, request, refuses);
    if !plant.manners.have(Manner::SeveralLines) {
        saying.bytes = plant.framing.put(&saying.bytes);
        return saying;
    }
    plant.world.count("instrument: an answer of several lines");
    let before: [&[u8]; 4] = [b"", b"", b"STATUS 12.75\r\n", b"CHANNEL 1\r\n\r\n"];
    if !refuses {
        saying.bytes.splice(0..0, before[plant.world.pick(0..4) as usize].iter().copied());
    }
    // A refusal ends an answer, whatever follows.
    if refuses && plant.world.chance(500) {
        return saying;
    }
    if !refuses && plant.shows(Manner::SeveralLines, "instrument: the last line of an answer never comes", 150) {
        // The end of the answer to the same question asked again may end it.
        if let Meaning::Reading(text) = std::mem::replace(&mut saying.meaning, Meaning::Nothing) {
            plant.lock().record.of(request.value).readings.push(text);
        }
        return saying;
    }
    saying.bytes.extend(b"END\r\n");
    saying
}

fn said(plant: &Plant, request: &Request, refuses: bool) -> Saying {
    let line = |text: &str| format!("{text}\r\n").into_bytes();
    match request.asks {
        _ if refuses => Saying { bytes: line("ERR busy"), meaning: Meaning::No },
        Some(Asks::Ask) => {
            let text = reading(plant);
            Saying { bytes: line(&format!("R {text}")), meaning: Meaning::Reading(text) }
        }
        Some(Asks::Weigh) => {
            let weight = weight(plant);
            Saying { bytes: line(&format!("W +{weight} kg")), meaning: Meaning::Weight(weight) }
        }
        _ => Saying { bytes: line("OK"), meaning: Meaning::Yes },
    }
}

/// A number that no other reading has.
fn next(plant: &Plant) -> u16 {
    let mut inner = plant.lock();
    inner.readings += 1;
    inner.readings + 10
}

/// What lies on the scale, with zeros in front where readings are odd.
fn weight(plant: &Plant) -> String {
    let number = next(plant);
    if plant.framing.in_bytes {
        return number.to_string();
    }
    match plant.manners.have(Manner::OddReadings) {
        true => format!("{number:05}.5"),
        false => format!("{number}.5"),
    }
}

/// A reading as instruments write them.
fn reading(plant: &Plant) -> String {
    let number = next(plant);
    if plant.framing.in_bytes {
        return number.to_string();
    }
    if !plant.shows(Manner::OddReadings, "instrument: a reading that only looks like a number", 700) {
        return format!("{number}.25");
    }
    match plant.world.pick(0..6) {
        0 => format!("00E{number}"),
        1 => format!("{number}E2"),
        2 => format!("0{number}"),
        3 => format!("{number}e1"),
        4 => format!("-00{number}.5"),
        _ => format!("0x{number}"),
    }
}

/// Says it, with what comes before and after it.
pub(super) fn speak(plant: &Arc<Plant>, wire: &Wire, request: &Request, saying: &Saying, is_late: bool) {
    if plant.manners.have(Manner::SeveralLines) && !is_late {
        return speak_in_lines(plant, saying);
    }
    if plant.shows(Manner::Prefaces, "instrument: says what it is doing first", 800) {
        say(plant, wire, &plant.framing.put(b"working on it\r\n"));
    }
    if plant.shows(Manner::Alarms, "instrument: an alarm before its answer", 600) {
        alarms::say(plant);
    }
    let arrives = say(plant, wire, &saying.bytes);
    if plant.shows(Manner::Alarms, "instrument: an alarm behind its answer", 200) {
        alarms::say(plant);
    }
    if let Meaning::Weight(weight) = &saying.meaning {
        plant.lock().record.weights.push((arrives, weight.clone()));
    }
    // Behind a garbled answer it would be the answer.
    let is_answer = !matches!(saying.meaning, Meaning::Nothing);
    if is_answer && plant.shows(Manner::Tails, "instrument: says more behind its answer", 700) {
        let tails = ["OK READY", "ERR none", "R 0.0", "R 77", "W +9999.5 kg", "OK"];
        let tail = format!("{}\r\n", tails[plant.world.pick(0..tails.len() as u64) as usize]);
        let (plant, pause) = (plant.clone(), plant.world.time(0, PAUSE_MS));
        plant.world.tell(|| format!("to {request:?} follows {tail:?} after {pause:?}"));
        tokio::spawn(async move {
            sleep(pause).await;
            on_the_line(&plant, tail.as_bytes());
        });
    }
}

/// Says it line by line, with pauses: only the last line tells that it is over.
fn speak_in_lines(plant: &Arc<Plant>, saying: &Saying) {
    let (lines, plant) = (saying.bytes.clone(), plant.clone());
    let weight = match &saying.meaning {
        Meaning::Weight(weight) => Some(weight.clone()),
        _ => None,
    };
    // All of it is said before whoever asked gives up.
    let pause = (plant.patiences.shortest_timeout().as_millis() as u64).saturating_sub(150) / 8;
    tokio::spawn(async move {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let arrives = on_the_line(&plant, line);
            if let (Some(weight), Some(at)) = (weight.as_ref().filter(|_| line.ends_with(b" kg\r\n")), arrives) {
                plant.lock().record.weights.push((at, weight.clone()));
            }
            sleep(plant.world.time(0, pause)).await;
        }
    });
}

/// Sends bytes in the instrument's way, and tells when the first arrives.
fn say(plant: &Plant, wire: &Wire, bytes: &[u8]) -> Instant {
    plant.world.tell(|| format!("the instrument says {:?}", bytes.escape_ascii().to_string()));
    match plant.shows(Manner::Trickles, "instrument: bytes at the line's speed", 900) {
        true => wire.trickle(bytes),
        false => wire.say(bytes),
    }
}

/// Says lines to whoever has the line open. `None`: nobody has.
fn on_the_line(plant: &Plant, bytes: &[u8]) -> Option<Instant> {
    let wire = plant.lock().open.get(LINE).cloned()?;
    wire.is_held().then(|| say(plant, &wire, &plant.framing.put(bytes)))
}

/// Its port was opened: perhaps in the middle of something.
pub(super) fn is_plugged_in(plant: &Arc<Plant>, wire: &Wire) {
    let rests: [&[u8]; 4] = [b"K\r\n", b"2.5 kg\r\n", b"OK", b"NOT OK\r\nSTATE "];
    if plant.shows(Manner::Fragments, "instrument: the port is opened within a line", 800) {
        wire.send(&plant.framing.put_rest(rests[plant.world.pick(0..4) as usize]));
    }
}

/// Lives on while nobody asks.
pub(super) async fn live(plant: Arc<Plant>) {
    let (streams, leaves_halves) = (plant.manners.have(Manner::Streams), plant.manners.have(Manner::Fragments));
    if !streams && !leaves_halves {
        return;
    }
    let weighs = plant.world.chance(500);
    let reports = if weighs { Reports::Weights } else { Reports::States };
    plant.lock().record.reports_are_events = plant.alarms.is_some_and(|alarms| alarms.are_reports());
    plant.lock().record.reports = streams.then_some(reports);
    let pause = if streams { plant.world.pick(30..900) } else { 10_000 };
    for _ in 0..REPORTS_MAX {
        sleep(plant.world.time(pause / 2, pause * 2)).await;
        if plant.world.faults_are_over() {
            return;
        }
        if streams && weighs {
            plant.world.count("instrument: reports by itself");
            let weight = weight(&plant);
            let arrives = on_the_line(&plant, format!("W +{weight} kg\r\n").as_bytes());
            let mut inner = plant.lock();
            inner.spoke.said();
            inner.record.weights.extend(arrives.map(|at| (at, weight)));
        } else if streams {
            plant.world.count("instrument: reports by itself");
            on_the_line(&plant, b"STATE NOT OK\r\n");
            plant.lock().spoke.said();
        } else if !plant.is_asked() {
            plant.world.count("instrument: half a line");
            let halves: [&[u8]; 4] = [b"O", b"OK", b"W +00", b"R 9"];
            on_the_line(&plant, halves[plant.world.pick(0..4) as usize]);
        }
    }
}
