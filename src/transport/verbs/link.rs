//! The control side of an established connection.

use std::net::Ipv6Addr;
use std::sync::{Mutex, PoisonError};

use super::events::Endpoint;
use super::set_up::explain;
use crate::Error;
use crate::transport::Link;
use crate::verbs::ConnectionEventKind as Kind;

/// The rdma_cm identifier of a connection whose queue pair is ready.
pub(crate) struct VerbsLink {
    endpoint: Mutex<Endpoint>,
    peer: String,
    device: String,
    gid: Option<Ipv6Addr>,
}

impl VerbsLink {
    pub(super) fn new(endpoint: Endpoint, peer: String, device: String, gid: Option<Ipv6Addr>) -> Self {
        Self { endpoint: Mutex::new(endpoint), peer, device, gid }
    }
}

impl Link for VerbsLink {
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static) {
        let (peer, device, gid) = (self.peer.clone(), self.device.clone(), self.gid);
        let mut lost = Some(lost);
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).observe(move |event| {
            let ends = matches!(
                event.kind,
                Kind::Disconnected
                    | Kind::DeviceRemoval
                    | Kind::TimewaitExit
                    | Kind::ConnectError
                    | Kind::Unreachable
                    | Kind::Rejected
            );
            if let Some(lost) = lost.take_if(|_| ends) {
                lost(explain(&event, "connection").with_peer(&peer).with_device(&device).with_gid(gid));
            }
        });
    }

    fn disconnect(&self) {
        if let Err(error) = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).id().disconnect() {
            tracing::debug!(%error, peer = self.peer, "disconnect of a connection that has ended");
        }
    }
}
