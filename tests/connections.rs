//! Connections in one process: messages, cancellation, closing, many at once, any executor. On a real device.

#![allow(unsafe_code, reason = "forking; each block carries its proof")]

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::resources::Resources;
use common::{aside, baseline, block_on, fill, listen, on_device, pair, pattern, still_works, worker};
use zcmi::{Access, Buffer, Config, Connection, Connector, ErrorKind, Polling, Worker};

/// Everything here is quick; a wait that is longer is a lost wake-up.
const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

#[test]
fn messages_of_every_size_arrive_in_order_and_whole() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        assert_eq!((client.max_message_size(), client.max_short_message_size()), (1 << 30, 4072));
        let lengths = [0, 1, 7, 8, 231, 232, 233, 255, 256, 257, 1000, 4071, 4072, 4073, 8192, 100_000];
        let sending = async {
            for (index, length) in lengths.iter().cycle().take(500).enumerate() {
                client.send(&pattern(1, index as u64, *length)).await.expect("sends");
            }
        };
        let receiving = async {
            for (index, length) in lengths.iter().cycle().take(500).enumerate() {
                let message = server.recv().await.expect("receives");
                assert_eq!(&*message, &pattern(1, index as u64, *length)[..], "message {index}");
            }
        };
        soon(async { tokio::join!(sending, receiving) }).await;
    });
}

#[test]
fn both_directions_at_once_do_not_block_each_other() {
    on_device(|address| async move {
        let settings = Config { receive_depth: 1, ..Config::default() };
        let (client, server) = pair(&Worker::new(settings).expect("valid settings"), &address).await;
        let flood = |connection: Connection| async move {
            for index in 0..300u64 {
                connection.send(&index.to_le_bytes()).await.expect("sends");
            }
        };
        let drain = |connection: Connection| async move {
            for index in 0..300u64 {
                assert_eq!(&*connection.recv().await.expect("receives"), &index.to_le_bytes());
            }
        };
        soon(async { tokio::join!(flood(client.clone()), flood(server.clone()), drain(client), drain(server)) }).await;
    });
}

#[test]
fn messages_that_nobody_receives_hold_their_channel_back_and_no_other() {
    on_device(|address| async move {
        let settings = Config { channel_window: 10_000, ..Config::default() };
        let (client, server) = pair(&Worker::new(settings).expect("valid settings"), &address).await;
        let mut sent = 0;
        while client.send_timeout(&[7; 1000], Duration::from_millis(200)).await.is_ok() {
            sent += 1;
        }
        // 1064 bytes each, and one more as long as half is free.
        assert_eq!(sent, 9);
        assert_eq!(client.try_send(&[7; 1000]).expect_err("no room").kind(), ErrorKind::WouldBlock);
        let other = client.channel(5).expect("a channel");
        soon(other.send(b"past them")).await.expect("sends");
        assert_eq!(&*soon(server.channel(5).expect("the same").recv()).await.expect("receives"), b"past them");
        for _ in 0..sent {
            assert_eq!(&*soon(server.recv()).await.expect("receives"), [7; 1000]);
        }
        soon(client.send(b"one more")).await.expect("sends");
        assert_eq!(&*soon(server.recv()).await.expect("receives"), b"one more");
    });
}

#[test]
fn a_dropped_receive_or_send_loses_nothing() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        for round in 0..100u32 {
            // Polled once, then dropped.
            assert!(poll_once(pin!(server.recv())).is_pending());
            client.send(&round.to_le_bytes()).await.expect("sends");
            if round % 3 == 0 {
                // Gives it time to arrive, so that the dropped one could have taken it.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(&*soon(server.recv()).await.expect("receives"), &round.to_le_bytes());
        }
        let mut sent = 0;
        while poll_once(pin!(client.send(b"x"))).is_ready() {
            sent += 1;
        }
        // The pending one was dropped: it sent nothing.
        for _ in 0..sent {
            assert_eq!(&*soon(server.recv()).await.expect("receives"), b"x");
        }
        client.send(b"last").await.expect("sends");
        assert_eq!(&*soon(server.recv()).await.expect("receives"), b"last");
    });
}

fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_dropped_operation_still_happens_and_frees_its_buffer() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let exposed = Buffer::allocate(1 << 16).expect("memory").expose();
        let grant = exposed.grant(&server, 0..1 << 16, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        for round in 0..200u64 {
            let mut buffer = Buffer::allocate(64).expect("memory");
            fill(&mut buffer, 5, round);
            let at = (round % 100) * 64;
            let mut operation = client.write(buffer, &handle.slice(at..at + 64).expect("inside"));
            if round % 2 == 0 {
                let _ = poll_once(std::pin::Pin::new(&mut operation));
            }
            drop(operation);
        }
        // In order behind all of them.
        soon(client.read(Buffer::allocate(64).expect("memory"), &handle)).await.expect("reads");
        let mut seen = vec![0; 6400];
        exposed.read_at(0, &mut seen);
        for slot in 0..100 {
            assert_eq!(seen[slot * 64..][..64], pattern(5, 100 + slot as u64, 64), "slot {slot}");
        }
    });
}

#[test]
fn more_operations_than_the_queue_holds_wait_their_turn() {
    on_device(|address| async move {
        let settings = Config { send_depth: 16, ..Config::default() };
        let (client, server) = pair(&Worker::new(settings).expect("valid settings"), &address).await;
        let exposed = Buffer::allocate(1 << 16).expect("memory").expose();
        let grant = exposed.grant(&server, 0..1 << 16, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let mut flying = Vec::new();
        let mut batch = client.batch();
        for index in 0..100u64 {
            let mut buffer = Buffer::allocate(64).expect("memory");
            fill(&mut buffer, 6, index);
            flying.push(batch.write(buffer, &handle.slice(index * 64..(index + 1) * 64).expect("inside")));
        }
        batch.post();
        // Awaited in the opposite order, with messages in between.
        while let Some(operation) = flying.pop() {
            soon(operation).await.expect("writes");
            soon(client.send(b"between")).await.expect("sends");
            soon(server.recv()).await.expect("receives");
        }
        let mut seen = vec![0; 6400];
        exposed.read_at(0, &mut seen);
        for index in 0..100 {
            assert_eq!(seen[index * 64..][..64], pattern(6, index as u64, 64), "write {index}");
        }
        // A batch that nobody posts is posted by whoever awaits it.
        let mut batch = client.batch();
        let unposted = batch.read(Buffer::allocate(64).expect("memory"), &handle);
        soon(unposted).await.expect("reads");
        drop(batch);
    });
}

#[test]
fn empty_large_and_too_large_operations() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let longest = 16 << 20;
        let exposed = Buffer::allocate(longest + 1).expect("memory").expose();
        let grant = exposed.grant(&server, 0..longest + 1, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let empty = Buffer::allocate(0).expect("memory");
        let empty = soon(client.write(empty, &handle)).await.expect("writes nothing");
        soon(client.read(empty, &handle)).await.expect("reads nothing");
        let mut buffer = Buffer::allocate(longest).expect("memory");
        fill(&mut buffer, 8, 8);
        let mut buffer = soon(client.write(buffer, &handle)).await.expect("writes");
        buffer.fill(0);
        let buffer = soon(client.read(buffer, &handle)).await.expect("reads");
        assert!(buffer[..] == pattern(8, 8, longest));
        // More than a request can carry: 2 GiB on rxe. Pages that nobody touches cost nothing.
        let failed =
            client.write(Buffer::allocate((2 << 30) + 1).expect("memory"), &handle).await.expect_err("too long");
        assert_eq!(failed.error.kind(), ErrorKind::TooLong, "{failed}");
        soon(client.read(buffer, &handle)).await.expect("the connection lives on");
    });
}

#[test]
fn closing_delivers_what_was_sent_and_then_says_so() {
    on_device(|address| async move {
        for by_drop in [false, true] {
            let (client, server) = pair(&worker(), &address).await;
            for index in 0..50u8 {
                client.send(&[index; 300]).await.expect("sends");
            }
            let clone = client.clone();
            if by_drop {
                drop((client, clone));
            } else {
                soon(client.close()).await.expect("closes");
                assert_eq!(clone.send(b"x").await.expect_err("closed").kind(), ErrorKind::Closed);
                assert_eq!(clone.recv().await.expect_err("closed").kind(), ErrorKind::Closed);
                soon(clone.close()).await.expect("closing twice is once");
            }
            for index in 0..50u8 {
                assert_eq!(&*soon(server.recv()).await.expect("receives"), &[index; 300]);
            }
            let error = soon(server.recv()).await.expect_err("closed");
            assert_eq!(error.kind(), ErrorKind::PeerClosed, "{error}");
        }
    });
}

