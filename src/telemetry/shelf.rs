//! What is on its way to the hub, for each device, and what goes next. Pure but for the bells that it rings: times are
//! arguments, and what the file does is told.
//!
//! Invariants
//! - Each batch is in one place: waiting in memory, loaded from the file, taken, or in the file alone, of which
//!   `unread` says that there may be some.
//! - What the file holds of batches that the hub has stands in `gone`, until it is taken out there: none of it is
//!   loaded.
//! - What waits in memory is bounded, also while nothing can be written: the oldest is lost then, whoever's it is.
//! - Each sample that is lost stands in one gap, until the hub has that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::batch::{body_of_a_crash, Batch, Gap, Kind, Open, Shown, FROM};
use super::budget::{units, Budget};
use super::life::Owed;
use super::sample::PROPERTY_BYTES;
use super::Settings;

/// Bytes that wait in memory at most.
const MEMORY_MAX: usize = 2 << 20;
/// Batches of one device that are loaded at a time.
const LOAD: usize = 16;
/// How often a connection may end badly with a batch on the wire before that is taken for the reason.
const TRIES_MAX: u32 = 3;

/// Everything.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) settings: Settings,
    budget: Budget,
    /// Begins the ids of this life's batches.
    life: String,
    next: i64,
    /// The highest number of earlier lives, as far as is known: what has one of theirs is not in the file.
    base: i64,
    /// The file was looked into, or can't be: nothing goes before that, so that what is older goes first.
    is_known: bool,
    devices: BTreeMap<Arc<str>, Of>,
    /// Bytes of what waits in memory.
    waiting: usize,
    /// With whose it is.
    gone: BTreeMap<i64, Arc<str>>,
    pub(super) stored: Stored,
    pub(super) counts: Counts,
}

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Batches of each device, those that are gone included.
    pub(super) batches: BTreeMap<Arc<str>, u64>,
    /// Bytes of it that are used.
    pub(super) bytes: u64,
}

/// Since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) samples: u64,
    pub(super) published: u64,
    pub(super) lost: u64,
}

/// What is of one device.
#[derive(Debug, Default)]
struct Of {
    open: Option<(Open, Instant)>,
    /// In memory, and not in the file.
    fresh: BTreeMap<i64, Batch>,
    /// Loaded from the file.
    ready: BTreeMap<i64, Batch>,
    /// On the wire.
    taken: BTreeMap<i64, Batch>,
    /// Of these, what the file had and has no room for: it is not written again before it comes back.
    dropped: BTreeSet<i64>,
    /// The file may hold others.
    unread: bool,
    is_loading: bool,
    /// What is lost, and was not told of.
    gap: Gap,
    /// Gaps that were on the wire, and are told of again: no more than may be on the wire at once.
    again: BTreeMap<i64, Batch>,
    /// What stands in the file of it.
    stored_gap: Gap,
    /// When something was read of it first in this life.
    begun: Option<Shown>,
    word: Option<Word>,
    bell: Arc<Notify>,
}

/// That an earlier life has ended without a word, which the hub is owed until it has it.
#[derive(Debug)]
struct Word {
    /// What was read before then may be lost. `None`: nothing was read since.
    until: Option<Shown>,
    /// It is on the wire, or was and goes again as it is.
    is_told: bool,
}

/// What may be published.
#[derive(Debug)]
pub(super) enum Next {
    Batch(Batch),
    /// Not before then: so many were sent today.
    Later(Instant),
    /// Something is to be loaded first.
    Load,
    Nothing,
}

/// What is to be done in the file, together.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) insert: Vec<Batch>,
    pub(super) delete: Vec<i64>,
    /// What is lost of each device, and was not told of.
    pub(super) gaps: Vec<(Arc<str>, Gap)>,
    /// On the wire: if there is no room for them any more, they are not lost yet.
    pub(super) taken: BTreeSet<i64>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.insert.is_empty() && self.delete.is_empty() && self.gaps.is_empty()
    }
}

/// What is to be loaded.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) device: Arc<str>,
    pub(super) newest_first: bool,
    pub(super) most: usize,
}

impl Of {
    /// What is lost, told of or about to be, as far as the hub does not have it.
    fn gaps(&self) -> Gap {
        let on_the_wire = self.taken.values().filter(|batch| batch.kind == Kind::Gap).map(|batch| batch.holds);
        on_the_wire.chain(self.again.values().map(|batch| batch.holds)).fold(self.gap, Gap::and)
    }

