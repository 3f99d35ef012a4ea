//! Credit: how much of a stream its receiver is ready to take. It keeps one slow stream from holding
//! up the others on the shared port, and memory bounded.

use std::sync::{Condvar, Mutex, PoisonError};

/// What a receiver grants at the start, and so the most that is ever in flight of one stream.
pub(crate) const WINDOW: u32 = 256 << 10;

/// The sender's side of a stream's credit.
#[derive(Debug)]
pub(crate) struct Credit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    bytes: u32,
    closed: bool,
}

impl Credit {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { bytes: WINDOW, closed: false }), changed: Condvar::new() }
    }

    /// Waits until something may be sent and says how much; `None` once the receiver has closed.
    pub(crate) fn available(&self) -> Option<usize> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| state.bytes == 0 && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.closed).then_some(state.bytes as usize)
    }

    /// Takes what has been sent out of the credit.
    pub(crate) fn spend(&self, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes = state.bytes.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    pub(crate) fn grant(&self, bytes: u32) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes = state.bytes.saturating_add(bytes);
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_sender_without_credit_waits_for_a_grant() {
        let credit = Arc::new(Credit::new());
        credit.spend(WINDOW as usize);
        let (sender, receiver) = mpsc::channel();
        let waiting = Arc::clone(&credit);
        let thread = thread::spawn(move || sender.send(waiting.available()));
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        credit.grant(7);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), Ok(Some(7)));
        assert!(thread.join().is_ok());
    }

    #[test]
    fn closing_releases_a_waiting_sender() {
        let credit = Credit::new();
        credit.spend(WINDOW as usize);
        credit.close();
        assert_eq!(credit.available(), None);
    }
}
