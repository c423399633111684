//! packaging/copyright (DEP-5): the licence of fieldbridge and of everything that is linked into the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use super::place;

/// What a package is built for. The dependencies may differ.
const TARGETS: [&str; 3] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"];

/// The file. `@DEPENDENCIES@` is replaced.
pub fn text(template: &str) -> String {
    let folders = folders();
    let stanzas: String = linked().iter().map(|package| stanza(package, &folders)).collect();
    assert_eq!(template.matches("@DEPENDENCIES@\n").count(), 1);
    let text = template.replace("@DEPENDENCIES@", stanzas.trim_end());
    let defined: BTreeSet<&str> =
        text.split("\n\nLicense: ").skip(1).map(|text| text.lines().next().unwrap()).collect();
    for named in text.lines().filter_map(|line| line.strip_prefix("License: ")) {
        for licence in named.split(" and ") {
            assert!(defined.contains(licence), "copyright.in has no text of {licence}");
        }
    }
    text
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(args).current_dir(place("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Name, version and licence of each crate that is linked into the program for any target. Macros are not.
fn linked() -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for target in TARGETS {
        let tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}|{l}"];
        for line in cargo(&[&tree[..], &["--target", target]].concat()).lines() {
            let (package, licence) = line.trim_end_matches(" (*)").split_once('|').unwrap();
            let mut words = package.split(' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap().trim_start_matches('v'));
            if name != env!("CARGO_PKG_NAME") {
                found.insert((name.to_owned(), version.to_owned(), licence.to_owned()));
            }
        }
    }
    assert!(found.len() > 50, "{found:?}");
    found
}

/// Where the sources of each crate are, and who wrote it.
fn folders() -> BTreeMap<(String, String), (String, Vec<String>)> {
    let metadata: Json = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"])).unwrap();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let one = |package: &Json| {
        let authors = package["authors"].as_array().unwrap().iter().map(text).collect();
        ((text(&package["name"]), text(&package["version"])), (text(&package["manifest_path"]), authors))
    };
    metadata["packages"].as_array().unwrap().iter().map(one).collect()
}

fn stanza(package: &(String, String, String), folders: &BTreeMap<(String, String), (String, Vec<String>)>) -> String {
    let (name, version, expression) = package;
    let (manifest, authors) = &folders[&(name.clone(), version.clone())];
    let licence = chosen(expression);
    let mut owners = owners(Path::new(manifest).parent().unwrap());
    if owners.is_empty() {
        owners = authors.iter().map(|author| author.split(" <").next().unwrap().to_owned()).collect();
    }
    if owners.is_empty() {
        owners = vec![format!("the authors of {name}")];
    }
    format!(
        "Files: dependencies/{name}-{version}/*\nCopyright: {}\nLicense: {licence}\n\n",
        owners.join("\n           ")
    )
}

/// The licence that is made use of where there is a choice, under the name that DEP-5 has for it.
fn chosen(expression: &str) -> &'static str {
    match expression {
        "Apache-2.0 AND ISC" => "Apache-2.0 and ISC",
        "ISC" => "ISC",
        "BSD-3-Clause" => "BSD-3-clause",
        "Zlib" => "Zlib",
        "MPL-2.0" => "MPL-2.0",
        _ => {
            let alternatives = || expression.split(['/', ' ']).filter(|word| *word != "OR");
            assert!(!expression.contains(" AND "), "{expression}");
            match () {
                () if alternatives().any(|word| word == "Apache-2.0") => "Apache-2.0",
                () if alternatives().any(|word| word == "MIT") => "Expat",
                () => panic!("copyright.in has no text of {expression}"),
            }
        }
    }
}

/// The lines of a crate's licence files that say whose it is.
fn owners(folder: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().to_uppercase();
        if !path.is_file() || !["LICENSE", "LICENCE", "COPYING", "COPYRIGHT"].iter().any(|word| name.starts_with(word))
        {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for line in text.lines().map(str::trim) {
            let rest = line.strip_prefix("Copyright (c) ").or_else(|| line.strip_prefix("Copyright (C) "));
            let rest = rest.or_else(|| line.strip_prefix("Copyright © ")).or_else(|| line.strip_prefix("Copyright "));
            // The text of a licence has such words too, and places to fill in.
            let owner = rest.filter(|rest| {
                rest.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
                    && rest.contains(char::is_alphabetic)
                    && !rest.contains('[')
            });
            found.extend(owner.map(str::to_owned));
        }
    }
    found.into_iter().collect()
}
