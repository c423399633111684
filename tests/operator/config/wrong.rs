//! What can be wrong in a configuration, table by table.

use super::{file_of, lines, Site, CERTIFICATE, PRIVATE_KEY};

/// What is written; the key, and a part of the message, of the one problem that it makes.
pub(super) type Case = (&'static str, &'static str, &'static str);

/// A good configuration, with a place for what is wrong.
pub(super) struct Bench(Site);

impl Bench {
    pub(super) fn new() -> Self {
        let site = Site::good();
        site.write("keys/cert.pem", CERTIFICATE);
        site.write("keys/cert.key", PRIVATE_KEY);
        Bench(site)
    }

    /// Each of these as the content of a table, whose name stands before the key.
    pub(super) fn each_makes_one_problem(&self, table: &str, cases: &[Case]) {
        for (body, key, fragment) in cases {
            self.makes_one_problem(&format!("[{table}]\n{body}"), &format!("{table}{key}"), fragment);
        }
    }

    pub(super) fn makes_one_problem(&self, text: &str, key: &str, fragment: &str) {
        self.0.write("conf.d/50-case.toml", text);
        let problems = match self.0.load() {
            Err(problems) => problems,
            Ok(_) => panic!("accepted: {text}"),
        };
        let [problem] = problems.as_slice() else {
            panic!("{text}: not one problem:\n{}", lines(&problems));
        };
        assert_eq!(problem.key, key, "{text}: {problem}");
        assert!(problem.complaint.to_string().contains(fragment), "{text}: {problem}");
        assert_eq!(file_of(problem), "50-case.toml", "{text}: {problem}");
        assert!(!problem.remedy().is_empty(), "{text}: no remedy: {problem}");
        let line = text.lines().nth(problem.place.unwrap().line as usize - 1).unwrap_or_default();
        let last = key.rsplit('.').next().unwrap_or_default().trim_matches('"');
        let last = last.split('[').next().unwrap_or_default();
        let table = key.rsplit('.').nth(1).unwrap_or_default();
        assert!(
            [last, table].iter().any(|name| line.contains(name)) || line.contains("a/b"),
            "{text}: {problem}: it stands in {line:?}"
        );
    }
}

const HUB_ADMIN_AND_LEDGER: &[Case] = &[
    ("[hub]\nhost = ''", "hub.host", "not filled in"),
    ("[hub]\nhost = 7", "hub.host", "expected a string, found the integer 7"),
    ("[hub]\nhost = 'https://Contoso.azure-devices.net/x'", "hub.host", "\"contoso.azure-devices.net\""),
    ("[hub]\nhost = 'contoso.azure-devices.net:8883'", "hub.host", "hub.address"),
    ("[hub]\nhost = 'HostName=h;DeviceId=d;SharedAccessKey=k'", "hub.host", "connection string"),
    ("[hub]\nhost = 'contoso.azure-devices.net/'", "hub.host", "'/'"),
    ("[hub]\naddress = 'mqtts://10.0.0.1'", "hub.address", "is a URL"),
    ("[hub]\naddress = '10.0.0.1:0'", "hub.address", "1 to 65535"),
    ("[hub]\ntls = false", "hub.tls", "loopback"),
    ("[hub]\ntls = false\naddress = '10.0.0.1:1883'", "hub.tls", "loopback"),
    ("[hub]\ntls = 'false'", "hub.tls", "remove the quotes"),
    ("[hub]\nca_file = 'no.pem'", "hub.ca_file", "there is no such file"),
    ("[hub]\nca_file = 'keys/cert.key'", "hub.ca_file", "private key"),
    ("[hub]\nkeepalive = '4s'", "hub.keepalive", "5s to 1177s"),
    ("[hub]\nkeepalive = '20m'", "hub.keepalive", "1767s"),
    ("[hub]\nkeepalive = '5500ms'", "hub.keepalive", "whole seconds"),
    ("[hub]\nkeepalive = 60", "hub.keepalive", "add its unit"),
    ("[hub]\nkeepalive = '60'", "hub.keepalive", "not a duration"),
    ("[hub]\nconnect_rate = 0", "hub.connect_rate", "1 to 1000"),
    ("[hub]\nconnect_rate = 1.5", "hub.connect_rate", "the decimal number 1.5"),
    ("[hub]\nconnect_rate = '20'", "hub.connect_rate", "remove the quotes"),
    ("[hub]\ntoken_lifetime = '9s'", "hub.token_lifetime", "10s to 1d"),
    ("[hub]\napi_version = '2021&x'", "hub.api_version", "2021-04-12"),
    ("[hub]\nkeep_alive = '60s'", "hub.keep_alive", "did you mean \"keepalive\"?"),
    ("[hbu]\nhost = 'x'", "hbu", "did you mean \"hub\"?"),
    ("[admin]\nsocket = 7", "admin.socket", "expected a string"),
    ("[ledger]\nretention = '47h'", "ledger.retention", "2d to 3650d"),
    ("[ledger]\npath = 'keys'", "ledger.path", "folder"),
    ("[metrics]\nlisten = '9464'", "metrics.listen", "write \"127.0.0.1:9464\""),
    ("[metrics]\nlisten = 'unix:keys'", "metrics.listen", "is there already and is not a socket"),
    ("[web]\nlisten = 'http://127.0.0.1:8088/'", "web.listen", "leave out the scheme"),
    ("[web]\nlisten = 'gateway.plant:8088'", "web.listen", "an IP address of this machine"),
    ("[web]\nhosts = 'gateway.plant'", "web.hosts", "[\"gateway.plant\"]"),
    ("[web]\nhosts = ['gateway.plant:8088']", "web.hosts", "without a port"),
    ("[metrics]\nlisten = '127.0.0.1:1'\n[web]\nlisten = '127.0.0.1:1'", "web.listen", "its own port"),
];

#[test]
fn hub_admin_and_ledger_are_checked() {
    let bench = Bench::new();
    for (text, key, fragment) in HUB_ADMIN_AND_LEDGER {
        bench.makes_one_problem(text, key, fragment);
    }
    let long = format!("[admin]\nsocket = '/run/{}'", "x".repeat(104));
    bench.makes_one_problem(&long, "admin.socket", "107 bytes");
}

const BUS: &[Case] = &[
    ("[bus.b]", "bus.b.kind", "modbus-rtu, modbus-ascii, modbus-tcp, serial"),
    ("[bus.b]\nkind = 'modbus-rut'", "bus.b.kind", "did you mean \"modbus-rtu\"?"),
    ("[bus]\nb = 7", "bus.b", "expected a table, found the integer 7"),
    ("[bus.b]\nkind = 'modbus-tcp'", "bus.b.address", "is missing"),
    ("[bus.b]\nkind = 'serial'\nbaud = 9600", "bus.b.port", "is missing"),
    ("[bus.b]\nkind = 'serial'\nport = '/dev/b'", "bus.b.baud", "is missing"),
    ("[bus.line-a]\nbaud = 0", "bus.line-a.baud", "50 to 4000000"),
    ("[bus.line-a]\nbaudrate = 9600", "bus.line-a.baudrate", "did you mean \"baud\"?"),
    ("[bus.line-a]\nparity = 'evne'", "bus.line-a.parity", "did you mean \"even\"?"),
    ("[bus.line-a]\ndata_bits = 9", "bus.line-a.data_bits", "5 to 8"),
    ("[bus.line-a]\ndata_bits = 7", "bus.line-a.data_bits", "Modbus RTU"),
    ("[bus.line-a]\nkind = 'modbus-ascii'\ndata_bits = 6", "bus.line-a.data_bits", "7 or 8"),
    ("[bus.b]\nkind = 'ascii'", "bus.b.kind", "\"modbus-ascii\" for Modbus"),
    ("[bus.b]\nkind = 'modbus-ascii'\nport = '/dev/b'", "bus.b.baud", "is missing"),
    ("[bus.z]\nkind = 'modbus-ascii'\nport = '/dev/test/line-a'\nbaud = 9600", "bus.z.port", "bus \"line-a\""),
    ("[bus.z]\nkind = 'modbus-ascii'\naddress = '10.0.0.12:502'", "bus.z.address", "bus \"plant\" too"),
    ("[bus.line-a]\nstop_bits = 0", "bus.line-a.stop_bits", "1 to 2"),
    ("[bus.line-a]\nresponse_timeout = '0s'", "bus.line-a.response_timeout", "1ms to 10m"),
    ("[bus.line-a]\nretries = 11", "bus.line-a.retries", "0 to 10"),
    ("[bus.line-a]\nretries = -1", "bus.line-a.retries", "0 to 10"),
    ("[bus.line-a]\nturnaround = '2m'", "bus.line-a.turnaround", "0ms to 1m"),
    ("[bus.line-a]\nconnect_pause = '61s'", "bus.line-a.connect_pause", "0ms to 1m"),
    ("[bus.plant]\nunreachable_after = 101", "bus.plant.unreachable_after", "0 to 100"),
    ("[bus.plant]\nprobe_interval = '50ms'", "bus.plant.probe_interval", "100ms to 1h"),
    ("[bus.plant]\noffline_after = 2", "bus.plant.offline_after", "did you mean \"unreachable_after\"?"),
    ("[bus.plant]\nretry_interval = '5s'", "bus.plant.retry_interval", "did you mean \"probe_interval\"?"),
    (
        "[device.pump-7]\non_unreachable = 'wait'",
        "device.pump-7.on_unreachable",
        "not one of \"fail\", \"hold\", \"mirror\"",
    ),
    ("[device.pump-7]\nmethod_timeout = '301s'", "device.pump-7.method_timeout", "1s to 5m"),
    ("[device.pump-7]\ncall_timeout = '5s'", "device.pump-7.call_timeout", "did you mean \"method_timeout\"?"),
    ("[bus.plant]\nidle_close = '25h'", "bus.plant.idle_close", "0ms to 1d"),
    ("[bus.plant]\nmax_in_flight = 17", "bus.plant.max_in_flight", "1 to 16"),
    ("[bus.plant]\npipelining = 4", "bus.plant.pipelining", "did you mean \"max_in_flight\"?"),
    ("[bus.line-a]\nmax_in_flight = 4", "bus.line-a.max_in_flight", "belongs to a bus of kind \"modbus-tcp\""),
    ("[bus.plant]\nidle_timeout = '1m'", "bus.plant.idle_timeout", "did you mean \"idle_close\"?"),
    ("[bus.line-a]\ndelimiter = 'x'", "bus.line-a.delimiter", "kind \"serial\""),
    ("[bus.plant]\nbaud = 9600", "bus.plant.baud", "\"modbus-rtu\" or \"modbus-ascii\" or \"serial\""),
    ("[bus.scale-port]\naddress = 'a:1'", "bus.scale-port.address", "beside port"),
    ("[bus.b]\nkind = 'modbus-rtu'\naddress = '10.0.0.1'", "bus.b.address", "names no port"),
    ("[bus.b]\nkind = 'serial'\naddress = '[::1]'", "bus.b.address", "names no port"),
    ("[bus.b]\nkind = 'serial'\naddress = 'a:1'\nbaud = 9600", "bus.b.baud", "set it at the server"),
    ("[bus.b]\nkind = 'modbus-rtu'\naddress = 'a:1'\nrs485 = {}", "bus.b.rs485", "set it at the server"),
    ("[bus.plant]\nrs485 = {}", "bus.plant.rs485", "\"modbus-rtu\" or \"modbus-ascii\" or \"serial\""),
    ("[bus.line-a]\nrs485 = true", "bus.line-a.rs485", "write rs485 = { rts_on_send = true }"),
    ("[bus.line-a]\nlow_latency = 1", "bus.line-a.low_latency", "expected true or false"),
    ("[bus.line-a]\nlatency_timer = 1", "bus.line-a.latency_timer", "did you mean \"low_latency\"?"),
    ("[bus.plant]\nlow_latency = true", "bus.plant.low_latency", "\"modbus-rtu\" or \"modbus-ascii\" or \"serial\""),
    ("[bus.line-a]\nrts = true", "bus.line-a.rts", "did you mean \"rs485\"?"),
    ("[bus.line-a]\nrs485 = { rts_on_sned = true }", "bus.line-a.rs485.rts_on_sned", "did you mean \"rts_on_send\"?"),
    ("[bus.line-a]\nrs485 = { rts_on_send = 1 }", "bus.line-a.rs485.rts_on_send", "expected true or false"),
    ("[bus.line-a]\nrs485 = { delay_before = '101ms' }", "bus.line-a.rs485.delay_before", "0ms to 100ms"),
    ("[bus.line-a]\nrs485 = { delay_after = '500us' }", "bus.line-a.rs485.delay_after", "whole milliseconds"),
    ("[bus.z]\nkind = 'modbus-rtu'\naddress = '10.0.0.12:502'", "bus.z.address", "bus \"plant\" too"),
    ("[bus.scale-port]\ndelimiter = '\\r\\n'", "bus.scale-port.delimiter", "the 4 characters"),
    ("[bus.scale-port]\ndelimiter = ''", "bus.scale-port.delimiter", "where a reply ends"),
    ("[bus.scale-port]\nwake = '\\r'", "bus.scale-port.wake", "in double quotes"),
    ("[bus.scale-port]\nwake = ''", "bus.scale-port.wake", "is empty"),
    ("[bus.scale-port]\nwake = 300", "bus.scale-port.wake", "not a byte"),
    ("[bus.scale-port]\nwake = \"\\r\"\nwake_after = '2d'", "bus.scale-port.wake_after", "0ms to 1d"),
    ("[bus.scale-port]\nwake_after = '1s'", "bus.scale-port.wake_after", "no effect without wake"),
    ("[bus.plant]\nwake = 1", "bus.plant.wake", "kind \"serial\""),
    ("[bus.plant]\naddress = 'a b'", "bus.plant.address", "HOST:PORT"),
    ("[bus.scale-port]\nport = '/dev/test/line-a'", "bus.scale-port.port", "bus \"line-a\" too"),
    ("[bus.\"b.c\"]\nkind = 'modbus-tcp'\naddress = 7", "bus.\"b.c\".address", "expected a string"),
];

#[test]
fn a_bus_is_checked() {
    let bench = Bench::new();
    for (text, key, fragment) in BUS {
        bench.makes_one_problem(text, key, fragment);
    }
}

const FRAME: &[Case] = &[
    ("start = 'a'", "", "does not say where a frame ends"),
    ("end = ''", ".end", "is empty"),
    ("end = '\\r'", ".end", "the 2 characters"),
    ("end = []", ".end", "is empty"),
    ("end = 256", ".end", "not a byte"),
    ("end = [1, 'a']", ".end", "not a byte"),
    ("end = true", ".end", "not a byte"),
    ("end = '12345678901234567'", ".end", "longer than 16 bytes"),
    ("start = 0x7E\nend = 0x7E", ".start", "which is the end of a frame; leave start out"),
    ("fixed = 0", ".fixed", "1 to 4096"),
    ("fixed = 3\nstart = 2\nend = 3\nchecksum = { kind = 'crc16-modbus', as = 'hex' }", ".fixed", "take 6 bytes"),
    ("fixed = 9\nidle = '20ms'", ".idle", "stands beside fixed"),
    ("idle = '20ms'\nend = 3", ".idle", "stands beside end"),
    ("fixed = 9\nlength = { at = 0 }", ".length", "stands beside fixed"),
    ("length = { size = 1 }", ".length.at", "is missing"),
    ("length = { at = 0 }\nstart = 2", ".length", "within the start"),
    ("length = { at = 1, size = 3 }", ".length.size", "1 to 2"),
    ("length = { at = 1, byte_order = 'little' }", ".length.byte_order", "has one"),
    ("escape = 0x10\nfixed = 9", ".escape", "this one does not"),
    ("escape = [1, 2]\nend = 3", ".escape", "more than one byte"),
    ("escape = 3\nend = 3", ".escape", "is the start or the end"),
    ("escape = 0x10\nend = \"\\r\\n\"", ".escape", "longer"),
    ("end = 3\nchecksum = { as = 'hex' }", ".checksum.kind", "is missing"),
    ("end = 3\nchecksum = { kind = 'crc16-modbus' }", ".checksum.as", "nobody can guess"),
    ("end = 3\nchecksum = { kind = 'bcc' }", ".checksum.kind", "write \"xor8\""),
    ("end = 3\nchecksum = { kind = 'CRC16-CCITT' }", ".checksum.kind", "\"crc16-ibm-3740\" begins with FFFF"),
    ("end = 3\nchecksum = { kind = 'crc16-modbuss' }", ".checksum.kind", "did you mean \"crc16-modbus\"?"),
    ("end = 3\nchecksum = { kind = 'xor8', as = 'ascii' }", ".checksum.as", "is not one of"),
    ("end = 3\nchecksum = { kind = 'xor8', covers = 'frame' }", ".checksum", "there is none"),
    ("end = 3\nends = 3", ".ends", "did you mean \"end\"?"),
];

#[test]
fn a_frame_is_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("bus.scale-port.frame", FRAME);
    let both = "[bus.scale-port]\ndelimiter = ';'\nframe = { end = 3 }";
    bench.makes_one_problem(both, "bus.scale-port.delimiter", "stands beside frame");
    bench.makes_one_problem("[bus.plant]\nframe = { end = 3 }", "bus.plant.frame", "kind \"serial\"");
    let sent = "[device.scale]\nprofile = 'framed'\n[bus.scale-port.frame]\nend = \"\\r\"\n\
                [profile.framed.command.c]\nsend = \"T\\r\"\nidempotent = true";
    bench.makes_one_problem(sent, "device.scale.profile", "holds 0D, which ends a frame on this bus");
}

