//! The built daemon against a slave that this project did not write, libmodbus, and beside a master that it did not
//! write, mbpoll: over TCP, over RTU, and over RTU behind a serial server (socat).
//!
//! Proves that configurations say to the world what they say to the scripted peers: each table, each function that
//! writes, orders and scales, exceptions, broadcasts (G3), and whose answer it is (G12).

use std::path::PathBuf;

use fieldbridge::bus::call::Wire;
use fieldbridge::config::BusKind;
use fieldbridge::peripheral::exchange::Answer;
use serde_json::{json, Value as Json};

use crate::peers::{self, call, patient, Running, PATIENCE};
use crate::support::foreign::{Cable, Libmodbus, Mbpoll, Place, SerialServer, UNIT};
use crate::support::{eventually, Daemon, Site};

/// The commands of the slave's device. Of a pair of functions that write one, either.
const COMMANDS: &str = r#"
[profile.slave.command.coils]
read = { table = "coil", address = 40, count = 2000 }
[profile.slave.command.coil]
write = { table = "coil", address = 41 }
function = 5
idempotent = true
verify = true
[profile.slave.command.coil-by-15]
write = { table = "coil", address = 42 }
function = 15
idempotent = true
verify = true
[profile.slave.command.row-of-coils]
write = { table = "coil", address = 43, count = 9 }
idempotent = true
verify = true
[profile.slave.command.discrete]
read = { table = "discrete", address = 0, count = 2000 }
[profile.slave.command.inputs]
read = { table = "input", address = 100, type = "u16", count = 125 }
[profile.slave.command.scaled]
read = { table = "input", address = 7, type = "i16", scale = 0.1, offset = -40 }
[profile.slave.command.register]
write = { table = "holding", address = 10, type = "i16", scale = 0.5 }
function = 6
idempotent = true
verify = true
[profile.slave.command.register-by-16]
write = { table = "holding", address = 11, type = "u16" }
function = 16
idempotent = false
verify = true
[profile.slave.command.float]
write = { table = "holding", address = 12, type = "f32", order = "ABCD" }
idempotent = true
verify = true
[profile.slave.command.float-swapped]
write = { table = "holding", address = 14, type = "f32", order = "CDAB" }
idempotent = true
verify = true
[profile.slave.command.many]
write = { table = "holding", address = 100, type = "u16", count = 123 }
idempotent = true
verify = true
[profile.slave.command.digits]
write = { table = "holding", address = 16, type = "bcd32" }
idempotent = true
verify = true
[profile.slave.command.read-float]
read = { table = "holding", address = 20, type = "f32" }
[profile.slave.command.read-register]
read = { table = "holding", address = 22, type = "i16" }
[profile.slave.command.bit]
write = { table = "holding", address = 30, bit = 3 }
idempotent = false
[profile.slave.command.bit-masked]
write = { table = "holding", address = 30, bit = 12 }
function = 22
idempotent = false
verify = true
[profile.slave.command.read-bit]
read = { table = "holding", address = 30, bit = 12 }
[profile.slave.command.exchange]
write = { table = "holding", address = 32, type = "f32", order = "CDAB" }
function = 23
idempotent = false
verify = true
[profile.slave.command.exchange-many]
write = { table = "holding", address = 100, type = "u16", count = 121 }
function = 23
idempotent = true
verify = true
[profile.slave.command.exchange-elsewhere]
write = { table = "holding", address = 34 }
function = 23
read_back = { address = 35, within = "0ms" }
idempotent = false
[profile.slave.command.start]
steps = [
  { write = { table = "holding", address = 40 }, value = 7 },
  { write = { table = "holding", address = 41, scale = 0.1 }, verify = true },
  { write = { table = "holding", address = 42, bit = 0 }, function = 22, value = true },
  { write = { table = "holding", address = 43 }, value = 9, function = 23, verify = true },
]
[profile.slave.command.stumble]
steps = [
  { write = { table = "holding", address = 40 }, value = 1 },
  { write = { table = "holding", address = 3002 }, value = 1 },
  { write = { table = "holding", address = 41 }, value = 1 },
]
[profile.slave.command.beyond]
read = { table = "holding", address = 2500, type = "u16" }
"#;

