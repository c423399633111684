//! What stands in an X.509 certificate beside what TLS itself looks at: its dates, whom it is of and from, its key.
//! Pure.

use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::time::{Time, Validity};
use x509_cert::Certificate;

use crate::time::Timestamp;

/// The parts that are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// It counts from here.
    pub begins: Timestamp,
    /// It has ended by here.
    pub ends: Timestamp,
    /// Whom it is of, as DER.
    pub subject: Vec<u8>,
    /// Who signed it, as DER.
    pub issuer: Vec<u8>,
    /// Its public key, as DER (SubjectPublicKeyInfo).
    pub public_key: Vec<u8>,
}

impl Parts {
    /// Of a certificate as DER.
    ///
    /// # Errors
    /// What the decoder says.
    pub fn of(der: &[u8]) -> Result<Parts, String> {
        let told = |error: x509_cert::der::Error| error.to_string();
        let certificate: Certificate = Certificate::from_der(der).map_err(told)?;
        let inner = certificate.tbs_certificate();
        let Validity { not_before, not_after, .. } = inner.validity();
        let time = |time: &Time| Timestamp(0).plus(time.to_unix_duration());
        Ok(Parts {
            begins: time(not_before),
            ends: time(not_after),
            subject: inner.subject().to_der().map_err(told)?,
            issuer: inner.issuer().to_der().map_err(told)?,
            public_key: inner.subject_public_key_info().to_der().map_err(told)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_no_parts() {
        for der in [&b""[..], b"\x30\x03\x02\x01\x01", b"-----BEGIN CERTIFICATE-----"] {
            assert!(Parts::of(der).is_err());
        }
    }
}
