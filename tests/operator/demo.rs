//! The demo, as the README's first command runs it: it must end well, and its books must say so.

use std::process::Command;

#[test]
fn the_demo_tells_its_story_and_every_count_is_right() {
    let output = Command::new(env!("CARGO_BIN_EXE_fieldbridge")).arg("demo").output().expect("the program can be run");
    let story = String::from_utf8(output.stdout).expect("the story is UTF-8");
    assert!(output.status.success(), "{story}\n{}", String::from_utf8_lossy(&output.stderr));
    let count = |what: &str| {
        let line =
            story.lines().find(|line| line.trim_start().starts_with(what)).unwrap_or_else(|| panic!("{what}: {story}"));
        line.split_whitespace().find_map(|word| word.parse::<u32>().ok()).expect("a line of the books has a count")
    };
    assert_eq!((count("lost "), count("repeated ")), (0, 0), "{story}");
    assert_eq!(count("messages sent"), count("completed or rejected"), "{story}");
    let said = |what: &str| assert!(story.contains(what), "{what}: {story}");
    said("b-1  Success\n");
    said("b-2  Rejected\n");
    assert_eq!(count("calls answered"), 2, "{story}");
    said("on the slave: 1; the second call was answered from the ledger");
    let doses = story.lines().find_map(|line| line.split_once("reports changes: dose ")).expect("telemetry is told").1;
    assert!(doses.contains("5") && doses.contains("9"), "{doses}");
    assert!(count("executed ") > 0 && count("duplicates suppressed") > 0 && count("in doubt") > 0, "{story}");
}
