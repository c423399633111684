//! What the manuals of peripherals with registers have, as tables of numbers that were worked out apart from the code
//! under test.

use super::peers::{Cell, Cells, Table};
use super::{read, refused, write, OfRegisters};

const COIL: Table = Table::Coil;
const DISCRETE: Table = Table::Discrete;
const HOLDING: Table = Table::Holding;
const INPUT: Table = Table::Input;

/// Words from an address on.
fn words(table: Table, address: u16, words: &[u16]) -> Vec<(Cell, u16)> {
    words.iter().zip(address..).map(|(word, address)| ((table, address), *word)).collect()
}

/// A number of 32 bits with the higher register first.
fn high_first(table: Table, address: u16, bits: u32) -> Vec<(Cell, u16)> {
    words(table, address, &[(bits >> 16) as u16, bits as u16])
}

/// The same with the lower register first.
fn low_first(table: Table, address: u16, bits: u32) -> Vec<(Cell, u16)> {
    words(table, address, &[bits as u16, (bits >> 16) as u16])
}

fn high_floats(table: Table, address: u16, numbers: &[f32]) -> Vec<(Cell, u16)> {
    numbers.iter().zip((address..).step_by(2)).flat_map(|(n, at)| high_first(table, at, n.to_bits())).collect()
}

fn low_floats(table: Table, address: u16, numbers: &[f32]) -> Vec<(Cell, u16)> {
    numbers.iter().zip((address..).step_by(2)).flat_map(|(n, at)| low_first(table, at, n.to_bits())).collect()
}

fn low_integers(table: Table, address: u16, numbers: &[i32]) -> Vec<(Cell, u16)> {
    numbers.iter().zip((address..).step_by(2)).flat_map(|(n, at)| low_first(table, at, *n as u32)).collect()
}

/// Nothing but keeping what was written.
fn keeps(_: &mut Cells, _: Cell, _: u16) {}

pub fn profiles() -> Vec<OfRegisters> {
    let all =
        [drives(), meters(), meters_with_the_lower_register_first(), relays_and_outputs(), controllers(), others()];
    all.into_iter().flatten().collect()
}

fn drives() -> Vec<OfRegisters> {
    let danfoss = OfRegisters {
        profile: "danfoss-vlt",
        // Half of the largest reference, in reverse; ready, on reference and running.
        holds: [words(HOLDING, 50_209, &[0xE000]), words(HOLDING, 50_199, &[0x0F03])].concat(),
        reacts: keeps,
        steps: vec![
            (write("set-reference", "50", "50"), words(HOLDING, 50_009, &[0x2000])),
            (refused("set-reference", "101", "out-of-range"), words(HOLDING, 50_009, &[0x2000])),
            (write("set-drive", "run", "\"run\""), words(HOLDING, 49_999, &[0x047C])),
            (write("set-drive", "ramp-stop", "\"ramp-stop\""), words(HOLDING, 49_999, &[0x043C])),
            (write("set-drive", "quick-stop", "\"quick-stop\""), words(HOLDING, 49_999, &[0x042C])),
            (write("set-drive", "coast", "\"coast\""), words(HOLDING, 49_999, &[0x0434])),
            (refused("set-drive", "1", "out-of-range"), words(HOLDING, 49_999, &[0x0434])),
            (read("read-speed", "-50"), vec![]),
            (read("read-status", "3843"), vec![]),
            (read("read-tripped", "false"), vec![]),
            (read("read-running", "true"), vec![]),
        ],
    };
    let delta = OfRegisters {
        profile: "delta-vfd",
        holds: words(HOLDING, 0x2102, &[6000, 4998, 23]),
        reacts: keeps,
        steps: vec![
            (write("set-frequency", "49.98", "49.98"), words(HOLDING, 0x2001, &[4998])),
            (refused("set-frequency", "60.01", "out-of-range"), words(HOLDING, 0x2001, &[4998])),
            (write("set-drive", "run", "\"run\""), words(HOLDING, 0x2000, &[0x0012])),
            (write("set-drive", "stop", "\"stop\""), words(HOLDING, 0x2000, &[0x0001])),
            (read("read-set-frequency", "60"), vec![]),
            (read("read-frequency", "49.98"), vec![]),
            (read("read-current", "2.3"), vec![]),
        ],
    };
    vec![danfoss, delta]
}

