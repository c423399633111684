//! The gateway as it is seen from outside, by programs that are not ours. Proves G8 and G11 where somebody looks, too
//! often or with ill will.

mod page;

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::support::slave::Slave;
use crate::support::{eventually, free_address, pump, require, signal, Daemon, Site};

/// A daemon whose hub is away, with more configuration: the buses don't need one.
fn plant(more: &str) -> (Slave, Site, Daemon) {
    let slave = Slave::new();
    let site = Site::new("127.0.0.1:1", &format!("{}{more}", pump(slave.address(), "after-execution", "")));
    let daemon = site.start();
    (slave, site, daemon)
}

/// What comes back on a stream for a request.
fn said(mut stream: impl std::io::Read + std::io::Write, request: &str) -> String {
    // Who is refused before its end finds the stream closed.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn at_socket(socket: &Path, path: &str) -> String {
    let stream = eventually("the socket", || UnixStream::connect(socket).ok());
    said(stream, &format!("GET {path} HTTP/1.1\r\nHost: whoever\r\n\r\n"))
}

fn at_port(address: &str, request: &str) -> String {
    let stream = eventually("the port", || TcpStream::connect(address).ok());
    said(stream, request)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map(|(_, body)| body).expect("an answer has a head")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn root(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What the Prometheus project's own parser makes of it.
fn parsed(text: &str) -> Json {
    let peers = std::env::var_os("FIELDBRIDGE_PEERS").map_or_else(|| root(".cache/peers"), Into::into);
    let python = peers.join("python/bin/python");
    assert!(python.exists(), "this test needs {}: run tests/peers/setup.sh", python.display());
    let mut child = Command::new(python)
        .arg(root("tests/peers/openmetrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run");
    child.stdin.take().expect("it listens").write_all(text.as_bytes()).expect("it takes all");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "it is no OpenMetrics:\n{text}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// The value of a sample.
fn value(families: &Json, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: serde_json::Map<String, Json> =
        labels.iter().map(|(label, text)| ((*label).to_owned(), Json::from(*text))).collect();
    let all = families.as_object().expect("families").values().filter_map(|family| family["samples"].as_array());
    let found = all.flatten().find(|sample| sample[0] == name && sample[1] == Json::Object(wanted.clone()));
    let found = found.unwrap_or_else(|| panic!("there is no {name} with {labels:?}"));
    found[2].as_f64().expect("a value is a number")
}

#[test]
fn metrics_are_what_prometheus_reads_and_count_what_was_done() {
    let (_slave, site, _daemon) = plant("[metrics]\nlisten = \"unix:metrics.sock\"\n");
    assert!(site.command(&["exec", "pump", "set", "42"]).status.success());
    let answer = at_socket(&site.path("metrics.sock"), "/metrics");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{answer}");
    let families = parsed(body(&answer));
    let of = |name: &str, labels: &[(&str, &str)]| value(&families, name, labels);
    assert!(families["fieldbridge_completion_seconds"]["type"] == "histogram");
    assert_eq!(site.device_status("pump")["executed"], 1, "what an operator has done counts as what the hub asks for");
    assert_eq!(of("fieldbridge_method_calls_total", &[("device", "pump"), ("status", "200")]), 0.0);
    let (pump, ok) = (("device", "pump"), ("result", "ok"));
    assert_eq!(of("fieldbridge_hub_connected", &[pump]), 0.0);
    assert!(of("fieldbridge_commands_total", &[pump, ("state", "succeeded")]) >= 1.0);
    assert_eq!(of("fieldbridge_commands_total", &[pump, ("state", "in_doubt")]), 0.0);
    assert!(of("fieldbridge_bus_exchanges_total", &[("bus", "plant"), ("unit", "1"), ok]) >= 1.0);
    assert!(of("fieldbridge_bus_wait_seconds_count", &[("bus", "plant")]) >= 1.0);
    assert!(of("fieldbridge_ledger_commit_seconds_count", &[]) >= 1.0);
    assert_eq!((of("fieldbridge_ledger_ok", &[]), of("fieldbridge_bus_open", &[("bus", "plant")])), (1.0, 1.0));
    eventually("a refused connection", || {
        let families = parsed(body(&at_socket(&site.path("metrics.sock"), "/metrics")));
        let labels = [pump, ("result", "unreachable")];
        (value(&families, "fieldbridge_hub_connects_total", &labels) >= 1.0).then_some(())
    });
    // The same for a person, with what the ledger says at that moment.
    let printed = site.command(&["status", "--format", "prometheus"]);
    let printed = parsed(&String::from_utf8(printed.stdout).expect("it is text"));
    let names = |of: &Json| of.as_object().expect("families").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&printed), names(&families));
    assert!(value(&printed, "fieldbridge_ledger_rows", &[]) >= 1.0);
}

#[test]
fn every_name_that_rules_dashboard_and_page_use_is_told() {
    // What is told of telemetry is told where something is polled.
    let (_slave, site, _daemon) = plant(
        "[metrics]\nlisten = \"unix:metrics.sock\"\n[telemetry]\npath = \"telemetry.db\"\n\
         [profile.pump.poll.speed]\nread = { table = \"holding\", address = 0 }\nevery = \"1h\"\n",
    );
    let text = at_socket(&site.path("metrics.sock"), "/metrics");
    let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let name = regex_lite::Regex::new("fieldbridge_[a-z_]+").expect("it is one");
    for file in
        ["packaging/monitoring/prometheus-rules.yml", "packaging/monitoring/grafana-dashboard.json", "docs/METRICS.md"]
    {
        let text = std::fs::read_to_string(root(file)).expect("it is there");
        let used: Vec<&str> = name.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(used.len() > 10, "{file}");
        for used in used {
            let is_told =
                |told: &&str| ["", "_total", "_info", "_bucket"].iter().any(|end| format!("{told}{end}") == used);
            assert!(told.iter().any(is_told), "{file} names {used}, which is not told");
        }
    }
    let page = std::fs::read_to_string(root("docs/METRICS.md")).expect("it is there");
    told.iter().for_each(|told| assert!(page.contains(*told), "docs/METRICS.md does not know {told}"));
}

#[test]
fn each_alert_comes_when_it_is_to_and_not_when_all_is_well() {
    require("promtool", "prometheus");
    let tested = Command::new("promtool")
        .args(["test", "rules", "prometheus-rules-test.yml"])
        .current_dir(root("packaging/monitoring"))
        .output()
        .expect("it can be run");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    let read = |name: &str| std::fs::read_to_string(root("packaging/monitoring").join(name)).expect("it is there");
    let (rules, tests) = (read("prometheus-rules.yml"), read("prometheus-rules-test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let cases = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(cases >= 2, "{alert} is tested {cases} times");
    }
    let dashboard: Json = serde_json::from_str(&read("grafana-dashboard.json")).expect("it is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() >= 10));
}

#[test]
fn who_asks_otherwise_than_it_is_meant_is_refused_and_nobody_else_is_concerned() {
    let (host, port) = free_address();
    let address = format!("{host}:{port}");
    let (_slave, site, _daemon) = plant(&format!("[metrics]\nlisten = \"{address}\"\nhosts = [\"gw.plant\"]\n"));
    let get = |path: &str, host: &str| at_port(&address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for host in [address.as_str(), "localhost", "gw.plant:80"] {
        assert_eq!(status(&get("/metrics", host)), "200", "{host}");
    }
    for host in ["evil.example", "gw.plant.evil.example", "127.0.0.1.evil.example:80", ""] {
        let refused = get("/metrics", host);
        assert!(["421", "400"].contains(&status(&refused)) && !refused.contains("fieldbridge_"), "{host}: {refused}");
    }
    for path in ["/", "/../../etc/passwd", "/metrics/../admin", "/%2e%2e/%2e%2e/etc/passwd", "//metrics"] {
        assert_eq!(status(&get(path, "localhost")), "404", "{path}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for (request, refusal) in [
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"),
        ("GET /metrics HTTP/1.1\r\n\r\n", "400"),
        (long.as_str(), "431"),
        ("\u{16}\u{3}\u{1}TLS\r\n\r\n", "400"),
    ] {
        // Who is refused before all was read may find the connection reset.
        let answer = at_port(&address, request);
        assert!(answer.is_empty() && request == long || status(&answer) == refusal, "{request:.60}: {answer}");
    }
    assert_eq!(status(&get("/metrics", "localhost")), "200");
    assert!(site.command(&["exec", "pump", "read"]).status.success());
}

#[test]
fn a_flood_and_those_who_say_nothing_hold_up_no_command_and_take_bounded_memory() {
    let (host, port) = free_address();
    let address = format!("{host}:{port}");
    let (_slave, site, daemon) = plant(&format!("[metrics]\nlisten = \"{address}\"\n"));
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status(&at_port(&address, ask)), "200");
    let handles = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count();
    let before = handles();
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(&address).expect("the system queues it")).collect();
    for _ in 0..5 {
        assert!(site.command(&["exec", "pump", "set", "7"]).status.success());
    }
    // Few of them are taken; the others wait in the system's queue, at no cost of the daemon's.
    assert!(handles() <= before + 20, "{} handles, and {before} before", handles());
    drop(silent);
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || (0..100).filter(|_| status(&at_port(&address, ask)) == "200").count())
        })
        .collect();
    for _ in 0..5 {
        assert!(site.command(&["exec", "pump", "set", "8"]).status.success());
    }
    let served: usize = flood.into_iter().map(|one| one.join().expect("it does not fail")).sum();
    assert_eq!(served, 400, "everybody is served in the end");
    assert!(!site.rows().is_empty());
}

#[test]
fn a_place_that_cant_be_had_is_tried_again_and_the_gateway_runs_meanwhile() {
    let (host, port) = free_address();
    let address = format!("{host}:{port}");
    let taken = std::net::TcpListener::bind(&address).expect("nobody else is there");
    let (_slave, site, daemon) = plant(&format!("[metrics]\nlisten = \"{address}\"\n"));
    eventually("it is told", || daemon.log().contains("can't be listened at").then_some(()));
    assert!(daemon.log().contains("metrics.listen"), "{}", daemon.log());
    assert!(site.command(&["exec", "pump", "read"]).status.success());
    drop(taken);
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    eventually("the port is had", || {
        let stream = TcpStream::connect(&address).ok()?;
        (status(&said(stream, ask)) == "200").then_some(())
    });
    // A reload moves it, to a socket that only its owner and group may open.
    site.configure(&address, "unix:metrics.sock");
    signal(daemon.pid(), "HUP");
    let socket = site.path("metrics.sock");
    eventually("the socket", || socket.exists().then_some(()));
    assert_eq!(status(&at_socket(&socket, "/metrics")), "200");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    eventually("nobody listens there any more", || TcpStream::connect(&address).err());
    // What stands in the way is not removed, and is told by `check`.
    site.configure("unix:metrics.sock", "unix:device.key");
    let check = site.command(&["check"]);
    let told = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        check.status.code() == Some(78) && told.contains("metrics.listen") && told.contains("not a socket"),
        "{told}"
    );
    assert!(site.path("device.key").exists());
}

#[test]
fn what_other_machines_can_reach_is_a_warning() {
    let slave = Slave::new();
    let more = "[metrics]\nlisten = \"0.0.0.0:9464\"\n";
    let site = Site::new("127.0.0.1:1", &format!("{}{more}", pump(slave.address(), "after-execution", "")));
    let check = site.command(&["check"]);
    let told = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(check.status.success() && told.contains("warning: ") && told.contains("without a log-in"), "{told}");
}
