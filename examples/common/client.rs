//! The client: asks the server for case after case.

use std::marker::PhantomData;
use std::time::Duration;

use zcmi::{Connection, Connector, Worker};

use super::server::{Answer, Request, Verdict};
use super::{Channel, Ends, Failure, Program, Progress, Result, address, encode, hear, tell};

/// How long the server's own view of a lost connection is waited for.
const VERDICT_LIMIT: Duration = Duration::from_secs(2);

/// The client, connected to a server.
pub(crate) struct Client<'a, P> {
    ends: &'a Ends,
    address: String,
    control: Connection,
    program: PhantomData<P>,
}

/// What the client found out, and how.
pub(crate) struct Measured<O> {
    /// What it found out.
    pub(crate) outcome: O,
    /// The transport.
    pub(crate) transport: &'static str,
}

impl<'a, P: Program> Client<'a, P> {
    /// Connects to the server at `address`.
    pub(crate) async fn connect(ends: &'a Ends, address: &str) -> Result<Self> {
        let worker = Worker::new(Channel::control_config())?;
        let control = Connector::new(&worker).connect(address).await?;
        if address.starts_with("auto://") {
            super::say(format_args!("{}", way_of(&control)));
        }
        Ok(Self { ends, address: address.to_owned(), control, program: PhantomData })
    }

    /// Runs a case over a connection of its own.
    pub(crate) async fn run(&self, case: P::Case) -> Result<Measured<P::Outcome>> {
        let progress = Progress::default();
        progress.watch(self.ends.timeout(), self.run_case(case, &progress)).await
    }

    async fn run_case(&self, case: P::Case, progress: &Progress) -> Result<Measured<P::Outcome>> {
        let worker = Worker::new(P::channel(&case)?.config(self.ends.polling.polling(), self.ends.timeout()))?;
        let request = Request { program: P::NAME.to_owned(), case: encode(&case)? };
        tell(&self.control, &request).await?;
        let place = hear::<Answer>(&self.control).await?.map_err(server_says)?;
        progress.step();
        let connection = Connector::new(&worker).connect(&address::with_place(&self.address, &place)).await?;
        progress.step();
        let outcome = match P::measure(&case, &connection, progress).await {
            Err(failure) if failure.is_loss() => return Err(self.explain(failure).await),
            outcome => outcome?,
        };
        hear::<Verdict>(&self.control).await?.map_err(server_says)?;
        connection.close().await?;
        Ok(Measured { outcome, transport: connection.transport() })
    }

    /// The server's reason for a connection that was lost, if it has one.
    async fn explain(&self, failure: Failure) -> Failure {
        match tokio::time::timeout(VERDICT_LIMIT, hear::<Verdict>(&self.control)).await {
            Ok(Ok(Err(reason))) => server_says(reason),
            _ => failure,
        }
    }
}

/// The transport that was taken, and why others were not.
fn way_of(connection: &Connection) -> String {
    match connection.passed_over() {
        [] => format!("over {}", connection.transport()),
        others => format!("over {}, not {}", connection.transport(), others.join(", not ")),
    }
}

fn server_says(reason: String) -> Failure {
    Failure::Other(format!("the server says: {reason}"))
}
