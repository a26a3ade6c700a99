//! Decisions: who may read or write which class of data, with which strength of sign-in.
//!
//! **Invariants**
//! - Denied by default: only rows of the tables below allow anything.
//! - Classes I and II need a second factor, whoever asks.
//! - [`DataClass::Secret`] is allowed to nobody; accounts are changed by functions of their own.
//!
//! A class says how far a field may travel; a collection says who keeps it. A write needs both, so
//! callers that know the field use [`decide_field`].
//!
//! **Left out:** break-glass, limits to one's own class of pupils, events, devices: later rules can
//! only be added where these tables already allow, or under a logged widening.

use serde::{Deserialize, Serialize};

use crate::catalogue::{DataClass, class_of};
use crate::role::Role;
use crate::session::Strength;

/// What somebody wants to do with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Look at it.
    Read,
    /// Change it.
    Write,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];
}

/// Why something is denied; the text form goes into answers of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyCode {
    /// Allowed after a second factor: ask for it.
    SecondFactorRequired,
    /// Not allowed to this role at all.
    Forbidden,
}

impl DenyCode {
    /// The text form: `second_factor_required` or `forbidden`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecondFactorRequired => "second_factor_required",
            Self::Forbidden => "forbidden",
        }
    }
}

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Do not.
    Deny {
        /// Why.
        code: DenyCode,
    },
}

impl Decision {
    /// Whether to go on.
    pub fn is_allow(self) -> bool {
        self == Self::Allow
    }
}

use Role::{Board, Nurse, Office, Principal, Teacher, VicePrincipal};

/// Who may do what with a class, whichever collection the field is in.
const CLASS_RULES: &[(DataClass, Action, &[Role])] = &[
    (DataClass::I, Action::Read, &[Principal, VicePrincipal, Nurse]),
    (DataClass::I, Action::Write, &[Principal, VicePrincipal, Nurse]),
    (DataClass::II, Action::Read, &[Principal, VicePrincipal, Nurse, Teacher, Office]),
    (DataClass::II, Action::Write, &[Principal, VicePrincipal, Nurse, Teacher, Office]),
    (DataClass::III, Action::Read, &[Principal, VicePrincipal, Teacher, Nurse, Office, Board]),
    (DataClass::III, Action::Write, &[Principal, VicePrincipal, Teacher, Nurse, Office]),
    (DataClass::IV, Action::Read, &[Principal, VicePrincipal, Teacher, Nurse, Office, Board]),
    (DataClass::IV, Action::Write, &[Principal, VicePrincipal, Office]),
];

/// Who keeps a collection: everybody else may not write any field of it.
const WRITERS: &[(&str, &[Role])] = &[
    ("attendance", &[Principal, VicePrincipal, Teacher, Nurse, Office]),
    ("guardian_contact", &[Principal, VicePrincipal, Office, Teacher]),
    ("school", &[Principal, VicePrincipal, Office]),
    ("class_group", &[Principal, VicePrincipal, Office]),
    ("student", &[Principal, VicePrincipal, Office]),
    ("enrollment", &[Principal, VicePrincipal, Office]),
    ("staff", &[Principal, VicePrincipal, Office]),
    ("staff_account", &[Principal, VicePrincipal]),
];

const FORBIDDEN: Decision = Decision::Deny { code: DenyCode::Forbidden };

/// Decides about a class of data.
///
/// [`DenyCode::SecondFactorRequired`] is said only to those whom a second factor would help.
pub fn decide(role: Role, strength: Strength, class: DataClass, action: Action) -> Decision {
    let is_listed =
        CLASS_RULES.iter().any(|(c, a, roles)| *c == class && *a == action && roles.contains(&role));
    if !is_listed {
        FORBIDDEN
    } else if needs_second_factor(class) && strength < Strength::SecondFactor {
        Decision::Deny { code: DenyCode::SecondFactorRequired }
    } else {
        Decision::Allow
    }
}

/// Decides about one field of a collection: its class, and for a write also who keeps the collection.
///
/// Unknown collections can be written by nobody; unknown fields of known ones are class I.
pub fn decide_field(
    role: Role,
    strength: Strength,
    collection: &str,
    field: &str,
    action: Action,
) -> Decision {
    match action {
        Action::Write if !is_writer(role, collection) => FORBIDDEN,
        Action::Read | Action::Write => decide(role, strength, class_of(collection, field), action),
    }
}

/// Whether a role keeps a collection, and so may write those of its fields whose class it may write.
pub fn is_writer(role: Role, collection: &str) -> bool {
    WRITERS.iter().any(|(name, roles)| *name == collection && roles.contains(&role))
}

