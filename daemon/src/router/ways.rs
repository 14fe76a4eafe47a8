//! The ways in which routers are asked: PCP and NAT-PMP, which go to the router alone; then UPnP, by which it is looked for at its own
//! address first, and by a question to the whole network only when it does not answer there. The libraries bound the size of what they read and
//! take no word of one device about another; the time is bounded here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use async_trait::async_trait;
use crab_nat::natpmp::external_address;
use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, GetExternalIpError, PortMappingProtocol, RequestError, SearchOptions};

use super::Asks;
use super::lease::{Granted, LEASE, Refused};
use crate::os;

/// What routers show their owners in a list: what it is for is nobody's business.
const DESCRIPTION: &str = "TCP";

/// PCP and NAT-PMP, each: 250 ms, 500 ms, a second.
const PATIENCE: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 2, max_retry_timeout: None };

/// Where routers listen to UPnP's search.
const SEARCH_PORT: u16 = 1900;

/// Where all of a network hear it.
const ALL: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);

/// How long a router may take to say that it is there. It may draw up to three seconds, when all are asked.
const FOUND_WITHIN: [(Option<Ipv4Addr>, Duration); 2] =
    [(None, Duration::from_secs(2)), (Some(ALL), Duration::from_secs(4))];

/// Ports that are drawn when somebody else has the one that is wanted.
const DRAWN: usize = 3;

/// Ports from which they are drawn: below are those of known services.
const PORTS: std::ops::RangeInclusive<u16> = 10_000..=60_000;

/// What the router is to forget one day.
enum Held {
    Short(PortMapping),
    Upnp(Box<Gateway<Tokio>>, u16),
}

impl Held {
    fn is_at(&self, router: Ipv4Addr) -> bool {
        let at = match self {
            Self::Short(mapping) => IpAddr::from(mapping.gateway()),
            Self::Upnp(gateway, _) => gateway.addr.ip(),
        };
        at == IpAddr::V4(router)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Ways {
    held: Option<Held>,
}

#[async_trait]
impl Asks for Ways {
    async fn ask(&mut self, to: SocketAddrV4, outside: u16) -> Result<Granted, Refused> {
        let router = os::router().ok_or(Refused::NoRouter)?;
        // Another one forwards what it does until it forgets, and hears nothing of this one.
        self.held = self.held.take().filter(|held| held.is_at(router));
        // What it forwards by one way it may refuse by the other.
        if let Some(Held::Upnp(gateway, _)) = &self.held {
            let gateway = gateway.clone();
            if let Ok(granted) = self.upnp(gateway, to, outside).await {
                return Ok(granted);
            }
        }
        let short = match self.short(router, to, outside).await {
            Ok(granted) => return Ok(granted),
            Err(refused) => refused,
        };
        match find(router, *to.ip()).await {
            Ok(gateway) => self.upnp(Box::new(gateway), to, outside).await,
            // One that speaks the other way alone has said why.
            Err(Refused::Silent) => Err(short),
            Err(refused) => Err(refused),
        }
    }

    async fn give_up(&mut self) {
        match self.held.take() {
            Some(Held::Short(mapping)) => drop(mapping.try_drop().await),
            Some(Held::Upnp(gateway, port)) => drop(gateway.remove_port(PortMappingProtocol::TCP, port).await),
            None => {}
        }
    }
}

impl Ways {
    /// By PCP, or by NAT-PMP, which is older.
    async fn short(&mut self, router: Ipv4Addr, to: SocketAddrV4, outside: u16) -> Result<Granted, Refused> {
        let gateway = GatewayAddress::from(router);
        let internal = NonZeroU16::new(to.port()).ok_or(Refused::No)?;
        let options = PortMappingOptions {
            external_port: NonZeroU16::new(outside),
            lifetime_seconds: u32::try_from(LEASE.as_secs()).ok(),
            timeout_config: Some(PATIENCE),
        };
        let client = IpAddr::V4(*to.ip());
        // Whoever has made it by PCP is known by a number to the router, which changes it for nobody else.
        let nonce = self.held.as_ref().and_then(|held| match held {
            Held::Short(mapping) => nonce_of(mapping),
            Held::Upnp(..) => None,
        });
        let base = pcp::BaseMapRequest::new(gateway, client, InternetProtocol::Tcp, internal);
        let mapping = match pcp::port_mapping(base, nonce, None, options).await {
            Ok(mapping) => mapping,
            Err(by_pcp) => natpmp::port_mapping(gateway, InternetProtocol::Tcp, internal, options)
                .await
                .map_err(|by_natpmp| of_short(&by_pcp, &by_natpmp))?,
        };
        let ip = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
            PortMappingType::NatPmp => {
                let ip = external_address(gateway, Some(PATIENCE)).await;
                ip.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4)
            }
        };
        let lasts = Duration::from_secs(mapping.lifetime().into());
        let outside = outside_of(ip, mapping.external_port().get());
        self.held = Some(Held::Short(mapping));
        Ok(Granted { outside, lasts: Some(lasts) })
    }

