//! `sonae-edge import`.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use sonae_edge::control::Ask;
use sonae_edge::exit::Exit;
use sonae_edge::import::{self, Imported};
use sonae_proto::ids::SchoolCode;

use super::print::print_line;
use super::{Failure, reach};

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The data directory
    #[arg(long)]
    data: PathBuf,
    /// OneRoster zip packages of the Japan Profile, contacts.csv, attendance.csv; told apart by content
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Reads and checks everything and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ImportArguments) -> Result<Exit, Failure> {
    let mut replica = reach(&arguments.data)?;
    let outcome = import_into(&mut replica, arguments);
    replica.close();
    let imported = outcome?;
    if arguments.json {
        print_line(&serde_json::to_string(&imported).unwrap_or_default());
    } else {
        for warning in &imported.warnings {
            print_line(&format!("warning: {warning}"));
        }
        if imported.erased > 0 {
            print_line(&format!(
                "{} of them are of pupils who were erased: they were passed over.\n\
                 うち{}件は消去済みの児童生徒の記録のため、取り込んでいません。",
                imported.erased, imported.erased
            ));
        }
        print_line(&if imported.dry_run {
            format!(
                "Checked {} records; nothing was written.\n{}件を確認しました。書き込みはしていません。",
                imported.records, imported.records
            )
        } else {
            format!(
                "Read {} records; {} changes are kept on this box.\n{}件を読み、{}件の変更を保存しました。",
                imported.records, imported.changes, imported.records, imported.changes
            )
        });
    }
    Ok(Exit::Ok)
}

fn import_into(
    replica: &mut sonae_edge::control::Replica,
    arguments: &ImportArguments,
) -> Result<Imported, Failure> {
    let status: Value = replica.ask(Ask::Status)?;
    let school: SchoolCode = status
        .get("school")
        .and_then(Value::as_str)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| Failure::new(Exit::Internal, "the status names no school"))?;
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let progress = |done: usize, total: usize| {
        bar.set_length(u64::try_from(total).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
    };
    let imported = import::import(replica, school, &arguments.files, arguments.dry_run, progress);
    bar.finish_and_clear();
    Ok(imported?)
}
