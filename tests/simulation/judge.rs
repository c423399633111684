//! What must be true at the end, judged from what the hub and the plant have counted and from what the ledger says.
//! The rules are those of DESIGN.md's guarantees; none of the gateway's code takes part.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::hub::{Event, Hub, Sent, State};
use super::ledger::{digest, Row};
use super::plant::Effect;
use super::scenario::{Asks, Message, Scenario};
use super::world::World;

/// One command of the back end's, however often it was sent.
struct Command<'a> {
    message: &'a Message,
    digest: Vec<u8>,
    sent: usize,
    row: Option<&'a Row>,
    effects: usize,
}

/// Judges a schedule that has come to rest.
pub fn judge(world: &World, scenario: &Scenario, hub: &Hub, rows: &[Row], effects: &[Effect]) {
    hub.look(|sent, events| {
        for one in sent {
            if matches!(one.state, State::Queued | State::Delivered(..)) {
                world.violate(format!("{:?} was never completed", one.message));
            }
        }
        for row in rows.iter().filter(|row| !row.is_final()) {
            world.violate(format!("a row never ended: {row:?}"));
        }
        let commands = commands(sent, rows, effects);
        for command in &commands {
            judge_command(world, scenario, sent, command);
        }
        judge_ids(world, &commands);
        for device in &scenario.devices {
            let none = Vec::new();
            judge_events(world, device, rows, events.get(device).unwrap_or(&none), sent);
            judge_order(world, device, &commands, effects);
        }
    });
}

fn commands<'a>(sent: &'a [Sent], rows: &'a [Row], effects: &[Effect]) -> Vec<Command<'a>> {
    let mut commands: Vec<Command> = Vec::new();
    for Sent { message, .. } in sent {
        let wanted = digest(message);
        let is_same = |command: &&mut Command| {
            (&command.message.device, &command.message.id) == (&message.device, &message.id) && command.digest == wanted
        };
        if let Some(known) = commands.iter_mut().find(is_same) {
            known.sent += 1;
            continue;
        }
        let is_its = |row: &&Row| row.device == message.device && row.message_id == message.id && row.digest == wanted;
        let row = rows.iter().find(is_its);
        let effects = effects.iter().filter(|effect| effect.value == message.value).count();
        commands.push(Command { message, digest: wanted, sent: 1, row, effects });
    }
    commands
}

/// G1 to G4 and G8, command by command.
fn judge_command(world: &World, scenario: &Scenario, sent: &[Sent], command: &Command) {
    let Command { message, row, effects, .. } = *command;
    let violate = |what: &str| world.violate(format!("{what}: {message:?}, {row:?}, done {effects} times"));
    if message.asks.once() && effects > 1 {
        violate("G3: repeated");
    }
    let completed = sent.iter().any(|one| one.message == *message && one.state == State::Completed);
    let Some(row) = row else {
        // What the hub threw away before it was recorded is its to report, unless it was begun.
        if completed {
            violate("G1: completed without a row");
        } else if message.asks.once() && effects > 0 {
            violate("G3: done, and nothing is recorded");
        }
        return;
    };
    world.count(match (row.state.as_str(), message.asks.once()) {
        ("succeeded", true) => "ended: succeeded, not idempotent",
        ("succeeded", false) => "ended: succeeded, idempotent",
        ("failed", _) => "ended: failed",
        ("rejected", _) => "ended: rejected",
        ("expired", _) => "ended: expired",
        ("in_doubt", _) => "ended: in doubt",
        _ => "ended: otherwise",
    });
    let lost = match (row.state.as_str(), message.asks) {
        ("succeeded", Asks::Nothing) => Some("G8: poison succeeded"),
        ("succeeded", Asks::Read) => None,
        ("succeeded", _) if effects == 0 => Some("false success"),
        ("rejected", _) if effects > 0 => Some("rejected, and done"),
        ("failed" | "expired", asks) if asks.once() && effects > 0 => Some("reported as not done, and done"),
        ("in_doubt", asks) if !asks.once() => Some("G4: an idempotent command in doubt"),
        ("rejected", asks) if asks != Asks::Nothing && !has_reason(scenario, row) => Some("rejected without a reason"),
        (_, Asks::Nothing) if row.state != "rejected" => Some("G8: poison was not rejected"),
        _ => None,
    };
    if let Some(what) = lost {
        violate(what);
    }
    let is_calm = scenario.faults.is_none() && scenario.clock_is_right();
    if is_calm
        && message.asks != Asks::Nothing
        && !matches!(row.state.as_str(), "succeeded" | "expired")
        && !has_reason(scenario, row)
    {
        violate("nothing went wrong, and it did not succeed");
    }
}

fn has_reason(scenario: &Scenario, row: &Row) -> bool {
    let is_one = |code| match code {
        "message-id-reused" | "no-message-id" => true,
        "unknown-command" => scenario.reloads(),
        _ => false,
    };
    row.state == "rejected" && row.error.as_deref().is_some_and(is_one)
}

/// A message id is used by one command, whatever else comes under it.
fn judge_ids(world: &World, commands: &[Command]) {
    let mut users: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for command in commands {
        if let (Some(id), Some(row)) = (&command.message.id, command.row) {
            users.entry((&command.message.device, id)).or_default().push(row);
        }
    }
    for (id, rows) in users {
        let own = rows.iter().filter(|row| row.error.as_deref() != Some("message-id-reused")).count();
        if own > 1 {
            world.violate(format!("the id {id:?} was used by {own} commands: {rows:?}"));
        }
    }
}

/// G7: each row has its event at the hub, the same however often it came.
fn judge_events(world: &World, device: &str, rows: &[Row], events: &[Event], sent: &[Sent]) {
    let mut told: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in events {
        let first = told.entry(&event.id).or_insert(event);
        if first.body != event.body || first.correlation != event.correlation {
            world.violate(format!("G7: one event, two contents: {first:?} and {event:?}"));
        }
    }
    let status = |event: &Event| {
        let body: Json = serde_json::from_str(&event.body).unwrap_or_default();
        body["status"].as_str().unwrap_or_default().to_owned()
    };
    let ids: BTreeSet<&Option<String>> =
        sent.iter().filter(|one| one.message.device == device).map(|one| &one.message.id).collect();
    for id in ids {
        let of_rows = rows.iter().filter(|row| row.device == device && row.message_id == *id);
        let mut of_rows: Vec<String> = of_rows.map(|row| row.state.clone()).collect();
        let of_events = told.values().filter(|event| event.correlation == *id);
        let mut of_events: Vec<String> = of_events.map(|event| status(event)).collect();
        of_rows.sort();
        of_events.sort();
        if of_rows != of_events {
            world.violate(format!("G7: {device}: {id:?}: the ledger says {of_rows:?}, the hub was told {of_events:?}"));
        }
    }
}

/// G5: what a device's peripheral has done, it has done in the order of receipt. Without a message id a redelivery is a
/// new command; and of what was sent twice any copy may have run out of time at the hub.
fn judge_order(world: &World, device: &str, commands: &[Command], effects: &[Effect]) {
    let place = |effect: &Effect| {
        commands.iter().position(|Command { message, sent, .. }| {
            message.device == device && message.value == effect.value && message.id.is_some() && *sent == 1
        })
    };
    let places: Vec<usize> = effects.iter().filter_map(place).collect();
    if !places.is_sorted() {
        world.violate(format!("G5: {device}: done in the order {places:?}"));
    }
}
