//! Questions on a terminal. Without one nothing is asked: what is missing is named.

use std::fmt::Display;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

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
                prompt(&format!("{question}{shown}: "));
                let answer = line()?;
                match (answer.as_str(), default) {
                    ("", Some(default)) => Ok(default.to_owned()),
                    ("", None) => Err(format!("nothing was answered; {option} says it as well")),
                    _ => Ok(answer),
                }
            }
        }
    }

    /// The same for a number.
    pub(super) fn number<T>(&self, option: &str, given: Option<T>, question: &str, default: T) -> Result<T, String>
    where
        T: FromStr + Display,
    {
        let text = self.text(option, given.map(|given| given.to_string()), question, Some(&default.to_string()))?;
        text.parse().map_err(|_| format!("{text:?} is no number that fits; {option} says it as well"))
    }

    /// The serial port, from a list of those that are there.
    pub(super) fn port(&self, given: Option<PathBuf>, there: &[PathBuf]) -> Result<PathBuf, String> {
        if let Some(given) = given {
            return Ok(given);
        }
        let list: Vec<String> =
            there.iter().enumerate().map(|(n, port)| format!("  {} {}\n", n + 1, port.display())).collect();
        if !self.is_terminal {
            let list = if there.is_empty() { "  no adapter is plugged in\n".to_owned() } else { list.concat() };
            return Err(format!("--port or --modbus-tcp is missing; serial ports with names that stay:\n{list}"));
        }
        prompt(&list.concat());
        let default = there.first().map(|port| port.display().to_string());
        let answer = self.text("--port", None, "Serial port, by number or path", default.as_deref())?;
        Ok(answer.parse().ok().and_then(|n: usize| there.get(n.checked_sub(1)?).cloned()).unwrap_or(answer.into()))
    }

    /// What is not shown while it is typed.
    pub(super) fn secret(&self, option: &str, question: &str) -> Result<String, String> {
        if !self.is_terminal {
            return Err(format!("{option} is missing: {question}"));
        }
        // Before the question: what is typed or pasted right after it is neither shown nor dropped.
        let shown = Echo::off()?;
        prompt(&format!("{question}: "));
        let answer = line();
        drop(shown);
        prompt("\n");
        answer
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
fn prompt(text: &str) {
    let mut error = std::io::stderr();
    let _ = error.write_all(text.as_bytes()).and_then(|()| error.flush());
}

/// The result, on standard output.
pub(super) fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn line() -> Result<String, String> {
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer);
    read.map_err(|error| format!("the answer can't be read: {error}"))?;
    Ok(answer.trim().to_owned())
}

/// All of standard input, as one line.
pub(super) fn standard_input() -> Result<String, String> {
    match line()? {
        text if text.is_empty() => Err("standard input holds no key".into()),
        text => Ok(text),
    }
}
