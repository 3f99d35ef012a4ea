//! Both sides of sharing, with a courier of the test's own between them.

mod hostile;
mod model;
mod segments;

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::Pages;
use crate::memory::foreign::Returns;
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::transport::Courier;

/// What is on its way between two ends.
#[derive(Default)]
struct Way(Mutex<VecDeque<Vec<OwnedFd>>>);

/// An end: gives to the one, takes from the other.
struct End {
    gives: Arc<Way>,
    takes: Arc<Way>,
}

impl Courier for End {
    fn give(&self, files: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let files: std::io::Result<_> = files.iter().map(BorrowedFd::try_clone_to_owned).collect();
        lock(&self.gives.0).push_back(files?);
        Ok(())
    }

    fn take(&self) -> Result<Vec<OwnedFd>, &'static str> {
        lock(&self.takes.0).pop_front().ok_or("pages whose descriptor it has not given")
    }
}

/// Two ends, and what is given to the second.
fn pair() -> (Pages, Pages, Arc<Way>) {
    let (there, back) = (Arc::<Way>::default(), Arc::<Way>::default());
    let end = |gives: &Arc<Way>, takes: &Arc<Way>| {
        let courier = Arc::new(End { gives: Arc::clone(gives), takes: Arc::clone(takes) });
        Pages::new(courier, Returns::new(|| {}))
    };
    (end(&there, &back), end(&back, &there), there)
}
