//! Flow control: a frame is sent only when the peer has a receive posted for it.

/// Receives that each side keeps for credit frames, on top of those for others. A side has at most two on the
/// way: each gives back at least half of all credits, and the third needs the peer to have handled the first.
pub(crate) const CONTROL_RECEIVES: u32 = 3;

/// Credits that a side may have, whatever the other gives it.
pub(crate) const MOST_CREDITS: u32 = 1 << 16;

/// The credits of one connection, both directions.
#[derive(Debug)]
pub(crate) struct Credits {
    /// Frames that we may send now.
    available: u32,
    /// Receives that we have posted and not yet told the peer of.
    owed: u32,
    /// All that we grant: receives posted for the peer.
    granted: u32,
    /// Frames that the peer has sent and that still occupy a receive.
    occupied: u32,
}

impl Credits {
    /// `theirs` receives are posted by the peer, `ours` by us.
    pub(crate) fn new(theirs: u32, ours: u32) -> Self {
        Self { available: theirs, owed: 0, granted: ours, occupied: 0 }
    }

    pub(crate) fn available(&self) -> bool {
        self.available > 0
    }

    /// A frame goes out.
    pub(crate) fn spend(&mut self) {
        debug_assert!(self.available > 0);
        self.available = self.available.saturating_sub(1);
    }

    /// The peer gives credits; an error if there are more than anybody has receives.
    pub(crate) fn gain(&mut self, credits: u16) -> Result<(), &'static str> {
        match self.available.checked_add(credits.into()) {
            Some(available) if available <= MOST_CREDITS => {
                self.available = available;
                Ok(())
            }
            _ => Err("more credits than there can be receives"),
        }
    }

    /// A frame came in; an error if the peer had no credit for it.
    pub(crate) fn arrive(&mut self) -> Result<(), &'static str> {
        if self.occupied + self.owed >= self.granted {
            return Err("a frame without a credit");
        }
        self.occupied += 1;
        Ok(())
    }

    /// The receive of a frame is posted again.
    pub(crate) fn release(&mut self) {
        debug_assert!(self.occupied > 0);
        self.occupied = self.occupied.saturating_sub(1);
        self.owed += 1;
    }

    /// Whether a frame may come in that gives so many credits, and is done with at once.
    #[inline]
    pub(crate) fn can_pass(&self, credits: u16) -> bool {
        self.available + u32::from(credits) <= MOST_CREDITS && self.occupied + self.owed < self.granted
    }

    /// It does.
    #[inline]
    pub(crate) fn pass(&mut self, credits: u16) {
        self.available += u32::from(credits);
        self.owed += 1;
    }

    /// So many more receives are posted for the peer.
    pub(crate) fn grow(&mut self, receives: u32) {
        self.granted += receives;
        self.owed += receives;
    }

    /// Receives posted for the peer.
    pub(crate) fn granted(&self) -> u32 {
        self.granted
    }

    /// What we may send, what the peer has, and what of that it is still to be given back.
    pub(crate) fn describe(&self) -> (u32, u32, u32) {
        (self.available, self.granted, self.owed)
    }

    /// Credits to give with the frame that goes out now.
    pub(crate) fn give_back(&mut self) -> u16 {
        let credits = u16::try_from(self.owed).unwrap_or(u16::MAX);
        self.owed -= u32::from(credits);
        credits
    }

    /// Whether the counts are within their bounds, for tests.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(crate) fn is_sound(&self) -> bool {
        self.available <= MOST_CREDITS && self.occupied + self.owed <= self.granted
    }

    /// Whether so many are owed that a frame of its own is worth it.
    pub(crate) fn is_due(&self) -> bool {
        self.owed * 2 >= self.granted && self.owed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cheating_is_noticed() {
        let mut credits = Credits::new(2, 1);
        assert!(credits.gain(u16::MAX).is_err());
        credits.spend();
        assert!(credits.gain(1).is_ok());
        assert!(credits.arrive().is_ok());
        assert!(credits.arrive().is_err());
        credits.release();
        assert!(credits.arrive().is_err(), "the credit has not been given back yet");
        assert_eq!(credits.give_back(), 1);
        assert!(credits.arrive().is_ok());
        credits.grow(1);
        assert!(credits.arrive().is_err(), "the peer does not know of it yet");
        assert_eq!(credits.give_back(), 1);
        assert!(credits.arrive().is_ok());
    }

    proptest! {
        /// Two sides exchange messages over a reliable, ordered link whose frames arrive at any later time. No
        /// receive queue is ever overrun, nothing is taken for cheating, and the flow never stops for good.
        #[test]
        fn two_sides_never_overrun_and_never_stall(
            depths in (1u32..9, 1u32..9),
            choices in proptest::collection::vec((any::<bool>(), 0u8..4), 0..400),
        ) {
            struct Side { credits: Credits, wire: std::collections::VecDeque<(bool, u16)>, inbox: u32, depth: u32 }
            let side = |own, other| Side { credits: Credits::new(other, own), wire: Default::default(), inbox: 0, depth: own };
            let mut sides = [side(depths.0, depths.1), side(depths.1, depths.0)];
            let act = |sides: &mut [Side; 2], me: usize, choice: u8| -> Result<(), TestCaseError> {
                let other = 1 - me;
                match choice {
                    0 if sides[me].credits.available() => {
                        sides[me].credits.spend();
                        let back = sides[me].credits.give_back();
                        sides[me].wire.push_back((true, back));
                        let messages = sides[me].wire.iter().filter(|frame| frame.0).count() as u32;
                        let control = sides[me].wire.len() as u32 - messages;
                        prop_assert!(messages + sides[other].inbox <= sides[other].depth);
                        prop_assert!(control < CONTROL_RECEIVES);
                    }
                    1 => if let Some((is_message, back)) = sides[other].wire.pop_front() {
                        prop_assert!(sides[me].credits.gain(back).is_ok());
                        if is_message {
                            prop_assert!(sides[me].credits.arrive().is_ok());
                            sides[me].inbox += 1;
                        }
                    },
                    3 if sides[me].depth < 20 && sides[me].credits.is_due() => {
                        sides[me].credits.grow(sides[me].depth);
                        sides[me].depth *= 2;
                    }
                    2 if sides[me].inbox > 0 => {
                        sides[me].inbox -= 1;
                        sides[me].credits.release();
                        if sides[me].credits.is_due() {
                            let back = sides[me].credits.give_back();
                            sides[me].wire.push_back((false, back));
                        }
                        let control = sides[me].wire.iter().filter(|frame| !frame.0).count() as u32;
                        prop_assert!(control < CONTROL_RECEIVES);
                    }
                    _ => {}
                }
                Ok(())
            };
            for (second, choice) in choices {
                act(&mut sides, usize::from(second), choice)?;
            }
            // Deliver and consume all: then both may send again.
            for _ in 0..40 {
                for me in [0, 1] {
                    for choice in [1, 2] {
                        act(&mut sides, me, choice)?;
                    }
                }
            }
            prop_assert!(sides[0].credits.available() && sides[1].credits.available());
        }
    }
}
