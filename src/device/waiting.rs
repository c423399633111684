//! The commands of a device that wait for their turn, in the order of receipt.

use std::collections::{HashSet, VecDeque};

use tokio::time::Instant;

use super::{Job, Work, QUEUE_MAX};
use crate::command::decide::Deadline;
use crate::command::message::Digest;
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

    /// Takes one in.
    pub(super) fn push(&mut self, mut job: Job) {
        self.forget();
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

    /// When a deadline may have passed.
    pub(super) fn next_look(&self, in_hand: &Name, device: &Device, clock: &WallClock) -> Option<Instant> {
        self.free(in_hand, device).map(|(at, deadline)| self.jobs[at].work.next_look(deadline, clock)).min()
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
