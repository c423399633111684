//! What is made of a file: commands, what is left out, and the text of both. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Fault, Imported};
use crate::complaint::{steers, Complaint};
use crate::config::{meant_by, profile_problems, TABLES};
use crate::peripheral::registers::Table;

/// More than a profile for one peripheral needs.
const COMMANDS_MAX: usize = 1000;
/// Characters of a file that a comment repeats.
const COMMENT_CHARS_MAX: usize = 200;
/// Characters of a comment's line.
const LINE_CHARS: usize = 120;
/// Characters of a name, with room for what tells two of them apart.
const NAME_CHARS: usize = 80;

/// A key of a command and what stands there, as TOML writes it.
pub(super) type Key = (&'static str, String);

/// One command.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub name: String,
    /// The line of the file that it comes from.
    pub line: usize,
    /// What is said of it.
    pub about: Vec<String>,
    /// `read` or `write`.
    pub verb: &'static str,
    /// The keys of that table.
    pub point: Vec<Key>,
    /// The keys beside it.
    pub beside: Vec<Key>,
}

/// A profile in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub name: String,
    /// What the file says of the peripheral, for the head of the profile.
    pub about: Vec<String>,
    commands: Vec<Command>,
    names: BTreeSet<String>,
    /// Each with its line in the file.
    left_out: Vec<(usize, String)>,
}

impl Draft {
    /// Takes a command in, under a name that no other has.
    pub fn add(&mut self, mut command: Command) {
        let name = safe(&command.name);
        let mut numbered = (2..).map(|n| format!("{name}-{n}"));
        command.name = match self.names.contains(&name) {
            false => name,
            true => numbered.find(|name| !self.names.contains(name)).unwrap_or_default(),
        };
        self.names.insert(command.name.clone());
        self.commands.push(command);
    }

    /// Lists what is left out, and why.
    pub fn leave_out(&mut self, line: usize, what: &str, why: impl AsRef<str>) {
        self.left_out.push((line, comment(&format!("line {line}, {what}: {}", why.as_ref()))));
    }

    /// The profile, without what `check` would refuse.
    pub fn finish(mut self) -> Result<Imported, Fault> {
        self.name = safe(&self.name);
        if self.commands.len() > COMMANDS_MAX {
            let what =
                format!("makes {} commands, and {COMMANDS_MAX} are enough for a peripheral", self.commands.len());
            let why = Complaint::new(what, "take what you need of it into a smaller file");
            return Err(Fault { line: None, why });
        }
        for problem in profile_problems("profile", &self.text()) {
            let path = format!("profile.{}.command.", self.name);
            let Some(rest) = problem.key.strip_prefix(&path) else { continue };
            let (name, key) = rest.split_once('.').unwrap_or((rest, ""));
            let Some(at) = self.commands.iter().position(|command| command.name == name) else { continue };
            if key != "idempotent" {
                let command = self.commands.remove(at);
                self.leave_out(command.line, name, format!("{key}: {}", problem.message()));
            }
        }
        self.left_out.sort_by_key(|(line, _)| *line);
        if self.commands.is_empty() {
            let all: Vec<&str> = self.left_out.iter().map(|(_, line)| &**line).collect();
            let all = all.join("\n");
            let why = Complaint::new("holds nothing that a profile can say", "is it the right file?");
            return Err(Fault { line: None, why: if all.is_empty() { why } else { why.and(&all) } });
        }
        let undecided = self.commands.iter().filter(|command| command.verb == "write");
        Ok(Imported {
            undecided: undecided.map(|command| command.name.clone()).collect(),
            text: self.text(),
            name: self.name,
            commands: self.commands.len(),
            left_out: self.left_out.into_iter().map(|(_, line)| line).collect(),
        })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for line in &self.about {
            wrapped(&mut out, line);
        }
        wrapped(&mut out, "Compare it with the manual of the peripheral.");
        if self.commands.iter().any(|command| command.verb == "write") {
            out.push_str("#\n");
            wrapped(
                &mut out,
                "Each write lacks idempotent: whether doing it twice is the same as doing it once. The person who knows \
                 the machine must say so, or not, before `fieldbridge check` takes this file.",
            );
        }
        for command in &self.commands {
            out.push('\n');
            self.paragraph(&mut out, command);
        }
        if !self.left_out.is_empty() {
            out.push_str("\n# Left out:\n");
            for (_, line) in &self.left_out {
                wrapped(&mut out, line);
            }
        }
        out
    }

