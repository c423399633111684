//! What stands in the files that a configuration names: certificates, keys, connection strings, trust anchors. Whatever
//! can't be used is refused here, so that nothing that is called good ends in a refusal later.

use std::fs;
use std::path::Path;

use super::{lines, pems, Site, KEY};

/// The certificates of a whole system.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn certified(certificate: &str, key: &str) -> Site {
    let site = Site::good();
    site.write("keys/cert.pem", certificate);
    site.write("keys/cert.key", key);
    site.write(
        "fieldbridge.toml",
        super::GOOD.replacen(
            "key_file = \"keys/good.key\"",
            "cert_file = \"keys/cert.pem\"\ncert_key_file = \"keys/cert.key\"",
            1,
        ),
    );
    site
}

#[test]
fn a_certificate_and_a_key_that_can_begin_a_handshake_are_good() {
    let chain = [pems::LEAF, pems::AUTHORITY].concat();
    let both = [pems::OWN, pems::OWN_KEY].concat();
    let indent = |text: &str| text.lines().map(|line| format!("    {line}\r\n")).collect::<String>();
    for (certificate, key) in [
        (pems::OWN, pems::OWN_KEY.to_owned()),
        (&chain, pems::OWN_KEY.to_owned()),
        (&both, both.clone()),
        (&format!("\u{feff}{}", pems::OWN), format!("\u{feff}{}", pems::OWN_KEY)),
        (&indent(pems::OWN), indent(pems::OWN_KEY)),
    ] {
        assert_eq!(lines(&certified(certificate, &key).loaded().notes), "", "{certificate}");
    }
}

#[test]
fn a_certificate_and_a_key_that_can_begin_none_are_refused_with_the_file_and_the_way_out() {
    let [chain, behind] = [[pems::LEAF, pems::AUTHORITY], [pems::AUTHORITY, pems::LEAF]].map(|two| two.concat());
    let cut = &pems::OWN_KEY[..100];
    for (certificate, key, at, file, told) in [
        (pems::OWN, pems::OTHER_KEY, "cert_key_file", "cert.key", "is not the key of"),
        (&chain, pems::OTHER_KEY, "cert_key_file", "cert.key", "is not the key of"),
        (&behind, pems::OWN_KEY, "cert_file", "cert.pem", "put it first"),
        (pems::P521, pems::P521_KEY, "cert_key_file", "cert.key", "P-256 or P-384"),
        (pems::RSA_1024, pems::RSA_1024_KEY, "cert_key_file", "cert.key", "RSA of 2048"),
        (pems::OWN, cut, "cert_key_file", "cert.key", "cut short"),
        (pems::OWN, "", "cert_key_file", "cert.key", "is empty"),
        (pems::OWN, pems::OWN, "cert_key_file", "cert.key", "no private key"),
        (pems::OWN, KEY, "cert_key_file", "cert.key", "no PEM text"),
        (pems::OWN_KEY, pems::OWN_KEY, "cert_file", "cert.pem", "no certificate"),
        (&pems::OWN[..200], pems::OWN_KEY, "cert_file", "cert.pem", "cut short"),
        (&pems::OWN.replacen("MII", "AII", 1), pems::OWN_KEY, "cert_file", "cert.pem", "not a certificate"),
        (&format!("\"{}\"", pems::OWN), pems::OWN_KEY, "cert_file", "cert.pem", "a quote"),
        (
            pems::OWN,
            &pems::OWN_KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            "cert_key_file",
            "cert.key",
            "openssl pkey",
        ),
    ] {
        let problems = certified(certificate, key).problems();
        let [problem] = problems.as_slice() else { panic!("{told}: not one problem:\n{}", lines(&problems)) };
        assert_eq!(problem.key, format!("device.pump-7.{at}"), "{problem}");
        assert!(
            problem.complaint.to_string().contains(file) && problem.complaint.to_string().contains(told),
            "{told}: {problem}"
        );
        assert!(!problem.remedy().is_empty() && problem.place.is_some(), "{problem}");
        assert!(!problem.complaint.to_string().contains(&pems::OWN_KEY[60..80]), "{problem}");
    }
}

