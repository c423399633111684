//! Servers in the hub's place, each with a certificate of the test's own making.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::{WantsServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::{crypto, version, ConfigBuilder, RootCertStore, ServerConfig, ServerConnection};

use super::Site;

/// The name of the hub.
pub const HOST: &str = "hub.fieldbridge.test";

/// An authority of this name, with a key of its own.
pub fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).expect("no names are good names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A good server's certificate, but for what is changed.
pub fn server(change: impl Fn(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new([HOST.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, HOST);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    params
}

/// A listener that handles one connection after the other, and keeps what was said to it.
pub struct Server {
    pub address: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    pub fn start(mut handle: impl FnMut(std::net::TcpStream, &Mutex<Vec<u8>>) + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(super::PATIENCE)).expect("a timeout can be set");
                handle(stream, &keep);
            }
        });
        Server { address, heard }
    }

    /// With a certificate: what is heard is what came through TLS.
    pub fn with(chain: &[&rcgen::Certificate], key: &KeyPair) -> Server {
        let builder = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_protocol_versions(&[&version::TLS12, &version::TLS13])
            .expect("the versions are there")
            .with_no_client_auth();
        Server::of(builder, chain, key)
    }

    /// The same, but a client that shows a certificate must have it from this authority. TLS 1.2, in which it is told
    /// so before the handshake is over.
    pub fn that_knows_clients_of(
        authority: &rcgen::Certificate,
        chain: &[&rcgen::Certificate],
        key: &KeyPair,
    ) -> Server {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS12])
            .expect("the version is there")
            .with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"));
        Server::of(builder, chain, key)
    }

    fn of(
        builder: ConfigBuilder<ServerConfig, WantsServerCert>,
        chain: &[&rcgen::Certificate],
        key: &KeyPair,
    ) -> Server {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let chain = chain.iter().map(|certificate| certificate.der().clone()).collect();
        let config = Arc::new(builder.with_single_cert(chain, key).expect("the key fits"));
        Server::start(move |mut stream, heard| {
            let mut tls = ServerConnection::new(config.clone()).expect("a connection");
            let mut buffer = [0; 1024];
            while tls.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {
                let length = tls.reader().read(&mut buffer).unwrap_or(0);
                heard.lock().expect("nothing panics with it").extend(&buffer[..length]);
                if length > 0 {
                    return;
                }
            }
        })
    }

    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("nothing panics with it").clone()
    }

    /// A site whose hub it is to be, which trusts an authority.
    pub fn site(&self, trusted: &str, more: &str) -> Site {
        let hub = format!("host = \"{HOST}\"\naddress = \"{}\"\nca_file = \"ca.pem\"\n", self.address);
        let site = Site::with_hub(&hub, more);
        site.write("ca.pem", trusted);
        site
    }
}
