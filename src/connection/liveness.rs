//! Whether a peer still answers: a ping asks its library, a probe behind it its device.

use std::time::{Duration, Instant};

use super::core::{Core, LinkKey, PROBE, find};
use crate::protocol::HEARTBEAT;
use crate::telemetry::Count;
use crate::transport::{Operation, Queue, Request, Source};
use crate::{Config, Error, ErrorKind};

/// More than this does not count at once: then it was this process that stood still, and what the peer has sent meanwhile is
/// still to be looked at.
const LONGEST_STEP: Duration = Duration::from_millis(500);
/// Bytes a second that every network carries: so long a peer may be silent for what it fetches from here, and a probe be on
/// its way behind our own operations.
const SLOWEST: u64 = 16 << 20;

/// What is known of one peer. Time is counted by looks, so that the data path reads no clock.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    heartbeat: Duration,
    timeout: Duration,
    /// Nothing is asked before the connection is set up at both ends.
    is_begun: bool,
    /// A frame has come since the last look.
    was_heard: bool,
    /// A request has ended well since the last look.
    was_answered: bool,
    /// For how long nothing was heard from the library.
    silence: Duration,
    /// The silence at which it is asked next.
    ask_at: Duration,
    /// How long the last probe has been on its way, or has waited for room.
    probing: Option<Duration>,
    is_probe_posted: bool,
    /// The silence at which the device was known to have a ping of this silence.
    asked_at: Option<Duration>,
    serial: u32,
}

/// What a look at a peer comes to.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// With the ping's number, if it answers pings.
    Ask {
        ping: Option<u32>,
        probe: bool,
    },
    Verdict(ErrorKind),
}

/// What a peer's answer may wait for besides.
#[derive(Clone, Copy, Default)]
struct Burden {
    /// Bytes of operations that are posted here.
    ours: u64,
    /// Bytes that the peer may be fetching from here.
    theirs: u64,
}

impl Liveness {
    pub(super) fn new(config: &Config) -> Self {
        Self { heartbeat: config.heartbeat, timeout: timeout(config), ask_at: config.heartbeat, ..Self::default() }
    }

    /// The connection is set up to the end.
    pub(super) fn begin(&mut self) {
        self.is_begun = true;
        self.was_heard = true;
    }

    /// A frame has come from the peer's library.
    pub(super) fn heard(&mut self) {
        self.was_heard = true;
    }

    /// For how long nothing was heard.
    pub(super) fn silence(&self) -> Duration {
        if self.was_heard { Duration::ZERO } else { self.silence }
    }

    /// A request has ended well.
    pub(super) fn answered(&mut self) {
        self.was_answered = true;
    }

    /// A probe has ended well.
    pub(super) fn probed(&mut self) {
        (self.probing, self.is_probe_posted) = (None, false);
        self.asked_at.get_or_insert(self.silence);
    }

    /// The probe that was due is on its way.
    fn posted(&mut self) {
        self.is_probe_posted = true;
    }

    /// So much time has passed since the last look.
    fn look(&mut self, passed: Duration, answers_pings: bool, burden: impl FnOnce() -> Burden) -> Due {
        if !self.is_begun {
            return Due::Nothing;
        }
        // Who does not answer pings is heard by its device only.
        if std::mem::take(&mut self.was_heard) || (!answers_pings && self.asked_at.is_some()) {
            (self.silence, self.ask_at, self.asked_at) = (Duration::ZERO, self.heartbeat, None);
        } else {
            self.silence = self.silence.saturating_add(passed);
        }
        if self.heartbeat.is_zero() {
            return Due::Nothing;
        }
        if std::mem::take(&mut self.was_answered) {
            self.probing = self.is_probe_posted.then_some(Duration::ZERO);
        } else if let Some(age) = &mut self.probing {
            *age = age.saturating_add(passed);
        }
        if let Some(kind) = self.verdict(burden) {
            return Due::Verdict(kind);
        }
        if self.silence < self.ask_at {
            return Due::Nothing;
        }
        self.ask_at = self.silence.saturating_add(self.heartbeat);
        self.serial = self.serial.wrapping_add(1);
        self.probing.get_or_insert(Duration::ZERO);
        Due::Ask { ping: answers_pings.then_some(self.serial), probe: !self.is_probe_posted }
    }

