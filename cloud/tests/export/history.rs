//! Histories by seed: two boxes that see some of each other, write with and without having seen, and carry over one branch;
//! the first half is sealed to a destroyed key, and each box makes a snapshot of what it has.
#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::{Value, json};
use sonae_proto::ids::Tier;

use crate::year::{Year, again};

/// Changes of a history.
const CHANGES: u64 = 44;

/// So many of them are sealed to the key that is destroyed.
const DESTROYED: u64 = 24;

/// When the boxes make their snapshots.
const SNAPSHOTS: u64 = 34;

/// Numbers by seed; what a test needs of chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Writers {
    year: Year,
    chance: Chance,
    /// Lines that are not sealed yet, of each box.
    unsealed: [Vec<String>; 2],
    /// All lines of each box.
    written: [Vec<String>; 2],
    /// How much each has seen of the other.
    seen: [usize; 2],
}

/// Makes one.
pub fn of_seed(seed: u64) -> Year {
    let mut writers = Writers {
        year: Year::empty(),
        chance: Chance(seed),
        unsealed: [Vec::new(), Vec::new()],
        written: [Vec::new(), Vec::new()],
        seen: [0, 0],
    };
    for at in 0..CHANGES {
        writers.write(at);
        let epoch = if at < DESTROYED { 2026 } else { 2027 };
        if at + 1 == DESTROYED || at + 1 == CHANGES || at + 1 == SNAPSHOTS {
            (0..2).for_each(|life| writers.seal(life, epoch));
        } else if writers.chance.below(3) == 0 {
            let life = usize::from(writers.chance.below(2) == 1);
            writers.seal(life, epoch);
        }
        if at + 1 == SNAPSHOTS {
            writers.snapshots();
        }
    }
    writers.year.put();
    writers.year
}

impl Writers {
    fn write(&mut self, at: u64) {
        let life = usize::from(self.chance.below(2) == 1);
        let behind = self.written[1 - life].len() - self.seen[life];
        if behind > 0 && self.chance.below(2) == 0 {
            self.seen[life] +=
                usize::try_from(self.chance.below(u64::try_from(behind).unwrap() + 1)).unwrap();
        }
        let line = if self.chance.below(5) == 0 { self.carried() } else { self.fresh(life, at) };
        self.unsealed[life].push(line.clone());
        self.written[life].push(line);
    }

    /// A change of a branch of four that either box carries over, or both do.
    fn carried(&mut self) -> String {
        let number = self.chance.below(4);
        let name = |number: u64| format!("{}:{}", "0f".repeat(16), number + 1);
        let mut line = json!({"t": [1_775_000_000_000_u64, number], "c": "diary", "r": "r0", "f": {"f0": format!("carried {number}")}});
        if number > 0 {
            line["b"] = json!({"f0": [name(number - 1)]});
        }
        again(&line.to_string(), &name(number))
    }

    /// A change that replaces what its writer sees, or a part of it, or nothing.
    fn fresh(&mut self, life: usize, at: u64) -> String {
        let (record, field) = (format!("r{}", self.chance.below(3)), format!("f{}", self.chance.below(2)));
        let (own, of_other) = (self.written[life].len(), self.seen[life]);
        let seen = |of: usize| if of == life { own } else { of_other };
        let lines = (0..2).flat_map(|of| (0..seen(of)).map(move |number| (of, number)));
        let lines: Vec<_> =
            lines.map(|(of, number)| (of, number, self.written[of][number].clone())).collect();
        let mut bases = self.year.heads_of(Tier::Daily, &lines, ("diary", &record), &field);
        match self.chance.below(4) {
            0 => bases.clear(),
            1 => bases.truncate(1),
            _ => {}
        }
        // Clocks go any way they like.
        let ms = 1_775_000_000_000_u64 + self.chance.below(50);
        let mut line =
            json!({"t": [ms, at], "c": "diary", "r": record, "f": {field.clone(): at}, "w": "tanaka"});
        if !bases.is_empty() {
            line["b"] = json!({field: bases.into_iter().map(Value::from).collect::<Vec<_>>()});
        }
        line.to_string()
    }

    fn seal(&mut self, life: usize, epoch: u32) {
        let lines = std::mem::take(&mut self.unsealed[life]);
        if !lines.is_empty() {
            self.year.write(life, Tier::Daily, epoch, &lines);
        }
    }

    /// Each box knows all of its own log and the beginning of the other's.
    fn snapshots(&mut self) {
        for life in 0..2 {
            let ends = [0, 1].map(|of| self.year.ends(of, Tier::Daily));
            let mut sequences = ends.clone().map(|ends| *ends.last().unwrap());
            let other = &ends[1 - life];
            let some = self.chance.below(u64::try_from(other.len().div_ceil(2)).unwrap());
            sequences[1 - life] = other[usize::try_from(some).unwrap()];
            let made = self.year.made(life, Tier::Daily, 2027, sequences);
            self.year.snapshots.push(made);
        }
    }
}
