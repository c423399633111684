//! What `watch --pcap` has captured, as Wireshark's dissectors (tshark) understand it: what was asked and answered, of
//! and by whom, and nothing malformed. Proves G11 where it is the watcher's: what is shown is what went over the line.
//!
//! The peripheral is libmodbus, so that neither end of what is read here is ours.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::foreign::{Cable, Libmodbus, UNIT};
use crate::support::{eventually, require, Site};
use crate::watch::Watching;

const COMMANDS: &str = r#"
[profile.slave.command.read]
read = { table = "input", address = 7, type = "u16", count = 2 }
[profile.slave.command.bits]
read = { table = "discrete", address = 3, count = 4 }
[profile.slave.command.register]
write = { table = "holding", address = 10 }
idempotent = true
[profile.slave.command.registers]
write = { table = "holding", address = 12, type = "u32" }
idempotent = true
[profile.slave.command.coils]
write = { table = "coil", address = 5, count = 3 }
idempotent = true
[profile.slave.command.refused]
read = { table = "holding", address = 3004 }
"#;

/// A capture of what these commands lead to, made through a running daemon.
fn captured(bus: &str, commands: &[(&str, &str)]) -> (Site, Vec<Vec<String>>) {
    let device = "[device.slave]\nbus = \"line\"\nprofile = \"slave\"\nkey_file = \"device.key\"\n";
    let site = Site::new(
        "127.0.0.1:1",
        &format!(
            "[bus.line]\n{bus}\nresponse_timeout = \"2s\"\nlate_window = \"100ms\"\n{device}unit = {UNIT}\n{COMMANDS}"
        ),
    );
    let daemon = site.start();
    let file = site.path("line.pcap");
    let watching = Watching::begin(&site, &["line", "--pcap", file.to_str().expect("a path of ASCII")]);
    eventually("a watcher", || daemon.log().contains("begins to watch").then_some(()));
    for (command, value) in commands {
        let args = ["exec", "slave", command, value];
        let given = if value.is_empty() { 3 } else { 4 };
        site.command(&args[..given]);
        // A line for the request and one for the answer: both stand in the capture by then.
        let _ = (watching.next(), watching.next());
    }
    watching.end();
    let packets = dissected(&file, FIELDS);
    (site, packets)
}

/// What is asked of a dissector.
const FIELDS: &[&str] = &[
    "frame.protocols",
    "mbtcp.trans_id",
    "mbtcp.unit_id",
    "mbrtu.unit_id",
    "modbus.func_code",
    "modbus.reference_num",
    "modbus.word_cnt",
    "modbus.bit_cnt",
    "modbus.regval_uint16",
    "modbus.exception_code",
    "_ws.expert.message",
    "_ws.malformed",
];

/// The fields of each packet, by tshark, with every checksum looked at.
fn dissected(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    require("tshark", "tshark");
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]);
    // What stands in an RTAC serial line's packets nothing in them says: a person chooses it, too.
    tshark.args(["-d", "rtacser.data,mbrtu", "-o", "mbrtu.crc_verification:TRUE"]);
    tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.stdin(Stdio::null()).output().expect("tshark can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("fields are text");
    said.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

/// Some fields of each packet.
fn of<'a>(packets: &'a [Vec<String>], wanted: &[&str]) -> Vec<Vec<&'a str>> {
    let at: Vec<usize> =
        wanted.iter().map(|field| FIELDS.iter().position(|one| one == field).expect("it was asked for")).collect();
    packets.iter().map(|packet| at.iter().map(|at| packet[*at].as_str()).collect()).collect()
}

fn none_is_malformed(packets: &[Vec<String>]) {
    for of_one in of(packets, &["_ws.malformed", "_ws.expert.message"]) {
        assert_eq!(of_one, ["", ""], "{packets:?}");
    }
}

const ALL: [(&str, &str); 6] = [
    ("read", ""),
    ("bits", ""),
    ("register", "5"),
    ("registers", "65538"),
    ("coils", "[true,false,true]"),
    ("refused", ""),
];

#[test]
fn modbus_tcp_is_understood_request_by_request_and_answer_by_answer() {
    let slave = Libmodbus::start(&[]);
    let bus = format!("kind = \"modbus-tcp\"\naddress = \"127.0.0.1:{}\"", slave.port);
    let (_site, packets) = captured(&bus, &ALL);
    none_is_malformed(&packets);
    assert!(packets.iter().all(|packet| packet[0] == "raw:ip:tcp:mbtcp:modbus"), "{packets:?}");
    let functions = ["modbus.func_code", "mbtcp.unit_id", "modbus.exception_code"];
    let asked = [["4", "7", ""], ["2", "7", ""], ["6", "7", ""], ["16", "7", ""], ["15", "7", ""], ["3", "7", ""]];
    let mut expected: Vec<Vec<&str>> = asked.iter().flat_map(|one| [one.to_vec(), one.to_vec()]).collect();
    expected.last_mut().expect("there is one")[2] = "4";
    assert_eq!(of(&packets, &functions), expected);
    let places = of(&packets, &["modbus.reference_num", "modbus.word_cnt", "modbus.bit_cnt"]);
    for (at, place) in [(0, ["7", "2", ""]), (2, ["3", "", "4"]), (4, ["10", "", ""]), (6, ["12", "2", ""])] {
        assert_eq!(places[at], place);
    }
    assert_eq!(of(&packets, &["modbus.regval_uint16"])[1], ["21,24"]);
    // An answer has the transaction of its request, and no other has.
    let transactions = of(&packets, &["mbtcp.trans_id"]);
    let pairs: Vec<&[Vec<&str>]> = transactions.chunks(2).collect();
    assert!(pairs.iter().all(|pair| pair[0] == pair[1]) && pairs.windows(2).all(|two| two[0] != two[1]), "{pairs:?}");
}

#[test]
fn modbus_rtu_is_understood_once_it_is_said_what_stands_in_the_packets() {
    let cable = Cable::new();
    let _slave = Libmodbus::start(&[&cable]);
    let port = cable.near();
    let bus = format!("kind = \"modbus-rtu\"\nport = \"{}\"\nbaud = 115200\nparity = \"none\"", port.display());
    let (_site, packets) = captured(&bus, &ALL);
    none_is_malformed(&packets);
    assert!(packets.iter().all(|packet| packet[0] == "rtacser:mbrtu:modbus"), "{packets:?}");
    let expected = ["4", "2", "6", "16", "15", "3"].iter().flat_map(|function| [[*function, "7"]; 2]);
    assert_eq!(of(&packets, &["modbus.func_code", "mbrtu.unit_id"]), expected.collect::<Vec<_>>());
    let places = of(&packets, &["modbus.reference_num", "modbus.word_cnt"]);
    assert_eq!((&places[0][..], &places[6][..]), (&["7", "2"][..], &["12", "2"][..]));
    let said = of(&packets, &["modbus.regval_uint16", "modbus.exception_code"]);
    assert_eq!((said[1][0], said[6][0], said[11][1]), ("21,24", "1,2", "4"));
}
