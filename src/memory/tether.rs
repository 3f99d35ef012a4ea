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
        if let Some(tether) = tethers.pop() {
            tether.drop_when_cut(Left { tethers, what: Some(what) });
        }
    }

    /// Drops `what` when the peer has none of our pages any more: until then it could write there.
    pub(crate) fn drop_when_cut(&self, what: impl Send + 'static) {
        if !self.epoch.is_current() {
            // A forked child has not got the memory.
            return std::mem::forget(what);
        }
        if self.is_cut() {
            return drop(what);
        }
        let watched = self.ours.try_clone().and_then(|ours| Ok((ours.try_clone()?, ours)));
        let (Ok((watched, ours)), Ok(service)) = (watched, Service::of_process()) else {
            tracing::error!("pages that a peer may still have cannot be watched, and are never used again");
            return std::mem::forget(what);
        };
        let mut what = Some(what);
        service.watch(watched, move || {
            let is_cut = is_cut(&ours);
            if is_cut {
                drop(what.take());
            }
            !is_cut
        });
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
