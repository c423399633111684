//! By what right the back end acts: a shared access policy of the hub, or an identity of Microsoft Entra.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::prelude::{Engine as _, BASE64_STANDARD};
use tokio::time::Instant;

use super::entra::{Entra, EntraError};
use super::renewal::Life;
use super::BackendError;
use crate::certificate::pem;
use crate::hub::auth::sas;
use crate::hub::properties::percent_encoded;
use crate::time::Timestamp;

/// Life of a token of a policy.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// What a token of Entra is shown for.
const ENTRA_SCOPE: &str = "https://iothubs.azure.net/.default";
/// What is said of a file that holds no connection string of a policy.
const COPY: &str =
    "copy the connection string of a shared access policy with the right ServiceConnect, such as `service`, into it";

/// A shared access policy. `Debug` does not show its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Policy {
    /// Host name of the hub, lower case.
    pub host: String,
    /// Its name.
    pub name: String,
    key: Vec<u8>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("host", &self.host).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Policy {
    /// Reads `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.
    ///
    /// # Errors
    /// A sentence without subject that repeats nothing of it, with what to do.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let (mut host, mut name, mut key) = (None, None, None);
        for part in text.trim().split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((field, value)) = part.split_once('=') else {
                return Err(format!("holds a part that is not NAME=VALUE; {COPY}"));
            };
            match field.trim().to_ascii_lowercase().as_str() {
                "hostname" => host = Some(value.trim().to_lowercase()),
                "sharedaccesskeyname" => name = Some(value.trim().to_owned()),
                "sharedaccesskey" => key = Some(value.trim().to_owned()),
                "deviceid" => return Err(format!("is the connection string of a device; {COPY}")),
                _ => return Err(format!("holds a part that no policy's string has; {COPY}")),
            }
        }
        let part = |value: Option<String>, what: &str| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| format!("holds no {what}; {COPY}"))
        };
        let key = part(key, "SharedAccessKey")?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| format!("holds a key that is not base64; {COPY}"))?;
        Ok(Policy { host: part(host, "HostName")?, name: part(name, "SharedAccessKeyName")?, key })
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(path: &Path) -> Result<Policy, String> {
        let parsed = pem::read(path).map_err(|why| why.to_string()).and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|_| format!("is not text; {COPY}"))?;
            Policy::parse(text)
        });
        parsed.map_err(|why| format!("{}: {why}", path.display()))
    }

    /// What it signs with. It is a secret.
    #[cfg(any(test, feature = "proof"))]
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    fn token(&self, now: Timestamp) -> String {
        let token = sas::token(&self.host, &self.key, now.plus(TOKEN_LIFE).as_secs());
        format!("{token}&skn={}", percent_encoded(&self.name))
    }
}

/// By what right the back end acts.
pub enum Who {
    /// By a shared access policy.
    Policy(Policy),
    /// By an identity of Entra's, at this hub.
    Entra {
        /// Host name of the hub, lower case.
        host: String,
        /// The identity.
        entra: Box<Entra>,
    },
}

/// What is shown to the hub.
pub(super) struct Proof {
    /// What it is for.
    pub audience: String,
    /// The token. It is a secret.
    pub token: String,
    /// How long it counts.
    pub life: Life,
}

impl Who {
    /// Host name of the hub.
    pub fn host(&self) -> &str {
        match self {
            Who::Policy(policy) => &policy.host,
            Who::Entra { host, .. } => host,
        }
    }

    /// A token that is made now.
    pub(super) async fn proof(&self) -> Result<Proof, BackendError> {
        match self {
            Who::Policy(policy) => {
                let now = Instant::now().into_std();
                let life = Life { renew_at: now + sas::renew_after(TOKEN_LIFE, 0.0), expires_at: now + TOKEN_LIFE };
                Ok(Proof { audience: policy.host.clone(), token: policy.token(Timestamp::now()), life })
            }
            Who::Entra { entra, .. } => {
                let token = entra.token().await?;
                Ok(Proof {
                    audience: ENTRA_SCOPE.to_owned(),
                    token: format!("Bearer {}", token.bearer()),
                    life: Life { renew_at: token.renew_at.into_std(), expires_at: token.expires_at.into_std() },
                })
            }
        }
    }
}

impl From<EntraError> for BackendError {
    fn from(error: EntraError) -> BackendError {
        match error {
            EntraError::Nobody(why) => BackendError::Nobody(why),
            EntraError::Refused(why) => BackendError::Refused(why),
            EntraError::Unreachable(why) => BackendError::Unreachable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn a_policys_connection_string_is_taken_apart_and_never_shown() {
        let text = format!("HostName=Contoso.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey={KEY}\n");
        let policy = Policy::parse(&text).unwrap();
        assert_eq!((policy.host.as_str(), policy.name.as_str()), ("contoso.azure-devices.net", "service"));
        assert_eq!(format!("{policy:?}"), "Policy { host: \"contoso.azure-devices.net\", name: \"service\", .. }");
        for (text, told) in [
            (format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}"), "of a device"),
            (format!("HostName=h;SharedAccessKey={KEY}"), "no SharedAccessKeyName"),
            (format!("SharedAccessKeyName=s;SharedAccessKey={KEY}"), "no HostName"),
            ("HostName=h;SharedAccessKeyName=s;SharedAccessKey=hush hush".to_owned(), "not base64"),
            (String::new(), "no SharedAccessKey"),
            ("hush".to_owned(), "NAME=VALUE"),
            (format!("Endpoint=sb://hush;SharedAccessKey={KEY}"), "no policy's string"),
        ] {
            let why = Policy::parse(&text).unwrap_err();
            assert!(why.contains(told) && why.contains("ServiceConnect"), "{why}");
            assert!(!why.contains("hush") && !why.contains(&KEY[..6]), "{why}");
        }
    }

    #[test]
    fn a_policys_token_is_for_the_hub_and_names_the_policy() {
        let policy = Policy { host: "h.example".into(), name: "my policy".into(), key: (0..32).collect() };
        let token = policy.token(Timestamp(1_700_000_000_000));
        assert!(token.starts_with("SharedAccessSignature sr=h.example&sig="), "{token}");
        assert!(token.ends_with("&se=1700003600&skn=my%20policy"), "{token}");
    }
}
