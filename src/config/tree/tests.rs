use super::*;

#[test]
fn a_key_is_quoted_where_toml_needs_it() {
    assert_eq!(join("device", "pump-7"), "device.pump-7");
    assert_eq!(join("device", "pump.7"), "device.\"pump.7\"");
    assert_eq!(join("", "hub"), "hub");
    assert_eq!(join("bus", ""), "bus.\"\"");
    assert_eq!(join("bus", "a\"b"), "bus.\"a\\\"b\"");
}

#[test]
fn a_bound_is_told_in_the_unit_that_people_use() {
    for (millis, text) in [(500, "500ms"), (1_177_000, "1177s"), (300_000, "5m"), (86_400_000, "1d"), (0, "0ms")] {
        assert_eq!(in_one_unit(Duration::from_millis(millis)), text);
    }
}

#[test]
fn long_text_is_cut_between_characters() {
    assert_eq!(shown("even"), "\"even\"");
    let long = shown(&"é".repeat(100));
    assert_eq!(long.chars().filter(|c| *c == 'é').count(), LONGEST_SHOWN);
}
