//! Modbus against a slave that this project did not write: pymodbus, over TCP, over RTU and ASCII, and over each
//! of these in TCP.
//!
//! Proves that what the scripted peers are told is what the world says: framing, every table, every type in every
//! order, from the engineering value to the registers and back. Proves G12 where it muddles several
//! requests at once.
//!
//! It needs pymodbus in a Python environment, by default in `.cache/peers`; `FIELDBRIDGE_PEERS` names another.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::peers::{self, call, patient, Pty, Running};
use fieldbridge::bus::call::Wire;
use fieldbridge::bus::Turn;
use fieldbridge::config::{BusKind, Endpoint};
use fieldbridge::peripheral::exchange::{Answer, Refusal};
use fieldbridge::peripheral::registers::{DataType, Order, Point, Table};
use fieldbridge::peripheral::{Action, Command, Function, Rule};
use serde_json::{json, Value as Json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

const UNIT: u8 = 7;

/// As in the slave's script, in its order.
fn inputs() -> [(DataType, Json); 10] {
    [
        (DataType::U16, json!(65535)),
        (DataType::I16, json!(-2)),
        (DataType::U32, json!(4_000_000_001_u32)),
        (DataType::I32, json!(-2_000_000_001)),
        (DataType::U64, json!(18_446_744_073_709_551_610_u64)),
        (DataType::I64, json!(-9_223_372_036_854_775_807_i64)),
        (DataType::F32, json!(3.5)),
        (DataType::F64, json!(-0.1)),
        (DataType::Bcd16, json!(9876)),
        (DataType::Bcd32, json!(12_345_678)),
    ]
}

/// The slave, and a bus of each kind that leads to it.
struct Slave {
    tcp_address: String,
    tcp: Running,
    rtu: Running,
    rtu_in_tcp: Running,
    ascii: Running,
    ascii_in_tcp: Running,
    _process: Child,
}

fn python() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("FIELDBRIDGE_PEERS").map_or_else(|| project.join(".cache/peers"), PathBuf::from);
    let python = folder.join("python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/peers/setup.sh, which sets up what this test needs",
        python.display()
    );
    python
}

/// A cable with a path at either end: two pseudo-terminals back to back.
fn cable() -> (Endpoint, PathBuf) {
    let cable = (Pty::new(), Pty::new());
    let ends = (cable.0.port(115_200), cable.1.path());
    tokio::spawn(async move {
        let (mut ours, mut theirs) = cable;
        let _ = tokio::io::copy_bidirectional(&mut ours.peer, &mut theirs.peer).await;
    });
    ends
}

async fn start() -> Slave {
    let python = python();
    let ((rtu, rtu_far), (ascii, ascii_far)) = (cable(), cable());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pymodbus_slave.py");
    let mut process = tokio::process::Command::new(python)
        .arg(script)
        .args([rtu_far, ascii_far])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ports = patient(lines.next_line()).await.unwrap().expect("the slave ended at once");
    let [tcp, rtu_in_tcp, ascii_in_tcp] =
        ports.split(' ').map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().try_into().expect("three ports");
    Slave {
        tcp_address: tcp.clone(),
        tcp: Running::start(BusKind::ModbusTcp { address: tcp }),
        rtu: Running::start(BusKind::ModbusRtu(rtu)),
        rtu_in_tcp: Running::start(BusKind::ModbusRtu(Endpoint::Tcp(rtu_in_tcp))),
        ascii: Running::start(BusKind::ModbusAscii(ascii)),
        ascii_in_tcp: Running::start(BusKind::ModbusAscii(Endpoint::Tcp(ascii_in_tcp))),
        _process: process,
    }
}

fn point(table: Table, address: u16, kind: DataType) -> Point {
    Point::new(table, address, kind)
}

fn command(action: Action) -> Command {
    let read_back = match &action {
        Action::Write(point) => Some(Rule::exact(point)),
        _ => None,
    };
    Command { idempotent: true, read_back, ..Command::new("command", action) }
}

async fn read(turn: &mut Turn, point: &Point) -> Json {
    let command = command(Action::Read(point.clone()));
    let prepared = command.prepare(None).unwrap();
    match patient(turn.exchange(&call(UNIT, prepared.request.clone()))).await {
        Wire::Answered(answer) => command.interpret(&prepared, &answer).unwrap().unwrap(),
        other => panic!("{point:?}: {other:?}"),
    }
}

/// Writes, reads back, and compares both the registers and the value.
async fn write(turn: &mut Turn, point: &Point, value: &Json) {
    write_by(turn, &command(Action::Write(point.clone())), point, value).await;
}

