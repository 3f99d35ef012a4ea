//! The owner's side: memory of which a part is granted, and the connections that it is granted on.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use zcmi::{Access, Buffer, Config, Connection, ExposedBuffer, Grant, Isolation, Listener, RemoteBuffer, Worker};
use zcmi::{Connector, Revocation};

use crate::case::{Op, Place, Request, Scope, State};
use crate::common::resources::Resources;
use crate::common::{listen, on_device, pattern, still_works};

/// Three pages, of which the middle one has the granted bytes and bytes before and behind them.
pub(crate) const LENGTH: usize = 3 * 4096;
pub(crate) const GRANTED: Range<usize> = 5096..6100;
/// What a live connection can always read.
pub(crate) const LIFE: [u8; 8] = *b"lifeline";
/// Seed of what the memory holds at first.
const SECRET: u64 = 0x005e_c4e7;

/// Runs a test and shows that nothing of the device's is left behind. Windows are not counted by `rdma resource`, but a
/// protection domain that has one cannot go, and that is counted.
pub(crate) fn leaving_nothing<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    if crate::common::device_address().is_none() {
        return;
    }
    // What the process keeps anyway is there after it.
    on_device(|address| async move { still_works(&address).await });
    let baseline = Resources::settled();
    on_device(test);
    Resources::assert_back_at(&baseline);
}

pub(crate) struct Owner {
    pub(crate) listener: Listener,
}

impl Owner {
    pub(crate) async fn new(address: &str, revoke_timeout: Duration) -> Self {
        let worker = Worker::new(Config { revoke_timeout, heartbeat: Duration::ZERO, ..Config::default() })
            .expect("valid settings");
        Self { listener: listen(&worker, address).await }
    }
}

/// An accepted connection. Its peer's first message is a handle to bytes of its own, which shows that it lives.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    // Before its memory, which it would else end itself.
    _grant: Grant,
    _exposed: ExposedBuffer,
}

impl Link {
    pub(crate) async fn accept(listener: &Listener) -> Self {
        let connection = listener.accept().await.expect("accepts");
        let exposed = Buffer::allocate(64).expect("memory").expose();
        exposed.write_at(8, &LIFE);
        let grant = exposed.grant(&connection, 8..16, Access::READ).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        Self { connection, _grant: grant, _exposed: exposed }
    }

    /// Packets that the device has sent, of all connections, once they have come to rest; `None` if it does not count them.
    pub(crate) async fn packets(&self) -> Option<u64> {
        // The kernel reads its counters again after 10 ms (`lifespan` beside them), and acknowledgements are on their way.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let counter = format!("/sys/class/infiniband/{}/ports/1/hw_counters/sent_pkts", self.connection.device());
        std::fs::read_to_string(counter).ok()?.trim().parse().ok()
    }
}

/// The other end of [`Link`].
pub(crate) async fn connect(worker: &Worker, uri: &str) -> (Connection, RemoteBuffer) {
    let connection = Connector::new(worker).connect(uri).await.expect("connects");
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
    (connection, handle)
}

