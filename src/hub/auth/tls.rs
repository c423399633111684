//! TLS towards the hub: the handshake.
//!
//! IoT Hub speaks TLS 1.2 on its classic host name, so 1.2 and 1.3 are offered ("TLS support in IoT Hub", Microsoft).

use std::sync::Arc;

use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::TlsConnector;

use crate::complaint::Complaint;
use crate::hub::trouble::Trouble;
use crate::net::Stream;

/// Makes the handshake under the name of the hub, wherever the connection goes.
///
/// # Errors
/// [`Trouble::Tls`] with what to check.
pub async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    tcp: Box<dyn Stream>,
) -> Result<TlsStream<Box<dyn Stream>>, Trouble> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Trouble::Tls(Complaint::new(format!("{host:?} is not a host name"), "check `hub.host`")))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(|error| Trouble::from_tls(&error, host))
}

/// Makes the handshake with a server that is no hub.
///
/// # Errors
/// What TLS says, without what to do.
#[cfg(feature = "backend")]
pub async fn secure(
    config: Arc<ClientConfig>,
    host: &str,
    tcp: Box<dyn Stream>,
) -> Result<TlsStream<Box<dyn Stream>>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is not a host name"))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(|error| error.to_string())
}

/// The certificates that the server showed, its own first, as DER.
pub fn shown(stream: &TlsStream<Box<dyn Stream>>) -> Vec<Vec<u8>> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.iter().map(|certificate| certificate.to_vec()).collect()
}
