//! A small school at two sites, without a node: two incarnations, two school years, a dispute, a re-issued
//! change, a line without meaning, and another school in the same objects.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use sonae_proto::batch::{Batch, Place};
use sonae_proto::destruction::DestroyedKey;
use sonae_proto::ids::{LogName, ReplicaId, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader, WrappedKey};
use sonae_proto::object::{RecordKind, append};
use sonae_proto::revocation::Revocation;
use sonae_proto::seal::{OpenKey, encrypt, seal_lines};
use sonae_proto::signed::Signed;
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::KeyDocuments;

use crate::common::board::{Board, Life, OTHER_SCHOOL, SCHOOL};
use sonae_proto::identity::{Beginning, DeviceCertificate};

/// The start of the node that would have written the objects.
pub const BOOT: &str = "01KH0000000000000000000000";

pub struct Scene {
    pub board: Board,
    pub recovery: OpenKey,
    pub keys: Signed<Manifest>,
    open: Vec<(KeyUse, u32, OpenKey)>,
    pub lives: [Life; 2],
    pub batches: Vec<Batch>,
    pub documents: KeyDocuments,
    pub objects: Vec<Vec<u8>>,
}

impl Scene {
    pub fn new() -> Self {
        let mut scene = Self::bare(&[
            (KeyUse::Digest, 0),
            (KeyUse::Tier(Tier::Safety), 2026),
            (KeyUse::Tier(Tier::Daily), 2026),
            (KeyUse::Tier(Tier::Safety), 2027),
        ]);
        scene.write();
        scene
    }

