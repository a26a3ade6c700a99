//! `sonae-edge`: the command line of an appliance.

mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = command::Arguments::parse();
    sonae_edge::logging::start();
    #[cfg(feature = "planted")]
    if let Err(error) = plant() {
        log::error!(error:% = error; "there is no such defect to plant");
        return ExitCode::FAILURE;
    }
    // Whatever this process makes holds a school's data or its keys.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match command::run(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell();
            failure.exit.into()
        }
    }
}

/// Plants the defect that `SONAE_TEST_PLANT` names, for tests of the tests.
#[cfg(feature = "planted")]
fn plant() -> Result<(), impl std::fmt::Display> {
    std::env::var("SONAE_TEST_PLANT").map_or(Ok(()), |name| sonae_proto::planted::plant_everywhere(&name))
}
