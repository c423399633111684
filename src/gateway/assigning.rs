//! Has devices registered that are to be assigned to a hub: those that have none yet, and those that theirs does not
//! let in any more. When, is decided in `provisioning::turns`.
//!
//! Invariants
//! - What was assigned is put into the file before a device is sent there. If that fails, it is told, and the device is
//!   sent all the same.
//! - A registration that was under way when the configuration changed says nothing of the new one.

#[cfg(feature = "https")]
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Gateway, TaskGroups};
use crate::config::{Config, Device};
use crate::hub::dial::Dial;
use crate::provisioning::book::{self, Book};

/// What devices were assigned to, and how others are.
#[cfg_attr(not(feature = "https"), expect(dead_code, reason = "nobody is asked without HTTPS"))]
pub(super) struct Assigning {
    dial: Arc<dyn Dial>,
    path: PathBuf,
    book: Mutex<Book>,
    /// Rings when the configuration has changed.
    changed: Notify,
}

impl Assigning {
    /// With what was remembered beside the ledger.
    pub(super) fn beside(config: &Config, dial: Arc<dyn Dial>) -> Assigning {
        let path = book::path_beside(&config.ledger.path);
        let mut book = Book::default();
        if config.provisioning.is_some() {
            let (read, why) = Book::read(&path);
            why.into_iter().for_each(|why| tracing::warn!("{why}"));
            book = read;
            book.keep_configured(config);
        }
        Assigning { dial, path, book: Mutex::new(book), changed: Notify::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub that a device was assigned to, as it is configured.
    pub(super) fn hub_of(&self, config: &Config, device: &Device) -> Option<String> {
        self.book().hub_of(config, device).map(str::to_owned)
    }

    /// The configuration has changed.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
    }
}

#[cfg(not(feature = "https"))]
impl Gateway {
    /// Nobody is assigned: the configuration refuses it.
    pub(super) fn assign(self: &Arc<Self>, _: &mut TaskGroups) {}
}

#[cfg(feature = "https")]
mod registrar {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::{sleep_until, Instant};

    use super::*;
    use crate::complaint::Complaint;
    use crate::config::{Hub, Provisioning};
    use crate::gateway::spawn_helper;
    use crate::health::LinkState;
    use crate::provisioning::client::Client;
    use crate::provisioning::registration::{Assigned, Refusal};
    use crate::provisioning::turns::Turns;

    /// Registrations at a time: each has a connection, and the service takes so many a minute of all its devices.
    const REGISTRATIONS_MAX: usize = 4;
    /// How often a clock that can't be believed is looked at again.
    const CLOCK_PERIOD: Duration = Duration::from_secs(1);

    /// A registration that has ended, and of what.
    struct Ended {
        device: Device,
        provisioning: Provisioning,
        outcome: Result<Assigned, Refusal>,
    }

    /// What is known of registrations so far.
    #[derive(Default)]
    struct Desk {
        turns: BTreeMap<String, Turns>,
        under_way: JoinSet<Ended>,
        client: Option<(Provisioning, Hub, Arc<Client>)>,
        /// What was logged last: of the service, and of each device.
        told: Option<String>,
        told_of: BTreeMap<String, String>,
    }

    impl Desk {
        /// How the service is asked.
        fn client(&mut self, config: &Config, dial: &Arc<dyn Dial>) -> Option<Result<Arc<Client>, Complaint>> {
            let provisioning = config.provisioning.as_ref()?;
            if let Some((of, through, client)) = &self.client {
                if of == provisioning && *through == config.hub {
                    return Some(Ok(client.clone()));
                }
            }
            let made = Client::new(provisioning, &config.hub, dial.clone()).map(Arc::new);
            Some(made.inspect(|client| {
                self.client = Some((provisioning.clone(), config.hub.clone(), client.clone()));
            }))
        }

        /// Logs what has failed, once as long as it stays so.
        fn tell(&mut self, device: &str, refusal: &Refusal) {
            let text = refusal.why.to_string();
            if refusal.is_common {
                if self.told.as_ref() != Some(&text) {
                    tracing::warn!("no device can be registered: {text}");
                    self.told = Some(text);
                }
            } else if self.told_of.get(device) != Some(&text) {
                tracing::warn!(%device, "not assigned to a hub: {text}");
                self.told_of.insert(device.to_owned(), text);
            }
        }
    }

    impl Gateway {
        /// Has devices registered, for as long as the gateway runs.
        pub(in crate::gateway) fn assign(self: &Arc<Self>, tasks: &mut TaskGroups) {
            let gateway = self.clone();
            let stop = self.stops.helpers.clone();
            spawn_helper(tasks, "provisioning", stop, async move { gateway.keep_assigned().await });
        }

        async fn keep_assigned(&self) {
            let mut desk = Desk::default();
            loop {
                let next = self.begin_registrations(&mut desk);
                let ended = tokio::select! {
                    () = self.assigning.changed.notified() => {
                        // What kept a device from being registered may be mended.
                        desk.turns.clear();
                        desk.told_of.clear();
                        continue;
                    }
                    () = self.shared.refused() => continue,
                    () = until(next) => continue,
                    Some(ended) = desk.under_way.join_next() => ended,
                };
                let more = std::iter::from_fn(|| desk.under_way.try_join_next());
                // None of them is aborted, nor does one panic.
                let all = std::iter::once(ended).chain(more).flatten().collect::<Vec<_>>();
                self.conclude(&mut desk, all).await;
            }
        }

