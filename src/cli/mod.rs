//! The command line: what each subcommand takes, does and prints. Data goes to standard output, messages to standard
//! error.

mod bundle;
mod bus;
mod check;
mod derive;
mod import;
mod ledger;
mod lock;
mod profile;
mod scan;
mod show;
mod status;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use serde_json::Value as Json;

use self::import::ImportAction;
use self::ledger::LedgerAction;
use self::profile::ProfileAction;
use self::show::ConfigAction;
#[cfg(feature = "backend")]
use crate::backend::{command_line as backend, run as back_end};
use crate::command::outcome::State;
use crate::config::{self, Fingerprints};
use crate::exit::Exit;
use crate::hub::transports;
use crate::log::throttle::EACH;
use crate::operate::admin::{client, Request};
use crate::operate::text;
use crate::{gateway, handles, log, setup, systemd};

/// Threads that look up host names, at most: one for each name that is being looked up, the hub's and those of buses.
const BLOCKING_THREADS_MAX: usize = 32;

/// Edge gateway: Azure IoT Hub cloud-to-device messages as commands on serial lines and Modbus.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// Main configuration file; drop-ins are looked for in `conf.d` beside it.
    #[arg(long, value_name = "PATH", default_value = "/etc/fieldbridge/fieldbridge.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    action: Action,
}

