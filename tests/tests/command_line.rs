//! Every command of `phantom` where people and scripts put it: in pipes that break, with nothing open, on full disks, interrupted.
#![allow(missing_docs)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::Folder;
use phantom_tests::scripted::{ANSWERS, Scripted, hostile, quiet};
use phantom_tests::{binary, drain, eventually, processes, signal};
use serde_json::{Value, json};

/// All that show a list; what a daemon that has nothing says of it.
const LISTS: [&[&str]; 6] = [
    &["address", "list"],
    &["identity", "list"],
    &["path", "list"],
    &["peer", "list"],
    &["connection", "list"],
    &["forward"],
];

/// All that go on until they are told to end.
const LASTING: [&[&str]; 3] = [&["log", "--follow"], &["serve", "."], &["console"]];

fn phantom(socket: &str, words: &[&str]) -> Command {
    let mut command = Command::new(binary("phantom"));
    command.args(["--daemon", socket]).args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Nothing of it steers a terminal.
fn is_plain(bytes: &[u8]) -> bool {
    !String::from_utf8_lossy(bytes).chars().any(|letter| letter.is_control() && letter != '\n')
}

fn said(output: &Output) -> String {
    format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_others_wrote_does_not_steer_a_terminal() -> Result<()> {
    let daemon = Scripted::start(hostile())?;
    for words in ANSWERS {
        for more in [&[][..], &["--json"]] {
            let output = phantom(&daemon.socket, &[words, more].concat()).output()?;
            ensure!(is_plain(&output.stdout) && is_plain(&output.stderr), "{words:?} {more:?}: {}", said(&output));
            ensure!(!output.stdout.is_empty() || words[0] == "unit", "{words:?}: {}", said(&output));
        }
    }
    let status = phantom(&daemon.socket, &["status"]).output()?;
    ensure!(String::from_utf8_lossy(&status.stdout).contains("a path was lost?[2J?31m?"), "{}", said(&status));
    // A daemon's refusal was written as it came.
    let no = json!({"error": {"message": "no\u{1b}]0;owned\u{7}\u{9b}2J", "hint": "look\u{1b}[31m"}});
    let refusing = Scripted::start_saying(&no)?;
    for words in ANSWERS.iter().filter(|words| !["doctor", "unit"].contains(&words[0])) {
        let output = phantom(&refusing.socket, words).output()?;
        ensure!(output.status.code() == Some(1) && is_plain(&output.stderr), "{words:?}: {}", said(&output));
        ensure!(String::from_utf8_lossy(&output.stderr).contains("no?]0;owned"), "{words:?}: {}", said(&output));
    }
    Ok(())
}

/// `phantom … | head -1`, which has read its line and is gone.
#[test]
fn whoever_reads_no_further_is_no_failure() -> Result<()> {
    let daemon = Scripted::start(hostile())?;
    for words in ANSWERS.iter().chain([&["--help"][..], &["serve", "--help"], &["--version"]].iter()) {
        let plain = phantom(&daemon.socket, words).output()?;
        let (reader, writer) = pipe()?;
        drop(reader);
        let output = phantom(&daemon.socket, words).stdout(writer.try_clone()?).output()?;
        ensure!(output.stderr.is_empty() || output.stderr == plain.stderr, "{words:?}: {}", said(&output));
        ensure!(output.status.success() || output.status == plain.status, "{words:?}: {}", said(&output));
        // `2>&1 |`: nobody can be told anything, and it still ends as otherwise.
        let output = phantom(&daemon.socket, words).stdout(writer.try_clone()?).stderr(writer).output()?;
        ensure!(output.status.success() || output.status == plain.status, "{words:?}: {}", output.status);
    }
    let (reader, writer) = pipe()?;
    drop(reader);
    let failed = phantom("/nonexistent/daemon.sock", &["status"]).stderr(writer).output()?;
    ensure!(failed.status.code() == Some(1), "{}", failed.status);
    Ok(())
}

#[test]
fn an_answer_that_finds_no_room_is_a_failure_and_said() -> Result<()> {
    let daemon = Scripted::start(hostile())?;
    for words in ANSWERS.iter().filter(|words| words[0] != "unit") {
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        let output = phantom(&daemon.socket, words).stdout(full).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{words:?}: {}", said(&output));
        ensure!(text.contains("standard output") && text.contains("No space left"), "{words:?}: {text}");
    }
    Ok(())
}

#[test]
fn with_nothing_open_it_ends_as_otherwise() -> Result<()> {
    let daemon = Scripted::start(hostile())?;
    for words in ANSWERS {
        let plain = phantom(&daemon.socket, words).output()?;
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let script = format!("exec \"$@\" {closed}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script, "sh"]).arg(binary("phantom")).args(["--daemon", &daemon.socket]).args(words);
            let output = shell.output()?;
            ensure!(output.status == plain.status, "{words:?} {closed}: {}, not {}", said(&output), plain.status);
        }
    }
    Ok(())
}

#[test]
fn an_empty_list_says_how_one_begins_and_scripts_get_an_empty_one() -> Result<()> {
    let daemon = Scripted::start(quiet())?;
    for words in LISTS {
        let people = phantom(&daemon.socket, words).output()?;
        let text = String::from_utf8_lossy(&people.stdout).into_owned() + &String::from_utf8_lossy(&people.stderr);
        ensure!(people.status.success() && text.trim().lines().count() == 1, "{words:?}: {text}");
        ensure!(text.contains('`') || text.contains("--peer"), "{words:?} does not say what to do: {text}");
        let script = phantom(&daemon.socket, &[words, &["--json"]].concat()).output()?;
        let list: Value = serde_json::from_slice(&script.stdout)?;
        ensure!(list == json!([]), "{words:?}: {list}");
    }
    Ok(())
}

/// A daemon that takes a connection and says nothing keeps nobody.
#[test]
fn ctrl_c_ends_each_while_a_daemon_is_silent() -> Result<()> {
    let folder = Folder::new()?;
    let asking = ANSWERS.iter().filter(|words| words[0] != "unit");
    for words in asking.chain(&LASTING) {
        let socket = folder.at("silent.sock");
        let silent = UnixListener::bind(&socket)?;
        let mut child = phantom(&socket, words).current_dir(folder.path()).spawn()?;
        // It has asked, so whatever hears signals does by now.
        let asked = silent.accept()?;
        signal(child.id().cast_signed(), libc::SIGINT);
        let ended = eventually(|| child.try_wait()?.context("it still waits"));
        // It has ended already where all is well.
        let _ = child.kill();
        let (status, output) = (ended.with_context(|| format!("{words:?}"))?, child.wait_with_output()?);
        drop(asked);
        std::fs::remove_file(&socket)?;
        let by_itself = LASTING.contains(words) && status.success();
        ensure!(by_itself || status.signal() == Some(libc::SIGINT), "{words:?}: {}", said(&output));
        ensure!(output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}: {}", said(&output));
    }
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "something is left");
    Ok(())
}

/// Echo is off while a passphrase is asked for: who ends that from elsewhere must not leave a terminal that shows nothing.
#[test]
fn a_terminal_shows_what_is_typed_again_however_the_question_for_a_passphrase_ends() -> Result<()> {
    let (folder, mut answers) = (Folder::new()?, quiet());
    answers["address-show"] = json!({"name": "web", "address": "fd70::1", "phantom_name": "x.phantom"});
    let daemon = Scripted::start(answers)?;
    for (number, status) in [(libc::SIGINT, "status 130"), (libc::SIGTERM, "status 143")] {
        let (program, socket, file) = (binary("phantom"), &daemon.socket, folder.at("new"));
        let line =
            format!("{} --daemon {socket} identity export web {file}; echo status $?; stty -a", program.display());
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("SHELL", "/bin/sh");
        let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut shown = terminal.stdout.take().context("no screen")?;
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"passphrase: ") && shown.read(&mut byte)? == 1 {
            text.push(byte[0]);
        }
        let asks = processes()?.into_iter().find(|one| one.is("phantom") && one.words.contains(socket));
        signal(asks.context("nobody asks")?.pid, number);
        let rest = drain(shown)?;
        terminal.wait()?;
        ensure!(rest.contains(status) && rest.contains("interrupted; nothing was done"), "{rest}");
        ensure!(rest.contains(" echo ") && rest.contains(" icanon"), "{rest}");
    }
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "something is left");
    Ok(())
}

