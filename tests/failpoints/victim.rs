//! The process that is killed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zcmi::{Access, Buffer, Config, Connection, Connector, Listener, RemoteBuffer, Worker};

use crate::common::{device_address, listen, play, say};

/// Bytes of what is granted.
pub(crate) const LENGTH: usize = 1 << 20;

/// Whether the point counts: it may be passed before on the way to where it is meant.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Plays `part`, which is POINT/WHAT/ADDRESS, until it is killed. It connects there, or listens, at an address of its own (`-`) or `at` one.
pub(crate) fn play_part(part: &str) {
    let mut words = part.splitn(3, '/').map(str::to_owned);
    let mut word = || words.next().expect("POINT/WHAT/ADDRESS");
    let (point, part, target) = (word(), word(), word());
    ARMED.store(part == "set up", Ordering::SeqCst);
    let named = point.clone();
    zcmi::internals::on_failpoint(move |reached| {
        if reached == named && ARMED.load(Ordering::SeqCst) {
            stop(reached);
        }
    });
    play(async move {
        let config = Config { peer_timeout: Duration::from_secs(60), ..Config::default() };
        let worker = Worker::new(config).expect("valid settings");
        let file = target.strip_prefix("at ");
        let connection = if target == "-" || file.is_some() {
            let listener = match file {
                Some(uri) => Listener::bind(&worker, uri).await.expect("listens"),
                None => listen(&worker, &device_address().expect("the test has found it")).await,
            };
            say(listener.uri());
            listener.accept().await.expect("accepts")
        } else {
            Connector::new(&worker).connect(&target).await.expect("connects")
        };
        act(&part, connection, &point).await;
        // What it has left behind in the background may reach the point.
        tokio::time::sleep(Duration::from_secs(20)).await;
        say(format!("{point} was not reached"));
    });
}

/// Says so, and stands still.
fn stop(point: &str) {
    say(format!("reached {point}"));
    loop {
        std::thread::park();
    }
}

fn arm() {
    ARMED.store(true, Ordering::SeqCst);
}

async fn act(part: &str, connection: Connection, point: &str) {
    match part {
        "send" | "send long" => {
            arm();
            let message = vec![7; if part == "send" { 100 } else { LENGTH }];
            while connection.send(&message).await.is_ok() {}
        }
        "receive" | "receive long" => {
            arm();
            while connection.recv().await.is_ok() {}
        }
        "receive into" => {
            arm();
            let mut memory = Buffer::allocate(LENGTH).expect("memory");
            while let Ok((same, _)) = connection.recv_into(memory).await {
                memory = same;
            }
        }
        "grant" | "be read" | "be written" | "revoke" => {
            if part == "grant" {
                arm();
            }
            let exposed = Buffer::allocate(LENGTH).expect("memory").expose();
            let grant = exposed.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
            connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
            assert_eq!(&*connection.recv().await.expect("receives"), b"reading");
            if part.starts_with("be ") && point == "granted" {
                // It is read, all the time.
                stop(point);
            }
            arm();
            if part.starts_with("be ") {
                let _ = connection.recv().await;
            }
            let _ = grant.revoke().await;
        }
        "read" | "write" | "let go" => {
            let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
            let buffer = connection.read(Buffer::allocate(LENGTH).expect("memory"), &handle).await.expect("reads");
            if part == "let go" {
                arm();
            }
            // The survivor has it, whichever point comes next.
            connection.send_acknowledged(b"held").await.expect("sends");
            arm();
            drop(buffer);
            let mut flying = VecDeque::new();
            if part == "let go" {
                while connection.recv().await.is_ok() {}
            }
            loop {
                let buffer = Buffer::allocate(LENGTH).expect("memory");
                let posted =
                    if part == "read" { connection.read(buffer, &handle) } else { connection.write(buffer, &handle) };
                flying.push_back(posted);
                if flying.len() > 8 {
                    flying.pop_front().expect("there are some").await.expect("carried out");
                }
            }
        }
        "close" => {
            connection.send(b"the last").await.expect("sends");
            arm();
            let _ = connection.close().await;
        }
        "drop" => {
            connection.send(b"the last").await.expect("sends");
            arm();
            drop(connection);
        }
        _ => {}
    }
}
