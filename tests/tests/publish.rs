//! What others can reach of a program: exactly what `--publish` names, at which identity, and nothing without it.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use phantom_ipc::hook::{About, IdentityRef, Note, Reply, Request};
use phantom_tests::programs::Folder;
use phantom_tests::{CLIENT, Network, PATIENCE, SERVER, Server, Way, binary, drain, eventually, phantom_run};

/// Listens on two ports, on loopback and on one that the kernel chooses; says on each who it is and who is there.
const SERVER_PROGRAM: &str = "
import socket, threading
def serve(listener):
    while True:
        client, peer = listener.accept()
        with client:
            client.sendall(f'{listener.getsockname()[1]} {peer[0]}'.encode())
def listen(host, port):
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    threading.Thread(target=serve, args=(listener,)).start()
    return listener.getsockname()[1]
listen('::', 8001), listen('0.0.0.0', 8002), listen('::1', 8003), listen('127.0.0.1', 8004)
print('listening', listen('::', 0), flush=True)
";

/// Calls ports of a name, and says for each what came.
const CLIENT_PROGRAM: &str = "
import socket, sys
for port in sys.argv[2:]:
    try:
        with socket.create_connection((sys.argv[1], int(port)), timeout=60) as c:
            print(c.makefile().read().split()[0])
    except ConnectionRefusedError: print('refused')
    except OSError as error: print(error.strerror.replace(' ', '-'))
";

/// What a client hears on each of these ports.
fn heard(network: &Network, way: Way, name: &str, ports: &[u16]) -> Result<String> {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let mut words = vec!["python3", "-c", CLIENT_PROGRAM, name];
    words.extend(ports.iter().map(String::as_str));
    Ok(network.run(way, &words)?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A program of a test, and where it is reached.
struct Running {
    _server: Server,
    /// What phantom-run said on standard error before the program started.
    said: Vec<String>,
    /// What of it was of identities that it made.
    made: Vec<String>,
    /// What it says later.
    later: Receiver<String>,
    /// The port that the kernel chose.
    chosen: u16,
}

impl Running {
    /// Waits for a line that contains `word`.
    fn hears(&self, word: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let line = self.later.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.with_context(|| format!("never said {word:?}"))?;
            if line.contains(word) {
                return Ok(line);
            }
        }
    }
}

/// Starts the server with these options of phantom-run.
fn start(network: &Network, way: Way, options: &[&str]) -> Result<Running> {
    let mut command = phantom_run(&network.nodes[SERVER].socket, way);
    command.args(options).args(["--", "python3", "-c", SERVER_PROGRAM]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
    let server = Server::from(child);
    let Some(first) = BufReader::new(out).lines().next() else { bail!("it ended: {}", drain(err)?) };
    let first = first?;
    let chosen = first.strip_prefix("listening ").context("not listening")?.parse()?;
    let (line_tx, later) = channel();
    std::thread::spawn(move || {
        BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| line_tx.send(line))
    });
    // As whom it runs, and a line for each port; all that by now.
    let ports = options.iter().skip_while(|option| **option != "--publish").filter(|option| !option.starts_with("--"));
    let lines = 1 + ports.map(|ports| ports.split(',').count()).sum::<usize>();
    let (mut said, mut made) = (Vec::new(), Vec::new());
    for line in later.iter() {
        if line.contains(" is new, and lasts") { &mut made } else { &mut said }.push(line);
        if said.len() == lines {
            break;
        }
    }
    Ok(Running { _server: server, said, made, later, chosen })
}

/// The identity and the ports that `phantom status` shows for a name.
fn shown(network: &Network, name: &str) -> Result<(serde_json::Value, Vec<u16>)> {
    let status = network.phantom(SERVER, &["status"])?;
    let published = status["published"].as_array().context("no list")?;
    let one = published.iter().find(|one| one["phantom_name"] == name).with_context(|| format!("{name}: {status}"))?;
    Ok((one["identity"].clone(), serde_json::from_value(one["ports"].clone())?))
}

/// The one `.phantom` name in a line.
fn name_in(line: &str) -> Result<String> {
    let mut names = line.split([' ', '(', ')', ',']).filter(|word| word.ends_with(".phantom"));
    let name = names.next().with_context(|| format!("no name in {line:?}"))?;
    ensure!(names.next().is_none(), "more than one name in {line:?}");
    Ok(name.to_owned())
}

#[test]
fn what_is_published_is_reached_and_nothing_else() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let none = start(&network, way, &[])?;
        let name = name_in(&none.said[0])?;
        ensure!(none.said[0].contains("fresh for this run"), "{:?}", none.said);
        // In one line or more: as they are seen.
        let mut left = BTreeSet::from([8001, 8002, none.chosen]);
        while !left.is_empty() {
            let hint = none.hears("nobody else reaches port")?;
            let (_, named) = hint.split_once("`--publish ").with_context(|| hint.clone())?;
            let named = named.split_once('`').context("no end")?.0.split(',').map(str::parse);
            for port in named.collect::<Result<Vec<u16>, _>>()? {
                ensure!(left.remove(&port), "{hint}: that is on loopback, or was said before");
            }
        }
        ensure!(heard(&network, way, &name, &[8001, none.chosen])? == ["No-route-to-host"; 2].join(" "), "{way:?}");
        ensure!(shown(&network, &name).is_err(), "{way:?}: it is shown as published");
        ensure!(none.later.try_recv().is_err(), "{way:?}: it is said once");

        let all = start(&network, way, &["--publish", "all"])?;
        ensure!(all.said[1].contains("all ports"), "{:?}", all.said);
        let name = name_in(&all.said[0])?;
        network.published(&name)?;
        let ports = [8001, 8002, 8003, 8004, all.chosen, 1];
        let expected = format!("8001 8002 refused refused {} refused", all.chosen);
        ensure!(heard(&network, way, &name, &ports)? == expected, "{way:?}");
        let mut ports = vec![8001, 8002, all.chosen];
        ports.sort_unstable();
        ensure!(shown(&network, &name)? == (serde_json::Value::Null, ports), "{way:?}");

        let some = start(&network, way, &["--publish", "8001,8004"])?;
        let name = name_in(&some.said[0])?;
        ensure!(some.said[1].contains("port 8001") && name_in(&some.said[1])? == name, "{:?}", some.said);
        network.published(&name)?;
        let hint = some.hears("8004 is published, but")?;
        ensure!(hint.contains("loopback alone") && !hint.contains("8003"), "{hint}");
        let ports = [8001, 8002, 8003, 8004, some.chosen];
        ensure!(heard(&network, way, &name, &ports)? == "8001 refused refused refused refused", "{way:?}");
    }
    Ok(())
}

