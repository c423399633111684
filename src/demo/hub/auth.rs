//! Who may connect: the user name's grammar, the shared access signature, the certificate's thumbprint.
//!
//! Over MQTT the hub answers every failure with CONNACK 5 and no reason. The reason is for the wire log only.

use std::collections::BTreeMap;

use base64::prelude::{Engine, BASE64_STANDARD};
use ring::hmac;

use super::side::Right;
use super::topic::{percent_decode, percent_encode};
use super::Options;
use crate::time::Timestamp;

/// What the back end's endpoint for events is called: its event hub-compatible name.
pub(in crate::demo::hub) const EVENTS_NAME: &str = "fieldbridge-events";

/// How a device proves who it is.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A symmetric key, with which the device signs its tokens.
    Key(Vec<u8>),
    /// A client certificate with one of these thumbprints (SHA-1 or SHA-256, hexadecimal).
    Thumbprints(Vec<String>),
}

/// What a client shows, over any protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof<'a> {
    /// A SAS token, or nothing.
    pub token: &'a str,
    /// Of its certificate, where TLS brought one.
    pub thumbprints: &'a [String],
}

/// The expiry of the token that was shown, if one was, or why the device may do nothing.
pub(super) fn check_proof(
    auth: &Auth,
    device: &str,
    proof: &Proof<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    match auth {
        Auth::Key(key) => {
            let token = Token::parse(proof.token)?;
            if token.policy.is_some_and(|name| !name.is_empty()) {
                return Err("a token of a shared access policy".into());
            }
            let (host, rest) = token.audience.split_once('/').ok_or("sr has no device")?;
            if !host.eq_ignore_ascii_case(&options.host) || rest != format!("devices/{device}") {
                return Err(format!("a token for {}", token.audience));
            }
            token.verify(key, options, now).map(Some)
        }
        Auth::Thumbprints(known) => {
            let is_known = |t: &String| known.iter().any(|k| k.eq_ignore_ascii_case(t));
            if !proof.token.is_empty() {
                Err("a password beside a certificate".into())
            } else if proof.thumbprints.iter().any(is_known) {
                Ok(None)
            } else {
                Err("no certificate with a known thumbprint".into())
            }
        }
    }
}

/// Whether a token is one for a registration with the provisioning service, or why not.
pub(super) fn check_registration(
    audience: &str,
    token: &str,
    key: &[u8],
    options: &Options,
    now: Timestamp,
) -> Result<(), String> {
    let token = Token::parse(token)?;
    // One of Microsoft's clients names none.
    if token.policy.is_some_and(|name| name != "registration") {
        return Err("a token of a shared access policy".into());
    }
    if token.audience != audience {
        return Err(format!("a token for {}", token.audience));
    }
    token.verify(key, options, now).map(drop)
}

/// Whether a token with this audience is for the endpoint of events.
fn is_for_events(audience: &str, host: &str) -> bool {
    let audience = audience.to_ascii_lowercase();
    let Some((_, rest)) = audience.split_once("://") else { return false };
    let (of, path) = rest.split_once('/').unwrap_or((rest, ""));
    of == host.to_ascii_lowercase() && (path == EVENTS_NAME || path.starts_with(&format!("{EVENTS_NAME}/")))
}

/// The expiry of a token of a shared access policy for this, or why it is none.
pub(super) fn check_policy(
    policies: &BTreeMap<String, Vec<u8>>,
    token: &str,
    right: Right,
    options: &Options,
    now: Timestamp,
) -> Result<Timestamp, String> {
    let token = Token::parse(token)?;
    let name = token.policy.ok_or("the token has no skn")?;
    let key = policies.get(name).ok_or_else(|| format!("no policy {name:?}"))?;
    let (is_meant, key) = match right {
        Right::Serve => (token.audience.eq_ignore_ascii_case(&options.host), key.clone()),
        // To an event hub a key is the text that it is shown as.
        Right::Read => (is_for_events(&token.audience, &options.host), BASE64_STANDARD.encode(key).into_bytes()),
    };
    if !is_meant {
        return Err(format!("a token for {}", token.audience));
    }
    token.verify(&key, options, now)
}

/// `{host}/{device}/?api-version={date}` and further keys.
pub(super) fn check_user_name(user_name: &str, device: &str, host: &str) -> Result<(), String> {
    let wrong = || format!("user name {user_name:?}");
    let (named_host, rest) = user_name.split_once('/').ok_or_else(wrong)?;
    let query = rest.strip_prefix(device).and_then(|rest| rest.strip_prefix("/?"));
    let query = query.ok_or_else(wrong)?;
    let mut versions = query.split('&').filter_map(|pair| pair.strip_prefix("api-version="));
    if !named_host.eq_ignore_ascii_case(host) || !versions.next().is_some_and(is_version) {
        return Err(wrong());
    }
    Ok(())
}

/// Whether it is a version of the hub's interface: a date.
pub(super) fn is_version(text: &str) -> bool {
    text.len() >= 10 && text.starts_with("20") && text.as_bytes()[4] == b'-'
}

