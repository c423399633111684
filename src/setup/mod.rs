//! `init`: a first configuration, from options or answers, which a person can try before it is written; `add device`:
//! one more device. What they write is checked as `check` would before it gets its name, and nothing that a person has
//! written is overwritten.
//!
//! Invariant: a key is taken from a file, from standard input or from a prompt that does not show it, and is written to
//! a file of its own. It is in no option and in no configuration.

mod add;
mod dialogue;
mod place;
mod question;
mod reachable;
mod text;
mod trial;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::config::shipped::Shipped;
use crate::config::{proxy_address, TransportKind};
use crate::exit::Exit;
pub use add::{device as add_device, NewDevice};
use dialogue::{Hub, Line};
use place::Place;
use question::Asking;
use text::{At, Draft, Secret};

/// What the options say; the rest is asked for.
#[derive(Debug, Args)]
pub struct Options {
    /// Host name of the hub, such as contoso.azure-devices.net.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// ID Scope of the Device Provisioning Service that assigns the device to its hub, in place of a hub's name.
    #[arg(long, value_name = "SCOPE", conflicts_with_all = ["host", "connection_string_file"])]
    id_scope: Option<String>,
    /// The device's id at the hub.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Its id in the enrollment, if that is another one.
    #[arg(long, value_name = "ID", requires = "id_scope", conflicts_with_all = ["host", "connection_string_file"])]
    registration_id: Option<String>,
    /// How messages come: mqtt, mqtt-ws, amqp, amqp-ws or https. Without it a person is asked where only port 443 is
    /// open.
    #[arg(long, value_name = "NAME", value_parser = transport)]
    transport: Option<TransportKind>,
    /// HTTP proxy to go through, such as http://proxy:3128. Without it a person is asked where neither port is
    /// open.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Serial port of the bus; best one from /dev/serial/by-id.
    #[arg(long, value_name = "PATH", conflicts_with = "modbus_tcp")]
    port: Option<PathBuf>,
    /// Modbus TCP server, in place of a serial port.
    #[arg(long, value_name = "HOST:PORT")]
    modbus_tcp: Option<String>,
    /// Bits a second on the serial port.
    #[arg(long, value_name = "N", conflicts_with = "modbus_tcp")]
    baud: Option<u32>,
    /// Parity on the serial port.
    #[arg(long, value_enum, conflicts_with = "modbus_tcp")]
    parity: Option<Parity>,
    /// Modbus unit id that the peripheral is set to.
    #[arg(long, value_name = "N")]
    unit: Option<u8>,
    /// File with the device's key in base64; - reads the key from standard input.
    #[arg(long, value_name = "PATH", conflicts_with = "connection_string_file")]
    key_file: Option<PathBuf>,
    /// File with the device's connection string.
    #[arg(long, value_name = "PATH")]
    connection_string_file: Option<PathBuf>,
    /// Take this profile of the examples, or of those that are shipped, in place of one that only reads a register.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Where to write the configuration, in place of the main configuration file.
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Parity, by its name in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even parity, as the Modbus specification has it.
    Even,
    /// Odd parity.
    Odd,
}

impl Parity {
    fn as_str(self) -> &'static str {
        match self {
            Parity::None => "none",
            Parity::Even => "even",
            Parity::Odd => "odd",
        }
    }
}

/// Writes a first configuration.
///
/// # Errors
/// [`Exit::Usage`] if an answer is missing, [`Exit::No`] if something is there already, [`Exit::Config`] if the
/// answers make no configuration.
pub fn run(main: &Path, options: Options, environment: impl IntoIterator<Item = (String, String)>) -> Result<(), Exit> {
    let output = options.output.clone().unwrap_or_else(|| main.to_owned());
    let place = Place::free(&output).map_err(Exit::No)?;
    let (asking, shipped) = (Asking::new(), Shipped::of_this_process());
    let (mut draft, mut secret) = answers(&asking, options, &shipped).map_err(Exit::Usage)?;
    if asking.is_somebody_there() {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        dialogue::try_out(&asking, &mut draft, &mut secret, &shipped, &environment).map_err(Exit::Usage)?;
    }
    let written = place.write(&draft, secret)?;
    question::say(&next_steps(&draft, &output, &written, main));
    Ok(())
}

