//! The server: reads chunks of files into registered memory, and lets the client read them from there.

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;
use zcmi::{ApplicationError, Connection, Pool, serve};

use crate::NAME;
use crate::common::{Result, serve_each};
use crate::digest::{background, digest};
use crate::lent::Lent;
use crate::protocol::{
    CHANGED, CHANNEL, Chunk, Identity, LONGEST_CHUNK, MOST_CHUNKS, NONSENSE, REFUSED, Request, Response, VERSION,
    config,
};
use crate::root::{Root, identity};

/// Whole files that are read at once, for their digests.
const DIGESTS: usize = 2;

type Answer = std::result::Result<Response, ApplicationError>;

/// What all clients are served from.
struct Server {
    root: Root,
    digests: Semaphore,
}

/// What one client may be reading.
struct Client<'a> {
    server: &'a Server,
    connection: &'a Connection,
    lent: Lent,
}

/// Serves the files in `folder` at `address` until interrupted.
pub(crate) async fn run(address: &str, folder: &Path) -> Result<()> {
    let server = Arc::new(Server { root: Root::open(folder)?, digests: Semaphore::new(DIGESTS) });
    serve_each(NAME, config()?, address, |connection| {
        let server = Arc::clone(&server);
        async move { server.serve_client(&connection).await }
    })
    .await
}

impl Server {
    async fn serve_client(&self, connection: &Connection) -> zcmi::Result<()> {
        let client = Client { server: self, connection, lent: Lent::new() };
        let serving = serve(connection.channel(CHANNEL)?, MOST_CHUNKS, |request| client.handle(request));
        tokio::select! {
            served = serving => served,
            never = client.lent.look_after() => match never {},
        }
    }

    /// The file at a path, if it is still the one that the client means.
    fn file(&self, path: &str, meant: Identity) -> std::result::Result<Arc<File>, ApplicationError> {
        let (file, found) = self.root.file(path).map_err(|reason| refused(path, &reason))?;
        if found == meant { Ok(Arc::new(file)) } else { Err(changed(path)) }
    }
}

impl Client<'_> {
    async fn handle(&self, request: Request) -> Answer {
        match request {
            Request::Hello { program, version } => match program == NAME && version == VERSION {
                true => Ok(Response::Hello),
                false => {
                    let reason =
                        format!("this is a server of {NAME}, version {VERSION}, not of {program}, version {version}");
                    Err(ApplicationError::new(NONSENSE, reason))
                }
            },
            Request::List { path, after } => {
                let names =
                    self.server.root.names(&path, after.as_deref()).map_err(|reason| refused(&path, &reason))?;
                Ok(Response::Names(names))
            }
            Request::Open { path } => {
                let (_, identity) = self.server.root.file(&path).map_err(|reason| refused(&path, &reason))?;
                Ok(Response::File(identity))
            }
            Request::Chunk { path, identity, offset, length, done } => {
                self.lent.take_back(&done);
                self.chunk(&path, identity, offset, length).await
            }
            Request::Digest { path, identity } => self.digest(&path, identity).await,
        }
    }

    /// Reads a chunk into registered memory and grants it.
    async fn chunk(&self, path: &str, meant: Identity, offset: u64, length: u64) -> Answer {
        let is_within = offset.checked_add(length).is_some_and(|end| end <= meant.length);
        if !(1..=LONGEST_CHUNK).contains(&length) || !is_within {
            let reason = format!("{length} bytes at {offset} of a file of {}", meant.length);
            return Err(ApplicationError::new(NONSENSE, reason));
        }
        let too_many = || ApplicationError::new(NONSENSE, format!("more than {MOST_CHUNKS} chunks at once"));
        let room = self.lent.room().ok_or_else(too_many)?;
        let file = self.server.file(path, meant)?;
        let mut buffer = Pool::global().allocate(length as usize)?;
        // It is read, not mapped: of a file that is made shorter meanwhile nothing comes, where a mapping would end the process.
        let read = background(move || {
            file.read_exact_at(&mut buffer, offset)?;
            let checksum = crc32c::crc32c(&buffer);
            Ok((file, buffer, checksum))
        });
        let (file, buffer, checksum) = read.await.map_err(|error| match error.kind() {
            IoErrorKind::UnexpectedEof => changed(path),
            _ => refused(path, &error.to_string()),
        })?;
        if identity(&file).map_err(|reason| refused(path, &reason))? != meant {
            return Err(changed(path));
        }
        let (id, memory) = self.lent.lend(room, self.connection, buffer).await?;
        Ok(Response::Chunk(Chunk { id, memory, checksum }))
    }

    async fn digest(&self, path: &str, meant: Identity) -> Answer {
        let file = self.server.file(path, meant)?;
        let _turn = self.server.digests.acquire().await.map_err(|error| ApplicationError::from(error.to_string()))?;
        let digested = digest(&file, meant.length).await;
        match digested {
            Ok(digest) if identity(&file) == Ok(meant) => Ok(Response::Digest(digest)),
            Ok(_) => Err(changed(path)),
            Err(error) if error.kind() == IoErrorKind::UnexpectedEof => Err(changed(path)),
            Err(error) => Err(refused(path, &error.to_string())),
        }
    }
}

fn refused(path: &str, reason: &str) -> ApplicationError {
    // What a client calls a path may be long.
    let shown: String = path.chars().take(80).collect();
    ApplicationError::new(REFUSED, format!("{shown:?}: {reason}"))
}

fn changed(path: &str) -> ApplicationError {
    ApplicationError::new(CHANGED, format!("{path:?} has changed"))
}
