//! What people write who know another language than TOML, and what to write instead. Pure.
//!
//! Invariant: nothing of a line is repeated but numbers, names of tables, and keys that the configuration knows: the
//! rest may be a secret that was pasted in the wrong place.

mod heard;

use std::ops::Range;

use regex_lite::Regex;

pub(super) use heard::{Heard, Mistake};

use super::words::framing;
use super::{keys, words};
use crate::complaint::Complaint;

/// Characters of a number or of a table's name that are repeated.
const SHOWN_MAX: usize = 40;

/// Where a file turns out to be of another language, and what to do.
pub(super) fn another_language(text: &str) -> Option<(usize, Complaint)> {
    let first = text.find(|c: char| !c.is_whitespace() && c != '\u{feff}')?;
    let rest = &text[first..];
    if matches(r"^(\{\s*[\x22}]|\[\s*\{)", rest) {
        return Some((
            first,
            Complaint::new(
                "this is JSON",
                "the configuration is TOML: write tables as [hub], and below them lines such as host = \"…\"",
            ),
        ));
    }
    if rest.starts_with('<') {
        return Some((
            first,
            Complaint::new("this is XML", "the configuration is TOML: write [hub], and below it host = \"…\""),
        ));
    }
    let is_toml = |line: &str| matches(r"^\s*([\w\x22'. -]+=|\[)", line);
    let is_yaml = |line: &str| line.trim() == "---" || matches(r"^\s*(- )?[\w\x22'.-]+:(\s|$)", line);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    if lines.clone().any(is_toml) || lines.clone().filter(|line| is_yaml(line)).count() < 2 {
        return None;
    }
    let line = lines.into_iter().find(|line| is_yaml(line))?;
    let at = line.as_ptr() as usize - text.as_ptr() as usize;
    Some((
        at,
        Complaint::new(
            "this is YAML",
            "the configuration is TOML: write hub: as [hub], and below it host: x as host = \"x\", without indents",
        ),
    ))
}

/// What is wrong with a line that the parser stumbled over, with what to write.
pub(super) fn explain(line: &str, mistake: &Mistake) -> Complaint {
    let code = line.trim_start_matches('\u{feff}').trim();
    let Mistake::Syntax(heard) = mistake else {
        let remedy = same_bits(code).map_or_else(
            || "write one that fits 64 bits".to_owned(),
            |number| format!("write {number}, which has the same 64 bits"),
        );
        return Complaint::new("this number is too large", remedy);
    };
    if heard.is_of_a_second_key() {
        return match code.starts_with('[') {
            true => Complaint::new("this table stands here for the second time", "put all of its keys under the first"),
            false => Complaint::new("this key stands here for the second time", "keep one of the two"),
        };
    }
    if ["//", ";", "/*", "--", "%", "<!--", "REM "].iter().any(|sign| code.starts_with(sign)) {
        return Complaint::new("a comment begins with #", "write # before it");
    }
    if code.starts_with('[') && !code.contains('=') {
        return header(code);
    }
    if let Some(why) = inline_table(code, heard) {
        return why;
    }
    match code.split_once('=') {
        Some((key, value)) => key_problem(key.trim(), heard)
            .or_else(|| value_problem(key.trim(), value.trim(), heard))
            .unwrap_or_else(|| in_the_parsers_words(heard)),
        None => without_equals(code),
    }
}

fn in_the_parsers_words(heard: &Heard) -> Complaint {
    Complaint::new(heard.as_str(), "fieldbridge.toml(5) shows how it is written")
}

/// A line `[NAME]` that is none.
fn header(code: &str) -> Complaint {
    let inner = code.trim_start_matches('[');
    let inner = inner.split(']').next().unwrap_or_default().trim();
    let is_plain = |c: char| c.is_alphanumeric() || " ._-/:@".contains(c);
    let shown = inner.chars().count() <= SHOWN_MAX && inner.chars().all(is_plain) && !inner.is_empty();
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_.\"' ".contains(c);
    let has_odd_name = inner.split('.').any(|part| part.trim().contains(' ')) || !inner.chars().all(is_bare);
    if has_odd_name && shown && code.contains(']') {
        let (table, name) = inner.split_once('.').unwrap_or(("", inner));
        let dot = if table.is_empty() { "" } else { "." };
        return Complaint::new(
            "a name with other characters than letters, digits, - and _ stands in quotes",
            format!("write [{table}{dot}\"{name}\"]"),
        );
    }
    if !code.contains(']') {
        return Complaint::new("the bracket that closes the table's name is missing", "write ] behind it");
    }
    Complaint::new("this is not a table's name", "write [NAME] alone on its line, such as [hub] or [bus.line-a]")
}

