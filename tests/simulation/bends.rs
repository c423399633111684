//! How Modbus peripherals bend the protocol, as the configuration says that they do (`quirks`), or as nobody has said.

use super::manners::{Manner, Manners};
use super::scenario::Device;
use super::world::World;

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Another transaction.
    Transaction,
    /// Another unit.
    Unit,
    /// A wrong length, or more behind the answer.
    Length,
    /// Another echo of a write.
    Echo,
}

/// All of them, as a configuration and the list of what must happen name them.
const ALL: [(Way, &str, &str); 4] = [
    (Way::Transaction, "transaction-id", "slave: another transaction id"),
    (Way::Unit, "unit-id", "slave: another unit id"),
    (Way::Length, "length", "slave: a wrong length"),
    (Way::Echo, "echo", "slave: a write is answered by other content"),
];

/// The chance in a thousand that an answer is bent.
const OFTEN: u64 = 700;
/// The same in a way that the configuration does not name.
const SELDOM: u64 = 60;

/// How the peripherals of one line do.
#[derive(Debug, Clone, Default)]
pub struct Bends {
    named: Vec<Way>,
    unnamed: Vec<Way>,
    is_tcp: bool,
}

impl Bends {
    /// Those of the network's line and of the serial one, by dice of their own.
    pub fn of(world: &World, manners: &Manners, devices: &[Device]) -> [Bends; 2] {
        if !manners.have(Manner::Quirks) {
            return Default::default();
        }
        let mut dice = world.dice("bends");
        ["net", "rtu"].map(|bus| {
            // Whose answer is it, where there are several units?
            let is_alone = devices.iter().filter(|device| device.bus == bus).count() <= 1;
            let mut bends = Bends { is_tcp: bus == "net", ..Bends::default() };
            for (way, ..) in ALL {
                match dice.u8(..8) {
                    _ if way == Way::Transaction && !bends.is_tcp => {}
                    0..3 if way != Way::Unit || is_alone => bends.named.push(way),
                    3 => bends.unnamed.push(way),
                    _ => {}
                }
            }
            bends
        })
    }

    /// Whether each answer is told by its transaction and its unit, and is as long as it says, as far as anybody names
    /// how they are otherwise.
    pub fn goes_by_the_letter(&self) -> bool {
        self.named.iter().all(|way| *way == Way::Echo)
    }

    /// The key of their devices.
    pub fn key(&self) -> String {
        let names = ALL.iter().filter(|(way, ..)| self.named.contains(way)).map(|(_, name, _)| format!("\"{name}\""));
        let names: Vec<String> = names.collect();
        match names.is_empty() {
            true => String::new(),
            false => format!("quirks = [{}]\n", names.join(", ")),
        }
    }

    /// How the next answer is bent, by the dice. What is no echo of a write can't be another one.
    pub fn next(&self, world: &World, is_echo: bool) -> Bend {
        let mut bend = Bend::default();
        for (way, _, what) in ALL.into_iter().filter(|(way, ..)| is_echo || *way != Way::Echo) {
            let is_named = self.named.contains(&way);
            let is_bent = match is_named {
                true => world.chance(OFTEN),
                false => self.unnamed.contains(&way) && !world.faults_are_over() && world.chance(SELDOM),
            };
            if !is_bent {
                continue;
            }
            world.count(if is_named { what } else { "slave: bends what nobody has named" });
            // Where a write may be answered by any content, its length is part of that.
            let is_covered = way == Way::Length && is_echo && self.named.contains(&Way::Echo);
            bend.is_unnamed |= !is_named && !is_covered;
            match way {
                Way::Transaction => bend.transaction = 1 + world.pick(0..0xFFFF) as u16,
                Way::Unit => bend.unit = Some([0, 100, 255][world.pick(0..3) as usize]),
                Way::Length if self.is_tcp && world.chance(300) => bend.miscounts = true,
                Way::Length => bend.more = 1 + world.pick(0..3) as u8,
                Way::Echo => bend.echoes_else = true,
            }
        }
        bend
    }
}

/// What of one answer is otherwise than by the letter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bend {
    /// Bits of the transaction that are other ones.
    pub transaction: u16,
    pub unit: Option<u8>,
    /// Bytes behind the answer, which are counted as if they were of it.
    pub more: u8,
    /// The number of bytes is wrong that a frame of Modbus TCP says.
    pub miscounts: bool,
    pub echoes_else: bool,
    /// The configuration says nothing of it.
    pub is_unnamed: bool,
}
