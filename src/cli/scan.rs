//! `scan`: which units of a bus answer.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;
use tokio::time::{sleep_until, Instant};

use super::bus::{understood, Way};
use super::{print, to_its_end};
use crate::exit::Exit;
use crate::gateway::longest_timeout;
use crate::operate::admin::{client, Request};
use crate::operate::inspect::{no_bus, scan};
use crate::operate::text::printable;
use crate::peripheral::exception;

/// Units that may owe an answer at the same time. A line remembers a number of them, and beyond it nobody is asked
/// anything: commands must have their part of that.
const OWED_MAX: usize = 32;

/// All units of a serial line.
const BROADCAST: u8 = 0;

/// Which units are asked.
#[derive(Debug, Args)]
pub struct ScanOptions {
    /// The bus's name in the configuration.
    bus: String,
    /// The units to ask, such as 1-20 or 1,5,10-12.
    #[arg(long, value_name = "UNITS", default_value = "1-247", value_parser = units)]
    units: Units,
    /// Print one JSON document: every unit that was asked.
    #[arg(long)]
    json: bool,
}

/// Units in the order in which they are asked, none twice.
#[derive(Debug, Clone, PartialEq)]
struct Units(Vec<u8>);

/// Units as a person writes them.
fn units(text: &str) -> Result<Units, String> {
    let wrong = |part: &str| format!("{part:?} is not a unit from 0 to 255, and no range of them such as 1-20");
    let mut units = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u8>().map_err(|_| wrong(part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} begins behind its end: write {last}-{first}"));
        }
        for unit in first..=last {
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
    }
    Ok(Units(units))
}

/// Asks each unit whether it is there.
///
/// # Errors
/// The bus can't be asked, or no unit answers.
pub fn run(config: &Path, options: &ScanOptions) -> Result<(), Exit> {
    let Units(units) = &options.units;
    let mut found = Vec::new();
    let ended = to_its_end(async {
        let way = Way::find(config, |config| match config.buses.contains_key(&options.bus) {
            true => Ok(options.bus.clone()),
            false => Err(Exit::No(no_bus(&options.bus, config.buses.keys()))),
        });
        let way = way.await?;
        let ended = all(&way, options, &mut found).await;
        way.leave().await;
        ended
    })?;
    let there = found.iter().filter(|found| found.answers).count();
    // What was found before something went wrong is no less true for that.
    if options.json && (ended.is_ok() || !found.is_empty()) {
        let found: Json = found.iter().map(scan::Found::to_json).collect();
        print(&found.to_string());
    }
    ended?;
    let of = units.len();
    if there == 0 {
        let remedy = "check power, A and B (swapped?), baud and parity";
        return Err(Exit::No(format!("none of {of} units of bus {:?} answers; {remedy}", options.bus)));
    }
    if !options.json {
        print(&format!("{there} of {of} units answer{}", if there == 1 { "s" } else { "" }));
    }
    Ok(())
}

/// What each unit is found to be, told while it is found.
async fn all(way: &Way, options: &ScanOptions, all: &mut Vec<scan::Found>) -> Result<(), Exit> {
    if options.units.0.contains(&BROADCAST) {
        way.check_broadcast(&options.bus)?;
    }
    let mut progress = Progress { shown: !options.json && std::io::stderr().is_terminal() };
    let mut owing = VecDeque::new();
    for (at, unit) in options.units.0.iter().enumerate() {
        progress.show(&format!("unit {unit} ({} of {})", at + 1, options.units.0.len()));
        if owing.len() >= OWED_MAX {
            if let Some(until) = owing.pop_front() {
                sleep_until(until).await;
            }
        }
        let found = way.ask(&options.bus, *unit).await;
        progress.clear();
        let found = found?;
        if found.owed > 0 {
            owing.push_back(Instant::now() + Duration::from_millis(found.owed));
        }
        if let Some(line) = line(&found).filter(|_| !options.json) {
            print(&printable(&line));
        }
        all.push(found);
    }
    Ok(())
}

