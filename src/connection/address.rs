//! Addresses as URIs: `rdma://host:port`.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::{Error, ErrorKind, Result};

/// Reads `rdma://HOST:PORT` and resolves HOST, which is a name or a literal (IPv6 in brackets).
///
/// # Errors
/// [`AddressInvalid`](ErrorKind::AddressInvalid) with what is wrong, [`Unsupported`](ErrorKind::Unsupported) for a
/// transport that this version does not have.
pub(super) fn resolve(operation: &'static str, text: &str) -> Result<SocketAddr> {
    let invalid = |detail: String| Error::new(ErrorKind::AddressInvalid, operation).with_peer(text).with_detail(detail);
    let rest = match text.split_once("://") {
        Some(("rdma", rest)) => rest,
        Some((scheme @ ("shm" | "tcp" | "auto"), _)) => {
            let detail = format!("the {scheme} transport is not in this version; write rdma://HOST:PORT");
            return Err(Error::new(ErrorKind::Unsupported, operation).with_peer(text).with_detail(detail));
        }
        Some((scheme, _)) => return Err(invalid(format!("unknown scheme {scheme}"))),
        None => return Err(invalid("no scheme".to_owned())),
    };
    if rest.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(invalid("no host and port".to_owned()));
    }
    let mut addresses =
        rest.to_socket_addrs().map_err(|error| invalid("the name is not known".to_owned()).with_source(error))?;
    addresses.next().ok_or_else(|| invalid("the name has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_resolve() {
        assert_eq!(resolve("connect", "rdma://192.0.2.1:7").expect("a literal"), ([192, 0, 2, 1], 7).into());
        let v6 = resolve("connect", "rdma://[2001:db8::1]:65535").expect("a literal");
        assert_eq!(v6.to_string(), "[2001:db8::1]:65535");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, kind, word) in [
            ("192.0.2.1:7", ErrorKind::AddressInvalid, "no scheme"),
            ("http://192.0.2.1:7", ErrorKind::AddressInvalid, "unknown scheme http"),
            ("rdma://192.0.2.1", ErrorKind::AddressInvalid, "no host and port"),
            ("rdma://:7", ErrorKind::AddressInvalid, "no host and port"),
            ("rdma://192.0.2.1:70000", ErrorKind::AddressInvalid, "no host and port"),
            ("rdma://host.invalid:7", ErrorKind::AddressInvalid, "not known"),
            ("shm:///tmp/x", ErrorKind::Unsupported, "shm transport"),
        ] {
            let error = resolve("connect", text).expect_err(text);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word) && error.to_string().contains(text), "{error}");
        }
    }
}