const DEVICE: &[Case] = &[
        ("[device.pump-7]\nbus = 'line-b'", "device.pump-7.bus", "no bus is called \"line-b\"; did you mean \"line-a\"?"),
        ("[device.pump-7]\nbus = 'x'", "device.pump-7.bus", "write a table [bus.x]"),
        ("[device.pump-7]\nprofile = 'pmup'", "device.pump-7.profile", "did you mean \"pump\"?"),
        ("[device.pump-7]\nunit = 0", "device.pump-7.unit", "broadcast"),
        ("[device.pump-7]\nunit = 256", "device.pump-7.unit", "0 to 255"),
        (
            "[device.all]\nbus = 'line-a'\nunit = 0\nprofile = 'all'\nkey_file = 'keys/good.key'\n\
             [profile.all.command.stop]\nwrite = { table = 'coil', address = 1 }\nidempotent = true\nverify = true",
            "device.all.unit",
            "read_back = { units = [3, 4] }",
        ),
        (
            "[device.all]\nbus = 'line-a'\nunit = 0\nprofile = 'all'\nkey_file = 'keys/good.key'\n\
             [profile.all.command.stop]\nwrite = { register = 40001, bit = 1 }\nidempotent = true",
            "device.all.unit",
            "command \"stop\" reads a register before it writes; write a bit by function = 22",
        ),
        (
            "[profile.pump.command.stop]\nwrite = { table = 'coil', address = 1 }\nidempotent = true\nread_back = { units = [3] }\n\
             [device.pump-7]\nprofile = 'pump'\n[device.pump-8]\nprofile = 'all'\n[profile.all.command.c]\nread = { register = 1 }",
            "device.pump-7.profile",
            "what all units are told",
        ),
        ("[device.pump-8]\nunit = 256", "device.pump-8.unit", "0 to 255"),
        ("[device.scale]\nunit = 1", "device.scale.unit", "no units"),
        ("[device.pump-7]\nresponse_timeout = '0s'", "device.pump-7.response_timeout", "1ms to 10m"),
        ("[device.pump-7]\nretries = 11", "device.pump-7.retries", "0 to 10"),
        ("[device.pump-7]\nturnaround = '2m'", "device.pump-7.turnaround", "0ms to 1m"),
        ("[device.pump-7]\nreply_timeout = '1s'", "device.pump-7.reply_timeout", "did you mean \"response_timeout\"?"),
        ("[device.scale]\nquirks = ['echo']", "device.scale.quirks", "own protocol"),
        ("[device.pump-7]\nquirks = 'echo'", "device.pump-7.quirks", "brackets"),
        ("[device.pump-7]\nquirks = ['unitid']", "device.pump-7.quirks", "did you mean \"unit-id\"?"),
        ("[device.pump-7]\nquirks = ['slow']", "device.pump-7.quirks", "\"transaction-id\", \"unit-id\", \"length\", \"echo\""),
        ("[device.pump-7]\nquirks = [7]", "device.pump-7.quirks", "called 7"),
        ("[device.pump-7]\nquirks = ['echo', 'echo']", "device.pump-7.quirks", "twice"),
        ("[device.pump-7]\nquirks = ['transaction-id']", "device.pump-7.quirks", "no transaction ids"),
        (
            "[device.pump-7]\nquirks = ['unit-id']\n[device.d]\nbus = 'line-a'\nunit = 9\nprofile = 'pump'\nkey_file = 'keys/good.key'",
            "device.pump-7.quirks",
            "has unit 9 of device \"d\" beside unit 7",
        ),
        ("[device.scale]\nprofile = 'pump'", "device.scale.profile", "\"read-speed\""),
        ("[device.pump-7]\nprofile = 'scale'", "device.pump-7.profile", "\"tare\" sends text"),
        ("[device.pump-7]\nsettle = 'after_accept'", "device.pump-7.settle", "did you mean \"after-accept\"?"),
        ("[device.pump-7]\ndefault_command = 'set-sped'", "device.pump-7.default_command", "did you mean \"set-speed\"?"),
        ("[device.scale]\ndefault_command = 'x'", "device.scale.default_command", "[profile.scale.command.x]"),
        ("[device.pump-7]\ndefault_command = 7", "device.pump-7.default_command", "expected a string"),
        ("[device.pump-7]\ndefault_command = ''", "device.pump-7.default_command", "is empty"),
        ("[device.scale]\nevents = '('", "device.scale.events", "is not a regular expression"),
        ("[device.scale]\nevents = true", "device.scale.events", "expected a string"),
        ("[device.pump-7]\nevents = '^ALARM'", "device.pump-7.events", "who speaks Modbus says none"),
        ("[device.scale]\nalarms = '^ALARM'", "device.scale.alarms", "did you mean \"events\"?"),
        ("[device.pump-7]\nkey = 'x'", "device.pump-7.key", "did you mean \"key_file\"?"),
        ("[device.pump-7]\nbaud = 7", "device.pump-7.baud", "belongs to [bus.NAME]"),
        ("[device.pump-7]\nkey_file = 'keys/no.key'", "device.pump-7.key_file", "there is no such file"),
        ("[device.pump-7]\nkey_file = 'keys'", "device.pump-7.key_file", "not a regular file"),
        ("[device.pump-7]\ncert_file = 'keys/cert.pem'", "device.pump-7.cert_file", "stands beside key_file"),
        ("[device.d]\nbus = 'plant'\nunit = 1\nprofile = 'pump'", "device.d.key_file", "cert_key_file"),
        ("[device.d]\nbus = 'plant'\nprofile = 'pump'\nkey_file = 'keys/good.key'", "device.d.unit", "is missing"),
        ("[device.d]\nunit = 1\nprofile = 'pump'\nkey_file = 'keys/good.key'", "device.d.bus", "\"line-a\" or \"plant\" or \"scale-port\""),
        ("[device.d]\nbus = 'plant'\nunit = 1\nkey_file = 'keys/good.key'", "device.d.profile", "is missing"),
        (
            "[device.d]\nbus = 'plant'\nunit = 1\nprofile = 'pump'\ncert_file = 'keys/cert.pem'",
            "device.d.cert_key_file",
            "cert_file needs it",
        ),
        (
            "[device.d]\nbus = 'plant'\nunit = 1\nprofile = 'pump'\ncert_file = 'keys/cert.key'\ncert_key_file = 'keys/cert.key'",
            "device.d.cert_file",
            "no certificate",
        ),
        (
            "[device.'a/b']\nbus = 'plant'\nunit = 1\nprofile = 'pump'\nkey_file = 'keys/good.key'",
            "device.\"a/b\"",
            "only letters",
        ),
    ];

