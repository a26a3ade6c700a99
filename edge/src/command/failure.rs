//! A command that failed: a text that ends with what to do next, and the exit code.

use std::error::Error;
use std::io::Write;

use sonae_edge::control::ControlError;
use sonae_edge::exit::Exit;
use sonae_edge::fetch::FetchError;
use sonae_edge::import::ImportError;
use sonae_edge::replica::ReplicaError;
use sonae_edge::uplink::UplinkError;
use sonae_lan::LanError;
use sonae_store::data_dir::DataDirError;
use sonae_store::enrolment::EnrolmentError;

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    /// With which code.
    pub exit: Exit,
    text: String,
}

impl Failure {
    /// Makes one.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    fn of(exit: Exit, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self { exit, text }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        // Nobody is left to be told when standard error is closed.
        let _ = writeln!(std::io::stderr(), "sonae-edge: {}", self.text);
    }
}

fn enrolment_exit(error: &EnrolmentError) -> Exit {
    match error {
        EnrolmentError::DataDir(_) => Exit::DataDir,
        EnrolmentError::ReadBundle { .. } | EnrolmentError::Bundle(_) | EnrolmentError::Keyring(_) => {
            Exit::Refused
        }
        EnrolmentError::Identity(_) | EnrolmentError::File(_) | EnrolmentError::Damaged => Exit::Store,
    }
}

impl From<EnrolmentError> for Failure {
    fn from(error: EnrolmentError) -> Self {
        Self::of(enrolment_exit(&error), &error)
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self::of(Exit::DataDir, &error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        if error.is_damage() {
            let mut failure = Self::of(Exit::Store, &error);
            failure.text.push_str("; start `sonae-edge run`, which makes the data again from the cloud");
            return failure;
        }
        let exit = match &error {
            ReplicaError::DataDir(_) => Exit::DataDir,
            ReplicaError::Enrolment(enrolment) => enrolment_exit(enrolment),
            ReplicaError::Identity(_)
            | ReplicaError::Keyring(_)
            | ReplicaError::Store(_)
            | ReplicaError::Renewal { .. }
            | ReplicaError::Scratch(_)
            | ReplicaError::Descriptor(_) => Exit::Store,
        };
        Self::of(exit, &error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::Refused(_) => Exit::Refused,
            ControlError::Store(_) => Exit::Store,
            ControlError::Socket { .. } | ControlError::Answer => Exit::DataDir,
        };
        Self::of(exit, &error)
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Control(error) => error.into(),
            ImportError::Report { ref report, .. } => {
                let lines = format!(
                    "{}\n{}",
                    report.text(sonae_roster::Lang::En),
                    report.text(sonae_roster::Lang::Ja)
                );
                Self::new(Exit::Refused, format!("{error}\n{lines}"))
            }
            ImportError::NoRoom(_) => Self::of(Exit::Store, &error),
            ImportError::Read { .. } | ImportError::WrongSchool { .. } | ImportError::Kind { .. } => {
                Self::of(Exit::Refused, &error)
            }
        }
    }
}

impl From<UplinkError> for Failure {
    fn from(error: UplinkError) -> Self {
        Self::of(Exit::Network, &error)
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let mut failure = Self::of(Exit::Network, &error);
        match error {
            FetchError::Silent { .. } => failure.text.push_str("; run the command again to resume"),
            FetchError::Parted { .. } => {
                failure.text.push_str("; delete the new data directory and run the command again");
            }
            FetchError::Uplink(_) | FetchError::Refused { .. } => {}
        }
        failure
    }
}

impl From<LanError> for Failure {
    fn from(error: LanError) -> Self {
        Self::of(Exit::Network, &error)
    }
}
