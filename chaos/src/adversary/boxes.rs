//! Boxes as victims: one that has run for a while, and fresh ones that are rebuilt.

use anyhow::Result;
use sonae_proto::batch::Batch;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::LogName;
use sonae_proto::vector::{Heads, LogHead};

use super::appliance::{Appliance, Kept};
use super::cloud::Cloud;
use super::history::History;
use super::judge::Facts;
use super::options::{Options, Victim};
use super::proxy::Proxy;
use super::signal::Signal;
use super::{Mutation, is_expected};
use crate::random::Random;

/// Connections that a box makes at most while it is attacked, and afterwards.
pub(crate) const CONNECTIONS: usize = 4;

/// What a box knows and what the cloud has in a case: moments of the history.
pub(crate) struct Times {
    /// Up to here the box holds peers' logs.
    pub held: usize,
    /// Up to here it has seen the cloud.
    pub seen: usize,
    /// What the cloud has now.
    pub now: usize,
}

impl Times {
    pub fn of(history: &History, options: &Options) -> Self {
        let mut random = Random::new(options.seed, "adversary times");
        let count = history.moments.len();
        // In the first three moments the box begins.
        let seen = 2 + random.index(count - 2);
        Self { held: random.index(seen + 1), seen, now: seen + random.index(count - seen) }
    }
}

/// Own batches of the first replica, and of others up to some heads.
pub(crate) fn batches(history: &History, own: &Heads, others: &Heads) -> Vec<Batch> {
    let life = &history.lives[0];
    let heads = own
        .iter()
        .filter(|(log, _)| log.incarnation == life.name)
        .chain(others.iter().filter(|(log, _)| log.incarnation != life.name));
    history.batches_up_to(&heads.map(|(log, head)| (*log, *head)).collect())
}

/// Heads of the first replica's own logs.
pub(crate) fn own_heads(history: &History, heads: &Heads) -> Heads {
    let name = history.lives[0].name;
    heads.iter().filter(|(log, _)| log.incarnation == name).map(|(log, head)| (*log, *head)).collect()
}

/// Whether a box holds a batch that nobody sealed, or that continues nothing.
pub(crate) fn holds_foreign(history: &History, appliance: &Appliance<'_>) -> bool {
    appliance.held.values().any(|batches| {
        let mut head = batches.first().map_or(LogHead::EMPTY, |batch| appliance.base(batch.header().log));
        batches.iter().any(|batch| {
            let continues = batch.header().continues(&head);
            head = batch.header().head();
            !continues || !history.is_genuine(batch.bytes())
        })
    })
}

pub(crate) fn running(history: &History, options: &Options) -> Result<Facts> {
    let times = Times::of(history, options);
    let life = history.lives[0].clone();
    let (seen, end) = (history.heads_at(times.seen), history.heads_at(history.moments.len() - 1));
    let counter = u64::from(options.mutations.contains(&Mutation::OldReceipt));
    let kept = Kept {
        batches: batches(history, &seen, &history.heads_at(times.held)),
        receipted: own_heads(history, &seen),
        loss_counter: counter,
        epoch: 1,
        ..Kept::default()
    };
    let mut victim = Appliance::start(history, life.clone(), kept)?;
    let mut before = Proxy::honest(history, options, history.cloud_at(times.seen), &life)?;
    victim.meet(&mut before, CONNECTIONS);
    let calm = victim.welcomes.len();
    anyhow::ensure!(victim.signals.is_empty(), "a calm start is alarming: {:?}", victim.notes);
    let known = history.batches_up_to(&own_heads(history, &end));
    let sealed = known.iter().filter(|batch| {
        let log = batch.header().log;
        batch.header().last > seen.get(&log).map_or(0, |head| head.sequence)
    });
    sealed.for_each(|batch| victim.seal(batch));

    let mut proxy = Proxy::new(history, options, times.now, &life)?;
    victim.meet(&mut proxy, CONNECTIONS);
    let expected = history.state_of(&batches(history, &end, &history.heads_at(times.now)))?;
    let mut facts = Facts {
        exact: victim.state() == expected,
        must_say: lacks(&victim, calm),
        contradicted: contradicted(&victim, calm, &seen),
        kept_foreign: holds_foreign(history, &victim),
        lied: proxy.lied,
        ..Facts::default()
    };
    let raised = victim.engine.receipted().into_iter().filter(|(log, head)| seen.get(log) != Some(head));
    let is_held = |cloud: &Cloud, head| cloud.holds(head);
    facts.false_safe = raised.into_iter().any(|(_, head)| {
        !is_held(&proxy.honest, head) && !proxy.shadow.as_ref().is_some_and(|c| is_held(c, head))
    });
    let mut outside = history.heads_at(times.now);
    outside.extend(victim.engine.receipted());
    if victim.missing(&history.heads_at(times.now)) > 0 && is_expected() {
        facts.signals.insert(Signal::Witness);
    }
    facts.signals.extend(victim.signals.iter().copied());
    facts.done.clone_from(&proxy.done);
    facts.notes = [proxy.notes.clone(), victim.notes.clone()].concat();
    let cloud = std::mem::replace(&mut proxy.honest, history.cloud_at(0));
    if facts.lied && facts.false_safe {
        // The lie comes out where somebody rebuilds with the heads that the box has.
        let fresh = fresh(history, options, cloud)?;
        if fresh.missing(&outside) > 0 && is_expected() {
            facts.signals.insert(Signal::Witness);
        }
    } else {
        recover(history, options, &victim, cloud, &mut facts)?;
    }
    Ok(facts)
}

