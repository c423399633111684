//! What peripherals have heard of commands that ask for several things in a row, and of what is under way at once, and
//! what must be true of that (G3, G5, G12). None of the gateway's code takes part.
//!
//! - What a write is made of was said to the last reading before it, and nobody else was heard between the two.
//! - A step follows one that was confirmed, and nobody else is heard between them.
//! - What must not be done twice is not asked twice, however far it came.
//! - A unit is asked one thing at a time, and a connection no more things than the configuration says.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::hub::Event;
use super::judge::Command;
use super::manners::Manner;
use super::record::{Heard, Record};
use super::scenario::{Asks, Scenario};
use super::sequences::{Part, Sequence};
use super::world::World;

/// The network's line.
const NET: &str = "10.0.0.1:502";

/// A request, and the unit that has heard it.
type Asked<'a> = (u8, &'a Heard);

/// A line, as its peripherals have used it.
struct Line<'a> {
    name: &'a str,
    /// Several things are under way on it at once.
    is_shared: bool,
    /// Somebody was answered under another's transaction: nobody can tell from then on whose an answer is.
    is_crossed: bool,
}

/// Judges all that was heard.
pub fn judge(
    world: &World,
    scenario: &Scenario,
    commands: &[Command],
    events: &BTreeMap<String, Vec<Event>>,
    record: &Record,
) {
    let mut lines: BTreeMap<&str, Vec<Asked>> = BTreeMap::new();
    for ((line, unit), heard) in record.requests.iter().filter(|((line, _), _)| line != "/dev/text") {
        lines.entry(line).or_default().extend(heard.iter().map(|heard| (*unit, heard)));
    }
    for (line, heard) in &mut lines {
        heard.sort_by_key(|(_, heard)| heard.number);
        let heard: &[Asked] = heard;
        let line = &Line {
            name: line,
            is_shared: *line == NET && scenario.in_flight > 1,
            is_crossed: *line == NET && record.is_crossed,
        };
        for at in 0..heard.len() {
            judge_write(world, line, (heard, at));
        }
        if line.name == NET && !line.is_crossed {
            judge_crowd(world, scenario, heard);
        }
        // Whoever hears what was said to another, or what is no answer at all, is there.
        let is_disturbed = line.name == NET && record.is_disturbed;
        if !scenario.manners.have(Manner::LineEchoes) && !line.is_crossed && !is_disturbed {
            judge_patience(world, scenario, line.name, heard);
        }
    }
    for command in commands {
        let Asks::Row(sequence) = command.message.asks else { continue };
        let its = lines.get(command.message.line).map(Vec::as_slice).unwrap_or_default();
        let its: Vec<&Heard> =
            its.iter().filter(|(unit, _)| *unit == command.message.unit).map(|(_, heard)| *heard).collect();
        judge_command(world, sequence, command, (&its, events.get(&command.message.device)));
    }
}

/// A write: what it was made of, what it follows, and what came between.
fn judge_write(world: &World, line: &Line, (heard, at): (&[Asked], usize)) {
    let name = line.name;
    let (unit, write) = heard[at];
    let Some(written) = write.sequence else { return };
    let is_own = |(of, other): &Asked| (*of, other.life) == (unit, write.life);
    let before = &heard[..at];
    let mut from = at;
    if let Some(register) = written.part.reads() {
        let reads: Vec<usize> =
            (0..at).rev().filter(|at| is_own(&heard[*at]) && asks_for(heard[*at].1, register)).collect();
        let told = readings(heard, &reads);
        world.count("judged: a write that is made of a reading");
        if !told.contains(&written.made_of) && !line.is_crossed {
            world.violate(format!(
                "G12: on {name} {written:?} is made of another reading than the last one, which said {told:?}: {write:?}"
            ));
        }
        from = reads.first().copied().unwrap_or(at);
    }
    let Some(earlier) = step_before(written.sequence, write, before.iter().filter(|asked| is_own(asked))) else {
        return judge_between(world, line, (heard, from, at));
    };
    world.count("judged: a step behind another");
    let mut steps =
        before.iter().filter(|asked| is_own(asked) && is_of(asked.1, written.sequence, write.value, earlier));
    let mut confirmed = steps.clone().filter_map(|(_, step)| step.confirmed_at);
    if !confirmed.any(|at| at <= write.written) && !line.is_crossed {
        world.violate(format!("G3: on {name} a step follows one that nobody has confirmed: {write:?}"));
    }
    if let Some((_, last)) = steps.next_back() {
        from = from.min(before.iter().position(|(_, other)| other.number == last.number).unwrap_or(from));
    }
    judge_between(world, line, (heard, from, at));
}

/// What the last of these reads may have been told, the newest first. The same question that is asked again is answered
/// by the answer to the earlier one, too, if that comes late.
fn readings(heard: &[Asked], reads: &[usize]) -> Vec<Option<u16>> {
    let Some((last, earlier)) = reads.split_first().map(|(last, earlier)| (heard[*last].1, earlier)) else {
        return vec![None];
    };
    let late = earlier.iter().map(|read| heard[*read].1);
    let late = late.take_while(|read| read.said_at.is_some_and(|at| at >= last.written));
    std::iter::once(last).chain(late).map(|read| read.told).collect()
}

