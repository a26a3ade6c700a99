//! `sonae-edge staff`: accounts.

use std::path::PathBuf;

use clap::Subcommand;
use sonae_edge::control::{Ask, StaffAdded};
use sonae_edge::exit::Exit;

use super::print::print_line;
use super::{Failure, reach, read_secret};

#[derive(Debug, Subcommand)]
pub(super) enum StaffCommand {
    /// Adds a member of staff; with --totp the last line is the otpauth:// URI for the authenticator app
    Add {
        /// The data directory
        #[arg(long)]
        data: PathBuf,
        /// Sign-in name: 1 to 64 of a-z 0-9 . _ -
        #[arg(long)]
        login: String,
        /// Name for people
        #[arg(long)]
        name: String,
        /// principal, vice-principal, teacher, nurse, office or board
        #[arg(long)]
        role: String,
        /// Reads the password from standard input
        #[arg(long, required = true)]
        password_stdin: bool,
        /// Makes a secret for one-time codes, without which class I and II data stays hidden
        #[arg(long)]
        totp: bool,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: StaffCommand) -> Result<Exit, Failure> {
    let StaffCommand::Add { data, login, name, role, password_stdin: _, totp, json } = command;
    let password = read_secret("the password")?;
    let mut replica = reach(&data)?;
    let added: Result<StaffAdded, _> =
        replica.ask(Ask::StaffAdd { login: login.clone(), name, role, password, totp });
    replica.close();
    let added = added?;
    if json {
        let uri = added.otpauth_uri.as_ref().map(|uri| uri.as_str());
        print_line(
            &serde_json::json!({ "login": login, "kept": added.kept, "otpauth_uri": uri }).to_string(),
        );
        return Ok(Exit::Ok);
    }
    print_line(&format!("Added {login}; kept on this box.\n{login} を登録しました。"));
    if let Some(uri) = added.otpauth_uri {
        print_line("Scan this once with the authenticator app; it is not shown again:");
        print_line(&uri);
    }
    Ok(Exit::Ok)
}
