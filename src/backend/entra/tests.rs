//! Tokens from a server that says what the test wants, and from a program that is called `az`.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const SECRET: &str = "s3cr3t~+/&=";

/// Answers one request, and tells it.
async fn server(status: &str, body: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !is_whole(&heard) {
            heard.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(heard).unwrap()
    });
    (url, heard)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

/// A port that nobody listens at.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn trust() -> Trust {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key.cert.pem()).unwrap();
    Trust::load(Some(file.path())).unwrap()
}

fn entra(variables: &[(&str, &str)]) -> Result<Entra, EntraError> {
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Entra::of(value, || Ok(trust()), None)
}

async fn of_application(status: &str, body: &str) -> (Result<Token, EntraError>, String) {
    let (url, heard) = server(status, body).await;
    let entra = entra(&[
        ("AZURE_TENANT_ID", "tenant/1"),
        ("AZURE_CLIENT_ID", "client-1"),
        ("AZURE_CLIENT_SECRET", SECRET),
        ("AZURE_AUTHORITY_HOST", &url),
    ]);
    let token = entra.unwrap().token().await;
    (token, heard.await.unwrap())
}

/// A folder with an `az` of this script.
fn az(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("az");
    // By another process: while a test beside this one starts a program, that holds whatever this one has open, and a
    // program that is open for writing can't be run.
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let written = std::process::Command::new("sh").arg("-c").arg(write).arg(program).arg(script).status().unwrap();
    assert!(written.success());
    folder
}

async fn of_az(folder: &Path) -> Result<Token, EntraError> {
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let nowhere = nowhere().await;
    entra(&[("PATH", &path), ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &nowhere)]).unwrap().token().await
}

