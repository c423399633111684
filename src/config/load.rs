//! From files and environment to one tree, and from the tree to a [`Config`].
//!
//! The sources are merged in this order, a later one overriding an earlier one key by key and replacing arrays whole:
//! the main file, `conf.d/*.toml` beside it in the order of their names, the environment. Each file is parsed by
//! itself, so that one with a syntax error doesn't hide the problems of the others.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::{ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};

use super::tree::{join, Walk};
use super::{bus, device, environment, hub, keys, profile, Config, Problem};

/// A configuration is written by people: a file beyond this is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of all files together: what a small board can read and merge without noticing.
const TOTAL_BYTES_MAX: usize = 16 << 20;
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
}

/// Reads the main file, the drop-ins beside it and the environment.
///
/// Of the environment only names that begin with `FIELDBRIDGE__` count.
///
/// # Errors
/// Every problem found in any source. There is no default for a file that can't be read.
pub fn load(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Vec<Problem>> {
    let sources = Sources::read(main, environment);
    let config = build(&sources.walk, &sources.root);
    let files = sources.walk.files.take();
    let (problems, notes) = sources.remarks();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, notes, files }),
        _ => {
            assert!(!problems.is_empty(), "a refusal without a problem");
            Err(problems)
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

/// Everything that was read, merged, and the walk that is to judge it.
struct Sources {
    walk: Walk,
    root: Map<String, Value>,
    order: Vec<String>,
}

impl Sources {
    fn read(main: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Sources {
        let mut reading = Reading::default();
        let mut folder = PathBuf::new();
        match absolute_folder(main) {
            Ok(absolute) => {
                reading.file(main);
                reading.drop_ins(main);
                folder = absolute;
            }
            Err(error) => reading.fail(main, &unreadable(&error)),
        }
        let (layers, problems) = environment::layers(&reading.merged(), environment);
        reading.problems.extend(problems);
        for layer in layers {
            reading.add(layer);
        }
        let root = reading.merged();
        let walk = Walk {
            main: main.display().to_string(),
            folder,
            origins: reading.origins,
            incomplete: reading.incomplete,
            problems: reading.problems.into(),
            notes: reading.notes.into(),
            files: reading.files.into(),
        };
        Sources { walk, root, order: reading.order }
    }

    /// Problems and notes, in the order in which their sources were read.
    fn remarks(self) -> (Vec<Problem>, Vec<Problem>) {
        let order = |problem: &Problem| {
            let position = self.order.iter().position(|source| *source == problem.source);
            position.unwrap_or(usize::MAX)
        };
        let mut problems = self.walk.problems.into_inner();
        problems.sort_by_cached_key(order);
        let mut notes = self.walk.notes.into_inner();
        notes.sort_by_cached_key(order);
        (problems, notes)
    }
}

/// Walks the whole tree, whatever it finds.
fn build(walk: &Walk, root: &Map<String, Value>) -> Option<Config> {
    let root = walk.root(root, keys::ROOT);
    let hub = hub::hub(&root);
    let admin_socket = hub::admin_socket(&root);
    let ledger = hub::ledger(&root);
    let buses = bus::buses(&root);
    let profiles = profile::profiles(&root);
    let host = hub.as_ref().map(|hub| hub.host.as_str());
    let devices = device::devices(&root, host, &buses, &profiles);
    let buses = buses.into_iter().filter_map(|(name, entry)| Some((name, entry.bus?))).collect();
    Some(Config { hub: hub?, admin_socket: admin_socket?, ledger: ledger?, buses, devices })
}

/// One source, ready to be merged.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// The file, or `environment`.
    pub source: String,
    /// Its top-level table.
    pub entries: Map<String, Value>,
}

/// The key that everything is merged under. The crate parses top-level keys as paths, so that a quoted `"hub.host"`
/// would become a table; below the top it takes them as they are.
const ROOT: &str = "root";

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let root = Value::new(None, ValueKind::Table(self.entries.clone()));
        Ok(Map::from([(ROOT.to_owned(), root)]))
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    layers: Vec<Layer>,
    /// The sources in order of reading, for the order of the problems.
    order: Vec<String>,
    files: Vec<PathBuf>,
    origins: BTreeMap<String, String>,
    bytes: usize,
    incomplete: bool,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl Reading {
    fn fail(&mut self, path: &Path, why: &str) {
        let source = path.display().to_string();
        self.problems.push(Problem::new(&source, "", why));
        self.order.push(source);
        self.incomplete = true;
    }

    fn add(&mut self, layer: Layer) {
        record_tables(&mut self.origins, "", &layer.entries, &layer.source);
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
            Err(why) => self.fail(path, &why),
        }
    }

    fn text(&mut self, path: &Path, text: &str) {
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > TOTAL_BYTES_MAX {
            return self.fail(path, "with this file the configuration is larger than 16 MiB");
        }
        let source = path.display().to_string();
        match FileFormat::Toml.parse(Some(&source), text) {
            Ok(entries) => self.add(Layer { source, entries }),
            Err(error) => self.fail(path, &syntax_error(&error.to_string())),
        }
        let is_open = fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o002 != 0);
        if is_open {
            let why = "anybody on this machine can change this file; `chmod o-w` it";
            let note = Problem::new(&path.display().to_string(), "", why);
            self.notes.push(note);
        }
    }

    fn drop_ins(&mut self, main: &Path) {
        let folder = main.with_file_name("conf.d");
        match drop_in_files(&folder) {
            Ok(files) => {
                for file in files {
                    self.file(&file);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.fail(&folder, &unreadable(&error)),
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
                self.fail(Path::new("configuration"), &error.to_string());
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

/// Remembers which source each table was seen in first: merging keeps that of leaves only.
fn record_tables(origins: &mut BTreeMap<String, String>, path: &str, entries: &Map<String, Value>, source: &str) {
    for (key, value) in entries {
        if let ValueKind::Table(entries) = &value.kind {
            let path = join(path, key);
            record_tables(origins, &path, entries, source);
            origins.entry(path).or_insert_with(|| source.to_owned());
        }
    }
}

/// The folder of the main file, so that it stays right when the working directory changes.
fn absolute_folder(main: &Path) -> io::Result<PathBuf> {
    let mut folder = std::path::absolute(main)?;
    folder.pop();
    Ok(folder)
}

fn drop_in_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if !is_hidden && Path::new(&name).extension().is_some_and(|e| e == "toml") {
            files.push(folder.join(name));
        }
        if files.len() > DROP_INS_MAX {
            let why = format!("it holds more than {DROP_INS_MAX} files");
            return Err(io::Error::other(why));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_file(path: &Path) -> Result<String, String> {
    // A pipe would be waited on for ever.
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        return Err("is a folder; name the file in it".into());
    }
    if !metadata.is_file() {
        return Err("is no regular file".into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("is larger than 1 MiB; is it a configuration file?".into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        format!("line {line}: this is not UTF-8; save the file in that encoding")
    })
}

/// Why a file or folder can't be read, with the way out.
pub(super) fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; create it, or correct the name".into(),
        io::ErrorKind::NotADirectory => "a part of its path is a file, not a folder".into(),
        io::ErrorKind::PermissionDenied => {
            "can't be read: permission denied; the user that runs this (the service runs as fieldbridge) must be able \
             to read it"
                .into()
        }
        _ => format!("can't be read: {error}"),
    }
}

/// The TOML parser's message on one line and without its excerpt, which may show a secret pasted in the wrong place.
fn syntax_error(message: &str) -> String {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let Some(place) = first.strip_prefix("TOML parse error at ") else {
        return format!("can't be understood: {first}");
    };
    let rest: Vec<&str> = lines
        .filter(|line| !line.contains('|') || !line.trim_start().starts_with(is_excerpt))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    format!("{place}: {}", rest.join(", "))
}

fn is_excerpt(c: char) -> bool {
    c == '|' || c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_keeps_its_place_and_loses_its_excerpt() {
        let text = "[hub]\nhost = \"secret\nport = 1\n";
        let error = FileFormat::Toml.parse(None, text).unwrap_err();
        let why = syntax_error(&error.to_string());
        assert!(why.starts_with("line 2, column "), "{why}");
        assert!(!why.contains("secret") && !why.contains('\n'), "{why}");
        assert!(why.len() > "line 2, column 15: ".len(), "{why}");
    }

    #[test]
    fn a_number_too_large_for_64_bits_is_a_problem_and_no_panic() {
        let error = FileFormat::Toml.parse(None, "a = 99999999999999999999").unwrap_err();
        let why = syntax_error(&error.to_string());
        assert!(why.contains("too large"), "{why}");
    }
}
