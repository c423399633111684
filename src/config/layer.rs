//! One source of the configuration, as the crate `config` merges it with others.

use config::{ConfigError, Map, Source, Value, ValueKind};

/// One source, ready to be merged.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// The file, or `environment`.
    pub source: String,
    /// Its top-level table.
    pub entries: Map<String, Value>,
}

/// The key that everything is merged under. The crate parses top-level keys as paths, so that a quoted `"hub.host"`
/// would become a table; below the top it takes them as they are.
pub(super) const ROOT: &str = "root";

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let root = Value::new(None, ValueKind::Table(self.entries.clone()));
        Ok(Map::from([(ROOT.to_owned(), root)]))
    }
}