    async fn upnp(&mut self, gateway: Box<Gateway<Tokio>>, to: SocketAddrV4, outside: u16) -> Result<Granted, Refused> {
        let ip = gateway.get_external_ip().await.map_err(|error| match error {
            GetExternalIpError::ActionNotAuthorized => Refused::No,
            GetExternalIpError::RequestError(error) => of_request(&error),
        })?;
        let drawn = std::iter::repeat_with(|| rand::random_range(PORTS)).take(DRAWN);
        for port in std::iter::once(outside).chain(drawn) {
            // Before it is: who stops meanwhile gives it up.
            self.held = Some(Held::Upnp(gateway.clone(), port));
            match add(&gateway, to, port).await {
                Ok(lasts) => return Ok(Granted { outside: outside_of(ip, port), lasts }),
                // It is somebody else's, and is not to be given up.
                Err(Refused::Taken) => self.held = None,
                Err(refused) => return Err(refused),
            }
        }
        Err(Refused::Taken)
    }
}

/// The router itself, and nobody who says to be one.
async fn find(router: Ipv4Addr, from: Ipv4Addr) -> Result<Gateway<Tokio>, Refused> {
    for (group, within) in FOUND_WITHIN {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::from((from, 0));
        options.broadcast_address = SocketAddr::from((group.unwrap_or(router), SEARCH_PORT));
        options.timeout = Some(within);
        if let Ok(gateway) = search_gateway(options).await
            && gateway.addr.ip() == IpAddr::V4(router)
        {
            return Ok(gateway);
        }
    }
    Err(Refused::Silent)
}

/// For a time, or for ever where the router knows nothing else.
async fn add(gateway: &Gateway<Tokio>, to: SocketAddrV4, port: u16) -> Result<Option<Duration>, Refused> {
    let ask = |seconds| gateway.add_port(PortMappingProtocol::TCP, port, to.into(), seconds, DESCRIPTION);
    match ask(u32::try_from(LEASE.as_secs()).unwrap_or_default()).await {
        Ok(()) => Ok(Some(LEASE)),
        Err(AddPortError::OnlyPermanentLeasesSupported) => ask(0).await.map(|()| None).map_err(|error| of_port(&error)),
        Err(error) => Err(of_port(&error)),
    }
}

/// IPv4 alone is asked for: another address is as good as none.
fn outside_of(ip: IpAddr, port: u16) -> SocketAddrV4 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, port),
        IpAddr::V6(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port),
    }
}

fn nonce_of(mapping: &PortMapping) -> Option<pcp::Nonce> {
    match mapping.mapping_type() {
        PortMappingType::Pcp { nonce, .. } => Some(nonce),
        PortMappingType::NatPmp => None,
    }
}

fn of_port(error: &AddPortError) -> Refused {
    match error {
        // Another port outside than here is what was asked for then.
        AddPortError::PortInUse | AddPortError::SamePortValuesRequired => Refused::Taken,
        AddPortError::RequestError(error) => of_request(error),
        _ => Refused::No,
    }
}

fn of_request(error: &RequestError) -> Refused {
    match error {
        RequestError::ErrorCode(..) => Refused::No,
        RequestError::InvalidResponse(_) | RequestError::Utf8Error(_) | RequestError::UnsupportedAction(_) => {
            Refused::Nonsense
        }
        _ => Refused::Silent,
    }
}

/// What was said says more than silence.
fn of_short(by_pcp: &pcp::Failure, by_natpmp: &natpmp::Failure) -> Refused {
    let by_pcp = match by_pcp {
        pcp::Failure::Socket(_) | pcp::Failure::Timeout | pcp::Failure::UnsupportedVersion(_) => Refused::Silent,
        pcp::Failure::Nonce | pcp::Failure::InvalidResponse(_) => Refused::Nonsense,
        _ => Refused::No,
    };
    let by_natpmp = match by_natpmp {
        natpmp::Failure::Socket(_) | natpmp::Failure::Timeout | natpmp::Failure::UnsupportedVersion(_) => {
            Refused::Silent
        }
        natpmp::Failure::InvalidResponse(_) => Refused::Nonsense,
        _ => Refused::No,
    };
    if by_natpmp == Refused::Silent { by_pcp } else { by_natpmp }
}
