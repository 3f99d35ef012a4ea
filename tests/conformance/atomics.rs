//! Atomic operations of several connections, of both ends, on one word.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use zcmi::{Access, Config, Connection, ExposedBuffer, Grant, RemoteBuffer, RemoteValue};

use crate::common::allocate;
use crate::world::{End, Initiator, Responder, Session, soon};

/// Operations of each connection.
const EACH: u64 = 150;

/// Three connections to the owner's word: two of the other end's, and one of its own.
struct Contest {
    session: Session,
    word: RemoteValue<u64>,
    contestants: Vec<Connection>,
    owned: Option<(ExposedBuffer, Grant)>,
    /// Ends that are not used.
    _others: Vec<Connection>,
}

impl Contest {
    async fn begin(end: &End) -> Self {
        let session = end.connected(Config::default()).await;
        let other = session.another().await;
        let connection = &session.connection;
        match end.role {
            Initiator => {
                let handle = soon(connection.recv()).await.expect("receives");
                let word = RemoteBuffer::from_bytes(&handle).expect("a handle").at(8).expect("inside");
                let contestants = vec![connection.clone(), other];
                Self { session, word, contestants, owned: None, _others: Vec::new() }
            }
            Responder => {
                let exposed = allocate(64).expose();
                let grant = soon(exposed.grant_domain(connection, 0..64, Access::ALL)).await.expect("grants");
                let handle = grant.remote_buffer();
                soon(connection.send(&handle.to_bytes())).await.expect("sends");
                let (client, server) = end.loopback(&session.worker).await;
                let word = handle.at(8).expect("inside");
                let owned = Some((exposed, grant));
                Self { session, word, contestants: vec![client], owned, _others: vec![other, server] }
            }
        }
    }

    /// The word as its owner sees it.
    fn value(&self) -> Option<u64> {
        self.owned.as_ref().map(|(exposed, _)| {
            let mut word = [0; 8];
            exposed.read_at(8, &mut word);
            u64::from_ne_bytes(word)
        })
    }

    async fn end(self, end: &End) {
        end.meet("the end").await;
        self.session.close().await;
    }
}

pub(crate) async fn both_ends_add_and_nothing_is_lost(end: End) {
    let contest = Contest::begin(&end).await;
    end.meet("begin").await;
    let mut old = BTreeSet::new();
    let adding = contest.contestants.iter().map(async |connection| {
        let mut old = Vec::new();
        for _ in 0..EACH / 10 {
            // Ten in flight.
            let added = join_all((0..10).map(|_| connection.fetch_add(&contest.word, 3))).await;
            old.extend(added.into_iter().map(|old| old.expect("adds")));
        }
        old
    });
    for value in soon(join_all(adding)).await.into_iter().flatten() {
        assert!(value % 3 == 0 && old.insert(value), "{value} was there twice");
    }
    end.meet("added").await;
    match end.role {
        Initiator => {
            for value in &old {
                end.tell(&value.to_string());
            }
        }
        Responder => {
            for _ in 0..2 * EACH {
                let value: u64 = end.hear().await.parse().expect("a number");
                assert!(old.insert(value), "{value} was there for both");
            }
            assert!(old.into_iter().eq((0..3 * EACH).map(|count| 3 * count)), "each value was there once");
            assert_eq!(contest.value(), Some(9 * EACH));
        }
    }
    contest.end(&end).await;
}

pub(crate) async fn one_of_many_swaps_wins(end: End) {
    let contest = Contest::begin(&end).await;
    end.meet("begin").await;
    let racing = contest.contestants.iter().map(async |connection| {
        let mut wins = 0;
        for round in 0..EACH {
            let old = connection.compare_swap(&contest.word, round, round + 1).await.expect("compares");
            assert!(old >= round, "round {round} begins before the last has ended");
            wins += u64::from(old == round);
        }
        wins
    });
    let wins: u64 = soon(join_all(racing)).await.into_iter().sum();
    match end.role {
        Initiator => end.tell(&wins.to_string()),
        Responder => {
            let others: u64 = end.hear().await.parse().expect("a number");
            assert_eq!((wins + others, contest.value()), (EACH, Some(EACH)));
        }
    }
    contest.end(&end).await;
}
