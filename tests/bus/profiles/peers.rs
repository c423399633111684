//! Peripherals for the profiles: a Modbus TCP server that holds four tables (Modbus Messaging on TCP/IP V1.0b, Modbus
//! Application Protocol V1.1b3), and an instrument that is told what it hears and what it says. Neither shares code
//! with the daemon.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The four tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    Coil,
    Discrete,
    Holding,
    Input,
}

/// One coil or register.
pub type Cell = (Table, u16);

/// What stands in them; what is not there is 0.
pub type Cells = HashMap<Cell, u16>;

/// A peripheral with registers.
pub struct Peripheral {
    address: String,
    cells: Arc<Mutex<Cells>>,
}

impl Peripheral {
    pub fn new(holds: &[(Cell, u16)], reacts: fn(&mut Cells, Cell, u16)) -> Peripheral {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let cells = Arc::new(Mutex::new(holds.iter().copied().collect()));
        let serving = Arc::clone(&cells);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let cells = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &cells, reacts));
            }
        });
        Peripheral { address, cells }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// What stands there now.
    pub fn holds(&self, cell: Cell) -> u16 {
        self.cells.lock().unwrap().get(&cell).copied().unwrap_or(0)
    }
}

fn serve(mut stream: TcpStream, cells: &Mutex<Cells>, reacts: fn(&mut Cells, Cell, u16)) {
    let _ = stream.set_nodelay(true);
    let mut header = [0; 7];
    while stream.read_exact(&mut header).is_ok() {
        let mut pdu = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
        if stream.read_exact(&mut pdu).is_err() {
            return;
        }
        let answer = answer(&mut cells.lock().unwrap(), &pdu, reacts);
        let length = u16::try_from(answer.len() + 1).unwrap().to_be_bytes();
        if stream.write_all(&[&header[..4], &length, &header[6..], &answer].concat()).is_err() {
            return;
        }
    }
}

fn answer(cells: &mut Cells, pdu: &[u8], reacts: fn(&mut Cells, Cell, u16)) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
    let (function, first, count) = (pdu[0], word(1), word(3));
    let held = |table: Table| (first..first + count).map(move |address| (table, address));
    match function {
        1 | 2 => {
            let table = if function == 1 { Table::Coil } else { Table::Discrete };
            let mut bytes = vec![0; usize::from(count.div_ceil(8))];
            for (n, cell) in held(table).enumerate() {
                bytes[n / 8] |= u8::from(cells.get(&cell).is_some_and(|on| *on != 0)) << (n % 8);
            }
            [&[function, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
        }
        3 | 4 => {
            let table = if function == 3 { Table::Holding } else { Table::Input };
            let words = held(table).flat_map(|cell| cells.get(&cell).copied().unwrap_or(0).to_be_bytes());
            [vec![function, u8::try_from(2 * count).unwrap()], words.collect()].concat()
        }
        5 => written(cells, (Table::Coil, first), u16::from(count == 0xFF00), reacts, pdu),
        6 => written(cells, (Table::Holding, first), count, reacts, pdu),
        16 => {
            for (n, cell) in held(Table::Holding).enumerate() {
                written(cells, cell, word(6 + 2 * n), reacts, pdu);
            }
            pdu[..5].to_vec()
        }
        _ => vec![function | 0x80, 1],
    }
}

fn written(cells: &mut Cells, cell: Cell, value: u16, reacts: fn(&mut Cells, Cell, u16), pdu: &[u8]) -> Vec<u8> {
    cells.insert(cell, value);
    reacts(cells, cell, value);
    pdu[..5].to_vec()
}

/// An instrument of lines or frames, at a serial server.
pub struct Speaker {
    address: String,
    talk: Arc<Mutex<Talk>>,
}

#[derive(Default)]
struct Talk {
    /// What is to come, and what is said to it.
    due: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// What has come and was not to.
    surplus: Vec<u8>,
}

impl Speaker {
    pub fn new() -> Speaker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let talk: Arc<Mutex<Talk>> = Arc::default();
        let serving = Arc::clone(&talk);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let talk = Arc::clone(&serving);
                std::thread::spawn(move || converse(stream, &talk));
            }
        });
        Speaker { address, talk }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on this is to come, and this is said to it.
    pub fn expects(&self, hears: &[u8], says: &[u8]) {
        self.talk.lock().unwrap().due.push_back((hears.to_vec(), says.to_vec()));
    }

    /// It has come, and nothing else has.
    pub fn has_heard_all(&self, what: &str) {
        let talk = self.talk.lock().unwrap();
        assert!(talk.due.is_empty() && talk.surplus.is_empty(), "{what}: it heard {}", talk.surplus.escape_ascii());
    }
}

fn converse(mut stream: TcpStream, talk: &Mutex<Talk>) {
    let _ = stream.set_nodelay(true);
    let mut chunk = [0; 256];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        let mut talk = talk.lock().unwrap();
        talk.surplus.extend_from_slice(&chunk[..length]);
        let is_there = talk.due.front().is_some_and(|(hears, _)| *hears == talk.surplus);
        if let Some((_, says)) = is_there.then(|| talk.due.pop_front()).flatten() {
            talk.surplus.clear();
            if stream.write_all(&says).is_err() {
                return;
            }
        }
    }
}
