//! Windows: none yet. Whether something listens on a port is in tables that nothing here reads, and a connection made to find
//! out would be one that the service sees.

use async_trait::async_trait;
use phantom_ipc::errno;
use phantom_proto::ident::ApAddress;

use crate::connections::Programs;
use crate::control::{Refusal, Target};
use crate::far::Stream;

/// See the module.
pub(in crate::assembly) struct Service(pub(in crate::assembly) Target);

impl Service {
    /// Whether it can be one that this daemon offers.
    pub(in crate::assembly) fn can_be_offered(_: &Target) -> Result<(), Refusal> {
        Err(Refusal {
            errno: errno::EOPNOTSUPP,
            message: "no service can be offered by a daemon on Windows yet".into(),
            hint: "offer it from a computer with Linux".into(),
        })
    }
}

#[async_trait]
impl Programs for Service {
    async fn listens(&self, _: u16) -> bool {
        false
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
}
