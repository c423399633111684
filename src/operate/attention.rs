//! What needs a person, of all that a daemon says of itself. Pure.
//!
//! Invariants
//! - What comes right by itself, or is as somebody wants it (a lock, messages that are held), needs nobody.
//! - One cause is told once, however many devices or buses it has.
//! - What is told is bounded, and each of it is one line that steers no terminal.

use crate::complaint::Complaint;
use crate::health::snapshot::{Attention, BusState, Device, LinkState, Snapshot, Undone};
use crate::operate::text::printable;

/// Names that are told of those with one cause.
const NAMES_MAX: usize = 3;
/// Causes of a kind that are told.
const CAUSES_MAX: usize = 10;
/// How commands end that say that a peripheral does not answer as it should, whatever was asked of it.
const SILENCE: [&str; 3] = ["timeout", "bad-reply", "unreachable"];
/// How somebody looks what a device has done last.
const LOOK: &str = "see docs/TROUBLESHOOTING.md, and ask it: `fieldbridge check --live`";

/// Everything that needs a person, what matters most first.
pub fn of(snapshot: &Snapshot) -> Vec<Attention> {
    let mut all = Vec::new();
    ledger(snapshot, &mut all);
    distrust(snapshot, &mut all);
    clock(snapshot, &mut all);
    configuration(snapshot, &mut all);
    buses(snapshot, &mut all);
    away(snapshot, &mut all);
    silent(snapshot, &mut all);
    identities(snapshot, &mut all);
    doubts(snapshot, &mut all);
    telemetry(snapshot, &mut all);
    all
}

fn told(what: impl AsRef<str>, remedy: impl AsRef<str>) -> Attention {
    Attention { what: printable(what.as_ref()), remedy: printable(remedy.as_ref()) }
}

/// What a sentence says, with what to do where it names nothing.
fn heard(sentence: &str, remedy: &str) -> Complaint {
    let heard = Complaint::heard(&printable(sentence));
    match heard.remedy.is_empty() {
        true => Complaint::new(heard.what, remedy),
        false => heard,
    }
}

fn ledger(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    if snapshot.ledger.ok {
        return;
    }
    let why = heard(snapshot.ledger.last_error.as_deref().unwrap_or("it is not known why"), "look at the disk");
    let what = format!("the ledger is NOT WRITABLE: {}; until it is, nothing is taken from the hub", why.what);
    all.push(told(what, why.remedy));
}

/// Devices that are connected, and of which the hub has not shown yet that nothing of before is left: that takes long
/// where commands never pause.
fn distrust(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let devices = snapshot.devices.iter().filter(|device| device.distrusted && device.hub == LinkState::Connected);
    let names: Vec<&str> = devices.map(|device| &*device.id).collect();
    if names.is_empty() {
        return;
    }
    let what = format!(
        "the ledger is new, or from a backup: commands of {} that must not be repeated end in doubt until the hub shows \
         that nothing from before is left",
        listed(&names)
    );
    let remedy =
        "wait for a pause of commands, 80 s after the device has connected; if you know that nothing from before \
                  is left, stop the daemon, `fieldbridge ledger new --trust`, and start it";
    all.push(told(what, remedy));
}

fn telemetry(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let Some(telemetry) = snapshot.telemetry.as_ref().filter(|telemetry| !telemetry.ok) else { return };
    let why = heard(telemetry.last_error.as_deref().unwrap_or("it is not known why"), "look at the disk");
    let what =
        format!("telemetry can't be kept: {}; commands go on, and what does not reach the hub soon is lost", why.what);
    all.push(told(what, why.remedy));
}

fn clock(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    if snapshot.clock.ok {
        return;
    }
    let why = snapshot.clock.last_error.as_deref().unwrap_or("it is not known why");
    let why = heard(why, "see `timedatectl`: is there a network, and a time server?");
    all.push(told(format!("clock NOT BELIEVED: {}", why.what), why.remedy));
}

