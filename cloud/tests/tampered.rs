//! Sites that somebody has altered who can also write right checksums: what a node takes for a log, and what an
//! auditor with public keys says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
#[path = "export/scene.rs"]
mod scene;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::board::SCHOOL;
use ed25519_dalek::SigningKey;
use scene::Scene;
use sonae_cloud::export::audit::{Completeness, Question, Verdict, of_directories};
use sonae_cloud::index::Fed;
use sonae_cloud::load::load;
use sonae_cloud::site::open_all;
use sonae_proto::batch::{Batch, Place};
use sonae_proto::export::Problem;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::intake::{Config, Intake};
use sonae_proto::object::{RecordKind, append, records};
use sonae_proto::vector::{Heads, LogHead};

struct Town {
    root: tempfile::TempDir,
    scene: Scene,
}

impl Town {
    fn new() -> Self {
        let town = Self { root: tempfile::tempdir().unwrap(), scene: Scene::new() };
        town.sites().iter().for_each(|site| town.scene.fill(site));
        let site = town.sites()[1].join("site.json");
        fs::write(site, format!("{{\"format\":\"sonae/site/v1\",\"id\":\"{}\"}}\n", "22".repeat(16)))
            .unwrap();
        town
    }

    fn sites(&self) -> [PathBuf; 2] {
        ["a", "b"].map(|name| self.root.path().join(name))
    }

    /// Writes the objects of some sites anew, each record as `alter` leaves it.
    fn alter(&self, sites: &[PathBuf], alter: impl Fn(&mut Vec<u8>)) {
        for site in sites {
            for number in 0..self.scene.objects.len() {
                let path = Scene::object(site, number);
                let mut object = Vec::new();
                for record in records(&fs::read(&path).unwrap()).0 {
                    let mut body = record.body.to_vec();
                    alter(&mut body);
                    append(&mut object, record.kind.unwrap(), &body);
                }
                fs::write(path, object).unwrap();
            }
        }
    }

    fn add(&self, sites: &[PathBuf], batch: &Batch) {
        self.add_records(sites, &[(RecordKind::Batch, batch.bytes())]);
    }

    fn add_records(&self, sites: &[PathBuf], records: &[(RecordKind, &[u8])]) {
        let mut object = Vec::new();
        for (kind, body) in records {
            append(&mut object, *kind, body);
        }
        sites.iter().for_each(|site| fs::write(Scene::object(site, 9), &object).unwrap());
    }

    /// What a node that starts here has found, and the heads that it will name.
    async fn start(&self) -> (Fed, Heads, u64) {
        let loaded = load(&open_all(&self.sites(), 2).unwrap().0).await;
        let board = self.scene.board.root.verifying_key();
        let receipt_key = SigningKey::from_bytes(&[8; 32]);
        let config = Config { board, receipt_key, sites: 2, quorum: 2, receipt_before_store: false };
        let mut intake = Intake::new(config);
        let fed = loaded.index.feed(&mut intake, &board, 2);
        let school = SCHOOL.parse().unwrap();
        let heads = intake.overview().into_iter().find(|one| one.school == school).unwrap().heads;
        (fed, heads, loaded.sites.iter().map(|site| site.damaged).sum())
    }

    async fn audit(&self, expect: Heads) -> Verdict {
        let root = self.scene.board.root.verifying_key();
        let question = Question { school: SCHOOL.parse().unwrap(), root, expect };
        of_directories(&question, &self.sites(), &mut |_| {}).await.unwrap()
    }
}

/// A batch for the place of `model`, or behind it, by somebody who has no key of a replica.
fn forge(model: &Batch, after: LogHead) -> Batch {
    let header = model.header();
    let (school, log, epoch, manifest) = (header.school, header.log, header.epoch, header.manifest);
    let place = Place { school, log, after, last: after.sequence + 1, epoch, manifest };
    Batch::sign(&place, model.payload(), &SigningKey::from_bytes(&[66; 32])).unwrap()
}

fn before(batch: &Batch) -> LogHead {
    LogHead { sequence: batch.header().first - 1, hash: batch.header().previous }
}

fn file(site: &Path) -> PathBuf {
    Scene::object(site, 2)
}

