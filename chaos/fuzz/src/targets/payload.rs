//! Sealed payloads: what a key opens, and what anybody sees of the recipients.
//!
//! Layers: 0 the age file as it is; 1 the harness encrypts what would be zstd; 2 it seals change lines; 3 it
//! encrypts to as many recipients as the first byte says.

use std::io::Write;

use sonae_proto::limits::{BATCH_BYTES_MAX, BATCH_RAW_BYTES_MAX, PAYLOAD_STANZAS_MAX};
use sonae_proto::padme::padded_length;
use sonae_proto::seal::{LEVEL_LIVE, SealError, check_recipients, decrypt, encrypt, open_lines, seal_lines};

use super::batch::sealed_looking;
use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, keys, layer, layered, measure, mutate,
};

/// The target.
pub struct PayloadTarget;

/// What opening may hold: the lines twice while their buffer grows, age's chunks, zstd's buffers.
const MEMORY_BYTES_MAX: usize = 3 * BATCH_RAW_BYTES_MAX + 512 * 1024;

fn class(error: &SealError) -> Verdict {
    match error {
        SealError::Malformed { what } => (*what).into(),
        SealError::TooLarge { .. } => "too large".into(),
        SealError::Open => "does not open".into(),
        SealError::Key { .. } => "key".into(),
        SealError::Compress(_) | SealError::Encrypt(_) => "sealing failed".into(),
    }
}

fn open(payload: &[u8], planted: Planted) -> Result<Vec<u8>, SealError> {
    let key = keys::epoch().map_err(|_| SealError::Open)?;
    match open_lines(payload, &key) {
        Err(SealError::TooLarge { .. }) if planted.is("bomb") && payload.len() <= BATCH_BYTES_MAX => {
            let content = decrypt(payload, &key)?;
            zstd::stream::decode_all(content.as_slice()).map_err(|_| SealError::Open)
        }
        Err(SealError::Malformed { .. }) if planted.is("trailing") => {
            // What was decoded before the rubbish is taken for the whole.
            let content = decrypt(payload, &key)?;
            let mut lines = Vec::new();
            if let Ok(mut decoder) = zstd::stream::write::Decoder::new(&mut lines) {
                let _ = decoder.write_all(&content);
                let _ = decoder.flush();
            }
            if lines.is_empty() { Err(SealError::Open) } else { Ok(lines) }
        }
        other => other.map(|lines| lines.to_vec()),
    }
}

fn see(payload: &[u8], planted: Planted) -> Result<(), SealError> {
    match check_recipients(payload) {
        Err(SealError::Malformed { what: "not exactly one recipient" })
            if planted.is("two-recipients") && payload.windows(3).any(|at| at == b"-> ") =>
        {
            Ok(())
        }
        Err(SealError::Malformed { what: "a recipient that no manifest allows" })
            if planted.is("any-stanza") =>
        {
            Ok(())
        }
        other => other,
    }
}

/// The rule about recipients, written again from `docs/spec/batch.md`.
fn recipients_allowed(payload: &[u8]) -> bool {
    let lines: Vec<&[u8]> = payload.split(|byte| *byte == b'\n').take(65).collect();
    let Some(end) = lines.iter().position(|line| line.starts_with(b"---")) else { return false };
    let header = lines.get(..end).unwrap_or_default();
    let kinds: Vec<&[u8]> = header
        .iter()
        .skip(1)
        .filter_map(|line| line.strip_prefix(b"-> ")?.split(|byte| *byte == b' ').next())
        .collect();
    let x25519 = kinds.iter().filter(|kind| **kind == b"X25519").count();
    let known = kinds.iter().all(|kind| *kind == b"X25519" || kind.ends_with(b"-grease"));
    header.first() == Some(&&b"age-encryption.org/v1"[..])
        && x25519 == 1
        && known
        && kinds.len() <= PAYLOAD_STANZAS_MAX
}

fn judge_recipients(payload: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let seen = measure::call(4096, || see(payload, planted))?;
    hold(seen.is_ok() == recipients_allowed(payload), || {
        "the recipients of a payload pass if and only if exactly one X25519 stanza stands there".into()
    })?;
    Ok(seen.as_ref().map_or_else(class, |()| "one recipient".into()))
}

