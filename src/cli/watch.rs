//! `watch`: what goes over the line of a bus.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::bus::{understood, Way};
use super::{print_error, to_its_end};
use crate::bus::speech::{Said, Speech, Watcher};
use crate::bus::tap::{Heard, Tap};
use crate::config::{BusKind, Config, Endpoint};
use crate::exit::Exit;
use crate::operate::admin::{client, Request};
use crate::operate::capture::Capture;
use crate::operate::inspect::{no_bus, Watched};
use crate::operate::text::printable;
use crate::time::Timestamp;

/// What is watched.
#[derive(Debug, Args)]
pub struct WatchOptions {
    /// The bus's name in the configuration.
    bus: String,
    /// Also write what goes over the line to a new file, as a capture for Wireshark.
    ///
    /// Modbus TCP is captured as raw IPv4 with made-up addresses, a serial line as RTAC serial. What the latter
    /// carries nothing in it says: tell Wireshark by "Decode As" that it is Modbus RTU, or read it with
    /// tshark -r FILE -d rtacser.data,mbrtu
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// Shows what goes over the line, until nobody reads it any more.
///
/// # Errors
/// The bus can't be watched, or the capture not written.
pub fn run(config: &Path, options: &WatchOptions) -> Result<(), Exit> {
    to_its_end(async {
        let mut way = Way::find(config, |config| listened(config, &options.bus)).await?;
        let watched = watch(&mut way, options).await;
        way.leave().await;
        watched
    })?
}

/// The bus, if there is something to listen to without the daemon.
fn listened(config: &Config, name: &str) -> Result<String, Exit> {
    let Some(bus) = config.buses.get(name) else { return Err(Exit::No(no_bus(name, config.buses.keys()))) };
    match &bus.kind {
        BusKind::ModbusRtu(Endpoint::Serial(_))
        | BusKind::ModbusAscii(Endpoint::Serial(_))
        | BusKind::Serial { endpoint: Endpoint::Serial(_), .. } => Ok(name.to_owned()),
        _ => {
            let place = bus.kind.place();
            let what = format!("the daemon does not run, and only it is heard on a connection to {place}");
            Err(Exit::No(format!("{what}; start it, then watch")))
        }
    }
}

async fn watch(way: &mut Way, options: &WatchOptions) -> Result<(), Exit> {
    let alone = matches!(way, Way::Alone(_));
    let mut recorder: Option<Recorder> = None;
    let mut after = None;
    loop {
        let Watched { kind, heard } = way.heard(&options.bus, after).await?;
        let Some(speech) = Speech::of(&kind) else {
            return Err(Exit::Surroundings(format!("a bus of kind {kind} is not known to this program; update it")));
        };
        // A reload may have made it another bus.
        if !recorder.as_ref().is_some_and(|recorder| recorder.speech == speech) {
            if recorder.is_some() && options.pcap.is_some() {
                return Err(Exit::No(format!("the bus is of kind {kind} now, which begins another capture")));
            }
            recorder = Some(Recorder::new(speech, alone, options.pcap.as_deref())?);
        }
        let Some(recorder) = &mut recorder else { continue };
        if heard.lost > 0 {
            print_error(&format!("note: {} pieces before this were lost, as they came too fast", heard.lost));
        }
        for piece in &heard.pieces {
            for said in recorder.watcher.take(piece) {
                recorder.tell(&said)?;
            }
        }
        let now = Timestamp::now().0.saturating_mul(1000);
        if let (true, Some(said)) = (heard.pieces.is_empty(), recorder.watcher.idle(now)) {
            recorder.tell(&said)?;
        }
        if recorder.is_unread {
            return Ok(());
        }
        after = Some(heard.next);
    }
}

impl Way {
    async fn heard(&mut self, bus: &str, after: Option<u64>) -> Result<Watched, Exit> {
        match self {
            Way::Daemon(socket) => understood(client::ask(socket, &Request::Watch { bus: bus.to_owned(), after })?),
            Way::Alone(at) => {
                let tap: &Tap = at.1.bus.tap();
                let heard: Heard = tap.since(after).await;
                if let Some(why) = at.1.trouble() {
                    print_error(&format!("note: {}", printable(&why)));
                }
                Ok(Watched { kind: at.1.bus.settings().kind.as_str().to_owned(), heard })
            }
        }
    }
}

/// Where what is said goes.
struct Recorder {
    speech: Speech,
    watcher: Watcher,
    capture: Option<(Capture, File, PathBuf)>,
    /// Nobody reads it any more.
    is_unread: bool,
}

impl Recorder {
    fn new(speech: Speech, only_listens: bool, file: Option<&Path>) -> Result<Recorder, Exit> {
        let capture = match file {
            None => None,
            Some(path) => {
                let (capture, mut file) = (Capture::new(speech), created(path)?);
                file.write_all(&capture.header()).map_err(|error| unwritten(path, &error))?;
                Some((capture, file, path.to_owned()))
            }
        };
        Ok(Recorder { speech, watcher: Watcher::new(speech, only_listens), capture, is_unread: false })
    }

    fn tell(&mut self, said: &Said) -> Result<(), Exit> {
        if let Some((capture, file, path)) = &mut self.capture {
            file.write_all(&capture.packet(said)).map_err(|error| unwritten(path, &error))?;
        }
        let (at, direction) = (Timestamp(said.at.div_euclid(1000)), if said.is_request { '>' } else { '<' });
        let line = writeln!(io::stdout(), "{at} {direction} {}", printable(&said.text));
        self.is_unread |= line.is_err();
        Ok(())
    }
}

/// A new file, or a pipe that is there.
fn created(path: &Path) -> Result<File, Exit> {
    let is_file = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    let opened = match is_file {
        true => Err(io::ErrorKind::AlreadyExists.into()),
        false => File::create(path),
    };
    opened.map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Exit {
    let remedy = match error.kind() {
        io::ErrorKind::AlreadyExists => "give another name: what is there is not overwritten",
        io::ErrorKind::StorageFull => "make room, or write to another disk",
        _ => "check its folder, or write somewhere else",
    };
    Exit::No(format!("the capture {} can't be written: {error}; {remedy}", path.display()))
}
