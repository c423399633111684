//! The profiles that are shipped, and the bus that each of them shows in the comment at its head.

use std::path::{Path, PathBuf};

/// Where they stand in the source.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/profiles")
}

/// Their names, in order.
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("profiles are shipped");
    let name = |path: PathBuf| path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("it is there").path())).collect();
    names.sort();
    names
}

/// The text of one.
pub fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.toml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of the bus that the head of a profile shows, `[bus.line]` and what belongs to it.
pub fn bus(name: &str) -> Vec<String> {
    let text = text(name);
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    let shown = lines.filter_map(|line| line.strip_prefix("   ")).skip_while(|line| *line != "[bus.line]");
    let shown: Vec<String> = shown.map(str::to_owned).collect();
    assert!(!shown.is_empty(), "{name} shows no [bus.line]");
    shown
}

/// Whether it sends lines or frames, and reads and writes no registers.
pub fn speaks_text(name: &str) -> bool {
    text(name).contains("\nsend")
}
