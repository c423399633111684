//! The source itself: which module may name what, and how long a line may be. A rule that is only written down is
//! soon broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest line of a source file; texts that are one piece may be longer.
const LINE_CHARS_MAX: usize = 120;

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The path below `src`, with slashes.
fn name(path: &Path) -> String {
    path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().display().to_string()
}

/// The code of a file without its comments and its tests.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            // The item that it stands before: to the line that ends it at the same indent.
            let indent = line.len() - line.trim_start().len();
            let is_end = |line: &&str| {
                let is_here = line.len() - line.trim_start().len() == indent;
                is_here && (line.ends_with('}') || line.ends_with(';'))
            };
            lines.find(is_end);
            continue;
        }
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The module of the crate's top level that a path below `src` is in.
fn module(name: &str) -> &str {
    name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Every module that a piece of code names by way of `crate::`.
fn modules_used(code: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut used = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        used.extend(names.into_iter().map(|name| name.split(|c| !is_name(c)).next().unwrap_or_default().to_owned()));
    }
    used
}

/// The modules of the picture in ARCHITECTURE.md with their floors, the ground being the least.
fn floors() -> BTreeMap<String, usize> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let picture = page.split("```").find(|block| block.starts_with("mermaid\nflowchart")).expect("there is a picture");
    let (mut floor, mut floors) = (0, BTreeMap::new());
    for line in picture.lines().flat_map(|line| line.split(';')).map(str::trim) {
        if let Some(number) = line.strip_prefix("subgraph f") {
            floor = number.split(' ').next().unwrap().parse().expect("a floor has a number");
        } else if let Some((module, _)) = line.split_once("[\"").filter(|_| !line.starts_with("subgraph")) {
            floors.insert(module.to_owned(), floor);
        } else if let (true, false) = (floor > 0 && line != "end", line.contains("-->")) {
            floors.insert(line.to_owned(), floor);
        }
    }
    floors
}

#[test]
fn a_module_uses_only_what_stands_below_it_in_the_picture() {
    let floors = floors();
    let found: BTreeSet<String> = files("src").iter().map(|(path, _)| module(&name(path)).to_owned()).collect();
    let drawn: BTreeSet<String> = floors.keys().cloned().chain(["lib".into(), "main".into()]).collect();
    assert_eq!(drawn, found, "the picture in ARCHITECTURE.md and src");
    let mut arrows = 0;
    for (path, text) in files("src") {
        let name = name(&path);
        // They show for their own module, and the list of them stands at the top.
        let is_of_the_proof = name.ends_with("tests.rs") || name.ends_with("any_bytes.rs") && name != "any_bytes.rs";
        let Some(own) = floors.get(module(&name)).filter(|_| !is_of_the_proof) else { continue };
        for used in modules_used(&code(&text)) {
            let Some(other) = floors.get(&used).filter(|_| used != module(&name)) else { continue };
            assert!(other < own, "{name} uses {used}, which does not stand below it");
            arrows += 1;
        }
    }
    println!("{arrows} arrows");
    assert!(arrows > 200, "{arrows}");
}

/// The rooms of the two largest modules, from the ground up: those of one floor do not know one another.
const ROOMS: &[(&str, &[&[&str]])] = &[
    (
        "bus",
        &[
            &["breaker", "call", "lineup"],
            // Ports know bytes, and no framing.
            &["port"],
            &["counts", "debts", "ears", "link", "tap", "turns"],
            &["modbus", "presence", "text"],
            &["speech", "worker"],
        ],
    ),
    (
        "hub",
        &[
            &["in_order", "lock", "news", "properties", "room", "trouble"],
            &["account", "auth", "call", "dial", "twin"],
            &["transport", "way"],
            &["left", "pace"],
            // What connects knows the seam, and no transport.
            &["amqp", "https", "identity", "mqtt"],
            &["transports"],
        ],
    ),
];

