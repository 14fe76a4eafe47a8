//! What shells and small tools do with programs: socat and busybox, pipelines, parallel jobs, empty environments, programs that
//! leave their terminal, sudo and su, privileged ports.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, prepare};
use phantom_tests::{CLIENT, Network, SERVER, Server, Way, drain, eventually, pattern, processes, signal};

/// Bytes of a transfer: many cells, windows and TLS records, and still quick in a debug build.
const SIZE: usize = 1_000_000;

/// An http.server of a folder with the [`pattern`] in it, on port 80.
fn site(network: &Network, way: Way, identity: &str, folder: &Folder) -> Result<(Server, String)> {
    folder.write("file", pattern(SIZE))?;
    let program = ["python3", "-u", "-m", "http.server", "80", "--directory", &folder.at(".")];
    network.serve(way, identity, &program, "Serving")
}

/// A process for each client, as inetd has it, on both families; socat as the client, too.
#[test]
fn socat_forks_and_runs_programs() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let file = folder.write("file", pattern(SIZE))?;
        let command = format!("SYSTEM:rev <&0 | tac; cat {file}");
        for (listen, connect) in [("TCP6-LISTEN", "TCP6"), ("TCP4-LISTEN", "TCP4")] {
            let script = format!("exec socat -d -d {listen}:113,fork,reuseaddr '{command}' 2>&1");
            let (_server, name) = network.serve(way, "socat", &["sh", "-c", &script], "listening on")?;
            let client = format!(
                "for n in 1 2 3; do
                     printf 'first\nsecond\n' | socat -t 80 - {connect}:{name}:113 >{}-$n & jobs=\"$jobs $!\"
                 done
                 for job in $jobs; do wait $job || exit 1; done",
                folder.at("got")
            );
            network.run(way, &["sh", "-c", &client])?;
            for number in 1..=3 {
                let got = fs::read(folder.at(&format!("got-{number}")))?;
                let rest = got.strip_prefix(b"dnoces\ntsrif\n").context("no first line")?;
                ensure!(rest == pattern(SIZE), "{connect} by {way:?}: {} bytes", rest.len());
            }
        }
    }
    Ok(())
}

/// One static program that is server and client; a library cannot be put into it.
#[test]
fn busybox_httpd_wget_nc() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL.into_iter().filter(|way| way.carries_static()) {
        let folder = Folder::new()?;
        folder.write("file", pattern(SIZE))?;
        let script = format!("echo starting; exec busybox httpd -f -p 80 -h {}", folder.at("."));
        let (_server, name) = network.serve(way, "busybox", &["sh", "-c", &script], "starting")?;
        let url = format!("http://{name}/file");
        let got = folder.at("got");
        // It does not say when it listens. No -T for wget: Debian's build dies of it, with or without us.
        eventually(|| network.run(way, &["busybox", "wget", "-q", "-O", &got, &url]))?;
        folder.expect_pattern("got", SIZE)?;

        let script = "echo starting; exec busybox nc -ll -p 7000 -e /bin/cat";
        let (_server, name) = network.serve(way, "busybox-nc", &["sh", "-c", script], "starting")?;
        let send = format!("busybox nc -w 80 {name} 7000 <{} >{got}", folder.at("file"));
        eventually(|| network.run(way, &["sh", "-c", &send]))?;
        folder.expect_pattern("got", SIZE)?;
    }
    Ok(())
}

/// Programs that programs start: whatever starts them, they have the same network and no other.
#[test]
fn children_of_every_kind() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let (_server, name) = site(&network, way, "children", &folder)?;
        let get = format!("curl -sSf -m 80 http://{name}/file");
        let makefile = format!("all: a b c\na b c:\n\t{get} -o {}-$@\n", folder.at("made"));
        let makefile = folder.write("Makefile", makefile)?;
        let path = folder.at("got");
        let script = format!(
            "set -e
             {get} | cat | (cat) >{path}-pipeline
             env -i /usr/bin/{get} >{path}-environment
             seq 4 | xargs -P4 -I+ {get} -o {path}-xargs-+
             timeout 80 {get} >{path}-timeout
             nice setsid -w nohup {get} >{path}-nohup 2>{path}-nohup-said
             make -s -j3 -f {makefile}
             perl -e 'exec @ARGV' {get} >{path}-perl
             python3 -c 'import subprocess, sys; subprocess.run(sys.argv[1:], env={{}}, close_fds=True, check=True)' \\
                 /usr/bin/{get} >{path}-python
             exec {get} >{path}-exec"
        );
        network.run(way, &["bash", "-c", &script]).with_context(|| format!("{way:?}"))?;
        let several = ["pipeline", "environment", "timeout", "nohup", "perl", "python", "exec"].map(str::to_owned);
        let numbered = (1..=4).map(|number| format!("xargs-{number}"));
        for name in several.into_iter().chain(numbered) {
            folder.expect_pattern(&format!("got-{name}"), SIZE).with_context(|| format!("{way:?}"))?;
        }
        for name in ["a", "b", "c"] {
            folder.expect_pattern(&format!("made-{name}"), SIZE).with_context(|| format!("{way:?}"))?;
        }
    }
    Ok(())
}

