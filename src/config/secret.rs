//! What stands in the file of a key or of a connection string, and what is wrong with it. Pure.
//!
//! Invariant: no message repeats any part of what stands there.

use std::ops::RangeInclusive;

use crate::complaint::Complaint;
use base64::prelude::{Engine as _, BASE64_STANDARD};

/// The lengths of a device key that the hub takes, in bytes.
const KEY_BYTES: RangeInclusive<usize> = 16..=64;
/// Those of the keys that the hub makes itself.
const USUAL_KEY_BYTES: [usize; 2] = [32, 64];
/// What a key is copied from.
const COPY_KEY: &str = "copy the device's primary key from the hub into the file, and nothing else";
const COPY_STRING: &str = "copy the device's primary connection string from the hub into the file, and nothing else";

/// A device's connection string, checked.
#[derive(PartialEq, Eq)]
pub(super) struct ConnectionString {
    pub host: String,
    /// An IoT Edge gateway, lower case.
    pub gateway: Option<String>,
    pub device: String,
    pub key: Vec<u8>,
}

/// The text of a file, whose ends don't count.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Complaint> {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) || looks_wide(bytes) {
        return Err(Complaint::new("is text in UTF-16", "save it as plain text (UTF-8 without a BOM)"));
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Complaint::new(
            "begins with a byte order mark (BOM), as Windows editors write it",
            "save it as UTF-8 without BOM",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Complaint::new("is not text", "is it the right file?"))?;
    if text.contains('\0') {
        return Err(Complaint::new("is not text: it holds zero bytes", "is it the right file, and is its disk sound?"));
    }
    Ok(text.trim())
}

/// ASCII in two bytes a character, without a mark.
fn looks_wide(bytes: &[u8]) -> bool {
    let pairs = bytes.chunks_exact(2);
    bytes.len() >= 8
        && (pairs.clone().all(|pair| pair[0] != 0 && pair[1] == 0) || pairs.clone().all(|pair| pair[0] == 0))
        && pairs.clone().any(|pair| pair != [0, 0])
}

/// A device key, decoded from base64. The error is a sentence without subject, with what to do.
pub(super) fn parse_key(text: &str) -> Result<Vec<u8>, Complaint> {
    if text.is_empty() {
        return Err(Complaint::new("is empty", COPY_KEY));
    }
    let key = BASE64_STANDARD.decode(text).map_err(|_| no_key(text))?;
    if key.is_empty() {
        return Err(Complaint::new("is empty", COPY_KEY));
    }
    Ok(key)
}

/// What is suspicious about the length of a key, if anything.
pub(super) fn odd_length(key: &[u8]) -> Option<Complaint> {
    let length = key.len();
    if !KEY_BYTES.contains(&length) {
        return Some(Complaint::new(
            format!("holds a key of {length} bytes, and the hub's have 16 to 64"),
            "is it the whole key?",
        ));
    }
    let is_usual = USUAL_KEY_BYTES.contains(&length);
    (!is_usual).then(|| {
        Complaint::new(
            format!("holds a key of {length} bytes, and those that the hub makes have 32 or 64"),
            "is it the whole key?",
        )
    })
}

