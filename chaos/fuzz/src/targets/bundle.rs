//! Bundles, as a replica or a node of the cloud opens them.
//!
//! Layers: 0 and 1 the sealed file as it is, opened as a replica's or a cloud's; 2 and 3 the harness seals the
//! content; 4 and 5 it seals it to an age key instead of the passphrase.

use std::io::Write;
use std::iter;

use age::secrecy::SecretString;
use sonae_proto::bundle::{self, BundleError, BundleKind, CloudBundle, ReplicaBundle};
use sonae_proto::limits::BUNDLE_WORK_FACTOR_MAX;
use sonae_proto::manifest::{KeyUse, WrappedKey};

use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure, mutate,
};

/// The target.
pub struct BundleTarget;

const PASSPHRASE: &str = "kunren-no-tame";

/// log2 of N for what the harness seals: nobody's secret, so quick.
const WORK_FACTOR: u8 = 2;

/// scrypt holds 1 KiB for each unit of N at its largest allowed factor, the content twice beside it.
const MEMORY_BYTES_MAX: usize = (1 << (10 + BUNDLE_WORK_FACTOR_MAX)) + 512 * 1024;

const WORDS: [&str; 6] = [
    "sonae/replica-bundle/v1",
    "sonae/cloud-bundle/v1",
    "sonae/replica-bundle/v2",
    "doc",
    "wrapped_keys",
    "B113200000011",
];

fn class(error: &BundleError) -> Verdict {
    match error {
        BundleError::WrongPassphrase => "wrong passphrase".into(),
        BundleError::Damaged => "damaged".into(),
        BundleError::Kind { .. } => "kind".into(),
        BundleError::TooLarge { .. } => "too large".into(),
    }
}

fn seal(content: &[u8], to_key: bool) -> Result<Vec<u8>, Broken> {
    let failed = |error: &dyn std::fmt::Display| Broken(error.to_string());
    if to_key {
        let to = keys::epoch()?.recipient();
        return sonae_proto::seal::encrypt(content, [to.as_str()]).map_err(|error| failed(&error));
    }
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(PASSPHRASE.to_owned()));
    recipient.set_work_factor(WORK_FACTOR);
    let recipient: &dyn age::Recipient = &recipient;
    let encryptor = age::Encryptor::with_recipients(iter::once(recipient)).map_err(|error| failed(&error))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(|error| failed(&error))?;
    writer.write_all(content).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))?;
    Ok(sealed)
}

fn decode<B: BundleKind>(sealed: &[u8], content: Option<&[u8]>, planted: Planted) -> Result<B, BundleError> {
    let parsed = |content: Option<&[u8]>| {
        content.and_then(|content| serde_json::from_slice(content).ok()).ok_or(BundleError::Damaged)
    };
    match bundle::open::<B>(sealed, PASSPHRASE) {
        Err(BundleError::Kind { .. }) if planted.is("kind") => parsed(content),
        Err(BundleError::Damaged) if planted.is("trailing") => {
            let end =
                content.unwrap_or_default().iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
            parsed(content.and_then(|content| content.get(..end)))
        }
        Err(BundleError::Damaged) if planted.is("any-recipient") => parsed(content),
        other => other,
    }
}

fn judge_kind<B: BundleKind>(
    sealed: &[u8],
    content: Option<&[u8]>,
    to_key: bool,
    planted: Planted,
) -> Result<Verdict, Broken> {
    let per_byte = 24 * (sealed.len() + content.map_or(0, <[u8]>::len));
    let outcome = measure::call(MEMORY_BYTES_MAX + per_byte, || decode::<B>(sealed, content, planted))?;
    let bundle = match outcome {
        Ok(bundle) => bundle,
        Err(error) => return Ok(class(&error)),
    };
    hold(!to_key, || "a bundle that is not sealed to a passphrase is refused".into())?;
    hold(bundle.label() == B::LABEL, || "an accepted bundle is of the kind that was asked for".into())?;
    if let Some(content) = content {
        hold(json::is_one_value(content), || "the content of an accepted bundle is one JSON value".into())?;
    }
    let text = |bundle: &B| serde_json::to_vec(bundle).unwrap_or_default();
    let again = seal(&text(&bundle), false)?;
    let reread = bundle::open::<B>(&again, PASSPHRASE);
    hold(reread.is_ok_and(|reread| text(&reread) == text(&bundle)), || {
        "a bundle that is sealed and opened again is the same".into()
    })?;
    let other = bundle::open::<B>(&again, "another passphrase");
    hold(matches!(other, Err(BundleError::WrongPassphrase)), || {
        "another passphrase opens nothing and is told apart from damage".into()
    })?;
    Ok(format!("accepted {}", B::LABEL))
}

fn written() -> Result<Vec<Seed>, Broken> {
    let wrapped = WrappedKey { key_use: KeyUse::Digest, epoch: 0, file: b"age-encryption.org/v1\n".to_vec() };
    let replica = ReplicaBundle {
        doc: ReplicaBundle::LABEL.into(),
        board_root: "00".into(),
        board_name: "架空市教育委員会".into(),
        school: keys::school()?,
        school_name: "架空市立見本小学校".into(),
        device_seed: "01".into(),
        device_age_key: "AGE-SECRET-KEY-1".into(),
        device_certificate: "{}\n".into(),
        tls_certificate_pem: "-----BEGIN".into(),
        ca_pem: "-----BEGIN".into(),
        lan_certificate_pem: "-----BEGIN".into(),
        lan_key_pem: "-----BEGIN".into(),
        lan_names: vec!["localhost".into()],
        manifest: "{}\n".into(),
        wrapped_keys: vec![wrapped],
        descriptor: "{}\n".into(),
    };
    let cloud = CloudBundle {
        doc: CloudBundle::LABEL.into(),
        board_root: "00".into(),
        board_name: "架空市教育委員会".into(),
        ca_pem: "-----BEGIN".into(),
        tls_certificate_pem: "-----BEGIN".into(),
        tls_key_pem: "-----BEGIN".into(),
        receipt_seed: "01".into(),
        descriptor: "{}\n".into(),
    };
    let json = |text: Result<Vec<u8>, serde_json::Error>| text.map_err(|error| Broken(error.to_string()));
    let header = b"age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 12\n\
        kR6sF9c8RYRoBhtCXZ3vgzDLqAHMNdm3YF6RMHCZOqg\n--- AAAA\nrest";
    Ok(vec![
        ("replica", layer(2, &json(serde_json::to_vec(&replica))?)),
        ("cloud", layer(3, &json(serde_json::to_vec(&cloud))?)),
        ("to-a-key", layer(4, &json(serde_json::to_vec(&replica))?)),
        ("file", layer(0, header)),
    ])
}

impl Target for BundleTarget {
    fn name(&self) -> &'static str {
        "bundle"
    }

    fn executions(&self) -> u64 {
        120
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["kind", "trailing", "any-recipient"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["accepted sonae/replica-bundle/v1", "accepted sonae/cloud-bundle/v1", "damaged", "kind"]
    }

    fn seeds(&self) -> Vec<Seed> {
        written().unwrap_or_default()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 6, random, |number, body, random| {
            if number < 2 { mutate::bytes(body, random) } else { json::text(body, &WORDS, random) }
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let number = number % 6;
        let to_key = number >= 4;
        let (sealed, content) =
            if number < 2 { (body.to_vec(), None) } else { (seal(body, to_key)?, Some(body)) };
        if number % 2 == 0 {
            judge_kind::<ReplicaBundle>(&sealed, content, to_key, planted)
        } else {
            judge_kind::<CloudBundle>(&sealed, content, to_key, planted)
        }
    }
}
