//! What an identity does about its device's twin: reads what is desired, reports what became of that, and what is to be
//! known of the gateway. It decides, and moves no bytes: the time and the jitter are arguments.
//!
//! Invariants
//! - One request is under way at a time, and requests have a pace: of the device's own, and the gateway's turns.
//! - Whatever the hub does not take, or does not answer, is tried again, later and later; it ends no connection and
//!   holds up nothing else.
//! - What is reported is the newest there is when it is sent: what was overtaken before is never told.
//! - What is desired is taken once: a value that stands in a twin that is read again is not asked for again in this
//!   life of the daemon, unless it was given back with nothing done, or it was not done and something was written
//!   meanwhile. Nor is it in a later life if the twin says how it has ended in that version: the ledger may have
//!   forgotten it by then.
//! - Nothing is taken from a twin before it bears a mark of this gateway's: by that one with the same versions, of a
//!   device that was registered anew, is told from it, also after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{json, Map, Value as Json};
use tokio::time::Instant;

use crate::command::twin::{is_done, is_end, Acknowledgement, Desired, Twin as Whole, Wanted, GATEWAY};
use crate::hub::transport::{TwinAnswer, TwinRequest};
use crate::hub::twin::{End, Facts};

/// How long the hub's answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long is waited before a request that was refused or not answered is made again: the first time, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(15 * 60));
/// Reports that may follow one another at once, and after what time there may be one more.
const REPORTS: (u32, Duration) = (4, Duration::from_secs(10));
/// How long a set point may take before it is told that it is under way.
const UNDER_WAY_AFTER: Duration = Duration::from_secs(5);
/// Most acknowledgements in a report.
const TOLD_AT_ONCE_MAX: usize = 16;
/// By what a twin is known again, among what it is told of the gateway.
const MARK: &str = "mark";
/// Longest mark that is taken for one, in bytes.
const MARK_BYTES_MAX: usize = 64;

/// The commands that a device has for desired properties, by the names of these.
pub(super) type Commands = BTreeMap<String, String>;

/// Something to be done with a value that is desired.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// It is to be set.
    Set(Wanted, Json),
    /// It is desired no more.
    Withdrawn(String),
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Get,
    Report(Map<String, Json>),
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    asked: Asked,
    since: Instant,
}

/// The twin of one device, as far as it is known here.
#[derive(Debug)]
pub(super) struct Twin {
    device: String,
    /// The hub answers on this connection.
    is_there: bool,
    /// The last connection had no twin.
    is_missing: bool,
    under_way: Option<UnderWay>,
    /// All is to be read.
    is_to_be_read: bool,
    /// The newest version that was heard of before all was read.
    heard: Option<u64>,
    not_before: Instant,
    /// The gateway's turn, once one was asked for.
    turn: Option<Instant>,
    failures: u32,
    last_number: u64,
    allowance: Allowance,
    /// The version of what is known as desired.
    version: Option<u64>,
    /// The mark of the twin that this was read in.
    mark: String,
    /// One for a twin that has none, until that bears it.
    new_mark: Option<String>,
    /// The hub does not take one.
    is_unmarkable: bool,
    /// What was desired last, by name, in which version, and was not given back.
    desired: BTreeMap<String, (u64, Json)>,
    /// What is not over, and when that is to be told.
    pending: BTreeMap<String, (Instant, Acknowledgement)>,
    /// What is to be told next of each name; null: nothing is to stand there.
    untold: BTreeMap<String, Json>,
    /// What the hub has, but for the mark.
    told: BTreeMap<String, Json>,
    /// What the hub has refused together, and is to be told each by itself.
    one_by_one: BTreeSet<String>,
    facts: Option<Facts>,
    /// The last trouble that was logged, so that a lasting one is logged once.
    complained: Option<String>,
}

