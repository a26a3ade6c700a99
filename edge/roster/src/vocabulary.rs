//! Owns the closed word lists of OneRoster and of the Japan Profile, as types.
//!
//! Invariants: a word is written exactly as it was read; a value that begins with `ext:` is always allowed
//! (OneRoster's way to extend a list). Leaves out: attendance codes, which each board defines as data.

use std::fmt;

macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
            /// A value of somebody's own; the text includes its prefix `ext:`.
            Ext(String),
        }

        impl $name {
            /// The allowed words, beside `ext:…`.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word as it stands in a file.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$variant => $word,)+ Self::Ext(text) => text }
            }

            /// Reads a word. Returns `None` if it is neither in the list nor an extension.
            pub fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    other => is_extension(other).then(|| Self::Ext(other.to_owned())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// Whether a value extends a word list: `ext:` and at least one more character.
pub(crate) fn is_extension(word: &str) -> bool {
    word.strip_prefix("ext:").is_some_and(|rest| !rest.is_empty())
}

vocabulary! {
    /// Kind of an organisation. The Japan Profile allows two.
    OrgType {
        /// 教育委員会.
        District = "district",
        /// 学校.
        School = "school",
    }
}

vocabulary! {
    /// Kind of an academic session. The Japan Profile allows one.
    SessionType {
        /// 年度: 1 April to 31 March.
        SchoolYear = "schoolYear",
    }
}

vocabulary! {
    /// Kind of a class.
    ClassType {
        /// 学級.
        Homeroom = "homeroom",
        /// A class of a subject.
        Scheduled = "scheduled",
    }
}

vocabulary! {
    /// Whether a role is the user's main one at an organisation.
    RoleType {
        /// The main role.
        Primary = "primary",
        /// A further role.
        Secondary = "secondary",
    }
}

vocabulary! {
    /// What a user is at an organisation.
    Role {
        /// Assistant.
        Aide = "aide",
        /// Counsellor.
        Counselor = "counselor",
        /// Administrator at the education board.
        DistrictAdministrator = "districtAdministrator",
        /// Guardian.
        Guardian = "guardian",
        /// Parent.
        Parent = "parent",
        /// Principal.
        Principal = "principal",
        /// Proctor.
        Proctor = "proctor",
        /// Relative.
        Relative = "relative",
        /// Administrator of a school.
        SiteAdministrator = "siteAdministrator",
        /// Pupil.
        Student = "student",
        /// Administrator of a system.
        SystemAdministrator = "systemAdministrator",
        /// Teacher.
        Teacher = "teacher",
    }
}

vocabulary! {
    /// What a user is in a class.
    EnrollmentRole {
        /// Pupil.
        Student = "student",
        /// Teacher.
        Teacher = "teacher",
        /// Administrator.
        Administrator = "administrator",
        /// Guardian.
        Guardian = "guardian",
    }
}

vocabulary! {
    /// Sex, as recorded.
    Sex {
        /// Male.
        Male = "male",
        /// Female.
        Female = "female",
        /// Not stated.
        Unspecified = "unspecified",
        /// Other.
        Other = "other",
    }
}

/// Grades: primary school, lower secondary, upper secondary, and the early years, as the profile codes them.
pub const GRADES: &[&str] =
    &["P1", "P2", "P3", "P4", "P5", "P6", "J1", "J2", "J3", "H1", "H2", "H3", "E1", "E2", "E3"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: words survive reading and writing. Method: every word, an extension and two wrong ones.
    #[test]
    fn words_round_trip() {
        for word in Role::WORDS.iter().chain(&["ext:driver"]) {
            assert_eq!(Role::parse(word).unwrap().as_str(), *word);
        }
        assert_eq!(Role::parse("ext:"), None);
        assert_eq!(Role::parse("Teacher"), None);
    }
}