/// A wait without end looks like a fault of the program that waits. In a log, too, nobody wonders for a minute.
#[test]
fn whoever_waits_for_a_silent_daemon_is_told_what_for() -> Result<()> {
    let (daemon, folder) = (Scripted::start(json!({"silent": true}))?, Folder::new()?);
    let commands = ANSWERS.iter().filter(|words| words[0] != "unit").chain(&LASTING);
    let commands = commands.map(|words| phantom(&daemon.socket, words));
    let mut run = Command::new(binary("phantom-run"));
    run.args(["--daemon", &daemon.socket, "true"]).stdin(Stdio::null()).stderr(Stdio::piped());
    // All at once: each waits for some seconds before it says so.
    let started = commands.chain([run]).map(|mut command| {
        let child = command.current_dir(folder.path()).spawn()?;
        Ok((format!("{command:?}"), child))
    });
    for (what, mut child) in started.collect::<Result<Vec<_>>>()? {
        let mut said = BufReader::new(child.stderr.take().context("no pipe")?);
        let mut line = String::new();
        let read = said.read_line(&mut line);
        signal(child.id().cast_signed(), libc::SIGINT);
        child.wait()?;
        read?;
        let is_said =
            ["waiting for the daemon", "asking the network database"].iter().any(|words| line.contains(words));
        ensure!(is_said, "{what}: {line:?}");
    }
    Ok(())
}