/// What is wrong with text that is no base64, as a sentence with what to do.
fn no_key(text: &str) -> Complaint {
    if let Some(what) = of_another_kind(text) {
        return what;
    }
    if let Some(what) = wrapped(text) {
        return Complaint::new(what, COPY_KEY);
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let body = text.trim_end_matches('=');
    if text.lines().filter(|line| !line.trim().is_empty()).count() > 1 {
        match text.chars().all(|c| is_base64(c) || c.is_whitespace()) {
            true => {
                Complaint::new("holds more than one line", "a key stands on one line, and alone: join or choose them")
            }
            false => Complaint::new("holds more than one line", "put only the key into it, without comments"),
        }
    } else if text.ends_with([';', ',']) {
        Complaint::new("holds a ; or , behind the key", "remove it")
    } else if is_named(text) {
        Complaint::new("holds a name and = before the key", "remove both, so that the key stands alone")
    } else if text.contains('%') {
        Complaint::new(
            "holds a key in the form that it has in a URL (%2B, %2F, %3D)",
            "copy it as it stands at the hub",
        )
    } else if text.starts_with(['<', '[', '{', '$', '#']) || text.contains("...") || text.contains('…') {
        Complaint::new("holds something that stands for a key, and no key", "put the key itself into it")
    } else if text.contains(char::is_whitespace) {
        Complaint::new("holds blanks within the key, or words", "put only the key into it, as it stands at the hub")
    } else if body.chars().any(|c| c == '-' || c == '_') && body.chars().all(|c| is_base64(c) || "-_".contains(c)) {
        Complaint::new(
            "holds base64 in the form for URLs (- and _ in place of + and /)",
            "copy the key as it stands at the hub",
        )
    } else if text.chars().all(is_base64) && !body.contains('=') {
        Complaint::new(
            format!("is cut short, or has too much: it holds {} characters, and base64 comes in fours", text.len()),
            COPY_KEY,
        )
    } else {
        Complaint::new("holds no base64 text", COPY_KEY)
    }
}

/// Something else that the hub or a tool gives out.
fn of_another_kind(text: &str) -> Option<Complaint> {
    let lower = text.to_lowercase();
    if lower.contains("-----begin") {
        Some(Complaint::new(
            "holds PEM text, not a device key",
            "if it is the key of a certificate, name it as cert_key_file",
        ))
    } else if lower.contains("sharedaccesssignature") {
        Some(Complaint::new("holds a signature, which expires", "put the device's primary key into the file"))
    } else if lower.contains("hostname=") || lower.contains("sharedaccesskey=") || lower.contains("deviceid=") {
        Some(Complaint::new("holds a connection string", "name it as connection_string_file instead"))
    } else {
        None
    }
}

/// What stands around it: quotes, or JSON.
fn wrapped(text: &str) -> Option<&'static str> {
    let quotes = ['"', '\'', '“', '”', '„', '‘', '’', '«', '»', '`'];
    if text.starts_with('{') || (text.starts_with('[') && text.contains('"')) {
        Some("holds JSON")
    } else if text.starts_with(quotes) || text.ends_with(quotes) {
        Some("stands in quotes, or has one at an end")
    } else {
        None
    }
}

/// Whether a name stands before the value: `KEY=…`, `key: …`, `export KEY=…`.
fn is_named(text: &str) -> bool {
    let name = |name: &str| {
        let name = name.trim().trim_start_matches("export ").trim_matches(['"', '\'']);
        !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-. ".contains(c))
    };
    let has_value = |value: &str| !value.trim_start_matches('=').trim().is_empty();
    let by = |sign| text.split_once(sign).is_some_and(|(before, value)| name(before) && has_value(value));
    by('=') || by(':')
}

/// What a proxy asks for: `user:password`.
pub(super) fn proxy_credentials(text: &str) -> Result<String, Complaint> {
    const WRITE: &str = "write user:password into it, and nothing else";
    if text.is_empty() {
        return Err(Complaint::new("is empty", WRITE));
    }
    if text.lines().count() > 1 {
        return Err(Complaint::new("holds more than one line", WRITE));
    }
    if text.chars().any(char::is_control) {
        return Err(Complaint::new("holds a control character", WRITE));
    }
    match text.split_once(':') {
        // A user's name can't hold a colon (RFC 7617, 2); a password may, and be empty.
        Some((user, _)) if !user.is_empty() => Ok(text.to_owned()),
        _ => Err(Complaint::new("holds no user before a colon", WRITE)),
    }
}

/// Reads `HostName=…;DeviceId=…;SharedAccessKey=…`.
pub(super) fn parse_connection_string(text: &str) -> Result<ConnectionString, Complaint> {
    if let Some(why) = no_string(text) {
        return Err(why);
    }
    let (mut host, mut gateway, mut device, mut key) = (None, None, None, None);
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        // The key ends in `=` itself.
        let Some((name, value)) = part.split_once('=') else {
            return Err(Complaint::new("holds a part that is not NAME=VALUE", COPY_STRING));
        };
        let slot = match name.trim().to_ascii_lowercase().as_str() {
            "hostname" => &mut host,
            "gatewayhostname" => &mut gateway,
            "deviceid" => &mut device,
            "sharedaccesskey" => &mut key,
            other => return Err(other_part(other)),
        };
        if slot.replace(value.trim()).is_some() {
            return Err(Complaint::new("holds a part twice", COPY_STRING));
        }
    }
    let part = |value: Option<&str>, name: &str| match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(Complaint::new(format!("holds no {name}, so it may be cut short"), COPY_STRING)),
    };
    let key = part(key, "SharedAccessKey")?;
    Ok(ConnectionString {
        host: part(host, "HostName")?.to_lowercase(),
        gateway: gateway.map(str::to_lowercase).filter(|name| !name.is_empty()),
        device: part(device, "DeviceId")?,
        key: BASE64_STANDARD.decode(&key).map_err(|_| {
            Complaint::new("holds no base64 text as SharedAccessKey, so it may be cut short or changed", COPY_STRING)
        })?,
    })
}

