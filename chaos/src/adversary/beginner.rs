//! A box that begins with snapshots as a victim: empty, or with logs of tier 0; and what the oracle asks of it.

use anyhow::{Context, Result};
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::snapshot::SnapshotRoot;
use sonae_proto::vector::{Heads, LogHead};

use super::album::Made;
use super::appliance::{Appliance, Kept};
use super::boxes::{CONNECTIONS, Times, contradicted, holds_foreign};
use super::history::{History, State};
use super::judge::Facts;
use super::options::{Mutation, Options};
use super::proxy::Proxy;
use super::signal::Signal;

/// Whether a tier begins with what no replica made, or with what the board does not accept.
fn is_founded_wrongly(history: &History, victim: &Appliance<'_>, revoked: bool) -> Result<bool> {
    let album = history.album()?;
    let lets = |root: &SnapshotRoot| !revoked || album.word.lets(history, root);
    Ok(victim.laid.values().any(|(_, root)| !album.is_genuine(root) || !lets(root)))
}

/// What a cloud names of logs of which it has not less than is held here. Of the others a box that has just begun cannot
/// tell another history from an older one: it finds out when it brings the rest to the cloud.
fn not_behind(heads: &Heads, victim: &Appliance<'_>) -> Heads {
    let held = |log: &LogName| victim.engine.peer_heads().get(log).map_or(0, |head| head.sequence);
    let is_behind = |(log, head): &(&LogName, &LogHead)| head.sequence < held(log);
    heads.iter().filter(|named| !is_behind(named)).map(|(log, head)| (*log, *head)).collect()
}

pub(crate) fn begun(history: &History, options: &Options) -> Result<Facts> {
    let of_snapshots = options.snapshots.as_ref().context("a case of snapshots says how")?;
    let (times, album) = (Times::of(history, options), history.album()?);
    let life = history.board.begin(&history.board.school, "fresh", "fresh", Beginning::Rebuild)?;
    let counted =
        |heads: Heads| if of_snapshots.revoked { album.word.within(history, &heads) } else { heads };
    let mut held = counted(history.heads_at(times.held));
    held.retain(|log, _| log.tier == Tier::Safety && of_snapshots.holds_safety);
    let kept = Kept {
        batches: history.batches_up_to(&held),
        epoch: 1,
        takes_snapshots: true,
        knows_revoked: of_snapshots.revoked,
        ..Kept::default()
    };
    let mut proxy = Proxy::new(history, options, times.now, &life)?;
    let mut victim = Appliance::start(history, life.clone(), kept)?;
    if of_snapshots.at_once {
        victim.engine.ask_at_once();
    }
    victim.meet(&mut proxy, CONNECTIONS);
    // What the cloud names of a revoked device behind what counts, says nothing to anybody.
    for heads in &mut victim.welcomes {
        *heads = counted(std::mem::take(heads));
    }
    let expected = counted(history.heads_at(times.now));
    let wanted = history.state_of(&history.batches_up_to(&expected))?;
    let mut facts = Facts {
        exact: victim.state() == wanted,
        must_say: victim.welcomes.last().is_some_and(|heads| victim.missing(&not_behind(heads, &victim)) > 0),
        contradicted: contradicted(&victim, 0, &Heads::new()),
        kept_foreign: holds_foreign(history, &victim)
            || victim.kept_unnamed
            || is_founded_wrongly(history, &victim, of_snapshots.revoked)?,
        done: proxy.done.clone(),
        notes: [proxy.notes.clone(), victim.notes.clone()].concat(),
        signals: victim.signals.clone(),
        begun: victim.laid.len(),
        ..Facts::default()
    };
    // The logs are all there, and nobody has touched them: whatever became of snapshots, the box comes to the same.
    let unharmed = !of_snapshots.everywhere && !facts.exact && facts.signals.is_empty();
    facts.must_say |= unharmed;
    let is_ahead = |made: &&Made| made.moment > times.now;
    let ahead: Vec<Hash32> = album.made.iter().filter(is_ahead).map(|made| made.snapshot.hash()).collect();
    if !victim.engine.is_renewing() && !victim.laid.values().any(|(root, _)| ahead.contains(root)) {
        let mut honest = Proxy::new(history, &options.honest(), times.now, &life)?;
        recover(options, &mut victim, &mut honest, &wanted, &mut facts);
    }
    Ok(facts)
}

/// Afterwards it meets the honest cloud, and becomes whole: an attack on snapshots costs nothing but time. Who has taken
/// the other branch of a real fork keeps it; who holds more than this cloud does, or ends its incarnation, is not asked.
fn recover(
    options: &Options,
    victim: &mut Appliance<'_>,
    honest: &mut Proxy<'_>,
    wanted: &State,
    facts: &mut Facts,
) {
    victim.meet(honest, CONNECTIONS);
    if victim.state() == *wanted {
        return;
    }
    facts.signals.insert(Signal::Witness);
    if !options.mutations.contains(&Mutation::Fork) {
        facts.must_say = true;
        facts.exact = false;
        facts.signals.clear();
        facts.notes.push(format!("it does not recover: {:?} {:?}", victim.signals, victim.notes));
    }
}