/// How many reports there may be now.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    /// When there may be one.
    fn at(&self) -> Instant {
        let (_, each) = REPORTS;
        if self.left > 0 {
            self.since
        } else {
            self.since + each
        }
    }

    fn take(&mut self, now: Instant) {
        let (most, each) = REPORTS;
        let more = now.saturating_duration_since(self.since).as_millis() / each.as_millis();
        let more = u32::try_from(more).unwrap_or(most).min(most);
        if more > 0 {
            // What is left over of the time counts for the next, unless there are as many as may be.
            let is_full = self.left + more >= most;
            self.since = if is_full { now } else { self.since + each * more };
            self.left = (self.left + more).min(most);
        }
        self.left = self.left.saturating_sub(1);
    }
}

impl Twin {
    pub(super) fn new(device: &str, now: Instant) -> Twin {
        Twin {
            device: device.to_owned(),
            is_there: false,
            is_missing: false,
            under_way: None,
            is_to_be_read: false,
            heard: None,
            not_before: now,
            turn: None,
            failures: 0,
            last_number: 0,
            allowance: Allowance { left: REPORTS.0, since: now },
            version: None,
            mark: String::new(),
            new_mark: None,
            is_unmarkable: false,
            desired: BTreeMap::new(),
            pending: BTreeMap::new(),
            untold: BTreeMap::new(),
            told: BTreeMap::new(),
            one_by_one: BTreeSet::new(),
            facts: None,
            complained: None,
        }
    }

    /// A connection stands. `has_commands`: something may be desired. `renews`: it replaces one whose token ran out,
    /// and what the hub has was not changed by anybody else meanwhile.
    pub(super) fn begin(&mut self, has_commands: bool, renews: bool, now: Instant) {
        (self.is_there, self.is_missing, self.is_to_be_read) = (true, false, has_commands);
        self.not_before = now;
        // One that has not come yet counts still: who comes and goes would use up those of the others.
        self.turn = self.turn.filter(|turn| *turn > now);
        if !renews {
            self.told.clear();
        }
    }

    /// A connection stands on which the hub has no twin.
    pub(super) fn is_not_there(&mut self) {
        self.is_missing = true;
    }

    /// The connection has ended. What it was asked for is asked for on the next.
    pub(super) fn ended(&mut self) {
        (self.is_there, self.is_to_be_read) = (false, false);
        (self.under_way, self.heard, self.new_mark) = (None, None, None);
    }

    /// Nothing is desired on this connection any more, which is there to publish only: also how things stand.
    pub(super) fn hold(&mut self, facts: Facts) {
        (self.is_to_be_read, self.new_mark) = (false, None);
        self.note(facts);
    }

    /// How things stand now.
    pub(super) fn note(&mut self, facts: Facts) {
        self.facts = Some(facts);
    }

    /// What wishes have come to.
    pub(super) fn note_ends(&mut self, ends: Vec<End>, has_commands: bool, now: Instant) {
        for End { wanted, told } in ends {
            // Of one that was taken anew, or is desired no more, nobody wants to know.
            if self.desired.get(&wanted.name).is_none_or(|(version, _)| *version != wanted.version) {
                continue;
            }
            self.pending.remove(&wanted.name);
            match told {
                Some(told) => drop(self.untold.insert(wanted.name, told.to_json())),
                None => {
                    self.desired.remove(&wanted.name);
                    if self.is_there && has_commands {
                        self.is_to_be_read = true;
                        self.not_before = self.not_before.max(now + PAUSE.0);
                    }
                }
            }
        }
    }

    /// When there is something to be done, if there is. `may_report`: nothing goes before a report.
    pub(super) fn due(&self, may_report: bool) -> Option<Instant> {
        if !self.is_there {
            return None;
        }
        if let Some(under_way) = &self.under_way {
            return Some(under_way.since + PATIENCE);
        }
        let at = match self.is_to_be_read {
            true => Some(self.not_before),
            false => self.report_at().filter(|_| may_report),
        };
        at.map(|at| at.max(self.not_before).max(self.turn.unwrap_or(at)))
    }

    /// When a report is due by itself, if one is.
    fn report_at(&self) -> Option<Instant> {
        let has_news = self.has_news();
        let pending = self.pending.values().map(|(at, _)| *at).min();
        let at = if has_news { Some(self.not_before) } else { pending };
        at.map(|at| at.max(self.allowance.at()))
    }

    /// Whether there is something that the hub is to have and does not.
    fn has_news(&self) -> bool {
        !self.untold.is_empty() || self.gateway_untold().is_some()
    }

