//! What must hold for any configuration, and for whatever stands in the files that it names.

use std::path::Path;

use super::load::load;
use super::secret::{parse_connection_string, parse_key};
use super::syntax;
use crate::certificate::parts::Parts;
use crate::certificate::pem;
use crate::proof::bytes::Source;

/// Stands in a secret, and nowhere else.
const CANARY: &str = "qZ7Jw2Kx9VtB5nYd8RmH3pLc6GfS4aEu";

/// A key, a connection string and a PEM file are understood or refused, no refusal repeats any part of them, and a
/// connection string that is written is the one that is read. A certificate has parts that stand in it, or a reason.
pub fn credential(bytes: &[u8]) {
    a_certificate(bytes);
    let mut source = Source::new(bytes);
    let at = source.u8();
    let text = String::from_utf8_lossy(source.rest()).into_owned();
    let mut split = usize::from(at).min(text.len());
    while !text.is_char_boundary(split) {
        split -= 1;
    }
    let (before, after) = text.split_at(split);
    for text in [text.clone(), format!("{before}{CANARY}{after}")] {
        let refusals = [
            parse_key(text.trim()).err(),
            parse_connection_string(text.trim()).err(),
            pem::blocks(text.as_bytes()).err(),
        ];
        let syntax = syntax::parse("x.toml", &text).err().unwrap_or_default();
        for why in refusals.iter().flatten().chain(syntax.iter().map(|error| &error.why)) {
            assert!(!why.what.is_empty() && why.to_string().len() < 300 && !why.remedy.is_empty(), "{why}");
        }
        for why in refusals.iter().flatten() {
            assert!(!why.to_string().contains(&CANARY[..6]), "{why}");
        }
        if let Ok(parsed) = parse_connection_string(text.trim()) {
            let gateway = parsed.gateway.as_ref().map(|name| format!(";gatewayHostName={name}")).unwrap_or_default();
            let written = format!(
                "SharedAccessKey={};DEVICEID={};hostname={}{gateway}",
                base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &parsed.key),
                parsed.device,
                parsed.host
            );
            let again = parse_connection_string(&written).expect("what was read can be written");
            assert!(again == parsed, "{} of {}", parsed.device, parsed.host);
        }
    }
}

fn a_certificate(bytes: &[u8]) {
    let in_blocks = pem::blocks(bytes).unwrap_or_default();
    for der in in_blocks.iter().map(|block| &block.der[..]).chain([bytes]) {
        match Parts::of(der) {
            Err(why) => assert!(!why.is_empty() && why.len() < 300 && !why.contains(char::is_control), "{why:?}"),
            Ok(parts) => {
                for part in [&parts.subject, &parts.issuer, &parts.public_key] {
                    assert!(der.windows(part.len()).any(|window| window == part), "{}", part.escape_ascii());
                }
            }
        }
    }
}

/// A configuration can be run or is refused with reasons, the same each time; none of them shows what stands in the
/// key file or looks like a key.
pub fn toml(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let key = match source.u8() % 4 {
        0 => format!("{CANARY}AAECAwQFBgcICQoLDA=="),
        1 => format!("HostName=contoso.azure-devices.net;DeviceId=pump-7;SharedAccessKey={CANARY}"),
        2 => format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n"),
        _ => format!("{CANARY}\u{FF}"),
    };
    let environment = [("FIELDBRIDGE__HUB__HOST".to_owned(), source.text(60))];
    let environment = source.flag().then_some(environment).into_iter().flatten();
    // Memory: a disk would be worn out by it.
    let shared = Path::new("/dev/shm");
    let folder = match shared.is_dir() {
        true => tempfile::tempdir_in(shared),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder can be made");
    let (main, key_file) = (folder.path().join("fieldbridge.toml"), folder.path().join("pump.key"));
    std::fs::write(&key_file, key).expect("a file can be written");
    std::fs::write(&main, source.rest()).expect("a file can be written");
    let shown = |loaded: Result<super::Loaded, Vec<super::Problem>>| match loaded {
        Ok(loaded) => {
            assert!(loaded.config.devices.values().all(|device| loaded.config.buses.contains_key(&device.bus)));
            format!("{loaded:?}")
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().map(|problem| format!("{problem}\n")).collect()
        }
    };
    let first = shown(load(&main, environment.clone()));
    assert!(!first.contains(&CANARY[..6]), "{first}");
    assert_eq!(first, shown(load(&main, environment)));
}