    fn lose(&mut self, holds: Gap) {
        self.gap = self.gap.and(holds);
    }

    fn note_begun(&mut self, shown: Shown) {
        let begun = *self.begun.get_or_insert(shown);
        if let Some(word) = &mut self.word {
            word.until.get_or_insert(begun);
        }
    }

    /// Whether it is to be told of a crash now.
    fn has_a_word(&self) -> bool {
        self.word.as_ref().is_some_and(|word| word.until.is_some() && !word.is_told)
    }

    /// Until when something may be missing, if it is to be told of that now.
    fn take_word(&mut self) -> Option<Shown> {
        let word = self.word.as_mut().filter(|word| !word.is_told)?;
        let until = word.until?;
        word.is_told = true;
        Some(until)
    }

    /// It is not on the wire any more.
    fn off_the_wire(&mut self, number: i64) -> Option<Batch> {
        self.dropped.remove(&number);
        self.taken.remove(&number)
    }

    /// That it was told of a crash has come to an end.
    fn note_told(&mut self, batch: &Batch) {
        self.word.take_if(|_| batch.is_of_a_crash());
    }

    /// The next of what was read, if it is in memory.
    fn peek(&self, newest_first: bool) -> Option<&Batch> {
        let (ready, fresh) = (self.ready.values(), self.fresh.values());
        let number = |batch: &&Batch| batch.number;
        match newest_first {
            true => [ready, fresh].into_iter().filter_map(|mut all| all.next_back()).max_by_key(number),
            // What is in the file is older, but for what was put out of it.
            false if self.ready.is_empty() && self.unread => None,
            false => [ready, fresh].into_iter().filter_map(|mut all| all.next()).min_by_key(number),
        }
    }
}

impl Shelf {
    pub(super) fn new(settings: Settings, life: String, now: Instant) -> Shelf {
        let budget = Budget::new(settings.daily_messages, now);
        let (devices, gone) = (BTreeMap::new(), BTreeMap::new());
        let (stored, counts) = (Stored::default(), Counts::default());
        let (next, base, is_known, waiting) = (FROM + 1, FROM, false, 0);
        Shelf { settings, budget, life, next, base, is_known, devices, waiting, gone, stored, counts }
    }

    pub(super) fn configure(&mut self, settings: Settings) {
        self.budget.change(settings.daily_messages);
        self.settings = settings;
        // What waits for the next day's messages may go now.
        self.devices.values().for_each(|of| of.bell.notify_one());
    }

    /// What rings when something of a device may be published.
    pub(super) fn bell(&mut self, device: &Arc<str>) -> Arc<Notify> {
        self.of(device).bell.clone()
    }

    fn of(&mut self, device: &Arc<str>) -> &mut Of {
        self.devices.entry(device.clone()).or_default()
    }

    /// Takes in an element of a device's. Whether a batch was begun or completed by it.
    pub(super) fn add(&mut self, device: &Arc<str>, element: &str, shown: Shown, now: Instant) -> bool {
        self.counts.samples += 1;
        self.of(device).note_begun(shown);
        let most = self.settings.batch_size.saturating_sub(PROPERTY_BYTES);
        let of = self.of(device);
        let is_full = of.open.as_ref().is_some_and(|(open, _)| !open.has_room(element, most));
        if is_full {
            self.close(device);
        }
        let open = &mut self.of(device).open;
        let is_begun = open.is_none();
        open.get_or_insert_with(|| (Open::default(), now)).0.push(element, shown.at);
        if self.settings.batch_delay.is_zero() {
            self.close(device);
        }
        is_full || is_begun
    }

    /// An earlier life has ended without a word, of which these are to be told: with the first that is read of each, if
    /// it is not known yet until when something may be missing.
    pub(super) fn owe_word_of_a_crash(&mut self, owed: Owed) {
        for (device, known) in owed {
            let of = self.of(&device);
            of.word = Some(Word { until: known.or(of.begun), is_told: false });
            of.bell.notify_one();
        }
    }

    /// To whom that word is owed still.
    pub(super) fn owes_word_of_a_crash(&self) -> Owed {
        let until = |of: &Of| of.word.as_ref().map(|word| word.until);
        self.devices.iter().filter_map(|(device, of)| Some((device.clone(), until(of)?))).collect()
    }