fn meters() -> Vec<OfRegisters> {
    let eastron = OfRegisters {
        profile: "eastron-sdm",
        holds: [(0, 230.5), (6, 1.25), (12, -300.0), (52, 900.5), (70, 50.0), (72, 12.5)]
            .into_iter()
            .flat_map(|(address, number)| high_floats(INPUT, address, &[number]))
            .collect(),
        reacts: keeps,
        steps: vec![
            (read("read-voltage", "230.5"), vec![]),
            (read("read-current", "1.25"), vec![]),
            (read("read-power", "-300"), vec![]),
            (read("read-total-power", "900.5"), vec![]),
            (read("read-frequency", "50"), vec![]),
            (read("read-imported-energy", "12.5"), vec![]),
        ],
    };
    let sunspec = OfRegisters {
        profile: "sunspec-meter",
        // Behind the model's number and length: A, AphA to C, PhV, PhVphA to C, PPV and its three, Hz, W, WphA to C.
        holds: [
            words(HOLDING, 40_069, &[213, 124]),
            high_floats(HOLDING, 40_071, &[7.5, 2.5, 2.5, 2.5, 230.0, 229.5, 230.0, 230.5, 398.0, 397.0, 398.0, 399.0]),
            high_floats(HOLDING, 40_095, &[50.0, 1500.5, 500.0, 500.25, 500.25]),
            high_floats(HOLDING, 40_129, &[1024.0]),
            // The meter knows no imported energy.
            words(HOLDING, 40_137, &[0x7FC0, 0]),
        ]
        .concat(),
        reacts: keeps,
        steps: vec![
            (read("read-current", "7.5"), vec![]),
            (read("read-voltages", "[229.5, 230, 230.5]"), vec![]),
            (read("read-frequency", "50"), vec![]),
            (read("read-power", "1500.5"), vec![]),
            (read("read-powers", "[500, 500.25, 500.25]"), vec![]),
            (read("read-exported-energy", "1024"), vec![]),
            (read("read-imported-energy", "null"), vec![]),
        ],
    };
    vec![eastron, sunspec]
}

fn meters_with_the_lower_register_first() -> Vec<OfRegisters> {
    let wattnode = OfRegisters {
        profile: "wattnode",
        holds: [
            low_floats(HOLDING, 1000, &[10.5, 12.5, 110.5, 112.5, 750.25, 250.0, 250.0, 250.25, 230.0]),
            low_floats(HOLDING, 1018, &[229.5, 230.0, 230.5]),
            low_floats(HOLDING, 1032, &[50.0]),
        ]
        .concat(),
        reacts: keeps,
        steps: vec![
            (read("read-net-energy", "10.5"), vec![]),
            (read("read-imported-energy", "12.5"), vec![]),
            (read("read-imported-energy-total", "112.5"), vec![]),
            (read("read-power", "750.25"), vec![]),
            (read("read-powers", "[250, 250, 250.25]"), vec![]),
            (read("read-voltages", "[229.5, 230, 230.5]"), vec![]),
            (read("read-frequency", "50"), vec![]),
            (write("reset-energy", "", "1"), words(HOLDING, 1619, &[1])),
        ],
    };
    let gavazzi = OfRegisters {
        profile: "carlo-gavazzi-em24",
        holds: [
            low_integers(INPUT, 0x00, &[2305, 2299, 2310]),
            low_integers(INPUT, 0x0C, &[1234, 65_536, -2500]),
            low_integers(INPUT, 0x12, &[2840, 150_660, -5770]),
            low_integers(INPUT, 0x28, &[147_730]),
            words(INPUT, 0x37, &[500]),
            low_integers(INPUT, 0x3E, &[1_234_567]),
            low_integers(INPUT, 0x5C, &[12]),
        ]
        .concat(),
        reacts: keeps,
        steps: vec![
            (read("read-voltages", "[230.5, 229.9, 231]"), vec![]),
            (read("read-currents", "[1.234, 65.536, -2.5]"), vec![]),
            (read("read-powers", "[284, 15066, -577]"), vec![]),
            (read("read-power", "14773"), vec![]),
            (read("read-frequency", "50"), vec![]),
            (read("read-imported-energy", "123456.7"), vec![]),
            (read("read-exported-energy", "1.2"), vec![]),
        ],
    };
    vec![wattnode, gavazzi]
}

/// A board that reads 1 where a relay is on and 0 where it is off, whatever was written to get there.
fn relay_board(cells: &mut Cells, cell: Cell, value: u16) {
    let is_on = !matches!(value, 0x0200);
    cells.insert(cell, u16::from(is_on));
    cells.insert((INPUT, cell.1), value);
}