    fn paragraph(&self, out: &mut String, command: &Command) {
        for line in &command.about {
            wrapped(out, line);
        }
        let _ = writeln!(out, "[profile.{}.command.{}]", self.name, command.name);
        let point: Vec<String> = command.point.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let _ = writeln!(out, "{} = {{ {} }}", command.verb, point.join(", "));
        for (key, value) in &command.beside {
            let _ = writeln!(out, "{key} = {value}");
        }
        if command.verb == "write" {
            out.push_str("# idempotent =\n");
        }
    }
}

/// Where a point lies: by its address, or by a reference number where the address would look like another one.
pub(super) fn place(table: Table, address: u16) -> Vec<Key> {
    let first = match table {
        Table::Discrete => 100_001,
        Table::Input => 300_001,
        Table::Holding => 400_001,
        Table::Coil => 1,
    };
    match meant_by(table, address) {
        Some(_) => vec![("register", (first + u32::from(address)).to_string())],
        None => {
            let name = TABLES.iter().find(|(_, known)| *known == table).map_or("", |(name, _)| name);
            vec![("table", quoted(name)), ("address", address.to_string())]
        }
    }
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            _ if steers(c) => drop(write!(out, "\\u{:04X}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out + "\""
}

/// A number as TOML writes it.
pub(super) fn number(number: f64) -> String {
    match number == number.trunc() && number.abs() < 1e15 {
        true => format!("{number:.0}"),
        false => format!("{number:?}"),
    }
}

/// A table of names and numbers, as `values` has it.
pub(super) fn values(names: &[(String, i64)]) -> Key {
    let entries: Vec<String> = names.iter().map(|(name, value)| format!("{} = {value}", quoted(name))).collect();
    ("values", format!("{{ {} }}", entries.join(", ")))
}

/// A name that needs no quotes in TOML.
fn safe(name: &str) -> String {
    let mut safe = String::new();
    for c in name.chars() {
        match c {
            _ if c.is_ascii_alphanumeric() || c == '_' => safe.push(c),
            _ if safe.ends_with('-') || safe.is_empty() => {}
            _ => safe.push('-'),
        }
    }
    safe.truncate(NAME_CHARS);
    match safe.trim_end_matches('-') {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}

/// What a file says, for a comment: one line, nothing in it that steers a terminal, and not too long.
pub(super) fn comment(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || steers(c)).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(COMMENT_CHARS_MAX) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

/// Writes a comment in lines of their width.
fn wrapped(out: &mut String, text: &str) {
    let mut width = LINE_CHARS + 1;
    for word in text.split_whitespace() {
        let chars = word.chars().count();
        if width + 1 + chars > LINE_CHARS {
            out.push_str(if out.is_empty() || out.ends_with('\n') { "#" } else { "\n#" });
            width = 1;
        }
        let _ = write!(out, " {word}");
        width += 1 + chars;
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_needs_no_quotes() {
        for (name, made) in [
            ("WMaxLimPct", "WMaxLimPct"),
            ("Flow rate (m³/h)", "Flow-rate-m-h"),
            ("  -- a.b--c ", "a-b-c"),
            ("ü", "unnamed"),
            ("", "unnamed"),
            (&*"x".repeat(200), &*"x".repeat(NAME_CHARS)),
        ] {
            assert_eq!(safe(name), made, "{name}");
        }
    }

    #[test]
    fn a_text_is_written_so_that_toml_reads_it_again() {
        for text in ["plain", "a \"b\" \\ c", "two\nlines\u{7F}", "\u{202E}x", "é ☃ 😀"] {
            let text_of_it = format!("it = {}", quoted(text));
            let parsed = toml::de::DeTable::parse(&text_of_it).unwrap();
            assert_eq!(parsed.get_ref()["it"].get_ref().as_str(), Some(text));
        }
    }

    #[test]
    fn an_address_that_looks_like_a_reference_number_is_written_as_one() {
        let written = |table, address| place(table, address).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(written(Table::Holding, 40_069), ["440070"]);
        assert_eq!(written(Table::Input, 30_001), ["330002"]);
        assert_eq!(written(Table::Holding, 69), ["\"holding\"", "69"]);
        assert_eq!(written(Table::Coil, 9999), ["\"coil\"", "9999"]);
    }

    #[test]
    fn a_comment_is_one_line_and_keeps_its_width() {
        assert_eq!(comment(" a\n b\u{1b}[2J "), "a b [2J");
        assert!(comment(&"x ".repeat(500)).chars().count() <= COMMENT_CHARS_MAX + 2);
        let mut out = String::new();
        wrapped(&mut out, &"word ".repeat(60));
        assert!(out.lines().count() > 1 && out.lines().all(|line| line.starts_with("# ") && line.len() <= LINE_CHARS));
    }
}
