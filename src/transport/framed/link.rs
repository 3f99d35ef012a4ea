//! The control side of an established connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::socket::Socket;
use crate::Error;
use crate::transport::Link;

pub(crate) struct FramedLink {
    socket: Arc<Socket>,
    peer: String,
    device: &'static str,
}

impl FramedLink {
    pub(super) fn new(socket: Arc<Socket>, peer: String, device: &'static str) -> Self {
        Self { socket, peer, device }
    }
}

impl Link for FramedLink {
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static) {
        let (peer, device) = (self.peer.clone(), self.device);
        self.socket.observe(Box::new(move |error| lost(error.with_peer(peer).with_device(device))));
    }

    fn disconnect(&self) {
        // Else the channel shuts it, when that is written.
        if !self.socket.has_last_words.load(Ordering::Acquire) {
            self.socket.shut();
        }
    }
}

impl Drop for FramedLink {
    fn drop(&mut self) {
        self.socket.forget_observer();
    }
}
