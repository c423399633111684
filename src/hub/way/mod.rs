//! The way to the hub, below every transport: TCP, a proxy, TLS, a WebSocket, each as a stream over the one before.
//!
//! Invariants
//! - A proxy that is configured is never gone round.
//! - TLS is made under the hub's name, or its gateway's, wherever the bytes go.
//! - Each step is bounded in time.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod proxy;
#[cfg(feature = "websocket")]
mod websocket;

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::account::{Access, Account};
use super::auth::tls;
use super::dial::Dial;
use super::trouble::{ProxyTrouble, Trouble};
use crate::complaint::Complaint;
use crate::config::{Credential, Hub, Proxy, TransportKind};
use crate::net::Stream;
use crate::proof::crash::{self, Point};

/// How long a TLS handshake may take, so that a hub that says nothing does not hold up the others for long; and
/// likewise a proxy's answer, and a WebSocket's.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// A byte stream to the hub, on which the account's transport can begin.
///
/// # Errors
/// What kept it from being made.
pub async fn open(dial: &dyn Dial, account: &Account) -> Result<Box<dyn Stream>, Trouble> {
    let Access { hub, trust } = &*account.access;
    crash::point(Point::BeforeConnect);
    let tcp = connect(dial, hub, account.transport).await?;
    let Some(trust) = trust else { return websocket(tcp, account).await };
    let config = match &account.credential {
        Credential::Key(_) => trust.plain(),
        Credential::Certificate { cert_file, key_file, .. } => {
            trust.with_certificate(cert_file, key_file).map_err(Trouble::Credential)?
        }
    };
    let secured = within_step(tls::handshake(config, hub.server_name(), tcp)).await;
    let stream = secured.map_err(|trouble| through(hub, trouble))?;
    websocket(Box::new(stream), account).await
}

/// TCP to the hub, or through the proxy.
///
/// # Errors
/// What kept it from being made.
pub async fn connect(dial: &dyn Dial, hub: &Hub, transport: TransportKind) -> Result<Box<dyn Stream>, Trouble> {
    connect_through(dial, hub.proxy.as_ref(), hub.address(transport)).await
}

/// TCP to `HOST:PORT`, or through the proxy.
///
/// # Errors
/// What kept it from being made.
pub async fn connect_through(
    dial: &dyn Dial,
    proxy: Option<&Proxy>,
    address: &str,
) -> Result<Box<dyn Stream>, Trouble> {
    let Some(proxy) = proxy else { return dial.dial(address).await };
    let stream = proxy::dial(dial, proxy).await?;
    let tunnelled = timeout(STEP_TIMEOUT, proxy::tunnel(stream, proxy, address)).await;
    let slow = |_| ProxyTrouble::Slow { proxy: proxy.address.clone(), seconds: STEP_TIMEOUT.as_secs() };
    tunnelled.map_err(slow).and_then(|done| done).map_err(Trouble::Proxy)
}

/// What is said of a step that failed beyond the proxy, if there is one: it may be why.
pub fn through(hub: &Hub, trouble: Trouble) -> Trouble {
    match &hub.proxy {
        Some(proxy) => beyond(proxy.address.clone(), trouble),
        None => trouble,
    }
}

fn beyond(proxy: String, trouble: Trouble) -> Trouble {
    let intercepted = |why: Complaint| {
        let what = format!("{} (through the proxy {proxy}, which may intercept it)", why.what);
        Complaint { what, ..why }
    };
    match trouble {
        Trouble::Tls(why) => Trouble::Tls(intercepted(why)),
        Trouble::CertificateRefused(why) => Trouble::CertificateRefused(intercepted(why)),
        Trouble::Slow(_) | Trouble::Broken(_) | Trouble::WebSocket(_) => {
            Trouble::Proxy(ProxyTrouble::Through { proxy, what: trouble.complaint() })
        }
        other => other,
    }
}

/// The WebSocket that the transport goes through, if it goes through one.
///
/// # Errors
/// What answers is no hub's WebSocket.
#[cfg(feature = "websocket")]
pub async fn websocket(stream: Box<dyn Stream>, account: &Account) -> Result<Box<dyn Stream>, Trouble> {
    let protocol = match account.transport {
        TransportKind::MqttWs => "mqtt",
        TransportKind::AmqpWs => "AMQPWSB10",
        TransportKind::Mqtt | TransportKind::Amqp | TransportKind::Https => return Ok(stream),
    };
    let has_certificate = matches!(account.credential, Credential::Certificate { .. });
    let host = account.access.hub.server_name();
    let opened = within_step(websocket::open(stream, host, has_certificate, protocol)).await;
    opened.map_err(|trouble| through(&account.access.hub, trouble))
}

/// The stream: in this program no transport goes through a WebSocket.
///
/// # Errors
/// None.
#[cfg(not(feature = "websocket"))]
pub async fn websocket(stream: Box<dyn Stream>, _: &Account) -> Result<Box<dyn Stream>, Trouble> {
    Ok(stream)
}

async fn within_step<T>(step: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout(STEP_TIMEOUT, step).await.unwrap_or(Err(Trouble::Slow(STEP_TIMEOUT.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_a_proxy_a_trouble_stays_what_it_is_and_names_the_proxy() {
        let no = || Complaint::new("no", "mend it");
        let seen = |trouble| beyond("proxy:3128".into(), trouble);
        assert!(matches!(seen(Trouble::Tls(no())), Trouble::Tls(why) if why.what.contains("proxy:3128")));
        let refused = seen(Trouble::CertificateRefused(no()));
        assert!(matches!(refused, Trouble::CertificateRefused(why) if why.what.contains("proxy:3128")));
        assert!(matches!(seen(Trouble::Slow(20)), Trouble::Proxy(ProxyTrouble::Through { .. })));
        assert_eq!(seen(Trouble::Refused(5)), Trouble::Refused(5));
    }

    #[cfg(feature = "websocket")]
    #[tokio::test]
    async fn behind_a_gateway_a_websocket_is_asked_of_the_gateway() {
        use std::sync::Arc;

        use tokio::io::{duplex, AsyncReadExt as _};

        use crate::config::{self, Settle};

        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        for (lines, named) in [("", "localhost"), ("gateway = \"edge.plant\"\n", "edge.plant")] {
            let text = format!("[hub]\nhost = \"localhost\"\naddress = \"localhost:1\"\ntls = false\n{lines}");
            std::fs::write(&main, text).unwrap();
            let hub = config::load(&main, []).unwrap().config.hub;
            for transport in [TransportKind::MqttWs, TransportKind::AmqpWs] {
                let account = Account {
                    access: Arc::new(Access { hub: hub.clone(), trust: None }),
                    transport,
                    credential: Credential::Key(Vec::new()),
                    secondary: None,
                    settle: Settle::AfterExecution,
                    form: Arc::default(),
                    desired: Arc::default(),
                };
                let (near, mut far) = duplex(4096);
                let asked = async {
                    let mut head = vec![0; 4096];
                    let length = far.read(&mut head).await.unwrap();
                    drop(far);
                    String::from_utf8_lossy(&head[..length]).into_owned()
                };
                let (opened, head) = tokio::join!(websocket(Box::new(near), &account), asked);
                assert!(opened.is_err() && head.contains(&format!("\r\nHost: {named}\r\n")), "{head}");
            }
        }
    }
}
