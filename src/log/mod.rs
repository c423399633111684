//! Logs: to the journal under systemd, with a line's device, command and outcome as fields; to standard error
//! elsewhere, with colour on a terminal.
//!
//! Filtered by the environment variable `FIELDBRIDGE_LOG` (`info` by default; e.g. `fieldbridge::bus=debug`), and by
//! what an operator sets while it runs ([`level`]). What a
//! peer can cause at will is bounded by [`crate::log::throttle`].

pub mod events;
mod journal;
pub mod level;
pub mod throttle;

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::LazyLock;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::EnvFilter;

use self::journal::{priority, Journal};
use crate::log::throttle::Throttle;

/// The budgets of this process's log.
static THROTTLE: LazyLock<Throttle> = LazyLock::new(Throttle::default);

/// Begins to log. Called once.
pub fn start() {
    let filter = EnvFilter::try_from_env("FIELDBRIDGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A line that can't be written (a full disk, a reader that went away) is lost. The library would report that to
    // standard error too, and panic when it can't.
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(level::changeable(filter)).with(THROTTLE.clone());
    // systemd sets JOURNAL_STREAM when standard error goes to the journal (systemd.exec(5)).
    let result = if let Some(journal) = Journal::of_this_service() {
        registry.with(journal).try_init()
    } else if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(lines.with_ansi(false).event_format(Prefixed)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
    };
    // A second call keeps the first's settings.
    let _ = result;
}

/// Tells of lines that were left out. Runs as long as the daemon does.
pub async fn report() {
    THROTTLE.report().await;
}

/// Tells of all lines that were left out and not told of yet.
pub fn end() {
    THROTTLE.report_all();
}

/// One line an event, with the priority in front that the journal takes off (sd-daemon(3)). The journal has the time.
struct Prefixed;

impl<S> FormatEvent<S, DefaultFields> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