async fn write_by(turn: &mut Turn, command: &Command, point: &Point, value: &Json) {
    let mut prepared = command.prepare(Some(value)).unwrap();
    if prepared.is_first() {
        prepared = match patient(turn.exchange(&call(UNIT, prepared.request.clone()))).await {
            Wire::Answered(answer) => command.follow(&prepared, &answer).unwrap(),
            other => panic!("{point:?}: {other:?}"),
        };
    }
    match patient(turn.exchange(&call(UNIT, prepared.request.clone()))).await {
        Wire::Answered(answer) => {
            assert_eq!(command.interpret(&prepared, &answer).unwrap(), Some(value.clone()));
        }
        other => panic!("{value} to {point:?}: {other:?}"),
    }
    let read_back = prepared.read_back.clone().unwrap();
    match patient(turn.exchange(&call(UNIT, read_back))).await {
        Wire::Answered(answer) => {
            assert!(command.found(&prepared, &answer).unwrap().fits, "{value} to {point:?}: {answer:?}");
        }
        other => panic!("{value} from {point:?}: {other:?}"),
    }
    assert_eq!(read(turn, point).await, *value, "{point:?}");
}

async fn with_each(what: impl AsyncFn(&mut Turn)) {
    let slave = start().await;
    for line in [&slave.tcp, &slave.rtu, &slave.rtu_in_tcp, &slave.ascii, &slave.ascii_in_tcp] {
        let mut turn = line.bus.turn().await.unwrap();
        what(&mut turn).await;
        drop(turn);
        assert_eq!(line.snapshot().timeouts, 0, "{}", line.status().kind);
    }
}

#[tokio::test]
async fn every_type_is_read_in_every_order() {
    with_each(async |turn| {
        let mut address = 0;
        for word_order in [Order::Big, Order::Little] {
            for byte_order in [Order::Big, Order::Little] {
                for (kind, value) in inputs() {
                    let point = Point { word_order, byte_order, ..point(Table::Input, address, kind) };
                    assert_eq!(read(turn, &point).await, value, "{point:?}");
                    address += match kind {
                        DataType::U16 | DataType::I16 | DataType::Bcd16 => 1,
                        DataType::U32 | DataType::I32 | DataType::F32 | DataType::Bcd32 => 2,
                        _ => 4,
                    };
                }
            }
        }
        let text = Point { count: Some(4), ..point(Table::Input, address, DataType::String) };
        assert_eq!(read(turn, &text).await, json!("Grüezi"));
    })
    .await;
}

#[tokio::test]
async fn every_type_is_written_and_read_back_in_every_order() {
    with_each(async |turn| {
        for word_order in [Order::Big, Order::Little] {
            for byte_order in [Order::Big, Order::Little] {
                for (kind, value) in inputs() {
                    let one = Point { word_order, byte_order, ..point(Table::Holding, 5, kind) };
                    write(turn, &one, &value).await;
                    let two = Point { count: Some(2), ..one };
                    write(turn, &two, &json!([value, value])).await;
                }
            }
        }
        let scaled = Point { scale: 0.1, offset: -40.0, ..point(Table::Holding, 0, DataType::U16) };
        write(turn, &scaled, &json!(21.7)).await;
        let text = Point { count: Some(5), ..point(Table::Holding, 9, DataType::String) };
        write(turn, &text, &json!("Süd 1")).await;
        write(turn, &point(Table::Holding, 8, DataType::Bool), &json!(true)).await;
    })
    .await;
}