/// Goal: a batch that its incarnation did not sign is part of no log, wherever it stands. Method: a forged rival that
/// is newer than the true batch, then forged batches behind the last one.
#[tokio::test]
async fn forged_batches_are_part_of_no_log() {
    let town = Town::new();
    let wanted = town.scene.heads();
    let (fed, heads, _) = town.start().await;
    assert_eq!((heads, fed.forged, fed.equivocations), (wanted.clone(), 0, 0));
    let last = &town.scene.batches[2];
    for forged in [forge(last, before(last)), forge(last, last.header().head())] {
        town.add(&town.sites(), &forged);
        let (fed, heads, _) = town.start().await;
        assert_eq!((heads, fed.forged), (wanted.clone(), 1));
    }
}

/// Goal: of two branches of a revoked device's log that both lie before what the board accepts, a node that starts takes
/// the one that leads there. Method: a rival of the second of three batches, rightly signed and newer than all; then the
/// board's word.
#[tokio::test]
async fn the_accepted_branch_of_a_revoked_log_stands() {
    let town = Town::new();
    let wanted = town.scene.heads();
    let (one, three) = (&town.scene.batches[0], &town.scene.batches[2]);
    let other = "{\"t\":[1,0],\"c\":\"student\",\"r\":\"p1\",\"f\":{\"given_name\":\"盗\"}}\n";
    let rival = town.scene.seal(0, Tier::Safety, 2026, one.header().head(), other);
    let (log, accepted) = (three.header().log, three.header().head());
    let words = town.scene.revoking(accepted);
    for (records, head) in [
        (vec![(RecordKind::Batch, rival.bytes())], rival.header().head()),
        (vec![(RecordKind::Batch, rival.bytes()), (RecordKind::Keys, &words[..])], accepted),
    ] {
        town.add_records(&town.sites(), &records);
        let (fed, heads, _) = town.start().await;
        assert_eq!((fed.forged, heads[&log]), (0, head));
    }
    assert_eq!(town.start().await.1[&log], wanted[&log]);
}

/// Goal: an auditor counts of a revoked device what the board accepts and nothing else, and misses what the board accepts
/// and no site has. Method: a newer rival of the second of three batches, with the board's word behind the third, behind
/// the second, and behind one that nobody holds; the witness knows all that there is.
#[tokio::test]
async fn an_auditor_knows_who_was_revoked() {
    let town = Town::new();
    let [one, two, three] = [0, 1, 2].map(|n| *town.scene.batches[n].header());
    let rival = town.scene.seal(0, Tier::Safety, 2026, one.head(), "{}\n");
    let log = three.log;
    let audit = async |accepted: LogHead| {
        let words = town.scene.revoking(accepted);
        town.add_records(&town.sites(), &[(RecordKind::Batch, rival.bytes()), (RecordKind::Keys, &words)]);
        let Verdict { summary, .. } = town.audit(town.scene.heads()).await;
        let is_of_log = |problem: &Problem| serde_json::to_value(problem).unwrap()["log"] == log.to_string();
        let problems: Vec<_> = summary.problems.into_iter().filter(is_of_log).collect();
        (summary.changes, problems)
    };
    let (first, last) = (rival.header().first, rival.header().last);
    assert_eq!(audit(three.head()).await, (three.last, vec![Problem::Fork { log, first, last }]));
    let aside = Problem::Quarantined { log, first, last: three.last };
    // The rival lies aside then, and is told all the same.
    assert_eq!(audit(two.head()).await, (two.last, vec![Problem::Fork { log, first, last }, aside]));
    let (_, problems) = audit(LogHead { sequence: 99, ..three.head() }).await;
    assert!(problems.contains(&Problem::MissingHead { log, expected: 99, held: three.last }), "{problems:?}");
}

/// Goal: one site cannot speak against the others. Method: at the first of two sites a signature is altered, under
/// right checksums; the true copy counts, and the other one is told as damage.
#[tokio::test]
async fn an_altered_copy_does_not_displace_the_true_one() {
    let town = Town::new();
    let last = town.scene.batches[2].bytes().to_vec();
    town.alter(&town.sites()[..1], |body| {
        if *body == last {
            body[200] ^= 1;
        }
    });
    let (fed, heads, damaged) = town.start().await;
    assert_eq!(heads, town.scene.heads());
    assert_eq!((fed.forged, damaged), (1, 1));
}

