//! Owns the tests of packages as wholes: zip files, manifests, missing files, encodings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{Cursor, Write};

use sonae_roster::{Limits, read_zip};
use support::{Files, at, errors, sound, warnings};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Reads bytes that have to be refused.
fn refuse(bytes: &[u8], limits: &Limits) -> sonae_roster::Report {
    read_zip(Cursor::new(bytes), limits).expect_err("should be refused")
}

/// Goal: a sound package passes without a word. Method: the hand-written package, its edition and contents.
#[test]
fn sound_package_is_accepted() {
    let accepted = sound().read().unwrap();
    assert_eq!(warnings(&accepted.warnings), []);
    assert_eq!(accepted.value.profile.unwrap().name, "jp-1.2.1");
    let roster = accepted.value.roster;
    assert_eq!(roster.manifest.source_name, "hand");
    assert_eq!(roster.courses[0].grades, ["P1", "P2"]);
    assert_eq!(roster.users[1].kana_preferred_given_name, "イチロウ");
    assert_eq!(roster.enrollments[1].attendance_number, Some(1));
    assert_eq!(roster.pupils().first().unwrap().as_str(), support::PUPIL);
    assert_eq!(roster.schools().count(), 1);
}

/// Goal: what is no zip file is called so. Method: nothing, text, and a zip file without its beginning.
#[test]
fn not_a_zip() {
    for bytes in [&b""[..], b"sourcedId,status", &sound().zip()[10..200]] {
        assert_eq!(errors(&refuse(bytes, &Limits::default())), [at("not-a-zip", "(zip)", None, "")]);
    }
}

/// Goal: a cut-off file never passes. Method: cut the package at every 97th byte.
#[test]
fn truncated_zip() {
    let whole = sound().zip();
    for length in (4..whole.len()).step_by(97) {
        let report = refuse(&whole[..length], &Limits::default());
        assert_eq!(errors(&report), [at("zip-damaged", "(zip)", None, "")], "{length} bytes");
    }
}

/// Goal: a flipped bit in an entry is found. Method: store an entry, flip one bit of its data.
#[test]
fn wrong_checksum() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in sound().0 {
        zip.start_file(name, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let mut bytes = zip.finish().unwrap().into_inner();
    let place = bytes.windows(6).position(|window| window == "見本".as_bytes()).unwrap();
    bytes[place] ^= 1;
    assert_eq!(errors(&refuse(&bytes, &Limits::default())), [at("zip-crc", "users.csv", None, "")]);
}

/// Goal: encrypted entries are named. Method: set the encryption bit in both headers of one entry.
#[test]
fn encrypted_entry() {
    let mut bytes = sound().zip();
    let name = b"orgs.csv";
    let places: Vec<_> = (0..bytes.len() - 8).filter(|place| &bytes[*place..place + 8] == name).collect();
    let (local, central) = (places[0] - 30, *places.last().unwrap() - 46);
    bytes[local + 6] |= 1;
    bytes[central + 8] |= 1;
    assert_eq!(errors(&refuse(&bytes, &Limits::default())), [at("zip-encrypted", "orgs.csv", None, "")]);
}

/// Goal: a bomb is stopped by its ratio. Method: 40 MiB of zeros as users.csv, which deflate to 40 KiB.
#[test]
fn bomb_by_ratio() {
    let report = sound().set("users.csv", vec![b'0'; 40 << 20]).refusal();
    assert_eq!(errors(&report), [at("zip-ratio", "users.csv", None, "")]);
}

/// Goal: each size bound holds by itself. Method: the sound package under one narrowed limit at a time.
#[test]
fn bounds() {
    let zip = sound().zip();
    let narrow = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        errors(&refuse(&zip, &limits))
    };
    assert_eq!(narrow(|l| l.package_bytes_max = 100), [at("too-large", "(zip)", None, "")]);
    assert_eq!(narrow(|l| l.entry_bytes_max = 800), [at("too-large", "users.csv", None, "")]);
    let total = narrow(|l| l.total_bytes_max = 500);
    assert!(total.contains(&at("too-large", "orgs.csv", None, "")), "{total:?}");
    assert_eq!(narrow(|l| l.entries_max = 8), [at("zip-too-many-entries", "(zip)", None, "")]);
    assert!(narrow(|l| l.memory_bytes_max = 6_000).contains(&at("too-large", "users.csv", 2, "")));
    assert_eq!(narrow(|l| l.columns_max = 16), [at("too-large", "users.csv", 1, "")]);
}

/// Goal: a lying header does not help a bomb. Method: announce 10 bytes for an entry of 2 MiB of zeros.
#[test]
fn announced_sizes_are_not_trusted() {
    let mut bytes = sound().set("demographics.csv", vec![0u8; 2 << 20]).zip();
    let length = u32::try_from(2 << 20).unwrap().to_le_bytes();
    let places: Vec<_> = (0..bytes.len() - 4).filter(|place| bytes[*place..place + 4] == length).collect();
    for place in places {
        bytes[place..place + 4].copy_from_slice(&10u32.to_le_bytes());
    }
    let found = errors(&refuse(&bytes, &Limits::default()));
    assert!(matches!(found[0].0.as_str(), "zip-ratio" | "zip-damaged" | "zip-crc"), "{found:?}");
}

