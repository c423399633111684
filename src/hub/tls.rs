//! TLS towards the hub: trust anchors, client certificates, the handshake.
//!
//! IoT Hub speaks TLS 1.2 on its classic host name, so 1.2 and 1.3 are offered ("TLS support in IoT Hub", Microsoft).

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{crypto, ClientConfig, Error as TlsError, InconsistentKeys, RootCertStore};
use tokio_rustls::TlsConnector;

use super::trouble::Trouble;
use crate::net::Stream;

/// What all identities share: the trust anchors, and the configuration of those without a certificate of their own.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    plain: Arc<ClientConfig>,
}

impl Trust {
    /// Reads the trust anchors: of a file, or the system's.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the file or the system's store.
    pub fn load(ca_file: Option<&Path>) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| {
                        format!("{}: a certificate can't be a trust anchor: {error}", path.display())
                    })?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(
                        "the system has no CA certificates; install the package ca-certificates, or set `hub.ca_file`"
                            .into(),
                    );
                }
            }
        }
        let roots = Arc::new(roots);
        let plain = builder(&roots)?.with_no_client_auth();
        Ok(Trust { roots, plain: Arc::new(plain) })
    }

    /// The configuration of an identity with a SAS token.
    pub fn plain(&self) -> Arc<ClientConfig> {
        self.plain.clone()
    }

    /// The configuration of an identity with a certificate. The files are read each time, so a renewed certificate is
    /// taken up.
    ///
    /// # Errors
    /// [`Trouble::Credential`] naming the file.
    pub fn with_certificate(&self, cert_file: &Path, key_file: &Path) -> Result<Arc<ClientConfig>, Trouble> {
        let load = || {
            let chain = certificates(cert_file)?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| format!("{}: no private key can be read: {error}", key_file.display()))?;
            let key = crypto::ring::sign::any_supported_type(&key)
                .map_err(|error| format!("{}: this kind of private key is not known: {error}", key_file.display()))?;
            let pair = CertifiedKey::new(chain, key);
            // Whether the two fit can't be told of every certificate, of version 1 for one. The hub has the last word.
            if let Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) = pair.keys_match() {
                return Err(format!("{} is not the key of {}", key_file.display(), cert_file.display()));
            }
            Ok(builder(&self.roots)?.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))))
        };
        load().map(Arc::new).map_err(Trouble::Credential)
    }
}

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
        .map_err(|_| Trouble::Tls(format!("{host:?} is not a host name; check `hub.host`")))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(|error| Trouble::from_tls(&error, host))
}

fn builder(
    roots: &Arc<RootCertStore>,
) -> Result<tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert>, String> {
    Ok(ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots.clone()))
}

/// The certificates that the server showed, its own first, as DER.
pub fn shown(stream: &TlsStream<Box<dyn Stream>>) -> Vec<Vec<u8>> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.iter().map(|certificate| certificate.to_vec()).collect()
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// A sentence that names the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: no certificate can be read: {error}", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unreadable(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        return Err(unreadable(&"it holds none"));
    }
    Ok(found)
}
