//! What lies in the directory of a site beside its objects, and which of its names are durable.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sonae_proto::receipt::SiteId;

use crate::object_name::DIRECTORY;

const FORMAT: &str = "sonae/site/v1";

#[derive(Serialize, Deserialize)]
struct SiteFile {
    format: String,
    id: String,
}

pub(super) fn open_file(path: &Path) -> std::io::Result<File> {
    File::open(path.join("site.json"))
}

pub(super) fn read_id(file: &File) -> Option<SiteId> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    let parsed: SiteFile =
        serde_json::from_str(&text).ok().filter(|file: &SiteFile| file.format == FORMAT)?;
    HEXLOWER.decode(parsed.id.as_bytes()).ok()?.try_into().ok()
}

pub(super) fn mint(path: &Path) -> std::io::Result<()> {
    let mut id: SiteId = [0; 16];
    getrandom::fill(&mut id).map_err(std::io::Error::other)?;
    let file = SiteFile { format: FORMAT.to_owned(), id: HEXLOWER.encode(&id) };
    let staged = path.join("site.json.new");
    let mut out = File::create(&staged)?;
    out.write_all(&serde_json::to_vec(&file)?)?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    fs::rename(&staged, path.join("site.json"))?;
    File::open(path)?.sync_all()
}

/// Makes all names under a site durable: its parent, itself, `objects/` and each directory in that.
pub(super) fn sync_names(path: &Path) -> std::io::Result<()> {
    let objects = path.join(DIRECTORY);
    for entry in fs::read_dir(&objects)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    for directory in [Some(objects.as_path()), Some(path), path.parent()].into_iter().flatten() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Removes what a killed process was writing: the store writes an object under its name and `#NUMBER`, and then names it.
/// Only for who has locked the site.
pub(super) fn remove_leavings(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path.join(DIRECTORY))? {
        let directory = entry?;
        if !directory.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(directory.path())? {
            let entry = entry?;
            let is_leaving = entry.file_name().to_str().and_then(|name| name.rsplit_once('#')).is_some_and(
                |(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
            );
            if is_leaving && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
