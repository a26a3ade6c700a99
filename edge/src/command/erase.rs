//! `sonae-edge erase`: a pupil is erased for good.

use std::io::BufRead as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use sonae_edge::control::{Ask, Replica};
use sonae_edge::erase::Plan;
use sonae_edge::exit::Exit;
use sonae_store::Kept;
use sonae_store::erasure::OfPupil;

use super::print::print_line;
use super::{Failure, reach};

#[derive(Debug, Args)]
pub(super) struct EraseArguments {
    /// The data directory
    #[arg(long)]
    data: PathBuf,
    /// The pupil's id, as the list of pupils has it
    #[arg(long)]
    pupil: String,
    /// Erases; without it, what would go and what would stay is said and nothing is written
    #[arg(long)]
    erase: bool,
    /// Erases also what the law has the school keep
    #[arg(long)]
    even_kept_records: bool,
    /// Reads the pupil's id once more, typed by a person, from standard input
    #[arg(long, requires = "erase")]
    confirm_stdin: bool,
    /// The login of whoever does it, for the audit
    #[arg(long, requires = "erase")]
    who: Option<String>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &EraseArguments) -> Result<Exit, Failure> {
    let mut replica = reach(&arguments.data)?;
    let outcome = erase(&mut replica, arguments);
    replica.close();
    let (plan, kept) = outcome?;
    if arguments.json {
        let erased = kept.as_ref().map(|kept| kept.changes);
        let answer = json!({ "dry_run": kept.is_none(), "plan": plan, "changes": erased });
        print_line(&answer.to_string());
    } else {
        print_line(&describe(&plan, kept.as_ref()));
    }
    Ok(Exit::Ok)
}

fn erase(replica: &mut Replica, arguments: &EraseArguments) -> Result<(Plan, Option<Kept>), Failure> {
    let refused = |text: &str| Failure::new(Exit::Refused, text);
    let pupil = arguments.pupil.as_str();
    let status: Value = replica.ask(Ask::Status)?;
    let now_ms = status.get("now_ms").and_then(Value::as_u64).unwrap_or(0);
    let records: Vec<OfPupil> = replica.ask(Ask::OfPupil { pupil: pupil.to_owned() })?;
    let plan = Plan::of(&records, now_ms);
    if plan.goes.is_empty() {
        return Err(refused(
            "nothing here is of this pupil: the id is wrong, or the pupil was erased before; look the id up in the \
             list of pupils\nこの児童生徒の記録はありません。IDを確かめてください（すでに消去済みの可能性があります）",
        ));
    }
    if !arguments.erase {
        return Ok((plan, None));
    }
    if !plan.kept_by_law.is_empty() && !arguments.even_kept_records {
        return Err(refused(
            "the law has the school keep some of these records: run the command without --erase, which names them. \
             Nothing was erased; --even-kept-records erases them too\n\
             保存期間中の法定帳簿が含まれるため、消去していません。--erase を付けずに実行すると一覧を表示します",
        ));
    }
    let typed = if arguments.confirm_stdin { typed() } else { None };
    if typed.as_deref() != Some(pupil) {
        return Err(refused(
            "nothing was erased: erasing cannot be undone, so type the pupil's id once more, with --confirm-stdin\n\
             消去していません。取り消せない操作です。--confirm-stdin を付け、児童生徒のIDをもう一度入力してください",
        ));
    }
    let kept = replica.ask(Ask::Erase { pupil: pupil.to_owned(), who: arguments.who.clone() })?;
    Ok((plan, Some(kept)))
}

/// Reads a line of standard input.
fn typed() -> Option<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).ok()?;
    Some(line.trim().to_owned())
}

fn describe(plan: &Plan, kept: Option<&Kept>) -> String {
    let mut lines = Vec::new();
    let head = if kept.is_some() { "erased 消去" } else { "would go 消去の対象" };
    lines.extend(plan.goes.iter().map(|(collection, count)| format!("{head}: {collection} {count}")));
    let by_law =
        plan.kept_by_law.iter().map(|(keeps, count)| format!("  of these 内数: {count}: {}", keeps.text()));
    lines.extend(by_law);
    lines
        .extend(plan.stays.iter().map(|(keeps, count)| format!("stays 残るもの: {count}: {}", keeps.text())));
    lines.push(match kept {
        None => "Nothing was written. --erase erases; it cannot be undone.\n\
                 何も書き込んでいません。--erase を付けると消去します（取り消せません）。"
            .to_owned(),
        Some(_) => "Gone from this box, and from every other as soon as it hears of it. What was sealed before can be \
                    read until the board has destroyed the keys: `sonae-edge status` says what is waited for.\n\
                    この装置から消去しました。他の装置にも順に反映されます。以前に暗号化した控えは、教育委員会が鍵を廃棄するまで\
                    残ります。状況は sonae-edge status で確かめてください。"
            .to_owned(),
    });
    lines.join("\n")
}
