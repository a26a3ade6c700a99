//! `sonae-cloud audit`: the command line around [`sonae_cloud::export::audit`].

use std::path::PathBuf;

use clap::Args;
use ed25519_dalek::VerifyingKey;
use sonae_cloud::exit::Exit;
use sonae_cloud::export::audit::{self, Completeness, Question, Verdict};
use sonae_proto::ids::SchoolCode;

use crate::command_export::{PRINTED_MAX, read_heads, root_key, text};
use crate::{complain, fail, say};

#[derive(Args)]
pub struct Audit {
    /// The school's code (学校コード).
    #[arg(long, value_name = "CODE")]
    school: SchoolCode,
    /// A site directory, once for each site. A node may be using it.
    #[arg(long = "site", value_name = "DIR", required = true)]
    sites: Vec<PathBuf>,
    /// The board's root key, 64 hex digits, from `board.json`.
    #[arg(long, value_name = "HEX", value_parser = root_key)]
    root: VerifyingKey,
    /// A file with heads from outside the cloud, as `sonae-edge digest --json` prints them. Without it a cloud that
    /// was set back as a whole is not noticed, and the audit says so.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Audit) -> Exit {
    let expect = match arguments.expect.as_ref().map(|path| read_heads(path)).transpose() {
        Ok(expect) => expect.unwrap_or_default(),
        Err(text) => {
            complain(&text);
            return Exit::Usage;
        }
    };
    let question = Question { school: arguments.school, root: arguments.root, expect };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Internal, &error),
    };
    match runtime.block_on(audit::of_directories(&question, &arguments.sites, &mut |_| {})) {
        Ok(verdict) => report(arguments, &verdict),
        Err(error) => fail(error.exit(), &error),
    }
}

fn report(arguments: &Audit, verdict: &Verdict) -> Exit {
    let Verdict { completeness, summary } = verdict;
    if arguments.json {
        let object = serde_json::json!({
            "school": arguments.school,
            "completeness": completeness,
            "batches": summary.batches,
            "changes": summary.changes,
            "problems": summary.problems,
        });
        say(&object.to_string());
    } else {
        for problem in summary.problems.iter().take(PRINTED_MAX) {
            complain(&text(problem));
        }
        let hidden = summary.problems.len().saturating_sub(PRINTED_MAX);
        if hidden > 0 {
            complain(&format!("{hidden} more problems; --json prints all"));
        }
        let (batches, changes) = (summary.batches, summary.changes);
        say(&match completeness {
            Completeness::Verified => format!(
                "verified: {batches} batches with {changes} changes, and the heads that you gave are here\n\
                 検証済み：{batches} バッチ（{changes}件の変更）、指定の先頭まで揃っています"
            ),
            Completeness::Unverified => format!(
                "completeness unverified: {batches} batches with {changes} changes verify and have no gap; whether \
                 the end of a log is missing, only --expect can tell\n\
                 完全性は未確認：{batches} バッチ（{changes}件の変更）に欠けや改ざんはありません。末尾の欠けは \
                 --expect を付けたときだけ分かります"
            ),
            Completeness::Incomplete => {
                "incomplete: something is missing, forked or forged; see the problems above\n\
                 不完全：欠け、分岐または改ざんがあります。上の問題を見てください"
                    .to_owned()
            }
        });
    }
    if *completeness == Completeness::Verified { Exit::Done } else { Exit::Incomplete }
}
