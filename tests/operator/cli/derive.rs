//! `derive-keys`: the keys of a group's devices, and what is said when there are none.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

const GROUP: &str = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
const ID: &str = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
const KEY: &str = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=";

fn derive(folder: &tempfile::TempDir, group: &str, rest: &[&str]) -> (Option<i32>, String, String) {
    let file = folder.path().join("group.key");
    std::fs::write(&file, group).unwrap();
    let mut command = Command::new(super::PROGRAM);
    let Output { status, stdout, stderr } =
        command.args(["derive-keys", "--group-key-file"]).arg(&file).args(rest).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_keys_of_a_group_are_those_that_the_service_expects() {
    let folder = tempfile::tempdir().unwrap();
    let (status, told, said) = derive(&folder, GROUP, &[ID, "pump-8"]);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, format!("{ID} {KEY}").as_str()));
    assert!(lines[1].starts_with("pump-8 ") && !lines[1].ends_with(KEY), "{told}");
    let (_, json, _) = derive(&folder, GROUP, &["--json", ID]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!([{ "registrationId": ID, "key": KEY }]));
}

#[test]
fn keys_that_are_written_are_their_owners_and_overwrite_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_str().unwrap();
    let (status, told, _) = derive(&folder, GROUP, &["--output", output, ID]);
    assert_eq!((status, told.as_str()), (Some(0), ""));
    let file = folder.path().join(format!("{ID}.key"));
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), KEY);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, _, said) = derive(&folder, GROUP, &["--output", output, ID]);
    assert_eq!(status, Some(1));
    assert!(said.contains("is not overwritten"), "{said}");
}

#[test]
fn what_is_no_group_key_or_no_registration_id_gives_no_keys_and_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    for (group, id, status, fragment) in [
        ("hush hush", ID, 1, "enrollment group"),
        ("", ID, 1, "is empty"),
        (GROUP, "pump 7", 2, "' '"),
        (GROUP, "pump/7", 2, "'/'"),
    ] {
        let (ended, told, said) = derive(&folder, group, &["pump-8", id]);
        assert_eq!((ended, told.as_str()), (Some(status), ""), "{said}");
        assert!(said.contains(fragment) && !said.contains("hush") && !said.contains(GROUP), "{said}");
    }
}
