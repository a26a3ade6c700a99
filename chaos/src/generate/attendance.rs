//! Owns years of attendance: who was there on which day, and why not.
//!
//! Invariants: one entry for each pupil and school day of each year in which the pupil was at school; illness
//! comes in runs of days, influenza in winter; about 95 of 100 entries are `present`. Each pupil and year has
//! its own stream. Leaves out: closed classes, and lessons within a day.

use sonae_roster::{AttendanceEntry, Period, SourcedId};
use time::{Date, Month};

use super::Options;
use super::calendar::school_days;
use super::families::{Child, Family};
use super::names::{CANARY_REASON, EARLY, LATE, OTHER, SICK};
use super::random::{Source, Stream};

/// What may happen on a day on which a pupil is well, in parts of 100,000.
struct Rates {
    sick: u32,
    influenza: u32,
    other: u32,
    mourning: u32,
    late: u32,
    early: u32,
}

/// Of 100,000 sick days, how many are followed by another.
const SICK_AGAIN: u32 = 35_000;

/// What keeps a pupil away for days.
struct Run {
    days_left: u32,
    code: &'static str,
    reason: &'static str,
}

/// Makes all entries, by date, then in the order of the pupils.
pub(crate) fn generate(
    source: &Source,
    families: &[Family],
    pupil_ids: &[SourcedId],
    options: &Options,
) -> Vec<AttendanceEntry> {
    let children: Vec<&Child> = families.iter().flat_map(|family| &family.children).collect();
    let mut entries = Vec::new();
    for years_back in (0..options.years).rev() {
        let year = options.school_year.saturating_sub(i32::try_from(years_back).unwrap_or(i32::MAX));
        let days = school_days(year);
        let year_from = entries.len();
        let pupils = children.iter().zip(pupil_ids).enumerate();
        let at_school = pupils.filter(|(_, (child, _))| u32::from(child.grade) > years_back);
        let mut columns: Vec<_> = at_school
            .map(|(at, (_, id))| {
                let index = u64::try_from(at).unwrap_or(u64::MAX);
                (id, year_of_pupil(source.stream(&format!("attendance {year}"), index), &days).into_iter())
            })
            .collect();
        for date in &days {
            for (student, column) in &mut columns {
                let (code, reason) = column.next().unwrap_or(("not_recorded", ""));
                entries.push(AttendanceEntry {
                    date: *date,
                    student: (*student).clone(),
                    period: Period::All,
                    code: code.to_owned(),
                    reason_text: reason.to_owned(),
                });
            }
        }
        place_canary(entries.get_mut(year_from..).unwrap_or_default());
    }
    entries
}

/// Gives the first absence through illness of a year the canary's reason.
fn place_canary(entries_of_year: &mut [AttendanceEntry]) {
    if let Some(entry) = entries_of_year.iter_mut().find(|entry| entry.code == "absent_sick") {
        CANARY_REASON.clone_into(&mut entry.reason_text);
    }
}

/// Code and reason for each day of one pupil's year.
fn year_of_pupil(mut stream: Stream, days: &[Date]) -> Vec<(&'static str, &'static str)> {
    // One pupil in five is often ill, two are hardly ever.
    let frailty_percent = stream.pick(&[40, 50, 80, 110, 220]);
    let mut run = Run { days_left: 0, code: "", reason: "" };
    let mut out = Vec::with_capacity(days.len());
    for date in days {
        if run.days_left > 0 {
            run.days_left -= 1;
            out.push((run.code, run.reason));
            continue;
        }
        let (code, reason) = one_day(&mut stream, &rates(*date, frailty_percent));
        run = Run { days_left: days_away_after(code, &mut stream), code, reason };
        out.push((code, reason));
    }
    out
}

/// Rates of a day: illness is twice as common from December to February, influenza is only then.
fn rates(date: Date, frailty_percent: u32) -> Rates {
    let is_winter = matches!(date.month(), Month::December | Month::January | Month::February);
    let sick = if is_winter { 2_200 } else { 1_200 };
    Rates {
        sick: sick * frailty_percent / 100,
        influenza: if is_winter { 220 } else { 0 },
        other: 500,
        mourning: 25,
        late: 900 * frailty_percent / 100,
        early: 700,
    }
}

fn one_day(stream: &mut Stream, rates: &Rates) -> (&'static str, &'static str) {
    let drawn = stream.below(100_000);
    let mut until = 0;
    let mut within = |parts: u32| {
        until += parts;
        drawn < until
    };
    if within(rates.sick) {
        ("absent_sick", stream.pick(SICK))
    } else if within(rates.influenza) {
        ("suspended", "インフルエンザ")
    } else if within(rates.other) {
        ("absent_other", stream.pick(OTHER))
    } else if within(rates.mourning) {
        ("mourning", "忌引")
    } else if within(rates.late) {
        ("late", stream.pick(LATE))
    } else if within(rates.early) {
        ("left_early", stream.pick(EARLY))
    } else {
        ("present", "")
    }
}

/// How many more days a pupil stays away.
fn days_away_after(code: &str, stream: &mut Stream) -> u32 {
    match code {
        "absent_sick" => (0..4).take_while(|_| stream.chance(SICK_AGAIN)).fold(0, |days, _: u32| days + 1),
        "suspended" => 3 + stream.below(3),
        "mourning" => 1 + stream.below(3),
        _ => 0,
    }
}
