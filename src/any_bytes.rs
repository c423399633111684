//! What must hold for any bytes from outside (G8), as functions of bytes that panic where it doesn't.
//!
//! The properties stand beside what they are about, one module a layer; this is their list. The fuzz targets in `fuzz/`
//! run the same functions as the tests below, so a crash that a fuzzer finds becomes a file of the corpus and is tested
//! from then on. Tests only: releases are built without the feature `proof`.

/// A property: takes any bytes, panics if something about them does not hold.
pub type Property = fn(&[u8]);

/// Every property by its name, which is that of its fuzz target and of its corpus.
pub const ALL: &[(&str, Property)] = &[
    ("admin", crate::operate::admin::any_bytes::admin),
    #[cfg(feature = "amqp")]
    ("amqp", crate::amqp::any_bytes::amqp),
    #[cfg(feature = "amqp")]
    ("amqp_message", crate::hub::amqp::any_bytes::amqp_message),
    #[cfg(feature = "backend")]
    ("backend", crate::backend::any_bytes::backend),
    ("credential", crate::config::any_bytes::credential),
    ("description", crate::import::any_bytes::description),
    ("frames", crate::bus::any_bytes::frames),
    #[cfg(feature = "https")]
    ("https", crate::hub::https::any_bytes::https),
    ("late", crate::bus::any_bytes::late),
    ("message", crate::command::any_bytes::message),
    ("modbus_rtu", crate::bus::any_bytes::modbus_rtu),
    ("modbus_tcp", crate::bus::any_bytes::modbus_tcp),
    ("mqtt", crate::hub::any_bytes::mqtt),
    ("provisioning", crate::provisioning::any_bytes::provisioning),
    ("registers", crate::peripheral::any_bytes::registers),
    ("rtu_line", crate::bus::any_bytes::rtu_line),
    ("sas", crate::hub::any_bytes::sas),
    ("session", crate::hub::any_bytes::session),
    ("show", crate::operate::text::any_bytes::show),
    ("text_line", crate::bus::any_bytes::text_line),
    ("toml", crate::config::any_bytes::toml),
    ("topic", crate::hub::any_bytes::topic),
    ("way", crate::hub::way::any_bytes::way),
];

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
        for &(name, _) in ALL {
            let target = std::fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(target.contains(&format!("any_bytes::{name}(")), "{name}");
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        }
        assert_eq!(std::fs::read_dir(folder("fuzz_targets")).unwrap().count(), ALL.len());
        assert_eq!(std::fs::read_dir(folder("corpus")).unwrap().count(), ALL.len());
    }

    #[test]
    fn every_file_of_the_corpus_keeps_its_property() {
        for &(name, property) in ALL {
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
        for &(name, property) in ALL {
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