/// What is wrong with a file that should hold a connection string, seen as a whole.
fn no_string(text: &str) -> Option<Complaint> {
    if text.is_empty() {
        return Some(Complaint::new("is empty", COPY_STRING));
    }
    if let Some(what) = wrapped(text) {
        return Some(Complaint::new(what, COPY_STRING));
    }
    if text.to_lowercase().contains("-----begin") {
        return Some(Complaint::new("holds PEM text", "name a certificate as cert_file, and its key as cert_key_file"));
    }
    if text.lines().filter(|line| !line.trim().is_empty()).count() > 1 {
        return Some(Complaint::new("holds more than one line", COPY_STRING));
    }
    if BASE64_STANDARD.decode(text).is_ok_and(|key| key.len() >= *KEY_BYTES.start()) {
        return Some(Complaint::new("holds a bare key", "name it as key_file instead"));
    }
    let (first, rest) = text.split_once('=')?;
    let is_string = |text: &str| {
        let lower = text.trim().trim_start_matches(['"', '\'']).to_lowercase();
        ["hostname=", "deviceid=", "sharedaccesskey"].iter().any(|name| lower.starts_with(name))
    };
    let is_named = !is_string(text) && is_string(rest) && !first.contains(';');
    is_named.then(|| {
        Complaint::new("holds a name and = before the string", "remove both, so that it begins with HostName=")
    })
}

/// A part of a connection string that is none of a device's own.
fn other_part(name: &str) -> Complaint {
    match name {
        "sharedaccesskeyname" => {
            Complaint::new("is the connection string of a service, which could command every device", COPY_STRING)
        }
        "sharedaccesssignature" => Complaint::new("holds a signature, which expires", COPY_STRING),
        "moduleid" => Complaint::new("is the connection string of a module", COPY_STRING),
        "x509" => Complaint::new("says that the device has a certificate", "use cert_file and cert_key_file instead"),
        "endpoint" => Complaint::new("is the connection string of an endpoint for events", COPY_STRING),
        _ => Complaint::new("holds a part that is neither HostName, DeviceId nor SharedAccessKey", COPY_STRING),
    }
}

