//! `auto://`: of the ways that lead to a peer, the best that works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::established::Inner;
use super::set_up::{Role, set_up};
use super::{Active, Worker};
use crate::config::{Config, TransportChoice};
use crate::protocol::Offer;
use crate::transport::any::{AnyAddress, AnyListener};
use crate::transport::shm::{Shm, ShmAddress};
use crate::transport::tcp::{self, Tcp};
#[cfg(feature = "verbs")]
use crate::transport::verbs::Verbs;
use crate::transport::{Kind, Listen, SetUp, Transport};
use crate::{Error, ErrorKind, Result, failpoint};

/// Where it is said which boot of which host this is, `random(4)`.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The ways that there may be to a peer.
#[derive(Debug)]
struct Ways {
    /// In this order.
    open: Vec<AnyAddress>,
    /// Those that there are not, and why.
    passed_over: Vec<String>,
}

impl Ways {
    fn of(offer: Offer, peer: SocketAddr, choice: TransportChoice, boot: Option<[u8; 16]>) -> Self {
        let shm = match offer.shm {
            None => Err("the peer does not offer it".to_owned()),
            Some(_) if boot != Some(offer.boot) => Err("the peer is on another host".to_owned()),
            Some(name) => ShmAddress::parse(&name).map(AnyAddress::Shm),
        };
        let verbs = match offer.verbs {
            #[cfg(feature = "verbs")]
            Some(port) => Ok(AnyAddress::Verbs(SocketAddr::new(peer.ip(), port))),
            #[cfg(not(feature = "verbs"))]
            Some(_) => Err("this build is without the feature verbs".to_owned()),
            None => Err("the peer does not offer it".to_owned()),
        };
        let mut ways = Self { open: Vec::new(), passed_over: Vec::new() };
        let all = [
            (TransportChoice::Shm, shm),
            (TransportChoice::Verbs, verbs),
            (TransportChoice::Tcp, Ok(AnyAddress::Tcp(peer))),
        ];
        for (transport, way) in all {
            let way = if choice.allows(transport) { way } else { Err("the settings say otherwise".to_owned()) };
            match way {
                Ok(way) => ways.open.push(way),
                Err(why) => ways.passed_over.push(format!("{}: {why}", transport.name())),
            }
        }
        ways
    }
}

impl TransportChoice {
    fn allows(self, other: Self) -> bool {
        self == Self::Auto || self == other
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        }
    }

    /// Whether a request that has come over `kind` is one that the settings allow.
    pub(super) fn takes(self, kind: Kind) -> bool {
        self == Self::Auto || self.name() == kind.name()
    }
}

/// Connects to who listens at `peer`, by the best way that works within `deadline`.
pub(super) async fn connect(
    worker: &Worker,
    peer: SocketAddr,
    private_data: &[u8],
    deadline: Instant,
) -> Result<Arc<Inner<Active>>> {
    let offer = tcp::ask(peer, deadline).await?;
    let Ways { open, mut passed_over } = Ways::of(offer, peer, worker.config().transport, boot_id());
    let (mut left, mut last) = (open.len(), ErrorKind::Unsupported);
    for way in open {
        left -= 1;
        // One that does not answer leaves time for the others.
        let now = Instant::now();
        let until = if left == 0 { deadline } else { now + deadline.saturating_duration_since(now) / 2 };
        match connect_by(worker, way.clone(), private_data, until).await {
            Ok(connected) => {
                tracing::info!(%peer, way = way.uri(), passed_over = passed_over.join("; "), "connected");
                connected.pass_over(passed_over);
                return Ok(connected);
            }
            // By its program, which would say the same elsewhere.
            Err(error) if error.kind() == ErrorKind::Rejected => return Err(error),
            Err(error) => {
                last = error.kind();
                passed_over.push(format!("{}: {error}", way.transport().name()));
            }
        }
    }
    let detail = format!("no way leads there: {}", passed_over.join("; "));
    Err(Error::new(last, "connect").with_peer(peer).with_detail(detail))
}

