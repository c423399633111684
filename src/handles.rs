//! Handles: files and sockets that the process may have open. When the last one is gone everything fails at once, so
//! the hub's connections, of which there may be a thousand, never take it: what is left belongs to buses, the ledger
//! and the operators.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use tokio::sync::Notify;

/// Handles that are no connection of an identity's: the ledger's files and its readers, operators, the runtime,
/// look-ups, a reload's files, and attempts at several addresses of the hub at a time.
const APART: usize = 96;
/// Handles of a bus: its line, one that takes its place, one that is tried beside it, and one more.
const BUS: usize = 4;
/// Connections of each kind of view, the metrics and the page, that are served at the same time.
pub const LOOKERS_MAX: usize = 16;
/// Handles of a kind of view: whoever looks, the listener, and one for the next that comes.
const VIEW: usize = LOOKERS_MAX + 2;

/// What needs handles beside the connections to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Others {
    /// Buses.
    pub buses: usize,
    /// Kinds of view that are listened for: metrics, the page.
    pub views: usize,
}

impl Others {
    fn handles(self) -> usize {
        APART.saturating_add(self.buses.saturating_mul(BUS)).saturating_add(self.views.saturating_mul(VIEW))
    }
}

/// How many handles the process may have open at most, if the system tells.
pub fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many it could have, if it asked.
pub fn most() -> usize {
    getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Raises the limit as far as the process may.
pub fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        // A sandbox may forbid it; its unit sets the limit itself.
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Connections to the hub that a limit has room for, beside these. At least one.
pub fn for_hub(limit: usize, others: Others) -> usize {
    limit.saturating_sub(others.handles()).max(1)
}

/// What is to be said of a configuration that needs more than a limit gives, and what to do.
pub fn note(connections: usize, others: Others, limit: usize) -> Option<(String, String)> {
    let room = for_hub(limit, others);
    let Others { buses, views } = others;
    let lookers = if views == 0 { "" } else { " and those who look at metrics and page" };
    let what = format!(
        "the limit of open files is {limit}, which is enough for {room} connections to the hub beside {buses} buses{lookers}"
    );
    let remedy = format!(
        "the identities that are configured have {connections}, and those that find no place will wait: raise it to {} or \
         more (LimitNOFILE= in a file of /etc/systemd/system/fieldbridge.service.d/, or ulimit -n)",
        connections.saturating_add(others.handles())
    );
    (connections > room).then_some((what, remedy))
}

/// Whether an error says that no handle is left: to the process, or in the whole system.
pub fn are_used_up(error: &std::io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// Places for connections to the hub.
#[derive(Debug)]
pub struct Places {
    most: AtomicUsize,
    taken: AtomicUsize,
    freed: Notify,
    /// That there are too few was said.
    told: AtomicBool,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// So many.
    pub fn new(most: usize) -> Arc<Places> {
        Arc::new(Places {
            most: AtomicUsize::new(most),
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
            told: AtomicBool::new(false),
        })
    }

    /// There are more or fewer from now on. Whoever has one keeps it.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Takes one, if one is free.
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken| (taken < self.most()).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Place(self.clone()))
    }

    /// Takes one as soon as one is free. Cancel-safe.
    pub async fn take(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // What is given back from here on is heard of.
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    /// Whether it is the first time that somebody must wait.
    pub fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_handles_for_the_rest_and_one_is_always_allowed() {
        let others = |views| Others { buses: 4, views };
        assert_eq!(for_hub(8192, others(0)), 8192 - APART - 4 * BUS);
        assert_eq!(for_hub(8192, others(2)), 8192 - APART - 4 * BUS - 2 * (LOOKERS_MAX + 2));
        assert_eq!(for_hub(64, others(0)), 1);
        assert_eq!(note(1000, others(2), 8192), None);
        let (what, remedy) = note(1000, others(0), 1024).unwrap();
        assert!(what.contains("1024") && what.ends_with("beside 4 buses"), "{what}");
        // Who looks from outside takes none of what is for the hub.
        let room = 1000 + APART + 4 * BUS;
        assert_eq!(note(1000, others(0), room), None);
        assert!(note(1000, others(1), room).unwrap().0.contains("those who look"));
        assert!(remedy.contains("have 1000") && remedy.contains("LimitNOFILE"), "{remedy}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_place_gets_the_next_that_is_free() {
        let places = Places::new(2);
        let held = (places.try_take().unwrap(), places.try_take().unwrap());
        assert!(places.try_take().is_none() && places.is_news() && !places.is_news());
        let waits = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(held.0);
        let third = waits.await.unwrap();
        assert!(places.try_take().is_none());
        places.set_most(3);
        assert!(places.try_take().is_some());
        drop((held.1, third));
    }
}
