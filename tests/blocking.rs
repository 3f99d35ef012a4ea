//! The API that blocks: without a runtime, within one, with bounds, and what waiting costs. On a real device.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use common::{device_address, fill, pattern};
use rustix::time::{ClockId, clock_gettime};
use zcmi::blocking::{Channel, Client, Connection, Connector, Listener, Stream, block_on, serve};
use zcmi::{Access, Buffer, Config, ErrorKind, Polling, RemoteBuffer, Worker};

/// Everything here is quick; a wait that is longer is a lost wake-up.
const SOON: Duration = Duration::from_secs(20);

fn worker(polling: Polling) -> Worker {
    Worker::new(Config { polling, ..Config::default() }).expect("valid settings")
}

/// Two connected ends, one thread each meanwhile. No runtime is there.
fn pair(worker: &Worker, address: &str) -> (Connection, Connection) {
    let listener = Listener::bind(worker, &common::uri(format_args!("{address}:0"))).expect("listens");
    let uri = listener.uri();
    let accepting = std::thread::spawn(move || listener.accept_timeout(SOON).expect("accepts"));
    let client = Connector::new(worker).connect(&uri).expect("connects");
    (client.with_timeout(SOON), accepting.join().expect("no panic").with_timeout(SOON))
}

fn channels(ends: &(Connection, Connection), id: u32) -> (Channel, Channel) {
    (ends.0.channel(id).expect("a channel"), ends.1.channel(id).expect("a channel"))
}

const WAYS: [Polling; 3] = [Polling::Event, Polling::Busy, Polling::Adaptive { spin: Duration::from_micros(20) }];

#[test]
fn messages_memory_and_values_need_no_runtime() {
    let Some(address) = device_address() else { return };
    for polling in WAYS {
        let (client, server) = pair(&worker(polling), &address);
        let serving = std::thread::spawn(move || {
            let exposed = Buffer::allocate(8192).expect("memory").expose();
            let grant = block_on(exposed.grant(server.inner(), 0..8192, Access::ALL)).expect("grants");
            server.send_value(&("memory", grant.remote_buffer())).expect("sends");
            for _ in 0..20 {
                let message = server.recv().expect("receives");
                server.send(&message).expect("sends");
            }
            assert_eq!(server.recv().expect_err("the end").kind(), ErrorKind::PeerClosed);
            let mut bytes = vec![0; 100];
            exposed.read_at(8, &mut bytes);
            assert!(bytes == pattern(1, 1, 100));
        });
        let (name, handle): (String, RemoteBuffer) = client.recv_value().expect("receives");
        assert_eq!(name, "memory");
        let mut buffer = Buffer::allocate(100).expect("memory");
        fill(&mut buffer, 1, 1);
        let part = handle.slice(8..108).expect("inside");
        let mut buffer = client.write(buffer, &part).expect("writes");
        buffer.fill(0);
        assert!(client.read(buffer, &part).expect("reads")[..] == pattern(1, 1, 100));
        let number = handle.at::<u64>(0).expect("inside");
        assert_eq!(client.fetch_add(&number, 5).expect("adds"), 0);
        assert_eq!(client.compare_swap(&number, 5, 7).expect("swaps"), 5);
        assert_eq!(client.read_value(&number).expect("reads"), 7);
        client.write_value(&number, &8).expect("writes");
        for round in 0..20u8 {
            client.send(&[round; 300]).expect("sends");
            assert_eq!(*client.recv_timeout(SOON).expect("receives"), [round; 300]);
        }
        client.close().expect("closes");
        serving.join().expect("no panic");
    }
}

#[test]
fn calls_and_streams_need_no_runtime() {
    let Some(address) = device_address() else { return };
    for polling in WAYS {
        let ends = pair(&worker(polling), &address);
        let (near, far) = channels(&ends, 1);
        let serving = std::thread::spawn(move || serve(far, |number: u64| number.checked_add(1).ok_or("too large")));
        let client = Client::new(near);
        let threads = [1, 2].map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..10u64 {
                    assert_eq!(
                        client.call::<_, u64>(&(thread * 100 + round)).expect("an answer"),
                        thread * 100 + round + 1
                    );
                }
            })
        });
        for thread in threads {
            thread.join().expect("no panic");
        }
        let error = client.call_timeout::<_, u64>(&u64::MAX, SOON).expect_err("the handler's");
        assert_eq!(error.application().expect("the value").text(), "too large");
        drop(client);
        serving.join().expect("no panic").expect("it ends well");

        let (near, far) = channels(&ends, 2);
        let echoing = std::thread::spawn(move || {
            let mut stream = BufReader::new(Stream::new(far));
            let mut line = String::new();
            stream.read_line(&mut line).expect("reads");
            stream.get_mut().write_all(line.as_bytes()).expect("writes");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("reads");
            stream.get_mut().write_all(&rest).expect("writes");
            stream.get_mut().shutdown().expect("shuts down");
        });
        let mut stream = Stream::new(near);
        let bytes = pattern(3, 3, 300_000);
        stream.write_all(b"a line\n").expect("writes");
        stream.flush().expect("flushes");
        let mut line = [0; 7];
        stream.read_exact(&mut line).expect("reads");
        assert_eq!(&line, b"a line\n");
        stream.write_all(&bytes).expect("writes");
        stream.shutdown().expect("shuts down");
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).expect("reads");
        assert!(echoed == bytes, "{} bytes, or others", echoed.len());
        echoing.join().expect("no panic");
    }
}

