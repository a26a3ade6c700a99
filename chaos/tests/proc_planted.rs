//! The proof that the ring of real programs can fail. It runs programs that were built with defects: `make planted`
//! builds them, and `SONAE_BIN_DIR` names their folder.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use sonae_chaos::proc::missing;
use sonae_chaos::proc::planted::{ALL, Find, find};

/// Seconds of processors within which a planted defect is found.
const CPU_SECONDS_MAX: f64 = 60.0;

/// Goal: the ring sees defects of the engine through the real programs, and nothing where there is none. Method: plant
/// each for one run, and do the same without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_defects_are_found() {
    if let Some(what) = missing() {
        println!("not verified: {what}");
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    for (defect, troubles, seed) in ALL {
        let Find { violation, without, cpu_seconds, .. } =
            find(dir.path(), defect, troubles, seed).await.unwrap();
        println!("{defect}: {cpu_seconds:.1} s of CPU: {violation:?}");
        assert_eq!(without, None, "{defect} is not needed for that");
        assert!(violation.is_some(), "{defect} was not found");
        assert!(cpu_seconds < CPU_SECONDS_MAX, "{defect} took {cpu_seconds} s of CPU");
    }
}