fn asks_for(heard: &Heard, register: u16) -> bool {
    heard.asks.is_none() && heard.address == register
}

fn is_of(heard: &Heard, sequence: Sequence, number: u16, part: Part) -> bool {
    heard.sequence.is_some_and(|one| one.sequence == sequence && one.number == number && one.part == part)
}

/// The step that comes before the one that this is, if that is not the first. What begins a command and also ends it is
/// its end if the step before it was just confirmed.
fn step_before<'a>(
    sequence: Sequence,
    write: &Heard,
    mut own: impl DoubleEndedIterator<Item = &'a Asked<'a>>,
) -> Option<Part> {
    let parts = sequence.parts();
    let at = parts.iter().rposition(|part| part.address() == write.address)?;
    let earlier = *parts.get(at.checked_sub(1)?)?;
    let is_also_first = parts[0].address() == write.address;
    let last = own.rfind(|(_, other)| other.sequence.is_some_and(|one| one.number == write.value));
    let is_behind_it = last.is_some_and(|(_, last)| {
        let is_answered = last.is_in_time() && last.confirmed_at.is_some();
        is_of(last, sequence, write.value, earlier) && is_answered && last.opened == write.opened
    });
    (!is_also_first || is_behind_it).then_some(earlier)
}

/// Between two requests of a command nobody else was heard: on a line; or by the unit, where others may be asked
/// meanwhile.
fn judge_between(world: &World, line: &Line, (heard, from, to): (&[Asked], usize, usize)) {
    let Some(between) = heard.get(from + 1..to) else { return };
    let (unit, write) = heard[to];
    let is_foreign = |(of, other): &&Asked| match *of == unit {
        // What is read first is told apart by its value being none.
        true => other.asks.is_some() && (other.asks, other.value) != (write.asks, write.value),
        false => !line.is_shared,
    };
    if let Some((of, other)) = between.iter().find(is_foreign) {
        world.violate(format!("G12: on {} unit {of} was asked in the middle of {write:?}: {other:?}", line.name));
    }
}

/// A unit is asked one thing at a time, and a connection so many.
fn judge_crowd(world: &World, scenario: &Scenario, heard: &[Asked]) {
    let timeout = scenario.configurations.iter().map(|one| one.patience.timeout).min().unwrap_or_default();
    for (at, (unit, request)) in heard.iter().enumerate() {
        let is_under_way = |(_, other): &&Asked| {
            other.opened == request.opened
                && request.written < other.written + timeout
                && other.said_at.is_none_or(|said| said > request.written)
        };
        let beside: Vec<&Asked> = heard[..at].iter().filter(is_under_way).collect();
        if !beside.is_empty() {
            world.count("judged: requests side by side");
        }
        if beside.len() >= scenario.in_flight {
            world.violate(format!("G11: beside {} others under way is asked: {request:?}", beside.len()));
        }
        if let Some((_, other)) = beside.iter().find(|(of, _)| of == unit) {
            world.violate(format!("G5: unit {unit} is asked two things at once: {other:?} and {request:?}"));
        }
        let is_overtaken = |(_, other): &&Asked| {
            other.opened == request.opened && other.said_at > request.said_at && request.said_at.is_some()
        };
        if heard[..at].iter().any(|other| is_overtaken(&other)) {
            world.count("judged: an answer overtakes another");
        }
    }
}

/// Who is away is told something by one attempt, and left alone then. Away is who was silent often enough, while
/// nothing was said on the line that could pass for something of an answer.
fn judge_patience(world: &World, scenario: &Scenario, line: &str, heard: &[Asked]) {
    let after = scenario.configurations.iter().map(|one| one.unreachable_after);
    let pause = scenario.configurations.iter().map(|one| one.probe_interval).min().unwrap_or_default();
    let timeout = scenario.configurations.iter().map(|one| one.patience.timeout).min().unwrap_or_default();
    let Some(after) = after.clone().max().filter(|_| after.clone().all(|after| after > 0)) else { return };
    let lates = heard.iter().filter_map(|(_, other)| other.said_at.filter(|said| *said > other.written + timeout));
    let lates: Vec<_> = lates.collect();
    for (at, (unit, order)) in heard.iter().enumerate().filter(|(_, (_, order))| order.asks.is_some()) {
        let own = heard[..at].iter().rev().filter(|(of, _)| of == unit).map(|(_, other)| *other);
        let silent =
            own.take_while(|other| (other.life, other.under, other.is_mute) == (order.life, order.under, true));
        let silent: Vec<&Heard> = silent.collect();
        if order.under.is_none() {
            continue;
        }
        let Some(last) = silent.iter().position(|other| other.asks.is_some()) else { continue };
        let Some(first) = silent.last() else { continue };
        // A read that shows how the line takes a write says nothing of the unit.
        let counted = silent[last..].iter().filter(|other| other.asks.is_some()).count() as u64;
        if counted < after || lates.iter().any(|said| (first.written..order.written).contains(said)) {
            continue;
        }
        world.count("judged: who is away is tried again");
        if order.written < silent[last].written + pause {
            let before = silent[last];
            world.violate(format!(
                "G11: on {line} unit {unit}, which is away, is not left alone: {before:?}, {order:?}"
            ));
        }
    }
}

