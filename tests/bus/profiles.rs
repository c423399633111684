//! The profiles that are shipped, each against a peripheral that holds or says what its manual has: every command is
//! carried out by the built daemon, what it finds is right, and what it leaves stands in the peripheral. Proves G14 for
//! them: no command but those of these tables is in a profile.

mod lines;
mod peers;
mod registers;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::support::hub::Hub;
use crate::support::{profiles, Site};
use peers::{Cell, Peripheral, Speaker};
use serde_json::Value as Json;

/// What comes of a command.
#[derive(Debug, Clone)]
enum End {
    /// It succeeds with this value, as JSON.
    Value(&'static str),
    /// It does not, by this code.
    Code(&'static str),
}

/// One command, and what it comes to.
#[derive(Debug, Clone)]
struct Step {
    command: &'static str,
    /// As on the command line; empty for none.
    value: &'static str,
    end: End,
}

/// A profile of registers.
struct OfRegisters {
    profile: &'static str,
    /// What stands in the peripheral.
    holds: Vec<(Cell, u16)>,
    /// What it does when something was written.
    reacts: fn(&mut peers::Cells, Cell, u16),
    /// Commands, and what stands in the peripheral after each.
    steps: Vec<(Step, Vec<(Cell, u16)>)>,
}

/// A profile of lines or frames.
struct OfLines {
    profile: &'static str,
    /// Commands, and what the instrument hears and says, byte by byte.
    steps: Vec<(Step, Vec<u8>, Vec<u8>)>,
}

fn read(command: &'static str, value: &'static str) -> Step {
    write(command, "", value)
}

fn write(command: &'static str, value: &'static str, written: &'static str) -> Step {
    Step { command, value, end: End::Value(written) }
}

fn refused(command: &'static str, value: &'static str, code: &'static str) -> Step {
    Step { command, value, end: End::Code(code) }
}

/// Whether two values are the same, and 230 is 230.0.
fn is_same(found: &Json, wanted: &Json) -> bool {
    match (found, wanted) {
        (Json::Array(found), Json::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| is_same(found, wanted))
        }
        _ => found == wanted || found.as_f64().is_some_and(|found| wanted.as_f64() == Some(found)),
    }
}

/// Runs a command through the daemon, and compares its end.
fn run(site: &Site, device: &str, step: &Step) {
    let mut args = vec!["exec", "--json", device, step.command];
    if !step.value.is_empty() {
        args.push(step.value);
    }
    let output = site.command(&args);
    let told = String::from_utf8_lossy(&output.stderr);
    let event: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{device}: {step:?}: {told}"));
    match &step.end {
        End::Value(value) => {
            assert_eq!(event["status"], "succeeded", "{device}: {step:?}: {event}");
            let wanted = serde_json::from_str(value).unwrap();
            assert!(is_same(&event["value"], &wanted), "{device}: {step:?}: {event}");
        }
        End::Code(code) => assert_eq!(event["error"]["code"], *code, "{device}: {step:?}: {event}"),
    }
}

/// The device of a profile on such a bus.
fn device(profile: &str, bus: &str, unit: &str) -> String {
    format!(
        "[bus.{profile}]\n{bus}\n[device.{profile}]\nbus = \"{profile}\"\nprofile = \"{profile}\"\n\
         key_file = \"device.key\"\n{unit}"
    )
}

/// The bus that a profile shows, with a server in the place of its port.
fn at_a_server(profile: &str, address: &str) -> String {
    let of_the_port = ["[bus.line]", "port ", "baud ", "parity ", "data_bits ", "stop_bits "];
    let lines = profiles::bus(profile).into_iter();
    let mut lines: Vec<String> = lines.filter(|line| !of_the_port.iter().any(|key| line.starts_with(key))).collect();
    let keys = lines.iter().take_while(|line| !line.starts_with('[')).count();
    lines.insert(keys, format!("address = \"{address}\""));
    lines.join("\n").replace("[bus.line.", &format!("[bus.{profile}."))
}

#[test]
fn every_command_of_every_profile_does_what_its_manual_says() {
    let (of_registers, of_lines) = (registers::profiles(), lines::profiles());
    let mut ids: Vec<&str> =
        of_registers.iter().map(|it| it.profile).chain(of_lines.iter().map(|it| it.profile)).collect();
    ids.sort_unstable();
    assert_eq!(ids, profiles::names(), "each profile has its table here");
    let hub = Hub::plain(&ids);
    let mut config = String::new();
    let peripherals = of_registers.into_iter().map(|it| {
        let peripheral = Peripheral::new(&it.holds, it.reacts);
        let bus = format!("kind = \"modbus-tcp\"\naddress = \"{}\"", peripheral.address());
        write!(config, "{}", device(it.profile, &bus, "unit = 1\n")).unwrap();
        (it, peripheral)
    });
    let peripherals: Vec<_> = peripherals.collect();
    let speakers = of_lines.into_iter().map(|it| {
        let speaker = Speaker::new();
        let bus = at_a_server(it.profile, speaker.address());
        write!(config, "{}", device(it.profile, &bus, "")).unwrap();
        (it, speaker)
    });
    let speakers: Vec<_> = speakers.collect();
    let site = Site::at(&hub, &config);
    let folder = profiles::folder();
    let daemon = site.spawn(&[], &[("FIELDBRIDGE_PROFILES", folder.to_str().unwrap())]);
    daemon.wait_until_ready();
    // Each by itself: instruments of lines are left a silence between two commands.
    std::thread::scope(|scope| {
        for (it, peripheral) in &peripherals {
            scope.spawn(|| of_a_peripheral(&site, it, peripheral));
        }
        for (it, speaker) in &speakers {
            scope.spawn(|| of_a_speaker(&site, it, speaker));
        }
    });
}

fn of_a_peripheral(site: &Site, it: &OfRegisters, peripheral: &Peripheral) {
    has_all_commands(it.profile, it.steps.iter().map(|(step, _)| step));
    for (step, leaves) in &it.steps {
        run(site, it.profile, step);
        for (cell, value) in leaves {
            assert_eq!(peripheral.holds(*cell), *value, "{}: {step:?} leaves at {cell:?}", it.profile);
        }
    }
}

fn of_a_speaker(site: &Site, it: &OfLines, speaker: &Speaker) {
    has_all_commands(it.profile, it.steps.iter().map(|(step, ..)| step));
    for (step, hears, says) in &it.steps {
        speaker.expects(hears, says);
        run(site, it.profile, step);
        speaker.has_heard_all(&format!("{}: {step:?}", it.profile));
    }
}

/// The table of a profile has each of its commands, and no other.
fn has_all_commands<'a>(profile: &str, steps: impl Iterator<Item = &'a Step>) {
    let text = profiles::text(profile);
    let head = format!("[profile.{profile}.command.");
    let commands = text.lines().filter_map(|line| line.strip_prefix(&head)?.strip_suffix(']'));
    let tried: BTreeSet<&str> = steps.map(|step| step.command).collect();
    assert_eq!(tried, commands.collect(), "{profile}");
}
