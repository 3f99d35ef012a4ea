//! The sending side of the port: one thread writes, so nobody who has something to say ever blocks
//! on it. What is queued is bounded by the streams' credit.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::frame::Frame;
use crate::write::write_all;

/// A cheap handle; frames leave in the order they were given.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    queue: Sender<Message>,
}

#[derive(Debug)]
enum Message {
    Frame(Frame),
    Flushed(Sender<()>),
}

impl Port {
    /// Starts the writing thread, which ends with the last handle or when the other side is gone.
    pub(crate) fn new(target: OwnedFd) -> Self {
        let (queue, frames) = mpsc::channel::<Message>();
        thread::spawn(move || {
            for message in frames {
                match message {
                    Message::Frame(frame) => {
                        if write_all(&target, &frame.encode()).is_err() {
                            break;
                        }
                    }
                    Message::Flushed(done) => drop(done.send(())),
                }
            }
        });
        Self { queue }
    }

    /// Queues a frame. That the other side is gone is noticed by whoever reads from it.
    pub(crate) fn send(&self, frame: Frame) {
        drop(self.queue.send(Message::Frame(frame)));
    }

    /// Waits until everything queued so far has been written (or cannot be).
    pub(crate) fn flush(&self) {
        let (done, flushed) = mpsc::channel();
        drop(self.queue.send(Message::Flushed(done)));
        let _ = flushed.recv();
    }
}
