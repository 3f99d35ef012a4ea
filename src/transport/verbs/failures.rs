//! Channels that have failed without a completion: a refused access of the peer makes none here, since receives are shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device_events::Reports;
use crate::transport::{ChannelKey, Completion, ENDED_BY_DEVICE, Failure, OTHER_END};
use crate::{Error, ErrorKind};

/// How often the state of a channel is asked for of which nothing was heard. Some devices tell a failure by nothing else (rxe
/// before Linux 6.12).
const INTERVAL: Duration = Duration::from_secs(1);
/// The same where the device has shown that it tells them.
const LONG_INTERVAL: Duration = Duration::from_secs(30);
/// States that are asked for at one time, since each can be a command to the device.
const MOST_AT_ONCE: usize = 16;

/// Watches the channels of a queue.
#[derive(Debug)]
pub(super) struct Failures {
    reports: Arc<Reports>,
    /// By number of the channel.
    watched: Vec<Option<Watched>>,
    /// Where the present round is.
    next: usize,
    round_begun: Option<Instant>,
    found: Vec<ChannelKey>,
}

#[derive(Debug)]
struct Watched {
    queue_pair: u32,
    was_heard: bool,
}

impl Failures {
    pub(super) fn new(reports: Arc<Reports>) -> Self {
        Self { reports, watched: Vec::new(), next: 0, round_begun: None, found: Vec::new() }
    }

    /// From now on the queue pair of the channel is expected to work.
    pub(super) fn watch(&mut self, channel: ChannelKey, queue_pair: u32) {
        let index = channel.0 as usize;
        self.watched.resize_with(self.watched.len().max(index + 1), || None);
        self.watched[index] = Some(Watched { queue_pair, was_heard: true });
    }

    /// It is expected no longer.
    pub(super) fn forget(&mut self, channel: ChannelKey) {
        if let Some(watched) = self.watched.get_mut(channel.0 as usize) {
            *watched = None;
        }
        self.found.retain(|found| *found != channel);
    }

    /// Something has succeeded on the channel.
    #[inline]
    pub(super) fn heard(&mut self, channel: ChannelKey) {
        if let Some(Some(watched)) = self.watched.get_mut(channel.0 as usize) {
            watched.was_heard = true;
        }
    }

    /// Looks at channels of which nothing was heard for some time, a few at once.
    pub(super) fn look(&mut self, now: Instant, has_failed: impl Fn(ChannelKey) -> bool) {
        if self.next >= self.watched.len() || self.round_begun.is_none() {
            let interval = if self.reports.have_come() { LONG_INTERVAL } else { INTERVAL };
            if self.round_begun.is_some_and(|begun| now.saturating_duration_since(begun) < interval) {
                return;
            }
            (self.next, self.round_begun) = (0, Some(now));
        }
        let mut asked = 0;
        while self.next < self.watched.len() && asked < MOST_AT_ONCE {
            let channel = ChannelKey(self.next as u32);
            if let Some(watched) = &mut self.watched[self.next]
                && !std::mem::replace(&mut watched.was_heard, false)
            {
                asked += 1;
                if has_failed(channel) {
                    self.add(channel);
                }
            }
            self.next += 1;
        }
    }

    /// Finds those that the device has reported; to be called before a poll.
    #[inline]
    pub(super) fn find(&mut self, has_failed: impl Fn(ChannelKey) -> bool) {
        if self.reports.are_some() {
            self.take_reports(has_failed);
        }
    }

    /// Appends those that were found before the completion queue was emptied, once each: all that came before their failure has
    /// been passed on.
    #[inline]
    pub(super) fn tell(&mut self, done: &mut Vec<Completion>) {
        done.extend(self.found.drain(..).map(broken));
    }