/// Exposed memory, and what it must hold.
pub(crate) struct Memory {
    pub(crate) exposed: ExposedBuffer,
    expected: Vec<u8>,
    next_value: u64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let exposed = Buffer::allocate(LENGTH).expect("memory").expose();
        let expected = pattern(SECRET, 0, LENGTH);
        exposed.write_at(0, &expected);
        Self { exposed, expected, next_value: 0x1_0001 }
    }

    /// An operation that would change or read something at `place`.
    pub(crate) fn request(&mut self, op: Op, place: Place) -> Request {
        let (offset, length) = (place.offset(op), place.length(op));
        self.next_value += 0x0001_0203;
        let start = (GRANTED.start as i64 + offset) as usize;
        let compare = if op == Op::CompareSwap { self.word(start) } else { 0 };
        Request { op, offset, length, value: self.next_value, compare }
    }

    /// Notes that the request was carried out; answers what the holder must have got.
    pub(crate) fn apply(&mut self, request: &Request) -> Vec<u8> {
        let start = (GRANTED.start as i64 + request.offset) as usize;
        let range = start..start + request.length as usize;
        let before = self.expected[range.clone()].to_vec();
        let after = match request.op {
            Op::CompareSwap => request.value.to_ne_bytes().to_vec(),
            Op::FetchAdd => self.word(start).wrapping_add(request.value).to_ne_bytes().to_vec(),
            Op::Read => return before,
            Op::Write => pattern(request.value, 0, range.len()),
        };
        assert_ne!(after, before, "it would not be seen");
        self.expected[range].copy_from_slice(&after);
        if request.op == Op::Write { after } else { before }
    }

    /// Where the memory is not what it must be.
    pub(crate) fn difference(&self) -> Option<String> {
        let mut found = vec![0; LENGTH];
        self.exposed.read_at(0, &mut found);
        if found == self.expected {
            return None;
        }
        let differs = |index: &usize| found[*index] != self.expected[*index];
        let first = (0..LENGTH).find(differs)?;
        let last = (0..LENGTH).rev().find(differs)?;
        Some(format!("bytes {first}..={last} have changed, granted were {GRANTED:?}"))
    }

    /// What it holds is taken as right from here on.
    pub(crate) fn accept_as_it_is(&mut self) {
        self.exposed.read_at(0, &mut self.expected);
    }

    /// Whether any word of `bytes` is one of the memory's.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        let words: HashSet<&[u8]> = self.expected.windows(8).collect();
        bytes.chunks_exact(8).any(|word| words.contains(word))
    }

    fn word(&self, start: usize) -> u64 {
        u64::from_ne_bytes(self.expected[start..start + 8].try_into().expect("eight bytes"))
    }

    /// Grants the bytes and brings the grant to `state`; answers the handle and the grant that lives, if one does.
    /// `revoked` is how revocations must end. An error says that a slot or window is not used again.
    pub(crate) async fn grant(
        &self,
        link: &Link,
        (scope, right, state): (Scope, Access, State),
        revoked: Revocation,
    ) -> Result<(RemoteBuffer, Option<Grant>), String> {
        let connection = &link.connection;
        let grant = || async {
            match scope {
                Scope::Connection => self.exposed.grant(connection, GRANTED, right).await,
                Scope::Domain => self.exposed.grant_domain(connection, GRANTED, right).await,
            }
            .expect("grants")
        };
        if state == State::Expired {
            let lease = Duration::from_millis(5);
            let grant = self.exposed.grant_leased(connection, GRANTED, right, lease).await.expect("grants");
            assert_eq!(grant.ended().await.expect("ends"), revoked);
            assert!(!grant.is_live());
            return Ok((grant.remote_buffer(), None));
        }
        let first = grant().await;
        let handle = first.remote_buffer();
        let isolation = if scope == Scope::Connection { Isolation::Connection } else { Isolation::Domain };
        assert_eq!(first.isolation(), isolation, "rxe has windows, and grants to a domain have none");
        assert_eq!((handle.len(), handle.access()), (GRANTED.len() as u64, right));
        if state == State::Live {
            return Ok((handle, Some(first)));
        }
        assert_eq!(first.revoke().await.expect("revokes"), revoked);
        if state == State::Revoked {
            return Ok((handle, None));
        }
        // Slots are free when their holder has agreed, windows at once; of a domain's grant that is known a little later.
        for _ in 0..20 {
            let next = grant().await;
            let (old, new) = (Name::of(&handle), Name::of(&next.remote_buffer()));
            let is_reused = match (revoked, scope) {
                (Revocation::Agreed, _) => new.slot == old.slot && new.generation > old.generation,
                (_, Scope::Connection) => new.key >> 8 == old.key >> 8,
                // No slot without agreement, and rxe takes the keys of regions in turn.
                (_, Scope::Domain) => true,
            };
            if is_reused {
                assert_ne!(new.key, old.key, "the old key would be good again");
                return Ok((handle, Some(next)));
            }
            next.revoke().await.expect("revokes");
        }
        Err("neither slot nor window is used again".to_owned())
    }
}

/// What the wire layout of a handle says (`src/memory/remote_buffer.rs`).
pub(crate) struct Name {
    pub(crate) key: u32,
    pub(crate) address: u64,
    slot: u32,
    generation: u32,
}

impl Name {
    pub(crate) fn of(handle: &RemoteBuffer) -> Self {
        let wire = handle.to_bytes();
        let number = |at: usize| u32::from_le_bytes(wire[at..at + 4].try_into().expect("four bytes"));
        let address = u64::from_le_bytes(wire[24..32].try_into().expect("eight bytes"));
        Self { key: number(4), address, slot: number(16), generation: number(20) }
    }
}

/// A worker that says nothing by itself: what goes over the wire is counted here.
pub(crate) fn quiet_worker() -> Worker {
    Worker::new(Config { heartbeat: Duration::ZERO, ..Config::default() }).expect("valid settings")
}
