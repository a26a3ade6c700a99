//! The judge: compares what a recovered store holds with what is known from outside.

use std::collections::BTreeMap;
use std::path::Path;

use sonae_journal::sim::SimDisk;
use sonae_proto::ids::LogName;
use sonae_store::options::Options;
use sonae_store::testing::Stepped;
use sonae_store::{Action, Edit};

use crate::rig::{Claims, ask, essence};
use crate::world::{open_own, scratch};

/// Files of a view, as somebody copied them.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Copies a view's files, those of its folders too.
pub fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.insert(name, bytes);
        }
    }
    found
}

fn lay_out(dir: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// What may have survived.
pub struct Expected<'a> {
    /// The essences that are right.
    pub essences: Vec<&'a str>,
    pub claims: &'a Claims,
    pub bytes: &'a BTreeMap<(LogName, u64), Vec<u8>>,
}

/// Opens what a disk holds, with a view that may be missing or of another time, and says what is wrong. Then
/// goes on: writes, seals, closes, opens.
pub fn judge(
    disk: &SimDisk,
    view: Option<&Files>,
    options: &Options,
    wanted: &Expected<'_>,
) -> Result<(), String> {
    let dir = scratch();
    let (with_view, without) = (dir.path().join("with"), dir.path().join("without"));
    if let Some(files) = view {
        lay_out(&with_view, files);
    }
    let other = disk.fork();
    let open = |disk: &SimDisk, view: &Path| {
        let opened = open_own(disk, view, options);
        opened.map_err(|error| format!("does not open: {error}: {error:?}"))
    };
    let (mut stepped, _) = open(disk, &with_view)?;
    let found = essence(&stepped);
    if !wanted.essences.contains(&found.as_str()) {
        return Err(difference(&found, &wanted.essences));
    }
    check_claims(&mut stepped, wanted)?;
    if view.is_some() {
        let (rebuilt, _) = open(&other, &without)?;
        if essence(&rebuilt) != found {
            return Err(format!(
                "the view differs from a rebuilt one\n{}",
                difference(&found, &[&essence(&rebuilt)])
            ));
        }
    }
    let (edits, store) = (
        vec![Edit {
            collection: "student".into(),
            record: "after".into(),
            fields: BTreeMap::from([("grade".into(), "P6".into())]),
            seen: None,
        }],
        stepped.store.clone(),
    );
    let action = Action { edits, ..Action::default() };
    ask(&mut stepped, async move { store.write(action).await })
        .map_err(|error| format!("afterwards: {error}"))?;
    let after = essence(&stepped);
    stepped.close();
    let (mut stepped, _) = open(disk, &with_view)?;
    if essence(&stepped) != after {
        return Err(format!("after going on: {}", difference(&essence(&stepped), &[&after])));
    }
    check_claims(&mut stepped, wanted)
}

fn check_claims(stepped: &mut Stepped, wanted: &Expected<'_>) -> Result<(), String> {
    let store = stepped.store.clone();
    let held = ask(stepped, async move { store.held().await }).map_err(|error| format!("held: {error}"))?;
    for ((log, first), header) in &wanted.claims.told {
        if !held.get(log).is_some_and(|headers| headers.contains(header)) {
            return Err(format!("{log} {first} was told as sealed and is not there"));
        }
        let (store, log, first) = (stepped.store.clone(), *log, *first);
        let bytes = ask(stepped, async move { store.batch(log, first).await });
        if wanted.bytes.get(&(log, first)).is_some_and(|sent| bytes.as_ref() != Some(sent)) {
            return Err(format!("{log} {first} has other bytes than were handed out"));
        }
    }
    let state = stepped.store.state();
    for (log, safe) in &stepped.evidence.safe {
        if !wanted.claims.receipted.contains(&(*log, safe.head)) {
            return Err(format!("{log} is called safe up to {}, without a receipt", safe.head.sequence));
        }
        if !held.get(log).is_some_and(|headers| headers.iter().any(|header| header.head() == safe.head)) {
            return Err(format!("{log} is called safe up to {}, which is not held", safe.head.sequence));
        }
    }
    let (answered, asked) = wanted.claims.loss;
    if !(answered..=asked).contains(&state.loss_counter) {
        return Err(format!("loss counter {}, answered {answered}, asked {asked}", state.loss_counter));
    }
    if let Some(failed) = state.failed {
        return Err(format!("it has failed: {failed}"));
    }
    Ok(())
}

/// Says where what was found leaves what was wanted.
fn difference(found: &str, wanted: &[&str]) -> String {
    let mut text = String::from("another state:");
    for wanted in wanted {
        let wrong = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        let short = |line: &str| line.chars().take(600).collect::<String>();
        match wrong {
            Some((found, wanted)) => {
                text += &format!("\n  found  {}\n  wanted {}", short(found), short(wanted))
            }
            None => {
                text += &format!("\n  {} lines, wanted {}", found.lines().count(), wanted.lines().count())
            }
        }
    }
    text
}
