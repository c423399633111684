//! What a package tells its user, held to the code: the manual pages fieldbridge(1) and fieldbridge.toml(5), the
//! completions of the shells, the schema of the configuration, the journal's catalogue and the list of what the program
//! contains (packaging/man, packaging/completions, packaging/fieldbridge.schema.json, packaging/fieldbridge.catalog,
//! packaging/copyright). It proves none of the guarantees.
//!
//! All of them are made here, from the definition of the command line (src/cli/mod.rs), the reference configuration
//! (config/fieldbridge.reference.toml), Cargo.lock, and the hand-written parts (the files that end in `.in`), and are
//! committed. After a change of any of those:
//!
//! ```text
//! FIELDBRIDGE_WRITE=1 cargo test --test operator manual::
//! ```
//!
//! A new option or subcommand needs its doc comment, a new key its comment in the reference, a new table of the
//! configuration a line `@keys TITLE@` in fieldbridge.toml.5.in, a new exit status its paragraph in fieldbridge.1.in.

mod commands;
mod copyright;
mod keys;
mod pages;
mod roff;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::{generate, Shell};
use fieldbridge::cli::Cli;

/// A file of the source tree.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(place(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The command line with everything that clap adds to it.
fn command_line() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "fieldbridge", &mut text);
    let text = String::from_utf8(text).unwrap();
    // clap_complete tells zsh of hidden subcommands, too.
    let hidden = |line: &&str| !HIDDEN.iter().any(|name| line.starts_with(&format!("'{name}:")));
    text.lines().filter(hidden).map(|line| format!("{line}\n")).collect()
}

/// Subcommands that the program starts itself with.
const HIDDEN: [&str; 1] = ["peripheral"];

/// Compares a committed file with what it should be, or writes it.
fn is_in_step(name: &str, text: &str) {
    if std::env::var_os("FIELDBRIDGE_WRITE").is_some() {
        std::fs::write(place(name), text).unwrap();
    }
    let found = std::fs::read_to_string(place(name)).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == text,
        "{name} is behind the code: FIELDBRIDGE_WRITE=1 cargo test --test operator manual::\n{differs:?}"
    );
}

#[test]
fn the_page_of_the_program_is_in_step_with_its_command_line() {
    is_in_step("packaging/man/fieldbridge.1", &commands::page(&read("packaging/man/fieldbridge.1.in")));
}

#[test]
fn the_page_of_the_configuration_is_in_step_with_the_reference() {
    is_in_step("packaging/man/fieldbridge.toml.5", &keys::page(&read("packaging/man/fieldbridge.toml.5.in")));
}

#[test]
fn the_catalogue_of_the_journal_is_in_step_with_the_events() {
    is_in_step("packaging/fieldbridge.catalog", &catalogue());
}

/// What `journalctl --catalog` shows beside a line (systemd's "Message Catalog": each entry begins with its id).
fn catalogue() -> String {
    let mut text =
        "# What the events of fieldbridge mean, for journalctl --catalog. Made from src/log/events.rs.\n".to_owned();
    for kind in fieldbridge::log::events::KINDS {
        let (id, subject) = (kind.id, kind.subject);
        text += &format!("\n-- {id}\nSubject: {subject}\nDefined-By: fieldbridge\n\n{}\n", wrapped(kind.meaning));
    }
    text
}

/// A paragraph in lines of 80 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= 80 {
            last.push_str(&format!(" {word}"));
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[test]
fn the_schema_is_in_step_with_the_keys() {
    is_in_step("packaging/fieldbridge.schema.json", &format!("{:#}\n", fieldbridge::config::schema::schema()));
}

#[test]
fn the_completions_are_in_step_with_the_command_line() {
    is_in_step("packaging/completions/fieldbridge.bash", &completion(Shell::Bash));
    is_in_step("packaging/completions/_fieldbridge", &completion(Shell::Zsh));
    is_in_step("packaging/completions/fieldbridge.fish", &completion(Shell::Fish));
}

#[test]
fn the_list_of_what_the_program_contains_is_in_step_with_its_dependencies() {
    is_in_step("packaging/copyright", &copyright::text(&read("packaging/copyright.in")));
}
