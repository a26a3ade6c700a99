//! Logs: to the journal of systemd when this process was started by it, to the terminal otherwise.
//!
//! Facts are key-values and the message is constant. Keys, payloads and people's data are never logged.

/// Starts logging. Failing to is no reason not to serve.
pub fn start() {
    if systemd_journal_logger::connected_to_journal()
        && let Ok(logger) = systemd_journal_logger::JournalLog::new()
        && logger.install().is_ok()
    {
        log::set_max_level(log::LevelFilter::Info);
        return;
    }
    let environment = env_logger::Env::default().default_filter_or("info");
    let _ = env_logger::Builder::from_env(environment).try_init();
}
