//! `init`: a first configuration, from options or answers; `add device`: one more device. What they write is checked as
//! `check` would before it gets its name, and nothing that a person has written is overwritten.
//!
//! Invariant: a key is taken from a file, from standard input or from a prompt that does not show it, and is written to
//! a file of its own. It is in no option and in no configuration.

mod add;
mod place;
mod question;
mod reachable;
mod text;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::config::shipped::Shipped;
use crate::config::{proxy_address, TransportKind};
use crate::doctor::{names_that_stay, BY_ID};
use crate::exit::Exit;
pub use add::{device as add_device, NewDevice};
use place::Place;
use question::Asking;
use text::{Bus, Draft, Secret};

/// What the options say; the rest is asked for.
#[derive(Debug, Args)]
pub struct Options {
    /// Host name of the hub, such as contoso.azure-devices.net.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The device's id at the hub.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// How messages come: mqtt, mqtt-ws, amqp, amqp-ws or https. Without it a person is asked where only port 443 is
    /// open.
    #[arg(long, value_name = "NAME", value_parser = transport)]
    transport: Option<TransportKind>,
    /// HTTP proxy to go through, such as http://proxy:3128.
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
pub fn run(main: &Path, options: Options) -> Result<(), Exit> {
    let output = options.output.clone().unwrap_or_else(|| main.to_owned());
    let place = Place::free(&output).map_err(Exit::No)?;
    let asking = Asking::new();
    let (draft, secret) = answers(&asking, options).map_err(Exit::Usage)?;
    let written = place.write(&draft, secret)?;
    question::say(&next_steps(&draft, &output, &written, main));
    Ok(())
}

fn answers(asking: &Asking, options: Options) -> Result<(Draft, Option<String>), String> {
    let shipped = Shipped::of_this_process();
    let profile = options.profile.as_deref().map(|name| text::profile(name, &shipped)).transpose()?;
    let speaks_text = profile.as_ref().is_some_and(|profile| profile.speaks_text);
    let host = asking.text("--host", options.host, "Host name of the hub, such as contoso.azure-devices.net", None)?;
    let transport = match options.transport {
        // What a proxy reaches can't be seen from here.
        None if options.proxy.is_none() && asking.is_somebody_there() => reachable::proposal(&host)
            .map(|proposal| {
                let question = "Port 8883 of the hub can't be reached from here, and 443 can. Transport";
                transport(&asking.text("--transport", None, question, Some(proposal.as_str()))?)
            })
            .transpose()?,
        given => given,
    };
    let proxy = options.proxy;
    // Before anything is written: it may hold a password.
    proxy.as_deref().map_or(Ok(String::new()), proxy_address).map_err(|why| format!("--proxy {why}"))?;
    let device = asking.text("--device", options.device, "Device id at the hub", None)?;
    let bus = match options.modbus_tcp {
        Some(_) if speaks_text => return Err("this profile speaks lines of text, on a serial port; give --port".into()),
        Some(address) => Bus::Tcp { address },
        None => {
            let ports = names_that_stay(Path::new(BY_ID));
            let port = asking.port(options.port, &ports)?;
            let baud = asking.number("--baud", options.baud, "Bits a second", 19200)?;
            Bus::Serial { port, baud, parity: options.parity.unwrap_or(Parity::Even), speaks_text }
        }
    };
    let unit = match speaks_text {
        true => None,
        false => Some(asking.number("--unit", options.unit, "Modbus unit id", 1)?),
    };
    let (secret, content) = match (options.connection_string_file, options.key_file) {
        (Some(file), _) => (Secret::ConnectionString(absolute(&file)?), None),
        (None, Some(file)) if file == Path::new("-") => (Secret::NewKey, Some(question::standard_input()?)),
        (None, Some(file)) => (Secret::Key(absolute(&file)?), None),
        (None, None) => (Secret::NewKey, Some(asking.secret("--key-file", "Device key, base64 (it is not shown)")?)),
    };
    Ok((Draft { host, transport, proxy, device, bus, unit, secret, profile }, content))
}

/// A transport by its name.
fn transport(name: &str) -> Result<TransportKind, String> {
    let known = TransportKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    known.ok_or_else(|| format!("{name:?} is none of {}", TransportKind::ALL.map(TransportKind::as_str).join(", ")))
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
