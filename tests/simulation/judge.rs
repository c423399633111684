//! What must be true at the end, judged from what the hub and the plant have counted and from what the ledger says.
//! The rules are those of DESIGN.md's guarantees; none of the gateway's code takes part.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use tokio::time::Instant;

use super::alarms;
use super::hub::{Event, Hub, Sent, State};
use super::ledger::{digest, Lost, Row};
use super::manners::Manner;
use super::record::{Effect, Record};
use super::rows;
use super::scenario::{Asks, Message, Over, Scenario, HUBS};
use super::truth;
use super::world::World;

/// One command of the back end's, however often it was sent.
pub struct Command<'a> {
    pub message: &'a Message,
    digest: Vec<u8>,
    sent: usize,
    pub row: Option<&'a Row>,
    /// A ledger that the gateway no longer has knew of it, or knew more.
    was_known: bool,
    /// The ledger in its place knew nothing of it.
    was_forgotten: bool,
    pub effects: usize,
    /// Another hub sent the same, so often: what was done was done for either.
    alike: usize,
    /// So often the hub seemed to hold nothing, and held this.
    concealed: usize,
    /// Nothing else came under its id to its device.
    pub is_only: bool,
    /// It ended more than once: without an id, or with a ledger that was lost, what comes again is a new command.
    pub is_several: bool,
}

/// Judges a schedule that has come to rest.
///
/// `lost` is what ledgers knew that the gateway no longer has.
pub fn judge(world: &World, scenario: &Scenario, hub: &Hub, rows: &[Row], lost: &Lost, record: &Record) {
    let effects = &record.effects;
    alarms::judge(world, scenario, &hub.news(), record);
    hub.look(|sent, events| {
        for one in sent {
            if !one.state.is_over() && one.message.hub == HUBS[0] {
                world.violate(format!("{:?} was never completed", one.message));
            }
        }
        for row in rows.iter().filter(|row| !row.is_final()) {
            world.violate(format!("a row never ended: {row:?}"));
        }
        let commands = commands(sent, rows, lost, effects);
        for command in &commands {
            judge_command(world, scenario, sent, command, record);
            judge_restored(world, command, lost);
        }
        judge_ids(world, &commands);
        truth::judge(world, scenario, &commands, sent, events, record);
        rows::judge(world, scenario, &commands, events, record);
        for device in &scenario.devices {
            let none = Vec::new();
            judge_events(world, device, (rows, &lost.rows), events.get(device).unwrap_or(&none), sent);
            judge_order(world, scenario, device, (&commands, effects), sent);
        }
    });
}

fn commands<'a>(sent: &'a [Sent], rows: &'a [Row], lost: &Lost, effects: &[Effect]) -> Vec<Command<'a>> {
    let mut commands: Vec<Command> = Vec::new();
    for Sent { message, concealed, .. } in sent {
        let wanted = digest(message);
        let is_same = |command: &&mut Command| {
            let known = command.message;
            (known.hub, &known.device, &known.id) == (message.hub, &message.device, &message.id)
                && command.digest == wanted
        };
        if let Some(known) = commands.iter_mut().find(is_same) {
            known.sent += 1;
            known.concealed += concealed;
            continue;
        }
        let is_its = |row: &&Row| {
            (row.hub.as_str(), &row.device, &row.message_id) == (message.hub, &message.device, &message.id)
                && row.digest == wanted
        };
        let (row, was_known) = (rows.iter().find(is_its), lost.rows.iter().any(|row| is_its(&row)));
        let was_forgotten = lost.forgotten.iter().any(|row| is_its(&row));
        let is_several = rows.iter().chain(&lost.rows).filter(is_its).count() > 1;
        let effects = often(effects, message.value);
        commands.push(Command {
            message,
            digest: wanted,
            sent: 1,
            row,
            was_known,
            was_forgotten,
            effects,
            alike: 0,
            concealed: *concealed,
            is_only: true,
            is_several,
        });
    }
    let all: Vec<(&Message, usize, [bool; 2])> =
        commands.iter().map(|one| (one.message, one.sent, [one.was_known, one.was_forgotten])).collect();
    for command in &mut commands {
        let own = command.message;
        let others = all.iter().filter(|(other, ..)| other.device == own.device && **other != *own);
        let alike = others.clone().filter(|(other, ..)| other.hub != own.hub && other.value == own.value);
        command.alike = alike.clone().map(|(_, sent, _)| sent).sum();
        command.was_known |= alike.clone().any(|(.., [was_known, _])| *was_known);
        command.was_forgotten |= alike.clone().any(|(.., [_, was_forgotten])| *was_forgotten);
        command.is_only = !others.clone().any(|(other, ..)| other.id == own.id);
    }
    commands
}

