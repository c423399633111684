//! `import` makes profiles from what others have written of a peripheral, in which a person must still say of each
//! write whether it may be repeated: `check` refuses them until then, and takes them afterwards. What a profile can't
//! say is listed. Proves G14 for what is imported: nothing becomes a command but what the file says.
//!
//! The samples in tests/operator/import were written for it. What is made of each stands beside it, and is made anew by
//! `FIELDBRIDGE_WRITE=1 cargo test --test operator import::`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::Site;

/// The samples: a file, what is said beside it, and what it becomes.
const SAMPLES: [(&[&str], &str, &str); 4] = [
    (&["sunspec", "--base", "40070"], "model_64901.json", "model_64901.toml"),
    (&["wot"], "cooler.td.json", "cooler.td.toml"),
    (&["edgex"], "cooler.edgex.yaml", "cooler.edgex.toml"),
    (&["edgex"], "cooler.edgex.json", "cooler.edgex.json.toml"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/import")
}

fn import(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbridge"));
    command.arg("import").args(args).stdin(Stdio::null()).output().unwrap()
}

fn sample(args: &[&str], file: &str) -> (String, String) {
    let path = folder().join(file);
    let output = import(&[args, &[path.to_str().unwrap()]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{file}: {said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

/// The names of a profile's writes.
fn writes(profile: &str) -> Vec<&str> {
    let mut command = "";
    let mut found = Vec::new();
    for line in profile.lines() {
        match line.strip_prefix('[') {
            Some(head) => command = head.rsplit('.').next().unwrap().trim_end_matches(']'),
            None if line.starts_with("write = ") => found.push(command),
            None => {}
        }
    }
    found
}

#[test]
fn each_sample_becomes_the_profile_that_stands_beside_it() {
    for (args, file, made) in SAMPLES {
        let (profile, _) = sample(args, file);
        let beside = folder().join(made);
        if std::env::var_os("FIELDBRIDGE_WRITE").is_some() {
            std::fs::write(&beside, &profile).unwrap();
        }
        assert_eq!(profile, std::fs::read_to_string(&beside).unwrap_or_default(), "{file}");
        assert!(profile.lines().all(|line| line.chars().count() <= 120), "{profile}");
    }
}

#[test]
fn yaml_and_json_of_the_same_make_the_same_but_for_the_lines() {
    let of = |file| {
        let (profile, _) = sample(&["edgex"], file);
        let commands = profile.split("\n# Left out:").next().unwrap().to_owned();
        let left_out = profile.lines().filter(|line| line.starts_with("# line ")).count();
        (commands, left_out)
    };
    assert_eq!(of("cooler.edgex.yaml"), of("cooler.edgex.json"));
}

#[test]
fn check_refuses_each_write_until_somebody_has_said_whether_it_may_be_repeated_and_takes_it_then() {
    for (args, file, _) in SAMPLES {
        let (profile, said) = sample(args, file);
        let writes = writes(&profile);
        assert!(writes.len() > 2, "{profile}");
        assert!(said.contains(&format!("without idempotent: {}; whoever", writes.join(", "))), "{said}");
        let name = profile.split("\n[profile.").nth(1).unwrap().split('.').next().unwrap();
        let site = Site::new(
            "localhost:1",
            &format!(
                "[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:1\"\n\
                 [device.it]\nbus = \"plant\"\nunit = 1\nprofile = \"{name}\"\nkey_file = \"device.key\"\n"
            ),
        );
        std::fs::create_dir(site.path("conf.d")).unwrap();
        std::fs::write(site.path("conf.d/it.toml"), &profile).unwrap();
        let output = site.command(&["check"]);
        let refused = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{refused}");
        let errors: Vec<&str> = refused.lines().filter(|line| !line.starts_with("note:")).collect();
        assert_eq!(errors.len(), writes.len(), "{refused}");
        for write in &writes {
            let of = format!("profile.{name}.command.{write}.idempotent: is missing, and nobody can guess it");
            assert!(errors.iter().any(|line| line.contains(&of)), "{of}: {refused}");
        }
        std::fs::write(site.path("conf.d/it.toml"), profile.replace("# idempotent =", "idempotent = false")).unwrap();
        let output = site.command(&["check"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn a_scale_factor_in_a_register_is_said_of_its_point_or_the_point_is_left_out() {
    let (profile, said) = sample(&["sunspec", "--base", "40000"], "model_64902.json");
    for (name, address) in [("read-W", 40_003), ("set-WMaxLimPct", 40_005), ("set-phase-2-VArPct", 40_005)] {
        let scale = format!("scale_register = {{ address = {address} }}");
        match profile.split_once(&format!("command.{name}]\n")) {
            Some((_, point)) => assert!(point.lines().next().unwrap().contains(&scale), "{profile}"),
            None => assert!(said.contains(&format!(", {name}: ")), "{said}"),
        }
    }
}

#[test]
fn what_a_profile_cannot_say_is_listed_in_it_and_beside_it() {
    let wanted: [(usize, &[&str]); 3] = [
        (
            0,
            &[
                "line 24, Addr: a profile has no type for ipaddr",
                "line 25, Odd: its scale factor \"Missing_SF\" is not in the model",
                "line 40, group sensor: it is there as often as the device says",
                "line 49, tail-Last: it lies behind the group sensor, whose length only the device knows",
            ],
        ),
        (
            1,
            &[
                "its form \"https://10.0.0.30/door\" is not of Modbus",
                "property neighbour: it is of unit 5: make another profile of that",
                "property picture: a profile has no type \"object\" in 100 registers",
                "action restart: it takes no input, so nobody knows what is to be written",
                "event overheated: Modbus knows no events",
            ],
        ),
        (
            2,
            &[
                "DoorBit: its mask has no like in a profile",
                "Compressor: its startingAddress \"10.10\" is not a number from 0 to 65535",
                "Counts: a profile has no type \"Int16Array\"",
                "read-TooFar: read.address: it reaches to 65536 from here, and the last address is 65535",
                "Virtual: it has no attributes, so nobody knows where it lies",
                "device command All: it is several resources at once",
            ],
        ),
    ];
    for (at, lines) in wanted {
        let (args, file, _) = SAMPLES[at];
        let (profile, said) = sample(args, file);
        let said: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("left out: ")).collect();
        assert_eq!(said.len(), lines.len(), "{file}: {said:#?}");
        // A comment is broken into lines.
        let comments = profile.replace("\n# ", " ");
        for line in lines {
            assert!(said.iter().any(|said| said.contains(line)), "{line}: {said:#?}");
            assert!(comments.contains(line), "{line}: {comments}");
        }
    }
}

#[test]
fn what_is_no_such_file_is_refused_with_the_line_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it");
    let refused = |kind: &[&str], content: &[u8], code: i32| {
        std::fs::write(&path, content).unwrap();
        let output = import(&[kind, &[path.to_str().unwrap()]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(output.stdout.is_empty());
        said
    };
    let sunspec = ["sunspec", "--base", "0"];
    let points = |points: &str| format!("{{\n\"id\": 1, \"group\": {{\n\"points\": [\n{points}\n]}}}}").into_bytes();
    let table: [(&[&str], Vec<u8>, &str); 16] = [
        (&["edgex"], b"".to_vec(), "holds nothing; is it the right file?"),
        (&["edgex"], b"\xFF\xFE".to_vec(), "is not text in UTF-8; is it the right file?"),
        (&["edgex"], vec![b'#'; (2 << 20) + 1], "is larger than 2 MiB"),
        (&["wot"], b"{\n\"a\": 1,\n}".to_vec(), "line 3: is no JSON: key must be a string; correct it there"),
        (&["edgex"], b"name: a\n  b: [1\n".to_vec(), "line 2: is no YAML: "),
        (&["edgex"], b"name: a\nname: b\n".to_vec(), "line 2: \"name\" stands there twice; remove one"),
        (&["edgex"], b"a: &x [1]\nb: *x\n".to_vec(), "line 1: anchors and aliases are not read"),
        (&["edgex"], b"a: 1\n---\nb: 1\n".to_vec(), "a second document begins here; write each into a file of its own"),
        (&["edgex"], "[".repeat(70).into_bytes(), "is no JSON"),
        (&["edgex"], ("[".repeat(70) + &"]".repeat(70)).into_bytes(), "is deeper than 64 levels"),
        (&["edgex"], b"\n\nname: a\n".to_vec(), "line 3: is not a device profile of EdgeX"),
        (&["wot"], b"{\"title\": 1}".to_vec(), "line 1: is no Thing Description"),
        (&sunspec, b"{\"id\": 1}".to_vec(), "line 1: is no SunSpec model"),
        (&sunspec, points("{\"name\": \"A\", \"type\": \"int17\"}"), "line 4: the point \"A\" has the type \"int17\""),
        (&sunspec, points("{\"name\": \"A\", \"type\": \"string\"}"), "line 4: the text \"A\" has no \"size\""),
        (&sunspec, points("{\"name\": \"A\", \"type\": \"pad\"}"), "holds nothing that a profile can say"),
    ];
    for (kind, content, wanted) in table {
        let said = refused(kind, &content, 1);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let said = refused(&["sunspec"], b"{}", 2);
    assert!(
        said.contains("--base is missing: the protocol address of the register that holds the model's number"),
        "{said}"
    );
    let output = import(&["wot", folder.path().join("nowhere").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(70));
}

#[test]
fn a_file_that_is_there_is_not_overwritten_and_a_name_can_be_given() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("it.toml");
    let from = self::folder().join("cooler.edgex.yaml");
    let args = ["edgex", from.to_str().unwrap(), "--name", "cold store", "--output", output.to_str().unwrap()];
    let first = import(&args);
    assert!(first.status.success() && first.stdout.is_empty());
    let made = std::fs::read_to_string(&output).unwrap();
    assert!(made.contains("\n[profile.cold-store.command.read-Temperature]\n"), "{made}");
    let second = import(&args);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("is there already, and is not overwritten"));
    assert_eq!(std::fs::read_to_string(&output).unwrap(), made);
}
