//! What holds after every step, whatever the peer says: counts within their bounds, and memory within the windows.

use super::{Fuzzed, LONGEST};
use crate::connection::link::NOTIFICATIONS;
use crate::protocol::{CONTROL_RECEIVES, OFFER, cost};

impl Fuzzed {
    pub(super) fn check(&mut self) {
        let (config, has_ended, frame) = (self.limits, self.model.has_ended, self.frame as u64);
        let (declines, is_fetching) = (self.model.declines, self.model.is_fetching());
        let receives = self.core.queue.receives();
        let link = self.link();
        assert!(link.credits.is_sound(), "credits beyond their bounds");
        assert_eq!(receives as u32, link.share, "each receive is posted again at once");
        assert!(link.share <= config.receives + CONTROL_RECEIVES);
        assert!(link.conversations.len() <= config.channels, "more channels than there may be");
        assert!(link.notifications.len() as u32 + link.outbox.notified <= NOTIFICATIONS, "too many notifications");
        assert!(link.fetches.outstanding <= link.fetches.limit, "more reads than the device carries");
        assert!(link.fetches.places() <= link.fetches.limit);
        let (unfinished, due) = link.grants.held.kept();
        assert!(unfinished <= 2 && due <= 4, "{unfinished} requests and {due} answers are kept");
        // A window may be exceeded by one message, if half of it is free.
        let most = config.window.max(config.window / 2 + frame + cost(0));
        let offers = most / cost(OFFER) * link.conversations.len() as u64;
        assert!(link.outbox.taken() as u64 <= offers, "more offers to be given back than windows allow");
        assert!(link.outbox.windows.len() <= link.conversations.len(), "a window is to be told twice");
        for conversation in link.conversations.iter_mut().filter(|_| !has_ended) {
            let (is, counted) = conversation.counts();
            assert_eq!(is, counted, "what waits is not what was counted");
            assert!(is[0] <= most, "{} bytes wait in a window of {}", is[0], config.window);
            assert!(is[1] <= config.ahead + u64::from(LONGEST), "{} bytes are fetched ahead", is[1]);
            assert!(!declines || is_fetching || conversation.is_empty(), "what nobody receives is kept");
        }
    }
}
