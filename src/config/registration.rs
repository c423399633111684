//! What a device is called towards the Device Provisioning Service, and the keys of its groups. Pure.
//!
//! Source: "Register an X.509 or symmetric key device" and "Symmetric key attestation" (Device Provisioning Service,
//! Microsoft).

use super::secret::{odd_length, parse_key, text};
use crate::complaint::Complaint;

/// Longest registration id.
const CHARS_MAX: usize = 128;
const COPY_GROUP_KEY: &str = "copy the enrollment group's primary key into the file, and nothing else";

/// Whether the service takes a text as a registration id: 1 to 128 letters, digits and `-._:`, of which a letter, a
/// digit or `-` is the last.
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
pub fn registration_id(text: &str) -> Result<(), Complaint> {
    const WRITE: &str = "write it as it stands in the enrollment: letters, digits and - . _ :, 128 at most";
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if text.is_empty() {
        return Err(Complaint::new("is empty", WRITE));
    }
    if text.chars().count() > CHARS_MAX {
        return Err(Complaint::new("is longer than the 128 characters of a registration id", WRITE));
    }
    if let Some(c) = text.chars().find(|c| !is_part(*c)) {
        return Err(Complaint::new(format!("holds the character {c:?}, which no registration id holds"), WRITE));
    }
    if text.ends_with(['.', '_', ':']) {
        return Err(Complaint::new("ends with . or _ or :, which no registration id does", WRITE));
    }
    Ok(())
}

/// The key of an enrollment group, as it stands in a file, and what is suspicious about it.
///
/// # Errors
/// What is wrong with it, as a sentence without subject that repeats nothing of it.
pub fn group_key(bytes: &[u8]) -> Result<(Vec<u8>, Option<Complaint>), Complaint> {
    let key = parse_key(text(bytes)?).map_err(|why| Complaint::new(why.what, COPY_GROUP_KEY))?;
    let odd = odd_length(&key);
    Ok((key, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_id_is_what_the_service_takes() {
        for good in ["pump-7", "SN:007_a.b-", "a", &"x".repeat(128)] {
            assert_eq!(registration_id(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("", "empty"),
            ("pump 7", "' '"),
            ("pump/7", "'/'"),
            ("pümp", "'ü'"),
            ("pump.", "ends with"),
            ("pump_", "ends with"),
            (&"x".repeat(129), "128"),
        ] {
            let why = registration_id(bad).unwrap_err().to_string();
            assert!(why.contains(told), "{bad}: {why}");
        }
    }

    #[test]
    fn a_groups_key_is_read_and_never_shown() {
        let (key, odd) = group_key(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        assert_eq!((key.len(), odd), (32, None));
        assert!(group_key(b"AAECAwQF").unwrap().1.is_some(), "it is short");
        for bad in [&b"hush hush"[..], b"", b"HostName=hush;SharedAccessKey=hush", b"\xff\xfeh\0u\0s\0h\0"] {
            let why = group_key(bad).unwrap_err();
            assert!(!why.to_string().contains("hush") && !why.remedy.is_empty(), "{why}");
        }
    }
}
