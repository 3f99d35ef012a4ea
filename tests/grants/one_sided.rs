//! Lists of memory, atomic operations and typed values.

use zcmi::{Access, Buffer, ErrorKind, Registered};

use crate::common::{on_device, pair, pattern, worker};

fn filled(bytes: &[u8]) -> Buffer {
    let mut buffer = crate::common::allocate(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer
}

#[test]
fn lists_are_gathered_and_scattered_in_order() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let exposed = crate::common::allocate(1 << 16).expose();
        let grant = exposed.grant(&server, 0..1 << 16, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let most = client.max_segments();
        assert!(most >= 2, "{most}");
        for lengths in [vec![], vec![0], vec![1], vec![5, 0, 4096, 1], vec![777; most]] {
            let total: usize = lengths.iter().sum();
            let bytes = pattern(3, lengths.len() as u64, total);
            let mut rest = &bytes[..];
            let mut parts = Vec::new();
            for length in &lengths {
                let (part, behind) = rest.split_at(*length);
                parts.push(filled(part));
                rest = behind;
            }
            exposed.write_at(0, &vec![0xee; total + 1]);
            let parts = client.write_vectored(parts, &handle).await.expect("writes");
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), lengths);
            let mut seen = vec![0; total + 1];
            exposed.read_at(0, &mut seen);
            assert_eq!((&seen[..total], seen[total]), (&bytes[..], 0xee), "{lengths:?}");

            let mut parts = parts;
            parts.iter_mut().for_each(|part| part.fill(0x77));
            let parts = client.read_vectored(parts, &handle).await.expect("reads");
            assert_eq!(parts.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>(), bytes, "{lengths:?}");
        }
        let too_many = (0..=most).map(|_| filled(b"x")).collect();
        let failed = client.write_vectored(too_many, &handle).await.expect_err("one too many");
        assert_eq!(failed.error.kind(), ErrorKind::TooLong, "{}", failed.error);
        assert_eq!(failed.buffer.expect("they come back").len(), most + 1);
        let too_long = vec![filled(&vec![0; 1 << 15]), filled(&vec![0; (1 << 15) + 1])];
        let failed = client.write(too_long, &handle).await.expect_err("beyond the handle");
        assert_eq!(failed.error.kind(), ErrorKind::OutOfBounds);
        // Other memory than buffers, and several kinds of lists.
        let registered = vec![Registered::new(b"one ".to_vec()), Registered::new(b"two".to_vec())];
        let registered = client.write(registered, &handle).await.expect("writes");
        assert_eq!(
            registered.into_iter().map(|each| each.into_inner().expect("free")).collect::<Vec<_>>().concat(),
            b"one two"
        );
        let mut seen = [0; 7];
        exposed.read_at(0, &mut seen);
        assert_eq!(&seen, b"one two");
    });
}

#[test]
fn atomics_answer_what_was_there_and_change_it() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(4096).expose();
        exposed.write_at(16, &40u64.to_ne_bytes());
        let grant = exposed.grant(&server, 0..4096, Access::ATOMIC | Access::READ).await.expect("grants");
        let counter = grant.remote_buffer().at::<u64>(16).expect("inside");
        assert_eq!(client.fetch_add(&counter, 2).await.expect("adds"), 40);
        assert_eq!(client.fetch_add(&counter, u64::MAX).await.expect("wraps"), 42);
        assert_eq!(client.compare_swap(&counter, 40, 7).await.expect("is no match"), 41);
        assert_eq!(client.compare_swap(&counter, 41, 7).await.expect("swaps"), 41);
        assert_eq!(client.read_value(&counter).await.expect("reads"), 7);
        let error = client.write_value(&counter, &9).await.expect_err("writing is not granted");
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
        let mut seen = [0; 32];
        exposed.read_at(0, &mut seen);
        assert_eq!(
            (seen[..16].to_vec(), &seen[16..24], &seen[24..]),
            (vec![0; 16], &7u64.to_ne_bytes()[..], &[0; 8][..])
        );
        let plain = exposed.grant(&server, 0..64, Access::READ_WRITE).await.expect("grants");
        let value = plain.remote_buffer().at::<u64>(0).expect("inside");
        let error = client.fetch_add(&value, 1).await.expect_err("atomics are not granted");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::AccessDenied, "fetch and add"));
        client.write_value(&value, &9).await.expect("writes");
        assert_eq!(client.read_value(&value).await.expect("reads"), 9);
    });
}

/// Two connections add to one counter at once: nothing is lost, and each sees every value once.
#[test]
fn atomics_of_several_connections_do_not_lose_each_other() {
    on_device(|address| async move {
        let worker = worker();
        let (first, owner) = pair(&worker, &address).await;
        let (second, other_owner) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(64).expose();
        let grants = [
            exposed.grant(&owner, 0..8, Access::ATOMIC).await.expect("grants"),
            exposed.grant(&other_owner, 0..8, Access::ATOMIC).await.expect("grants"),
        ];
        let add = async |connection: &zcmi::Connection, grant: &zcmi::Grant| {
            let counter = grant.remote_buffer().at::<u64>(0).expect("inside");
            let mut seen = Vec::new();
            for _ in 0..100 {
                seen.push(connection.fetch_add(&counter, 1).await.expect("adds"));
            }
            seen
        };
        let (mut seen, others) = tokio::join!(add(&first, &grants[0]), add(&second, &grants[1]));
        seen.extend(others);
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        // Dropped before it was awaited: it happens all the same.
        drop(first.fetch_add(&grants[0].remote_buffer().at::<u64>(0).expect("inside"), 800));
        let counter = grants[0].remote_buffer().at::<u64>(0).expect("inside");
        assert_eq!(first.fetch_add(&counter, 0).await.expect("adds"), 1000);
    });
}

#[test]
fn a_handle_of_a_domain_is_good_on_every_connection_to_it() {
    on_device(|address| async move {
        let worker = worker();
        let (first, owner) = pair(&worker, &address).await;
        let (second, _other_owner) = pair(&worker, &address).await;
        let exposed = filled(b"for everybody").expose();
        let grant = exposed.grant_domain(&owner, 0..13, Access::READ).await.expect("grants");
        assert_eq!(grant.isolation(), zcmi::Isolation::Domain);
        for connection in [&first, &second] {
            let buffer = crate::common::allocate(13);
            let buffer = connection.read(buffer, &grant.remote_buffer()).await.expect("reads");
            assert_eq!(&buffer[..], b"for everybody");
        }
        assert_eq!(grant.remote_buffer().access(), Access::READ);
        let handle = grant.remote_buffer();
        assert_eq!(grant.revoke().await.expect("revokes"), zcmi::Revocation::Agreed);
        for connection in [&first, &second] {
            let failed = connection.read(crate::common::allocate(13), &handle).await.expect_err("revoked");
            assert_eq!(failed.error.kind(), ErrorKind::Revoked);
            connection.send(b"lives").await.expect("sends");
        }
        exposed.into_buffer().await.expect("comes back");
    });
}
