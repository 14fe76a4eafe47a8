//! Real browsers without a window, told what to do: Chromium by the pipe of its debugger, Firefox by Marionette.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::programs::Folder;
use crate::{Server, User, eventually};

/// No browser outlives its test by more: reading from one that says nothing has no limit of its own.
const PATIENCE: [&str; 5] = ["timeout", "-k", "5", "900", "env"];

/// A browser with one page.
pub trait Browser {
    /// Opens a page, and waits until it is loaded.
    fn open(&mut self, url: &str) -> Result<()>;
    /// What the body of a function gives on the page.
    fn run(&mut self, body: &str) -> Result<Value>;
    /// Presses the tabulator key.
    fn tab(&mut self) -> Result<()>;

    /// Waits until the body of a function gives true on the page.
    fn until(&mut self, body: &str) -> Result<()> {
        eventually(|| {
            let now = self.run(body)?;
            ensure!(now == Value::Bool(true), "{now} of {body}");
            Ok(())
        })
    }
}

/// Chromium.
pub struct Chromium {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: String,
    next: u64,
    /// What it told unasked.
    pub events: Vec<Value>,
    _process: Server,
    _home: Folder,
}

impl Chromium {
    /// Starts one as a user.
    pub fn start(user: &User) -> Result<Self> {
        let home = Folder::new()?;
        let profile = home.make("profile")?;
        // Its pipe is at descriptors 3 and 4.
        let script = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        let mut command = user.command(PATIENCE[0]);
        command.args(&PATIENCE[1..]).arg(format!("HOME={profile}")).args(["sh", "-c", script, "sh"]).args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={profile}"),
            "about:blank",
        ]);
        command.env_remove("DISPLAY").env_remove("XDG_RUNTIME_DIR").env_remove("DBUS_SESSION_BUS_ADDRESS");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
        let mut browser = Self {
            input,
            output: BufReader::new(output),
            session: String::new(),
            next: 1,
            events: Vec::new(),
            _process: Server::from(child),
            _home: home,
        };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}))?["targetId"].clone();
        let attached = browser.ask("Target.attachToTarget", &json!({"targetId": target, "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.ask(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// One question of the debugger's protocol.
    pub fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        let mut question = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            question["sessionId"] = Value::from(self.session.clone());
        }
        self.input.write_all(format!("{question}\0").as_bytes())?;
        loop {
            let said = self.hear()?;
            if said["id"] == id {
                ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
                return Ok(said["result"].clone());
            }
            self.events.push(said);
        }
    }

    fn hear(&mut self) -> Result<Value> {
        let mut message = Vec::new();
        self.output.read_until(0, &mut message)?;
        ensure!(message.pop() == Some(0), "the browser has ended");
        Ok(serde_json::from_slice(&message)?)
    }

    /// Addresses that it asked for something.
    pub fn asked(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// What went wrong on the page: exceptions, errors and warnings of the console.
    pub fn complaints(&self) -> Vec<&Value> {
        let names = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        self.events.iter().filter(|event| names.iter().any(|name| event["method"] == *name)).collect()
    }

    /// How the page is shown: width, height, and the system's colours.
    pub fn show_as(&mut self, width: u32, height: u32, colours: &str) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", &size)?;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": colours}]});
        self.ask("Emulation.setEmulatedMedia", &features)?;
        Ok(())
    }

    /// Whether the system wants things to move.
    pub fn reduce_motion(&mut self) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]});
        self.ask("Emulation.setEmulatedMedia", &features)?;
        Ok(())
    }
}

impl Browser for Chromium {
    fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.ask("Page.navigate", &json!({"url": url}))?;
        ensure!(opened["errorText"].is_null(), "{opened}");
        eventually(|| {
            let state = self.run("return document.readyState === 'complete' && location.href !== 'about:blank'")?;
            ensure!(state == Value::Bool(true), "not loaded");
            Ok(())
        })
    }

    fn run(&mut self, body: &str) -> Result<Value> {
        let expression = format!("(() => {{ {body} }})()");
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.ask("Runtime.evaluate", &params)?;
        ensure!(result["exceptionDetails"].is_null(), "{result}");
        Ok(result["result"]["value"].clone())
    }

    fn tab(&mut self) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9});
            self.ask("Input.dispatchKeyEvent", &key)?;
        }
        Ok(())
    }
}

/// Firefox.
pub struct Firefox {
    stream: BufReader<TcpStream>,
    next: u64,
    _process: Server,
    _home: Folder,
}

impl Firefox {
    /// Starts one as a user, with a window of that size.
    pub fn start(user: &User, width: u32, height: u32) -> Result<Self> {
        let home = Folder::new()?;
        let profile = home.make("profile")?;
        // Any free port; it writes down which.
        home.write("profile/user.js", "user_pref(\"marionette.port\", 0);\n")?;
        let mut command = user.command(PATIENCE[0]);
        command.args(&PATIENCE[1..]).arg(format!("HOME={profile}")).args([
            "firefox-esr",
            "--new-instance",
            "--headless",
            "--marionette",
            "--width",
            &width.to_string(),
            "--height",
            &height.to_string(),
            "--profile",
            &profile,
        ]);
        command.env_remove("DISPLAY").env_remove("XDG_RUNTIME_DIR").env_remove("DBUS_SESSION_BUS_ADDRESS");
        let process = Server::from(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let port: PathBuf = Path::new(&profile).join("MarionetteActivePort");
        let stream = eventually(|| {
            let port: u16 = std::fs::read_to_string(&port)?.trim().parse()?;
            Ok(TcpStream::connect(("127.0.0.1", port))?)
        })?;
        let mut browser = Self { stream: BufReader::new(stream), next: 1, _process: process, _home: home };
        browser.hear().context("no greeting")?;
        browser.ask("WebDriver:NewSession", &json!({}))?;
        Ok(browser)
    }

    /// One question of Marionette's protocol.
    pub fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        let question = json!([0, id, method, params]).to_string();
        self.stream.get_mut().write_all(format!("{}:{question}", question.len()).as_bytes())?;
        let answer = self.hear()?;
        ensure!(answer[1] == id, "{method} was answered {answer}");
        ensure!(answer[2].is_null(), "{method}: {}", answer[2]);
        Ok(answer[3].clone())
    }

    fn hear(&mut self) -> Result<Value> {
        let mut length = Vec::new();
        self.stream.read_until(b':', &mut length)?;
        let Some((b':', digits)) = length.split_last() else { bail!("the browser has ended") };
        let mut message = vec![0; std::str::from_utf8(digits)?.parse()?];
        self.stream.read_exact(&mut message)?;
        Ok(serde_json::from_slice(&message)?)
    }
}

impl Browser for Firefox {
    fn open(&mut self, url: &str) -> Result<()> {
        self.ask("WebDriver:Navigate", &json!({"url": url})).map(drop)
    }

    fn run(&mut self, body: &str) -> Result<Value> {
        Ok(self.ask("WebDriver:ExecuteScript", &json!({"script": body, "args": []}))?["value"].clone())
    }

    fn tab(&mut self) -> Result<()> {
        let key = |kind: &str| json!({"type": kind, "value": "\u{e004}"});
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": [key("keyDown"), key("keyUp")]}]});
        self.ask("WebDriver:PerformActions", &actions).map(drop)
    }
}
