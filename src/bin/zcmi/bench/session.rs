//! The connection of a bench, as the measuring end sees it.

use std::time::Duration;

use zcmi::{Buffer, Connection, RemoteBuffer};

use super::failure::{Failure, Result};
use super::wire::{Command, Reply, decode, encode};

/// How long the other end may take for a command, which may clear all the memory that there can be.
const COMMAND_BOUND: Duration = Duration::from_secs(20);

/// A connection to an end that does what it is told.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// Of the other end.
    pub(crate) peer_polling: String,
    pub(crate) peer_version: String,
}

impl Session {
    pub(crate) async fn begin(connection: Connection) -> Result<Self> {
        let mut session = Self { connection, peer_polling: String::new(), peer_version: String::new() };
        match session.command(&Command::Hello).await? {
            Reply::Hello { zcmi, polling } => (session.peer_version, session.peer_polling) = (zcmi, polling),
            other => return Err(strange(&other)),
        }
        Ok(session)
    }

    /// Has the other end do something that has nothing to tell.
    pub(crate) async fn done(&self, command: &Command) -> Result<()> {
        match self.command(command).await? {
            Reply::Done => Ok(()),
            other => Err(strange(&other)),
        }
    }

    /// Memory of the other end, instead of what it granted before.
    pub(crate) async fn granted(&self, bytes: usize) -> Result<RemoteBuffer> {
        match self.command(&Command::Grant { bytes }).await? {
            Reply::Granted { handle } => {
                let remote = RemoteBuffer::from_bytes(&handle)?;
                if remote.len() != bytes as u64 {
                    return Err(Failure::new(format!("the peer granted {} bytes, not {bytes}", remote.len())));
                }
                Ok(remote)
            }
            other => Err(strange(&other)),
        }
    }

    /// Has the other end wait as its settings say, if it is what carries out reads and writes of `size` bytes. Where a device does, it would
    /// only take that device's processor away.
    pub(crate) async fn attend(&self, size: usize) -> Result<()> {
        // What is longer is served also where pages are shared.
        const DIRECT: usize = 4 << 20;
        let is_direct = self.connection.shares_pages() && size <= DIRECT;
        if self.connection.capabilities().one_sided_needs_progress && !is_direct {
            self.done(&Command::Attend).await?;
        }
        Ok(())
    }

    /// Fails if the memory that was granted has not the pattern of `seed`.
    pub(crate) async fn check(&self, seed: u64) -> Result<()> {
        match self.command(&Command::Check { seed }).await? {
            Reply::Right { is_right: true } => Ok(()),
            Reply::Right { is_right: false } => {
                Err(Failure::new("the peer's memory has not the bytes that were written"))
            }
            other => Err(strange(&other)),
        }
    }

    /// The first word of the memory that was granted.
    pub(crate) async fn count(&self) -> Result<u64> {
        match self.command(&Command::Count).await? {
            Reply::Word { word } => Ok(word),
            other => Err(strange(&other)),
        }
    }

    /// Ends a sink, which has received `messages`.
    pub(crate) async fn sunk(&self, messages: u64) -> Result<()> {
        match self.command(&Command::End).await? {
            Reply::Sunk { messages: received, is_right: true } if received == messages => Ok(()),
            Reply::Sunk { messages: received, is_right } => {
                let wrong = if is_right { "" } else { ", and not all with the right bytes" };
                Err(Failure::new(format!("the peer received {received} messages of {messages}{wrong}")))
            }
            other => Err(strange(&other)),
        }
    }

    /// A buffer that this connection carries best, with the pattern of `seed`.
    pub(crate) fn buffer(&self, size: usize, seed: u64) -> Result<Buffer> {
        let mut buffer = self.connection.allocate(size)?;
        super::wire::fill(&mut buffer, seed);
        Ok(buffer)
    }

    async fn command(&self, command: &Command) -> Result<Reply> {
        let asked = async {
            self.connection.send(&encode(command)).await?;
            loop {
                let message = self.connection.recv().await?;
                // What a sink has still said.
                if message.is_empty() {
                    continue;
                }
                return match decode(&message) {
                    Some(Reply::Refused { why }) => Err(Failure::new(format!("the peer refused: {why}"))),
                    Some(reply) => Ok(reply),
                    None => Err(Failure::new("the peer's reply is none of this version")),
                };
            }
        };
        let late = || Failure::new(format!("the peer did not answer within {} s", COMMAND_BOUND.as_secs()));
        tokio::time::timeout(COMMAND_BOUND, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

fn strange(reply: &Reply) -> Failure {
    Failure::new(format!("the peer replied out of turn: {reply:?}"))
}