    /// A number may be in use again, so the queue pair that has it now is asked.
    #[cold]
    fn take_reports(&mut self, has_failed: impl Fn(ChannelKey) -> bool) {
        for number in self.reports.take() {
            let is_it = |watched: &Option<Watched>| watched.as_ref().is_some_and(|it| it.queue_pair == number);
            let channel = self.watched.iter().position(is_it).map(|index| ChannelKey(index as u32));
            if let Some(channel) = channel.filter(|channel| has_failed(*channel)) {
                self.add(channel);
            }
        }
    }

    fn add(&mut self, channel: ChannelKey) {
        self.forget(channel);
        self.found.push(channel);
    }
}

fn broken(channel: ChannelKey) -> Completion {
    let error = Error::new(ErrorKind::ConnectionBroken, "connection");
    let result = Err(Failure::Broken(error.with_detail(ENDED_BY_DEVICE).with_hint(OTHER_END)));
    Completion { token: 0, channel, is_receive: true, result, immediate: None, memory: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ChannelKey = ChannelKey(0);
    const B: ChannelKey = ChannelKey(3);

    fn failures() -> (Failures, Arc<Reports>) {
        let reports = Arc::<Reports>::default();
        let mut failures = Failures::new(Arc::clone(&reports));
        failures.watch(A, 70);
        failures.watch(B, 73);
        (failures, reports)
    }

    fn told(failures: &mut Failures, has_failed: impl Fn(ChannelKey) -> bool) -> Vec<ChannelKey> {
        let mut done = Vec::new();
        failures.find(has_failed);
        failures.tell(&mut done);
        assert!(done.iter().all(|done| done.is_receive && done.memory.is_none() && done.result.is_err()));
        done.iter().map(|done| done.channel).collect()
    }

    #[test]
    fn what_the_device_reports_is_told_once_if_it_is_so() {
        let (mut failures, reports) = failures();
        for number in [73, 73, 99] {
            reports.add(number);
        }
        assert_eq!(told(&mut failures, |_| true), [B]);
        assert!(told(&mut failures, |_| true).is_empty());
        reports.add(70);
        assert!(told(&mut failures, |_| false).is_empty(), "the number is another's by now");
    }

    #[test]
    fn a_channel_that_is_silent_for_a_second_is_asked_for() {
        let (mut failures, _reports) = failures();
        let begun = Instant::now();
        // At first they count as heard.
        failures.look(begun, |_| panic!("too early"));
        failures.heard(A);
        failures.look(begun + INTERVAL / 2, |_| panic!("too early"));
        failures.look(begun + INTERVAL, |channel| channel == B);
        assert_eq!(told(&mut failures, |_| panic!("nothing was reported")), [B]);
        failures.look(begun + INTERVAL * 2, |channel| channel == A || panic!("it is forgotten"));
        failures.forget(A);
        assert!(told(&mut failures, |_| true).is_empty(), "it was closed meanwhile");
    }

    #[test]
    fn many_are_asked_for_in_turn() {
        let (mut failures, _reports) = failures();
        for number in 0..40 {
            failures.watch(ChannelKey(number), number);
        }
        let begun = Instant::now();
        failures.look(begun, |_| true);
        let asked = std::cell::RefCell::new(Vec::new());
        for tick in 0..4 {
            failures.look(begun + INTERVAL + Duration::from_millis(25 * tick), |channel| {
                asked.borrow_mut().push(channel.0);
                false
            });
            assert_eq!(asked.borrow().len(), 40.min(MOST_AT_ONCE * (tick as usize + 1)));
        }
        assert_eq!(*asked.borrow(), (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_device_that_tells_is_asked_seldom() {
        let (mut failures, reports) = failures();
        reports.add(99);
        let begun = Instant::now();
        failures.look(begun, |_| panic!("too early"));
        failures.look(begun + INTERVAL, |_| panic!("it tells by itself"));
        failures.look(begun + LONG_INTERVAL, |_| true);
        assert_eq!(told(&mut failures, |_| true), [A, B]);
    }
}