fn relays_and_outputs() -> Vec<OfRegisters> {
    let set = ["set-relay-1", "set-relay-2", "set-relay-3", "set-relay-4"];
    let set = set.into_iter().chain(["set-relay-5", "set-relay-6", "set-relay-7", "set-relay-8"]);
    let switched = set.zip(1..).map(|(command, relay)| {
        // The word that came is kept beside, at the same address of another table.
        (write(command, "on", "\"on\""), [words(HOLDING, relay, &[1]), words(INPUT, relay, &[0x0100])].concat())
    });
    let mut steps: Vec<_> = switched.collect();
    steps.extend([
        (write("set-relay-2", "off", "\"off\""), [words(HOLDING, 2, &[0]), words(INPUT, 2, &[0x0200])].concat()),
        (read("read-relays", "[1, 0, 1, 1, 1, 1, 1, 1]"), vec![]),
        (write("pulse-relay-1", "", "1280"), words(INPUT, 1, &[0x0500])),
        (write("hold-relay-1", "255", "255"), words(INPUT, 1, &[0x06FF])),
        (write("hold-relay-1", "1", "1"), words(INPUT, 1, &[0x0601])),
        (refused("hold-relay-1", "0", "out-of-range"), words(INPUT, 1, &[0x0601])),
    ]);
    let eletechsup = OfRegisters { profile: "r421a08-relays", holds: vec![], reacts: relay_board, steps };
    let waveshare = OfRegisters {
        profile: "waveshare-relays",
        holds: words(COIL, 7, &[1]),
        reacts: keeps,
        steps: vec![
            (write("set-relay-1", "true", "true"), words(COIL, 0, &[1])),
            (write("set-relay-2", "true", "true"), words(COIL, 1, &[1])),
            (write("set-relay-1", "false", "false"), words(COIL, 0, &[0])),
            (read("read-relays", "[false, true, false, false, false, false, false, true]"), vec![]),
        ],
    };
    let adam = OfRegisters {
        profile: "adam-4150",
        holds: words(HOLDING, 300, &[0b100_0001]),
        reacts: keeps,
        steps: vec![
            (write("set-outputs", "5", "5"), words(HOLDING, 302, &[5])),
            (refused("set-outputs", "256", "out-of-range"), words(HOLDING, 302, &[5])),
            (write("set-output-1", "true", "true"), words(HOLDING, 302, &[7])),
            (write("set-output-0", "false", "false"), words(HOLDING, 302, &[6])),
            (write("set-output-2", "false", "false"), words(HOLDING, 302, &[2])),
            (write("set-output-3", "true", "true"), words(HOLDING, 302, &[10])),
            (write("set-output-4", "true", "true"), words(HOLDING, 302, &[26])),
            (write("set-output-5", "true", "true"), words(HOLDING, 302, &[58])),
            (write("set-output-6", "true", "true"), words(HOLDING, 302, &[122])),
            (write("set-output-7", "true", "true"), words(HOLDING, 302, &[250])),
            (read("read-outputs", "250"), vec![]),
            (read("read-inputs", "65"), vec![]),
        ],
    };
    vec![eletechsup, waveshare, adam]
}

/// An actuator that is on its way, and takes its service commands back when they have begun.
fn actuator(cells: &mut Cells, cell: Cell, value: u16) {
    if cell == (HOLDING, 2) {
        cells.insert(cell, 0);
        cells.insert((INPUT, 2), value);
    }
}