/// Whether what a welcome names contradicts heads that were shown before.
fn contradicts(shown: &Heads, claimed: &Heads) -> bool {
    shown.iter().any(|(log, known)| {
        let there = claimed.get(log).copied().unwrap_or(LogHead::EMPTY);
        there.sequence < known.sequence || (there.sequence == known.sequence && there.hash != known.hash)
    })
}

/// Whether a box does not have what it was shown last.
pub(crate) fn lacks(victim: &Appliance<'_>, calm: usize) -> bool {
    let shown = victim.welcomes.get(calm..).unwrap_or_default();
    shown.last().is_some_and(|heads| victim.missing(heads) > 0)
}

/// Whether a box was shown what contradicts what it had been shown before, or a head of its own log that it has not.
pub(crate) fn contradicted(victim: &Appliance<'_>, calm: usize, seen: &Heads) -> bool {
    let shown = victim.welcomes.get(calm..).unwrap_or_default();
    let own = |log: &LogName| log.incarnation == victim.life.name;
    let of_peers = |heads: &Heads| -> Heads {
        heads.iter().filter(|(log, _)| !own(log)).map(|(log, head)| (*log, *head)).collect()
    };
    let is_invented = |heads: &Heads| {
        heads.iter().any(|(log, head)| own(log) && *head != LogHead::EMPTY && !victim.has_head(*log, *head))
    };
    // What it has of own changes without a receipt, the cloud may lose: nobody called that safe.
    shown.iter().any(|heads| contradicts(seen, heads) || is_invented(heads))
        || shown.windows(2).any(|pair| contradicts(&of_peers(&pair[0]), &of_peers(&pair[1])))
}

/// After the attack the box starts again and meets the honest cloud: nothing that it had is lost, and it becomes
/// whole, unless it begins a new incarnation or has taken the other branch of a real fork.
fn recover(
    history: &History,
    options: &Options,
    victim: &Appliance<'_>,
    cloud: Cloud,
    facts: &mut Facts,
) -> Result<()> {
    if victim.engine.is_renewing() {
        return Ok(());
    }
    let kept = Kept {
        batches: victim.held.values().flatten().cloned().collect(),
        receipted: victim.engine.receipted(),
        loss_counter: victim.engine.loss_counter(),
        epoch: 1,
        ..Kept::default()
    };
    let mut again = Appliance::start(history, victim.life.clone(), kept)?;
    let before = again.state();
    anyhow::ensure!(before == victim.state(), "a box that starts again has another view");
    let mut proxy = Proxy::honest(history, options, cloud, &victim.life)?;
    again.meet(&mut proxy, CONNECTIONS);
    let there = proxy.honest.heads(&history.board);
    let forked = options.mutations.contains(&Mutation::Fork);
    if again.missing(&there) > 0 && !forked && !again.engine.is_renewing() {
        facts.must_say = true;
        facts.exact = false;
        facts.signals.clear();
        facts.notes.push(format!("it does not recover: {:?} {:?}", again.signals, again.notes));
    }
    Ok(())
}

/// A fresh box rebuilds from a cloud that nobody stands before.
pub(crate) fn fresh<'a>(history: &'a History, options: &Options, cloud: Cloud) -> Result<Appliance<'a>> {
    let life = history.board.begin(&history.board.school, "fresh", "fresh", Beginning::Rebuild)?;
    let mut proxy = Proxy::honest(history, options, cloud, &life)?;
    let mut fresh = Appliance::start(history, life, nothing())?;
    fresh.meet(&mut proxy, CONNECTIONS);
    Ok(fresh)
}

pub(crate) fn nothing() -> Kept {
    Kept { epoch: 1, ..Kept::default() }
}

pub(crate) fn rebuilt(history: &History, options: &Options) -> Result<Facts> {
    let now = Times::of(history, options).now;
    let life = history.board.begin(&history.board.school, "fresh", "fresh", Beginning::Rebuild)?;
    let mut proxy = Proxy::new(history, options, now, &life)?;
    let mut victim = Appliance::start(history, life, nothing())?;
    victim.meet(&mut proxy, CONNECTIONS);
    let expected = history.heads_at(now);
    let wanted = history.state_of(&history.batches_up_to(&expected))?;
    let ended = !victim.signals.contains(&Signal::NotAll) && !victim.signals.contains(&Signal::Down);
    let mut facts = Facts {
        exact: victim.state() == wanted,
        must_say: lacks(&victim, 0),
        contradicted: contradicted(&victim, 0, &Heads::new()),
        kept_foreign: holds_foreign(history, &victim),
        done: proxy.done.clone(),
        notes: [proxy.notes.clone(), victim.notes.clone()].concat(),
        signals: victim.signals.clone(),
        ..Facts::default()
    };
    if !ended {
        facts.signals.insert(Signal::RebuildFailed);
    }
    if options.victim == Victim::RebuildExpect {
        let missing = victim.missing(&expected) > 0 && is_expected();
        facts.verified = ended && !missing;
        if missing {
            facts.signals.insert(Signal::Witness);
        }
    }
    Ok(facts)
}