/// In a terminal, whose keys it reads itself.
#[test]
fn top_ends_by_its_keys_while_a_daemon_has_fallen_silent() -> Result<()> {
    for key in ["q", "\u{3}"] {
        let daemon = Scripted::start(quiet())?;
        let line = format!("{} --daemon {} top", binary("phantom").display(), daemon.socket);
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
        let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // The first four make up what is drawn at once.
        daemon.has_answered(5)?;
        daemon.say(Some(json!({"silent": true})));
        daemon.has_ignored(1)?;
        terminal.stdin.as_mut().context("no terminal")?.write_all(key.as_bytes())?;
        let drawn = terminal.stdout.take().context("no screen")?;
        std::thread::spawn(move || drain(drawn));
        let ended = eventually(|| terminal.try_wait()?.context("it still shows"));
        let _ = terminal.kill();
        ensure!(ended?.success(), "{key:?}");
        terminal.wait()?;
    }
    Ok(())
}

/// Nobody types a passphrase twice to read then that the file cannot be.
#[test]
fn what_would_be_in_vain_is_said_before_a_passphrase_is_asked_for() -> Result<()> {
    let folder = Folder::new()?;
    let mut answers = quiet();
    answers["address-show"] = json!({"name": "web", "address": "fd70::1", "phantom_name": "x.phantom"});
    let daemon = Scripted::start(answers)?;
    let (there, short) = (folder.write("there", "")?, folder.write("short", "1234567\n")?);
    for (file, more, says) in [
        (&*there, &[][..], "is there already"),
        ("/nonexistent/web.identity", &[], "cannot write /nonexistent/web.identity: No such file"),
        ("/etc/passwd/web.identity", &[], "Not a directory"),
        (&folder.at("new"), &["--passphrase-file", &short], "at least 8 characters"),
        (&folder.at("new"), &[], "no terminal to ask for the passphrase"),
    ] {
        let words = [&["identity", "export", "web", file], more].concat();
        // Without a terminal nobody can be asked, which would be said first.
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(binary("phantom")).args(["--daemon", &daemon.socket]).args(&words);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.code() == Some(1) && said(&output).contains(says), "{words:?}: {}", said(&output));
    }
    ensure!(!std::fs::exists(folder.at("new"))?);
    Ok(())
}

