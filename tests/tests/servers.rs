//! Servers work as Debian ships them, in every way: nginx, Apache, Redis, rsync, sshd with all its forwarding, git daemon.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, Ssh, prepare, words};
use phantom_tests::{CLIENT, Network, SERVER, Server, Way, pattern, stdout};

/// Bytes of a transfer: many cells, windows and TLS records, and still quick in a debug build.
const SIZE: usize = 1_000_000;

/// curl with what it must never do without here.
const CURL: [&str; 4] = ["curl", "-sSf", "-m", "80"];

/// The command line of curl.
fn curl<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    CURL.into_iter().chain(arguments.iter().copied()).collect()
}

/// Runs a program of the client with something on its standard input.
fn feed(network: &Network, way: Way, program: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = network.program(CLIENT, way, None, program);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let input = input.to_owned();
    // Whoever writes on while nobody reads would wait for ever.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output)
}

/// Workers that gave root up, epoll, sendfile, both families, and one address in front of another.
#[test]
fn nginx() -> Result<()> {
    let network = Network::shared()?;
    // Where workers that gave root up ask for sockets.
    network.open_to_all(SERVER)?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        folder.make("www")?;
        folder.write("www/file", pattern(SIZE))?;
        folder.make("behind")?;
        folder.write("behind/page", pattern(SIZE))?;
        let python = ["python3", "-u", "-m", "http.server", "80", "--directory", &folder.at("behind")];
        let (_behind, behind) = network.serve(way, "nginx-behind", &python, "Serving")?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {};\n", folder.at(what)))
            .collect();
        let config = format!(
            "daemon off; pid {pid}; error_log stderr notice; worker_processes 3; user www-data;
             events {{ use epoll; }}
             http {{
                 {temporary} access_log {log}; sendfile on; tcp_nopush on; keepalive_timeout 60;
                 server {{
                     listen 80; listen [::]:80 ipv6only=on; root {www};
                     location /behind/ {{ proxy_pass http://{behind}/; }}
                     location /put/ {{ root {put}; dav_methods PUT; create_full_put_path on; client_max_body_size 8m; }}
                 }}
             }}",
            pid = folder.at("pid"),
            log = folder.at("access"),
            www = folder.at("www"),
            put = folder.make("dav")?,
        );
        let config = folder.write("nginx.conf", config)?;
        let line = ["sh", "-c", &format!("exec /usr/sbin/nginx -e stderr -c {config} 2>&1")];
        let (_server, name) = network.serve(way, "nginx", &line, "start worker process ")?;
        let url = format!("http://{name}/file");
        let [first, second, third] = ["first", "second", "third"].map(|name| folder.at(name));
        let counts = ["-w", "%{num_connects} ", "-o", &first, &url, "-o", &second, &url];
        let said = network.run(way, &curl(&counts))?;
        ensure!(said == "1 0 ", "not one kept connection but {said:?} by {way:?}");
        network.run(way, &curl(&["-4", "-o", &third, &url]))?;
        for name in ["first", "second", "third"] {
            folder.expect_pattern(name, SIZE)?;
        }
        network.run(way, &curl(&["-T", &folder.at("www/file"), &format!("http://{name}/put/file")]))?;
        folder.expect_pattern("dav/put/file", SIZE)?;
        network.run(way, &curl(&["-o", &first, &format!("http://{name}/behind/page")]))?;
        folder.expect_pattern("first", SIZE)?;
        // Each client is seen as an address of its own.
        let log = fs::read_to_string(folder.at("access"))?;
        ensure!(log.lines().count() == 5 && log.lines().all(|line| line.starts_with("fd")), "{log}");
    }
    Ok(())
}

/// The event model, with threads that gave root up.
#[test]
fn apache() -> Result<()> {
    let network = Network::shared()?;
    // Where workers that gave root up ask for sockets.
    network.open_to_all(SERVER)?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        folder.make("www")?;
        folder.write("www/file", pattern(SIZE))?;
        let modules: String = ["mpm_event", "authz_core", "dir"]
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
        let config = format!(
            "{modules} ServerRoot {root}\n PidFile {pid}\n Listen 80\n ServerName localhost\n User www-data\n
             Group www-data\n ErrorLog /dev/stdout\n LogLevel info\n DocumentRoot {www}\n Mutex pthread\n
             StartServers 2\n ThreadsPerChild 8\n MaxRequestWorkers 16\n",
            root = folder.at("."),
            pid = folder.at("pid"),
            www = folder.at("www"),
        );
        let config = folder.write("apache.conf", config)?;
        let line = ["/usr/sbin/apache2", "-f", &config, "-E", "/dev/stdout", "-DFOREGROUND"];
        let (_server, name) = network.serve(way, "apache", &line, "resuming normal operations")?;
        let url = format!("http://{name}/file");
        let names: Vec<_> = (0..4).map(|number| format!("got-{number}")).collect();
        let paths: Vec<_> = names.iter().map(|name| folder.at(name)).collect();
        let mut arguments = vec!["--parallel", "--parallel-immediate"];
        for path in &paths {
            arguments.extend(["-o", path, &url]);
        }
        network.run(way, &curl(&arguments))?;
        for name in &names {
            folder.expect_pattern(name, SIZE)?;
        }
    }
    Ok(())
}

