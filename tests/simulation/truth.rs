//! What the ledger says beside what the peripherals have said: G12 to G14. None of the gateway's code takes part.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use tokio::time::Instant;

use super::hub::{Event, Sent};
use super::judge::Command;
use super::manners::Manner;
use super::record::{Last, Record, Told};
use super::request::{READ, READS, SET_VERIFIED};
use super::scenario::{Asks, Message, Scenario};
use super::world::World;

/// Judges every command.
pub fn judge(
    world: &World,
    scenario: &Scenario,
    commands: &[Command],
    sent: &[Sent],
    events: &BTreeMap<String, Vec<Event>>,
    record: &Record,
) {
    let nothing = Told::default();
    for command in commands {
        let message = command.message;
        let receipts = receipts(message, sent);
        // At which hub what was done for was received can't be told.
        let is_one = !command.is_several && !command.is_alike();
        let told = record.told.get(&message.value).unwrap_or(&nothing);
        if is_one && message.asks != Asks::Weigh {
            judge_deadline(world, scenario, (command, sent), told, &receipts);
        }
        if command.row.is_some_and(|row| row.error.as_deref() == Some("unreachable")) {
            judge_absence(world, scenario, command, told, record);
        }
        if command.row.is_some() && is_one {
            judge_end(world, scenario, command, told, record);
            for event in events.get(&message.device).into_iter().flatten() {
                judge_value((world, scenario), command, event, told, record, &receipts);
            }
        }
    }
}

/// G11: whose unit is called away was silent so often in a row, and nothing was sent.
fn judge_absence(world: &World, scenario: &Scenario, command: &Command, told: &Told, record: &Record) {
    world.count("ended: unreachable");
    let message = command.message;
    let after = scenario.configurations.iter().map(|one| one.unreachable_after).filter(|after| *after > 0).min();
    let unit = if message.line == "/dev/text" { 0 } else { message.unit };
    let silence = record.silence(message.line, unit);
    match after {
        Some(after) if silence as u64 >= after => world.count("judged: who is called away was silent"),
        _ => world.violate(format!("G11: {message:?} is called unreachable after {silence} requests, of {after:?}")),
    }
    // Of what may be repeated an earlier life may have left no trace, and neither does a ledger that is lost.
    let lives: BTreeSet<u64> = record.requests.values().flatten().map(|heard| heard.life).collect();
    let would_be_known = lives.len() == 1 && message.asks != Asks::Weigh && !command.is_alike() && command.is_only;
    if would_be_known && !command.is_several && !told.asked.is_empty() {
        world.violate(format!("G11: {message:?} is called unreachable, and was sent: {told:?}"));
    }
}

/// When a message was first received, in each life of the process that received it.
pub fn receipts(message: &Message, sent: &[Sent]) -> BTreeMap<u64, Instant> {
    let mut receipts = BTreeMap::new();
    let same = |one: &&Sent| {
        (&one.message.device, &one.message.id, &one.message.body) == (&message.device, &message.id, &message.body)
    };
    for (life, at) in sent.iter().filter(same).flat_map(|one| &one.received) {
        let first = receipts.entry(*life).or_insert(*at);
        *first = (*first).min(*at);
    }
    receipts
}

/// G13: the first byte was on the wire in time, counted from the first receipt in this life, or else from the one that
/// made its row; and never after the message's own expiry.
fn judge_deadline(
    world: &World,
    scenario: &Scenario,
    (command, sent): (&Command, &[Sent]),
    told: &Told,
    receipts: &BTreeMap<u64, Instant>,
) {
    let message = command.message;
    // Without an id a redelivery can't be told from another message once one has ended, as it had if that was too late.
    // What it came to was not recorded.
    let is_another = message.id.is_none() && command.row.is_some_and(|row| row.state == "expired");
    let of_it = sent.iter().filter(|one| one.message == *message);
    let again = of_it.filter(|_| is_another).flat_map(|one| &one.redelivered);
    for (life, written) in &told.asked {
        let received = receipts.range(..=*life).next_back();
        let Some((of, received)) = received else {
            world.violate(format!("G13: {message:?} was on the wire and never received"));
            continue;
        };
        let seen = again.clone().rfind(|(in_life, at)| in_life == of && at <= written).map_or(received, |(_, at)| at);
        let took = written.saturating_duration_since(*seen);
        // Over lives only the wall clock tells.
        if took > scenario.deadline && (of == life || scenario.clock_is_right()) {
            world.violate(format!(
                "G13: {message:?} was on the wire {took:?} after its receipt, and had {:?}",
                scenario.deadline
            ));
        }
        let expiry = message.expiry.filter(|_| scenario.clock_is_right());
        if expiry.is_some_and(|expiry| world.since_the_beginning(*written).as_secs_f64() > expiry as f64) {
            world.violate(format!("G13: {message:?} was on the wire after its expiry"));
        }
    }
}