#[test]
fn what_is_published_is_visited_from_outside_and_the_program_hears_nothing_of_it() -> Result<()> {
    let network = Network::shared()?;
    let run = start(&network, Way::Namespace, &["--publish", "8001,8005:visited", "--publish-or-fail"])?;
    let name = network.address(SERVER, "visited")?;
    let said = run.hears("reachable at")?;
    ensure!(name_in(&said)? == name && !said.contains("not reachable"), "{said}");
    ensure!(
        said.contains("port 8001") && said.contains("port 8005, on which nothing listens for others yet"),
        "{said}"
    );
    // Its own visit of before would have been answered first.
    ensure!(heard(&network, Way::Namespace, &name, &[8001])? == "8001");
    let incoming = network.phantom(SERVER, &["connection", "list"])?;
    let port_8001 = |one: &&serde_json::Value| one["direction"] == "incoming" && one["port"] == 8001;
    let visits = incoming.as_array().context("no list")?.iter().filter(|one| one["identity"] == "visited");
    ensure!(visits.filter(port_8001).count() == 1, "{incoming}");
    Ok(())
}

/// Stands between phantom-run and its daemon, and adds what is to be said to whoever follows: nobody waits five minutes for it.
const RELAY: &str = "
import os, socket, sys, threading
at, daemon, follow, note = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4])
def carry(source, to, heard, said):
    while True:
        data, descriptors, _, _ = socket.recv_fds(source, 65536, 8)
        if not data: break
        heard.extend(data)
        socket.send_fds(to, [data], descriptors) if descriptors else to.sendall(data)
        for one in descriptors: os.close(one)
        if said is not None and follow in said:
            said.clear()
            to.sendall(note)
    try: to.shutdown(socket.SHUT_WR)
    except OSError: pass
