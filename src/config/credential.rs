//! How a device proves its identity: keys, connection strings and certificates.
//!
//! No message here repeats what stands in a file, nor a path that looks like the secret itself.

use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::prelude::{Engine, BASE64_STANDARD};

use super::load::unreadable;
use super::tree::Table;
use super::Credential;

/// Keys, connection strings and certificate chains are far smaller.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// The lengths of a device key that the hub takes, in bytes.
const KEY_BYTES: RangeInclusive<usize> = 16..=64;

/// A device's connection string, checked.
#[derive(PartialEq, Eq)]
pub(super) struct ConnectionString {
    pub host: String,
    pub device: String,
    pub key: Vec<u8>,
}

/// What a PEM file is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pem {
    Certificate,
    PrivateKey,
}

/// A device's credential, from exactly one of its keys; `None` where something is wrong with it.
pub(super) fn credential(table: &Table, id: &str, host: Option<&str>) -> Option<Credential> {
    let given: Vec<&str> = ["key_file", "connection_string_file", "cert_file"]
        .into_iter()
        .filter(|key| table.has(key) || (*key == "cert_file" && table.has("cert_key_file")))
        .collect();
    match given.as_slice() {
        [] => {
            table.absent(
                "key_file",
                "is missing; give key_file, or connection_string_file, or cert_file with cert_key_file",
            );
            None
        }
        ["key_file"] => key(table),
        ["connection_string_file"] => connection_string(table, id, host),
        ["cert_file"] => certificate(table),
        [others @ .., last] => {
            let last = if table.has(last) { last } else { "cert_key_file" };
            let why = format!("stands beside {}; a device has one credential: keep one of them", others.join(" and "));
            table.wrong(last, why);
            None
        }
    }
}

fn key(table: &Table) -> Option<Credential> {
    let text = secret(table, "key_file")?;
    match parse_key(text.trim()) {
        Ok(key) => Some(shared_key(table, "key_file", key)),
        Err(why) => {
            let why = if text.contains("SharedAccessKey") {
                "holds a connection string; name it as connection_string_file instead".into()
            } else {
                format!("{why}; copy the device's primary key from the hub into the file")
            };
            table.wrong("key_file", why);
            None
        }
    }
}

fn connection_string(table: &Table, id: &str, host: Option<&str>) -> Option<Credential> {
    let text = secret(table, "connection_string_file")?;
    let parsed = match parse_connection_string(text.trim()) {
        Ok(parsed) => parsed,
        Err(why) => {
            table.wrong("connection_string_file", why);
            return None;
        }
    };
    if let Some(host) = host.filter(|host| *host != parsed.host) {
        let why = format!(
            "is for the hub {:?}, and hub.host is {host:?}; use the string of a device at that hub",
            parsed.host
        );
        table.wrong("connection_string_file", why);
    }
    if parsed.device != id {
        let why = format!("is for the device {:?}, and this is {id:?}; use the string of this device", parsed.device);
        table.wrong("connection_string_file", why);
    }
    Some(shared_key(table, "connection_string_file", parsed.key))
}

fn shared_key(table: &Table, key: &str, bytes: Vec<u8>) -> Credential {
    if !KEY_BYTES.contains(&bytes.len()) {
        let why = format!("holds a key of {} bytes, and the hub's have 16 to 64; is it the whole key?", bytes.len());
        table.note(key, why);
    }
    Credential::Key(bytes)
}

fn certificate(table: &Table) -> Option<Credential> {
    for (key, other) in [("cert_file", "cert_key_file"), ("cert_key_file", "cert_file")] {
        if !table.has(key) {
            table.absent(key, format!("is missing; {other} needs it beside it"));
        }
    }
    let file = |key: &str, wanted| {
        let path = table.path(key)?;
        let text = check_pem(table, key, &path, wanted).unwrap_or_default();
        Some((path, text))
    };
    let certificate = file("cert_file", Pem::Certificate);
    let key = file("cert_key_file", Pem::PrivateKey);
    let ((cert_file, chain), (key_file, key)) = (certificate?, key?);
    let mut contents = ring::digest::Context::new(&ring::digest::SHA256);
    for text in [chain, key] {
        contents.update(&(text.len() as u64).to_be_bytes());
        contents.update(text.as_bytes());
    }
    let contents = contents.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
    Some(Credential::Certificate { cert_file, key_file, contents })
}