/// Whether text that stands for a file's name is more likely a secret.
pub(super) fn is_secret(text: &str) -> bool {
    text.contains("SharedAccessKey=") || BASE64_STANDARD.decode(text).is_ok_and(|key| key.len() >= 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn a_connection_string_is_taken_apart_and_so_are_a_proxys_credentials() {
        for text in [
            format!("HostName=Contoso.azure-devices.net;DeviceId=pump-7;SharedAccessKey={KEY}"),
            format!("SharedAccessKey={KEY} ; deviceid=pump-7;hostname=contoso.azure-devices.net;"),
        ] {
            let parsed = parse_connection_string(&text).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(parsed.host, "contoso.azure-devices.net");
            assert_eq!(parsed.device, "pump-7");
            assert_eq!(parsed.key, (0..32).collect::<Vec<u8>>());
            assert_eq!(parsed.gateway, None);
        }
        let behind = format!("HostName=h;DeviceId=d;GatewayHostName=Edge.Plant;SharedAccessKey={KEY}");
        assert_eq!(parse_connection_string(&behind).unwrap().gateway.as_deref(), Some("edge.plant"));
        assert_eq!(proxy_credentials("user:pass:word").as_deref(), Ok("user:pass:word"));
        for text in ["", "user", ":password", "user:a\nuser:b", "user:\u{7}"] {
            let why = proxy_credentials(text).unwrap_err().to_string();
            assert!(why.contains("user:password") && !why.contains("\u{7}"), "{why}");
        }
    }

    #[test]
    fn a_wrong_connection_string_is_told_why_and_never_shown() {
        let good = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
        for (text, fragment) in [
            ("".to_owned(), "is empty"),
            ("HostName=h;DeviceId=d".to_owned(), "no SharedAccessKey"),
            (format!("DeviceId=d;SharedAccessKey={KEY}"), "no HostName"),
            (format!("HostName=h;SharedAccessKey={KEY}"), "no DeviceId"),
            (format!("HostName=h;DeviceId=;SharedAccessKey={KEY}"), "no DeviceId"),
            (format!("HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"), "service"),
            (format!("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey={KEY}"), "module"),
            ("HostName=h;DeviceId=d;x509=true".to_owned(), "cert_file"),
            ("HostName=h;DeviceId=d;SharedAccessSignature=sr".to_owned(), "expires"),
            (format!("HostName=h;HostName=i;DeviceId=d;SharedAccessKey={KEY}"), "twice"),
            ("HostName=h;DeviceId=d;SharedAccessKey=hush hush".to_owned(), "no base64"),
            (good[..good.len() - 3].to_owned(), "cut short"),
            (good[..20].to_owned(), "cut short"),
            (format!("{KEY};b"), "neither"),
            ("hush".to_owned(), "NAME=VALUE"),
            (format!("\"{good}\""), "in quotes"),
            (format!("'{good}'"), "in quotes"),
            (format!("{{\"connectionString\": \"{good}\"}}"), "JSON"),
            (format!("CONNECTION_STRING={good}"), "a name and ="),
            (format!("export CS='{good}'"), "in quotes"),
            (KEY.to_owned(), "key_file"),
            (format!("{good}\n{good}"), "more than one line"),
            (format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n"), "PEM"),
        ] {
            let Err(why) = parse_connection_string(&text) else {
                panic!("accepted: {text}");
            };
            let why = why.to_string();
            assert!(why.contains(fragment) && why.contains("; "), "{text}: {why}");
            assert!(!why.contains(KEY) && !why.contains("hush"), "{why}");
        }
    }

    #[test]
    fn a_sign_that_a_sentence_speaks_of_does_not_end_it() {
        let told = Complaint::new("holds a ; or , behind the key", "remove it");
        assert_eq!(parse_key(&format!("{KEY};")), Err(told));
    }

    #[test]
    fn a_wrong_key_is_told_why_and_never_shown() {
        let url = KEY.replace('=', "%3D");
        for (text, fragment) in [
            (String::new(), "is empty"),
            (format!("\"{KEY}\""), "in quotes"),
            (format!("'{KEY}'"), "in quotes"),
            (format!("“{KEY}”"), "in quotes"),
            (format!("{{\"primaryKey\": \"{KEY}\"}}"), "JSON"),
            (format!("[\"{KEY}\"]"), "JSON"),
            (format!("KEY={KEY}"), "a name and ="),
            (format!("key = {KEY}"), "a name and ="),
            (format!("primaryKey: {KEY}"), "a name and ="),
            (format!("export DEVICE_KEY={KEY}"), "a name and ="),
            (KEY[..43].to_owned(), "cut short"),
            (KEY[..41].to_owned(), "cut short"),
            (format!("{KEY}\n{KEY}"), "more than one line"),
            (format!("# the key\n{KEY}"), "more than one line"),
            (url, "%2B"),
            (KEY.replace('A', "_"), "form for URLs"),
            (format!("{KEY};"), "behind the key"),
            ("<paste the key here>".to_owned(), "stands for a key"),
            (format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}"), "connection_string_file"),
            (format!("SharedAccessKey={KEY}"), "connection_string_file"),
            ("SharedAccessSignature sr=x".to_owned(), "expires"),
            (format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----"), "cert_key_file"),
            ("hush hush".to_owned(), "blanks"),
            ("hush!".to_owned(), "no base64"),
        ] {
            let why = parse_key(&text).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains(fragment) && why.contains("; "), "{text}: {why}");
            assert!(!why.contains(&KEY[..8]) && !why.contains("hush"), "{why}");
        }
    }

    #[test]
    fn what_is_no_plain_text_is_told_what_it_is() {
        let wide: Vec<u8> = KEY.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, fragment) in [
            ([b"\xFF\xFE", wide.as_slice()].concat(), "UTF-16"),
            (wide, "UTF-16"),
            ([b"\xEF\xBB\xBF", KEY.as_bytes()].concat(), "BOM"),
            (b"\xff\xff\x00".to_vec(), "not text"),
            (vec![0; 44], "zero bytes"),
        ] {
            let why = text(&bytes).unwrap_err().to_string();
            assert!(why.contains(fragment) && why.contains("; "), "{why}");
        }
        assert_eq!(text(b" a\r\n"), Ok("a"));
    }

    #[test]
    fn a_key_of_an_odd_length_is_noted() {
        for (length, odd) in [(8, true), (16, true), (30, true), (32, false), (48, true), (64, false), (65, true)] {
            assert_eq!(odd_length(&vec![0; length]).is_some(), odd, "{length}");
        }
    }

    #[test]
    fn a_secret_is_recognised_where_a_files_name_should_be() {
        assert!(is_secret(KEY));
        assert!(is_secret("HostName=h;DeviceId=d;SharedAccessKey=x"));
        assert!(!is_secret("keys/pump-7.key"));
        assert!(!is_secret("keys/pump7key"));
    }
}
