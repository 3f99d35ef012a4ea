//! Addresses as URIs: `auto://host:port`, `rdma://host:port`, `tcp://host:port`, `shm://name`, `shm:///path`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use crate::clock::Clock;
use crate::service::Service;
use crate::transport::Kind;
use crate::transport::any::AnyAddress;
use crate::transport::shm::ShmAddress;
#[cfg(all(any(test, feature = "internals"), not(loom)))]
use crate::transport::sim::SimAddress;
use crate::{Error, ErrorKind, Result};

/// An address as it was written. Names in it are still to be resolved.
pub(super) struct Address<'a> {
    operation: &'static str,
    text: &'a str,
    /// `None` for the best that leads there.
    transport: Option<Kind>,
    /// What follows the scheme.
    rest: &'a str,
}

impl<'a> Address<'a> {
    /// Reads `auto://`, `rdma://` or `tcp://HOST:PORT`, where HOST is a name or a literal (IPv6 in brackets), `shm://NAME` or
    /// `shm:///PATH`.
    ///
    /// # Errors
    /// [`AddressInvalid`](ErrorKind::AddressInvalid) with what is wrong, [`Unsupported`](ErrorKind::Unsupported) for a
    /// transport that this version does not have.
    pub(super) fn parse(operation: &'static str, text: &'a str) -> Result<Self> {
        let invalid =
            |detail: String| Error::new(ErrorKind::AddressInvalid, operation).with_peer(text).with_detail(detail);
        let Some((scheme, rest)) = text.split_once("://") else { return Err(invalid("no scheme".to_owned())) };
        let transport = match scheme {
            #[cfg(feature = "verbs")]
            "rdma" => Some(Kind::Verbs),
            #[cfg(not(feature = "verbs"))]
            "rdma" => {
                let detail = "this build is without the feature verbs; write auto:// or tcp://HOST:PORT, or shm://NAME";
                return Err(Error::new(ErrorKind::Unsupported, operation).with_peer(text).with_detail(detail));
            }
            "tcp" => Some(Kind::Tcp),
            "auto" => None,
            #[cfg(any(test, feature = "internals"))]
            "sim" => return Ok(Self { operation, text, transport: Some(Kind::Sim), rest }),
            "shm" => {
                ShmAddress::parse(rest).map_err(invalid)?;
                return Ok(Self { operation, text, transport: Some(Kind::Shm), rest });
            }
            _ => return Err(invalid(format!("unknown scheme {scheme}"))),
        };
        if !has_host_and_port(rest) {
            return Err(invalid("no host and port".to_owned()));
        }
        Ok(Self { operation, text, transport, rest })
    }

    /// The clock that deadlines of its use are on.
    pub(super) fn clock(&self) -> Clock {
        self.transport.map_or_else(Clock::real, Kind::clock)
    }

    /// Resolves the name in it, if there is one.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) if that is not done by `deadline`, [`AddressInvalid`](ErrorKind::AddressInvalid)
    /// if the name is not known.
    pub(super) async fn resolve(self, deadline: Instant) -> Result<Target> {
        let Some(transport) = self.transport else { return self.resolve_host(deadline).await.map(Target::Auto) };
        self.resolve_to(transport, deadline).await.map(Target::One)
    }

    async fn resolve_to(&self, transport: Kind, deadline: Instant) -> Result<AnyAddress> {
        match transport {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Kind::Sim => {
                let _ = deadline;
                Ok(AnyAddress::Sim(SimAddress(self.rest.to_owned())))
            }
            Kind::Shm => {
                let invalid = |detail| Error::new(ErrorKind::AddressInvalid, self.operation).with_detail(detail);
                ShmAddress::parse(self.rest).map(AnyAddress::Shm).map_err(invalid)
            }
            Kind::Tcp => self.resolve_host(deadline).await.map(AnyAddress::Tcp),
            #[cfg(feature = "verbs")]
            Kind::Verbs => self.resolve_host(deadline).await.map(AnyAddress::Verbs),
        }
    }

    async fn resolve_host(&self, deadline: Instant) -> Result<SocketAddr> {
        if let Ok(address) = self.rest.parse() {
            return Ok(address);
        }
        look_up(self.operation, self.text, self.rest.to_owned(), deadline).await
    }
}

/// Where an address leads.
pub(super) enum Target {
    /// To a TCP port at which it is said what else leads there.
    Auto(SocketAddr),
    One(AnyAddress),
}

fn has_host_and_port(rest: &str) -> bool {
    rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Asks the system's resolver, which blocks, on a thread of its own; waits for it until `deadline`.
async fn look_up(operation: &'static str, text: &str, host: String, deadline: Instant) -> Result<SocketAddr> {
    let failed = |kind, detail: &str| Error::new(kind, operation).with_peer(text).with_detail(detail);
    let (answer, mut answered) = tokio::sync::mpsc::unbounded_channel();
    let timer = answer.clone();
    Service::of_process()?.run_at(deadline, move || drop(timer.send(None)));
    std::thread::Builder::new()
        .name("zcmi-resolver".to_owned())
        .spawn(move || drop(answer.send(Some(host.to_socket_addrs().map(|mut addresses| addresses.next())))))
        .map_err(|error| failed(ErrorKind::ResourceExhausted, "no thread to resolve a name").with_source(error))?;
    match answered.recv().await.flatten() {
        Some(Ok(Some(address))) => Ok(address),
        Some(Ok(None)) => Err(failed(ErrorKind::AddressInvalid, "the name has no address")),
        Some(Err(error)) => Err(failed(ErrorKind::AddressInvalid, "the name is not known").with_source(error)),
        None => Err(failed(ErrorKind::TimedOut, "the name was not resolved in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn resolve(operation: &'static str, text: &str) -> Result<SocketAddr> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let resolved = Address::parse(operation, text)?.resolve(Instant::now() + Duration::from_secs(20));
        runtime.block_on(resolved).map(|target| match target {
            Target::Auto(address) => address,
            Target::One(address) => address.socket_address(),
        })
    }

    #[test]
    fn literals_resolve() {
        assert_eq!(resolve("connect", "tcp://192.0.2.1:7").expect("a literal"), ([192, 0, 2, 1], 7).into());
        let v6 = resolve("connect", "tcp://[2001:db8::1]:65535").expect("a literal");
        assert_eq!(v6.to_string(), "[2001:db8::1]:65535");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, kind, word) in [
            ("192.0.2.1:7", ErrorKind::AddressInvalid, "no scheme"),
            ("http://192.0.2.1:7", ErrorKind::AddressInvalid, "unknown scheme http"),
            ("tcp://192.0.2.1", ErrorKind::AddressInvalid, "no host and port"),
            ("tcp://:7", ErrorKind::AddressInvalid, "no host and port"),
            ("tcp://192.0.2.1:70000", ErrorKind::AddressInvalid, "no host and port"),
            ("tcp://host.invalid:7", ErrorKind::AddressInvalid, "not known"),
            ("auto://192.0.2.1", ErrorKind::AddressInvalid, "no host and port"),
            ("shm://tmp/x", ErrorKind::AddressInvalid, "shm:///PATH"),
        ] {
            let error = resolve("connect", text).expect_err(text);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word) && error.to_string().contains(text), "{error}");
        }
    }
}