/// Goal: an auditor says that a copy was altered although a true one is there. Method: a second copy of a batch in an
/// object of its own, with a bit of its signature flipped; found by adversary seed 1796000000752.
#[tokio::test]
async fn an_altered_second_copy_is_said() {
    let town = Town::new();
    let mut copy = town.scene.batches[0].bytes().to_vec();
    copy[200] ^= 1;
    assert_eq!(Batch::from_bytes(copy.clone()).unwrap().header(), town.scene.batches[0].header());
    town.add_records(&town.sites(), &[(RecordKind::Batch, &copy)]);
    let verdict = town.audit(Heads::new()).await;
    let is_said = |problem: &Problem| matches!(problem, Problem::UnverifiedBatch { .. });
    assert_eq!(verdict.summary.problems.iter().filter(|problem| is_said(problem)).count(), 1);
    assert_eq!(verdict.completeness, Completeness::Incomplete);
}

/// Goal: a batch that was altered under a right checksum is said to be missing, even if it was the last of its log.
/// Method: one bit of its payload, at all sites.
#[tokio::test]
async fn an_altered_payload_is_counted() {
    let town = Town::new();
    let last = town.scene.batches[2].bytes().to_vec();
    town.alter(&town.sites(), |body| {
        if *body == last {
            *body.last_mut().unwrap() ^= 1;
        }
    });
    let (fed, heads, _) = town.start().await;
    let log: LogName = town.scene.batches[2].header().log;
    assert_eq!(heads[&log], town.scene.batches[1].header().head());
    assert_eq!(fed.meaningless, 1);
}

/// Goal: an auditor says "verified" only with heads from outside, and names what was done. Method: untouched sites
/// with and without heads; then a forged batch, a missing end, an altered object at one site.
#[tokio::test]
async fn an_audit_says_what_it_can_know() {
    let town = Town::new();
    let heads = town.scene.heads();
    assert_eq!(town.audit(Heads::new()).await.completeness, Completeness::Unverified);
    assert_eq!(town.audit(heads.clone()).await.completeness, Completeness::Verified);

    let last = &town.scene.batches[2];
    town.add(&town.sites(), &forge(last, before(last)));
    let verdict = town.audit(heads.clone()).await;
    assert_eq!(verdict.completeness, Completeness::Incomplete);
    let forged = |problem: &Problem| matches!(problem, Problem::UnverifiedBatch { .. });
    assert!(verdict.summary.problems.iter().any(forged), "{:?}", verdict.summary.problems);

    let town = Town::new();
    let heads = town.scene.heads();
    town.sites().iter().for_each(|site| fs::remove_file(file(site)).unwrap());
    assert_eq!(town.audit(Heads::new()).await.completeness, Completeness::Unverified, "a rolled-back whole");
    let verdict = town.audit(heads).await;
    assert_eq!(verdict.completeness, Completeness::Incomplete);
    let missing = |problem: &Problem| matches!(problem, Problem::MissingHead { .. });
    assert!(verdict.summary.problems.iter().all(missing), "{:?}", verdict.summary.problems);
}

/// Goal: the command says it in words, in JSON and by its exit code. Method: the program, with and without heads.
#[test]
fn the_command_says_it() {
    let town = Town::new();
    let heads = town.root.path().join("heads.json");
    fs::write(&heads, serde_json::to_string(&town.scene.heads()).unwrap()).unwrap();
    let root = sonae_root(&town.scene);
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-cloud"));
        command.args(["audit", "--school", SCHOOL, "--root", &root]);
        for site in town.sites() {
            command.arg("--site").arg(site);
        }
        let output = command.args(more).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&[]);
    assert_eq!(code, 7);
    assert!(text.contains("completeness unverified") && text.contains("完全性は未確認"), "{text}");
    let (code, text) = run(&["--expect", heads.to_str().unwrap(), "--json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, value["completeness"].as_str()), (0, Some("verified")));
}

fn sonae_root(scene: &Scene) -> String {
    data_encoding::HEXLOWER.encode(scene.board.root.verifying_key().as_bytes())
}
