//! A board with one school: its keys, its manifest, the devices that it certifies and their incarnations.

use ed25519_dalek::SigningKey;
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::destruction::DestroyedKey;
use sonae_proto::digest::DigestKey;
use sonae_proto::identity::{
    Beginning, DeviceCertificate, IdentityText, IncarnationCertificate, ReplicaKind,
};
use sonae_proto::ids::{Incarnation, LogName, ReplicaId, SchoolCode, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader, WrappedKey};
use sonae_proto::receipt::SiteId;
use sonae_proto::revocation::Revocation;
use sonae_proto::seal::{self, LEVEL_LIVE, OpenKey};
use sonae_proto::signed::Signed;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::KeyDocuments;
use sonae_proto::{batch::Batch, batch::Place, intake};

pub const EPOCH: u32 = 2026;

pub fn school() -> SchoolCode {
    "B113200000011".parse().unwrap()
}

pub fn site(number: usize) -> SiteId {
    [u8::try_from(number).unwrap() + 1; 16]
}

pub struct Board {
    pub root: SigningKey,
    pub receipt_key: SigningKey,
    pub manifest: Signed<Manifest>,
    /// One key for all tiers: what differs between tiers is not what is tested here.
    pub open: OpenKey,
    pub wrapped_keys: Vec<WrappedKey>,
}

