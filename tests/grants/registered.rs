//! Memory of the program's own: used by operations, exposed, on demand.

#![allow(unsafe_code, reason = "forking; each block carries its proof")]

use zcmi::verbs::{Device, MemoryRegion};
use zcmi::{Access, ErrorKind, ExposedDmaBuf, Isolation, Registered, SharedMemory};

use crate::common::resources::Resources;
use crate::common::{on_device, pair, pattern, worker};

#[test]
fn a_vector_is_written_read_and_given_back() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(100_000).expose();
        let grant = exposed.grant(&server, 0..100_000, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let before = Resources::now();
        // Neither begins nor ends at a page.
        let bytes = pattern(1, 2, 99_999);
        let mut source = Registered::new(bytes.clone());
        for _ in 0..3 {
            source = client.write(source, &handle).await.expect("writes");
        }
        let registered = usize::from(crate::common::Transport::of_test().has_device());
        assert_eq!(Resources::now().of("mr"), before.of("mr") + registered, "it is registered once");
        let mut destination = Registered::new(vec![0xee; 99_999].into_boxed_slice());
        destination = client.read(destination, &handle).await.expect("reads");
        assert!(destination[..] == bytes[..]);
        assert!(source.into_inner().expect("free") == bytes);
        assert!(destination.into_inner().expect("free")[..] == bytes[..]);
        assert_eq!(Resources::now().of("mr"), before.of("mr"));
        client.write(Registered::new(Vec::new()), &handle).await.expect("writes nothing");
        client.send(b"lives").await.expect("sends");
    });
}

#[test]
fn a_vector_is_exposed_and_given_back() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = Registered::new(pattern(4, 5, 5000)).expose();
        let grant = exposed.grant(&server, 1001..3003, Access::READ_WRITE).await.expect("grants");
        assert_eq!(grant.isolation(), Isolation::Connection);
        let handle = grant.remote_buffer();
        let buffer = client.read(crate::common::allocate(2002), &handle).await.expect("reads");
        assert!(buffer[..] == pattern(4, 5, 5000)[1001..3003]);
        let mut buffer = crate::common::allocate(2002);
        buffer.fill(0x11);
        client.write(buffer, &handle).await.expect("writes");
        let vector = exposed.into_inner().await.expect("comes back").into_inner().expect("free");
        let mut expected = pattern(4, 5, 5000);
        expected[1001..3003].fill(0x11);
        assert!(vector == expected);
        drop(grant);
    });
}

/// Ordinary memory that is registered and in use while the process forks: parent and child each see their own bytes, the
/// device the parent's, and what the child drops is the parent's.
#[test]
fn a_fork_with_registered_memory_disturbs_nobody() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = Registered::new(vec![1u8; 10_000]).expose();
        let grant = exposed.grant(&server, 0..10_000, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let shared = SharedMemory::from(pattern(1, 1, 10_000));
        client.write(shared.clone(), &handle).await.expect("registers it");
        let mut registered = Registered::new(vec![3u8; 10_000]);
        registered = client.write(registered, &handle).await.expect("registers it");
        // SAFETY: the child touches memory, drops what it has inherited, which takes no lock there, and exits at once.
        match unsafe { libc::fork() } {
            0 => {
                registered.fill(9);
                let is_as_before = shared[..] == pattern(1, 1, 10_000)[..];
                drop((registered, grant, exposed));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if is_as_before { 0 } else { 1 }) }
            }
            child => {
                registered.fill(4);
                registered = client.write(registered, &handle).await.expect("writes");
                let mut seen = vec![0; 10_000];
                exposed.read_at(0, &mut seen);
                assert!(seen.iter().all(|&byte| byte == 4), "the device has other pages than the parent");
                let mut status = -1;
                // SAFETY: waits for the child just made; `status` is writable.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child did not end well");
            }
        }
        registered = client.read(registered, &handle).await.expect("reads");
        assert!(registered.iter().all(|&byte| byte == 4));
        client.write(shared.clone(), &handle).await.expect("writes");
        let mut seen = vec![0; 10_000];
        exposed.read_at(0, &mut seen);
        assert!(seen[..] == shared[..]);
        grant.revoke().await.expect("revokes");
        exposed.into_inner().await.expect("comes back").into_inner().expect("free");
    });
}

/// Kernel 7 has it for rxe, and puts bytes elsewhere; the older ones have it not. Never chosen silently.
#[test]
fn on_demand_paging_is_refused_where_it_is_missing_or_wrong() {
    crate::common::on_rdma(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let device = Device::list().expect("lists").into_iter().find(|device| device.name() == client.device());
        let context = device.expect("ours").open().expect("opens");
        let is_there = MemoryRegion::supports_on_demand(&context);
        let why = if is_there { "ignores where in its page" } else { "no on-demand paging" };
        let exposed = Registered::on_demand(pattern(7, 8, 1 << 20)).expose();
        let error = exposed.grant(&server, 4096..1 << 20, Access::READ_WRITE).await.expect_err("it is not used");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        let (_kept, handle) = handle_of_other_memory(&server).await;
        let failed = client.write(Registered::on_demand(vec![1; 10]), &handle).await.expect_err("it is not used");
        assert_eq!(failed.error.kind(), ErrorKind::Unsupported, "{}", failed.error);
        assert_eq!(failed.buffer.expect("comes back").into_inner().expect("free"), [1; 10]);
        let vector = exposed.into_inner().await.expect("comes back").into_inner().expect("free");
        assert!(vector == pattern(7, 8, 1 << 20));
        client.send(b"lives").await.expect("sends");
    });
}

async fn handle_of_other_memory(server: &zcmi::Connection) -> ((zcmi::ExposedBuffer, zcmi::Grant), zcmi::RemoteBuffer) {
    let exposed = crate::common::allocate(64).expose();
    let grant = exposed.grant(server, 0..64, Access::READ_WRITE).await.expect("grants");
    let handle = grant.remote_buffer();
    ((exposed, grant), handle)
}

#[test]
fn what_is_no_dma_buf_is_refused() {
    on_device(|address| async move {
        let (_client, server) = pair(&worker(), &address).await;
        let file = std::fs::File::open("/dev/zero").expect("a file");
        let exposed = ExposedDmaBuf::new(file.into(), 0, 4096);
        let error = exposed.grant(&server, 0..4096, Access::READ).await.expect_err("it is none");
        let why = if crate::common::Transport::of_test().has_device() { "dma-buf" } else { "use RDMA" };
        assert!(error.to_string().contains(why), "{error}");
        let error = exposed.grant(&server, 0..4097, Access::READ).await.expect_err("beyond its end");
        assert_eq!(error.kind(), ErrorKind::OutOfBounds);
        exposed.into_file().await.expect("comes back");
    });
}