/// The text of a PEM file. Reports one that can't be read or holds something else.
pub(super) fn check_pem(table: &Table, key: &str, path: &Path, wanted: Pem) -> Option<String> {
    match read(path).and_then(|text| pem_holds(&text, wanted).map(|()| text)) {
        Ok(text) => {
            table.walk.files.borrow_mut().push(path.to_owned());
            if wanted == Pem::PrivateKey {
                note_exposure(table, key, path);
            }
            Some(text)
        }
        Err(why) => {
            table.wrong(key, format!("{}: {why}", path.display()));
            None
        }
    }
}

/// The text of a file that holds a secret.
fn secret(table: &Table, key: &str) -> Option<String> {
    let path = table.path(key)?;
    if !path.exists() && is_secret(table.text(key)?) {
        table.wrong(
            key,
            "holds the secret itself; put that into a file that only fieldbridge can read, and name the file here",
        );
        return None;
    }
    match read(&path) {
        Ok(text) => {
            table.walk.files.borrow_mut().push(path.clone());
            note_exposure(table, key, &path);
            Some(text)
        }
        Err(why) => {
            table.wrong(key, format!("{}: {why}", path.display()));
            None
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err("is no regular file; name the file that holds the secret".into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err("is larger than 64 KiB; is it the right file?".into());
    }
    String::from_utf8(bytes).map_err(|_| "is not text; is it the right file?".into())
}

fn note_exposure(table: &Table, key: &str, path: &Path) {
    if fs::metadata(path).is_ok_and(|m| is_exposed(m.mode(), m.uid())) {
        let why = format!("{} can be read by others; `chown fieldbridge` and `chmod 0400` it", path.display());
        table.note(key, why);
    }
}

/// Whether others than the service can read a file. `root:fieldbridge 0640` is how packages hand a secret to a
/// service, so the group counts only where the owner isn't root.
fn is_exposed(mode: u32, owner: u32) -> bool {
    mode & 0o007 != 0 || (mode & 0o070 != 0 && owner != 0)
}

/// Whether text that stands for a file's name is more likely a secret.
fn is_secret(text: &str) -> bool {
    text.contains("SharedAccessKey=") || parse_key(text).is_ok_and(|key| key.len() >= 32)
}

pub(super) fn parse_key(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    BASE64_STANDARD.decode(text).map_err(|_| "holds no base64 text".into())
}

/// Reads `HostName=…;DeviceId=…;SharedAccessKey=…`. No message repeats any part of it.
pub(super) fn parse_connection_string(text: &str) -> Result<ConnectionString, String> {
    let copy = "copy the device's primary connection string from the hub into the file";
    let (mut host, mut device, mut key) = (None, None, None);
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        // The key ends in `=` itself.
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("holds a part that is not NAME=VALUE; {copy}"));
        };
        let slot = match name.to_ascii_lowercase().as_str() {
            "hostname" => &mut host,
            "deviceid" => &mut device,
            "sharedaccesskey" => &mut key,
            "sharedaccesskeyname" => {
                return Err(format!("is the connection string of a service, which could command every device; {copy}"));
            }
            "sharedaccesssignature" => {
                return Err(format!("holds a signature, which expires; {copy}"));
            }
            "moduleid" => return Err(format!("is the connection string of a module; {copy}")),
            "gatewayhostname" => {
                return Err("names a gateway; remove GatewayHostName from it, and set hub.address instead".into());
            }
            "x509" => {
                return Err("says that the device has a certificate; use cert_file and cert_key_file instead".into());
            }
            _ => return Err(format!("holds a part that is neither HostName, DeviceId nor SharedAccessKey; {copy}")),
        };
        if slot.replace(value.trim()).is_some() {
            return Err(format!("holds a part twice; {copy}"));
        }
    }
    let part = |value: Option<&str>, name: &str| match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(format!("holds no {name}; {copy}")),
    };
    let key = part(key, "SharedAccessKey")?;
    Ok(ConnectionString {
        host: part(host, "HostName")?.to_lowercase(),
        device: part(device, "DeviceId")?,
        key: parse_key(&key).map_err(|why| format!("{why} as SharedAccessKey; {copy}"))?,
    })
}

