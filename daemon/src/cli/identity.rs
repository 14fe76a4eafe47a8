//! `phantom identity`, or `address`: named identities are made and shown, go out of this computer and back into one, sealed with a
//! passphrase, get new names, and end.

use std::path::Path;

use anyhow::{bail, ensure};
use phantom_ipc::admin::{Address, Request};

use super::args::Identity;
use super::ask::{answer, ensure_can_be_made, is_somebody_there, read_short_text, write_new};
use super::passphrase::{self, Use};
use super::{show, tell, wait};
use crate::client::Client;
use crate::identity::sealed;

/// Longest file that is read: what is exported has some hundred bytes.
const LONGEST: u64 = 2048;

pub(super) async fn run(socket: &Path, as_json: bool, command: Identity) -> anyhow::Result<()> {
    let mut client = Client::connect(socket).await?;
    match command {
        Identity::New { name } => {
            let made: Address = wait::answer(&mut client, &Request::AddressNew { name }).await?;
            tell(as_json, &made, show::new_address)
        }
        Identity::List => {
            let all: Vec<Address> = wait::answer(&mut client, &Request::AddressList).await?;
            tell(as_json, &all, |all| show::addresses(all))
        }
        Identity::Show { name } => {
            tell(as_json, &wait::answer(&mut client, &Request::AddressShow { name }).await?, show::address)
        }
        Identity::Export { name, file, passphrase_file } => {
            export(&mut client, &name, &file, passphrase_file.as_deref()).await
        }
        Identity::Import { file, name, passphrase_file } => {
            let sealed = read(&file)?;
            let passphrase = passphrase::read(passphrase_file.as_deref(), Use::Open).await?;
            let request = Request::IdentityImport { sealed, passphrase, name };
            tell(as_json, &wait::shown("opening the file", client.ask(&request)).await?, show::address)
        }
        Identity::Rename { old, new } => tell(
            as_json,
            &wait::answer(&mut client, &Request::IdentityRename { name: old, to: new }).await?,
            show::address,
        ),
        Identity::Remove { name, yes } => {
            let address: Address = wait::answer(&mut client, &Request::AddressShow { name: name.clone() }).await?;
            if !yes {
                agreed(&address)?;
            }
            tell(as_json, &wait::answer(&mut client, &Request::IdentityRemove { name }).await?, show::gone)
        }
    }
}

async fn export(client: &mut Client, name: &str, file: &Path, passphrase_file: Option<&Path>) -> anyhow::Result<()> {
    // Before anybody types: the daemon must know the name, and the file must be one that can be made.
    let _: Address = wait::answer(client, &Request::AddressShow { name: name.to_owned() }).await?;
    ensure_can_be_made(file)?;
    let passphrase = passphrase::read(passphrase_file, Use::Seal).await?;
    let request = Request::IdentityExport { name: name.to_owned(), passphrase };
    let sealed: String = wait::shown("sealing", client.ask(&request)).await?;
    write_new(file, &sealed)?;
    eprintln!(
        "whoever has {} and the passphrase is {name}: keep them apart, and run it in one place only",
        file.display()
    );
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text = read_short_text(file, LONGEST, "exported identity")?;
    // Before anybody types a passphrase.
    ensure!(
        sealed::is_titled(&text),
        "{} is no exported identity\n  `phantom identity export` writes such files",
        file.display()
    );
    Ok(text)
}

/// Asks, since nobody can bring it back.
fn agreed(address: &Address) -> anyhow::Result<()> {
    if !is_somebody_there() {
        bail!("nobody can be asked whether {} is to go\n  say --yes", address.name);
    }
    let name = &address.name;
    eprintln!("{} ({})", address.phantom_name, address.address);
    eprintln!("without an export nobody, not even you, can be {name} again");
    ensure!(answer("to remove it, say its name again:")? == *name, "it was not said; nothing was removed");
    Ok(())
}
