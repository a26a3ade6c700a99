//! Owns the editions of the Japan Profile, as data: what each leaves out, renames and writes in its manifest.
//!
//! Invariant: an edition is described here and nowhere else; readers accept all of them by column names,
//! writers follow exactly one. Leaves out: the columns themselves (`schema.rs`).

use std::collections::BTreeSet;

use crate::schema::{Column, FileSpec};

/// One edition of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Name by which it is chosen, for example `jp-1.2.1`.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// `oneroster.version` in the manifest.
    pub oneroster_version: &'static str,
    /// Columns that it does not have, by key.
    pub omits: &'static [&'static str],
    /// Columns that it spells differently: key, spelling.
    pub renames: &'static [(&'static str, &'static str)],
}

const UPPER_CASE: &[(&str, &str)] = &[
    ("metadata.jp.shussekiNo", "metadata.jp.ShussekiNo"),
    ("metadata.jp.publicFlg", "metadata.jp.PublicFlg"),
];

const KANA_PREFERRED: &[&str] = &[
    "resourceSourcedIds",
    "metadata.jp.kanaPreferredFamilyName",
    "metadata.jp.kanaPreferredGivenName",
    "metadata.jp.kanaPreferredMiddleName",
];

/// Every edition, the one to prefer first.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "jp-1.2.1",
        title: "OneRoster Japan Profile 1.2.1",
        oneroster_version: "1.2",
        omits: &["resourceSourcedIds"],
        renames: UPPER_CASE,
    },
    Profile {
        name: "k12-schools",
        title: "Japan K-12/Schools Profile (相互運用標準モデル Ver.6)",
        oneroster_version: "1.2_JP",
        omits: &["resourceSourcedIds"],
        renames: &[],
    },
    Profile {
        name: "model-5",
        title: "相互運用標準モデル Ver.5 / 学習eポータル標準モデル Ver.4",
        oneroster_version: "1.2.1",
        omits: KANA_PREFERRED,
        renames: UPPER_CASE,
    },
    Profile {
        name: "jp-1.1",
        title: "OneRoster Japan Profile 1.1, users.csv of OneRoster 1.2.1",
        oneroster_version: "1.2",
        omits: KANA_PREFERRED,
        renames: UPPER_CASE,
    },
    Profile {
        name: "jp-1.1-or-1.2.0",
        title: "OneRoster Japan Profile 1.1, users.csv of OneRoster 1.2.0",
        oneroster_version: "1.2",
        omits: &[
            "metadata.jp.kanaPreferredFamilyName",
            "metadata.jp.kanaPreferredGivenName",
            "metadata.jp.kanaPreferredMiddleName",
        ],
        renames: UPPER_CASE,
    },
];

impl Profile {
    /// Finds an edition by its name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// How this edition spells a column.
    pub fn spelling(&self, column: &Column) -> &'static str {
        let renamed = self.renames.iter().find(|(key, _)| *key == column.name);
        renamed.map_or(column.name, |(_, spelling)| spelling)
    }

    /// The columns that this edition has in a file, in order, each with its spelling.
    pub fn columns(&self, file: &'static FileSpec) -> impl Iterator<Item = (&'static Column, &'static str)> {
        let kept = file.columns.iter().filter(|column| !self.omits.contains(&column.name));
        kept.map(|column| (column, self.spelling(column)))
    }

    /// Whether a header is exactly this edition's, columns that no edition knows left aside.
    pub(crate) fn matches(&self, file: &'static FileSpec, known: &[&str]) -> bool {
        self.columns(file).map(|(_, spelling)| spelling).eq(known.iter().copied())
    }
}

/// Collects evidence of the edition while files are read.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    version: String,
    mismatched: BTreeSet<&'static str>,
}

impl Detector {
    /// Notes the manifest's version.
    pub(crate) fn see_version(&mut self, version: &str) {
        version.clone_into(&mut self.version);
    }

    /// Notes a header: the known columns of a file, as spelled there. Returns whether some edition has it so.
    pub(crate) fn see_header(&mut self, file: &'static FileSpec, known: &[&str]) -> bool {
        let mut any = file.property.is_empty();
        for profile in PROFILES {
            if profile.matches(file, known) {
                any = true;
            } else {
                self.mismatched.insert(profile.name);
            }
        }
        any
    }

    /// The edition that all evidence fits, if any.
    pub(crate) fn profile(&self) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| {
            profile.oneroster_version == self.version && !self.mismatched.contains(profile.name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ENROLLMENTS, FILES, USERS};

    fn header(name: &str, file: &'static FileSpec) -> Vec<&'static str> {
        Profile::by_name(name).unwrap().columns(file).map(|(_, spelling)| spelling).collect()
    }

    /// Goal: the editions differ where they should. Method: compare tails of headers with the literature.
    #[test]
    fn editions_differ() {
        assert!(
            header("jp-1.2.1", &ENROLLMENTS).ends_with(&["metadata.jp.ShussekiNo", "metadata.jp.PublicFlg"])
        );
        assert!(
            header("k12-schools", &ENROLLMENTS)
                .ends_with(&["metadata.jp.shussekiNo", "metadata.jp.publicFlg"])
        );
        assert!(header("jp-1.2.1", &USERS).ends_with(&["metadata.jp.kanaPreferredMiddleName"]));
        assert!(header("jp-1.1", &USERS).ends_with(&["metadata.jp.homeClass"]));
        let old = header("jp-1.1-or-1.2.0", &USERS);
        let at = old.iter().position(|name| *name == "resourceSourcedIds").unwrap();
        assert_eq!(old[at - 1..at + 2], ["userMasterIdentifier", "resourceSourcedIds", "preferredGivenName"]);
    }

    /// Goal: each edition is recognised by its own headers. Method: feed them to the detector.
    #[test]
    fn editions_are_detected() {
        for profile in PROFILES {
            let mut detector = Detector::default();
            detector.see_version(profile.oneroster_version);
            for file in FILES {
                assert!(detector.see_header(file, &header(profile.name, file)), "{}", file.name);
            }
            assert_eq!(detector.profile(), Some(profile));
        }
        assert!(!Detector::default().see_header(&USERS, &["familyName", "sourcedId"]));
    }
}