fn answers(asking: &Asking, options: Options, shipped: &Shipped) -> Result<(Draft, Option<String>), String> {
    let mut profile = options.profile.as_deref().map(|name| text::profile(name, shipped)).transpose()?;
    let Options { host, id_scope, registration_id, .. } = options;
    let is_told = registration_id.is_some();
    let at = dialogue::at(asking, Hub { host, id_scope, registration_id }, None)?;
    let known = match &at {
        At::Hub(host) => Some(host.as_str()),
        At::Assigned { .. } => None,
    };
    let transport = match options.transport {
        // What a proxy reaches can't be seen from here.
        None if options.proxy.is_none() && asking.is_somebody_there() => known
            .and_then(reachable::proposal)
            .map(|proposal| {
                let question = "Port 8883 of the hub can't be reached from here, and 443 can. Transport";
                let wrong = |name: &str| transport(name).err();
                transport(&asking.judged("--transport", None, question, Some(proposal.as_str()), wrong)?)
            })
            .transpose()?,
        given => given,
    };
    let (transport, proxy) = match (transport, options.proxy) {
        (None, None) if asking.is_somebody_there() => {
            known.map_or(Ok((None, None)), |host| reachable::by_proxy(asking, host))?
        }
        told => told,
    };
    // Before anything is written: it may hold a password.
    proxy.as_deref().map_or(Ok(String::new()), proxy_address).map_err(|why| format!("--proxy {why}"))?;
    let types_key = options.connection_string_file.is_none() && options.key_file.is_none();
    let device = dialogue::device(asking, options.device, None, types_key)?;
    let at = if is_told { at } else { dialogue::registration(asking, at, &device)? };
    let Options { port, modbus_tcp, baud, parity, unit, .. } = options;
    let line = Line { port, modbus_tcp, baud, parity, unit };
    let (bus, unit) = dialogue::bus(asking, line, &mut profile, shipped, None)?;
    let (secret, content) = match (options.connection_string_file, options.key_file) {
        (Some(file), _) => (Secret::ConnectionString(absolute(&file)?), None),
        (None, Some(file)) if file == Path::new("-") => (Secret::NewKey, Some(question::standard_input()?)),
        (None, Some(file)) => (Secret::Key(absolute(&file)?), None),
        (None, None) => (Secret::NewKey, Some(dialogue::key(asking)?)),
    };
    Ok((Draft { at, transport, proxy, device, bus, unit, secret, profile }, content))
}

/// A transport by its name.
fn transport(name: &str) -> Result<TransportKind, String> {
    let known = TransportKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    known.ok_or_else(|| format!("{name:?} is not one of {}", TransportKind::ALL.map(TransportKind::as_str).join(", ")))
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// What to type next.
fn next_steps(draft: &Draft, output: &Path, written: &[PathBuf], main: &Path) -> String {
    let option = match output == main && main == Path::new("/etc/fieldbridge/fieldbridge.toml") {
        true => String::new(),
        false => format!(" --config {}", output.display()),
    };
    let written: Vec<String> = written.iter().map(|path| format!("wrote {}\n", path.display())).collect();
    let device = &draft.device;
    let command = draft.first_command();
    let steps = [
        (format!("fieldbridge check{option}"), "is it right?"),
        (format!("fieldbridge check --live{option}"), "do port, peripheral and hub answer?"),
        ("systemctl enable --now fieldbridge".to_owned(), "start it"),
        (format!("fieldbridge exec {device} {command}{option}"), "a first command, from here"),
    ];
    let width = steps.iter().map(|(step, _)| step.len()).max().unwrap_or(0);
    let steps: Vec<String> = steps.iter().map(|(step, why)| format!("  {step:width$}  # {why}\n")).collect();
    format!("{}Next:\n{}", written.concat(), steps.concat())
}