#[test]
fn a_device_is_checked() {
    let bench = Bench::new();
    for (text, key, fragment) in DEVICE {
        bench.makes_one_problem(text, key, fragment);
    }
}

#[test]
fn the_form_of_messages_is_checked() {
    let bench = Bench::new();
    let long = format!("command = '{}'", "x".repeat(129));
    for (body, key, fragment) in [
        ("command = ''", ".command", "is empty"),
        ("value = \"a\\nb\"", ".value", "control character"),
        (&long, ".command", "longer than 128 characters"),
        ("command = 'value'", ".command", "the field that has the value, too"),
        ("value = 'command'", ".value", "the field that has the command, too"),
        ("command = 'a'\nvalue = 'a'", ".value", "the field that has the command, too"),
        ("command = 7", ".command", "expected a string"),
        ("numbers_as_text = 'yes'", ".numbers_as_text", "expected true or false"),
        ("number_as_text = true", ".number_as_text", "did you mean \"numbers_as_text\"?"),
    ] {
        let text = format!("[profile.pump.message]\n{body}");
        bench.makes_one_problem(&text, &format!("profile.pump.message{key}"), fragment);
    }
    bench.makes_one_problem("[profile.pump]\nmessage = 'x'", "profile.pump.message", "write [profile.pump.message]");
    // In a device it belongs to the profile.
    bench.makes_one_problem(
        "[device.pump-7]\nnumbers_as_text = true",
        "device.pump-7.numbers_as_text",
        "move it there",
    );
}

