//! `fieldbridge support-bundle`: what somebody elsewhere needs to see of a gateway, in one file and without a secret.
//!
//! It is made of what other commands print, so that nothing stands in it that a person could not have looked at, and
//! nothing that goes wrong in one of them is in the way of the rest.
//!
//! Invariants
//! - No secret of the configuration that this process could read leaves it: every part is cleaned before it is packed.
//! - At most [`TOTAL_BYTES_MAX`] are packed, whatever the parts hold, and no part is waited for without an end.

mod archive;
mod said;
mod secrets;

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::archive::Archive;
use self::said::said;
use self::secrets::Secrets;
use super::{environment, print, print_error};
use crate::config::{self, show};
use crate::exit::Exit;
use crate::provisioning::book;
use crate::time::Timestamp;

/// Bytes that are packed at most, before they are compressed.
const TOTAL_BYTES_MAX: usize = 20 << 20;
/// Of the journal.
const JOURNAL_BYTES_MAX: usize = 10 << 20;
/// Of any other part.
const PART_BYTES_MAX: usize = 2 << 20;
/// Lines of the journal that are asked for.
const JOURNAL_LINES_MAX: u32 = 100_000;
/// Rows of the ledger: the last, and those in doubt.
const ROWS: &str = "1000";
/// Entries of a folder of devices that are listed.
const LISTED_MAX: usize = 200;
/// What lines of the kernel have that are about a serial port.
const OF_PORTS: [&str; 9] = ["tty", "usb", "serial", "uart", "ftdi", "cp210", "ch34", "pl2303", "cdc_acm"];

/// What is to be gathered, and where it goes.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// How far back the journal goes.
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = humantime::parse_duration)]
    since: Duration,
    /// The file to write. Without it, one in this folder that is named after the time.
    #[arg(long, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
}

/// A file of the bundle.
struct Part {
    name: &'static str,
    about: &'static str,
    from: Source,
    most: usize,
    /// Which lines are kept.
    keeps: fn(&str) -> bool,
}

/// Where a part comes from.
enum Source {
    /// The first of these programs that has something to say.
    Programs(Vec<(String, Vec<String>)>),
    Look(fn() -> String),
    File(PathBuf),
}

impl Part {
    fn new(name: &'static str, about: &'static str, from: Source) -> Part {
        Part { name, about, from, most: PART_BYTES_MAX, keeps: |_| true }
    }
}

/// What came of a part.
struct Gathered {
    content: Vec<u8>,
    /// What is to be known of it; empty where nothing is.
    remarks: Vec<String>,
}

/// Writes a bundle.
///
/// # Errors
/// [`Exit::No`] if the file is there already or can't be written. What can't be gathered is no error.
pub(super) fn run(main: &Path, options: &Options) -> Result<(), Exit> {
    let now = Timestamp::now();
    let name = format!("fieldbridge-support-{}", in_a_name(now));
    let path = options.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let shown = show::show(main, environment());
    let secrets =
        Secrets::of(shown.secret_files.iter().map(PathBuf::as_path), shown.secrets.iter().map(String::as_str));
    let cannot = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "name another by --output",
            _ => "name a place where you may write by --output",
        };
        Exit::No(format!("{} can't be written: {error}; {hint}", path.display()))
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
    let mut archive = Archive::new(file, &name, u64::try_from(now.as_secs()).unwrap_or_default());
    let packed = pack(&mut archive, parts(main, options.since), &secrets, now);
    let done = packed.and_then(|remarks| archive.end()?.sync_all().map(|()| remarks));
    let remarks = done.map_err(|error| {
        // Half a bundle is none.
        let _ = fs::remove_file(&path);
        cannot(error)
    })?;
    remarks.iter().for_each(|remark| print_error(remark));
    print(&format!("wrote {}", path.display()));
    Ok(())
}

