//! The board's certificate authority: makes itself, reads itself back, issues certificates.
//!
//! **Invariants**
//! - The root has path length 0: it signs end-entity certificates and nothing below them.
//! - Browsers see ECDSA P-256 only; devices keep their Ed25519 key, of which only the public half is
//!   certified.
//! - A certificate never outlives its authority, and each has a random serial number of 126 bits.
//! - A certificate and a key that do not belong together are refused when they are read.
//!
//! **Left out:** keys themselves ([`crate::private_key`]), revocation (it travels in the manifest, not in CRLs), and where keys are stored
//! ([`crate::secret_file`]).
//!
//! # Source
//! RFC 5280 (profile), RFC 8410 (Ed25519 in certificates).

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::device_name::DeviceName;
use crate::entropy::{Entropy, EntropyError};
use crate::leaf::{DeviceCertificate, LEAF_DAYS_MAX, ServerCertificate, ServerNames};
use crate::private_key::{DevicePublicKey, PEM_BYTES_MAX, PrivateKey, PrivateKeyError, device_public_key};

/// Days that the authority lasts: 20 years, 5 of them leap years. Boards change their devices every 5
/// years or so; replacing a root on every device must not be the reason.
pub const AUTHORITY_DAYS: i64 = 20 * 365 + 5;

/// How far the start of a certificate lies before the told time: clocks of tablets differ, and a
/// certificate must work in the minute in which it was made.
pub const BACKDATE: Duration = Duration::DAY;

/// Longest name of a board, characters: with our suffix it fits the 64 of a common name (RFC 5280 A.1).
pub const BOARD_NAME_CHARS_MAX: usize = 48;

/// Bytes of a serial number. Source: RFC 5280 4.1.2.2 (positive, at most 20).
const SERIAL_BYTES: usize = 16;

/// The board's authority with its private key.
pub struct Authority {
    certificate_der: CertificateDer<'static>,
    certificate_pem: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    key: PrivateKey,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("certificate_pem", &self.certificate_pem)
            .field("key", &"redacted")
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates a root for a board: ECDSA P-256, self-signed, CA with path length 0, certificate and CRL
    /// signing, [`AUTHORITY_DAYS`] from `now` on.
    ///
    /// # Errors
    /// [`AuthorityError::BoardName`], [`AuthorityError::Time`], [`AuthorityError::Signing`],
    /// [`AuthorityError::Entropy`].
    pub fn create(
        board_name: &str,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, AuthorityError> {
        let chars = board_name.chars().count();
        if !(1..=BOARD_NAME_CHARS_MAX).contains(&chars) || board_name.chars().any(char::is_control) {
            return Err(AuthorityError::BoardName);
        }
        let (not_before, not_after) = validity(now, AUTHORITY_DAYS)?;
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(new_serial(entropy)?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, board_name);
        params.distinguished_name.push(DnType::CommonName, format!("{board_name} Sonae CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = PrivateKey::generate_p256().map_err(signing)?;
        let certificate = params.self_signed(key.pair()).map_err(signing)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.into(),
            not_before,
            not_after,
            key,
        })
    }

    /// Reads an authority back from its certificate and its private key (PKCS#8), both PEM.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`] unless it is a self-signed CA that may sign certificates,
    /// [`AuthorityError::Key`] unless it is a P-256 key, [`AuthorityError::Mismatch`] when the two do
    /// not belong together.
    pub fn from_pem(
        certificate_pem: &str,
        private_key_pem: &Zeroizing<String>,
    ) -> Result<Self, AuthorityError> {
        let bad = |detail: &'static str| AuthorityError::Certificate { detail };
        if certificate_pem.len() > PEM_BYTES_MAX {
            return Err(bad("too long"));
        }
        let certificate_der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| bad("not a certificate in PEM"))?;
        let key = PrivateKey::p256_from_pem(private_key_pem)?;
        let (rest, parsed) =
            X509Certificate::from_der(&certificate_der).map_err(|_| bad("not a certificate"))?;
        let constraints = parsed.basic_constraints().map_err(|_| bad("unreadable constraints"))?;
        let usage = parsed.key_usage().map_err(|_| bad("unreadable key usage"))?;
        if !rest.is_empty() {
            return Err(bad("bytes after its end"));
        }
        if !constraints.is_some_and(|constraints| constraints.value.ca)
            || !usage.is_some_and(|usage| usage.value.key_cert_sign())
        {
            return Err(bad("it may not sign certificates"));
        }
        if parsed.public_key().raw != key.pair().subject_public_key_info() {
            return Err(AuthorityError::Mismatch);
        }
        parsed.verify_signature(None).map_err(|_| bad("it is not signed by itself"))?;
        let not_before = parsed.validity().not_before.to_datetime();
        let not_after = parsed.validity().not_after.to_datetime();
        Ok(Self { certificate_pem: certificate_pem.to_owned(), certificate_der, not_before, not_after, key })
    }

