//! docs/TROUBLESHOOTING.md tells the truth: each of its lines is said by the program, about the trouble that it stands
//! for, and the program says of these troubles nothing that has no line. Proves G8 as the
//! person on site hears of it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use crate::peers::{ascii, rtu};
use crate::support::broker::Broker;
use crate::support::{eventually, Site};

/// The sentences in the first column of a section's table.
fn sentences(section: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TROUBLESHOOTING.md");
    let page = std::fs::read_to_string(page).unwrap();
    let start = format!("\n## {section}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no section {section}"));
    let rest = rest.split("\n## ").next().unwrap_or_default();
    let rows = rest.lines().filter_map(|line| line.strip_prefix("| `"));
    let first = rows.filter_map(|row| row.split_once("` |")).map(|(cell, _)| cell.trim_matches('`').trim().to_owned());
    let sentences: Vec<String> = first.collect();
    assert!(sentences.len() > 3, "{section}: {sentences:?}");
    sentences
}

/// Whether a sentence of the page, with `…` for anything, stands in what was said.
fn is_in(sentence: &str, said: &str) -> bool {
    let mut rest = said;
    sentence.split('…').map(str::trim).all(|part| match rest.find(part) {
        None => false,
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
    })
}

/// Each line of a section was said, and whatever was said has its line.
fn holds(section: &str, said: &[String]) {
    let sentences = sentences(section);
    for sentence in &sentences {
        assert!(said.iter().any(|said| is_in(sentence, said)), "{section}: nothing says {sentence:?}: {said:#?}");
    }
    for said in said {
        assert!(sentences.iter().any(|sentence| is_in(sentence, said)), "{section}: no line for {said:?}");
    }
}

const RTU: &str = "kind = \"modbus-rtu\"\nport = \"/dev/ttyS0\"\nbaud = 9600\nparity = \"even\"\n";
const TEXT: &str = "kind = \"serial\"\nport = \"/dev/ttyS0\"\nbaud = 9600\n";
const UNIT: &str = "unit = 7\nprofile = \"p\"\n";
const LINE: &str = "profile = \"p\"\n";
const WRITE: &str = "write = { table = \"holding\", address = 0 }\nidempotent = true\n";

/// What `check` says of a bus, a device on it, and the one command of its profile.
fn checked(bus: &str, device: &str, command: &str) -> Vec<String> {
    let more = format!("[bus.line]\n{bus}[device.d]\nbus = \"line\"\n{device}key_file = \"device.key\"\n[profile.p.command.c]\n{command}");
    let output = Site::new("localhost:1", &more).command(&["check"]);
    let said = String::from_utf8(output.stderr).unwrap();
    // Of a port that is not in this machine.
    said.lines().filter(|line| !line.contains("bus.line.port: there is no")).map(str::to_owned).collect()
}

