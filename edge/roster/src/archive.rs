//! Owns the zip file that somebody hands to us: what is in it, and the bytes of one entry at a time.
//!
//! Invariants: no size in the file is trusted; reading stops at the limits, whatever was announced; nothing is
//! ever written to disk; one entry is in memory at a time. Leaves out: what the entries mean.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::limits::{Limits, RATIO_FREE_BYTES};
use crate::report::{Code, Finding, Phrase, Report, Severity};

/// How findings name the package itself.
pub(crate) const PACKAGE: &str = "(zip)";

const PLAIN_ZIP: Phrase =
    Phrase::fixed("an intact zip file of CSV files, without password", "パスワードなしの正常なzip");

/// An opened zip file whose table of contents passed the checks.
pub(crate) struct Archive<R> {
    zip: ZipArchive<R>,
    entries: BTreeMap<String, usize>,
    package_bytes: u64,
    bytes_left: u64,
}

fn error(code: Code, file: &str, expected: Phrase) -> Finding {
    Finding::new(Severity::Error, code, file, expected)
}

impl<R: Read + Seek> Archive<R> {
    /// Opens a zip file and checks its table of contents, or reports why not and returns `None`.
    pub(crate) fn open(mut reader: R, limits: &Limits, report: &mut Report) -> Option<Self> {
        let Ok(Measure { package_bytes, starts_like_zip, counted }) = measure(&mut reader) else {
            report.push(error(Code::Unreadable, PACKAGE, PLAIN_ZIP));
            return None;
        };
        if package_bytes > limits.package_bytes_max {
            report.push(error(Code::TooLarge, PACKAGE, at_most(limits.package_bytes_max)));
            return None;
        }
        let zip = match ZipArchive::new(reader) {
            Ok(zip) => zip,
            Err(ZipError::Io(_)) if !starts_like_zip => {
                report.push(error(Code::NotAZip, PACKAGE, PLAIN_ZIP));
                return None;
            }
            Err(_) => {
                let code = if starts_like_zip { Code::ZipDamaged } else { Code::NotAZip };
                report.push(error(code, PACKAGE, PLAIN_ZIP));
                return None;
            }
        };
        if zip.len() > limits.entries_max {
            let most = limits.entries_max;
            let expected = Phrase::made(format!("at most {most} entries"), format!("{most}個まで"));
            report.push(error(Code::ZipTooManyEntries, PACKAGE, expected));
            return None;
        }
        // The library keeps the last of several entries with one name; another program may take the first.
        if counted.is_some_and(|counted| usize::from(counted) > zip.len()) {
            let expected = Phrase::fixed("each name once", "同じ名前は1回だけ");
            report.push(error(Code::ZipRepeatedName, PACKAGE, expected));
            return None;
        }
        let bytes_left = limits.total_bytes_max;
        let mut archive = Self { zip, entries: BTreeMap::new(), package_bytes, bytes_left };
        archive.check_entries(report).then_some(archive)
    }