/// Places that are not there are said, with what helps.
#[test]
fn without_a_home_it_is_said_what_to_set() -> Result<()> {
    for words in [&["setup", "--own", "--accept-eula", "--offline"][..], &["desktop", "list"]] {
        let mut command = Command::new(binary("phantom"));
        command.args(words).stdin(Stdio::null());
        for variable in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "PHANTOM_SOCKET"] {
            command.env_remove(variable);
        }
        let output = command.output()?;
        ensure!(
            output.status.code() == Some(1) && said(&output).contains("set HOME to your home folder"),
            "{}",
            said(&output)
        );
    }
    Ok(())
}

/// The words that the help of a command gives under "Commands:".
fn commands(help: &str) -> Vec<String> {
    let after = help.split_once("\nCommands:\n").map_or("", |(_, after)| after);
    let lines = after.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The lines under "Examples:".
fn examples(help: &str) -> Vec<&str> {
    let after = help.split_once("\nExamples:\n").map_or("", |(_, after)| after);
    after.lines().take_while(|line| line.starts_with("  ")).collect()
}

/// As wide as a terminal is unless somebody makes it wider: a line that is broken there hides what it is an example of.
#[test]
fn no_help_is_broken_where_a_terminal_has_eighty_columns() -> Result<()> {
    let help = |program: &str, words: &[String], columns: &str| -> Result<String> {
        let help = Command::new(binary(program)).args(words).arg("--help").env("COLUMNS", columns).output()?;
        Ok(String::from_utf8(help.stdout)?)
    };
    let check = |program: &str, words: &[String]| -> Result<String> {
        let (narrow, wide) = (help(program, words, "80")?, help(program, words, "100")?);
        let over: Vec<_> = narrow.lines().filter(|line| line.chars().count() > 80).collect();
        ensure!(over.is_empty(), "{program} {words:?}: {over:?}");
        ensure!(examples(&narrow) == examples(&wide), "{program} {words:?}: {:#?}", examples(&narrow));
        Ok(narrow)
    };
    for program in ["phantomd", "phantom-run"] {
        ensure!(!examples(&check(program, &[])?).is_empty(), "{program} has no examples");
    }
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let text = check("phantom", &words)?;
        open.extend(commands(&text).into_iter().map(|name| [words.clone(), vec![name]].concat()));
    }
    Ok(())
}

/// Files that are not what a command takes, in the place of `FILE`: what is not there, what is a folder, what would be in a file, what has too
/// long a name.
const TAKES: [&[&str]; 10] = [
    &["phantom", "identity", "import", "FILE"],
    &["phantom", "identity", "export", "web", "new", "--passphrase-file", "FILE"],
    &["phantom", "peer", "import", "FILE", "--yes"],
    &["phantom", "command", "show", "FILE", "--keys", "keys"],
    &["phantom", "command", "show", "text", "--keys", "FILE"],
    &["phantom", "command", "combine", "FILE", "--out", "new", "--keys", "keys"],
    &["phantom", "command", "send", "FILE"],
    &["phantom", "testnet", "down", "--dir", "FILE"],
    &["phantom", "serve", "FILE/"],
    &["phantomd", "--check-config", "--config", "FILE"],
];

/// The same of files that they make: there may be nothing, and a folder to make them in.
const MAKES: [&[&str]; 7] = [
    &["phantom", "identity", "export", "web", "FILE", "--passphrase-file", "passphrase"],
    &["phantom", "peer", "export", "FILE"],
    &["phantom", "command", "key", "FILE"],
    &["phantom", "command", "make", "FILE", "--ban", "192.0.2.0/24", "--after", "0:HASH"],
    &["phantom", "command", "combine", "text", "--out", "FILE", "--keys", "keys"],
    &["phantom", "testnet", "up", "--dir", "FILE"],
    &["phantom", "console", "--listen", "unix:FILE"],
];

