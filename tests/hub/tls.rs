//! What TLS protects from, against servers that are wrong in one thing each: nothing of MQTT, and so no token, is
//! said to a server that is not the hub (before G1: what is received is the hub's). tests/hub/identity.rs has the ways
//! that go right, and more that don't.

use std::io::{Read as _, Write as _};

use crate::support::slave::Slave;
use crate::support::tls::{authority, server, Server};
use crate::support::{eventually, pump, Daemon, Site};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};

/// A site whose hub such a server is to be, for a daemon that trusts an authority.
fn site(server: &Server, trusted: &str) -> (Site, Daemon) {
    let slave = Slave::new();
    let site = server.site(trusted, &pump(slave.address(), "after-execution", ""));
    let daemon = site.start();
    (site, daemon)
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
        let (site, _daemon) = site(&server, &ca.pem());
        site.wait_for_last_error(told);
        assert!(server.heard().is_empty(), "something was said to a server whose certificate is {what}");
    }
    // The same with nothing wrong: a CONNECT comes through.
    let key = KeyPair::generate().expect("a key");
    let certificate = server(|_| {}).signed_by(&key, &ca).expect("a certificate");
    let server = Server::with(&[&certificate], &key);
    let (_site, _daemon) = site(&server, &ca.pem());
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
        let (site, _daemon) = site(&server, &ca.pem());
        site.wait_for_last_error(told);
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
        let (site, _daemon) = site(&server, &authority("an authority").pem());
        site.wait_for_last_error("TLS failed");
        let heard = eventually("a last word", || Some(server.heard()).filter(|heard| !heard.is_empty()));
        // Exit alerts (level 2), and nothing else, however often it was tried.
        assert!(heard.chunks(3).all(|alert| alert[..2] == [ALERT, 2]), "{heard:?}");
    }
}
