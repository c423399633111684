//! Every transport that this program was built with, and which of them an account takes.

use std::collections::HashMap;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use tokio::time::Instant;

use super::account::Account;
#[cfg(feature = "amqp")]
use super::amqp::{Amqp, IDENTITIES_MAX};
use super::dial::Dial;
#[cfg(feature = "https")]
use super::https::Https;
use super::mqtt::Mqtt;
use super::pace::Pace;
use super::transport::{Crash, Pending, Reached, Rest, Transport};
use super::trouble::Trouble;
use crate::config::{Credential, Device, TransportKind};
use crate::handles::Places;

/// Identities of a connection that is shared: in this program none is.
#[cfg(not(feature = "amqp"))]
const IDENTITIES_MAX: usize = 1;

/// How many connections to the hub devices have at a time: those that may share one count together.
pub fn connections<'a>(devices: impl IntoIterator<Item = &'a Device>) -> usize {
    let (mut own, mut sharing) = (0, HashMap::<TransportKind, usize>::new());
    for device in devices {
        match (device.transport, &device.credential) {
            (TransportKind::Amqp | TransportKind::AmqpWs, Credential::Key(_)) => {
                *sharing.entry(device.transport).or_default() += 1;
            }
            _ => own += 1,
        }
    }
    own + sharing.into_values().map(|identities| identities.div_ceil(IDENTITIES_MAX)).sum::<usize>()
}

/// By which transport each device is reached, as a digest: that there is a WebSocket in between changes nothing. Those
/// that are reached by MQTT are left out: their next connection waits for nothing that another of MQTT's has left, and
/// one that another transport takes over from MQTT changes the digest, as it is in it from then on.
pub fn ways<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Vec<u8> {
    let mut ways = Context::new(&SHA256);
    for device in devices {
        let way = match device.transport {
            TransportKind::Mqtt | TransportKind::MqttWs => continue,
            TransportKind::Amqp | TransportKind::AmqpWs => b'a',
            TransportKind::Https => b'h',
        };
        // An id holds no NUL.
        [device.id.as_bytes(), &[0, way]].iter().for_each(|part| ways.update(part));
    }
    ways.finish().as_ref().to_vec()
}

/// All transports, over streams that are dialled in one way.
pub struct Transports {
    mqtt: Mqtt,
    #[cfg(feature = "amqp")]
    amqp: Amqp,
    #[cfg(feature = "https")]
    https: Https,
}

impl Transports {
    /// Over streams that are dialled so, at this pace, of which so many may be there.
    pub fn over(dial: &Arc<dyn Dial>, pace: &Arc<Pace>, places: &Arc<Places>) -> Transports {
        #[cfg(not(feature = "amqp"))]
        let _ = places;
        #[cfg(not(feature = "https"))]
        let _ = pace;
        Transports {
            mqtt: Mqtt::over(dial.clone()),
            #[cfg(feature = "amqp")]
            amqp: Amqp::over(dial.clone(), places.clone()),
            #[cfg(feature = "https")]
            https: Https::over(dial.clone(), pace.clone()),
        }
    }
}

impl Transports {
    fn all(&self) -> Vec<&dyn Transport> {
        vec![
            &self.mqtt,
            #[cfg(feature = "amqp")]
            &self.amqp,
            #[cfg(feature = "https")]
            &self.https,
        ]
    }

    /// That of an account. `None`: the configuration refuses what is not built.
    fn of(&self, account: &Account) -> Option<&dyn Transport> {
        match account.transport {
            TransportKind::Mqtt | TransportKind::MqttWs => Some(&self.mqtt),
            #[cfg(feature = "amqp")]
            TransportKind::Amqp | TransportKind::AmqpWs => Some(&self.amqp),
            #[cfg(feature = "https")]
            TransportKind::Https => Some(&self.https),
            #[cfg(not(all(feature = "amqp", feature = "https")))]
            _ => None,
        }
    }
}

impl Transport for Transports {
    fn has_own_connection(&self, account: &Account) -> bool {
        self.of(account).is_none_or(|transport| transport.has_own_connection(account))
    }

    fn note_crash(&self, account: &Account, device: &str, crash: Crash) {
        let is_by_mqtt = matches!(account.transport, TransportKind::Mqtt | TransportKind::MqttWs);
        if crash.by_others && !is_by_mqtt {
            // It may have been reached by that, whose connections the hub may be slow to miss.
            self.mqtt.note_crash(account, device, crash);
        }
        if let Some(transport) = self.of(account) {
            transport.note_crash(account, device, crash);
        }
    }

    fn locked_until(&self, account: &Account, device: &str) -> Option<Instant> {
        // The device may have been reached by another transport before, in this life of the daemon.
        self.all().into_iter().filter_map(|transport| transport.locked_until(account, device)).max()
    }

    fn rest(&self) -> Rest {
        self.all().into_iter().map(Transport::rest).max().unwrap_or_default()
    }

    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>> {
        match self.of(account) {
            Some(transport) => transport.reach(account),
            None => Box::pin(async { Err(Trouble::Protocol(format!("{} is not in this program", account.transport))) }),
        }
    }
}

#[cfg(all(test, feature = "amqp", feature = "https"))]
mod tests {
    use super::*;
    use crate::config;
    use crate::hub::lock;
    use crate::hub::pace::Shared;

