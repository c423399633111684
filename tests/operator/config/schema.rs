//! The schema of the configuration, held to `check` from outside: what is shipped is valid by validators that are not
//! ours, and what a value may be is what `check` takes. It proves none of the guarantees.
//!
//! The validators are jsonschema for Python, and Taplo, which is what editors use for TOML. Both are by default in
//! `.cache/peers`; `FIELDBRIDGE_PEERS` names another folder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::{FileFormat, Format as _, Value, ValueKind};
use fieldbridge::config::schema::{schema, INSTALLED as PLACE, LINE};
use fieldbridge::config::{keys, Problem};
use serde_json::{json, Map, Value as Json};

use super::reference::{self, site};
use super::{Site, GOOD};

fn peer(name: &str) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers");
    let peer = std::env::var_os("FIELDBRIDGE_PEERS").map_or(cache, PathBuf::from).join(name);
    assert!(peer.exists(), "{} is missing: run tests/peers/setup.sh", peer.display());
    peer
}

/// What the validator says of each document: path, keyword, message.
fn judged(documents: &[Json]) -> Vec<Vec<(Vec<String>, String, String)>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.json");
    std::fs::write(&file, schema().to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/judge_toml.py");
    let mut command = Command::new(peer("python/bin/python"));
    command.arg(script).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut validator = command.spawn().unwrap();
    let mut input = validator.stdin.take().unwrap();
    let text: String = documents.iter().map(|document| format!("{document}\n")).collect();
    let written = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = validator.wait_with_output().unwrap();
    written.join().unwrap().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), documents.len());
    answers
}

/// Every file that is shipped, as somebody would have it who fills in what is to be filled in.
fn shipped() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files = Vec::new();
    for folder in ["", "examples", "profiles"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.display().to_string(), text.replace("host = \"\"", "host = \"a.b\"")));
            }
        }
    }
    assert!(files.len() > 20, "{}", files.len());
    files
}

#[test]
fn every_file_that_is_shipped_is_valid_by_a_validator_that_is_not_ours() {
    let mut files = shipped();
    files.push(("the reference with its defaults".into(), reference::with_defaults()));
    files.push(("the reference with everything".into(), reference::with_everything()));
    files.push(("a good one".into(), GOOD.to_owned()));
    let documents: Vec<Json> = files.iter().map(|(_, text)| json!({ "toml": text })).collect();
    for ((name, _), errors) in files.iter().zip(judged(&documents)) {
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
    // One that waits to be filled in is not.
    let unfilled = judged(&[json!({ "toml": reference::INSTALLED })]);
    assert_eq!(unfilled[0][0].0, ["hub", "host"], "{unfilled:?}");
}

#[test]
fn an_editor_finds_the_schema_by_the_line_at_the_head_of_a_file_and_tells_of_a_slip_of_the_pen() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("schema.json"), schema().to_string()).unwrap();
    let here = |text: &str| {
        assert!(text.starts_with(&format!("{LINE}\n")), "{text}");
        text.replace(PLACE, &path("schema.json"))
    };
    let lint = |text: &str| {
        std::fs::write(path("fieldbridge.toml"), text).unwrap();
        let mut taplo = Command::new("node");
        taplo.arg(peer("node/node_modules/@taplo/cli/dist/cli.js")).args(["lint", "fieldbridge.toml"]);
        let output = taplo.current_dir(folder.path()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (good, said) = lint(&here(reference::REFERENCE));
    assert!(good, "{said}");
    let example = here(include_str!("../../../config/examples/one-rtu-bus.toml"));
    assert!(lint(&example).0);
    for (right, wrong, told) in [
        ("baud = ", "baudrate = ", "baudrate"),
        ("kind = \"modbus-rtu\"", "kind = \"modbus-rut\"", "modbus-rut"),
        ("idempotent = true", "idempotent = \"yes\"", "yes"),
    ] {
        assert!(example.contains(right));
        let (good, said) = lint(&example.replacen(right, wrong, 1));
        assert!(!good && said.contains(told), "{wrong}: {said}");
    }
}

/// A place in the reference with everything: its steps, and the key path that `check` tells.
#[derive(Clone)]
struct Spot {
    pointer: String,
    key: String,
    node: Json,
}

/// Every table and every value of a document, each with what the schema says of it.
fn spots(document: &Json, node: &Json, spot: (&str, &str), found: &mut Vec<Spot>) {
    let (pointer, key) = spot;
    found.push(Spot { pointer: pointer.to_owned(), key: key.to_owned(), node: node.clone() });
    match document {
        Json::Object(entries) => {
            for (name, value) in entries {
                let below = node["properties"].get(name).unwrap_or(&node["additionalProperties"]);
                let dot = if key.is_empty() { "" } else { "." };
                let key = format!("{key}{dot}{}", fieldbridge::config::key_path(&[name]));
                spots(value, below, (&format!("{pointer}/{name}"), &key), found);
            }
        }
        Json::Array(items) if node["items"]["type"] == "object" => {
            for (at, item) in items.iter().enumerate() {
                spots(item, &node["items"], (&format!("{pointer}/{at}"), &format!("{key}[{}]", at + 1)), found);
            }
        }
        _ => {}
    }
}

/// The reference with everything in force, and every spot of it.
fn everything() -> (Site, Json, Vec<Spot>) {
    let text = reference::with_everything();
    let tree = FileFormat::Toml.parse(None, &text).unwrap();
    let document = Json::Object(tree.iter().map(|(key, value)| (key.clone(), as_json(value))).collect());
    let mut found = Vec::new();
    spots(&document, &schema(), ("", ""), &mut found);
    (site(&text), document, found)
}

fn as_json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Boolean(yes) => json!(yes),
        ValueKind::I64(number) => json!(number),
        ValueKind::Float(number) => json!(number),
        ValueKind::String(text) => json!(text),
        ValueKind::Array(items) => items.iter().map(as_json).collect(),
        ValueKind::Table(entries) => Json::Object(entries.iter().map(|(k, v)| (k.clone(), as_json(v))).collect()),
        other => panic!("{other} in the reference"),
    }
}

