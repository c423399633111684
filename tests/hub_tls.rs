//! What TLS protects from, against servers that are wrong in one thing each: nothing of MQTT, and so no token, is
//! said to a server that is not the hub (before G1: what is received is the hub's). tests/identity.rs has the ways that
//! go right, and more that don't.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use support::slave::Slave;
use support::{eventually, pump, Daemon, Site};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{crypto, version, ServerConfig, ServerConnection};

const HOST: &str = "hub.fieldbridge.test";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).expect("no names are good names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A good server's certificate, but for what is changed.
fn server(change: impl Fn(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new([HOST.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, HOST);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    params
}

/// A listener that handles one connection after the other, and keeps what was said to it.
struct Server {
    address: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn start(mut handle: impl FnMut(std::net::TcpStream, &Mutex<Vec<u8>>) + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout can be set");
                handle(stream, &keep);
            }
        });
        Server { address, heard }
    }

    /// With a certificate: what is heard is what came through TLS.
    fn with(chain: &[&rcgen::Certificate], key: &KeyPair) -> Server {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_protocol_versions(&[&version::TLS12, &version::TLS13])
            .expect("the versions are there")
            .with_no_client_auth()
            .with_single_cert(chain.iter().map(|certificate| certificate.der().clone()).collect(), key)
            .expect("the key fits");
        let config = Arc::new(config);
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

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("nothing panics with it").clone()
    }

    /// A site whose hub it is to be, for a daemon that trusts an authority.
    fn site(&self, trusted: &str) -> (Site, Daemon) {
        let slave = Slave::new();
        let hub = format!("host = \"{HOST}\"\naddress = \"{}\"\nca_file = \"ca.pem\"\n", self.address);
        let site = Site::with_hub(&hub, &pump(slave.address(), "after-execution", ""));
        site.write("ca.pem", trusted);
        let daemon = site.start();
        (site, daemon)
    }
}

fn last_error(site: &Site, fragment: &str) {
    eventually(&format!("lastError says {fragment:?}"), || {
        let error = site.device_status("pump")["lastError"].as_str().unwrap_or_default().to_owned();
        error.contains(fragment).then_some(())
    });
}

#[test]
fn only_a_certificate_that_is_right_in_everything_is_told_who_connects() {
    type Change = fn(&mut CertificateParams);
    let table: [(&str, Change, &str); 5] = [
        ("expired", |params| params.not_after = rcgen::date_time_ymd(2026, 1, 1), "has expired"),
        ("not yet valid", |params| params.not_before = rcgen::date_time_ymd(2050, 1, 1), "not valid yet"),
        ("for clients", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], "is refused"),
        (
            "for another name",
            |params| {
                params.subject_alt_names = vec![rcgen::SanType::DnsName("hub.example".try_into().expect("a name"))]
            },
            "is not for hub.fieldbridge.test",
        ),
        // A name that stands only where people read it.
        ("for no name", |params| params.subject_alt_names.clear(), "is not for hub.fieldbridge.test"),
    ];
    let ca = authority("the authority that is trusted");
    for (what, change, told) in table {
        let key = KeyPair::generate().expect("a key");
        let certificate = server(change).signed_by(&key, &ca).expect("a certificate");
        let server = Server::with(&[&certificate], &key);
        let (site, _daemon) = server.site(&ca.pem());
        last_error(&site, told);
        assert!(server.heard().is_empty(), "something was said to a server whose certificate is {what}");
    }
    // The same with nothing wrong: a CONNECT comes through.
    let key = KeyPair::generate().expect("a key");
    let certificate = server(|_| {}).signed_by(&key, &ca).expect("a certificate");
    let server = Server::with(&[&certificate], &key);
    let (_site, _daemon) = server.site(&ca.pem());
    let heard = eventually("a CONNECT", || Some(server.heard()).filter(|heard| !heard.is_empty()));
    assert!(heard[0] == 0x10 && heard.windows(4).any(|word| word == b"MQTT"), "{heard:?}");
}

#[test]
fn a_certificate_that_nobody_trusted_has_signed_is_refused() {
    let (ca, key) = (authority("the authority that is trusted"), KeyPair::generate().expect("a key"));
    let self_signed = server(|_| {}).self_signed(&key).expect("a certificate");
    // The same name, and another key.
    let impostor = authority("the authority that is trusted");
    let foreign = server(|_| {}).signed_by(&key, &impostor).expect("a certificate");
    // Signed by a certificate of the right authority that is none itself.
    let (leaf_key, leaf) = (KeyPair::generate().expect("a key"), server(|_| {}));
    let leaf = CertifiedIssuer::signed_by(leaf, leaf_key, &ca).expect("a certificate");
    let below = server(|_| {}).signed_by(&key, &leaf).expect("a certificate");
    let unknown = "not signed by a trusted authority";
    for (chain, told) in [
        (&[&self_signed][..], unknown),
        (&[&foreign], unknown),
        (&[&below, leaf.as_ref()], "the hub's certificate is refused"),
    ] {
        let server = Server::with(chain, &key);
        let (site, _daemon) = server.site(&ca.pem());
        last_error(&site, told);
        assert!(server.heard().is_empty());
    }
}

/// Reads one TLS record: its type and content (RFC 8446, 5.1).
fn record(stream: &mut std::net::TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let mut content = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut content).ok()?;
    Some((head[0], content))
}

#[test]
fn a_server_that_offers_an_older_tls_is_refused() {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    for older in [[3, 2], [3, 1], [3, 0]] {
        let server = Server::start(move |mut stream, heard| {
            let Some((kind, hello)) = record(&mut stream) else { return };
            assert_eq!((kind, hello[0]), (HANDSHAKE, 1), "a ClientHello");
            // ServerHello: version, 32 random bytes, no session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression.
            let body = [&older[..], &[7; 32], &[0, 0xC0, 0x13, 0]].concat();
            let message = [&[2, 0, 0, body.len() as u8][..], &body].concat();
            let answer = [&[HANDSHAKE][..], &older, &[0, message.len() as u8], &message].concat();
            let _ = stream.write_all(&answer);
            while let Some((kind, content)) = record(&mut stream) {
                heard.lock().expect("nothing panics with it").extend([&[kind][..], &content].concat());
            }
        });
        let (site, _daemon) = server.site(&authority("an authority").pem());
        last_error(&site, "TLS failed");
        let heard = eventually("a last word", || Some(server.heard()).filter(|heard| !heard.is_empty()));
        // Fatal alerts (level 2), and nothing else, however often it was tried.
        assert!(heard.chunks(3).all(|alert| alert[..2] == [ALERT, 2]), "{heard:?}");
    }
}
