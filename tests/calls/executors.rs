//! Calls without a runtime.

use std::time::{Duration, Instant};

use zcmi::{Config, Connector, ErrorKind, Listener, Polling, Worker, serve};

use super::client;
use crate::common::block_on;

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
