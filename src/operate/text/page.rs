//! Where text for people goes: how wide it may be, and whether it may have colour.
//!
//! Invariants
//! - What is wrapped loses no word, and a word is not broken.
//! - Only what is put here brings the sequences that colour a terminal; what is shown was made printable before.

use std::fmt::Write as _;

use super::printable;

/// A terminal, or what is not one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    /// Columns, if it has an end.
    pub width: Option<usize>,
    /// Whether it shows colour.
    pub colour: bool,
}

/// Colours, by what they say (ECMA-48, 8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// To be looked at.
    Doubtful,
    /// Something is wrong.
    Bad,
    /// A heading.
    Strong,
}

/// What the last column of a table has at least, before it goes to a line of its own.
const LAST_COLUMN_MIN: usize = 24;

impl Page {
    /// A text in a colour.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "1;31",
            Tone::Strong => "1",
        };
        match self.colour && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// A sentence on as many lines as it takes; those after the first are indented. Each ends.
    pub fn wrap(self, indent: usize, text: &str) -> String {
        let mut out = String::new();
        for line in lines(text, self.width.unwrap_or(usize::MAX), indent) {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// Columns as wide as their widest cell. The last one is not padded, and is wrapped where the page ends.
    pub fn table(self, heads: &[&str], rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([heads[i].chars().count()]).max();
        let widths: Vec<usize> = (0..heads.len()).map(|i| width(i).unwrap_or(0)).collect();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
        let mut out = String::new();
        let head: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
        for (n, row) in std::iter::once(&head).chain(&rows).enumerate() {
            let mut line = String::new();
            let last = row.len().saturating_sub(1);
            for (cell, width) in row.iter().zip(&widths).take(last) {
                let _ = write!(line, "{cell:width$}  ");
            }
            let cell = row.last().map_or("", String::as_str);
            let line = self.with_last(line, cell, before);
            match n {
                0 => out.push_str(&self.paint(Tone::Strong, &line)),
                _ => out.push_str(&line),
            }
            out.push('\n');
        }
        out
    }

    fn with_last(self, line: String, cell: &str, before: usize) -> String {
        let room = self.width.map(|width| width.saturating_sub(before));
        let wrapped = match room {
            Some(room) if cell.chars().count() > room && room >= LAST_COLUMN_MIN => {
                lines(cell, room, 0).join(&format!("\n{:before$}", ""))
            }
            Some(room) if cell.chars().count() > room => {
                let width = self.width.unwrap_or(usize::MAX).saturating_sub(4);
                format!("\n    {}", lines(cell, width, 0).join("\n    "))
            }
            _ => cell.to_owned(),
        };
        let line = line + &wrapped;
        line.split('\n').map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// A text in lines of so many characters; one that begins with spaces keeps them.
fn lines(text: &str, width: usize, indent: usize) -> Vec<String> {
    let own = text.len() - text.trim_start_matches(' ').len();
    let mut lines = vec![" ".repeat(own)];
    let mut used = own;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        let line = lines.last_mut().expect("there is one");
        let begins = line.trim_start().is_empty();
        if begins || used + 1 + length <= width {
            if !begins {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        } else {
            lines.push(format!("{:indent$}{word}", ""));
            used = indent + length;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: Page = Page { width: Some(20), colour: false };

    #[test]
    fn a_sentence_is_wrapped_between_words_and_only_where_a_page_ends() {
        let text = "  1. a word, and another word-that-is-longer-than-the-page";
        assert_eq!(NARROW.wrap(5, text), "  1. a word, and\n     another\n     word-that-is-longer-than-the-page\n");
        assert_eq!(Page::default().wrap(5, text), format!("{text}\n"));
        assert_eq!(NARROW.wrap(0, ""), "\n");
    }

    #[test]
    fn the_last_column_of_a_table_is_wrapped_or_gets_lines_of_its_own() {
        let rows = vec![vec!["a".to_owned(), "one two three four five six".to_owned()]];
        let page = |width| Page { width: Some(width), colour: false };
        assert_eq!(page(40).table(&["id", "said"], &rows), "id  said\na   one two three four five six\n");
        assert_eq!(page(30).table(&["id", "said"], &rows), "id  said\na   one two three four five\n    six\n");
        assert_eq!(page(20).table(&["id", "said"], &rows), "id  said\na\n    one two three\n    four five six\n");
        assert_eq!(Page::default().table(&["id"], &[]), "id\n");
    }

    #[test]
    fn colour_is_put_only_where_the_page_has_it() {
        assert_eq!(Page::default().paint(Tone::Bad, "no"), "no");
        assert_eq!(Page { colour: true, ..Page::default() }.paint(Tone::Bad, "no"), "\x1b[1;31mno\x1b[0m");
        assert_eq!(Page { colour: true, ..Page::default() }.paint(Tone::Bad, ""), "");
    }
}
