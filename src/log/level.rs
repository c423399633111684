//! How much the log says, changed while the daemon runs. The next start begins with `FIELDBRIDGE_LOG` again.

use std::sync::OnceLock;

use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

/// What is as much as one can say, from nothing to everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the log's filter is changed by, once there is one.
static HANDLE: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// A filter that [`set`] changes.
pub(super) fn changeable(filter: EnvFilter) -> reload::Layer<EnvFilter, Registry> {
    let (layer, handle) = reload::Layer::new(filter);
    // A second one stays as it is, like the rest of the log's settings.
    let _ = HANDLE.set(handle);
    layer
}

/// Sets it: a level, or a list of them by module, such as `info,fieldbridge::bus=debug`.
///
/// # Errors
/// What to write.
pub fn set(text: &str) -> Result<(), String> {
    let filter = read(text)?;
    let Some(handle) = HANDLE.get() else { return Err("this program keeps no log that could be changed".into()) };
    handle.reload(filter).map_err(|error| format!("the log stays as it is: {error}"))
}

fn read(text: &str) -> Result<EnvFilter, String> {
    let wrong = |part: &str| {
        let levels = LEVELS.join(", ");
        format!("{part:?} is not a level; write one of {levels}, or a list by module: info,fieldbridge::bus=debug")
    };
    for part in text.split(',') {
        // A word that is no level would be taken for the name of a module that is to say everything.
        let level = part.rsplit('=').next().unwrap_or_default();
        if !LEVELS.contains(&level) {
            return Err(wrong(part));
        }
    }
    EnvFilter::try_new(text).map_err(|_| wrong(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_a_list_by_module_and_a_slip_of_the_pen_is_neither() {
        for text in ["debug", "off", "info,fieldbridge::bus=debug", "fieldbridge::hub=trace"] {
            assert!(read(text).is_ok(), "{text}");
        }
        for text in ["", "debgu", "info,bus", "fieldbridge::bus=loud", "info,", "DEBUG "] {
            assert!(read(text).is_err_and(|why| why.contains("write one of off, error,")), "{text:?}");
        }
    }
}
