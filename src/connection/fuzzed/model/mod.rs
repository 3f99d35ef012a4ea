//! What an observer knows who sees all that goes over the wire: the rules of docs/protocol.md, told once more.

mod arrivals;
mod departures;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::Config;
use crate::protocol::{GrantId, Handshake, MOST_CREDITS, Scope};

/// Keys of the peer's memory that the fuzzer names: from key and address follows the grant.
const KEYS: [(u32, Scope); 2] = [(0x5a5a_0001, Scope::Connection), (0x5a5a_0002, Scope::Domain)];

/// What a message counts for besides its bytes.
const OVERHEAD: i64 = 64;

/// What has to become of something that the peer sends.
pub(super) type Verdict = Result<(), &'static str>;

pub(super) struct Model {
    ours: Handshake,
    theirs: Handshake,
    session: u64,
    most_channels: usize,
    most_receives: u32,
    /// Frames that either side may send.
    theirs_left: i64,
    ours_left: i64,
    pub(super) channels: BTreeMap<u32, Channel>,
    peer_finished: bool,
    pub(super) declines: bool,
    /// Messages that are to be acknowledged: the peer's, and ours.
    acknowledge: u32,
    unacknowledged: u32,
    pong: Option<u32>,
    /// Notifications that nobody has looked at, and those of which the peer was not told that somebody has.
    pub(super) notifications: u32,
    looked_at: u32,
    /// Offers of the peer that are not done with: how many of each name.
    offers: HashMap<GrantId, u32>,
    /// Generations of the peer's slots that are good.
    good_from: HashMap<(Scope, u32), u64>,
    in_use: HashMap<GrantId, u32>,
    /// Grants of the peer that the application has written to.
    written: HashSet<GrantId>,
    /// Requests to let go: the peer's and ours, and what is left of each.
    asked_us: Vec<(u32, Vec<GrantId>)>,
    asked_them: Vec<(u32, Vec<GrantId>)>,
    /// Grants that we have offered.
    offered: Vec<GrantId>,
    /// What has to go out, in this order.
    promised: VecDeque<Vec<u8>>,
    /// Fetches in flight: channel and serial.
    fetches: VecDeque<(u32, u64)>,
    pub(super) has_ended: bool,
    /// The peer has said in this poll that it has taken an offer; whether it is still one, only the link knows.
    pub(super) is_unsure: bool,
    is_violated: bool,
}

#[derive(Default)]
pub(super) struct Channel {
    /// What the peer has used of our window, and what of that the application has taken.
    used: i64,
    taken: i64,
    /// What we have used of the peer's.
    sent: i64,
    peer_ended: bool,
    pub(super) waiting: VecDeque<Waiting>,
    next_serial: u64,
}

/// A message that nobody has received.
pub(super) struct Waiting {
    pub(super) serial: u64,
    pub(super) what: What,
    is_claimed: bool,
    is_here: bool,
    cost: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Message(Vec<u8>),
    Offer { address: u64, length: u64 },
}

impl Model {
    pub(super) fn new(ours: Handshake, theirs: Handshake, session: u64, config: &Config) -> Self {
        Self {
            ours,
            theirs,
            session,
            most_channels: config.max_channels as usize,
            most_receives: config.receive_depth,
            theirs_left: ours.credits.into(),
            ours_left: theirs.credits.into(),
            channels: BTreeMap::from([(0, Channel::default())]),
            peer_finished: false,
            declines: false,
            acknowledge: 0,
            unacknowledged: 0,
            pong: None,
            notifications: 0,
            looked_at: 0,
            offers: HashMap::new(),
            good_from: HashMap::new(),
            in_use: HashMap::new(),
            written: HashSet::new(),
            asked_us: Vec::new(),
            asked_them: Vec::new(),
            offered: Vec::new(),
            promised: VecDeque::new(),
            fetches: VecDeque::new(),
            has_ended: false,
            is_unsure: false,
            is_violated: false,
        }
    }

    /// The application has looked at a notification.
    pub(super) fn looked_at(&mut self) {
        self.notifications -= 1;
        self.looked_at += 1;
    }

