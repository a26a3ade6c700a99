//! A soak: all rings for as long as asked, two at a time, and one report of what they showed, added up over all runs of
//! one commit.
//!
//! Each ring is a process of its own, so that none takes the others with it; its report lies as JSON in the folder of
//! the run, `COMMIT/RUN/RING.json`, beside what it said (`RING.log`). The sums lie in `COMMIT/report.json`, and in
//! `COMMIT/report.md` for people.

mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use report::Report;
use report::Story;

/// A ring: how it is run, and what of its report is added up.
struct Ring {
    name: &'static str,
    /// Which of the two lanes it runs in, one after the other.
    lane: usize,
    /// Its part of the lane's time, against the other rings that run there; 0: it ends by itself.
    share: u64,
    /// Its arguments; `SECONDS` and `SEED` stand for its time and for a number that no other run has.
    arguments: &'static str,
    /// What is added up: the place in its report, and the name in the sum.
    sums: &'static [(&'static str, &'static str)],
    /// How one failure is run again; `SEED` stands for its seed.
    replay: &'static str,
}

/// All rings.
const RINGS: [Ring; 7] = [
    Ring {
        name: "sim",
        lane: 0,
        share: 100,
        arguments: "sim --from SEED --seeds 1000000000 --seconds SECONDS --planted --json",
        sums: &[
            ("/seeds", "seeds"),
            ("/distinct_traces", "distinct traces"),
            ("/simulated_days", "simulated days"),
            ("/crash_and_heal_cycles", "crash-and-heal cycles"),
            ("/acknowledged_changes", "acknowledged changes"),
            ("/school_days", "school days of 1,000 changes"),
        ],
        replay: "make replay RING=sim SEED=SEED",
    },
    Ring {
        name: "exhaustive",
        lane: 1,
        share: 0,
        arguments: "",
        sums: &[("/cuts", "simulated cuts"), ("/eio", "EIO"), ("/enospc", "ENOSPC")],
        replay: "make exhaustive",
    },
    Ring {
        name: "adversary",
        lane: 1,
        share: 20,
        arguments: "adversary --from SEED --cases 1000000000 --seconds SECONDS --planted --json",
        sums: &[
            ("/adversarial_cases", "adversarial cases"),
            ("/honest_runs", "honest runs"),
            ("/undetected", "undetected"),
            ("/false_alarms", "false alarms"),
            ("/distinct_traces", "distinct traces"),
        ],
        replay: "make replay RING=adversary SEED=SEED",
    },
    Ring {
        name: "simnet",
        lane: 1,
        share: 10,
        arguments: "simnet --from SEED --seeds 1000000000 --seconds SECONDS --planted --json",
        sums: &[
            ("/seeds", "seeds"),
            ("/distinct_traces", "distinct traces"),
            ("/replayed", "runs that gave the same digest again"),
            ("/simulated_seconds", "simulated seconds"),
            ("/datagrams", "datagrams"),
            ("/acknowledged", "acknowledged writes"),
        ],
        replay: "make replay RING=simnet SEED=SEED",
    },
    Ring {
        name: "fuzz",
        lane: 1,
        share: 10,
        arguments: "fuzz --seconds SECONDS --seed SEED --json",
        sums: &[("/executions", "executions")],
        replay: "sonae-chaos fuzz --replay FILE",
    },
    Ring {
        name: "proc",
        lane: 1,
        share: 20,
        arguments: "proc --from SEED --seeds 1000000000 --seconds SECONDS --json",
        sums: &[
            ("/seeds", "seeds"),
            ("/distinct_scripts", "distinct scripts"),
            ("/tally/starts", "starts after a crash"),
            ("/tally/cuts", "file system cuts"),
            ("/tally/site_cuts", "file system cuts of sites"),
            ("/tally/faults", "faults met"),
            ("/tally/rebuilds", "rebuilds"),
            ("/tally/acknowledged", "acknowledged writes"),
            ("/tally/looks", "looks"),
        ],
        replay: "make replay RING=proc SEED=SEED",
    },
    Ring {
        name: "power-cut",
        lane: 1,
        share: 40,
        arguments: "drill power-cut --rounds 1000000000 --seconds SECONDS --seed SEED --json",
        sums: &[
            ("/rounds", "rounds"),
            ("/cuts", "file system cuts"),
            ("/faults_met", "faults met"),
            ("/acknowledged", "acknowledged writes"),
            ("/lost", "lost"),
            ("/sequences_lost", "sequences lost"),
        ],
        replay: "sonae-chaos drill power-cut --seed SEED",
    },
];

fn named(names: &[String]) -> Result<Vec<&'static Ring>> {
    if let Some(unknown) = names.iter().find(|name| RINGS.iter().all(|ring| ring.name != name.as_str())) {
        let known: Vec<_> = RINGS.iter().map(|ring| ring.name).collect();
        bail!("there is no ring {unknown}; there are {}", known.join(", "));
    }
    Ok(RINGS.iter().filter(|ring| names.is_empty() || names.iter().any(|name| name == ring.name)).collect())
}

