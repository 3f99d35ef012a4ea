//! Calls without a runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use zcmi::{Config, Connector, ErrorKind, Listener, Polling, Worker, serve};

use super::{SOON, client};

/// An executor that knows nothing of tokio.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        assert!(begun.elapsed() < SOON, "in time");
        std::thread::park_timeout(SOON);
    }
}

#[test]
fn calls_need_no_runtime() {
    let Some(address) = crate::common::device_address() else { return };
    for polling in [Polling::Event, Polling::Busy, Config::default().polling] {
        let worker = Worker::new(Config { polling, ..Config::default() }).expect("valid");
        let listener =
            block_on(Listener::bind(&worker, &crate::common::uri(format_args!("{address}:0")))).expect("listens");
        let uri = listener.uri();
        let serving = std::thread::spawn(move || {
            block_on(async {
                let connection = listener.accept().await.expect("accepts");
                serve(connection.channel(1).expect("a channel"), 4, |number: u64| async move {
                    if number == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, String>(number + 1)
                })
                .await
            })
        });
        let connection = block_on(Connector::new(&worker).connect(&uri)).expect("connects");
        let client = client(connection.channel(1).expect("a channel"));
        let threads = [1, 2, 3].map(|number| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..20u64 {
                    let answer: u64 = block_on(client.call(&(number * 100 + round))).expect("an answer");
                    assert_eq!(answer, number * 100 + round + 1);
                }
            })
        });
        let begun = Instant::now();
        let error = block_on(client.call_timeout::<u64, u64>(&0, Duration::from_millis(50))).expect_err("too late");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
        for thread in threads {
            thread.join().expect("the thread succeeds");
        }
        drop((client, connection));
        serving.join().expect("the thread succeeds").expect("it ends well");
    }
}