#[test]
fn a_message_outlives_its_connection() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        client.send(b"keep me").await.expect("sends");
        let message = soon(server.recv()).await.expect("receives");
        drop((client, server));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(&*message, b"keep me");
        drop(message);
        still_works(&address).await;
    });
}

#[test]
fn many_connections_share_a_worker_and_leave_nothing_behind() {
    on_device(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&worker));
        let before = baseline(&worker, &address).await;
        // What the process keeps anyway is there after the first round.
        let mut first = None;
        for _ in 0..4 {
            let mut pairs = Vec::new();
            for _ in 0..16 {
                let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
                pairs.push((client.expect("connects"), server.expect("accepts")));
            }
            for (index, (client, server)) in pairs.iter().enumerate() {
                client.send(&[index as u8]).await.expect("sends");
                assert_eq!(&*soon(server.recv()).await.expect("receives"), &[index as u8]);
            }
            drop(pairs);
            // Connections end in the background.
            match first {
                None => first = Some(aside(Resources::settled).await),
                Some(ref first) => {
                    let first = first.clone();
                    aside(move || Resources::assert_back_at(&first)).await;
                }
            }
        }
        assert_eq!(Resources::now().of("qp"), before.of("qp"));
    });
}

/// Receives that were posted for connections that have gone would stay pinned, and be nobody's.
#[test]
fn a_worker_without_connections_gives_the_memory_of_its_receives_back() {
    // Elsewhere it is not registered with anything that counts; the seam has a test of its own.
    common::on_rdma(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&worker));
        let regions = || aside(|| Resources::settled().of("mr"));
        let before = regions().await;
        for _ in 0..2 {
            let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
            let (client, server) = (client.expect("connects"), server.expect("accepts"));
            client.send(b"hello").await.expect("sends");
            assert_eq!(&*soon(server.recv()).await.expect("receives"), b"hello");
            assert!(regions().await > before);
            drop((client, server));
            soon(async {
                while regions().await > before {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await;
        }
    });
}

#[test]
fn tasks_on_many_threads_share_a_connection() {
    let Some(address) = common::device_address() else { return };
    for polling in [Polling::Busy, Polling::Adaptive { spin: Duration::from_micros(20) }, Polling::Event] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let worker = Worker::new(Config { polling, ..Config::default() }).expect("valid settings");
            let (client, server) = pair(&worker, &address).await;
            let exposed = Buffer::allocate(1 << 16).expect("memory").expose();
            let grant = exposed.grant(&server, 0..1 << 16, Access::READ_WRITE).await.expect("grants");
            let handle = grant.remote_buffer();
            let echo = tokio::spawn(async move {
                for _ in 0..400 {
                    let message = server.recv().await.expect("receives");
                    server.send(&message).await.expect("sends");
                }
            });
            let tasks: Vec<_> = (0..8u64)
                .map(|task| {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let part = handle.slice(task * 8192..(task + 1) * 8192).expect("inside");
                        let mut buffer = Buffer::allocate(8192).expect("memory");
                        for round in 0..50 {
                            fill(&mut buffer, task, round);
                            buffer = client.write(buffer, &part).await.expect("writes");
                            buffer.fill(0);
                            buffer = client.read(buffer, &part).await.expect("reads");
                            assert_eq!(buffer[..], pattern(task, round, 8192), "task {task} round {round}");
                            client.send(&task.to_le_bytes()).await.expect("sends");
                            client.recv().await.expect("receives");
                        }
                    })
                })
                .collect();
            for task in tasks {
                soon(task).await.expect("the task succeeds");
            }
            soon(echo).await.expect("the echo succeeds");
        });
    }
}

