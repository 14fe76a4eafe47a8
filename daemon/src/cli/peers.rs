//! `phantom peer`: whom the daemon knows, and bundles of nodes for computers that know none.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use phantom_ipc::admin::{self, Request};

use super::ask::{answer, is_somebody_there, read_short_text, write_new};
use super::{print, show, tell, wait};
use crate::bundle::{Bundle, MAX_FILE};
use crate::client::Client;
use crate::commands::date;

/// What is done about other nodes.
#[derive(Debug, Subcommand)]
pub enum Peers {
    /// Show all that the daemon knows
    #[command(alias = "ls")]
    List,
    /// Write nodes to join through into a new file, signed by this node
    Export {
        /// The file, which must not be there
        file: PathBuf,
    },
    /// Join through the nodes of such a file, now and whenever no others are known; it takes the place of one that was imported before
    Import {
        /// The file
        file: PathBuf,
        /// Only if this node has signed it, by the node id that `phantom status` shows there
        #[arg(long, value_name = "NODE")]
        signed_by: Option<String>,
        /// Do not ask whether the signer is to be trusted
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(socket: &Path, as_json: bool, command: Peers) -> anyhow::Result<()> {
    match command {
        Peers::List => {
            let list: Vec<admin::Peer> = wait::answer(&mut Client::connect(socket).await?, &Request::PeerList).await?;
            tell(as_json, &list, |list| show::peers(list))
        }
        Peers::Export { file } => export(socket, &file).await,
        Peers::Import { file, signed_by, yes } => {
            let text = read(&file)?;
            let bundle = Bundle::read(&text).with_context(|| file.display().to_string())?;
            let signer = bundle.signer_id().to_string();
            match signed_by {
                Some(wanted) => ensure!(
                    wanted.eq_ignore_ascii_case(&signer),
                    "it was signed by node {signer}, not by {wanted}\n  nothing was imported"
                ),
                None if yes => {}
                None => agreed(&bundle)?,
            }
            let request = Request::PeerImport { bundle: text };
            let told: admin::Bundle = wait::shown("joining", Client::connect(socket).await?.ask(&request)).await?;
            tell(as_json, &told, imported)
        }
    }
}

async fn export(socket: &Path, file: &Path) -> anyhow::Result<()> {
    let text: String = wait::answer(&mut Client::connect(socket).await?, &Request::PeerExport).await?;
    write_new(file, &text)?;
    let bundle = Bundle::read(&text).context("the daemon's answer")?;
    eprintln!(
        "{}, signed by this node; whoever imports it should know that from you:",
        nodes(bundle.peers.len() as u64)
    );
    Ok(print(&format!("{}\n", bundle.signer_id()))?)
}

fn read(file: &Path) -> anyhow::Result<String> {
    read_short_text(file, MAX_FILE as u64, "bundle of peers")
}

fn nodes(count: u64) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

fn imported(told: &admin::Bundle) -> String {
    format!(
        "{}, signed by {} on {}: `phantom status` says when they have answered\n",
        nodes(told.nodes),
        told.signer,
        told.made
    )
}

/// Asks: a computer that knows nobody else believes the signer.
fn agreed(bundle: &Bundle) -> anyhow::Result<()> {
    let signer = bundle.signer_id();
    if !is_somebody_there() {
        bail!(
            "nobody can be asked whether node {signer} is to be trusted\n  say --signed-by with the id that you expect, or --yes"
        );
    }
    eprintln!("{}, named on {} by node", nodes(bundle.peers.len() as u64), date(bundle.made));
    eprintln!("  {signer}");
    ensure!(answer("is that somebody whom you trust? (yes)")? == "yes", "nothing was imported");
    Ok(())
}