const COMMAND: &[Case] = &[
    ("", "", "one of read, write, steps, send or send_hex"),
    ("idempotent = true", "", "one of read, write, steps, send or send_hex"),
    ("read = { register = 1 }\nwrite = { register = 1 }\nidempotent = true", ".read", "beside write"),
    ("read = 40001", ".read", "expected a table"),
    ("write = { register = 1 }", ".idempotent", "the person who knows the machine"),
    ("write = { register = 1 }\nidempotent = 'yes'", ".idempotent", "expected true or false"),
    ("read = { register = 1 }\nidempotent = false", ".idempotent", "always safe"),
    ("read = { register = 1 }\nverify = true", ".verify", "belongs to a write"),
    ("read = { register = 1 }\nvalue = true", ".value", "belongs to a write"),
    ("read = { register = 40001 }\nrange = [0, 1]", ".range", "belongs to a write"),
    ("read = { register = 40001, bit = 1 }\nunavailable = 1", ".unavailable", "in place of a number"),
    ("write = { register = 40001, bit = 1 }\nrange = [0, 1]\nidempotent = true", ".range", "writes none"),
    ("write = { register = 40001, bit = 1 }\nvalue = 2\nidempotent = true", ".value", "true or false"),
    (
        "write = { register = 40001, scale_register = { address = 5 } }\nrange = [0, 9]\nvalue = 10\nidempotent = true",
        ".value",
        "from 0 to 9",
    ),
    ("write = { register = 40001, scale_register = { address = 5 } }\nvalue = 'a'\nidempotent = true", ".value", "a number"),
    (
        "write = { register = 40001, scale_register = { address = 5 } }\nvalues = { low = 1, high = 8 }\nrange = [0, 5]\n\
         idempotent = true",
        ".values",
        "\"high\" can't be carried out: expected a number from 0 to 5",
    ),
    ("read = { register = 40001 }\nunavailable = 0x18000", ".unavailable", "it must be -32768 to 65535"),
    ("read = { register = 40001 }\nunavailable = -32769", ".unavailable", "it must be -32768 to 65535"),
    ("read = { register = 40001, type = 'f32' }\nunavailable = nan", ".unavailable", "expected an integer"),
    ("read = { register = 1 }\nunavailable = 1", ".unavailable", "in place of a number"),
    (
        "read = { register = 40001, type = 'string', count = 2 }\nunavailable = 0",
        ".unavailable",
        "in place of a number",
    ),
    ("read = { register = 40001 }\nunavailable = 5\nvalues = { a = 5 }", ".values", "there is no value"),
    (
        "write = { register = 40001, type = 'i16' }\nunavailable = 0x8000\nvalue = -32768\nidempotent = true",
        ".value",
        "0x8000, which says that there is no value",
    ),
    ("read = { register = 1 }\nexpect = 'x'", ".expect", "belongs to a send"),
    ("read = { register = 1 }\ntimeout = '0s'", ".timeout", "1ms to 10m"),
    ("read = { register = 1 }\ndeadline = '25h'", ".deadline", "100ms to 1d"),
    ("read = { register = 1 }\nmin_interval = '25h'", ".min_interval", "0ms to 1d"),
    ("read = { register = 1 }\ncooldown = '5s'", ".cooldown", "did you mean \"min_interval\"?"),
    ("read = { register = 1 }\nlatest_wins = 'yes'", ".latest_wins", "write true or false"),
    ("write = { register = 1 }\nrange = [0, 1]\nidempotent = true", ".range", "writes none"),
    ("write = { register = 40001 }\nrange = [1, 0]\nidempotent = true", ".range", "swap them"),
    ("write = { register = 40001 }\nrange = [0]\nidempotent = true", ".range", "such as [0, 100]"),
    ("write = { register = 40001 }\nrange = [0, inf]\nidempotent = true", ".range", "such as [0, 100]"),
    ("write = { register = 40001 }\nrange = [0, 9]\nvalue = 10\nidempotent = true", ".value", "from 0 to 9"),
    ("write = { register = 40001 }\nvalue = 65536\nidempotent = true", ".value", "expected a number from 0 to 65535"),
    ("write = { register = 40001 }\nvalue = 'on'\nidempotent = true", ".value", "expected a number"),
    ("write = { register = 1 }\nvalue = 2\nidempotent = true", ".value", "true or false"),
    ("write = { register = 40001, scale = 0.1 }\nrange = [0, 10000]\nidempotent = true", ".range", "hold 0 to 6553.5"),
    ("write = { register = 40001 }\nrange = [-1, 5]\nidempotent = true", ".range", "hold 0 to 65535"),
    ("write = { register = 40001, type = 'bcd16' }\nrange = [0, 10000]\nidempotent = true", ".range", "hold 0 to 9999"),
    ("write = { register = 40001, type = 'bcd32' }\nvalue = -1\nidempotent = true", ".value", "from 0 to 99999999"),
    (
        "write = { register = 40001, scale = -0.1, offset = 10 }\nrange = [0, 11]\nidempotent = true",
        ".range",
        "hold -6543.5 to 10",
    ),
    ("write = { register = 40001, type = 'f32' }\nrange = [0, 1e39]\nidempotent = true", ".range", "hold -3.4"),
    ("write = { register = 40001 }\nrange = [0.2, 0.8]\nidempotent = true", ".range", "no value between"),
    ("write = { register = 40001, scale = 5 }\nrange = [1, 4]\nidempotent = true", ".range", "no value between"),
    ("write = { register = 40001 }\nvalue = 1.5\nidempotent = true", ".value", "a whole number"),
    ("write = { register = 40001, count = 2 }\nvalue = 1\nidempotent = true", ".value", "an array of 2"),
    ("write = { register = 40001, count = 2 }\nvalue = [1, 70000]\nidempotent = true", ".value", "0 to 65535"),
    (
        "write = { register = 40001, type = 'string', count = 2 }\nvalue = \"a\\tb\"\nidempotent = true",
        ".value",
        "control characters",
    ),
    (
        "write = { register = 40001, type = 'string', count = 2 }\nvalue = 'abcde'\nidempotent = true",
        ".value",
        "at most 4 bytes",
    ),
    ("write = { register = 1 }\nvalue = { a = 1 }\nidempotent = true", ".value", "found a table"),
    ("write = { register = 1 }\nidempotnet = true\nidempotent = true", ".idempotnet", "did you mean \"idempotent\"?"),
];

