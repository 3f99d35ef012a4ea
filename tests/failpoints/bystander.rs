//! Another process, and the conversation with it that must not be disturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use zcmi::{Connector, Worker};

use crate::common::{Peer, aside, device_address, listen, patient_worker, pattern, play, say};

/// A round may take so long on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The other process: sends back what comes.
pub(crate) fn echo() {
    play(async {
        let listener = listen(&patient_worker(), &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        while let Ok(message) = connection.recv().await {
            connection.send(&message).await.expect("sends");
        }
    });
}

/// A conversation that goes on until it is ended.
pub(crate) struct Bystander {
    peer: Peer,
    rounds: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    /// The longest round.
    talking: JoinHandle<Duration>,
}

impl Bystander {
    pub(crate) async fn begin(worker: &Worker) -> Self {
        let (peer, uri) = aside(|| {
            let peer = Peer::start("bystander");
            let uri = peer.hear();
            (peer, uri)
        })
        .await;
        let connection = Connector::new(worker).connect(&uri).await.expect("connects");
        let (rounds, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&rounds), Arc::clone(&is_over));
        let talking = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !end.load(Ordering::Relaxed) {
                let round = count.load(Ordering::Relaxed);
                let message = pattern(77, round, 1 + (round * 37 % 3000) as usize);
                let begun = Instant::now();
                connection.send(&message).await.expect("nothing disturbs it");
                let answer = tokio::time::timeout(PATIENCE, connection.recv()).await.expect("nothing holds it up");
                assert!(*answer.expect("nothing disturbs it") == *message, "round {round} has other bytes");
                longest = longest.max(begun.elapsed());
                count.store(round + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            connection.close().await.expect("closes");
            longest
        });
        Self { peer, rounds, is_over, talking }
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Waits until there are two more rounds: one may have been on its way.
    pub(crate) async fn goes_on_from(&self, rounds: u64) {
        while self.rounds() < rounds + 2 {
            assert!(!self.talking.is_finished(), "the conversation with the bystander has ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it; answers the rounds and the longest of them.
    pub(crate) async fn end(self) -> (u64, Duration) {
        let Self { peer, rounds, is_over, talking } = self;
        is_over.store(true, Ordering::Relaxed);
        let longest = talking.await.expect("every byte was right");
        assert!(aside(|| peer.finish()).await.success());
        (rounds.load(Ordering::Relaxed), longest)
    }
}