/// A slave, a daemon whose device it is, and a second master.
struct Plant {
    way: &'static str,
    site: Site,
    slave: Libmodbus,
    second: Place,
    _daemon: Daemon,
    _held: (Vec<Cable>, Option<SerialServer>),
}

/// The ways to the slave.
const WAYS: [&str; 3] = ["tcp", "rtu", "rtu over tcp"];

/// The configuration of a device on a bus.
fn device(bus: &str, unit: u8) -> String {
    format!(
        "[bus.line]\n{bus}\nresponse_timeout = \"2s\"\nlate_window = \"100ms\"\n[device.slave]\nbus = \"line\"\nunit = {unit}\nprofile = \"slave\"\n\
         key_file = \"device.key\"\n{COMMANDS}"
    )
}

impl Plant {
    fn new(way: &'static str, more: &str) -> Plant {
        let (own, second) = (Cable::new(), Cable::new());
        let slave = Libmodbus::start(&[&own, &second]);
        let server = (way == "rtu over tcp").then(|| SerialServer::of(&own.near()));
        let bus = match (way, &server) {
            ("tcp", _) => format!("kind = \"modbus-tcp\"\naddress = \"127.0.0.1:{}\"", slave.port),
            (_, Some(server)) => format!("kind = \"modbus-rtu\"\naddress = \"{}\"", server.address),
            (_, None) => rtu(&own.near()),
        };
        let site = Site::new("127.0.0.1:1", &format!("{}{more}", device(&bus, UNIT)));
        let daemon = site.start();
        let second_place = if way == "tcp" { Place::Tcp(slave.port) } else { Place::Line(second.near()) };
        Plant { way, site, slave, second: second_place, _daemon: daemon, _held: (vec![own, second], server) }
    }

    /// The event that a command ends with.
    fn end(&self, command: &str, value: Option<&Json>) -> Json {
        let value = value.map(Json::to_string);
        let args: Vec<&str> = ["exec", "--json", "slave", command].into_iter().chain(value.as_deref()).collect();
        let output = self.site.command(&args);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}: {}", self.way, String::from_utf8_lossy(&output.stderr)))
    }

    /// What the slave is asked for meanwhile, at least so many requests. It notes each before it answers, and what it
    /// notes is read a moment later.
    fn asked<T>(&self, least: usize, what: impl FnOnce() -> T) -> (T, Vec<String>) {
        let before = self.slave.served().len();
        let done = what();
        let asked = eventually("the slave's account", || {
            let asked = self.slave.served().split_off(before);
            (asked.len() >= least).then_some(asked)
        });
        (done, asked)
    }

    fn succeeds(&self, command: &str, value: Option<&Json>) -> Json {
        let event = self.end(command, value);
        assert_eq!(event["status"], "succeeded", "{}: {command}: {event}", self.way);
        event["value"].clone()
    }

    fn reads(&self, command: &str) -> Json {
        self.asked(1, || self.succeeds(command, None)).0
    }

    /// What another master reads.
    fn shows(&self, table: Mbpoll, address: u16, count: u16) -> Vec<String> {
        self.asked(1, || table.read(&self.second, address, count)).0
    }

    /// Writes, and gives what the slave was asked for that, the reading back left out.
    fn writes(&self, command: &str, value: &Json) -> Vec<String> {
        let (written, mut served) = self.asked(2, || self.succeeds(command, Some(value)));
        assert_eq!(written, *value, "{}: {command}", self.way);
        let read_back = served.pop().expect("it was read back");
        assert!(matches!(&read_back[2..4], "01" | "03"), "{}: {read_back}", self.way);
        served
    }
}

