//! What goes wrong, and when.

/// Something that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// A connect request takes up to seconds.
    ConnectDelayed,
    /// A connect request, or the reply, does not arrive.
    ConnectLost,
    /// A connect request is refused, as if nobody listened.
    ConnectRefused,
    /// A node dies: nothing that it has in flight is done. Its kernel tells its peers.
    Death,
    /// A request, or an answer, takes a hundred times as long.
    DelaySpike,
    /// A channel fails by itself.
    Flush,
    /// A disconnect is not told to the peer.
    LostDisconnect,
    /// As [`SilentDeath`](Self::SilentDeath), and the drivers of its peers ask again for ever.
    MuteDeath,
    /// Requests are not posted, and the device says so.
    PostRefused,
    /// A channel says for a while that it is full, while it has something in flight.
    QueueFull,
    /// A queue pair that breaks takes a receive along, whose memory comes back with the queue.
    ReceiveLost,
    /// There is no memory to register with.
    Registration,
    /// A completion comes much later, and those of other channels before it.
    Reorder,
    /// For a while no receive is found, though some are posted.
    Rnr,
    /// A node dies with its host: nobody tells.
    SilentDeath,
    /// A node's software stops for a while; its device goes on.
    Stop,
    /// There is no window to be had.
    WindowRefused,
    /// The driver does not report what a failed channel had outstanding.
    WithheldFlush,
}

impl Fault {
    pub const ALL: [Self; 18] = [
        Self::ConnectDelayed,
        Self::ConnectLost,
        Self::ConnectRefused,
        Self::Death,
        Self::DelaySpike,
        Self::Flush,
        Self::LostDisconnect,
        Self::MuteDeath,
        Self::PostRefused,
        Self::QueueFull,
        Self::ReceiveLost,
        Self::Registration,
        Self::Reorder,
        Self::Rnr,
        Self::SilentDeath,
        Self::Stop,
        Self::WindowRefused,
        Self::WithheldFlush,
    ];
}

/// Which faults there are to be. An opportunity of a fault is a point at which it can happen: each posted request for
/// [`Fault::PostRefused`], each step for [`Fault::Death`].
#[derive(Clone, Debug)]
pub struct Faults {
    rates: [f64; Fault::ALL.len()],
    /// Opportunities, counted from 1 for each fault, at which it happens for certain.
    at: Vec<(Fault, u64)>,
}

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self { rates: [0.0; Fault::ALL.len()], at: Vec::new() }
    }

    /// `fault` happens at an opportunity with this probability.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: f64) -> Self {
        self.rates[fault as usize] = rate;
        self
    }

    /// `fault` happens at its `opportunity`, counted from 1.
    #[must_use]
    pub fn at(mut self, fault: Fault, opportunity: u64) -> Self {
        self.at.push((fault, opportunity));
        self
    }

    pub(super) fn rate(&self, fault: Fault) -> f64 {
        self.rates[fault as usize]
    }

    /// Whether `fault` can happen at all.
    pub(super) fn may(&self, fault: Fault) -> bool {
        self.rate(fault) > 0.0 || self.at.iter().any(|(known, _)| *known == fault)
    }

    pub(super) fn is_at(&self, fault: Fault, opportunity: u64) -> bool {
        self.at.contains(&(fault, opportunity))
    }
}
