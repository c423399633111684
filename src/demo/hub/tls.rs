//! The simulator's certificates: an authority of its own, the server's certificate, certificates for devices.
//!
//! The server asks every client for a certificate and takes any, as the hub must for devices that are registered by
//! thumbprint; whether it is the device's own is decided at CONNECT. A chain to an uploaded authority is not modelled:
//! on the wire it looks the same.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use ring::digest;
use tokio_rustls::rustls;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::time::Timestamp;

/// A certificate for a device, with its key.
#[derive(Debug, Clone)]
pub struct ClientCert {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
    /// SHA-1 of the certificate, upper case hexadecimal: what the hub's registry calls the thumbprint.
    pub thumbprint: String,
}

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> io::Result<Self> {
        let mut params = params("fieldbridge hub simulator CA", vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        Ok(Authority(CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
    ) -> io::Result<(rcgen::Certificate, KeyPair)> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = params.signed_by(&key, &self.0).map_err(io::Error::other)?;
        Ok((cert, key))
    }

    pub fn client(&self, device: &str) -> io::Result<ClientCert> {
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        let (cert, key) = self.issue(params(device, vec![])?, purpose)?;
        let [thumbprint, _] = thumbprints(cert.der());
        Ok(ClientCert { cert_pem: cert.pem(), key_pem: key.serialize_pem(), thumbprint })
    }

    /// For the hub's name, and for the addresses under which tests reach it.
    pub fn server(&self, host: &str, address: IpAddr, tls13: bool) -> io::Result<Arc<ServerConfig>> {
        let mut names = vec![host.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        if !names.contains(&address.to_string()) {
            names.push(address.to_string());
        }
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        let (cert, key) = self.issue(params(host, names)?, purpose)?;
        let versions: &[_] = match tls13 {
            true => &[&rustls::version::TLS12, &rustls::version::TLS13],
            false => &[&rustls::version::TLS12],
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(AnyClient))
            .with_single_cert(vec![cert.der().clone()], key)
            .map_err(io::Error::other)?;
        Ok(Arc::new(config))
    }
}

fn params(name: &str, alternative_names: Vec<String>) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(alternative_names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, name);
    // As short a life as real ones have: a client whose clock is years off is to notice.
    let year: i32 = Timestamp::now().to_string()[..4].parse().map_err(io::Error::other)?;
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + 1, 12, 31);
    Ok(params)
}

/// SHA-1 and SHA-256 of a certificate; the registry takes either.
pub(super) fn thumbprints(cert: &[u8]) -> [String; 2] {
    [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256].map(|algorithm| {
        let hash = digest::digest(algorithm, cert);
        hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    })
}

/// Asks for a certificate, needs none, and takes any whose key the client holds.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
