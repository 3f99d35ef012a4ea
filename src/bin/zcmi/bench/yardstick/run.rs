//! The two processes of a yardstick.

use std::time::{Duration, Instant};

use super::{Figure, Plan, Ready};
use crate::bench::failure::{Failure, Result};
use crate::bench::process::Process;
use crate::bench::test::Case;

/// How long a server may take until it is ready, and a client until it has measured.
const READY: Duration = Duration::from_secs(10);
const BOUND: Duration = Duration::from_secs(60);

/// A server may say that it waits shortly before it listens; the client then fails at once. What takes longer has another reason.
const ATTEMPTS: u32 = 5;
const AT_ONCE: Duration = Duration::from_secs(10);
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
    let port = free_port()?;
    let with_port = |option: &str| {
        let mut arguments = plan.arguments.clone();
        arguments.extend([option.to_owned(), port.to_string()]);
        arguments
    };
    // Line by line, so that it is seen when it says that it waits.
    let mut arguments = vec!["-oL".to_owned(), plan.program.display().to_string()];
    arguments.extend(with_port(plan.port.0));
    let mut server = Process::start("stdbuf", &arguments, &plan.variables)?;
    match plan.ready {
        Ready::Listens => server.until_said(|_| is_listening(&tcp_sockets(), port), READY).await?,
        Ready::Says(word) => server.until_said(|said| said.contains(word), READY).await?,
    };
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

/// The kernel's tables of TCP sockets.
fn tcp_sockets() -> String {
    let table = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    table("/proc/net/tcp") + &table("/proc/net/tcp6")
}

/// Whether somebody listens at `port`: `number: address:port address:port state …`, in hexadecimal.
fn is_listening(table: &str, port: u16) -> bool {
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().and_then(|address| address.rsplit_once(':'));
        let is_it = local.is_some_and(|(_, digits)| u16::from_str_radix(digits, 16) == Ok(port));
        is_it && words.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_in_the_table() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        assert!(is_listening(&tcp_sockets(), port));
        // Connected is not listening.
        drop(listener);
        assert!(!is_listening(&tcp_sockets(), port));
        assert!(!is_listening("", port) && !is_listening("x\n 0: y z 0A", port));
    }
}