#[tokio::test]
async fn an_application_shows_its_secret_and_its_token_is_renewed_after_two_thirds() {
    let (token, heard) =
        of_application("200 OK", r#"{"token_type":"Bearer","expires_in":3600,"access_token":"eyJ.a"}"#).await;
    let token = token.unwrap();
    assert_eq!((token.bearer(), token.expires_at - token.renew_at), ("eyJ.a", Duration::from_secs(1200)));
    assert!(!format!("{token:?}").contains("eyJ"));
    assert!(heard.starts_with("POST /tenant%2F1/oauth2/v2.0/token HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("content-type: application/x-www-form-urlencoded\r\n"), "{heard}");
    let form = "grant_type=client_credentials&client_id=client-1&client_secret=s3cr3t~%2B%2F%26%3D\
                &scope=https%3A%2F%2Fiothubs.azure.net%2F.default";
    assert!(heard.ends_with(&format!("\r\n\r\n{form}")), "{heard}");
}

#[tokio::test]
async fn each_no_of_entras_says_what_to_do_and_never_the_secret() {
    let invalid = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: 1"}"#;
    let echo = format!(r#"{{"error":"invalid_client","error_description":"not {SECRET}"}}"#);
    let refused = |error: &EntraError| matches!(error, EntraError::Refused(_));
    let unreachable = |error: &EntraError| matches!(error, EntraError::Unreachable(_));
    type Kind<'a> = &'a dyn Fn(&EntraError) -> bool;
    let cases: [(&str, &str, Kind, &[&str]); 7] = [
        ("401 No", invalid, &refused, &["AADSTS7000215: Invalid client secret provided.)", "AZURE_CLIENT_SECRET"]),
        ("400 No", &echo, &refused, &["client-1"]),
        ("503 No", "", &unreachable, &["HTTP 503", "try again"]),
        ("302 Found", "", &unreachable, &["something else answers", "HTTP 302"]),
        ("200 OK", "<html>Log in</html>", &unreachable, &["not JSON"]),
        ("200 OK", r#"{"access_token":"eyJ.a"}"#, &unreachable, &["how long"]),
        ("200 OK", r#"{"expires_in":3600}"#, &unreachable, &["no token"]),
    ];
    for (status, body, is_kind, parts) in cases {
        let error = of_application(status, body).await.0.unwrap_err();
        let text = error.to_string();
        assert!(is_kind(&error) && parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains(SECRET) && !text.contains("eyJ") && !text.contains("Trace"), "{text}");
    }
}

#[tokio::test]
async fn what_stands_in_the_environment_is_checked_before_anybody_is_asked() {
    let why = |variables: &[(&str, &str)]| match entra(variables) {
        Err(EntraError::Nobody(why)) => why,
        _ => panic!("it was taken"),
    };
    assert!(why(&[("AZURE_CLIENT_SECRET", SECRET)]).contains("AZURE_TENANT_ID"));
    assert!(why(&[("AZURE_CLIENT_SECRET", SECRET), ("AZURE_TENANT_ID", "t")]).contains("AZURE_CLIENT_ID"));
    let open = why(&[("AZURE_CLIENT_SECRET", SECRET), ("AZURE_AUTHORITY_HOST", "http://login.example")]);
    assert!(open.contains("TLS") && !open.contains(SECRET), "{open}");
    assert!(why(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "a b")]).starts_with("AZURE_POD_IDENTITY_AUTHORITY_HOST "));
}

#[tokio::test]
async fn an_authority_that_cannot_be_reached_or_believed_is_told_apart() {
    let variables = [
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_CLIENT_SECRET", SECRET),
        ("AZURE_AUTHORITY_HOST", ""),
    ];
    let error = |url: String| async move {
        let mut variables = variables;
        variables[3].1 = &url;
        entra(&variables).unwrap().token().await.unwrap_err().to_string()
    };
    let gone = error(nowhere().await).await;
    assert!(gone.contains("no token from 127.0.0.1: Connection refused"), "{gone}");
    // It speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (plain, _stream) = tokio::join!(error(url), answers);
    assert!(plain.contains("TLS failed"), "{plain}");
}

#[tokio::test]
async fn a_machine_gives_the_token_of_its_identity() {
    let (url, heard) = server("200 OK", r#"{"access_token":"eyJ.m","expires_in":"86400","resource":"x"}"#).await;
    let entra = entra(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &url), ("AZURE_CLIENT_ID", "c&1")]).unwrap();
    let token = entra.token().await.unwrap();
    assert_eq!((token.bearer(), token.expires_at - token.renew_at), ("eyJ.m", Duration::from_secs(8 * 3600)));
    let heard = heard.await.unwrap();
    let target = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fiothubs.azure.net&client_id=c%261";
    assert!(heard.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{heard}");
    assert!(heard.contains("metadata: true\r\n"), "{heard}");
}

#[tokio::test]
async fn a_machine_that_throttles_or_lacks_the_identity_that_is_meant_does_not_become_somebody_else() {
    let folder = az("echo '{\"accessToken\":\"eyJ.z\"}'");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    for (status, client, part) in [("429 No", "", "HTTP 429"), ("400 No", "c", "AZURE_CLIENT_ID")] {
        let (url, _heard) =
            server(status, r#"{"error":"invalid_request","error_description":"Identity not found"}"#).await;
        let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*url), ("AZURE_CLIENT_ID", client), ("PATH", &path)];
        let error = entra(&variables).unwrap().token().await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // Without one that is meant, whoever is logged in is asked.
    let (url, _heard) = server("400 No", "{}").await;
    let token = entra(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &url), ("PATH", &path)]).unwrap().token().await;
    assert_eq!(token.unwrap().bearer(), "eyJ.z");
}

#[tokio::test]
async fn whoever_is_logged_in_to_az_gives_a_token() {
    let folder =
        az(r#"[ "$*" = "account get-access-token --resource https://iothubs.azure.net --output json" ] || exit 9
echo '{"accessToken": "eyJ.z", "expiresOn": "2026-01-01 00:00:00.000000", "tokenType": "Bearer"}'"#);
    let token = of_az(folder.path()).await.unwrap();
    assert_eq!((token.bearer(), token.expires_at - token.renew_at), ("eyJ.z", Duration::from_secs(100)));

    let folder = az("echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1");
    let error = of_az(folder.path()).await.unwrap_err();
    assert!(matches!(&error, EntraError::Refused(why) if why.contains("az login")), "{error}");

    let folder = az("exit 0");
    assert!(of_az(folder.path()).await.unwrap_err().to_string().contains("not JSON"));
}

#[tokio::test]
async fn an_az_that_says_much_or_leaves_somebody_behind_is_not_waited_for() {
    // More than a pipe holds, and more than is kept.
    let much = "head -c 300000 /dev/zero | tr '\\0' w";
    let folder = az(&format!("{much} >&2\necho '{{\"accessToken\": \"eyJ.z\"}}'"));
    assert_eq!(of_az(folder.path()).await.unwrap().bearer(), "eyJ.z");
    let folder = az(&format!("{much}\nexit 0"));
    assert!(of_az(folder.path()).await.unwrap_err().to_string().contains("not JSON"));
    // It holds both pipes for longer than `az` may take.
    let folder = az("sleep 40 &\necho '{\"accessToken\": \"eyJ.z\"}'");
    assert_eq!(of_az(folder.path()).await.unwrap().bearer(), "eyJ.z");
}

#[tokio::test]
async fn where_nobody_is_all_that_was_tried_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = nowhere().await;
    let path = folder.path().display().to_string();
    let variables = [("PATH", &*path), ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*nowhere)];
    let error = entra(&variables).unwrap().token().await.unwrap_err();
    let EntraError::Nobody(why) = &error else { panic!("{error}") };
    for part in ["AZURE_CLIENT_SECRET is not set", "no managed identity answers at 127.0.0.1", "there is no `az`"] {
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn trust_anchors_are_read_only_where_tls_is_used() {
    let none = || Err(Complaint::new("there are none", "set SSL_CERT_FILE"));
    let of = |variables: &[(&str, &str)]| {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
        Entra::of(value, none, None).map(drop).map_err(|why| why.to_string())
    };
    assert_eq!(of(&[]), Ok(()), "the machine's metadata is asked without TLS");
    assert_eq!(of(&[("AZURE_CLIENT_ID", "c")]), Ok(()));
    let secret = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s")];
    assert!(of(&secret).is_err_and(|why| why.contains("SSL_CERT_FILE")));
}
