//! A file in JSON or YAML as a tree that knows on which line each part stands. Pure.
//!
//! Both are read by the parser of YAML, of which JSON is a part; that it is JSON is proven first where it begins like
//! it. Anchors and aliases are refused: a short file could be made of them that has no end.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Fault, FILE_BYTES_MAX};
use crate::complaint::Complaint;

/// Deeper than any of these formats.
const DEPTH_MAX: usize = 64;

/// A part of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where it begins, from 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A text, a number, or whatever else stands in one word; `plain`: without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; each key once.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What stands at a key; nothing where that is null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        let (_, node) = entries.iter().find(|(name, _)| name == key)?;
        Some(node).filter(|node| !node.is_null())
    }

    /// What stands at the first of these keys that is there.
    pub fn any(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().find_map(|key| self.get(key))
    }

    fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if ["", "~", "null", "Null", "NULL"].contains(&&**text))
    }

    /// A map's entries; none of anything else.
    pub fn entries(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A list's items; of anything else, itself.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// A word or a text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A finite number, in quotes or not: EdgeX has had both.
    pub fn number(&self) -> Option<f64> {
        match self.integer() {
            Some(whole) => Some(whole as f64),
            None => self.text()?.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }

    /// A whole number, in decimal or hexadecimal digits.
    pub fn integer(&self) -> Option<i64> {
        let text = self.text()?.trim();
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => i64::from_str_radix(digits, 16).ok(),
            Some(_) => None,
            None => text.parse().ok(),
        }
    }

    /// Whether it is true; nothing where it is neither that nor false.
    pub fn flag(&self) -> Option<bool> {
        match &*self.text()?.trim().to_ascii_lowercase() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

/// Reads a file's text.
///
/// # Errors
/// It is neither JSON nor YAML, is too large, or holds what is not read.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    if text.len() > FILE_BYTES_MAX {
        let why = Complaint::new("is larger than 2 MiB", "this is another kind of file, or several in one");
        return Err(Fault { line: None, why });
    }
    if !text.trim_start().starts_with(['{', '[']) {
        return built(text);
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        Fault { line: Some(error.line()), why: Complaint::new(format!("is no JSON: {said}"), "correct it there") }
    })?;
    built(&as_yaml(text))
}

/// JSON with what YAML reads otherwise written as it does: tabs between its parts, and characters as two halves.
fn as_yaml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\t', '\\']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        // Within a text a tab is written as \t: it can stand only between the parts.
        if let Some(after) = from.strip_prefix('\t') {
            out.push(' ');
            rest = after;
            continue;
        }
        let half = |at: usize| {
            let digits = from.get(at..)?.strip_prefix("\\u")?.get(..4)?;
            u16::from_str_radix(digits, 16).ok()
        };
        let both = half(0).zip(half(6)).map(|(high, low)| char::decode_utf16([high, low]).next());
        let (written, length) = match both {
            Some(Some(Ok(char))) if u32::from(char) > 0xFFFF => (format!("\\U{:08X}", u32::from(char)), 12),
            _ => (from.chars().take(2).collect(), from.chars().take(2).map(char::len_utf8).sum()),
        };
        out.push_str(&written);
        rest = &from[length..];
    }
    out + rest
}

/// Lists and maps that have begun and not ended, the outermost first.
enum Open {
    List(usize, Vec<Node>),
    /// With the key whose value comes next.
    Map(usize, Vec<(String, Node)>, Option<String>),
}

fn built(text: &str) -> Result<Node, Fault> {
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let why = Complaint::new(format!("is no YAML: {}", error.info()), "correct it there");
            Fault { line: Some(error.marker().line()), why }
        })?;
        let line = span.start.line();
        if let Some(whole) = taken(&mut open, event, &span).map_err(|why| Fault { line: Some(line), why })? {
            root = match root {
                None => Some(whole),
                Some(_) => {
                    let why = ("a second document begins here", "write each into a file of its own");
                    return Err(Fault { line: Some(line), why: why.into() });
                }
            };
        }
    }
    root.ok_or_else(|| Fault { line: None, why: Complaint::new("holds nothing", "is it the right file?") })
}

/// Takes one event in; gives what is whole by it, if nothing is open around it.
fn taken(open: &mut Vec<Open>, event: Event<'_>, span: &Span) -> Result<Option<Node>, Complaint> {
    let line = span.start.line();
    let (node, anchor) = match event {
        Event::Alias(_) => return Err(no_anchors()),
        Event::SequenceStart(anchor, _) => (Err(Open::List(line, Vec::new())), anchor),
        Event::MappingStart(anchor, _) => (Err(Open::Map(line, Vec::new(), None)), anchor),
        Event::Scalar(text, style, anchor, _) => {
            let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
            (Ok(Node { line, value }), anchor)
        }
        Event::SequenceEnd | Event::MappingEnd => {
            let node = match open.pop() {
                Some(Open::List(line, items)) => Node { line, value: Value::List(items) },
                Some(Open::Map(line, entries, _)) => Node { line, value: Value::Map(entries) },
                None => return Ok(None),
            };
            (Ok(node), 0)
        }
        _ => return Ok(None),
    };
    if anchor != 0 {
        return Err(no_anchors());
    }
    match node {
        Err(begun) if open.len() < DEPTH_MAX => {
            open.push(begun);
            Ok(None)
        }
        Err(_) => Err(Complaint::new(format!("is deeper than {DEPTH_MAX} levels"), "is it the right file?")),
        Ok(node) => placed(open, node),
    }
}

fn placed(open: &mut [Open], node: Node) -> Result<Option<Node>, Complaint> {
    match open.last_mut() {
        None => return Ok(Some(node)),
        Some(Open::List(_, items)) => items.push(node),
        Some(Open::Map(_, entries, key)) => match key.take() {
            Some(key) => entries.push((key, node)),
            None => {
                let name = node.text().ok_or_else(|| Complaint::new("a key is not text", "correct it there"))?;
                *key = Some(name.to_owned());
            }
        },
    }
    twice(open)
}

/// Whether the innermost map has just been given a key that it has.
fn twice(open: &[Open]) -> Result<Option<Node>, Complaint> {
    let Some(Open::Map(_, entries, Some(key))) = open.last() else { return Ok(None) };
    match entries.iter().any(|(name, _)| name == key) {
        true => Err(Complaint::new(format!("{key:?} stands there twice"), "remove one")),
        false => Ok(None),
    }
}

fn no_anchors() -> Complaint {
    Complaint::new("anchors and aliases are not read", "write out what they stand for")
}

/// What a map holds and nobody has asked for.
pub(super) fn others<'a>(node: &'a Node, known: &[&str]) -> BTreeSet<&'a str> {
    node.entries().iter().map(|(name, _)| &**name).filter(|name| !known.contains(name)).collect()
}
