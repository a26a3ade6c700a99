//! The whole way from an empty directory to bundles that open, through the library.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

mod support;

use std::fs;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use sonae_proto::bundle::{BundleError, CloudBundle, ReplicaBundle, open};
use sonae_proto::descriptor::CloudDescriptor;
use sonae_proto::identity::{DeviceCertificate, ReplicaKind};
use sonae_proto::ids::{Hash32, ReceiptKeyId};
use sonae_proto::manifest::{KeyUse, Manifest};
use sonae_proto::seal::OpenKey;
use sonae_proto::signed::Signed;
use sonae_provision::board::Board;
use sonae_provision::disk::Disk;
use sonae_provision::error::{Exit, ProvisionError};
use sonae_provision::names::checked_ms;
use sonae_provision::overview::Overview;
use sonae_provision::replica::{self, ReplicaRequest};
use sonae_provision::school::School;
use sonae_trust::device_name::DeviceName;
use sonae_trust::private_key::device_public_key;
use support::{
    CODE, NOW, Place, board_key, check_modes, check_replica_bundle, check_tls, check_wrapped, code,
    enrol_cloud, enrol_replica,
};
use webpki::KeyUsage;
use zeroize::Zeroizing;

fn seed_key(hex: &str) -> SigningKey {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    SigningKey::from_bytes(&bytes.try_into().unwrap())
}

