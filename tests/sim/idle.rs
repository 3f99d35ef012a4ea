//! Connections that carry nothing: looking after them takes no more memory with time.

use std::time::Duration;

use zcmi::internals::simulation::{Executor, Faults, Settings, note_progress, pool_statistics, sleep};
use zcmi::{Config, Connector, Listener, Worker};

const CONNECTIONS: usize = 8;
/// Receives of an end at most: one for the peer's frames, and those for credit frames.
const RECEIVES: usize = 1 + 3;

pub(crate) fn idle_connections_take_no_more_with_time() -> Result<String, String> {
    let mut executor = Executor::new(Settings { faults: Faults::none(), ..Settings::new(1) });
    let server = executor.add_node("server", true);
    let client = executor.add_node("client", true);
    executor.spawn(server, async {
        let worker = Worker::new(Config::default()).expect("valid");
        let listener = Listener::bind(&worker, "sim://server").await.expect("listens");
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(listener.accept().await.expect("accepts"));
        }
        for connection in &connections {
            connection.recv().await.expect_err("nothing comes");
        }
    });
    let used = executor.spawn(client, async {
        let worker = Worker::new(Config::default()).expect("valid");
        let connector = Connector::new(&worker);
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(connector.connect("sim://server").await.expect("connects"));
        }
        for _ in 0..5 {
            sleep(Duration::from_secs(60)).await;
            note_progress();
        }
        pool_statistics().in_use_bytes
    });
    executor.run().map_err(|ended| ended.why.clone())?;
    let used = used.take().ok_or("the client has not ended")?;
    let frame = usize::from(Config::default().frame_size);
    // And one that each end sends from.
    let most = 2 * (CONNECTIONS * RECEIVES + 1) * frame;
    if used == 0 || used > most {
        return Err(format!("  {used} bytes are in use, at most {most} may be"));
    }
    Ok(format!("  {} frames an end after five minutes", used / frame / CONNECTIONS / 2))
}
