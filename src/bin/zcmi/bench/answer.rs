//! The other end of a bench: does what it is told, for `zcmi serve` and for the peer process that a bench starts itself.

use std::time::{Duration, Instant};

use zcmi::{Access, Connection, ErrorKind, ExposedBuffer, Grant, Message};

use super::failure::{Failure, Result};
use super::wire::{
    BENCH_BOUND, Command, MOST_MEMORY, Reply, SILENCE_BOUND, decode, encode, fill, is_command, is_filled,
};

/// How often it is looked for a command: nobody is to spin while nothing is measured.
const LOOK: Duration = Duration::from_millis(1);

/// After so many messages the process' other tasks have their turn: a peer that always says something would leave none to them.
const TURN: u64 = 256;

/// Longest message that is copied into frames; longer ones are sent as they are, out of their buffers.
pub(crate) const MOST_COPIED: usize = 4096;

/// Does what `connection`'s peer says, until it has gone. `polling` is how this end waits.
pub(crate) async fn answer(connection: &Connection, polling: &str) -> Result<()> {
    match tokio::time::timeout(BENCH_BOUND, obey(connection, polling)).await {
        Ok(Err(error)) if error.kind() == Some(ErrorKind::PeerClosed) => Ok(()),
        Ok(result) => result,
        Err(_) => Err(Failure::new("it took too long")),
    }
}

/// Refuses all that the peer says, and why.
pub(crate) async fn refuse(connection: &Connection, why: &str) -> Result<()> {
    connection.recv_timeout(SILENCE_BOUND).await?;
    reply(connection, &Reply::Refused { why: why.to_owned() }).await?;
    // Until it has heard that.
    let _ = connection.recv_timeout(Duration::from_secs(5)).await;
    Ok(())
}

/// What was granted last.
struct Memory {
    exposed: ExposedBuffer,
    grant: Grant,
}

async fn obey(connection: &Connection, polling: &str) -> Result<()> {
    let mut memory: Option<Memory> = None;
    let mut next = None;
    loop {
        let command = match next.take() {
            Some(command) => command,
            None => command_of(&wait(connection).await?)?,
        };
        match command {
            Command::Attend => {
                reply(connection, &Reply::Done).await?;
                next = Some(command_of(&connection.recv().await?)?);
            }
            Command::Hello => {
                let (zcmi, polling) = (env!("CARGO_PKG_VERSION").to_owned(), polling.to_owned());
                reply(connection, &Reply::Hello { zcmi, polling }).await?;
            }
            Command::Grant { bytes } => {
                if let Some(Memory { exposed, grant }) = memory.take() {
                    drop(grant);
                    // All that were granted end first.
                    exposed.into_buffer().await?;
                }
                match grant(connection, bytes).await {
                    Ok(granted) => {
                        let handle = granted.grant.remote_buffer().to_bytes().to_vec();
                        memory = Some(granted);
                        reply(connection, &Reply::Granted { handle }).await?;
                    }
                    Err(error) => reply(connection, &Reply::Refused { why: error.to_string() }).await?,
                }
            }
            Command::Fill { seed } => {
                let exposed = exposed(memory.as_ref())?;
                let mut bytes = vec![0; exposed.len()];
                fill(&mut bytes, seed);
                exposed.write_at(0, &bytes);
                reply(connection, &Reply::Done).await?;
            }
            Command::Check { seed } => {
                let exposed = exposed(memory.as_ref())?;
                let mut bytes = vec![0; exposed.len()];
                exposed.read_at(0, &mut bytes);
                reply(connection, &Reply::Right { is_right: is_filled(&bytes, seed) }).await?;
            }
            Command::Count => {
                let exposed = exposed(memory.as_ref())?;
                if exposed.len() < size_of::<u64>() {
                    return Err(Failure::new("the memory has no word"));
                }
                let mut word = [0; size_of::<u64>()];
                exposed.read_at(0, &mut word);
                reply(connection, &Reply::Word { word: u64::from_ne_bytes(word) }).await?;
            }
            Command::Echo { hand_over } => {
                reply(connection, &Reply::Done).await?;
                next = Some(echo(connection, hand_over).await?);
            }
            Command::Sink { group, size, seed } => {
                reply(connection, &Reply::Done).await?;
                let (command, sunk) = sink(connection, group.max(1), size, seed).await?;
                if !matches!(command, Command::End) {
                    return Err(Failure::new("a sink ends first"));
                }
                reply(connection, &sunk).await?;
            }
            Command::End => reply(connection, &Reply::Done).await?,
        }
    }
}

async fn grant(connection: &Connection, bytes: usize) -> Result<Memory> {
    if bytes > MOST_MEMORY {
        return Err(Failure::new(format!("{bytes} bytes are more than the {MOST_MEMORY} that are granted at most")));
    }
    let exposed = connection.allocate(bytes.max(1))?.expose();
    exposed.write_at(0, &vec![0; exposed.len()]);
    let grant = exposed.grant(connection, 0..exposed.len(), Access::ALL).await?;
    Ok(Memory { exposed, grant })
}

fn exposed(memory: Option<&Memory>) -> Result<&ExposedBuffer> {
    memory.map(|memory| &memory.exposed).ok_or_else(|| Failure::new("nothing was granted"))
}

/// Sends back what comes, until a command does.
async fn echo(connection: &Connection, hand_over: bool) -> Result<Command> {
    let mut messages = 0_u64;
    loop {
        let message = connection.recv().await?;
        messages += 1;
        if messages.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        if is_command(&message) {
            return command_of(&message);
        }
        if hand_over {
            connection.hand_over(message.into_buffer()?).await?;
        } else if message.len() <= MOST_COPIED {
            connection.send(&message).await?;
        } else {
            connection.send_owned(message.into_buffer()?).await?;
        }
    }
}

/// Takes what comes, until a command does.
async fn sink(connection: &Connection, group: u32, size: usize, seed: u64) -> Result<(Command, Reply)> {
    let (mut messages, mut is_right) = (0_u64, true);
    let mut last: Option<Message> = None;
    loop {
        let message = connection.recv().await?;
        if is_command(&message) {
            is_right &= last.is_none_or(|last| is_filled(&last, seed));
            return Ok((command_of(&message)?, Reply::Sunk { messages, is_right }));
        }
        messages += 1;
        if messages.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        is_right &= message.len() == size && (messages > 1 || is_filled(&message, seed));
        // One is kept: what comes next may be the command.
        last = Some(message);
        if messages.is_multiple_of(u64::from(group)) {
            connection.send(&[]).await?;
        }
    }
}

/// The next message, without spinning.
async fn wait(connection: &Connection) -> Result<Message> {
    let begun = Instant::now();
    loop {
        if let Some(message) = connection.try_recv()? {
            return Ok(message);
        }
        if begun.elapsed() > SILENCE_BOUND {
            return Err(Failure::new("nothing was said for too long"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn command_of(message: &[u8]) -> Result<Command> {
    decode(message).ok_or_else(|| Failure::new("what was said is no command of this version"))
}

async fn reply(connection: &Connection, reply: &Reply) -> Result<()> {
    Ok(connection.send(&encode(reply)).await?)
}