    /// A school with these keys that has not written anything.
    pub fn bare(uses: &[(KeyUse, u32)]) -> Self {
        let board = Board::new();
        let device = board.device(SCHOOL);
        let lives = [device.life(Beginning::Enrolment, 1), device.life(Beginning::Rebuild, 2)];
        let (recovery, operations) = (OpenKey::generate(), OpenKey::generate());
        let open: Vec<_> =
            uses.iter().map(|(key_use, epoch)| (*key_use, *epoch, OpenKey::generate())).collect();
        let key = |(key_use, epoch, key): &(KeyUse, u32, OpenKey)| ManifestKey {
            key_use: *key_use,
            epoch: *epoch,
            recipient: key.recipient(),
        };
        let reader =
            |name: &str, key: &OpenKey| Reader { name: name.into(), kind: None, recipient: key.recipient() };
        let manifest = Manifest {
            school: SCHOOL.parse().unwrap(),
            version: 1,
            keys: open.iter().map(key).collect(),
            readers: vec![reader("operations", &operations), reader("recovery", &recovery)],
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        let readers = [operations.recipient(), recovery.recipient()];
        let wrap = |(key_use, epoch, key): &(KeyUse, u32, OpenKey)| WrappedKey {
            key_use: *key_use,
            epoch: *epoch,
            file: encrypt(
                format!("{}\n", key.secret().as_str()).as_bytes(),
                readers.iter().map(String::as_str),
            )
            .unwrap(),
        };
        let keys = Signed::sign(manifest, &board.root).unwrap();
        let documents = KeyDocuments {
            school: SCHOOL.parse().unwrap(),
            manifest: keys.text().to_owned(),
            wrapped_keys: open.iter().map(wrap).collect(),
        };
        Self { board, recovery, keys, open, lives, batches: Vec::new(), documents, objects: Vec::new() }
    }

    /// The public half of a tier's key.
    pub fn recipient(&self, tier: Tier, epoch: u32) -> String {
        let key = self.open.iter().find(|(key_use, of, _)| (*key_use, *of) == (KeyUse::Tier(tier), epoch));
        key.unwrap().2.recipient()
    }

    /// Writes to a site the board's order that keys are destroyed, as a node of before would have stored it: the older
    /// documents with the wrapped keys are there too.
    pub fn destroy(&self, site: &Path, keys: &[(KeyUse, u32)]) {
        let mut manifest = Manifest { version: 2, ..self.keys.body().clone() };
        manifest.keys.retain(|key| !keys.contains(&(key.key_use, key.epoch)));
        let destroyed = |(key_use, epoch): &(KeyUse, u32)| DestroyedKey {
            key_use: *key_use,
            epoch: *epoch,
            destroyed_ms: 1,
        };
        manifest.destroyed = keys.iter().map(destroyed).collect();
        let manifest = Signed::sign(manifest, &self.board.root).unwrap().text().to_owned();
        let words = serde_json::to_vec(&KeyDocuments { manifest, ..self.documents.clone() }).unwrap();
        let mut object = Vec::new();
        append(&mut object, RecordKind::Keys, &words);
        fs::write(Self::object(site, 9), object).unwrap();
    }

    /// The board's word that the device of both lives is revoked, and counts in the first life's tier 0 up to a head.
    pub fn revoking(&self, accepted: LogHead) -> Vec<u8> {
        let log = LogName { tier: Tier::Safety, incarnation: self.lives[0].name };
        let revoked = Revocation {
            replica: self.replica(),
            revoked_ms: 1,
            accepted: Heads::from([(log, accepted)]),
            dropped: Heads::new(),
        };
        let manifest = Manifest { version: 2, revoked: vec![revoked], ..self.keys.body().clone() };
        let manifest = Signed::sign(manifest, &self.board.root).unwrap().text().to_owned();
        serde_json::to_vec(&KeyDocuments { manifest, ..self.documents.clone() }).unwrap()
    }

    /// Seals lines as the next batch of a log.
    pub fn seal(&self, life: usize, tier: Tier, epoch: u32, after: LogHead, lines: &str) -> Batch {
        let payload = seal_lines(lines.as_bytes(), 3, &self.recipient(tier, epoch)).unwrap();
        let place = Place {
            school: SCHOOL.parse().unwrap(),
            log: LogName { tier, incarnation: self.lives[life].name },
            after,
            last: after.sequence + u64::try_from(lines.lines().count()).unwrap(),
            epoch,
            manifest: self.keys.hash(),
        };
        Batch::sign(&place, &payload, &self.lives[life].key).unwrap()
    }

    fn write(&mut self) {
        let a = self.lives[0].name;
        let first = concat!(
            r#"{"t":[1775000000000,0],"c":"student","r":"p1","f":{"family_name":"見本","given_name":"花子"}}"#,
            "\n",
            r#"{"t":[1775000000001,0],"c":"guardian_contact","r":"p1/1","f":{"phone":"03-0000-0000"},"w":"tanaka"}"#,
            "\n",
        );
        let second = r#"{"t":[1775000000002,0],"c":"student","r":"p1","f":{"given_name":"華子"},"b":{"given_name":[1]},"w":"tanaka"}"#;
        let third = "no line of ours\n{\"t\":[1805000000000,0],\"c\":\"student\",\"r\":\"p1\",\"f\":{\"note\":null}}\n";
        let other = format!(
            "{{\"t\":[1775000000003,0],\"c\":\"student\",\"r\":\"p1\",\"f\":{{\"given_name\":\"はな\"}},\"b\":{{\"given_name\":[\"{a}:1\"]}}}}\n\
             {{\"t\":[1775000000001,0],\"c\":\"guardian_contact\",\"r\":\"p1/1\",\"f\":{{\"phone\":\"03-0000-0000\"}},\"w\":\"tanaka\",\"o\":\"{a}:2\"}}\n"
        );
        let day = r#"{"t":[1775000000004,0],"c":"attendance","r":"2026-04-08/p1/day","f":{"code":"late"},"w":"tanaka"}"#;
        let one = self.seal(0, Tier::Safety, 2026, LogHead::EMPTY, first);
        let two = self.seal(0, Tier::Safety, 2026, one.header().head(), &format!("{second}\n"));
        let three = self.seal(0, Tier::Safety, 2027, two.header().head(), third);
        let b = self.seal(1, Tier::Safety, 2026, LogHead::EMPTY, &other);
        let daily = self.seal(0, Tier::Daily, 2026, LogHead::EMPTY, &format!("{day}\n"));
        self.batches = vec![one, two, three, b, daily];
        let stranger = {
            let device = self.board.device(OTHER_SCHOOL);
            let (life, keys) = (device.life(Beginning::Enrolment, 1), self.board.school_keys(OTHER_SCHOOL));
            crate::common::writer::LogWriter::new(&device, &life, &keys, Tier::Safety).write("other")
        };
        let identity = |life: usize| serde_json::to_vec(&self.lives[life].text).unwrap();
        let keys = serde_json::to_vec(&self.documents).unwrap();
        let batch = |n: usize| (RecordKind::Batch, self.batches[n].bytes().to_vec());
        let plan = [
            vec![
                (RecordKind::Keys, keys),
                (RecordKind::Identity, identity(0)),
                batch(0),
                (RecordKind::Batch, stranger.bytes().to_vec()),
            ],
            vec![(RecordKind::Identity, identity(1)), batch(3), batch(1)],
            vec![batch(2), batch(4)],
        ];
        for records in plan {
            let mut object = Vec::new();
            for (kind, body) in records {
                append(&mut object, kind, &body);
            }
            self.objects.push(object);
        }
    }

    /// The file of an object at a site.
    pub fn object(site: &Path, number: usize) -> PathBuf {
        site.join("objects").join(BOOT).join(format!("{number:08}"))
    }

    /// Writes the objects to a directory as a site.
    pub fn fill(&self, site: &Path) {
        fs::create_dir_all(site.join("objects").join(BOOT)).unwrap();
        let id = "11".repeat(16);
        fs::write(site.join("site.json"), format!("{{\"format\":\"sonae/site/v1\",\"id\":\"{id}\"}}\n"))
            .unwrap();
        for (number, object) in self.objects.iter().enumerate() {
            fs::write(Self::object(site, number), object).unwrap();
        }
    }

    /// The recovery key's file, as the board has it.
    pub fn recovery_file(&self) -> String {
        format!("# Recovery key of a test.\n{}\n", self.recovery.secret().as_str())
    }

    /// The device of both lives.
    pub fn replica(&self) -> ReplicaId {
        Signed::<DeviceCertificate>::verify(&self.lives[0].text.device, &self.board.root.verifying_key())
            .unwrap()
            .body()
            .replica()
    }

    /// The heads of all logs.
    pub fn heads(&self) -> Heads {
        let mut heads = Heads::new();
        for batch in &self.batches {
            let head = heads.entry(batch.header().log).or_insert(LogHead::EMPTY);
            if head.sequence < batch.header().last {
                *head = batch.header().head();
            }
        }
        heads
    }
}
