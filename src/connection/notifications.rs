//! Notifications: that the peer has written, and what.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::Connection;
use super::core::{Core, LinkKey};
use super::established::{Inner, Waiting};
use crate::transport::{Queue, Transport};
use crate::{Error, ErrorKind, Result};

impl Connection {
    /// The value of the peer's next [`write_notify`](Self::write_notify), in the order in which they were posted: all bytes of that write, and of
    /// those that were posted before it on this connection, are visible. Dropping the future loses none.
    ///
    /// Up to 256 are kept until they are asked for; then the peer's next one waits.
    ///
    /// ```no_run
    /// # async fn example(connection: zcmi::Connection, exposed: zcmi::ExposedBuffer) -> zcmi::Result<()> {
    /// let slot = connection.notified().await? as usize;
    /// let mut bytes = [0; 64];
    /// exposed.read_at(slot * 64, &mut bytes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PeerClosed`](ErrorKind::PeerClosed) when the peer has finished, and whatever else ended the connection, after those that
    /// came before.
    pub async fn notified(&self) -> Result<u32> {
        self.0.notified().await
    }

    /// The value of the next notification, if one is here.
    ///
    /// # Errors
    /// As [`notified`](Self::notified).
    pub fn try_notified(&self) -> Result<Option<u32>> {
        let taken = self.0.engine.with(|core| {
            core.look();
            core.take_notification(self.0.key)
        });
        match taken {
            Poll::Ready(taken) => taken.map(Some).map_err(|error| self.0.refine(error)),
            Poll::Pending => Ok(None),
        }
    }
}

impl<T: Transport> Inner<T> {
    /// The value of the next notification.
    pub(super) async fn notified(self: &Arc<Self>) -> Result<u32> {
        let mut waiting = Waiting::new(self);
        let notified = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let taken = core.take_notification(self.key);
                if let (Poll::Pending, Some(waker)) = (&taken, waker) {
                    core.wait_for_notification(self.key, waiting.with(waker));
                }
                taken
            })
        });
        notified.await.map_err(|error| self.refine(error))
    }
}

impl<Q: Queue> Core<Q> {
    /// The next notification, if it is here; an error if none will come.
    fn take_notification(&mut self, key: LinkKey) -> Poll<Result<u32>> {
        let operation = "wait for a notification";
        let Some(link) = self.link(key) else { return Poll::Ready(Err(Error::new(ErrorKind::Closed, operation))) };
        let Some(value) = link.take_notification() else {
            let failure = link.receive_failure(false);
            return failure.map_or(Poll::Pending, |error| Poll::Ready(Err(error.within(operation))));
        };
        if !link.outbox.is_empty() {
            self.post_frames(key, false);
        }
        Poll::Ready(Ok(value))
    }
}
