//! From files and environment to one tree, and from the tree to a [`Config`].
//!
//! The sources are merged in this order, a later one overriding an earlier one key by key and replacing arrays whole:
//! the main file, `conf.d/*.toml` beside it in the order of their names, the environment. Each file is parsed by
//! itself, so that one with a syntax error doesn't hide the problems of the others. A profile that a device names and
//! none of them defines is looked for among those that are shipped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::layer::{Layer, ROOT};
use super::shipped::{self, Shipped};
use super::tree::{join, Walk};
use super::{bus, device, environment, hub, keys, profile, provisioning, syntax, telemetry, unit, view};
use super::{Config, Origins, Place, Problem, Severity};
use crate::certificate::pem::unreadable;
use crate::complaint::Complaint;

/// A configuration is written by people: a file beyond this is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of all files together: what a small board can read and merge without noticing.
const TOTAL_BYTES_MAX: usize = 16 << 20;
/// Files in `conf.d` that are told not to be read.
const PASSED_OVER_MAX: usize = 20;
/// Files in `conf.d`: one for each of the thousand devices that a gateway serves.
const DROP_INS_MAX: usize = 1000;

/// A configuration that can be run, and remarks on it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is suspicious, but no error.
    pub notes: Vec<Problem>,
    /// Every file that it was read from, those with keys and certificates included.
    pub files: Vec<PathBuf>,
    /// Where each key stands.
    pub origins: Origins,
}

/// Reads the main file, the drop-ins beside it and the environment.
///
/// Of the environment only names that begin with `FIELDBRIDGE__` count.
///
/// # Errors
/// Every problem found in any source. There is no default for a file that can't be read.
pub fn load(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Vec<Problem>> {
    load_telling(main, environment).map_err(|refused| refused.problems)
}

/// Like [`load`], with one more file behind the drop-ins, which is not among them yet.
///
/// # Errors
/// As those of [`load`].
pub fn load_adding(
    main: &Path,
    more: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Vec<Problem>> {
    judge(Sources::read_with(main, Some(more), environment)).map_err(|refused| refused.problems)
}

/// A configuration that can't be run, with all that is to be said of it.
#[derive(Debug, Clone)]
pub struct Refused {
    /// What is wrong; at least one.
    pub problems: Vec<Problem>,
    /// What is suspicious beside that.
    pub notes: Vec<Problem>,
    /// Every file that could be read.
    pub files: Vec<PathBuf>,
}

/// Like [`load`], and tells of a refused configuration what [`load`] leaves out.
///
/// # Errors
/// As those of [`load`].
pub fn load_telling(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Refused> {
    judge(Sources::read(main, environment))
}

fn judge(sources: Sources) -> Result<Loaded, Refused> {
    let config = build(&sources.walk, &sources.root);
    let files = sources.walk.files.take();
    let origins = sources.origins.clone();
    let (problems, notes) = sources.remarks();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, notes, files, origins }),
        _ => {
            assert!(!problems.is_empty(), "a refusal without a problem");
            Err(Refused { problems, notes, files })
        }
    }
}

/// Where the daemon of a configuration keeps what the operator's commands look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The ledger file.
    pub ledger: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
}

