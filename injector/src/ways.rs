//! The ways to hand a program over, strongest first, and how each is got ready.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use phantom_ipc::ENV_PATHLESS_SOCKET;
use phantom_ipc::hook::{About, IdentityRef, Note, Reply, Request};
use rustix::process::Pid;

use crate::activation::Listener;
use crate::apart::Walls;
use crate::control::{Contact, Line, Namespaces, Session, Wanted};
use crate::deputies::{Hidden, Masked};
use crate::exposed::Laid;
use crate::filter::{self, Doors};
use crate::likeness::Model;
use crate::link::{Kept, Spaces};
use crate::local::{self, Port};
use crate::mounts::{Seen, View};
use crate::notes::Notes;
use crate::options::{Isolation, OnLoss, Options};
use crate::process::Ways;
use crate::program_socket::ProgramSocket;
use crate::resolver::{self, StandIn};
use crate::resume::{Heirloom, PassedOn};
use crate::supervise::{self, Workshop};
use crate::twins::Twins;
use crate::{
    activation, crashes, deputies, enclose, execute, exposed, host, isolate, named_folders, own_names, pathless_socket,
    place, preload, proxies, run_folder, seccomp, secrets, service, services, stdio,
};

/// How the program is kept from other networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Inside the phantom namespace.
    Namespace,
    /// A supervisor answers `socket()`.
    Inject,
    /// libphantom.so asks for sockets, a filter refuses all others.
    Preload,
    /// The same, and the daemon emulates the sockets.
    Emulate,
}

/// A way as it is tried.
#[derive(Debug, Clone, Copy)]
struct Way {
    how: How,
    walls: Walls,
}

impl How {
    /// Whether libphantom.so does it, and asks the daemon.
    fn is_hooked(self) -> bool {
        matches!(self, Self::Preload | Self::Emulate)
    }
}

/// What `--isolation` needs of the daemon.
pub(crate) fn wanted(isolation: Isolation) -> Wanted {
    match isolation {
        Isolation::Auto => Wanted::SpacesIfPossible,
        Isolation::Emulate => Wanted::None,
        Isolation::Namespace | Isolation::Inject | Isolation::Preload => Wanted::Spaces,
    }
}

/// What `--isolation` stands for, in the order of trying. Without walls deputies can be reached, so those come after.
/// Emulation leaks no more than preloading, but is not all that TCP is: only for where no phantom namespace can be.
fn order(isolation: Isolation, has_spaces: bool) -> Vec<Way> {
    let both = |how| [Way { how, walls: Walls::Own }, Way { how, walls: Walls::None }];
    let namespace = [Way { how: How::Namespace, walls: Walls::Own }];
    match isolation {
        Isolation::Namespace => namespace.to_vec(),
        Isolation::Inject => both(How::Inject).to_vec(),
        Isolation::Preload => both(How::Preload).to_vec(),
        Isolation::Emulate => both(How::Emulate).to_vec(),
        Isolation::Auto if !has_spaces => both(How::Emulate).to_vec(),
        Isolation::Auto => [&namespace[..], &both(How::Inject), &both(How::Preload)].concat(),
    }
}

/// Everything that a way needs.
pub(crate) struct Launch<'a> {
    options: &'a Options,
    contact: Contact,
    session: &'a Session,
    order: Vec<Way>,
    /// Ports of the host that the program may reach.
    ports: &'a [Port],
    /// Answers name questions on loopback, where the program sees the host's settings.
    resolver: Mutex<Option<StandIn>>,
    /// Whether the program sees the system's resolv.conf, though another was laid over it.
    is_exposed: Arc<AtomicBool>,
    /// Whether somebody answers questions on loopback already.
    is_answered: Arc<AtomicBool>,
    /// What is left for the next daemon.
    heirloom: Heirloom,
    /// Folders of the program's own, which the keeper keeps like the system's.
    twins: Twins,
    /// Sockets at which others listen, and those of them that the program may use.
    services: Vec<PathBuf>,
    allowed: Vec<PathBuf>,
    /// Folders of daemons' keys.
    secrets: Vec<PathBuf>,
    /// The computer's name, and the number that the program sees in the place of its.
    name: String,
    number: String,
    /// Before any fork: whom a service manager knows.
    front: u32,
    /// Why ways could not be had, as the keeper heard.
    reasons: Mutex<Vec<String>>,
}

