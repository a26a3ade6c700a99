//! The files of a renewal: a replica goes on with another journal under another incarnation, and what it had is
//! put aside whole.
//!
//! ```text
//! DATA/renewal/          the next journal, batches, snapshots, view and incarnation.json, laid out like DATA
//! DATA/renewal/ready     they are complete; holds the name of the incarnation that ends. From here on there is
//!                        only forward: whoever opens DATA next finishes the exchange
//! DATA/renewed/          what is left of renewal/ after the exchange; deleted
//! DATA/forked/NAME/      journal, batches and snapshots of incarnation NAME as they were. Its key is gone: nothing can be
//!                        written under its name again
//! ```
//!
//! **Invariant**: at every moment DATA holds one whole replica, the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sonae_journal::RealDisk;
use sonae_proto::ids::Incarnation;

use crate::data_dir::{DataDir, sync_dir};
use crate::filling;
use crate::held_keys;
use crate::shelf::Shelf;

/// Branches that are kept aside; the oldest goes when one more comes. A fork takes a restored copy or a clone, so
/// four are years of them.
const FORKED_MAX: usize = 4;

/// Returns where the next replica is prepared.
#[must_use]
pub fn next(data: &Path) -> PathBuf {
    data.join("renewal")
}

fn forked(data: &Path) -> PathBuf {
    data.join("forked")
}

/// Returns how many branches are kept aside.
#[must_use]
pub fn forks(data: &Path) -> usize {
    fs::read_dir(forked(data)).map_or(0, Iterator::count)
}

/// Says that the next replica is complete. Its store must be closed.
///
/// # Errors
/// Those of the system; nothing is exchanged then.
///
/// # Durability
/// The exchange will happen, whatever power does, once this returns.
pub fn set_ready(data: &Path, ends: Incarnation) -> io::Result<()> {
    let next = next(data);
    // The exchange moves a folder only if its successor is there.
    for name in ["batches", "snapshots"] {
        fs::create_dir_all(next.join(name))?;
    }
    let mut file = File::create(next.join("ready.new"))?;
    file.write_all(ends.to_string().as_bytes())?;
    file.sync_all()?;
    sync_dir(&next)?;
    fs::rename(next.join("ready.new"), next.join("ready"))?;
    sync_dir(&next)
}