/// G12: a success was confirmed, and a refusal said, to this very command; and nobody says of a write which was to be
/// read back that it failed without having looked.
fn judge_end(world: &World, scenario: &Scenario, command: &Command, told: &Told, record: &Record) {
    let (Some(row), message) = (command.row, command.message) else { return };
    // See `rows`.
    if matches!(message.asks, Asks::Row(_)) {
        return;
    }
    let error = row.error.as_deref().unwrap_or_default();
    let is_verified = matches!(message.asks, Asks::SetVerified | Asks::PulseVerified);
    let is_withheld = |address| record.withheld.contains(&(message.line.to_owned(), message.unit, address));
    let refused = match message.asks {
        Asks::Read => is_withheld(READ + message.value % READS),
        // Who weighs does not say for what.
        Asks::Weigh => record.told.get(&0).is_some_and(|told| told.refused),
        Asks::SetVerified => told.refused || is_withheld(SET_VERIFIED),
        _ => told.refused,
    };
    let wrong = match (row.state.as_str(), message.asks) {
        ("succeeded", Asks::Set | Asks::Pulse) if !told.confirmed => Some("a success that nobody confirmed"),
        ("succeeded", Asks::SetVerified | Asks::PulseVerified) if !told.confirmed && !told.shown => {
            Some("a success that nobody confirmed or showed")
        }
        ("failed", asks) if asks != Asks::Nothing && matches!(error, "refused" | "exception") && !refused => {
            Some("a refusal that was said to another command")
        }
        ("failed", Asks::SetVerified) if error == "verify-mismatch" && command.effects > 0 => {
            Some("it stands there after a while, and is called failed")
        }
        ("failed", _) if is_verified && matches!(error, "timeout" | "bad-reply") => match told.last {
            Last::Written => Some("called failed, and nobody looked what stands there"),
            Last::Shown => Some("called failed, and it was shown to stand there"),
            Last::Nothing | Last::Asked => None,
        },
        _ => None,
    };
    if wrong.is_some() && record.excuses(message, row) {
        world.count("judged: a report that nobody could know");
        return;
    }
    if scenario.manners.have(Manner::Streams)
        && message.asks.writes()
        && !told.asked.is_empty()
        && message.line == "/dev/text"
    {
        world.count("judged: a command among reports");
    }
    if let Some(what) = wrong {
        world.violate(format!("G12: {what}: {message:?}, {row:?}, {told:?}, done {} times", command.effects));
    }
}

/// G12: a value that is reported was said to this very command.
fn judge_value(
    (world, scenario): (&World, &Scenario),
    command: &Command,
    event: &Event,
    told: &Told,
    record: &Record,
    receipts: &BTreeMap<u64, Instant>,
) {
    let message = command.message;
    let ended_well = command.row.is_some_and(|row| row.state == "succeeded");
    if !ended_well || !command.is_only || message.id.is_none() || event.correlation != message.id {
        return;
    }
    let body: Json = serde_json::from_str(&event.body).unwrap_or_default();
    if body["status"] != "succeeded" {
        return;
    }
    let value = &body["value"];
    let said: Vec<String> = match message.asks {
        Asks::Ask => told.readings.clone(),
        Asks::Weigh => {
            let first = receipts.values().min();
            let weights = record.weights.iter().filter(|(arrived, _)| first.is_some_and(|first| arrived >= first));
            weights.map(|(_, weight)| weight.clone()).collect()
        }
        Asks::Read => {
            let register = READ + message.value % READS;
            let readings = record.readings.get(&(message.line.to_owned(), message.unit, register));
            let first = receipts.values().min();
            let own = readings.into_iter().flatten().filter(|(asked, _)| first.is_some_and(|first| asked >= first));
            own.map(|(_, reading)| reading.to_string()).collect()
        }
        _ => return,
    };
    world.count("judged: a value beside what was said");
    if message.asks == Asks::Ask && !scenario.framing.is_plain() {
        world.count("judged: what was said in a frame");
    }
    if !said.iter().any(|said| is_same(value, said)) {
        world.violate(format!("G12: {message:?} has the value {value}, and was told {said:?}"));
    }
}

/// A number is one only where it is written as one; all else is text.
fn is_same(value: &Json, said: &str) -> bool {
    let digits = said.strip_prefix('-').unwrap_or(said);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_all = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_all(whole) && is_all(fraction) && (whole == "0" || !whole.starts_with('0'));
    match value {
        Json::Number(number) if is_plain => number.as_f64() == said.parse().ok(),
        Json::String(text) => text == said && !is_plain,
        _ => false,
    }
}