impl<'a> Launch<'a> {
    /// All that `options` permit.
    pub(crate) fn new(options: &'a Options, contact: Contact, session: &'a Session, ports: &'a [Port]) -> Result<Self> {
        let order = order(options.isolation, session.spaces.is_some());
        let reasons = session.why_no_spaces.iter().map(|why| format!("namespace, inject, preload: {why}")).collect();
        let mut launch = Self {
            options,
            contact,
            session,
            order,
            ports,
            resolver: Mutex::default(),
            is_exposed: Arc::default(),
            is_answered: Arc::default(),
            heirloom: Heirloom::default(),
            twins: Twins::default(),
            services: Vec::new(),
            allowed: options
                .allow_socket
                .iter()
                .flat_map(|path| [fs::canonicalize(path), absolute(path)])
                .flatten()
                .collect(),
            secrets: Vec::new(),
            name: host::name().to_string_lossy().into_owned(),
            number: host::number()?,
            front: std::process::id(),
            reasons: Mutex::new(reasons),
        };
        // Allowed all the same: it may come later.
        for path in options.allow_socket.iter().filter(|path| !options.quiet && !is_socket(path)) {
            eprintln!(
                "phantom-run: {} is no socket now: is its name right? the program reaches it as soon as it is one",
                path.display()
            );
        }
        // In the network that they are in.
        launch.services = services::listening().unwrap_or_else(|error| {
            eprintln!("phantom-run: warning: services at places that are not known stay within reach: {error}");
            Vec::new()
        });
        launch.secrets = secrets::to_hide(session.line.try_clone().ok(), &launch.services, options.quiet);
        for folder in &named_folders::found(&deputies::runtimes()).crowded {
            let folder = crate::say::path(folder);
            launch.say(&format!("{folder} and its like are too many: there only what listens now is masked"));
        }
        session.why_no_spaces.iter().for_each(|why| launch.say(&format!("not by namespace, inject or preload: {why}")));
        Ok(launch)
    }

    fn say(&self, step: &str) {
        if self.options.explain {
            eprintln!("phantom-run: {step}");
        }
    }

    fn spaces(&self) -> Result<&Namespaces> {
        self.session.spaces.as_ref().context("there is no phantom namespace")
    }

