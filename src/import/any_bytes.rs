//! What must hold for any file that a profile is to be made of.

use super::document::{read, Node, Value};
use super::{import, Kind};
use crate::config::profile_problems;
use crate::proof::bytes::Source;

/// A profile is made or refused with a reason. What is made is a profile of its name and nothing else, in which `check`
/// misses nothing but the word on each write whether it may be repeated; and JSON is read as what it is.
pub fn description(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let kind = match source.u8() % 3 {
        0 => Kind::Sunspec { base: source.u16() },
        1 => Kind::Wot,
        _ => Kind::Edgex,
    };
    let text = String::from_utf8_lossy(source.rest()).into_owned();
    if let (Ok(json), Ok(node)) = (serde_json::from_str(&text), read(&text)) {
        assert!(!text.trim_start().starts_with(['{', '[']) || is_same(&node, &json), "{text}: {node:?}");
    }
    match import(kind, &text, None) {
        Err(fault) => assert!(!fault.why.what.is_empty() && !fault.why.remedy.is_empty(), "{fault}"),
        Ok(made) => {
            let found = profile_problems("profile", &made.text);
            let awaited = |name: &String| format!("profile.{}.command.{name}.idempotent", made.name);
            let mut keys: Vec<&String> = found.iter().map(|problem| &problem.key).collect();
            let mut undecided: Vec<String> = made.undecided.iter().map(awaited).collect();
            keys.sort();
            undecided.sort();
            assert_eq!(keys, undecided.iter().collect::<Vec<_>>(), "{}", made.text);
            let head = format!("\n[profile.{}.command.", made.name);
            assert_eq!(made.text.matches(&head).count(), made.commands, "{}", made.text);
            assert!(made.text.lines().filter(|line| line.starts_with('[')).count() == made.commands, "{}", made.text);
            assert!(made.left_out.iter().all(|line| !line.contains(char::is_control)));
        }
    }
}

/// Whether a tree holds what a JSON document does.
fn is_same(node: &Node, json: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (&node.value, json) {
        (Value::List(items), Json::Array(all)) => {
            items.len() == all.len() && items.iter().zip(all).all(|(node, json)| is_same(node, json))
        }
        (Value::Map(entries), Json::Object(all)) => {
            let is_there = |(name, node): &(String, Node)| all.get(name).is_some_and(|json| is_same(node, json));
            entries.len() == all.len() && entries.iter().all(is_there)
        }
        (Value::Scalar { text, plain: false }, Json::String(of)) => text == of,
        (Value::Scalar { text, plain: true }, Json::Null) => text == "null",
        (Value::Scalar { text, plain: true }, Json::Bool(is)) => text == if *is { "true" } else { "false" },
        (Value::Scalar { text, plain: true }, Json::Number(number)) => {
            text.parse::<f64>().ok() == number.to_string().parse().ok()
        }
        _ => false,
    }
}