/// `{ table: "holding" }` and its like.
fn inline_table(code: &str, heard: &Heard) -> Option<Complaint> {
    let has_a_colon = code.contains('=') && matches(r"[{,]\s*[\w\x22'-]+\s*:\s", code);
    if heard.misses_an_assignment() || has_a_colon {
        return Some(Complaint::new(
            "between a key and its value stands =, not a colon",
            "write { table = \"holding\", … }",
        ));
    }
    if heard.misses_a_comma() {
        return Some(Complaint::new(
            "a comma is missing",
            "write one between the entries: { table = \"holding\", address = 0 }",
        ));
    }
    let (_, inner) = code.split_once('{')?;
    if !code.contains('}') && heard.misses_an_end() {
        return Some(Complaint::new("the brace that closes { is missing", "write }"));
    }
    let mut entries: Vec<String> = Vec::new();
    for part in inner.split('}').next().unwrap_or_default().split(',') {
        match entries.last_mut().filter(|_| !part.contains('=')) {
            // A comma within a value.
            Some(last) => *last += &format!(",{part}"),
            None => entries.push(part.to_owned()),
        }
    }
    entries.iter().find_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        let (key, value) = (known(key), value.trim());
        let is_right =
            value.starts_with(['"', '\'', '[', '{']) || matches(r"^([+-]?(0|[1-9]\d*)(\.\d+)?|true|false)$", value);
        let text = || Some(Complaint::new("text stands in quotes", format!("write {key} = \"…\"")));
        (!is_right).then(|| number(&key, value).or_else(|| word(&key, value)).or_else(text)).flatten()
    })
}

/// A line that has no `=` at all.
fn without_equals(code: &str) -> Complaint {
    if let Some((key, _)) = code.split_once(':') {
        let key = known(key.trim().trim_matches(['"', '\'']));
        return Complaint::new(
            "there is a colon, as in YAML or JSON",
            format!("TOML has {key} = … in its place, and [NAME] for tables"),
        );
    }
    if code.ends_with('{') || code == "}" {
        return Complaint::new("a table needs no braces around its lines", "write [hub] or [bus.NAME] above them");
    }
    if code.starts_with('(') || code.starts_with('<') {
        return Complaint::new("a table's name stands in square brackets", "write [hub]");
    }
    if let Some(key) = code.split_whitespace().next().filter(|key| is_known(key)) {
        return Complaint::new(format!("there is no = behind {key}"), format!("write {key} = and its value"));
    }
    Complaint::new("this is neither a key with its value nor a table", "write it as KEY = VALUE or [NAME]")
}

fn key_problem(key: &str, heard: &Heard) -> Option<Complaint> {
    if key.is_empty() {
        return Some(Complaint::new("there is no key before the =", "write KEY = VALUE"));
    }
    if key.starts_with("export ") || key.starts_with("set ") {
        return Some(Complaint::new("this is a line of a shell", "write only KEY = VALUE"));
    }
    if key.ends_with(':') {
        return Some(Complaint::new("a colon stands before the =", "write = alone"));
    }
    heard.is_of_the_key().then(|| {
        Complaint::new(
            "a key with other characters than letters, digits, - and _ stands in quotes",
            "write it as \"…\", or correct it",
        )
    })
}

fn value_problem(key: &str, value: &str, heard: &Heard) -> Option<Complaint> {
    let key = known(key);
    if value.starts_with('=') {
        return Some(Complaint::new("there are two =", format!("write {key} = and the value")));
    }
    let is_quoted = value.starts_with(['"', '\'']);
    if is_quoted {
        return quoted(&key, value, heard);
    }
    let bare = value.split(" #").next().unwrap_or_default().trim();
    if bare.is_empty() || bare.starts_with('#') {
        return Some(Complaint::new(
            "there is no value behind the =",
            format!("write {key} = \"…\", or remove the line"),
        ));
    }
    if bare.starts_with(['“', '”', '„', '‘', '’', '‚', '«', '»', '`', '´']) {
        return Some(Complaint::new("these are no straight quotes", format!("write {key} = \"…\"")));
    }
    if bare.split_once("//").is_some_and(|(before, _)| before.ends_with([' ', '\t'])) {
        return Some(Complaint::new("a comment begins with #", "write # in the place of //"));
    }
    number(&key, bare).or_else(|| word(&key, bare)).or_else(|| list(&key, bare)).or_else(|| {
        (heard.is_of_bare_text() || bare.len() > 1)
            .then(|| Complaint::new("text stands in quotes", format!("write {key} = \"…\"")))
    })
}

