//! Signed documents: device, incarnation, manifest, descriptor, the identity made of the first two, evidence of a
//! restore proof, and the certificate of destroyed keys.
//!
//! Layers: the kind (0 to 6) alone takes the text as it is; 7 more, and the harness signs each line.

mod proof;

use ed25519_dalek::{Signature, Signer, SigningKey};
use serde_json::Value;
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::destruction::{DestroyedKey, DestructionCertificate};
use sonae_proto::identity::{
    DeviceCertificate, IdentityError, IdentityText, IncarnationCertificate, ReplicaKind,
};
use sonae_proto::ids::{Hash32, ReplicaId, Tier};
use sonae_proto::limits::DOCUMENT_BYTES_MAX;
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader};
use sonae_proto::signed::{Document, DocumentError, Signed};

use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure,
};

/// The target.
pub struct DocumentTarget;

/// Kinds, the identity included.
const KINDS: u8 = 7;

/// Bytes held for each byte of a text: flattening buffers every value of it.
const MEMORY_PER_BYTE: usize = 120;

/// The school of the seeds, and another.
const OURS: &[u8; 13] = b"B113200000011";
const THEIRS: &[u8; 13] = b"B113200000022";

const WORDS: [&str; 16] = [
    "sonae/device/v1",
    "sonae/incarnation/v1",
    "sonae/manifest/v1",
    "sonae/cloud/v1",
    "sonae/proof/v1",
    "sonae/destruction/v1",
    "proved",
    "incomplete",
    "doc",
    "B113200000022",
    "tier0",
    "digest",
    "spare",
    "rebuild",
    "recovery",
    "1398f62c6d1a457c51ba6a4b5f3dbd2f69fca93216218dc8997e416bd17d93ca",
];

fn class(error: &DocumentError) -> Verdict {
    match error {
        DocumentError::Malformed { what, .. } => (*what).into(),
        DocumentError::Fields { .. } => "fields".into(),
        DocumentError::Signature { .. } => "signature".into(),
    }
}

fn line_signature(line: &str, key: &SigningKey) -> String {
    data_encoding::BASE64.encode(&key.sign(line.as_bytes()).to_bytes())
}

fn signed_text(line: &str, key: &SigningKey) -> String {
    format!("{line}\n{}\n", line_signature(line, key))
}

/// Signs a body without its label being checked, as a decoder with a hole would take it.
fn decode<T: Document>(text: &str, key: &SigningKey, planted: Planted) -> Result<Signed<T>, DocumentError> {
    // Behind a hole, the body is taken for what its own line says, by signing it anew.
    let taken = |line: &str, doc: Option<&str>| {
        let mut value: Value = serde_json::from_str(line).unwrap_or_default();
        if let (Some(map), Some(doc)) = (value.as_object_mut(), doc) {
            map.insert("doc".into(), Value::from(doc));
        }
        let line = if doc.is_some() { value.to_string() } else { line.to_owned() };
        Signed::<T>::verify(&signed_text(&line, key), &key.verifying_key())
    };
    let line = text.split('\n').next().unwrap_or_default();
    match Signed::<T>::verify(text, &key.verifying_key()) {
        Err(DocumentError::Signature { .. }) if planted.is("signature") => taken(line, None),
        Err(DocumentError::Malformed { what: "it is a document of another kind", .. })
            if planted.is("kind") =>
        {
            taken(line, Some(T::LABEL))
        }
        Err(DocumentError::Malformed { what: "signature is not base64" | "no line end", .. })
            if planted.is("trailing") =>
        {
            taken(line, None)
        }
        other => other,
    }
}

/// The rules about the two lines, written again from `docs/spec/keys.md`.
fn allowed(text: &str, label: &str, key: &SigningKey) -> bool {
    let lines: Vec<&str> = text.split('\n').collect();
    let [line, signature, ""] = lines.as_slice() else { return false };
    let signature = data_encoding::BASE64.decode(signature.as_bytes()).ok();
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    let doc = serde_json::from_str::<Value>(line).ok();
    text.len() <= DOCUMENT_BYTES_MAX
        && signature.is_some_and(|it| key.verifying_key().verify_strict(line.as_bytes(), &it).is_ok())
        && doc.as_ref().and_then(|doc| doc.get("doc")).and_then(Value::as_str) == Some(label)
}

