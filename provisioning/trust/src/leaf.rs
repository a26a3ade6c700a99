//! End-entity certificates: the names of servers, and what an issue hands over.
//!
//! **Invariants**
//! - Server names are exact: no wildcard, lower case, at most [`SERVER_NAMES_MAX`].
//! - A device's private key never comes back from here; a server's does, wiped when dropped.
//!
//! **Left out:** signing, which is [`crate::authority`].

use std::fmt;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Days that a certificate lasts unless asked otherwise: Apple systems refuse server certificates of
/// more than 825 days from an authority that was installed by hand; with the day of backdating
/// ([`crate::authority::BACKDATE`]) 820 leaves four to spare.
pub const LEAF_DAYS_DEFAULT: u16 = 820;

/// Most days that can be asked for: 825 less the day of backdating.
pub const LEAF_DAYS_MAX: u16 = 824;

/// Most names of one server, addresses included.
pub const SERVER_NAMES_MAX: usize = 32;

/// What clients may call a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerNames {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl ServerNames {
    /// Checks names and addresses; names are taken in lower case.
    ///
    /// # Errors
    /// [`ServerNamesError::Count`] for none or more than [`SERVER_NAMES_MAX`],
    /// [`ServerNamesError::Name`] for what is not a host name.
    ///
    /// # Source
    /// RFC 1123 2.1 and RFC 1035 2.3.4 (labels of 1 to 63 letters, digits and hyphens; 253 in all).
    pub fn new(dns: &[&str], addresses: &[IpAddr]) -> Result<Self, ServerNamesError> {
        if !(1..=SERVER_NAMES_MAX).contains(&(dns.len() + addresses.len())) {
            return Err(ServerNamesError::Count);
        }
        if let Some(odd) = dns.iter().find(|name| !is_host_name(name)) {
            let name = odd.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(ServerNamesError::Name { name });
        }
        let dns = dns.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { dns, addresses: addresses.to_vec() })
    }

    /// DNS names, lower case.
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    /// IP addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// A name for the subject: the first, if it fits the 64 characters of a common name (RFC 5280 A.1).
    pub(crate) fn common_name(&self) -> String {
        let first = self.dns.first().cloned().or_else(|| self.addresses.first().map(IpAddr::to_string));
        first.filter(|name| name.len() <= 64).unwrap_or_else(|| "Sonae server".to_owned())
    }
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // An address among the names would be looked for as a name, and never match.
    name.len() <= 253 && name.split('.').all(is_label) && name.parse::<IpAddr>().is_err()
}

/// Why names cannot be those of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerNamesError {
    /// None, or too many.
    #[error("a server needs 1 to {SERVER_NAMES_MAX} names and addresses: give fewer or at least one")]
    Count,
    /// Not a host name.
    #[error(
        "{name:?} is not a host name: use letters, digits, '-' and '.', no '*', and give addresses as such"
    )]
    Name {
        /// The name, at most 64 characters.
        name: String,
    },
}

/// A server's new certificate with its private key.
pub struct ServerCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The certificate, DER.
    pub certificate_der: CertificateDer<'static>,
    /// The private key, PKCS#8 PEM.
    pub private_key_pem: Zeroizing<String>,
    /// The private key, PKCS#8 DER.
    pub private_key_der: Zeroizing<Vec<u8>>,
    /// The last second in which it is valid.
    pub not_after: OffsetDateTime,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("certificate_pem", &self.certificate_pem)
            .field("private_key_pem", &"redacted")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A device's new certificate; the device keeps its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The certificate, DER.
    pub certificate_der: CertificateDer<'static>,
    /// The last second in which it is valid.
    pub not_after: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: host names pass, in lower case; the rest does not. Method: edges of RFC 1035 lengths,
    /// wildcards, addresses, Japanese.
    #[test]
    fn host_names() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for good in ["Minato.school.example.jp", "localhost", "a-b.1x.jp", longest.as_str()] {
            let names = ServerNames::new(&[good], &[]).unwrap();
            assert_eq!(names.dns(), [good.to_lowercase()]);
        }
        let too_long = format!("{longest}a");
        let long_label = "a".repeat(64);
        for bad in [
            "",
            "*.example.jp",
            "a..b",
            "a.",
            "-a.jp",
            "a-.jp",
            "a_b.jp",
            "学校.jp",
            "192.168.1.1",
            &too_long,
            &long_label,
        ] {
            let error = ServerNames::new(&[bad], &[]).unwrap_err();
            assert!(matches!(error, ServerNamesError::Name { .. }), "{bad}: {error}");
        }
    }

    /// Goal: the count is bounded on both sides. Method: none, the bound, one more.
    #[test]
    fn counts() {
        let addresses = |count: u8| (0..count).map(|n| IpAddr::from([10, 0, 0, n])).collect::<Vec<_>>();
        assert_eq!(ServerNames::new(&[], &[]), Err(ServerNamesError::Count));
        assert!(ServerNames::new(&[], &addresses(32)).is_ok());
        assert_eq!(ServerNames::new(&["a"], &addresses(32)), Err(ServerNamesError::Count));
    }
}
