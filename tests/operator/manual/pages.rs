//! What the hand-written parts say, and whether the tools that read the pages and the completions can.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use fieldbridge::exit::Exit;

use super::commands::{name, own, visible};
use super::{command_line, place, read};

const PAGES: [&str; 2] = ["packaging/man/fieldbridge.1", "packaging/man/fieldbridge.toml.5"];

fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(place("")).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup.sh tests installs it"))
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A section of a page, without its heading.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!(".SH {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n.SH").next().unwrap()
}

/// The tags of a section's list.
fn tags(section: &str) -> BTreeSet<&str> {
    section.split(".TP\n.B ").skip(1).map(|text| text.lines().next().unwrap()).collect()
}

#[test]
fn every_exit_status_is_on_the_page_and_no_other() {
    let why = String::new;
    let all = [
        Exit::No(why()),
        Exit::Config(Vec::new()),
        Exit::Setup(why()),
        Exit::Usage(why()),
        Exit::Ledger(why()),
        Exit::NotRunning(why()),
        Exit::Surroundings(why()),
        Exit::Internal(why()),
    ];
    for fatal in &all {
        // A new one does not compile here until it is listed above.
        match fatal {
            Exit::No(_) | Exit::Usage(_) | Exit::Config(_) | Exit::Setup(_) | Exit::Ledger(_) => {}
            Exit::NotRunning(_) | Exit::Surroundings(_) | Exit::Internal(_) => {}
        }
    }
    // And those that main and clap end with.
    let mut wanted: BTreeSet<String> = all.iter().map(|fatal| fatal.exit_status().to_string()).collect();
    wanted.extend(["0".to_owned(), "2".to_owned()]);
    let page = read(PAGES[0]);
    let told: BTreeSet<String> = tags(section(&page, "EXIT STATUS")).iter().map(ToString::to_string).collect();
    assert_eq!(told, wanted);
}

#[test]
fn every_variable_that_the_program_reads_is_on_the_page() {
    let page = read(PAGES[0]);
    let environment = section(&page, "ENVIRONMENT");
    let named = regex_lite::Regex::new(r#"(?:env|var|var_os|try_from_env)\("(FIELDBRIDGE_[A-Z_]+)"\)"#).unwrap();
    let mut folders = vec![place("src")];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for variable in named.captures_iter(&std::fs::read_to_string(&path).unwrap()) {
                assert!(environment.contains(&variable[1]), "{} reads {}", path.display(), &variable[1]);
                found += 1;
            }
        }
    }
    assert!(found > 0);
    assert!(environment.contains("FIELDBRIDGE__HUB__HOST"));
}

#[test]
fn every_place_of_the_files_is_the_one_that_the_configuration_has() {
    let page = read(PAGES[0]);
    let reference = read("config/fieldbridge.reference.toml");
    for path in ["/var/lib/fieldbridge/ledger.db", "/run/fieldbridge/admin.sock"] {
        assert!(section(&page, "FILES").contains(path) && reference.contains(path), "{path}");
    }
    let main =
        command_line().get_arguments().find(|arg| arg.get_id() == "config").unwrap().get_default_values().to_vec();
    assert!(section(&page, "FILES").contains(main[0].to_str().unwrap()));
}

#[test]
fn the_example_of_the_page_is_a_configuration() {
    let page = read(PAGES[1]);
    let (_, example) = section(&page, "EXAMPLES").split_once(".nf\n").unwrap();
    let text = example.split("\n.fi").next().unwrap().replace("\\(dq", "\"").replace("\\-", "-");
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("fieldbridge.toml");
    std::fs::write(&main, text).unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    let key = folder.path().join("keys/pump-7.key");
    std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let loaded = fieldbridge::config::load(&main, Vec::new()).unwrap();
    assert!(loaded.notes.is_empty() && loaded.config.devices.len() == 1, "{:?}", loaded.notes);
}