impl Way {
    /// Refuses unit 0 where it is all of them.
    fn check_broadcast(&self, bus: &str) -> Result<(), Exit> {
        let kind = match self {
            Way::Alone(at) => at.0.buses.get(bus).map(|bus| bus.kind.as_str().to_owned()),
            Way::Daemon(socket) => {
                let status = client::ask(socket, &Request::Status {})?;
                let buses = status["buses"].as_array().cloned().unwrap_or_default();
                let kind = buses.iter().find(|found| found["name"] == bus).and_then(|found| found["kind"].as_str());
                kind.map(str::to_owned)
            }
        };
        match kind.as_deref() {
            Some(kind @ ("modbus-rtu" | "modbus-ascii")) => Err(Exit::Usage(format!(
                "unit 0 is a broadcast on a bus of kind {kind}: all units hear it, and none answers, so leave it out of \
                 --units (see `fieldbridge scan --help`)"
            ))),
            _ => Ok(()),
        }
    }

    async fn ask(&self, bus: &str, unit: u8) -> Result<scan::Found, Exit> {
        match self {
            Way::Daemon(socket) => understood(client::ask(socket, &Request::Scan { bus: bus.to_owned(), unit })?),
            Way::Alone(at) => {
                let slowest = longest_timeout(&at.0, bus);
                scan::ask(&at.1.bus, unit, slowest).await.map_err(Exit::No)
            }
        }
    }
}

/// What is said of a unit that something came of.
fn line(found: &scan::Found) -> Option<String> {
    let unit = found.unit;
    let took = found.milliseconds.map_or_else(String::new, |took| format!(" in {took} ms"));
    match (found.answers, found.exception, &found.disturbed) {
        (true, None, _) => Some(format!("unit {unit} answers{took}")),
        (true, Some(code), _) => {
            let meaning = exception::meaning(code);
            let name = meaning.split(';').next().unwrap_or_default();
            Some(format!("unit {unit} answers{took}, by Modbus exception {code} ({name})"))
        }
        (false, _, Some(why)) => Some(format!("unit {unit}: what comes back is not an answer: {why}")),
        (false, _, None) => None,
    }
}

/// A line on a terminal that tells how far it is.
struct Progress {
    shown: bool,
}

impl Progress {
    fn show(&mut self, what: &str) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{what}\x1b[K");
        }
    }

    fn clear(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_numbers_and_ranges_and_none_comes_twice() {
        let of = |text| units(text).map(|units| units.0);
        assert_eq!(of("7"), Ok(vec![7]));
        assert_eq!(of("1-3,7, 2-4"), Ok(vec![1, 2, 3, 7, 4]));
        assert_eq!(of("1-247").unwrap().len(), 247);
        assert_eq!(of("0-255").unwrap().len(), 256);
        for text in ["", "1,", "256", "1-256", "a", "1-2-3", "-1"] {
            assert!(of(text).unwrap_err().contains("not a unit from 0 to 255"), "{text}");
        }
        assert!(of("9-1").unwrap_err().contains("write 1-9"));
    }

    #[test]
    fn what_came_of_a_unit_is_a_line_and_silence_is_none() {
        let none =
            scan::Found { unit: 7, answers: false, exception: None, milliseconds: None, disturbed: None, owed: 0 };
        assert_eq!(line(&none), None);
        assert_eq!(line(&scan::Found { exception: Some(11), milliseconds: Some(4.0), ..none.clone() }), None);
        let there = scan::Found { answers: true, milliseconds: Some(12.3), ..none.clone() };
        assert_eq!(line(&there).as_deref(), Some("unit 7 answers in 12.3 ms"));
        let said = line(&scan::Found { exception: Some(2), ..there }).unwrap();
        assert_eq!(said, "unit 7 answers in 12.3 ms, by Modbus exception 2 (illegal data address)");
        let said = line(&scan::Found { disturbed: Some("noise".into()), ..none }).unwrap();
        assert!(said.contains("unit 7: what comes back is not an answer: noise"));
    }
}
