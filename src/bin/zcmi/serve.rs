//! `zcmi serve`: the other end of `zcmi doctor HOST`.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zcmi::{Access, Answer, Buffer, Config, Connection, ErrorKind, Listener, Worker};

use crate::Format;
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

pub(crate) fn run(address: &str, is_once: bool, output: Output) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_signal(address, is_once, output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(address: &str, is_once: bool, output: Output) -> Result<(), Box<dyn std::error::Error>> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = Listener::bind(&Worker::new(Config::from_env()?)?, address).await?.filter(|request| {
        let text = "this is `zcmi serve`: it answers `zcmi doctor` of the same version only";
        if request.private_data() == HELLO { Answer::Accept } else { Answer::Refuse(text.to_owned()) }
    });
    say(&Event::Listening { address: &listener.uri() }, output);
    let served = tokio::select! {
        served = serve(&listener, is_once, output) => served,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    drop(listener);
    Ok(served?)
}

async fn serve(listener: &Listener, is_once: bool, output: Output) -> zcmi::Result<()> {
    let seats = Arc::new(Semaphore::new(MOST_CLIENTS));
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
        clients.spawn(async move {
            let served = tokio::time::timeout(CLIENT_BOUND, answer(&connection)).await;
            let error = match served {
                Ok(served) => served.err().map(|error| error.to_string()),
                Err(_) => Some("it took too long".to_owned()),
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
