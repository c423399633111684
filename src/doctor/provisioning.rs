//! Whether the Device Provisioning Service assigns devices to hubs, and which hub is whose.
//!
//! Invariants
//! - A device that is registered stays so, and nothing is written to the gateway's memory: asking changes nothing.
//! - What the running daemon has is not asked for. Of those devices whose hub is remembered one is registered, which
//!   shows that the service answers; the others are believed.

use std::collections::BTreeMap;

use super::daemon::Daemon;
use super::Finding;
use crate::config::{Config, Device};
use crate::provisioning::book::{self, Book};

fn about(device: &Device) -> String {
    format!("provisioning {}", device.id)
}

/// What was found, and for each hub the configuration of its devices.
pub(super) async fn check(config: &Config, daemon: &Daemon) -> (Vec<Finding>, Vec<Config>) {
    if config.provisioning.is_none() {
        return (Vec::new(), vec![config.clone()]);
    }
    let (book, why) = Book::read(&book::path_beside(&config.ledger.path));
    let mut findings: Vec<Finding> =
        why.into_iter().map(|why| Finding::of(super::Verdict::Warn, "provisioning", why)).collect();
    let (mut hubs, mut unknown, mut has_asked) = (BTreeMap::<String, Vec<Device>>::new(), Vec::new(), false);
    for device in config.devices.values() {
        let remembered = book.hub_of(config, device).map(str::to_owned);
        let hub = match (&device.registration, daemon) {
            (None, _) => Some(config.hub.host.clone()),
            (_, Daemon::Mute { .. }) => remembered,
            (_, Daemon::Running { .. }) if daemon.device(&device.id).is_some() => {
                let (hub, finding) = told_by_the_daemon(device, daemon);
                findings.push(finding);
                hub
            }
            _ if remembered.is_some() && has_asked => remembered,
            _ => {
                has_asked = true;
                unknown.push((device.clone(), remembered));
                continue;
            }
        };
        hub.into_iter().for_each(|hub| hubs.entry(hub).or_default().push(device.clone()));
    }
    for (device, hub, finding) in registered(config, unknown).await {
        findings.push(finding);
        hub.into_iter().for_each(|hub| hubs.entry(hub).or_default().push(device.clone()));
    }
    let of_hub = |(host, devices): (String, Vec<Device>)| Config {
        hub: if host == config.hub.host { config.hub.clone() } else { config.hub.assigned(&host) },
        devices: devices.into_iter().map(|device| (device.id.clone(), device)).collect(),
        ..config.clone()
    };
    (findings, hubs.into_iter().map(of_hub).collect())
}

fn told_by_the_daemon(device: &Device, daemon: &Daemon) -> (Option<String>, Finding) {
    let about = about(device);
    let Some(status) = daemon.device(&device.id) else { return (None, Finding::warn(&about, "not asked")) };
    match (status.hub_host.as_str(), status.last_error.as_deref()) {
        ("", Some(error)) => (None, Finding::heard(&about, error)),
        ("", None) => {
            let said = "it is not assigned to a hub yet, says the running fieldbridge";
            (None, Finding::warn(&about, said).remedy("ask again"))
        }
        (hub, _) => {
            (Some(hub.to_owned()), Finding::ok(&about, format!("assigned to {hub}, says the running fieldbridge")))
        }
    }
}

/// What the service was told of a device: the hub that is known then.
type Registered = (Device, Option<String>, Finding);

#[cfg(not(feature = "https"))]
async fn registered(_: &Config, devices: Vec<(Device, Option<String>)>) -> Vec<Registered> {
    let without = |(device, hub): (Device, Option<String>)| {
        let finding = Finding::warn(&about(&device), "not asked: this program was built without HTTPS");
        (device, hub, finding)
    };
    devices.into_iter().map(without).collect()
}

#[cfg(feature = "https")]
async fn registered(config: &Config, devices: Vec<(Device, Option<String>)>) -> Vec<Registered> {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::{stream, StreamExt as _};
    use tokio::time::{timeout_at, Instant};

    use crate::complaint::Complaint;
    use crate::hub::dial::Network;
    use crate::provisioning::client::Client;
    use crate::provisioning::registration::{Assigned, Refusal};
    use crate::time::{Timestamp, EARLIEST_BELIEVABLE};

    /// Registrations at the same time.
    const AT_ONCE: usize = 4;
    /// How long all of them may take.
    const LIMIT: Duration = Duration::from_secs(150);

    let made = config.provisioning.as_ref().map(|service| Client::new(service, &config.hub, Arc::new(Network)));
    let client = match made {
        Some(Ok(client)) => Ok(client),
        Some(Err(why)) => Err(why),
        None => Err(Complaint::bare("it is not configured")),
    };
    let (end, now) = (Instant::now() + LIMIT, Timestamp::now());
    let ask = |(device, remembered): (Device, Option<String>)| {
        let client = &client;
        async move {
            let asked = match client {
                Ok(_) if now < EARLIEST_BELIEVABLE => Err(Refusal::new(("the clock can't be right", "set it"))),
                Ok(client) => timeout_at(end, client.register(&device, now))
                    .await
                    .unwrap_or_else(|_| Err(Refusal::new(("no answer before the check's time was over", "try again")))),
                Err(why) => Err(Refusal::new(why.clone())),
            };
            let about = about(&device);
            match asked {
                Ok(Assigned { hub, .. }) => {
                    let moved = remembered.filter(|before| *before != hub);
                    let moved = moved.map(|before| format!("; the gateway remembers {before}")).unwrap_or_default();
                    let finding = Finding::ok(&about, format!("the service assigns it to {hub}{moved}"));
                    (device, Some(hub), finding)
                }
                Err(refusal) => (device, remembered, Finding::failed(&about, refusal.why)),
            }
        }
    };
    stream::iter(devices.into_iter().map(ask)).buffered(AT_ONCE).collect().await
}
