//! `phantom unit`: a service of systemd's whose only network is Phantom, by a drop-in that puts `phantom-run` before its commands.
//!
//! Why not `NetworkNamespacePath=`: in the phantom network's namespace alone a service still asks who answers outside for names
//! (nscd, systemd-resolved, D-Bus), reads the host's resolv.conf, and has the rights to leave. phantom-run is what closes those
//! doors, so the drop-in starts each command of the unit by it: one that checks a configuration looks names up as well.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use phantom_ipc::admin::{Address, Request};
use tokio::time::timeout;

use super::args::{Unit, UnitOptions};
use super::ask::write_over;
use super::{shown_list, wait};
use crate::advice::{cannot_read, to_write};
use crate::client::Client;

/// Where units lie, first choice first; drop-ins for one may lie in all of them.
const FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The last of a unit's drop-ins, by its name.
const DROP_IN: &str = "zz-phantom.conf";

/// Settings that start something.
const COMMANDS: [&str; 7] =
    ["ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"];

/// How units say yes.
const YES: [&str; 4] = ["yes", "true", "on", "1"];

/// What may stand before a command.
const PREFIXES: &str = "-+!:|";

/// How long the daemon is asked for names.
const PATIENCE: Duration = Duration::from_secs(10);

/// To which the services of drop-ins are bound.
const DAEMON: &str = "phantomd.service";

/// Does what was asked; returns what to print.
pub(super) async fn run(socket: &Path, command: &Unit, as_json: bool) -> Result<String> {
    let root = Path::new("/");
    match command {
        Unit::Add(options) => {
            // Only a name is looked for, and only to say that there is none.
            let names = if options.identity.is_some() { names(socket).await } else { None };
            add(root, options, &super::beside("phantom-run")?, names.as_deref())
        }
        Unit::Remove { unit } => remove(root, &full(unit)),
        Unit::List => shown_list(
            list(root),
            as_json,
            "no service runs under phantom-run: `phantom unit add nginx` puts one there",
        ),
    }
}

/// Names of the identities that the daemon has for whoever asks; none when it does not say now: the drop-in can be made without.
async fn names(socket: &Path) -> Option<Vec<String>> {
    let mut client = Client::connect(socket).await.ok()?;
    let asked = timeout(PATIENCE, client.ask::<Vec<Address>>(&Request::AddressList));
    let all = wait::shown(wait::on(socket), asked).await.ok()?.ok()?;
    Some(all.into_iter().map(|one| one.name).collect())
}

/// The name of a unit, whose end may be left out.
fn full(unit: &str) -> String {
    if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }
}

fn drop_in(root: &Path, unit: &str) -> PathBuf {
    root.join(FOLDERS[0]).join(format!("{unit}.d")).join(DROP_IN)
}

fn add(root: &Path, options: &UnitOptions, launcher: &Path, names: Option<&[String]>) -> Result<String> {
    let unit = full(&options.unit);
    ensure!(!unit.contains('/'), "{unit} is a path\n  say the name of a service, as in: phantom unit add nginx");
    ensure!(
        unit.ends_with(".service"),
        "{unit} is no service\n  sockets and timers start one: say the name of that, as in: phantom unit add nginx"
    );
    ensure!(unit != DAEMON, "{DAEMON} is what the others need: over itself it would never start");
    let settings = settings(root, &unit)?;
    ensure!(
        FOLDERS.iter().any(|folder| root.join(folder).join(DAEMON).is_file()),
        "there is no {DAEMON} on this computer, without which the service would not start\n  install the package, or put \
         phantom-run into the unit by hand: docs/servers.md"
    );
    let text = wrapped(&settings, options, launcher)?;
    let path = drop_in(root, &unit);
    let folder = path.parent().unwrap_or(root);
    let refused = |error: io::Error| anyhow!("cannot write {}: {error}{}", path.display(), advice(&error));
    fs::create_dir_all(folder).map_err(refused)?;
    write_over(&path, &text).map_err(refused)?;
    let mut mind = if options.publish.is_empty() { unreached(&options.unit) } else { String::new() };
    match (&options.identity, user(&settings)) {
        (Some(identity), Some(user)) => mind.push_str(&theirs(identity, user)),
        (Some(identity), None) => match names {
            Some(names) if names.contains(identity) => {}
            Some(_) => {
                mind.push_str(&format!("mind: there is no identity {identity} yet: phantom identity new {identity}\n"));
            }
            None => mind.push_str(&format!("mind: no daemon says now whether there is an identity {identity}\n")),
        },
        (None, _) => {}
    }
    Ok(format!("made {}\n{mind}next: systemctl daemon-reload && systemctl restart {unit}\n", path.display()))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "\n  root may: sudo phantom unit …",
        _ => to_write(error),
    }
}

