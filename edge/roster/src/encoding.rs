//! Owns the step from bytes to text: UTF-8 or a finding that says what it looks like instead.
//!
//! Invariant: what passes is UTF-8 without a byte order mark. A mark is forgiven with a warning, because
//! spreadsheet programs add it. Leaves out: converting other encodings; the sender has to write UTF-8.

use encoding_rs::SHIFT_JIS;

use crate::report::{Code, Finding, Phrase, Report, Severity};

const EXPECTED: Phrase = Phrase::fixed("UTF-8 without byte order mark", "BOMなしのUTF-8");

/// How to treat a UTF-8 byte order mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bom {
    /// The format forbids it: accept with a warning.
    Warn,
    /// The format allows it.
    Allow,
}

/// Decodes a file, or reports why not and returns `None`.
pub(crate) fn decode<'a>(file: &str, bytes: &'a [u8], bom: Bom, report: &mut Report) -> Option<&'a str> {
    if looks_like_utf16(bytes) {
        report.push(Finding::new(Severity::Error, Code::EncodingUtf16, file, EXPECTED));
        return None;
    }
    let body = match bytes.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => {
            if bom == Bom::Warn {
                report.push(Finding::new(Severity::Warning, Code::Bom, file, EXPECTED).at_line(1));
            }
            rest
        }
        None => bytes,
    };
    match std::str::from_utf8(body) {
        Ok(text) => Some(text),
        Err(error) => {
            let good = body.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + count_lines(good);
            let looks_japanese =
                SHIFT_JIS.decode_without_bom_handling_and_without_replacement(body).is_some();
            let code = if looks_japanese { Code::EncodingCp932 } else { Code::EncodingUnknown };
            report.push(Finding::new(Severity::Error, code, file, EXPECTED).at_line(line));
            None
        }
    }
}

/// Number of line ends (LF, CRLF or a lone CR) in a piece of text.
pub(crate) fn count_lines(bytes: &[u8]) -> u64 {
    let mut count = 0u64;
    let mut after_cr = false;
    for byte in bytes {
        if *byte == b'\r' || (*byte == b'\n' && !after_cr) {
            count = count.saturating_add(1);
        }
        after_cr = *byte == b'\r';
    }
    count
}

/// A UTF-16 mark, or NUL as every other byte at the beginning, as in UTF-16 without a mark.
fn looks_like_utf16(bytes: &[u8]) -> bool {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return true;
    }
    let (pairs, _) = bytes.get(..64).unwrap_or(bytes).as_chunks::<2>();
    pairs.len() >= 4 && (pairs.iter().all(|[_, low]| *low == 0) || pairs.iter().all(|[high, _]| *high == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(bytes: &[u8]) -> (Option<&str>, Vec<(Code, Option<u64>)>) {
        let mut report = Report::new(10);
        let text = decode("users.csv", bytes, Bom::Warn, &mut report);
        (text, report.findings().iter().map(|finding| (finding.code, finding.line)).collect())
    }

    /// Goal: each wrong encoding is named, with the line where it shows. Method: one text in five encodings.
    #[test]
    fn encodings_are_told_apart() {
        assert_eq!(outcome("a,b\n架空".as_bytes()), (Some("a,b\n架空"), vec![]));
        assert_eq!(outcome(b"\xEF\xBB\xBFa,b"), (Some("a,b"), vec![(Code::Bom, Some(1))]));
        let (cp932, _, _) = SHIFT_JIS.encode("a,b\r\n1,2\r\n架空");
        assert_eq!(outcome(&cp932), (None, vec![(Code::EncodingCp932, Some(3))]));
        let utf16: Vec<u8> = "sourcedId".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(outcome(&utf16), (None, vec![(Code::EncodingUtf16, None)]));
        assert_eq!(outcome(b"a\n\xFF\xFF"), (None, vec![(Code::EncodingUnknown, Some(2))]));
    }
}
