//! Whom an identity connects as, and to what: the part of the configuration that a connection is made with.

use std::sync::Arc;

use crate::certificate::Trust;
use crate::config::{Credential, Hub};

/// The hub as it is configured, with trust anchors unless it is reached without TLS.
pub struct Access {
    /// `[hub]`
    pub hub: Hub,
    /// Whom to believe that it is the hub.
    pub trust: Option<Trust>,
}

/// What an identity connects as, and to what.
pub struct Account {
    /// The hub.
    pub access: Arc<Access>,
    /// The proof of the identity.
    pub credential: Credential,
}

impl Account {
    /// Whether a connection that was made for `other` may stand.
    pub fn connects_as(&self, other: &Account) -> bool {
        let Hub { host, address, ca_file, tls, keepalive, connect_rate: _, api_version, token_lifetime } =
            &self.access.hub;
        let hub = &other.access.hub;
        (host, address, ca_file) == (&hub.host, &hub.address, &hub.ca_file)
            && (tls, keepalive, api_version, token_lifetime)
                == (&hub.tls, &hub.keepalive, &hub.api_version, &hub.token_lifetime)
            && self.credential == other.credential
    }
}
