//! What the commands print: lines for people in Japanese and English, or one line of JSON.
//!
//! **Invariant**: the passphrase of a bundle is the last line, alone, so that `tail -1` reads it.

use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use sonae_provision::board::{Board, BoardFacts, SECRET_FILES};
use sonae_provision::bundle_file::Enrolled;
use sonae_provision::cloud::CloudFacts;
use sonae_provision::destroy::Destruction;
use sonae_provision::error::ProvisionError;
use sonae_provision::overview::{Overview, SchoolOverview, kind_name};
use sonae_provision::replica::ReplicaEnrolment;
use sonae_provision::revoke::Word;
use sonae_provision::school::School;
use zeroize::Zeroizing;

/// What each file of secrets is for and what to do with it, in the order of [`SECRET_FILES`].
const SECRET_USES: [&str; 4] = [
    "署名の根 / signs manifests, devices and the cloud",
    "認証局 / issues TLS certificates",
    "運用鍵 / opens the keys of all schools, needed to enrol devices",
    "復旧鍵 / opens the keys of all schools when all else is lost",
];

/// A bundle's facts and its passphrase, as JSON.
#[derive(Serialize)]
struct WithPassphrase<'a, F> {
    #[serde(flatten)]
    facts: &'a F,
    passphrase: &'a str,
}

/// A new board's facts, as JSON.
#[derive(Serialize)]
struct NewBoard<'a> {
    board: &'a BoardFacts,
    secret_files: [&'static str; 4],
}

/// Prints a new board.
pub(crate) fn board(board: &Board, json: bool) -> Result<(), ProvisionError> {
    let facts = board.facts();
    if json {
        return line(&to_json(&NewBoard { board: facts, secret_files: SECRET_FILES })?);
    }
    let dir = board.dir().display();
    let mut text = format!(
        "「{name}」の鍵を {dir} に作りました。\nMade the keys of \"{name}\" in {dir}.\nroot {root}\n\n",
        name = facts.name,
        root = data_encoding::HEXLOWER.encode(facts.root.as_bytes()),
    );
    text.push_str(
        "秘密のファイル。この計算機から出さず、暗号化した控えだけを金庫に置いてください。\n\
         Files with secrets. Keep them on this machine; only an encrypted backup belongs in a safe.\n",
    );
    for (name, what) in SECRET_FILES.iter().zip(SECRET_USES) {
        text.push_str(&format!("  {name:<15} {what}\n"));
    }
    text.push_str(
        "recovery.key は印刷し、分けて別々の金庫に保管し、その後この計算機から消してください。\n\
         Print recovery.key, split it, lock the parts away in different safes, then delete it from this machine.",
    );
    line(&text)
}

/// Prints a new school.
pub(crate) fn school(school: School, json: bool) -> Result<(), ProvisionError> {
    let overview = SchoolOverview::from(school);
    if json {
        return line(&to_json(&overview)?);
    }
    line(&format!(
        "「{name}」（{code}）を加えました。\nAdded \"{name}\" ({code}).\n{overview}",
        name = overview.name,
        code = overview.code,
    ))
}

/// Prints an enrolled node of the cloud.
pub(crate) fn cloud(enrolled: &Enrolled<CloudFacts>, json: bool) -> Result<(), ProvisionError> {
    let facts = &enrolled.facts;
    let text = format!(
        "cloud node  {}\ndescriptor  {}\nreceipt key {}\ncertificate {}\n",
        facts.host, facts.descriptor_version, facts.receipt_key, facts.tls_certificate
    );
    bundle(enrolled, &facts.bundle, &text, json)
}

/// Prints an enrolled replica.
pub(crate) fn replica(enrolled: &Enrolled<ReplicaEnrolment>, json: bool) -> Result<(), ProvisionError> {
    let facts = &enrolled.facts;
    let text = format!(
        "school      {}\nreplica     {}\nkind        {}\nmanifest    {}\nLAN names   {}\n",
        facts.school,
        facts.replica,
        kind_name(facts.kind),
        facts.manifest_version,
        facts.lan_names.join(" ")
    );
    bundle(enrolled, &facts.bundle, &text, json)
}

