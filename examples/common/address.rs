//! Addresses: completing those that were given, finding one where none was.

use std::net::IpAddr;

#[cfg(feature = "verbs")]
use zcmi::verbs::{Context, Device, PortState};

/// The port of `--bind` and `--connect` addresses that name none.
const DEFAULT_PORT: u16 = 7470;

/// What `ZCMI_HOST1` is for, the address of a device.
const DEVICE_SCHEME: &str = if cfg!(feature = "verbs") { "rdma" } else { "tcp" };

/// What an address without a scheme is for.
const DEFAULT_SCHEME: &str = "auto";

/// Adds the scheme and the port to an address that lacks them; an IPv6 address may come without brackets.
pub(crate) fn complete(address: &str) -> String {
    complete_for(DEFAULT_SCHEME, address)
}

fn complete_for(default_scheme: &str, address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or((default_scheme, address));
    if !matches!(scheme, "auto" | "rdma" | "tcp") {
        return address.to_owned();
    }
    if let Ok(ip) = rest.parse::<IpAddr>() {
        return format!("{scheme}://{}:{DEFAULT_PORT}", literal(ip));
    }
    // What follows the last colon outside of brackets is the port.
    let has_port = rest.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    if has_port { format!("{scheme}://{rest}") } else { format!("{scheme}://{rest}:{DEFAULT_PORT}") }
}

/// What is behind this is a name or a path, without a port.
const SHARED_MEMORY: &str = "shm://";

/// Where a second listener may be, besides the one at `uri`, whose address is `ip` if it has one.
pub(crate) fn another(uri: &str, ip: IpAddr) -> String {
    match uri.strip_prefix(SHARED_MEMORY) {
        Some(path) if path.starts_with('/') => format!("{uri}.{}", std::process::id()),
        Some(_) => SHARED_MEMORY.to_owned(),
        None => any_port(uri, ip),
    }
}

/// What tells a listener of a host from its others: the port, or all of the name or path.
pub(crate) fn place(uri: &str) -> &str {
    uri.strip_prefix(SHARED_MEMORY).unwrap_or_else(|| uri.rsplit_once(':').map_or("", |(_, port)| port))
}

/// The same host at another place.
pub(crate) fn with_place(uri: &str, place: &str) -> String {
    if uri.starts_with(SHARED_MEMORY) {
        return format!("{SHARED_MEMORY}{place}");
    }
    let host = uri.rsplit_once(':').map_or(uri, |(host, _)| host);
    format!("{host}:{place}")
}

/// Any port at `ip`, over the transport of `uri`.
fn any_port(uri: &str, ip: IpAddr) -> String {
    let scheme = uri.split_once("://").map_or(DEFAULT_SCHEME, |(scheme, _)| scheme);
    format!("{scheme}://{}:0", literal(ip))
}

/// An address, any port, for two processes of this host: `ZCMI_HOST1` if set, else what the GIDs of an RDMA device say, else the
/// loopback address by whichever way there is.
pub(crate) fn of_host() -> String {
    match std::env::var("ZCMI_HOST1") {
        Ok(host) if !host.is_empty() => with_place(&complete_for(DEVICE_SCHEME, &host), "0"),
        _ => match device_address() {
            Some(ip) => any_port("rdma://", ip),
            None => {
                super::say(format_args!("there is no RDMA device to use"));
                any_port("auto://", [127, 0, 0, 1].into())
            }
        },
    }
}

#[cfg(not(feature = "verbs"))]
fn device_address() -> Option<IpAddr> {
    None
}

/// The first address of an active port, IPv4 before IPv6; link-local ones would need their interface's name.
#[cfg(feature = "verbs")]
fn device_address() -> Option<IpAddr> {
    let devices = Device::list().ok()?;
    let contexts: Vec<_> = devices.iter().filter_map(|device| device.open().ok()).collect();
    let addresses: Vec<IpAddr> = contexts.iter().flat_map(|context| addresses_of(context)).collect();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

#[cfg(feature = "verbs")]
fn addresses_of(context: &Context) -> Vec<IpAddr> {
    let Ok(table) = context.gid_table() else { return Vec::new() };
    let is_active = |port| context.port(port).is_ok_and(|attributes| attributes.state == PortState::Active);
    let entries = table.entries().iter().filter(|entry| is_active(entry.port));
    entries
        .filter_map(|entry| entry.gid.ip())
        .filter(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()))
        .collect()
}

fn literal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