    /// When there is to be a connection for what the hub does not have, if there is something.
    pub(super) fn untold_at(&self) -> Option<Instant> {
        (!self.is_missing && self.has_news()).then_some(self.not_before)
    }

    /// What is to be reported of the gateway, if the hub does not have it.
    fn gateway_untold(&self) -> Option<Json> {
        let Facts { configuration, present } = self.facts.as_ref()?;
        let version = env!("CARGO_PKG_VERSION");
        let mut all = json!({ "version": version, "configuration": **configuration, "present": present });
        // It is told once: a twin that has none of its own must not get that of an earlier one.
        if let Some(mark) = &self.new_mark {
            all[MARK] = mark.as_str().into();
            return Some(all);
        }
        // A null is not kept in a twin: it removes.
        let kept: Map<String, Json> = match &all {
            Json::Object(all) => all.iter().filter(|(_, value)| !value.is_null()).map(pair).collect(),
            _ => Map::new(),
        };
        (self.told.get(GATEWAY) != Some(&Json::Object(kept))).then_some(all)
    }

    /// Whether a turn of the gateway's is to be asked for: something is due, but for that.
    pub(super) fn wants_turn(&self, now: Instant, may_report: bool) -> bool {
        let is_due = self.due(may_report).is_some_and(|due| due <= now);
        self.turn.is_none() && self.under_way.is_none() && is_due
    }

    pub(super) fn take_turn(&mut self, turn: Instant) {
        self.turn = Some(turn);
    }

    /// What is to be asked of the hub now, once the turn has come.
    pub(super) fn next(&mut self, now: Instant, may_report: bool, jitter: f64) -> Option<TwinRequest> {
        if self.due(may_report).is_none_or(|due| due > now) {
            return None;
        }
        if let Some(UnderWay { asked, .. }) = self.under_way.take() {
            self.is_to_be_read |= asked == Asked::Get;
            let seconds = PATIENCE.as_secs();
            self.fail(
                &format!("the hub has not answered a request for the device's twin within {seconds} s"),
                now,
                jitter,
            );
            return None;
        }
        self.turn?;
        self.turn = None;
        self.last_number += 1;
        let number = self.last_number;
        let (asked, patch) = match std::mem::take(&mut self.is_to_be_read) {
            true => (Asked::Get, None),
            false => {
                self.allowance.take(now);
                let report = self.report(now);
                let patch = Json::Object(report.clone()).to_string();
                (Asked::Report(report), Some(patch))
            }
        };
        self.under_way = Some(UnderWay { number, asked, since: now });
        Some(TwinRequest { number, patch })
    }

    /// What is to be reported now.
    fn report(&mut self, now: Instant) -> Map<String, Json> {
        // What is to be told of an earlier twin is none of this one's.
        if self.new_mark.is_some() {
            return self.gateway_untold().map(|gateway| (GATEWAY.to_owned(), gateway)).into_iter().collect();
        }
        while let Some(name) = self.one_by_one.pop_first() {
            let untold = match name == GATEWAY {
                true => self.gateway_untold(),
                false => self.untold.get(&name).cloned(),
            };
            if let Some(value) = untold {
                return Map::from_iter([(name, value)]);
            }
        }
        let due: Vec<String> =
            self.pending.iter().filter(|(_, (at, _))| *at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            if let Some((_, told)) = self.pending.remove(&name) {
                self.untold.insert(name, told.to_json());
            }
        }
        let mut report: Map<String, Json> = self.untold.iter().take(TOLD_AT_ONCE_MAX).map(pair).collect();
        report.extend(self.gateway_untold().map(|gateway| (GATEWAY.to_owned(), gateway)));
        report
    }