listener = socket.socket(socket.AF_UNIX)
listener.bind(at)
listener.listen()
print('listening', flush=True)
while True:
    near, far, asked = listener.accept()[0], socket.socket(socket.AF_UNIX), bytearray()
    far.connect(daemon)
    threading.Thread(target=carry, args=(near, far, asked, None), daemon=True).start()
    threading.Thread(target=carry, args=(far, near, bytearray(), asked), daemon=True).start()
";

#[test]
fn publish_or_fail_ends_the_program_when_nobody_reaches_it_and_otherwise_that_is_said() -> Result<()> {
    let (network, folder) = (Network::shared()?, Folder::new()?);
    network.address(SERVER, "failing")?;
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Whoever runs by a name has a token all the same, which comes last.
    let mut follow = Request::Follow { identity: IdentityRef::Session([0; 16]) }.encode()?;
    follow.truncate(follow.len() - 16);
    let note = Reply::Note(Note::new(About::Unreached, "not reachable at x.phantom: nobody answers")).encode()?;
    let socket = folder.at("relay.sock");
    let mut relay = Command::new("python3");
    relay.args(["-c", RELAY, &socket]).arg(&network.nodes[SERVER].socket).args([hex(follow), hex(note)]);
    let _relay = Server::start_until(relay, "listening")?;
    let run = |options: &[&str], program: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = phantom_run(socket.as_ref(), Way::Namespace);
        command.args(["--identity", "failing", "--publish", "8001"]).args(options).arg("--").args(program);
        let output = command.stdin(Stdio::null()).output()?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    let ended = "phantom-run: not reachable at x.phantom: nobody answers; the program is ended";
    // Longer than all else: that it is over is the proof.
    for options in [&["--publish-or-fail"][..], &["--publish-or-fail", "--quiet"]] {
        let (code, said) = run(options, &["sleep", "200"])?;
        ensure!(code == Some(125) && said.contains(ended), "{options:?}: {code:?}: {said}");
        ensure!(said.lines().count() == 1 || options.len() == 1, "{said}");
    }
    let (code, said) = run(&[], &["true"])?;
    ensure!(code == Some(0) && said.contains("nobody answers") && !said.contains("is ended"), "{code:?}: {said}");
    let (code, said) = run(&["--quiet"], &["true"])?;
    ensure!(code == Some(0) && said.is_empty(), "{code:?}: {said}");
    Ok(())
}

/// Without a launcher the variable says it, and what was said holds for programs that are started, too.
#[test]
fn the_library_alone_publishes_what_the_variable_says() -> Result<()> {
    let network = Network::shared()?;
    let mut command = Command::new("sh");
    command.args(["-c", "exec env -u PHANTOM_PUBLISH python3 -c \"$0\"", SERVER_PROGRAM]);
    command.env("LD_PRELOAD", binary("libphantom.so")).env("PHANTOM_SOCKET", &network.nodes[SERVER].socket);
    command.env("PHANTOM_PUBLISH", "8001:preloaded 8002:other");
    let _server = Server::start_until(command, "listening")?;
    let (name, other) = (network.address(SERVER, "preloaded")?, network.address(SERVER, "other")?);
    network.published(&name)?;
    network.published(&other)?;
    ensure!(heard(&network, Way::Preload, &name, &[8001, 8002])? == "8001 refused");
    ensure!(heard(&network, Way::Preload, &other, &[8001, 8002])? == "refused 8002");
    let mut wrong = Command::new("python3");
    wrong.args(["-c", "import socket; socket.socket()"]).env("LD_PRELOAD", binary("libphantom.so"));
    let wrong = wrong.env("PHANTOM_SOCKET", &network.nodes[SERVER].socket).env("PHANTOM_PUBLISH", "http").output()?;
    let said = String::from_utf8(wrong.stderr)?;
    ensure!(said.contains("PHANTOM_PUBLISH is malformed"), "{said}");
    Ok(())
}

