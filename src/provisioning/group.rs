//! The keys of devices that enrol as a group. Pure.
//!
//! Source: "Symmetric key attestation", Group enrollments (Device Provisioning Service, Microsoft).

use base64::prelude::{Engine as _, BASE64_STANDARD};
use ring::hmac;

/// The key of a device that enrols under this registration id in the group with this key, in base64: the service's, and
/// then the hub's. The exact text of the id counts, capitals too.
pub fn device_key(group_key: &[u8], registration_id: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, group_key);
    BASE64_STANDARD.encode(hmac::sign(&key, registration_id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_example_is_reproduced() {
        let group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        let key = BASE64_STANDARD.decode(group).unwrap();
        let device = device_key(&key, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");
        assert_eq!(device, "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }
}
