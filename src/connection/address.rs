//! Addresses as URIs: `rdma://host:port`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use crate::service::Service;
use crate::{Error, ErrorKind, Result};

/// Reads `rdma://HOST:PORT` and resolves HOST, which is a name or a literal (IPv6 in brackets).
///
/// # Errors
/// [`TimedOut`](ErrorKind::TimedOut) if the name is not resolved by `deadline`, [`AddressInvalid`](ErrorKind::AddressInvalid) with what is wrong, [`Unsupported`](ErrorKind::Unsupported) for a
/// transport that this version does not have.
pub(super) async fn resolve(operation: &'static str, text: &str, deadline: Instant) -> Result<SocketAddr> {
    let host = parse(operation, text)?;
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    look_up(operation, text, host.to_owned(), deadline).await
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

/// The part HOST:PORT of an address.
fn parse<'a>(operation: &'static str, text: &'a str) -> Result<&'a str> {
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
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn resolve(operation: &'static str, text: &str) -> Result<SocketAddr> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(super::resolve(operation, text, Instant::now() + Duration::from_secs(20)))
    }

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
