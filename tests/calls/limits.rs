//! How much is taken at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zcmi::serve;

use super::{Count, channels, client, soon};
use crate::common::{on_device, worker};

#[test]
fn no_more_handlers_run_than_allowed() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let count = Count::default();
        let counted = count.clone();
        tokio::spawn(serve(far, 3, move |number: u64| {
            let one = counted.one();
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                drop(one);
                Ok::<_, String>(number)
            }
        }));
        let client = client(near);
        let calls: Vec<_> = (0..60u64)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.call::<_, u64>(&number).await })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(soon(call).await.expect("the task succeeds").expect("an answer"), number as u64);
        }
        assert_eq!(count.most(), 3);
    });
}

static DECODED: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Serialize)]
struct Seen;

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer)?;
        DECODED.fetch_add(1, Ordering::SeqCst);
        Ok(Self)
    }
}

#[test]
fn a_client_that_sends_more_than_is_taken_is_held_back_by_the_channel() {
    on_device(|address| async move {
        let settings = zcmi::Config { channel_window: 4000, ..Default::default() };
        let worker = zcmi::Worker::new(settings).expect("valid settings");
        let (near, far, _connections) = channels(&worker, &address).await;
        tokio::spawn(serve(far, 4, |_: Seen| async move {
            std::future::pending::<()>().await;
            Ok::<_, String>(())
        }));
        // 4 are handled and 16 more taken, and one that is one too many; the others stay where they are.
        let window = soon(near.recv()).await.expect("the window");
        assert_eq!(window[..], [6, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut sent = 0;
        for call in 1..=200u8 {
            let request = [1, 0, 0, 0, 0, 0, 0, 0, call, 0, 0, 0, 0, 0, 0, 0];
            if tokio::time::timeout(Duration::from_millis(200), near.send(&request)).await.is_err() {
                break;
            }
            sent += 1;
        }
        assert!((21..200).contains(&sent), "{sent} were sent");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(DECODED.load(Ordering::SeqCst), 21);
    });
}
