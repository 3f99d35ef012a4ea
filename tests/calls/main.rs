//! Calls: requests and responses, many at once; cancelled, late, refused; clients and servers that go away. On a real
//! device.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod cancelled;
mod executors;
mod hostile;
mod limits;
mod lost;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zcmi::{Channel, Client, Connection, Worker};

/// Everything here is quick; a wait that is longer is a lost wake-up.
const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// Waits until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Both ends of a channel, and what keeps their connections.
async fn channels(worker: &Worker, address: &str) -> (Channel, Channel, (Connection, Connection)) {
    let (near, far) = common::pair(worker, address).await;
    (near.channel(1).expect("a channel"), far.channel(1).expect("a channel"), (near, far))
}

fn client(channel: Channel) -> Client {
    Client::new(channel)
}

/// Counts what is there of something, and what there was at most.
#[derive(Clone, Default)]
struct Count(Arc<(AtomicUsize, AtomicUsize)>);

/// One of what is counted.
struct Counted(Count);

impl Count {
    fn one(&self) -> Counted {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Counted(self.clone())
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
