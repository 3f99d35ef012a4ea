//! One connection whose peer, device and application are a fuzzer's.
//!
//! The bytes of the fuzzer say what happens: what frames arrive, when the device is done, what the application wants. A [`Model`]
//! sees what goes over the wire and says what must be; whatever differs is a panic.

mod actions;
mod checks;
mod model;
mod peer;
mod queue;

use std::sync::{Arc, OnceLock};

use self::model::{Model, Verdict};
use self::queue::{CHANNEL, Posted, ScriptedQueue};
use super::core::{Core, LinkKey};
use super::link::{CONTROL_SENDS, Link};
use super::set_up::introduction;
use crate::clock::Clock;
use crate::fuzzing::Input;
use crate::memory::Domain;
use crate::memory::fake_domain::FakeDomain;
use crate::protocol::Handshake;
use crate::transport::{Capabilities, Queue};
use crate::{Config, Error, ErrorKind};

/// Longest message that the connection takes: longer ones would only cost time.
const LONGEST: u32 = 8192;
const SESSION: u64 = 7;

/// A connection, what happens to it next, and what must be.
struct Fuzzed {
    core: Core<ScriptedQueue>,
    key: LinkKey,
    model: Model,
    /// What the next poll finds.
    coming: Vec<Coming>,
    claims: Vec<Claim>,
    frame: usize,
    limits: Limits,
    has_windows: bool,
    domain: Arc<dyn Domain>,
    clock: Clock,
}

/// What we have told the peer, and set ourselves.
#[derive(Clone, Copy)]
struct Limits {
    receives: u32,
    window: u64,
    channels: usize,
    ahead: u64,
}

/// What the next poll finds, in this order.
enum Coming {
    Frame(Vec<u8>),
    Notification,
    Completed(queue::Ended),
}

/// A message that a receiver with memory of its own waits for.
struct Claim {
    channel: usize,
    id: u32,
    serial: u64,
    length: u64,
    is_posted: bool,
}

/// Lets a peer send any frames while the application does anything.
pub fn frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut fuzzed = Fuzzed::new(&mut input);
    while !input.is_empty() {
        fuzzed.step(&mut input);
        fuzzed.settle();
        fuzzed.check();
    }
    fuzzed.end();
}

impl Fuzzed {
    fn new(input: &mut Input<'_>) -> Self {
        static DOMAIN: OnceLock<Arc<FakeDomain>> = OnceLock::new();
        static CONFIG: OnceLock<Config> = OnceLock::new();
        let domain: Arc<dyn Domain> = Arc::clone(DOMAIN.get_or_init(|| Arc::new(FakeDomain::without_snapshots()))) as _;
        let mut config = CONFIG.get_or_init(Config::default).clone();
        const WINDOWS: [u32; 6] = [1, 128, 300, 1000, 5000, 1 << 18];
        (config.channel_window, config.max_message_size) = (WINDOWS[input.below(6)], LONGEST);
        (config.max_channels, config.receive_depth) = (input.below(4) as u32 + 1, input.below(7) as u32 + 2);
        config.fetch_ahead = input.below(4) as u32 * 3000;
        config.frame_size = [512, 700, 4096][input.below(3)];
        let choices = input.byte();
        (config.coalesce, config.send_depth) = (choices & 1 == 0, if choices & 2 == 0 { 16 } else { 64 });
        let ours = Handshake { nonce: 1, ..introduction(&config, 3) };
        let theirs = Handshake {
            window: WINDOWS[input.below(6)],
            credits: input.below(7) as u16 + 1,
            frame: [512, 600, 65535][input.below(3)],
            longest: u32::MAX,
            nonce: 2,
            domain: 4,
            ..ours
        };
        let capabilities = Capabilities {
            inline: if choices & 4 == 0 { 0 } else { 220 },
            sends: config.send_depth as usize + CONTROL_SENDS,
            longest: 1 << 30,
            segments: 4,
            reads: usize::from(choices >> 3 & 3) + 1,
        };
        let clock = Clock::of_simulation();
        let frame = usize::from(ours.frame);
        let mut core = Core::new(ScriptedQueue::new(capabilities), Arc::clone(&domain), clock.clone(), frame);
        let share = u32::from(ours.credits);
        core.add_receives(share).expect("receives are posted");
        let mut link = Link::new(&config, ours, Arc::default(), clock.now());
        link.open(&theirs, SESSION, capabilities);
        let key = core.insert(link, CHANNEL, share);
        let model = Model::new(ours, theirs, SESSION, &config);
        let limits = Limits {
            receives: config.receive_depth,
            window: ours.window.into(),
            channels: config.max_channels as usize,
            ahead: config.fetch_ahead.into(),
        };
        let has_windows = choices & 0x20 == 0;
        Self { core, key, model, coming: Vec::new(), claims: Vec::new(), frame, limits, has_windows, domain, clock }
    }

