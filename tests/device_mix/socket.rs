//! The socket beside the connection: a fact a line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;

use crate::far::Fact;
use crate::session::Session;

pub(crate) struct Accepting(UnixListener);

pub(crate) struct Socket {
    to_write: UnboundedSender<Fact>,
    heard: Rc<Heard>,
    writing: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    facts: RefCell<VecDeque<Fact>>,
    is_closed: RefCell<bool>,
    changed: Notify,
    /// One conversation at a time hears.
    turn: Mutex<()>,
}

pub(crate) struct Sender(UnboundedSender<Fact>);

impl Sender {
    pub(crate) fn send(&self, fact: Fact) {
        let _ = self.0.send(fact);
    }
}

impl Accepting {
    pub(crate) async fn accept(self) -> Socket {
        Socket::over(self.0.accept().await.expect("accepts").0)
    }
}

impl Socket {
    pub(crate) fn listen(path: &Path) -> Accepting {
        Accepting(UnixListener::bind(path).expect("a path of our own"))
    }

    pub(crate) async fn connect(path: &Path) -> Self {
        let begun = Instant::now();
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => {
                    let _ = std::fs::remove_file(path);
                    return Self::over(stream);
                }
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{}: {error}", path.display()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn over(stream: UnixStream) -> Self {
        let (reading, mut writing) = stream.into_split();
        let (to_write, mut facts) = unbounded_channel::<Fact>();
        let written = tokio::task::spawn_local(async move {
            while let Some(fact) = facts.recv().await {
                let mut line = serde_json::to_vec(&fact).expect("it can be written");
                line.push(b'\n');
                if writing.write_all(&line).await.is_err() {
                    return;
                }
            }
        });
        let heard = Rc::<Heard>::default();
        let hearing = Rc::clone(&heard);
        tokio::task::spawn_local(async move {
            let mut lines = BufReader::new(reading).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                hearing.facts.borrow_mut().push_back(serde_json::from_str(&line).expect("a fact"));
                hearing.changed.notify_waiters();
            }
            *hearing.is_closed.borrow_mut() = true;
            hearing.changed.notify_waiters();
        });
        Self { to_write, heard, writing: written }
    }

    /// Waits until all that was told is on its way.
    pub(crate) async fn finish(self) {
        drop(self.to_write);
        self.writing.await.expect("no panic");
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender(self.to_write.clone())
    }

    /// Until the other process has closed it.
    pub(crate) async fn closed(&self) {
        loop {
            let changed = self.heard.changed.notified();
            if *self.heard.is_closed.borrow() {
                return;
            }
            changed.await;
        }
    }

    /// Has the session hear what the other end says, until both have ended; ends only if the other process has gone.
    pub(crate) async fn hear_all(&self, session: &Session, side: usize) {
        let _turn = self.heard.turn.lock().await;
        loop {
            let changed = self.heard.changed.notified();
            while !session.is_settled()
                && let Some(fact) = { self.heard.facts.borrow_mut().pop_front() }
            {
                session.hear(side, fact);
            }
            if *self.heard.is_closed.borrow() && !session.is_settled() {
                return session.peer_is_gone();
            }
            changed.await;
        }
    }
}
