//! The text of a first configuration. Pure.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Parity;
use crate::config::schema;
use crate::config::shipped::Shipped;
use crate::config::show::quoted;
use crate::config::TransportKind;

/// The examples that are shipped, from which profiles are taken.
const EXAMPLES: [&str; 4] = [
    include_str!("../../config/examples/one-rtu-bus.toml"),
    include_str!("../../config/examples/two-buses.toml"),
    include_str!("../../config/examples/modbus-tcp.toml"),
    include_str!("../../config/examples/line-protocol.toml"),
];

/// A profile that can do no harm: it reads.
const READING: &str = r#"# What the hub may ask for: what stands here, and nothing else. Take addresses from the peripheral's manual.
[profile.first.command.read-first]
read = { table = "holding", address = 0 }

# A write. Whoever knows the machine says whether doing it twice is the same as doing it once.
# [profile.first.command.set-first]
# write = { table = "holding", address = 0 }
# range = [0, 100]
# idempotent = true
# verify = true                     # read back and compare
"#;
const READING_COMMAND: &str = "read-first";

/// Everything that a first configuration says.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) at: At,
    pub(super) transport: Option<TransportKind>,
    pub(super) proxy: Option<String>,
    pub(super) device: String,
    pub(super) bus: Bus,
    pub(super) unit: Option<u8>,
    pub(super) secret: Secret,
    pub(super) profile: Option<Profile>,
}

/// Which hub the device belongs to.
#[derive(Clone)]
pub(super) enum At {
    /// The one with this name.
    Hub(String),
    /// The one that the Device Provisioning Service assigns. Without a registration id the device's own is taken.
    Assigned { id_scope: String, registration_id: Option<String> },
}

/// How characters are made on a serial line. Without a number of stop bits the program's own is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Characters {
    pub(super) parity: Parity,
    pub(super) stop_bits: Option<u8>,
}

/// The one bus.
#[derive(Clone)]
pub(super) enum Bus {
    Serial { port: PathBuf, baud: u32, characters: Characters, speaks_text: bool },
    Tcp { address: String },
}

/// Where the device's secret is.
#[derive(Clone)]
pub(super) enum Secret {
    /// In this file.
    Key(PathBuf),
    /// In this file, as a connection string.
    ConnectionString(PathBuf),
    /// In a file that is made for it.
    NewKey,
}

/// A profile of the examples, or one that is shipped.
#[derive(Clone)]
pub(super) struct Profile {
    name: String,
    /// What is written of it; nothing of one that is shipped, which is found by its name.
    text: String,
    commands: Vec<String>,
    pub(super) speaks_text: bool,
    /// The keys of its bus that nobody is asked for: how characters and replies are made.
    line: String,
}

/// How a reply ends where a profile does not show its bus.
const DELIMITER: &str = "delimiter = \"\\r\\n\"                # how a reply ends\n";

/// The keys of the bus that a shipped profile shows at its head, but for those that are asked for.
fn line_of(text: &str) -> Option<String> {
    const ASKED: [&str; 4] = ["kind ", "port ", "baud ", "parity "];
    let shown = text.lines().map_while(|line| line.strip_prefix('#')).filter_map(|line| line.strip_prefix("   "));
    let keys = shown.skip_while(|line| *line != "[bus.line]").skip(1);
    let keys = keys.filter(|line| !ASKED.iter().any(|key| line.starts_with(key)));
    let keys: String = keys.map(|line| line.replace("[bus.line.", "[bus.line-a.") + "\n").collect();
    Some(keys).filter(|keys| !keys.is_empty())
}

