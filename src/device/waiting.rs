//! The commands of a device that wait for their turn, in the order of receipt.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::{Job, Work, QUEUE_MAX};
use crate::command::decide::{Deadline, Settle};
use crate::command::message::Digest;
use crate::command::newest::{self, IsNew, Waits};
use crate::config::Device;
use crate::time::trust::WallClock;

/// What tells messages apart for whom one must not be passed by the other: their id, or what an anonymous one asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Id(String),
    Anonymous(Digest),
}

impl Name {
    pub(super) fn of(work: &Work) -> Name {
        match &work.new.message_id {
            Some(id) => Name::Id(id.clone()),
            None => Name::Anonymous(work.new.digest),
        }
    }
}

/// The command that is being run, as far as it matters to those who wait.
pub(super) struct InHand {
    pub(super) name: Name,
    command: String,
    may_end: bool,
    digest: Digest,
    /// Those who have called for it, if it is a method's.
    caller: Option<Caller>,
    /// One that waits may be to be done in its place, and the ledger was not asked yet.
    pub(super) is_in_question: bool,
    /// Cancelled when a newer one is to be done in its place.
    pub(super) outdated: CancellationToken,
}

impl InHand {
    pub(super) fn of(work: &Work) -> InHand {
        InHand {
            name: Name::of(work),
            command: work.command_name().to_owned(),
            may_end: work.is_unbegun(),
            digest: work.new.digest,
            caller: work.origin.caller().cloned(),
            is_in_question: false,
            outdated: work.outdated.clone(),
        }
    }

    /// Who calls for it once more waits for its end, and the call is none of its own. Else it comes back.
    pub(super) fn join(&self, job: Job) -> Option<Job> {
        match self.caller.as_ref().filter(|_| is_of(&job.work, &self.name, &self.digest)) {
            Some(caller) => job.joins(caller),
            None => Some(job),
        }
    }
}

/// Whether this is another call for the command of this id.
fn is_of(work: &Work, name: &Name, digest: &Digest) -> bool {
    let is_named = matches!(name, Name::Id(_));
    is_named && work.origin.caller().is_some() && work.new.digest == *digest && Name::of(work) == *name
}

impl Job {
    /// Its callers wait for the end of another command from now on. It comes back if that is over.
    fn joins(self, caller: &Caller) -> Option<Job> {
        let is_joined = self.work.origin.caller().is_some_and(|own| caller.join(own));
        (!is_joined).then_some(self)
    }
}

/// One that a newer one ends, or could end.
pub(super) enum Outdated {
    InHand,
    Waiting(Job),
    /// If it is to be done, an older one is outdated.
    Unasked(Job),
}

/// Those who wait.
#[derive(Default)]
pub(super) struct Waiting {
    jobs: VecDeque<Job>,
    next: u64,
}

impl Waiting {
    /// Whether another may be taken in. One more waits to be offered.
    pub(super) fn has_room(&self) -> bool {
        self.jobs.len() < QUEUE_MAX - 1
    }

    /// What a dead connection has left behind goes: the hub delivers it again.
    pub(super) fn forget(&mut self) {
        self.jobs.retain(|job| job.work.is_ours());
    }

