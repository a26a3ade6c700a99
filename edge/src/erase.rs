//! What may be erased of a pupil, and what the law has the school keep.
//!
//! 学校教育法施行規則 28 keeps 出席簿 and 健康診断票 for five years and 指導要録 for five (指導) and twenty (学籍). What this
//! program cannot date counts as kept: a person decides.

use std::collections::BTreeMap;

use serde::Serialize;
use sonae_proto::manifest::school_year;
use sonae_store::erasure::OfPupil;

/// School years for which a register is kept after its own.
const REGISTER_YEARS: u32 = 5;

/// Why a record is not erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// 出席簿: five years.
    AttendanceRegister,
    /// 健康診断票: five years, and this program does not know since when.
    HealthCheck,
    /// 指導要録: five and twenty years, and this program does not know since when.
    StudentRecord,
    /// It says what staff did, and names the pupil by id alone.
    Audit,
}

impl Keeps {
    /// Says it, in Japanese and English.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::AttendanceRegister => "出席簿（保存5年） / attendance register, kept for 5 years",
            Self::HealthCheck => "健康診断票（保存5年） / health check, kept for 5 years",
            Self::StudentRecord => {
                "指導要録（保存 学籍20年・指導5年） / student record, kept for 20 and 5 years"
            }
            Self::Audit => "監査記録（氏名なし、消去しない） / audit, without the name, never erased",
        }
    }
}

/// What a pupil's erasure takes and what speaks against it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Records that go, by collection.
    pub goes: BTreeMap<String, u64>,
    /// Of these, records that the law has the school keep, by reason. Nothing goes while there are any, unless somebody
    /// says that these go too.
    pub kept_by_law: BTreeMap<Keeps, u64>,
    /// Records that stay whatever is said, by reason.
    pub stays: BTreeMap<Keeps, u64>,
}

impl Plan {
    /// Sorts the records of a pupil. `now_ms` is since 1970 UTC.
    #[must_use]
    pub fn of(records: &[OfPupil], now_ms: u64) -> Self {
        let mut plan = Self::default();
        for record in records {
            if record.stays {
                *plan.stays.entry(Keeps::Audit).or_default() += 1;
                continue;
            }
            *plan.goes.entry(record.collection.clone()).or_default() += 1;
            if let Some(keeps) = keeps(record, now_ms) {
                *plan.kept_by_law.entry(keeps).or_default() += 1;
            }
        }
        plan
    }
}

fn keeps(record: &OfPupil, now_ms: u64) -> Option<Keeps> {
    match record.collection.as_str() {
        "student_record" => Some(Keeps::StudentRecord),
        "health_check" => Some(Keeps::HealthCheck),
        "attendance" => {
            let is_over =
                year_of(&record.record).is_some_and(|year| year + REGISTER_YEARS < school_year(now_ms));
            (!is_over).then_some(Keeps::AttendanceRegister)
        }
        _ => None,
    }
}

/// Returns the school year of an id that begins with a date, `YYYY-MM-DD/…`.
fn year_of(record: &str) -> Option<u32> {
    let mut parts = record.split('/').next()?.split('-').map(str::parse::<u32>);
    let (year, month) = (parts.next()?.ok()?, parts.next()?.ok()?);
    (1970..10_000).contains(&year).then(|| if month < 4 { year - 1 } else { year })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::ids::Tier;

    fn record(collection: &str, record: &str) -> OfPupil {
        OfPupil { tier: Tier::Daily, collection: collection.into(), record: record.into(), stays: false }
    }

    /// Goal: what the law keeps is told apart from what may go, to the day. Method: registers around five years, records
    /// without dates, and the audit. It is May 2026.
    #[test]
    fn what_is_kept_by_law() {
        let may_2026 = 1_777_600_000_000;
        let of = |collection: &str, id: &str| Plan::of(&[record(collection, id)], may_2026).kept_by_law;
        let one = |keeps| BTreeMap::from([(keeps, 1)]);
        assert_eq!(of("student", "p1"), BTreeMap::new());
        assert_eq!(of("attendance", "2021-03-31/p1/day"), BTreeMap::new(), "2020 is kept to the end of 2025");
        assert_eq!(of("attendance", "2021-04-01/p1/day"), one(Keeps::AttendanceRegister));
        assert_eq!(of("attendance", "nonsense/p1/day"), one(Keeps::AttendanceRegister));
        assert_eq!(of("student_record", "p1"), one(Keeps::StudentRecord));
        assert_eq!(of("health_check", "p1/2001"), one(Keeps::HealthCheck));
        let audit = OfPupil { stays: true, ..record("audit", "x") };
        let plan = Plan::of(&[audit, record("student", "p1")], may_2026);
        assert_eq!((plan.goes.len(), plan.stays), (1, one(Keeps::Audit)));
    }
}