    /// Checks names, encryption and methods. Returns whether the package may be read.
    fn check_entries(&mut self, report: &mut Report) -> bool {
        let errors_before = report.errors();
        let mut folder_of_manifest = None;
        for at in 0..self.zip.len() {
            let entry = match self.zip.by_index_raw(at) {
                Ok(entry) => entry,
                Err(_) => {
                    report.push(error(Code::ZipDamaged, PACKAGE, PLAIN_ZIP));
                    return false;
                }
            };
            let name = entry.name().to_owned();
            if is_unsafe(&name) || entry.is_symlink() {
                let expected = Phrase::fixed("plain names such as users.csv", "users.csv のような名前");
                report.push(error(Code::ZipUnsafeName, PACKAGE, expected).with_value(&name));
            } else if entry.encrypted() {
                report.push(error(Code::ZipEncrypted, &name, PLAIN_ZIP));
            } else if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated)
            {
                let expected = Phrase::fixed("stored or deflated", "無圧縮またはdeflate");
                report.push(error(Code::ZipMethod, &name, expected));
            } else if let Some((folder, "manifest.csv")) = name.rsplit_once('/') {
                folder_of_manifest = Some(folder.to_owned());
            }
            self.entries.insert(name, at);
        }
        if let Some(folder) = folder_of_manifest.filter(|_| !self.has("manifest.csv")) {
            let expected = Phrase::fixed(
                "the CSV files at the top of the zip file, not in a folder",
                "zipの直下にCSVファイル（フォルダーに入れない）",
            );
            report.push(error(Code::ZipInFolder, PACKAGE, expected).with_value(&folder));
        }
        report.errors() == errors_before
    }

    /// Whether there is an entry of exactly this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Names of all entries that are not folders.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str).filter(|name| !name.ends_with('/'))
    }

    /// Reads one entry, or reports why not and returns `None`.
    pub(crate) fn read(&mut self, name: &str, limits: &Limits, report: &mut Report) -> Option<Vec<u8>> {
        let at = *self.entries.get(name)?;
        let Ok(entry) = self.zip.by_index(at) else {
            report.push(error(Code::ZipDamaged, name, PLAIN_ZIP));
            return None;
        };
        // An announced compressed size cannot loosen the bound beyond the file that we hold.
        let compressed = entry.compressed_size().min(self.package_bytes);
        let ratio_bytes = compressed.saturating_mul(limits.ratio_max).max(RATIO_FREE_BYTES);
        let bytes_max = limits.entry_bytes_max.min(self.bytes_left).min(ratio_bytes);
        let mut bytes = Vec::new();
        if let Err(failure) = entry.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes) {
            let is_checksum = failure.to_string().contains("checksum");
            let code = if is_checksum { Code::ZipCrc } else { Code::ZipDamaged };
            report.push(error(code, name, PLAIN_ZIP));
            return None;
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > bytes_max {
            let finding = if ratio_bytes == bytes_max {
                let most = limits.ratio_max;
                let expected = Phrase::made(format!("at most {most}:1"), format!("{most}：1まで"));
                error(Code::ZipRatio, name, expected)
            } else {
                error(Code::TooLarge, name, at_most(bytes_max))
            };
            report.push(finding);
            return None;
        }
        self.bytes_left = self.bytes_left.saturating_sub(length);
        Some(bytes)
    }
}

fn at_most(bytes: u64) -> Phrase {
    Phrase::made(format!("at most {bytes} bytes"), format!("{bytes}バイトまで"))
}

/// What can be said of a file without trusting it.
struct Measure {
    package_bytes: u64,
    starts_like_zip: bool,
    /// Entries that the end record counts, if there is one.
    counted: Option<u16>,
}

fn measure(reader: &mut (impl Read + Seek)) -> std::io::Result<Measure> {
    let package_bytes = reader.seek(SeekFrom::End(0))?;
    reader.rewind()?;
    let mut start = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut start)?;
    let starts_like_zip = start == b"PK\x03\x04" || start == b"PK\x05\x06";
    // The end record has 22 bytes and a comment of at most 64 KiB.
    reader.seek(SeekFrom::Start(package_bytes.saturating_sub(22 + 65_535)))?;
    let mut tail = Vec::new();
    reader.by_ref().take(22 + 65_535).read_to_end(&mut tail)?;
    reader.rewind()?;
    Ok(Measure { package_bytes, starts_like_zip, counted: count_of_end_record(&tail) })
}

/// Number of entries in the last end record of a zip file's tail.
fn count_of_end_record(tail: &[u8]) -> Option<u16> {
    let at = tail.windows(4).rposition(|window| window == b"PK\x05\x06")?;
    tail.get(at.saturating_add(10)..)?.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes))
}

/// Whether a name could point outside of a folder into which somebody unpacks.
fn is_unsafe(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    let parent = name.split('/').any(|part| part == "..");
    name.is_empty() || drive || parent || name.starts_with('/') || name.contains('\\') || name.contains('\0')
}
