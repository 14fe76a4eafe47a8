//! `phantom console`: what the daemon does as a page in real browsers, for one user, and what it keeps to itself.
#![allow(missing_docs)]

mod looks;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use phantom_tests::browsers::{Browser, Chromium, Firefox};
use phantom_tests::programs::Folder;
use phantom_tests::scripted::{Scripted, hostile, quiet, twins};
use phantom_tests::{CLIENT, Network, Server, User, Way, binary, signal, stdout, within};
use serde_json::{Value, json};

/// Whose console and browsers these are; copied once.
fn user() -> Result<Arc<User>> {
    static SHARED: Mutex<Weak<User>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(user) = shared.upgrade() {
        return Ok(user);
    }
    let user = Arc::new(User::new()?);
    *shared = Arc::downgrade(&user);
    Ok(user)
}

/// A console, and its link.
struct Console {
    process: Server,
    link: String,
}

impl Console {
    fn start(user: &User, socket: &str, options: &[&str]) -> Result<Self> {
        let mut command = user.tool("phantom");
        command.args(["--json", "--daemon", socket, "console"]).args(options);
        let (process, line) = Server::start_first_line(&mut command)?;
        let said: Value = serde_json::from_str(&line)?;
        Ok(Self { process, link: said["url"].as_str().context("no link")?.to_owned() })
    }

    /// `127.0.0.1:PORT`.
    fn host(&self) -> Result<&str> {
        self.link.split('/').nth(2).context("no host")
    }

    /// The path of the link, and of the page.
    fn paths(&self) -> Result<(String, String)> {
        let path = self.link.splitn(4, '/').nth(3).context("no path")?;
        let (room, _) = path.split_once('/').context("no room")?;
        Ok((format!("/{path}"), format!("/{room}/")))
    }

    /// The answer to a request of some lines, as whoever runs the tests.
    fn asked(&self, lines: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.host()?)?;
        stream.write_all(format!("{lines}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn get(&self, path: &str, more: &str) -> Result<String> {
        self.asked(&format!("GET {path} HTTP/1.1\r\nHost: {}{more}", self.host()?))
    }

    /// Ctrl-C.
    fn end(mut self) -> Result<()> {
        signal(i32::try_from(self.process.id())?, libc::SIGINT);
        ensure!(self.process.wait()?.success(), "Ctrl-C is how it ends");
        ensure!(TcpStream::connect(self.host()?).is_err(), "it is gone");
        Ok(())
    }
}

/// Status and headers of what a link gives, and the cookie.
fn enter(console: &Console) -> Result<String> {
    let (link, page) = console.paths()?;
    let answer = console.get(&link, "\r\nSec-Fetch-Site: none")?;
    ensure!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    ensure!(answer.contains(&format!("location: {page}\r\n")), "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).context("no cookie")?;
    ensure!(cookie.ends_with(&format!("; Path={page}; HttpOnly; SameSite=Strict")), "{cookie}");
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

#[test]
fn a_link_opens_the_page_once_and_for_this_user_alone() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(quiet())?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let (link, page) = console.paths()?;
    let host = console.host()?;
    for (what, request, status) in [
        ("a name that leads here", format!("GET {link} HTTP/1.1\r\nHost: rebound.example"), "403"),
        ("no name", format!("GET {link} HTTP/1.0"), "403"),
        ("a page of others", format!("GET {link} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: cross-site"), "403"),
        ("another origin", format!("GET {link} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://x.example"), "403"),
        ("another method", format!("POST {link} HTTP/1.1\r\nHost: {host}"), "405"),
    ] {
        let answer = console.asked(&request)?;
        ensure!(answer.split(' ').nth(1) == Some(status), "{what}: {answer}");
        ensure!(!answer.contains("set-cookie"), "{what}: {answer}");
    }
    // Too long a head is not read to its end, and its answer may be lost with the rest of it.
    let long = console.get(&link, &format!("\r\nX: {}", "x".repeat(2 << 20))).unwrap_or_default();
    ensure!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    // Nobody hears a stranger, not even with the link.
    let url = &console.link;
    let mut stranger = Command::new("setpriv");
    stranger.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "curl",
        "-sS",
        "-i",
        "--max-time",
        "20",
        url,
    ]);
    let heard = stranger.stderr(Stdio::piped()).output()?;
    ensure!(!heard.status.success() && heard.stdout.is_empty(), "{}", String::from_utf8_lossy(&heard.stdout));
    let own = stdout(
        &user.command("curl").args(["-sS", "--max-time", "20", &format!("http://{}/", console.host()?)]).output()?,
    )?;
    ensure!(own.contains("says where its page is"), "{own}");

