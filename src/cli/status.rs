//! `fieldbridge status`: once, or again and again.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::termios;
use serde_json::Value as Json;

use super::{environment, print};
use crate::config;
use crate::exit::Exit;
use crate::health::snapshot::Snapshot;
use crate::operate::admin::{client, Request};
use crate::operate::attention;
use crate::operate::text::{self, Page, Tone};

/// How often it is asked with `--watch`.
const WATCH_PERIOD: Duration = Duration::from_secs(2);
/// Goes to the first place of a terminal; clears to the end of the line, and of the screen (ECMA-48, 8.3.21, 41, 39).
const HOME: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K";
const SCREEN_END: &str = "\x1b[J";

/// What standard output is.
pub(super) fn page() -> Page {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return Page::default();
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let colour = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
    Page { width: size().map(|(columns, _)| columns), colour }
}

/// Columns and rows of the terminal that standard output is.
fn size() -> Option<(usize, usize)> {
    let size = termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 1).then_some((size.ws_col.into(), size.ws_row.into()))
}

pub(super) fn status(path: &Path, json: bool) -> Result<(), Exit> {
    let document = asked(path)?;
    if json {
        print(&document.to_string());
        return Ok(());
    }
    let snapshot = read(document)?;
    print(&text::status(&snapshot, page()));
    match snapshot.attention.is_empty() {
        true => Ok(()),
        // The first lines say what.
        false => Err(Exit::No(String::new())),
    }
}

fn asked(path: &Path) -> Result<Json, Exit> {
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    client::ask(&places.admin_socket, &Request::Status {})
}

fn read(document: Json) -> Result<Snapshot, Exit> {
    let mut snapshot: Snapshot = serde_json::from_value(document).map_err(|error| {
        let what = format!("the daemon is of another version, and says what this program does not know ({error})");
        Exit::Surroundings(format!("{what}; restart it, or take --json"))
    })?;
    // An older daemon does not say it.
    if snapshot.attention.is_empty() {
        snapshot.attention = attention::of(&snapshot);
    }
    Ok(snapshot)
}

/// Shows it until somebody ends it, or nobody reads it any more. A daemon that is away for a while is waited for, if it
/// was there.
pub(super) fn watch(path: &Path, json: bool) -> Result<(), Exit> {
    let mut told = asked(path)?;
    loop {
        let shown = match json {
            true => format!("{told}\n"),
            false => picture(&text::status(&read(told)?, page())),
        };
        let mut out = std::io::stdout().lock();
        if out.write_all(shown.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        drop(out);
        told = loop {
            std::thread::sleep(WATCH_PERIOD);
            match asked(path) {
                Ok(document) => break document,
                Err(Exit::NotRunning(why)) if json => super::print_error(&why),
                Err(Exit::NotRunning(why)) => {
                    let line = page().paint(Tone::Bad, &text::printable(&why));
                    let _ = std::io::stdout().write_all(picture(&line).as_bytes());
                }
                Err(other) => return Err(other),
            }
        };
    }
}

/// A text in the place of the one before, where that can be.
fn picture(text: &str) -> String {
    match size().filter(|_| std::io::stdout().is_terminal()) {
        None => format!("{}\n\n", text.trim_end()),
        Some((_, rows)) => {
            let mut lines: Vec<&str> = text.trim_end().lines().collect();
            let rest =
                format!("… {} more lines; `fieldbridge status` shows all", (lines.len() + 2).saturating_sub(rows));
            if lines.len() >= rows {
                lines.truncate(rows - 2);
                lines.push(&rest);
            }
            // Each line is overwritten in its place, so that nothing flickers.
            let lines: String = lines.iter().map(|line| format!("{line}{LINE_END}\n")).collect();
            format!("{HOME}{lines}{SCREEN_END}")
        }
    }
}