/// Connects by one way.
pub(super) async fn connect_by(
    worker: &Worker,
    peer: AnyAddress,
    private_data: &[u8],
    deadline: Instant,
) -> Result<Arc<Inner<Active>>> {
    let end = Active::resolve(peer.clone(), deadline).await?;
    failpoint::reach("connect.resolved");
    let engine = worker.engine(&end.device()).map_err(|error| error.within("connect").with_peer(peer))?;
    set_up(engine, end, Role::Connector(private_data.to_vec()), deadline).await
}

/// Listens by all ways that there are, and says so at the TCP port of `address`; answers that too, with the port that was chosen.
pub(super) fn listen(address: SocketAddr, config: &Config) -> Result<(Vec<AnyListener>, SocketAddr)> {
    let door = Tcp::listen(address, config.backlog)?;
    let bound = door.local_address();
    let mut listeners = Vec::new();
    let boot = boot_id();
    let mut offer = Offer { boot: boot.unwrap_or_default(), shm: None, verbs: None };
    if boot.is_some() && config.transport.allows(TransportChoice::Shm) {
        match Shm::listen(ShmAddress::Name(String::new()), config.backlog) {
            Ok(listener) => {
                offer.shm = Some(listener.local_address().to_string());
                listeners.push(AnyListener::Shm(listener));
            }
            Err(error) => tracing::info!(%error, "shared memory is not offered"),
        }
    }
    #[cfg(feature = "verbs")]
    if config.transport.allows(TransportChoice::Verbs) {
        match Verbs::listen(SocketAddr::new(bound.ip(), 0), config.backlog) {
            Ok(listener) => {
                offer.verbs = Some(listener.local_address().port());
                listeners.push(AnyListener::Verbs(listener));
            }
            Err(error) => tracing::info!(%error, "verbs are not offered"),
        }
    }
    door.offer(offer.to_bytes());
    listeners.push(AnyListener::Tcp(door));
    Ok((listeners, bound))
}

/// Which boot of which host this is; `None` where that is not told.
fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string(BOOT_ID).ok()?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 7);

    fn ways(offer: &Offer, choice: TransportChoice) -> (Vec<String>, Vec<String>) {
        let ways = Ways::of(offer.clone(), PEER.into(), choice, Some([1; 16]));
        (ways.open.iter().map(AnyAddress::uri).collect(), ways.passed_over)
    }

    #[test]
    fn the_host_that_this_is_has_a_boot_id() {
        assert_ne!(boot_id().expect("a boot id"), [0; 16]);
        assert_eq!(boot_id(), boot_id());
    }

    #[test]
    fn on_one_host_shared_memory_comes_first_and_tcp_last() {
        let offer = Offer { boot: [1; 16], shm: Some("name".to_owned()), verbs: Some(9) };
        let (open, passed_over) = ways(&offer, TransportChoice::Auto);
        let verbs = cfg!(feature = "verbs").then_some("rdma://192.0.2.1:9");
        assert_eq!(open, ["shm://name"].into_iter().chain(verbs).chain(["tcp://192.0.2.1:7"]).collect::<Vec<_>>());
        assert_eq!(passed_over.len(), usize::from(verbs.is_none()));
    }

    #[test]
    fn what_leads_nowhere_is_passed_over_for_a_reason() {
        let offer = Offer { boot: [2; 16], shm: Some("name".to_owned()), verbs: None };
        let (open, passed_over) = ways(&offer, TransportChoice::Auto);
        assert_eq!(open, ["tcp://192.0.2.1:7"]);
        assert_eq!(passed_over, ["shm: the peer is on another host", "verbs: the peer does not offer it"]);
        let offer = Offer { boot: [1; 16], ..offer };
        let (open, passed_over) = ways(&offer, TransportChoice::Tcp);
        assert_eq!(open, ["tcp://192.0.2.1:7"]);
        assert!(passed_over.iter().all(|why| why.ends_with("the settings say otherwise")), "{passed_over:?}");
        let offer = Offer { shm: Some("a/b".to_owned()), ..offer };
        let (open, passed_over) = ways(&offer, TransportChoice::Shm);
        assert_eq!(open, [""; 0]);
        assert!(passed_over[0].starts_with("shm: a name has no /"), "{passed_over:?}");
    }
}
