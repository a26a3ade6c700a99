//! The deterministic double of sealing. age draws its own entropy, so a run that really sealed could not be
//! repeated. The bytes do not matter to what is tried here: engines look at a payload's recipients and hash only.
//!
//! **Invariant**: as with age, sealing the same lines twice gives different bytes, because the salt differs, and
//! the payload passes `check_recipients`. Left out: secrecy, compression, padding; `proto` tests those.

const RECIPIENT: &[u8] = b"age-encryption.org/v1\n-> X25519 ";
const END: &[u8] = b"\n--- double\n";

/// Seals lines.
pub(crate) fn seal(lines: &[Vec<u8>], salt: u64) -> Vec<u8> {
    let salt = format!("{salt:016x}");
    let mut payload = [RECIPIENT, salt.as_bytes(), END].concat();
    for line in lines {
        payload.extend_from_slice(line);
        payload.push(b'\n');
    }
    payload
}

/// Opens a payload to its lines, each without its newline.
pub(crate) fn open(payload: &[u8]) -> Vec<Vec<u8>> {
    let lines = payload.get(RECIPIENT.len() + 16 + END.len()..).unwrap_or_default();
    let whole = lines.split_inclusive(|byte| *byte == b'\n');
    whole.map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the double behaves as age does towards the engines. Method: seal twice, look, open.
    #[test]
    fn the_double_passes_for_a_payload() {
        let lines = vec![b"{\"a\":1}".to_vec(), b"{}".to_vec()];
        let payload = seal(&lines, 1);
        sonae_proto::seal::check_recipients(&payload).unwrap();
        assert_eq!(open(&payload), lines);
        assert_ne!(seal(&lines, 2), payload);
    }
}
