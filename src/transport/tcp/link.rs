//! The control side of an established connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::socket::Socket;
use crate::Error;
use crate::transport::Link;

pub(crate) struct TcpLink {
    socket: Arc<Socket>,
    peer: String,
}

impl TcpLink {
    pub(super) fn new(socket: Arc<Socket>, peer: String) -> Self {
        Self { socket, peer }
    }
}

impl Link for TcpLink {
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static) {
        let peer = self.peer.clone();
        self.socket.observe(Box::new(move |error| lost(error.with_peer(peer).with_device(super::DEVICE))));
    }

    fn disconnect(&self) {
        // Else the channel shuts it, when that is written.
        if !self.socket.has_last_words.load(Ordering::Acquire) {
            self.socket.shut();
        }
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.socket.forget_observer();
    }
}
