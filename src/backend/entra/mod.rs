//! Tokens of Microsoft Entra for IoT Hub: of an application with a secret, of the machine's managed identity, or of
//! whoever is logged in to `az`.
//!
//! Sources: "OAuth 2.0 client credentials flow" and "Use managed identities on a virtual machine to acquire access
//! token" (Microsoft), and the names of variables that Azure's own libraries read.
//!
//! Invariants
//! - The first who is there decides: a secret that Entra refuses is not replaced by another identity, which nobody
//!   asked for. A secret is only sent over TLS, or to this machine.
//! - A proxy that is configured is never gone round, but for what is on this machine or on its own link: the metadata
//!   is never asked through it. `az` has its own settings for that (HTTPS_PROXY).
//! - No message and no `Debug` has a token or a secret in it.
//! - Each way is bounded in time and in what is read.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod az;
mod endpoint;
#[cfg(test)]
#[cfg(feature = "demo")] // rcgen makes their certificate
mod tests;

use std::fmt;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{timeout, Instant};

use super::sentences::sentence;
use crate::certificate::Trust;
use crate::command::excerpt::truncated;
use crate::complaint::Complaint;
use crate::config::Proxy;
use crate::hub::auth::tls;
use crate::hub::dial::Network;
use crate::hub::properties::percent_encoded;
use crate::hub::trouble::Trouble;
use crate::hub::way;
use crate::net::http::{Answer, Connection, Fault, Method, Request};
use crate::net::{self, Stream};
use endpoint::Endpoint;

/// What a token is for: every IoT hub.
const RESOURCE: &str = "https://iothubs.azure.net";
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The link-local address at which each virtual machine of Azure's finds its own metadata.
const METADATA: &str = "http://169.254.169.254";

/// How long Entra may take, with the connection.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the machine's metadata may take to be there: it is on this machine's own link, or not at all.
const METADATA_CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const METADATA_LIMIT: Duration = Duration::from_secs(15);
/// Largest answer that is read, in bytes: a token has a few thousand.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest life of a token that is believed.
const LIFE_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// Tokens of Entra's begin so: what has it in it is not shown.
const TOKENS_BEGIN: &str = "eyJ";
/// How much of what Entra says is shown.
const SAID_BYTES_MAX: usize = 200;

/// A token: whoever has it may do what its owner may, until it expires.
pub struct Token {
    bearer: String,
    /// When a new one is to be asked for: after two thirds of its life.
    pub renew_at: Instant,
    /// When it expires.
    pub expires_at: Instant,
}

impl Token {
    fn new(bearer: String, life: Duration) -> Token {
        let (now, life) = (Instant::now(), life.min(LIFE_MAX));
        Token { bearer, renew_at: now + life * 2 / 3, expires_at: now + life }
    }

