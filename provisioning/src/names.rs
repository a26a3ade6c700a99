//! What the operator types: names for people, hosts, LAN names, the time.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sonae_trust::leaf::ServerNames;
use time::OffsetDateTime;

use crate::error::ProvisionError;

/// Port of the cloud unless told otherwise.
pub const CLOUD_PORT_DEFAULT: u16 = 4433;

/// Longest name of a school, characters.
pub const SCHOOL_NAME_CHARS_MAX: usize = 100;

/// First year that a set clock can say: nothing was enrolled before.
const CLOCK_YEAR_MIN: i32 = 2026;

/// A time that was checked, as milliseconds since 1970 UTC.
///
/// # Errors
/// [`ProvisionError::Clock`] when the clock is plainly not set.
pub fn checked_ms(now: OffsetDateTime) -> Result<u64, ProvisionError> {
    let ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).ok();
    ms.filter(|_| now.year() >= CLOCK_YEAR_MIN).ok_or(ProvisionError::Clock { year: now.year() })
}

/// Checks a name for people.
///
/// # Errors
/// [`ProvisionError::Name`].
pub fn check_name(what: &'static str, name: &str, chars_max: usize) -> Result<(), ProvisionError> {
    let is_right = (1..=chars_max).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && !name.trim().is_empty();
    if is_right { Ok(()) } else { Err(ProvisionError::Name { what, chars_max }) }
}

/// A DNS name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// A DNS name, lower case.
    Dns(String),
    /// An IP address.
    Address(IpAddr),
}

impl HostName {
    /// Reads a name or an address, the latter in brackets or not.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Dns(text.to_ascii_lowercase()),
        }
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Dns(name) => name == "localhost",
            Self::Address(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Makes the names of a certificate, each once, in order.
///
/// # Errors
/// [`ProvisionError::ServerNames`].
pub fn server_names(names: &[HostName]) -> Result<ServerNames, ProvisionError> {
    let (mut dns, mut addresses) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            HostName::Dns(name) if !dns.contains(&name.as_str()) => dns.push(name.as_str()),
            HostName::Address(address) if !addresses.contains(address) => addresses.push(*address),
            HostName::Dns(_) | HostName::Address(_) => {}
        }
    }
    Ok(ServerNames::new(&dns, &addresses)?)
}

/// Where a node of the cloud is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Its port.
    pub port: u16,
}

impl Host {
    /// Returns the names for its certificate: its own; for a loopback host all names of the loopback, because
    /// a demonstration on one machine dials any of them.
    ///
    /// # Errors
    /// [`ProvisionError::ServerNames`].
    pub fn certificate_names(&self) -> Result<ServerNames, ProvisionError> {
        let mut names = vec![self.name.clone()];
        if self.name.is_loopback() {
            names.extend(["localhost", "127.0.0.1", "::1"].map(HostName::read));
        }
        server_names(&names)
    }
}

impl FromStr for Host {
    type Err = ProvisionError;

    fn from_str(text: &str) -> Result<Self, ProvisionError> {
        let wrong =
            || ProvisionError::Host { text: text.chars().filter(|c| !c.is_control()).take(64).collect() };
        let without_port = |text| Self { name: HostName::read(text), port: CLOUD_PORT_DEFAULT };
        let host = match text.rsplit_once(':') {
            _ if text.parse::<IpAddr>().is_ok() || text.ends_with(']') => without_port(text),
            Some((name, port)) => Self {
                name: HostName::read(name),
                port: port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            },
            None => without_port(text),
        };
        server_names(std::slice::from_ref(&host.name)).map_err(|_| wrong())?;
        Ok(host)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            HostName::Dns(_) | HostName::Address(IpAddr::V4(_)) => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: hosts are read with and without port, in every family. Method: a table, both ways.
    #[test]
    fn hosts() {
        for (text, canonical) in [
            ("Cloud.example.jp", "cloud.example.jp:4433"),
            ("cloud.example.jp:443", "cloud.example.jp:443"),
            ("192.0.2.1", "192.0.2.1:4433"),
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("fd00::1", "[fd00::1]:4433"),
            ("[fd00::1]", "[fd00::1]:4433"),
            ("[fd00::1]:5", "[fd00::1]:5"),
        ] {
            let host = text.parse::<Host>().unwrap();
            assert_eq!(host.to_string(), canonical);
            assert_eq!(canonical.parse::<Host>().unwrap(), host);
        }
        for wrong in
            ["", ":4433", "a:0", "a:65536", "a:b", "a b", "*.example.jp", "https://a", "学校.jp", "[x]"]
        {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    /// Goal: only a loopback host gets loopback names. Method: one of each.
    #[test]
    fn loopback_names() {
        let names = |text: &str| text.parse::<Host>().unwrap().certificate_names().unwrap();
        for text in ["localhost", "127.0.0.1", "[::1]:5"] {
            assert_eq!((names(text).dns().len(), names(text).addresses().len()), (1, 2), "{text}");
        }
        assert!(names("192.0.2.1").dns().is_empty());
        assert_eq!(names("cloud.example.jp").addresses(), [] as [IpAddr; 0]);
    }

    /// Goal: names and clocks that cannot be right are refused. Method: each bound and one beyond.
    #[test]
    fn names_and_clock() {
        assert!(check_name("school's name", &"校".repeat(100), 100).is_ok());
        for name in ["", " ", "a\nb", &"校".repeat(101)] {
            assert!(check_name("school's name", name, 100).is_err());
        }
        assert!(checked_ms(OffsetDateTime::UNIX_EPOCH).is_err());
        assert!(checked_ms(time::macros::datetime!(2025-12-31 23:59:59 UTC)).is_err());
        let first = time::macros::datetime!(2026-01-01 00:00 UTC);
        assert_eq!(checked_ms(first).unwrap(), 1_767_225_600_000);
    }
}
