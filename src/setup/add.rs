//! `add device`: one more device, in a file of its own in `conf.d`. It gets its name only when the whole configuration
//! is good with it, and nothing that is there is changed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::dialogue;
use super::place::{is_plain, write_key, CONFIGURATION_MODE};
use super::question::{self, Asking};
use super::text::shown;
use super::{absolute, transport};
use crate::config::show::quoted;
use crate::config::{self, key_path, schema, BusKind, Config, Loaded, Problem, TransportKind};
use crate::exit::Exit;

/// What the options say of a new device; the rest is asked for.
#[derive(Debug, Args)]
pub struct NewDevice {
    /// The device's id at the hub.
    id: String,
    /// The bus that its peripheral is on, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    bus: Option<String>,
    /// Modbus unit id that the peripheral is set to.
    #[arg(long, value_name = "N")]
    unit: Option<u8>,
    /// What the hub may command: a profile of the configuration, or one that `profile list` shows.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// How its messages come, if not as those of other devices: mqtt, mqtt-ws, amqp, amqp-ws or https.
    #[arg(long, value_name = "NAME", value_parser = transport)]
    transport: Option<TransportKind>,
    /// File with the device's key in base64; - reads the key from standard input.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["connection_string_file", "cert_file"])]
    key_file: Option<PathBuf>,
    /// File with the device's connection string.
    #[arg(long, value_name = "PATH", conflicts_with = "cert_file")]
    connection_string_file: Option<PathBuf>,
    /// File with the device's certificate.
    #[arg(long, value_name = "PATH", requires = "cert_key_file")]
    cert_file: Option<PathBuf>,
    /// File with the certificate's private key.
    #[arg(long, value_name = "PATH", requires = "cert_file")]
    cert_key_file: Option<PathBuf>,
}

/// Adds a device.
///
/// # Errors
/// [`Exit::Config`] if the configuration has errors, before or with it; [`Exit::No`] if the device or its file is there
/// already, or can't be written; [`Exit::Usage`] if an answer is missing.
pub fn device(
    main: &Path,
    device: NewDevice,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), Exit> {
    let environment: Vec<(String, String)> = environment.into_iter().collect();
    let Loaded { config, origins, .. } = config::load(main, environment.iter().cloned()).map_err(Exit::Config)?;
    let id = device.id.clone();
    if config.devices.contains_key(&id) {
        let at = origins.of(&key_path(&["device", &id]));
        let at = at.map_or_else(String::new, |(file, place)| format!(" ({file}:{})", place.line));
        return Err(Exit::No(format!("device {id:?} is configured already{at}; edit it there")));
    }
    let main = std::path::absolute(main).map_err(|error| Exit::No(format!("{}: {error}", main.display())))?;
    let folder = main.parent().unwrap_or(Path::new("/")).to_owned();
    let place = Place { file: folder.join("conf.d").join(format!("{}.toml", file_name(&id))), folder };
    if place.file.exists() {
        return Err(Exit::No(format!("{} is there already; move it away, or edit it", place.file.display())));
    }
    let asking = Asking::new();
    let (text, key) = described(&asking, device, &config, &place.folder).map_err(Exit::Usage)?;
    let written = place.write(&main, &id, &text, key.as_deref(), environment)?;
    let written: String = written.iter().map(|path| format!("wrote {}\n", path.display())).collect();
    let option = match main == Path::new("/etc/fieldbridge/fieldbridge.toml") {
        true => String::new(),
        false => format!(" --config {}", main.display()),
    };
    question::say(&format!(
        "{written}Next:\n  fieldbridge check --live{option}  # do its peripheral and the hub answer?\n  \
         fieldbridge reload{option}  # have the running daemon take it up\n"
    ));
    Ok(())
}

