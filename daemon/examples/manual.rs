//! Writes the man pages and completions of `phantomd`, `phantom` and `phantom-run` below a folder, as packages lay them out.
//!
//! An example and no subcommand: what makes pages is not in what is installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;

// The launcher is a program alone, without a library to ask.
#[path = "../../injector/src/options.rs"]
#[allow(dead_code, reason = "only the form of the command line is wanted here")]
mod options;

fn main() -> Result<()> {
    let to = std::env::args_os().nth(1).map(PathBuf::from).context("say where to: manual FOLDER")?;
    write(phantom_daemon::args::Cli::command(), "8", &to)?;
    write(phantom_daemon::cli::args::Cli::command(), "1", &to)?;
    write(options::Options::command(), "1", &to)
}

/// A page for the command, one for each of its subcommands, and what three shells complete.
fn write(command: Command, section: &str, to: &Path) -> Result<()> {
    let name = command.get_name().to_owned();
    for (shell, folder, file) in [
        (Shell::Bash, "bash-completion/completions", name.clone()),
        (Shell::Zsh, "zsh/vendor-completions", format!("_{name}")),
        (Shell::Fish, "fish/vendor_completions.d", format!("{name}.fish")),
    ] {
        let folder = to.join(folder);
        fs::create_dir_all(&folder)?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
        fs::write(folder.join(file), text)?;
    }
    // A page about the help for each command would say nothing.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let folder = to.join(format!("man/man{section}"));
    fs::create_dir_all(&folder)?;
    pages(&command, section, &folder)
}

fn pages(command: &Command, section: &str, folder: &Path) -> Result<()> {
    clap_mangen::Man::new(command.clone()).section(section).manual("Phantom").generate_to(folder)?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| pages(below, section, folder))
}
