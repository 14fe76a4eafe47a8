//! `phantom doctor`: what is as it should be and what is not, with an exit status for scripts.

use std::path::Path;
use std::process::ExitCode;

use phantom_ipc::admin::{CheckState, Doctor, Request};

use super::{json, print, show};
use crate::client::{Client, ClientError};
use crate::health::{Around, daemon_answers, no_daemon, without_daemon, worst};

/// 0: all is as it should be. 1: programs are served, but something should be looked at. 2: programs cannot be served.
pub(super) async fn run(socket: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let doctor = match ask(socket).await {
        Ok(Doctor { mut checks, warnings }) => {
            checks.insert(0, daemon_answers(socket));
            Doctor { checks, warnings }
        }
        Err(error @ ClientError::Inside) => {
            // What else it would look at is not how it is outside.
            Doctor { checks: vec![no_daemon(&error.to_string())], warnings: Vec::new() }
        }
        Err(error) => {
            let checks = without_daemon(&error.to_string(), &Around::of_computer());
            Doctor { checks, warnings: Vec::new() }
        }
    };
    print(&if as_json { json(&doctor)? } else { show::doctor(&doctor) })?;
    Ok(ExitCode::from(match worst(&doctor.checks, &doctor.warnings) {
        CheckState::Good | CheckState::Unknown => 0,
        CheckState::Warning => 1,
        CheckState::Bad => 2,
    }))
}

async fn ask(socket: &Path) -> Result<Doctor, ClientError> {
    Client::connect(socket).await?.ask(&Request::Doctor).await
}