/// Reads no more of the configuration than where things are: an operator who may not read the devices' keys can still
/// look.
///
/// # Errors
/// Every problem that stands in the way of just that.
pub fn places(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Places, Vec<Problem>> {
    let sources = Sources::read(main, environment);
    let root = sources.walk.root(&sources.root, keys::ROOT);
    let (ledger, admin_socket) = (hub::ledger(&root), hub::admin_socket(&root));
    match (ledger, admin_socket) {
        (Some(ledger), Some(admin_socket)) if !sources.walk.incomplete => {
            Ok(Places { ledger: ledger.path, admin_socket })
        }
        _ => Err(sources.remarks().0),
    }
}

/// Everything that is wrong with a text that holds profiles and nothing else, as it would be told of a file with it.
pub fn profile_problems(source: &str, text: &str) -> Vec<Problem> {
    let mut reading = Reading::default();
    reading.text(Path::new(source), text);
    let root = reading.merged();
    let walk = Walk {
        main: source.to_owned(),
        folder: PathBuf::new(),
        shipped: Shipped::of(&[]),
        tables: reading.tables,
        incomplete: reading.incomplete,
        problems: reading.problems.into(),
        notes: reading.notes.into(),
        files: reading.files.into(),
    };
    profile::profiles(&walk.root(&root, keys::ROOT));
    walk.problems.into_inner()
}

/// What the sources come to, before anybody judges it.
pub(super) struct Merged {
    pub root: Map<String, Value>,
    pub origins: Origins,
    /// The first source that each table was seen in.
    pub tables: BTreeMap<String, String>,
    pub main: String,
    /// What is wrong with whole sources.
    pub problems: Vec<Problem>,
}

/// Reads and merges the sources, and no more.
pub(super) fn merged(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Merged {
    let sources = Sources::read(main, environment);
    let (root, origins) = (sources.root.clone(), sources.origins.clone());
    let (tables, main) = (sources.walk.tables.clone(), sources.walk.main.clone());
    Merged { root, origins, tables, main, problems: sources.remarks().0 }
}

/// Everything that was read, merged, and the walk that is to judge it.
struct Sources {
    walk: Walk,
    root: Map<String, Value>,
    order: Vec<String>,
    origins: Origins,
}

impl Sources {
    fn read(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Sources {
        Sources::read_with(main, None, environment)
    }

    fn read_with(main: &Path, more: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Sources {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let shipped = Shipped::of(&environment);
        let mut reading = Reading::default();
        let mut folder = PathBuf::new();
        match absolute_folder(main) {
            Ok(absolute) => {
                reading.file(main);
                reading.drop_ins(main);
                more.into_iter().for_each(|more| reading.file(more));
                folder = absolute;
            }
            Err(error) => reading.fail(main, unreadable(&error)),
        }
        let (layers, problems, notes) = environment::layers(&reading.merged(), environment);
        reading.problems.extend(problems);
        reading.notes.extend(notes);
        for layer in layers {
            reading.add(layer);
        }
        let mut root = reading.merged();
        if reading.shipped(&shipped, &root) {
            root = reading.merged();
        }
        let walk = Walk {
            main: main.display().to_string(),
            folder,
            shipped,
            tables: reading.tables,
            incomplete: reading.incomplete,
            problems: reading.problems.into(),
            notes: reading.notes.into(),
            files: reading.files.into(),
        };
        Sources { walk, root, order: reading.order, origins: reading.origins }
    }

    /// Problems and notes with their places, in the order in which their sources were read.
    fn remarks(self) -> (Vec<Problem>, Vec<Problem>) {
        let order = |problem: &Problem| {
            let position = self.order.iter().position(|source| *source == problem.source);
            position.unwrap_or(usize::MAX)
        };
        let placed = |mut found: Vec<Problem>| {
            for problem in &mut found {
                problem.place = problem.place.or_else(|| self.origins.place(&problem.source, &problem.key));
            }
            found.sort_by_cached_key(order);
            found
        };
        (placed(self.walk.problems.into_inner()), placed(self.walk.notes.into_inner()))
    }
}

/// Walks the whole tree, whatever it finds.
fn build(walk: &Walk, root: &Map<String, Value>) -> Option<Config> {
    let root = walk.root(root, keys::ROOT);
    let provisioning = provisioning::provisioning(&root);
    let hub = hub::hub(&root, provisioning.is_some());
    let admin_socket = hub::admin_socket(&root);
    let ledger = hub::ledger(&root);
    let telemetry = telemetry::telemetry(&root, ledger.as_ref().map(|ledger| ledger.path.as_path()));
    let (metrics, web) = view::views(&root);
    let buses = bus::buses(&root);
    let profiles = profile::profiles(&root);
    let devices = device::devices(&root, (hub.as_ref(), provisioning.is_some()), &buses, &profiles);
    telemetry.iter().for_each(|settings| telemetry::check_day(&root, settings, &devices));
    let mut buses = buses.into_iter().filter_map(|(name, entry)| Some((name, entry.bus?))).collect();
    unit::hold_to_one(&mut buses, &devices);
    let (hub, provisioning, admin_socket) = (hub?, provisioning.flatten(), admin_socket?);
    let (ledger, telemetry) = (ledger?, telemetry?);
    Some(Config { hub, provisioning, admin_socket, ledger, telemetry, metrics, web, buses, devices })
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    layers: Vec<Layer>,
    /// The sources in order of reading, for the order of the problems.
    order: Vec<String>,
    files: Vec<PathBuf>,
    /// The first file that each table was seen in.
    tables: BTreeMap<String, String>,
    origins: Origins,
    bytes: usize,
    incomplete: bool,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl Reading {
    fn fail(&mut self, path: &Path, why: impl Into<Complaint>) {
        let source = path.display().to_string();
        self.problems.push(Problem::new(&source, "", why));
        self.order.push(source);
        self.incomplete = true;
    }

    fn add(&mut self, layer: Layer) {
        record_tables(&mut self.tables, "", &layer.entries, &layer.source);
        if self.order.last() != Some(&layer.source) {
            self.order.push(layer.source.clone());
        }
        self.layers.push(layer);
    }

    fn file(&mut self, path: &Path) {
        match read_file(path) {
            Ok(text) => {
                self.files.push(path.to_owned());
                self.text(path, &text);
            }
            Err(Unread { why, place }) => {
                self.fail(path, why);
                if let Some(problem) = self.problems.last_mut() {
                    problem.place = place;
                }
            }
        }
    }

    /// The profiles that are shipped, and that nobody defines. Whether there are some.
    fn shipped(&mut self, shipped: &Shipped, root: &Map<String, Value>) -> bool {
        let before = self.layers.len();
        for name in shipped::wanted(root) {
            let Some(path) = shipped.file(&name) else { continue };
            let read = self.layers.len();
            self.file(&path);
            let wrong = self.layers.get(read).map(|layer| check_shipped(&name, &layer.entries));
            if let Some(Err(why)) = wrong {
                self.layers.truncate(read);
                self.fail(&path, why);
            }
        }
        self.layers.len() > before
    }

    fn text(&mut self, path: &Path, text: &str) {
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > TOTAL_BYTES_MAX {
            return self.fail(
                path,
                ("with this file the configuration is larger than 16 MiB", "remove what it does not need"),
            );
        }
        let source = path.display().to_string();
        match syntax::parse(&source, text) {
            Ok(parsed) => {
                self.origins.add(&source, parsed.places);
                self.add(Layer { source, entries: parsed.entries });
            }
            Err(errors) => {
                let problems = errors.into_iter().map(|error| Problem::new(&source, "", error.why).at(error.place));
                self.problems.extend(problems);
                self.order.push(source);
                self.incomplete = true;
            }
        }
        let is_open = fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o002 != 0);
        if is_open {
            self.warn(path, ("anybody on this machine can change this file", "`chmod o-w` it"));
        }
    }

    fn warn(&mut self, path: &Path, why: impl Into<Complaint>) {
        self.notes.push(Problem::of(Severity::Warning, &path.display().to_string(), "", why));
    }

    fn drop_ins(&mut self, main: &Path) {
        let folder = main.with_file_name("conf.d");
        match drop_in_files(&folder) {
            Ok(found) => {
                for file in found.read {
                    self.file(&file);
                }
                for file in found.passed_over {
                    self.warn(
                        &file,
                        ("is not read, as its name does not end in .toml", "rename it, or move it elsewhere"),
                    );
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.fail(&folder, unreadable(&error)),
        }
    }

    fn merged(&mut self) -> Map<String, Value> {
        let mut builder = config::Config::builder();
        for layer in &self.layers {
            builder = builder.add_source(layer.clone());
        }
        let root = match builder.build() {
            Ok(merged) => merged.cache.kind,
            Err(error) => {
                self.fail(Path::new("configuration"), Complaint::bare(error.to_string()));
                ValueKind::Nil
            }
        };
        let ValueKind::Table(mut root) = root else {
            return Map::new();
        };
        match root.remove(ROOT).map(|value| value.kind) {
            Some(ValueKind::Table(entries)) => entries,
            _ => Map::new(),
        }
    }
}

/// What a file of profile `name` may hold: that, and nothing else.
///
/// # Errors
/// It holds something else, or not that.
fn check_shipped(name: &str, entries: &Map<String, Value>) -> Result<(), Complaint> {
    let ours = join("profile", name);
    let is_ours = |key: &str, value: &Value| {
        key == "profile"
            && matches!(&value.kind, ValueKind::Table(profiles) if profiles.len() == 1 && profiles.contains_key(name))
    };
    match entries.len() == 1 && entries.iter().all(|(key, value)| is_ours(key, value)) {
        true => Ok(()),
        false => Err(Complaint::new(
            format!("a shipped file of this name holds [{ours}] and nothing else"),
            "install the package again, or write what you want of it into conf.d",
        )),
    }
}

/// Remembers which source each table was seen in first: merging keeps that of leaves only.
fn record_tables(origins: &mut BTreeMap<String, String>, path: &str, entries: &Map<String, Value>, source: &str) {
    for (key, value) in entries {
        if let ValueKind::Table(entries) = &value.kind {
            let path = join(path, key);
            record_tables(origins, &path, entries, source);
            origins.entry(path).or_insert_with(|| source.to_owned());
        } else if let ValueKind::Array(items) = &value.kind {
            let path = join(path, key);
            // It replaces the whole of an earlier one.
            origins.retain(|known, _| !known.strip_prefix(&path).is_some_and(|rest| rest.starts_with('[')));
            for (at, item) in items.iter().enumerate() {
                let ValueKind::Table(entries) = &item.kind else { continue };
                let path = format!("{path}[{}]", at + 1);
                record_tables(origins, &path, entries, source);
                origins.insert(path, source.to_owned());
            }
        }
    }
}

/// The folder of the main file, so that it stays right when the working directory changes.
fn absolute_folder(main: &Path) -> io::Result<PathBuf> {
    let mut folder = std::path::absolute(main)?;
    folder.pop();
    Ok(folder)
}

/// What stands in `conf.d`.
#[derive(Default)]
pub(super) struct DropIns {
    pub(super) read: Vec<PathBuf>,
    /// What somebody may believe to be read.
    passed_over: Vec<PathBuf>,
}

pub(super) fn drop_in_files(folder: &Path) -> io::Result<DropIns> {
    let mut found = DropIns::default();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        match use_of(&name.to_string_lossy()) {
            Use::Read => found.read.push(folder.join(name)),
            Use::Mistaken if found.passed_over.len() < PASSED_OVER_MAX => found.passed_over.push(folder.join(name)),
            Use::Mistaken | Use::None => {}
        }
        if found.read.len() > DROP_INS_MAX {
            let why = format!("it holds more than {DROP_INS_MAX} files");
            return Err(io::Error::other(why));
        }
    }
    found.read.sort_unstable();
    found.passed_over.sort_unstable();
    Ok(found)
}

/// What a file in `conf.d` is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    /// It has no part in the configuration, and looks as if it should.
    Mistaken,
    None,
}

fn use_of(name: &str) -> Use {
    let lower = name.to_lowercase();
    // Copies that editors and package managers leave, and explanations.
    let is_copy = ["~", ".bak", ".old", ".orig", ".save", ".swp", ".tmp", ".disabled", ".off", ".md", ".example"]
        .iter()
        .any(|end| lower.ends_with(end));
    let is_packagers = [".dpkg-", ".rpmsave", ".rpmnew", ".ucf-"].iter().any(|part| lower.contains(part));
    match Path::new(name).extension() {
        _ if name.starts_with('.') => Use::None,
        Some(end) if end == "toml" => Use::Read,
        _ if is_copy || is_packagers || lower.starts_with("readme") => Use::None,
        _ => Use::Mistaken,
    }
}

/// Why a file can't be read, and where it ends to be one of ours.
struct Unread {
    why: Complaint,
    place: Option<Place>,
}

impl From<Complaint> for Unread {
    fn from(why: Complaint) -> Self {
        Unread { why, place: None }
    }
}

fn read_file(path: &Path) -> Result<String, Unread> {
    // A pipe would be waited on for ever.
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        return Err(Complaint::new("is a folder", "name the file in it").into());
    }
    if !metadata.is_file() {
        return Err(Complaint::new("is not a regular file", "name one here").into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Complaint::new("is larger than 1 MiB", "is it a configuration file?").into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let place = syntax::end_of(&String::from_utf8_lossy(before));
        Unread { why: Complaint::new("this is not UTF-8", "save the file in that encoding"), place: Some(place) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_that_is_not_read_is_told_from_a_copy() {
        for (name, purpose) in [
            ("10-pump.toml", Use::Read),
            ("10-pump.TOML", Use::Mistaken),
            ("pump.tml", Use::Mistaken),
            ("pump.conf", Use::Mistaken),
            ("pump.toml.txt", Use::Mistaken),
            ("pump", Use::Mistaken),
            ("pump.toml~", Use::None),
            ("pump.toml.bak", Use::None),
            ("pump.toml.dpkg-dist", Use::None),
            (".pump.toml.swp", Use::None),
            (".hidden.toml", Use::None),
            ("README", Use::None),
        ] {
            assert_eq!(use_of(name), purpose, "{name}");
        }
    }
}
