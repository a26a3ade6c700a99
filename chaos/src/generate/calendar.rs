//! Owns the school calendar: on which days pupils come.
//!
//! Invariant: a school day is a weekday that is neither a holiday nor in a break. Holidays follow the present
//! law (2022 on) for every year; breaks are typical ones. Leaves out: days off of one board or school.

use time::{Date, Duration, Month, Weekday};

fn day(year: i32, month: Month, day: u8) -> Date {
    Date::from_calendar_date(year, month, day).unwrap_or(Date::MIN)
}

/// The school days of a school year in order: 1 April of `year` to 31 March of the next, about 200.
pub fn school_days(year: i32) -> Vec<Date> {
    let holidays = [holidays(year), holidays(year.saturating_add(1))].concat();
    let start = day(year, Month::April, 1);
    let days = (0..366).filter_map(|offset| start.checked_add(Duration::days(offset)));
    days.take_while(|date| *date < day(year.saturating_add(1), Month::April, 1))
        .filter(|date| !is_weekend(*date) && !is_break(*date) && !holidays.contains(date))
        .collect()
}

fn is_weekend(date: Date) -> bool {
    matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// Spring to 6 April, summer 21 July to 31 August, winter 26 December to 7 January, spring from 25 March.
fn is_break(date: Date) -> bool {
    let place = (u8::from(date.month()), date.day());
    place <= (1, 7)
        || ((3, 25)..=(4, 6)).contains(&place)
        || ((7, 21)..=(8, 31)).contains(&place)
        || place >= (12, 26)
}

/// The holidays of a calendar year, substitute days and days between included, in order.
fn holidays(year: i32) -> Vec<Date> {
    let vernal = day(year, Month::March, equinox_day(year, 20_843_100));
    let autumnal = day(year, Month::September, equinox_day(year, 23_248_800));
    let mut days = vec![
        day(year, Month::January, 1),
        monday(year, Month::January, 2),
        day(year, Month::February, 11),
        day(year, Month::February, 23),
        vernal,
        day(year, Month::April, 29),
        day(year, Month::May, 3),
        day(year, Month::May, 4),
        day(year, Month::May, 5),
        monday(year, Month::July, 3),
        day(year, Month::August, 11),
        monday(year, Month::September, 3),
        autumnal,
        monday(year, Month::October, 2),
        day(year, Month::November, 3),
        day(year, Month::November, 23),
    ];
    // A holiday on a Sunday moves to the next day that is none.
    for sunday in days.clone().into_iter().filter(|date| date.weekday() == Weekday::Sunday) {
        let later = (1..5).filter_map(|offset| sunday.checked_add(Duration::days(offset)));
        if let Some(substitute) = later.filter(|date| !days.contains(date)).min() {
            days.push(substitute);
        }
    }
    // So is a day between two holidays (国民の休日), as 22 September 2026.
    let next_but_one =
        |date: &Date| date.checked_add(Duration::days(2)).is_some_and(|later| days.contains(&later));
    let between = days.iter().filter(|date| next_but_one(date)).filter_map(|date| date.next_day());
    let between: Vec<Date> = between.filter(|date| !days.contains(date) && !is_weekend(*date)).collect();
    days.extend(between);
    days.sort_unstable();
    days
}

/// The `nth` Monday of a month.
fn monday(year: i32, month: Month, nth: u8) -> Date {
    let first = day(year, month, 1);
    let to_monday = (8 - first.weekday().number_from_monday()) % 7;
    day(year, month, 1 + to_monday + 7 * (nth - 1))
}

/// Day of the equinox by the usual formula for 1980 to 2099; `base` is in millionths of a day.
fn equinox_day(year: i32, base: i32) -> u8 {
    let since = year - 1980;
    u8::try_from((base + 242_194 * since) / 1_000_000 - since / 4).unwrap_or(21)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: known holidays are found. Method: 2026, with the substitute of 3 May, both equinoxes and a day between.
    #[test]
    fn holidays_of_2026() {
        let days = holidays(2026);
        for date in [
            day(2026, Month::January, 12),
            day(2026, Month::March, 20),
            day(2026, Month::May, 6),
            day(2026, Month::July, 20),
            day(2026, Month::September, 21),
            day(2026, Month::September, 22),
            day(2026, Month::September, 23),
            day(2026, Month::October, 12),
        ] {
            assert!(days.contains(&date), "{date}");
        }
        assert_eq!(days.len(), 18);
    }

    /// Goal: a year has about 200 school days, none of them off. Method: ten years.
    #[test]
    fn years_have_about_200_days() {
        for year in 2018..2028 {
            let days = school_days(year);
            assert!((195..=206).contains(&days.len()), "{year}: {}", days.len());
            assert!(days.iter().all(|date| !is_weekend(*date)));
            assert!(days.is_sorted() && !days.contains(&day(year, Month::August, 10)));
        }
    }
}