#[test]
fn the_pages_are_read_without_a_warning() {
    for page in PAGES {
        let man = run("man", &["--warnings", "--encoding=utf-8", "--local-file", page]);
        assert!(man.status.success() && man.stderr.is_empty() && !man.stdout.is_empty(), "{page}: {}", printed(&man));
        let mandoc = run("mandoc", &["-T", "lint", "-W", "warning", page]);
        assert!(mandoc.status.success(), "{page}: {}", printed(&mandoc));
    }
}

/// Every word that a user can write after a subcommand, by the words before it.
fn expected(parent: &clap::Command, path: &[String], found: &mut Vec<(Vec<String>, BTreeSet<String>)>) {
    let subcommands = visible(parent).map(|command| command.get_name().to_owned());
    let options = own(parent).filter(|arg| arg.get_long().is_some()).map(name);
    let first = |text: String| text.split(' ').next().unwrap().to_owned();
    found.push((path.to_vec(), subcommands.chain(options.map(first)).collect()));
    for command in visible(parent) {
        expected(command, &[path, &[command.get_name().to_owned()]].concat(), found);
    }
}

#[test]
fn bash_completes_every_subcommand_and_option() {
    let mut cases = Vec::new();
    expected(&command_line(), &["fieldbridge".to_owned()], &mut cases);
    assert!(cases.len() > 5);
    for (path, words) in cases {
        for start in ["", "-"] {
            let line = [&path[..], &[start.to_owned()]].concat();
            let script = format!(
                "source packaging/completions/fieldbridge.bash; COMP_WORDS=({} '{start}'); COMP_CWORD={}; \
                 _fieldbridge fieldbridge '{start}' {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                path.join(" "),
                path.len(),
                path.last().unwrap(),
            );
            let output = run("bash", &["--norc", "-c", &script]);
            assert!(output.status.success() && output.stderr.is_empty(), "{line:?}: {}", printed(&output));
            let text = printed(&output);
            let offered: BTreeSet<&str> = text.lines().collect();
            for word in
                words.iter().filter(|word| word.starts_with(start) && (!start.is_empty() || !word.starts_with('-')))
            {
                assert!(offered.contains(word.as_str()), "{line:?} offers {offered:?} and not {word}");
            }
        }
    }
}

#[test]
fn fish_completes_every_subcommand_and_option() {
    let mut cases = Vec::new();
    expected(&command_line(), &["fieldbridge".to_owned()], &mut cases);
    let mut script = "source packaging/completions/fieldbridge.fish\n".to_owned();
    for (path, _) in &cases {
        let line = path.join(" ");
        script += &format!("echo '= {line}'; complete -C '{line} '; complete -C '{line} -'\n");
    }
    let output = run("fish", &["--no-config", "-c", &script]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", printed(&output));
    let text = format!("\n{}", printed(&output));
    for (path, words) in cases {
        let (_, rest) = text.split_once(&format!("\n= {}\n", path.join(" "))).unwrap();
        let offered: BTreeSet<&str> =
            rest.split("\n= ").next().unwrap().lines().filter_map(|line| line.split('\t').next()).collect();
        for word in words {
            assert!(offered.contains(word.as_str()), "{path:?} offers {offered:?} and not {word}");
        }
    }
}

#[test]
fn zsh_reads_its_completion_and_every_subcommand_stands_in_it() {
    let output = run("zsh", &["--no-rcs", "--no-exec", "packaging/completions/_fieldbridge"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", printed(&output));
    let mut cases = Vec::new();
    expected(&command_line(), &["fieldbridge".to_owned()], &mut cases);
    let text = read("packaging/completions/_fieldbridge");
    for word in cases.into_iter().flat_map(|(_, words)| words) {
        // In front of an option stand those that it excludes, in parentheses; or a star, if it may come again.
        let stands = [("'", ":"), ("'", "["), ("'", "="), (")", "["), (")", "="), ("*", "=")];
        let stands = stands.iter().any(|(before, after)| text.contains(&format!("{before}{word}{after}")));
        assert!(stands, "{word}");
    }
}
