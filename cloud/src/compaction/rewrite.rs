//! Key documents that are to be replaced: at once, in every object that holds them, without the time for which other
//! superseded objects wait.
//!
//! **Invariant**: what stands in an object's place was read back whole at every site before the object goes, here too.

use bytes::Bytes;
use sonae_proto::receipt::SiteId;

use super::merge::Held;
use super::{Compactor, Fate, Judge, Pass, Waits};
use crate::contents::read;
use crate::object_name::StoredName;
use crate::site::Site;

impl Compactor {
    /// Puts another in place of each object that holds key documents which `judge` replaces, and deletes those objects.
    /// Reads everything. Done when a run replaces nothing and every site could be read.
    ///
    /// # Errors
    /// [`Waits`].
    ///
    /// # Durability
    /// What stands in their place is on stable storage at every site. After a loss of power an object that was deleted may
    /// be there again: run it once more.
    pub async fn rewrite(&mut self, judge: &Judge) -> Result<Pass, Waits> {
        let listing = self.list().await?;
        let mut pass = Pass { objects: listing.len(), ..Pass::default() };
        self.examine_listed(&listing, &mut pass).await;
        for (name, (_, holders)) in &listing {
            let Ok(Some(object)) = self.whole(*name, holders).await else { continue };
            if !replaces(*name, &object, judge) {
                continue;
            }
            let there = self.standing_for(*name, &object, judge).await;
            let output = match there {
                Some(output) => Some(output),
                None => self.merge_into_one(vec![(*name, object)], judge, &mut pass).await,
            };
            if let Some(output) = output {
                pass.deleted += self.delete_inputs(output, &[*name], judge).await;
            }
        }
        Ok(pass)
    }

    /// Counts copies of objects that hold what `judge` replaces, or are damaged, so that nobody can tell. Reads everything.
    ///
    /// # Errors
    /// [`Waits`].
    ///
    /// # Durability
    /// What was deleted before is not there again after a loss of power, and no write that began before comes to lie later.
    pub async fn residue(&self, judge: &Judge) -> Result<usize, Waits> {
        let reading = |site: &Site, source| Waits::Reading { site: site.label().to_owned(), source };
        for site in self.sites.iter() {
            site.settle().await.map_err(|source| reading(site, source))?;
        }
        let mut left = 0;
        for (name, (_, holders)) in self.list().await? {
            for site in holders.iter().filter_map(|number| self.sites.get(*number)) {
                match site.get(name).await {
                    Ok(copy) => {
                        let is_clean = read(name, &copy).damage.is_none() && !replaces(name, &copy, judge);
                        left += usize::from(!is_clean);
                    }
                    Err(error) if error.is_missing() => {}
                    Err(source) => return Err(reading(site, source)),
                }
            }
        }
        Ok(left)
    }

    /// Returns the ids of the sites.
    pub(super) fn site_ids(&self) -> Vec<SiteId> {
        self.sites.iter().map(Site::id).collect()
    }

    /// Returns a merged object that holds everything of another, as `judge` wants it, and nothing that is to be replaced.
    async fn standing_for(&self, name: StoredName, object: &Bytes, judge: &Judge) -> Option<StoredName> {
        for (output, known) in self.outputs.iter().filter(|(output, _)| **output != name) {
            if !known.stands || !known.inputs.contains(&name) {
                continue;
            }
            for site in self.sites.iter() {
                let Ok(copy) = site.get(*output).await else { continue };
                let held = Held::of(&read(*output, &copy));
                if held.holds(&read(name, object), judge) && !replaces(*output, &copy, judge) {
                    return Some(*output);
                }
            }
        }
        None
    }
}

fn replaces(name: StoredName, object: &Bytes, judge: &Judge) -> bool {
    read(name, object).records.iter().any(|(_, record)| matches!(judge.fate(record), Fate::Replace(_)))
}

#[cfg(test)]
mod tests {
    use super::super::merge::merge;
    use super::*;
    use crate::object_name::ObjectName;
    use sonae_proto::object::{RecordKind, append};
    use std::sync::Arc;

    /// Goal: what replaces a record stands in its place, the others stay byte for byte, and an object that already has it
    /// is left alone. Method: three records, the middle one replaced; the same again on what came of it.
    #[test]
    fn only_what_is_replaced_changes() {
        let keys = |body: &[u8]| (body == b"keys").then(|| b"fewer keys".to_vec());
        let judge = Judge { keeping: None, keys: Some(Arc::new(keys)) };
        let mut object = Vec::new();
        for (kind, body) in [(RecordKind::Batch, b"one".as_slice()), (RecordKind::Keys, b"keys")] {
            append(&mut object, kind, body);
        }
        append(&mut object, RecordKind::Batch, b"keys");
        let name = StoredName::Written(ObjectName { counter: 3, ..ObjectName::FIRST });
        let object = Bytes::from(object);
        assert!(replaces(name, &object, &judge));
        let (output, merged, _) = merge(&[(name, object.clone())], &judge).unwrap();
        let contents = read(output, &merged);
        let bodies: Vec<&[u8]> = contents.records.iter().map(|(_, record)| record.body).collect();
        assert_eq!(bodies, [b"one".as_slice(), b"fewer keys", b"keys"]);
        assert!(!replaces(output, &merged, &judge));
        let held = Held::of(&contents);
        assert!(held.holds(&read(name, &object), &judge));
        assert!(
            !held.holds(&read(name, &object), &Judge::default()),
            "without the order nothing was replaced"
        );
    }
}