    ensure!(console.get(&page, "")?.starts_with("HTTP/1.1 403"), "without a cookie");
    let key = format!("\r\nCookie: {}", enter(&console)?);
    let again = console.get(&link, "")?;
    ensure!(again.starts_with("HTTP/1.1 403") && again.contains("once more in a terminal"), "{again}");
    let whole = console.get(&page, &key)?;
    ensure!(whole.starts_with("HTTP/1.1 200") && whole.contains("default-src 'none'; script-src 'self'"), "{whole}");
    ensure!(!whole.to_lowercase().contains("\ndate:"), "{whole}");
    let state = console.get(&format!("{page}state"), &key)?;
    ensure!(state.contains("\"node_id\""), "{state}");
    ensure!(console.get(&format!("{page}state"), "")?.starts_with("HTTP/1.1 403"), "what it says is for the cookie");
    ensure!(console.get(&format!("{page}state"), &format!("{key}\r\nOrigin: null"))?.starts_with("HTTP/1.1 403"));
    console.end()
}

#[test]
fn at_a_socket_it_is_the_users_alone_and_gone_afterwards() -> Result<()> {
    let (user, daemon, folder) = (user()?, Scripted::start(quiet())?, Folder::new()?);
    let socket = format!("{}/console.sock", folder.make("run")?);
    let mut console = Console::start(&user, &daemon.socket, &["--listen", &format!("unix:{socket}")])?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket)?.permissions());
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let jar = folder.make("jar")? + "/cookies";
    let words = ["-sS", "-L", "-b", &jar, "-c", &jar, "--max-time", "20", "--unix-socket", &socket, &console.link];
    let page = stdout(&user.command("curl").args(words).output()?)?;
    ensure!(page.contains("<title>Phantom</title>"), "{page}");
    signal(i32::try_from(console.process.id())?, libc::SIGTERM);
    ensure!(console.process.wait()?.success());
    ensure!(!std::path::Path::new(&socket).exists(), "it takes its socket away");
    Ok(())
}

#[test]
fn without_a_daemon_or_against_its_will_there_is_no_page() -> Result<()> {
    let (user, folder) = (user()?, Folder::new()?);
    let refused = |socket: &str| -> Result<String> {
        let output = user.tool("phantom").args(["--daemon", socket, "console"]).output()?;
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let said = refused(&folder.at("none.sock"))?;
    ensure!(said.contains("no daemon answers at") && said.contains("was named by --daemon"), "{said}");
    let no = json!({"error": {"message": "only root may ask this daemon, which runs as root", "hint": "use sudo"}});
    let said = refused(&Scripted::start_saying(&no)?.socket)?;
    ensure!(said.contains("only root may ask") && said.contains("use sudo"), "{said}");
    Ok(())
}

/// A daemon that takes a connection and says nothing keeps nobody waiting who wants to end.
#[test]
fn before_there_is_a_page_it_ends_as_it_is_told_to() -> Result<()> {
    let folder = Folder::new()?;
    let socket = folder.at("silent.sock");
    let silent = UnixListener::bind(&socket)?;
    let mut console = Command::new(binary("phantom")).arg("--daemon").arg(&socket).arg("console").spawn()?;
    // It has asked, so it hears signals itself by now.
    let _asked = silent.accept()?;
    signal(console.id().cast_signed(), libc::SIGINT);
    let ended = within(Duration::from_secs(30), || console.try_wait()?.context("it still waits"));
    // It has ended already where all is well.
    let _ = console.kill();
    ensure!(ended?.success(), "an end by Ctrl-C is no failure");
    Ok(())
}

/// Connections without end from another user's programs, which hold each open as long as they can.
const STRANGER: &str = "
import socket, sys
held = []
print('begun', flush=True)
while True:
    try:
        held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60))
    except OSError:
        pass
    del held[:-200]
";

