//! Profiles from what others have written of a peripheral: SunSpec models, Thing Descriptions of the Web of Things with
//! the Modbus binding, and device profiles of EdgeX. Pure: text in, text out.
//!
//! Invariants
//! - No write says whether it may be repeated: none of these formats knows, and nobody can guess it. `check` refuses
//!   the profile until a person has said it of each.
//! - But for that, `check` takes what is made: what it would refuse is left out, with its own words.
//! - Nothing is dropped in silence: what a file says and a profile can't is listed, in the profile and beside it.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod document;
mod draft;
mod edgex;
mod sunspec;
mod wot;

use std::fmt;

use crate::complaint::Complaint;
use document::Node;
use draft::Draft;

/// Larger than any description of one peripheral, in bytes.
pub const FILE_BYTES_MAX: usize = 2 << 20;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SunSpec model in JSON, which begins at this protocol address.
    Sunspec {
        /// Of the register that holds the model's number.
        base: u16,
    },
    /// A Thing Description in JSON.
    Wot,
    /// A device profile in YAML or JSON.
    Edgex,
}

/// Why nothing can be made of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, from 1, if it is of a place.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub why: Complaint,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.why.fmt(f)
    }
}

/// A profile that was made.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The profile's name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// How many commands it has.
    pub commands: usize,
    /// Those of which a person must say whether they may be repeated.
    pub undecided: Vec<String>,
    /// What the file says and the profile does not, a line each.
    pub left_out: Vec<String>,
}

/// Makes a profile of a file's text. `name`: its name, in place of one from the file.
///
/// # Errors
/// The text is no file of that kind, or says nothing that a profile can hold.
pub fn import(kind: Kind, text: &str, name: Option<&str>) -> Result<Imported, Fault> {
    let root = document::read(text)?;
    let mut draft = Draft::default();
    match kind {
        Kind::Sunspec { base } => sunspec::model(&root, base, &mut draft)?,
        Kind::Wot => wot::thing(&root, &mut draft)?,
        Kind::Edgex => edgex::profile(&root, &mut draft)?,
    }
    if let Some(name) = name {
        draft.name = name.to_owned();
    }
    draft.finish()
}

/// A fault at a node.
fn fault(node: &Node, what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault { line: Some(node.line), why: Complaint::new(what, remedy) }
}