/// Whoever moves a server here would look for the reason elsewhere.
fn unreached(unit: &str) -> String {
    format!(
        "mind: others reach nothing of it, whatever it listens on, neither over Phantom nor as before; if it serves anybody, say \
         which ports, as in: phantom unit add {unit} --publish 80\n"
    )
}

/// Whoever made the name as root has another one.
fn theirs(identity: &str, user: &str) -> String {
    format!(
        "mind: it runs as {user}, and names are each user's own; unless {user} has that one:\n  \
         setpriv --reuid {user} --regid {user} --clear-groups phantom identity new {identity}\n"
    )
}

fn remove(root: &Path, unit: &str) -> Result<String> {
    let path = drop_in(root, unit);
    ensure!(path.exists(), "{unit} has no drop-in of ours\n  `phantom unit list` shows those that have");
    fs::remove_file(&path).map_err(|error| anyhow!("cannot remove {}: {error}{}", path.display(), advice(&error)))?;
    let _ = path.parent().map(fs::remove_dir);
    Ok(format!(
        "removed {}\nnext, and it is on the normal network: systemctl daemon-reload && systemctl restart {unit}\n",
        path.display()
    ))
}

fn list(root: &Path) -> Vec<String> {
    let folders = fs::read_dir(root.join(FOLDERS[0])).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = folders.filter(|folder| folder.join(DROP_IN).is_file());
    let mut units: Vec<String> = ours.filter_map(|folder| Some(folder.file_stem()?.to_str()?.to_owned())).collect();
    units.sort();
    units
}

/// The settings of a unit with those of its drop-ins, as systemd reads them: in their order.
fn settings(root: &Path, unit: &str) -> Result<Vec<(String, String)>> {
    // An instance is its template's.
    let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
    let names: Vec<&str> = [unit].into_iter().chain(template.as_deref()).collect();
    let in_folders = |name: &str| FOLDERS.map(|folder| root.join(folder).join(name));
    let fragment = names.iter().flat_map(|name| in_folders(name)).find(|path| path.is_file());
    let fragment = fragment.with_context(|| {
        format!(
            "there is no unit {unit} on this computer\n  `systemctl list-unit-files --type=service` shows those that are; users' own \
             (`systemctl --user`) are none of them"
        )
    })?;
    let mut drop_ins: Vec<PathBuf> = Vec::new();
    for folder in names.iter().flat_map(|name| in_folders(&format!("{name}.d"))) {
        let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
        // Of two with one name the first counts.
        for file in files.filter(|path| path.extension().is_some_and(|end| end == "conf")) {
            if drop_ins.iter().all(|other| other.file_name() != file.file_name()) {
                drop_ins.push(file);
            }
        }
    }
    drop_ins.retain(|path| path.file_name().is_some_and(|name| name != DROP_IN));
    drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let mut found = Vec::new();
    for path in [fragment].into_iter().chain(drop_ins) {
        let text = fs::read_to_string(&path).map_err(|error| cannot_read(&path, &error))?;
        found.extend(pairs(&text));
    }
    Ok(found)
}