#[test]
fn a_chain_whose_links_are_out_of_order_is_told() {
    let chain = [pems::LEAF, pems::OWN, pems::AUTHORITY].concat();
    let notes = lines(&certified(&chain, pems::OWN_KEY).loaded().notes);
    assert!(notes.contains("cert.pem") && notes.contains("not each signed by the next"), "{notes}");
}

#[test]
fn trust_anchors_are_read_as_they_come() {
    let site = Site::good();
    site.write("conf.d/50-case.toml", "[hub]\nca_file = 'ca.pem'");
    let latin = [b"# Beh\xF6rde\n".as_slice(), pems::AUTHORITY.as_bytes(), b"# \xDCbrig\n"].concat();
    let both = format!("\u{feff}{}\n\u{feff}{}", pems::AUTHORITY, pems::OWN);
    let large = pems::AUTHORITY.repeat(200);
    assert!(large.len() > 100_000);
    for text in [pems::AUTHORITY.as_bytes(), &latin, both.as_bytes(), large.as_bytes()] {
        site.write("ca.pem", text);
        site.loaded();
    }
    if Path::new(BUNDLE).exists() {
        site.write("ca.pem", fs::read(BUNDLE).unwrap());
        site.loaded();
    }
}

#[test]
fn trust_anchors_that_no_start_would_take_are_refused() {
    let site = Site::good();
    site.write("conf.d/50-case.toml", "[hub]\nca_file = 'ca.pem'");
    let undecodable = pems::AUTHORITY.replacen("MII", "AII", 1);
    let second = [pems::OWN, &undecodable].concat();
    for (text, told) in [
        ("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "the certificate in line 1"),
        (&second, &format!("the certificate in line {}", pems::OWN.lines().count() + 1)),
        (&[pems::OWN, &pems::AUTHORITY[..100]].concat(), "cut short"),
        (&pems::AUTHORITY.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "openssl x509"),
        (pems::OWN_KEY, "no certificate"),
        ("", "is empty"),
    ] {
        site.write("ca.pem", text);
        let problems = site.problems();
        let [problem] = problems.as_slice() else { panic!("{told}: not one problem:\n{}", lines(&problems)) };
        assert_eq!(problem.key, "hub.ca_file");
        assert!(
            problem.complaint.to_string().contains("ca.pem: ") && problem.complaint.to_string().contains(told),
            "{told}: {problem}"
        );
        assert!(!problem.remedy().is_empty(), "{problem}");
    }
}

#[test]
fn a_file_that_holds_a_key_in_another_form_is_told_by_its_name() {
    let site = Site::good();
    for (text, told) in [
        (format!("\"{KEY}\""), "quotes"),
        (format!("'{KEY}'\n"), "quotes"),
        (format!("{{\"symmetricKey\": {{\"primaryKey\": \"{KEY}\"}}}}"), "JSON"),
        (format!("primaryKey={KEY}"), "a name and ="),
        (format!("\u{feff}{KEY}"), "BOM"),
        (KEY[..42].to_owned(), "cut short"),
        (format!("HostName=contoso.azure-devices.net;DeviceId=pump-7;SharedAccessKey={KEY}"), "connection_string_file"),
    ] {
        site.write("keys/good.key", &text);
        let problems = site.problems();
        assert_eq!(problems.len(), 3, "one for each device: {}", lines(&problems));
        for problem in &problems {
            assert!(
                problem.complaint.to_string().contains("keys/good.key: ")
                    && problem.complaint.to_string().contains(told),
                "{told}: {problem}"
            );
            assert!(!problem.remedy().is_empty() && !problem.complaint.to_string().contains(&KEY[..10]), "{problem}");
        }
    }
    // A whole number of fours remains.
    site.write("keys/good.key", &KEY[..40]);
    let notes = lines(&site.loaded().notes);
    assert!(notes.contains("a key of 30 bytes") && notes.contains("is it the whole key?"), "{notes}");
}

#[test]
fn what_stands_in_the_way_of_the_admin_socket_is_told() {
    let site = Site::good();
    site.write("taken", "");
    for (path, told) in
        [("taken", "is not a socket"), ("keys", "is not a socket"), ("taken/admin.sock", "is not a folder")]
    {
        site.write("conf.d/50-case.toml", format!("[admin]\nsocket = '{path}'"));
        let problems = lines(&site.problems());
        assert!(problems.contains("admin.socket: ") && problems.contains(told), "{problems}");
    }
}
