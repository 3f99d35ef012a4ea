//! Waiting for a buffer.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::inner::Request;
use super::waiters::{News, Ticket};
use super::{IdleBlock, Pool};
use crate::{Buffer, Error, ErrorKind, Result};

/// A buffer to come; made by [`Pool::allocate_async`]. Dropping it gives up the place in the queue, and whatever it has
/// been given meanwhile goes to the next.
#[must_use = "a future does nothing unless it is polled"]
#[derive(Debug)]
pub struct Allocation {
    pool: Pool,
    request: Result<Request>,
    ticket: Option<Ticket>,
}

impl Allocation {
    pub(super) fn new(pool: Pool, request: Result<Request>) -> Self {
        Self { pool, request, ticket: None }
    }

    /// Waits no longer than `patience`.
    pub(super) fn wait(self, patience: Duration) -> Result<Buffer> {
        let deadline = Instant::now().checked_add(patience);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let (mut context, mut allocation) = (Context::from_waker(&waker), pin!(self));
        loop {
            if let Poll::Ready(result) = allocation.as_mut().poll(&mut context) {
                return result;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(Duration::ZERO) => return Err(allocation.timed_out(patience)),
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    fn timed_out(&self, patience: Duration) -> Error {
        let length = self.request.as_ref().map_or(0, |request| request.length);
        self.pool.inner.exhausted(length, &format!("waited {patience:?}"))
    }

    /// Tries; a place in the queue has been taken, or given back by the time this answers.
    fn try_again(&mut self, request: Request, ticket: Ticket) -> Poll<Result<Buffer>> {
        let waiters = &self.pool.inner.reservoir.waiters;
        let block = match self.pool.inner.block(&request) {
            Ok(None) => {
                waiters.pass_on(ticket, request.class);
                return Poll::Pending;
            }
            Ok(Some(block)) => Ok(block),
            Err(error) => Err(error),
        };
        self.ticket = None;
        // A second one may have been handed over at the same time.
        waiters.leave(ticket).into_iter().for_each(IdleBlock::go_home);
        // There may be more where this came from.
        waiters.pass_on(ticket, None);
        Poll::Ready(block.map(|block| Buffer::of_block(block, request.length)))
    }
}

impl Future for Allocation {
    type Output = Result<Buffer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Buffer>> {
        let this = &mut *self;
        if !this.pool.inner.is_ours() {
            // Its blocks are not mapped in a forked child, and its locks may be held for ever.
            let error = Error::new(ErrorKind::Unsupported, "allocate");
            return Poll::Ready(Err(error.with_detail("the pool belongs to the parent process")));
        }
        let request = match &this.request {
            Ok(request) => *request,
            Err(error) => return Poll::Ready(Err(error.again("allocate"))),
        };
        let inner = &this.pool.inner;
        match this.ticket {
            None => match inner.allocate(&request) {
                Ok(None) => {
                    let ticket = inner.wait(&request, context.waker());
                    this.ticket = Some(ticket);
                    this.try_again(request, ticket)
                }
                Ok(Some(buffer)) => Poll::Ready(Ok(buffer)),
                Err(error) => Poll::Ready(Err(error)),
            },
            Some(ticket) => match inner.reservoir.waiters.ask(ticket, context.waker()) {
                News::Granted(block) => {
                    this.ticket = None;
                    Poll::Ready(Ok(Buffer::of_block(block, request.length)))
                }
                News::Notified => this.try_again(request, ticket),
                News::Nothing => Poll::Pending,
            },
        }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.filter(|_| self.pool.inner.is_ours()) {
            self.pool.inner.reservoir.waiters.leave(ticket).into_iter().for_each(IdleBlock::go_home);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