/// Failing, being told, and dropping happen on several threads at once.
#[test]
fn connections_that_break_while_they_are_dropped_leave_nothing_behind() {
    let Some(address) = common::device_address() else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let worker = worker();
        let listener = Arc::new(listen(&worker, &address).await);
        let (uri, connector) = (listener.uri(), Connector::new(&worker));
        let before = aside(Resources::settled).await;
        let mut baseline = None;
        for round in 0..40 {
            let accepting = tokio::spawn({
                let listener = Arc::clone(&listener);
                async move { listener.accept().await }
            });
            let client = connector.connect(&uri).await.expect("connects");
            let server = accepting.await.expect("the task ends").expect("accepts");
            if round == 0 {
                common::wait_everywhere(&server).await;
            }
            // Dropped by another task the moment it learns that the other end has gone.
            let waiting = tokio::spawn(async move { drop(server.recv().await.map(drop)) });
            if round % 2 == 0 {
                client.close().await.expect("closes");
            }
            drop(client);
            soon(waiting).await.expect("the task ends");
            if round == 3 {
                baseline = Some(aside(Resources::settled).await);
            }
        }
        let baseline = baseline.expect("taken in the fourth round");
        aside(move || Resources::assert_back_at(&baseline)).await;
        assert_eq!(Resources::now().of("qp"), before.of("qp"));
    });
}

/// Whatever a forked child drops, its parent's connection goes on.
#[test]
fn a_forked_child_leaves_its_parents_connection_alone() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        client.send(b"held").await.expect("sends");
        let message = soon(server.recv()).await.expect("receives");
        let operation = client.write(Buffer::allocate(64).expect("memory"), &handle);
        let mine = (client.clone(), server.clone());
        // SAFETY: the child only drops what it inherited, allocates little, and exits without unwinding.
        match unsafe { libc::fork() } {
            0 => {
                drop((grant, exposed, message, operation, client, server, mine));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                let mut status = -1;
                // SAFETY: waits for the child just made; `status` is writable.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child ended well");
            }
        }
        soon(operation).await.expect("writes");
        let mut buffer = Buffer::allocate(4096).expect("memory");
        buffer.fill(9);
        soon(client.write(buffer, &handle)).await.expect("the grant lives on");
        drop(message);
        for round in 0..200u32 {
            soon(client.send(&round.to_le_bytes())).await.expect("sends");
            assert_eq!(&*soon(server.recv()).await.expect("receives"), &round.to_le_bytes());
        }
    });
}

/// Nor does its listener end.
#[test]
fn a_forked_child_leaves_its_parents_listener_alone() {
    on_device(|address| async move {
        let listener = listen(&worker(), &address).await;
        let uri = listener.uri();
        // SAFETY: as above.
        match unsafe { libc::fork() } {
            0 => {
                drop(listener);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                let mut status = -1;
                // SAFETY: waits for the child just made; `status` is writable.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child ended well");
            }
        }
        let connector = Connector::new(&worker());
        let (client, server) = tokio::join!(soon(connector.connect(&uri)), soon(listener.accept()));
        let (client, server) = (client.expect("connects"), server.expect("accepts"));
        client.send(b"still here").await.expect("sends");
        assert_eq!(&*soon(server.recv()).await.expect("receives"), b"still here");
    });
}

#[test]
fn no_executor_is_special() {
    let Some(address) = common::device_address() else { return };
    let worker = worker();
    let uri = block_on(async {
        let listener = listen(&worker, &address).await;
        let uri = listener.uri();
        let server = worker.clone();
        // One end without tokio in another thread, and one here.
        std::thread::spawn(move || {
            let _server = server;
            block_on(async {
                let connection = listener.accept().await.expect("accepts");
                while let Ok(message) = connection.recv().await {
                    connection.send(&message).await.expect("sends");
                }
            });
        });
        uri
    });
    // Then on runtimes that come and go while the worker lives on.
    let connection = block_on(Connector::new(&worker).connect(&uri)).expect("connects");
    let ping = |text: &'static str| {
        let connection = connection.clone();
        async move {
            connection.send(text.as_bytes()).await.expect("sends");
            assert_eq!(&*connection.recv().await.expect("receives"), text.as_bytes());
        }
    };
    block_on(ping("no runtime"));
    for text in ["first", "second", "third"] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { soon(ping(text)).await });
        // Kept, not driven, while the next one is used.
        std::mem::forget(runtime);
    }
    let bare = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    bare.block_on(ping("a runtime without I/O"));
    block_on(ping("no runtime again"));
}
