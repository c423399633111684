//! The way to the hub, below every transport: TCP, a proxy, TLS, a WebSocket, each as a stream over the one before.
//!
//! Invariants
//! - A proxy that is configured is never gone round.
//! - TLS is made under the hub's name, or its gateway's, wherever the bytes go.

use std::time::Duration;

use tokio::time::timeout;

use super::account::{Access, Account};
use super::auth::tls;
use super::dial::Dial;
use super::trouble::Trouble;
use crate::config::Credential;
use crate::net::Stream;
use crate::proof::crash::{self, Point};

/// How long a TLS handshake may take, so that a hub that says nothing does not hold up the others for long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// A byte stream to the hub, on which the account's transport can begin.
///
/// # Errors
/// What kept it from being made.
pub async fn open(dial: &dyn Dial, account: &Account) -> Result<Box<dyn Stream>, Trouble> {
    let Access { hub, trust } = &*account.access;
    crash::point(Point::BeforeConnect);
    let tcp = dial.dial(hub.address(account.transport)).await?;
    let Some(trust) = trust else { return Ok(tcp) };
    let config = match &account.credential {
        Credential::Key(_) => trust.plain(),
        Credential::Certificate { cert_file, key_file, .. } => {
            trust.with_certificate(cert_file, key_file).map_err(Trouble::Credential)?
        }
    };
    let slow = |_| Trouble::Slow(HANDSHAKE_TIMEOUT.as_secs());
    let stream = timeout(HANDSHAKE_TIMEOUT, tls::handshake(config, hub.server_name(), tcp)).await.map_err(slow)??;
    Ok(Box::new(stream))
}
