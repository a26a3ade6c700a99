//! Files that a courier carries: read as a whole and in pieces, as they come from a stick.
//!
//! Layers: 0 as it is; 1 the harness follows the lengths and makes every check right; 2 it writes the end as well, so
//! that it counts what is there.

mod format;

use sonae_proto::courier::{
    CloudOpening, CourierError, Decoder, Encoder, End, FORMAT, Opening, Origin, Record, ReplicaOpening,
};
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::limits::FRAME_BYTES_MAX;
use sonae_proto::manifest::{KeyUse, WrappedKey};
use sonae_proto::vector::{LogHead, Sequences};
use sonae_proto::wire::KeyDocuments;

use self::format::{CHECK_BYTES, END, HEAD_BYTES, MAGIC, OPENING, Piece, join, layout, resum};
use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure,
};

/// The target.
pub struct CourierTarget;

/// Bytes of a piece: less than the head of a record, and no part of any other length here.
const PIECE_BYTES: usize = 3;

/// Bytes held for each byte of a text: an entry of a map and its node.
const MEMORY_PER_BYTE: usize = 24;

const WORDS: [&str; 10] = [
    "858e8c6b41b0c6a2b21b61d8ffb1bf7f/0",
    "B113200000011",
    "sonae/courier/v1",
    "sonae/courier/v2",
    "replica",
    "cloud",
    "board",
    "records",
    "batches",
    "loss_counter",
];

/// What was read of a file, and how that ended.
#[derive(Debug)]
pub struct Reading {
    records: Vec<Record>,
    end: Result<End, CourierError>,
}

/// A decoder with a planted bug around it.
struct Planting {
    decoder: Decoder,
    planted: Planted,
    /// What a decoder hoards that lets go of nothing.
    hoard: Vec<u8>,
    found: End,
    is_ended: bool,
}

impl Planting {
    fn new(planted: Planted) -> Self {
        let (decoder, found) = (Decoder::default(), End::default());
        Self { decoder, planted, hoard: Vec::new(), found, is_ended: false }
    }

    fn feed(&mut self, piece: &[u8]) {
        if self.planted.is("hoards") {
            self.hoard.extend_from_slice(piece);
        }
        if self.planted.is("reserve")
            && let Some(length) = piece.get(MAGIC.len() + 1..).and_then(|rest| rest.first_chunk::<4>())
        {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(0).min(1 << 30);
            drop(std::hint::black_box(Vec::<u8>::with_capacity(length)));
        }
        // A piece that is nothing but zeros passes for the end of a sector.
        if self.planted.is("pieces") && piece.len() == PIECE_BYTES && piece.iter().all(|byte| *byte == 0) {
            return;
        }
        self.decoder.feed(piece);
    }

    fn poll(&mut self) -> Result<Option<Record>, CourierError> {
        match self.decoder.poll() {
            Err(CourierError::Order { .. }) if self.planted.is("trailing") && self.is_ended => Ok(None),
            Ok(Some(record)) => {
                self.is_ended = matches!(record, Record::End(_));
                self.found.records += u64::from(!self.is_ended);
                self.found.batches += u64::from(matches!(record, Record::Batch(_)));
                assert!(
                    !matches!(record, Record::Unknown(200..)) || !self.planted.is("panic"),
                    "a kind of a far later version"
                );
                Ok(Some(self.bent(record)))
            }
            other => other,
        }
    }

    fn bent(&self, mut record: Record) -> Record {
        if let Record::Opening(opening) = &mut record
            && let Origin::Replica(replica) = &mut opening.from
            && self.planted.is("counter")
        {
            replica.loss_counter &= 0xFFFF_FFFF;
        }
        let is_later = matches!(record, Record::Unknown(7));
        if is_later && self.planted.is("later-kind") { Record::Receipt(Vec::new()) } else { record }
    }

    /// What a decoder with a hole says at the end of the file.
    fn finish(&self, end: Result<End, CourierError>) -> Result<End, CourierError> {
        match end {
            Err(CourierError::Cut { .. }) if self.planted.is("cut") && self.found.records > 0 => {
                Ok(self.found)
            }
            Err(CourierError::Count { .. }) if self.planted.is("count") => Ok(self.found),
            Err(CourierError::Order { .. }) if self.planted.is("trailing") && self.is_ended => Ok(self.found),
            other => other,
        }
    }

    /// Reads a file and hands on each record.
    fn read(mut self, bytes: &[u8], piece: usize, mut take: impl FnMut(Record)) -> Result<End, CourierError> {
        for piece in bytes.chunks(piece.max(1)) {
            self.feed(piece);
            loop {
                match self.poll() {
                    Ok(Some(record)) => take(record),
                    Ok(None) => break,
                    Err(error) => return self.finish(Err(error)),
                }
            }
        }
        self.finish(self.decoder.finish())
    }
}

