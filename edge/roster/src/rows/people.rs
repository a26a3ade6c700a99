//! Owns the mapping between rows and records for people: users, roles, enrolments, demographics.
//!
//! Invariant: passwords and links to user profiles are neither read nor written.
//! Leaves out: everything about organisations and classes (`rows.rs`).

use super::{Cells, Record, boolean, cells, check_period, date, id, ids, maybe_id};
use crate::model::{Demographics, Enrollment, RoleAssignment, User};
use crate::report::Report;
use crate::schema::{self, FileSpec};
use crate::table::Row;
use crate::vocabulary::{EnrollmentRole, Role, RoleType, Sex};

impl Record for User {
    const FILE: &'static FileSpec = &schema::USERS;

    fn read(row: &Row<'_>, _report: &mut Report) -> Self {
        Self {
            id: row.id("sourcedId"),
            enabled: row.boolean("enabledUser").unwrap_or(true),
            username: row.text("username"),
            user_ids: row.list("userIds"),
            given_name: row.text("givenName"),
            family_name: row.text("familyName"),
            middle_name: row.text("middleName"),
            identifier: row.text("identifier"),
            email: row.text("email"),
            sms: row.text("sms"),
            phone: row.text("phone"),
            agents: row.ids("agentSourcedIds"),
            grades: row.list("grades"),
            master_identifier: row.id_if_any("userMasterIdentifier"),
            resources: row.list("resourceSourcedIds"),
            preferred_given_name: row.text("preferredGivenName"),
            preferred_middle_name: row.text("preferredMiddleName"),
            preferred_family_name: row.text("preferredFamilyName"),
            primary_org: row.id_if_any("primaryOrgSourcedId"),
            pronouns: row.text("pronouns"),
            kana_given_name: row.text("metadata.jp.kanaGivenName"),
            kana_family_name: row.text("metadata.jp.kanaFamilyName"),
            kana_middle_name: row.text("metadata.jp.kanaMiddleName"),
            home_class: row.id_if_any("metadata.jp.homeClass"),
            kana_preferred_family_name: row.text("metadata.jp.kanaPreferredFamilyName"),
            kana_preferred_given_name: row.text("metadata.jp.kanaPreferredGivenName"),
            kana_preferred_middle_name: row.text("metadata.jp.kanaPreferredMiddleName"),
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("enabledUser", self.enabled.to_string()),
                ("username", self.username.clone()),
                ("userIds", self.user_ids.join(",")),
                ("givenName", self.given_name.clone()),
                ("familyName", self.family_name.clone()),
                ("middleName", self.middle_name.clone()),
                ("identifier", self.identifier.clone()),
                ("email", self.email.clone()),
                ("sms", self.sms.clone()),
                ("phone", self.phone.clone()),
                ("agentSourcedIds", ids(&self.agents)),
                ("grades", self.grades.join(",")),
                ("userMasterIdentifier", maybe_id(self.master_identifier.as_ref())),
                ("resourceSourcedIds", self.resources.join(",")),
                ("preferredGivenName", self.preferred_given_name.clone()),
                ("preferredMiddleName", self.preferred_middle_name.clone()),
                ("preferredFamilyName", self.preferred_family_name.clone()),
                ("primaryOrgSourcedId", maybe_id(self.primary_org.as_ref())),
                ("pronouns", self.pronouns.clone()),
                ("metadata.jp.kanaGivenName", self.kana_given_name.clone()),
                ("metadata.jp.kanaFamilyName", self.kana_family_name.clone()),
                ("metadata.jp.kanaMiddleName", self.kana_middle_name.clone()),
                ("metadata.jp.homeClass", maybe_id(self.home_class.as_ref())),
                ("metadata.jp.kanaPreferredFamilyName", self.kana_preferred_family_name.clone()),
                ("metadata.jp.kanaPreferredGivenName", self.kana_preferred_given_name.clone()),
                ("metadata.jp.kanaPreferredMiddleName", self.kana_preferred_middle_name.clone()),
            ],
        )
    }
}

impl Record for RoleAssignment {
    const FILE: &'static FileSpec = &schema::ROLES;

    fn read(row: &Row<'_>, report: &mut Report) -> Self {
        check_period(row, "beginDate", "endDate", report);
        Self {
            id: row.id("sourcedId"),
            user: row.id("userSourcedId"),
            role_type: RoleType::parse(row.str("roleType")).unwrap_or(RoleType::Primary),
            role: Role::parse(row.str("role")).unwrap_or(Role::Student),
            begin: row.date("beginDate"),
            end: row.date("endDate"),
            org: row.id("orgSourcedId"),
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("userSourcedId", id(&self.user)),
                ("roleType", self.role_type.to_string()),
                ("role", self.role.to_string()),
                ("beginDate", date(self.begin)),
                ("endDate", date(self.end)),
                ("orgSourcedId", id(&self.org)),
            ],
        )
    }
}

impl Record for Enrollment {
    const FILE: &'static FileSpec = &schema::ENROLLMENTS;

    fn read(row: &Row<'_>, report: &mut Report) -> Self {
        check_period(row, "beginDate", "endDate", report);
        Self {
            id: row.id("sourcedId"),
            class: row.id("classSourcedId"),
            school: row.id("schoolSourcedId"),
            user: row.id("userSourcedId"),
            role: EnrollmentRole::parse(row.str("role")).unwrap_or(EnrollmentRole::Student),
            primary: row.boolean("primary"),
            begin: row.date("beginDate"),
            end: row.date("endDate"),
            attendance_number: row.number("metadata.jp.shussekiNo"),
            in_public_register: row.boolean("metadata.jp.publicFlg"),
            extra: row.extra(),
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.id)),
                ("classSourcedId", id(&self.class)),
                ("schoolSourcedId", id(&self.school)),
                ("userSourcedId", id(&self.user)),
                ("role", self.role.to_string()),
                ("primary", boolean(self.primary)),
                ("beginDate", date(self.begin)),
                ("endDate", date(self.end)),
                (
                    "metadata.jp.shussekiNo",
                    self.attendance_number.map(|number| number.to_string()).unwrap_or_default(),
                ),
                ("metadata.jp.publicFlg", boolean(self.in_public_register)),
            ],
        )
    }
}

impl Record for Demographics {
    const FILE: &'static FileSpec = &schema::DEMOGRAPHICS;

    fn read(row: &Row<'_>, _report: &mut Report) -> Self {
        const OWN: [&str; 5] = ["sourcedId", "status", "dateLastModified", "birthDate", "sex"];
        let mut extra = row.extra();
        // The standard's other columns are not used in Japan; they are carried like unknown ones.
        for column in schema::DEMOGRAPHICS.columns.iter().filter(|column| !OWN.contains(&column.name)) {
            if !row.str(column.name).is_empty() {
                extra.insert(column.name.to_owned(), row.text(column.name));
            }
        }
        Self {
            user: row.id("sourcedId"),
            birth_date: row.date("birthDate"),
            sex: Sex::parse(row.str("sex")),
            extra,
        }
    }

    fn cells(&self) -> Cells<'_> {
        cells(
            &self.extra,
            [
                ("sourcedId", id(&self.user)),
                ("birthDate", date(self.birth_date)),
                ("sex", self.sex.as_ref().map(Sex::to_string).unwrap_or_default()),
            ],
        )
    }
}
