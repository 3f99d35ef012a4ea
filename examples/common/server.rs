//! The server: client after client, case after case.

use std::io::{Read, stdin};

use serde::{Deserialize, Serialize};
use zcmi::{Connection, Listener, Worker};

use super::arguments::Waiting;
use super::{Channel, Ends, Failure, Program, Progress, Result, address, decode, hear, print_line, say, tell};

/// What a client asks for: a case, to be run over a connection of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The client's program.
    pub(crate) program: String,
    /// The case, encoded: programs differ in what theirs are.
    pub(crate) case: Vec<u8>,
}

/// The port or the name of the connection for the case, or why there is none.
pub(crate) type Answer = std::result::Result<String, String>;

/// What the server says when the case is over.
pub(crate) type Verdict = std::result::Result<(), String>;

/// Serves at `address` until interrupted, or one client.
///
/// A client connects twice: over the first connection it asks, over a second one, whose buffers have the sizes that the
/// case needs, the case runs. So no server needs to be told how long the messages of its clients will be.
pub(crate) async fn serve<P: Program>(ends: &Ends, address: &str) -> Result<()> {
    if ends.child {
        end_with_standard_input();
    }
    let worker = Worker::new(Channel::control_config())?;
    let listener = Listener::bind(&worker, address).await?;
    if ends.child {
        print_line(&listener.uri())?;
    } else {
        say(format_args!("{}: listening at {}", P::NAME, listener.uri()));
    }
    loop {
        let control = listener.accept().await?;
        let another = address::another(&listener.uri(), listener.local_address().ip());
        let progress = Progress::default();
        let served = progress.watch(ends.timeout(), serve_client::<P>(ends, &control, &another, &progress)).await;
        if ends.once {
            return served;
        }
        if let Err(failure) = served {
            say(format_args!("{}: client {}: {failure}", P::NAME, control.peer()));
        }
    }
}

async fn serve_client<P: Program>(ends: &Ends, control: &Connection, another: &str, progress: &Progress) -> Result<()> {
    loop {
        let request: Request = match hear(control).await {
            Err(failure) if failure.is_peer_closed() => return Ok(()),
            request => request?,
        };
        progress.step();
        let (case, listener) = match open::<P>(&request, ends, another).await {
            Ok(opened) => opened,
            Err(failure) => {
                tell(control, &Answer::Err(failure.to_string())).await?;
                return Err(failure);
            }
        };
        tell(control, &Answer::Ok(address::place(&listener.uri()).to_owned())).await?;
        let accepted = tokio::time::timeout(ends.timeout(), listener.accept()).await;
        let connection = accepted
            .map_err(|_| Failure::Other("the client asked for a connection and did not make it".to_owned()))??;
        progress.step();
        let served = P::serve(&case, &connection, progress).await;
        let verdict = served.as_ref().map_err(ToString::to_string);
        let told = tell(control, &verdict).await;
        match served {
            Err(_) if told.is_ok() && ends.child => return Err(Failure::Told),
            served => served?,
        }
        connection.close().await?;
    }
}

/// Listens for the connection of a case.
async fn open<P: Program>(request: &Request, ends: &Ends, another: &str) -> Result<(P::Case, Listener)> {
    if request.program != P::NAME {
        return Err(Failure::Other(format!("this is a server of {}, not of {}", P::NAME, request.program)));
    }
    let case = decode(&request.case)?;
    let channel = P::channel(&case)?;
    channel.affordable()?;
    let waiting = if P::is_one_sided(&case) { Waiting::Adaptive } else { ends.polling };
    let worker = Worker::new(channel.config(waiting.polling(), ends.timeout()))?;
    let listener = Listener::bind(&worker, another).await?;
    Ok((case, listener))
}

/// Ends this process when whoever started it has ended or wants it to: then standard input does.
fn end_with_standard_input() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while !matches!(stdin().read(&mut byte), Ok(0) | Err(_)) {}
        std::process::exit(1);
    });
}
