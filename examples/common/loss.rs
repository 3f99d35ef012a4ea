//! What to do when a server has gone: tell that from other failures, and try again for a while.

use std::time::{Duration, Instant};

use zcmi::ErrorKind;

use super::{Failure, Result};

/// Waits between attempts: the first, and the longest.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

/// Whether to connect again helps: the server has gone, or is not there yet.
pub(crate) fn is_loss(failure: &Failure) -> bool {
    matches!(failure, Failure::Zcmi(error) if matches!(
        error.kind(),
        ErrorKind::Closed
            | ErrorKind::ConnectionBroken
            | ErrorKind::ConnectionRefused
            | ErrorKind::PeerClosed
            | ErrorKind::RemoteAccess
            | ErrorKind::Revoked
            | ErrorKind::TimedOut
            | ErrorKind::Unreachable
            | ErrorKind::Unresponsive
    ))
}

/// Whether to ask again helps: a listener may be too busy, and a device refuses by itself what a listener had not looked at when its process died.
fn is_refusal(failure: &Failure) -> bool {
    matches!(failure, Failure::Zcmi(error) if error.kind() == ErrorKind::Rejected)
}

/// Tries `attempt` until it succeeds, or fails otherwise than by a loss or a refusal, or `patience` is over.
pub(crate) async fn patiently<T, F>(patience: Duration, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + patience;
    let [mut wait, longest] = BACK_OFF;
    loop {
        match attempt().await {
            Err(failure) if (is_loss(&failure) || is_refusal(&failure)) && Instant::now() + wait < deadline => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
            answer => return answer,
        }
    }
}
