//! What must hold for any answer of Entra's, of the machine's metadata and of `az`, and for any name of a host.

use crate::net::http::{Answer, HeaderMap, HeaderValue};
use crate::proof::bytes::inserted;
use crate::time::Timestamp;

use super::endpoint::Endpoint;
use super::{az, percent_encoded, to_application, to_machine, Found, Token, LIFE_MAX};

/// A token, and a secret of an application: they stand in an answer, and nowhere else.
const TOKEN: &str = "eyJqZ7Jw2Kx9VtB5nYd8RmH3pLc6GfS4aEu";
const SECRET: &str = "s3~+/ &=Kx9VtB5nYd8RmH3pLc6GfS4aEu";

/// Each answer is a token that can be shown and lives for a time that can be, or a sentence on one line that has no
/// token and no secret in it; a host that is read is read again as it is written.
pub fn answers(body: &[u8], at: usize) {
    let text = String::from_utf8_lossy(body);
    let encoded = percent_encoded(SECRET);
    for secret in [TOKEN, SECRET, &encoded] {
        let body = inserted(&text, at, secret);
        for status in [200, 400, 401, 404, 410, 429, 503, 302] {
            for is_page in [false, true] {
                an_answer(&answer(status, is_page, body.as_bytes()));
            }
        }
        of_az(body.as_bytes());
    }
    an_answer(&answer(200, false, body));
    of_az(body);
    a_host(&text);
}

fn answer(status: u16, is_page: bool, body: &[u8]) -> Answer {
    let mut headers = HeaderMap::new();
    if is_page {
        headers.insert("content-type", HeaderValue::from_static("text/html"));
    }
    Answer { status, headers, body: body.to_vec().into(), is_whole: true }
}

fn an_answer(answer: &Answer) {
    match to_application(answer, "login.example", "client-1", SECRET) {
        Ok(token) => a_token(answer, &token),
        Err(error) => {
            let said = error.to_string();
            is_a_sentence(&said);
            assert!(said.contains("; ") && !said.contains(&SECRET[10..]), "{said}");
        }
    }
    // Which is never told the secret.
    for is_one_meant in [false, true] {
        match to_machine(answer, "169.254.169.254", is_one_meant) {
            Ok(Found::Token(token)) => a_token(answer, &token),
            Ok(Found::Nobody(why)) => is_a_sentence(&why),
            Err(error) => is_a_sentence(&error.to_string()),
        }
    }
}

fn a_token(answer: &Answer, token: &Token) {
    assert_eq!(answer.status, 200);
    assert!(!token.bearer().is_empty() && token.bearer().bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(token.renew_at <= token.expires_at && token.expires_at - token.renew_at <= LIFE_MAX);
    let debug = format!("{token:?}");
    assert!(token.bearer().len() < 16 || !debug.contains(token.bearer()), "{debug}");
}

/// On one line, and without a token.
fn is_a_sentence(said: &str) {
    assert!(!said.is_empty() && said.len() < 600 && !said.contains(char::is_control), "{said:?}");
    assert!(!said.contains("eyJ"), "{said}");
}

fn of_az(said: &[u8]) {
    let now = Timestamp(1_800_000_000_000);
    match az::token_in(said, now) {
        Ok((bearer, life)) => {
            assert!(!life.is_zero());
            let token = Token::new(bearer, life);
            a_token(&answer(200, false, said), &token);
        }
        Err(why) => assert!(!why.is_empty() && why.len() < 100 && !why.contains("eyJ"), "{why}"),
    }
    let why = az::refusal(said);
    assert!(why.len() < 300 && !why.contains("eyJ") && !why.contains(char::is_control), "{why:?}");
    assert!(why.ends_with("; run `az login`"), "{why}");
}

fn a_host(text: &str) {
    match Endpoint::parse(text) {
        Err(why) => assert!(why.contains("; write it as https://HOST") && !why.contains(char::is_control), "{why:?}"),
        Ok(endpoint) => {
            let scheme = if endpoint.is_tls { "https" } else { "http" };
            for authority in [endpoint.address(), endpoint.name()] {
                let written = format!("{scheme}://{authority}{}/", endpoint.path);
                assert_eq!(Endpoint::parse(&written), Ok(endpoint.clone()), "{text:?}");
            }
            assert!(endpoint.is_tls || !endpoint.is_private() || endpoint.is_this_machine());
        }
    }
}