#[test]
fn a_port_at_a_persistent_identity_says_nothing_about_the_program() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let shop = format!("shop-{}", format!("{way:?}").to_lowercase());
        let publish = format!("8001:{shop}");
        let run = start(&network, way, &["--publish", &publish, "--publish", "8002"])?;
        ensure!(run.made.len() == 1 && run.made[0].contains(&shop), "{:?}", run.made);
        let (own, name) = (name_in(&run.said[0])?, name_in(&run.said[1])?);
        ensure!(name == network.address(SERVER, &shop)?, "made under that name: {:?}", run.said);
        ensure!(own != name && name_in(&run.said[2])? == own, "{:?}", run.said);
        network.published(&name)?;
        network.published(&own)?;
        ensure!(heard(&network, way, &name, &[8001, 8002, run.chosen])? == "8001 refused refused", "{way:?}");
        ensure!(heard(&network, way, &own, &[8001, 8002, run.chosen])? == "refused 8002 refused", "{way:?}");
        ensure!(shown(&network, &name)? == (shop.as_str().into(), vec![8001]), "{way:?}");
        ensure!(shown(&network, &own)? == (serde_json::Value::Null, vec![8002]), "{way:?}");

        // The same name and port is not for two; another port is, and so is the identity itself.
        let output = second(&network, way, &["--publish", &publish])?;
        ensure!(output.contains("8001") && output.contains("another program"), "{output}");
        let second = start(&network, way, &["--publish", &format!("8002:{shop}")])?;
        ensure!(heard(&network, way, &name, &[8001, 8002, 8003])? == "8001 8002 refused", "{way:?}");
        drop(second);
        let same = start(&network, way, &["--identity", &shop, "--publish", "all"])?;
        ensure!(name_in(&same.said[0])? == name && same.said[0].contains(&shop), "{:?}", same.said);
        let expected = format!("8001 8002 {}", same.chosen);
        ensure!(heard(&network, way, &name, &[8001, 8002, same.chosen])? == expected, "{way:?}");
        drop(same);

        // It ends with the session, which ends a moment after the launcher, and may be had again.
        drop(run);
        let again = eventually(|| start(&network, way, &["--publish", &publish]))?;
        ensure!(name_in(&again.said[1])? == name && again.made.is_empty(), "{:?} {:?}", again.said, again.made);
        eventually(|| {
            ensure!(heard(&network, way, &name, &[8001])? == "8001", "{way:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// What a start says that must fail, with the options.
fn second(network: &Network, way: Way, options: &[&str]) -> Result<String> {
    let mut command = phantom_run(&network.nodes[SERVER].socket, way);
    let output = command.args(options).args(["--", "true"]).stdin(Stdio::null()).output()?;
    ensure!(output.status.code() == Some(125), "{}", output.status);
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn a_published_port_is_reachable_without_waiting_for_the_listener() -> Result<()> {
    let network = Network::shared()?;
    let mut command = phantom_run(&network.nodes[SERVER].socket, Way::Namespace);
    command.args(["--publish", "8001:early", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let server = Server::from(command.spawn()?);
    eventually(|| {
        network.phantom(SERVER, &["address", "show", "early"])?;
        Ok(())
    })?;
    let name = network.address(SERVER, "early")?;
    network.published(&name)?;
    ensure!(heard(&network, Way::Namespace, &name, &[8001])? == "refused");
    drop(server);
    Ok(())
}

#[test]
fn what_cannot_be_published_is_said() -> Result<()> {
    let network = Network::shared()?;
    for (port, reason) in [
        ("0", "1 to 65535"),
        ("65536", "1 to 65535"),
        ("80,", "1 to 65535"),
        ("http", "1 to 65535"),
        ("80:", "identity"),
        ("80:No Name", "a-z"),
        ("80:localhost", "a-z"),
    ] {
        let said = second(&network, Way::Namespace, &["--publish", port])?;
        ensure!(said.contains(reason), "{port}: {said}");
    }
    let run = |options: &[&str]| -> Result<std::process::Output> {
        let mut command = phantom_run(&network.nodes[CLIENT].socket, Way::Namespace);
        Ok(command.args(options).args(["--", "true"]).stdin(Stdio::null()).output()?)
    };
    let quiet = run(&["--quiet", "--publish", "80"])?;
    ensure!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    // A mistyped name would else last without anybody's knowing.
    for is_new in [true, false] {
        let said = String::from_utf8(run(&["--publish", "80:once"])?.stderr)?;
        ensure!(said.contains("identity once is new, and lasts: `phantom identity remove once`") == is_new, "{said}");
    }
    let nobody = run(&["--identity", "nobody-of-that-name"])?;
    let said = String::from_utf8(nobody.stderr)?;
    ensure!(said.contains("no identity of that name") && said.contains("phantom identity new"), "{said}");
    Ok(())
}

/// X-nodes of the client's own paths that open connections to a port use.
fn ways_to(network: &Network, port: u16) -> Result<Vec<String>> {
    let list = network.phantom(CLIENT, &["connection", "list"])?;
    let list = list.as_array().context("no list")?.iter();
    let open = list.filter(|one| one["direction"] == "outgoing" && one["state"] == "open" && one["port"] == port);
    Ok(open.map(|one| one["own_hops"].to_string()).collect())
}

/// Connects, says so, and stays until its input ends.
const STAY: &str = "
import socket, sys
with socket.create_connection((sys.argv[1], 8001), timeout=60) as c:
    print(c.makefile().read().split()[1], flush=True)
    c = socket.create_connection((sys.argv[1], 8010), timeout=60)
    print('staying', flush=True)
    sys.stdin.read()
";

/// Says on one port who calls, and keeps connections on another.
const KEEP: &str = "
import socket, threading
def serve(listener, keep):
    kept = []
    while True:
        client, peer = listener.accept()
        if keep: kept.append(client); continue
        with client: client.sendall(f'8001 {peer[0]}'.encode())
threading.Thread(target=serve, args=(socket.create_server(('::', 8010), family=socket.AF_INET6), True)).start()
listener = socket.create_server(('::', 8001), family=socket.AF_INET6)
print('listening', flush=True)
serve(listener, False)
";

#[test]
fn fresh_runs_have_nothing_in_common_and_named_ones_stay_who_they_are() -> Result<()> {
    let network = Network::shared()?;
    network.address(CLIENT, "regular")?;
    let (_server, name) = network.serve(Way::Namespace, "witness", &["python3", "-c", KEEP], "listening")?;
    let visit = |identity: Option<&str>| -> Result<(Server, String)> {
        let mut command = network.program(CLIENT, Way::Namespace, identity, &["python3", "-c", STAY, &name]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let server = Server::from(child);
        let who = lines.next().context("it ended")??;
        ensure!(lines.next().context("it ended")?? == "staying");
        Ok((server, who))
    };
    let (_one, first) = visit(None)?;
    let (_other, second) = visit(None)?;
    ensure!(first != second, "two fresh runs have one address");
    let paths = ways_to(&network, 8010)?;
    ensure!(paths.len() == 2, "not two connections: {paths:?}");
    let list = network.phantom(CLIENT, &["path", "list"])?;
    let mut hops: Vec<String> = list
        .as_array()
        .context("no list")?
        .iter()
        .filter(|path| path["kind"] == "exit")
        .map(|path| path["hops"].to_string())
        .collect();
    // Each has a path of its own; that two of them go over the same nodes is rare, and no fault.
    for path in &paths {
        let place = hops.iter().position(|hops| hops == path).with_context(|| format!("{paths:?}: not all of them"))?;
        hops.remove(place);
    }
    let (regular, third) = visit(Some("regular"))?;
    drop(regular);
    let (_regular, fourth) = visit(Some("regular"))?;
    ensure!(third == fourth && third != first && third != second, "a named identity has one address");
    let address = network.phantom(CLIENT, &["address", "show", "regular"])?;
    ensure!(address["address"] == serde_json::Value::String(third), "{address}");
    Ok(())
}
