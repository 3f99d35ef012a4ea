//! Messages both ways.

use std::time::Instant;

use zcmi::Connection;

use crate::case::{Case, From};
use crate::common::{Progress, Result};
use crate::samples::Samples;

/// The client: sends, waits for the answer, checks it.
///
/// Where a message lands is the library's choice, so there is nothing to poison: what was there before is another
/// iteration's message.
pub(crate) async fn ping(case: &Case, connection: &Connection, progress: &Progress) -> Result<Samples> {
    let mut samples = Samples::of_round_trips(case.iterations);
    let mut payload = vec![0; case.size()];
    let mut expected = vec![0; case.size()];
    for iteration in 0..case.all() {
        case.pattern(From::Client, iteration).fill(&mut payload);
        case.pattern(From::Server, iteration).fill(&mut expected);

        let begun = Instant::now();
        connection.send(&payload).await?;
        let answer = connection.recv().await?;
        let time = begun.elapsed();

        case.check(iteration, &answer, &expected)?;
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
    let mut expected = vec![0; case.size()];
    for iteration in 0..case.all() {
        case.pattern(From::Server, iteration).fill(&mut payload);
        case.pattern(From::Client, iteration).fill(&mut expected);

        let question = connection.recv().await?;
        connection.send(&payload).await?;

        case.check(iteration, &question, &expected)?;
        progress.step();
    }
    Ok(())
}
