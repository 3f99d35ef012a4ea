//! A server's loop: each client in a task of its own.

use zcmi::{Config, Connection, ErrorKind, Listener, Worker};

use super::{Result, say};

/// Listens at `address` and calls `serve` with each client that connects, until interrupted. One that dies, or takes long, takes
/// nobody along.
pub(crate) async fn serve_each<F>(
    name: &'static str,
    config: Config,
    address: &str,
    serve: impl Fn(Connection) -> F,
) -> Result<()>
where
    F: Future<Output = zcmi::Result<()>> + Send + 'static,
{
    let listener = Listener::bind(&Worker::new(config)?, address).await?;
    say(format_args!("{name}: listening at {}", listener.uri()));
    loop {
        let connection = listener.accept().await?;
        let peer = connection.peer().to_owned();
        let served = serve(connection);
        tokio::spawn(async move {
            if let Err(error) = served.await
                && error.kind() != ErrorKind::PeerClosed
            {
                say(format_args!("{name}: client {peer}: {error}"));
            }
        });
    }
}