    /// The hub has answered. Gives what is to be done with what is desired.
    pub(super) fn answered(
        &mut self,
        answer: TwinAnswer,
        commands: &Commands,
        now: Instant,
        jitter: f64,
    ) -> Vec<Change> {
        // One that is not waited for any more.
        let Some(UnderWay { asked, .. }) = self.under_way.take_if(|under_way| under_way.number == answer.number) else {
            return vec![];
        };
        match (answer.status, asked) {
            (200..300, Asked::Get) => return self.read(&answer.body, commands, now, jitter),
            (200..300, Asked::Report(report)) => self.has_told(report),
            (status @ (408 | 429 | 500..), asked) => {
                self.is_to_be_read |= asked == Asked::Get;
                self.fail(
                    &format!("the hub takes no requests for the device's twin at present (status {status})"),
                    now,
                    jitter,
                );
            }
            (status, Asked::Get) => {
                self.complain(format!("the hub does not give out the device's twin (status {status}); set points wait for the next connection"));
            }
            (status, Asked::Report(report)) => self.refused(status, report),
        }
        vec![]
    }

    /// The hub has what was reported.
    fn has_told(&mut self, report: Map<String, Json>) {
        (self.failures, self.complained) = (0, None);
        self.is_over(report);
    }

    /// The hub does not take what was reported, and would not the next time.
    fn refused(&mut self, status: u16, report: Map<String, Json>) {
        if report.len() > 1 && matches!(status, 400 | 413) {
            // It may be for one of them only.
            return self.one_by_one.extend(report.into_iter().map(|(name, _)| name));
        }
        self.complain(format!(
            "the hub does not take what the device's twin is to report (status {status}); it is left out"
        ));
        self.is_unmarkable |= self.new_mark.is_some();
        self.is_over(report);
    }

    /// Something was reported, and is not to be reported again.
    fn is_over(&mut self, report: Map<String, Json>) {
        if report.get(GATEWAY).is_some_and(|gateway| gateway.get(MARK).is_some()) && self.new_mark.take().is_some() {
            self.is_to_be_read = true;
        }
        for (name, value) in report {
            if self.untold.get(&name) == Some(&value) {
                self.untold.remove(&name);
            }
            self.know(name, value);
        }
    }

    /// What stands in the twin under a name that is reported.
    fn know(&mut self, name: String, value: Json) {
        match value {
            Json::Null => drop(self.told.remove(&name)),
            Json::Object(mut fields) => {
                let is_mark = |field: &str| name == GATEWAY && field == MARK;
                fields.retain(|field, value| !value.is_null() && !is_mark(field));
                self.told.insert(name, fields.into());
            }
            value => drop(self.told.insert(name, value)),
        }
    }

    /// All was read.
    fn read(&mut self, body: &[u8], commands: &Commands, now: Instant, jitter: f64) -> Vec<Change> {
        let Whole { desired: Desired { version, mut values }, mut reported } =
            match Whole::read(body, |name| commands.contains_key(name)) {
                Ok(whole) => whole,
                Err(why) => {
                    self.complain(format!("the device's twin can't be read, so no set point of it is done: {why}"));
                    return vec![];
                }
            };
        (self.failures, self.complained) = (0, None);
        let mark = take_mark(&mut reported);
        self.told = reported;
        if mark.is_none() && !self.is_unmarkable {
            // It is new to this gateway: it is marked, and read again.
            self.version = None;
            self.new_mark.get_or_insert_with(|| format!("{:016x}", jitter.to_bits()));
            return vec![];
        }
        let mark = mark.unwrap_or_default();
        let is_another = mark != self.mark;
        if is_another {
            (self.mark, self.version) = (mark, None);
            (self.pending, self.untold, self.one_by_one) = Default::default();
        }
        self.new_mark = None;
        let is_newer = self.version.replace(version).is_some_and(|before| version > before);
        values.retain(|_, value| !value.is_null());
        let mut changes = Vec::new();
        for name in commands.keys().filter(|name| !values.contains_key(*name)) {
            // Also of one that an earlier life of the daemon has acknowledged.
            if self.desired.contains_key(name) || self.told.contains_key(name) {
                changes.extend(self.take(name.clone(), Json::Null, version, now));
            }
        }
        for (name, value) in values {
            match self.desired.get(&name).filter(|_| !is_another) {
                // It was taken, and its end has been told or will be. What the hub has forgotten is told again.
                Some((_, known)) if *known == value && self.stands(&name, is_newer) => {}
                // An earlier life has told its end: the ledger may have no row of it any more.
                None if self.told.get(&name).is_some_and(|told| is_end(told, &value, version)) => {
                    self.desired.insert(name, (version, value));
                }
                _ => changes.extend(self.take(name, value, version, now)),
            }
        }
        if self.heard.take().is_some_and(|heard| heard > version) {
            self.is_to_be_read = true;
            self.fail("the hub gives out a twin that is older than what it has told of it", now, jitter);
        }
        changes
    }

