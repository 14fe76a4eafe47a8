//! A likeness of the phantom interface, in the empty network of a program whose sockets are injected: there its local sockets
//! look for interfaces (libc's if_nametoindex), and Java in /proc. No socket that sends is ever there.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::IdentityRef;
use phantom_ipc::hook::policy::INET6;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{connect, getsockname, netdevice, recv, send, socket_with};

use crate::control::Line;

/// What it is called there.
const NAME: &str = "phantom0";

/// Any AP address: connect() on a datagram socket sends nothing, and tells the own one.
const ANYBODY: Ipv6Addr = Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, 1);

/// Kinds of interfaces that lead nowhere by themselves; kernels are built with one or the other.
const KINDS: [&str; 3] = ["dummy", "ifb", "bridge"];

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
/// A request that is to be acknowledged; the other one makes something new.
const CHANGE: u16 = 1 | 4;
const NEW: u16 = CHANGE | 0x200 | 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_F_NODAD: u8 = 2;

/// The real one.
pub(crate) struct Model {
    index: u32,
    address: Ipv6Addr,
}

impl Model {
    /// Looks at it, by a socket of the phantom namespace.
    ///
    /// # Errors
    /// When the daemon gives none.
    pub(crate) fn of(line: &mut Line, identity: &IdentityRef) -> Result<Self> {
        let arguments = [INET6, SocketType::DGRAM.as_raw().cast_signed(), 0];
        let any = line.socket(identity, arguments)?.map_err(io::Error::from_raw_os_error)?;
        connect(&any, &SocketAddr::new(ANYBODY.into(), 1))?;
        let own: SocketAddr = getsockname(&any)?.try_into().context("an address of another family")?;
        let std::net::IpAddr::V6(address) = own.ip() else { bail!("an address of another family") };
        Ok(Self { index: netdevice::name_to_index(&any, NAME)?, address })
    }

    /// Makes the likeness in this process's network.
    ///
    /// # Errors
    /// When the kernel knows none of the kinds.
    pub(crate) fn make(&self) -> io::Result<()> {
        let route = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let mut made = Err(io::ErrorKind::Unsupported.into());
        for kind in KINDS {
            made = request(&route, RTM_NEWLINK, NEW, &self.link(kind));
            if made.is_ok() {
                break;
            }
        }
        made?;
        // One after the other: it must exist to be told, and be told before it starts, to take no address of its own.
        let none = attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
        let silent = attribute(IFLA_AF_SPEC, &attribute(INET6 as u16, &none));
        request(&route, RTM_NEWLINK, CHANGE, &[self.header(0), silent].concat())?;
        request(&route, RTM_NEWLINK, CHANGE, &self.header(IFF_UP))?;
        let mut address = vec![INET6 as u8, 128, IFA_F_NODAD, 0];
        address.extend(self.index.to_ne_bytes());
        address.extend(attribute(IFA_ADDRESS, &self.address.octets()));
        request(&route, RTM_NEWADDR, NEW, &address)
    }

    fn header(&self, flags: u32) -> Vec<u8> {
        [[0; 4], self.index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
    }

    fn link(&self, kind: &str) -> Vec<u8> {
        let mut body = self.header(0);
        body.extend(attribute(IFLA_IFNAME, format!("{NAME}\0").as_bytes()));
        body.extend(attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind.as_bytes())));
        body
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut made = Vec::new();
    // Names and addresses: all far shorter than the field can say.
    made.extend((4 + value.len() as u16).to_ne_bytes());
    made.extend(kind.to_ne_bytes());
    made.extend(value);
    made.resize(made.len().next_multiple_of(4), 0);
    made
}

/// One request and its acknowledgement.
fn request(route: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(route, &message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (length, _) = recv(route, &mut answer, RecvFlags::empty())?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let answer = answer.get(..length).filter(|answer| answer.len() >= 20).ok_or_else(malformed)?;
    if u16::from_ne_bytes([answer[4], answer[5]]) != NLMSG_ERROR {
        return Err(malformed());
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    }
}
