//! Tokens of Microsoft Entra through a proxy: what asks for them goes where it is told to go, and nowhere else. Before
//! any guarantee: a secret is said to Entra alone.

use std::io::{Read, Write};
use std::sync::Arc;

use fieldbridge::backend::entra::{Entra, EntraError, Token};
use fieldbridge::certificate::Trust;
use fieldbridge::config::Proxy;
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

use crate::support::tls::{authority, Server};

const LOGIN: &str = "login.example";
const SECRET: &str = "hush-hush";
const TOKEN: &str = r#"{"token_type":"Bearer","expires_in":3600,"access_token":"eyJ.p"}"#;

/// Reads a request whose body, if it has one, says its length.
pub fn request(stream: &mut impl Read) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    let is_whole = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        (body.len() >= length.unwrap_or(0)).then_some(())
    };
    while is_whole(&text).is_none() {
        stream.read_exact(&mut byte).expect("a whole request");
        text.push(char::from(byte[0]));
    }
    text
}

/// A proxy that gives this answer; where that lets through, what is behind it is Entra, and gives a token.
fn proxy(answer: &'static str) -> (Server, Trust) {
    let (ca, key) = (authority("of Entra"), KeyPair::generate().expect("a key"));
    let certificate = CertificateParams::new([LOGIN.to_owned()]).expect("a name").signed_by(&key, &ca).expect("it");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("ca.pem"), ca.pem()).expect("it can be written");
    let trust = Trust::load(Some(&folder.path().join("ca.pem"))).expect("it can be read");
    let config = ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions are there")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("the key fits");
    let config = Arc::new(config);
    let server = Server::start(move |mut stream, heard| {
        let asked = request(&mut stream);
        heard.lock().expect("nothing panics with it").extend(asked.bytes());
        stream.write_all(answer.as_bytes()).expect("it is listened to");
        if !answer.starts_with("HTTP/1.1 200") {
            return;
        }
        let mut tls = ServerConnection::new(config.clone()).expect("a connection");
        let mut tls = Stream::new(&mut tls, &mut stream);
        let asked = request(&mut tls);
        heard.lock().expect("nothing panics with it").extend(asked.bytes());
        let length = TOKEN.len();
        write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{TOKEN}").expect("it is listened to");
        tls.flush().expect("it is listened to");
    });
    (server, trust)
}

async fn asked(variables: &[(&str, &str)], trust: Trust, proxy: &Server) -> Result<Token, EntraError> {
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let proxy = Proxy { address: proxy.address.clone(), credentials: Some("user:open-sesame".into()) };
    Entra::of(value, || Ok(trust), Some(proxy)).expect("the variables are right").token().await
}

const APPLICATION: [(&str, &str); 4] = [
    ("AZURE_TENANT_ID", "t"),
    ("AZURE_CLIENT_ID", "c"),
    ("AZURE_CLIENT_SECRET", SECRET),
    ("AZURE_AUTHORITY_HOST", "https://login.example"),
];

#[tokio::test]
async fn an_applications_secret_goes_through_the_proxy_and_only_entra_reads_it() {
    let (proxy, trust) = proxy("HTTP/1.1 200 Connection established\r\n\r\n");
    let token = asked(&APPLICATION, trust, &proxy).await.unwrap();
    assert_eq!(token.bearer(), "eyJ.p");
    let heard = String::from_utf8(proxy.heard()).unwrap();
    let (to_proxy, to_entra) = heard.split_once("\r\n\r\n").unwrap();
    assert!(to_proxy.starts_with("CONNECT login.example:443 HTTP/1.1\r\n"), "{heard}");
    assert!(to_proxy.contains("Proxy-Authorization: Basic ") && !to_proxy.contains(SECRET), "{heard}");
    assert!(to_entra.starts_with("POST /t/oauth2/v2.0/token HTTP/1.1\r\n"), "{heard}");
    assert!(to_entra.contains(SECRET) && !to_entra.contains("Proxy-Authorization"), "{heard}");
}

#[tokio::test]
async fn what_a_proxy_refuses_is_told_as_that_and_it_is_not_gone_round() {
    for (answer, told) in [
        ("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", "`--proxy-credentials-file`"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "allow CONNECT to login.example:443"),
        ("SSH-2.0\r\n", "check `--proxy`"),
    ] {
        let (proxy, trust) = proxy(answer);
        let error = asked(&APPLICATION, trust, &proxy).await.unwrap_err();
        let EntraError::Unreachable(why) = &error else { panic!("{error:?}") };
        assert!(why.starts_with("no token from login.example: ") && why.contains(told), "{why}");
        assert!(!why.contains(SECRET) && !why.contains("sesame"), "{why}");
    }
}

#[tokio::test]
async fn this_machine_and_its_own_link_are_not_asked_through_the_proxy() {
    let (proxy, trust) = proxy("HTTP/1.1 200 Connection established\r\n\r\n");
    // What answers in the place of the machine's metadata, and of an authority on this machine.
    let here = Server::start(|mut stream, heard| {
        let asked = request(&mut stream);
        heard.lock().expect("nothing panics with it").extend(asked.bytes());
        let length = TOKEN.len();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{TOKEN}");
    });
    let url = format!("http://{}", here.address);
    assert!(asked(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &url)], trust.clone(), &proxy).await.is_ok());
    let mut application = APPLICATION;
    application[3].1 = &url;
    assert!(asked(&application, trust, &proxy).await.is_ok());
    let heard = String::from_utf8(here.heard()).unwrap();
    assert!(heard.starts_with("GET /metadata/identity/") && heard.contains("POST /t/oauth2/"), "{heard}");
    assert!(proxy.heard().is_empty());
}