fn configuration(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let configuration = &snapshot.configuration;
    if !configuration.ok {
        let why = configuration.last_error.as_deref().unwrap_or("it is not known why");
        let what = format!("the last reload was REFUSED, and what runs is the configuration before it: {why}");
        all.push(told(what, "`fieldbridge check` tells all that is wrong; then `fieldbridge reload`"));
    }
    if !configuration.changed_files.is_empty() {
        let files: Vec<&str> = configuration.changed_files.iter().map(String::as_str).collect();
        let what = format!("what runs may not be what the files say: {}", have_changed(&files));
        all.push(told(what, "`fieldbridge check`, then `fieldbridge reload`"));
    }
}

fn have_changed(files: &[&str]) -> String {
    let changed = if files.len() == 1 { "has changed since it was read" } else { "have changed since they were read" };
    format!("{} {changed}", listed(files))
}

/// One bus or device that has something, and what.
struct Case<'a> {
    name: &'a str,
    sentence: String,
}

/// Those with the same sentence together, in the order in which they come.
fn grouped<'a>(cases: impl Iterator<Item = Case<'a>>) -> Vec<(String, Vec<&'a str>)> {
    let mut groups: Vec<(String, Vec<&'a str>)> = Vec::new();
    for Case { name, sentence } in cases {
        // What differs only by the name is the same.
        let sentence = without(&printable(&sentence), &printable(name));
        match groups.iter_mut().find(|(other, _)| *other == sentence) {
            Some((_, names)) => names.push(name),
            None => groups.push((sentence, vec![name])),
        }
    }
    groups
}

/// Tells of each group, and of how many groups are left out.
fn tell(groups: Vec<(String, Vec<&str>)>, all: &mut Vec<Attention>, say: impl Fn(&str, &[&str]) -> Attention) {
    let more = groups.len().saturating_sub(CAUSES_MAX);
    for (sentence, names) in groups.into_iter().take(CAUSES_MAX) {
        let named = match &names[..] {
            [one] => sentence.replace(NAME, one),
            _ => sentence.replace(NAME, "its id"),
        };
        all.push(say(&named, &names));
    }
    if more > 0 {
        all.push(told(format!("{more} more causes like these"), "`fieldbridge status --json` has all of them"));
    }
}

/// Stands where the name of a device was.
const NAME: &str = "\u{1}";

/// A sentence without a name where that is a word of its own.
fn without(sentence: &str, name: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let (mut out, mut rest) = (String::new(), sentence);
    while let Some(at) = rest.find(name).filter(|_| !name.is_empty()) {
        let (before, behind) = (&rest[..at], &rest[at + name.len()..]);
        let is_word = !before.ends_with(is_part) && !behind.starts_with(is_part);
        out.push_str(before);
        out.push_str(if is_word { NAME } else { name });
        rest = behind;
    }
    out + rest
}

fn buses(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let cases = snapshot.buses.iter().filter_map(|bus| {
        let sentence = bus.last_error.clone()?;
        // One that is closed is in order; what it had last is history.
        (bus.state != BusState::Closed).then_some(Case { name: &bus.name, sentence })
    });
    tell(grouped(cases), all, |sentence, names| {
        let why = heard(sentence, "see docs/TROUBLESHOOTING.md");
        let buses = if names.len() == 1 { "bus" } else { "buses" };
        told(format!("{buses} {}: {}", listed(names), why.what), why.remedy)
    });
}

fn away(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let mut on_buses: Vec<&str> = Vec::new();
    for device in snapshot.devices.iter().filter(|device| device.present == Some(false)) {
        if !on_buses.contains(&&*device.bus) {
            on_buses.push(&device.bus);
        }
    }
    for bus in on_buses {
        let of_bus = || snapshot.devices.iter().filter(|device| device.bus == bus);
        let away: Vec<&Device> = of_bus().filter(|device| device.present == Some(false)).collect();
        let names: Vec<&str> = away.iter().map(|device| &*device.id).collect();
        let since: String = match &away[..] {
            [one] => one.away_since.iter().map(|since| format!(" since {since}")).collect(),
            _ => String::new(),
        };
        let (is_all, are) = (names.len() > 1 && away.len() == of_bus().count(), verb(&names, "is", "are"));
        let (what, remedy) = match is_all {
            true => (
                format!("nobody on bus {bus} answers: {} are AWAY", listed(&names)),
                "look at the line first: power, A and B, terminators, baud and parity; then at each unit".to_owned(),
            ),
            false => (
                format!(
                    "{} {are} AWAY{since}: {} on bus {bus} {} not answer",
                    listed(&names),
                    if names.len() == 1 { "its unit" } else { "their units" },
                    verb(&names, "does", "do")
                ),
                format!("check power, wiring and unit id; `fieldbridge scan {bus}` tells who answers"),
            ),
        };
        all.push(told(what, remedy));
    }
}

/// Devices whose last command was not answered as it should be, and that are not told of already.
fn silent(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let is_told = |device: &Device| {
        let bus = snapshot.bus(&device.bus);
        device.present == Some(false)
            || bus.is_some_and(|bus| bus.last_error.is_some() && bus.state != BusState::Closed)
    };
    let cases = snapshot.devices.iter().filter(|device| !is_told(device)).filter_map(|device| {
        let failure = last_silence(device)?;
        Some(Case { name: &device.id, sentence: format!("{} ({})", failure.message, failure.code) })
    });
    tell(grouped(cases), all, |sentence, names| {
        let why = heard(sentence, LOOK);
        let commands = verb(names, "the last command of", "the last commands of");
        told(format!("{commands} {} failed: {}", listed(names), why.what), why.remedy)
    });
}

/// The end of a device's last command, if it was silence.
fn last_silence(device: &Device) -> Option<&Undone> {
    let failure = device.last_failure.as_ref().filter(|failure| SILENCE.contains(&&*failure.code))?;
    let is_last = device.last_success.as_ref().is_none_or(|success| success.seconds_ago > failure.seconds_ago);
    is_last.then_some(failure)
}

fn identities(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let is_out = |state| matches!(state, LinkState::Waiting | LinkState::Connecting | LinkState::Unknown);
    let cases = snapshot.devices.iter().filter(|device| is_out(device.hub)).filter_map(|device| {
        let sentence = device.last_error.clone()?;
        Some(Case { name: &device.id, sentence })
    });
    tell(grouped(cases), all, |sentence, names| {
        let why = heard(sentence, "`fieldbridge check --live` tries the hub and each identity");
        let what = format!("{} {} not connected to the hub: {}", listed(names), verb(names, "is", "are"), why.what);
        told(what, why.remedy)
    });
}

fn doubts(snapshot: &Snapshot, all: &mut Vec<Attention>) {
    let open = snapshot.ledger.in_doubt_open;
    if open == 0 {
        return;
    }
    let with: Vec<&str> =
        snapshot.devices.iter().filter(|device| device.in_doubt_open > 0).map(|device| &*device.id).collect();
    let of = if with.is_empty() { "devices that are not configured any more".to_owned() } else { listed(&with) };
    let (commands, they) = if open == 1 { ("command is", "it was") } else { ("commands are", "they were") };
    all.push(told(
        format!("{open} {commands} in doubt, of {of}: whether {they} done is not known"),
        "look at the machine; `fieldbridge ledger list --open` has them, `fieldbridge ledger resolve ROW --note TEXT` \
         says that you have looked",
    ));
}

fn verb<'a>(names: &[&str], of_one: &'a str, of_more: &'a str) -> &'a str {
    if names.len() == 1 {
        of_one
    } else {
        of_more
    }
}

/// Some names, and how many more.
pub fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        few if few.len() <= NAMES_MAX => {
            let (last, before) = few.split_last().expect("there are some");
            format!("{} and {last}", before.join(", "))
        }
        many => format!("{} and {} more", many[..NAMES_MAX].join(", "), many.len() - NAMES_MAX),
    }
}

#[cfg(test)]
mod tests;
