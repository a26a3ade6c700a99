//! Makes the vectors from fixed seeds. What age encrypts differs each time, so payloads are made once and then
//! taken from their own vectors.

use ed25519_dalek::SigningKey;
use sonae_proto::batch::{Batch, Place};
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::ended::EndedHashes;
use sonae_proto::hold::Hold;
use sonae_proto::identity::{
    Beginning, DeviceCertificate, IdentityText, IncarnationCertificate, ReplicaKind,
};
use sonae_proto::ids::{Hash32, Incarnation, LogName, ReplicaId, SchoolCode, Tier};
use sonae_proto::manifest::{Manifest, ManifestKey};
use sonae_proto::receipt::Receipt;
use sonae_proto::revocation::Revocation;
use sonae_proto::signed::Signed;
use sonae_proto::vector::{Heads, LogHead, Sequences};
use sonae_proto::wire::{
    Fetch, FetchEnd, Frame, Hello, News, PROTOCOL, ProofText, Refusal, RefusalCode, Welcome,
};

use super::file::Vector;
use super::lines::{changes, digest};
use super::manifest::manifest;

/// What the vectors are made of.
pub struct Made {
    pub root: SigningKey,
    pub device: SigningKey,
    pub writer: SigningKey,
    pub node: SigningKey,
    pub school: SchoolCode,
    pub log: LogName,
    pub identity: IdentityText,
    pub manifest: Signed<Manifest>,
    pub descriptor: Signed<CloudDescriptor>,
    pub batch: Batch,
    pub second: Batch,
    pub receipt: Receipt,
}

/// A vector and the name of its file.
pub type Named = (String, Vector);

pub fn named(name: &str, vector: Vector) -> Named {
    (name.to_owned(), vector)
}

pub fn hex(key: &SigningKey) -> String {
    data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes())
}

impl Made {
    /// `payload` is an age file to `recipient` with three change lines, `other` one to two recipients.
    pub fn new(payload: &[u8], recipient: &str) -> Self {
        let seed = |byte: u8| SigningKey::from_bytes(&[byte; 32]);
        let (root, device, writer, node) = (seed(1), seed(2), seed(3), seed(4));
        let school: SchoolCode = "B113200000011".parse().unwrap();
        let incarnation = Incarnation::of_key(writer.verifying_key().as_bytes());
        let log = LogName { tier: Tier::Safety, incarnation };
        let certificate = DeviceCertificate {
            school,
            key: device.verifying_key(),
            recipient: recipient.to_owned(),
            kind: ReplicaKind::Appliance,
            enrolled_ms: 1_775_000_000_000,
        };
        let replica = certificate.replica();
        let life = IncarnationCertificate {
            school,
            replica,
            key: writer.verifying_key(),
            beginning: Beginning::Enrolment,
            began_ms: 1_775_000_001_000,
        };
        let identity = IdentityText {
            device: Signed::sign(certificate, &root).unwrap().text().to_owned(),
            incarnation: Signed::sign(life, &device).unwrap().text().to_owned(),
        };
        let manifest = Signed::sign(manifest(school, recipient, &replica.to_string()), &root).unwrap();
        let descriptor = CloudDescriptor {
            version: 3,
            hosts: vec!["cloud.example:443".into()],
            tls_certificates: vec![Hash32([9; 32])],
            receipt_keys: vec![ReceiptKey { key: node.verifying_key() }],
        };
        let descriptor = Signed::sign(descriptor, &root).unwrap();
        let place =
            Place { school, log, after: LogHead::EMPTY, last: 3, epoch: 2026, manifest: manifest.hash() };
        let batch = Batch::sign(&place, payload, &writer).unwrap();
        let place = Place { after: batch.header().head(), last: 6, ..place };
        let second = Batch::sign(&place, payload, &writer).unwrap();
        let receipt = Receipt {
            school,
            log,
            head: batch.header().head(),
            loss_counter: 2,
            issued_ms: 1_775_000_002_000,
            sites: vec![[0xA1; 16], [0xB2; 16]],
        };
        Self {
            root,
            device,
            writer,
            node,
            school,
            log,
            identity,
            manifest,
            descriptor,
            batch,
            second,
            receipt,
        }
    }

