//! What the driver tells people: other replicas of the school, and alarms.

use sonae_proto::identity::IdentityText;
use sonae_proto::ids::LogName;
use sonae_proto::uplink::{Alarm, KeysOutcome};
use sonae_proto::wire::KeyDocuments;
use sonae_store::status::ReplicaStatus;

use super::driver::Driver;
use crate::courier;
use crate::neighbours::Known;

impl Driver {
    /// Takes key documents that the cloud has sent, or tells people why not.
    pub(super) async fn take_keys(&mut self, keys: &KeyDocuments) {
        let outcome = courier::take_keys(&mut self.engine, &self.store, keys).await;
        if let KeysOutcome::Refused(reason) = outcome {
            log::error!(reason; "key documents from the cloud are refused");
            let text = format!("key documents from the cloud are refused: {reason}");
            self.shared.note_error(&self.clock, "keys_refused", text);
        }
    }

    /// Seals by newer key documents from now on, and offers again what they may accept.
    pub(super) async fn keep_keys(&mut self, keys: KeyDocuments) {
        self.store.keep_documents(keys.clone());
        self.newest_documents = Some(keys);
        // Once they count, a snapshot may be due that is sealed to the new keys, also on a box that writes nothing.
        self.store.seal_now().await;
        self.maker.tell();
        self.offer_quarantined().await;
    }

    /// Offers the engine what lies in quarantine. What is part of its log by now is cleared away.
    pub(super) async fn offer_quarantined(&mut self) {
        let shelf = courier::Shelf { store: &self.store, quarantine: &self.quarantine };
        self.later.extend(courier::offer_quarantined(&mut self.engine, shelf).await);
    }

    /// Tells neighbours' task what has changed of who may connect and what they are told.
    pub(super) fn tell_known(&self) {
        let (version, is_renewing) = (self.engine.manifest_version(), self.engine.is_renewing());
        self.known.send_if_modified(|known| {
            let moved = known.manifest_version != version || known.is_renewing != is_renewing;
            if moved {
                let documents = self.newest_documents.clone().unwrap_or_else(|| self.store.documents());
                *known = Known::of(&self.engine, documents);
            }
            moved
        });
    }

    /// Notes the incarnations of this school that the cloud knows; two of one device are a rebuild or a bundle
    /// that is in use twice.
    pub(super) fn tell_replicas(&self, identities: &[IdentityText]) {
        let known: Vec<_> = identities
            .iter()
            .filter_map(|text| text.verify(&self.keys.board, self.keys.school).ok())
            .collect();
        let this = self.keys.name();
        self.shared.update(|status| {
            for identity in known {
                let body = identity.incarnation.body();
                let replica = ReplicaStatus {
                    replica: body.replica,
                    incarnation: identity.name(),
                    beginning: body.beginning,
                    began_ms: body.began_ms,
                    device_has_several: false,
                    this: identity.name() == this,
                };
                if !status.replicas.iter().any(|other| other.incarnation == replica.incarnation) {
                    status.replicas.push(replica);
                }
            }
            let devices: Vec<_> = status.replicas.iter().map(|replica| replica.replica).collect();
            for replica in &mut status.replicas {
                let same = devices.iter().filter(|device| **device == replica.replica).count();
                replica.device_has_several = same > 1;
            }
        });
    }

    pub(super) fn alarm(&self, alarm: &Alarm) {
        let (code, text) = match alarm {
            Alarm::CloudLost { log, had, has } => (
                "cloud_lost",
                format!("the cloud has lost changes {has} to {had} of log {log}; they are sent again"),
            ),
            Alarm::Unfillable { log, has, pruned } => (
                "cloud_lost_pruned",
                format!(
                    "of log {log} the cloud has lost changes {} to {pruned}, which this box does not hold change by \
                     change any more; who changed what when cannot be sent again. The state that they led to is here: \
                     it is written again under a new incarnation. Call whoever runs the cloud",
                    has.saturating_add(1)
                ),
            ),
            Alarm::CloudLostPeer { log, had, has } => (
                "cloud_lost_peer",
                format!(
                    "the cloud had change {had} of log {log}, which another box writes, and has {has} now; what is \
                     here stays. Ask whoever runs the cloud, and look whether that box says the same"
                ),
            ),
            Alarm::OwnLogElsewhere { log, here, there } => (
                "own_log_elsewhere",
                format!(
                    "somebody else has change {there} of log {log}, this box has {here}: its data was restored from \
                     a copy, or a copy runs elsewhere; it goes on under a new incarnation and loses nothing"
                ),
            ),
            Alarm::Refused(refusal) => {
                ("batch_refused", format!("the cloud refuses a batch: {}", refusal.text))
            }
            Alarm::BadPeerBatch { log, reason } => {
                ("bad_peer_batch", format!("a batch of log {log} from the cloud is refused: {reason}"))
            }
            Alarm::BadSnapshot { tier, reason } => (
                "bad_snapshot",
                format!(
                    "a snapshot of tier {tier} from the cloud is refused ({reason}); the tier comes change by change"
                ),
            ),
            Alarm::Stalled { since_ms } => ("stalled", stalled(self.seconds_since(*since_ms))),
            Alarm::NotServed { log, here, there, since_ms } => {
                ("not_served", not_served(*log, *here, *there, self.seconds_since(*since_ms)))
            }
            Alarm::RevocationTakenBack { version } => (
                "revocation_taken_back",
                format!(
                    "manifest {version} takes back a revocation, or the destruction of a key; nothing of it is used. \
                     The board's directory was set back to an old copy, or somebody else has its key: call the board"
                ),
            ),
            Alarm::AppliedBeforeRevocation { log, accepted, held } => (
                "applied_before_revocation",
                format!(
                    "the board has revoked a device and accepts its log {log} up to change {accepted}, but changes up \
                     to {held} had been applied here before; they are taken back when this box starts the next time"
                ),
            ),
            Alarm::Incomplete => (
                "cloud_incomplete",
                "the cloud cannot read enough of its sites; its answers may lack changes".into(),
            ),
        };
        log::error!(code, text = text.as_str(); "alarm");
        self.shared.note_error(&self.clock, code, text);
    }

    fn seconds_since(&self, since_ms: u64) -> u64 {
        self.engine_ms().saturating_sub(since_ms) / 1_000
    }
}

fn stalled(seconds: u64) -> String {
    format!(
        "the line is up and changes wait, but no receipt has come for {seconds} s; the cloud may be unable to store. \
         What is kept here stays; call whoever runs the cloud"
    )
}

fn not_served(log: LogName, here: u64, there: u64, seconds: u64) -> String {
    format!(
        "the cloud says that it has log {log}, which another box writes, up to change {there}; here it ends at {here}, \
         and nothing has come for {seconds} s. What others write may be missing here: call whoever runs the cloud"
    )
}
