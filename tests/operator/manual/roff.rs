//! Text for man(7).

/// Text as it is to be read, whatever it holds.
pub fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq");
    text.replace('…', "\\&...").replace('×', "\\(mu").replace('\'', "\\(aq")
}

/// A line of text; what stands between backticks is bold. It can't begin a macro.
pub fn line(text: &str) -> String {
    let mut parts = text.split('`').map(escape);
    let mut line = parts.next().unwrap_or_default();
    for (n, part) in parts.enumerate() {
        line += if n % 2 == 0 { "\\fB" } else { "\\fR" };
        line += &part;
    }
    assert_eq!(text.matches('`').count() % 2, 0, "a backtick is left over: {text}");
    match line.starts_with('.') {
        true => format!("\\&{line}"),
        false => line,
    }
}

/// A paragraph, each sentence on a line of its own as man(7) asks.
pub fn paragraph(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut lines = vec![String::new()];
    for (n, word) in words.iter().enumerate() {
        let begins = word.trim_start_matches('`').starts_with(char::is_uppercase);
        if n > 0 && begins && words[n - 1].ends_with(['.', '?', '!']) {
            lines.push(String::new());
        }
        let last = lines.last_mut().unwrap();
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    lines.iter().map(|text| line(text) + "\n").collect()
}
