//! What the program is made of: every dependency keeps to deny.toml and advisories.toml. Reads what cargo has resolved,
//! and needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

/// A file of the source tree, TOML.
fn toml(name: &str) -> Json {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let file = config::File::from_str(&text, config::FileFormat::Toml);
    config::Config::builder().add_source(file).build().and_then(config::Config::try_deserialize).unwrap()
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What cargo has resolved for this machine's target.
fn metadata() -> Json {
    let rustc = output("rustc", &["-vV"]);
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    serde_json::from_str(&output(&cargo, &args)).unwrap()
}

fn packages(metadata: &Json) -> &Vec<Json> {
    metadata["packages"].as_array().unwrap()
}

fn text<'a>(value: &'a Json, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn texts(value: &Json) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// A version without what may follow its three numbers.
fn version(text: &str) -> [u64; 3] {
    let numbers = text.split(['-', '+']).next().unwrap();
    let mut numbers = numbers.split('.').map(|number| number.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

/// Whether a licence expression can be kept to with these licences alone (SPDX, annex D; and the older slash).
fn is_granted(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    fn any(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut granted = all(words, allowed);
        while words.next_if(|word| word == "OR" || word == "/").is_some() {
            granted |= all(words, allowed);
        }
        granted
    }
    fn all(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut granted = one(words, allowed);
        while words.next_if_eq("AND").is_some() {
            granted &= one(words, allowed);
        }
        granted
    }
    fn one(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut word = words.next().unwrap();
        if word == "(" {
            let granted = any(words, allowed);
            assert_eq!(words.next().as_deref(), Some(")"));
            return granted;
        }
        if words.next_if_eq("WITH").is_some() {
            word = format!("{word} WITH {}", words.next().unwrap());
        }
        allowed(&word)
    }
    let spaced = ["(", ")", "/"].iter().fold(expression.to_owned(), |text, c| text.replace(c, &format!(" {c} ")));
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut words = words.into_iter().peekable();
    let granted = any(&mut words, allowed);
    assert_eq!(words.next(), None, "{expression}");
    granted
}

#[test]
fn a_licence_expression_is_read_with_its_brackets_and_both_words() {
    let mit = |licence: &str| licence == "MIT";
    for (expression, granted) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 OR MIT", true),
        ("MIT AND ISC", false),
        ("(MIT OR Apache-2.0) AND ISC", false),
        ("ISC AND (MIT)", false),
        ("GPL-3.0-only", false),
        ("MIT WITH exception", false),
        ("ISC OR MIT AND MIT", true),
    ] {
        assert_eq!(is_granted(expression, &mit), granted, "{expression}");
    }
}

#[test]
fn every_dependency_may_be_shipped() {
    let (metadata, rules) = (metadata(), toml("deny.toml"));
    let allow = texts(&rules["licenses"]["allow"]);
    let exceptions = rules["licenses"]["exceptions"].as_array().unwrap();
    let mut used = BTreeSet::new();
    for package in packages(&metadata) {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        let exception = exceptions.iter().find(|exception| exception["crate"] == name);
        let more = exception.map(|exception| texts(&exception["allow"])).unwrap_or_default();
        let allowed = |licence: &str| allow.contains(&licence) || more.contains(&licence);
        assert!(is_granted(licence, &allowed), "{name} has the licence {licence:?}");
        used.extend(exception.map(|_| name));
    }
    assert_eq!(used.len(), exceptions.len(), "an exception that nothing needs any more");
}

#[test]
fn every_dependency_is_there_once_or_has_a_reason() {
    let (metadata, rules) = (metadata(), toml("deny.toml"));
    let skipped: Vec<(&str, &str)> = rules["bans"]["skip"]
        .as_array()
        .unwrap()
        .iter()
        .inspect(|skip| assert!(text(skip, "reason").len() > 10, "{skip} has no reason"))
        .map(|skip| text(skip, "crate").split_once('@').unwrap())
        .collect();
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    for package in packages(&metadata) {
        versions.entry(text(package, "name")).or_default().push(text(package, "version"));
    }
    let is_skipped = |name: &str, version: &str| {
        skipped.iter().any(|(of, prefix)| *of == name && version.starts_with(&format!("{prefix}.")))
    };
    for (name, versions) in &versions {
        let counted = versions.iter().filter(|version| !is_skipped(name, version));
        assert!(versions.len() == 1 || counted.count() <= 1, "{name} is there as {versions:?}");
    }
    for (name, prefix) in &skipped {
        let found = versions.get(name).map_or(0, Vec::len);
        assert!(found > 1, "{name}@{prefix} is skipped in deny.toml and needs not be");
    }
    for banned in rules["bans"]["deny"].as_array().unwrap() {
        assert!(!versions.contains_key(text(banned, "crate")), "{banned}");
    }
}

#[test]
fn every_dependency_comes_from_one_registry_and_says_who_wrote_what() {
    let metadata = metadata();
    let own = |package: &&Json| package["source"].is_null();
    let is_registry = |source: &str| source.starts_with("registry+") || source.starts_with("sparse+");
    let sources: BTreeSet<&str> = packages(&metadata).iter().map(|package| text(package, "source")).collect();
    assert_eq!(packages(&metadata).iter().filter(own).count(), 1, "only the project itself is on the disk");
    assert_eq!(sources.len(), 2, "one registry beside that");
    assert!(sources.iter().all(|source| source.is_empty() || is_registry(source)));
    let lock = toml("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.iter().all(|package| package.get("source").is_none() || text(package, "checksum").len() == 64));
}

#[test]
fn no_dependency_has_an_advisory_that_is_known_here() {
    let (metadata, known) = (metadata(), toml("advisories.toml"));
    assert_eq!(text(&known, "checked").len(), "2026-08-21".len());
    let mut concerned = 0;
    for advisory in known["advisory"].as_array().unwrap() {
        let (id, name, fixed) = (text(advisory, "id"), text(advisory, "crate"), text(advisory, "fixed"));
        for package in packages(&metadata).iter().filter(|package| package["name"] == name) {
            let found = text(package, "version");
            assert!(version(found) >= version(fixed), "{name} {found} has {id}; it is mended in {fixed}");
            concerned += 1;
        }
    }
    println!("{concerned} versions were compared with advisories");
    assert!(concerned > 10);
    // Its write-ahead log could lose data before this version ("WAL-reset bug", sqlite.org).
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[test]
fn the_number_of_dependencies_is_known() {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let node = |id: &str| nodes.iter().find(|node| node["id"] == id).unwrap();
    let (mut shipped, mut next) = (BTreeSet::new(), vec![text(&metadata["resolve"], "root")]);
    while let Some(id) = next.pop() {
        if shipped.insert(id) {
            let normal = |dep: &&Json| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            next.extend(node(id)["deps"].as_array().unwrap().iter().filter(normal).map(|dep| text(dep, "pkg")));
        }
    }
    println!("{} crates in the program, {} with what builds and tests it", shipped.len() - 1, nodes.len() - 1);
    // Not a goal, but no number to pass unseen either.
    assert!(shipped.len() < 185, "{} crates", shipped.len());
}
