//! The two processes of a yardstick.

use std::time::{Duration, Instant};

use super::{Figure, Plan};
use crate::bench::failure::{Failure, Result};
use crate::bench::process::Process;
use crate::bench::test::Case;

/// How long a server may take until it is ready, and a client until it has measured.
const READY: Duration = Duration::from_secs(10);
const BOUND: Duration = Duration::from_secs(60);

/// A server that says nothing may not listen yet when the client comes, which then fails at once. What takes longer has another reason.
const ATTEMPTS: u32 = 5;
const AT_ONCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(150);

/// Measures `case` once.
pub(crate) async fn measure(plan: &Plan, case: &Case) -> Result<Figure> {
    let mut attempt = 1;
    loop {
        let begun = Instant::now();
        match attempt_once(plan, attempt).await {
            Ok(output) => return (plan.parse)(&output, case).map_err(Failure::new),
            Err(failure) if attempt == ATTEMPTS || begun.elapsed() > AT_ONCE => return Err(failure),
            Err(_) => attempt += 1,
        }
    }
}

async fn attempt_once(plan: &Plan, attempt: u32) -> Result<String> {
    let port = free_port()?.to_string();
    let with_port = |option: &str| {
        let mut arguments = plan.arguments.clone();
        arguments.extend([option.to_owned(), port.clone()]);
        arguments
    };
    // Line by line, so that it is seen when it says that it waits.
    let mut arguments = vec!["-oL".to_owned(), plan.program.display().to_string()];
    arguments.extend(with_port(plan.port.0));
    let mut server = Process::start("stdbuf", &arguments, &plan.variables)?;
    if let Some(ready) = plan.ready {
        server.until_said(|said| said.contains(ready), READY).await?;
    }
    tokio::time::sleep(PAUSE * attempt).await;
    let mut arguments = with_port(plan.port.1);
    arguments.push(plan.address.clone());
    let mut client = Process::start(&plan.program, &arguments, &plan.variables)?;
    let output = client.until_done(BOUND).await?;
    // What it measured is known; the server is ended if it does not end by itself.
    let _ = server.until_done(Duration::from_secs(2)).await;
    Ok(output)
}

/// A port that nobody listened at a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