/// Gathers and packs every part. Returns what is to be known of them.
fn pack(
    archive: &mut Archive<fs::File>,
    parts: Vec<Part>,
    secrets: &Secrets,
    now: Timestamp,
) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    let mut contents = format!(
        "What fieldbridge {} was and did, as it was at {now}.\n\nKeys and passwords of the configuration are taken out. \
         Ids of devices, names of hosts, commands and their values are not.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut room = TOTAL_BYTES_MAX;
    for part in parts {
        let (name, about) = (part.name, part.about);
        let gathered = gather(part, room);
        let content = secrets.clean(&gathered.content);
        room = room.saturating_sub(content.len());
        archive.add(name, &content)?;
        contents += &format!("{name}: {about}\n");
        for remark in gathered.remarks {
            let remark = String::from_utf8_lossy(&secrets.clean(remark.as_bytes())).into_owned();
            contents += &format!("    {}\n", remark.replace('\n', "\n    "));
            all.push(format!("{name}: {remark}"));
        }
    }
    archive.add("README.txt", contents.as_bytes())?;
    Ok(all)
}

/// What the bundle is made of.
fn parts(main: &Path, since: Duration) -> Vec<Part> {
    let ours = |args: &[&str]| {
        let program = std::env::current_exe().map_or_else(|_| "fieldbridge".into(), |path| path.display().to_string());
        let config = ["--config".to_owned(), main.display().to_string()];
        Source::Programs(vec![(program, args.iter().map(ToString::to_string).chain(config).collect())])
    };
    let back = format!("--since=-{}s", since.as_secs());
    let lines = format!("--lines={JOURNAL_LINES_MAX}");
    let folder = config::places(main, environment()).ok().and_then(|places| Some(places.ledger.parent()?.to_owned()));
    let folder = folder.unwrap_or_else(|| PathBuf::from("/var/lib/fieldbridge"));
    let assigned = book::path_beside(&folder.join("ledger.db"));
    let folder = folder.display().to_string();
    let journal = ["--unit=fieldbridge.service", &back, &lines, "--output=short-iso-precise", "--no-pager", "--all"];
    let kernel = ["--dmesg", "--lines=20000", "--no-pager"];
    let unit = "fieldbridge.service";
    vec![
        Part::new("version.txt", "the program", ours(&["--version"])),
        Part::new("config.toml", "`config show --origin`", ours(&["config", "show", "--origin"])),
        Part::new("check.json", "`check --json`", ours(&["check", "--json"])),
        Part::new("status.json", "`status --json`", ours(&["status", "--json"])),
        Part::new("provisioning.json", "which hub each device was assigned to", Source::File(assigned)),
        Part::new(
            "ledger-last.jsonl",
            "the last rows of the ledger",
            ours(&["ledger", "list", "--json", "--limit", ROWS]),
        ),
        Part::new(
            "ledger-in-doubt.jsonl",
            "the rows in doubt",
            ours(&["ledger", "list", "--json", "--state", "in_doubt", "--limit", ROWS]),
        ),
        Part {
            most: JOURNAL_BYTES_MAX,
            ..Part::new("journal.txt", "the journal of the service", programs(&[("journalctl", &journal)]))
        },
        Part {
            // What stands in the environment of a service may be a secret of anything's.
            keeps: |line| !line.trim_start().starts_with("Environment="),
            ..Part::new(
                "unit.txt",
                "the state of the service",
                programs(&[("systemctl", &["show", "--no-pager", unit])]),
            )
        },
        Part {
            keeps: |line| !line.trim_start().starts_with("Environment="),
            ..Part::new("unit-files.txt", "its files", programs(&[("systemctl", &["cat", "--no-pager", unit])]))
        },
        Part {
            keeps: is_of_ports,
            ..Part::new(
                "kernel.txt",
                "what the kernel says of serial ports",
                programs(&[("dmesg", &["--time-format=iso"]), ("journalctl", &kernel)]),
            )
        },
        Part::new("serial.txt", "the serial ports that there are", Source::Look(serial_ports)),
        Part::new("disk.txt", "room on the disk", programs(&[("df", &["-h", "-T", "--", &folder, "/", "/var"])])),
        Part::new("inodes.txt", "room for files", programs(&[("df", &["-i", "--", &folder, "/", "/var"])])),
        Part::new("clock.txt", "the clock", programs(&[("timedatectl", &["--no-pager"])])),
        Part::new("system.txt", "the machine", Source::Look(system)),
    ]
}

