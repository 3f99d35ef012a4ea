//! Windows: how many bytes a channel may have sent that the application there has not received.

/// What each message counts for besides its bytes, so that many small ones cannot take much memory.
const OVERHEAD: u64 = 64;

/// What a message of `payload` bytes counts for in a window.
pub(crate) fn cost(payload: usize) -> u64 {
    payload as u64 + OVERHEAD
}

/// Whether a message of this cost may be sent to a window of which so much is used. One that does not fit may while half of it is
/// free: less than half can be owed and not be given back.
fn allows(used: u64, limit: u64, cost: u64) -> bool {
    used + cost <= limit || used * 2 <= limit
}

/// The sender's side of a channel.
#[derive(Debug)]
pub(crate) struct SendWindow {
    used: u64,
    limit: u64,
}

impl SendWindow {
    pub(crate) fn new(limit: u32) -> Self {
        Self { used: 0, limit: limit.into() }
    }

    /// Whether a message of this cost may be sent.
    pub(crate) fn allows(&self, cost: u64) -> bool {
        allows(self.used, self.limit, cost)
    }

    /// What is used of it.
    pub(crate) fn describe(&self) -> (u64, u64) {
        (self.used, self.limit)
    }

    pub(crate) fn spend(&mut self, cost: u64) {
        self.used += cost;
    }

    /// The peer gives back; an error if it gives more than it was sent.
    pub(crate) fn gain(&mut self, bytes: u32) -> Result<(), &'static str> {
        self.used = self.used.checked_sub(bytes.into()).ok_or("more window than was used")?;
        Ok(())
    }
}

/// The receiver's side of a channel.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    limit: u64,
    /// Of messages that the application has not received.
    occupied: u64,
    /// Received, and the peer not yet told.
    owed: u64,
}

impl ReceiveWindow {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: limit.into(), occupied: 0, owed: 0 }
    }

    /// A message came in; an error if the peer had no room for it.
    pub(crate) fn arrive(&mut self, cost: u64) -> Result<(), &'static str> {
        if !allows(self.occupied + self.owed, self.limit, cost) {
            return Err("more bytes than the channel's window");
        }
        self.occupied += cost;
        Ok(())
    }

    /// A message came in that the application receives at once; answers whether the peer had room for it.
    #[inline]
    pub(crate) fn pass(&mut self, cost: u64) -> bool {
        let is_allowed = allows(self.occupied + self.owed, self.limit, cost);
        self.owed += if is_allowed { cost } else { 0 };
        is_allowed
    }

    /// The application has received a message.
    pub(crate) fn release(&mut self, cost: u64) {
        debug_assert!(self.occupied >= cost);
        self.occupied = self.occupied.saturating_sub(cost);
        self.owed += cost;
    }

    /// What is used of it.
    pub(crate) fn describe(&self) -> (u64, u64) {
        (self.occupied, self.limit)
    }

    /// Bytes of messages that the application has not received, for tests.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(crate) fn occupied(&self) -> u64 {
        self.occupied
    }

    /// Whether so much is owed that the peer should be told.
    pub(crate) fn is_due(&self) -> bool {
        self.owed > 0 && self.owed * 2 >= self.limit
    }

    /// What the peer is told now.
    pub(crate) fn give_back(&mut self) -> u32 {
        let bytes = u32::try_from(self.owed).unwrap_or(u32::MAX);
        self.owed -= u64::from(bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cheating_is_noticed() {
        let mut send = SendWindow::new(200);
        assert!(send.gain(1).is_err());
        send.spend(cost(100));
        assert!(!send.allows(cost(0)));
        assert!(send.gain(165).is_err() && send.gain(164).is_ok() && send.allows(cost(5000)));
        let mut receive = ReceiveWindow::new(200);
        assert!(receive.arrive(cost(100)).is_ok());
        assert!(receive.arrive(cost(0)).is_err());
        receive.release(cost(100));
        assert!(receive.arrive(cost(0)).is_err(), "the peer has not been told yet");
        assert!(receive.is_due());
        assert_eq!(receive.give_back(), 164);
        assert!(receive.arrive(cost(0)).is_ok());
    }

    proptest! {
        /// Messages of any size, windows of any size: nothing is taken for cheating and the flow never stops for good.
        #[test]
        fn the_two_sides_agree_and_never_stall(
            limit in 1u32..3000,
            sizes in proptest::collection::vec(0usize..4000, 1..60),
            choices in proptest::collection::vec(0u8..3, 0..300),
        ) {
            let (mut send, mut receive) = (SendWindow::new(limit), ReceiveWindow::new(limit));
            let (mut wire, mut back, mut inbox) = (std::collections::VecDeque::new(), std::collections::VecDeque::new(), std::collections::VecDeque::new());
            let mut waiting: std::collections::VecDeque<u64> = sizes.into_iter().map(cost).collect();
            let drain = (0..1200).map(|turn| (turn % 4) as u8);
            for choice in choices.into_iter().chain(drain) {
                match choice {
                    0 => if let Some(&cost) = waiting.front().filter(|cost| send.allows(**cost)) {
                        send.spend(cost);
                        wire.push_back(cost);
                        waiting.pop_front();
                    },
                    1 => if let Some(cost) = wire.pop_front() {
                        prop_assert_eq!(receive.arrive(cost), Ok(()));
                        inbox.push_back(cost);
                    },
                    2 => if let Some(cost) = inbox.pop_front() {
                        receive.release(cost);
                        if receive.is_due() {
                            back.push_back(receive.give_back());
                        }
                    },
                    _ => if let Some(bytes) = back.pop_front() {
                        prop_assert_eq!(send.gain(bytes), Ok(()));
                    },
                }
            }
            prop_assert!(waiting.is_empty() && wire.is_empty() && inbox.is_empty(), "it stalls: {send:?} {receive:?}");
        }
    }
}