/// A pipeline of a thousand commands, values of a megabyte, and news from one client to another.
#[test]
fn redis() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let line = [
            "redis-server",
            "--port",
            "6379",
            "--bind",
            "*",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            &folder.at("."),
        ];
        let (_server, name) = network.serve(way, "redis", &line, "Ready to accept connections")?;
        let cli = ["redis-cli", "-h", &name];
        let with = |more: &[&'static str]| -> Vec<&str> { cli.iter().copied().chain(more.iter().copied()).collect() };

        let commands: String = (0..1000).map(|number| format!("SET key:{number} value:{number}\r\n")).collect();
        let output = feed(&network, way, &with(&["--pipe"]), commands.as_bytes())?;
        ensure!(stdout(&output)?.contains("errors: 0, replies: 1000"), "{output:?} by {way:?}");
        ensure!(network.run(way, &with(&["GET", "key:999"]))? == "value:999\n");

        let output = feed(&network, way, &with(&["-x", "SET", "big"]), &pattern(SIZE))?;
        ensure!(stdout(&output)? == "OK\n");
        let big = network.program(CLIENT, way, None, &with(&["GET", "big"])).output()?;
        ensure!(big.stdout == [&pattern(SIZE)[..], b"\n"].concat(), "another value by {way:?}");

        let mut hear = network.program(CLIENT, way, None, &with(&["--csv", "SUBSCRIBE", "news"]));
        let subscriber = Server::start_heard(&mut hear, "subscribe")?;
        ensure!(network.run(way, &with(&["PUBLISH", "news", "over there"]))? == "1\n", "nobody hears by {way:?}");
        subscriber.hears("over there").with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

/// As its own daemon, both ways, and through ssh.
#[test]
fn rsync() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let tree = folder.make("tree")?;
        folder.make("tree/below")?;
        folder.write("tree/file", pattern(SIZE))?;
        folder.write("tree/below/other", pattern(SIZE / 10))?;
        let config = format!(
            "use chroot = no\npid file = {}\n[tree]\npath = {tree}\nread only = no\nuid = root\ngid = root\n",
            folder.at("pid")
        );
        let config = folder.write("rsyncd.conf", config)?;
        let line = ["rsync", "--daemon", "--no-detach", "--log-file=/dev/stdout", "--config", &config];
        let (_server, name) = network.serve(way, "rsync", &line, "listening on port 873")?;
        let rsync = |more: &[&str]| {
            let line: Vec<_> = ["rsync", "-a", "--timeout=80"].into_iter().chain(more.iter().copied()).collect();
            network.run(way, &line)
        };
        rsync(&[&format!("rsync://{name}/tree/"), &folder.at("pulled")])?;
        folder.expect_pattern("pulled/file", SIZE)?;
        folder.expect_pattern("pulled/below/other", SIZE / 10)?;
        folder.write("pushed", pattern(SIZE + 8))?;
        rsync(&[&folder.at("pushed"), &format!("rsync://{name}/tree/")])?;
        folder.expect_pattern("tree/pushed", SIZE + 8)?;

        let ssh = Ssh::new(&folder.path())?;
        let (_sshd, name) = network.serve(way, "rsync-ssh", &words(&ssh.server()), "listening")?;
        let shell = ssh.client("ssh", &[]).join(" ");
        rsync(&["-e", &shell, &format!("{}@{name}:{tree}/", ssh.user), &folder.at("by-ssh")])?;
        folder.expect_pattern("by-ssh/file", SIZE)?;
    }
    Ok(())
}

