//! The corpus, built into the program: seeds that the product's writers wrote, and inputs that broke something
//! once (`found-`). The files lie in `chaos/fuzz/corpus/TARGET/NAME`.

/// Names the files once.
macro_rules! corpus {
    ($($path:literal),* $(,)?) => {
        const FILES: &[(&str, &[u8])] = &[$(($path, include_bytes!(concat!("../corpus/", $path)))),*];
    };
}

corpus!(
    "batch/first",
    "batch/second",
    "batch/single",
    "bundle/cloud",
    "bundle/file",
    "bundle/replica",
    "bundle/to-a-key",
    "change/found-number",
    "change/full",
    "change/plain",
    "courier/board",
    "courier/cloud",
    "courier/counted",
    "courier/file",
    "courier/long",
    "courier/replica",
    "document/descriptor",
    "document/destruction",
    "document/destruction-text",
    "document/device",
    "document/identity",
    "document/identity-text",
    "document/incarnation",
    "document/manifest",
    "document/manifest-text",
    "document/proof",
    "document/proof-differs",
    "document/proof-text",
    "frame/batch",
    "frame/fetch",
    "frame/fetch-end",
    "frame/fetch-snapshot",
    "frame/header",
    "frame/hello",
    "frame/hello-ended",
    "frame/hello-losses",
    "frame/keys",
    "frame/news",
    "frame/proof",
    "frame/receipt",
    "frame/refusal",
    "frame/snapshot",
    "frame/snapshot-part",
    "frame/snapshot-wants",
    "frame/welcome",
    "frame/welcome-ended",
    "frame/welcome-snapshots",
    "heads/change",
    "heads/found-signed-sequence",
    "heads/found-signed-tier",
    "heads/hash",
    "heads/heads",
    "heads/incarnation",
    "heads/log",
    "heads/school",
    "heads/sequences",
    "heads/tier",
    "journal/found-lost-run",
    "journal/found-short-file",
    "journal/marked",
    "journal/one-commit",
    "journal/two-segments",
    "object/empty",
    "object/many",
    "object/merged",
    "object/merged-checked",
    "object/one",
    "payload/bomb",
    "payload/eye",
    "payload/frames",
    "payload/lines",
    "payload/recipients",
    "receipt/all-sites",
    "receipt/two-sites",
    "roster/first-edition",
    "roster/last-edition",
    "roster/zip",
    "snapshot/found-deep-later-key",
    "snapshot/part",
    "snapshot/record",
    "snapshot/root",
    "snapshot/root-sha256",
    "snapshot/root-text",
    "store/archived",
    "store/killed",
    "tables/attendance",
    "tables/contacts",
);

/// The corpus of a target: names and inputs.
#[must_use]
pub fn of(target: &str) -> Vec<(String, &'static [u8])> {
    let files = FILES.iter().filter_map(|(path, input)| Some((path.split_once('/')?, *input)));
    files
        .filter(|((folder, _), _)| *folder == target)
        .map(|((_, name), input)| (name.to_owned(), input))
        .collect()
}

/// The inputs alone, to start a run from.
#[must_use]
pub fn inputs(target: &str) -> Vec<Vec<u8>> {
    of(target).into_iter().map(|(_, input)| input.to_vec()).collect()
}
