//! The thread that carries packets between the two TUN devices of a gate and lets the reflector decide about each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::{mpsc, oneshot};

use super::packet::MAX_FRAME;
use super::reflector::{Action, Connect, FlowId, KeptFlow, Question, Reflector, Side, Verdict};

/// Packets taken from one side before the other has its turn.
const BATCH: usize = 64;

/// Commands that wait for the thread, and events that wait for the daemon; more events are dropped like packets.
const MAX_COMMANDS: usize = 1_024;
const MAX_EVENTS: usize = 1_024;

/// How often idle flows are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// When an ICMP error is sent again: by then the kernel has left connect() and takes it for what it is.
const AGAIN: Duration = Duration::from_millis(2);

/// Errors that wait for their second time; more are sent only once.
const MAX_AGAIN: usize = 1_024;

/// What the thread is told.
pub(super) enum Command {
    /// The far end has answered a held SYN.
    Verdict(FlowId, Verdict),
    /// The gate will connect to the program's port, seen to come from the address.
    Expect(SocketAddr, u16, oneshot::Sender<Option<FlowId>>),
    /// A connection that was expected has not come about.
    Forget(FlowId),
    /// A frame for the program's side.
    Send(Vec<u8>),
    /// The same, and once more a moment later.
    SendTwice(Vec<u8>),
    /// The end; another process goes on.
    Leave(oneshot::Sender<Left>),
    /// The end.
    Stop,
}

/// What another process goes on with: both devices, the program's first, and the connections that are open.
pub(super) type Left = ([OwnedFd; 2], Vec<KeptFlow>);

/// What it says.
#[derive(Debug)]
pub(super) enum Event {
    /// A program wants a connection.
    Connect(Connect),
    /// A program asks a resolver.
    Resolve(Question),
    /// A program has tried an address that is none of the network: this frame is its answer.
    Outside(IpAddr, Vec<u8>),
}

/// The daemon's end of the thread.
#[derive(Clone)]
pub(super) struct Wire {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Wire {
    /// Starts the thread on both TUN devices.
    pub(super) fn start(
        program: OwnedFd,
        gate: OwnedFd,
        reflector: Reflector,
    ) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (commands, queue) = mpsc::channel(MAX_COMMANDS);
        let (events, heard) = mpsc::channel(MAX_EVENTS);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let carrier = Carrier {
            program: program.into(),
            gate: gate.into(),
            wake: Arc::clone(&wake),
            reflector,
            queue,
            events,
            again: Vec::new(),
            heir: None,
        };
        std::thread::Builder::new().name("gate-wire".into()).spawn(move || {
            if let Err(error) = carrier.run() {
                tracing::error!(%error, "the gate's wire is broken");
            }
        })?;
        Ok((Self { commands, wake }, heard))
    }

