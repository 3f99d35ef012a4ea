//! The client's connection: made when it is needed, and again when it was lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use zcmi::{Buffer, Client, Connection, Connector, Pool, Worker};

use crate::NAME;
use crate::common::{Failure, Result, patiently};
use crate::protocol::{CHANGED, CHANNEL, Identity, Name, Request, Response, VERSION, config};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a file that a server reads in a second, at least.
const SLOWEST_DISK: u64 = 4 << 20;
/// How long any digest may take, whatever length the server says.
const DIGEST_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Where the server is.
pub(crate) struct Place {
    connector: Connector,
    address: String,
}

/// A connection to the server.
pub(crate) struct Remote {
    connection: Connection,
    client: Client,
    /// Chunks that were read, which the server has not been told.
    done: Mutex<Vec<u64>>,
}

/// What a fetch ends in, besides success.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The file is not the one that was opened any more.
    Changed,
    /// All the rest.
    Failure(Failure),
}

/// The bytes of a chunk, as they should be.
pub(crate) struct Fetched {
    pub(crate) bytes: Buffer,
    pub(crate) checksum: u32,
}

impl Place {
    /// The server at `address`.
    pub(crate) fn new(address: &str) -> Result<Self> {
        Ok(Self { connector: Connector::new(&Worker::new(config()?)?), address: address.to_owned() })
    }

    /// Connects; tries again for `patience` where nobody listens.
    pub(crate) async fn connect(&self, patience: Duration) -> Result<Arc<Remote>> {
        Ok(Arc::new(patiently(patience, || Remote::new(&self.connector, &self.address)).await?))
    }
}

impl Remote {
    async fn new(connector: &Connector, address: &str) -> Result<Self> {
        let connection = connector.connect(address).await?;
        let client = Client::new(connection.channel(CHANNEL)?);
        let remote = Self { connection, client, done: Mutex::default() };
        match remote.call(&Request::Hello { program: NAME.to_owned(), version: VERSION }, CALL_LIMIT).await? {
            Response::Hello => Ok(remote),
            _ => Err(nonsense()),
        }
    }

    /// The transport.
    pub(crate) fn transport(&self) -> &'static str {
        self.connection.transport()
    }

    /// A page of the names in a folder.
    pub(crate) async fn names(&self, path: &str, after: Option<String>) -> Result<Vec<Name>> {
        let listed = self.call(&Request::List { path: path.to_owned(), after }, CALL_LIMIT).await;
        match listed.map_err(Trouble::from)? {
            Response::Names(names) => Ok(names),
            _ => Err(nonsense()),
        }
    }

    /// Which file there is.
    pub(crate) async fn open(&self, path: &str) -> Result<Identity> {
        match self.call(&Request::Open { path: path.to_owned() }, CALL_LIMIT).await? {
            Response::File(identity) => Ok(identity),
            _ => Err(nonsense()),
        }
    }

    /// Has the server read a chunk into its memory, and READs it from there.
    pub(crate) async fn chunk(
        &self,
        path: &str,
        identity: Identity,
        offset: u64,
        length: u64,
    ) -> std::result::Result<Fetched, Trouble> {
        let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        let request = Request::Chunk { path: path.to_owned(), identity, offset, length, done };
        let chunk = match self.call(&request, CALL_LIMIT).await? {
            Response::Chunk(chunk) if chunk.memory.len() == length => chunk,
            _ => return Err(nonsense().into()),
        };
        let buffer = Pool::global().allocate(length as usize).map_err(Failure::from)?;
        let bytes = self.connection.read(buffer, &chunk.memory).await.map_err(Failure::from)?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(chunk.id);
        Ok(Fetched { bytes, checksum: chunk.checksum })
    }

    /// The digest of a whole file, which the server has to read for that.
    pub(crate) async fn digest(&self, path: &str, identity: Identity) -> std::result::Result<[u8; 32], Trouble> {
        let limit = CALL_LIMIT + Duration::from_secs(identity.length / SLOWEST_DISK).min(DIGEST_LIMIT);
        match self.call(&Request::Digest { path: path.to_owned(), identity }, limit).await? {
            Response::Digest(digest) => Ok(digest),
            _ => Err(nonsense().into()),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(&self) -> Result<()> {
        Ok(self.connection.close().await?)
    }

    async fn call<Q: Serialize>(&self, request: &Q, limit: Duration) -> Result<Response> {
        Ok(self.client.call_timeout(request, limit).await?)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::Zcmi(error) => match error.application() {
                Some(reason) if reason.code() == CHANGED => Self::Changed,
                Some(reason) => Self::Failure(Failure::Other(format!("the server says: {}", reason.text()))),
                None => Self::Failure(failure),
            },
            _ => Self::Failure(failure),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Changed => Self::Other("the file has changed while it was fetched".to_owned()),
            Trouble::Failure(failure) => failure,
        }
    }
}

fn nonsense() -> Failure {
    Failure::Other("the server answered what this program does not expect".to_owned())
}
