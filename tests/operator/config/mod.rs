//! The configuration as its user meets it: files in, a configuration or every problem out.

mod check;
mod commands;
mod defaults;
mod edges;
mod files;
mod mistakes;
mod pems;
mod polls;
mod provisioning;
mod reference;
mod schema;
mod show;
mod sources;
mod wrong;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fieldbridge::config::{load, Loaded, Problem};
use tempfile::TempDir;

/// A device key, base64.
pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// A certificate.
pub const CERTIFICATE: &str = pems::OWN;
/// Its private key.
pub const PRIVATE_KEY: &str = pems::OWN_KEY;

/// A whole configuration in which nothing is wrong and nothing suspicious.
pub const GOOD: &str = r#"
[hub]
host = "contoso.azure-devices.net"

[bus.line-a]
kind = "modbus-rtu"
port = "/dev/test/line-a"
baud = 19200

[bus.plant]
kind = "modbus-tcp"
address = "10.0.0.12:502"

[bus.scale-port]
kind = "serial"
port = "/dev/test/scale"
baud = 9600

[device.pump-7]
bus = "line-a"
unit = 7
profile = "pump"
key_file = "keys/good.key"

[device.pump-8]
bus = "plant"
unit = 8
profile = "pump"
key_file = "keys/good.key"

[device.scale]
bus = "scale-port"
profile = "scale"
key_file = "keys/good.key"

[profile.pump.command.set-speed]
write = { table = "holding", address = 0, scale = 0.1 }
range = [0, 100]
idempotent = true

[profile.pump.command.read-speed]
read = { table = "holding", address = 0, scale = 0.1 }

[profile.scale.command.tare]
send = "T\r\n"
idempotent = false
"#;

/// A folder with a configuration in it.
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// The good configuration, and the key that it names.
    pub fn good() -> Self {
        let site = Site::empty();
        site.write("fieldbridge.toml", GOOD);
        site.write("keys/good.key", KEY);
        site
    }

    /// Nothing.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Site { folder }
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.chmod(name, 0o600);
    }

    /// Sets a file's permissions.
    pub fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Loads without an environment.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        self.load_with(&[])
    }

    /// Loads with an environment.
    pub fn load_with(&self, environment: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
        let pairs = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        load(&self.path("fieldbridge.toml"), pairs)
    }

    /// Loads what must be without problems.
    pub fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{}", lines(&problems)))
    }

    /// Loads what must have problems.
    pub fn problems(&self) -> Vec<Problem> {
        match self.load() {
            Ok(loaded) => panic!("accepted: {:?}", loaded.config),
            Err(problems) => problems,
        }
    }
}

/// One line a problem, as `check` prints them.
pub fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The name of a problem's file, without its folder.
pub fn file_of(problem: &Problem) -> &str {
    let name = Path::new(&problem.source).file_name().unwrap();
    name.to_str().unwrap()
}