/// How often a command was done: the most of its steps, if it has several.
fn often(effects: &[Effect], value: u16) -> usize {
    let mut steps: BTreeMap<Option<u16>, usize> = BTreeMap::new();
    for effect in effects.iter().filter(|effect| effect.value == value) {
        *steps.entry(effect.address).or_default() += 1;
    }
    steps.into_values().max().unwrap_or(0)
}

impl Command<'_> {
    pub fn is_alike(&self) -> bool {
        self.alike > 0
    }

    /// How often a command that must not be repeated may be done. What a ledger knew that is gone can't be told from
    /// what somebody sends once more: each message by itself is done once at most (G15), unless the hub seemed to hold
    /// nothing any more; or the system called a clock right that was behind, by which a new ledger takes what was sent
    /// before it for younger.
    pub fn effects_max(&self, world: &World) -> usize {
        match self.was_forgotten {
            true if world.has_misled() => usize::MAX,
            true => self.sent + self.alike + self.concealed,
            false => 1,
        }
    }
}

/// G1 to G4 and G8, command by command.
fn judge_command(world: &World, scenario: &Scenario, sent: &[Sent], command: &Command, record: &Record) {
    let Command { message, row, effects, .. } = *command;
    let violate = |what: &str| world.violate(format!("{what}: {message:?}, {row:?}, done {effects} times"));
    if message.asks.once() && effects > command.effects_max(world) {
        violate("G3: repeated");
    }
    let is_told = |state| sent.iter().any(|one| one.message == *message && one.state == state);
    let completed = is_told(State::Completed) || is_told(State::Rejected);
    let Some(row) = row else {
        if command.was_known || command.is_alike() {
            return;
        }
        // What the hub threw away before it was recorded is its to report, unless it was begun.
        if completed {
            violate("G1: completed without a row");
        } else if message.asks.once() && effects > 0 {
            violate("G3: done, and nothing is recorded");
        }
        return;
    };
    let is_refusal = matches!(row.state.as_str(), "rejected" | "expired");
    // What is settled when it is accepted is settled before anybody knows its end.
    let may_be_told = !message.after_accept && !command.is_several && !command.was_known && !command.is_alike();
    let ways = scenario.ways(&message.device);
    if may_be_told {
        // MQTT can't say that something is refused.
        if is_refusal && is_told(State::Completed) && !ways.contains(&Over::Mqtt) {
            violate("its sender is told that it succeeded");
        } else if !is_refusal && is_told(State::Rejected) {
            violate("its sender is told that it was refused");
        }
    }
    judge_row(world, scenario, command, (row, is_told(State::Expired)), record);
}