    fn program_socket(&self) -> ProgramSocket<'_> {
        ProgramSocket { line: &self.session.line, identity: &self.session.identity }
    }

    fn masked(&self, way: Way) -> Masked<'_> {
        let daemon = self.contact.socket.clone();
        match way {
            Way { how, walls: Walls::Own } if how.is_hooked() => Masked::Through(daemon, self.program_socket()),
            // Without mounts of its own a program reaches the daemon's own socket.
            Way { how, .. } if how.is_hooked() => Masked::AllBut(daemon),
            _ => Masked::All(daemon),
        }
    }

    fn hidden(&self, way: Way) -> Hidden<'_> {
        Hidden { masked: self.masked(way), services: &self.services, allowed: &self.allowed }
    }

    fn view(&self, way: Way) -> View<'_> {
        let (hidden, twins) = (self.hidden(way), self.twins.paths());
        View { hidden, secrets: &self.secrets, shows_host: self.options.show_host, number: &self.number, twins }
    }

    fn make_twins(&self, way: Way) -> Result<()> {
        if way.walls == Walls::Own {
            let deputies = deputies::known_places(&self.hidden(way))?;
            self.twins.make(run_folder::to_be_twinned(), &deputies, &|folder, error| self.complain(folder, error));
        }
        Ok(())
    }

    fn complain(&self, folder: &Path, error: &io::Error) {
        let folder = crate::say::path(folder);
        // Others' folders, of which a user's environment may still speak.
        if error.kind() == ErrorKind::PermissionDenied || self.options.quiet {
            self.say(&format!("{folder} is not shared with the system: {error}"));
            return;
        }
        let is_at_limit = error.raw_os_error() == Some(libc::EMFILE);
        let advice = if is_at_limit { " (see fs.inotify.max_user_instances)" } else { "" };
        eprintln!("phantom-run: warning: what the program makes in {folder} is its own alone: {error}{advice}");
    }

    /// Whether names are asked of a resolver on loopback, which nobody else there answers.
    fn needs_resolver(&self, way: Way) -> bool {
        match way {
            // Emulated sockets do not reach it: there is no UDP. The library needs none.
            Way { how, .. } if how.is_hooked() => way.walls == Walls::None && self.session.spaces.is_some(),
            Way { walls: Walls::None, .. } => true,
            // There is no file to lay ours over, and then resolvers ask on loopback.
            _ => !Path::new("/etc/resolv.conf").exists(),
        }
    }

    /// Namespaces, descriptors, privileges: what comes before a filter.
    fn surround(&self, way: Way) -> Result<Doors> {
        let say = |step: &str| self.say(step);
        let mut doors = Doors::Shut;
        match way {
            Way { how: How::Namespace, .. } => doors = isolate::enter(self.spaces()?, &self.view(way), &say)?,
            Way { how: How::Inject, walls: Walls::Own } => {
                // The daemon's socket is out of sight once the mounts are the program's.
                let model = self.model();
                doors = enclose::enter(&self.view(way), &say)?;
                // Without it programs work, and hear from the kernel that there is no such interface.
                if let Err(error) = model.and_then(|model| Ok(model.make()?)) {
                    say(&format!("no likeness of the phantom interface for local sockets: {error:#}"));
                }
            }
            Way { walls: Walls::Own, .. } => doors = enclose::enter(&self.view(way), &say)?,
            Way { walls: Walls::None, .. } => self.warn_of_deputies(way)?,
        }
        Ok(doors)
    }

    /// In the place of what a service manager passed; emulated ones cannot be handed to a program before it runs.
    fn listeners(&self, way: Way) -> Vec<Listener> {
        let passed = service::of_networks(self.front.cast_signed());
        if passed.is_empty() || way.how == How::Emulate {
            return Vec::new();
        }
        activation::renew(&passed, &self.contact, &self.session.identity).unwrap_or_else(|error| {
            eprintln!("phantom-run: no listeners of the identity in the place of those passed: {error:#}");
            Vec::new()
        })
    }

    fn model(&self) -> Result<Model> {
        Model::of(&mut Line::open(&self.contact.socket)?, &self.session.identity)
    }

    fn warn_of_deputies(&self, way: Way) -> Result<()> {
        let known = deputies::deputies(&Hidden { services: &[], ..self.hidden(way) })?;
        let more = deputies::deputies(&self.hidden(way))?.len() - known.len();
        if known.len() + more > 0 && !self.options.quiet {
            let names = known.iter().map(|path| crate::say::path(path));
            let names: Vec<String> = names.chain((more > 0).then(|| format!("{more} more that listen here"))).collect();
            // The last way that was tried is the same with mounts.
            let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            let why = reasons.last().map_or("none can be made", String::as_str);
            eprintln!(
                "phantom-run: warning: no mounts of its own for the program ({why}): it can ask services outside to look \
                 names up or open connections: {}",
                names.join(", ")
            );
        }
        Ok(())
    }

    fn announce(&self, way: Way) {
        let how = match (way.how, way.walls) {
            (How::Namespace, _) => "in a namespace of its own",
            (How::Inject, Walls::Own) => "with injected sockets",
            (How::Preload, Walls::Own) => "by preloading, with a filter: static programs have no network",
            (How::Inject, Walls::None) => "with injected sockets, among your other programs",
            (How::Emulate, Walls::Own) => {
                "with emulated sockets: static programs have no network, there is no UDP, details of TCP are missing"
            }
            (How::Emulate, Walls::None) => {
                "with emulated sockets, among your other programs: static programs have no network, there is no UDP, \
                 details of TCP are missing"
            }
            (How::Preload, Walls::None) => {
                "by preloading, with a filter, among your other programs: static programs have no network"
            }
        };
        if !self.options.quiet {
            eprintln!("phantom-run: {}; {how}", self.session.who);
            // Each was said at its time to whoever asked for that.
            if !self.options.explain {
                let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
                reasons.iter().for_each(|reason| eprintln!("phantom-run: not by {reason}"));
            }
            for port in &self.session.published {
                eprintln!("phantom-run: {port}");
            }
            for hint in proxies::hints(&self.options.allow_local, way.how != How::Emulate) {
                eprintln!("phantom-run: {hint}");
            }
            for hint in execute::hints(&self.options.command[0], way.how.is_hooked(), way.how != How::Namespace) {
                eprintln!("phantom-run: {hint}");
            }
        }
    }
}

