//! What must hold for any bytes from outside (G8), as functions of bytes that panic where it doesn't.
//!
//! The properties stand beside what they are about, one module a layer; this is their list. The fuzz targets in `fuzz/`
//! run the same functions as the tests below, so a crash that a fuzzer finds becomes a file of the corpus and is tested
//! from then on. Tests only: releases are built without the feature `proof`.

use std::ops::RangeInclusive;

/// A property: takes any bytes, panics if something about them does not hold.
pub type Property = fn(&[u8]);

/// Every property by its name, which is that of its fuzz target and of its corpus.
pub const ALL: [(&str, Property); 15] = [
    ("admin", crate::admin::properties::admin),
    ("credential", crate::config::properties::credential),
    ("late", crate::bus::properties::late),
    ("message", crate::command::properties::message),
    ("modbus_rtu", crate::bus::properties::modbus_rtu),
    ("modbus_tcp", crate::bus::properties::modbus_tcp),
    ("mqtt", crate::hub::properties::mqtt),
    ("registers", crate::peripheral::properties::registers),
    ("rtu_line", crate::bus::properties::rtu_line),
    ("sas", crate::hub::properties::sas),
    ("session", crate::hub::properties::session),
    ("show", crate::show::properties::show),
    ("text_line", crate::bus::properties::text_line),
    ("toml", crate::config::properties::toml),
    ("topic", crate::hub::properties::topic),
];

/// Bytes as a source of choices. When they run out, every further choice is the first.
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Source(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub fn u64(&mut self) -> u64 {
        (0..4).fold(0, |number, _| number << 16 | u64::from(self.u16()))
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number within a range of at most 65536 numbers.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let width = range.end() - range.start() + 1;
        let number = if width <= 256 { usize::from(self.u8()) } else { usize::from(self.u16()) };
        range.start() + number % width
    }

    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.within(0..=of.len() - 1)]
    }

    /// At most so many bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece of a length that the bytes choose.
    pub fn piece(&mut self, most: usize) -> &'a [u8] {
        let length = self.within(0..=most);
        self.take(length)
    }

    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.piece(most)).into_owned()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}

/// Runs what is asynchronous in memory, on a clock that stands still until everything waits for it.
pub(crate) fn run<T>(what: impl std::future::Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(what)
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::path::{Path, PathBuf};

    use super::*;

    /// Longest random input.
    const BYTES_MAX: usize = 300;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = folder("corpus").join(name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    #[test]
    fn every_property_has_a_fuzz_target_and_a_corpus() {
        let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
        for (name, _) in ALL {
            let target = std::fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(target.contains(&format!("properties::{name}(")), "{name}");
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        }
        assert_eq!(std::fs::read_dir(folder("fuzz_targets")).unwrap().count(), ALL.len());
        assert_eq!(std::fs::read_dir(folder("corpus")).unwrap().count(), ALL.len());
    }

    #[test]
    fn every_file_of_the_corpus_keeps_its_property() {
        for (name, property) in ALL {
            let files = corpus(name);
            assert!(files.len() >= 8, "the corpus of {name} has {} files", files.len());
            for (path, bytes) in &files {
                // The file's name is shown only where it is needed: beside a panic's own message.
                if let Err(panic) = catch_unwind(|| property(bytes)) {
                    eprintln!("{name}: {}", path.display());
                    std::panic::resume_unwind(panic);
                }
            }
            println!("{name}: {} files", files.len());
        }
    }

    /// `FIELDBRIDGE_SEED` repeats a run; `FIELDBRIDGE_ROUNDS` (1000 by default) is the number of inputs a property.
    #[test]
    fn random_bytes_and_damaged_files_of_the_corpus_keep_every_property() {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let seed = number("FIELDBRIDGE_SEED").unwrap_or_else(|| fastrand::u64(..));
        let rounds = number("FIELDBRIDGE_ROUNDS").unwrap_or(1000);
        println!("seed {seed}, {rounds} inputs a property");
        for (name, property) in ALL {
            // Of its own for each, so that one can be repeated alone.
            let mut random = fastrand::Rng::with_seed(seed);
            let corpus = corpus(name);
            for _ in 0..rounds {
                let bytes = input(&mut random, &corpus);
                if let Err(panic) = catch_unwind(|| property(&bytes)) {
                    let least = shrunk(property, bytes);
                    eprintln!("seed {seed}: {name} does not hold for {}", least.escape_ascii());
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    fn input(random: &mut fastrand::Rng, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        let length = random.usize(..BYTES_MAX);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        if random.bool() {
            bytes = random.choice(corpus).expect("a corpus has files").1.clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..=bytes.len());
                let end = random.usize(at..=bytes.len().min(at + 8));
                let length = random.usize(..4);
                let with: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
                bytes.splice(at..end, with);
            }
        }
        bytes
    }

    /// The same failure in fewer bytes: pieces are left out as long as it stays one.
    fn shrunk(property: Property, mut bytes: Vec<u8>) -> Vec<u8> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut piece = bytes.len().max(1);
        while piece > 0 {
            let mut at = 0;
            while at < bytes.len() {
                let mut fewer = bytes.clone();
                fewer.drain(at..(at + piece).min(bytes.len()));
                match catch_unwind(AssertUnwindSafe(|| property(&fewer))) {
                    Ok(()) => at += piece,
                    Err(_) => bytes = fewer,
                }
            }
            piece /= 2;
        }
        std::panic::set_hook(hook);
        bytes
    }

    #[test]
    fn a_failure_is_shrunk_to_what_causes_it() {
        fn no_seven(bytes: &[u8]) {
            assert!(!bytes.contains(&7));
        }
        assert_eq!(shrunk(no_seven, vec![1, 2, 7, 3, 7, 4, 5]), [7]);
    }
}
