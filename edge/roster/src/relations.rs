//! Owns the checks that need more than one record: schools and boards, roles of users.
//!
//! Invariant: runs only after all files are read. Leaves out: dangling references and repeated identifiers,
//! which `context.rs` finds for every file alike.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Roster, SourcedId};
use crate::report::{Code, Finding, Phrase, Report, Severity};
use crate::vocabulary::{OrgType, RoleType};

/// Checks a whole roster. Lines are not known here: findings name the identifier.
pub(crate) fn check(roster: &Roster, report: &mut Report) {
    check_schools(roster, report);
    check_roles(roster, report);
}

fn check_schools(roster: &Roster, report: &mut Report) {
    let types: HashMap<&SourcedId, &OrgType> =
        roster.orgs.iter().map(|org| (&org.id, &org.org_type)).collect();
    if roster.schools().next().is_none() {
        let expected = Phrase::fixed("at least one row with type school", "type=schoolの行を1つ以上");
        report
            .push(Finding::new(Severity::Error, Code::SchoolMissing, "orgs.csv", expected).at_column("type"));
    }
    for school in roster.schools() {
        let Some(parent) = &school.parent else { continue };
        if let Some(OrgType::School | OrgType::Ext(_)) = types.get(parent) {
            let expected = Phrase::fixed("the sourcedId of a district", "type=districtのsourcedId");
            report.push(
                Finding::new(Severity::Error, Code::SchoolWithoutDistrict, "orgs.csv", expected)
                    .at_column("parentSourcedId")
                    .with_value(parent.as_str()),
            );
        }
    }
}

/// A user needs a primary role: a secondary one alone is an error, none at all a warning.
fn check_roles(roster: &Roster, report: &mut Report) {
    let primary = roster.roles.iter().filter(|held| held.role_type == RoleType::Primary);
    let primary: BTreeSet<&SourcedId> = primary.map(|held| &held.user).collect();
    let any: BTreeSet<&SourcedId> = roster.roles.iter().map(|held| &held.user).collect();
    for user in roster.users.iter().filter(|user| !primary.contains(&user.id)) {
        let severity = if any.contains(&user.id) { Severity::Error } else { Severity::Warning };
        let expected = Phrase::fixed("a row with roleType primary", "roleType=primaryの行");
        report.push(
            Finding::new(severity, Code::PrimaryRoleMissing, "roles.csv", expected)
                .at_column("userSourcedId")
                .with_value(user.id.as_str()),
        );
    }
}