fn judge_kind<T: Document + Clone + PartialEq>(
    text: &str,
    key: &SigningKey,
    planted: Planted,
) -> Result<Verdict, Broken> {
    let memory = MEMORY_PER_BYTE * text.len() + 64 * 1024;
    let outcome = measure::call(memory, || decode::<T>(text, key, planted))?;
    let signed = match outcome {
        Ok(signed) => signed,
        Err(error) => return Ok(class(&error)),
    };
    hold(allowed(text, T::LABEL, key), || {
        "an accepted document has two lines, the label of its kind and a right signature".into()
    })?;
    hold(signed.text() == text, || "an accepted document keeps its exact text".into())?;
    hold(signed.hash().0 == *blake3::hash(text.as_bytes()).as_bytes(), || {
        "the hash of a document is that of its text".into()
    })?;
    let again = Signed::sign(signed.body().clone(), key);
    let Ok(again) = again else { return Ok("accepted, too long to be signed again".into()) };
    let reread = Signed::<T>::verify(again.text(), &key.verifying_key());
    hold(reread.is_ok_and(|reread| reread.body() == signed.body()), || {
        "a document that is signed and verified again is the same".into()
    })?;
    Ok(format!("accepted {}", T::LABEL))
}

/// Splits the input of an identity: device certificate, a line of `=`, incarnation certificate.
fn parts(text: &str) -> (&str, &str) {
    text.split_once("=\n").unwrap_or((text, ""))
}

fn judge_identity(text: &str, signs: bool, planted: Planted) -> Result<Verdict, Broken> {
    let (device, life) = parts(text);
    let identity = if signs {
        let line = |part: &str| part.split('\n').next().unwrap_or_default().to_owned();
        IdentityText {
            device: signed_text(&line(device), &keys::root()),
            incarnation: signed_text(&line(life), &keys::device()),
        }
    } else {
        IdentityText { device: device.into(), incarnation: life.into() }
    };
    let (root, school) = (keys::root().verifying_key(), keys::school()?);
    let memory = 2 * MEMORY_PER_BYTE * text.len() + 128 * 1024;
    let outcome = measure::call(memory, || {
        let outcome = identity.verify(&root, school).map(|_| ());
        match outcome {
            Err(IdentityError::Foreign { .. }) if planted.is("foreign") => Ok(()),
            other => other,
        }
    })?;
    match outcome {
        Ok(()) => {
            let device = Signed::<DeviceCertificate>::verify(&identity.device, &root);
            let device = device.map_err(|_| Broken("the board has certified the device".into()))?;
            let by_device =
                Signed::<IncarnationCertificate>::verify(&identity.incarnation, &device.body().key);
            let life = by_device.map_err(|_| Broken("the device has certified the incarnation".into()))?;
            let replica = ReplicaId::of_key(device.body().key.as_bytes());
            hold(
                device.body().school == school
                    && life.body().school == school
                    && life.body().replica == replica,
                || "an accepted identity is of one device of this school".into(),
            )?;
            Ok("accepted identity".into())
        }
        Err(IdentityError::Document(error)) => Ok(format!("identity: {}", class(&error))),
        Err(IdentityError::Foreign { .. }) => Ok("identity: foreign".into()),
    }
}

fn manifest() -> Result<Manifest, Broken> {
    let recipient = keys::epoch()?.recipient();
    let replica = keys::device_certificate()?.replica().to_string();
    let key = |key_use, epoch| ManifestKey { key_use, epoch, recipient: recipient.clone() };
    let reader = |name: &str, kind| Reader { name: name.into(), kind, recipient: recipient.clone() };
    Ok(Manifest {
        school: keys::school()?,
        version: 7,
        keys: vec![key(KeyUse::Tier(Tier::Safety), 2026), key(KeyUse::Digest, 0)],
        readers: vec![reader("recovery", None), reader(&replica, Some(ReplicaKind::Appliance))],
        revoked: Vec::new(),
        held: Vec::new(),
        destroyed: Vec::new(),
    })
}

fn destruction() -> Result<DestructionCertificate, Broken> {
    let key = |key_use, epoch| DestroyedKey { key_use, epoch, destroyed_ms: 1_775_000_004_000 };
    Ok(DestructionCertificate {
        school: keys::school()?,
        keys: vec![key(KeyUse::Tier(Tier::Safety), 2024), key(KeyUse::Tier(Tier::Archive), 2_025_001)],
        sites: vec![[1; 16], [2; 16]],
        issued_ms: 1_775_000_005_000,
    })
}

