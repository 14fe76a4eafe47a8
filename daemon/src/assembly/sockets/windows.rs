//! Windows: the programs' own, with the loopback device between them and the daemon.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use phantom_ipc::errno;
use phantom_ipc::hook::{Call, Loopback as LoopbackCall, Reply};
use phantom_proto::ident::ApAddress;

use crate::aliases::{Aliases, SharedAliases};
use crate::control::{Beside, Descriptor, Lasting, Refusal};
use crate::far::{Network, Stream};
use crate::loopback::Loopback;
use crate::os::Owner;

/// See the module.
pub(in crate::assembly) struct Sockets(Arc<Loopback>);

/// Where a program listens.
pub(in crate::assembly) struct Listener(Arc<Loopback>);

impl Listener {
    /// Brings it a connection, and carries that to its end.
    pub(in crate::assembly) async fn serve(self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        self.0.serve(peer, src_port, port, far).await;
    }
}

impl Sockets {
    pub(in crate::assembly) fn new(address: ApAddress, _: Owner, network: Arc<dyn Network>) -> Self {
        let aliases: SharedAliases = Arc::new(Mutex::new(Aliases::anywhere()));
        Self(Arc::new(Loopback::new(address, network, aliases)))
    }

    pub(in crate::assembly) async fn listens(&self, port: u16) -> Option<bool> {
        Some(self.0.listens(port))
    }

    pub(in crate::assembly) fn listener(&self, port: u16) -> Option<Listener> {
        self.0.listens(port).then(|| Listener(self.0.clone()))
    }

    pub(in crate::assembly) async fn listening_ports(&self) -> Vec<u16> {
        self.0.listening_ports()
    }

    /// Nobody tells the daemon of those.
    pub(in crate::assembly) async fn loopback_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    pub(in crate::assembly) async fn namespaces(
        &self,
        _: Option<Beside>,
    ) -> Result<(Descriptor, Option<Descriptor>), Refusal> {
        Err(Refusal {
            errno: errno::EOPNOTSUPP,
            message: "there are no phantom namespaces on Windows".into(),
            hint: "hold the identity instead".into(),
        })
    }

    pub(in crate::assembly) async fn emulated(
        &self,
        _: u64,
        _: &Call,
        _: Option<Beside>,
    ) -> Result<(Reply, Option<Descriptor>), i32> {
        Err(errno::EOPNOTSUPP)
    }

    pub(in crate::assembly) async fn loopback(&self, call: &LoopbackCall) -> Result<(Reply, Option<Lasting>), i32> {
        self.0.call(call).await
    }

    pub(in crate::assembly) async fn socket(&self, _: i32, _: i32, _: i32) -> io::Result<Descriptor> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(in crate::assembly) async fn line(&self, _: bool) -> io::Result<Descriptor> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(in crate::assembly) fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.0.alias_of(address)
    }

    pub(in crate::assembly) fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        self.0.behind_alias(alias)
    }

    pub(in crate::assembly) async fn in_use(&self) -> bool {
        self.0.in_use()
    }

    pub(in crate::assembly) fn is_broken(&self) -> bool {
        false
    }

    pub(in crate::assembly) async fn breaks(&self) {
        std::future::pending().await
    }

    pub(in crate::assembly) fn cut(&self) {
        self.0.cut();
    }
}