    fn verdict(&self, burden: impl FnOnce() -> Burden) -> Option<ErrorKind> {
        if self.silence < self.timeout {
            return None;
        }
        let burden = burden();
        if self.silence < self.timeout.saturating_add(time_of(burden.theirs)) {
            return None;
        }
        match (self.probing, self.asked_at) {
            (Some(age), _) if age >= self.heartbeat.saturating_add(time_of(burden.ours)) => {
                Some(ErrorKind::Unreachable)
            }
            (None, Some(at)) if self.silence.saturating_sub(at) >= self.heartbeat => Some(ErrorKind::Unresponsive),
            // The last question has not had its time.
            _ => None,
        }
    }
}

/// After how much silence a peer may be given up.
fn timeout(config: &Config) -> Duration {
    config.peer_timeout.max(config.heartbeat.saturating_mul(2))
}

/// How long a peer that does say something may do nothing of what it is asked. That can wait behind what it sends, so it is more.
pub(super) fn patience(config: &Config) -> Option<Duration> {
    (!config.heartbeat.is_zero()).then(|| timeout(config).saturating_mul(2))
}

fn time_of(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST)
}

impl<Q: Queue> Core<Q> {
    /// Looks after all peers: asks those of whom nothing was heard, and gives up those that do not answer. Nothing is
    /// allocated for those that do.
    pub(super) fn watch_all(&mut self, now: Instant) {
        let passed = self.watched_at.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        for index in 0..self.links.len() {
            let Some((_, link)) = &mut self.links[index] else { continue };
            if link.ending.get().is_some() {
                continue;
            }
            let burden = || Burden { ours: link.fetches.bytes, theirs: link.grants.offered() };
            let answers_pings = link.features() & HEARTBEAT != 0;
            let silence = link.liveness.silence;
            match link.liveness.look(passed.min(LONGEST_STEP), answers_pings, burden) {
                Due::Nothing => {}
                Due::Ask { ping, probe } => {
                    if let Some(key) = self.key_at(index) {
                        self.ask(key, ping, probe);
                    }
                }
                Due::Verdict(kind) => {
                    if let Some(key) = self.key_at(index) {
                        let channel = find(&mut self.links, key).and_then(|link| link.channel);
                        let kind = match channel.and_then(|channel| self.queue.host_answers(channel)) {
                            // No device has answered for the process.
                            Some(true) => ErrorKind::Unresponsive,
                            _ => kind,
                        };
                        self.links[index].iter_mut().for_each(|(_, link)| link.tally.add(Count::HeartbeatTimeouts, 1));
                        let detail = format!("nothing was heard from it for {:.1} s", silence.as_secs_f64());
                        self.fail(key, Error::new(kind, "connection").with_detail(detail));
                    }
                }
            }
        }
    }

    /// Without credits or room nothing is sent, which counts as no answer.
    fn ask(&mut self, key: LinkKey, ping: Option<u32>, probe: bool) {
        let Some(link) = find(&mut self.links, key) else { return };
        if ping.is_some() {
            link.outbox.ping = ping;
            self.post_frames(key, true);
        }
        if probe {
            self.probe(key);
        }
    }

