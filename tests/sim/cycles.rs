//! Ten thousand connections, one after the other: what the process has allocated does not grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use zcmi::internals::simulation::{Executor, Faults, Settings, sleep};
use zcmi::{Config, Connector, ErrorKind, Listener, Worker};

const CYCLES: u64 = 10_000;
/// Bytes that a connection may leave behind: the simulated devices use no number twice, and remember each.
const GROWTH: f64 = 64.0;

pub(crate) fn connections_come_and_go_without_growth() -> Result<String, String> {
    let mut executor = Executor::new(Settings { faults: Faults::none(), ..Settings::new(1) });
    let server = executor.add_node("server", true);
    let client = executor.add_node("client", true);
    let seen = Rc::new(RefCell::new(Vec::new()));
    executor.spawn(server, serve());
    executor.spawn(client, connect(Rc::clone(&seen)));
    executor.run().map_err(|ended| format!("  {}", ended.why))?;
    let seen = seen.borrow();
    let each = (seen[seen.len() - 1] - seen[0]) as f64 / (CYCLES - CYCLES / 10) as f64;
    let report = format!("  {each:.1} bytes a connection, of {CYCLES}; in all {} bytes after a tenth", seen[0]);
    if each > GROWTH { Err(report) } else { Ok(report) }
}

async fn serve() {
    let worker = Worker::new(Config::default()).expect("valid");
    let listener = Listener::bind(&worker, "sim://server").await.expect("listens");
    for number in 0..CYCLES {
        let connection = listener.accept().await.expect("accepts");
        let message = connection.recv().await.expect("receives");
        assert_eq!(&*message, number.to_le_bytes());
        connection.send(&message).await.expect("sends");
        if number % 2 == 0 {
            assert_eq!(connection.recv().await.expect_err("nothing more").kind(), ErrorKind::PeerClosed);
        } else {
            connection.close().await.expect("closes");
        }
    }
}

/// Notes what is allocated after each tenth.
async fn connect(seen: Rc<RefCell<Vec<i64>>>) {
    let worker = Worker::new(Config::default()).expect("valid");
    for number in 0..CYCLES {
        let connection = Connector::new(&worker).connect("sim://server").await.expect("connects");
        connection.send(&number.to_le_bytes()).await.expect("sends");
        assert_eq!(&*connection.recv().await.expect("receives"), number.to_le_bytes());
        if number % 2 == 0 {
            // Closed, or only dropped.
            if number % 4 == 0 {
                connection.close().await.expect("closes");
            }
        } else {
            assert_eq!(connection.recv().await.expect_err("nothing more").kind(), ErrorKind::PeerClosed);
        }
        drop(connection);
        if (number + 1) % (CYCLES / 10) == 0 {
            // What ends in the background ends.
            sleep(Duration::from_secs(5)).await;
            seen.borrow_mut().push(ALLOCATED.load(Ordering::Relaxed));
        }
    }
}

/// Bytes that all threads have allocated and not freed.
static ALLOCATED: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
#[allow(unsafe_code, reason = "an allocator is")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
