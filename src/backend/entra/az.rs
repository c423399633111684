//! A token of whoever is logged in to the Azure CLI.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{is_token, EntraError, Token, ANSWER_BYTES_MAX, RESOURCE, SAID_BYTES_MAX, TOKENS_BEGIN};
use crate::command::excerpt::truncated;
use crate::time::Timestamp;

/// How long `az` may take: it is slow to start, and may ask Entra.
const LIMIT: Duration = Duration::from_secs(30);
/// How long its pipes may stay open when it has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// The life of a token of which an old `az` tells only in the time of its zone: it gives none that has less.
const LIFE_MIN: Duration = Duration::from_secs(300);

/// Asks `az`, which is looked for on `path`. `None`: there is none.
pub(super) async fn token(path: Option<&str>) -> Result<Option<Token>, EntraError> {
    let mut command = Command::new("az");
    command.args(["account", "get-access-token", "--resource", RESOURCE, "--output", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(path) = path {
        // So that it is looked for there, too.
        command.env("PATH", path);
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let why = format!("`az` can't be run: {error}; run `az login` by hand, and see");
            return Err(EntraError::Nobody(why));
        }
    };
    let slow = || {
        let why =
            format!("`az` did not answer within {} s; run `az account get-access-token` by hand", LIMIT.as_secs());
        EntraError::Unreachable(why)
    };
    let (succeeded, said, complaint) = timeout(LIMIT, output(child)).await.map_err(|_| slow())?.map_err(|error| {
        EntraError::Unreachable(format!("`az` can't be waited for: {error}; run `az account get-access-token` by hand"))
    })?;
    if !succeeded {
        return Err(EntraError::Refused(refusal(&complaint)));
    }
    let (bearer, life) = token_in(&said, Timestamp::now()).map_err(|why| {
        EntraError::Refused(format!("`az` gave no token: {why}; run `az account get-access-token` by hand"))
    })?;
    Ok(Some(Token::new(bearer, life)))
}

/// Whether it succeeded, what it said, and what it complained of.
async fn output(mut child: Child) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let status = {
        let reading = async { tokio::try_join!(keep(stdout, &mut said), keep(stderr, &mut complaint)) };
        tokio::pin!(reading);
        tokio::select! {
            read = &mut reading => {
                read?;
                child.wait().await?
            }
            status = child.wait() => {
                // What it leaves behind may hold its pipes open: `az` starts a process of its own for its telemetry.
                if let Ok(read) = timeout(LEFT_BEHIND, &mut reading).await {
                    read?;
                }
                status?
            }
        }
    };
    Ok((status.success(), said, complaint))
}

/// Keeps the beginning of what comes. The rest is read too, and goes nowhere: a pipe that nobody empties would hold up
/// whoever writes into it.
async fn keep(mut from: impl AsyncRead + Unpin, kept: &mut Vec<u8>) -> io::Result<()> {
    (&mut from).take(ANSWER_BYTES_MAX as u64).read_to_end(kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(())
}

/// What `az` complains of, with what to do. Pure.
pub(super) fn refusal(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line = text.lines().map(str::trim).find(|line| line.starts_with("ERROR:"));
    let line = line.or_else(|| text.lines().map(str::trim).find(|line| !line.is_empty()));
    let line: String = line.unwrap_or("it does not say why").chars().filter(|char| !char.is_control()).collect();
    let line = if line.contains(TOKENS_BEGIN) { "it does not say why" } else { truncated(&line, SAID_BYTES_MAX) };
    format!("`az` gives no token ({line}); run `az login`")
}

/// The token in what `az` says, and how long it lives from now on. Pure.
pub(super) fn token_in(said: &[u8], now: Timestamp) -> Result<(String, Duration), String> {
    let json: Json = serde_json::from_slice(said).map_err(|_| "what it says is not JSON".to_owned())?;
    let bearer = json.get("accessToken").and_then(Json::as_str).filter(|text| is_token(text));
    let bearer = bearer.ok_or("what it says has no accessToken")?.to_owned();
    let life = match json.get("expires_on").and_then(Json::as_i64) {
        Some(seconds) => Timestamp(seconds.saturating_mul(1000)).since(now),
        None => LIFE_MIN,
    };
    match life.is_zero() {
        true => Err("the token has expired, by this machine's clock".into()),
        false => Ok((bearer, life)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_az_says_is_read_with_and_without_a_time() {
        let now = Timestamp(1_800_000_000_000);
        let with = br#"{"accessToken":"eyJ0.a.b","expiresOn":"2027-01-15 09:00:00.000000","expires_on":1800003600}"#;
        assert_eq!(token_in(with, now), Ok(("eyJ0.a.b".into(), Duration::from_secs(3600))));
        let without = br#"{"accessToken":"eyJ0.a.b","expiresOn":"2027-01-15 09:00:00.000000"}"#;
        assert_eq!(token_in(without, now), Ok(("eyJ0.a.b".into(), LIFE_MIN)));
        assert!(token_in(with, now.plus(Duration::from_secs(4000))).unwrap_err().contains("clock"));
        for said in [&b"eyJ0.a.b"[..], b"{}", b"{\"accessToken\":\"\"}", b"{\"accessToken\":\"a b\"}", b"[]"] {
            let why = token_in(said, now).unwrap_err();
            assert!(!why.contains("eyJ"), "{why}");
        }
    }

    #[test]
    fn a_complaint_is_its_first_error_and_never_a_token() {
        let told = refusal(b"WARNING: old\nERROR: Please run 'az login' to setup account.\n");
        assert_eq!(told, "`az` gives no token (ERROR: Please run 'az login' to setup account.); run `az login`");
        for complaint in [&b""[..], b"ERROR: eyJ0.a.b is no good"] {
            assert!(refusal(complaint).contains("it does not say why"));
        }
    }
}
