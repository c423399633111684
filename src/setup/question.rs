//! Questions on a terminal. Without one nothing is asked: what is missing is named.
//!
//! Invariant: whoever answers nothing any more (Ctrl-D) ends it all, and is not asked for ever.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::termios::{tcgetattr, tcsetattr, LocalModes, OptionalActions};

/// Longest answer, in bytes; keys and names are far shorter.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Asks a person, if one is there.
pub(super) struct Asking {
    is_terminal: bool,
}

impl Asking {
    pub(super) fn new() -> Asking {
        Asking { is_terminal: std::io::stdin().is_terminal() && std::io::stderr().is_terminal() }
    }

    /// Whether anybody can be asked.
    pub(super) fn is_somebody_there(&self) -> bool {
        self.is_terminal
    }

    /// What an option says, or else a person.
    pub(super) fn text(
        &self,
        option: &str,
        given: Option<String>,
        question: &str,
        default: Option<&str>,
    ) -> Result<String, String> {
        match (given, default) {
            (Some(given), _) => Ok(given),
            (None, Some(default)) if !self.is_terminal => Ok(default.to_owned()),
            (None, None) if !self.is_terminal => Err(format!("{option} is missing: {question}")),
            (None, default) => {
                let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
                loop {
                    prompt(&format!("{question}{shown}: "));
                    let answer = answer()?;
                    match (answer.as_str(), default) {
                        ("", Some(default)) => return Ok(default.to_owned()),
                        ("", None) => prompt("  this one has no answer of its own: type it, or end by Ctrl-C\n"),
                        _ => return Ok(answer),
                    }
                }
            }
        }
    }

    /// The same, asked until `wrong` finds nothing wrong with a person's answer. What an option says is judged later.
    pub(super) fn judged(
        &self,
        option: &str,
        given: Option<String>,
        question: &str,
        default: Option<&str>,
        wrong: impl Fn(&str) -> Option<String>,
    ) -> Result<String, String> {
        if given.is_some() || !self.is_terminal {
            return self.text(option, given, question, default);
        }
        loop {
            let answer = self.text(option, None, question, default)?;
            match wrong(&answer) {
                Some(why) => prompt(&format!("  {why}\n")),
                None => return Ok(answer),
            }
        }
    }

    /// One of a few answers, of which the first is proposed.
    pub(super) fn choice<'a>(&self, question: &str, answers: &[&'a str]) -> Result<&'a str, String> {
        let of = |answer: &str| answers.iter().copied().find(|one| one.eq_ignore_ascii_case(answer));
        let wrong =
            |answer: &str| of(answer).is_none().then(|| format!("{answer:?} is not one of {}", answers.join(", ")));
        let first = answers.first().copied().unwrap_or_default();
        let answer = self.judged("an answer", None, question, Some(first), wrong)?;
        Ok(of(&answer).unwrap_or(first))
    }

    /// Yes or no. `proposed` is what an empty answer says.
    pub(super) fn yes(&self, question: &str, proposed: bool) -> Result<bool, String> {
        Ok(self.choice(question, if proposed { &["y", "n"] } else { &["n", "y"] })? == "y")
    }

    /// The serial port, from a list of those that are there.
    pub(super) fn port(
        &self,
        given: Option<PathBuf>,
        before: Option<&Path>,
        there: &[PathBuf],
    ) -> Result<PathBuf, String> {
        if let Some(given) = given {
            return Ok(given);
        }
        let list: Vec<String> =
            there.iter().enumerate().map(|(n, port)| format!("  {} {}\n", n + 1, port.display())).collect();
        if !self.is_terminal {
            let list = if there.is_empty() { "  no adapter is plugged in\n".to_owned() } else { list.concat() };
            return Err(format!("--port or --modbus-tcp is missing; serial ports with names that stay:\n{list}"));
        }
        prompt(if there.is_empty() { "No adapter with a name that stays is plugged in.\n" } else { "Serial ports:\n" });
        prompt(&list.concat());
        let default = before.or(there.first().map(PathBuf::as_path)).map(|port| port.display().to_string());
        loop {
            let answer = self.text("--port", None, "Port, by number or path", default.as_deref())?;
            let numbered = answer.parse().ok().map(|n: usize| there.get(n.wrapping_sub(1)).cloned());
            let port = match numbered {
                Some(None) => {
                    prompt(&format!("  there is no number {answer} in the list\n"));
                    continue;
                }
                Some(Some(port)) => port,
                None => PathBuf::from(answer),
            };
            if port.exists()
                || self.yes(&format!("{} is not there now. Take it all the same (y or n)", port.display()), false)?
            {
                return Ok(port);
            }
        }
    }

    /// What is not shown while it is typed.
    pub(super) fn secret(
        &self,
        option: &str,
        question: &str,
        wrong: impl Fn(&str) -> Option<String>,
    ) -> Result<String, String> {
        if !self.is_terminal {
            return Err(format!("{option} is missing: {question}"));
        }
        loop {
            // Before the question: what is typed or pasted right after it is neither shown nor dropped.
            let shown = Echo::off()?;
            prompt(&format!("{question}: "));
            let answer = answer();
            drop(shown);
            prompt("\n");
            let answer = answer?;
            match wrong(&answer) {
                Some(why) => prompt(&format!("  {why}\n")),
                None => return Ok(answer),
            }
        }
    }
}

/// The terminal's echo, off until this is dropped.
struct Echo(rustix::termios::Termios);

impl Echo {
    fn off() -> Result<Echo, String> {
        let trouble = |error| format!("the terminal would show it: {error}; give --key-file");
        let before = tcgetattr(std::io::stdin()).map_err(trouble)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).map_err(trouble)?;
        Ok(Echo(before))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // If this fails nothing is left to do but to tell: `reset` helps.
        if tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).is_err() {
            prompt("the terminal does not show what is typed any more: type `reset`\n");
        }
    }
}

/// A question, beside the data on standard output.
pub(super) fn prompt(text: &str) {
    let mut error = std::io::stderr();
    let _ = error.write_all(text.as_bytes()).and_then(|()| error.flush());
}

/// The result, on standard output.
pub(super) fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn line() -> Result<String, String> {
    Ok(answer_or_end()?.unwrap_or_default())
}

/// A person's answer.
fn answer() -> Result<String, String> {
    answer_or_end()?.ok_or_else(|| "the dialogue was ended, and nothing is written".to_owned())
}

/// `None`: nobody answers any more.
fn answer_or_end() -> Result<Option<String>, String> {
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer);
    let read = read.map_err(|error| format!("the answer can't be read: {error}"))?;
    Ok((read > 0).then(|| answer.trim().to_owned()))
}

/// All of standard input, as one line.
pub(super) fn standard_input() -> Result<String, String> {
    match line()? {
        text if text.is_empty() => Err("standard input holds no key".into()),
        text => Ok(text),
    }
}