    pub fn all(&self) -> Vec<Named> {
        let mut all = changes();
        all.extend(self.batches());
        all.extend(self.documents());
        all.extend(self.proofs());
        all.extend(self.receipts());
        all.extend(self.frames());
        all.extend(self.objects());
        all.extend(self.merged());
        all.extend(self.couriers());
        all.extend(self.snapshots());
        all.push(digest());
        all
    }

    fn batches(&self) -> Vec<Named> {
        let bytes = self.batch.bytes();
        let vector = |expect, comment, bytes: &[u8]| {
            Vector::new("batch", expect, comment).field("key", hex(&self.writer)).bytes("body", bytes)
        };
        let flip = |position: usize| {
            let mut bytes = bytes.to_vec();
            bytes[position] ^= 1;
            bytes
        };
        let set = |position: usize, value: u8| {
            let mut bytes = bytes.to_vec();
            bytes[position] = value;
            bytes
        };
        let good = |batch: &Batch| {
            let header = batch.header();
            vector("ok", "a sealed batch of three changes", batch.bytes())
                .field("log", header.log)
                .field("sequences", format!("{}..{}", header.first, header.last))
                .field("hash", header.hash())
        };
        let stranger = Vector::new("batch", "signature", "signed by another key")
            .field("key", hex(&self.device))
            .bytes("body", bytes);
        vec![
            named("batch-good", good(&self.batch)),
            named("batch-good-second", good(&self.second)),
            named("batch-label", vector("field label", "another label", &flip(15))),
            named("batch-school", vector("field school", "no school code", &set(16, b'Z'))),
            named("batch-tier", vector("field tier", "tier 3", &set(29, 3))),
            named("batch-sequence", vector("field sequence", "the first sequence is 0", &set(53, 0))),
            named("batch-changes", vector("field number of changes", "over 1,000 changes", &set(60, 0xFF))),
            named("batch-previous", vector("field previous hash", "a first batch with a past", &flip(62))),
            named("batch-length", vector("field payload length", "over 1 MiB", &set(130, 0xFF))),
            named("batch-short", vector("short", "cut inside the signature", &bytes[..200])),
            named(
                "batch-payload",
                vector("payload", "one bit of the payload flipped", &flip(bytes.len() - 1)),
            ),
            named(
                "batch-cut-payload",
                vector("payload", "the last byte is missing", &bytes[..bytes.len() - 1]),
            ),
            named("batch-signature", vector("signature", "one bit of the signature flipped", &flip(166))),
            named("batch-epoch", vector("signature", "the epoch changed after signing", &flip(97))),
            named("batch-stranger", stranger),
        ]
    }

