//! `sonae-edge prove`: has the daemon prove now that the cloud gives back what it holds, and follows it.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use sonae_edge::control::{self, Ask};
use sonae_edge::exit::Exit;

use super::Failure;
use super::print::print_line;

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn prove(data: &Path, json: bool) -> Result<Exit, Failure> {
    let Some(client) = control::Client::connect(data) else {
        let text = format!(
            "nothing was verified: no daemon runs on {}; start `sonae-edge run`, then prove again",
            data.display()
        );
        return Err(Failure::new(Exit::Unverified, text));
    };
    let mut daemon = control::Replica::Daemon(client);
    let number: u64 = daemon.ask(Ask::Prove)?;
    let template = "{spinner} {msg} {bar:30} {pos}/{len} changes, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let last = loop {
        let status: Value = daemon.ask(Ask::Status)?;
        let figure = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
        if figure("/proof/last/number").is_some_and(|last| last >= number) {
            break status.pointer("/proof/last").cloned().unwrap_or_default();
        }
        bar.set_length(figure("/proof/running/there").unwrap_or(0));
        bar.set_position(figure("/proof/running/here").unwrap_or(0));
        let stage = status.pointer("/proof/running/stage").and_then(Value::as_str).unwrap_or("waiting");
        bar.set_message(stage.to_owned());
        std::thread::sleep(LOOK);
    };
    bar.finish_and_clear();
    let is_proved = last.get("result").and_then(Value::as_str) == Some("proved");
    if json {
        print_line(&last.to_string());
    } else {
        print_line(&describe(&last, is_proved));
    }
    Ok(if is_proved { Exit::Ok } else { Exit::Unverified })
}

fn describe(last: &Value, is_proved: bool) -> String {
    let word = |name: &str| last.get(name).and_then(Value::as_str).unwrap_or_default();
    let figure = |name: &str| last.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (ja, en) = if is_proved {
        ("復元を確認しました", "Proved")
    } else {
        ("復元の確認ができていません", "NOT PROVED")
    };
    format!(
        "{en}: {}.\n{ja}。\nnumber {}, {} {}, {} ms, {} bytes",
        word("text"),
        figure("number"),
        word("result"),
        word("cause"),
        figure("duration_ms"),
        figure("bytes"),
    )
}
