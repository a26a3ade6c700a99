//! Entity tags that name what a person saw: for each field the changes whose values stand.
//!
//! ```text
//! "code=5f0c…e1:12,reason_text=5f0c…e1:12+90ab…77:3"
//! ```
//! A client sends it back in `If-Match`; its write then replaces exactly these values, and what somebody else
//! wrote meanwhile stays beside it for a person to decide. Sonae never answers 412: it keeps both.
//!
//! **Invariant**: a change that this replica has not applied is never taken as seen. Otherwise a client could
//! name a change of the future and have it thrown away on arrival.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, header};
use sonae_proto::ids::{ChangeId, LogName, Tier};
use sonae_proto::limits::FIELD_HEADS_MAX;
use sonae_proto::record::RecordState;
use sonae_proto::vector::Sequences;

use crate::error::ApiError;

/// Longest `If-Match`, bytes: 20 fields of one head each are 1,300; a few disputes on top.
const IF_MATCH_BYTES_MAX: usize = 8 * 1024;

/// The changes that a person saw, by field.
pub type Seen = BTreeMap<String, Vec<ChangeId>>;

/// Names the heads of the given fields.
pub fn of<'a>(record: Option<&RecordState>, fields: impl Iterator<Item = &'a str>) -> HeaderValue {
    let mut parts = Vec::new();
    for name in fields {
        let Some(field) = record.and_then(|record| record.fields.get(name)) else { continue };
        let heads: Vec<String> = field.heads.iter().map(|head| head.id.to_string()).collect();
        if !heads.is_empty() {
            parts.push(format!("{name}={}", heads.join("+")));
        }
    }
    // Names of fields and changes are ASCII without quotes.
    HeaderValue::from_str(&format!("\"{}\"", parts.join(","))).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Reads `If-Match`. `None`, also for `*`: whatever stands is replaced.
pub fn seen(headers: &HeaderMap) -> Result<Option<Seen>, ApiError> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = || {
        ApiError::bad_parameter(
            "If-Match",
            "If-Match is not the ETag of this record: send the one of your last GET unchanged, or none.",
            "If-Matchが正しくありません。最後に取得したETagをそのまま送るか、付けずに送ってください。",
        )
    };
    if values.next().is_some() || value.len() > IF_MATCH_BYTES_MAX {
        return Err(bad());
    }
    let text = value.to_str().map_err(|_| bad())?.trim();
    if text == "*" {
        return Ok(None);
    }
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(bad)?;
    let mut seen = Seen::new();
    for part in inner.split(',').filter(|part| !part.is_empty()) {
        let (name, ids) = part.split_once('=').ok_or_else(bad)?;
        let ids: Result<Vec<ChangeId>, _> = ids.split('+').map(str::parse).collect();
        let ids = ids.map_err(|_| bad())?;
        if ids.len() > FIELD_HEADS_MAX || seen.insert(name.to_owned(), ids).is_some() {
            return Err(bad());
        }
    }
    Ok(Some(seen))
}

/// Drops what this replica has not applied; what stands now was applied in any case.
pub fn only_applied(seen: &mut Seen, tier: Tier, record: Option<&RecordState>, vector: &Sequences) {
    for (name, ids) in seen.iter_mut() {
        let field = record.and_then(|record| record.fields.get(name));
        ids.retain(|id| {
            let stands = field.is_some_and(|field| field.heads.iter().any(|head| head.id == *id));
            let log = LogName { tier, incarnation: id.incarnation };
            let applied = vector.get(&log).is_some_and(|last| (1..=*last).contains(&id.sequence));
            stands || applied
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::clock::Stamp;
    use sonae_proto::ids::Incarnation;
    use sonae_proto::record::{FieldState, Head};

    fn id(writer: u8, sequence: u64) -> ChangeId {
        ChangeId { incarnation: Incarnation::from_bytes([writer; 16]), sequence }
    }

    fn record(heads: &[ChangeId]) -> RecordState {
        let head = |id: &ChangeId| Head {
            id: *id,
            stamp: Stamp::default(),
            value: "late".into(),
            who: None,
            source: None,
        };
        let field = FieldState { heads: heads.iter().map(head).collect(), ..FieldState::default() };
        RecordState { fields: BTreeMap::from([("code".to_owned(), field)]) }
    }

    fn if_match(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_str(value).unwrap())])
    }

    /// Goal: what a tag names is what is read back. Method: no record, one head, two heads.
    #[test]
    fn round_trip() {
        assert_eq!(of(None, ["code"].into_iter()), "\"\"");
        assert_eq!(seen(&if_match("\"\"")).unwrap(), Some(Seen::new()));
        for heads in [vec![id(1, 7)], vec![id(1, 7), id(2, 9)]] {
            let tag = of(Some(&record(&heads)), ["code", "reason_text"].into_iter());
            let read = seen(&if_match(tag.to_str().unwrap())).unwrap().unwrap();
            assert_eq!(read, Seen::from([("code".to_owned(), heads)]));
        }
        assert_eq!(seen(&HeaderMap::new()).unwrap(), None);
        assert_eq!(seen(&if_match("*")).unwrap(), None);
    }

    /// Goal: what is no tag of ours is refused. Method: odd values.
    #[test]
    fn odd_tags() {
        let twice = format!("\"code={0},code={0}\"", id(1, 1));
        let long = format!("\"{}\"", "a".repeat(IF_MATCH_BYTES_MAX));
        for odd in ["code", "\"code\"", "\"code=1\"", "\"a=1:2\"", "\"x\", \"y\"", &twice, &long] {
            assert_eq!(seen(&if_match(odd)).unwrap_err().detail.code, "bad_parameter", "{odd}");
        }
    }

    /// Goal: a change of the future cannot be named. Method: applied, standing, future and foreign ids.
    #[test]
    fn the_future_is_not_seen() {
        let own = LogName { tier: Tier::Daily, incarnation: id(1, 0).incarnation };
        let vector = Sequences::from([(own, 5)]);
        let ids = vec![id(1, 5), id(1, 6), id(1, 0), id(2, 1), id(3, 3)];
        let mut seen = Seen::from([("code".to_owned(), ids)]);
        only_applied(&mut seen, Tier::Daily, Some(&record(&[id(3, 3)])), &vector);
        assert_eq!(seen["code"], [id(1, 5), id(3, 3)]);
    }
}