fn written() -> Result<Vec<Seed>, Broken> {
    let failed = |error: DocumentError| Broken(error.to_string());
    let descriptor = CloudDescriptor {
        version: 3,
        hosts: vec!["cloud.example:443".into()],
        tls_certificates: vec![Hash32([9; 32])],
        receipt_keys: vec![ReceiptKey { key: keys::node().verifying_key() }],
    };
    let device = Signed::sign(keys::device_certificate()?, &keys::root()).map_err(failed)?;
    let life = Signed::sign(keys::incarnation_certificate()?, &keys::device()).map_err(failed)?;
    let manifest = Signed::sign(manifest()?, &keys::root()).map_err(failed)?;
    let descriptor = Signed::sign(descriptor, &keys::root()).map_err(failed)?;
    let destruction = Signed::sign(destruction()?, &keys::node()).map_err(failed)?;
    let [proved, differs] = proof::written()?;
    let line = |text: &str| text.split('\n').next().unwrap_or_default().as_bytes().to_vec();
    let identity = format!("{}=\n{}", device.text(), life.text());
    Ok(vec![
        ("device", layer(KINDS, &line(device.text()))),
        ("incarnation", layer(KINDS + 1, &line(life.text()))),
        ("manifest", layer(KINDS + 2, &line(manifest.text()))),
        ("descriptor", layer(KINDS + 3, &line(descriptor.text()))),
        ("identity", layer(KINDS + 4, identity.as_bytes())),
        ("proof", layer(KINDS + 5, &line(proved.text()))),
        ("proof-differs", layer(KINDS + 5, &line(differs.text()))),
        ("proof-text", layer(5, proved.text().as_bytes())),
        ("destruction", layer(KINDS + 6, &line(destruction.text()))),
        ("destruction-text", layer(6, destruction.text().as_bytes())),
        ("manifest-text", layer(2, manifest.text().as_bytes())),
        ("identity-text", layer(4, identity.as_bytes())),
    ])
}

impl Target for DocumentTarget {
    fn name(&self) -> &'static str {
        "document"
    }

    fn executions(&self) -> u64 {
        6_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["signature", "kind", "trailing", "foreign", "stranger", "unfit"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "accepted sonae/device/v1",
            "accepted sonae/incarnation/v1",
            "accepted sonae/manifest/v1",
            "accepted sonae/cloud/v1",
            "accepted identity",
            "accepted sonae/proof/v1",
            "accepted sonae/destruction/v1",
            "identity: foreign",
            "proof: foreign",
            "proof: unfit",
            "proof: signature",
            "signature",
            "fields",
            "it is a document of another kind",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        written().unwrap_or_default()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 2 * KINDS, random, |_, body, random| {
            // The lines are changed each by itself, so that JSON stays JSON.
            let mut lines: Vec<Vec<u8>> = body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let at = random.below(lines.len());
            if let Some(line) = lines.get_mut(at)
                && random.once_in(10)
            {
                // Another school in the right place, which chance seldom finds.
                let place = line.windows(13).position(|window| window == OURS).map(|at| at..at + 13);
                line.splice(place.unwrap_or(0..0), *THEIRS);
            } else if let Some(line) = lines.get_mut(at) {
                json::text(line, &WORDS, random);
            }
            *body = lines.join(&b'\n');
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let (kind, signs) = (number % KINDS, (number / KINDS) % 2 == 1);
        let Ok(text) = std::str::from_utf8(body) else { return Ok("not text".into()) };
        if kind == 4 {
            return judge_identity(text, signs, planted);
        }
        let key = match kind {
            1 => keys::device(),
            5 => keys::writer(),
            6 => keys::node(),
            _ => keys::root(),
        };
        let text = if signs { signed_text(text, &key) } else { text.to_owned() };
        match kind {
            0 => judge_kind::<DeviceCertificate>(&text, &key, planted),
            1 => judge_kind::<IncarnationCertificate>(&text, &key, planted),
            2 => judge_kind::<Manifest>(&text, &key, planted),
            5 => proof::judge(&text, planted),
            6 => judge_kind::<DestructionCertificate>(&text, &key, planted),
            _ => judge_kind::<CloudDescriptor>(&text, &key, planted),
        }
    }
}