/// Each was looked up in a list of all of the computer's connections, which grew by them, and waited for a place among the browser's.
#[test]
fn strangers_who_connect_without_end_do_not_keep_it_from_its_user() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(quiet())?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let (_, page) = console.paths()?;
    let key = format!("\r\nCookie: {}", enter(&console)?);
    let (host, port) = console.host()?.split_once(':').context("no port")?;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        let mut stranger = Command::new("setpriv");
        let nobody =
            ["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c", STRANGER, host, port];
        stranger.args(nobody);
        strangers.push(Server::start_until(stranger, "begun")?);
    }
    for round in 0..50 {
        let state = console.get(&format!("{page}state"), &key)?;
        ensure!(state.starts_with("HTTP/1.1 200") && state.contains("node_id"), "{round}: {state}");
    }
    drop(strangers);
    console.end()
}

/// Closed, it was opened anew by the runtime, and the link written there.
#[test]
fn a_link_that_nobody_would_see_is_not_given_out() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(quiet())?);
    let phantom = user.tool_path("phantom");
    for nowhere in [">&-", ">/dev/null"] {
        let line = format!("exec {phantom} --daemon {} console {nowhere}", daemon.socket);
        let output = user.command("sh").args(["-c", &line]).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && said.contains("nobody would read the link"), "{nowhere}: {said}");
    }
    Ok(())
}

/// Whoever takes the port of a console that has ended, and says what harms, to whom, and in what words.
struct Successor {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Successor {
    /// As soon as the port is free.
    fn at(host: &str) -> Result<Self> {
        let listener = TcpListener::bind(host)?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut visitor in listener.incoming().flatten() {
                let heard = heard.clone();
                // Each for itself: browsers open connections in advance, on which they say nothing.
                std::thread::spawn(move || {
                    let mut head = [0; 4096];
                    let read = visitor.read(&mut head).unwrap_or_default();
                    if read == 0 {
                        return;
                    }
                    let head = String::from_utf8_lossy(&head[..read]).into_owned();
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                    let body = json!({"at_milliseconds": 1, "lost": "pay to mallory", "daemon": null}).to_string();
                    let proof = "A".repeat(43);
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nPhantom-Proof: {proof}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = visitor.write_all(answer.as_bytes());
                });
            }
        });
        Ok(Self { asked })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A page asks each second; what takes the port in between is asked once, and shows nothing in it.
fn ends_for_good(browser: &mut dyn Browser, console: Console) -> Result<()> {
    browser.until("return document.getElementById('state').dataset.state === 'waiting'")?;
    let host = console.host()?.to_owned();
    console.end()?;
    let successor = Successor::at(&host)?;
    browser.until("return document.getElementById('lost').textContent.includes('open its new link')")?;
    // The page's own timers would have fired before one of this length.
    browser.run("window.quiet = false; setTimeout(() => { window.quiet = true; }, 4000)")?;
    browser.until("return window.quiet")?;
    ensure!(successor.asked().len() <= 1, "{:#?}", successor.asked());
    let text = browser.run("return document.body.innerText")?;
    ensure!(text.as_str().is_some_and(|text| !text.contains("mallory")), "{text}");
    Ok(())
}

#[test]
fn whoever_has_the_port_after_a_console_shows_nothing_in_its_page() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(hostile())?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let mut browser = Chromium::start(&user)?;
    browser.open(&console.link)?;
    ends_for_good(&mut browser, console)?;
    let console = Console::start(&user, &daemon.socket, &[])?;
    let mut browser = Firefox::start(&user, 1280, 900)?;
    browser.open(&console.link)?;
    ends_for_good(&mut browser, console)
}

