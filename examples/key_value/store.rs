//! The client: reads the table by itself, and asks the server to change it.

use std::time::Duration;

use zcmi::{Buffer, Client, Connection, Connector, Worker};

use crate::NAME;
use crate::common::{Failure, Result, is_loss, patiently};
use crate::protocol::{CHANNEL, Request, Response, VERSION, Welcome, config};
use crate::slot::{NEIGHBOURHOOD, SLOT, Slot, Torn, fits, home};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Reads of a slot that come torn, before the server is asked.
const ATTEMPTS: u32 = 8;

/// A connection to the store, made when it is needed and made again when it was lost.
pub(crate) struct Store {
    connector: Connector,
    address: String,
    link: Option<Link>,
    counts: Counts,
}

/// How GETs were answered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// READs that showed no one moment, and were made again.
    pub(crate) torn: u64,
    /// GETs that took a second READ: the key was not at its home.
    pub(crate) second_reads: u64,
    /// GETs that the server was asked for, since reading did not tell.
    pub(crate) asked: u64,
}

/// One connection, and what was learned over it.
struct Link {
    connection: Connection,
    client: Client,
    table: Welcome,
}

/// What reading tells.
enum Seen {
    Absent,
    /// It is not where the home said; it may have moved.
    Unclear,
    Value(Vec<u8>),
}

impl Store {
    /// A store at `address`, to which nobody has connected yet.
    pub(crate) fn new(worker: &Worker, address: &str) -> Self {
        Self { connector: Connector::new(worker), address: address.to_owned(), link: None, counts: Counts::default() }
    }

    /// A worker for stores.
    pub(crate) fn worker() -> Result<Worker> {
        Ok(Worker::new(config()?)?)
    }

    /// Connects, unless it is connected; tries again and again for `patience` where nobody listens or the connection is lost at once.
    /// Answers which start of the server it is connected to.
    pub(crate) async fn ready(&mut self, patience: Duration) -> Result<u64> {
        if self.link.is_none() {
            self.link = Some(patiently(patience, || Link::new(&self.connector, &self.address)).await?);
        }
        Ok(self.link()?.table.incarnation)
    }

    /// The value of a key, by reading it; the server's process takes no part, or nearly never.
    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        fits(key, &[])?;
        let mut counts = self.counts;
        let value = match self.link()?.get(key, &mut counts).await {
            Ok(value) => value,
            Err(failure) => return Err(self.noticed(failure)),
        };
        self.counts = counts;
        Ok(value)
    }

    /// Puts the value of a key. If the connection is lost, it may be put or not.
    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        fits(key, value)?;
        match self.call(Request::Put { key: key.to_vec(), value: value.to_vec() }).await? {
            Response::Put => Ok(()),
            _ => Err(nonsense()),
        }
    }

    /// Removes a key; answers whether it was there.
    pub(crate) async fn delete(&mut self, key: &[u8]) -> Result<bool> {
        fits(key, &[])?;
        match self.call(Request::Delete { key: key.to_vec() }).await? {
            Response::Deleted(was_there) => Ok(was_there),
            _ => Err(nonsense()),
        }
    }

    /// How GETs were answered so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The transport, if it is connected.
    pub(crate) fn transport(&self) -> Option<&'static str> {
        self.link.as_ref().map(|link| link.connection.transport())
    }

    /// Says goodbye.
    pub(crate) async fn close(&mut self) -> Result<()> {
        match self.link.take() {
            Some(link) => Ok(link.connection.close().await?),
            None => Ok(()),
        }
    }

    async fn call(&mut self, request: Request) -> Result<Response> {
        match self.link()?.call(&request).await {
            Ok(response) => Ok(response),
            Err(failure) => Err(self.noticed(failure)),
        }
    }

    fn link(&self) -> Result<&Link> {
        self.link.as_ref().ok_or_else(|| Failure::Other("there is no connection to the store".to_owned()))
    }

    /// Forgets a connection that is lost.
    fn noticed(&mut self, failure: Failure) -> Failure {
        if is_loss(&failure) {
            self.link = None;
        }
        failure
    }
}

