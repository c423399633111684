//! The secrets of a configuration, and how they are taken out of what is to leave the machine.
//!
//! Invariant: whatever of a file with a secret could be read, no line of it is in what has been cleaned.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// What stands in the place of a secret.
const HIDDEN: &[u8] = b"[hidden]";
/// How secrets are looked up; what is shorter is looked for one by one.
const PREFIX: usize = 8;
/// Shorter than any that is worth hiding.
const SECRET_BYTES_MIN: usize = 4;
/// More than a key, a connection string or a private key has.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Behind these words a secret stands, whatever it is, up to a blank, a quote or a semicolon.
const MARKS: [&[u8]; 4] = [b"SharedAccessKey=", b"SharedAccessSignature ", b"sharedaccesskey=", b"&sig="];

/// Secrets to look for.
#[derive(Default)]
pub(super) struct Secrets {
    /// By their first bytes, the longest first.
    long: HashMap<[u8; PREFIX], Vec<Vec<u8>>>,
    short: Vec<Vec<u8>>,
}

impl Secrets {
    /// What stands in files with secrets, as far as they can be read, and texts that are secret themselves.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Path>, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets = Secrets::default();
        for file in files {
            let mut content = Vec::new();
            // One that can't be read here is not in what is gathered here.
            let opened = File::open(file).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut content));
            if opened.is_ok() {
                secrets.add_all(&String::from_utf8_lossy(&content));
            }
        }
        texts.into_iter().for_each(|text| secrets.add_all(text));
        secrets.long.values_mut().for_each(|all| all.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len())));
        secrets
    }

    /// The lines of a text, and the parts of those that have some.
    fn add_all(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("-----")) {
            self.add(line);
            if let Some((_, key)) = line.split_once("SharedAccessKey=") {
                self.add(key.split(';').next().unwrap_or_default());
            } else if let Some((_, password)) = line.split_once(':') {
                self.add(password);
            }
        }
    }

    fn add(&mut self, secret: &str) {
        let escaped = serde_json::Value::from(secret).to_string();
        // Without the quotes around it.
        let escaped = escaped.get(1..escaped.len() - 1).unwrap_or_default();
        for secret in [secret, escaped].map(str::as_bytes) {
            match secret.first_chunk::<PREFIX>() {
                Some(prefix) => {
                    let all = self.long.entry(*prefix).or_default();
                    if !all.iter().any(|other| other == secret) {
                        all.push(secret.to_vec());
                    }
                }
                None if secret.len() >= SECRET_BYTES_MIN => self.short.push(secret.to_vec()),
                None => {}
            }
        }
    }

    /// A text without them.
    pub(super) fn clean(&self, text: &[u8]) -> Vec<u8> {
        let mut cleaned = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(length) = self.begins(rest) {
                cleaned.extend_from_slice(HIDDEN);
                at += length;
            } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(mark)) {
                cleaned.extend_from_slice(mark);
                cleaned.extend_from_slice(HIDDEN);
                let behind = &rest[mark.len()..];
                let end = behind.iter().position(|byte| byte.is_ascii_whitespace() || b";\"'".contains(byte));
                at += mark.len() + end.unwrap_or(behind.len());
            } else {
                cleaned.push(text[at]);
                at += 1;
            }
        }
        cleaned
    }

    /// The length of a secret that a text begins with.
    fn begins(&self, text: &[u8]) -> Option<usize> {
        let is_here = |secret: &&Vec<u8>| text.starts_with(secret);
        let long = text.first_chunk().and_then(|prefix| self.long.get(prefix)?.iter().find(is_here));
        long.or_else(|| self.short.iter().find(is_here)).map(Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn cleaned(secrets: &Secrets, text: &str) -> String {
        String::from_utf8(secrets.clean(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_stands_in_the_files_is_taken_out_wherever_it_is_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = [
            file("key", &format!("{KEY}\n")),
            file("string", "HostName=h;DeviceId=d;SharedAccessKey=a2V5LW9mLXRoZS1kZXZpY2U="),
            file("proxy", "me:hush"),
            file("pem", "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n"),
            folder.path().join("missing"),
        ];
        let secrets = Secrets::of(files.iter().map(std::path::PathBuf::as_path), ["with \"quotes\""]);
        for secret in [KEY, "a2V5LW9mLXRoZS1kZXZpY2U=", "hush", "MIGHAgEAMBMGByqGSM49AgEG", "with \\\"quotes\\\""] {
            assert_eq!(cleaned(&secrets, &format!("x{secret}{secret}y")), "x[hidden][hidden]y");
        }
        let harmless = "-----BEGIN PRIVATE KEY----- of me: HostName=h; AAECAwQFBgcICQoLDA0O";
        assert_eq!(cleaned(&secrets, harmless), harmless);
    }

    #[test]
    fn what_stands_behind_the_words_of_the_hub_is_taken_out_though_nobody_knows_it() {
        let secrets = Secrets::default();
        assert_eq!(
            cleaned(
                &secrets,
                "HostName=h;SharedAccessKey=abc=;DeviceId=d \"SharedAccessSignature sr=h&sig=x%3d&se=1\" y"
            ),
            "HostName=h;SharedAccessKey=[hidden];DeviceId=d \"SharedAccessSignature [hidden]\" y"
        );
    }
}