    /// Passes a command on, waiting while too many wait already.
    pub(super) async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_ok() {
            self.ring();
        }
    }

    /// Ends the thread, and with it both devices.
    pub(super) fn stop(&self) {
        // If the queue is full, the thread ends when the last sender is gone.
        let _ = self.commands.try_send(Command::Stop);
        self.ring();
    }

    /// Ends the thread, and leaves what it has. `None`: it has ended.
    pub(super) async fn leave(&self) -> Option<Left> {
        let (left_tx, left_rx) = oneshot::channel();
        self.tell(Command::Leave(left_tx)).await;
        left_rx.await.ok()
    }

    /// Ends the thread as [`Wire::stop`] does, and waits until it has ended.
    pub(super) async fn ended(&self) {
        self.stop();
        // Its queue closes when the thread, which never waits for anybody, drops it.
        self.commands.closed().await;
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

struct Carrier {
    program: File,
    gate: File,
    wake: Arc<OwnedFd>,
    reflector: Reflector,
    queue: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// Frames for the program's side that are sent once more.
    again: Vec<(Instant, Vec<u8>)>,
    heir: Option<oneshot::Sender<Left>>,
}

impl Carrier {
    /// Carries until it is told to stop.
    ///
    /// # Errors
    /// When a device is gone, unless that is the end which it is about to hear of: the helper takes the device away as soon
    /// as it sees the daemon's side close.
    fn run(mut self) -> io::Result<()> {
        let mut frame = vec![0; MAX_FRAME + 1];
        let mut sweep = Instant::now() + SWEEP;
        loop {
            let (program, gate) = match self.wait(sweep) {
                Ok(ready) => ready,
                Err(error) => return if self.obey() { Err(error) } else { Ok(()) },
            };
            if !self.obey() {
                if let Some(heir) = self.heir.take() {
                    let flows = self.reflector.open_flows();
                    // Nobody takes it where the handover was given up.
                    let _ = heir.send(([self.program.into(), self.gate.into()], flows));
                }
                return Ok(());
            }
            if program {
                self.carry(Side::Program, &mut frame);
            }
            if gate {
                self.carry(Side::Gate, &mut frame);
            }
            let now = Instant::now();
            self.send_again(now);
            if now >= sweep {
                self.reflector.expire(now);
                sweep = now + SWEEP;
            }
        }
    }

    /// Waits for packets, commands, or the next deadline; says which sides have packets.
    fn wait(&self, sweep: Instant) -> io::Result<(bool, bool)> {
        let deadline = self.again.first().map_or(sweep, |(at, _)| sweep.min(*at));
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [self.program.as_fd(), self.gate.as_fd(), self.wake.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut polled, Some(&left)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            Err(error) => return Err(error.into()),
        }
        if polled[2].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        if polled[..2].iter().any(|side| side.revents().intersects(PollFlags::ERR | PollFlags::NVAL)) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok((polled[0].revents().contains(PollFlags::IN), polled[1].revents().contains(PollFlags::IN)))
    }

    /// Carries out all commands that wait; false at the end.
    fn obey(&mut self) -> bool {
        loop {
            match self.queue.try_recv() {
                Ok(Command::Verdict(flow, verdict)) => {
                    if let Some((side, action)) = self.reflector.verdict(Instant::now(), flow, verdict) {
                        self.act(side, action, &[]);
                    }
                }
                Ok(Command::Expect(far, port, answer)) => {
                    let flow = self.reflector.expect(Instant::now(), far, port);
                    if let Err(Some(flow)) = answer.send(flow) {
                        self.reflector.remove(flow);
                    }
                }
                Ok(Command::Forget(flow)) => self.reflector.remove(flow),
                Ok(Command::Send(frame)) => self.send(Side::Program, &frame),
                Ok(Command::SendTwice(frame)) => self.send_twice(Side::Program, frame),
                Ok(Command::Leave(heir)) => {
                    self.heir = Some(heir);
                    return false;
                }
                Ok(Command::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => return false,
                Err(mpsc::error::TryRecvError::Empty) => return true,
            }
        }
    }

    fn carry(&mut self, side: Side, frame: &mut [u8]) {
        let now = Instant::now();
        for _ in 0..BATCH {
            let mut from = match side {
                Side::Program => &self.program,
                Side::Gate => &self.gate,
            };
            // Nothing left, or nothing that could be read: poll() tells more.
            let Ok(length) = from.read(frame) else { return };
            let packet = &mut frame[..length];
            let action = self.reflector.handle(now, side, packet);
            self.act(side, action, packet);
        }
    }

    fn act(&mut self, from: Side, action: Action, frame: &[u8]) {
        match action {
            Action::Drop => {}
            Action::Forward(to) => self.send(to, frame),
            Action::Answer(answer) => self.send(from, &answer),
            Action::AnswerTwice(answer) => self.send_twice(from, answer),
            Action::Outside(address, answer) => {
                // If it is full, the kernel will ask again.
                let _ = self.events.try_send(Event::Outside(address, answer));
            }
            Action::Connect(connect) => {
                if self.events.try_send(Event::Connect(connect)).is_err() {
                    // The kernel will ask again.
                    self.reflector.remove(connect.flow);
                }
            }
            Action::Resolve(question) => {
                let _ = self.events.try_send(Event::Resolve(question));
            }
        }
    }

    fn send_twice(&mut self, to: Side, frame: Vec<u8>) {
        self.send(to, &frame);
        if self.again.len() < MAX_AGAIN {
            self.again.push((Instant::now() + AGAIN, frame));
        }
    }

    fn send_again(&mut self, now: Instant) {
        let due = self.again.iter().take_while(|(at, _)| *at <= now).count();
        let due: Vec<_> = self.again.drain(..due).collect();
        for (_, frame) in due {
            self.send(Side::Program, &frame);
        }
    }

    fn send(&self, to: Side, frame: &[u8]) {
        let mut to = match to {
            Side::Program => &self.program,
            Side::Gate => &self.gate,
        };
        // A packet that cannot be delivered is a packet lost: TCP knows what to do.
        let _ = to.write(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::super::aliases::Aliases;
    use super::super::reflector::Config;
    use super::*;
    use phantom_proto::crypto::VerifyingKey;
    use phantom_proto::ident::ApAddress;
    use std::sync::Mutex;

    /// A carrier whose devices are gone: nobody reads what is written to them.
    fn orphan() -> (Carrier, mpsc::Sender<Command>) {
        let gone = || File::from(rustix::pipe::pipe().unwrap().1);
        let config = Config { address: ApAddress::of(&VerifyingKey([1; 32])), listener: 1 };
        let (commands, queue) = mpsc::channel(MAX_COMMANDS);
        let (events, _) = mpsc::channel(MAX_EVENTS);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let reflector = Reflector::new(config, Arc::new(Mutex::new(Aliases::default())));
        (
            Carrier { program: gone(), gate: gone(), wake, reflector, queue, events, again: Vec::new(), heir: None },
            commands,
        )
    }

    #[test]
    fn devices_that_go_at_the_end_are_no_error() {
        let (carrier, commands) = orphan();
        commands.try_send(Command::Stop).unwrap();
        assert!(carrier.run().is_ok());
        let (carrier, commands) = orphan();
        drop(commands);
        assert!(carrier.run().is_ok());
        let (carrier, _commands) = orphan();
        assert!(carrier.run().is_err());
    }
}