    /// The connection has ended: who waits for what is neither here nor being fetched has lost it.
    pub(super) fn ended(&mut self) {
        self.has_ended = true;
        for (id, channel) in &mut self.channels {
            for waiting in &mut channel.waiting {
                waiting.is_claimed &= waiting.is_here || self.fetches.contains(&(*id, waiting.serial));
            }
        }
    }

    /// A channel, which is made if there is none.
    pub(super) fn channel(&mut self, id: u32) -> Result<&mut Channel, &'static str> {
        let is_new = !self.channels.contains_key(&id);
        check(!is_new || self.channels.len() < self.most_channels, "more channels than there may be")?;
        Ok(self.channels.entry(id).or_default())
    }

    /// A message may be sent on a channel.
    pub(super) fn sends(&mut self, id: u32, length: usize, acknowledge: bool, record: Vec<u8>) {
        let window = i64::from(self.theirs.window);
        let channel = self.channels.get_mut(&id).expect("a channel that is there");
        let cost = length as i64 + OVERHEAD;
        assert!(fits(channel.sent, window, cost), "{cost} bytes sent where {} of {window} are used", channel.sent);
        channel.sent += cost;
        self.unacknowledged += u32::from(acknowledge);
        self.promised.push_back(record);
    }

    /// An end is to be sent.
    pub(super) fn ends(&mut self, record: Vec<u8>) {
        self.promised.push_back(record);
    }

    /// The application gets a message: it must be the next that is not somebody else's.
    pub(super) fn takes(&mut self, id: u32, bytes: &[u8]) {
        let channel = self.channels.get_mut(&id).expect("a channel that is there");
        let at = channel.waiting.iter().position(|waiting| !waiting.is_claimed).expect("a message that was sent");
        let waiting = channel.waiting.remove(at).expect("its place");
        channel.taken += waiting.cost;
        waiting.is(bytes);
    }

    /// A receiver who has claimed a message has it.
    pub(super) fn takes_claimed(&mut self, id: u32, serial: u64, bytes: &[u8]) {
        let channel = self.channels.get_mut(&id).expect("a channel that is there");
        let at = channel.waiting.iter().position(|waiting| waiting.serial == serial).expect("a message that was sent");
        let waiting = channel.waiting.remove(at).expect("its place");
        assert!(waiting.is_claimed, "a message of somebody else");
        channel.taken += waiting.cost;
        waiting.is(bytes);
    }

    /// The application writes to a grant of the peer.
    pub(super) fn writes(&mut self, id: GrantId) {
        self.written.insert(id);
    }

    /// A grant is offered to the peer.
    pub(super) fn offers(&mut self, id: GrantId) {
        self.offered.push(id);
    }

    /// The offer of ours that the fuzzer chooses, if there is one.
    pub(super) fn offered(&self, choice: usize) -> Option<GrantId> {
        self.offered.get(choice % self.offered.len().max(1)).copied()
    }

    /// Credits that the peer can give back now.
    pub(super) fn most_credits(&self) -> u16 {
        u16::try_from(i64::from(MOST_CREDITS) - self.ours_left).unwrap_or(0)
    }

    /// Nobody receives any more.
    pub(super) fn declines(&mut self) {
        self.declines = true;
        self.looked_at += std::mem::take(&mut self.notifications);
        for channel in self.channels.values_mut() {
            channel.taken += channel.waiting.drain(..).map(|waiting| waiting.cost).sum::<i64>();
        }
    }

    /// A receiver claims a message, or has gone.
    pub(super) fn claims(&mut self, id: u32, serial: u64, is_claimed: bool) {
        let waiting = self.waiting(id, serial).expect("a message that waits");
        waiting.is_claimed = is_claimed;
        // It is fetched once more for the next.
        waiting.is_here &= is_claimed;
    }

    /// A message that waits.
    pub(super) fn waiting(&mut self, id: u32, serial: u64) -> Option<&mut Waiting> {
        self.channels.get_mut(&id)?.waiting.iter_mut().find(|waiting| waiting.serial == serial)
    }

    /// A receiver is told that nothing more comes: nothing may be lost.
    pub(super) fn is_over(&self, id: u32) {
        let channel = &self.channels[&id];
        assert!(channel.peer_ended || self.peer_finished, "an end that nobody has said");
        let lost = channel.waiting.iter().filter(|waiting| !waiting.is_claimed).count();
        assert_eq!(lost, 0, "messages are lost, and their receiver is told that there were no more");
    }

    /// A fetch is posted.
    pub(super) fn fetches(&mut self, id: u32, serial: u64) {
        self.fetches.push_back((id, serial));
    }

    /// The oldest fetch has ended.
    pub(super) fn fetched(&mut self, is_success: bool) {
        let (id, serial) = self.fetches.pop_front().expect("a fetch");
        if let Some(waiting) = self.waiting(id, serial) {
            waiting.is_here |= is_success;
        }
    }

    pub(super) fn is_fetching(&self) -> bool {
        !self.fetches.is_empty()
    }

    /// Memory of the peer is used from now on.
    pub(super) fn begins(&mut self, address: u64, key: u32) {
        let Some(id) = grant_at(address, key) else { return };
        let good_from = self.good_from.get(&(id.scope, id.slot)).copied().unwrap_or(0);
        assert!(u64::from(id.generation) >= good_from, "{id:?} is used after it was taken back");
        *self.in_use.entry(id).or_default() += 1;
    }

    /// It is no longer.
    pub(super) fn ends_use(&mut self, address: u64, key: u32) {
        let Some(id) = grant_at(address, key) else { return };
        *self.in_use.get_mut(&id).expect("it is in use") -= 1;
    }

    fn is_idle(&self, id: GrantId) -> bool {
        self.in_use.get(&id).is_none_or(|uses| *uses == 0)
    }

    fn no_longer(&mut self, id: GrantId) {
        let good_from = self.good_from.entry((id.scope, id.slot)).or_default();
        *good_from = (*good_from).max(u64::from(id.generation) + 1);
    }

    fn forget_offer(&mut self, id: GrantId) {
        if let Some(offers) = self.offers.get_mut(&id) {
            *offers -= 1;
            if *offers == 0 {
                self.offers.remove(&id);
            }
        }
    }

    /// The request of ours that the fuzzer chooses, if there is one.
    pub(super) fn request(&self, choice: usize) -> Option<&(u32, Vec<GrantId>)> {
        self.asked_them.get(choice % self.asked_them.len().max(1))
    }
}