/// A light check, for a clear message: the TLS library reads the file for good.
pub(super) fn pem_holds(text: &str, wanted: Pem) -> Result<(), String> {
    let labels: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect();
    let has_certificate = labels.contains(&"CERTIFICATE");
    let has_key = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"].iter().any(|label| labels.contains(label));
    let is_encrypted = labels.contains(&"ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
    match wanted {
        Pem::Certificate if has_certificate => Ok(()),
        Pem::PrivateKey if is_encrypted => Err(
            "the private key is encrypted, and nobody is there to type its pass phrase; decrypt it with `openssl pkey`"
                .into(),
        ),
        Pem::PrivateKey if has_key => Ok(()),
        Pem::Certificate if has_key || is_encrypted => {
            Err("holds a private key, and no certificate; name the certificate here".into())
        }
        Pem::PrivateKey if has_certificate => {
            Err("holds a certificate, and no private key; name the private key here".into())
        }
        Pem::Certificate | Pem::PrivateKey => {
            Err("holds no PEM text (-----BEGIN …-----); is it the right file, and not DER?".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn a_connection_string_is_taken_apart() {
        for text in [
            format!("HostName=Contoso.azure-devices.net;DeviceId=pump-7;SharedAccessKey={KEY}"),
            format!("SharedAccessKey={KEY} ; deviceid=pump-7;hostname=contoso.azure-devices.net;"),
        ] {
            let parsed = parse_connection_string(&text).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(parsed.host, "contoso.azure-devices.net");
            assert_eq!(parsed.device, "pump-7");
            assert_eq!(parsed.key, (0..32).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn a_wrong_connection_string_is_told_why_and_never_shown() {
        for (text, fragment) in [
            ("".to_owned(), "no SharedAccessKey"),
            ("HostName=h;DeviceId=d".to_owned(), "no SharedAccessKey"),
            (format!("DeviceId=d;SharedAccessKey={KEY}"), "no HostName"),
            (format!("HostName=h;SharedAccessKey={KEY}"), "no DeviceId"),
            (format!("HostName=h;DeviceId=;SharedAccessKey={KEY}"), "no DeviceId"),
            (format!("HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"), "service"),
            (format!("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey={KEY}"), "module"),
            (format!("HostName=h;DeviceId=d;GatewayHostName=g;SharedAccessKey={KEY}"), "hub.address"),
            ("HostName=h;DeviceId=d;x509=true".to_owned(), "cert_file"),
            ("HostName=h;DeviceId=d;SharedAccessSignature=sr".to_owned(), "expires"),
            (format!("HostName=h;HostName=i;DeviceId=d;SharedAccessKey={KEY}"), "twice"),
            ("HostName=h;DeviceId=d;SharedAccessKey=hush hush".to_owned(), "no base64"),
            (format!("{KEY};b"), "neither"),
            ("hush".to_owned(), "NAME=VALUE"),
        ] {
            let Err(why) = parse_connection_string(&text) else {
                panic!("accepted: {text}");
            };
            assert!(why.contains(fragment), "{text}: {why}");
            assert!(!why.contains(KEY) && !why.contains("hush"), "{why}");
        }
    }

    #[test]
    fn a_secret_is_recognised_where_a_files_name_should_be() {
        assert!(is_secret(KEY));
        assert!(is_secret("HostName=h;DeviceId=d;SharedAccessKey=x"));
        assert!(!is_secret("keys/pump-7.key"));
        assert!(!is_secret("keys/pump7key"));
    }

    #[test]
    fn a_file_is_exposed_to_others_but_not_to_the_group_that_root_gave_it() {
        for (mode, owner, exposed) in [
            (0o400, 1000, false),
            (0o600, 0, false),
            (0o640, 0, false),
            (0o640, 1000, true),
            (0o604, 0, true),
            (0o644, 1000, true),
        ] {
            assert_eq!(is_exposed(0o100_000 | mode, owner), exposed, "{mode:o} {owner}");
        }
    }

    #[test]
    fn a_pem_file_must_hold_what_it_is_named_for() {
        let cert = "-----BEGIN CERTIFICATE-----\n";
        let key = "-----BEGIN EC PRIVATE KEY-----\r\n";
        for (text, wanted, fragment) in [
            (cert, Pem::PrivateKey, "name the private key"),
            (key, Pem::Certificate, "name the certificate"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----", Pem::PrivateKey, "openssl pkey"),
            ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED", Pem::PrivateKey, "openssl pkey"),
            ("\u{30}\u{82}", Pem::Certificate, "DER"),
            ("", Pem::PrivateKey, "no PEM"),
        ] {
            let why = pem_holds(text, wanted).unwrap_err();
            assert!(why.contains(fragment), "{text}: {why}");
        }
        assert_eq!(pem_holds(cert, Pem::Certificate), Ok(()));
        assert_eq!(pem_holds(key, Pem::PrivateKey), Ok(()));
        // The server's tools often put both into one file.
        assert_eq!(pem_holds(&format!("{cert}{key}"), Pem::Certificate), Ok(()));
    }
}