/// Goal: a replica's bundle is complete and everything in it verifies. Method: enrol; check documents, keys,
/// chains and names with the public root only.
#[test]
fn replica_bundle_verifies() {
    let place = Place::with_cloud();
    let board = place.open();
    let root = board.facts().root;
    let bundle = enrol_replica(&board, &place.path("r.bundle")).unwrap();
    let manifest = check_replica_bundle(&bundle, &root);
    assert_eq!((manifest.version, manifest.school, bundle.school), (2, code(), code()));
    assert_eq!((bundle.board_name.as_str(), bundle.school_name.as_str()), ("架空市教育委員会", "架空小学校"));
    for name in ["operations.key", "recovery.key"] {
        check_wrapped(&manifest, &bundle.wrapped_keys, &board_key(&place.dir(), name));
    }
    let mut keys: Vec<_> = manifest.keys.iter().map(|key| (key.key_use.to_string(), key.epoch)).collect();
    keys.sort();
    let expected = [
        ("digest", 0),
        ("tier0", 2026),
        ("tier0", 2027),
        ("tier1", 2026),
        ("tier1", 2027),
        ("tier2", 2026),
        ("tier2", 2027),
    ];
    assert_eq!(keys, expected.map(|(key_use, epoch)| (key_use.to_owned(), epoch)));

    let device = Signed::<DeviceCertificate>::verify(&bundle.device_certificate, &root).unwrap();
    let device = device.body();
    let key = seed_key(&bundle.device_seed);
    assert_eq!(device.key, key.verifying_key());
    assert_eq!(device.recipient, OpenKey::parse(&bundle.device_age_key).unwrap().recipient());
    assert_eq!((device.school, device.kind), (code(), ReplicaKind::Appliance));
    assert_eq!(device.enrolled_ms, checked_ms(NOW).unwrap());

    let der = check_tls(&bundle.ca_pem, &bundle.tls_certificate_pem, KeyUsage::client_auth(), &[]);
    let name = DeviceName::from_certificate(&der).unwrap();
    assert_eq!((name.school_code(), name.replica_id()), (CODE, device.replica().to_string().as_str()));
    let pkcs8 = Zeroizing::new(key.to_pkcs8_der().unwrap().as_bytes().to_vec());
    let public = device_public_key(&pkcs8).unwrap();
    assert!(der.windows(32).any(|window| window == public));

    let expected =
        ["b113200000011.sonae.internal", "localhost", "box.example.jp", "127.0.0.1", "::1", "192.0.2.7"];
    assert_eq!(bundle.lan_names, expected);
    check_tls(&bundle.ca_pem, &bundle.lan_certificate_pem, KeyUsage::server_auth(), &expected);
    assert!(bundle.lan_key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
    Signed::<CloudDescriptor>::verify(&bundle.descriptor, &root).unwrap();
}

/// Goal: a second replica is one more reader, and both open everything. Method: enrol two; the first device's
/// key opens the wrapped keys of the second's bundle.
#[test]
fn second_replica_joins() {
    let place = Place::with_cloud();
    let first = enrol_replica(&place.open(), &place.path("1.bundle")).unwrap();
    let second = enrol_replica(&place.open(), &place.path("2.bundle")).unwrap();
    let board = place.open();
    let (one, two) = (
        check_replica_bundle(&first, &board.facts().root),
        check_replica_bundle(&second, &board.facts().root),
    );
    assert_eq!((one.version, two.version), (2, 3));
    assert_eq!((one.readers.len(), two.readers.len()), (3, 4));
    assert_eq!(one.keys, two.keys);
    assert_eq!(one.readers, two.readers[..3]);
    check_wrapped(&two, &second.wrapped_keys, &OpenKey::parse(&first.device_age_key).unwrap());
    let school = School::load(&board, code()).unwrap();
    assert_eq!(school.manifest.text(), second.manifest);
    assert_eq!(school.wrapped_keys, second.wrapped_keys);
    assert_eq!(school.replicas.len(), 2);
    // The second device opens nothing of the first bundle.
    let second_key = OpenKey::parse(&second.device_age_key).unwrap();
    assert!(sonae_proto::seal::decrypt(&first.wrapped_keys[0].file, &second_key).is_err());
}

/// Goal: nodes of the cloud accumulate, and each bundle belongs to its descriptor. Method: enrol three, one
/// host twice.
#[test]
fn cloud_nodes_accumulate() {
    let place = Place::with_cloud();
    let board = place.open();
    let root = board.facts().root;
    let hosts = ["localhost:5000", "cloud.example.jp:4433"];
    let mut seen = Vec::new();
    for (number, host) in hosts.into_iter().enumerate() {
        let out = place.path(&format!("{number}.bundle"));
        let (bundle, facts) = enrol_cloud(&board, host, &out).unwrap();
        let descriptor = Signed::<CloudDescriptor>::verify(&bundle.descriptor, &root).unwrap();
        let body = descriptor.body();
        assert_eq!(body.version, number as u64 + 2);
        let names: &[&str] =
            if number == 0 { &["localhost", "127.0.0.1", "::1"] } else { &["cloud.example.jp"] };
        let der = check_tls(&bundle.ca_pem, &bundle.tls_certificate_pem, KeyUsage::server_auth(), names);
        let hash = Hash32(*blake3::hash(&der).as_bytes());
        assert_eq!((body.tls_certificates.last(), hash), (Some(&hash), facts.tls_certificate));
        let key = seed_key(&bundle.receipt_seed).verifying_key();
        assert_eq!(body.receipt_key(ReceiptKeyId::of_key(key.as_bytes())), Some(&key));
        seen.push(key);
    }
    let descriptor = sonae_provision::cloud::descriptor(&board).unwrap().unwrap();
    let body = descriptor.body();
    assert_eq!(body.hosts, ["cloud.example.jp:4433", "localhost:5000"]);
    assert_eq!((body.version, body.tls_certificates.len(), body.receipt_keys.len()), (3, 3, 3));
    assert!(seen.iter().all(|key| body.receipt_keys.iter().any(|receipt| receipt.key == *key)));
}

/// Goal: a bundle says nothing without its passphrase and is of its own kind. Method: another passphrase, the
/// other kind, a search of the bytes.
#[test]
fn bundles_are_sealed() {
    let place = Place::with_cloud();
    let board = place.open();
    let out = place.path("r.bundle");
    let request = ReplicaRequest { school: code(), kind: ReplicaKind::Spare, lan_names: Vec::new() };
    let enrolled = replica::enrol(&board, &request, &out, NOW).unwrap();
    let sealed = fs::read(&out).unwrap();
    assert!(matches!(open::<ReplicaBundle>(&sealed, "wrong"), Err(BundleError::WrongPassphrase)));
    let other = open::<CloudBundle>(&sealed, enrolled.passphrase.expose());
    assert!(matches!(other, Err(BundleError::Kind { .. })));
    let bundle = open::<ReplicaBundle>(&sealed, enrolled.passphrase.expose()).unwrap();
    let mut haystacks = vec![sealed];
    // Nor does the board keep what only the device may have.
    haystacks.extend(check_modes(&place.dir()).iter().map(|file| fs::read(place.dir().join(file)).unwrap()));
    for secret in [&bundle.device_seed, &bundle.device_age_key, enrolled.passphrase.expose()] {
        let finds = |hay: &Vec<u8>| hay.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!haystacks.iter().any(finds));
    }
}