/// Text that begins with a quote.
fn quoted(key: &str, value: &str, heard: &Heard) -> Option<Complaint> {
    let quote = &value[..1];
    let is_basic = quote == "\"";
    if is_basic && heard.is_of_an_escape() {
        return Some(Complaint::new(
            "a backslash in double quotes begins a sign of its own",
            format!("write the text in single quotes, {key} = '…', or each backslash twice"),
        ));
    }
    if heard.is_of_quotes() {
        if heard.is_of_a_control() {
            return Some(Complaint::new(
                "there is a control character in the quotes",
                "write it as \\t, \\r, \\n or \\u0001",
            ));
        }
        return Some(Complaint::new("the quote that closes the text is missing", format!("write {quote} at its end")));
    }
    let rest = value[1..].split_once(quote).map_or("", |(_, rest)| rest).trim();
    Some(match rest.chars().next() {
        Some(';' | ',') if rest.len() == 1 => {
            Complaint::new("a line ends without a sign", "remove what stands behind the quote")
        }
        Some('/') if rest.starts_with("//") => Complaint::new("a comment begins with #", "write # in the place of //"),
        _ if rest.contains('=') => {
            Complaint::new("there is a second key on the line", "write each on a line of its own")
        }
        _ if is_basic => Complaint::new(
            "something stands behind the quote that closes the text",
            format!("write a quote in it as \\\", or the text in single quotes: {key} = '…'"),
        ),
        _ => Complaint::new(
            "something stands behind the quote that closes the text",
            format!("write it in double quotes: {key} = \"…\""),
        ),
    })
}

/// The number that TOML has for 64 bits of which the first is set, where bits are what the key takes.
fn same_bits(code: &str) -> Option<i64> {
    let digits = Regex::new(r"\bunavailable\s*=\s*0x([0-9A-Fa-f_]+)").ok()?.captures(code)?[1].replace('_', "");
    u64::from_str_radix(&digits, 16).ok().map(u64::cast_signed)
}

/// What is meant as a number.
fn number(key: &str, bare: &str) -> Option<Complaint> {
    let bare = bare.trim_end_matches([';', ',']).trim_end();
    if bare.len() > SHOWN_MAX {
        return None;
    }
    let written = |number: &str, why: &str| Some(Complaint::new(why, format!("write {key} = {number}")));
    if matches(r"^[+-]?\d{1,3}(,\d{3})+$", bare) {
        let (whole, decimal) = (bare.replace(',', ""), bare.replacen(',', ".", 1));
        let hint = if bare.matches(',').count() == 1 { format!(", or {decimal}") } else { String::new() };
        return written(&(whole + &hint), "a number has no comma in it");
    }
    if matches(r"^[+-]?\d+,\d+$", bare) {
        return written(&bare.replace(',', "."), "decimals stand behind a point, not a comma");
    }
    if matches(r"^[+-]?0+\d+$", bare) {
        let (sign, digits) = bare.split_at(bare.len() - bare.trim_start_matches(['+', '-']).len());
        let digits = digits.trim_start_matches('0');
        let digits = if digits.is_empty() { "0" } else { digits };
        return written(&format!("{sign}{digits}"), "a number has no zeros before it");
    }
    if matches(r"^[+-]?0+\d+\.\d+$", bare) {
        return written("0.5 or 12.5, without more zeros before it", "a number has no zeros before it");
    }
    if matches(r"^[+-]?\.\d+$", bare) {
        return written(&bare.replacen('.', "0.", 1), "a number begins with a digit");
    }
    if matches(r"^[+-]?\d+\.$", bare) {
        return written(&format!("{bare}0"), "behind a point stands a digit");
    }
    if matches(r"^0X[0-9A-Fa-f]+$", bare) {
        return written(&bare.replacen('X', "x", 1), "hexadecimal begins with a small x");
    }
    if matches(r"^[0-9A-Fa-f]+[hH]$", bare) {
        return written(&format!("0x{}", &bare[..bare.len() - 1]), "hexadecimal begins with 0x");
    }
    if matches(r"^([+-]?\d+_+|_+\d+)$", bare) {
        return written(bare.trim_matches('_'), "an underline stands between digits only");
    }
    None
}

