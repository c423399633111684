//! SAS tokens: how one is made, and when it is renewed. Pure: the time is an argument.
//!
//! Source: "Control access to IoT Hub using shared access signatures" (Microsoft), and the vendor's SDKs' test vectors.

use std::time::Duration;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine as _;
use ring::hmac;

use crate::hub::properties::percent_encoded;
use crate::time::Timestamp;

/// A token for a resource such as `{host}/devices/{id}`, signed with a device key, that expires at a time in seconds
/// since 1970. It is a secret: whoever has it is the device until then.
pub fn token(resource: &str, key: &[u8], expires: i64) -> String {
    let resource = percent_encoded(resource);
    let signed = format!("{resource}\n{expires}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    let signature = percent_encoded(&BASE64.encode(signature));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}")
}

/// The token of a device.
pub fn device_token(host: &str, device: &str, key: &[u8], now: Timestamp, lifetime: Duration) -> String {
    token(&format!("{host}/devices/{device}"), key, now.plus(lifetime).as_secs())
}

/// How long after it was made a token is renewed: at 80 % of its life, and up to 10 % of it earlier, by a share from
/// 0 to 1 of the identity's own, so that not all identities reconnect at once.
pub fn renew_after(lifetime: Duration, share: f64) -> Duration {
    lifetime.mul_f64(0.8 - 0.1 * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_vector_is_reproduced() {
        let key = BASE64.decode("cGFzc3dvcmQ=").unwrap();
        assert_eq!(
            token("uri", &key, 12345),
            "SharedAccessSignature sr=uri&sig=kcWxXAK2OAaAoq2oCkaGzX2NMqDB8nCyNuq2fPYCDhk%3D&se=12345"
        );
    }

    #[test]
    fn device_tokens_match_an_independent_computation() {
        let key: Vec<u8> = (0..32).collect();
        assert_eq!(
            token("myhub.azure-devices.net/devices/device1", &key, 1_767_225_600),
            "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdevice1&\
             sig=0q33J0bapMh%2BakMzMRsqI42p4Tsz7AODDaqCaACA%2FP0%3D&se=1767225600"
        );
        let token = token("myhub.azure-devices.net/devices/gw1-pump%01", &key, 1_767_225_600);
        assert!(token.contains("%2Fgw1-pump%2501&sig=dFcyEgFIh2vRYHzCf%2FlcFLloFEAn%2FPuPp6iQOlRwFik%3D"), "{token}");
    }

    #[test]
    fn renewal_is_staggered_and_before_the_expiry() {
        let hour = Duration::from_secs(3600);
        assert_eq!(renew_after(hour, 0.0), hour.mul_f64(0.8));
        assert_eq!(renew_after(hour, 1.0).as_secs(), 2520);
    }
}
