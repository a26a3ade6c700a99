//! Certificates as their users see them: chains verified by the library that rustls uses.
#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::net::IpAddr;
use std::time::Duration as StdDuration;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sonae_trust::authority::{Authority, AuthorityError};
use sonae_trust::device_chain::{DeviceChainError, verify as verify_device};
use sonae_trust::device_name::DeviceName;
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::leaf::{LEAF_DAYS_DEFAULT, LEAF_DAYS_MAX, ServerNames};
use sonae_trust::private_key::device_public_key;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

const NOW: OffsetDateTime = datetime!(2026-04-01 00:00:00.5 UTC);

fn authority() -> Authority {
    Authority::create("みなと市教育委員会", NOW, &mut SystemEntropy).unwrap()
}

fn names() -> ServerNames {
    let addresses: [IpAddr; 2] = ["192.168.10.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    ServerNames::new(&["minato-es.sonae.example.jp", "box.local"], &addresses).unwrap()
}

fn device() -> (DeviceName, SigningKey, Zeroizing<Vec<u8>>) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let pkcs8 = Zeroizing::new(key.to_pkcs8_der().unwrap().as_bytes().to_vec());
    (DeviceName::new("B101220100001", "box-1").unwrap(), key, pkcs8)
}

/// Verifies a leaf against a root at a time, as rustls does.
fn verify(
    root: &CertificateDer<'_>,
    leaf: &CertificateDer<'_>,
    at: OffsetDateTime,
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    let anchor = anchor_from_trusted_cert(root)?;
    let leaf = EndEntityCert::try_from(leaf)?;
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    let time = UnixTime::since_unix_epoch(StdDuration::from_secs(seconds));
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], time, usage, None, None)?;
    Ok(())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).unwrap().1
}

/// The key identifiers of a certificate's authority and of its subject; absent ones are empty.
fn key_ids(der: &CertificateDer<'_>) -> (Vec<u8>, Vec<u8>) {
    let (mut authority, mut subject) = (Vec::new(), Vec::new());
    for extension in parse(der).extensions() {
        if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
            authority = id.key_identifier.as_ref().unwrap().0.to_vec();
        } else if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            subject = id.0.to_vec();
        }
    }
    (authority, subject)
}

/// Goal: the root has the profile that was decided. Method: parse every property.
#[test]
fn root_profile() {
    let authority = authority();
    let root = parse(authority.certificate_der());
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.to_string(), "Key Cert Sign, CRL Sign");
    assert_eq!(root.validity().not_before.to_datetime(), datetime!(2026-03-31 00:00 UTC));
    assert_eq!(root.validity().not_after.to_datetime(), datetime!(2046-04-01 00:00 UTC));
    assert_eq!(authority.not_after(), datetime!(2046-04-01 00:00 UTC));
    assert!(root.subject().to_string().contains("みなと市教育委員会 Sonae CA"), "{}", root.subject());
    root.verify_signature(None).unwrap();
}

/// Goal: browsers accept the server certificates by name and by address, for serving only, from the
/// day before until day 820. Method: webpki with each name and at the ends of validity.
#[test]
fn server_chain() {
    let authority = authority();
    let root = authority.certificate_der();
    let issued = [
        authority.issue_lan_server(&names(), LEAF_DAYS_DEFAULT, NOW, &mut SystemEntropy).unwrap(),
        authority.issue_cloud_server(&names(), LEAF_DAYS_DEFAULT, NOW, &mut SystemEntropy).unwrap(),
    ];
    for server in &issued {
        let der = &server.certificate_der;
        verify(root, der, NOW, KeyUsage::server_auth()).unwrap();
        verify(root, der, NOW - Duration::hours(23), KeyUsage::server_auth()).unwrap();
        verify(root, der, NOW + Duration::days(820), KeyUsage::server_auth()).unwrap();
        for at in [NOW - Duration::hours(25), NOW + Duration::days(820) + Duration::SECOND] {
            assert!(verify(root, der, at, KeyUsage::server_auth()).is_err(), "{at}");
        }
        assert!(verify(root, der, NOW, KeyUsage::client_auth()).is_err());
        let leaf = EndEntityCert::try_from(der).unwrap();
        for name in ["minato-es.sonae.example.jp", "box.local", "192.168.10.2", "fd00::2"] {
            leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap()).unwrap();
        }
        for name in ["other.example.jp", "192.168.10.3"] {
            let name = ServerName::try_from(name).unwrap();
            assert!(leaf.verify_is_valid_for_subject_name(&name).is_err());
        }
        let usage = parse(der).key_usage().unwrap().unwrap().value.to_string();
        assert_eq!(usage, "Digital Signature");
        assert_eq!(key_ids(der).0, key_ids(root).1);
    }
}

