//! The server: owns the table, lets clients read it, and alone changes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;
use zcmi::{Access, ApplicationError, Connection, Grant, serve};

use crate::NAME;
use crate::common::{Result, serve_each};
use crate::protocol::{CHANNEL, FULL, OTHER_VERSION, Request, Response, TOO_LONG, VERSION, Welcome, config};
use crate::table::{Refused, Table};

/// Calls of one client that are handled at once.
const CALLS: usize = 64;

/// What all clients are served from.
struct Server {
    table: Mutex<Table>,
    incarnation: u64,
}

/// Serves at `address` until interrupted, with room for about `entries` entries.
pub(crate) async fn run(address: &str, entries: u64) -> Result<()> {
    let table = Table::new(entries, rand::random())?;
    let server = Arc::new(Server { table: Mutex::new(table), incarnation: rand::random() });
    serve_each(NAME, config()?, address, |connection| {
        let server = Arc::clone(&server);
        async move { server.serve_client(&connection).await }
    })
    .await
}

impl Server {
    async fn serve_client(self: &Arc<Self>, connection: &Connection) -> zcmi::Result<()> {
        // It lives as long as the client is served.
        let grant = OnceCell::new();
        let handler = |request| self.handle(request, connection, &grant);
        serve(connection.channel(CHANNEL)?, CALLS, handler).await
    }

    async fn handle(
        &self,
        request: Request,
        connection: &Connection,
        grant: &OnceCell<Grant>,
    ) -> std::result::Result<Response, ApplicationError> {
        match request {
            Request::Table { program, version } => {
                if program != NAME || version != VERSION {
                    let reason =
                        format!("this is a server of {NAME}, version {VERSION}, not of {program}, version {version}");
                    return Err(ApplicationError::new(OTHER_VERSION, reason));
                }
                let memory = Arc::clone(self.table().memory());
                let grant = grant.get_or_try_init(|| memory.grant(connection, 0..memory.len(), Access::READ)).await?;
                let table = self.table();
                Ok(Response::Table(Welcome {
                    incarnation: self.incarnation,
                    seed: table.seed(),
                    homes: table.homes(),
                    slots: grant.remote_buffer(),
                }))
            }
            Request::Get { key } => Ok(Response::Value(self.table().get(&key))),
            Request::Put { key, value } => match self.table().put(&key, &value) {
                Ok(()) => Ok(Response::Put),
                Err(Refused::TooLong(reason)) => Err(ApplicationError::new(TOO_LONG, reason)),
                Err(Refused::Full(reason)) => Err(ApplicationError::new(FULL, reason)),
            },
            Request::Delete { key } => Ok(Response::Deleted(self.table().delete(&key))),
        }
    }

    /// The table, for one at a time.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
