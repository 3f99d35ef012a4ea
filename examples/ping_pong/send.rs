//! Messages both ways.

use std::time::Instant;

use zcmi::Connection;

use crate::case::{Case, From};
use crate::common::{Progress, Result};
use crate::samples::Samples;

/// The client: sends, waits for the answer, checks it.
pub(crate) async fn ping(case: &Case, connection: &Connection, progress: &Progress) -> Result<Samples> {
    let mut samples = Samples::of_round_trips(case.iterations);
    let mut payload = vec![0; case.size()];
    for iteration in 0..case.all() {
        case.pattern(From::Client, iteration).fill(&mut payload);

        let begun = Instant::now();
        connection.send(&payload).await?;
        let answer = connection.recv().await?;
        let time = begun.elapsed();

        check(case, From::Server, iteration, &answer)?;
        if case.is_measured(iteration) {
            samples.add(time);
        }
        progress.step();
    }
    Ok(samples)
}

/// The server: answers, and checks what it has answered while the answer is on its way.
pub(crate) async fn pong(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
    let mut payload = vec![0; case.size()];
    for iteration in 0..case.all() {
        case.pattern(From::Server, iteration).fill(&mut payload);

        let question = connection.recv().await?;
        connection.send(&payload).await?;

        check(case, From::Client, iteration, &question)?;
        progress.step();
    }
    Ok(())
}

/// Where a message lands is the library's choice, so there is nothing to poison: what was there before is another
/// iteration's message.
fn check(case: &Case, from: From, iteration: u64, message: &[u8]) -> Result<()> {
    if message.len() != case.size() {
        let wrong = format!("a message of {} bytes came in", message.len());
        return Err(case.complain(iteration, wrong).into());
    }
    Ok(case.pattern(from, iteration).check(message).map_err(|wrong| case.complain(iteration, wrong))?)
}