    /// The batch that is collected is complete.
    fn close(&mut self, device: &Arc<str>) {
        let Some((open, _)) = self.of(device).open.take().filter(|(open, _)| !open.is_empty()) else { return };
        let (holds, body) = (open.holds, open.body());
        let batch = self.make(device, Kind::Samples, body, holds);
        self.waiting += batch.body.len();
        let of = self.of(device);
        of.fresh.insert(batch.number, batch);
        of.bell.notify_one();
        while self.waiting > MEMORY_MAX {
            self.lose_the_oldest();
        }
    }

    fn make(&mut self, device: &Arc<str>, kind: Kind, body: String, holds: Gap) -> Batch {
        let number = self.next;
        self.next += 1;
        let id = format!("{}-{}", self.life, number - FROM);
        Batch { number, id, kind, device: device.clone(), body, holds, tries: 0, is_stored: false }
    }

    /// Of what waits in memory.
    fn lose_the_oldest(&mut self) {
        let first = |of: &Of| of.fresh.keys().next().copied();
        let oldest =
            self.devices.values_mut().filter_map(|of| Some((first(of)?, of))).min_by_key(|(number, _)| *number);
        let Some((number, of)) = oldest else { return };
        if let Some(batch) = of.fresh.remove(&number) {
            of.lose(batch.holds);
            self.waiting -= batch.body.len();
            self.counts.lost += batch.holds.samples;
        }
    }

    /// Completes batches that were collected for long enough; of all devices at a stop.
    pub(super) fn close_due(&mut self, now: Instant, all: bool) {
        let delay = self.settings.batch_delay;
        let is_due = |of: &Of| of.open.as_ref().is_some_and(|(_, since)| all || *since + delay <= now);
        let due: Vec<Arc<str>> =
            self.devices.iter().filter(|(_, of)| is_due(of)).map(|(device, _)| device.clone()).collect();
        due.iter().for_each(|device| self.close(device));
    }