/// A shared access signature, taken apart. Its fields may come in any order; what is signed is `sr` as it was sent.
struct Token<'a> {
    resource: &'a str,
    audience: String,
    expiry: &'a str,
    signature: Vec<u8>,
    policy: Option<&'a str>,
}

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let fields = text.strip_prefix("SharedAccessSignature ").ok_or("no token")?;
        let field = |name: &str| {
            let mut fields = fields.split('&').filter_map(|pair| pair.split_once('='));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let resource = field("sr").ok_or("the token has no sr")?;
        let expiry = field("se").ok_or("the token has no se")?;
        let signature = field("sig").and_then(percent_decode).ok_or("the token has no sig")?;
        let audience = percent_decode(resource).ok_or("sr can't be decoded")?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| "sig is not base64")?;
        Ok(Token { resource, audience, expiry, signature, policy: field("skn") })
    }

    fn verify(&self, key: &[u8], options: &Options, now: Timestamp) -> Result<Timestamp, String> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let signed = format!("{}\n{}", self.resource, self.expiry);
        hmac::verify(&key, signed.as_bytes(), &self.signature).map_err(|_| "the signature does not fit the key")?;
        let seconds: i64 = self.expiry.parse().map_err(|_| "se is no number")?;
        let expires = Timestamp(seconds.saturating_mul(1000));
        if expires.plus(options.clock_skew) < now {
            return Err(format!("the token expired at {expires}"));
        }
        Ok(expires)
    }
}

/// A token as a device would make it.
pub(super) fn token(host: &str, device: &str, key: &[u8], expires: Timestamp) -> String {
    sign(&format!("{host}/devices/{device}"), key, expires)
}

/// A token as the back end would make it, by a policy.
pub(super) fn policy_token(host: &str, policy: &str, key: &[u8], expires: Timestamp) -> String {
    format!("{}&skn={policy}", sign(host, key, expires))
}

fn sign(audience: &str, key: &[u8], expires: Timestamp) -> String {
    let resource = percent_encode(audience);
    let expiry = expires.as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
    let signature = percent_encode(&BASE64_STANDARD.encode(signature));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Timestamp = Timestamp(1_767_225_600_000);

    fn key() -> Vec<u8> {
        (0..32).collect()
    }

    fn verdict(user_name: &str, password: &str, now: Timestamp) -> Result<(), String> {
        let options = Options { host: "myhub.azure-devices.net".into(), ..Options::default() };
        check_user_name(user_name, "device1", &options.host)?;
        let proof = Proof { token: password, thumbprints: &[] };
        check_proof(&Auth::Key(key()), "device1", &proof, &options, now).map(|_| ())
    }

    #[test]
    fn a_token_is_signed_as_the_vendors_algorithm_does() {
        // The signature was computed with another program from the documented algorithm.
        assert_eq!(
            token("myhub.azure-devices.net", "device1", &key(), EXPIRY),
            "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdevice1\
             &sig=0q33J0bapMh%2BakMzMRsqI42p4Tsz7AODDaqCaACA%2FP0%3D&se=1767225600"
        );
    }

    #[test]
    fn user_names_and_tokens_are_checked_in_every_part() {
        let user = "MyHub.azure-devices.net/device1/?api-version=2021-04-12&DeviceClientType=x";
        let good = token("myhub.azure-devices.net", "device1", &key(), EXPIRY);
        assert_eq!(verdict(user, &good, EXPIRY), Ok(()));
        assert_eq!(verdict(user, &good, Timestamp(EXPIRY.0 + 299_000)), Ok(()));
        assert!(verdict(user, &good, Timestamp(EXPIRY.0 + 301_000)).is_err());
        for wrong in [
            "myhub.azure-devices.net/device1/",
            "myhub.azure-devices.net/device1/?DeviceClientType=x",
            "myhub.azure-devices.net/device1",
            "myhub.azure-devices.net/device2/?api-version=2021-04-12",
            "other.azure-devices.net/device1/?api-version=2021-04-12",
            "",
        ] {
            assert!(verdict(wrong, &good, EXPIRY).is_err(), "{wrong}");
        }
        for wrong in [
            token("myhub.azure-devices.net", "device2", &key(), EXPIRY),
            token("other.azure-devices.net", "device1", &key(), EXPIRY),
            token("myhub.azure-devices.net", "device1", b"other", EXPIRY),
            good.replace("se=17", "se=27"),
            good.replace("SharedAccessSignature ", ""),
            format!("{good}&skn=device"),
        ] {
            assert!(verdict(user, &wrong, EXPIRY).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_for_events_is_known_by_its_audience() {
        for right in ["sb://Hub.example/fieldbridge-events", "amqps://hub.example/Fieldbridge-Events/$management"] {
            assert!(is_for_events(right, "hub.example"), "{right}");
        }
        for wrong in ["hub.example", "sb://hub.example/", "sb://other/fieldbridge-events", "sb://hub.example/other"] {
            assert!(!is_for_events(wrong, "hub.example"), "{wrong}");
        }
    }
}