/// How a command has ended, beside how far it came.
fn judge_command(
    world: &World,
    sequence: Sequence,
    command: &Command,
    (its, events): (&[&Heard], Option<&Vec<Event>>),
) {
    let message = command.message;
    let violate = |what: &str| world.violate(format!("{what}: {message:?}, {:?}", command.row));
    let asked = |part: Part| its.iter().filter(move |heard| is_of(heard, sequence, message.value, part));
    let is_alone = !command.is_several && !command.is_alike() && command.effects_max(world) == 1;
    if sequence.once() && is_alone && sequence.parts().iter().any(|part| asked(*part).count() > 1) {
        violate("G3: asked for twice");
    }
    let Some(row) = command.row.filter(|_| is_alone) else { return };
    let parts = sequence.parts();
    let of_step = |at: usize| asked(parts[at]).filter(move |heard| at == 0 || heard.is_last_of(sequence, its));
    let is_done = |at: usize| of_step(at).any(|heard| heard.is_done);
    let is_confirmed = |at: usize| of_step(at).any(|heard| heard.confirmed_at.is_some());
    let shows = |at: usize, heard: &Heard| {
        asks_for(heard, parts[at].address()) || is_of(heard, sequence, message.value, parts[at])
    };
    let is_shown = |at: usize| its.iter().any(|read| shows(at, read) && read.told == Some(message.value));
    let steps = 0..parts.len();
    let (code, failed_at) = (row.error.as_deref().unwrap_or_default(), failed_step(command, events));
    match row.state.as_str() {
        "succeeded" => {
            world.count("judged: what succeeded in a row");
            let is_proven = |at: &usize| if sequence.is_verified() { is_shown(*at) } else { is_confirmed(*at) };
            if let Some(at) = steps.clone().find(|at| !is_proven(at) || !is_done(*at)) {
                violate(&format!("G12: a success, and nobody has confirmed or done step {}", at + 1));
            }
        }
        "failed" if code == "verify-mismatch" && steps.clone().all(is_done) => {
            violate("it is called otherwise than asked for, and all of it was done");
        }
        "failed" if code == "verify-mismatch" => {}
        "failed" if sequence.once() && steps.clone().any(|at| at + 1 >= failed_at.unwrap_or(1) && is_done(at)) => {
            violate("called failed, and done");
        }
        "in_doubt" if failed_at.is_some_and(|failed| steps.clone().any(|at| at >= failed && is_done(at))) => {
            violate("behind the step that is called in doubt another was done");
        }
        "in_doubt" if parts.len() > 1 && is_done(0) && !is_done(parts.len() - 1) => {
            world.count("judged: in doubt, and done in part");
        }
        _ => {}
    }
    let is_refused = || {
        let of_it = |heard: &&&Heard| {
            parts.iter().any(|part| {
                is_of(heard, sequence, message.value, *part) || part.reads().is_some_and(|at| asks_for(heard, at))
            })
        };
        its.iter().filter(of_it).any(|heard| heard.is_refused)
    };
    if row.state == "failed" && matches!(code, "exception" | "refused") && !is_refused() {
        violate("G12: a refusal that was said to another command");
    }
}

/// The step at which a command has ended, from 1, as its event says it.
fn failed_step(command: &Command, events: Option<&Vec<Event>>) -> Option<usize> {
    let its = events?.iter().filter(|event| event.correlation == command.message.id);
    let step = |event: &Event| {
        let body: Json = serde_json::from_str(&event.body).ok()?;
        let (step, _) = body["error"]["message"].as_str()?.strip_prefix("step ")?.split_once(" of ")?;
        step.parse().ok()
    };
    its.filter_map(step).next()
}

impl Heard {
    /// Whether it can be the last of a command's writes, where that is the first one once more.
    fn is_last_of(&self, sequence: Sequence, its: &[&Heard]) -> bool {
        let parts = sequence.parts();
        let Some(earlier) = parts.len().checked_sub(2).map(|at| parts[at]) else { return true };
        if parts[0].address() != self.address {
            return true;
        }
        let own = |other: &&&Heard| {
            other.number < self.number
                && other.life == self.life
                && other.sequence.is_some_and(|one| (one.sequence, one.number) == (sequence, self.value))
        };
        let is_behind_it = its.iter().rfind(own).is_some_and(|last| is_of(last, sequence, self.value, earlier));
        let mut steps = its.iter().filter(own).filter(|step| is_of(step, sequence, self.value, earlier));
        is_behind_it && steps.any(|step| step.confirmed_at.is_some_and(|at| at <= self.written))
    }
}