/// A word or a number with letters.
fn word(key: &str, bare: &str) -> Option<Complaint> {
    let bare = bare.trim_end_matches([';', ',']).trim_end();
    let lower = bare.to_lowercase();
    match lower.as_str() {
        "true" | "false" => {
            return Some(Complaint::new("true and false are written small", format!("write {key} = {lower}")))
        }
        "yes" | "on" | "y" => return Some(Complaint::new("this is not a value", format!("write {key} = true"))),
        "no" | "off" | "n" => return Some(Complaint::new("this is not a value", format!("write {key} = false"))),
        "null" | "nil" | "undefined" => return Some(Complaint::new("there is no such value", "leave the line out")),
        "none" | "even" | "odd" | "big" | "little" => {
            return Some(Complaint::new("text stands in quotes", format!("write {key} = \"{lower}\"")));
        }
        _ => {}
    }
    if let Some(line) = framing(bare) {
        return Some(line);
    }
    if matches(r"^\d+(\.\d+)?\s*(ms|s|sec|m|min|h|d|us)$", bare) {
        let text: String = bare.chars().filter(|c| !c.is_whitespace()).collect();
        return Some(Complaint::new("a duration stands in quotes", format!("write {key} = \"{text}\"")));
    }
    if matches(r"^[+-]?\d+(\.\d+)?\s*[%A-Za-z°]+$", bare) && bare.len() <= SHOWN_MAX {
        let end = bare.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)).unwrap_or(bare.len());
        return Some(Complaint::new("a number has no unit behind it", format!("write {key} = {}", &bare[..end])));
    }
    if matches(r"^[+-]?\d+(\.\d+)?$", bare) {
        return Some(Complaint::new("a line ends without a sign", "remove what stands behind the number"));
    }
    None
}

/// What is meant as an array.
fn list(key: &str, bare: &str) -> Option<Complaint> {
    if matches(r"^\(.*\)$", bare) {
        return Some(Complaint::new("a list stands in square brackets", format!("write {key} = [ … ]")));
    }
    if let Some(ends) = Regex::new(r"^([+-]?[\d.]*\d)\s*(\.\.=?|\.\.\.|-|to)\s*([+-]?[\d.]*\d)$").ok()?.captures(bare) {
        let (low, high) = (&ends[1], &ends[3]);
        return Some(Complaint::new("a span is a list of two numbers", format!("write {key} = [{low}, {high}]")));
    }
    if bare.starts_with('[') {
        if !bare.contains(']') {
            return Some(Complaint::new("the bracket that closes the list is missing", "write ] at its end"));
        }
        return Some(Complaint::new(
            "this list is not understood",
            format!("write its numbers with commas between, as in {key} = [0, 100], and text in quotes"),
        ));
    }
    None
}

/// A key as a message may show it: one of the configuration's own, or none.
fn known(key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or_default().trim();
    if is_known(last) {
        last.to_owned()
    } else {
        "KEY".to_owned()
    }
}

fn is_known(key: &str) -> bool {
    keys::SECTIONS.iter().any(|section| section.keys.contains(&key)) || words::is_known(key)
}

