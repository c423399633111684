//! Whom an identity connects as, and to what: the part of the configuration that a connection is made with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::certificate::Trust;
use crate::command::Form;
use crate::config::{Credential, Device, Hub, Settle, TransportKind};

/// The hub as it is configured, with trust anchors unless it is reached without TLS.
pub struct Access {
    /// `[hub]`
    pub hub: Hub,
    /// Whom to believe that it is the hub.
    pub trust: Option<Trust>,
}

/// What an identity connects as, and to what.
#[derive(Clone)]
pub struct Account {
    /// The hub.
    pub access: Arc<Access>,
    /// How it is reached.
    pub transport: TransportKind,
    /// The proof of the identity.
    pub credential: Credential,
    /// The key to try when the hub refuses the first.
    pub secondary: Option<Vec<u8>>,
    /// When its messages are completed: a transport that asks for so many at a time goes by it.
    pub settle: Settle,
    /// How its messages are read. A change of it ends no connection: what comes from then on is read so.
    pub form: Arc<Form>,
    /// Its commands for desired properties, by the names of these.
    pub desired: Arc<BTreeMap<String, String>>,
}

impl Account {
    /// A device's.
    pub fn of(device: &Device, access: &Arc<Access>) -> Account {
        Account {
            access: access.clone(),
            transport: device.transport,
            credential: device.credential.clone(),
            secondary: device.secondary.clone(),
            settle: device.settle,
            form: device.form.clone(),
            desired: Arc::new(device.desired()),
        }
    }

    /// The same at the hub that the device was assigned to; `None`: to none yet.
    #[must_use]
    pub fn assigned(self, hub: Option<&str>) -> Account {
        let Access { hub: configured, trust } = &*self.access;
        let access = Access { hub: configured.assigned(hub.unwrap_or_default()), trust: trust.clone() };
        Account { access: Arc::new(access), ..self }
    }

    /// Whether it is known which hub it belongs to.
    pub fn has_hub(&self) -> bool {
        !self.access.hub.host.is_empty()
    }

    /// Whether the hub is reached for it as for `other`: a connection on which nobody has shown himself is as good for
    /// the one as for the other.
    pub fn reaches_as(&self, other: &Account) -> bool {
        let Hub {
            host,
            transport: _,
            addresses: _,
            gateway,
            proxy,
            ca_file,
            tls,
            keepalive,
            connect_rate: _,
            api_version,
            token_lifetime: _,
            poll_interval: _,
        } = &self.access.hub;
        let hub = &other.access.hub;
        (host, ca_file, gateway, proxy) == (&hub.host, &hub.ca_file, &hub.gateway, &hub.proxy)
            && self.transport == other.transport
            && self.access.hub.address(self.transport) == hub.address(other.transport)
            && (tls, keepalive, api_version) == (&hub.tls, &hub.keepalive, &hub.api_version)
    }

    /// Whether a connection that was made for `other` may stand.
    pub fn connects_as(&self, other: &Account) -> bool {
        let (hub, others) = (&self.access.hub, &other.access.hub);
        self.reaches_as(other)
            && hub.token_lifetime == others.token_lifetime
            // Only what the transport goes by.
            && (self.transport != TransportKind::Https || hub.poll_interval == others.poll_interval)
            && (self.settle == other.settle || matches!(self.transport, TransportKind::Mqtt | TransportKind::MqttWs))
            // What it listens for, and what it has to look at again.
            && (self.desired == other.desired || !self.transport.has_twin())
            && self.credential == other.credential
            && self.secondary == other.secondary
    }
}
