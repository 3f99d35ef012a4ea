//! Messages from client to server.

use zcmi::Connection;

use crate::case::Case;
use crate::common::{Failure, Progress, Result, hear, tell};
use crate::pace::{Moved, Pace};
use crate::stamp;

/// The client: sends as long as the server has room. A message without bytes is the last.
pub(crate) async fn measure(case: &Case, connection: &Connection, progress: &Progress) -> Result<Moved> {
    let mut payload = vec![0; case.size()];
    stamp::fill(case, 0, 0, &mut payload);
    let warm_up = u64::from(case.depth);
    let mut number = 0;
    while number < warm_up {
        send(connection, &mut payload, &mut number, progress).await?;
    }
    connection.send(&[]).await?;
    agree(connection, number).await?;

    let mut pace = Pace::start(case);
    loop {
        let allowed = pace.allows(number - warm_up, case.batch.into(), connection).await?;
        for _ in 0..allowed {
            send(connection, &mut payload, &mut number, progress).await?;
        }
        if allowed == 0 {
            break;
        }
    }
    connection.send(&[]).await?;
    agree(connection, number).await?;
    Ok(pace.stop(number - warm_up))
}

/// The server: receives and checks; says how many there were.
pub(crate) async fn serve(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
    let mut expected = vec![0; case.size()];
    stamp::fill(case, 0, 0, &mut expected);
    let mut number = 0;
    // The warm-up, and what is measured.
    for _ in 0..2 {
        loop {
            let message = connection.recv().await?;
            if message.is_empty() {
                break;
            }
            stamp::stamp(&mut expected, number);
            stamp::check(case, number, &message, &expected)?;
            number += 1;
            progress.step();
        }
        tell(connection, &number).await?;
    }
    Ok(())
}

async fn send(connection: &Connection, payload: &mut [u8], number: &mut u64, progress: &Progress) -> Result<()> {
    stamp::stamp(payload, *number);
    connection.send(payload).await?;
    *number += 1;
    progress.step();
    Ok(())
}

/// The server has received what was sent.
async fn agree(connection: &Connection, sent: u64) -> Result<()> {
    let received: u64 = hear(connection).await?;
    if received != sent {
        return Err(Failure::Other(format!("{sent} messages were sent, {received} received")));
    }
    Ok(())
}