    /// When the next one is complete.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let since = self.devices.values().filter_map(|of| of.open.as_ref().map(|(_, since)| *since)).min();
        since.map(|since| since + self.settings.batch_delay)
    }

    /// What of a device goes next. It is on the wire from then on.
    pub(super) fn take(&mut self, device: &Arc<str>, now: Instant) -> Next {
        if !self.is_known {
            return Next::Nothing;
        }
        let newest_first = self.settings.newest_first;
        let of = self.of(device);
        let is_of_a_gap = !of.again.is_empty() || of.gap.samples > 0 || of.has_a_word();
        let bytes = match of.peek(newest_first) {
            _ if is_of_a_gap => 0,
            Some(batch) => batch.body.len(),
            None if of.unread => return Next::Load,
            None => return Next::Nothing,
        };
        let units = units(bytes + PROPERTY_BYTES);
        if let Some(at) = self.budget.held_until(units, now) {
            return Next::Later(at);
        }
        self.budget.spend(units);
        match self.take_now(device, is_of_a_gap, newest_first) {
            Some(batch) => {
                self.of(device).taken.insert(batch.number, batch.clone());
                Next::Batch(batch)
            }
            None => Next::Nothing,
        }
    }

    fn take_now(&mut self, device: &Arc<str>, is_of_a_gap: bool, newest_first: bool) -> Option<Batch> {
        let of = self.of(device);
        if is_of_a_gap {
            if let Some((_, again)) = of.again.pop_first() {
                return Some(again);
            }
            if let Some(until) = of.take_word() {
                return Some(self.make(device, Kind::Gap, body_of_a_crash(until), Gap::default()));
            }
            let gap = std::mem::take(&mut of.gap);
            return Some(self.make(device, Kind::Gap, gap.body(), gap));
        }
        let number = of.peek(newest_first)?.number;
        if let Some(batch) = of.ready.remove(&number) {
            return Some(batch);
        }
        let batch = of.fresh.remove(&number)?;
        self.waiting -= batch.body.len();
        Some(batch)
    }

    /// The hub has it.
    pub(super) fn acknowledged(&mut self, device: &Arc<str>, number: i64) {
        let of = self.of(device);
        let Some(batch) = of.off_the_wire(number) else { return };
        of.note_told(&batch);
        self.counts.published += 1;
        if batch.is_stored {
            self.gone.insert(number, batch.device);
        }
    }

    /// It did not get to the hub, or nobody knows. `is_suspect`: perhaps for its own sake.
    pub(super) fn again(&mut self, device: &Arc<str>, number: i64, is_suspect: bool) {
        let of = self.of(device);
        let Some(batch) = of.taken.get_mut(&number) else { return };
        batch.tries += u32::from(is_suspect);
        if batch.tries >= TRIES_MAX {
            return self.lose(device, number);
        }
        let Some(batch) = of.off_the_wire(number) else { return };
        match (batch.kind, batch.is_stored) {
            (Kind::Gap, _) => drop(of.again.insert(number, batch)),
            (Kind::Samples, true) => drop(of.ready.insert(number, batch)),
            (Kind::Samples, false) => self.keep_in_memory(device, batch),
        }
    }

    /// It is in memory, and not in the file, nor on the wire any more.
    fn keep_in_memory(&mut self, device: &Arc<str>, mut batch: Batch) {
        batch.is_stored = false;
        if batch.number <= self.base {
            batch.number = self.next;
            self.next += 1;
        }
        self.waiting += batch.body.len();
        self.of(device).fresh.insert(batch.number, batch);
    }

    /// The hub does not take it.
    pub(super) fn lose(&mut self, device: &Arc<str>, number: i64) {
        let of = self.of(device);
        let Some(batch) = of.off_the_wire(number) else { return };
        if batch.kind == Kind::Gap {
            // Whoever does not take that takes no word of it either.
            return of.note_told(&batch);
        }
        of.lose(batch.holds);
        self.counts.lost += batch.holds.samples;
        if batch.is_stored {
            self.gone.insert(number, batch.device);
        }
    }

    /// A connection begins: what it is to bring is looked for from the beginning.
    pub(super) fn ring(&mut self, device: &Arc<str>) {
        self.of(device).bell.notify_one();
    }

    /// What is to be done in the file.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan { delete: self.gone.keys().copied().collect(), ..Plan::default() };
        for (device, of) in &self.devices {
            let on_the_wire = of.taken.values().filter(|batch| batch.kind == Kind::Samples);
            plan.taken.extend(on_the_wire.clone().map(|batch| batch.number));
            let not_stored = on_the_wire.filter(|batch| self.is_to_be_written(of, batch));
            plan.insert.extend(of.fresh.values().chain(not_stored).cloned());
            let gaps = of.gaps();
            if gaps != of.stored_gap {
                plan.gaps.push((device.clone(), gaps));
            }
        }
        plan
    }

    /// Whether one that is on the wire is to be written meanwhile.
    fn is_to_be_written(&self, of: &Of, batch: &Batch) -> bool {
        batch.kind == Kind::Samples
            && !batch.is_stored
            && batch.number > self.base
            && !of.dropped.contains(&batch.number)
    }

    /// Whether something is.
    pub(super) fn has_to_write(&self) -> bool {
        let waits = |of: &Of| {
            let not_stored = |batch: &Batch| self.is_to_be_written(of, batch);
            !of.fresh.is_empty() || of.taken.values().any(not_stored) || of.gaps() != of.stored_gap
        };
        !self.gone.is_empty() || self.devices.values().any(waits)
    }

    /// That was done; for want of room these were taken out, the oldest. `stored`: what is in the file now.
    pub(super) fn written(&mut self, plan: &Plan, dropped: &[(Arc<str>, i64, Gap)], stored: Stored) {
        self.stored = stored;
        self.gone.retain(|number, _| plan.delete.binary_search(number).is_err());
        for (device, gaps) in &plan.gaps {
            self.of(device).stored_gap = *gaps;
        }
        let put_out: BTreeSet<i64> = dropped.iter().map(|(_, number, _)| *number).collect();
        for Batch { device, number, .. } in plan.insert.iter().filter(|batch| !put_out.contains(&batch.number)) {
            let of = self.of(device);
            if let Some(batch) = of.fresh.remove(number) {
                of.unread = true;
                self.waiting -= batch.body.len();
            } else if let Some(batch) = of.taken.get_mut(number) {
                batch.is_stored = true;
            } else {
                // The hub has it by now.
                self.gone.insert(*number, device.clone());
            }
        }
        for (device, number, holds) in dropped {
            if !plan.taken.contains(number) {
                // As it stands in the file.
                let of = self.of(device);
                of.stored_gap = of.stored_gap.and(*holds);
            }
            self.put_out(plan, device, *number, *holds);
        }
    }

    /// The file has no room for it. What is or was on the wire is not lost for that: it is in memory.
    fn put_out(&mut self, plan: &Plan, device: &Arc<str>, number: i64, holds: Gap) {
        // Perhaps the hub has it by now, or does not take it: then it is not the file's to lose.
        let is_over = self.gone.remove(&number).is_some();
        let was_taken = plan.taken.contains(&number);
        let of = self.of(device);
        if let Some(batch) = of.taken.get_mut(&number) {
            batch.is_stored = false;
            of.dropped.insert(number);
            return;
        }
        match of.ready.remove(&number) {
            Some(batch) if was_taken => return self.keep_in_memory(device, batch),
            Some(_) => {}
            None if was_taken || is_over => return,
            None => match of.fresh.remove(&number) {
                Some(batch) => self.waiting -= batch.body.len(),
                None if plan.insert.iter().any(|batch| batch.number == number) => return,
                None => {}
            },
        }
        self.of(device).lose(holds);
        self.counts.lost += holds.samples;
    }

    /// What stands in a file that was just opened.
    pub(super) fn begin_with(&mut self, last: i64, stored: Stored, gaps: Vec<(Arc<str>, Gap)>) {
        self.number_from(last);
        for device in stored.batches.keys() {
            let of = self.of(device);
            of.unread = true;
            of.bell.notify_one();
        }
        self.stored = stored;
        for (device, gap) in gaps {
            let of = self.of(&device);
            (of.gap, of.stored_gap) = (of.gap.and(gap), gap);
            of.bell.notify_one();
        }
    }

    /// What waits in memory gets numbers behind those that the file has.
    fn number_from(&mut self, last: i64) {
        if last <= self.base {
            return;
        }
        let more = last - self.base;
        self.base = last;
        self.next += more;
        for of in self.devices.values_mut() {
            let behind = |batch: Batch| (batch.number + more, Batch { number: batch.number + more, ..batch });
            of.fresh = std::mem::take(&mut of.fresh).into_values().map(behind).collect();
        }
    }

    /// What the file holds is known, or can't be at present.
    pub(super) fn note_known(&mut self) {
        if !std::mem::replace(&mut self.is_known, true) {
            self.devices.values().for_each(|of| of.bell.notify_one());
        }
    }

    /// The file is lost with all that stood in it.
    pub(super) fn file_is_lost(&mut self) {
        self.gone.clear();
        self.stored = Stored::default();
        for of in self.devices.values_mut() {
            (of.unread, of.stored_gap) = (false, Gap::default());
            of.dropped.clear();
            // What is in memory still can be written anew.
            for mut batch in std::mem::take(&mut of.ready).into_values() {
                batch.is_stored = false;
                self.waiting += batch.body.len();
                of.fresh.insert(batch.number, batch);
            }
            of.taken.values_mut().for_each(|batch| batch.is_stored = false);
        }
    }

    /// What is to be loaded of a device, unless that is under way.
    pub(super) fn begin_load(&mut self, device: &Arc<str>) -> Option<Load> {
        let (newest_first, gone) = (self.settings.newest_first, self.gone.len());
        let of = self.of(device);
        if std::mem::replace(&mut of.is_loading, true) {
            return None;
        }
        let most = LOAD + gone + of.ready.len() + of.taken.len();
        Some(Load { device: device.clone(), newest_first, most })
    }

    /// What was loaded: all that there is, if it is less than was asked for. `None`: the file can't be read at present.
    pub(super) fn loaded(&mut self, load: &Load, found: Option<Vec<Batch>>) {
        let Shelf { devices, gone, .. } = self;
        let of = devices.entry(load.device.clone()).or_default();
        of.is_loading = false;
        let Some(found) = found else { return };
        of.unread = found.len() >= load.most;
        for batch in found {
            if !gone.contains_key(&batch.number) && !of.taken.contains_key(&batch.number) {
                of.ready.insert(batch.number, batch);
            }
        }
        of.bell.notify_one();
    }

    /// Messages that the hub does not have yet, of some of the devices.
    pub(super) fn pending(&self, is_meant: impl Fn(&str) -> bool) -> u64 {
        let in_memory = |of: &Of| of.fresh.len() + of.taken.values().filter(|batch| !batch.is_stored).count();
        let devices = self.devices.iter().filter(|(device, _)| is_meant(device));
        let in_memory: usize = devices.map(|(_, of)| in_memory(of)).sum();
        let stored: u64 =
            self.stored.batches.iter().filter(|(device, _)| is_meant(device)).map(|(_, count)| count).sum();
        let gone = self.gone.values().filter(|device| is_meant(device)).count();
        stored.saturating_sub(gone as u64) + in_memory as u64
    }
}

#[cfg(test)]
mod tests;