/// The modules that stand directly in a folder of `src`, by its name there.
fn rooms_in(folder: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let names = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let names = names.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    names.filter(|name| !["mod", "tests", "any_bytes"].contains(&name.as_str())).collect()
}

/// The path of the module that a file is, as `["hub", "way", "proxy"]`.
fn place(name: &str) -> Vec<&str> {
    let mut place: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    if place.last() == Some(&"mod") {
        place.pop();
    }
    place
}

/// Each path that a piece of code in a module names by way of `crate::` or `super::`, as far as the second part of it.
fn paths_used(code: &str, own: &[&str]) -> BTreeSet<(String, String)> {
    let is_of_a_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        // The second of `super::super::` is read with the first.
        if code[..at].ends_with(is_of_a_path) {
            continue;
        }
        let (mut base, mut rest) = match code[at..].strip_prefix("crate::") {
            Some(rest) => (&own[..0], rest),
            None => (own, &code[at..]),
        };
        while let Some(outer) = rest.strip_prefix("super::") {
            (base, rest) = (&base[..base.len() - 1], outer);
        }
        let base = base.join("::");
        for path in leaves(rest) {
            let whole = format!("{base}::{path}");
            let mut parts = whole.split("::").filter(|part| !part.is_empty());
            if let (Some(first), Some(second)) = (parts.next(), parts.next()) {
                used.insert((first.to_owned(), second.to_owned()));
            }
        }
    }
    used
}