fn matches(pattern: &str, text: &str) -> bool {
    let found: Option<Range<usize>> = Regex::new(pattern).ok().and_then(|regex| Some(regex.find(text)?.range()));
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;

    fn why(text: &str) -> String {
        let errors = parse("x.toml", text).map(|_| ()).unwrap_err();
        errors.into_iter().map(|error| error.why.to_string()).collect::<Vec<_>>().join("\n")
    }

    /// What is written, and a part of what is answered.
    const SLIPS: &[(&str, &str)] = &[
        ("{\n  \"hub\": {}\n}", "this is JSON"),
        ("[{\"hub\": 1}]", "this is JSON"),
        ("hub:\n  host: contoso\nbus:\n", "this is YAML"),
        ("---\nhub:\n", "this is YAML"),
        ("<hub>\n</hub>", "this is XML"),
        ("[hub]\nhost: contoso", "host = …"),
        ("[hub]\n\"host\": \"x\",", "host = …"),
        ("[hub]\nhost contoso", "no = behind host"),
        ("hub {\n}", "[hub]"),
        ("(hub)", "square brackets"),
        ("// comment", "begins with #"),
        ("; comment", "begins with #"),
        ("/* comment */", "begins with #"),
        ("baud = 9600 // comment", "begins with #"),
        ("host = \"x\" // comment", "begins with #"),
        ("[hub", "write ]"),
        ("[bus.line a]", "[bus.\"line a\"]"),
        ("[bus.pümp]", "[bus.\"pümp\"]"),
        ("scale = 0,1", "write scale = 0.1"),
        ("read = { table = 'holding', scale = 0,1 }", "write scale = 0.1"),
        ("read = { table = 'holding', address = 07, scale = 1 }", "write address = 7"),
        ("read = { table = holding, address = 7 }", "write table = \"…\""),
        ("address = 40,001", "write address = 40001, or 40.001"),
        ("unit = 07", "write unit = 7"),
        ("unit = 00", "write unit = 0"),
        ("unit = -07", "write unit = -7"),
        ("scale = .1", "write scale = 0.1"),
        ("scale = 1.", "write scale = 1.0"),
        ("address = 0X1F", "write address = 0x1F"),
        ("address = 1Fh", "write address = 0x1F"),
        ("address = 1_", "write address = 1"),
        ("address = 99999999999999999999", "too large"),
        ("unavailable = 0xFFFF_FFFF_FFFF_FFFF", "write -1, which has the same 64 bits"),
        ("unavailable = 0x8000000000000000", "write -9223372036854775808, which has"),
        ("unavailable = 0x1_0000_0000_0000_0000", "write one that fits 64 bits"),
        ("verify = True", "write verify = true"),
        ("verify = yes", "write verify = true"),
        ("verify = off", "write verify = false"),
        ("ca_file = null", "leave the line out"),
        ("parity = none", "write parity = \"none\""),
        ("parity = None", "write parity = \"none\""),
        ("parity = 8N1", "data_bits = 8, parity = \"none\" and stop_bits = 1"),
        ("response_timeout = 500ms", "write response_timeout = \"500ms\""),
        ("keepalive = 60 s", "write keepalive = \"60s\""),
        ("baud = 9600 baud", "write baud = 9600"),
        ("baud = 9600;", "remove what stands behind"),
        ("host = \"x\";", "remove what stands behind"),
        ("host = \"x\" port = 1", "each on a line of its own"),
        ("expect = \"(\\d+)\"", "single quotes, expect = '…'"),
        ("port = \"C:\\Users\"", "single quotes, port = '…'"),
        ("host = \"x", "closes the text is missing"),
        ("host = 'x", "closes the text is missing"),
        ("expect = \"say \"hi\"\"", "\\\""),
        ("expect = 'it's'", "double quotes"),
        ("host = “x”", "straight quotes"),
        ("host =", "no value"),
        ("host = # none", "no value"),
        ("host == \"x\"", "two ="),
        ("host := \"x\"", "write = alone"),
        ("= 5", "no key"),
        ("export host=\"x\"", "shell"),
        ("$host = 1", "stands in quotes"),
        ("host = contoso.azure-devices.net", "write host = \"…\""),
        ("port = /dev/ttyUSB0", "write port = \"…\""),
        ("address = 10.0.0.12:502", "write address = \"…\""),
        ("range = [0 100]", "range = [0, 100]"),
        ("range = (0, 100)", "square brackets"),
        ("range = 0..100", "range = [0, 100]"),
        ("range = 0 - 100", "range = [0, 100]"),
        ("range = [0, 100", "write ]"),
        ("write = { table = \"holding\" address = 0 }", "a comma is missing"),
        ("write = { table: \"holding\" }", "not a colon"),
        ("host = 1\nhost = 2", "second time"),
        ("[hub]\n[hub]", "second time"),
    ];

    #[test]
    fn each_mistake_is_answered_with_what_to_write() {
        for (text, wanted) in SLIPS {
            let why = why(text);
            assert!(why.contains(wanted), "{text}: {wanted:?} is missing in: {why}");
            for line in why.lines() {
                assert!(line.contains("; ") || line.ends_with("[NAME] for tables"), "no remedy: {line}");
            }
        }
    }

    #[test]
    fn a_secret_that_is_pasted_anywhere_is_not_repeated() {
        let secret = "qZ7Jw2Kx9VtB5nYd8RmH3pLc6GfS4aEuqZ7Jw2Kx9Vs=";
        for text in [
            secret.to_owned(),
            format!("key_file = {secret}"),
            format!("{secret} = 1 2"),
            format!("[{secret}"),
            format!("[{secret}]x"),
            format!("key_file: {secret}"),
            format!("key_file = \"{secret}"),
            format!("key_file = \"\\{secret}\""),
            format!("key_file = [{secret}]"),
            format!("{{ \"key\": \"{secret}\" }}"),
        ] {
            let why = why(&text);
            assert!(!why.contains(&secret[..12]), "{text}: {why}");
        }
    }
}
