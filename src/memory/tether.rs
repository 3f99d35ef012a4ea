//! Whether a peer still has pages of ours: it holds one end of a pipe for as long as it has mapped any, and we have the other.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::Epoch;
use crate::service::Service;

/// Our end. A process that is killed lets go of its end when its memory is gone, whatever it was doing; a peer that lives does so when it
/// has unmapped all that it was given.
pub(crate) struct Tether {
    ours: OwnedFd,
    epoch: Epoch,
}

impl Tether {
    /// One, and the end that is the peer's. Ours is to be closed here when the peer has it.
    pub(crate) fn new() -> rustix::io::Result<(Arc<Self>, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Arc::new(Self { ours, epoch: Epoch::current() }), theirs))
    }

    /// Whether the peer has none of our pages any more.
    pub(crate) fn is_cut(&self) -> bool {
        is_cut(&self.ours)
    }

    /// Drops `what` when none of several peers has any of our pages any more.
    pub(crate) fn drop_when_all_cut(mut tethers: Vec<Arc<Self>>, what: Box<dyn Send>) {
        // None within another: no stack has room for as many as there may be.
        while let Some(tether) = tethers.pop() {
            if !tether.epoch.is_current() {
                return std::mem::forget(what);
            }
            if !tether.is_cut() {
                return tether.watch(Left { tethers, what: Some(what) });
            }
        }
    }

    /// Drops `what` when the peer has none of our pages any more: until then it could write there.
    pub(crate) fn drop_when_cut(&self, what: impl Send + 'static) {
        if !self.epoch.is_current() {
            // A forked child has not got the memory.
            return std::mem::forget(what);
        }
        if !self.is_cut() {
            self.watch(what);
        }
    }

    fn watch(&self, what: impl Send + 'static) {
        let watched = self.ours.try_clone().and_then(|ours| Ok((ours.try_clone()?, ours)));
        let (Ok((watched, ours)), Ok(service)) = (watched, Service::of_process()) else {
            tracing::error!("pages that a peer may still have cannot be watched, and are never used again");
            return std::mem::forget(what);
        };
        service.watch(watched, watch(ours, what));
    }
}

/// Drops `what` when it is called and the pipe is cut, and only then: who cannot call it, as the descriptor cannot be watched, drops it.
fn watch(ours: OwnedFd, what: impl Send + 'static) -> impl FnMut() -> bool + Send {
    let mut what = Kept(Some(what));
    move || {
        let is_cut = is_cut(&ours);
        if is_cut {
            drop(what.0.take());
        }
        !is_cut
    }
}

/// What is not dropped with its owner: a peer may still write there.
struct Kept<T>(Option<T>);

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            tracing::error!("pages that a peer may still have are watched no more, and are never used again");
            std::mem::forget(what);
        }
    }
}

/// What is dropped when none of the peers has it any more.
struct Left {
    tethers: Vec<Arc<Tether>>,
    what: Option<Box<dyn Send>>,
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            Tether::drop_when_all_cut(std::mem::take(&mut self.tethers), what);
        }
    }
}

fn is_cut(ours: &OwnedFd) -> bool {
    // Nobody writes; what somebody writes all the same is no end.
    loop {
        match rustix::io::read(ours, &mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

impl fmt::Debug for Tether {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tether").field(&self.is_cut()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Says that it was dropped, by its channel's end.
    fn telltale() -> (Box<dyn Send>, Receiver<()>) {
        let (dropped, heard): (Sender<()>, _) = channel();
        (Box::new(dropped), heard)
    }

    #[test]
    fn what_several_peers_have_is_dropped_with_the_last_of_them() {
        for last in 0..3 {
            let mut peers: Vec<_> = (0..3).map(|_| Tether::new().expect("a pipe")).collect();
            let (what, heard) = telltale();
            Tether::drop_when_all_cut(peers.iter().map(|(ours, _)| Arc::clone(ours)).collect(), what);
            let kept = peers.swap_remove(last);
            drop(peers);
            assert_eq!(heard.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout), "{last} has it");
            drop(kept);
            assert_eq!(heard.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
        }
    }

    #[test]
    fn what_cannot_be_watched_is_never_dropped() {
        let (tether, theirs) = Tether::new().expect("a pipe");
        let (what, heard) = telltale();
        let ours = tether.ours.try_clone().expect("a descriptor");
        drop(watch(ours.try_clone().expect("a descriptor"), what));
        assert_eq!(heard.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout), "a peer has it");
        let (what, heard) = telltale();
        let mut watch = watch(ours, what);
        assert!(watch(), "it goes on");
        drop(theirs);
        assert!(!watch(), "it is over");
        assert_eq!(heard.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn so_many_that_no_stack_had_room_for_all_are_let_go_one_after_the_other() {
        let (tether, theirs) = Tether::new().expect("a pipe");
        let many = || vec![Arc::clone(&tether); 100_000];
        let (what, heard) = telltale();
        Tether::drop_when_all_cut(many(), what);
        assert_eq!(heard.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
        drop(theirs);
        assert_eq!(heard.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "on the service thread");
        let (what, heard) = telltale();
        Tether::drop_when_all_cut(many(), what);
        assert_eq!(heard.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "here");
    }
}