#[test]
fn a_command_is_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.pump.command.c", COMMAND);
}

const READ: &[Case] = &[
    ("address = 0", ".table", "coil, discrete, holding or input"),
    ("table = 'holding'", ".address", "is missing"),
    ("table = 'holdings', address = 0", ".table", "did you mean \"holding\"?"),
    ("table = 'holding', address = 65536", ".address", "0 to 65535"),
    ("table = 'holding', address = 0, register = 40001", ".register", "keep one"),
    ("table = 'input', register = 40001", ".table", "contradicts register"),
    ("register = 20000", ".register", "not a reference number"),
    ("register = 10000", ".register", "not a reference number"),
    ("register = 0", ".register", "1 to 465536"),
    ("register = 1, type = 'u16'", ".type", "single bits"),
    ("register = 1, scale = 2", ".scale", "is for numbers"),
    ("register = 40001, scale = 0", ".scale", "must not be 0"),
    ("register = 40001, scale = nan", ".scale", "expected a number"),
    ("register = 40001, scale = '0.1'", ".scale", "remove the quotes"),
    ("register = 40001, type = 'uint16'", ".type", "did you mean \"u16\"?"),
    ("register = 40001, type = 'bcd'", ".type", "did you mean \"bcd16\"?"),
    ("register = 1, type = 'bcd16'", ".type", "single bits"),
    ("register = 40001, type = 'string'", ".count", "is missing"),
    ("register = 40001, type = 'string', count = 4, offset = 1", ".offset", "is for numbers"),
    ("register = 40001, type = 'string', count = 126", ".count", "at most 125"),
    ("register = 40001, count = 0", ".count", "1 to 2000"),
    ("register = 40001, count = 126", ".count", "at most 125"),
    ("register = 40001, type = 'f64', count = 32", ".count", "128 registers"),
    ("register = 1, count = 2001", ".count", "1 to 2000"),
    ("register = 465536, type = 'u32'", ".register", "65536"),
    ("table = 'coil', address = 65000, count = 537", ".address", "65536"),
    ("register = 40001, word_order = 'middle'", ".word_order", "\"big\", \"little\""),
    ("register = 40001, order = 'big'", ".order", "did you mean \"ABCD\"?"),
    ("register = 40001, order = 'ADBC'", ".order", "is not one of \"ABCD\", \"CDAB\", \"BADC\", \"DCBA\""),
    ("register = 40001, order = 'CDAB', word_order = 'little'", ".order", "keep it, and remove word_order"),
    (
        "register = 40001, order = 'CDAB', word_order = 'little', byte_order = 'big'",
        ".order",
        "stands beside word_order and byte_order",
    ),
    ("register = 1, order = 'CDAB'", ".order", "coils hold single bits"),
    ("register = 10001, word_order = 'little'", ".word_order", "discrete inputs hold single bits"),
    ("register = 40001, type = 'string', count = 2, order = 'CDAB'", ".order", "stay where they are"),
    ("register = 40001, bit = 16", ".bit", "it must be 0 to 15"),
    ("register = 1, bit = 0", ".bit", "coils are single bits"),
    ("register = 30001, bit = 0, count = 2", ".count", "stands beside bit"),
    ("register = 30001, bit = 0, type = 'u16'", ".type", "stands beside bit"),
    ("register = 30001, bit = 0, scale = 2", ".scale", "is for numbers"),
    ("register = 30001, bit_number = 0", ".bit_number", "did you mean \"bit\"?"),
    ("register = 30001, sf = 5", ".sf", "did you mean \"scale_register\"?"),
    ("register = 30001, scale_register = 5", ".scale_register", "expected a table"),
    ("register = 30001, scale_register = {}", ".scale_register.address", "is missing"),
    ("register = 30001, scale_register = { address = 65536 }", ".scale_register.address", "0 to 65535"),
    ("register = 30001, scale_register = { register = 1 }", ".scale_register.register", "coils hold no numbers"),
    ("register = 30001, scale_register = { address = 1, register = 1 }", ".scale_register.register", "keep one"),
    ("register = 30001, scale_register = { adress = 1 }", ".scale_register.adress", "did you mean \"address\"?"),
    ("register = 1, scale_register = { address = 5 }", ".scale_register", "is for numbers"),
    ("register = 30001, bit = 1, scale_register = { address = 5 }", ".scale_register", "is for numbers"),
];