fn programs(all: &[(&str, &[&str])]) -> Source {
    let owned =
        |(program, args): &(&str, &[&str])| ((*program).to_owned(), args.iter().map(ToString::to_string).collect());
    Source::Programs(all.iter().map(owned).collect())
}

fn gather(part: Part, room: usize) -> Gathered {
    let most = part.most.min(room);
    let mut gathered = Gathered { content: Vec::new(), remarks: Vec::new() };
    match part.from {
        Source::Look(look) => gathered.content = look().into_bytes(),
        Source::File(path) => match beginning(&path, most) {
            Ok(content) => gathered.content = content,
            // Most gateways have no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => gathered.remarks.push(format!("{} can't be read: {error}", path.display())),
        },
        Source::Programs(programs) => {
            for (program, args) in programs {
                match said(&program, &args, most) {
                    Ok(told) => {
                        if told.is_cut {
                            gathered.remarks.push(format!("only its last {most} bytes are here"));
                        }
                        if !told.complaint.is_empty() {
                            gathered.remarks.push(told.complaint);
                        }
                        gathered.content = told.output;
                    }
                    Err(why) => gathered.remarks.push(format!("could not be had: {why}")),
                }
                if !gathered.content.is_empty() {
                    break;
                }
            }
        }
    }
    let text = String::from_utf8_lossy(&gathered.content);
    let kept: String = text.split_inclusive('\n').filter(|line| (part.keeps)(line)).collect();
    gathered.content = kept.into_bytes();
    gathered.content.truncate(most);
    gathered
}

/// What a file begins with.
fn beginning(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(most as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// A time as a part of a file's name: `20261122T100000Z`.
fn in_a_name(time: Timestamp) -> String {
    let text = time.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    whole.chars().filter(|c| c.is_ascii_alphanumeric()).chain(['Z']).collect()
}

fn is_of_ports(line: &str) -> bool {
    let line = line.to_lowercase();
    OF_PORTS.iter().any(|word| line.contains(word))
}

/// The serial ports, under their names that stay and under their own, with who may use them.
fn serial_ports() -> String {
    let mut out = String::new();
    for folder in ["/dev/serial/by-id", "/dev/serial/by-path"] {
        out += &format!("{folder}\n");
        for path in listed(Path::new(folder)) {
            let leads_to =
                fs::canonicalize(&path).map_or_else(|error| error.to_string(), |to| to.display().to_string());
            out += &format!("    {} -> {leads_to}\n", path.display());
        }
    }
    out += "/dev\n";
    let is_port = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("tty").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase() || c == 'm'))
    };
    for path in listed(Path::new("/dev")).iter().filter(|path| is_port(path)) {
        let Ok(found) = fs::metadata(path) else { continue };
        let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
        out += &format!("    {}  mode {mode:04o}, user {uid}, group {gid}\n", path.display());
    }
    out
}

/// What stands in a folder, in the order of the names.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    let is_tty = |path: &PathBuf| path.to_string_lossy().contains("tty") || folder != Path::new("/dev");
    paths.into_iter().filter(is_tty).take(LISTED_MAX).collect()
}

/// What the machine says of itself.
fn system() -> String {
    let files = ["/etc/os-release", "/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/mounts"];
    let of = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_else(|error| format!("can't be read: {error}\n"));
        format!("{file}\n{text}\n")
    };
    files.map(of).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_named_after_the_second() {
        let name = in_a_name(Timestamp::now());
        assert_eq!(name.len(), "20261122T100000Z".len());
        assert!(name.ends_with('Z') && name.contains('T'), "{name}");
    }

    #[test]
    fn of_the_kernel_what_is_about_ports_is_kept() {
        assert!(is_of_ports("usb 1-1: FTDI USB Serial Device converter now attached to ttyUSB0"));
        assert!(!is_of_ports("audit: type=1400 apparmor=\"STATUS\""));
    }
}