fn read_whole(bytes: &[u8], planted: Planted) -> Result<Reading, Broken> {
    let mut bytes = bytes.to_vec();
    if planted.is("check") {
        resum(&mut bytes);
    }
    measure::call(MEMORY_PER_BYTE * bytes.len() + 16 * 1024, || {
        let mut records = Vec::new();
        let end = Planting::new(planted).read(&bytes, bytes.len(), |record| records.push(record));
        Reading { records, end }
    })
}

/// Reads in small pieces, lets go of each record, and says what came as a hash, and how it ended.
fn read_pieces(bytes: &[u8], planted: Planted) -> Result<(String, String), Broken> {
    let layout = layout(bytes);
    let lengths = |is_json: bool| {
        let is = |piece: &&Piece| matches!(piece.kind, 2 | 3 | OPENING | END) == is_json;
        layout.pieces.iter().filter(is).map(|piece| piece.body.len()).max().unwrap_or(0)
    };
    // What lies behind the last whole record waits for its end.
    let tail = bytes.len() - layout.offsets.last().copied().unwrap_or(0).min(bytes.len());
    let record = lengths(true).max(lengths(false)).max(tail) + HEAD_BYTES + CHECK_BYTES;
    let memory = 4 * record + MEMORY_PER_BYTE * lengths(true) + 8 * 1024;
    measure::call(memory, || {
        let mut hasher = blake3::Hasher::new();
        let end = Planting::new(planted).read(bytes, PIECE_BYTES, |record| {
            hasher.update(format!("{record:?}").as_bytes());
        });
        (hasher.finalize().to_hex().to_string(), format!("{end:?}"))
    })
}

/// What was read can be written, and is read again the same.
fn check_written(reading: &Reading) -> Result<(), Broken> {
    let [Record::Opening(opening), between @ .., Record::End(_)] = reading.records.as_slice() else {
        return Err(Broken("what is whole has an opening and an end".into()));
    };
    // Written again, a text may be longer than it was: that is a refusal, not a record.
    let Ok((mut encoder, mut bytes)) = Encoder::start(opening) else { return Ok(()) };
    for record in between {
        let Ok(record) = encoder.record(record) else { return Ok(()) };
        bytes.extend(record);
    }
    bytes.extend(encoder.finish().0);
    let again = read_whole(&bytes, Planted::NONE)?;
    hold(again.end.is_ok() && again.records == reading.records, || {
        "a bundle that is written and read again is the same".into()
    })
}