/// A document as TOML: every table on one line. Strings and keys are written as JSON does, which TOML reads.
fn as_toml(document: &Map<String, Json>) -> String {
    fn inline(value: &Json) -> String {
        match value {
            Json::Object(entries) => {
                let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{} = {}", json!(k), inline(v))).collect();
                format!("{{ {} }}", entries.join(", "))
            }
            Json::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
            plain => plain.to_string(),
        }
    }
    document.iter().map(|(key, value)| format!("{} = {}\n", json!(key), inline(value))).collect()
}

/// What `check` finds in a document.
fn checked(site: &Site, document: &Json) -> Vec<Problem> {
    site.write("fieldbridge.toml", as_toml(document.as_object().unwrap()));
    site.load().err().unwrap_or_default()
}

#[test]
fn every_key_that_check_does_not_know_is_refused_by_the_schema_wherever_it_stands() {
    let (site, document, spots) = everything();
    assert_eq!(super::lines(&checked(&site, &document)), "");
    // Where names are of the user's own, any will do.
    let tables = spots.iter().filter(|spot| spot.node["properties"].is_object());
    let with_key = |spot: &Spot| {
        let mut changed = document.clone();
        changed.pointer_mut(&spot.pointer).unwrap()["colour"] = json!(1);
        changed
    };
    let tables: Vec<(&Spot, Json)> = tables.map(|spot| (spot, with_key(spot))).collect();
    assert!(tables.len() > keys::SECTIONS.len(), "{}", tables.len());
    let documents: Vec<Json> = tables.iter().map(|(_, changed)| json!({ "json": changed })).collect();
    for ((spot, changed), errors) in tables.iter().zip(judged(&documents)) {
        let path: Vec<&str> = spot.pointer.split('/').skip(1).collect();
        let refused = errors.iter().any(|(at, _, why)| *at == path && why.contains("colour"));
        assert!(refused, "{}: {errors:?}", spot.key);
        let key = format!("{}{}colour", spot.key, if spot.key.is_empty() { "" } else { "." });
        let problems = checked(&site, changed);
        let unknown = problems.iter().any(|problem| problem.key == key && problem.message().contains("unknown key"));
        assert!(unknown, "{key}: {}", super::lines(&problems));
    }
}

