//! `phantom identity`: named identities out of this computer and back into one, sealed with a passphrase; new names, and their end.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use phantom_ipc::admin::{Address, Request};

use super::args::Identity;
use super::ask::{answer, ensure_new, is_somebody_there, write_new};
use super::{json, passphrase, print, show, wait};
use crate::client::Client;

/// Longest file that is read: what is exported has some hundred bytes.
const LONGEST: u64 = 2048;

pub(super) async fn run(socket: &Path, as_json: bool, command: Identity) -> anyhow::Result<()> {
    let mut client = Client::connect(socket).await?;
    match command {
        Identity::List => {
            let all: Vec<Address> = client.ask(&Request::AddressList).await?;
            Ok(print(&if as_json { json(&all)? } else { show::addresses(&all) })?)
        }
        Identity::Export { name, file, passphrase_file } => {
            export(&mut client, &name, &file, passphrase_file.as_deref()).await
        }
        Identity::Import { file, name, passphrase_file } => {
            let sealed = read(&file)?;
            let passphrase = passphrase::read(passphrase_file.as_deref(), false)?;
            let request = Request::IdentityImport { sealed, passphrase, name };
            let address: Address = wait::shown("opening the file", client.ask(&request)).await?;
            tell(as_json, &address)
        }
        Identity::Rename { old, new } => {
            let address: Address = client.ask(&Request::IdentityRename { name: old, to: new }).await?;
            tell(as_json, &address)
        }
        Identity::Remove { name, yes } => {
            let address: Address = client.ask(&Request::AddressShow { name: name.clone() }).await?;
            if !yes {
                agreed(&address)?;
            }
            let address: Address = client.ask(&Request::IdentityRemove { name }).await?;
            tell(as_json, &address)
        }
    }
}

fn tell(as_json: bool, address: &Address) -> anyhow::Result<()> {
    Ok(print(&if as_json { json(address)? } else { show::address(address) })?)
}

async fn export(client: &mut Client, name: &str, file: &Path, passphrase_file: Option<&Path>) -> anyhow::Result<()> {
    // Before anybody types: the daemon must know the name, and nothing may be there.
    let _: Address = client.ask(&Request::AddressShow { name: name.to_owned() }).await?;
    ensure_new(file)?;
    let passphrase = passphrase::read(passphrase_file, true)?;
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
    let cannot = || format!("cannot read {}", file.display());
    let length = fs::metadata(file).with_context(cannot)?.len();
    ensure!(length <= LONGEST, "{} is no exported identity: it is too long", file.display());
    fs::read_to_string(file).with_context(cannot)
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