    fn link(&mut self) -> &mut Link {
        self.core.link(self.key).expect("the link is there to the end")
    }

    /// A frame comes with the next poll, if there is a receive for it.
    fn arrive(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.frame)];
        if self.core.queue.arrive(bytes, None) {
            self.coming.push(Coming::Frame(bytes.to_vec()));
        }
    }

    /// Somebody polls.
    fn poll(&mut self) {
        let had_ended = self.model.has_ended;
        self.model.is_unsure = false;
        let mut verdict: Verdict = Ok(());
        for coming in std::mem::take(&mut self.coming) {
            let this = match coming {
                Coming::Frame(bytes) => self.model.arrived(&bytes),
                Coming::Notification => self.model.notified(),
                Coming::Completed(ended) => {
                    if let Some((address, key)) = ended.remote {
                        self.model.ends_use(address, key);
                    }
                    if ended.is_fetch {
                        self.model.fetched(ended.is_success);
                    }
                    if !ended.is_success {
                        self.model.ended();
                    }
                    Ok(())
                }
            };
            if this.is_err() {
                self.model.ended();
            }
            verdict = verdict.and(this);
        }
        self.core.progress().expect("the device never fails to be polled");
        let reason = self.link().ending.get().filter(|error| error.kind() == ErrorKind::Protocol).map(Error::to_string);
        if had_ended {
            return;
        }
        let has_ended = self.link().ending.get().is_some();
        match (verdict, reason) {
            (Err(reason), None) if !has_ended => panic!("a violation does not end the connection: {reason}"),
            (Ok(()), Some(reason)) if !self.model.is_unsure => panic!("what is allowed ends the connection: {reason}"),
            _ => {}
        }
    }

    /// What the engine does when the lock is free, and what was posted is looked at.
    fn settle(&mut self) {
        for grant in std::mem::take(&mut self.core.to_deregister) {
            drop(grant.region);
            self.core.grant_deregistered(grant.link, grant.id);
            grant.state.end(Ok(grant.how)).clear();
        }
        self.core.garbage.clear();
        std::mem::take(&mut self.core.ended).into_iter().for_each(super::core::EndedGrant::tell);
        for posted in std::mem::take(&mut self.core.queue.posted) {
            match posted {
                Posted::Frame(bytes) => self.model.posted(&bytes),
                Posted::OneSided { address, key } => self.model.begins(address, key),
            }
        }
        if self.link().ending.get().is_some() && !self.model.has_ended {
            self.model.ended();
        }
    }

    /// Everything ends, and nothing is left.
    fn end(mut self) {
        self.poll();
        self.settle();
        while let Some(claim) = self.claims.pop() {
            self.core.abandon_claim(self.key, claim.channel, claim.serial);
        }
        self.core.fail(self.key, Error::new(ErrorKind::Closed, "fuzz"));
        self.model.ended();
        let ended = self.core.queue.flush_all();
        self.coming.extend(ended.into_iter().map(Coming::Completed));
        self.poll();
        self.settle();
        assert_eq!(self.link().fetches.outstanding, 0, "reads that never end");
        assert!(!self.core.queue.holds_requests(), "requests after the end");
        let link = self.core.remove(self.key).expect("it was there");
        drop(link);
        self.core.garbage.clear();
        assert!(!self.core.receives.is_short(self.core.queue.receive_room()), "a receive is missing");
    }
}