    /// Asks the peer's device, behind all that was posted before.
    fn probe(&mut self, key: LinkKey) {
        let Some(link) = find(&mut self.links, key) else { return };
        let Some(channel) = link.channel.filter(|_| link.ending.get().is_none()) else { return };
        // The last one is for credits.
        if self.queue.room(channel) <= 1 {
            return;
        }
        let signaled = link.signal(true);
        let source = Source::Inline(&[]);
        let request = Request { token: PROBE, operation: Operation::Probe, source, signaled, fence: false };
        let posted = match self.queue.stage(channel, request) {
            Ok(()) => self.queue.flush(),
            Err(refused) => match refused.error {
                Some(error) => Err(error),
                None => return,
            },
        };
        match posted {
            Ok(()) => {
                if let Some(link) = find(&mut self.links, key) {
                    link.liveness.posted();
                }
            }
            Err(error) => {
                // The next poll may say more.
                self.look();
                self.fail(key, error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(25);

    fn liveness() -> Liveness {
        let mut liveness = Liveness::new(&Config::default());
        liveness.begin();
        liveness
    }

    /// Looks until something is due; answers what, and after how long.
    fn wait(liveness: &mut Liveness, burden: Burden) -> (Due, Duration) {
        for looks in 1..100_000u32 {
            match liveness.look(TICK, true, || burden) {
                Due::Nothing => {}
                due => return (due, TICK * looks),
            }
        }
        panic!("nothing is ever due");
    }

    /// Asks until there is a verdict; whether the device answers. Answers also how often it was asked.
    fn judge(liveness: &mut Liveness, burden: Burden, device_answers: bool) -> (ErrorKind, Duration, u32) {
        let (mut time, mut asked) = (Duration::ZERO, 0);
        loop {
            let (due, waited) = wait(liveness, burden);
            time += waited;
            match due {
                Due::Verdict(kind) => return (kind, time, asked),
                Due::Ask { probe, .. } => {
                    asked += 1;
                    if probe {
                        liveness.posted();
                    }
                    if device_answers {
                        liveness.answered();
                        liveness.probed();
                    }
                }
                Due::Nothing => unreachable!(),
            }
        }
    }

    #[test]
    fn who_is_silent_is_asked_and_who_answers_lives() {
        let mut liveness = liveness();
        for serial in 1..100 {
            let (due, waited) = wait(&mut liveness, Burden::default());
            assert_eq!(due, Due::Ask { ping: Some(serial), probe: true });
            assert!((1000..=1050).contains(&waited.as_millis()), "{waited:?}");
            liveness.posted();
            liveness.probed();
            liveness.heard();
        }
    }

    #[test]
    fn a_stopped_process_and_a_dead_device_are_told_apart() {
        let (kind, time, asked) = judge(&mut liveness(), Burden::default(), true);
        assert_eq!((kind, asked), (ErrorKind::Unresponsive, 3));
        assert!((4000..=4100).contains(&time.as_millis()), "{time:?}");
        let (kind, time, _) = judge(&mut liveness(), Burden::default(), false);
        assert_eq!(kind, ErrorKind::Unreachable);
        assert!((4000..=4100).contains(&time.as_millis()), "{time:?}");
    }

    #[test]
    fn a_device_that_dies_later_is_unreachable_too() {
        let mut liveness = liveness();
        assert!(matches!(wait(&mut liveness, Burden::default()).0, Due::Ask { probe: true, .. }));
        liveness.posted();
        liveness.probed();
        let (kind, time, _) = judge(&mut liveness, Burden::default(), false);
        assert_eq!(kind, ErrorKind::Unreachable);
        assert!(time < Duration::from_millis(3100), "{time:?} more");
    }

    #[test]
    fn what_is_on_its_way_is_waited_for() {
        let (kind, time, _) = judge(&mut liveness(), Burden { ours: 0, theirs: 10 * SLOWEST }, true);
        assert_eq!(kind, ErrorKind::Unresponsive);
        assert!((14_000..=14_100).contains(&time.as_millis()), "{time:?}");
        let (kind, time, _) = judge(&mut liveness(), Burden { ours: 10 * SLOWEST, theirs: 0 }, false);
        assert_eq!(kind, ErrorKind::Unreachable);
        assert!((12_000..=12_100).contains(&time.as_millis()), "{time:?}");
        // Requests before the probe that end show that the device is there.
        let mut liveness = liveness();
        assert!(matches!(wait(&mut liveness, Burden::default()).0, Due::Ask { probe: true, .. }));
        liveness.posted();
        for _ in 0..1000 {
            liveness.answered();
            assert!(!matches!(liveness.look(TICK, true, Burden::default), Due::Verdict(_)));
        }
    }

    #[test]
    fn a_probe_without_room_counts_as_unanswered() {
        let mut liveness = liveness();
        let verdict = loop {
            match wait(&mut liveness, Burden::default()).0 {
                Due::Ask { probe, .. } => assert!(probe, "it is tried again"),
                due => break due,
            }
        };
        assert_eq!(verdict, Due::Verdict(ErrorKind::Unreachable));
    }

    #[test]
    fn without_pings_only_the_device_counts() {
        let mut liveness = liveness();
        for look in 0..1000 {
            match liveness.look(TICK, false, Burden::default) {
                Due::Nothing => {}
                Due::Ask { ping: None, probe: true } => {
                    liveness.posted();
                    liveness.probed();
                }
                due => panic!("{due:?} at look {look}"),
            }
        }
    }

    #[test]
    fn nothing_is_asked_before_the_begin_or_without_heartbeat() {
        let mut early = Liveness::new(&Config::default());
        let mut off = Liveness::new(&Config { heartbeat: Duration::ZERO, ..Config::default() });
        off.begin();
        for _ in 0..1000 {
            assert_eq!(early.look(TICK, true, Burden::default), Due::Nothing);
            assert_eq!(off.look(TICK, true, Burden::default), Due::Nothing);
        }
    }
}