#[test]
fn every_mistake_in_a_configuration_is_said_as_the_page_has_it() {
    let with = |more: &str| format!("{RTU}{more}\n");
    let command = |text: &str| format!("{text}\nidempotent = true\n");
    let table: [(&str, &str, &str); 32] = [
        ("kind = \"modbus\"\nport = \"/dev/ttyS0\"\nbaud = 9600\n", UNIT, WRITE),
        ("kind = \"modbus-rtu\"\nbaud = 9600\nparity = \"even\"\n", UNIT, WRITE),
        ("kind = \"modbus-rtu\"\nport = \"/dev/ttyS0\"\n", UNIT, WRITE),
        ("kind = \"modbus-rtu\"\nport = \"/dev/ttyS0\"\nbaud = 9600\nparity = \"8N1\"\n", UNIT, WRITE),
        (&with("data_bits = 7"), UNIT, WRITE),
        (&with("address = \"10.0.0.1:4001\""), UNIT, WRITE),
        ("kind = \"modbus-rtu\"\naddress = \"10.0.0.1:4001\"\nbaud = 9600\n", UNIT, WRITE),
        ("kind = \"modbus-rtu\"\naddress = \"10.0.0.1\"\n", UNIT, WRITE),
        ("kind = \"modbus-tcp\"\naddress = \"10.0.0.1\"\nparity = \"even\"\n", UNIT, WRITE),
        (RTU, LINE, WRITE),
        (TEXT, UNIT, &command("send = \"Z\\r\\n\"")),
        (RTU, "unit = 7\nprofile = \"pp\"\n", WRITE),
        (RTU, UNIT, &command("write = { table = \"input\", address = 0 }")),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 40001 }")),
        (RTU, UNIT, "write = { table = \"holding\", address = 0 }\n"),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 0, type = \"float\" }")),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 0, type = \"f32\", order = \"CDBA\" }")),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 0 }\nrange = [0, 100000]")),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 0 }\nfunction = 5")),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 0 }\nfunction = 22")),
        (RTU, UNIT, &command("write = { table = \"holding\", address = 0 }\nfunction = 23")),
        (RTU, UNIT, &format!("{STEPS}\nvalue = 1\n")),
        (RTU, UNIT, &command("send = \"ON\\r\\n\"")),
        (TEXT, LINE, WRITE),
        (TEXT, LINE, &command("send = \"ON\\r\\n\"\nexpect = '(\\d+'")),
        (TEXT, LINE, &command("send = \"ON\"")),
        (&format!("{TEXT}delimiter = '\\r\\n'\n"), LINE, &command("send = \"ON\\r\\n\"")),
        (TEXT, LINE, &command("send = \"V {value}\\r\\n\"")),
        (&with("bauds = 3"), UNIT, WRITE),
        (&with("response_timeout = 500"), UNIT, WRITE),
        (RTU, UNIT, &format!("{WRITE}deadline = \"100ms\"\n")),
        // Where nothing is wrong, nothing is said.
        (RTU, UNIT, WRITE),
    ];
    let said: Vec<String> = table.iter().flat_map(|(bus, device, command)| checked(bus, device, command)).collect();
    holds("Configuration", &said);
}

/// What a peer does with a request.
type Answers = Box<dyn Fn(&[u8]) -> Does + Send>;

enum Does {
    Says(Vec<u8>),
    Closes,
}

fn says(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Answers {
    Box::new(move |request| Does::Says(answer(request)))
}

/// A server that hears a request and does something with it, connection after connection.
fn server(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 256];
            while let Ok(len @ 1..) = stream.read(&mut request) {
                match answers(&request[..len]) {
                    Does::Says(bytes) => drop(stream.write_all(&bytes)),
                    Does::Closes => break,
                }
            }
        }
    });
    address
}

/// A server that talks from the beginning, and never stops. Several talk at once: on a busy machine one would have to
/// wait for its turn, and the line would be quiet meanwhile.
fn babbler() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            for mut stream in (0..8).filter_map(|_| stream.try_clone().ok()) {
                std::thread::spawn(move || while stream.write_all(&[b'~'; 65_536]).is_ok() {});
            }
        }
    });
    address
}

/// Buses, each with a device of one command, which is asked for.
#[derive(Default)]
struct Plant {
    text: String,
    devices: usize,
}

const READ: &str = "read = { table = \"holding\", address = 4, count = 2 }";
const SET: &str = "write = { table = \"holding\", address = 4 }\nvalue = 1\nidempotent = true";
const SCALED: &str = "read = { table = \"holding\", address = 4, scale_register = { address = 5 } }";
const BIT: &str = "write = { table = \"holding\", address = 4, bit = 1 }\nvalue = true\nidempotent = true";
const STEPS: &str = "steps = [{ write = { table = \"holding\", address = 4 }, value = 1 }, \
                     { write = { table = \"holding\", address = 6 }, value = 1 }]";
const ASK: &str = "send = \"ASK\\r\\n\"\nexpect = '^OK'\nrefuse = '^ERR (.*)'\nidempotent = true";

