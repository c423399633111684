//! What a configuration comes to, in a few bytes for each of its parts: whether the daemon runs on what the files say
//! now can be told without either showing the other a secret.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::{Bus, Config, Credential, Device, Hub, Proxy};

/// Bytes of a digest that are kept: nobody has a reason to forge one, and by chance two parts are not taken for one.
const BYTES: usize = 8;

/// The parts of a configuration, each by a digest of its own. Two programs of different versions may differ in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// `[hub]`
    pub hub: String,
    /// `[provisioning]`
    #[serde(default)]
    pub provisioning: String,
    /// `[ledger]`
    pub ledger: String,
    /// Buses by name.
    pub buses: BTreeMap<String, String>,
    /// Devices by id, with their commands and credentials.
    pub devices: BTreeMap<String, String>,
}

impl Fingerprints {
    /// Of a configuration.
    pub fn of(config: &Config) -> Fingerprints {
        Fingerprints {
            hub: of_hub(&config.hub),
            provisioning: digest(&config.provisioning, b""),
            ledger: digest(&config.ledger, b""),
            buses: config.buses.iter().map(|(name, bus)| (name.clone(), of_bus(bus))).collect(),
            devices: config.devices.iter().map(|(id, device)| (id.clone(), of_device(device))).collect(),
        }
    }

    /// Whether a hub is there with other settings.
    pub fn has_another_hub(&self, hub: &Hub) -> bool {
        self.hub != of_hub(hub)
    }

    /// Whether a bus is there with other settings.
    pub fn has_another_bus(&self, name: &str, bus: &Bus) -> bool {
        self.buses.get(name).is_some_and(|print| *print != of_bus(bus))
    }

    /// Whether a device is there with other settings, commands or another credential.
    pub fn has_another_device(&self, device: &Device) -> bool {
        self.devices.get(&device.id).is_some_and(|print| *print != of_device(device))
    }

    /// What differs in another configuration, by what it is called there.
    pub fn differences(&self, other: &Fingerprints) -> Vec<String> {
        let mut found = Vec::new();
        for (name, own, others) in [
            ("hub", &self.hub, &other.hub),
            ("provisioning", &self.provisioning, &other.provisioning),
            ("ledger", &self.ledger, &other.ledger),
        ] {
            if own != others {
                found.push(format!("[{name}] changed"));
            }
        }
        for (kind, own, others) in [("bus", &self.buses, &other.buses), ("device", &self.devices, &other.devices)] {
            for (name, print) in others {
                match own.get(name) {
                    None => found.push(format!("{kind} {name} added")),
                    Some(own) if own != print => found.push(format!("{kind} {name} changed")),
                    Some(_) => {}
                }
            }
            let removed = own.keys().filter(|name| !others.contains_key(*name));
            found.extend(removed.map(|name| format!("{kind} {name} removed")));
        }
        found
    }
}

/// Of a device and its bus, without a secret: what a device's twin is told of its configuration.
pub fn of_device_and_bus(device: &Device, bus: &Bus) -> String {
    digest(&(device, bus), b"")
}

fn of_hub(hub: &Hub) -> String {
    let secret = hub.proxy.as_ref().and_then(|Proxy { credentials, .. }| credentials.as_deref());
    digest(hub, secret.unwrap_or_default().as_bytes())
}

fn of_bus(bus: &Bus) -> String {
    digest(bus, b"")
}

fn of_device(device: &Device) -> String {
    let first = match &device.credential {
        Credential::Key(key) => key.as_slice(),
        Credential::Certificate { contents, .. } => contents,
    };
    digest(device, &[first, device.secondary.as_deref().unwrap_or_default()].concat())
}

/// Everything that a part's `Debug` tells, and what that hides. The version is in it: another program may mean another
/// thing by the same words.
fn digest(part: &impl Debug, secret: &[u8]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(env!("CARGO_PKG_VERSION").as_bytes());
    context.update(format!("{part:?}").as_bytes());
    context.update(secret);
    context.finish().as_ref().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let of = |hub: &str, buses: &[(&str, &str)]| Fingerprints {
            hub: hub.into(),
            buses: buses.iter().map(|(name, print)| ((*name).to_owned(), (*print).to_owned())).collect(),
            ..Fingerprints::default()
        };
        let running = of("1", &[("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!(running.differences(&running), [] as [String; 0]);
        let changed = of("2", &[("a", "1"), ("b", "2"), ("d", "1")]);
        let expected = ["[hub] changed", "bus b changed", "bus d added", "bus c removed"];
        assert_eq!(running.differences(&changed), expected);
    }
}
