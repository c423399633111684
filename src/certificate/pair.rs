//! What TLS stands on: trust anchors, and certificates with their keys.
//!
//! IoT Hub speaks TLS 1.2 on its classic host name, so 1.2 and 1.3 are offered ("TLS support in IoT Hub", Microsoft).

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, ServerName,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio_rustls::rustls::{crypto, ClientConfig, RootCertStore};

use super::parts::Parts;
use super::pem::{self, Block};
use crate::complaint::Complaint;

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
    /// What is wrong with the file or the system's store.
    pub fn load(ca_file: Option<&Path>) -> Result<Trust, Complaint> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                for (line, certificate) in certificates(path)? {
                    roots.add(certificate).map_err(|error| {
                        let what = format!("the certificate in line {line} can't be a trust anchor: {error}");
                        Complaint::new(what, "copy it again, or take it out").of(path.display())
                    })?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(Complaint::new(
                        "the system has no CA certificates",
                        "install the package ca-certificates, or set `hub.ca_file`",
                    ));
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
    /// What is wrong with which file.
    pub fn with_certificate(&self, cert_file: &Path, key_file: &Path) -> Result<Arc<ClientConfig>, Complaint> {
        let pair = pair(cert_file, key_file).map_err(|(Misfit::Certificate(why) | Misfit::Key(why))| why)?;
        Ok(Arc::new(builder(&self.roots)?.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))))
    }
}

/// Why a certificate and a key are no pair that can be used, which names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It lies in the certificate's file.
    #[error("{0}")]
    Certificate(Complaint),
    /// It lies in the key's file.
    #[error("{0}")]
    Key(Complaint),
}

/// Whether a certificate and a key are a pair that the handshake can be made with.
///
/// # Errors
/// Why not.
pub fn check_pair(cert_file: &Path, key_file: &Path) -> Result<Remarks, Misfit> {
    let pair = pair(cert_file, key_file)?;
    let parts: Vec<Parts> = pair.cert.iter().filter_map(|der| Parts::of(der).ok()).collect();
    let is_chained = parts.windows(2).all(|two| two[0].issuer == two[1].subject);
    Ok(Remarks { is_chained })
}

/// Whether a file holds a private key to sign with.
///
/// # Errors
/// What is wrong with it.
pub fn check_key(path: &Path) -> Result<(), Complaint> {
    signing_key(path).map(drop).map_err(|why| why.of(path.display()))
}

/// What is to be said of a pair that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remarks {
    /// Each certificate of the chain is signed by the next (RFC 5246, 7.4.2).
    pub is_chained: bool,
}

fn pair(cert_file: &Path, key_file: &Path) -> Result<CertifiedKey, Misfit> {
    let chain = certificates(cert_file).map_err(Misfit::Certificate)?;
    let key = signing_key(key_file).map_err(|why| Misfit::Key(why.of(key_file.display())))?;
    let fits = |der: &[u8]| -> Result<bool, String> {
        let parts = Parts::of(der)?;
        // A key of a kind that tells no public half leaves the last word to the hub.
        Ok(key.public_key().is_none_or(|public| public.as_ref() == parts.public_key))
    };
    let file = cert_file.display();
    let mut own = None;
    for (at, (line, der)) in chain.iter().enumerate() {
        let is_own = fits(der).map_err(|error| {
            let what = format!("what stands in line {line} is not a certificate ({error})");
            Misfit::Certificate(Complaint::new(what, "copy the file again").of(&file))
        })?;
        own = own.or(is_own.then_some(at));
    }
    match own {
        Some(0) => Ok(CertifiedKey::new(chain.into_iter().map(|(_, der)| der).collect(), key)),
        Some(at) => {
            let (key, line) = (key_file.display(), chain[at].0);
            let what =
                format!("the device's own certificate, which {key} is the key of, stands in line {line} behind others");
            Err(Misfit::Certificate(Complaint::new(what, "put it first, then each one's issuer").of(&file)))
        }
        None => {
            let what = format!("{} is not the key of {file}", key_file.display());
            Err(Misfit::Key(Complaint::new(what, "name the files of one pair")))
        }
    }
}

/// The first private key of a file, if it is one to sign with.
fn signing_key(path: &Path) -> Result<Arc<dyn SigningKey>, Complaint> {
    let blocks = pem::read(path).and_then(|bytes| pem::blocks(&bytes))?;
    let is_key = |block: &&Block| block.label.ends_with("PRIVATE KEY");
    let Some(block) = blocks.iter().find(is_key) else {
        return Err(match blocks.iter().any(|block| block.label == "CERTIFICATE") {
            true => Complaint::new("holds a certificate, and no private key", "name the private key here"),
            false => Complaint::new("holds no private key", "name the file that has one"),
        });
    };
    if block.is_encrypted || block.label == "ENCRYPTED PRIVATE KEY" {
        return Err(Complaint::new(
            "the private key is encrypted, and nobody is there to type its pass phrase",
            "decrypt it with `openssl pkey`",
        ));
    }
    let key = match block.label.as_str() {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(block.der.clone())),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(block.der.clone())),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(block.der.clone())),
        _ => {
            return Err(Complaint::new(
                "holds a private key of a form that TLS does not use",
                "make it anew, by `openssl pkey`",
            ));
        }
    };
    crypto::ring::sign::any_supported_type(&key).map_err(|_| {
        Complaint::new(
            "holds a private key of a kind or size that can't be used",
            "take an elliptic curve P-256 or P-384, RSA of 2048 to 4096 bits, or Ed25519, and have its certificate made \
             anew",
        )
    })
}

/// Whether a server can be known by this name.
pub fn is_server_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

fn builder(
    roots: &Arc<RootCertStore>,
) -> Result<tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert>, Complaint>
{
    Ok(ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Complaint::bare(error.to_string()))?
        .with_root_certificates(roots.clone()))
}

/// The certificates of a PEM file, at least one, each with the line that it begins in.
///
/// # Errors
/// What is wrong with it, which names the file.
pub fn certificates(path: &Path) -> Result<Vec<(usize, CertificateDer<'static>)>, Complaint> {
    let told = |why: Complaint| why.of(path.display());
    let blocks = pem::read(path).and_then(|bytes| pem::blocks(&bytes)).map_err(told)?;
    let mut found = Vec::new();
    let mut has_key = false;
    for Block { label, der, line, .. } in blocks {
        match label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => found.push((line, CertificateDer::from(der))),
            "TRUSTED CERTIFICATE" => {
                return Err(told(Complaint::new(
                    format!("line {line} begins a certificate in OpenSSL's own form"),
                    "convert it with `openssl x509`",
                )));
            }
            _ => has_key |= label.ends_with("PRIVATE KEY"),
        }
    }
    match (found.is_empty(), has_key) {
        (false, _) => Ok(found),
        (true, true) => {
            Err(told(Complaint::new("holds a private key, and no certificate", "name the certificate here")))
        }
        (true, false) => Err(told(Complaint::new("holds no certificate", "name the file that has it"))),
    }
}