impl Plant {
    fn bus(&mut self, kind: &str, place: &str, unit: Option<u8>, command: &str) {
        let n = self.devices;
        self.devices += 1;
        let unit = unit.map_or(String::new(), |unit| format!("unit = {unit}\n"));
        self.text += &format!(
            "[bus.b{n}]\nkind = \"{kind}\"\n{place}\nresponse_timeout = \"150ms\"\nretries = 0\nlate_window = \"100ms\"\n\
             [device.d{n}]\nbus = \"b{n}\"\n{unit}profile = \"p{n}\"\nkey_file = \"device.key\"\n\
             [profile.p{n}.command.c]\n{command}\n"
        );
    }

    /// A bus whose peer does so.
    fn peer(&mut self, kind: &str, unit: Option<u8>, command: &str, answers: Answers) {
        let address = format!("address = \"{}\"", server(answers));
        self.bus(kind, &address, unit, command);
    }

    /// A site with all of them and a daemon, and what each command came to.
    fn ends(&self) -> Vec<String> {
        let site = Site::new("localhost:1", &self.text);
        let _daemon = site.start();
        let end = |n: usize| {
            let output = site.command(&["exec", &format!("d{n}"), "c"]);
            assert_eq!(output.status.code(), Some(1), "d{n}: {}", String::from_utf8_lossy(&output.stdout));
            let said = String::from_utf8(output.stderr).unwrap();
            said.lines().next().expect("a sentence").to_owned()
        };
        (0..self.devices).map(end).collect()
    }
}

#[test]
fn every_trouble_with_a_port_or_a_connection_is_said_as_the_page_has_it() {
    let mut plant = Plant::default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let settings = "baud = 9600\nparity = \"even\"";
    plant.bus("modbus-rtu", &format!("port = \"{}/gone\"\n{settings}", folder.path().display()), Some(7), READ);
    plant.bus("modbus-rtu", &format!("port = \"{}\"\n{settings}", file.display()), Some(7), READ);
    // Nobody listens where somebody did a moment ago, on an address that nobody else takes meanwhile.
    let (host, port) = crate::support::free_address();
    plant.bus("modbus-tcp", &format!("address = \"{host}:{port}\""), Some(7), READ);
    let site = Site::new("localhost:1", &plant.text);
    let _daemon = site.start();
    let mut said: Vec<String> = (0..plant.devices)
        .map(|n| {
            eventually("what is wrong with the bus", || {
                let status = site.status();
                let bus = status["buses"].as_array()?.iter().find(|bus| bus["name"] == format!("b{n}"))?.clone();
                bus["lastError"].as_str().map(str::to_owned)
            })
        })
        .collect();
    let mut plant = Plant::default();
    plant.peer("modbus-rtu", Some(7), READ, Box::new(|_| Does::Closes));
    said.extend(plant.ends());
    holds("Port and connection", &said);
}