/// The paths of what stands behind `crate::`: one, or those of a list in braces, which may hold others.
fn leaves(rest: &str) -> Vec<String> {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
    let (stem, rest) = rest.split_at(end);
    let Some(list) = rest.strip_prefix('{').filter(|_| stem.is_empty() || stem.ends_with("::")) else {
        return vec![stem.to_owned()];
    };
    let (mut depth, mut item, mut found) = (0, String::new(), Vec::new());
    for c in list.chars().filter(|c| !c.is_whitespace()) {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => found.extend(leaves(&std::mem::take(&mut item))),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    found.extend(leaves(&item));
    found.into_iter().map(|leaf| format!("{stem}{leaf}")).collect()
}

#[test]
fn paths_are_found_in_whatever_way_they_are_written() {
    let code = "use crate::hub::{way, mqtt::{topic::{self, X}, ping}};\nuse super::super::{pace::Pace};\n\
                use super::trouble;\nlet x = crate::bus::port::hex(pub(in crate::bus) super::dial::D);";
    let used = paths_used(code, &["hub", "way", "proxy"]);
    let used: Vec<String> = used.into_iter().map(|(first, second)| format!("{first}::{second}")).collect();
    assert_eq!(used, ["bus::port", "hub::mqtt", "hub::pace", "hub::way"]);
}

#[test]
fn a_room_of_a_large_module_uses_only_what_stands_below_it() {
    let mut arrows = 0;
    for (module, floors) in ROOMS {
        let drawn: BTreeSet<String> = floors.iter().flat_map(|floor| floor.iter().map(ToString::to_string)).collect();
        assert_eq!(drawn, rooms_in(module), "the rooms of {module}");
        let floor_of = |room: &str| floors.iter().position(|floor| floor.contains(&room));
        for (path, text) in files("src") {
            let name = name(&path);
            let own = place(&name);
            let is_of_the_proof = name.ends_with("any_bytes.rs") || own.contains(&"tests");
            let Some(room) = own.get(1).filter(|_| own[0] == *module && !is_of_the_proof) else { continue };
            let floor = floor_of(room).expect("it is drawn");
            for (_, used) in
                paths_used(&code(&text), &own).into_iter().filter(|(of, used)| of == module && used != room)
            {
                let Some(other) = floor_of(&used) else { continue };
                assert!(other < floor, "{name} uses {module}::{used}, which does not stand below {room}");
                arrows += 1;
            }
        }
    }
    println!("{arrows} arrows");
    assert!(arrows > 80, "{arrows}");
}

#[test]
fn nobody_but_what_chooses_it_names_a_transport() {
    // The back end speaks AMQP with the same hub, and has no device.
    let may = |name: &str, transport: &str| match transport {
        "amqp" => name.starts_with("backend/") || name == "hub/transports.rs",
        _ => name == "hub/transports.rs",
    };
    for (path, text) in files("src") {
        let name = name(&path);
        let own = place(&name);
        for (first, used) in paths_used(&code(&text), &own) {
            let is_transport = first == "hub" && ["amqp", "https", "mqtt"].contains(&used.as_str());
            let is_its_own = own.starts_with(&["hub", &used]) || name.ends_with("any_bytes.rs");
            assert!(!is_transport || is_its_own || may(&name, &used), "{name} names hub::{used}");
        }
    }
}

#[test]
fn each_library_is_named_only_where_it_belongs() {
    let homes: [(&str, &[&str]); 13] = [
        ("fe2o3_amqp_types::", &["amqp/", "demo/hub/"]),
        ("serde_amqp::", &["amqp/", "demo/hub/"]),
        ("hyper::", &["net/http.rs", "net/served.rs", "demo/hub/"]),
        ("rumqttc::", &["hub/mqtt/", "demo/hub/"]),
        ("rusqlite::", &["ledger/", "telemetry/"]),
        ("tokio_modbus::", &["demo/"]),
        ("tokio_serial::", &["bus/", "demo/"]),
        ("tokio_rustls::", &["certificate/pair.rs", "hub/auth/tls.rs", "hub/trouble/", "demo/hub/"]),
        ("sd_notify::", &["systemd.rs"]),
        (
            "rustix::",
            &[
                "proof/crash.rs",
                "bus/port/tcp.rs",
                "systemd.rs",
                "cli/status.rs",
                "handles.rs",
                "telemetry/file.rs",
                "operate/admin/server.rs",
                "operate/exec.rs",
                "view/server.rs",
                "ledger/backup.rs",
                "doctor/",
                "setup/",
                "time/alarm.rs",
            ],
        ),
        ("x509_cert::", &["certificate/parts.rs"]),
        ("SystemTime::now", &["time/clock.rs"]),
        ("libc::", &["bus/port/latency.rs", "bus/port/rs485.rs", "time/local.rs", "time/trust.rs"]),
    ];
    for (path, text) in files("src") {
        let (name, code) = (name(&path), code(&text));
        for (library, homes) in homes {
            let at_home = homes.iter().any(|home| name.starts_with(home));
            assert!(at_home || !code.contains(library), "{name} names {library}");
        }
    }
}

#[test]
fn what_decides_does_no_io_and_reads_no_clock() {
    let pure = [
        "amqp/engine/",
        "backend/feedback.rs",
        "backend/renewal.rs",
        "backend/sentences.rs",
        "amqp/frame.rs",
        "amqp/message.rs",
        "amqp/shape.rs",
        "command/",
        "peripheral/",
        "hub/amqp/message.rs",
        "hub/in_order.rs",
        "hub/mqtt/topic.rs",
        "hub/auth/sas.rs",
        "hub/https/answers.rs",
        "hub/https/book.rs",
        "hub/https/message.rs",
        "hub/properties.rs",
        "hub/mqtt/session.rs",
        "hub/identity/backoff.rs",
        "bus/modbus/late.rs",
        "bus/modbus/frame.rs",
        "bus/modbus/pdu.rs",
        "bus/debts.rs",
        "bus/turns.rs",
        "bus/port/timing.rs",
        "bus/text/listening.rs",
        "bus/text/reply.rs",
        "bus/text/reports.rs",
        "bus/text/splitter.rs",
        "doctor/certificate.rs",
        "certificate/parts.rs",
        "config/registration.rs",
        "provisioning/group.rs",
        "provisioning/registration.rs",
        "config/slips.rs",
        "config/words.rs",
        "config/problem.rs",
        "config/syntax.rs",
        "polling/plan.rs",
        "polling/schedule.rs",
        "setup/text.rs",
        "telemetry/batch.rs",
        "telemetry/budget.rs",
        "telemetry/sample.rs",
        "view/metrics.rs",
        "view/pace.rs",
        "view/page.rs",
    ];
    for (path, text) in files("src") {
        let (name, code) = (name(&path), code(&text));
        if !pure.iter().any(|pure| name.starts_with(pure)) || name.ends_with("tests.rs") {
            continue;
        }
        for impure in ["std::fs", "std::net", "tokio::", "async fn", "::now()", "fastrand", "std::env", "crash::"] {
            assert!(!code.contains(impure), "{name} decides, and names {impure}");
        }
    }
}

#[test]
fn nothing_in_the_daemon_uses_the_simulator_or_the_demo() {
    for (path, text) in files("src") {
        let (name, code) = (name(&path), code(&text));
        if name.starts_with("demo/") || name == "lib.rs" {
            continue;
        }
        assert!(!code.contains("crate::demo::hub::"), "{name} uses the simulator");
        let uses = code.matches("crate::demo").count();
        assert!(uses == 0 || name == "cli/mod.rs", "{name} uses the demo");
    }
}

#[test]
fn files_and_lines_can_be_read() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in files(folder) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines", path.display());
            for (number, line) in text.lines().enumerate() {
                let is_comment = line.trim_start().starts_with("//");
                let is_drawn = line.contains(['|', '─', '{']);
                let long = line.chars().count() > LINE_CHARS_MAX;
                assert!(!(is_comment && long) || is_drawn, "{}:{} is too long", path.display(), number + 1);
                for marker in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("] {
                    let here = path.ends_with("tidy.rs");
                    assert!(here || !line.contains(marker), "{}:{}: {marker}", path.display(), number + 1);
                }
            }
        }
    }
}

