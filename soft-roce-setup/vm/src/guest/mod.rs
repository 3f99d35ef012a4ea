//! The guest's side: what runs as process 1 there.

mod agent;
mod exec;
mod setup;
mod streams;

pub(crate) use agent::agent;
pub(crate) use exec::exec;

/// First argument that makes this program the agent.
pub(crate) const AGENT: &str = "--as-agent";
/// First argument that makes this program prepare itself and then become the command.
pub(crate) const EXEC: &str = "--as-exec";
/// What the initramfs starts.
pub(crate) const INIT: &str = include_str!("init");
/// Name of the virtio-serial port.
pub(crate) const PORT: &str = "zcmi";
/// Mount tag of the writable folder.
pub(crate) const RESULTS: &str = "results";
/// Where the initramfs leaves this program.
pub(crate) const PROGRAM: &str = "/run/zcmi/agent";
