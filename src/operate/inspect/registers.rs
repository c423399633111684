//! Reading what stands in a table of a device, whatever its profile says.

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout, Instant};

use super::{unreadable, TURN_LIMIT};
use crate::bus::call::{Call, Wire};
use crate::bus::BusHandle;
use crate::config::{Device, TABLES};
use crate::peripheral::exception::{self, BUSY};
use crate::peripheral::exchange::{Answer, Refusal, Request};
use crate::peripheral::registers::Table;

/// One past the highest protocol address (Modbus Application Protocol V1.1b3, 4.4).
const ADDRESSES: usize = 65_536;

/// What one request reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which table.
    pub table: Table,
    /// Protocol address of the first bit or register, from 0.
    pub address: u16,
    /// How many of them.
    pub count: u16,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registers {
    /// Of coils or discrete inputs.
    Bits(Vec<bool>),
    /// Of holding or input registers.
    Words(Vec<u16>),
}

impl From<Registers> for Answer {
    fn from(found: Registers) -> Answer {
        match found {
            Registers::Bits(bits) => Answer::Bits(bits),
            Registers::Words(words) => Answer::Words(words),
        }
    }
}

impl Piece {
    /// The pieces in which so many bits or registers are read. None holds only a part of a value of `width` registers:
    /// what is read by two requests may be of two moments.
    ///
    /// # Errors
    /// A sentence: there are not so many, or none is asked for.
    pub fn split(table: Table, address: u16, span: usize, width: usize) -> Result<Vec<Piece>, String> {
        let first = usize::from(address);
        if span == 0 {
            return Err("nothing is asked for: COUNT is at least 1".into());
        }
        if first + span > ADDRESSES {
            let last = first + span - 1;
            return Err(format!("from {address} it reaches to {last}, and the last address is 65535: ask for fewer"));
        }
        let each = table.most(false) / width * width;
        let pieces = (0..span).step_by(each).map(|at| Piece {
            table,
            // Both are below 65536, by what was looked at above.
            address: (first + at) as u16,
            count: each.min(span - at) as u16,
        });
        Ok(pieces.collect())
    }

    /// Of the table with this name.
    ///
    /// # Errors
    /// A sentence: no request of the protocol reads that.
    pub fn of(table: &str, address: u16, count: u16) -> Result<Piece, String> {
        let named = TABLES.iter().find(|(name, _)| *name == table);
        let (_, table) =
            named.ok_or_else(|| format!("{table:?} is not a table: it is coil, discrete, holding or input"))?;
        match Piece::split(*table, address, count.into(), 1)?[..] {
            [piece] => Ok(piece),
            _ => Err(format!("one request reads at most {} of them, not {count}", table.most(false))),
        }
    }

    /// The name of its table.
    pub fn table_name(&self) -> &'static str {
        TABLES.iter().find(|(_, table)| *table == self.table).map(|(name, _)| *name).expect("each table has a name")
    }

    fn request(&self) -> Request {
        let Piece { table, address, count } = *self;
        match table {
            Table::Coil | Table::Discrete => Request::ReadBits { coils: table == Table::Coil, address, count },
            Table::Holding | Table::Input => Request::ReadWords { holding: table == Table::Holding, address, count },
        }
    }
}

/// Reads a piece, with as many attempts as the bus makes where repeating is safe.
///
/// # Errors
/// A sentence: what the unit said, or that it did not, or why it was not asked.
pub async fn read(device: &Device, bus: &BusHandle, piece: Piece) -> Result<Registers, String> {
    if let Some(why) = unreadable(&bus.settings(), device.unit) {
        return Err(format!("device {:?} can't be read: {why}", device.id));
    }
    let Device { patience, quirks, .. } = *device;
    let caller = bus.caller().with_harmless(Some(harmless()));
    let mut end = Wire::NotSent("the bus was not free".into());
    for attempt in 0..=patience.retries.unwrap_or_else(|| bus.retries()) {
        if attempt > 0 {
            sleep(bus.retry_pause()).await;
        }
        let granted = timeout(TURN_LIMIT, caller.turn()).await;
        let Ok(granted) = granted else { break };
        let mut turn = granted.map_err(|closed| closed.to_string())?;
        let not_after = Some(Instant::now() + TURN_LIMIT);
        end = turn.exchange(&Call { not_after, patience, quirks, ..Call::new(device.unit, piece.request()) }).await;
        if !(is_busy(&end) || matches!(end, Wire::NoAnswer(_) | Wire::BadReply(_))) {
            break;
        }
    }
    told(device.unit, piece, end)
}

/// A read whose answer can't be an echo: by it a line shows first whether it echoes, where the answer to the read that
/// is meant could be one.
fn harmless() -> Request {
    Request::ReadWords { holding: true, address: 0, count: 1 }
}

fn is_busy(end: &Wire) -> bool {
    *end == Wire::Refused(Refusal::Exception(BUSY))
}