impl Link {
    async fn new(connector: &Connector, address: &str) -> Result<Self> {
        let connection = connector.connect(address).await?;
        let client = Client::new(connection.channel(CHANNEL)?);
        let request = Request::Table { program: NAME.to_owned(), version: VERSION };
        let table = match client.call_timeout(&request, CALL_LIMIT).await.map_err(told)? {
            Response::Table(table) => table,
            _ => return Err(nonsense()),
        };
        // The server may be hostile, and what it says goes into sums.
        let slots = table.homes.checked_add(NEIGHBOURHOOD as u64 - 1);
        if table.homes == 0 || slots.and_then(|slots| slots.checked_mul(SLOT as u64)) != Some(table.slots.len()) {
            return Err(nonsense());
        }
        Ok(Self { connection, client, table })
    }

    async fn get(&self, key: &[u8], counts: &mut Counts) -> Result<Option<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            match self.look(key, counts).await? {
                Ok(Seen::Absent) => return Ok(None),
                Ok(Seen::Value(value)) => return Ok(Some(value)),
                Ok(Seen::Unclear) => break,
                Err(Torn) => counts.torn += 1,
            }
            // Who writes may need this processor.
            tokio::task::yield_now().await;
        }
        counts.asked += 1;
        match self.call(&Request::Get { key: key.to_vec() }).await? {
            Response::Value(value) => Ok(value),
            _ => Err(nonsense()),
        }
    }

    /// Reads the home, and the other slots that it names.
    async fn look(&self, key: &[u8], counts: &mut Counts) -> Result<std::result::Result<Seen, Torn>> {
        let home = home(self.table.seed, key, self.table.homes);
        let image = self.read(home, 1).await?;
        let slot = match Slot::of_image(&image) {
            Ok(slot) => slot,
            Err(Torn) => return Ok(Err(Torn)),
        };
        if let Some(value) = slot.value_of(key) {
            return Ok(Ok(Seen::Value(value.to_vec())));
        }
        // The home is of one moment, and at that moment it had no keys elsewhere.
        let elsewhere = slot.neighbours & !1;
        if elsewhere == 0 {
            return Ok(Ok(Seen::Absent));
        }
        counts.second_reads += 1;
        let first = u64::from(elsewhere.trailing_zeros());
        let last = u64::from(u16::BITS - 1 - elsewhere.leading_zeros());
        let images = self.read(home + first, last - first + 1).await?;
        for (image, at) in images.chunks_exact(SLOT).zip(first..) {
            if elsewhere & (1 << at) == 0 {
                continue;
            }
            match Slot::of_image(image) {
                Ok(slot) if slot.value_of(key).is_some() => {
                    return Ok(Ok(Seen::Value(slot.value_of(key).unwrap_or_default().to_vec())));
                }
                Ok(_) => {}
                Err(Torn) => return Ok(Err(Torn)),
            }
        }
        Ok(Ok(Seen::Unclear))
    }

    /// One READ of `count` slots.
    async fn read(&self, first: u64, count: u64) -> Result<Buffer> {
        let start = first * SLOT as u64;
        let length = count * SLOT as u64;
        let source = self.table.slots.slice(start..start + length)?;
        Ok(self.connection.read(Buffer::allocate(length as usize)?, &source).await?)
    }

    async fn call(&self, request: &Request) -> Result<Response> {
        self.client.call_timeout(request, CALL_LIMIT).await.map_err(told)
    }
}

/// What the server says, in its words.
fn told(error: zcmi::Error) -> Failure {
    match error.application() {
        Some(reason) => Failure::Other(format!("the server says: {}", reason.text())),
        None => Failure::Zcmi(error),
    }
}

fn nonsense() -> Failure {
    Failure::Other("the server answered what this program does not expect".to_owned())
}
