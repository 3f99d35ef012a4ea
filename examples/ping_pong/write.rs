//! RDMA writes both ways: each end writes into the other's memory, and polls its own until its last byte has come.

use std::time::Instant;

use zcmi::{Buffer, Connection};

use crate::case::{Case, From};
use crate::common::{Progress, Result};
use crate::mailbox::{Mailbox, RemoteMailbox};
use crate::samples::Samples;

/// The client: writes, waits until the server has written, checks it.
pub(crate) async fn ping(case: &Case, connection: &Connection, progress: &Progress) -> Result<Samples> {
    let mut samples = Samples::of_round_trips(case.iterations);
    let mut buffer = Buffer::allocate(case.size())?;
    let mut ours = Mailbox::open(case, From::Server, connection).await?;
    ours.announce(connection).await?;
    let theirs = RemoteMailbox::learn(case, connection).await?;
    for iteration in 0..case.all() {
        case.pattern(From::Client, iteration).fill(&mut buffer);
        ours.expect(iteration);

        let begun = Instant::now();
        buffer = connection.write(buffer, theirs.slot(iteration)).await?;
        ours.wait(iteration, connection).await?;
        let time = begun.elapsed();

        ours.check(iteration)?;
        if case.is_measured(iteration) {
            samples.add(time);
        }
        progress.step();
    }
    Ok(samples)
}

/// The server: waits until the client has written, writes the answer, and checks what came while the answer is on
/// its way.
pub(crate) async fn pong(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
    let mut buffer = Buffer::allocate(case.size())?;
    let mut ours = Mailbox::open(case, From::Client, connection).await?;
    let theirs = RemoteMailbox::learn(case, connection).await?;
    ours.announce(connection).await?;
    for iteration in 0..case.all() {
        case.pattern(From::Server, iteration).fill(&mut buffer);
        ours.expect(iteration);

        ours.wait(iteration, connection).await?;
        let answer = connection.write(buffer, theirs.slot(iteration));

        ours.check(iteration)?;
        buffer = answer.await?;
        progress.step();
    }
    Ok(())
}