#[test]
fn a_point_to_read_is_checked() {
    let bench = Bench::new();
    for (read, key, fragment) in READ {
        let text = format!("[profile.pump.command.c]\nread = {{ {read} }}");
        let key = format!("profile.pump.command.c.read{key}");
        bench.makes_one_problem(&text, &key, fragment);
    }
}

const WRITE: &[Case] = &[
    ("table = 'input', address = 0", ".table", "can only be read"),
    ("register = 10001", ".register", "discrete inputs can only be read"),
    ("register = 40001, count = 124", ".count", "at most 123"),
    ("register = 1, count = 1969", ".count", "at most 1968"),
    ("register = 40001, function = 16", ".function", "stands beside write, as function = 16"),
];

#[test]
fn a_point_to_write_is_checked() {
    let bench = Bench::new();
    for (write, key, fragment) in WRITE {
        let text = format!("[profile.pump.command.c]\nwrite = {{ {write} }}\nidempotent = true");
        let key = format!("profile.pump.command.c.write{key}");
        bench.makes_one_problem(&text, &key, fragment);
    }
}

const READ_BACK: &[Case] = &[
    ("register = 30001, order = 'cdab'", ".order", "did you mean \"CDAB\"?"),
    ("register = 30001, order = 'CDAB', byte_order = 'big'", ".order", "keep it, and remove byte_order"),
    ("table = 'coil', address = 1, type = 'u32'", ".type", "single bits"),
    ("register = 30001, type = 'string', count = 2", ".type", "something else than the command writes"),
    ("register = 30001, count = 2", ".count", "something else than the command writes"),
    ("register = 30001, after = '3s', within = '2s'", ".within", "shorter than after"),
    ("register = 30001, tolerance = -1", ".tolerance", "must not be negative"),
];