fn told(unit: u8, piece: Piece, end: Wire) -> Result<Registers, String> {
    let place = || match (piece.table_name(), piece.address, piece.count) {
        (table, address, 1) => format!("{table} {address}"),
        (table, address, count) => format!("{table} {address} to {}", usize::from(address) + usize::from(count) - 1),
    };
    match end {
        Wire::Answered(Answer::Bits(bits)) => Ok(Registers::Bits(bits)),
        Wire::Answered(Answer::Words(words)) => Ok(Registers::Words(words)),
        Wire::Answered(Answer::Written | Answer::Line(_) | Answer::Value(_)) => {
            Err("the answer is of another kind than was asked for".into())
        }
        Wire::Refused(Refusal::Exception(code)) => {
            Err(format!("unit {unit} refuses {} by Modbus exception {code}: {}", place(), exception::meaning(code)))
        }
        Wire::Refused(Refusal::Text(text)) => Err(format!("it refuses {}: {text}", place())),
        Wire::Broadcast => Err("unit 0 is all units of the line, and nobody answers for all".into()),
        Wire::NotSent(why) => Err(format!("nothing could be asked: {why}")),
        Wire::NoAnswer(why) | Wire::BadReply(why) => Err(format!("{} could not be read: {why}", place())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::{duplex, AsyncReadExt as _};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::bus::{self, Lines, Opener, Opening};
    use crate::config::{self, SerialPort};
    use crate::net::Stream;

    /// A server that hears everything and says nothing.
    #[derive(Debug, Clone, Default)]
    struct Deaf(Arc<Mutex<Vec<Instant>>>);

    impl Lines for Deaf {
        fn connect<'a>(&'a self, _: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
            let (near, mut far) = duplex(256);
            let heard = self.0.clone();
            tokio::spawn(async move {
                while let Ok(1..) = far.read(&mut [0; 256]).await {
                    heard.lock().unwrap().push(Instant::now());
                }
            });
            Box::pin(async { Ok(Box::new(near) as Box<dyn Stream>) })
        }

        fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
            unreachable!("the bus has no serial port")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_waits_for_a_while_first_whatever_came_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        std::fs::write(folder.path().join("k"), key).unwrap();
        let text =
            "[hub]\nhost = \"h.example\"\n[device.d]\nbus = \"b\"\nunit = 7\nprofile = \"p\"\nkey_file = \"k\"\n\
                    [profile.p.command.c]\nread = { register = 40001 }\n[bus.b]\nkind = \"modbus-tcp\"\n\
                    address = \"10.0.0.1\"\nresponse_timeout = \"1s\"\nretries = 1\nretry_pause = \"3s\"\n";
        std::fs::write(&main, text).unwrap();
        let config = config::load(&main, []).unwrap().config;
        let (bus, worker) = bus::new("b", &config.buses["b"]);
        let (stop, deaf) = (CancellationToken::new(), Deaf::default());
        tokio::spawn(worker.on(Arc::new(deaf.clone())).run(stop.clone()));
        let piece = Piece { table: Table::Holding, address: 0, count: 1 };
        let why = read(&config.devices["d"], &bus, piece).await.unwrap_err();
        assert!(why.contains("did not answer within 1s"), "{why}");
        let heard = deaf.0.lock().unwrap().clone();
        assert_eq!((heard.len(), (heard[1] - heard[0]).as_secs()), (2, 4));
        stop.cancel();
    }

    fn pieces(table: Table, address: u16, span: usize, width: usize) -> Vec<(u16, u16)> {
        let pieces = Piece::split(table, address, span, width).unwrap();
        pieces.iter().map(|piece| (piece.address, piece.count)).collect()
    }

    #[test]
    fn what_one_request_does_not_move_is_split_and_no_value_is() {
        assert_eq!(pieces(Table::Holding, 0, 125, 1), [(0, 125)]);
        assert_eq!(pieces(Table::Holding, 10, 126, 1), [(10, 125), (135, 1)]);
        assert_eq!(pieces(Table::Input, 0, 126, 2), [(0, 124), (124, 2)]);
        assert_eq!(pieces(Table::Input, 0, 248, 4), [(0, 124), (124, 124)]);
        assert_eq!(pieces(Table::Coil, 1, 2001, 1), [(1, 2000), (2001, 1)]);
        let all = pieces(Table::Holding, 0, 65_536, 1);
        assert_eq!((all.len(), all[524]), (525, (65_500, 36)));
    }

    #[test]
    fn what_can_not_be_read_is_said_in_a_sentence() {
        let split = |address, span| Piece::split(Table::Holding, address, span, 1).unwrap_err();
        assert!(split(0, 0).contains("at least 1"));
        assert!(split(65_535, 2).contains("the last address is 65535"));
        assert!(split(0, 65_537).contains("reaches to 65536"));
        let of = |table, count| Piece::of(table, 0, count).unwrap_err();
        assert!(of("register", 1).contains("holding or input"));
        assert!(of("holding", 126).contains("at most 125"));
        assert_eq!(Piece::of("coil", 7, 2000), Ok(Piece { table: Table::Coil, address: 7, count: 2000 }));
    }

    #[test]
    fn every_end_but_an_answer_is_told_with_the_unit_or_the_place() {
        let piece = Piece { table: Table::Input, address: 5, count: 2 };
        let told = |end| told(9, piece, end).unwrap_err();
        let said = told(Wire::Refused(Refusal::Exception(2)));
        assert!(said.contains("unit 9 refuses input 5 to 6 by Modbus exception 2: illegal data address"), "{said}");
        let said = told(Wire::NoAnswer("unit 9 did not answer within 1s".into()));
        assert!(said.contains("input 5 to 6 could not be read: unit 9 did not answer"), "{said}");
        assert!(told(Wire::NotSent("it is unplugged".into())).contains("nothing could be asked: it is unplugged"));
    }
}