#[tokio::test]
async fn bits_are_read_and_written_singly_and_in_rows() {
    with_each(async |turn| {
        for (address, count) in [(0, 1), (1, 7), (2, 8), (3, 9), (0, 1999)] {
            let row = Point { count: Some(count), ..point(Table::Discrete, address, DataType::Bool) };
            let expected: Vec<_> = (address..address + count).map(|at| at % 3 == 0).collect();
            assert_eq!(read(turn, &row).await, json!(expected));
        }
        for on in [true, false] {
            write(turn, &point(Table::Coil, 3, DataType::Bool), &json!(on)).await;
        }
        for count in [2, 8, 17, 1968] {
            let row = Point { count: Some(count), ..point(Table::Coil, 5, DataType::Bool) };
            let bits: Vec<_> = (0..count).map(|at| at % 5 == 0).collect();
            write(turn, &row, &json!(bits)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_coil_and_one_register_are_written_by_either_function() {
    with_each(async |turn| {
        for (point, values) in [
            (point(Table::Coil, 3, DataType::Bool), [json!(true), json!(false)]),
            (point(Table::Holding, 8, DataType::U16), [json!(1500), json!(0)]),
        ] {
            for value in values {
                for function in [Function::Usual, Function::Multiple] {
                    let command = Command { function, ..command(Action::Write(point.clone())) };
                    write_by(turn, &command, &point, &value).await;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn one_bit_is_written_by_a_mask_and_over_what_is_read() {
    with_each(async |turn| {
        let word = point(Table::Holding, 30, DataType::U16);
        for (byte_order, set) in [(Order::Big, 0x5A7A), (Order::Little, 0x7A5A)] {
            let bit = Point { bit: Some(5), byte_order, ..point(Table::Holding, 30, DataType::Bool) };
            for function in [Function::Usual, Function::Multiple, Function::Mask] {
                write(turn, &word, &json!(0x5A5A)).await;
                let command = Command { function, ..command(Action::Write(bit.clone())) };
                for (on, left) in [(true, set), (false, 0x5A5A)] {
                    write_by(turn, &command, &bit, &json!(on)).await;
                    assert_eq!(read(turn, &word).await, json!(left), "{function:?} {byte_order:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_written_and_read_back_in_one_exchange_stands_there() {
    with_each(async |turn| {
        let long = Point { count: Some(121), ..point(Table::Holding, 3, DataType::U16) };
        let values: Vec<_> = (0..121).map(|at| at * 5).collect();
        let float = Point { word_order: Order::Little, ..point(Table::Holding, 140, DataType::F32) };
        for (point, value) in
            [(point(Table::Holding, 8, DataType::I16), json!(-7)), (float, json!(3.5)), (long, json!(values))]
        {
            let command = Command { function: Function::WithReadBack, ..command(Action::Write(point.clone())) };
            let prepared = command.prepare(Some(&value)).unwrap();
            match patient(turn.exchange(&call(UNIT, prepared.request.clone()))).await {
                Wire::Answered(answer) => assert!(command.is_shown_by(&prepared, &answer), "{point:?}: {answer:?}"),
                other => panic!("{value} to {point:?}: {other:?}"),
            }
            write_by(turn, &command, &point, &value).await;
        }
        // What is written shows before what is read, and elsewhere something else does.
        let (point, other) = (point(Table::Holding, 8, DataType::U16), point(Table::Holding, 9, DataType::U16));
        write(turn, &other, &json!(1)).await;
        let read_back = Some(Rule::exact(&other));
        let command = Command { function: Function::WithReadBack, read_back, ..command(Action::Write(point)) };
        for (value, shown) in [(1, true), (2, false)] {
            let prepared = command.prepare(Some(&json!(value))).unwrap();
            let wire = patient(turn.exchange(&call(UNIT, prepared.request.clone()))).await;
            let Wire::Answered(answer) = wire else { panic!("{wire:?}") };
            assert_eq!(command.is_shown_by(&prepared, &answer), shown);
        }
    })
    .await;
}

/// pymodbus keeps one request of each connection: of several that come together it leaves some out, and answers others
/// twice.
#[tokio::test]
async fn of_eight_requests_at_once_none_is_given_the_answer_of_another_unit() {
    const WAIT: Duration = Duration::from_millis(250);
    const UNITS: std::ops::RangeInclusive<u8> = 21..=36;
    let slave = start().await;
    let value = |unit: u8| u16::from(unit) * 100;
    for unit in UNITS {
        let wire = slave.tcp.call(call(unit, peers::write(5, value(unit)))).await;
        assert_eq!(wire, Wire::Answered(Answer::Written), "unit {unit}");
    }
    let line = Running::side_by_side(BusKind::ModbusTcp { address: slave.tcp_address.clone() }, 8, WAIT);
    let mut asked = tokio::task::JoinSet::new();
    for unit in UNITS.chain(UNITS).chain(UNITS) {
        let bus = line.bus.clone();
        asked.spawn(async move {
            let mut turn = patient(bus.turn()).await.unwrap();
            match patient(turn.exchange(&call(unit, peers::read(5, 1)))).await {
                Wire::Answered(answer) => assert_eq!(answer, Answer::Words(vec![value(unit)]), "unit {unit}"),
                Wire::NoAnswer(_) | Wire::BadReply(_) | Wire::NotSent(_) => {}
                other => panic!("unit {unit}: {other:?}"),
            }
        });
    }
    asked.join_all().await;
    assert!(line.snapshot().exchanges > 0);
}

#[tokio::test]
async fn the_longest_requests_are_answered() {
    with_each(async |turn| {
        let long = Point { count: Some(123), ..point(Table::Holding, 0, DataType::U16) };
        let values: Vec<_> = (0..123).map(|at| at * 7).collect();
        write(turn, &long, &json!(values)).await;
        let longest = Point { count: Some(125), ..long };
        assert_eq!(read(turn, &longest).await.as_array().unwrap().len(), 125);
    })
    .await;
}

#[tokio::test]
async fn what_the_slave_does_not_have_it_refuses() {
    with_each(async |turn| {
        for table in [Table::Holding, Table::Input] {
            let command = command(Action::Read(point(table, 5000, DataType::U16)));
            let request = command.prepare(None).unwrap().request;
            let wire = patient(turn.exchange(&call(UNIT, request))).await;
            assert_eq!(wire, Wire::Refused(Refusal::Exception(2)));
        }
    })
    .await;
}