/// Words that are no name of anything.
const NAMES: [&[&str]; 12] = [
    &["phantom", "desktop", "add", "nosuch"],
    &["phantom", "desktop", "add", "../nosuch"],
    &["phantom", "desktop", "remove", "../nosuch"],
    &["phantom", "unit", "add", "nosuch"],
    &["phantom", "unit", "add", "../nosuch"],
    &["phantom", "unit", "add", "nosuch.socket"],
    &["phantom", "unit", "remove", "nosuch"],
    &["phantom", "unit", "add", ""],
    &["phantom", "desktop", "add", ""],
    &["phantom", "forward", "80"],
    &["phantom", "identity", "import", ""],
    &["phantom", "console", "--listen", "unix:relative"],
];

/// "No such file or directory (os error 2)" says what is, and nobody who reads it knows what to do.
#[test]
fn whatever_is_refused_is_said_with_what_helps() -> Result<()> {
    let folder = Folder::new()?;
    let mut answers = quiet();
    answers["address-show"] = json!({"name": "web", "address": "fd70::1", "phantom_name": "x.phantom"});
    answers["identity-export"] = json!("sealed");
    answers["peer-export"] = json!("peers");
    let daemon = Scripted::start(answers)?;
    folder.write("text", "text\n")?;
    folder.write("passphrase", "correct horse battery\n")?;
    folder.write("keys", format!("1 of 1\n{}\n", "ab".repeat(32)))?;
    folder.make("folder")?;
    let before = std::fs::read_dir(folder.path())?.count();
    let [missing, is_folder, inside, long] =
        ["missing", "folder", "text/in", &"a".repeat(300)].map(|name| folder.at(name));
    let nowhere = folder.at("missing/in");
    let takes = TAKES.iter().flat_map(|words| [&missing, &is_folder, &inside, &long].map(|file| (*words, Some(file))));
    let makes = MAKES.iter().flat_map(|words| [&nowhere, &is_folder, &inside, &long].map(|file| (*words, Some(file))));
    // These are for folders, which are made where they are not there.
    let is_right = |(words, file): &(&[&str], Option<&String>)| {
        let is_network = words[1..] == ["testnet", "up", "--dir", "FILE"];
        *file == Some(&is_folder) && (words[1] == "serve" || is_network) || *file == Some(&nowhere) && is_network
    };
    let names = NAMES.iter().map(|words| (*words, None));
    for (words, file) in takes.chain(makes).filter(|case| !is_right(case)).chain(names) {
        let hash = "0".repeat(64);
        let file = file.map_or("", |file| file);
        let said_words: Vec<_> =
            words[1..].iter().map(|word| word.replace("FILE", file).replace("HASH", &hash)).collect();
        let mut command = Command::new(binary(words[0]));
        if words[0] == "phantom" {
            command.args(["--daemon", &daemon.socket]);
        }
        let output = command.args(&said_words).current_dir(folder.path()).stdin(Stdio::null()).output()?;
        let text = String::from_utf8(output.stderr.clone())?;
        ensure!(matches!(output.status.code(), Some(1 | 2)), "{words:?} {file}: {}", said(&output));
        let (last, lines) = (text.trim_end().lines().last().unwrap_or_default(), text.trim_end().lines().count());
        let is_advised = lines > 1 || last.contains('`') || last.contains("line ");
        ensure!(is_advised && !last.contains("(os error "), "{words:?} {file}: {text}");
        // Of the daemon alone.
        ensure!(words[0] == "phantomd" || !text.contains("--data-dir"), "{words:?} {file}: {text}");
    }
    ensure!(std::fs::read_dir(folder.path())?.count() == before, "something was left");
    Ok(())
}

#[test]
fn every_command_explains_itself_within_a_hundred_columns() -> Result<()> {
    let (mut open, mut seen) = (vec![Vec::<String>::new()], 0);
    while let Some(words) = open.pop() {
        let help = Command::new(binary("phantom")).args(&words).arg("--help").env("COLUMNS", "100").output()?;
        let text = String::from_utf8(help.stdout)?;
        ensure!(
            help.status.success() && is_plain(text.as_bytes()) && text.contains("Usage: phantom"),
            "{words:?}: {text}"
        );
        let first = text.lines().next().unwrap_or_default();
        ensure!(first.len() > 10, "{words:?} does not say what it is for: {text}");
        ensure!(words.len() != 1 || text.contains("phantom "), "{words:?}: {text}");
        ensure!(
            words.len() != 1 || text.contains("Examples:") || text.contains("  phantom "),
            "{words:?} has no example: {text}"
        );
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 100).collect();
        ensure!(wide.is_empty(), "{words:?}: {wide:?}");
        open.extend(commands(&text).into_iter().map(|name| [words.clone(), vec![name]].concat()));
        seen += 1;
    }
    ensure!(seen > 40, "only {seen} commands were found");
    Ok(())
}