    fn documents(&self) -> Vec<Named> {
        let vector = |kind: &str, expect, comment, key: &SigningKey, text: &str| {
            Vector::new("document", expect, comment)
                .field("type", kind)
                .field("key", hex(key))
                .text("body", text)
        };
        let (device, life) = (self.identity.device.as_str(), self.identity.incarnation.as_str());
        let manifest = self.manifest.text();
        let identity = |expect, comment, school: &str, device: &str, life: &str| {
            Vector::new("identity", expect, comment)
                .field("key", hex(&self.root))
                .field("school", school)
                .text("device", device)
                .text("incarnation", life)
        };
        let school = self.school.to_string();
        let changed = manifest.replacen("\"version\":7", "\"version\":8", 1);
        let unsigned = manifest.lines().next().unwrap();
        let other = self.descriptor.text();
        vec![
            named("document-device", vector("device", "ok", "signed by the board", &self.root, device)),
            named(
                "document-incarnation",
                vector("incarnation", "ok", "signed by the device", &self.device, life),
            ),
            named("document-manifest", vector("manifest", "ok", "signed by the board", &self.root, manifest)),
            named(
                "document-manifest-revoked",
                vector(
                    "manifest",
                    "ok",
                    "a device is revoked, the keys are rotated",
                    &self.root,
                    &self.revoking(),
                ),
            ),
            named(
                "document-manifest-held",
                vector("manifest", "ok", "nobody writes at a device", &self.root, &self.holding()),
            ),
            named(
                "document-descriptor",
                vector("descriptor", "ok", "signed by the board", &self.root, other),
            ),
            named(
                "document-changed",
                vector("manifest", "signature", "a version raised", &self.root, &changed),
            ),
            named(
                "document-stranger",
                vector("manifest", "signature", "another key", &self.device, manifest),
            ),
            named(
                "document-unsigned",
                vector("manifest", "malformed", "no signature line", &self.root, unsigned),
            ),
            named("document-other-kind", vector("manifest", "malformed", "a descriptor", &self.root, other)),
            named("identity-good", identity("ok", "board, device, incarnation", &school, device, life)),
            named(
                "identity-foreign",
                identity("foreign", "of another school", "B113200000022", device, life),
            ),
            named("identity-swapped", identity("document", "the wrong way round", &school, life, device)),
        ]
    }

    /// A later manifest that holds the device.
    fn holding(&self) -> String {
        let mut body = self.manifest.body().clone();
        body.version = 8;
        let replica = body.readers.last().and_then(|reader| reader.name.parse().ok()).unwrap();
        body.held.push(Hold { replica, held_ms: 1_775_000_004_000 });
        Signed::sign(body, &self.root).unwrap().text().to_owned()
    }

    /// A later manifest that revokes the device.
    fn revoking(&self) -> String {
        let mut body = self.manifest.body().clone();
        body.version = 8;
        let replica = body.readers.pop().and_then(|reader| reader.name.parse().ok()).unwrap();
        let rotated: Vec<ManifestKey> = body
            .keys
            .iter()
            .filter(|key| key.epoch > 0)
            .cloned()
            .map(|key| ManifestKey { epoch: 2026001, ..key })
            .collect();
        body.keys.extend(rotated);
        body.revoked.push(Revocation {
            replica,
            revoked_ms: 1_775_000_004_000,
            accepted: Heads::from([(self.log, self.batch.header().head())]),
            dropped: Heads::from([(self.log, self.second.header().head())]),
        });
        Signed::sign(body, &self.root).unwrap().text().to_owned()
    }

    fn receipts(&self) -> Vec<Named> {
        let bytes = self.receipt.sign(&self.node);
        let vector = |expect, comment, bytes: &[u8]| {
            Vector::new("receipt", expect, comment).field("key", hex(&self.node)).bytes("body", bytes)
        };
        let good = vector("ok", "two sites", &bytes)
            .field("log", self.log)
            .field("sequence", self.receipt.head.sequence)
            .field("loss_counter", self.receipt.loss_counter);
        let mut counter = bytes.clone();
        counter[93] ^= 1;
        let mut label = bytes.clone();
        label[0] ^= 1;
        let twice = Receipt { sites: vec![[0xA1; 16]; 2], ..self.receipt.clone() }.sign(&self.node);
        let none = Receipt { sites: vec![], ..self.receipt.clone() }.sign(&self.node);
        let stranger = self.receipt.sign(&self.device);
        let long = [bytes.as_slice(), b"x"].concat();
        vec![
            named("receipt-good", good),
            named("receipt-counter", vector("signature", "the loss counter changed after signing", &counter)),
            named("receipt-stranger", vector("signature", "a key that is not in the descriptor", &stranger)),
            named("receipt-label", vector("field label", "another label", &label)),
            named("receipt-same-site-twice", vector("field sites", "one site counted twice", &twice)),
            named("receipt-no-site", vector("field sites", "no site", &none)),
            named("receipt-long", vector("field length", "a byte too many", &long)),
            named("receipt-short", vector("short", "cut", &bytes[..100])),
        ]
    }

