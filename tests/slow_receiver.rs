//! A receiver that takes a message every 50 ms, of a sender that sends as fast as it can, on a real device: the
//! sender's memory stays bounded, and no message finds the receiver without a receive.

mod common;

use std::cell::Cell;
use std::time::{Duration, Instant};

use common::{Peer, aside, device_address, listen, on_device, patient_worker, pattern, play, role, say, told};
use zcmi::{Connection, Connector, ErrorKind, Pool};

/// The receiver takes one so often.
const PACE: Duration = Duration::from_millis(50);
/// How long it is sent to.
const TIME: Duration = Duration::from_secs(4);
/// Channels on which there is always something to be sent.
const CHANNELS: u32 = 8;
/// Bytes of a long message.
const LONG: usize = 1 << 20;
/// Bytes that tell messages apart.
const HEAD: usize = 12;

fn head(channel: u32, number: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8..].copy_from_slice(&channel.to_le_bytes());
    head
}

/// The receiver: takes what comes slowly until it is told to hurry, and checks every byte.
#[test]
fn peer() {
    if role().is_none() {
        return;
    }
    let expected = pattern(7, 0, LONG);
    play(async {
        let listener = listen(&patient_worker(), &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        let (hurries, mut told) = (Cell::new(false), told());
        let hurry = async {
            told.recv().await;
            hurries.set(true);
        };
        let taken = Cell::new(0u64);
        let receive = async |id: u32| {
            let channel = connection.channel(id).expect("there is room");
            for number in 0u64.. {
                match channel.recv().await {
                    Ok(message) => {
                        assert_eq!(message[..HEAD], head(id, number), "the next message of channel {id}");
                        assert!(message[HEAD..] == expected[HEAD..message.len()], "another byte on channel {id}");
                    }
                    Err(error) => return assert_eq!(error.kind(), ErrorKind::PeerClosed, "{error}"),
                }
                taken.set(taken.get() + 1);
                if !hurries.get() {
                    // All of them together.
                    tokio::time::sleep(PACE * CHANNELS).await;
                }
            }
        };
        let receiving = async {
            tokio::join!(
                receive(0),
                receive(1),
                receive(2),
                receive(3),
                receive(4),
                receive(5),
                receive(6),
                receive(7)
            );
        };
        tokio::join!(receiving, hurry);
        say(taken.get());
    });
}

#[test]
fn short_messages_to_a_slow_receiver() {
    to_a_slow_receiver(100);
}

#[test]
fn long_messages_to_a_slow_receiver() {
    to_a_slow_receiver(LONG);
}

fn to_a_slow_receiver(length: usize) {
    on_device(|_| async move {
        let bytes = pattern(7, 0, length);
        let (mut peer, uri) = aside(|| {
            let peer = Peer::start("slow");
            let uri = peer.hear();
            (peer, uri)
        })
        .await;
        let connection = Connector::new(&patient_worker()).connect(&uri).await.expect("connects");
        let not_ready = receiver_not_ready();
        Pool::global().trim();
        let (end, sent) = (Instant::now() + TIME, Cell::new(0u64));
        // On a thread of its own: to copy long messages takes its time here.
        // The last are taken in no time: who waits for room would do so for minutes.
        let hurrying = async {
            tokio::time::sleep_until(end.into()).await;
            peer.tell("hurry");
        };
        let sending = send_on_all(&connection, &bytes, end, &sent);
        let (memory, (), ()) = tokio::join!(aside(move || watch(end)), sending, hurrying);
        eprintln!("{} messages of {length} bytes; most memory in each quarter: {memory:?}", sent.get());
        connection.close().await.expect("closes");
        let (peer, taken) = aside(move || {
            let taken = peer.hear();
            (peer, taken)
        })
        .await;
        assert_eq!(taken, sent.get().to_string(), "every message, once");
        assert!(peer.finish().success());
        assert_eq!(receiver_not_ready(), not_ready, "messages that found no receive");
        // What may be on its way, twice, since blocks may be longer; and frames.
        let bound = if length == LONG { 2 * CHANNELS as usize * LONG } else { 0 } + (8 << 20);
        for quarter in &memory {
            assert!(quarter.pool > 0 && quarter.pool < bound && quarter.pinned < bound, "{memory:?} of {bound}");
        }
        let (first, last) = (&memory[0], &memory[3]);
        assert!(last.pool <= first.pool && last.pinned <= first.pinned, "it grows: {memory:?}");
    });
}

async fn send_on_all(connection: &Connection, bytes: &[u8], end: Instant, sent: &Cell<u64>) {
    let send = async |id: u32| {
        let channel = connection.channel(id).expect("there is room");
        let mut message = bytes.to_vec();
        for number in 0u64.. {
            message[..HEAD].copy_from_slice(&head(id, number));
            channel.send(&message).await.expect("sends");
            sent.set(sent.get() + 1);
            if Instant::now() > end {
                return;
            }
            // Others of this thread, if it need not wait.
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        tokio::join!(send(0), send(1), send(2), send(3), send(4), send(5), send(6), send(7));
    };
    all.await;
}

/// Bytes of this process.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    pool: usize,
    pinned: usize,
}

/// The most memory in each quarter of the time until `end`.
fn watch(end: Instant) -> [Memory; 4] {
    let mut most = [Memory::default(); 4];
    let begun = Instant::now();
    let quarter = (end - begun) / 4;
    while Instant::now() < end {
        let at = (begun.elapsed().as_nanos() / quarter.as_nanos()).min(3) as usize;
        let (pool, pinned) = (Pool::global().statistics().mapped_bytes, pinned());
        most[at] = Memory { pool: most[at].pool.max(pool), pinned: most[at].pinned.max(pinned) };
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}

/// Bytes that the kernel holds for devices.
fn pinned() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmPin")).expect("the line");
    line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok()).expect("a number") * 1024
}

/// How often a message has found no receive, on all devices, as Soft-RoCE counts it on both ends.
fn receiver_not_ready() -> u64 {
    let output = std::process::Command::new("rdma").args(["statistic", "show"]).output().expect("iproute2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<_> = text.split_whitespace().collect();
    let counts =
        words.windows(2).filter(|pair| ["rcvd_rnr_err", "send_rnr_err", "retry_rnr_exceeded_err"].contains(&pair[0]));
    let counts: Vec<u64> = counts.map(|pair| pair[1].parse().expect("a count")).collect();
    assert_eq!(counts.len(), 3, "rdma statistic said: {text}");
    counts.iter().sum()
}
