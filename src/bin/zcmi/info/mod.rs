//! `zcmi info`: what there is.

mod devices;
mod text;

use serde::Serialize;

use crate::Format;
use crate::host::{Host, Libraries};
use crate::output::Output;
use std::process::ExitCode;

/// All of it, as JSON has it.
#[derive(Debug, Serialize)]
struct Info {
    versions: Versions,
    transports: Vec<Transport>,
    devices: Vec<devices::Device>,
}

#[derive(Debug, Serialize)]
struct Versions {
    zcmi: &'static str,
    kernel: Option<String>,
    rdma_core: Option<String>,
}

/// A transport, and whether it can be used here.
#[derive(Debug, Serialize)]
struct Transport {
    name: &'static str,
    available: bool,
    /// Why not.
    reason: Option<String>,
}

pub(crate) fn run(host: &Host, output: Output) -> ExitCode {
    let info = Info::of(host);
    match output.format {
        Format::Json => output.json(&info),
        Format::Text => output.print(&text::render(&info, output)),
    }
    ExitCode::SUCCESS
}

impl Info {
    fn of(host: &Host) -> Self {
        let (devices, verbs) = match devices::all(host) {
            Ok(devices) => {
                let reason = match devices.iter().find_map(|device| device.error.clone()) {
                    _ if devices.iter().any(|device| device.error.is_none()) => None,
                    Some(error) => Some(error),
                    None => Some("there is no RDMA device".to_owned()),
                };
                (devices, reason)
            }
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let transport = |name, reason: Option<String>| Transport { name, available: reason.is_none(), reason };
        let transports = vec![
            transport("shm", shared_memory(host).err()),
            transport("verbs", verbs),
            transport("tcp", (host.loopback)().err().map(|error| format!("no TCP to this host: {error}"))),
        ];
        Self { versions: Versions::of(host), transports, devices }
    }
}

impl Versions {
    fn of(host: &Host) -> Self {
        let rdma_core = Libraries::of(host).version.map(|(major, minor)| format!("{major}.{minor}"));
        Self { zcmi: env!("CARGO_PKG_VERSION"), kernel: host.kernel(), rdma_core }
    }
}

/// Whether shared memory can be used.
fn shared_memory(host: &Host) -> Result<(), String> {
    (host.sealed_memory)().map_err(|error| format!("no sealed memory: {error}"))?;
    (host.unix_socket)().map_err(|error| format!("no unix sockets: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;
    use std::io;

    #[test]
    fn why_a_transport_is_not_there_is_told() {
        let mut host = Fixture::empty();
        host.sealed_memory = || Err(io::ErrorKind::Unsupported.into());
        host.loopback = || Err(io::ErrorKind::NetworkUnreachable.into());
        let info = Info::of(&host);
        let of = |name| info.transports.iter().find(|transport| transport.name == name).expect("a transport");
        assert!(!of("shm").available && of("shm").reason.as_deref().expect("why").contains("sealed memory"));
        assert!(!of("tcp").available && of("tcp").reason.is_some());
        assert!(info.transports.iter().all(|transport| transport.available == transport.reason.is_none()));
        assert_eq!((info.versions.kernel, info.versions.rdma_core), (None, None));
    }

    #[test]
    fn versions_are_read() {
        let versions = Versions::of(&Fixture::with_device());
        assert_eq!((versions.kernel.as_deref(), versions.rdma_core.as_deref()), (Some("6.12.1"), Some("50.0")));
    }
}