/// The programs of the tests and their modules, as `bus` and `bus::serial`, with what stands at the head of each.
fn suites() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut suites = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let program = path.file_stem().unwrap().to_string_lossy().into_owned();
        let main = if path.is_dir() { path.join("main.rs") } else { path.clone() };
        if main.extension().is_none_or(|extension| extension != "rs") || !main.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&main).unwrap();
        // The two that are one suite each have parts, not suites.
        let is_one = ["crash_points", "simulation"].contains(&program.as_str());
        for name in text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')) {
            let places = [path.join(name).join("mod.rs"), path.join(name).with_extension("rs")];
            // What is shared stands beside the programs.
            if let Some(place) = places.iter().find(|place| place.exists() && !is_one) {
                suites.insert(format!("{program}::{name}"), head(&std::fs::read_to_string(place).unwrap()));
            }
        }
        suites.insert(program, head(&text));
    }
    suites
}

/// The sentences at the head of a file.
fn head(text: &str) -> String {
    text.lines().map_while(|line| line.strip_prefix("//!")).collect()
}

/// The guarantees that a text names, one by one or as `G1 to G7`.
fn guarantees(text: &str) -> BTreeSet<u32> {
    let number = |word: &str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).strip_prefix('G')?.parse().ok();
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut named: BTreeSet<u32> = words.iter().copied().filter_map(number).collect();
    for range in words.windows(3).filter(|range| range[1] == "to") {
        if let (Some(first), Some(last)) = (number(range[0]), number(range[2])) {
            named.extend(first..=last);
        }
    }
    named
}

