//! What the programs under test log. An ERROR is a violation, unless the run has brought it about on purpose.

use std::cell::RefCell;
use std::fmt::Write as _;

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Log, Metadata, Record};

thread_local! {
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Alarms that troubles of the script cause.
const EXPECTED: [&str; 2] = ["code=stalled", "fewer sites than the quorum could be written"];

/// Lines that are kept between two looks at most.
const LINES_MAX: usize = 10_000;

struct Logger;

struct Pairs(String);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let _ = write!(self.0, " {key}={value}");
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sonae")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut pairs = Pairs(format!("{} {}", record.level(), record.args()));
        let _ = record.key_values().visit(&mut pairs);
        let line = pairs.0;
        if record.level() == Level::Error && !EXPECTED.iter().any(|expected| line.contains(expected)) {
            ERRORS.with_borrow_mut(|errors| errors.push(line.clone()));
        }
        LINES.with_borrow_mut(|lines| {
            if lines.len() < LINES_MAX {
                lines.push(line);
            }
        });
    }

    fn flush(&self) {}
}

/// Begins to listen on this thread.
pub(crate) fn listen() {
    static LOGGER: Logger = Logger;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Takes the oldest unexpected error.
pub(crate) fn take_error() -> Option<String> {
    ERRORS.with_borrow_mut(|errors| (!errors.is_empty()).then(|| errors.remove(0)))
}

/// Takes what was logged since the last time.
pub(crate) fn take_lines() -> Vec<String> {
    LINES.take()
}