/// Runs the rings of these names, all if there is none, for so many seconds, or nothing, and prints what all runs of the
/// commit have shown.
///
/// # Errors
/// A name that no ring has, what a ring objects to, or what kept it from running.
pub fn run_or_sum(dir: &Path, commit: &str, rings: &[String], seconds: Option<u64>) -> Result<()> {
    let report = match seconds {
        Some(seconds) => run(dir, commit, &named(rings)?, seconds)?,
        None => summarise(&dir.join(commit), commit)?,
    };
    write!(std::io::stdout(), "{}", report.text()?)?;
    if report.failures.is_empty() { Ok(()) } else { bail!("{} objection(s)", report.failures.len()) }
}

/// Runs rings for so many seconds.
///
/// # Errors
/// When a ring cannot be started. What it objects to stands in its report and log.
fn run(dir: &Path, commit: &str, rings: &[&Ring], seconds: u64) -> Result<Report> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let folder = dir.join(commit).join(now.to_string());
    std::fs::create_dir_all(&folder)?;
    std::thread::scope(|scope| {
        let lane = |lane| {
            let folder = &folder;
            scope.spawn(move || -> Result<()> {
                let rings = || rings.iter().filter(|ring| ring.lane == lane);
                let shares: u64 = rings().map(|ring| ring.share).sum();
                rings().try_for_each(|ring| ring.run(folder, seconds * ring.share / shares.max(1), now))
            })
        };
        for lane in [lane(0), lane(1)] {
            lane.join().map_err(|_| anyhow::anyhow!("a lane of the soak ended badly"))??;
        }
        anyhow::Ok(())
    })?;
    summarise(&dir.join(commit), commit)
}

impl Ring {
    fn run(&self, folder: &Path, seconds: u64, now: u64) -> Result<()> {
        let [out, log] = ["json", "log"].map(|end| folder.join(format!("{}.{end}", self.name)));
        let mut command = if self.name == "exhaustive" {
            let mut command = Command::new("cargo");
            command.args(["test", "--workspace", "--test", "exhaustive", "--", "--nocapture"]);
            command.env("SONAE_EXHAUSTIVE", "all");
            command
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            let filled = |argument: &str| match argument {
                "SECONDS" => seconds.to_string(),
                // Runs begin with a second between them, and no ring runs more than so many seeds in one.
                "SEED" => (now * 1_000).to_string(),
                argument => argument.to_owned(),
            };
            command.args(self.arguments.split(' ').map(filled));
            command
        };
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&log)?);
        let status = command.status().with_context(|| format!("cannot start the ring {}", self.name))?;
        // A report may be empty; the word of the process counts too.
        std::fs::write(folder.join(format!("{}.exit", self.name)), status.code().unwrap_or(-1).to_string())?;
        Ok(())
    }

    /// Adds what one run showed.
    fn add(&self, folder: &Path, report: &mut Report) -> Result<()> {
        let [out, log, exit] = ["json", "log", "exit"].map(|end| folder.join(format!("{}.{end}", self.name)));
        let Ok(exit) = std::fs::read_to_string(exit) else { return Ok(()) };
        let shown = read(&out)?;
        if exit.trim() != "0" {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said = said.lines().last().unwrap_or("nothing").to_owned();
            report.failures.push(format!(
                "{}: ended with {}: {said}; see {}",
                self.name,
                exit.trim(),
                log.display()
            ));
        }
        let sums = report.rings.entry(self.name).or_default();
        for (place, name) in self.sums {
            *sums.entry(name).or_default() += shown.pointer(place).and_then(Value::as_f64).unwrap_or(0.0);
        }
        for failure in list(&shown, "failures") {
            let text = |key: &str| {
                failure.get(key).map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
            };
            let seed = text("seed").unwrap_or_default();
            let what = text("violation").or_else(|| text("broken")).unwrap_or_default();
            let again = self.replay.replace("SEED=SEED", &format!("SEED={seed}"));
            let again = again.replace("FILE", &text("file").unwrap_or_default());
            let failed = format!("{}: {what}; `{again}`", self.name);
            report.stories.extend(failure.get("story").and_then(|story| Story::read(&failed, story)));
            report.failures.push(failed);
        }
        for (point, count) in shown.get("crash_points").and_then(Value::as_object).into_iter().flatten() {
            *report.crash_points.entry(point.clone()).or_default() += count.as_f64().unwrap_or(0.0);
        }
        let planted = report.planted.entry(self.name).or_default();
        for find in list(&shown, "planted") {
            let name = find.get("defect").and_then(Value::as_str).unwrap_or_default().to_owned();
            let seconds = find.get("cpu_seconds").and_then(Value::as_f64).unwrap_or(0.0);
            let most = planted.entry(name).or_default();
            *most = most.max(seconds);
        }
        Ok(())
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Reads a report: one JSON object, or lines of objects whose numbers are added up.
fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Ok(value) = serde_json::from_str::<Value>(&text) {
        return Ok(value);
    }
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    // Tests say their names on the same line.
    let objects = text.lines().filter_map(|line| line.find('{').and_then(|at| line.get(at..)));
    for object in objects.filter_map(|line| serde_json::from_str::<BTreeMap<String, Value>>(line).ok()) {
        for (key, value) in object {
            *sums.entry(key).or_default() += value.as_f64().unwrap_or(0.0);
        }
    }
    Ok(serde_json::to_value(sums)?)
}

