//! Who may connect: the user name's grammar, the shared access signature, the certificate's thumbprint.
//!
//! The hub answers every failure with CONNACK 5 and no reason. The reason is for the wire log only.

use base64::prelude::{Engine, BASE64_STANDARD};
use ring::hmac;

use super::topic::{percent_decode, percent_encode};
use super::Options;
use crate::time::Timestamp;

/// How a device proves who it is.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A symmetric key, with which the device signs its tokens.
    Key(Vec<u8>),
    /// A client certificate with one of these thumbprints (SHA-1 or SHA-256, hexadecimal).
    Thumbprints(Vec<String>),
}

/// What a client showed on CONNECT.
pub(super) struct Shown<'a> {
    pub device: &'a str,
    pub user_name: &'a str,
    pub password: &'a str,
    pub thumbprints: &'a [String],
}

/// The expiry of the token that was shown, if one was, or why the device may not connect.
pub(super) fn check(
    auth: &Auth,
    shown: &Shown<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    check_user_name(shown, &options.host)?;
    match auth {
        Auth::Key(key) => {
            let expires = check_token(shown, key, &options.host)?;
            if expires.plus(options.clock_skew) < now {
                return Err(format!("the token expired at {expires}"));
            }
            Ok(Some(expires))
        }
        Auth::Thumbprints(known) => {
            let is_known = |t: &String| known.iter().any(|k| k.eq_ignore_ascii_case(t));
            if !shown.password.is_empty() {
                Err("a password beside a certificate".into())
            } else if shown.thumbprints.iter().any(is_known) {
                Ok(None)
            } else {
                Err("no certificate with a known thumbprint".into())
            }
        }
    }
}

/// `{host}/{device}/?api-version={date}` and further keys.
fn check_user_name(shown: &Shown<'_>, host: &str) -> Result<(), String> {
    let wrong = || format!("user name {:?}", shown.user_name);
    let (named_host, rest) = shown.user_name.split_once('/').ok_or_else(wrong)?;
    let query = rest.strip_prefix(shown.device).and_then(|rest| rest.strip_prefix("/?"));
    let query = query.ok_or_else(wrong)?;
    let mut versions = query.split('&').filter_map(|pair| pair.strip_prefix("api-version="));
    let is_date = |v: &str| v.len() >= 10 && v.starts_with("20") && v.as_bytes()[4] == b'-';
    if !named_host.eq_ignore_ascii_case(host) || !versions.next().is_some_and(is_date) {
        return Err(wrong());
    }
    Ok(())
}

/// The fields of a token may come in any order; the signature is over `sr` as it was sent.
fn check_token(shown: &Shown<'_>, key: &[u8], host: &str) -> Result<Timestamp, String> {
    let token = shown.password.strip_prefix("SharedAccessSignature ").ok_or("no token")?;
    let field = |name: &str| {
        let mut fields = token.split('&').filter_map(|pair| pair.split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let resource = field("sr").ok_or("the token has no sr")?;
    let expiry = field("se").ok_or("the token has no se")?;
    let signature = field("sig").and_then(percent_decode).ok_or("the token has no sig")?;
    if field("skn").is_some_and(|name| !name.is_empty()) {
        return Err("a token of a shared access policy".into());
    }
    let audience = percent_decode(resource).ok_or("sr can't be decoded")?;
    let (named_host, rest) = audience.split_once('/').ok_or("sr has no device")?;
    if !named_host.eq_ignore_ascii_case(host) || rest != format!("devices/{}", shown.device) {
        return Err(format!("a token for {audience}"));
    }
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| "sig is not base64")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, format!("{resource}\n{expiry}").as_bytes(), &signature)
        .map_err(|_| "the signature does not fit the key")?;
    let seconds: i64 = expiry.parse().map_err(|_| "se is no number")?;
    Ok(Timestamp(seconds.saturating_mul(1000)))
}

/// A token as a device would make it.
pub(super) fn token(host: &str, device: &str, key: &[u8], expires: Timestamp) -> String {
    let resource = percent_encode(&format!("{host}/devices/{device}"));
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
        let shown = Shown { device: "device1", user_name, password, thumbprints: &[] };
        check(&Auth::Key(key()), &shown, &options, now).map(|_| ())
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
}