/// -L, -R and -D over one connection, and sftp.
#[test]
fn sshd_forwards_ports() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        folder.make("www")?;
        folder.write("www/file", pattern(SIZE))?;
        let python = ["python3", "-u", "-m", "http.server", "80", "--directory", &folder.at("www")];
        let (_third, third) = network.serve(way, "third", &python, "Serving")?;
        let ssh = Ssh::new(&folder.path())?;
        let (_sshd, name) = network.serve(way, "forwarder", &words(&ssh.server()), "listening")?;
        let there = format!("{}@{name}", ssh.user);

        // All of it inside the client's network: forwarded ports, their users, and what is behind -R.
        let to_third = format!("7010:{third}:80");
        let tunnel = ssh
            .client(
                "ssh",
                &["-o", "ExitOnForwardFailure=yes", "-L", &to_third, "-D", "7011", "-R", "7012:127.0.0.1:7013"],
            )
            .join(" ");
        let [left, socks, right] = ["left", "socks", "right"].map(|name| folder.at(name));
        let curl = CURL.join(" ");
        let script = format!(
            "set -e
             mkfifo {fifo}
             python3 -u -m http.server 7013 --bind 127.0.0.1 --directory {www} >{fifo} & python=$!
             trap 'kill $python' EXIT
             grep -q -m1 Serving {fifo}
             {tunnel} -f -N -M -S {control} {there}
             {curl} -o {left} http://127.0.0.1:7010/file
             {curl} -x socks5h://127.0.0.1:7011 -o {socks} http://{third}/file
             ssh -S {control} {there} {curl} http://127.0.0.1:7012/file >{right}
             ssh -S {control} -O exit {there}",
            fifo = folder.at("fifo"),
            www = folder.at("www"),
            control = folder.at("control"),
        );
        network.run(way, &["bash", "-c", &script])?;
        for name in ["left", "socks", "right"] {
            folder.expect_pattern(name, SIZE).with_context(|| format!("{way:?}"))?;
        }

        let batch = format!(
            "put {} {}\nget {} {}\n",
            folder.at("www/file"),
            folder.at("put"),
            folder.at("www/file"),
            folder.at("got")
        );
        let batch = folder.write("batch", batch)?;
        network.run(way, &ssh.client("sftp", &["-q", "-b", &batch, &there]))?;
        folder.expect_pattern("put", SIZE)?;
        folder.expect_pattern("got", SIZE)?;
    }
    Ok(())
}

/// The smart protocol over git://, with a push.
#[test]
fn git_daemon() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            prepare(git.args(identity).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null"))
        };
        let (work, bare) = (folder.at("work"), folder.at("repo.git"));
        git(&["init", "-q", &work])?;
        folder.write("work/file", pattern(SIZE))?;
        git(&["-C", &work, "add", "file"])?;
        git(&["-C", &work, "commit", "-q", "-m", "a file"])?;
        git(&["clone", "-q", "--bare", &work, &bare])?;
        let base = format!("--base-path={}", folder.at("."));
        let script = format!("exec git daemon --verbose --export-all --enable=receive-pack --reuseaddr {base} 2>&1");
        let (_server, name) = network.serve(way, "git-daemon", &["sh", "-c", &script], "Ready to rumble")?;
        let (url, clone) = (format!("git://{name}/repo.git"), folder.at("clone"));
        network.run(way, &["git", "clone", "-q", &url, &clone])?;
        folder.expect_pattern("clone/file", SIZE)?;
        folder.write("clone/more", pattern(SIZE / 2))?;
        git(&["-C", &clone, "add", "more"])?;
        git(&["-C", &clone, "commit", "-q", "-m", "more"])?;
        network.run(way, &["git", "-C", &clone, "push", "-q", "origin", "main"])?;
        ensure!(git(&["-C", &bare, "rev-parse", "main"])? == git(&["-C", &clone, "rev-parse", "HEAD"])?, "{way:?}");
    }
    Ok(())
}