fn controllers() -> Vec<OfRegisters> {
    let belimo = OfRegisters {
        profile: "belimo-actuator",
        holds: [words(HOLDING, 4, &[4999, 0, 0xFFFF]), words(HOLDING, 104, &[0x0200])].concat(),
        reacts: actuator,
        steps: vec![
            (write("set-position", "33.33", "33.33"), words(HOLDING, 0, &[3333])),
            (refused("set-position", "100.5", "out-of-range"), words(HOLDING, 0, &[3333])),
            (write("set-override", "close", "\"close\""), words(HOLDING, 1, &[2])),
            (write("set-override", "none", "\"none\""), words(HOLDING, 1, &[0])),
            (write("service", "adaption", "\"adaption\""), words(INPUT, 2, &[1])),
            (write("reset-malfunctions", "", "4"), words(INPUT, 2, &[4])),
            (read("read-position", "49.99"), vec![]),
            (read("read-flow", "null"), vec![]),
            (read("read-malfunctions", "512"), vec![]),
            (read("read-blocked", "false"), vec![]),
        ],
    };
    let eurotherm = OfRegisters {
        profile: "eurotherm-3200",
        holds: words(HOLDING, 1, &[215, 0, 0, 1000, 0xFFF6]),
        reacts: keeps,
        steps: vec![
            (read("read-temperature", "21.5"), vec![]),
            (read("read-setpoint", "-1"), vec![]),
            (read("read-output", "100"), vec![]),
            (write("select-setpoint", "setpoint-2", "\"setpoint-2\""), words(HOLDING, 15, &[1])),
            (write("set-setpoint-1", "80.5", "80.5"), words(HOLDING, 24, &[805])),
            (refused("set-setpoint-1", "201", "out-of-range"), words(HOLDING, 24, &[805])),
        ],
    };
    let omron = OfRegisters {
        profile: "omron-e5c",
        holds: words(HOLDING, 0x2000, &[0xFFFB, 0, 120, 0, 1050]),
        reacts: keeps,
        steps: vec![
            (write("enable-writing", "", "1"), words(HOLDING, 0, &[1])),
            (write("set-setpoint", "120", "120"), words(HOLDING, 0x2103, &[120])),
            (refused("set-setpoint", "-1", "out-of-range"), words(HOLDING, 0x2103, &[120])),
            (write("set-control", "stop", "\"stop\""), words(HOLDING, 0, &[0x0101])),
            (
                write("enable-and-set-setpoint", "80", "80"),
                [words(HOLDING, 0, &[1]), words(HOLDING, 0x2103, &[80])].concat(),
            ),
            (refused("enable-and-set-setpoint", "201", "out-of-range"), words(HOLDING, 0x2103, &[80])),
            (write("set-control", "stop", "\"stop\""), words(HOLDING, 0, &[0x0101])),
            (write("set-control", "run", "\"run\""), words(HOLDING, 0, &[0x0100])),
            (write("cancel-latched-alarms", "", "3087"), words(HOLDING, 0, &[0x0C0F])),
            (read("read-temperature", "-5"), vec![]),
            (read("read-setpoint", "120"), vec![]),
            (read("read-output", "105"), vec![]),
        ],
    };
    vec![belimo, eurotherm, omron]
}

/// A program that follows the page of `plc`.
fn program(cells: &mut Cells, cell: Cell, value: u16) {
    match cell {
        (Table::Coil, 0) => drop(cells.insert((DISCRETE, 0), value)),
        (Table::Coil, 1) => {
            cells.insert(cell, 0);
            cells.insert((DISCRETE, 1), 0);
        }
        (Table::Holding, 4) => {
            cells.insert(cell, 0);
            *cells.entry((INPUT, 5)).or_default() += 1;
        }
        _ => {}
    }
}

fn others() -> Vec<OfRegisters> {
    let sensor = OfRegisters {
        profile: "xy-md02",
        holds: words(INPUT, 1, &[0xFFCE, 473]),
        reacts: keeps,
        steps: vec![(read("read-temperature", "-5"), vec![]), (read("read-humidity", "47.3"), vec![])],
    };
    let heat = OfRegisters {
        profile: "mag11-heat-meter",
        // The manual's own example is the first of them.
        holds: [words(HOLDING, 0x0400, &[0xC148, 0x0000]), high_floats(HOLDING, 0x0402, &[70.5, 40.25, 30.25, 440.5])]
            .concat(),
        reacts: keeps,
        steps: vec![
            (read("read-flow", "-12.5"), vec![]),
            (read("read-supply-temperature", "70.5"), vec![]),
            (read("read-return-temperature", "40.25"), vec![]),
            (read("read-temperature-difference", "30.25"), vec![]),
            (read("read-power", "440.5"), vec![]),
        ],
    };
    let plc = OfRegisters {
        profile: "plc",
        holds: [high_floats(INPUT, 0, &[12.5, -0.5]), high_first(INPUT, 4, 0x0001_0000), words(DISCRETE, 1, &[1])]
            .concat(),
        reacts: program,
        steps: vec![
            (write("set-setpoint-1", "12.5", "12.5"), high_floats(HOLDING, 0, &[12.5])),
            (write("set-setpoint-2", "0.25", "0.25"), high_floats(HOLDING, 2, &[0.25])),
            (refused("set-setpoint-2", "100.5", "out-of-range"), high_floats(HOLDING, 2, &[0.25])),
            (write("set-running", "true", "true"), words(COIL, 0, &[1])),
            (read("read-state", "[true, true]"), vec![]),
            (write("reset-fault", "", "true"), words(DISCRETE, 1, &[0])),
            (write("set-running", "false", "false"), words(DISCRETE, 0, &[0])),
            (write("start-job", "7", "7"), words(HOLDING, 4, &[0])),
            (refused("start-job", "0", "out-of-range"), vec![]),
            (read("read-actual-1", "12.5"), vec![]),
            (read("read-actual-2", "-0.5"), vec![]),
            (read("read-jobs", "65537"), vec![]),
        ],
    };
    vec![sensor, heat, plc]
}