    /// As a node wrote it that knew no snapshots.
    pub fn welcome(&self) -> Welcome {
        Welcome {
            protocol: PROTOCOL,
            nonce: "00112233445566778899aabbccddeeff".into(),
            time_ms: 1_775_000_003_000,
            heads: Heads::from([(self.log, self.batch.header().head())]),
            complete: true,
            identities: vec![self.identity.clone()],
            manifest_version: 7,
            sites: 2,
            quorum: 2,
            snapshots: None,
            proofs: false,
            ended: EndedHashes::new(),
        }
    }

    fn frames(&self) -> Vec<Named> {
        let heads = Heads::from([(self.log, self.batch.header().head())]);
        let hello = Hello {
            protocol: PROTOCOL,
            school: self.school,
            identity: self.identity.clone(),
            loss_counter: 2,
            receipted: heads.clone(),
            have: Sequences::from([(self.log, 6)]),
            manifest_version: 7,
            nonce: "00112233445566778899aabbccddeeff".into(),
            software: "sonae-edge 0.1.0".into(),
            ended: EndedHashes::new(),
        };
        let taking_proofs = Welcome { proofs: true, ..self.welcome() };
        let ended =
            EndedHashes::from([(ReplicaId::of_key(self.device.verifying_key().as_bytes()), Hash32([7; 32]))]);
        let saying_ended = Hello { have: Sequences::new(), ended: ended.clone(), ..hello.clone() };
        let leaving_out = Welcome { heads: Heads::new(), ended, ..self.welcome() };
        let keys = sonae_proto::wire::KeyDocuments {
            school: self.school,
            manifest: self.manifest.text().to_owned(),
            wrapped_keys: vec![],
        };
        let text = "the batch does not continue its log".to_owned();
        let frames = [
            ("hello", Frame::Hello(Box::new(hello))),
            ("welcome", Frame::Welcome(Box::new(self.welcome()))),
            ("welcome-proofs", Frame::Welcome(Box::new(taking_proofs))),
            ("hello-ended", Frame::Hello(Box::new(saying_ended))),
            ("welcome-ended", Frame::Welcome(Box::new(leaving_out))),
            ("batch", Frame::Batch(self.batch.bytes().to_vec())),
            ("receipt", Frame::Receipt(self.receipt.sign(&self.node))),
            ("refusal", Frame::Refusal(Refusal { code: RefusalCode::Fork, text, heads: heads.clone() })),
            ("keys", Frame::Keys(Box::new(keys))),
            ("fetch", Frame::Fetch(Fetch { log: self.log, after: 3 })),
            ("fetch-end", Frame::FetchEnd(FetchEnd { sequence: 6 })),
            ("news", Frame::News(Box::new(News { heads, identities: vec![self.identity.clone()] }))),
            ("proof", Frame::Proof(ProofText { document: self.proof().text().to_owned() })),
        ];
        let good = frames.into_iter().map(|(name, frame)| {
            let vector =
                Vector::new("frame", "ok", "a frame of each type").bytes("body", &frame.to_bytes().unwrap());
            (format!("frame-{name}"), vector)
        });
        let bad = |expect, comment, bytes: &[u8]| Vector::new("frame", expect, comment).bytes("body", bytes);
        good.chain([
            named("frame-oversized", bad("oversized", "a length of 2 MiB and one", &[0, 0x20, 0, 1, 3])),
            named("frame-kind", bad("kind", "type 99 of a later version", &[0, 0, 0, 0, 99])),
            named("frame-part", bad("part", "a part of a snapshot without its place", b"\0\0\0\x02\x0bxx")),
            named("frame-text", bad("text", "the root of a snapshot that is no text", b"\0\0\0\x01\x0a\xff")),
            named("frame-body", bad("body", "a fetch without its log", b"\0\0\0\x0b\x07{\"after\":1}")),
        ])
        .collect()
    }
}
