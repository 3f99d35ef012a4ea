//! Two ends that have something to tell.

use std::time::Duration;

use zcmi::{Access, Buffer, Config, Connection, Connector, ErrorKind, Listener, RemoteBuffer, Result, Worker};

/// Bytes of a short message, of a long one, and of memory that is read.
const SHORT: usize = 100;
const LONG: usize = 256 << 10;
const READ: usize = 4096;

/// Exchanges messages and reads memory, round after round, until something fails.
pub(crate) async fn exchange(meet: &str, pause: Duration) -> Result<()> {
    let worker = Worker::new(Config::from_env()?)?;
    let listener = Listener::bind(&worker, meet).await?;
    let (connector, uri) = (Connector::new(&worker), listener.uri());
    let (here, there) = tokio::try_join!(connector.connect(&uri), listener.accept())?;
    eprintln!("two ends exchange messages by {}, connection {}", here.transport(), here.id());
    tokio::try_join!(ask(&here, pause), answer(&there)).map(drop)
}

async fn ask(connection: &Connection, pause: Duration) -> Result<()> {
    let handle = RemoteBuffer::from_bytes(&connection.recv().await?)?;
    let (mut long, mut read) = (Buffer::allocate(LONG)?, Buffer::allocate(READ)?);
    loop {
        connection.send(&[1; SHORT]).await?;
        connection.recv().await?;
        long = connection.send_owned(long).await?;
        read = connection.read(read, &handle).await?;
        tokio::time::sleep(pause).await;
    }
}

async fn answer(connection: &Connection) -> Result<()> {
    let exposed = Buffer::allocate(READ)?.expose();
    let grant = exposed.grant(connection, 0..READ, Access::READ).await?;
    connection.send(&grant.remote_buffer().to_bytes()).await?;
    loop {
        match connection.recv().await {
            Ok(message) if message.len() == SHORT => connection.send(&message).await?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::PeerClosed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
