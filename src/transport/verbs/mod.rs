//! RDMA verbs behind the seam.

mod channels;
mod device_events;
mod domain;
mod events;
mod failures;
mod link;
mod receives;
mod set_up;
#[cfg(all(test, not(loom)))]
mod tests;
mod windows;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Device, Transport};
use crate::memory::Domain;
use crate::verbs::{self, CompletionQueue, OwningQueue};
use crate::{Error, ErrorKind, Result};

use channels::Channels;
use domain::VerbsDomain;
use link::VerbsLink;
use set_up::{Incoming, Outgoing, VerbsListener};

/// What helps when a queue pair cannot be moved to a state.
const PATH: &str = "the path may not fit the port any more: compare its GIDs and MTU (`zcmi info`) with `ip address` and `ip link`; an address \
                    that is removed takes its GID along";
/// Which part of the completion queue is for receives.
const RECEIVES_SHARE: u32 = 2;

/// Queue pairs of type RC, set up by rdma_cm.
#[derive(Debug)]
pub(crate) struct Verbs;

impl Transport for Verbs {
    type Address = SocketAddr;
    type Queue = Channels;
    type Link = VerbsLink;
    type Outgoing = Outgoing;
    type Incoming = Incoming;
    type Listener = VerbsListener;

    fn open(device: &Device, completions: u32) -> Result<(Arc<dyn Domain>, Channels)> {
        let name = &*device.name;
        let failed = |error| wrap("open device", error).with_device(name);
        let domain = VerbsDomain::of_process(name)?;
        let context = domain.protection_domain().context();
        let attributes = context.attributes().map_err(failed)?;
        let completions =
            CompletionQueue::create(context, completions.min(attributes.max_completions)).map_err(failed)?;
        let receives = (completions.capacity() / RECEIVES_SHARE).min(attributes.max_shared_receives);
        let queue = OwningQueue::with_shared_receives(completions, domain.protection_domain(), receives, 1);
        let channels = Channels::new(Arc::clone(&domain), queue.map_err(failed)?).map_err(failed)?;
        Ok((domain as Arc<dyn Domain>, channels))
    }

    async fn resolve(peer: SocketAddr, deadline: Instant) -> Result<Outgoing> {
        Outgoing::resolve(peer, deadline).await
    }

    fn listen(address: SocketAddr, backlog: u16) -> Result<VerbsListener> {
        VerbsListener::bind(address, backlog)
    }
}

/// A verbs error as the crate's, with the kind that its errno stands for.
fn wrap(operation: &'static str, error: verbs::Error) -> Error {
    if error.is_not_installed() {
        return Error::new(ErrorKind::NotInstalled, operation).with_source(error);
    }
    if matches!(error.call(), "ibv_open_device" | "rdma_create_event_channel")
        && let Some((kind, detail)) = device_files()
    {
        return Error::new(kind, operation).with_detail(detail).with_source(error);
    }
    let kind = match error.errno() {
        Some(libc::ENOMEM | libc::EAGAIN) if error.call() == "ibv_reg_mr" => ErrorKind::MemoryLimit,
        // The memory is mapped so that the device cannot use it as was asked.
        Some(libc::EFAULT) if error.call() == "ibv_reg_mr" => ErrorKind::Unsupported,
        Some(errno) => kind_of(errno),
        None => ErrorKind::Other,
    };
    let hint = matches!(error.call(), "ibv_modify_qp" | "rdma_init_qp_attr").then_some(PATH);
    Error::new(kind, operation).with_hint(hint).with_source(error)
}

/// What is wrong with the device files, if something is. The C libraries try several paths and answer the last
/// one's errno, so that a missing permission looks like a missing file.
fn device_files() -> Option<(ErrorKind, String)> {
    use rustix::fs::{Access, access};
    let folder = "/dev/infiniband";
    let manager = format!("{folder}/rdma_cm");
    if access(&manager, Access::EXISTS).is_err() {
        return Some((ErrorKind::NoDevice, format!("there is no {manager}: the kernel has not loaded rdma_ucm")));
    }
    let files = std::fs::read_dir(folder).ok()?;
    files.flatten().find_map(|file| {
        let name = file.file_name();
        let is_needed = name == "rdma_cm" || name.to_string_lossy().starts_with("uverbs");
        let is_closed = is_needed && access(file.path(), Access::READ_OK | Access::WRITE_OK).is_err();
        is_closed.then(|| {
            let detail = format!("{} may not be opened for reading and writing", file.path().display());
            (ErrorKind::PermissionDenied, detail)
        })
    })
}

fn kind_of(errno: i32) -> ErrorKind {
    match errno {
        libc::ENOSYS => ErrorKind::NotInstalled,
        libc::EACCES | libc::EPERM => ErrorKind::PermissionDenied,
        libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC => ErrorKind::ResourceExhausted,
        libc::ENODEV | libc::ENOENT | libc::ENXIO => ErrorKind::NoDevice,
        libc::EADDRINUSE => ErrorKind::AddressInUse,
        libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT => ErrorKind::AddressInvalid,
        libc::ENETUNREACH | libc::EHOSTUNREACH => ErrorKind::NoRoute,
        libc::ECONNREFUSED => ErrorKind::ConnectionRefused,
        libc::ECONNRESET => ErrorKind::PeerClosed,
        libc::ETIMEDOUT => ErrorKind::TimedOut,
        libc::EOPNOTSUPP => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}