fn openings() -> Option<[(&'static str, Opening); 3]> {
    let school = keys::school().ok()?;
    let head = LogHead { sequence: 6, hash: Hash32([5; 32]) };
    let identity = IdentityText { device: "device\n".into(), incarnation: "incarnation\n".into() };
    let replica = ReplicaOpening {
        identity,
        // Few mutations make a counter that does not fit 32 bits.
        loss_counter: 1 << 40,
        receipted: Tier::ALL.map(|tier| (keys::log(tier), head)).into(),
        have: Sequences::from([(keys::log(Tier::Daily), 6)]),
        manifest_version: 7,
    };
    let heads = [(keys::log(Tier::Safety), head)].into();
    let cloud = CloudOpening { to: keys::incarnation(), heads, complete: true };
    let opening = |from| Opening {
        format: FORMAT.into(),
        school,
        made_ms: 1_775_000_000_000,
        software: "sonae-edge 0.1.0".into(),
        from,
    };
    Some([
        ("replica", opening(Origin::Replica(Box::new(replica)))),
        ("cloud", opening(Origin::Cloud(cloud))),
        ("board", opening(Origin::Board)),
    ])
}

fn written() -> Option<Vec<Seed>> {
    let school = keys::school().ok()?;
    let [replica, cloud, board] = openings()?;
    let wrapped = WrappedKey { key_use: KeyUse::Digest, epoch: 0, file: b"age-encryption.org/v1\n".to_vec() };
    let documents = KeyDocuments { school, manifest: "manifest\n".into(), wrapped_keys: vec![wrapped] };
    let identity = IdentityText { device: "device\n".into(), incarnation: "incarnation\n".into() };
    let keys = Record::Keys(Box::new(documents));
    let identity = Record::Identity(Box::new(identity));
    let batch = |byte, bytes| Record::Batch(vec![byte; bytes]);
    let of_replica = [keys.clone(), identity.clone(), batch(1, 40), batch(2, 0), Record::Unknown(7)];
    let of_cloud = [identity, Record::Receipt(vec![3; 20]), batch(4, 30)];
    // Zeros, and more of them than anybody may hold at once.
    let long: Vec<Record> = (0..40).map(|_| batch(0, 1_000)).collect();
    let bundle = |opening: &Opening, records: &[Record]| {
        let (mut encoder, mut bytes) = Encoder::start(opening).ok()?;
        for record in records {
            bytes.extend(encoder.record(record).ok()?);
        }
        bytes.extend(encoder.finish().0);
        Some(bytes)
    };
    let whole = bundle(&replica.1, &of_replica)?;
    Some(vec![
        (replica.0, layer(1, &whole)),
        (cloud.0, layer(1, &bundle(&cloud.1, &of_cloud)?)),
        (board.0, layer(1, &bundle(&board.1, &[keys])?)),
        ("long", layer(1, &bundle(&board.1, &long)?)),
        ("file", layer(0, &whole)),
        ("counted", layer(2, &whole)),
    ])
}

/// Does something to the records of a file as a whole: their kinds, number, order and texts.
fn mutate_records(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut pieces = layout(bytes).pieces;
    let at = random.below(pieces.len());
    let to = random.below(pieces.len() + 1);
    let Some(piece) = pieces.get(at).cloned() else { return mutate::bytes(bytes, random) };
    match random.below(8) {
        0 => drop(pieces.remove(at)),
        1 => pieces.insert(to, piece),
        2 => {
            let other = random.below(pieces.len());
            pieces.swap(at, other);
        }
        3 => {
            let kind = if random.once_in(2) { random.byte() } else { 1 + random.byte() % 7 };
            let body = (0..random.below(40)).map(|_| random.byte()).collect();
            pieces.insert(to, Piece { kind, body });
        }
        4 => {
            if let Some(piece) = pieces.get_mut(at) {
                mutate::bytes(&mut piece.body, random);
            }
        }
        _ => {
            if let Some(piece) = pieces.get_mut(at) {
                json::text(&mut piece.body, &WORDS, random);
            }
        }
    }
    *bytes = join(&pieces);
}

/// Does something to kind or length of a record, and leaves what follows where it lies.
fn mutate_head(bytes: &mut [u8], random: &mut Random) {
    let offsets = layout(bytes).offsets;
    let at = random.pick(&offsets).copied().unwrap_or(0);
    if random.once_in(3)
        && let Some(place) = bytes.get_mut(at + 1..at + HEAD_BYTES)
    {
        // Around the limit, which chance seldom finds.
        let limit = u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX);
        place.copy_from_slice(&(limit + u32::try_from(random.below(3)).unwrap_or(0)).to_be_bytes());
        return;
    }
    mutate::field(bytes, &[at..at + 1, at + 1..at + HEAD_BYTES], Order::Big, random);
}

fn envelope(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    if number > 0 {
        resum(&mut bytes);
    }
    if number == 2 {
        let mut pieces = layout(&bytes).pieces;
        pieces.pop_if(|last| last.kind == END);
        pieces.push(format::end_of(&pieces));
        bytes = join(&pieces);
    }
    bytes
}

impl Target for CourierTarget {
    fn name(&self) -> &'static str {
        "courier"
    }

    fn executions(&self) -> u64 {
        4_000
    }

    fn bugs(&self) -> &'static [&'static str] {
        &[
            "check",
            "cut",
            "count",
            "trailing",
            "counter",
            "later-kind",
            "pieces",
            "hoards",
            "reserve",
            "panic",
        ]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["whole", "cut", "damaged", "out of place", "counts otherwise", "a later format", "another file"]
    }

    fn seeds(&self) -> Vec<Seed> {
        written().unwrap_or_default()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 3, random, |_, body, random| match random.below(6) {
            0 => mutate::bytes(body, random),
            1 => mutate_head(body, random),
            2 => {
                // Behind some record, or inside it.
                let offsets = layout(body).offsets;
                let at = random.pick(&offsets).copied().unwrap_or(0);
                body.truncate(at + if random.once_in(2) { 0 } else { random.below(40) });
            }
            _ => mutate_records(body, random),
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let bytes = envelope(number % 3, body);
        let reading = read_whole(&bytes, planted)?;
        let class = format::check_reading(&bytes, &reading)?;
        let (came, end) = read_pieces(&bytes, planted)?;
        let mut hasher = blake3::Hasher::new();
        for record in &reading.records {
            hasher.update(format!("{record:?}").as_bytes());
        }
        let as_whole = (hasher.finalize().to_hex().to_string(), format!("{:?}", reading.end));
        hold(as_whole == (came, end), || {
            "what is read does not depend on the pieces in which it comes".into()
        })?;
        if reading.end.is_ok() {
            check_written(&reading)?;
        }
        Ok(class.into())
    }
}