/// What is done with the file of a word.
const CARRY: &str = "このファイルをクラウドの管理者に渡し、`sonae-cloud bundle import` で取り込みます。回線のない学校では `sonae-edge bundle import` を使います。\n\
     Take this file to the cloud (`sonae-cloud bundle import`), and to schools without a line (`sonae-edge bundle import`). It holds no secret.";

/// Prints what the board says of a school now, and where it is written.
pub(crate) fn school_word(school: School, out: &Path, json: bool) -> Result<(), ProvisionError> {
    let overview = SchoolOverview::from(school);
    if json {
        return line(&to_json(&overview)?);
    }
    line(&format!("{overview}word      {}\n{CARRY}", out.display()))
}

/// Prints which keys are destroyed, and where the order is written.
pub(crate) fn destruction(done: &Destruction, out: &Path, json: bool) -> Result<(), ProvisionError> {
    if json {
        return line(&to_json(done)?);
    }
    line(&format!(
        "school      {}\nmanifest    {}\ndestroyed   {}\nword        {}\n\
         この教育委員会の鍵の写しは消しました。装置とクラウドは、次のファイルを受け取ったときに廃棄します。\n\
         The board's own copies are gone; boxes and cloud destroy theirs when they learn of it.\n{CARRY}",
        done.school,
        done.manifest_version,
        done.destroyed.join(" "),
        out.display()
    ))
}

/// Prints what the board says of a revoked replica, and where it is written.
pub(crate) fn word(word: &Word, out: &Path, json: bool) -> Result<(), ProvisionError> {
    if json {
        return line(&to_json(word)?);
    }
    let mut text = format!(
        "school      {}\nrevoked     {}\nmanifest    {}, keys rotated {} time(s)\n",
        word.school, word.replica, word.manifest_version, word.rotation
    );
    for (what, heads) in [("accepted", &word.accepted), ("dropped", &word.dropped)] {
        for (log, head) in heads {
            text.push_str(&format!("{what:<11} {log} up to {}\n", head.sequence));
        }
    }
    if word.accepted.is_empty() {
        text.push_str(
            "この端末が書いたものは、どれも数えません。Nothing that this replica wrote counts; give --heads to accept it.\n",
        );
    }
    line(&format!("{text}word        {}\n{CARRY}", out.display()))
}

/// Prints everything that the board has.
pub(crate) fn overview(overview: &Overview, json: bool) -> Result<(), ProvisionError> {
    line(if json { to_json(overview)? } else { Zeroizing::new(overview.to_string()) }.trim_end())
}

fn bundle<F: Serialize>(
    enrolled: &Enrolled<F>,
    file: &Path,
    facts: &str,
    json: bool,
) -> Result<(), ProvisionError> {
    let passphrase = enrolled.passphrase.expose();
    if json {
        return line(&to_json(&WithPassphrase { facts: &enrolled.facts, passphrase })?);
    }
    line(&Zeroizing::new(format!(
        "{facts}bundle      {}\n\n\
         次の行は合い言葉です。二度と表示されません。ファイルとは別の道で伝えてください。\n\
         The next line is the passphrase. It is shown once; send it by another way than the file.\n\
         {passphrase}",
        file.display()
    )))
}

fn to_json<T: Serialize>(facts: &T) -> Result<Zeroizing<String>, ProvisionError> {
    serde_json::to_string(facts).map(Zeroizing::new).map_err(ProvisionError::Json)
}

/// Prints text and a line end.
fn line(text: &str) -> Result<(), ProvisionError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).map_err(|source| ProvisionError::Io {
        what: "print to",
        path: "standard output".into(),
        source,
    })
}
