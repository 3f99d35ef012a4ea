//! The other end: a process that is started for it, or `zcmi serve` on some host.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use zcmi::{Config, Connection, Connector, Pool, TransportChoice, Worker};

use super::failure::{Failure, Result};
use super::process::Process;
use super::session::Session;
use super::wire::HELLO;

/// How long the peer process may take until it listens.
const START_BOUND: Duration = Duration::from_secs(20);

/// What both processes of a host have for connecting, and may be silent for: where one of them is held up, the other is too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// The best that leads to the peer
    Auto,
    /// Shared memory
    Shm,
    /// Shared memory, and both ends share pages; between processes of this host only
    ShmShared,
    /// TCP
    Tcp,
    /// RDMA
    Verbs,
}

/// The two ends.
pub(crate) struct Ends {
    pub(crate) session: Session,
    /// If it was started here.
    pub(crate) process: Option<Process>,
    pub(crate) address: String,
}

impl Ends {
    /// Starts a process on this host and connects to it.
    pub(crate) async fn here(transport: Transport, config: Config) -> Result<Self> {
        let address = match transport {
            Transport::Auto => "auto://127.0.0.1:0".to_owned(),
            Transport::Shm | Transport::ShmShared => "shm://".to_owned(),
            Transport::Tcp => "tcp://127.0.0.1:0".to_owned(),
            Transport::Verbs => super::device::address().map_err(Failure::new)?,
        };
        let secret: u64 = rand::random();
        let mut arguments: Vec<_> =
            ["serve", &address, "--once", "--format", "json", "--of-bench"].map(str::to_owned).to_vec();
        let is_sharing = transport == Transport::ShmShared;
        if is_sharing {
            arguments.push("--share-pages".to_owned());
        }
        let config = Config {
            connect_timeout: config.connect_timeout.max(PATIENCE),
            peer_timeout: config.peer_timeout.max(PATIENCE),
            ..config
        };
        let time = |time: Duration| format!("{}ms", time.as_millis());
        let settings = [
            // Of a process' arguments everybody on the host can see, its environment only its user.
            (SECRET, secret.to_string()),
            ("ZCMI_POLLING", polling_text(config.polling)),
            ("ZCMI_CONNECT_TIMEOUT", time(config.connect_timeout)),
            ("ZCMI_PEER_TIMEOUT", time(config.peer_timeout)),
        ];
        let mut process = Process::start(std::env::current_exe()?, &arguments, &settings)?;
        let said = process.until_said(|said| said.contains('\n'), START_BOUND).await;
        let said = said.map_err(|failure| failure.within("the peer process"))?;
        let address = listening(&said).ok_or_else(|| Failure::new(format!("the peer process said {said:?}")))?;
        let config = if is_sharing { sharing(config)? } else { config };
        let session = begin(&address, &hello(secret), config).await;
        let session = match session {
            Ok(session) => session,
            Err(failure) => return Err(process.end(Duration::from_millis(500)).await.unwrap_or(failure)),
        };
        Ok(Self { session, process: Some(process), address })
    }

    /// Connects to `zcmi serve` at `address`.
    pub(crate) async fn at(address: &str, transport: Transport, config: Config) -> Result<Self> {
        let choice = match transport {
            Transport::Auto => config.transport,
            Transport::Shm => TransportChoice::Shm,
            Transport::Tcp => TransportChoice::Tcp,
            Transport::Verbs => TransportChoice::Verbs,
            Transport::ShmShared => return Err(Failure::new("pages are shared with a process of this bench only")),
        };
        let session = begin(address, HELLO, Config { transport: choice, ..config }).await?;
        Ok(Self { session, process: None, address: address.to_owned() })
    }

    /// `failure`, or, if that is why, how the peer process ended.
    pub(crate) async fn explain(&mut self, failure: Failure) -> Failure {
        let Some(process) = &mut self.process else { return failure };
        match process.end(Duration::from_millis(300)).await {
            Some(end) => Failure::new(format!("{failure}: the peer process has gone: {end}")),
            None => failure,
        }
    }

    /// Says goodbye, and waits until the peer process has ended.
    pub(crate) async fn close(self) -> Result<()> {
        let Self { session, process, .. } = self;
        tokio::time::timeout(Duration::from_secs(10), session.connection.close())
            .await
            .map_err(|_| Failure::new("closing took too long"))??;
        if let Some(mut process) = process {
            process.until_done(Duration::from_secs(10)).await?;
        }
        Ok(())
    }
}

/// The variable that tells a peer process its secret.
pub(crate) const SECRET: &str = "OF_ZCMI_BENCH";

/// What the measuring end says to a peer process with this secret.
pub(crate) fn hello(secret: u64) -> Vec<u8> {
    [HELLO, &secret.to_le_bytes()].concat()
}

/// The same settings with pages that are shared with the peer.
#[allow(unsafe_code, reason = "who shares pages trusts the peer, which is this program; the block carries its proof")]
pub(crate) fn sharing(config: Config) -> zcmi::Result<Config> {
    let pool = Pool::builder().shareable(true).build()?;
    // SAFETY: both ends are this program, which one of them has started with a secret that the other has to know: nobody else
    // is connected to. It has no other `unsafe` code, and accesses pages through the library alone.
    let sharing = unsafe { Config::builder().share_pages_with_peers(&pool) }.build()?;
    Ok(Config { shared_pages: sharing.shared_pages, ..config })
}

/// As `ZCMI_POLLING` has it.
pub(crate) fn polling_text(polling: zcmi::Polling) -> String {
    match polling {
        zcmi::Polling::Busy => "busy".to_owned(),
        zcmi::Polling::Event => "event".to_owned(),
        zcmi::Polling::Adaptive { spin } => match spin.as_nanos() {
            time if time % 1_000_000 == 0 => format!("adaptive:{}ms", time / 1_000_000),
            time if time % 1000 == 0 => format!("adaptive:{}us", time / 1000),
            time => format!("adaptive:{time}ns"),
        },
        // Of a later version of the library; both are built together.
        _ => "unknown".to_owned(),
    }
}

async fn begin(address: &str, hello: &[u8], config: Config) -> Result<Session> {
    let worker = Worker::new(config)?;
    let connection: Connection = Connector::new(&worker).connect_with(address, hello).await?;
    Session::begin(connection).await
}

/// Where a server says that it listens.
fn listening(said: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(said.lines().next()?).ok()?;
    Some(event.get("address")?.as_str()?.to_owned())
}
