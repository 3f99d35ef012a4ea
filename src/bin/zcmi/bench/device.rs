//! The address of an RDMA device of this host.

/// Where a peer process can listen over RDMA, with port 0; or why nowhere.
#[cfg(not(feature = "verbs"))]
pub(crate) fn address() -> Result<String, String> {
    Err("this zcmi was built without the feature verbs".to_owned())
}

#[cfg(feature = "verbs")]
pub(crate) fn address() -> Result<String, String> {
    use std::net::{IpAddr, SocketAddr};

    if let Some(address) = std::env::var("ZCMI_HOST1").ok().filter(|address| !address.is_empty()) {
        let address: IpAddr = address.parse().map_err(|_| format!("ZCMI_HOST1 is no address: {address}"))?;
        return Ok(format!("rdma://{}", SocketAddr::new(address, 0)));
    }
    const NONE: &str = "there is no RDMA device; `zcmi doctor --rdma` tells what is missing";
    let devices = zcmi::verbs::Device::list().map_err(|error| format!("{NONE} ({error})"))?;
    if devices.is_empty() {
        return Err(NONE.to_owned());
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for device in &devices {
        let table = device.open().and_then(|context| context.gid_table()).map_err(|error| error.to_string())?;
        addresses.extend(table.entries().iter().filter_map(|entry| entry.gid.ip()));
    }
    // A link-local address needs its interface.
    addresses.retain(|address| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()));
    addresses.sort_by_key(IpAddr::is_ipv6);
    let address = addresses.first().ok_or("no RDMA device has an address; `zcmi doctor` tells why")?;
    Ok(format!("rdma://{}", SocketAddr::new(*address, 0)))
}
