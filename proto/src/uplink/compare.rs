//! Own logs beside what the cloud has of them: a point of what is held, less than had a receipt, less than can be sent
//! again, or another history.
//!
//! **Invariant**: the replica, not the cloud, decides that the cloud has lost something; the raised counter is durable
//! before anything more is sent.

use super::own::Comparison;
use super::{Alarm, Effect, Line, Uplink};
use crate::planted::{Defect, is_planted};
use crate::vector::{Heads, LogHead};
use crate::wire::Welcome;

impl Uplink {
    /// Batches of own logs up to these heads are not here any more; a snapshot that the cloud has stands for them.
    pub fn handle_pruned(&mut self, bases: &Heads) {
        for (log, base) in bases {
            if let Some(own) = self.own.get_mut(log) {
                own.prune(*base);
            }
        }
    }

    /// Compares own logs with what the cloud has. Returns whether a loss or a fork was found: nothing is sent
    /// then before the raised counter is kept, or any more.
    pub(super) fn compare_own_logs(&mut self, welcome: &Welcome) -> bool {
        let (mut lost, mut renew) = (false, false);
        for (log, own) in &mut self.own {
            let there = welcome.heads.get(log).copied().unwrap_or(LogHead::EMPTY);
            match own.compare(there) {
                Comparison::Fits => {}
                Comparison::Lost { .. } if !welcome.complete || is_planted(Defect::LossNotNoticed) => {}
                // A courier has brought a younger receipt while the welcome was on its way: it answers what was before.
                Comparison::Lost { .. }
                    if own.issued_ms() > welcome.time_ms
                        && there.sequence
                            >= self.greeted_receipted.get(log).map_or(0, |had| had.sequence) => {}
                Comparison::Lost { had } => {
                    let alarm = Alarm::CloudLost { log: *log, had: had.sequence, has: there.sequence };
                    self.effects.push_back(Effect::Alarm(alarm));
                    own.lower(there);
                    lost = true;
                }
                Comparison::Unfillable if !welcome.complete => {}
                Comparison::Unfillable => {
                    if own.wedge() {
                        let (has, pruned) = (there.sequence, own.base().sequence);
                        self.effects.push_back(Effect::Alarm(Alarm::Unfillable { log: *log, has, pruned }));
                        renew = true;
                    }
                }
                Comparison::Elsewhere if is_planted(Defect::OwnLogReused) => {}
                Comparison::Elsewhere => {
                    if own.wedge() {
                        let here = own.held().sequence;
                        let alarm = Alarm::OwnLogElsewhere { log: *log, here, there: there.sequence };
                        self.effects.push_back(Effect::Alarm(alarm));
                        renew = true;
                    }
                }
            }
        }
        if renew {
            self.renew();
            return true;
        }
        if lost {
            self.loss_counter += 1;
            self.loss_being_kept = true;
            let receipted = self.receipted();
            self.effects.push_back(Effect::KeepLoss { loss_counter: self.loss_counter, receipted });
        }
        lost
    }

    /// The raised loss counter is durable: greet again with it.
    pub fn handle_loss_kept(&mut self) {
        self.loss_being_kept = false;
        if matches!(self.line, Line::Greeting { .. } | Line::Up) {
            self.effects.push_back(Effect::Disconnect);
        }
    }
}