/// What stands in a unit's file in its section `Service`, lines that go on joined.
fn pairs(text: &str) -> Vec<(String, String)> {
    let (mut found, mut is_service, mut begun) = (Vec::new(), false, String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        begun.push_str(line.strip_suffix('\\').unwrap_or(line));
        if line.ends_with('\\') {
            begun.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut begun);
        if whole.starts_with('[') {
            is_service = whole == "[Service]";
        } else if let Some((key, value)) = whole.split_once('=').filter(|_| is_service) {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// The last that is said of a setting.
fn last<'a>(settings: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    settings.iter().rev().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
}

/// The ordinary user as whom a unit's commands run.
fn user(settings: &[(String, String)]) -> Option<&str> {
    last(settings, "User").filter(|user| !["", "root", "0"].contains(user))
}

/// The drop-in's text.
fn wrapped(settings: &[(String, String)], options: &UnitOptions, launcher: &Path) -> Result<String> {
    let lasts = options.identity.is_some() || options.publish.iter().any(|publish| publish.contains(':'));
    let is_nobody = user(settings).is_some_and(|user| ["nobody", "65534"].contains(&user));
    if lasts && (is_nobody || last(settings, "DynamicUser").is_some_and(|said| YES.contains(&said))) {
        bail!(
            "{} runs as a user who is no one in particular (nobody, DynamicUser=), and names are each user's own\n  say neither \
             --identity nor a name to publish at: each start is a fresh one",
            options.unit
        );
    }
    let mut text = format!(
        "# Made by `phantom unit add`: phantom-run before each command, so that Phantom is the service's only network.\n\
         [Unit]\nAfter={DAEMON}\nBindsTo={DAEMON}\n\n[Service]\n"
    );
    // The program is not systemd's own child: phantom-run is. One that forks ends both, and its PIDFile= says who is left.
    if last(settings, "Type").is_some_and(|kind| kind.starts_with("notify")) {
        text.push_str("NotifyAccess=all\n");
    }
    let mut commands = 0;
    for key in COMMANDS {
        let mut lines: Vec<&str> = Vec::new();
        for (_, value) in settings.iter().filter(|(other, _)| other == key) {
            // An empty one takes those before it back.
            if value.is_empty() { lines.clear() } else { lines.push(value) }
        }
        if lines.is_empty() {
            continue;
        }
        commands += 1;
        text.push_str(&format!("{key}=\n"));
        for line in lines {
            text.push_str(&format!("{key}={}\n", command(line, key == "ExecStart", options, launcher)?));
        }
    }
    if commands == 0 {
        bail!("{} starts nothing", options.unit);
    }
    Ok(text)
}

/// A command of ours for one of the unit's.
fn command(line: &str, is_main: bool, options: &UnitOptions, launcher: &Path) -> Result<String> {
    let bare = line.trim_start_matches(|letter: char| PREFIXES.contains(letter));
    if bare.starts_with('@') {
        bail!("a command of {} has a name of its own (@): phantom-run cannot give it that", options.unit);
    }
    if bare.contains(" ; ") {
        bail!("{} has several commands in one line: write one in each", options.unit);
    }
    let mut ours = format!("{}{} --quiet", &line[..line.len() - bare.len()], quoted(launcher)?);
    if let Some(identity) = &options.identity {
        ours.push_str(&format!(" --identity {identity}"));
    }
    if is_main {
        options.publish.iter().for_each(|publish| ours.push_str(&format!(" --publish {publish}")));
        ours.push_str(" --on-daemon-loss exit");
    }
    Ok(format!("{ours} -- {bare}"))
}

/// A path as the first word of a command, where systemd would divide it, or put something in the place of parts of it.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\'', '\\', '$', '\n']));
    let text = text.with_context(|| format!("{} cannot stand in a unit", path.display()))?.replace('%', "%%");
    Ok(if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text })
}

#[cfg(test)]
mod tests;
