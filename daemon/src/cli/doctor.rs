//! `phantom doctor`: what is as it should be and what is not, with an exit status for scripts.

use std::path::Path;
use std::process::ExitCode;

use phantom_ipc::absent::{Absence, Installed};
use phantom_ipc::admin::{Address, CheckState, Doctor, Request};

use super::{show, tell, wait};
use crate::client::{Client, ClientError};
use crate::health::{Around, daemon_answers, no_daemon, node_is_roots, without_daemon, worst};
use crate::os::Owner;

/// 0: all is as it should be. 1: programs are served, but something should be looked at. 2: programs cannot be served.
pub(super) async fn run(socket: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let doctor = match ask(socket).await {
        Ok(Doctor { mut checks, warnings }) => {
            checks.insert(0, daemon_answers(socket));
            Doctor { checks, warnings }
        }
        // What else it would look at is not how it is outside, or not what that daemon needs, which makes namespaces itself.
        Err(ClientError::Absent(absence)) if is_all(&absence) => {
            Doctor { checks: vec![no_daemon(&absence.to_string())], warnings: Vec::new() }
        }
        Err(ClientError::Refused(why)) if serves_us(socket).await => {
            // This computer's own settings would not be said truly: it is the daemon that makes namespaces, not this user.
            let checks = vec![daemon_answers(socket), node_is_roots(&why.message)];
            Doctor { checks, warnings: Vec::new() }
        }
        Err(error) => {
            let checks = without_daemon(&error.to_string(), &Around::of_computer());
            Doctor { checks, warnings: Vec::new() }
        }
    };
    tell(as_json, &doctor, show::doctor)?;
    Ok(ExitCode::from(match worst(&doctor.checks, &doctor.warnings) {
        CheckState::Good | CheckState::Unknown => 0,
        CheckState::Warning => 1,
        CheckState::Bad => 2,
    }))
}

/// Whether there is no more to say than that.
fn is_all(absence: &Absence) -> bool {
    match absence {
        Absence::Inside => true,
        Absence::Nobody(..) | Absence::NotYours(_) => Installed::here().is_served_by_all(),
    }
}

/// Whether it is another user's daemon, which tells this user's own names all the same: the computer's, which serves every user.
async fn serves_us(socket: &Path) -> bool {
    let Ok(mut client) = Client::connect(socket).await else { return false };
    client.daemon().uid != Owner::own().uid
        && wait::answer::<Vec<Address>>(&mut client, &Request::AddressList).await.is_ok()
}

async fn ask(socket: &Path) -> Result<Doctor, ClientError> {
    wait::answer(&mut Client::connect(socket).await?, &Request::Doctor).await
}