/// Adds up all runs of a commit, and writes the report.
///
/// # Errors
/// When a report cannot be read or written.
pub fn summarise(dir: &Path, commit: &str) -> Result<Report> {
    let mut report = Report { commit: commit.to_owned(), ..Report::default() };
    let entries = std::fs::read_dir(dir).with_context(|| format!("there is no run in {}", dir.display()))?;
    let mut runs: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    runs.sort();
    for folder in &runs {
        RINGS.iter().try_for_each(|ring| ring.add(folder, &mut report))?;
    }
    report.runs = runs.len();
    report.judge();
    if report.rings.is_empty() {
        bail!("no ring has run in {}", dir.display());
    }
    std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(&report)?)?;
    std::fs::write(dir.join("report.md"), report.text()?)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, ring: &str, out: &str, exit: &str) {
        std::fs::create_dir_all(folder).unwrap();
        for (end, text) in [("json", out), ("exit", exit), ("log", "said this\n")] {
            std::fs::write(folder.join(format!("{ring}.{end}")), text).unwrap();
        }
    }

    /// Goal: a misspelt ring is no run of nothing. Method: names of rings, none and a wrong one.
    #[test]
    fn rings_have_names() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            named(&names).map(|rings| rings.iter().map(|ring| ring.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["proc", "sim"]).unwrap(), ["sim", "proc"]);
        assert_eq!(names(&[]).unwrap().len(), RINGS.len());
        assert!(names(&["sim", "smi"]).unwrap_err().to_string().contains("smi; there are sim, exhaustive"));
    }

    /// Goal: runs of a commit are added up, and no failure is forgotten. Method: two runs with reports of each kind, one
    /// of them failing, one whose process ended badly without a report.
    #[test]
    fn runs_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        write(
            &first,
            "sim",
            r#"{"seeds": 2, "distinct_traces": 2, "crash_points": {"box before it seals": 1}, "planted": [{"defect": "A", "cpu_seconds": 2}, {"defect": "B", "cpu_seconds": 61}]}"#,
            "0",
        );
        let failing = r#"{"seeds": 3, "distinct_traces": 1, "school_days": 50, "crash_points": {"box before it seals": 2},
            "failures": [{"seed": 7, "violation": "lost", "story": {"of_actions": 40, "script": ["Box(0, Idle), then 5 ms"]}}]}"#;
        write(&second, "sim", failing, "1");
        write(
            &first,
            "exhaustive",
            "running 2 tests\ntest a ... {\"place\":\"a\",\"cuts\":3,\"eio\":1}\n{\"cuts\":4}\nok\n",
            "0",
        );
        write(&second, "proc", "", "101");
        write(&first, "proc", r#"{"seeds": 90, "distinct_scripts": 89, "tally": {"cuts": 1000}}"#, "0");
        let cut = r#"{"rounds": 9, "cuts": 4000, "planted": [{"defect": "C", "cpu_seconds": 58}]}"#;
        write(&first, "power-cut", cut, "0");
        let report = summarise(dir.path(), "abc").unwrap();
        assert_eq!(report.runs, 2);
        assert_eq!(report.rings["sim"]["seeds"], 5.0);
        assert_eq!(report.rings["exhaustive"]["simulated cuts"], 7.0);
        assert_eq!(report.planted["sim"]["A"], 2.0);
        let failures = report.failures.join("\n");
        for expected in [
            "sim: lost; `make replay RING=sim SEED=7`",
            "sim: ended with 1: said this",
            "proc: ended with 101",
            "sim: B was found after 61 s",
            "sim: of 5 runs only 3 were distinct",
            "proc: of 90 runs only 89 were distinct",
            "all planted defects took 121 s",
        ] {
            assert!(failures.contains(expected), "{failures}");
        }
        let text = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
        for expected in [
            "| sim | seeds | 5 |",
            "7 objection(s)",
            "| box before it seals | 3 |",
            "1,000 changes each: 0.25",
            "| file system cuts | 5000 | 5000 | reached |",
            "| adversarial cases | 100000 | 0 | not reached yet |",
            "SEED=7`, with 1 of 40 actions:\n\n- `Box(0, Idle), then 5 ms`",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