impl Launch<'_> {
    /// Sees to it that what was laid over files stays there; else somebody is to answer where the program may send its questions.
    fn watch(&self, way: Way, program: Pid, spaces: Spaces, has_no_resolver: bool) -> io::Result<()> {
        let (contact, is_exposed) = (self.contact.clone(), Arc::clone(&self.is_exposed));
        let is_answered = Arc::clone(&self.is_answered);
        let (name, number) = (self.name.clone(), self.number.clone());
        let seen = Seen { name, is_hidden: !self.options.show_host, number };
        let own: Vec<PathBuf> = run_folder::of_the_programs(&self.twins.paths()).collect();
        // Without the list of mounts, which is read anew each time, files are laid anew all the same.
        let sockets = deputies::awaited(&self.hidden(way), &own).unwrap_or_default();
        exposed::watch(program, Laid { spaces, seen, sockets }, move || {
            if has_no_resolver {
                is_exposed.store(true, Ordering::Release);
                // Without a daemon there are no names; the next one is asked for them again.
                if resolver::open_anew(&contact).and_then(|stand_in| Ok(resolver::serve(&stand_in)?)).is_ok() {
                    is_answered.store(true, Ordering::Release);
                }
            }
        })
    }

    /// Adds to the command what the library needs, in the mounts as they are to be.
    fn prepare_hook(&self, command: &mut Command, library: PathBuf, way: Way) {
        let mut contact = Contact { identity: self.session.identity.clone(), ..self.contact.clone() };
        let mut files = [library, contact.socket];
        if way.walls == Walls::Own {
            files = place::reachable(files, &|step| self.say(step));
        }
        let library;
        [library, contact.socket] = files;
        preload::prepare(command, &library, &contact, way.how == How::Emulate);
    }
}