/// The profile with this name: one of the examples', or one that is shipped.
pub(super) fn profile(name: &str, shipped: &Shipped) -> Result<Profile, String> {
    let head = format!("[profile.{name}.command.");
    let paragraphs: Vec<&str> =
        EXAMPLES.iter().flat_map(|example| example.split("\n\n")).filter(|text| of_profile(text, &head)).collect();
    let (text, is_shipped) = match paragraphs.is_empty() {
        false => (paragraphs.iter().fold(String::new(), |all, text| all + text.trim_end() + "\n\n"), false),
        true => match shipped.text(name) {
            Ok(Some(text)) => (text, true),
            Ok(None) => {
                let known: Vec<String> = names().into_iter().map(str::to_owned).chain(shipped.names()).collect();
                return Err(format!("there is no profile {name:?}; there are: {}", known.join(", ")));
            }
            Err(error) => return Err(format!("the profile {name:?} can't be read: {error}")),
        },
    };
    let commands = text.lines().filter_map(|line| line.strip_prefix(&head)?.strip_suffix(']'));
    let commands = commands.map(str::to_owned).collect();
    let speaks_text = text.lines().any(|line| line.starts_with("send"));
    let line = line_of(&text).unwrap_or_else(|| DELIMITER.to_owned());
    let text = if is_shipped { String::new() } else { text.trim_end().to_owned() + "\n" };
    Ok(Profile { name: name.to_owned(), commands, speaks_text, line, text })
}

fn of_profile(paragraph: &str, head: &str) -> bool {
    paragraph.lines().any(|line| line.starts_with(head))
}

/// The names of all profiles of the examples.
fn names() -> Vec<&'static str> {
    let lines = EXAMPLES.iter().flat_map(|example| example.lines());
    let mut names: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("[profile.")?.split_once(".command."))
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of all profiles that speak lines of text.
pub(super) fn names_of_text(shipped: &Shipped) -> Vec<String> {
    let all = names().into_iter().map(str::to_owned).chain(shipped.names());
    all.filter(|name| profile(name, shipped).is_ok_and(|profile| profile.speaks_text)).collect()
}

impl Bus {
    /// Where it is: a port, or an address.
    pub(super) fn place(&self) -> String {
        match self {
            Bus::Serial { port, .. } => port.display().to_string(),
            Bus::Tcp { address } => address.clone(),
        }
    }
}

impl Draft {
    /// With nothing wrong in it, to put one answer into.
    pub(super) fn to_judge_by() -> Draft {
        Draft {
            at: At::Hub("hub.example".into()),
            transport: None,
            proxy: None,
            device: "device".into(),
            bus: Bus::Tcp { address: "localhost:502".into() },
            unit: Some(1),
            secret: Secret::NewKey,
            profile: None,
        }
    }

    /// The command that is to be tried first: one that reads, if there is one.
    pub(super) fn first_command(&self) -> String {
        let commands = self.profile.as_ref().map(|profile| &profile.commands[..]).unwrap_or_default();
        match (commands.iter().find(|command| command.starts_with("read")), commands.first()) {
            (Some(read), _) => read.clone(),
            (None, Some(first)) => format!("{first} VALUE"),
            (None, None) => READING_COMMAND.to_owned(),
        }
    }

    /// Where a new key goes, relative to the configuration.
    pub(super) fn key_file(&self) -> String {
        format!("keys/{}.key", self.device)
    }

    /// The sections that say which hub it is, and how it is reached.
    fn hub(&self) -> String {
        let mut out = match &self.at {
            At::Hub(host) => format!("[hub]\nhost = {}\n", quoted(host)),
            At::Assigned { id_scope, .. } => {
                let about = "# The Device Provisioning Service says which hub the device belongs to.";
                format!("{about}\n[provisioning]\nid_scope = {}\n", quoted(id_scope))
            }
        };
        if matches!(self.at, At::Assigned { .. }) && (self.transport.is_some() || self.proxy.is_some()) {
            out.push_str("\n[hub]\n");
        }
        if let Some(transport) = self.transport {
            let _ = writeln!(out, "transport = \"{transport}\"");
        }
        if let Some(proxy) = &self.proxy {
            let _ = writeln!(out, "proxy = {}", quoted(proxy));
        }
        out.push('\n');
        out
    }