/// What its row says of a command, beside what was done. `has_expired`: the hub has thrown it away.
fn judge_row(world: &World, scenario: &Scenario, command: &Command, (row, has_expired): (&Row, bool), record: &Record) {
    let Command { message, effects, .. } = *command;
    let violate = |what: &str| world.violate(format!("{what}: {message:?}, {row:?}, done {effects} times"));
    world.count(match (row.state.as_str(), message.asks.once()) {
        ("succeeded", true) => "ended: succeeded, not idempotent",
        ("succeeded", false) => "ended: succeeded, idempotent",
        ("failed", _) => "ended: failed",
        ("rejected", _) => "ended: rejected",
        ("expired", _) => "ended: expired",
        ("in_doubt", _) => "ended: in doubt",
        _ => "ended: otherwise",
    });
    let only_by_mqtt = scenario.ways(&message.device).iter().all(|over| *over == Over::Mqtt);
    let wrong = match (row.state.as_str(), message.asks) {
        ("succeeded", Asks::Nothing) => Some("G8: poison succeeded"),
        ("succeeded", asks) if !asks.writes() => None,
        ("succeeded", _) if effects == 0 => Some("false success"),
        ("rejected", _) if effects > 0 => Some("rejected, and done"),
        // How far it came is judged beside what its peripheral has heard.
        ("failed", asks) if asks.has_steps() => None,
        ("failed" | "expired", asks) if asks.once() && effects > 0 => Some("reported as not done, and done"),
        ("in_doubt", asks) if !asks.once() => Some("G4: an idempotent command in doubt"),
        ("rejected", asks) if asks != Asks::Nothing && !has_reason(scenario, row) => Some("rejected without a reason"),
        (_, Asks::Nothing) if row.state != "rejected" => Some("G8: poison was not rejected"),
        _ => None,
    };
    match wrong {
        // What the instrument says by itself could not be known for that yet.
        Some("false success" | "reported as not done, and done") if record.excuses(message, row) => {}
        // It may have been done for a ledger that is gone.
        Some("rejected, and done" | "reported as not done, and done") if command.was_forgotten => {}
        // It was done, and the process ended before that was recorded. What may be done again leaves no trace, and
        // while the hub kept it or that other message locked, or when it had thrown it away, the other took its id.
        Some("rejected, and done") if is_reused(row) && !message.asks.once() && (!only_by_mqtt || has_expired) => {}
        Some(what) if !command.is_alike() => violate(what),
        _ => {}
    }
    // Only MQTT's greeting tells a first installation from a ledger that was lost (docs/TRANSPORTS.md).
    let may_be_known = !only_by_mqtt && row.error.as_deref() == Some("unknown-history");
    let is_calm = scenario.faults.is_none() && scenario.manners.are_none() && scenario.clock_is_right();
    if is_calm
        && message.asks != Asks::Nothing
        && !matches!(row.state.as_str(), "succeeded" | "expired")
        && !has_reason(scenario, row)
        && !may_be_known
    {
        violate("nothing went wrong, and it did not succeed");
    }
}

/// G15: what a backup had as accepted, and nobody knew what became of it since, is not begun unless it may be repeated.
fn judge_restored(world: &World, command: &Command, lost: &Lost) {
    let Some(row) = command.row else { return };
    if !command.message.asks.once() || !lost.accepted.iter().any(|accepted| accepted.is_of_the_same(row)) {
        return;
    }
    world.count("judged: a command that a backup had as accepted");
    if (row.state.as_str(), row.error.as_deref()) != ("in_doubt", Some("unknown-history")) {
        world.violate(format!("G15: a backup had it as accepted: {:?}, {row:?}", command.message));
    }
}

fn is_reused(row: &Row) -> bool {
    row.error.as_deref() == Some("message-id-reused")
}

fn has_reason(scenario: &Scenario, row: &Row) -> bool {
    let is_one = |code| match code {
        "message-id-reused" | "no-message-id" => true,
        "unknown-command" => scenario.reloads(),
        _ => false,
    };
    row.state == "rejected" && row.error.as_deref().is_some_and(is_one)
}

/// A message id is used by one command of a hub, whatever else comes under it.
fn judge_ids(world: &World, commands: &[Command]) {
    let mut users: BTreeMap<(&str, &str, &str), Vec<&Row>> = BTreeMap::new();
    for command in commands {
        if let (Some(id), Some(row)) = (&command.message.id, command.row) {
            users.entry((command.message.hub, &command.message.device, id)).or_default().push(row);
        }
    }
    for (id, rows) in users {
        let own = rows.iter().filter(|row| !is_reused(row)).count();
        if own > 1 {
            world.violate(format!("the id {id:?} was used by {own} commands: {rows:?}"));
        }
    }
}

/// G7: each row has its event at the hub, the same however often it came. What was lost with a ledger may have told
/// of its rows or not.
fn judge_events(world: &World, device: &str, (rows, lost): (&[Row], &[Row]), events: &[Event], sent: &[Sent]) {
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
        let is_its = |row: &&Row| row.device == device && row.message_id == *id;
        let states = |rows: &[Row]| rows.iter().filter(is_its).map(|row| row.state.clone()).collect::<Vec<_>>();
        let of_events = told.values().filter(|event| event.correlation == *id);
        let mut unexplained: Vec<String> = of_events.map(|event| status(event)).collect();
        let mut untold = states(rows);
        untold.retain(|state| !take(&mut unexplained, state));
        for state in states(lost) {
            take(&mut unexplained, &state);
        }
        if !untold.is_empty() || !unexplained.is_empty() {
            world.violate(format!(
                "G7: {device}: {id:?}: of the ledger's rows {untold:?} were not told to the hub, which was told {unexplained:?}"
            ));
        }
    }
}