    /// The certificate, PEM: what devices install as trusted.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// The private key, PKCS#8 PEM; for a file of secrets only.
    pub fn private_key_pem(&self) -> Zeroizing<String> {
        self.key.pem()
    }

    /// The last second in which the authority is valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Issues the certificate that browsers on a school's LAN see, with a new P-256 key.
    ///
    /// `days` is 1 to [`LEAF_DAYS_MAX`]; [`crate::leaf::LEAF_DAYS_DEFAULT`] is usual.
    ///
    /// # Errors
    /// [`AuthorityError::Days`], [`AuthorityError::NotInForce`], [`AuthorityError::Outlives`],
    /// [`AuthorityError::Signing`], [`AuthorityError::Entropy`].
    pub fn issue_lan_server(
        &self,
        names: &ServerNames,
        days: u16,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<ServerCertificate, AuthorityError> {
        self.issue_server(names, "Sonae school", days, now, entropy)
    }

    /// Issues the certificate of a node of the cloud, with a new P-256 key.
    ///
    /// # Errors
    /// As [`Authority::issue_lan_server`].
    pub fn issue_cloud_server(
        &self,
        names: &ServerNames,
        days: u16,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<ServerCertificate, AuthorityError> {
        self.issue_server(names, "Sonae cloud", days, now, entropy)
    }

    /// Issues the client certificate of a device for its public Ed25519 key (32 bytes, RFC 8032 5.1.5):
    /// the private half stays where it was made.
    ///
    /// # Errors
    /// As [`Authority::issue_lan_server`].
    pub fn issue_device(
        &self,
        name: &DeviceName,
        public_key: &[u8; 32],
        days: u16,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<DeviceCertificate, AuthorityError> {
        let mut params = self.leaf_params(days, now, entropy)?;
        let uri = name.to_string().try_into().map_err(signing)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::OrganizationName, "Sonae device");
        params.distinguished_name.push(DnType::CommonName, name.replica_id());
        let certificate =
            params.signed_by(&DevicePublicKey(*public_key), &self.issuer()?).map_err(signing)?;
        Ok(DeviceCertificate {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.into(),
            not_after: params.not_after,
        })
    }

    /// Issues the client certificate of a device whose Ed25519 key is at hand, as PKCS#8 DER (version 1
    /// or 2).
    ///
    /// # Errors
    /// [`AuthorityError::Key`] for another key, else as [`Authority::issue_lan_server`].
    pub fn issue_device_for_pkcs8(
        &self,
        name: &DeviceName,
        device_key_pkcs8: &Zeroizing<Vec<u8>>,
        days: u16,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<DeviceCertificate, AuthorityError> {
        let public_key = device_public_key(device_key_pkcs8)?;
        self.issue_device(name, &public_key, days, now, entropy)
    }

    fn issue_server(
        &self,
        names: &ServerNames,
        organization: &str,
        days: u16,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<ServerCertificate, AuthorityError> {
        let mut params = self.leaf_params(days, now, entropy)?;
        for name in names.dns() {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(signing)?));
        }
        params.subject_alt_names.extend(names.addresses().iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, names.common_name());
        let key = PrivateKey::generate_p256().map_err(signing)?;
        let certificate = params.signed_by(key.pair(), &self.issuer()?).map_err(signing)?;
        Ok(ServerCertificate {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.into(),
            private_key_pem: key.pem(),
            private_key_der: key.der(),
            not_after: params.not_after,
        })
    }

    /// What all leaves share; without names and purposes yet.
    fn leaf_params(
        &self,
        days: u16,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<CertificateParams, AuthorityError> {
        if !(1..=LEAF_DAYS_MAX).contains(&days) {
            return Err(AuthorityError::Days { days });
        }
        if now < self.not_before || now > self.not_after {
            return Err(AuthorityError::NotInForce { from: self.not_before, until: self.not_after });
        }
        let (not_before, not_after) = validity(now, days.into())?;
        if not_after > self.not_after {
            return Err(AuthorityError::Outlives { until: self.not_after });
        }
        let mut params = CertificateParams::default();
        params.not_before = not_before.max(self.not_before);
        params.not_after = not_after;
        params.serial_number = Some(new_serial(entropy)?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// The signing half, with name and key identifier read from the certificate itself, so that an
    /// authority which was read back issues exactly as the one that was created.
    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, AuthorityError> {
        Issuer::from_ca_cert_der(&self.certificate_der, self.key.pair()).map_err(signing)
    }
}

/// From [`BACKDATE`] before `now` until `days` after it, whole seconds.
fn validity(now: OffsetDateTime, days: i64) -> Result<(OffsetDateTime, OffsetDateTime), AuthorityError> {
    let now = now.replace_nanosecond(0).map_err(|_| AuthorityError::Time)?;
    let from = now.checked_sub(BACKDATE).ok_or(AuthorityError::Time)?;
    let until = now.checked_add(Duration::days(days)).ok_or(AuthorityError::Time)?;
    // RFC 5280 4.1.2.5: the year has four digits; before 1950 rcgen and verifiers differ.
    if from.year() < 1950 || until.year() > 9999 { Err(AuthorityError::Time) } else { Ok((from, until)) }
}

/// A positive number of constant length: the top bit is clear, the next is set.
fn new_serial(entropy: &mut dyn Entropy) -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; SERIAL_BYTES];
    entropy.fill(&mut bytes)?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn signing(source: rcgen::Error) -> AuthorityError {
    AuthorityError::Signing { source }
}

/// Why the authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The board's name is empty, too long, or has control characters.
    #[error("the board's name does not fit a certificate: use 1 to {BOARD_NAME_CHARS_MAX} characters")]
    BoardName,
    /// Validity out of range.
    #[error("a certificate cannot last {days} days: ask for 1 to {LEAF_DAYS_MAX}")]
    Days {
        /// What was asked for.
        days: u16,
    },
    /// The told time cannot be written into a certificate.
    #[error("the time is out of range for a certificate: set this machine's clock")]
    Time,
    /// The told time is outside the authority's own validity.
    #[error(
        "the authority is valid from {from} until {until}, not now: check the clock, else create a new authority"
    )]
    NotInForce {
        /// First second.
        from: OffsetDateTime,
        /// Last second.
        until: OffsetDateTime,
    },
    /// The certificate would outlive the authority.
    #[error(
        "the certificate would outlive the authority, which ends at {until}: ask for fewer days or create a new authority"
    )]
    Outlives {
        /// The authority's last second.
        until: OffsetDateTime,
    },
    /// The authority's certificate is unusable.
    #[error("the authority's certificate is unusable ({detail}): restore it from the board's backup")]
    Certificate {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A private key is unusable.
    #[error(transparent)]
    Key(#[from] PrivateKeyError),
    /// Certificate and key are of different authorities.
    #[error(
        "the authority's certificate and private key do not belong together: restore both from one backup"
    )]
    Mismatch,
    /// The certificate could not be signed.
    #[error("could not make the key or sign the certificate: try again, and report it if it persists")]
    Signing {
        /// What rcgen said.
        #[source]
        source: rcgen::Error,
    },
    /// No random bytes for the serial number.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}