/// Leaves its parents behind as daemons of old do, and serves on.
const DAEMON: &str = "
import http.server, os, sys
folder, file = sys.argv[1:]
server = http.server.ThreadingHTTPServer(('', 80), lambda *a: http.server.SimpleHTTPRequestHandler(*a, directory=folder))
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
null = os.open('/dev/null', os.O_RDWR)
for number in range(3): os.dup2(null, number)
with open(file + '-new', 'w') as f: f.write(str(os.getpid()))
os.rename(file + '-new', file)
server.serve_forever()
";

#[test]
fn daemons_stay_in_the_network() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        folder.write("file", pattern(SIZE))?;
        let name = network.address(SERVER, "daemon")?;
        let pid_file = folder.at("pid");
        // The front returns with the first process; all who hold its output are gone then, too.
        let line = ["python3", "-c", DAEMON, &folder.at("."), &pid_file];
        let output = network.offering(SERVER, way, Some("daemon"), &line).output()?;
        ensure!(output.status.success(), "{output:?} by {way:?}");
        let pid: libc::pid_t = eventually(|| Ok(fs::read_to_string(&pid_file)?.parse()?))?;
        let got = folder.at("got");
        let served = network
            .published(&name)
            .and_then(|()| network.run(way, &["curl", "-sSf", "-m", "80", "-o", &got, &format!("http://{name}/file")]));
        signal(pid, libc::SIGTERM);
        served.with_context(|| format!("{way:?}"))?;
        folder.expect_pattern("got", SIZE)?;
        eventually(|| {
            ensure!(!processes()?.iter().any(|process| process.pid == pid), "it does not end");
            Ok(())
        })?;
    }
    Ok(())
}

/// A terminal that its user leaves is a daemon, too: what runs in it stays in the network.
#[test]
fn tmux_sessions_stay_in_the_network() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let (_server, name) = site(&network, way, "for-tmux", &folder)?;
        let (socket, got) = (folder.at("socket"), folder.at("got"));
        let job =
            format!("curl -sSf -m 80 -o {got} http://{name}/file; tmux -S {socket} wait-for -S done; exec sleep 80");
        let script = format!(
            "tmux -f /dev/null -S {socket} new-session -d \"{job}\" && tmux -S {socket} wait-for done && tmux -S {socket} kill-server"
        );
        let mut command = network.program(CLIENT, way, None, &["timeout", "85", "sh", "-c", &script]);
        let output = command.env("TERM", "xterm").env_remove("TMUX").stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{output:?} by {way:?}");
        folder.expect_pattern("got", SIZE).with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

/// Whoever is not root does not become it: programs with the setuid bit stay what they were started as, and say so.
#[test]
fn nobody_becomes_root() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let suid = folder.at("id");
    prepare(Command::new("install").args(["-m", "4755", "/usr/bin/id", &suid]))?;
    for way in Way::ALL {
        let line = ["setpriv", "--reuid", "www-data", "--regid", "www-data", "--clear-groups"];
        let id = network.run(way, &[&line[..], &[&suid, "-u"]].concat())?;
        let own = prepare(Command::new("id").args(["-u", "www-data"]))?;
        ensure!(id == own, "{id:?} by {way:?}");
        let mut command = network.program(CLIENT, way, None, &[&line[..], &["su", "-c", "id -u"]].concat());
        let output = command.stdin(Stdio::null()).output()?;
        let said = drain(&output.stderr[..])?;
        ensure!(!output.status.success() && !said.is_empty(), "su by {way:?}: {output:?}");
    }
    Ok(())
}