    /// A device with a key.
    fn device() -> Device {
        let folder = tempfile::tempdir().expect("a folder");
        let (main, key) = (folder.path().join("main.toml"), folder.path().join("k"));
        let text = "[hub]\nhost = \"h.example\"\n[bus.b]\nkind = \"modbus-tcp\"\naddress = \"h:502\"\n\
                    [device.d]\nbus = \"b\"\nunit = 1\nprofile = \"p\"\nkey_file = \"k\"\n\
                    [profile.p.command.c]\nread = { table = \"input\", address = 7 }\n";
        std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key");
        std::fs::write(&main, text).expect("a configuration");
        config::load(&main, []).expect("it is right").config.devices["d"].clone()
    }

    #[test]
    fn identities_that_may_share_a_connection_count_as_one() {
        let one = device();
        let certificate =
            Credential::Certificate { cert_file: "c.pem".into(), key_file: "k.pem".into(), contents: [0; 32] };
        let many = |transport: TransportKind, credential: &Credential, count: usize| {
            vec![Device { transport, credential: credential.clone(), ..one.clone() }; count]
        };
        let key = &one.credential;
        assert_eq!(connections(&many(TransportKind::Amqp, key, IDENTITIES_MAX)), 1);
        assert_eq!(connections(&many(TransportKind::Amqp, key, IDENTITIES_MAX + 1)), 2);
        assert_eq!(connections(&many(TransportKind::Amqp, &certificate, 5)), 5);
        assert_eq!(connections(&many(TransportKind::Mqtt, key, 5)), 5);
        let mixed = [many(TransportKind::Amqp, key, 7), many(TransportKind::AmqpWs, key, 7)].concat();
        assert_eq!(connections(&mixed), 2);
    }

    #[test]
    fn a_way_is_another_if_a_device_is_reached_by_another_protocol() {
        let by = |transport: TransportKind| ways([&Device { transport, ..device() }]);
        let kinds = [TransportKind::Mqtt, TransportKind::Amqp, TransportKind::Https];
        assert!(kinds.iter().all(|kind| kinds.iter().filter(|other| by(**other) == by(*kind)).count() == 1));
        assert_eq!(by(TransportKind::Amqp), by(TransportKind::AmqpWs));
        // One more by MQTT, and one less, locks nothing for anybody.
        assert_eq!(ways([]), by(TransportKind::Mqtt));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_crash_every_transport_waits_for_what_others_may_have_locked() {
        struct Nowhere;
        impl Dial for Nowhere {
            fn dial<'a>(&'a self, _: &'a str) -> crate::hub::dial::Dialing<'a> {
                Box::pin(async { Err(Trouble::Closed) })
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        std::fs::write(&main, "[hub]\nhost = \"h.example\"\n").unwrap();
        let hub = config::load(&main, []).unwrap().config.hub;
        let access = Arc::new(crate::hub::account::Access { hub, trust: None });
        let dial: Arc<dyn Dial> = Arc::new(Nowhere);
        // A gateway that knows a device as it is reached by this, after a life that has ended so.
        let after = |transport, by_others, for_others| {
            let (pace, places) = (Arc::default(), Places::new(1));
            let transports = Arc::new(Transports::over(&dial, &pace, &places));
            let crash = Crash { begun: Instant::now(), by_others, for_others };
            let shared = Shared::new(transports, pace, places, Some(crash));
            (shared, Account::of(&Device { transport, ..device() }, &access))
        };
        let waited = |shared: &Shared, account: &Account| {
            let until = shared.locked_until(account, "d");
            until.map_or(0, |until| until.duration_since(Instant::now()).as_secs())
        };
        for (transport, by_others, for_others, waits, leaves) in [
            // Its next connection takes over what the one before held; the next daemon may reach it otherwise.
            (TransportKind::Mqtt, false, false, 0, Rest::ForOthers),
            (TransportKind::Amqp, false, false, 0, Rest::Nothing),
            (TransportKind::Https, false, false, 65, Rest::Doubtful),
            (TransportKind::Mqtt, true, false, 65, Rest::Locked),
            // A hub that has not heard of the end of a connection of MQTT's misses it after 90 s.
            (TransportKind::Amqp, true, false, 95, Rest::Locked),
            (TransportKind::Https, true, false, 95, Rest::Locked),
            // A stop in order that has left something of MQTT's only keeps nobody waiting who is reached as before.
            (TransportKind::Mqtt, false, true, 0, Rest::ForOthers),
            (TransportKind::Amqp, false, true, 0, Rest::Nothing),
            (TransportKind::Https, false, true, 0, Rest::Nothing),
            (TransportKind::Mqtt, true, true, 0, Rest::ForOthers),
            (TransportKind::Amqp, true, true, 95, Rest::ForOthers),
            (TransportKind::Https, true, true, 95, Rest::ForOthers),
        ] {
            let (shared, account) = after(transport, by_others, for_others);
            shared.begins_with(&account, "d");
            // Whoever stops before it has waited leaves that to the next daemon, though it has reached nothing.
            let found = (waited(&shared, &account), shared.rest());
            assert_eq!(found, (waits, leaves), "{transport}, {by_others}, {for_others}");
            tokio::time::advance(lock::until_noticed(account.access.hub.keepalive)).await;
            assert_eq!((shared.locked_until(&account, "d"), shared.rest()), (None, Rest::Nothing));
        }
        // One that was not configured may have been reached by MQTT before, which the digest does not tell.
        for (transport, waits) in [(TransportKind::Mqtt, 0), (TransportKind::Amqp, 95), (TransportKind::Https, 95)] {
            let (shared, account) = after(transport, false, false);
            shared.goes_on_with(&account, "d");
            assert_eq!(waited(&shared, &account), waits, "{transport}");
        }
    }
}
