//! `--allow-local`: ports of the host's loopback that the program finds on its own loopback.
//!
//! Listening sockets of the phantom namespace, served by the keeper, which lives in the host's network: each connection is
//! carried to the same port of the host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::IdentityRef;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_linger, set_socket_reuseaddr, set_socket_reuseport};

use crate::control::Line;

/// Connections under way at one time, all ports together: two threads each. More are reset.
const MAX_CONNECTIONS: usize = 128;

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

/// Pause after a failed accept(), mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A thread copies with the kernel's help and needs little.
const STACK: usize = 64 * 1024;

/// A port of the program's loopback that listens.
pub(crate) struct Port {
    listener: TcpListener,
    port: u16,
}

/// Opens the ports on both loopback addresses of the phantom namespace.
pub(crate) fn open(line: &mut Line, identity: &IdentityRef, ports: &[u16]) -> Result<Vec<Port>> {
    let mut open = Vec::new();
    for port in ports {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let listener = listen(line, identity, SocketAddr::new(address, *port)).with_context(|| {
                format!(
                    "--allow-local {port}: the port cannot be offered on the program's loopback; does another program of \
                     the same identity use it?"
                )
            })?;
            open.push(Port { listener, port: *port });
        }
    }
    Ok(open)
}

fn listen(line: &mut Line, identity: &IdentityRef, at: SocketAddr) -> Result<TcpListener> {
    let socket = socket(line, identity, at, libc::SOCK_STREAM)?;
    set_socket_reuseaddr(&socket, true)?;
    // Programs of one identity share its loopback; whoever is asked, the way leads to the same port of the host.
    set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A socket of the phantom namespace, for one family only.
pub(crate) fn socket(line: &mut Line, identity: &IdentityRef, at: SocketAddr, kind: i32) -> Result<OwnedFd> {
    let domain = if at.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let socket = match line.socket(identity, [domain, kind | libc::SOCK_CLOEXEC, 0])? {
        Ok(socket) => socket,
        Err(error) => bail!("the daemon gives no socket: {}", io::Error::from_raw_os_error(error)),
    };
    if at.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// Serves the ports, in threads of its own. This process must not fork any more.
pub(crate) fn serve(ports: &[Port]) -> io::Result<()> {
    let under_way = Arc::new(AtomicUsize::new(0));
    for Port { listener, port } in ports {
        let (listener, port, under_way) = (listener.try_clone()?, *port, Arc::clone(&under_way));
        thread::Builder::new().stack_size(STACK).spawn(move || {
            loop {
                match listener.accept() {
                    Ok((inside, _)) => take(inside, port, &under_way),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })?;
    }
    Ok(())
}

fn take(inside: TcpStream, port: u16, under_way: &Arc<AtomicUsize>) {
    if under_way.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        under_way.fetch_sub(1, Ordering::Relaxed);
        return reset(&inside);
    }
    let count = Arc::clone(under_way);
    let started = thread::Builder::new().stack_size(STACK).spawn(move || {
        carry(&inside, port);
        count.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Carries bytes both ways until both have ended; nobody at the host's port is a reset.
fn carry(inside: &TcpStream, port: u16) {
    let host =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).or_else(|_| TcpStream::connect((Ipv6Addr::LOCALHOST, port)));
    let Ok(outside) = host else { return reset(inside) };
    let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || pour(&outside, inside));
        if back.is_ok() {
            pour(inside, &outside);
        }
    });
}

/// Copies until the end, and passes the end on: a half-close as one, a reset as one.
fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        for end in [from, to] {
            reset(end);
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// Lets the last close be a reset.
fn reset(end: &TcpStream) {
    let _ = set_socket_linger(end, Some(Duration::ZERO));
}