    /// The token itself. It is a secret.
    pub fn bearer(&self) -> &str {
        &self.bearer
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntraError {
    /// Nothing says who asks, or what does can't be used.
    #[error("{0}")]
    Nobody(String),
    /// Entra knows who asks, and says no.
    #[error("{0}")]
    Refused(String),
    /// Entra can't be reached, or can't answer now.
    #[error("{0}")]
    Unreachable(String),
}

/// An application with a secret of its own.
struct Application {
    authority: Endpoint,
    tenant: String,
    client: String,
    secret: String,
}

/// Who asks for tokens, as the environment says.
pub struct Entra {
    application: Option<Application>,
    metadata: Endpoint,
    /// Of several identities of the machine's the one that is meant.
    client: Option<String>,
    path: Option<String>,
    /// Where TLS is used.
    trust: Option<Trust>,
    proxy: Option<Proxy>,
}

/// What the machine's metadata came to.
enum Found {
    Token(Token),
    /// There is no such identity here, for this reason.
    Nobody(String),
}

impl Entra {
    /// Who asks, by the variables of the environment: an application by AZURE_TENANT_ID, AZURE_CLIENT_ID and
    /// AZURE_CLIENT_SECRET; else the machine, by the identity AZURE_CLIENT_ID if that is set; else `az`, which is
    /// looked for on PATH. AZURE_AUTHORITY_HOST and AZURE_POD_IDENTITY_AUTHORITY_HOST say where, if not at the usual
    /// hosts. Entra is asked through the proxy, if there is one. `trust` is wanted only where TLS is used: neither the
    /// machine's metadata nor `az` needs it.
    ///
    /// # Errors
    /// [`EntraError::Nobody`]: a secret without whose it is, a host that is none, or nothing to tell the hosts by.
    pub fn of(
        environment: impl Fn(&str) -> Option<String>,
        trust: impl FnOnce() -> Result<Trust, Complaint>,
        proxy: Option<Proxy>,
    ) -> Result<Entra, EntraError> {
        let variable = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let host = |name: &str, usual: &str| {
            let text = variable(name).unwrap_or_else(|| usual.to_owned());
            Endpoint::parse(&text).map_err(|why| EntraError::Nobody(format!("{name} {why}")))
        };
        let application = match variable("AZURE_CLIENT_SECRET") {
            None => None,
            Some(secret) => {
                let missing =
                    |name| EntraError::Nobody(format!("AZURE_CLIENT_SECRET is set, and {name} is not; set both"));
                let authority = host("AZURE_AUTHORITY_HOST", AUTHORITY)?;
                if !authority.is_private() {
                    let why = "AZURE_AUTHORITY_HOST is without TLS, so the secret would be open on the way; write it with https://";
                    return Err(EntraError::Nobody(why.into()));
                }
                Some(Application {
                    authority,
                    tenant: variable("AZURE_TENANT_ID").ok_or_else(|| missing("AZURE_TENANT_ID"))?,
                    client: variable("AZURE_CLIENT_ID").ok_or_else(|| missing("AZURE_CLIENT_ID"))?,
                    secret,
                })
            }
        };
        let metadata = host("AZURE_POD_IDENTITY_AUTHORITY_HOST", METADATA)?;
        let is_by_tls = application.as_ref().map_or(metadata.is_tls, |application| application.authority.is_tls);
        let trust = match is_by_tls {
            true => Some(trust().map_err(|why| EntraError::Nobody(why.to_string()))?),
            false => None,
        };
        Ok(Entra { application, metadata, client: variable("AZURE_CLIENT_ID"), path: variable("PATH"), trust, proxy })
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// Nobody is there to ask, Entra says no, or it can't be reached; each with what to do.
    pub async fn token(&self) -> Result<Token, EntraError> {
        if let Some(application) = &self.application {
            return self.of_application(application).await;
        }
        let no_machine = match self.of_machine().await? {
            Found::Token(token) => return Ok(token),
            Found::Nobody(why) => why,
        };
        match az::token(self.path.as_deref()).await? {
            Some(token) => Ok(token),
            None => Err(EntraError::Nobody(format!(
                "nothing says who asks: AZURE_CLIENT_SECRET is not set, {no_machine}, and there is no `az`; set AZURE_TENANT_ID, \
                 AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, give the machine an identity, or install `az` and log in"
            ))),
        }
    }

    async fn of_application(&self, application: &Application) -> Result<Token, EntraError> {
        let Application { authority, tenant, client, secret } = application;
        let form: Vec<String> = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", &format!("{RESOURCE}/.default")),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
        .collect();
        let target = format!("{}/{}/oauth2/v2.0/token", authority.path, percent_encoded(tenant));
        let request = Request::new(Method::POST, &target, &authority.name(), form.join("&"))
            .map_err(EntraError::Nobody)?
            .with("content-type", "application/x-www-form-urlencoded")
            .with("accept", "application/json");
        let host = &authority.host;
        let asked = timeout(LIMIT, async { self.ask(authority, &request, self.reach(authority).await?).await }).await;
        let slow = |_| no_token(host, &format!("no answer within {} s", LIMIT.as_secs()));
        let answer = asked.map_err(slow)?.map_err(|why| no_token(host, &why))?;
        to_application(&answer, host, client, secret)
    }

    async fn of_machine(&self) -> Result<Found, EntraError> {
        let metadata = &self.metadata;
        let which =
            self.client.as_ref().map(|client| format!("&client_id={}", percent_encoded(client))).unwrap_or_default();
        let resource = percent_encoded(RESOURCE);
        let target = format!(
            "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}{which}",
            metadata.path
        );
        let request = Request::new(Method::GET, &target, &metadata.name(), "").map_err(EntraError::Nobody)?;
        let request = request.with("metadata", "true");
        let name = metadata.name();
        let asked = timeout(METADATA_LIMIT, async {
            let tcp =
                net::connect(&metadata.address(), METADATA_CONNECT_LIMIT).await.map_err(|failure| failure.why())?;
            self.ask(metadata, &request, Box::new(tcp)).await
        })
        .await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Ok(Found::Nobody(format!("no managed identity answers at {name} ({why})"))),
            Err(_) => return Ok(Found::Nobody(format!("no managed identity answers at {name} (it says nothing)"))),
        };
        to_machine(&answer, &name, self.client.is_some())
    }

    /// Connects to Entra, through the proxy if there is one. What is on this machine is not on the proxy's.
    async fn reach(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>, String> {
        let proxy = self.proxy.as_ref().filter(|_| !endpoint.is_this_machine());
        way::connect_through(&Network, proxy, &endpoint.address()).await.map_err(|trouble| match trouble {
            Trouble::Lookup { error, .. } | Trouble::Unreachable { error, .. } => error,
            other => sentence(&other),
        })
    }

    /// Asks a server over a connection of its own.
    async fn ask(&self, endpoint: &Endpoint, request: &Request, tcp: Box<dyn Stream>) -> Result<Answer, String> {
        let stream: Box<dyn Stream> = match endpoint.is_tls {
            false => tcp,
            true => {
                let trust = self.trust.as_ref().ok_or("TLS was not expected there")?;
                let secured = tls::secure(trust.plain(), &endpoint.host, tcp).await;
                let why = |why| format!("TLS failed: {why} (does a proxy intercept it, and is the clock right?)");
                Box::new(secured.map_err(why)?)
            }
        };
        let told = |fault| match fault {
            Fault::Unanswered(why) | Fault::Cut(why) => format!("the connection broke: {why}"),
            Fault::Garbled(why) => format!("what answers is not HTTP: {why}"),
        };
        let mut connection = Connection::over(stream).await.map_err(told)?;
        connection.ask(request, ANSWER_BYTES_MAX).await.map_err(told)
    }
}

/// What an answer to an application means. Pure.
fn to_application(answer: &Answer, host: &str, client: &str, secret: &str) -> Result<Token, EntraError> {
    match answer.status {
        200 => match token_in(&answer.body) {
            Ok((bearer, life)) => Ok(Token::new(bearer, life)),
            Err(why) => Err(no_token(host, &why)),
        },
        400..=404 if !answer.is_page() => Err(EntraError::Refused(format!(
            "Entra refuses the application {client:?}{}; check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, and \
             whether the secret has expired",
            said(&answer.body, secret)
        ))),
        429 | 500..=599 => Err(EntraError::Unreachable(format!(
            "Entra can't give a token now (HTTP {}); try again in a while",
            answer.status
        ))),
        status => Err(no_token(host, &format!("something else answers in its place (HTTP {status})"))),
    }
}

fn no_token(host: &str, why: &str) -> EntraError {
    EntraError::Unreachable(format!("no token from {host}: {why}; check the uplink, and that {host} is let through"))
}

/// What an answer to the machine, or to one of its identities, means. Pure.
fn to_machine(answer: &Answer, name: &str, is_one_meant: bool) -> Result<Found, EntraError> {
    match answer.status {
        200 => match token_in(&answer.body) {
            Ok((bearer, life)) => Ok(Found::Token(Token::new(bearer, life))),
            // A captive portal answers for every address.
            Err(why) => Ok(Found::Nobody(format!("what answers at {name} is not a managed identity ({why})"))),
        },
        // "The metadata service retries" (Microsoft): it is there, and can't now.
        410 | 429 | 500..=599 => Err(EntraError::Unreachable(format!(
            "the machine's managed identity can't give a token now (HTTP {}); try again in a while",
            answer.status
        ))),
        400 if is_one_meant => Err(EntraError::Refused(format!(
            "the machine has no managed identity with this AZURE_CLIENT_ID (HTTP 400{}); assign it, or unset the variable",
            said(&answer.body, "")
        ))),
        status => Ok(Found::Nobody(format!("the machine has no managed identity (HTTP {status})"))),
    }
}

/// The token in an answer, and its life. Pure.
fn token_in(body: &[u8]) -> Result<(String, Duration), String> {
    let json: Json = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let bearer = json.get("access_token").and_then(Json::as_str).unwrap_or_default();
    // Entra gives a number, the metadata a text.
    let seconds = match json.get("expires_in") {
        Some(Json::Number(number)) => number.as_u64(),
        Some(Json::String(text)) => text.parse().ok(),
        _ => None,
    };
    match (is_token(bearer), seconds) {
        (true, Some(seconds)) if seconds > 0 => Ok((bearer.to_owned(), Duration::from_secs(seconds))),
        (true, _) => Err("the answer does not say how long its token lives".into()),
        (false, _) => Err("the answer has no token".into()),
    }
}

/// Whether it can be a token: something that stands in a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What Entra says beside its no, to follow it in a sentence: its code, and the first line of its reason. Pure.
fn said(body: &[u8], secret: &str) -> String {
    let Ok(json) = serde_json::from_slice::<Json>(body) else { return String::new() };
    let text = |name: &str| json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let reason = text("error_description");
    let reason = reason.lines().next().unwrap_or_default().split(" Trace ID:").next().unwrap_or_default().trim();
    let whole = match reason.is_empty() {
        true => text("error"),
        false => format!("{}: {reason}", text("error")),
    };
    let whole: String = whole.chars().filter(|char| !char.is_control()).collect();
    // As it stands in a variable, or in the request.
    let secret: String = secret.trim().chars().filter(|char| !char.is_control()).collect();
    let has_secret = [&secret, &percent_encoded(&secret)].iter().any(|secret| whole.contains(&***secret));
    if whole.is_empty() || whole.contains(TOKENS_BEGIN) || (!secret.is_empty() && has_secret) {
        return String::new();
    }
    format!(" ({})", truncated(&whole, SAID_BYTES_MAX))
}