/// What must be on the page of [`hostile`], in every browser.
fn shows_it_all(browser: &mut dyn Browser) -> Result<()> {
    browser.until("return document.getElementById('state').dataset.state === 'waiting'")?;
    let text = browser.run("return document.body.innerText")?;
    let text = text.as_str().context("no text")?;
    for part in [
        "waiting for a <b>first</b> path",
        "no-path",
        "connections suffer",
        "also because of it: no-tunnel",
        "a first peer: after 1.3 s",
        "shop<script>",
        "80, 443",
        "seen from outside <img",
        "127.0.0.1:8080 (nothing listens there)",
        "2 of 3 <i>keys</i>",
        "192.0.2.0/24 until then",
        "ban 192.0.2.0/24",
        "kept by 12 of 14 asked",
        "and 160 more: phantom connection list",
        "and 20 more: phantom path list",
        "and 108 more in the table",
        "and 100 more: phantom log",
        "</td></tr></table><script>owned = 1</script>",
    ] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    ensure!(!text.contains("min 0 s") && !text.contains("h 0 min"), "what is nothing is said: {text}");
    let harm = browser.run(
        "return {owned: typeof window.owned, scripts: document.scripts.length, images: document.images.length, \
         frames: document.querySelectorAll('iframe, object, embed, form, b, i, a[href^=\"javascript\"]').length, title: document.title}",
    )?;
    let none =
        json!({"owned": "undefined", "scripts": 1, "images": 1, "frames": 0, "title": "Phantom: waiting, 2 warnings"});
    ensure!(harm == none, "{harm}");
    Ok(())
}

#[test]
fn chromium_shows_all_of_it_and_asks_nobody_else() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(hostile())?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let mut browser = Chromium::start(&user)?;
    browser.show_as(1280, 900, "light")?;
    browser.open(&console.link)?;
    shows_it_all(&mut browser)?;
    ensure!(browser.run("return location.pathname")? == console.paths()?.1, "the token is out of sight");
    looks::can_be_read(&mut browser, "light")?;
    looks::reaches_all_by_keyboard(&mut browser)?;
    looks::is_named(&mut browser)?;
    for (width, height, colours) in [(1280, 900, "dark"), (400, 800, "dark"), (400, 800, "light")] {
        browser.show_as(width, height, colours)?;
        looks::can_be_read(&mut browser, colours)?;
        looks::fits(&mut browser)?;
    }
    // The switch is stronger than the system.
    browser.run("document.querySelector('#theme input[value=dark]').click()")?;
    looks::can_be_read(&mut browser, "dark")?;

    // The daemon ends: that is said, and what was shown stays. It comes again: the page goes on by itself.
    let socket = daemon.socket.clone();
    daemon.say(None);
    browser.until("const lost = document.getElementById('lost'); return document.title === 'Phantom: no answer' && !lost.hidden && \
         lost.textContent.startsWith('The daemon does not answer')")?;
    looks::can_be_read(&mut browser, "dark")?;
    ensure!(browser.run("return document.querySelectorAll('#paths-rows tr').length")? == 100);
    daemon.say(Some(quiet()));
    browser.until("return document.getElementById('lost').hidden && document.title === 'Phantom: ready'")?;
    ensure!(daemon.socket == socket && browser.run("return document.querySelectorAll('#paths-rows tr').length")? == 0);
    ensure!(browser.run("return document.getElementById('connections-empty').checkVisibility()")? == Value::Bool(true));
    looks::fits(&mut browser)?;

    let origin = format!("http://{}/", console.host()?);
    let asked = browser.asked();
    ensure!(asked.len() > 5 && asked.iter().all(|url| url.starts_with(&origin)), "{asked:?}");
    ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());

    // The console ends: the page says what to do.
    console.end()?;
    browser.until("return document.getElementById('lost').textContent.includes('open its new link')")
}

#[test]
fn firefox_shows_all_of_it_and_another_browser_nothing() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(hostile())?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let mut browser = Firefox::start(&user, 1280, 900)?;
    browser.open(&console.link)?;
    shows_it_all(&mut browser)?;
    for colours in ["light", "dark"] {
        browser.run(&format!("document.querySelector('#theme input[value={colours}]').click()"))?;
        looks::can_be_read(&mut browser, colours)?;
    }
    looks::fits(&mut browser)?;
    looks::reaches_all_by_keyboard(&mut browser)?;
    let origin = format!("http://{}/", console.host()?);
    let asked = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")?;
    let asked = asked.as_array().context("no list")?;
    ensure!(asked.iter().all(|url| url.as_str().is_some_and(|url| url.starts_with(&origin))), "{asked:?}");
    // The same browser may open its link again, and load the page again.
    browser.open(&console.link)?;
    browser.until("return document.title === 'Phantom: waiting, 2 warnings'")?;

    let mut other = Chromium::start(&user)?;
    other.open(&console.link)?;
    let text = other.run("return document.body.innerText")?;
    ensure!(text.as_str().is_some_and(|text| text.contains("run phantom console once more in a terminal")), "{text}");
    for colours in ["light", "dark"] {
        other.show_as(400, 800, colours)?;
        looks::can_be_read(&mut other, colours)?;
        looks::fits(&mut other)?;
    }
    Ok(())
}