/// Goal: the private key that is handed over is that of the certificate. Method: rcgen loads it and
/// shows the same public key; PEM and DER agree; `Debug` hides it.
#[test]
fn server_key_belongs() {
    let server = authority().issue_lan_server(&names(), 30, NOW, &mut SystemEntropy).unwrap();
    let key = rcgen::KeyPair::from_pem(&server.private_key_pem).unwrap();
    assert_eq!(key.serialized_der(), server.private_key_der.as_slice());
    let shown = parse(&server.certificate_der);
    assert_eq!(shown.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
    let debug = format!("{server:?}");
    assert!(debug.contains("redacted") && !debug.contains("PRIVATE KEY"));
}

/// Goal: a device's certificate names it, is for clients only, and carries its Ed25519 key. Method:
/// webpki, then read name and key back; both versions of PKCS#8, and the public key alone.
#[test]
fn device_chain() {
    let authority = authority();
    let (name, key, pkcs8) = device();
    let version_1 = KeypairBytes { secret_key: [7; 32], public_key: None };
    let version_1 = Zeroizing::new(version_1.to_pkcs8_der().unwrap().as_bytes().to_vec());
    let public_key = key.verifying_key().to_bytes();
    assert_eq!(device_public_key(&pkcs8).unwrap(), public_key);
    let mut entropy = SystemEntropy;
    let issued = [
        authority.issue_device_for_pkcs8(&name, &pkcs8, 365, NOW, &mut entropy).unwrap(),
        authority.issue_device_for_pkcs8(&name, &version_1, 365, NOW, &mut entropy).unwrap(),
        authority.issue_device(&name, &public_key, 365, NOW, &mut entropy).unwrap(),
    ];
    for device in &issued {
        let der = &device.certificate_der;
        verify(authority.certificate_der(), der, NOW, KeyUsage::client_auth()).unwrap();
        assert!(verify(authority.certificate_der(), der, NOW, KeyUsage::server_auth()).is_err());
        assert_eq!(DeviceName::from_certificate(der), Ok(name.clone()));
        assert_eq!(parse(der).public_key().subject_public_key.data.as_ref(), public_key);
        assert!(!device.certificate_pem.contains("PRIVATE"));
    }
}

/// Goal: only this board's certificates verify, and a leaf cannot sign. Method: another root; a leaf
/// used as root.
#[test]
fn other_roots_do_not_verify() {
    let (ours, theirs) = (authority(), authority());
    let server = ours.issue_lan_server(&names(), 30, NOW, &mut SystemEntropy).unwrap();
    let outcome = verify(theirs.certificate_der(), &server.certificate_der, NOW, KeyUsage::server_auth());
    assert!(outcome.is_err());
    let leaf_as_root = Authority::from_pem(&server.certificate_pem, &server.private_key_pem);
    assert!(matches!(leaf_as_root, Err(AuthorityError::Certificate { .. })));
    assert!(DeviceName::from_certificate(&server.certificate_der).is_err());
}

/// Goal: an authority that was read back issues as before. Method: PEM out and in; issue; verify
/// against the first certificate.
#[test]
fn authority_reads_back() {
    let first = authority();
    let again = Authority::from_pem(first.certificate_pem(), &first.private_key_pem()).unwrap();
    assert_eq!(first.certificate_der(), again.certificate_der());
    assert_eq!(first.not_after(), again.not_after());
    let server = again.issue_lan_server(&names(), 30, NOW, &mut SystemEntropy).unwrap();
    verify(first.certificate_der(), &server.certificate_der, NOW, KeyUsage::server_auth()).unwrap();
    let debug = format!("{again:?}");
    assert!(debug.contains("redacted") && !debug.contains("PRIVATE KEY"));
}

/// Goal: parts that do not belong together, or are broken, are refused. Method: swap keys, cut texts,
/// a key of another kind.
#[test]
fn broken_authorities_are_refused() {
    let (one, two) = (authority(), authority());
    let (_, _, ed25519) = device();
    let swapped = Authority::from_pem(one.certificate_pem(), &two.private_key_pem());
    assert!(matches!(swapped, Err(AuthorityError::Mismatch)));
    let key = one.private_key_pem();
    for text in ["", "rubbish", key.as_str(), &"x".repeat(20_000)] {
        let outcome = Authority::from_pem(text, &key);
        assert!(matches!(outcome, Err(AuthorityError::Certificate { .. })), "{outcome:?}");
    }
    let pem = |label: &str, der: &[u8]| {
        let encoded = data_encoding::BASE64.encode(der);
        format!("-----BEGIN {label}-----\n{encoded}\n-----END {label}-----\n")
    };
    let mut tampered = one.certificate_der().to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    let outcome = Authority::from_pem(&pem("CERTIFICATE", &tampered), &key);
    assert!(matches!(outcome, Err(AuthorityError::Certificate { .. })), "{outcome:?}");
    let ed25519 = pem("PRIVATE KEY", &ed25519);
    for text in ["", one.certificate_pem(), ed25519.as_str(), &"x".repeat(20_000)] {
        let outcome = Authority::from_pem(one.certificate_pem(), &Zeroizing::new(text.to_owned()));
        assert!(matches!(outcome, Err(AuthorityError::Key(_))), "{outcome:?}");
    }
    for pkcs8 in [Vec::new(), b"rubbish".to_vec()] {
        assert!(device_public_key(&Zeroizing::new(pkcs8)).is_err());
    }
}

/// Goal: validity is bounded by days, by the authority and by the calendar. Method: each bound and one
/// beyond.
#[test]
fn validity_is_bounded() {
    let authority = authority();
    let issue = |days, now| authority.issue_lan_server(&names(), days, now, &mut SystemEntropy).map(drop);
    assert!(issue(1, NOW).is_ok() && issue(LEAF_DAYS_MAX, NOW).is_ok());
    for days in [0, LEAF_DAYS_MAX + 1] {
        assert!(matches!(issue(days, NOW), Err(AuthorityError::Days { .. })), "{days}");
    }
    let end = authority.not_after();
    assert!(issue(30, end - Duration::days(30)).is_ok());
    assert!(matches!(issue(31, end - Duration::days(30)), Err(AuthorityError::Outlives { .. })));
    for now in [OffsetDateTime::UNIX_EPOCH, end + Duration::SECOND] {
        assert!(matches!(issue(1, now), Err(AuthorityError::NotInForce { .. })), "{now}");
    }
    // A box without a clock can still make an authority for a drill.
    assert!(Authority::create("教育委員会", OffsetDateTime::UNIX_EPOCH, &mut SystemEntropy).is_ok());
    let late = datetime!(9999-01-01 00:00 UTC);
    for (name, now) in [("", NOW), ("a\nb", NOW), (&"市".repeat(49), NOW)] {
        let outcome = Authority::create(name, now, &mut SystemEntropy);
        assert!(matches!(outcome, Err(AuthorityError::BoardName)), "{name}");
    }
    assert!(matches!(Authority::create("a", late, &mut SystemEntropy), Err(AuthorityError::Time)));
}

/// Goal: serial numbers are positive, long and differ. Method: issue twice, compare.
#[test]
fn serials_differ() {
    let authority = authority();
    let serial = || {
        let server = authority.issue_lan_server(&names(), 30, NOW, &mut SystemEntropy).unwrap();
        parse(&server.certificate_der).raw_serial().to_vec()
    };
    let (one, two) = (serial(), serial());
    assert_ne!(one, two);
    assert!([&one, &two].iter().all(|serial| serial.len() == 16 && (0x40..=0x7f).contains(&serial[0])));
}

/// Goal: a device is known by authority, purpose and name, whatever the clock says, and nothing else is a device.
/// Method: certificates of now, of long ago and of a clock in 1970's reach; another authority; a server's certificate;
/// flipped bytes.
#[test]
fn a_device_is_known_whatever_the_clock_says() {
    let (name, key, _) = device();
    let public = key.verifying_key().to_bytes();
    for at in [NOW, datetime!(2001-01-01 00:00 UTC)] {
        let authority = Authority::create("みなと市教育委員会", at, &mut SystemEntropy).unwrap();
        let issued = authority.issue_device(&name, &public, 1, at, &mut SystemEntropy).unwrap();
        let found = verify_device(&issued.certificate_der, authority.certificate_der()).unwrap();
        assert_eq!((found.name, found.key), (name.clone(), public));
    }
    let authority = authority();
    let issued = authority.issue_device(&name, &public, 1, NOW, &mut SystemEntropy).unwrap();
    let other = Authority::create("みなと市教育委員会", NOW, &mut SystemEntropy).unwrap();
    let foreign = verify_device(&issued.certificate_der, other.certificate_der());
    assert!(matches!(foreign, Err(DeviceChainError::Foreign(_))), "{foreign:?}");
    let server = authority.issue_lan_server(&names(), LEAF_DAYS_DEFAULT, NOW, &mut SystemEntropy).unwrap();
    assert!(verify_device(&server.certificate_der, authority.certificate_der()).is_err());
    assert!(verify_device(authority.certificate_der(), authority.certificate_der()).is_err());
    for at in (0..issued.certificate_der.len()).step_by(7) {
        let mut flipped = issued.certificate_der.to_vec();
        flipped[at] ^= 1;
        assert!(verify_device(&flipped.into(), authority.certificate_der()).is_err(), "byte {at}");
    }
}