/// Goal: the directory holds what its documentation says, closed to others; secret files say so. Method: list
/// all files, check modes and first lines.
#[test]
fn directory_is_as_documented() {
    let place = Place::with_cloud();
    enrol_replica(&place.open(), &place.path("r.bundle")).unwrap();
    let files = check_modes(&place.dir());
    let school = School::load(&place.open(), code()).unwrap();
    let mut expected: Vec<String> = [
        "board.json",
        "ca.key",
        "ca.pem",
        "descriptor",
        "lock",
        "operations.key",
        "recovery.key",
        "root.key",
    ]
    .map(str::to_owned)
    .into();
    let in_school = |name: &str| format!("schools/{CODE}/{name}");
    expected.extend(["manifest", "school.json"].map(in_school));
    expected.push(in_school(&format!("replicas/{}.json", school.replicas[0].replica)));
    let keys = &school.manifest.body().keys;
    expected.extend(keys.iter().map(|key| in_school(&format!("keys/{}-{}.age", key.key_use, key.epoch))));
    expected.sort();
    assert_eq!(files, expected);
    for name in sonae_provision::board::SECRET_FILES {
        let text = fs::read_to_string(place.dir().join(name)).unwrap();
        assert!(text.starts_with("# SECRET"), "{name}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["r.bundle", "cloud.bundle"] {
        assert_eq!(fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

/// Goal: the recovery key is needed by no command. Method: delete it, enrol, show.
#[test]
fn works_without_recovery_key() {
    let place = Place::with_cloud();
    let recovery = board_key(&place.dir(), "recovery.key");
    fs::remove_file(place.dir().join("recovery.key")).unwrap();
    let board = place.open();
    let bundle = enrol_replica(&board, &place.path("r.bundle")).unwrap();
    let manifest = check_replica_bundle(&bundle, &board.facts().root);
    check_wrapped(&manifest, &bundle.wrapped_keys, &recovery);
    let overview = Overview::of(&board).unwrap();
    assert_eq!(overview.secret_files, ["root.key", "ca.key", "operations.key"]);
}

/// Goal: a changed file of the board is noticed, not used. Method: change each public file in turn; show and
/// enrol fail with exit code 3 and leave no bundle.
#[test]
fn damage_is_noticed() {
    let place = Place::with_cloud();
    enrol_replica(&place.open(), &place.path("r.bundle")).unwrap();
    let out = place.path("next.bundle");
    for file in check_modes(&place.dir()) {
        if file == "lock" || file == "recovery.key" || file.ends_with("school.json") {
            continue;
        }
        let path = place.dir().join(&file);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        // Of a registry entry the certificate counts; the rest of it is only shown.
        let certificate = b"sonae/device/v1";
        let in_certificate = whole.windows(certificate.len()).position(|window| window == certificate);
        let position = in_certificate.map_or(whole.len() / 2, |start| start + 100);
        damaged[position] = if damaged[position] == b'7' { b'9' } else { b'7' };
        fs::write(&path, &damaged).unwrap();
        let outcome = Board::open(&place.dir(), Disk::new()).and_then(|board| {
            Overview::of(&board)?;
            enrol_replica(&board, &out).map(drop)
        });
        // A letter of a comment or of the board's name is not protected.
        if let Err(error) = outcome {
            assert_eq!(error.exit(), Exit::BadInput, "{file}: {error}");
            assert!(!out.exists(), "{file}");
        } else {
            let is_free_text =
                ["board.json", "ca.key", "operations.key", "root.key"].contains(&file.as_str());
            assert!(is_free_text, "{file}");
            fs::remove_file(&out).unwrap();
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// Goal: readers and registry must agree, so that nobody reads unseen. Method: delete a registry entry.
#[test]
fn unregistered_readers_are_noticed() {
    let place = Place::with_cloud();
    let board = place.open();
    enrol_replica(&board, &place.path("r.bundle")).unwrap();
    let replicas = place.dir().join("schools").join(CODE).join("replicas");
    let name = sonae_provision::disk::names_in(&replicas).unwrap().remove(0);
    fs::remove_file(replicas.join(name)).unwrap();
    let error = Overview::of(&board).unwrap_err();
    assert!(matches!(error, ProvisionError::Damaged { .. }), "{error}");
}

/// Goal: keys follow the school year of Japan, and an unset clock makes nothing. Method: the last second of a
/// school year; 1970.
#[test]
fn school_year_and_clock() {
    let place = Place::with_cloud();
    let board = place.open();
    let code = "B113200000022".parse().unwrap();
    let last = time::macros::datetime!(2027-03-31 14:59:59 UTC);
    let school = School::add(&board, code, "第二", last).unwrap();
    let manifest: &Manifest = school.manifest.body();
    let epochs: Vec<_> =
        manifest.keys.iter().filter(|key| key.key_use != KeyUse::Digest).map(|key| key.epoch).collect();
    assert_eq!(epochs, [2026, 2026, 2026, 2027, 2027, 2027]);
    let unset = time::OffsetDateTime::UNIX_EPOCH;
    let error = School::add(&board, "B113200000033".parse().unwrap(), "第三", unset).unwrap_err();
    assert!(matches!(error, ProvisionError::Clock { year: 1970 }), "{error}");
}

/// Goal: `recovery.key` of the board's directory opens every wrapped key with the stock tool, as
/// `docs/runbooks/by-hand.en.md` has it. Method: `age -d` on each; `age-keygen -y` names the manifest's recipient.
#[test]
fn recovery_key_opens_with_the_stock_tool() {
    let place = Place::with_cloud();
    enrol_replica(&place.open(), &place.path("box.bundle")).unwrap();
    let school = School::load(&place.open(), code()).unwrap();
    let recovery = place.dir().join("recovery.key");
    for key in &school.manifest.body().keys {
        let name = format!("{}-{}.age", key.key_use, key.epoch);
        let wrapped = place.dir().join("schools").join(CODE).join("keys").join(name);
        let command = "age -d -i \"$1\" \"$2\" | age-keygen -y";
        let output = std::process::Command::new("sh")
            .args(["-euc", command, "sh"])
            .args([&recovery, &wrapped])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), key.recipient, "{told}");
    }
}
