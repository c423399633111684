//! fieldbridge(1): the hand-written part, with the options and the subcommands as clap has them.

use clap::{Arg, Command};

use super::command_line;
use super::roff::{escape, line, paragraph};

/// The page. `@VERSION@`, `@OPTIONS@` and `@COMMANDS@` are replaced.
pub fn page(template: &str) -> String {
    let command = command_line();
    let options: String = command.get_arguments().filter(|arg| !arg.is_hide_set()).map(argument).collect();
    let mut text = template.to_owned();
    for (mark, replacement) in [
        ("@VERSION@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@OPTIONS@\n", options),
        ("@COMMANDS@\n", commands(&command, "fieldbridge")),
    ] {
        assert_eq!(text.matches(mark).count(), 1, "{mark}");
        text = text.replace(mark, &replacement);
    }
    text
}

/// Every subcommand that a user can give, with its subcommands after it.
fn commands(parent: &Command, path: &str) -> String {
    let mut text = String::new();
    for command in visible(parent) {
        let path = format!("{path} {}", command.get_name());
        // What only holds subcommands can't be run itself.
        if !command.is_subcommand_required_set() {
            text += &section(command, &path);
        }
        text += &commands(command, &path);
    }
    text
}

/// The subcommands that a user is told of.
pub fn visible(parent: &Command) -> impl Iterator<Item = &Command> {
    parent.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// The arguments that are a subcommand's own.
pub fn own(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_own = |arg: &&Arg| {
        !arg.is_global_set() && !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
    };
    command.get_arguments().filter(is_own)
}

fn section(command: &Command, path: &str) -> String {
    let mut usage = path.to_owned();
    for arg in own(command) {
        let named = name(arg);
        usage += &if arg.is_required_set() { format!(" {named}") } else { format!(" [{named}]") };
    }
    let about = command.get_long_about().or(command.get_about()).unwrap_or_else(|| panic!("{path} says nothing"));
    let about = about.to_string();
    let (about, example) = about.split_once("Example: ").unwrap_or_else(|| panic!("{path} has no example"));
    let mut text = format!(".SS {}\n", quoted(&usage));
    for part in about.split("\n\n").map(str::trim).filter(|part| !part.is_empty()) {
        text += &paragraph(&finished(part));
    }
    text += &own(command).map(argument).collect::<String>();
    text + &format!(".PP\nExample:\n.PP\n.RS\n.nf\n{}\n.fi\n.RE\n", line(example.trim()))
}

/// A paragraph on an argument.
fn argument(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).unwrap_or_else(|| panic!("{} says nothing", arg.get_id()));
    let mut text = finished(&help.to_string());
    if arg.get_action().takes_values() {
        let names: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !names.is_empty() {
            text += &format!(" One of {}.", names.join(", "));
        }
        if let [default] = arg.get_default_values() {
            text += &format!(" Default: `{}`.", default.to_string_lossy());
        }
    }
    format!(".TP\n.B {}\n{}", quoted(&name(arg)), paragraph(&text))
}

/// An argument as it is written.
pub fn name(arg: &Arg) -> String {
    let values: Vec<&str> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let mut words = Vec::new();
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => words.push(format!("-{short}, --{long}")),
        (None, Some(long)) => words.push(format!("--{long}")),
        (Some(short), None) => words.push(format!("-{short}")),
        (None, None) => {}
    }
    if arg.get_action().takes_values() {
        words.extend(values.iter().map(ToString::to_string));
    }
    words.join(" ")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

/// clap takes the full stop from the end of a doc comment of one paragraph.
fn finished(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', ':']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}
