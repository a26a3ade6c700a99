//! Trouble that came after the scripts of many seeds were in use: its actions are put between the others, each kind drawn
//! from a stream of its own, so that a script without a kind is as it was.

use super::carrying::Trip;
use super::options::{Options, Trouble};
use super::script::{Action, BoxAction, CloudAction, DiskAction, Line};
use crate::random::Random;

/// Puts the actions of these kinds between the others.
pub(super) fn with_more(lines: Vec<Line>, options: &Options) -> Vec<Line> {
    let mut lines = lines;
    if options.has(Trouble::Equivocation) {
        lines = between(lines, options, "equivocation script", 6, equivocation);
    }
    if options.has(Trouble::LateLists) {
        lines = between(lines, options, "late lists script", 5, late_lists);
    }
    if options.has(Trouble::Rot) {
        lines = between(lines, options, "rot script", 12, rot);
    }
    if options.has(Trouble::Courier) {
        lines = between(lines, options, "courier script", 8, courier);
    }
    if options.audits {
        lines = between(lines, options, "audit script", 10, |_, _| vec![Action::Cloud(CloudAction::Audit)]);
    }
    lines
}

fn courier(_: &Options, random: &mut Random) -> Vec<Action> {
    let number = random.index(12);
    let trip = Trip {
        ms: random.pick(&[100, 5_000, 600_000]),
        readable: if random.one_in(4) { random.below(1_000) } else { 1_000 },
        twice: random.one_in(3),
    };
    vec![Action::Box(number, BoxAction::CarryOut(trip))]
}

fn rot(_: &Options, random: &mut Random) -> Vec<Action> {
    let number = random.index(12);
    vec![Action::Disk(number, DiskAction::Rot(random.bits(), random.one_in(2)))]
}

fn between(
    lines: Vec<Line>,
    options: &Options,
    stream: &str,
    one_in: u64,
    draw: impl Fn(&Options, &mut Random) -> Vec<Action>,
) -> Vec<Line> {
    let mut random = Random::new(options.seed, stream);
    let mut script = Vec::new();
    for line in lines {
        script.push(line);
        if random.one_in(one_in) {
            for action in draw(options, &mut random) {
                let then_ms = if random.one_in(2) { 0 } else { random.below(options.delay_ms_max * 8) };
                script.push(Line { action, then_ms });
            }
        }
    }
    script
}

fn equivocation(options: &Options, random: &mut Random) -> Vec<Action> {
    let number = random.index(12);
    let clones = options.has(Trouble::Clone) && random.one_in(3);
    let bits = random.bits().to_le_bytes()[0];
    match random.below(8) {
        0..=2 => {
            let clone = clones.then_some(Action::Box(number, BoxAction::Clone));
            clone.into_iter().chain([Action::Cloud(CloudAction::Split(bits))]).collect()
        }
        3..=6 => vec![Action::Cloud(CloudAction::Turn(number))],
        _ => vec![Action::Cloud(CloudAction::Unite)],
    }
}

fn late_lists(options: &Options, random: &mut Random) -> Vec<Action> {
    let site = random.index(options.sites);
    let late = Action::Cloud(CloudAction::ListLate(site, 1_000 + random.below(600_000)));
    if random.one_in(2) {
        return vec![late];
    }
    // A node that starts is who lists.
    vec![late, Action::Cloud(CloudAction::Stop), Action::Cloud(CloudAction::Start(random.one_in(2)))]
}
