//! Values in messages: whole, refused, and what a hostile one costs.

#![allow(unsafe_code, reason = "a counting allocator; each block carries its proof")]

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use std::collections::BTreeMap;

use allocations::ALLOCATED_BYTES;
use common::{on_device, pair, worker};
use serde::{Deserialize, Serialize};
use zcmi::{Access, Bincode, Buffer, Codec, CodecError, ErrorKind, RemoteBuffer};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Fetch { name: String, into: Vec<RemoteBuffer> },
    Log(BTreeMap<u32, Option<String>>),
    Stop,
}

struct Json;

impl Codec for Json {
    fn encode<T: Serialize + ?Sized>(&self, value: &T, out: impl std::io::Write) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(out, value)?)
    }

    fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// Needs no device.
#[test]
fn a_hostile_length_allocates_next_to_nothing() {
    // A length of 2^40; one that the default limit allows, 60 MiB; and a thousand that are each allowed,
    // which some types are.
    let huge = [&[253u8][..], &(1u64 << 40).to_le_bytes()].concat();
    let large = [&[252u8][..], &(60u32 << 20).to_le_bytes()].concat();
    let many = [&[251u8, 0xe8, 3][..], &[251u8, 0xe8, 3].repeat(1000)].concat();
    let costs = |decode: &dyn Fn(&[u8]) -> bool| {
        [&huge, &large, &many].map(|hostile| {
            let before = ALLOCATED_BYTES.get();
            assert!(!decode(hostile) || hostile == &many, "it is refused");
            ALLOCATED_BYTES.get() - before
        })
    };
    let of = [
        costs(&|bytes| Bincode::default().decode::<Vec<u64>>(bytes).is_ok()),
        costs(&|bytes| Bincode::default().decode::<Vec<[u64; 32]>>(bytes).is_ok()),
        costs(&|bytes| Bincode::default().decode::<Vec<Vec<u64>>>(bytes).is_ok()),
        costs(&|bytes| Bincode::default().decode::<String>(bytes).is_ok()),
        costs(&|bytes| Bincode::default().decode::<Vec<String>>(bytes).is_ok()),
        costs(&|bytes| Bincode::default().decode::<BTreeMap<u64, u64>>(bytes).is_ok()),
        costs(&|bytes| Bincode::default().decode::<RemoteBuffer>(bytes).is_ok()),
    ];
    assert!(of.as_flattened().iter().all(|&bytes| bytes < 1 << 20), "{of:?}");
    // The same without a guard: what it is there for.
    let before = ALLOCATED_BYTES.get();
    let plain = bincode::config::standard().with_limit::<{ 64 << 20 }>();
    assert!(bincode::serde::decode_from_slice::<String, _>(&large, plain).is_err());
    assert!(ALLOCATED_BYTES.get() - before > 32 << 20, "the test would notice");
}

#[test]
fn values_arrive_whole_and_handles_in_them_work() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let (near, far) = (client.channel(3).expect("a channel"), server.channel(3).expect("a channel"));
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ_WRITE).await.expect("grants");
        let (first, second) = grant.remote_buffer().split_at(100).expect("inside");

        far.send_value(&Order::Fetch { name: "rows".to_owned(), into: vec![first, second] }).await.expect("sends");
        let Order::Fetch { name, into } = near.recv_value().await.expect("receives") else { panic!("another order") };
        assert_eq!((name.as_str(), into.len()), ("rows", 2));
        let mut buffer = Buffer::allocate(5).expect("memory");
        buffer.copy_from_slice(b"there");
        client.write(buffer, &into[1].slice(..5).expect("inside")).await.expect("writes");

        // Longer than a message of the old kind, and with another codec.
        let log = Order::Log((0..5000).map(|line| (line, (line % 3 == 0).then(|| format!("line {line}")))).collect());
        let (sent, received) = tokio::join!(near.send_value_with(&Json, &log), far.recv_value_with::<Order>(&Json));
        sent.expect("sends");
        assert_eq!(received.expect("receives"), log);
        near.send_value(&Order::Stop).await.expect("sends");
        assert_eq!(far.recv_value::<Order>().await.expect("receives"), Order::Stop);
        let mut bytes = [0; 5];
        exposed.read_at(100, &mut bytes);
        assert_eq!(&bytes, b"there");
    });
}

#[test]
fn what_is_no_such_value_is_an_error_and_the_connection_lives_on() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let (near, far) = (client.channel(3).expect("a channel"), server.channel(3).expect("a channel"));
        near.send(&[9, 9, 9]).await.expect("sends");
        let error = far.recv_value::<Order>().await.expect_err("no order");
        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
        assert_eq!(error.peer(), Some(server.peer()), "{error}");
        // Too long for the codec.
        near.send_value(&vec![7u8; 2000]).await.expect("sends");
        let error = far.recv_value_with::<Vec<u8>>(&Bincode::default().with_limit(1000)).await.expect_err("too long");
        assert!(error.to_string().contains("2003 bytes; the codec's limit is 1000"), "{error}");
        near.send_value(&Order::Stop).await.expect("sends");
        assert_eq!(far.recv_value::<Order>().await.expect("receives"), Order::Stop);
    });
}

#[test]
fn connections_take_values_too() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        client.send_value(&Order::Stop).await.expect("sends");
        assert_eq!(server.recv_value::<Order>().await.expect("receives"), Order::Stop);
        server.send_value_with(&Json, "text").await.expect("sends");
        assert_eq!(&*client.recv_value_with::<String>(&Json).await.expect("receives"), "text");
        client.send_value(&1u8).await.expect("sends");
        assert_eq!(server.recv_value::<Order>().await.expect_err("no order").kind(), ErrorKind::Decode);
        client.send_value(&Order::Stop).await.expect("sends");
        assert_eq!(server.recv_value::<Order>().await.expect("receives"), Order::Stop);
    });
}
