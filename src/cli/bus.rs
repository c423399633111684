//! `read` and `decode`: what a person sees of a bus, through the running daemon, or with a port of this process where
//! none runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::Args;
use serde_json::{json, Map, Value as Json};

use super::{environment, print, print_error, to_its_end};
use crate::config::{self, Config, ORDERS, TABLES, TYPES};
use crate::doctor::Alone;
use crate::exit::Exit;
use crate::operate::admin::{client, Request};
use crate::operate::inspect::{self, meanings, Piece, Registers};
use crate::operate::text;
use crate::peripheral::exchange::Answer;
use crate::peripheral::registers::{DataType, Order, Point, Table};

/// A port that is kept for longer than this after the end is explained.
const KEPT_UNTOLD: Duration = Duration::from_secs(3);

/// What is to be read.
#[derive(Debug, Args)]
pub struct ReadOptions {
    #[command(flatten)]
    place: Place,
    /// How many values; of a string, how many registers it takes.
    #[arg(default_value_t = 1)]
    count: u32,
    /// The type of the values; if nothing is said, bool for coils and discrete inputs, and u16 for registers.
    #[arg(long = "type", value_name = "T", value_parser = PossibleValuesParser::new(TYPES.map(|(name, _)| name)))]
    kind: Option<String>,
    /// How the bytes of a value lie: A is the most significant of four.
    #[arg(long, value_name = "O", default_value = "ABCD",
          value_parser = PossibleValuesParser::new(ORDERS.map(|(letters, _)| letters)))]
    order: String,
    /// Print the values as one JSON document.
    #[arg(long)]
    json: bool,
}

/// What is to be decoded.
#[derive(Debug, Args)]
pub struct DecodeOptions {
    #[command(flatten)]
    place: Place,
    /// How many registers.
    #[arg(default_value_t = 2)]
    count: u32,
    /// Print the registers and what they may mean as one JSON document.
    #[arg(long)]
    json: bool,
}

/// Where something stands.
#[derive(Debug, Args)]
struct Place {
    /// Device id at the hub.
    device: String,
    /// The table.
    #[arg(value_parser = PossibleValuesParser::new(TABLES.map(|(name, _)| name)))]
    table: String,
    /// Protocol address of the first, from 0; 0x1F is 31.
    #[arg(value_parser = address)]
    address: u16,
}

impl Place {
    fn table(&self) -> Table {
        named(&TABLES, &self.table).expect("the command line takes no other")
    }
}

/// What has this name.
fn named<T: Copy>(all: &[(&str, T)], name: &str) -> Option<T> {
    all.iter().find(|(other, _)| *other == name).map(|(_, what)| *what)
}

/// A protocol address, decimal or with `0x`.
fn address(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "it is a number from 0 to 65535, or from 0x0 to 0xFFFF".into())
}

/// Shows values of a device's table.
///
/// # Errors
/// What can't be asked, and what the peripheral says in place of an answer.
pub fn read(config: &Path, options: &ReadOptions) -> Result<(), Exit> {
    let point = options.point()?;
    let words = point.kind.words();
    let (span, width) = match point.table.is_bits() {
        true => (options.count as usize, 1),
        false => (options.count as usize * words, words),
    };
    let found = found(config, &options.place, span, width)?;
    let values = point.values(&found).map_err(Exit::No)?;
    match options.json {
        true => print(&json!({ "values": values }).to_string()),
        false => print(&text::values(point.address, width, &values)),
    }
    Ok(())
}

/// Shows registers of a device as everything that they may mean.
///
/// # Errors
/// What can't be asked, and what the peripheral says in place of an answer.
pub fn decode(config: &Path, options: &DecodeOptions) -> Result<(), Exit> {
    if options.place.table().is_bits() {
        let table = &options.place.table;
        let what = format!("the bits of {table} have no types to tell apart: `fieldbridge read` shows them");
        return Err(Exit::Usage(format!("{what} (see `fieldbridge decode --help`)")));
    }
    let Answer::Words(words) = found(config, &options.place, options.count as usize, 1)? else {
        return Err(Exit::Internal("registers were asked for, and something else came".into()));
    };
    let all = meanings(&words);
    if options.json {
        let all: Map<String, Json> = all.into_iter().map(|(name, values)| (name, values.into())).collect();
        print(&json!({ "registers": words, "as": all }).to_string());
    } else {
        print(&text::meanings(&words, &all));
    }
    Ok(())
}