    /// The configuration, for a file in this folder.
    pub(super) fn text(&self, folder: &Path) -> String {
        let about = "# The configuration of fieldbridge. fieldbridge.reference.toml explains every key.";
        let mut out = format!("{}\n{about}\n\n", schema::LINE);
        out.push_str(&self.hub());
        match &self.bus {
            Bus::Tcp { address } => {
                let _ = writeln!(out, "[bus.line-a]\nkind = \"modbus-tcp\"\naddress = {}\n", quoted(address));
            }
            Bus::Serial { port, baud, characters: Characters { parity, stop_bits }, speaks_text } => {
                let kind = if *speaks_text { "serial" } else { "modbus-rtu" };
                let port = quoted(&port.display().to_string());
                let parity = parity.as_str();
                let _ = writeln!(
                    out,
                    "[bus.line-a]\nkind = \"{kind}\"\nport = {port}\nbaud = {baud}\nparity = \"{parity}\""
                );
                if let Some(stop_bits) = stop_bits {
                    let _ = writeln!(out, "stop_bits = {stop_bits}");
                }
                let line = self.profile.as_ref().filter(|_| *speaks_text).map(|profile| &*profile.line);
                out.push_str(line.unwrap_or_default());
                out.push('\n');
            }
        }
        let _ = writeln!(out, "# The device's id at the hub.\n[device.{}]\nbus = \"line-a\"", quoted(&self.device));
        if let Some(unit) = self.unit {
            let _ = writeln!(out, "unit = {unit}");
        }
        let (key, file) = match &self.secret {
            Secret::Key(file) => ("key_file", shown(file, folder)),
            Secret::ConnectionString(file) => ("connection_string_file", shown(file, folder)),
            Secret::NewKey => ("key_file", self.key_file()),
        };
        if let At::Assigned { registration_id: Some(id), .. } = &self.at {
            let _ = writeln!(out, "registration_id = {}", quoted(id));
        }
        let name = self.profile.as_ref().map_or("first", |profile| &profile.name);
        let _ = writeln!(out, "profile = {}\n{key} = {}\n", quoted(name), quoted(&file));
        out.push_str(self.profile.as_ref().map_or(READING, |profile| &profile.text));
        out.truncate(out.trim_end().len());
        out + "\n"
    }
}

/// A file below the configuration's folder moves with it.
pub(super) fn shown(file: &Path, folder: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_the_examples_is_found_with_its_comments() {
        let nothing = Shipped::of(&[("FIELDBRIDGE_PROFILES".into(), "/nowhere".into())]);
        assert_eq!(names(), ["boiler", "chiller", "heat-meter", "pump", "scale", "valve"]);
        for name in names() {
            let profile = profile(name, &nothing).unwrap_or_else(|why| panic!("{why}"));
            assert!(
                !profile.commands.is_empty() && !profile.text.contains("[bus") && !profile.text.contains("[device")
            );
            assert_eq!(profile.speaks_text, name == "scale");
        }
        let pump = profile("pump", &nothing).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(pump.commands, ["set-speed", "read-speed", "reset"]);
        assert!(pump.text.starts_with("# Percent of the nominal speed"), "{}", pump.text);
        let why = profile("pumpe", &nothing).err().expect("there is none");
        assert!(why.contains("heat-meter, pump"), "{why}");
    }

    #[test]
    fn a_profile_that_is_shipped_is_named_and_not_written() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/profiles");
        let shipped = Shipped::of(&[("FIELDBRIDGE_PROFILES".into(), folder.into())]);
        let relays = profile("waveshare-relays", &shipped).unwrap_or_else(|why| panic!("{why}"));
        assert!(relays.text.is_empty() && !relays.speaks_text, "{}", relays.text);
        assert!(relays.commands.contains(&"read-relays".to_owned()), "{:?}", relays.commands);
        assert!(profile("mt-sics", &shipped).is_ok_and(|scale| scale.speaks_text));
    }

    #[test]
    fn what_a_person_types_stays_one_value() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
        assert_eq!(shown(Path::new("/etc/f/keys/a"), Path::new("/etc/f")), "keys/a");
        assert_eq!(shown(Path::new("/root/a"), Path::new("/etc/f")), "/root/a");
    }
}