/// What a message is told that comes when its peripheral, which says nothing, is away.
fn away(kind: &str, unit: Option<u8>, command: &str) -> String {
    let (mut plant, broker) = (Plant::default(), Broker::new());
    plant.peer(kind, unit, command, says(|_| vec![]));
    let site = Site::new(&broker.address(), &plant.text);
    site.configure("retries = 0", "retries = 0\nunreachable_after = 1\nprobe_interval = \"1h\"");
    let _daemon = site.start();
    let mut client = broker.serve();
    for packet_id in [1, 2] {
        let topic = format!("devices/d0/messages/devicebound/%24.mid=m-{packet_id}&%24.to=%2Fdevices%2Fd0");
        client.publish(packet_id, topic.as_bytes(), br#"{"command":"c"}"#);
    }
    let (_, events) = client.collect(2, 2);
    let (_, event) = &events[1];
    assert_eq!((&event["messageId"], &event["error"]["code"]), (&"m-2".into(), &"unreachable".into()), "{event}");
    event["error"]["message"].as_str().expect("a sentence").to_owned()
}

/// A frame of Modbus TCP in answer to another.
fn tcp(request: &[u8], unit: u8, pdu: &[u8]) -> Vec<u8> {
    let len = u8::try_from(pdu.len() + 1).unwrap();
    [&request[..2], &[0, 0, 0, len, unit], pdu].concat()
}

#[test]
fn every_trouble_with_a_modbus_peripheral_is_said_as_the_page_has_it() {
    let mut plant = Plant::default();
    let (seven, tcp_kind, rtu_kind) = (Some(7), "modbus-tcp", "modbus-rtu");
    plant.peer(rtu_kind, seven, READ, says(|_| vec![]));
    plant.peer(tcp_kind, seven, READ, says(|_| vec![]));
    plant.peer("modbus-ascii", seven, READ, says(|_| vec![]));
    plant.peer(rtu_kind, seven, READ, says(|_| vec![0x80, 0xFE, 0x13, 0x07]));
    plant.peer(rtu_kind, seven, READ, says(|_| rtu(&[9, 4, 2, 0, 1])));
    plant.peer("modbus-ascii", seven, READ, says(|_| ascii(&[9, 4, 2, 0, 1])));
    plant.peer(rtu_kind, seven, READ, says(<[u8]>::to_vec));
    for exception in [1, 2, 3, 6, 10, 11] {
        plant.peer(tcp_kind, seven, READ, says(move |request| tcp(request, 7, &[0x83, exception])));
    }
    plant.peer(tcp_kind, seven, READ, says(|request| tcp(&[request[0] ^ 0x40, request[1]], 7, &[3, 4, 0, 0, 0, 1])));
    plant.peer(tcp_kind, seven, READ, says(|request| tcp(request, 9, &[3, 4, 0, 0, 0, 1])));
    plant.peer(tcp_kind, seven, READ, says(|_| rtu(&[7, 3, 4, 0, 0, 0, 1])));
    plant.peer(tcp_kind, seven, READ, says(|request| tcp(request, 7, &[3, 4, 0, 0, 0, 1])[..10].to_vec()));
    plant.peer(tcp_kind, seven, READ, says(|request| tcp(request, 7, &[3, 2, 0, 1])));
    plant.peer(tcp_kind, seven, SET, says(|request| tcp(request, 7, &[6, 0, 4, 0, 2])));
    let of_scale = |word: u8| says(move |request| tcp(request, 7, &[3, 2, word, 0]));
    plant.peer(tcp_kind, seven, SCALED, of_scale(0x80));
    plant.peer(tcp_kind, seven, SCALED, of_scale(0x01));
    plant.peer(tcp_kind, seven, BIT, says(|request| tcp(request, 7, &[0x83, 4])));
    let second = |request: &[u8]| if request[9] == 4 { request[7..].to_vec() } else { vec![0x86, 4] };
    plant.peer(tcp_kind, seven, STEPS, says(move |request| tcp(request, 7, &second(request))));
    let mut said = plant.ends();
    said.push(away(tcp_kind, seven, READ));
    holds("Modbus", &said);
}

#[test]
fn every_trouble_with_a_text_line_is_said_as_the_page_has_it() {
    let mut plant = Plant::default();
    plant.peer("serial", None, ASK, says(|_| vec![]));
    plant.peer("serial", None, ASK, says(|_| b"12.5 kg\r\n".to_vec()));
    plant.peer("serial", None, ASK, says(<[u8]>::to_vec));
    plant.peer("serial", None, ASK, says(|_| vec![b'x'; 5000]));
    plant.peer("serial", None, ASK, says(|_| b"ERR 7\r\n".to_vec()));
    plant.bus("serial", &format!("address = \"{}\"", babbler()), None, ASK);
    let n = plant.devices;
    plant.peer("serial", None, ASK, says(|_| b"ALARM 3\r\n".to_vec()));
    let profile = format!("profile = \"p{n}\"\n");
    plant.text = plant.text.replace(&profile, &format!("{profile}events = \"^ALARM\"\n"));
    let mut said = plant.ends();
    said.push(away("serial", None, ASK));
    holds("Text lines", &said);
}

#[test]
fn a_line_of_the_page_stands_for_what_it_names_only() {
    assert!(is_in("unit … did not answer", "unit 7 did not answer within 1s"));
    assert!(!is_in("unit … did not answer", "did not answer: unit 7"));
    assert!(!is_in("unit 8 did not answer", "unit 7 did not answer"));
}