impl ReadOptions {
    fn point(&self) -> Result<Point, Exit> {
        let table = self.place.table();
        let default = if table.is_bits() { DataType::Bool } else { DataType::U16 };
        let kind = self.kind.as_deref().map_or(Some(default), |name| named(&TYPES, name)).unwrap_or(default);
        let (word_order, byte_order) = named(&ORDERS, &self.order).unwrap_or((Order::Big, Order::Big));
        let wrong = |what: String| Exit::Usage(format!("{what} (see `fieldbridge read --help`)"));
        if table.is_bits() && kind != DataType::Bool {
            return Err(wrong(format!("{} holds single bits: leave --type out", self.place.table)));
        }
        if (table.is_bits() || kind == DataType::String && word_order == Order::Little) && self.order != "ABCD" {
            let what =
                "the order is of the bytes of a number in registers: leave it out, or take BADC for a text whose \
                        registers have their second letter first";
            return Err(wrong(what.into()));
        }
        let count = (kind == DataType::String).then(|| u16::try_from(self.count).unwrap_or(u16::MAX));
        let address = self.place.address;
        Ok(Point { count, word_order, byte_order, ..Point::new(table, address, kind) })
    }
}

/// What stands at a place: so many bits or registers, in values of `width` of them.
fn found(config: &Path, place: &Place, span: usize, width: usize) -> Result<Answer, Exit> {
    let table = place.table();
    let pieces = Piece::split(table, place.address, span, width)
        .map_err(|what| Exit::Usage(format!("{what} (see `fieldbridge read --help`)")))?;
    let read = to_its_end(async {
        let way = Way::find(config, |config| bus_of(config, &place.device)).await?;
        let read = way.read(&place.device, &pieces).await;
        way.leave().await;
        read
    })?;
    read.map_err(|exit| match (exit, config::meant_by(table, place.address)) {
        (Exit::No(why), Some(meant)) => {
            let given = place.address;
            Exit::No(format!("{why}; if {given} comes from a manual's list of registers, its address is {meant}"))
        }
        (exit, _) => exit,
    })
}

/// The bus of a device.
fn bus_of(config: &Config, device: &str) -> Result<String, Exit> {
    let found = config.devices.get(device).map(|device| device.bus.clone());
    found.ok_or_else(|| Exit::No(format!("no device is called {device:?}")))
}

/// How a bus is reached.
pub(super) enum Way {
    /// By the running daemon, at its admin socket.
    Daemon(PathBuf),
    /// From here.
    Alone(Box<(Config, Alone)>),
}

impl Way {
    /// Through the daemon if it runs, else with the bus that `bus` names.
    pub(super) async fn find(path: &Path, bus: impl FnOnce(&Config) -> Result<String, Exit>) -> Result<Way, Exit> {
        let places = config::places(path, environment()).map_err(Exit::Config)?;
        if client::is_served(&places.admin_socket)? {
            return Ok(Way::Daemon(places.admin_socket));
        }
        let config = config::load(path, environment()).map_err(Exit::Config)?.config;
        let bus = bus(&config)?;
        let alone = Alone::take(&config, &bus).await.map_err(|why| Exit::No(why.to_string()))?;
        Ok(Way::Alone(Box::new((config, alone))))
    }

    /// Everything that stands in these pieces of one table.
    async fn read(&self, device: &str, pieces: &[Piece]) -> Result<Answer, Exit> {
        let (mut bits, mut words) = (Vec::new(), Vec::new());
        for piece in pieces {
            match self.read_piece(device, *piece).await? {
                Registers::Bits(more) => bits.extend(more),
                Registers::Words(more) => words.extend(more),
            }
        }
        Ok(if bits.is_empty() { Answer::Words(words) } else { Answer::Bits(bits) })
    }

    async fn read_piece(&self, device: &str, piece: Piece) -> Result<Registers, Exit> {
        match self {
            Way::Daemon(socket) => {
                let (table, Piece { address, count, .. }) = (piece.table_name().to_owned(), piece);
                let answer = client::ask(socket, &Request::Read { device: device.to_owned(), table, address, count })?;
                understood(answer)
            }
            Way::Alone(at) => inspect::read(&at.0.devices[device], &at.1.bus, piece).await.map_err(Exit::No),
        }
    }

    /// Gives back what was taken.
    pub(super) async fn leave(self) {
        let Way::Alone(at) = self else { return };
        let kept = at.1.owed_for();
        if kept > KEPT_UNTOLD {
            let seconds = kept.as_secs();
            print_error(&format!("note: the port is kept for {seconds} s more, as an answer may come so late"));
        }
        at.1.close().await;
    }
}

/// What the daemon has told.
pub(super) fn understood<T: serde::de::DeserializeOwned>(answer: Json) -> Result<T, Exit> {
    serde_json::from_value(answer).map_err(|error| {
        let what = format!("the daemon is of another version, and says what this program does not know ({error})");
        Exit::Surroundings(format!("{what}; restart it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_from_0_to_65535_by_ten_or_sixteen() {
        for (text, number) in [("0", 0), ("65535", 65_535), ("0x1F", 31), ("0XFFFF", 65_535)] {
            assert_eq!(address(text), Ok(number));
        }
        for text in ["65536", "-1", "0x", "0x10000", "1F", ""] {
            assert!(address(text).unwrap_err().contains("0 to 65535"), "{text}");
        }
    }
}