/// Checks what was opened of a content that the harness had encrypted.
fn judge_content(content: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let to = keys::epoch()?.recipient();
    let payload = encrypt(content, [to.as_str()]).map_err(|error| Broken(error.to_string()))?;
    judge_recipients(&payload, planted)?;
    let opened = measure::call(MEMORY_BYTES_MAX + 4 * payload.len(), || open(&payload, planted))?;
    let Ok(lines) = opened else {
        return Ok(opened.as_ref().map_or_else(class, |_| "opened".into()));
    };
    hold(lines.len() <= BATCH_RAW_BYTES_MAX, || "no more lines are opened than the limit allows".into())?;
    let whole = zstd::stream::decode_all(content).ok();
    hold(whole.as_ref() == Some(&lines), || "what is opened is a whole run of zstd frames".into())?;
    Ok("opened".into())
}

fn judge_lines(lines: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let key = keys::epoch()?;
    let payload = match seal_lines(lines, LEVEL_LIVE, &key.recipient()) {
        Ok(payload) => payload,
        Err(error) => return Ok(format!("not sealed: {}", class(&error))),
    };
    hold(payload.len() < BATCH_BYTES_MAX, || "whatever can be sealed fits into a batch".into())?;
    judge_recipients(&payload, planted)?;
    let opened = measure::call(MEMORY_BYTES_MAX + 4 * payload.len(), || open(&payload, planted))?;
    hold(opened.is_ok_and(|opened| opened == lines), || "sealed lines open as they were".into())?;
    let bytes = decrypt(&payload, &key).map_or(0, |content| content.len());
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    hold(padded_length(bytes) == bytes, || "the length of a sealed content is a Padmé length".into())?;
    Ok("sealed and opened".into())
}

fn judge_several(body: &[u8], planted: Planted) -> Result<Verdict, Broken> {
    let (count, content) = layered(body);
    let to = keys::epoch()?.recipient();
    let count = usize::from(count % 6);
    let payload = encrypt(content, std::iter::repeat_n(to.as_str(), count));
    let Ok(payload) = payload else { return Ok("no recipients, no age file".into()) };
    judge_recipients(&payload, planted)
}

impl Target for PayloadTarget {
    fn name(&self) -> &'static str {
        "payload"
    }

    fn executions(&self) -> u64 {
        1_200
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["bomb", "trailing", "two-recipients", "any-stanza"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &[
            "opened",
            "too large",
            "sealed and opened",
            "not exactly one recipient",
            "not a whole run of zstd frames",
        ]
    }

    fn seeds(&self) -> Vec<Seed> {
        let lines =
            b"{\"t\":[1775000000000,0],\"c\":\"student\",\"r\":\"p1\",\"f\":{\"name\":\"x\"}}\n".repeat(3);
        let zeros = vec![0; 3 * 1024 * 1024];
        let packed = |bytes: &[u8], level| zstd::bulk::compress(bytes, level).unwrap_or_default();
        let mut two = packed(&lines, 3);
        two.extend_from_slice(&[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 0, 0, 0, 0]);
        two.extend(packed(b"more\n", 3));
        vec![
            ("eye", layer(0, &sealed_looking(b"rest"))),
            ("lines", layer(2, &lines)),
            ("frames", layer(1, &two)),
            ("bomb", layer(1, &packed(&zeros, 19))),
            ("recipients", layer(3, b"\x02content")),
        ]
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 4, random, |number, body, random| {
            if number == 0 && random.once_in(3) {
                let line: &[u8] = random
                    .pick(&[
                        &b"-> X25519 AAAA\n"[..],
                        b"-> ssh-ed25519 AAAA BBBB\n",
                        b"-> a-grease\n",
                        b"-> X25519-grease x\n",
                        b"--- \n",
                        b"-> scrypt AAAA 18\n",
                    ])
                    .copied()
                    .unwrap_or_default();
                let starts: Vec<usize> =
                    (1..body.len()).filter(|at| body.get(at - 1) == Some(&b'\n')).take(8).collect();
                let at = random.pick(&starts).copied().unwrap_or(0);
                body.splice(at..at, line.iter().copied());
            } else {
                mutate::bytes(body, random);
            }
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        match number % 4 {
            0 => {
                let seen = judge_recipients(body, planted)?;
                let opened = measure::call(MEMORY_BYTES_MAX + 4 * body.len(), || open(body, planted))?;
                Ok(opened.as_ref().map_or(seen, |_| "opened".into()))
            }
            1 => judge_content(body, planted),
            2 => judge_lines(body, planted),
            _ => judge_several(body, planted),
        }
    }
}
