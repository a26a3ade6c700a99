//! Taking over what another branch of an own log holds (P6).

use sonae_proto::change::Change;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::view::{REISSUED, Records as _};

use super::Keeper;
use super::round::Round;
use crate::store::WriteError;
use crate::view::Staged;

impl Keeper {
    /// Stages changes under their first names and stamps. Those that are here already, because the renewal was
    /// cut off and begins again, are passed over, and so are those of records that were erased.
    pub(super) fn stage_reissue(
        &mut self,
        tier: Tier,
        changes: &[Change],
        round: &mut Round,
        staged: &mut Staged<'_>,
    ) -> Result<(), WriteError> {
        if self.failed.is_some() {
            return Err(WriteError::Failed);
        }
        self.room.check(tier)?;
        let (now_ms, log) = (self.clock.now_ms(), LogName { tier, incarnation: self.keys.name() });
        for change in changes {
            if let Some(name) = change.origin {
                let mark = staged.get(tier, REISSUED, &name.to_string());
                let mark = mark.map_err(|error| WriteError::Refused { reason: error.to_string() })?;
                if !mark.fields.is_empty() {
                    continue;
                }
            }
            // It would be sealed again, to a key that stays.
            if self.is_erased_record(tier, &change.collection, &change.record, staged)? {
                continue;
            }
            self.hlc.observe(change.stamp, now_ms);
            self.stage_change(change, log, now_ms, round, staged)?;
        }
        Ok(())
    }
}