#[test]
fn where_a_write_shows_is_checked() {
    let bench = Bench::new();
    for (read_back, key, fragment) in READ_BACK {
        let text = format!(
            "[profile.pump.command.c]\nwrite = {{ register = 40001, type = 'u32' }}\nidempotent = true\n\
             read_back = {{ {read_back} }}"
        );
        bench.makes_one_problem(&text, &format!("profile.pump.command.c.read_back{key}"), fragment);
    }
}

const SEND: &[Case] = &[
    ("send = 'S'\nidempotent = true\nunavailable = 1", ".unavailable", "belongs to a read or write"),
    ("send = ''\nidempotent = true", ".send", "is empty"),
    ("send = ['a']\nidempotent = true", ".send", "expected a string"),
    ("send = 'S'", ".idempotent", "the person who knows the machine"),
    ("send = 'S'\nidempotent = true\nexpect = '('", ".expect", "not a regular expression"),
    ("send = 'S'\nidempotent = true\nverify = true", ".verify", "belongs to a write"),
    ("send = 'S'\nidempotent = true\nvalue = 1", ".value", "no {value}"),
    ("send = 'S'\nidempotent = true\nrange = [0, 1]", ".range", "no {value}"),
    ("send = 'S {value}'\nidempotent = true\nvalue = 2\nrange = [0, 1]", ".value", "from 0 to 1"),
    ("send = 'S {value}'\nidempotent = true\nvalue = 'a'\nrange = [0, 1]", ".value", "expected a number"),
    ("send = 'S {value}'\nidempotent = true\nvalue = \"a\\r\\nT\"", ".value", "control characters"),
    ("send = 'S {value}'\nidempotent = true\nvalue = [1]", ".value", "got [1]"),
    ("send = 'S\\r\\n'\nidempotent = true", ".send", "in double quotes"),
    ("send = 'S'\nidempotent = true\nuntil = '('", ".until", "not a regular expression"),
    ("send = 'S'\nidempotent = true\nresult = 'int'", ".result", "is not one of"),
    ("send = 'S'\nidempotent = true\npattern = 'A'", ".pattern", "no {value}"),
    ("send = 'S {value}'\nidempotent = true\npattern = 'a)|(b'", ".pattern", "not a regular expression"),
    ("send = 'S {value}'\nidempotent = true\npattern = 'A'\nvalues = { a = 1 }", ".pattern", "keep one"),
    ("send = 'S {value}'\nidempotent = true\nvalues = {}", ".values", "is empty"),
    ("send = 'S {value}'\nidempotent = true\nvalues = { a = 1, b = 1.0 }", ".values", "the same value"),
    ("send = 'S {value}'\nidempotent = true\nvalues = { a = true }", ".values", "must stand for"),
    ("send = 'S {value}'\nidempotent = true\nvalues = { a = \"1\\nT\" }", ".values", "control character"),
    ("send = 'S {value}'\nidempotent = true\nvalues = { a = 1 }\nvalue = 'b'", ".value", "expected one of"),
    ("send = 'S {value:3q}'\nidempotent = true", ".send", "{value:3q} is no place for a value"),
    ("send = 'S {value:u16be}'\nidempotent = true", ".send", "stands for bytes"),
    ("send = 'S {value:03d}'\nidempotent = true\nvalue = 1000", ".value", "has room for 3"),
    ("send = 'S {value:03d}'\nidempotent = true\npattern = 'A'", ".pattern", "takes numbers"),
    ("send = 'S {value:03d}'\nidempotent = true\nvalues = { a = 'A' }", ".values", "expected a number"),
    ("send = 'S'\nsend_hex = '53'\nidempotent = true", ".send", "stands beside send_hex"),
    ("send_hex = '5'\nidempotent = true", ".send_hex", "not a byte in two hexadecimal digits"),
    ("send_hex = '53 ??'\nidempotent = true", ".send_hex", "nobody knows which byte"),
    ("send_hex = '53 {value}'\nidempotent = true", ".send_hex", "as which bytes"),
    ("send_hex = '53 {value:u16}'\nidempotent = true", ".send_hex", "{value:u16be} or {value:u16le}"),
    ("send_hex = '53'\nidempotent = true\nrange = [0, 1]", ".range", "send_hex holds no {value}"),
    ("send_hex = '53 {value:u8}'\nidempotent = true\nvalue = 256", ".value", "from 0 to 255"),
    ("send = 'S'\nidempotent = true\nexpect_hex = '{value:d}'", ".expect_hex", "where it ends"),
    ("send = 'S'\nidempotent = true\nexpect_hex = '06'\nexpect = 'A'", ".expect", "stands beside expect_hex"),
    ("send = 'S'\nidempotent = true\nexpect_hex = '06'\nresult = 'hex'", ".result", "what the value is"),
    ("send = 'S'\nidempotent = true\nexpect_hex = '06'\nuntil = 'A'", ".until", "of one reply"),
];

#[test]
fn a_send_is_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.scale.command.c", SEND);
}