#[test]
fn every_suite_stands_in_the_table_of_the_tests_with_the_guarantees_that_it_names() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md")).unwrap();
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| ")?.trim_start_matches("**").strip_prefix('`')?.split_once('`')?;
            Some((name, rest))
        })
        .collect();
    let suites = suites();
    assert!(suites.len() > 40, "{} suites were found", suites.len());
    for (name, head) in &suites {
        let row = rows.get(name.as_str()).unwrap_or_else(|| panic!("tests/README.md does not know {name}"));
        assert!(!head.is_empty(), "{name} does not say what it is");
        let is_group = suites.keys().any(|other| other.starts_with(&format!("{name}::")));
        assert!(is_group || guarantees(row) == guarantees(head), "{name}: {row}, and at its head {head}");
    }
    for name in rows.keys() {
        assert!(suites.contains_key(*name), "tests/README.md knows {name}, which is not there");
    }
}

#[test]
fn every_path_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let folders: BTreeSet<String> = names(".").filter(|path| path.is_dir()).map(|path| name_of(&path)).collect();
    let pages = [".", "docs"].into_iter().flat_map(names).chain([root.join("tests/README.md")]);
    let mut named = 0;
    // What has changed is told as it was then.
    let is_of_now = |path: &PathBuf| !path.ends_with("CHANGELOG.md");
    let pages = pages.filter(is_of_now).filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let is_for_us = page.ends_with("CONTRIBUTING.md");
        for word in text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace) {
            let word = word.split("::").next().unwrap_or_default();
            let first = word.split('/').next().unwrap_or_default();
            let is_ours = folders.contains(first) && word.contains('/');
            let looks_like_one = word.contains('/') || [".rs", ".md", ".toml"].iter().any(|end| word.ends_with(end));
            if is_ours || is_for_us && looks_like_one {
                assert!(root.join(word).exists(), "{}: there is no {word}", page.display());
                named += 1;
            }
        }
    }
    println!("{named} paths are named");
    assert!(named > 60, "{named}");
}

/// The last part of a path.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn every_guarantee_has_a_suite() {
    let named: BTreeSet<u32> = suites().values().flat_map(|head| guarantees(head)).collect();
    assert_eq!(named, (1..=16).collect());
}

/// By the command with which scripts/mutants.sh plants them, which anchors a hunk that git would still place.
#[test]
fn every_mutant_can_be_planted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("scripts/mutants.sh")).unwrap();
    assert!(script.contains("patch -s -f -p1 -d \"$tree\" -i \"$patches/$name.patch\""), "the script plants otherwise");
    let mut patches: Vec<PathBuf> =
        std::fs::read_dir(root.join("tests/mutants")).unwrap().map(|entry| entry.unwrap().path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    assert!(patches.len() > 30, "{} mutants", patches.len());
    for patch in patches {
        let tree = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(&patch).unwrap();
        for file in text.lines().filter_map(|line| line.strip_prefix("--- a/")) {
            let file = file.split('\t').next().unwrap_or(file);
            std::fs::create_dir_all(tree.path().join(file).parent().unwrap()).unwrap();
            std::fs::copy(root.join(file), tree.path().join(file)).unwrap();
        }
        let planted = std::process::Command::new("patch")
            .args(["-s", "-f", "-p1", "-d"])
            .arg(tree.path())
            .arg("-i")
            .arg(&patch)
            .output()
            .expect("this test needs patch: install the package patch, or run scripts/setup.sh tests");
        let said = String::from_utf8_lossy(&planted.stdout).into_owned() + &String::from_utf8_lossy(&planted.stderr);
        assert!(planted.status.success(), "{} does not apply: {said}", patch.display());
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = std::fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let mut named = 0;
    for (file, test) in model.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::")) {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (before, _) = text.split_once(&format!("fn {test}()")).unwrap_or_else(|| panic!("{file} has no {test}"));
        // The attribute stands on one of the lines right before it.
        let attributes: Vec<&str> = before.lines().rev().take(3).collect();
        assert!(attributes.iter().any(|line| line.contains("test]") || line.contains("test(")), "{test} is no test");
        named += 1;
    }
    println!("{named} tests are named");
    assert!(named > 40, "{named}");
}