/// Colours of the help, which a terminal gets, are not for whom NO_COLOR says it.
#[test]
fn no_color_is_heeded_on_a_terminal() -> Result<()> {
    let coloured = |no_color: &str| -> Result<bool> {
        let line = format!("{} --help", binary("phantom").display());
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        terminal.env("TERM", "xterm").env("NO_COLOR", no_color).stdin(Stdio::null());
        let output = terminal.output()?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(output.stdout.contains(&0x1b))
    };
    ensure!(coloured("")?, "an empty one says nothing");
    ensure!(!coloured("1")?);
    Ok(())
}

/// Each command that writes a file, into a folder with no room left: it says so, and the folder is as before.
#[test]
fn a_full_disk_leaves_no_half_a_file() -> Result<()> {
    let folder = Folder::new()?;
    let mut answers = quiet();
    answers["address-show"] = json!({"name": "web", "address": "fd70::1", "phantom_name": "x.phantom"});
    answers["identity-export"] = json!("sealed ".repeat(2000));
    answers["peer-export"] = json!("peers ".repeat(2000));
    let daemon = Scripted::start(answers)?;
    let passphrase = folder.write("passphrase", "correct horse battery\n")?;
    let full = folder.make("full")?;
    let entry =
        format!("[Desktop Entry]\nType=Application\nName=Editor\nExec=editor %U\nComment={}\n", "x".repeat(9000));
    let unit =
        format!("[Unit]\nDescription={}\n[Service]\nExecStart=/bin/true {}\n", "x".repeat(9000), "x".repeat(9000));
    let data = folder.make("data")?;
    std::fs::create_dir_all(format!("{data}/applications"))?;
    std::fs::write(format!("{data}/applications/editor.desktop"), entry)?;
    let units = folder.make("units")?;
    std::fs::write(format!("{units}/my.service"), unit)?;
    for (words, is_file) in [
        (&["identity", "export", "web", "web.identity", "--passphrase-file", &passphrase][..], true),
        (&["peer", "export", "peers.txt"], true),
        (&["command", "key", "my.key"], true),
        (&["desktop", "add", "editor"], false),
        (&["unit", "add", "my"], false),
    ] {
        // Eight pages: the root folder of the file system takes one, and the rest is filled.
        let script = "mount -t tmpfs -o size=32k,nr_inodes=40 tmpfs \"$1\" && mkdir -p \"$1/applications\" && \
                      mount -t tmpfs -o size=32k tmpfs /etc/systemd/system && cp \"$2/my.service\" /etc/systemd/system/ && \
                      : >/etc/systemd/system/phantomd.service && for at in \"$1\" /etc/systemd/system; do mkdir -p $at/my.service.d; cat /dev/zero >$at/filler 2>/dev/null; done; \
                      cd \"$1\" || exit 99; find . /etc/systemd/system | sort >/dev/shm/before.$$; shift 2; \"$@\"; status=$?; \
                      find . /etc/systemd/system | sort | diff /dev/shm/before.$$ - || status=98; rm /dev/shm/before.$$; exit $status";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", &full, &units]);
        command.arg(binary("phantom")).args(["--daemon", &daemon.socket]).args(words);
        command.env("HOME", &full).env("XDG_DATA_HOME", &full).env("XDG_DATA_DIRS", &data).stdin(Stdio::null());
        let output = command.output()?;
        let text = said(&output);
        ensure!(output.status.code() == Some(1) && text.contains("No space left"), "{words:?}: {text}");
        ensure!(!is_file || text.contains("cannot write"), "{words:?}: {text}");
    }
    Ok(())
}
