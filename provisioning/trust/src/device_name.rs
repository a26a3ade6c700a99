//! The name of a device in its certificate: which school, which replica.
//!
//! The form is `sonae:school:<code>:replica:<id>`, one URI in the subject alternative names.
//!
//! **Invariant:** neither part can hold a colon, so that a name reads back in one way only.
//!
//! **Left out:** whether the certificate is valid. Whoever reads a name from a certificate has verified
//! its chain before.
//!
//! # Source
//! RFC 5280 4.2.1.6 (uniformResourceIdentifier).

use std::fmt;
use std::str::FromStr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longest school code or replica id, characters: a school code has 13, a hash in hex 64.
pub const NAME_PART_CHARS_MAX: usize = 64;

/// Who a device is: a replica of a school.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    school_code: String,
    replica_id: String,
}

impl DeviceName {
    /// Makes a name; parts are 1 to 64 ASCII letters, digits, `-`, `_` or `.`.
    ///
    /// # Errors
    /// [`DeviceNameError::Part`] for other parts.
    pub fn new(school_code: &str, replica_id: &str) -> Result<Self, DeviceNameError> {
        check_part("school code", school_code)?;
        check_part("replica id", replica_id)?;
        Ok(Self { school_code: school_code.to_owned(), replica_id: replica_id.to_owned() })
    }

    /// The school's code.
    pub fn school_code(&self) -> &str {
        &self.school_code
    }

    /// The replica's id.
    pub fn replica_id(&self) -> &str {
        &self.replica_id
    }

    /// Reads the name from a certificate (DER) whose chain the caller has verified.
    ///
    /// # Errors
    /// [`DeviceNameError::Certificate`] unless it parses and holds exactly one URI, of our form.
    pub fn from_certificate(der: &[u8]) -> Result<Self, DeviceNameError> {
        let bad = |detail: &'static str| DeviceNameError::Certificate { detail };
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| bad("not a certificate"))?;
        if !rest.is_empty() {
            return Err(bad("bytes after its end"));
        }
        let names = certificate.subject_alternative_name().map_err(|_| bad("unreadable names"))?;
        let names = names.ok_or_else(|| bad("no names"))?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(bad("no device name")),
            (Some(_), Some(_)) => Err(bad("more than one device name")),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sonae:school:{}:replica:{}", self.school_code, self.replica_id)
    }
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        let form = DeviceNameError::Certificate { detail: "the name has another form" };
        let parts = text.strip_prefix("sonae:school:").and_then(|rest| rest.split_once(":replica:"));
        let (school_code, replica_id) = parts.ok_or(form)?;
        Self::new(school_code, replica_id)
    }
}

fn check_part(what: &'static str, part: &str) -> Result<(), DeviceNameError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if part.is_empty() || part.len() > NAME_PART_CHARS_MAX || !part.bytes().all(is_plain) {
        return Err(DeviceNameError::Part { what });
    }
    Ok(())
}

/// Why there is no device name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceNameError {
    /// A part is empty, too long, or has other characters.
    #[error("the {what} cannot be part of a device name: use 1 to 64 letters, digits, '-', '_' or '.'")]
    Part {
        /// Which part.
        what: &'static str,
    },
    /// The certificate or its name is not of our form.
    #[error("this is not the certificate of a device ({detail}): enrol the device again")]
    Certificate {
        /// What is wrong with it.
        detail: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names read back as they were written. Method: round trip, text compared.
    #[test]
    fn round_trip() {
        let name = DeviceName::new("B101220100001", "box-1_a.b").unwrap();
        assert_eq!(name.to_string(), "sonae:school:B101220100001:replica:box-1_a.b");
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        assert_eq!((name.school_code(), name.replica_id()), ("B101220100001", "box-1_a.b"));
    }

    /// Goal: nothing ambiguous gets in. Method: colons, blanks, other prefixes, lengths at the bound.
    #[test]
    fn odd_names_are_refused() {
        for (school, replica) in [("", "a"), ("a", ""), ("a:b", "c"), ("a", "b c"), ("校", "a")] {
            assert!(DeviceName::new(school, replica).is_err(), "{school} {replica}");
        }
        assert!(DeviceName::new(&"a".repeat(64), "b").is_ok());
        assert!(DeviceName::new(&"a".repeat(65), "b").is_err());
        for text in ["", "sonae:school:a", "sonae:school:a:replica:b:replica:c", "SONAE:school:a:replica:b"] {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
        }
        assert!(DeviceName::from_certificate(b"rubbish").is_err());
    }
}