/// The table of the device, and its key where that is to be written.
fn described(
    asking: &Asking,
    device: NewDevice,
    config: &Config,
    folder: &Path,
) -> Result<(String, Option<String>), String> {
    let id = &device.id;
    let names: Vec<&str> = config.buses.keys().map(String::as_str).collect();
    let only = if let [only] = names.as_slice() { Some(*only) } else { None };
    let bus = asking.text("--bus", device.bus, &format!("Bus, one of {}", names.join(", ")), only)?;
    let on_modbus = config.buses.get(&bus).is_none_or(|bus| !matches!(bus.kind, BusKind::Serial { .. }));
    let unit = match (device.unit, on_modbus) {
        (Some(unit), _) => Some(unit),
        (None, true) => {
            let unit = asking.text("--unit", None, "Modbus unit id that the peripheral is set to", None)?;
            Some(unit.parse().map_err(|_| format!("{unit:?} is not a unit id; they are 0 to 255"))?)
        }
        (None, false) => None,
    };
    let question = "Profile, of the configuration or as `fieldbridge profile list` shows them";
    let profile = asking.text("--profile", device.profile, question, None)?;
    let path = |file: &Path| absolute(file).map(|file| quoted(&shown(&file, folder)));
    let (credential, key) = match (device.connection_string_file, device.cert_file, device.cert_key_file) {
        (Some(file), ..) => (format!("connection_string_file = {}", path(&file)?), None),
        (None, Some(cert), Some(key)) => {
            (format!("cert_file = {}\ncert_key_file = {}", path(&cert)?, path(&key)?), None)
        }
        _ => {
            let new = || format!("key_file = {}", quoted(&key_file(id)));
            match device.key_file {
                Some(file) if file == Path::new("-") => (new(), Some(question::standard_input()?)),
                Some(file) => (format!("key_file = {}", path(&file)?), None),
                None => (new(), Some(dialogue::key(asking)?)),
            }
        }
    };
    let mut text = format!("{}\n[{}]\nbus = {}\n", schema::LINE, key_path(&["device", id]), quoted(&bus));
    text += &unit.map(|unit| format!("unit = {unit}\n")).unwrap_or_default();
    text += &format!("profile = {}\n", quoted(&profile));
    text += &device.transport.map(|transport| format!("transport = \"{transport}\"\n")).unwrap_or_default();
    Ok((text + &credential + "\n", key))
}

fn key_file(id: &str) -> String {
    format!("keys/{}.key", file_name(id))
}

/// The name of a file after a device: what a name may not hold is an underline.
fn file_name(id: &str) -> String {
    let plain = |c: char| if is_plain(&c.to_string()) || c == '.' { c } else { '_' };
    id.chars().map(plain).collect::<String>().trim_start_matches('.').to_owned()
}

/// Where the device goes.
struct Place {
    file: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// Writes table and key, if the configuration is good with them. Returns what was made.
    fn write(
        &self,
        main: &Path,
        id: &str,
        text: &str,
        key: Option<&str>,
        environment: Vec<(String, String)>,
    ) -> Result<Vec<PathBuf>, Exit> {
        let trouble = |path: &Path, error: &io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "; run this with sudo",
                io::ErrorKind::AlreadyExists => "; move it away, or name it by --key-file",
                _ => "",
            };
            Exit::No(format!("{} can't be written: {error}{hint}", path.display()))
        };
        let mut made = Vec::new();
        if let Some(key) = key {
            let path = self.folder.join(key_file(id));
            write_key(&path, key).map_err(|error| trouble(&path, &error))?;
            made.push(path);
        }
        let done = self.write_table(main, text, environment).map_err(|failed| match failed {
            Failed::Io(error) => trouble(&self.file, &error),
            Failed::Wrong(problems) => Exit::Config(problems),
        });
        if let Err(exit) = done {
            made.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(exit);
        }
        made.push(self.file.clone());
        Ok(made)
    }

    fn write_table(&self, main: &Path, text: &str, environment: Vec<(String, String)>) -> Result<(), Failed> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        // It is no part of the configuration under this name, and can't be taken for one that was forgotten.
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let new = folder.join(format!(".{name}.new"));
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let done = done.and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(CONFIGURATION_MODE)));
        let named = done.map_err(Failed::Io).and_then(|()| {
            config::load_adding(main, &new, environment).map_err(|problems| {
                let own = |mut problem: Problem| {
                    if problem.source == new.display().to_string() {
                        problem.source = self.file.display().to_string();
                    }
                    problem
                };
                Failed::Wrong(problems.into_iter().map(own).collect())
            })?;
            // A link is refused where a name has been given meanwhile; renaming would overwrite.
            Ok(fs::hard_link(&new, &self.file)?)
        });
        let _ = fs::remove_file(&new);
        named
    }
}

enum Failed {
    Io(io::Error),
    Wrong(Vec<Problem>),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_device_whatever_that_is_called() {
        assert_eq!(file_name("pump-7"), "pump-7");
        assert_eq!(file_name("Pump.7"), "Pump.7");
        assert_eq!(file_name("../x(1)"), "_x_1_");
    }
}
