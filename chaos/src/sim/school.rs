//! Days of a school, in runs that have them: a thousand changes a day between all the trouble, then a night.

use sonae_proto::ids::Tier;

use super::options::Options;
use super::script::{Action, BoxAction, Line};
use super::world::World;
use crate::random::Random;

/// Changes of a school day.
pub const CHANGES_A_DAY: u32 = 1_000;

/// How often in a day somebody comes to a box, and writes several changes.
const MOMENTS_A_DAY: u32 = 40;

/// Milliseconds between them, at most: ten hours a day.
const MOMENT_MS_MAX: u64 = 30 * 60_000;

/// Milliseconds of a night.
const NIGHT_MS: u64 = 14 * 3_600_000;

/// Spreads the other lines of a script over the days of a school.
pub(super) fn with_days(lines: Vec<Line>, options: &Options) -> Vec<Line> {
    let mut random = Random::new(options.seed, "school days");
    let moments = options.school_days * MOMENTS_A_DAY;
    let (mut script, mut rest) = (Vec::new(), lines.into_iter());
    for moment in 1..=moments {
        let action = Action::Box(random.index(12), BoxAction::Work(CHANGES_A_DAY / MOMENTS_A_DAY));
        let is_evening = moment % MOMENTS_A_DAY == 0;
        let then_ms = if is_evening { NIGHT_MS } else { random.below(MOMENT_MS_MAX) };
        script.push(Line { action, then_ms });
        // So many of the others that they end with the days.
        let left = usize::try_from(moments - moment).unwrap_or(usize::MAX).saturating_add(1);
        let due = rest.len().div_ceil(left);
        script.extend(rest.by_ref().take(due));
    }
    script
}

impl World {
    /// People write, at this box or at another one that runs: mostly marks of the day, and the archive.
    pub(super) fn work(&mut self, slot: usize, changes: u32) {
        let boxes = self.slots.len();
        let runs = |slot: &usize| self.slots[*slot].replica.is_some() && !self.is_rebuilding(*slot);
        let Some(slot) = (0..boxes).map(|step| (slot + step) % boxes).find(runs) else { return };
        let before = self.slots[slot].book.acknowledgements();
        for _ in 0..changes {
            let tier = match self.random.below(20) {
                0 => Tier::Safety,
                1..=12 => Tier::Daily,
                _ => Tier::Archive,
            };
            let record = self.random.index(self.options.records);
            self.write(slot, tier, record);
        }
        let acknowledged = self.slots[slot].book.acknowledgements().saturating_sub(before);
        self.tally.worked += u32::try_from(acknowledged).unwrap_or(u32::MAX);
        self.seal(slot, 100);
        self.prune(slot);
        self.consider_snapshot(slot);
    }
}