/// Goal: names that point outside are refused. Method: four such names.
#[test]
fn unsafe_names() {
    for name in ["../users.csv", "/etc/users.csv", "a/../../users.csv", "C:\\users.csv"] {
        let report = sound().set(name, "x").refusal();
        assert_eq!(errors(&report), [at("zip-unsafe-name", "(zip)", None, "")], "{name}");
        assert_eq!(report.findings()[0].value.as_deref(), Some(name));
    }
}

/// Goal: two files of one name are refused, for which of them counts depends on the program. Method: rename
/// an added entry, in both of its headers, to one that is there.
#[test]
fn repeated_names() {
    let mut bytes = sound().set("users.CSV", "x").zip();
    for place in 0..bytes.len() - 9 {
        if &bytes[place..place + 9] == b"users.CSV" {
            bytes[place..place + 9].copy_from_slice(b"users.csv");
        }
    }
    assert_eq!(errors(&refuse(&bytes, &Limits::default())), [at("zip-repeated-name", "(zip)", None, "")]);
}

/// Goal: a zipped folder, the most common mistake, is explained. Method: put all files into a folder.
#[test]
fn files_in_a_folder() {
    let nested = sound().0.into_iter().map(|(name, bytes)| (format!("名簿/{name}"), bytes));
    let found = errors(&Files(nested.collect()).refusal());
    assert_eq!(found, [at("zip-in-folder", "(zip)", None, "")]);
}

/// Goal: other files are not imported, and that is said. Method: add a file and a user profile.
#[test]
fn ignored_files() {
    let accepted = sound().set("readme.txt", "x").set("userProfiles.csv", "x").read().unwrap();
    let ignored = at("file-ignored", "(zip)", None, "");
    assert_eq!(warnings(&accepted.warnings), [ignored.clone(), ignored]);
}

/// Goal: each way in which manifest and files disagree is told. Method: one edit each.
#[test]
fn manifest_and_files() {
    let case = |files: Files| errors(&files.refusal());
    assert_eq!(case(sound().without("manifest.csv")), [at("file-missing", "manifest.csv", None, "")]);
    assert_eq!(case(sound().without("demographics.csv")), [at("file-missing", "demographics.csv", None, "")]);
    assert_eq!(
        case(sound().edit("manifest.csv", "file.orgs,bulk", "file.orgs,absent")),
        [at("file-unlisted", "orgs.csv", None, "")]
    );
    assert_eq!(
        case(sound().edit("manifest.csv", "file.categories,absent", "file.categories,bulk")),
        [at("file-missing", "categories.csv", 5, "")]
    );
    assert_eq!(
        case(sound().edit("manifest.csv", "file.users,bulk", "file.users,delta")),
        [at("delta-unsupported", "manifest.csv", 12, "value")]
    );
    assert_eq!(
        case(sound().edit("manifest.csv", "file.users,bulk", "file.users,full")),
        [at("bad-word", "manifest.csv", 12, "value"), at("file-unlisted", "users.csv", None, "")]
    );
    assert_eq!(
        case(sound().edit("manifest.csv", "oneroster.version,1.2", "oneroster.version,1.1")),
        [at("version-unknown", "manifest.csv", 3, "value")]
    );
    assert_eq!(
        case(sound().edit("manifest.csv", "manifest.version,1.0\n", "")),
        [at("value-missing", "manifest.csv", None, "")]
    );
    let unlisted = sound().edit("manifest.csv", "file.roles,bulk\n", "").read().unwrap();
    assert_eq!(warnings(&unlisted.warnings), [at("file-unlisted", "roles.csv", None, "")]);
}

/// Goal: a package without demographics is a package. Method: say absent and leave it out.
#[test]
fn demographics_are_optional() {
    let files =
        sound().without("demographics.csv").edit("manifest.csv", "demographics,bulk", "demographics,absent");
    assert!(files.read().unwrap().value.roster.demographics.is_empty());
}

/// Goal: wrong encodings are named, and a byte order mark is forgiven. Method: re-encode one file.
#[test]
fn encodings() {
    let text = String::from_utf8(sound().bytes("users.csv").to_vec()).unwrap();
    let (cp932, _, _) = encoding_rs::SHIFT_JIS.encode(&text);
    let report = sound().set("users.csv", cp932.into_owned()).refusal();
    assert_eq!(errors(&report), [at("encoding-cp932", "users.csv", 2, "")]);
    let utf16: Vec<u8> =
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let report = sound().set("users.csv", utf16).refusal();
    assert_eq!(errors(&report), [at("encoding-utf16", "users.csv", None, "")]);
    let mut broken = text.clone().into_bytes();
    broken.extend(b"\xC3\x28\xFF\n");
    let report = sound().set("users.csv", broken).refusal();
    assert_eq!(errors(&report), [at("encoding-unknown", "users.csv", 4, "")]);
    let marked = [b"\xEF\xBB\xBF".to_vec(), text.into_bytes()].concat();
    let accepted = sound().set("users.csv", marked).read().unwrap();
    assert_eq!(warnings(&accepted.warnings), [at("bom", "users.csv", 1, "")]);
}
