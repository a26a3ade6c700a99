//! Roles: what a person is in a school, and how that is written.
//!
//! **Left out:** what a role may do, which is [`crate::policy`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a person is in a school. The text form is snake case, in files as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// 校長.
    Principal,
    /// 教頭・副校長.
    VicePrincipal,
    /// 教諭, with or without a class.
    Teacher,
    /// 養護教諭.
    Nurse,
    /// 事務職員.
    Office,
    /// 教育委員会の職員.
    Board,
}

impl Role {
    /// All roles, in the order in which lists show them.
    pub const ALL: [Self; 6] =
        [Self::Principal, Self::VicePrincipal, Self::Teacher, Self::Nurse, Self::Office, Self::Board];

    /// The text form: `principal`, `vice_principal`, `teacher`, `nurse`, `office`, `board`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::VicePrincipal => "vice_principal",
            Self::Teacher => "teacher",
            Self::Nurse => "nurse",
            Self::Office => "office",
            Self::Board => "board",
        }
    }

    /// What screens call it.
    pub fn label_ja(self) -> &'static str {
        match self {
            Self::Principal => "校長",
            Self::VicePrincipal => "教頭",
            Self::Teacher => "教諭",
            Self::Nurse => "養護教諭",
            Self::Office => "事務職員",
            Self::Board => "教育委員会",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    /// Reads `vice_principal` and `vice-principal`, in lower case.
    fn from_str(text: &str) -> Result<Self, RoleError> {
        let matches = |role: &Self| role.as_str() == text || role.as_str().replace('_', "-") == text;
        Self::ALL.into_iter().find(matches).ok_or_else(|| RoleError { given: shorten(text) })
    }
}

/// Keeps an error readable whatever was typed.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role {given:?}: use one of {}", Role::ALL.map(Role::as_str).join(", "))]
pub struct RoleError {
    /// What was given, at most 40 characters.
    pub given: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every role survives its text, in both spellings and in JSON. Method: round trips.
    #[test]
    fn text_round_trip() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(role.as_str().replace('_', "-").parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
    }

    /// Goal: the error says what to type. Method: compare its text; odd inputs stay errors.
    #[test]
    fn error_lists_roles() {
        let error = "headmaster".parse::<Role>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no role \"headmaster\": use one of principal, vice_principal, teacher, nurse, office, board"
        );
        for odd in ["", "Principal", "vice principal", &"x".repeat(9_999)] {
            assert!(odd.parse::<Role>().unwrap_err().given.len() <= 40);
        }
    }
}