fn rtu(port: &std::path::Path) -> String {
    let port: PathBuf = port.into();
    format!("kind = \"modbus-rtu\"\nport = \"{}\"\nbaud = 115200\nparity = \"none\"", port.display())
}

#[test]
fn each_table_is_read_by_its_function_up_to_its_longest_row() {
    for way in WAYS {
        let plant = Plant::new(way, "");
        let thirds: Vec<bool> = (0..2000).map(|at| at % 3 == 0).collect();
        assert_eq!(plant.reads("discrete"), json!(thirds));
        let threefold: Vec<u16> = (100..225).map(|at| 3 * at).collect();
        assert_eq!(plant.reads("inputs"), json!(threefold));
        assert_eq!(plant.reads("scaled"), json!(-37.9));
        Mbpoll::Holding.write(&plant.second, 22, &["65534"]);
        Mbpoll::Float.write(&plant.second, 20, &["-12.625"]);
        assert_eq!((plant.reads("read-register"), plant.reads("read-float")), (json!(-2), json!(-12.625)), "{way}");
        // What was asked went out once, as the specification has it.
        let served = plant.slave.served();
        for own in ["0702000007d0", "07040064007d", "070400070001"] {
            assert_eq!(served.iter().filter(|one| *one == own).count(), 1, "{way}: {served:?}");
        }
    }
}