    /// Takes one in. Who calls once more for one that waits waits for the same.
    pub(super) fn push(&mut self, job: Job) {
        self.forget();
        let is_same = |other: &&Job| is_of(&job.work, &Name::of(&other.work), &other.work.new.digest);
        let caller = self.jobs.iter().find(is_same).and_then(|other| other.work.origin.caller()).cloned();
        let job = match caller {
            Some(caller) => job.joins(&caller),
            None => Some(job),
        };
        let Some(mut job) = job else { return };
        job.number = self.next;
        self.next += 1;
        self.jobs.push_back(job);
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// Takes one in again at its place.
    pub(super) fn put_back(&mut self, job: Job) {
        let place = self.jobs.partition_point(|other| other.number < job.number);
        self.jobs.insert(place, job);
    }

    /// When a deadline may have passed, or a caller is to be promised the end.
    pub(super) fn next_look(&self, in_hand: &Name, device: &Device, clock: &WallClock) -> Option<Instant> {
        let looks = self.free(in_hand, device).map(|(at, deadline)| self.jobs[at].work.next_look(deadline, clock));
        let promises = self.calls(in_hand).filter_map(|(at, _)| self.jobs[at].work.origin.caller()?.due());
        looks.chain(promises).min()
    }

    /// Takes out the first one whose callers have waited long enough to be promised the end, and whether it is the
    /// first of its id: no other waits before it, or is in hand.
    pub(super) fn take_due(&mut self, in_hand: &Name, now: Instant) -> Option<(Job, bool)> {
        let is_due =
            |(at, _): &(usize, bool)| self.jobs[*at].work.origin.caller().is_some_and(|caller| caller.is_due(now));
        let (at, is_first) = self.calls(in_hand).find(is_due)?;
        Some((self.jobs.remove(at)?, is_first))
    }

    /// The places of calls, and whether each is the first of its id.
    fn calls<'a>(&'a self, in_hand: &'a Name) -> impl Iterator<Item = (usize, bool)> + 'a {
        let mut ahead = HashSet::from([in_hand.clone()]);
        self.jobs.iter().enumerate().filter_map(move |(at, job)| {
            let is_first = ahead.insert(Name::of(&job.work));
            job.work.origin.caller().is_some().then_some((at, is_first))
        })
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> VecDeque<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// Takes out the first one that is over before its turn.
    pub(super) fn take_over(
        &mut self,
        in_hand: &Name,
        device: &Device,
        is_over: impl Fn(&Work, Deadline) -> bool,
    ) -> Option<Job> {
        let over = self.free(in_hand, device).find(|(at, deadline)| is_over(&self.jobs[*at].work, *deadline));
        over.and_then(|(at, _)| self.jobs.remove(at))
    }

    /// Takes out the first one that a newer one of the same command ends, or that could do so. Those that are over, or
    /// come again by another connection, end none.
    pub(super) fn take_outdated(
        &mut self,
        in_hand: &mut InHand,
        device: &Device,
        is_over: impl Fn(&Work, Deadline) -> bool,
    ) -> Option<Outdated> {
        in_hand.is_in_question = false;
        if !device.commands.values().any(|command| command.latest_wins) {
            return None;
        }
        let latest_wins = |name: &str| device.commands.get(name).is_some_and(|command| command.latest_wins);
        let free: HashMap<usize, Deadline> = self.free(&in_hand.name, device).collect();
        let first = Waits {
            command: &in_hand.command,
            latest_wins: latest_wins(&in_hand.command),
            may_end: in_hand.may_end && !in_hand.outdated.is_cancelled(),
            is_new: IsNew::No,
        };
        let waiting = self.jobs.iter().enumerate().map(|(at, job)| {
            let command = job.work.command_name();
            let may_end = free.get(&at).is_some_and(|deadline| !is_over(&job.work, *deadline));
            let is_new = match device.settle {
                _ if !may_end || !job.work.is_ours() => IsNew::No,
                _ if job.judged => IsNew::Yes,
                Settle::AfterExecution => IsNew::Unasked,
                // It would be accepted, past those before it.
                Settle::AfterAccept => IsNew::No,
            };
            Waits { command, latest_wins: latest_wins(command), may_end, is_new }
        });
        let all: Vec<Waits<'_>> = [first].into_iter().chain(waiting).collect();
        in_hand.is_in_question = newest::is_in_question(&all);
        match newest::outdated(&all)? {
            newest::Outdated::End(0) => Some(Outdated::InHand),
            newest::Outdated::End(at) => self.jobs.remove(at - 1).map(Outdated::Waiting),
            newest::Outdated::Ask(at) => self.jobs.remove(at - 1).map(Outdated::Unasked),
        }
    }

    /// The places of those that something can end before their turn: of one name only the first, and none whose
    /// message may be the one in hand.
    fn free<'a>(&'a self, in_hand: &'a Name, device: &'a Device) -> impl Iterator<Item = (usize, Deadline)> + 'a {
        let mut ahead = HashSet::from([in_hand.clone()]);
        self.jobs.iter().enumerate().filter_map(move |(at, job)| {
            if !ahead.insert(Name::of(&job.work)) || job.patient {
                return None;
            }
            Some((at, job.work.deadline(device)?))
        })
    }
}
