//! `zcmi serve`: the other end of `zcmi doctor HOST` and of `zcmi bench`.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zcmi::{Access, Answer, Buffer, Config, Connection, ErrorKind, Listener, Worker};

use crate::Format;
use crate::bench;
use crate::exchange::{CLIENT_BOUND, HELLO, MEMORY, MOST_ECHO};
use crate::output::{Output, complain};

/// Clients that are served at once.
const MOST_CLIENTS: usize = 16;

/// What happens, as JSON has it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Listening { address: &'a str },
    Served { peer: &'a str, transport: &'static str, error: Option<String> },
}

/// What a bench tells the peer process that it starts.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct OfBench {
    /// Who says the secret of the environment when it connects is served, nobody else
    #[arg(long, hide = true)]
    of_bench: bool,
    /// Share pages with it
    #[arg(long, hide = true, requires = "of_bench")]
    share_pages: bool,
}

pub(crate) fn run(address: &str, is_once: bool, of_bench: OfBench, output: Output) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_signal(address, is_once, of_bench, output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(
    address: &str,
    is_once: bool,
    of_bench: OfBench,
    output: Output,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut config = Config::from_env()?;
    if of_bench.share_pages {
        config = bench::sharing(config)?;
    }
    let polling = bench::polling_text(config.polling);
    let secret = match of_bench.of_bench {
        true => Some(bench::hello(std::env::var(bench::SECRET)?.parse()?)),
        false => None,
    };
    let listener = Listener::bind(&Worker::new(config)?, address).await?.filter(move |request| {
        let text = "this is `zcmi serve`: it answers `zcmi doctor` and `zcmi bench` of the same version only";
        let said = request.private_data();
        let is_known = secret.as_ref().map_or(said == HELLO || said == bench::HELLO, |secret| said == secret);
        if is_known { Answer::Accept } else { Answer::Refuse(text.to_owned()) }
    });
    say(&Event::Listening { address: &listener.uri() }, output);
    let served = tokio::select! {
        served = serve(&listener, is_once, polling, output) => served,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    drop(listener);
    Ok(served?)
}

async fn serve(listener: &Listener, is_once: bool, polling: String, output: Output) -> zcmi::Result<()> {
    let seats = Arc::new(Semaphore::new(MOST_CLIENTS));
    let bench = Arc::new(Semaphore::new(1));
    let mut clients = JoinSet::new();
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return Ok(()) };
        // A client that fails in set-up is its own affair.
        let connection = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(error) => {
                complain(error);
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        let (bench, polling) = (Arc::clone(&bench), polling.clone());
        clients.spawn(async move {
            let error = if connection.private_data().starts_with(bench::HELLO) {
                // Two at once would measure each other.
                let served = match bench.try_acquire() {
                    Ok(_only) => bench::answer(&connection, &polling).await,
                    Err(_) => bench::refuse(&connection, "another bench is being served").await,
                };
                served.err().map(|error| error.to_string())
            } else {
                match tokio::time::timeout(CLIENT_BOUND, answer(&connection)).await {
                    Ok(served) => served.err().map(|error| error.to_string()),
                    Err(_) => Some("it took too long".to_owned()),
                }
            };
            say(&Event::Served { peer: connection.peer(), transport: connection.transport(), error }, output);
            drop(seat);
        });
        if is_once {
            clients.join_all().await;
            return Ok(());
        }
    }
}

/// Grants memory to a client and echoes what it says, until it has gone.
async fn answer(connection: &Connection) -> zcmi::Result<()> {
    let memory = Buffer::allocate(MEMORY)?.expose();
    memory.write_at(0, &[0; MEMORY]);
    let grant = memory.grant(connection, 0..MEMORY, Access::ALL).await?;
    connection.send(&grant.remote_buffer().to_bytes()).await?;
    loop {
        match connection.recv().await {
            Ok(message) => connection.send(&message[..message.len().min(MOST_ECHO)]).await?,
            Err(error) if error.kind() == ErrorKind::PeerClosed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn say(event: &Event<'_>, output: Output) {
    match (output.format, event) {
        (Format::Json, event) => output.json(event),
        (Format::Text, Event::Listening { address }) => output.print(&format!("listening at {address}\n")),
        (Format::Text, Event::Served { peer, transport, error: None }) => {
            output.print(&format!("served {peer} over {transport}\n"));
        }
        (Format::Text, Event::Served { peer, transport, error: Some(error) }) => {
            output.print(&format!("failed to serve {peer} over {transport}: {error}\n"));
        }
    }
}