#[test]
fn everything_that_waits_has_a_bound() {
    let Some(address) = device_address() else { return };
    const SHORT: Duration = Duration::from_millis(50);
    let late = |begun: Instant, kind: ErrorKind| {
        assert_eq!(kind, ErrorKind::TimedOut);
        assert!((SHORT..Duration::from_secs(10)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    };
    for polling in WAYS {
        let worker = worker(polling);
        let listener = Listener::bind(&worker, &common::uri(format_args!("{address}:0"))).expect("listens");
        let begun = Instant::now();
        late(begun, listener.accept_timeout(SHORT).expect_err("nobody comes").kind());
        let begun = Instant::now();
        // Nobody accepts.
        late(
            begun,
            Connector::new(&worker).connect_timeout(&listener.uri(), SHORT).expect_err("nobody accepts").kind(),
        );

        let ends = pair(&worker, &address);
        let (client, server) = (ends.0.clone().with_timeout(SHORT), ends.1.clone());
        let begun = Instant::now();
        late(begun, client.recv().expect_err("nothing comes").kind());
        let begun = Instant::now();
        late(begun, server.recv_timeout(SHORT).expect_err("nothing comes").kind());
        let full = loop {
            let begun = Instant::now();
            if let Err(error) = client.send(&[1; 1000]) {
                break (begun, error.kind());
            }
        };
        late(full.0, full.1);
        // What was sent is there, and what was not is not.
        server.recv().expect("receives");

        let ends = pair(&worker, &address);
        let (near, _far) = channels(&ends, 1);
        let near = near.with_timeout(SHORT);
        let begun = Instant::now();
        late(begun, near.recv().expect_err("nothing comes").kind());
        let begun = Instant::now();
        late(begun, Client::new(near).call::<_, ()>(&()).expect_err("nobody serves").kind());
        let (near, _far) = channels(&ends, 2);
        let mut stream = Stream::new(near.with_timeout(SHORT));
        let begun = Instant::now();
        assert_eq!(stream.read(&mut [0; 9]).expect_err("nothing comes").kind(), std::io::ErrorKind::TimedOut);
        late(begun, ErrorKind::TimedOut);
    }
}

/// Processor time of this thread.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn who_waits_sleeps_unless_told_to_poll() {
    let Some(address) = device_address() else { return };
    let patience = Duration::from_millis(1000);
    let [event, busy, adaptive] = WAYS.map(|polling| {
        let (client, _server) = pair(&worker(polling), &address);
        let before = used();
        client.recv_timeout(patience).expect_err("nothing comes");
        used() - before
    });
    // Other processes want the processor too: the one that polls gets some of it in any case.
    assert!(event < patience / 20, "{event:?}");
    assert!(adaptive < patience / 20, "{adaptive:?}");
    assert!(busy > patience / 5, "{busy:?}");
}

#[test]
fn within_a_runtime_it_works_and_blocks_the_thread() {
    let Some(address) = device_address() else { return };
    for polling in WAYS {
        let worker = worker(polling);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = Listener::bind(&worker, &common::uri(format_args!("{address}:0"))).expect("listens");
            let uri = listener.uri();
            let echoing = std::thread::spawn(move || {
                let server = listener.accept_timeout(SOON).expect("accepts").with_timeout(SOON);
                while let Ok(message) = server.recv() {
                    server.send(&message).expect("sends");
                }
            });
            let client = Connector::new(&worker).connect(&uri).expect("connects").with_timeout(SOON);
            for round in 0..20u8 {
                // The runtime has a task that waits for the device's events: it must not be counted on.
                if round % 5 == 0 {
                    client.inner().send(&[round]).await.expect("sends");
                    assert_eq!(*client.inner().recv().await.expect("receives"), [round]);
                }
                client.send(&[round; 9]).expect("sends");
                assert_eq!(*client.recv().expect("receives"), [round; 9]);
            }
            let on_its_own = client.clone();
            let blocking = tokio::task::spawn_blocking(move || {
                on_its_own.send(b"from a thread that may block").expect("sends");
                on_its_own.recv().map(|message| message.len())
            });
            assert_eq!(blocking.await.expect("no panic").expect("receives"), 28);
            client.close().expect("closes");
            echoing.join().expect("no panic");
        });
    }
}