/// Whether a class is out of reach with a password alone.
///
/// # Source
/// 教育情報セキュリティポリシーに関するガイドライン (R7.3): strong access control from class II up.
pub fn needs_second_factor(class: DataClass) -> bool {
    match class {
        DataClass::Secret | DataClass::I | DataClass::II => true,
        DataClass::III | DataClass::IV => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter per decision, in the order of `Role::ALL` (principal, vice principal, teacher, nurse,
    /// office, board).
    fn row(strength: Strength, class: DataClass, action: Action) -> String {
        Role::ALL
            .map(|role| match decide(role, strength, class, action) {
                Decision::Allow => 'A',
                Decision::Deny { code: DenyCode::SecondFactorRequired } => '2',
                Decision::Deny { code: DenyCode::Forbidden } => '-',
            })
            .iter()
            .collect()
    }

    /// Goal: every cell is what was decided. Method: walk all roles, strengths, classes and actions
    /// against a table that is written out by hand.
    #[test]
    fn whole_table() {
        use DataClass::{I, II, III, IV, Secret};
        let table = [
            (Secret, Action::Read, "------", "------"),
            (Secret, Action::Write, "------", "------"),
            (I, Action::Read, "22-2--", "AA-A--"),
            (I, Action::Write, "22-2--", "AA-A--"),
            (II, Action::Read, "22222-", "AAAAA-"),
            (II, Action::Write, "22222-", "AAAAA-"),
            (III, Action::Read, "AAAAAA", "AAAAAA"),
            (III, Action::Write, "AAAAA-", "AAAAA-"),
            (IV, Action::Read, "AAAAAA", "AAAAAA"),
            (IV, Action::Write, "AA--A-", "AA--A-"),
        ];
        assert_eq!(table.len(), DataClass::ALL.len() * Action::ALL.len());
        for (class, action, password, second_factor) in table {
            assert_eq!(row(Strength::Password, class, action), password, "{class:?} {action:?}");
            assert_eq!(row(Strength::SecondFactor, class, action), second_factor, "{class:?} {action:?}");
        }
    }

    /// Goal: writes go by collection as decided. Method: the writers of attendance and contacts, each
    /// role, both strengths.
    #[test]
    fn writers_of_collections() {
        let may = |role, strength, collection, field| {
            decide_field(role, strength, collection, field, Action::Write).is_allow()
        };
        for role in Role::ALL {
            let (weak, strong) = (Strength::Password, Strength::SecondFactor);
            let keeps_attendance = role != Board;
            let keeps_contacts = !matches!(role, Board | Nurse);
            assert_eq!(may(role, weak, "attendance", "code"), keeps_attendance, "{role}");
            assert_eq!(may(role, strong, "attendance", "reason_text"), keeps_attendance, "{role}");
            assert!(!may(role, weak, "attendance", "reason_text"), "{role}");
            assert_eq!(may(role, strong, "guardian_contact", "phone1"), keeps_contacts, "{role}");
            let keeps_custody = matches!(role, Principal | VicePrincipal);
            assert_eq!(may(role, strong, "guardian_contact", "custody_note"), keeps_custody, "{role}");
            assert!(!may(role, strong, "health_profile", "allergies"), "{role}");
            assert!(!may(role, strong, "staff_account", "password_hash"), "{role}");
        }
    }

    /// Goal: nobody reads a secret, and who could not write anyway is not asked for a second factor.
    /// Method: every role; the nurse and contacts.
    #[test]
    fn secrets_and_codes() {
        for role in Role::ALL {
            for field in ["password_hash", "totp_secret"] {
                let decision =
                    decide_field(role, Strength::SecondFactor, "staff_account", field, Action::Read);
                assert_eq!(decision, FORBIDDEN, "{role} {field}");
            }
        }
        let nurse = decide_field(Nurse, Strength::Password, "guardian_contact", "phone1", Action::Write);
        assert_eq!(nurse, FORBIDDEN);
        assert_eq!(DenyCode::SecondFactorRequired.as_str(), "second_factor_required");
        let json = serde_json::to_string(&DenyCode::SecondFactorRequired).unwrap();
        assert_eq!(json, "\"second_factor_required\"");
    }

    /// Goal: unknown fields need class I. Method: a teacher and a nurse read one.
    #[test]
    fn unknown_fields_are_denied() {
        let read = |role| decide_field(role, Strength::SecondFactor, "student", "future", Action::Read);
        assert_eq!(read(Teacher), FORBIDDEN);
        assert_eq!(read(Nurse), Decision::Allow);
    }
}
