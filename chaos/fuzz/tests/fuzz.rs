//! What `make test` runs of each target: its corpus, a bounded number of inputs that grow out of it from a fixed
//! seed, and every bug that can be planted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sonae_fuzz::run::{Report, Until, replay, run};
use sonae_fuzz::targets::{ALL, find};
use sonae_fuzz::{Planted, Target, corpus};

/// The seed of all runs here.
const SEED: u64 = 1;

/// Executions in which a planted bug has to be found.
const BUG_EXECUTIONS_MAX: u64 = 4_000;

/// Set to anything: seeds that are missing are written. Those that exist are never touched.
const BLESS: &str = "SONAE_BLESS_CORPUS";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Where a failing input is left for `sonae-chaos fuzz --replay`.
fn keep(report: &Report) -> Vec<String> {
    let place = |number: usize| {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.{number}.input", report.target))
    };
    let kept = report.failures.iter().enumerate().map(|(number, failure)| {
        std::fs::write(place(number), &failure.input).unwrap();
        format!("{} (execution {}, {})", failure.broken, failure.execution, place(number).display())
    });
    kept.collect()
}

/// The corpus holds, a bounded run finds nothing, and it gets as deep as it must.
fn holds(name: &str) {
    let target = find(name).unwrap();
    let seeds = corpus::of(name);
    assert!(!seeds.is_empty());
    replay(target, seeds.iter().map(|(name, input)| (name.as_str(), *input)), Planted::NONE).unwrap();
    let report =
        run(target, &corpus::inputs(name), SEED, Until::Executions(target.executions()), Planted::NONE);
    assert_eq!(keep(&report), Vec::<String>::new(), "{name}");
    assert_eq!(report.executions, target.executions());
    let missed: Vec<&&str> =
        target.reaches().iter().filter(|class| !report.verdicts.contains_key(**class)).collect();
    assert!(missed.is_empty(), "{name} does not reach {missed:?}: {:?}", report.verdicts);
}

/// Every planted bug is found, by an input that shows nothing when no bug is planted.
fn finds_bugs(target: &dyn Target) {
    assert!(target.bugs().len() > 1, "{} has bugs to plant", target.name());
    for bug in target.bugs() {
        let planted = Planted::bug(bug);
        let until = Until::FirstFailure(BUG_EXECUTIONS_MAX);
        let report = run(target, &corpus::inputs(target.name()), SEED, until, planted);
        let failure = report.failures.first();
        let failure = failure.unwrap_or_else(|| panic!("{}: '{bug}' is missed", target.name()));
        assert!(target.judge(&failure.input, planted).is_err(), "{}: '{bug}' replays", target.name());
        assert_eq!(target.judge(&failure.input, Planted::NONE).err(), None, "{}: '{bug}'", target.name());
    }
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// The targets that are tested here.
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            /// Goal: no input breaks a property. Method: the corpus, and what grows out of it.
            #[test]
            fn holds() {
                super::holds(stringify!($name));
            }

            /// Goal: this target can fail. Method: plant each of its bugs.
            #[test]
            fn finds_planted_bugs() {
                super::finds_bugs(super::find(stringify!($name)).unwrap());
            }
        })*
    };
}

targets!(
    batch, payload, change, frame, receipt, document, snapshot, bundle, courier, object, heads, journal,
    store, roster, tables
);

/// Goal: no target is left out. Method: compare the list of tests with the list of targets.
#[test]
fn every_target_is_tested() {
    assert_eq!(ALL.map(Target::name).as_slice(), TESTED);
}

/// Goal: the corpus is what the product's writers write today, and nothing lies in the folder that is not used.
/// Method: compare files, embedded inputs and fresh seeds. `found-` are inputs that broke something once.
#[test]
fn the_corpus_is_pinned() {
    let mut wanted = BTreeSet::new();
    let blesses = std::env::var_os(BLESS).is_some();
    for target in ALL {
        let folder = folder().join(target.name());
        for (name, seed) in target.seeds() {
            let path = folder.join(name);
            if blesses && !path.exists() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &seed).unwrap();
            }
            // zip is compressed by a library, whose releases may do it otherwise; what age seals is new every time.
            if target.name() == "store" {
                let old = std::fs::read(&path).unwrap();
                let judged = [&old, &seed].map(|input| target.judge(input, Planted::NONE));
                assert_eq!(judged[0], judged[1], "{} is judged as what is written today", path.display());
            } else if name != "zip" && name != "bomb" && name != "frames" {
                assert!(std::fs::read(&path).unwrap() == seed, "{} is written as it was", path.display());
            }
        }
        for (name, input) in corpus::of(target.name()) {
            let path = folder.join(&name);
            // One that was just written is embedded with the next build.
            assert!(
                blesses || std::fs::read(&path).unwrap() == input,
                "{} is the embedded one",
                path.display()
            );
            assert!(
                name.starts_with("found-") || target.seeds().iter().any(|(seed, _)| *seed == name),
                "{name}"
            );
            wanted.insert(path);
        }
    }
    let folders = std::fs::read_dir(folder()).unwrap();
    let files = folders.flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap());
    let files: BTreeSet<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, wanted);
}

/// Goal: a seed means the same run every time. Method: twice, and another seed.
#[test]
fn runs_repeat() {
    let once = |seed| {
        let target = find("change").unwrap();
        run(target, &corpus::inputs("change"), seed, Until::Executions(600), Planted::NONE).verdicts
    };
    assert_eq!(once(1), once(1));
    assert_ne!(once(1), once(2));
}