impl Ways for Launch<'_> {
    fn count(&self) -> usize {
        self.order.len()
    }

    fn start(&self, way: usize, ready: &dyn Fn(Option<OwnedFd>) -> Result<()>) -> Result<i32> {
        let way = self.order[way];
        let name = &self.options.command[0];
        let mut command = Command::new(name);
        command.args(&self.options.command[1..]);
        let (variable, domain) = own_names::variable();
        command.env(variable, domain);
        let library = if way.how.is_hooked() { Some(preload::library()?) } else { None };
        // As long as name and settings can be had, and the descriptors are there.
        let (host, hands_crashes_out) = (host::name(), crashes::are_handed_out());
        let mut listeners = self.listeners(way);
        let about_sockets = service::correct(&mut command, self.front.cast_signed(), &listeners);
        if about_sockets.is_some() {
            listeners.clear();
        }
        let doors = self.surround(way)?;
        if !self.options.show_host {
            command.envs(host::addresses());
            // What the system itself tells need not be hidden here.
            if way.walls == Walls::Own {
                command.envs(host::variables(&host)).env_remove(host::SESSION);
            }
        }
        if let Some(library) = library {
            self.prepare_hook(&mut command, library, way);
        }
        if !hands_crashes_out {
            crashes::keep_to_come();
        } else if let Err(error) = crashes::keep() {
            self.say(&format!("should the program crash, whoever core_pattern names is told of it outside: {error}"));
        }
        isolate::give_up_the_rest(way.walls, doors, hands_crashes_out, &|step| self.say(step))?;
        listeners.into_iter().try_for_each(Listener::place).context("placing listeners for the program")?;
        let mut to_keep = None;
        if way.how.is_hooked() && way.walls == Walls::Own {
            let (name, listener) = pathless_socket::open(self.program_socket())?;
            command.env(ENV_PATHLESS_SOCKET, name);
            to_keep = Some(OwnedFd::from(listener));
        }
        match way.how {
            How::Namespace => {}
            How::Inject => to_keep = Some(listen(doors)?),
            How::Preload | How::Emulate => {
                let mut filter = if way.how == How::Emulate { filter::emulate(doors) } else { filter::deny(doors) };
                seccomp::install(&mut filter).context("installing the filter of system calls")?;
            }
        }
        self.say(match way.how {
            How::Namespace => "the program's network is the phantom namespace",
            How::Inject => "each socket() is answered by the supervisor",
            How::Preload => "sockets come from libphantom.so; every other socket() is refused",
            How::Emulate => "libphantom.so and the daemon emulate sockets; every other socket() is refused",
        });
        for port in &self.options.allow_local {
            self.say(&format!("port {port} of this computer is within the program's reach, on its own loopback"));
        }
        self.announce(way);
        if let Some(about) = about_sockets {
            eprintln!("phantom-run: {about}");
        }
        ready(to_keep)?;
        stdio::close_again();
        Ok(execute::execute(command, name))
    }

    fn attend(&self, way: usize) -> Result<()> {
        self.make_twins(self.order[way])?;
        if self.needs_resolver(self.order[way]) {
            let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
            if resolver.is_none() {
                *resolver = resolver::open(&self.contact)?;
            }
        }
        Ok(())
    }

    fn serve(&self, way: usize, program: Pid, kept: Kept) -> Result<()> {
        if self.order[way].walls == Walls::Own {
            self.twins.follow(program).context("sharing the program's files in /run")?;
        }
        match kept.listener {
            Some(door) if self.order[way].how.is_hooked() => self.heirloom.keep(door),
            Some(listener) => {
                let network = self.spaces()?.network.try_clone().context("copying a descriptor")?;
                let session = self.session.line.try_clone().context("copying a descriptor")?;
                let workshop = Workshop { network, session };
                supervise::start(listener, self.contact.clone(), workshop).context("starting the supervisor")?;
            }
            None => {}
        }
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = resolver.as_ref().filter(|_| self.needs_resolver(self.order[way])) {
            resolver::serve(resolver).context("starting the resolver")?;
            self.is_answered.store(true, Ordering::Release);
        }
        if self.order[way].walls == Walls::Own {
            let has_none = !self.order[way].how.is_hooked() && resolver.is_none();
            // Names go on without, as long as the files stay.
            let _ = self.watch(self.order[way], program, kept.spaces, has_none);
        }
        local::serve(self.ports).context("offering the host's ports")
    }

    fn over(&self) {
        self.twins.end();
    }

    fn session(&self) -> io::Result<OwnedFd> {
        self.session.line.try_clone()
    }

    fn turn_away(&self) {
        self.heirloom.turn_away();
    }

    fn resume(&self, way: usize) -> Result<OwnedFd> {
        let way = self.order[way];
        let wanted = match way.how {
            How::Namespace => (Wanted::Spaces, true),
            How::Inject | How::Preload => (Wanted::Spaces, false),
            How::Emulate => (Wanted::None, false),
        };
        let PassedOn { session, is_same } = self.heirloom.pass_on(wanted, &self.contact, self.session, self.options)?;
        if is_same && self.is_answered.load(Ordering::Acquire) {
            return Ok(session);
        }
        let stand_in = match self.is_exposed.load(Ordering::Acquire) {
            true => Some(resolver::open_anew(&self.contact)?),
            false if self.needs_resolver(way) => resolver::open(&self.contact)?,
            false => None,
        };
        if let Some(stand_in) = stand_in {
            resolver::serve(&stand_in).context("starting the resolver")?;
            self.is_answered.store(true, Ordering::Release);
        }
        Ok(session)
    }

    fn lost(&self) -> OnLoss {
        let what = match self.options.on_daemon_loss {
            OnLoss::Exit => "it is ended",
            OnLoss::Wait => {
                "what it has open ends, and what it opens anew goes by the next daemon, when one runs; to have it \
                 ended instead, use --on-daemon-loss exit"
            }
        };
        eprintln!("phantom-run: the daemon is gone, and with it the network of the program: {what}");
        self.options.on_daemon_loss
    }

    fn refused(&self, is_ousted: bool) {
        let why = if is_ousted {
            "its identity runs in another namespace meanwhile, by a program that was started before this one was back. It goes on when that \
             has ended; or start it anew"
        } else {
            "it does not take the program's namespace up, or lacks what the run needs. Start the program anew, unless it is said soon that a \
             daemon is back"
        };
        eprintln!("phantom-run: a daemon is there, and the program has no network: {why}");
    }

    fn resumed(&self) -> Option<Notes> {
        let who = Line::open(&self.contact.socket)
            .map_err(Into::into)
            .and_then(|mut line| line.ask(&Request::Info { identity: self.session.identity.clone() }));
        let mut who = if let Ok((Reply::Info { name, .. }, _)) = who { format!(", as {name}") } else { String::new() };
        if let IdentityRef::Session(_) = self.contact.identity {
            who.push_str(": a new address, since no daemon keeps those of fresh identities");
        }
        eprintln!("phantom-run: a daemon is back: what the program opens from now on goes by it{who}");
        Notes::wanted(self.options, &self.contact.socket, &self.session.identity).ok().flatten()
    }

    fn heard(&self, note: &Note) -> OnLoss {
        let text = &note.text;
        if note.about == About::Unreached && self.options.publish_or_fail {
            eprintln!("phantom-run: {text}; the program is ended");
            return OnLoss::Exit;
        }
        if !self.options.quiet {
            eprintln!("phantom-run: {text}");
        }
        OnLoss::Wait
    }

    fn failed(&self, way: usize, why: &str, is_passing: bool) {
        let Way { how, walls } = self.order[way];
        let name = match how {
            How::Namespace => "namespace",
            How::Inject => "inject",
            How::Preload => "preload",
            How::Emulate => "emulate",
        };
        let name = if walls == Walls::None { format!("{name} without namespaces") } else { name.to_owned() };
        let passes =
            if is_passing && self.order.len() > way + 1 { "; a weaker way is no answer to what passes" } else { "" };
        let reason = format!("{name}: {why}{passes}");
        self.say(&format!("not by {reason}"));
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).push(reason);
    }

    fn none(&self) {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ");
        let summary = match self.options.isolation {
            Isolation::Auto => "no way keeps it from other networks here",
            _ => "it cannot be kept from other networks as --isolation says",
        };
        eprintln!("phantom-run: the program was not started, {summary}:\n  {reasons}");
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_socket())
}

/// The filter that asks, and where its questions arrive.
fn listen(doors: Doors) -> Result<OwnedFd> {
    seccomp::install_with_listener(&mut filter::ask(doors)).map_err(|error| {
        let advice = match error.raw_os_error() {
            Some(libc::EBUSY) => {
                "another supervisor of this kind is there already (phantom-run inside phantom-run, or a container \
                 engine); there can be one only: try --isolation namespace or preload"
            }
            _ => "it needs Linux 5.14 with seccomp: try --isolation namespace or preload",
        };
        anyhow::Error::from(error).context(advice).context("installing the filter of system calls")
    })
}