/// One process that says much, slowly, to each visitor.
const SOURCE: &str = "
import socket, time
listener = socket.create_server(('::', 7000), family=socket.AF_INET6)
print('listening', flush=True)
while True:
    visitor, _ = listener.accept()
    try:
        while True:
            visitor.sendall(bytes(20000))
            time.sleep(0.1)
    except OSError:
        visitor.close()
";

#[test]
fn of_two_paths_over_the_same_nodes_the_one_that_carries_is_shown_busy() -> Result<()> {
    let (user, daemon) = (user()?, Scripted::start(twins())?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let mut browser = Chromium::start(&user)?;
    browser.open(&console.link)?;
    browser.until("return document.querySelectorAll('#picture .lane').length === 2")?;
    let busy = "return [...document.querySelectorAll('#picture .what')].filter(text => \
                text.textContent.includes('1 connection')).length";
    browser.until(&busy.replace(".length", ".length === 1"))?;
    console.end()
}

/// A tunnel outlives its path when a node beside it on that is lost: bytes flowed, and nothing moved.
#[test]
fn a_path_that_has_ended_is_drawn_while_a_connection_is_on_it() -> Result<()> {
    let mut answers = twins();
    answers["connections"][0]["own_path"] = "3".into();
    let (user, daemon) = (user()?, Scripted::start(answers)?);
    let console = Console::start(&user, &daemon.socket, &[])?;
    let mut browser = Chromium::start(&user)?;
    browser.open(&console.link)?;
    browser.until(
        "return [...document.querySelectorAll('#picture .lane')].filter(lane => \
         lane.dataset.state === 'ended' && lane.textContent.includes('1 connection')).length === 1",
    )?;
    browser.until("return document.querySelectorAll('#picture .lane').length === 3")?;
    console.end()
}

#[test]
fn paths_of_a_real_daemon_move_while_bytes_flow() -> Result<()> {
    let network = Network::up_as(phantom_tests::NODES, Some(User::new()?))?;
    let (_source, name) = network.serve(Way::Emulate, "source", &["python3", "-c", SOURCE], "listening")?;
    let user = network.user()?;
    let socket = network.nodes[CLIENT].socket.to_str().context("path")?;
    let console = Console::start(user, socket, &[])?;
    let mut browser = Chromium::start(user)?;
    browser.show_as(1280, 900, "light")?;
    browser.open(&console.link)?;
    browser.until("return document.getElementById('state').dataset.state === 'ready'")?;
    let all = phantom_tests::NODES - 1;
    browser.until(&format!("return document.querySelectorAll('#peers-rows tr').length === {all}"))?;
    let moving = "return [...document.querySelectorAll('#picture .flow.in[data-speed]')].filter(flow => \
                  getComputedStyle(flow).animationName === 'inwards').length";
    ensure!(browser.run(moving)? == 0, "nothing flows yet");
    let transfer = network.program(CLIENT, Way::Emulate, None, &["nc", "-d", "-w", "60", &name, "7000"]);
    let mut transfer = Server::start(transfer)?;
    if let Err(error) = browser.until(&moving.replace(".length", ".length === 1")) {
        let page = browser.run("return document.body.innerText")?;
        return Err(error.context(format!("nc is gone: {}; the page says {page}", transfer.is_over()?)));
    }
    browser.until(
        "return [...document.querySelectorAll('#connections-rows td')].some(cell => cell.textContent.endsWith('kB/s'))",
    )?;
    // Who does not want things to move still reads how much flows.
    browser.reduce_motion()?;
    browser.until(&moving.replace(".length", ".length === 0"))?;
    browser.until("return [...document.querySelectorAll('#picture .what')].some(text => / in .*kB.s/.test(' ' + text.textContent))")?;
    drop(transfer);
    browser.until("return document.querySelectorAll('#picture .flow[data-speed]').length === 0")?;
    ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    console.end()
}