/// Finishes an exchange that was begun, if one was. Returns whether there was one.
///
/// # Errors
/// Those of the system; call it again.
///
/// # Durability
/// The exchange is on stable storage when this returns.
pub fn finish(dir: &DataDir) -> io::Result<bool> {
    let (data, next) = (dir.path(), next(dir.path()));
    if let Err(error) = remove_dir(&data.join("renewed")) {
        log::warn!(error = error.to_string(); "what is left of a renewal cannot be deleted yet");
    }
    let ends = match fs::read_to_string(next.join("ready")) {
        Ok(name) => name,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // A name that is none would put the branch somewhere else.
    let ends: Incarnation =
        ends.parse().map_err(|_| io::Error::other("renewal/ready names no incarnation"))?;
    let aside = forked(data).join(ends.to_string());
    fs::create_dir_all(&aside)?;
    // What stands for batches that were pruned goes where the others are.
    for name in ["journal", "batches", "snapshots"] {
        if next.join(name).exists() {
            if data.join(name).exists() {
                fs::rename(data.join(name), free_name(&aside, name))?;
                // Put aside for sure before its name is taken, or a power cut may keep the second rename alone.
                for changed in [aside.as_path(), forked(data).as_path(), data] {
                    sync_dir(changed)?;
                }
            }
            fs::rename(next.join(name), data.join(name))?;
        }
    }
    if next.join("view").exists() {
        remove_dir(&data.join("view"))?;
        fs::rename(next.join("view"), data.join("view"))?;
    }
    if next.join("incarnation.json").exists() {
        fs::rename(next.join("incarnation.json"), data.join("incarnation.json"))?;
    }
    // The first store may have been one that was being filled. The second is whole.
    filling::forget(data)?;
    for changed in [&next, data] {
        sync_dir(changed)?;
    }
    // Before the exchange is over: nobody would come back to it.
    forget_held_keys(&aside);
    remove_dir(&data.join("renewed"))?;
    fs::rename(&next, data.join("renewed"))?;
    sync_dir(data)?;
    // The exchange is whole; what cannot be tidied up now is not worth a box that does not start.
    let tidied = remove_dir(&data.join("renewed")).and_then(|()| forget_oldest(data, &aside));
    if let Err(error) = tidied {
        log::warn!(error = error.to_string(); "what is left of a renewal cannot be deleted yet");
    }
    Ok(true)
}

/// A branch that was put aside keeps no destroyed key alive: the store that goes on has its own copy, as long as it needs
/// one.
fn forget_held_keys(aside: &Path) {
    let dirs = fs::read_dir(aside).into_iter().flatten().flatten().map(|entry| entry.path());
    for dir in dirs.filter(|dir| dir.is_dir()) {
        let shelf = Shelf::new(Arc::new(RealDisk), &dir);
        if let Err(error) = held_keys::write(&shelf, &[]) {
            log::error!(error = error.to_string(); "a destroyed key cannot be removed from what was put aside");
        }
    }
}

/// Nothing that was put aside is ever written over.
fn free_name(aside: &Path, name: &str) -> PathBuf {
    let names = std::iter::once(name.to_owned()).chain((1..).map(|number| format!("{name}.{number}")));
    names.map(|name| aside.join(name)).find(|path| !path.exists()).unwrap_or_else(|| aside.join(name))
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn forget_oldest(data: &Path, newest: &Path) -> io::Result<()> {
    let mut branches = Vec::new();
    for entry in fs::read_dir(forked(data))? {
        let entry = entry?;
        // The newest stays whatever its time says: a clock may have fallen back.
        if entry.file_type()?.is_dir() && entry.path() != newest {
            branches.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    branches.sort();
    let surplus = (branches.len() + 1).saturating_sub(FORKED_MAX);
    branches.iter().take(surplus).try_for_each(|(_, path)| remove_dir(path))
}

/// Discards a next replica that cannot be used. Nothing that lives is in it.
///
/// # Errors
/// Those of the system, and when the word was given already: then there is only forward.
pub fn discard(data: &Path) -> io::Result<()> {
    if next(data).join("ready").exists() {
        return Err(io::Error::other("an exchange that was begun has to be finished first"));
    }
    remove_dir(&next(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filling::Filling;

    const ENDS: Incarnation = Incarnation::from_bytes([7; 16]);

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn prepared() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(&dir.path().join("data")).unwrap();
        for (folder, text) in [(data.path().to_owned(), "old"), (next(data.path()), "new")] {
            for name in ["journal/0", "batches/0", "view/db", "incarnation.json"] {
                write(&folder.join(name), text);
            }
        }
        (dir, data)
    }

    fn read(data: &DataDir, name: &str) -> String {
        fs::read_to_string(data.path().join(name)).unwrap()
    }

    fn exchanged(data: &DataDir) {
        for name in ["journal/0", "batches/0", "view/db", "incarnation.json"] {
            assert_eq!(read(data, name), "new", "{name}");
        }
        let aside = format!("forked/{ENDS}");
        assert_eq!(read(data, &format!("{aside}/journal/0")), "old");
        assert_eq!(read(data, &format!("{aside}/batches/0")), "old");
        assert!(!data.path().join(aside).join("incarnation.json").exists(), "a key was kept");
        assert!(!next(data.path()).exists() && !data.path().join("renewed").exists());
        assert_eq!(forks(data.path()), 1);
    }

    /// Goal: nothing is exchanged before all is ready; then all is, and the old branch lies aside. A store that was being
    /// filled is whole then. Method: finish without and with the word.
    #[test]
    fn an_exchange_waits_for_its_word() {
        let (_dir, data) = prepared();
        Filling::begin(data.path()).unwrap();
        assert!(!finish(&data).unwrap());
        assert_eq!(read(&data, "journal/0"), "old");
        assert!(Filling::of(data.path()).unwrap().is_filling());
        set_ready(data.path(), ENDS).unwrap();
        assert!(finish(&data).unwrap());
        exchanged(&data);
        assert!(!Filling::of(data.path()).unwrap().is_filling());
        assert!(!finish(&data).unwrap(), "once is enough");
    }

    /// Goal: an exchange that is cut off anywhere is finished by the next start. Method: do its first n renames
    /// by hand, for each n, then finish.
    #[test]
    fn an_exchange_is_finished_from_anywhere() {
        let aside = format!("forked/{ENDS}");
        let moves = [
            ("journal".to_owned(), format!("{aside}/journal")),
            ("renewal/journal".to_owned(), "journal".to_owned()),
            ("batches".to_owned(), format!("{aside}/batches")),
            ("renewal/batches".to_owned(), "batches".to_owned()),
            ("renewal/view".to_owned(), "view".to_owned()),
            ("renewal/incarnation.json".to_owned(), "incarnation.json".to_owned()),
            ("renewal".to_owned(), "renewed".to_owned()),
        ];
        for done in 0..=moves.len() {
            let (_dir, data) = prepared();
            set_ready(data.path(), ENDS).unwrap();
            fs::create_dir_all(data.path().join(&aside)).unwrap();
            for (from, to) in moves.iter().take(done) {
                if from == "renewal/view" {
                    fs::remove_dir_all(data.path().join(to)).unwrap();
                }
                fs::rename(data.path().join(from), data.path().join(to)).unwrap();
            }
            finish(&data).unwrap();
            exchanged(&data);
        }
    }

    /// Goal: what lies aside is never written over, and a begun exchange is never discarded. Method: an exchange whose
    /// place aside is taken; discard before and after the word.
    #[test]
    fn nothing_aside_is_written_over() {
        let (_dir, data) = prepared();
        write(&data.path().join(format!("forked/{ENDS}/journal/0")), "older");
        set_ready(data.path(), ENDS).unwrap();
        assert!(discard(data.path()).is_err());
        assert!(finish(&data).unwrap());
        assert_eq!(read(&data, &format!("forked/{ENDS}/journal/0")), "older");
        assert_eq!(read(&data, &format!("forked/{ENDS}/journal.1/0")), "old");
        assert_eq!(read(&data, "journal/0"), "new");
        discard(data.path()).unwrap();
    }

    /// Goal: branches aside do not fill the disk. Method: more exchanges than are kept.
    #[test]
    fn only_a_few_branches_are_kept() {
        let (_dir, data) = prepared();
        for life in 0..=FORKED_MAX {
            for name in ["journal/0", "batches/0", "view/db", "incarnation.json"] {
                write(&next(data.path()).join(name), "new");
            }
            let ends = Incarnation::from_bytes([u8::try_from(life).unwrap(); 16]);
            set_ready(data.path(), ends).unwrap();
            assert!(finish(&data).unwrap());
        }
        assert_eq!(forks(data.path()), FORKED_MAX);
    }

    /// Goal: no exchange is over while a destroyed key lies aside: nobody would come back to it. Method: the last rename
    /// fails.
    #[test]
    fn held_keys_go_before_the_exchange_is_over() {
        let (_dir, data) = prepared();
        write(&data.path().join("snapshots/held-keys.json"), "[]");
        set_ready(data.path(), ENDS).unwrap();
        write(&data.path().join("renewed"), "in the way");
        assert!(finish(&data).is_err());
        let aside = forked(data.path()).join(ENDS.to_string()).join("snapshots");
        assert!(aside.exists() && !aside.join("held-keys.json").exists());
        fs::remove_file(data.path().join("renewed")).unwrap();
        assert!(finish(&data).unwrap());
        exchanged(&data);
    }

    /// Goal: a branch that was put aside keeps no destroyed key. Method: one with a held key beside its snapshots.
    #[test]
    fn what_is_put_aside_holds_no_destroyed_key() {
        let (_dir, data) = prepared();
        let aside = forked(data.path()).join(ENDS.to_string());
        write(&aside.join("snapshots/held-keys.json"), "[]");
        forget_held_keys(&aside);
        assert!(!aside.join("snapshots/held-keys.json").exists());
    }
}