    /// What is desired has changed.
    pub(super) fn changed(&mut self, body: &[u8], commands: &Commands, now: Instant) -> Vec<Change> {
        let Desired { version, values } = match Desired::read(body, |name| commands.contains_key(name)) {
            Ok(desired) => desired,
            Err(why) => {
                self.complain(format!("a change of the device's twin can't be read: {why}"));
                // Reading all shows what there is.
                self.is_to_be_read = true;
                self.not_before = self.not_before.max(now + PAUSE.0);
                return vec![];
            }
        };
        let is_being_read = self.is_to_be_read || matches!(&self.under_way, Some(UnderWay { asked: Asked::Get, .. }));
        match self.version {
            Some(known) if version <= known => vec![],
            Some(known) if version == known + 1 && !is_being_read => {
                self.version = Some(version);
                values.into_iter().flat_map(|(name, value)| self.take(name, value, version, now)).collect()
            }
            // Something between was not heard of, or nothing is known yet.
            _ => {
                self.heard = self.heard.max(Some(version));
                self.is_to_be_read |= !is_being_read;
                vec![]
            }
        }
    }

    /// Whether what became of a name is told, or will be, and counts for the version that was read. `is_newer`:
    /// something was written that was not heard of, perhaps the same value once more, which is then to be done if it
    /// was not.
    fn stands(&self, name: &str, is_newer: bool) -> bool {
        let told = self.untold.get(name).or_else(|| self.told.get(name));
        match self.pending.contains_key(name) {
            true => !is_newer,
            false => told.is_some_and(|told| !is_newer || is_done(told)),
        }
    }

    fn take(&mut self, name: String, value: Json, version: u64, now: Instant) -> Option<Change> {
        self.pending.remove(&name);
        if value.is_null() {
            let was_told = self.told.contains_key(&name) || self.untold.remove(&name).is_some();
            let was_desired = self.desired.remove(&name).is_some();
            if was_told || was_desired {
                self.untold.insert(name.clone(), Json::Null);
            }
            return (was_told || was_desired).then_some(Change::Withdrawn(name));
        }
        self.untold.remove(&name);
        self.desired.insert(name.clone(), (version, value.clone()));
        let under_way = Acknowledgement::under_way(value.clone(), version);
        self.pending.insert(name.clone(), (now + UNDER_WAY_AFTER, under_way));
        Some(Change::Set(Wanted { name, version }, value))
    }

    /// Something is tried again, later and later.
    fn fail(&mut self, why: &str, now: Instant, jitter: f64) {
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(10)).min(PAUSE.1);
        self.failures += 1;
        self.not_before = now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0));
        self.complain(format!("{why}; it is tried again from time to time"));
    }

    fn complain(&mut self, why: String) {
        if self.complained.as_ref() != Some(&why) {
            tracing::warn!(device = %self.device, "{why}");
            self.complained = Some(why);
        }
    }

    /// Whether nothing is to be told at present. What is not over is told when it is, and what the hub does not take
    /// for now is tried again later, on another connection if need be ([`Twin::untold_at`]).
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        !self.is_there || (self.under_way.is_none() && (!self.has_news() || self.not_before > now))
    }

    /// The mark of the twin in which that was read which is desired. Empty: it has none.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }
}

fn pair((name, value): (&String, &Json)) -> (String, Json) {
    (name.clone(), value.clone())
}

/// Takes the mark out of what a twin has of the gateway.
fn take_mark(reported: &mut BTreeMap<String, Json>) -> Option<String> {
    let mark = reported.get_mut(GATEWAY)?.as_object_mut()?.remove(MARK)?;
    mark.as_str().filter(|mark| (1..=MARK_BYTES_MAX).contains(&mark.len())).map(str::to_owned)
}

#[cfg(test)]
mod tests;
