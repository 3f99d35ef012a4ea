//! Who is asked: HOST, HOST:PORT or an address of zcmi.

use crate::exchange::DEFAULT_PORT;

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    scheme: String,
    /// What follows it.
    rest: String,
}

impl Peer {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("auto", text));
        match scheme {
            "shm" => return Ok(Self { scheme: scheme.to_owned(), rest: rest.to_owned() }),
            "auto" | "rdma" | "tcp" => {}
            _ => return Err("write HOST, HOST:PORT, or an auto://, rdma://, tcp:// or shm:// address".to_owned()),
        }
        // An IPv6 address without brackets has colons of its own.
        let rest = match rest.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{DEFAULT_PORT}"),
            Err(_) if rest.ends_with(']') || !rest.contains(':') => format!("{rest}:{DEFAULT_PORT}"),
            Err(_) => rest.to_owned(),
        };
        let is_good = rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_good {
            return Err("it has no host, or its port is no number up to 65535".to_owned());
        }
        Ok(Self { scheme: scheme.to_owned(), rest })
    }

    pub(super) fn uri(&self) -> String {
        format!("{}://{}", self.scheme, self.rest)
    }

    /// HOST:PORT, if it is a host's.
    pub(super) fn host_and_port(&self) -> Option<&str> {
        (self.scheme != "shm").then_some(&self.rest)
    }

    /// Whether somebody listens at the TCP port.
    pub(super) fn is_at_tcp_port(&self) -> bool {
        matches!(self.scheme.as_str(), "auto" | "tcp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_enough() {
        for (text, uri) in [
            ("host", "auto://host:7471"),
            ("host:1", "auto://host:1"),
            ("192.0.2.1", "auto://192.0.2.1:7471"),
            ("2001:db8::1", "auto://[2001:db8::1]:7471"),
            ("[2001:db8::1]", "auto://[2001:db8::1]:7471"),
            ("[2001:db8::1]:9", "auto://[2001:db8::1]:9"),
            ("tcp://host", "tcp://host:7471"),
            ("shm://name", "shm://name"),
            ("shm:///path/x", "shm:///path/x"),
        ] {
            assert_eq!(Peer::parse(text).map(|peer| peer.uri()).as_deref(), Ok(uri));
        }
        for wrong in ["", ":1", "host:x", "host:65536", "http://host"] {
            assert!(Peer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