#[test]
fn what_each_function_writes_another_master_reads() {
    for way in WAYS {
        let plant = Plant::new(way, "");
        // By then a line has shown that it does not echo.
        plant.reads("scaled");
        assert_eq!(plant.writes("coil", &json!(true)), ["07050029ff00"]);
        assert_eq!(plant.writes("coil-by-15", &json!(true)), ["070f002a00010101"]);
        let row = json!([true, false, true, true, false, false, true, false, true]);
        assert_eq!(plant.writes("row-of-coils", &row), ["070f002b0009024d01"]);
        let coils = plant.shows(Mbpoll::Coil, 40, 13);
        assert_eq!(coils, ["0", "1", "1", "1", "0", "1", "1", "0", "0", "1", "0", "1", "0"], "{way}");

        assert_eq!(plant.writes("register", &json!(-1.5)), ["0706000afffd"]);
        assert_eq!(plant.writes("register-by-16", &json!(1234)), ["0710000b00010204d2"]);
        assert_eq!(plant.shows(Mbpoll::Holding, 10, 2), ["65533", "1234"], "{way}");
        assert_eq!(plant.writes("float", &json!(3.5)), ["0710000c00020440600000"]);
        assert_eq!(plant.writes("float-swapped", &json!(3.5)), ["0710000e00020400004060"]);
        assert_eq!(plant.shows(Mbpoll::Float, 12, 1), ["3.5"], "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 14, 2), ["0", "16480"], "{way}");
        assert_eq!(plant.writes("digits", &json!(12_345_678)), ["0710001000020412345678"]);
        let many: Vec<u16> = (0..123).map(|at| at * 11).collect();
        assert_eq!(plant.writes("many", &json!(many)).len(), 1);
        let read = plant.shows(Mbpoll::Holding, 100, 123);
        assert_eq!(read, many.iter().map(u16::to_string).collect::<Vec<_>>(), "{way}");
    }
}

#[test]
fn one_bit_is_written_among_others_by_a_mask_or_over_what_is_read() {
    for way in WAYS {
        let plant = Plant::new(way, "");
        plant.reads("scaled");
        // 0x5A5A
        plant.asked(1, || Mbpoll::Holding.write(&plant.second, 30, &["23130"]));
        let (told, asked) = plant.asked(2, || plant.succeeds("bit", Some(&json!(false))));
        assert_eq!((told, asked), (json!(false), vec!["0703001e0001".to_owned(), "0706001e5a52".to_owned()]), "{way}");
        assert_eq!(plant.writes("bit-masked", &json!(false)), ["0716001eefff0000"], "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 30, 1), [0x4A52.to_string()], "{way}");
        assert_eq!(plant.reads("read-bit"), json!(false), "{way}");
        assert_eq!(plant.writes("bit-masked", &json!(true)), ["0716001eefff1000"], "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 30, 1), [0x5A52.to_string()], "{way}");
    }
}

#[test]
fn a_write_and_its_read_back_go_in_one_exchange() {
    for way in WAYS {
        let plant = Plant::new(way, "");
        plant.reads("scaled");
        let (told, asked) = plant.asked(1, || plant.succeeds("exchange", Some(&json!(3.5))));
        assert_eq!((told, asked), (json!(3.5), vec!["071700200002002000020400004060".to_owned()]), "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 32, 2), ["0", "16480"], "{way}");
        let many: Vec<u16> = (0..121).map(|at| at * 13).collect();
        let (told, asked) = plant.asked(1, || plant.succeeds("exchange-many", Some(&json!(many))));
        assert_eq!((told, asked.len()), (json!(many), 1), "{way}");
        let shown = plant.shows(Mbpoll::Holding, 100, 121);
        assert_eq!(shown, many.iter().map(u16::to_string).collect::<Vec<_>>(), "{way}");
        let (event, asked) = plant.asked(2, || plant.end("exchange-elsewhere", Some(&json!(5))));
        assert_eq!(event["error"]["code"], "verify-mismatch", "{way}: {event}");
        assert_eq!(asked, ["07170023000100220001020005".to_owned(), "070300230001".to_owned()], "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 34, 1), ["5"], "{way}");
    }
}

#[test]
fn several_writes_go_in_a_row_and_one_that_is_refused_ends_them() {
    for way in WAYS {
        let plant = Plant::new(way, "");
        plant.reads("scaled");
        let (told, asked) = plant.asked(5, || plant.succeeds("start", Some(&json!(4.2))));
        assert_eq!(told, json!(4.2), "{way}");
        // What is read back is looked at when all is written.
        let expected =
            ["070600280007", "07060029002a", "0716002afffe0001", "0717002b0001002b0001020009", "070300290001"];
        assert_eq!(asked[..5], expected, "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 40, 4), ["7", "42", "1", "9"], "{way}");
        let (event, asked) = plant.asked(2, || plant.end("stumble", None));
        let told = event["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(told.starts_with("step 2 of 3: ") && told.contains("exception 2"), "{way}: {event}");
        assert_eq!(asked, ["070600280001", "07060bba0001"], "{way}");
        assert_eq!(plant.shows(Mbpoll::Holding, 40, 2), ["1", "42"], "{way}");
    }
}

#[test]
fn each_exception_is_told_by_its_number_and_a_write_is_sent_again_only_where_nothing_was_begun() {
    // The numbers, and how often a write is sent that must not be repeated.
    let exceptions = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 3), (8, 1), (10, 1), (11, 1)];
    let commands: String = exceptions
        .iter()
        .map(|(number, _)| {
            format!(
                "[profile.slave.command.read-{number}]\nread = {{ table = \"holding\", address = {at} }}\n\
                 [profile.slave.command.write-{number}]\nwrite = {{ table = \"holding\", address = {at} }}\nidempotent = false\n",
                at = 3000 + number
            )
        })
        .collect();
    for way in &WAYS[..2] {
        let plant = Plant::new(way, &commands);
        let said = |event: &Json| event["error"]["message"].as_str().unwrap_or_default().to_owned();
        for (number, times) in exceptions {
            let event = plant.asked(1, || plant.end(&format!("read-{number}"), None)).0;
            assert!(said(&event).contains(&format!("exception {number}: ")), "{way}: {event}");
            let is_write = |request: &String| request.starts_with("0706");
            let (event, asked) = plant.asked(times, || plant.end(&format!("write-{number}"), Some(&json!(1))));
            assert!(said(&event).contains(&format!("exception {number}: ")), "{way}: {event}");
            assert_eq!(asked.iter().filter(|request| is_write(request)).count(), times, "{way}: {event}");
        }
        let event = plant.end("beyond", None);
        assert!(said(&event).contains("exception 2: "), "{way}: {event}");
    }
}

#[test]
fn what_goes_to_all_units_of_a_line_is_taken_up_and_what_goes_to_another_unit_is_not_answered() {
    for way in &WAYS[1..] {
        let other =
            "[profile.all.command.register]\nwrite = { table = \"holding\", address = 10 }\nidempotent = true\n\
                     [device.all]\nbus = \"line\"\nunit = 0\nprofile = \"all\"\nkey_file = \"device.key\"\n\
                     [device.nobody]\nbus = \"line\"\nunit = 8\nprofile = \"slave\"\nkey_file = \"device.key\"\n\
                     response_timeout = \"200ms\"\nretries = 0\n";
        let plant = Plant::new(way, other);
        let exec = |args: &[&str]| plant.site.command(&[&["exec"], args].concat());
        assert!(!exec(&["all", "register", "154"]).status.success(), "nobody confirms it");
        assert_eq!(plant.shows(Mbpoll::Holding, 10, 1), ["154"], "{way}");
        assert!(!exec(&["nobody", "inputs"]).status.success(), "{way}");
        // It takes what comes next for the other one's answer, and answers the repetition.
        let event = plant.asked(1, || plant.end("scaled", None)).0;
        assert_eq!((&event["value"], &event["attempts"]), (&json!(-37.9), &json!(2)), "{way}: {event}");
    }
}

#[tokio::test]
async fn of_eight_requests_at_once_each_has_its_own_answer() {
    let slave = Libmodbus::start(&[]);
    let address = format!("127.0.0.1:{}", slave.port);
    let line = Running::side_by_side(BusKind::ModbusTcp { address }, 8, PATIENCE);
    let mut units = tokio::task::JoinSet::new();
    // By TCP it answers as whoever is asked; each unit has a register of its own here.
    for unit in 21..=36_u8 {
        let bus = line.bus.clone();
        units.spawn(async move {
            for round in 0..25 {
                let value = u16::from(unit) * 100 + round;
                let mut turn = patient(bus.turn()).await.unwrap();
                let written = patient(turn.exchange(&call(unit, peers::write(unit.into(), value)))).await;
                assert_eq!(written, Wire::Answered(Answer::Written), "unit {unit}");
                let read = patient(turn.exchange(&call(unit, peers::read(unit.into(), 1)))).await;
                assert_eq!(read, Wire::Answered(Answer::Words(vec![value])), "unit {unit}");
            }
        });
    }
    units.join_all().await;
    assert_eq!((line.snapshot().exchanges, line.snapshot().timeouts), (16 * 25 * 2, 0));
}

#[test]
fn a_scan_finds_the_unit_that_is_there() {
    let plant = Plant::new("rtu", "");
    // libmodbus takes what follows a request to another unit for that one's answer, and is deaf to it.
    let output = plant.site.command(&["scan", "line", "--units", "7-9", "--json"]);
    let found: Json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let answers: Vec<bool> = (0..3).map(|at| found[at]["answers"] == true).collect();
    assert_eq!(answers, [true, false, false], "{found}");
}

#[test]
fn a_serial_server_that_was_away_is_reached_again() {
    let cable = Cable::new();
    let slave = Libmodbus::start(&[&cable]);
    let server = SerialServer::of(&cable.near());
    let address = server.address.clone();
    let bus = format!("kind = \"modbus-rtu\"\naddress = \"{address}\"");
    let site = Site::new("127.0.0.1:1", &device(&bus, UNIT));
    let _daemon = site.start();
    let reads = || site.command(&["exec", "slave", "scaled"]).status.success();
    assert!(reads());
    drop(server);
    assert!(!reads(), "nobody is there");
    let _server = SerialServer::at(&address, &cable.near());
    eventually("the server again", || reads().then_some(()));
    assert!(slave.served().iter().all(|request| request == "070400070001"), "{:?}", slave.served());
}
