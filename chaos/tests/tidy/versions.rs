//! The rule about versions: every kind of frame or record is in the table of `docs/spec/versions.md`, and none but those
//! of the first release is written in the release that first reads it.

use std::collections::BTreeSet;

use super::{Source, Violations};

const TABLE: &str = "docs/spec/versions.md";

/// The release in which kinds could be read and written at once.
const FIRST: (u32, u32) = (0, 1);

const NOT_YET: &str = "not yet";

/// Where a kind is read, and what stands before and behind its number there.
const READERS: [(&str, &str, &str, &str); 4] = [
    ("journal frame", "edge/store/src/frame.rs", ": FrameKind = FrameKind(", ");"),
    ("object record", "proto/src/object.rs", "            ", " => Some(Self::"),
    ("courier record", "proto/src/courier.rs", "        ", " => Record::"),
    ("wire frame", "proto/src/wire.rs", "            ", " => Self::"),
];

/// The end of the numbers of journal frames that are needed: no kind.
const NOT_NEEDED_FROM: &str = "NOT_NEEDED_FROM";

fn release(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn in_code(sources: &[Source]) -> BTreeSet<(&'static str, u32)> {
    let mut found = BTreeSet::new();
    for (place, path, before, behind) in READERS {
        let source = sources.iter().find(|source| source.path == path);
        for (_, line) in source.into_iter().flat_map(Source::lines).filter(|l| !l.1.contains(NOT_NEEDED_FROM))
        {
            let number = line.split_once(before).and_then(|(_, rest)| rest.split_once(behind));
            found.extend(number.and_then(|(number, _)| Some((place, number.parse().ok()?))));
        }
    }
    found
}

pub fn unversioned(sources: &[Source]) -> Violations {
    let Some(table) = sources.iter().find(|source| source.path == TABLE) else { return Violations::new() };
    let mut listed = BTreeSet::new();
    let mut found = Violations::new();
    for (_, line) in table.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [place, number, _, read, written] = cells[..] else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        listed.insert((place, number));
        let is_right = match (release(read), release(written)) {
            (Some(read), Some(written)) => read < written || (read == FIRST && written == FIRST),
            (Some(_), None) => written == NOT_YET,
            (None, _) => false,
        };
        if !is_right {
            found.push(format!("{TABLE}: {place} {number} is written in {written} and first read in {read}"));
        }
    }
    let known: BTreeSet<(&str, u32)> = in_code(sources);
    let differ = known.symmetric_difference(&listed);
    found.extend(differ.map(|(place, number)| {
        format!("{TABLE}: {place} {number} is in the code or in the table, not in both")
    }));
    found
}