        /// Begins the registrations whose time has come, and says when the next one's comes.
        fn begin_registrations(&self, desk: &mut Desk) -> Option<Instant> {
            let registry = self.registry();
            let (config, now) = (&registry.config, Instant::now());
            let date = self.ledger.wall_clock().now();
            let mut next: Option<Instant> = None;
            for (id, served) in &registry.devices {
                let Some(device) = config.devices.get(id).filter(|device| device.registration.is_some()) else {
                    continue;
                };
                let has_hub = !registry.hub_of(id).is_empty();
                let turns = desk.turns.entry(id.clone()).or_default();
                if !turns.wants(has_hub, served.health.refusals.get()) {
                    continue;
                }
                let due = turns.due(now);
                if due > now {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    continue;
                }
                let date = match &date {
                    Ok(date) => *date,
                    Err(doubt) => {
                        if !has_hub {
                            served.health.set_link(LinkState::Waiting, Some(doubt.to_string()));
                        }
                        next = Some(now + CLOCK_PERIOD);
                        continue;
                    }
                };
                // When one ends, this is asked again.
                if desk.under_way.len() >= REGISTRATIONS_MAX {
                    break;
                }
                let client = desk.client(config, &self.assigning.dial);
                let Some((client, provisioning)) = client.zip(config.provisioning.clone()) else { break };
                desk.turns.entry(id.clone()).or_default().begin();
                let device = device.clone();
                desk.under_way.spawn(async move {
                    let outcome = match client {
                        Ok(client) => client.register(&device, date).await,
                        Err(why) => Err(Refusal { is_common: true, ..Refusal::new(why) }),
                    };
                    Ended { device, provisioning, outcome }
                });
            }
            next
        }

        /// Takes up what has come of registrations.
        async fn conclude(&self, desk: &mut Desk, ended: Vec<Ended>) {
            let (assigned, is_news) = self.judge(desk, ended);
            if is_news {
                self.remember().await;
            }
            let registry = self.registry();
            for id in assigned {
                // It may be configured otherwise by now.
                let device = registry.config.devices.get(&id);
                let hub = device.and_then(|device| self.assigning.hub_of(&registry.config, device));
                if let (Some(served), Some(hub)) = (registry.devices.get(&id), hub) {
                    served.health.refusals.forget();
                    registry.move_to(&id, &hub);
                }
            }
        }

        /// Notes what devices were assigned to, and when others are tried again. Gives those that were, and whether
        /// anything is new of them.
        fn judge(&self, desk: &mut Desk, ended: Vec<Ended>) -> (Vec<String>, bool) {
            let registry = self.registry();
            let (now, mut assigned, mut is_news) = (Instant::now(), Vec::new(), false);
            for Ended { device, provisioning, outcome } in ended {
                let config = &registry.config;
                let is_as_it_was = config.provisioning.as_ref() == Some(&provisioning)
                    && config.devices.get(&device.id) == Some(&device);
                let turns = desk.turns.entry(device.id.clone()).or_default();
                if !is_as_it_was {
                    *turns = Turns::default();
                    continue;
                }
                let id = &device.id;
                match outcome {
                    Ok(Assigned { hub, .. }) => {
                        turns.succeeded(now, fastrand::f64());
                        desk.told = None;
                        desk.told_of.remove(id);
                        match registry.hub_of(id) == hub {
                            false => {
                                tracing::info!(device = %id, %hub, "assigned to a hub by the provisioning service")
                            }
                            true => tracing::warn!(
                                device = %id,
                                "the provisioning service assigns the device to {hub}, which refuses it; look whether it is \
                                 there, enabled, and has the same key"
                            ),
                        }
                        is_news |= self.assigning.book().note(config, &device, &hub);
                        assigned.push(id.clone());
                    }
                    Err(refusal) => {
                        turns.failed(now, fastrand::f64(), refusal.retry_after);
                        if let Some(served) = registry.devices.get(id).filter(|_| registry.hub_of(id).is_empty()) {
                            served.health.set_link(LinkState::Waiting, Some(refusal.why.to_string()));
                        }
                        desk.tell(id, &refusal);
                    }
                }
            }
            (assigned, is_news)
        }

        /// Puts what is known into the file. A slow disk must not hold up the buses.
        async fn remember(&self) {
            let (book, path) = (self.assigning.book().clone(), self.assigning.path.clone());
            let written = tokio::task::spawn_blocking(move || book.write(&path)).await;
            if let Ok(Err(error)) = written {
                let path = self.assigning.path.display();
                tracing::warn!(
                    "{path} can't be written ({error}), so that the next start needs the provisioning service; look at the \
                     folder and the disk"
                );
            }
        }
    }

    async fn until(at: Option<Instant>) {
        match at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
