//! Reads and writes of lists, in batches, and in what order they are carried out.

use zcmi::{Access, Buffer, Config, Connection, Registered, RemoteBuffer};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, soon};

const LENGTH: usize = 100_000;

/// The responder's memory, for what the initiator does with it, and what the responder then finds there.
async fn with_memory(end: End, act: impl AsyncFnOnce(&Connection, &RemoteBuffer), check: impl FnOnce(&[u8])) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = soon(connection.recv()).await.expect("receives");
            act(connection, &RemoteBuffer::from_bytes(&handle).expect("a handle")).await;
            end.meet("done").await;
        }
        Responder => {
            let exposed = allocate(LENGTH).expose();
            let grant = soon(exposed.grant(connection, 0..LENGTH, Access::ALL)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            end.meet("done").await;
            check(&soon(exposed.into_buffer()).await.expect("comes back"));
        }
    }
    session.close().await;
}

fn filled(seed: u64, length: usize) -> Buffer {
    let mut buffer = allocate(length);
    fill(&mut buffer, seed, 0);
    buffer
}

pub(crate) async fn lists_are_gathered_and_scattered(end: End) {
    let act = async |connection: &Connection, handle: &RemoteBuffer| {
        let lengths = [1, 70_000, 0, 7, LENGTH - 70_008];
        let pieces = lengths.iter().zip(1..).map(|(&length, seed)| filled(seed, length)).collect();
        let pieces: Vec<Buffer> = soon(connection.write(pieces, handle)).await.expect("writes");
        let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        // Cut otherwise, and into memory of another kind.
        let parts = vec![Registered::new(vec![0; 50_000]), Registered::new(vec![0; LENGTH - 50_000])];
        let parts = soon(connection.read(parts, handle)).await.expect("reads");
        assert!([&parts[0][..], &parts[1][..]].concat() == whole);
        let (front, back) = handle.split_at(30_000).expect("inside");
        let back = soon(connection.read(allocate(back.len() as usize), &back)).await;
        assert!(back.expect("reads")[..] == whole[30_000..]);
        // Less than there is, from its start.
        let little = soon(connection.read(allocate(10), &front)).await.expect("reads");
        assert!(little[..] == whole[..10]);
    };
    let check = |memory: &[u8]| {
        assert!(memory[..1] == pattern(1, 0, 1) && memory[1..70_001] == pattern(2, 0, 70_000));
        assert!(memory[70_001..70_008] == pattern(4, 0, 7) && memory[70_008..] == pattern(5, 0, LENGTH - 70_008));
    };
    with_memory(end, act, check).await;
}

pub(crate) async fn batches_and_fences_keep_their_order(end: End) {
    const ROUNDS: u64 = 10;
    let act = async |connection: &Connection, handle: &RemoteBuffer| {
        let counter = handle.at::<u64>(LENGTH as u64 / 8 * 8 - 8).expect("inside");
        let part = handle.slice(0..50_000).expect("inside");
        let mut before = vec![0; 50_000];
        for round in 1..=ROUNDS {
            let mut batch = connection.batch();
            let old = batch.read(allocate(50_000), &part);
            let write = batch.fence().write(filled(round, 50_000), &part);
            let again = batch.read(allocate(50_000), &part);
            let count = batch.fence().fetch_add(&counter, 1);
            batch.post();
            assert!(soon(old).await.expect("reads")[..] == before, "round {round} has overtaken what was before it");
            before = soon(write).await.expect("writes").to_vec();
            assert!(soon(again).await.expect("reads")[..] == before, "round {round} is not there");
            assert_eq!(soon(count).await.expect("adds"), round - 1);
            // Without a batch.
            let old = connection.read(allocate(50_000), &part);
            let write = connection.fenced().write(filled(round + 100, 50_000), &part);
            assert!(soon(old).await.expect("reads")[..] == before);
            before = soon(write).await.expect("writes").to_vec();
            // What nobody waits for is there when a flush has ended.
            drop(connection.write(filled(round + 200, 50_000), &part));
            soon(connection.flush()).await.expect("flushes");
            before.copy_from_slice(&pattern(round + 200, 0, 50_000));
        }
    };
    let check = |memory: &[u8]| assert!(memory[..50_000] == pattern(ROUNDS + 200, 0, 50_000));
    with_memory(end, act, check).await;
}