#[test]
fn a_key_of_another_kind_of_bus_is_refused_by_both() {
    let (site, document, _) = everything();
    let mut changed = document.clone();
    changed["bus"]["plant"]["baud"] = json!(9600);
    assert!(checked(&site, &changed).iter().any(|problem| problem.key == "bus.plant.baud"));
    let errors = judged(&[json!({ "json": changed }), json!({ "json": document })]);
    assert!(errors[0].iter().any(|(at, ..)| *at == ["bus", "plant"]), "{errors:?}");
    assert!(errors[1].is_empty());
}

/// Keys whose limits depend on others, and those that `check` judges in words of its own.
const OTHERWISE: [&str; 3] = ["unavailable", "function", "range"];

/// Values that the schema says are wrong, each with what `check` should say of it.
fn wrong_values(spot: &Spot) -> Vec<(Json, String)> {
    let node = &spot.node;
    let last = spot.pointer.rsplit('/').next().unwrap();
    if OTHERWISE.contains(&last) {
        return vec![];
    }
    match node["type"].as_str() {
        Some("integer") => {
            let (low, high) = (node["minimum"].as_i64().unwrap(), node["maximum"].as_i64().unwrap());
            let told = format!("it must be {low} to {high}");
            vec![(json!(low - 1), told.clone()), (json!(high + 1), told), (json!("x"), "an integer".into())]
        }
        Some("boolean") => vec![(json!("maybe"), "expected true or false".into())],
        Some("number") => vec![(json!("much"), "expected a number".into())],
        Some("string") if node["pattern"].is_string() => vec![(json!(7), "expected a duration".into())],
        // It may be empty where a service says which hub a device belongs to.
        Some("string") if spot.key == "hub.host" => vec![(json!(7), "expected a string".into())],
        Some("string") => vec![(json!(7), "expected a string".into()), (json!(""), String::new())],
        Some("object") => vec![(json!(7), "expected ".into())],
        Some("array") => vec![(json!(7), String::new())],
        _ => match node["enum"].as_array() {
            // Of more than a few the message does not list all.
            Some(words) if words.len() < 20 => {
                let words: Vec<String> = words.iter().map(Json::to_string).collect();
                vec![(json!("no-such-word"), format!("is none of {}; ", words.join(", ")))]
            }
            _ => vec![],
        },
    }
}

#[test]
fn what_the_schema_says_of_a_value_is_what_check_says_of_it() {
    let (site, document, spots) = everything();
    let mut seen = std::collections::BTreeSet::new();
    let mut probes = Vec::new();
    // Of what stands in a list `check` tells where the list is.
    let is_item = |spot: &&Spot| spot.key.ends_with(']');
    for spot in spots.iter().filter(|spot| !spot.pointer.is_empty() && !is_item(spot)) {
        // What a key of a section holds is the same everywhere.
        let last = spot.pointer.rsplit('/').next().unwrap();
        if !seen.insert((last.to_owned(), spot.node.to_string())) {
            continue;
        }
        for (value, told) in wrong_values(spot) {
            let mut changed = document.clone();
            *changed.pointer_mut(&spot.pointer).unwrap() = value;
            probes.push((spot, changed, told));
        }
    }
    assert!(probes.len() > 150, "{}", probes.len());
    let documents: Vec<Json> = probes.iter().map(|(_, changed, _)| json!({ "json": changed })).collect();
    let mut wrong = Vec::new();
    for ((spot, changed, told), errors) in probes.iter().zip(judged(&documents)) {
        let path: Vec<&str> = spot.pointer.split('/').skip(1).collect();
        if !errors.iter().any(|(at, ..)| *at == path) {
            wrong.push(format!("{}: the schema takes {:?}", spot.key, changed.pointer(&spot.pointer)));
        }
        let problems = checked(&site, changed);
        let said = problems
            .iter()
            .any(|problem| problem.key.starts_with(&spot.key) && problem.complaint.to_string().contains(told.as_str()));
        if !said {
            wrong.push(format!("{} should say {told:?}: {}", spot.key, super::lines(&problems)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