impl Board {
    pub fn new(version: u64) -> Self {
        let root = SigningKey::from_bytes(&[1; 32]);
        let open = OpenKey::generate();
        let operations = OpenKey::generate();
        let key = |key_use, epoch| ManifestKey { key_use, epoch, recipient: open.recipient() };
        let mut keys = Tier::ALL.map(|tier| key(KeyUse::Tier(tier), EPOCH)).to_vec();
        keys.push(key(KeyUse::Digest, 0));
        let reader = Reader { name: "operations".into(), kind: None, recipient: operations.recipient() };
        let wrap = |key: &ManifestKey| WrappedKey {
            key_use: key.key_use,
            epoch: key.epoch,
            file: seal::encrypt(open.secret().as_bytes(), [operations.recipient().as_str()]).unwrap(),
        };
        let wrapped_keys = keys.iter().map(wrap).collect();
        let manifest = Manifest {
            school: school(),
            version,
            keys,
            readers: vec![reader],
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        Self {
            manifest: Signed::sign(manifest, &root).unwrap(),
            receipt_key: SigningKey::from_bytes(&[2; 32]),
            root,
            open,
            wrapped_keys,
        }
    }

    pub fn documents(&self) -> KeyDocuments {
        KeyDocuments {
            school: school(),
            manifest: self.manifest.text().to_owned(),
            wrapped_keys: self.wrapped_keys.clone(),
        }
    }

    /// The same school after another enrolment: the same keys, a newer manifest.
    pub fn reissued(&self) -> KeyDocuments {
        let mut manifest = self.manifest.body().clone();
        manifest.version += 1;
        let text = Signed::sign(manifest, &self.root).unwrap().text().to_owned();
        KeyDocuments { manifest: text, ..self.documents() }
    }

    /// The next manifest but `skipped`, with these revocations.
    pub fn revoking(&self, skipped: u64, revoked: &[Revocation]) -> KeyDocuments {
        let mut manifest = self.manifest.body().clone();
        manifest.version += 1 + skipped;
        manifest.revoked = revoked.to_vec();
        let text = Signed::sign(manifest, &self.root).unwrap().text().to_owned();
        KeyDocuments { manifest: text, ..self.documents() }
    }

    /// The next manifest but `skipped`, of which the key of a tier is destroyed. Its wrapped key is still with it, as a
    /// board that errs would send it.
    pub fn destroying(&self, skipped: u64, tier: Tier) -> KeyDocuments {
        let mut manifest = self.manifest.body().clone();
        manifest.version += 1 + skipped;
        let key_use = KeyUse::Tier(tier);
        manifest.keys.retain(|key| key.key_use != key_use);
        manifest.destroyed = vec![DestroyedKey { key_use, epoch: EPOCH, destroyed_ms: 1 }];
        let text = Signed::sign(manifest, &self.root).unwrap().text().to_owned();
        KeyDocuments { manifest: text, ..self.documents() }
    }

    pub fn descriptor(&self) -> CloudDescriptor {
        CloudDescriptor {
            version: 1,
            hosts: vec!["cloud.example:443".into()],
            tls_certificates: vec![],
            receipt_keys: vec![ReceiptKey { key: self.receipt_key.verifying_key() }],
        }
    }

    pub fn digest_key(&self) -> DigestKey {
        DigestKey::from_secret(&self.open.secret())
    }

    pub fn intake(&self, sites: usize, quorum: usize) -> intake::Intake {
        self.intake_of(sites, quorum, false)
    }

    pub fn intake_of(&self, sites: usize, quorum: usize, receipt_before_store: bool) -> intake::Intake {
        intake::Intake::new(intake::Config {
            board: self.root.verifying_key(),
            receipt_key: self.receipt_key.clone(),
            sites,
            quorum,
            receipt_before_store,
        })
    }

    /// Certifies a device of `school` and lets it begin its first life.
    pub fn enrol(&self, school: SchoolCode, seed: u8) -> Life {
        let device_key = SigningKey::from_bytes(&[seed; 32]);
        let certificate = DeviceCertificate {
            school,
            key: device_key.verifying_key(),
            recipient: self.open.recipient(),
            kind: ReplicaKind::Appliance,
            enrolled_ms: 1,
        };
        let device = Signed::sign(certificate, &self.root).unwrap();
        let key = SigningKey::from_bytes(&[seed ^ 0x80; 32]);
        let certificate = IncarnationCertificate {
            school,
            replica: device.body().replica(),
            key: key.verifying_key(),
            beginning: Beginning::Enrolment,
            began_ms: 2,
        };
        let name = certificate.incarnation();
        let incarnation = Signed::sign(certificate, &device_key).unwrap();
        let identity =
            IdentityText { device: device.text().to_owned(), incarnation: incarnation.text().to_owned() };
        Life { school, tls_key: device_key.verifying_key().to_bytes(), device_key, key, name, identity }
    }

    /// Another incarnation of a device.
    pub fn begin(&self, life: &Life, seed: u8, beginning: Beginning) -> Life {
        self.begin_at(life, seed, beginning, 3)
    }

    /// The same, at a time that its clock shows.
    pub fn begin_at(&self, life: &Life, seed: u8, beginning: Beginning, began_ms: u64) -> Life {
        let key = SigningKey::from_bytes(&[seed ^ 0x80; 32]);
        let certificate = IncarnationCertificate {
            school: life.school,
            replica: life.replica(),
            key: key.verifying_key(),
            beginning,
            began_ms,
        };
        let name = certificate.incarnation();
        let incarnation = Signed::sign(certificate, &life.device_key).unwrap();
        let identity =
            IdentityText { device: life.identity.device.clone(), incarnation: incarnation.text().to_owned() };
        Life { key, name, identity, ..life.clone() }
    }

    /// A batch of one line after `after`, whose payload is sealed as it is: for floods.
    pub fn seal_fast(&self, life: &Life, tier: Tier, after: LogHead, line: &[u8]) -> Batch {
        let payload = seal::encrypt(line, [self.open.recipient().as_str()]).unwrap();
        let last = after.sequence + 1;
        let (log, manifest) = (life.log(tier), self.manifest.hash());
        let place = Place { school: life.school, log, after, last, epoch: EPOCH, manifest };
        Batch::sign(&place, &payload, &life.key).unwrap()
    }

    /// Seals lines into the next batch of a log of `life`.
    pub fn seal(&self, life: &Life, tier: Tier, after: LogHead, lines: &[Vec<u8>]) -> Batch {
        let joined: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        let payload = seal::seal_lines(&joined, LEVEL_LIVE, &self.open.recipient()).unwrap();
        let place = Place {
            school: life.school,
            log: life.log(tier),
            after,
            last: after.sequence + lines.len() as u64,
            epoch: EPOCH,
            manifest: self.manifest.hash(),
        };
        Batch::sign(&place, &payload, &life.key).unwrap()
    }

    /// A chain of `count` batches of two changes each.
    pub fn chain(&self, life: &Life, tier: Tier, count: usize) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for number in 0..count {
            let after = batches.last().map_or(LogHead::EMPTY, |batch| batch.header().head());
            batches.push(self.seal(life, tier, after, &[line(number, 1), line(number, 2)]));
        }
        batches
    }
}

/// One incarnation of one device.
#[derive(Debug, Clone)]
pub struct Life {
    pub school: SchoolCode,
    pub tls_key: [u8; 32],
    pub device_key: SigningKey,
    pub key: SigningKey,
    pub name: Incarnation,
    pub identity: IdentityText,
}

impl Life {
    pub fn replica(&self) -> ReplicaId {
        ReplicaId::of_key(&self.tls_key)
    }

    /// The board's word that this device counts up to here and no further.
    pub fn revoked(&self, accepted: &[LogHead]) -> Revocation {
        let heads = Tier::ALL.iter().zip(accepted).map(|(tier, head)| (self.log(*tier), *head));
        let (accepted, dropped) = (heads.collect(), Heads::new());
        Revocation { replica: self.replica(), revoked_ms: 9, accepted, dropped }
    }

    pub fn log(&self, tier: Tier) -> LogName {
        LogName { tier, incarnation: self.name }
    }
}

fn line(batch: usize, change: u64) -> Vec<u8> {
    format!(r#"{{"t":[{batch},{change}],"c":"student","r":"p{batch}","f":{{"f":{change}}}}}"#).into_bytes()
}