fn take(from: &mut Vec<String>, wanted: &str) -> bool {
    let found = from.iter().position(|one| one == wanted);
    found.map(|at| from.remove(at)).is_some()
}

/// G5: what a device's peripheral has done, it has done in the order of receipt. Without a message id a redelivery is a
/// new command; of what was sent twice any copy may have run out of time at the hub; and what was lost with a ledger is
/// done again, if it may be.
fn judge_order(
    world: &World,
    scenario: &Scenario,
    device: &str,
    (commands, effects): (&[Command], &[Effect]),
    sent: &[Sent],
) {
    let place = |effect: &Effect| {
        let is_its = |command: &&Command| command.message.device == device && command.message.value == effect.value;
        let found = commands.iter().position(|command| is_its(&command))?;
        let Command { message, sent, was_known, .. } = &commands[found];
        let is_one = commands.iter().filter(is_its).count() == 1;
        (message.id.is_some() && *sent == 1 && is_one && !was_known).then_some(found)
    };
    let done: Vec<(usize, &Effect)> = effects.iter().filter_map(|effect| Some((place(effect)?, effect))).collect();
    let ways = scenario.ways(device);
    let is_all = |over: Over| ways.iter().all(|way| *way == over);
    // The hub delivers on each connection of MQTT's what it has, from the oldest on; and whoever polls waits out what
    // may be locked. With a ledger it is lost, too, that something may be.
    let loses = scenario.manners.have(Manner::LostLedger);
    let by_sending = is_all(Over::Mqtt) || (is_all(Over::Https) && !loses);
    // One transport waits for what the other has left. A backup may have been made before one took over from the other.
    let is_mixed = !is_all(Over::Mqtt) && !is_all(Over::Https) && !ways.contains(&Over::Amqp);
    let over_lives = is_mixed && !loses && !scenario.manners.have(Manner::RestoredLedger);
    if over_lives && done.len() > 1 {
        world.count("judged: the order over lives, by MQTT and HTTPS");
    }
    let is_in_order = match by_sending {
        true => done.is_sorted_by_key(|(place, _)| *place),
        false => is_in_order_of_receipt(&done, commands, sent, over_lives),
    };
    if !is_in_order {
        let done: Vec<(usize, u64)> = done.iter().map(|(place, effect)| (*place, effect.life)).collect();
        world.violate(format!("G5: {device}: done in the order {done:?}"));
    }
}

/// Whether nothing was done before something that was sent before it and had come before it: in the life whose receipt
/// something was done for, which may have been recorded in an earlier one, or in any. What comes again comes in the
/// order of sending, whatever the order was before.
fn is_in_order_of_receipt(done: &[(usize, &Effect)], commands: &[Command], sent: &[Sent], over_lives: bool) -> bool {
    let receipts: BTreeMap<usize, BTreeMap<u64, Instant>> =
        done.iter().map(|(place, _)| (*place, truth::receipts(commands[*place].message, sent))).collect();
    // After a poll whose answer did not come it is waited, too.
    let polled_at = |message: &Message| {
        let polled = sent.iter().filter(|one| one.message == *message).filter_map(|one| one.polled_at);
        polled.min()
    };
    done.iter().enumerate().all(|(at, (earlier, effect))| {
        let before = |(_, came): &(&u64, &Instant)| **came <= effect.at;
        let came_before = |later: &usize, (of, came): (&u64, &Instant)| match over_lives {
            true => {
                let polled = polled_at(commands[*later].message).is_some_and(|at| at < *came);
                polled || receipts[later].values().any(|at| at < came)
            }
            false => receipts[later].get(of).is_some_and(|at| at < came),
        };
        let is_in_order =
            |receipt| !done[at + 1..].iter().any(|(later, _)| later < earlier && came_before(later, receipt));
        // The receipt that it was done for may be that of an earlier life, from which its row was left.
        let mut received = receipts[earlier].range(..=effect.life).filter(before).rev().peekable();
        let lives = if over_lives { 1 } else { usize::MAX };
        received.peek().is_none() || received.take(lives).any(is_in_order)
    })
}