impl Waiting {
    fn is(&self, bytes: &[u8]) {
        match &self.what {
            What::Message(message) => assert_eq!(message, bytes, "another message than the next"),
            What::Offer { address, length } => {
                assert_eq!(
                    bytes,
                    crate::connection::fuzzed::queue::remote_bytes(*address, *length as usize),
                    "another message than the next"
                );
            }
        }
    }
}

/// Where the peer keeps the memory of `id`.
pub(super) fn place_of(id: GrantId) -> (u64, u32) {
    let key = KEYS.iter().find(|(_, scope)| *scope == id.scope).map_or(0, |(key, _)| *key);
    (u64::from(id.slot) << 32 | u64::from(id.generation), key)
}

fn grant_at(address: u64, key: u32) -> Option<GrantId> {
    let (_, scope) = KEYS.iter().find(|(known, _)| *known == key)?;
    Some(GrantId { scope: *scope, slot: (address >> 32) as u32, generation: address as u32 })
}

/// Serial and grants of the payload of a request or an answer.
fn revocation(payload: &[u8]) -> Result<(u32, Vec<GrantId>), &'static str> {
    let word =
        |at: usize| payload.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")));
    check(payload.len().is_multiple_of(8) && word(4) == Some(0), "a payload of a broken length, or a reserved word")?;
    let serial = word(0).ok_or("a payload without a head")?;
    let id = |at: usize| {
        let (slot, generation) = (word(at)?, word(at + 4)?);
        let scope = if slot >> 31 == 0 { Scope::Connection } else { Scope::Domain };
        Some(GrantId { scope, slot: slot & !(1 << 31), generation })
    };
    Ok((serial, (8..payload.len()).step_by(8).filter_map(id).collect()))
}

fn fits(used: i64, limit: i64, cost: i64) -> bool {
    used + cost <= limit || used * 2 <= limit
}

fn check(is_so: bool, reason: &'static str) -> Verdict {
    if is_so { Ok(()) } else { Err(reason) }
}