/// In which other format a status is printed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum StatusFormat {
    /// OpenMetrics, as Prometheus reads it.
    Prometheus,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the daemon in the foreground.
    ///
    /// Example: fieldbridge run --config ./fieldbridge.toml
    Run,
    /// Read the whole configuration and report every error, with file, line, column, key and remedy.
    ///
    /// Warnings and notes are printed too, and are no errors. With --live, also try everything that it names: serial
    /// ports, peripherals, the hub, each identity, the clock, certificates, files, room on the disk. One line each;
    /// nothing is written to a peripheral. Exit status 1 if anything fails. Example: fieldbridge check && systemctl
    /// restart fieldbridge
    Check {
        /// The main configuration file, as with --config.
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// Also try everything that the configuration names.
        #[arg(long)]
        live: bool,
        /// Print what was found as one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Write a first configuration: one bus, one device, one profile.
    ///
    /// What no option says is asked for, if there is a terminal: one thing at a time, each answer judged at once, and
    /// then line and hub are tried before anything is written, if you want that. The device's key is read from a file,
    /// or asked for without showing it. Nothing that was edited is overwritten. Example: fieldbridge init --host
    /// contoso.azure-devices.net --device pump-7 --modbus-tcp 10.0.0.12:502 --unit 7 --key-file pump-7.key
    Init(setup::Options),
    /// Add to the configuration what is in it already in another form.
    ///
    /// Example: fieldbridge add device pump-8 --bus line-a --unit 8 --profile pump --key-file pump-8.key
    Add {
        #[command(subcommand)]
        action: AddAction,
    },
    /// Show whether anything needs you, and what the running daemon sees: identities, buses, peripherals, ledger.
    ///
    /// What is wrong comes first, with what to do. Exit status 1 if something needs a person, but not with --json,
    /// where it stands in the member `attention`. With --format prometheus it tells its metrics, as [metrics] listen
    /// does to whoever scrapes them. Example: fieldbridge status --watch
    Status {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Show it again every two seconds, until Ctrl-C.
        #[arg(long)]
        watch: bool,
        /// Print it in another format.
        #[arg(long, value_enum, conflicts_with_all = ["json", "watch"])]
        format: Option<StatusFormat>,
    },
    /// Have the running daemon take up the configuration as it stands in the files now.
    ///
    /// What has errors changes nothing, and exit status 78 says so. What is good touches only what it changes.
    /// Example: fieldbridge reload
    Reload {
        /// Only say what would change, and what would be refused.
        #[arg(long)]
        dry_run: bool,
        /// Print what has changed as one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Have the running daemon's log say more, or less, until its next start.
    ///
    /// A level is off, error, warn, info, debug or trace, or a list by module. The environment variable FIELDBRIDGE_LOG
    /// says what a start begins with. Example: fieldbridge log-level info,fieldbridge::bus=debug
    LogLevel {
        /// The level.
        level: String,
    },
    /// Look into the ledger, beside the running daemon or without it.
    ///
    /// Example: fieldbridge ledger list --state in_doubt
    Ledger {
        #[command(subcommand)]
        action: LedgerAction,
    },
    /// Tell one command's story in plain words, with times, as far as the ledger knows it.
    ///
    /// When it came, what it waited behind, when it went on the wire, how that ended, when the hub was told and how,
    /// whether the hub has its event. What is not known, such as after a power cut, is said so. One argument is the
    /// number of a row, two are a device and a message's id. Exit status 1 if there is no such row.
    /// Example: fieldbridge explain pump-7 m-1
    Explain {
        /// Number of the row, or device id at the hub.
        #[arg(value_name = "ROW|DEVICE")]
        row_or_device: String,
        /// The message's id.
        #[arg(allow_hyphen_values = true, value_parser = ledger::message_id)]
        message_id: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Run a configured command now, through the running daemon's bus.
    ///
    /// Exit status 1 if the command did not succeed. Example: fieldbridge exec pump-7 set-speed 42.5
    Exec {
        /// Device id at the hub.
        device: String,
        /// Name of the command in the device's profile.
        command: String,
        /// Its value: JSON if it parses, else text.
        #[arg(allow_hyphen_values = true, value_parser = exec_value)]
        value: Option<String>,
        /// Run it also if the device is locked.
        #[arg(long = "override")]
        overrides: bool,
        /// Print the result as one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Lock a device while somebody works on its machine: nothing is written or sent to it until it is unlocked.
    ///
    /// What waits is rejected, with the code locked-out, and so is what comes; reads go on. An exchange that has begun
    /// before this command returns goes on to its end. The lock holds over reloads, restarts and crashes. It stands in
    /// the file `locks` beside the ledger, which this command writes itself if the daemon does not run. Exit status 1
    /// if the device is locked already, or if the lock can't be written; 75 if a daemon runs that can't be reached.
    /// Example: fieldbridge lock pump-7 --reason "seal is being replaced"
    Lock {
        /// Device id at the hub.
        device: String,
        /// What is being done, for whoever asks.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Print the lock as one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Unlock a device: what comes from now on is written to it again.
    ///
    /// What came before, and was not told yet that the device is locked, is rejected all the same. Exit status 1 if
    /// the device is not locked. Example: fieldbridge unlock pump-7
    Unlock {
        /// Device id at the hub.
        device: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Read what stands in a table of a device, through the running daemon or without it.
    ///
    /// It need not stand in the device's profile, and nothing is scaled. What one request does not move is read by
    /// several, between which commands may come. Nothing is written. Exit status 1 if the peripheral does not answer,
    /// or by an exception. Example: fieldbridge read pump-7 holding 0 4
    Read(bus::ReadOptions),
    /// Find the units of a Modbus bus that answer, through the running daemon or without it.
    ///
    /// Each is asked by one read of holding register 0, and an exception is an answer, too; but not one by which a
    /// gateway says that it does not reach the unit. A unit has the bus's `response_timeout` to answer, at most 500 ms.
    /// Between two units commands have their turn. Nothing is written. Exit status 1 if no unit answers. Example:
    /// fieldbridge scan line-a --units 1-20
    Scan(scan::ScanOptions),
    /// Show registers of a device as every type and order of bytes.
    ///
    /// A value that is known at the peripheral's own display tells which is right. The types of 16 bits are shown with
    /// their bytes as they come, and turned round (BADC). What is not a value of a type is shown as "-". Nothing is
    /// written. Exit status 1 if the peripheral does not answer, or by an exception. Example: fieldbridge decode pump-7
    /// holding 0
    Decode(bus::DecodeOptions),
    /// Show what goes over the line of a bus, decoded, a line each.
    ///
    /// Lines with > are sent, those with < have come. Where the daemon runs, what it sends and hears is shown, and the
    /// bus never waits for this: where too much goes over it some is left out, and how much is told. Where no daemon
    /// runs, a serial port is listened to, and nothing is sent; who speaks is told by what is said. Ctrl-C ends it.
    /// Example: fieldbridge watch line-a --pcap line-a.pcap
    Watch(watch::WatchOptions),
    /// Look at the profiles that come with the program.
    ///
    /// Example: fieldbridge profile list
    Profile {
        #[command(subcommand)]
        action: ProfileAction,
    },
    /// Look at the configuration itself.
    ///
    /// Example: fieldbridge config show --origin
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Pack into one file what somebody elsewhere needs to see of this gateway, without its secrets.
    ///
    /// Version, configuration with origins, `check`, `status`, the last rows of the ledger and those in doubt, the
    /// journal, the state of the service, what the kernel says of serial ports, disk and clock. Keys and passwords of
    /// the configuration are taken out; ids of devices, names of hosts, commands and their values are not. It needs no
    /// daemon. What could not be had, for want of permission or because it is not there, is told on standard error and
    /// in README.txt of the bundle: with sudo there is more. Exit status 1 if the file can't be written. Example:
    /// fieldbridge support-bundle --since 1d
    SupportBundle(bundle::Options),
    /// Print a JSON Schema of the configuration, for editors.
    ///
    /// The package has it, too: a line "#:schema /usr/share/fieldbridge/fieldbridge.schema.json" at the head of a file
    /// tells an editor that knows Taplo, such as Visual Studio Code with Even Better TOML, which then explains keys and
    /// completes them while you type. What only `check` can see is left to it. Example: fieldbridge schema >
    /// fieldbridge.schema.json
    Schema,
    /// Make a profile from what others have written of a peripheral.
    ///
    /// No such file says whether a write may be repeated: whoever knows the machine adds that to each, and `check`
    /// refuses the profile until then. What a profile can't say is listed, in it and on standard error. Exit status 1
    /// if nothing can be made of the file. Example: fieldbridge import edgex cold-store.yaml --output cold-store.toml
    Import {
        #[command(subcommand)]
        action: ImportAction,
    },
    /// Derive the keys of devices that enrol as a group with the Device Provisioning Service, on a PC.
    ///
    /// The group's key makes the key of every device of its group, so it never belongs on a gateway: derive keys where
    /// it is kept, and bring each gateway only the keys of its own devices. One line each, an id and its key. An id is
    /// taken as it is written, capitals too: `registration_id` in the configuration must be the same. Exit status 1 if
    /// the group's key can't be used. Example: fieldbridge derive-keys --group-key-file group.key pump-7 pump-8
    DeriveKeys(derive::Options),
    /// Send a message to a device, as its back end does.
    ///
    /// By the right of a shared access policy or of Microsoft Entra. With --wait, also wait for the hub's feedback;
    /// the feedback of other messages is given back. Exit status 0 says that the hub has the message; with --wait,
    /// that the gateway has settled it, and not that the command was done: that is in the result event. Exit status 1
    /// if the hub says no, or if the feedback is not Success or does not come in time; 75 if the hub can't be reached,
    /// or if nobody knows whether it has the message: send it again then, with --message-id and the same id. Example:
    /// fieldbridge send pump-7 set-speed 42.5 --connection-string-file service.connection --ttl 30s --wait
    #[cfg(feature = "backend")]
    Send(Box<backend::SendOptions>),
    /// Call a direct method of a device, as its back end does, and print the device's answer.
    ///
    /// The device has to be connected: nothing waits for it. To a device behind fieldbridge a method is a command, and
    /// its answer the result event. By the right of a shared access policy or of Microsoft Entra, and by HTTPS, which
    /// is all that the hub has for it: port 443, whatever --transport says. Exit status 0 if the device answers with
    /// 200, or with 202: it is not over yet, and the event follows; 1 with another status, or if the hub says no; 75 if
    /// the hub or the device can't be reached, or if nobody knows whether it was done: call again then, with the same
    /// --message-id. Example: fieldbridge call pump-7 set-speed 42.5 --message-id c-1 --connection-string-file
    /// service.connection
    #[cfg(feature = "backend")]
    Call(Box<backend::CallOptions>),
    /// Print what became of messages, as the hub says it, and take that from the hub's one queue.
    ///
    /// Whoever else waits for feedback does not get what is printed here. What can't be printed stays at the hub, and
    /// exit status 70 says so; what was printed just before that may come again. Example: fieldbridge feedback
    /// --follow --connection-string-file service.connection
    #[cfg(feature = "backend")]
    Feedback(Box<backend::FeedbackOptions>),
    /// Show the whole story on this machine, with no cloud and no hardware.
    ///
    /// Exit status 1 if anything was lost or repeated. Example: fieldbridge demo
    #[cfg(feature = "demo")]
    Demo(crate::demo::Options),
}

/// What can be added.
#[derive(Debug, Subcommand)]
enum AddAction {
    /// Add a device, in a file of its own in `conf.d`.
    ///
    /// What no option says is asked for, if there is a terminal; a bus need not be named where there is one. The
    /// device's key is read from a file, or asked for without showing it. The file gets its name when the whole
    /// configuration is good with it; exit status 78 with every error, and nothing changed, if it is not. Exit status 1
    /// if the device is there already. Example: fieldbridge add device pump-8 --unit 8 --profile pump --key-file
    /// pump-8.key && fieldbridge reload
    Device(setup::NewDevice),
}

/// Does what the command line says.
///
/// # Errors
/// Whatever keeps it from succeeding, with its exit status.
pub fn run(cli: Cli) -> Result<(), Exit> {
    let config = cli.config.as_path();
    match cli.action {
        Action::Run => run_daemon(config),
        Action::Check { file, live: false, json } => check::check(file.as_deref().unwrap_or(config), json),
        Action::Check { file, live: true, json } => check::check_live(file.as_deref().unwrap_or(config), json),
        Action::Init(options) => {
            systemd::seclude();
            setup::run(config, options, environment())
        }
        Action::Add { action: AddAction::Device(device) } => {
            systemd::seclude();
            setup::add_device(config, device, environment())
        }
        Action::Status { format: Some(StatusFormat::Prometheus), .. } => metrics(config),
        Action::Status { json, watch: false, format: None } => status::status(config, json),
        Action::Status { json, watch: true, format: None } => status::watch(config, json),
        Action::Reload { dry_run: false, json } => reload(config, json),
        Action::Reload { dry_run: true, json } => would_reload(config, json),
        Action::LogLevel { level } => log_level(config, level),
        Action::Ledger { action } => ledger::ledger(config, action),
        Action::Explain { row_or_device, message_id, json } => {
            ledger::explain(config, &row_or_device, message_id.as_deref(), json)
        }
        Action::Exec { device, command, value, overrides, json } => {
            let value = value.map(|text| serde_json::from_str(&text).unwrap_or(Json::String(text)));
            exec(config, &Request::Exec { device, command, value, overrides }, json)
        }
        Action::Lock { device, reason, json } => lock::lock(config, &device, reason.as_deref(), json),
        Action::Unlock { device, json } => lock::unlock(config, &device, json),
        Action::Read(options) => bus::read(config, &options),
        Action::Scan(options) => scan::run(config, &options),
        Action::Watch(options) => watch::run(config, &options),
        Action::Decode(options) => bus::decode(config, &options),
        Action::Profile { action } => profile::profile(action),
        Action::Config { action: ConfigAction::Show { origin, json } } => show::show(config, origin, json),
        Action::SupportBundle(options) => {
            systemd::seclude();
            bundle::run(config, &options)
        }
        Action::Schema => {
            print(&format!("{:#}", config::schema::schema()));
            Ok(())
        }
        Action::Import { action } => import::run(action),
        Action::DeriveKeys(options) => derive::run(&options),
        #[cfg(feature = "backend")]
        Action::Send(options) => at_the_hub(back_end::send(&options, put, print_error)),
        #[cfg(feature = "backend")]
        Action::Call(options) => at_the_hub(back_end::call(&options, put)),
        #[cfg(feature = "backend")]
        Action::Feedback(options) => at_the_hub(back_end::feedback(&options, put, print_error)),
        #[cfg(feature = "demo")]
        Action::Demo(options) => crate::demo::run(options),
    }
}

/// Does what a back end does.
#[cfg(feature = "backend")]
fn at_the_hub(work: impl std::future::Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    systemd::seclude();
    to_its_end(work)?
}

fn run_daemon(path: &Path) -> Result<(), Exit> {
    log::start();
    systemd::seclude();
    handles::raise();
    let files = gateway::Files::new(path.to_owned(), environment().collect());
    let loaded = config::load(path, environment()).map_err(Exit::Config)?;
    files.are_read(&loaded.files);
    loaded.notes.iter().for_each(|note| tracing::warn!(target: EACH, "{note}"));
    let config = loaded.config;
    let connections = transports::connections(config.devices.values());
    if let Some((what, remedy)) = handles::note(connections, config.other_handles(), handles::limit()) {
        tracing::warn!(target: EACH, "{what}; {remedy}");
    }
    to_its_end(async {
        let ended = gateway::run(config, files).await;
        log::end();
        ended
    })?
}

/// Does what needs a runtime.
fn to_its_end<T>(work: impl std::future::Future<Output = T>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| Exit::Internal(format!("no runtime: {error}")))?;
    let done = runtime.block_on(work);
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    Ok(done)
}

fn metrics(path: &Path) -> Result<(), Exit> {
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    let text = client::ask(&places.admin_socket, &Request::Metrics {})?;
    print(text.as_str().unwrap_or_default());
    Ok(())
}

fn reload(path: &Path, json: bool) -> Result<(), Exit> {
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    let changes = client::ask(&places.admin_socket, &Request::Reload {}).map_err(|exit| match exit {
        Exit::No(problems) => Exit::Setup(problems),
        other => other,
    })?;
    print(&if json { changes.to_string() } else { text::changes(&changes) });
    Ok(())
}

/// What a reload would change, by what the daemon says it runs on. Nothing is taken up.
fn would_reload(path: &Path, json: bool) -> Result<(), Exit> {
    let loaded = config::load(path, environment()).map_err(Exit::Config)?;
    gateway::trust(&loaded.config).map_err(Exit::Setup)?;
    let running = client::ask(&loaded.config.admin_socket, &Request::Running {})?;
    let running: Fingerprints = serde_json::from_value(running).map_err(|error| {
        let what = format!("the daemon is of another version, and does not say what it runs on ({error})");
        Exit::Surroundings(format!("{what}; `fieldbridge check --live` compares what can be"))
    })?;
    let changes = gateway::Changes::between(&running, &Fingerprints::of(&loaded.config));
    let mut document = changes.to_json(&loaded.notes);
    document["dryRun"] = true.into();
    document["summary"] = format!("a reload would tell: {changes}").into();
    print(&if json { document.to_string() } else { text::changes(&document) });
    Ok(())
}

fn log_level(path: &Path, level: String) -> Result<(), Exit> {
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    client::ask(&places.admin_socket, &Request::LogLevel { level: level.clone() })?;
    print(&format!("the daemon's log says {} until its next start", text::printable(&level)));
    Ok(())
}

/// A command's value. Some begin with a hyphen, such as `-ON`; one with two is a slip of the pen in an option.
fn exec_value(text: &str) -> Result<String, String> {
    match text.starts_with("--") {
        true => Err("there is no such option; a text that begins so is written as JSON: '\"--text\"'".into()),
        false => Ok(text.to_owned()),
    }
}

fn exec(path: &Path, request: &Request, json: bool) -> Result<(), Exit> {
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    let event = client::ask(&places.admin_socket, request)?;
    print(&if json { event.to_string() } else { text::result(&event) });
    match event["status"] == State::Succeeded.as_str() {
        true => Ok(()),
        false => Err(Exit::No(format!("the command did not succeed: {}", text::error(&event)))),
    }
}

/// The environment. What is not UTF-8 can't be one of our settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Writes to standard output. A reader that goes away early, like `head`, is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// The same where it matters whether it was written.
#[cfg(feature = "backend")]
fn put(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}

fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
