//! Multicast groups: joining them by rdma_cm, and receiving what is sent to them.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use rdma_sys as ffi;

use super::connection_id::check;
use super::sockaddr::RawAddress;
use super::{ConnectionId, Error, Gid, PortSpace, QueuePair, QueuePairKind, Result, fork};

/// How to take part in a multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Membership {
    /// Sending and receiving.
    Full,
    /// Sending only; InfiniBand, where the subnet manager knows it.
    SendOnly,
}

impl ConnectionId {
    /// Starts to join the multicast group `group`, whose port does not count (`rdma_join_multicast_ex(3)`). The
    /// identifier is of port space UDP and bound to a device. Ends with
    /// [`MulticastJoin`](super::ConnectionEventKind::MulticastJoin), whose
    /// [`datagram`](super::ConnectionEvent::datagram) says where to send and what GID to attach the queue pair to, or
    /// [`MulticastError`](super::ConnectionEventKind::MulticastError), after which the group is still to be left.
    ///
    /// # Errors
    /// `EINVAL` without a device, in port space TCP, or if it has joined already; `EOPNOTSUPP` if the fabric knows no
    /// such membership.
    pub fn join_multicast(&self, group: SocketAddr, membership: Membership) -> Result<()> {
        let call = "rdma_join_multicast_ex";
        if self.port_space() != PortSpace::Udp {
            return Err(Error::invalid(call, format!("multicast in port space {:?}", self.port_space())));
        }
        if !group.ip().is_multicast() {
            return Err(Error::invalid(call, format!("{} is no multicast address", group.ip())));
        }
        if self.joined.borrow().iter().any(|joined| **joined == group) {
            return Err(Error::invalid(call, format!("{group} has been joined already")));
        }
        self.require_device(call)?;
        let mut raw = RawAddress::new(group);
        let flag = match membership {
            Membership::Full => 0,
            Membership::SendOnly => 1,
        };
        let mut attributes = ffi::rdma_cm_join_mc_attr_ex {
            // RDMA_CM_JOIN_MC_ATTR_ADDRESS and RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS
            comp_mask: 3,
            join_flags: flag,
            addr: raw.as_mut_ptr().cast(),
        };
        let group = Arc::new(group);
        let context = Arc::as_ptr(&group).cast_mut().cast();
        // SAFETY: the identifier exists and has a device, attributes and address are valid for the call. The context
        // lives until the group has been left.
        let answer = unsafe { ffi::rdma_join_multicast_ex(self.raw(), &mut attributes, context) };
        check(call, answer)?;
        self.joined.borrow_mut().push(group);
        Ok(())
    }

    /// Leaves a group as it was joined (`rdma_leave_multicast(3)`). Waits while another thread reads an event about it.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if it has not been joined.
    pub fn leave_multicast(&self, group: SocketAddr) -> Result<()> {
        let mut joined = self.joined.borrow_mut();
        let Some(index) = joined.iter().position(|joined| **joined == group) else {
            let error = Error::returned("rdma_leave_multicast", libc::EADDRNOTAVAIL);
            return Err(error.with_detail(format!("{group} has not been joined")));
        };
        let left = joined.swap_remove(index);
        self.leave(left)
    }

    /// Leaves every group: librdmacm would not free what it has of them.
    pub(super) fn leave_all(&mut self) {
        for group in std::mem::take(self.joined.get_mut()) {
            if let Err(error) = self.leave(group) {
                fork::destroyed("rdma_leave_multicast", error.errno().unwrap_or(libc::EIO));
            }
        }
    }

    fn leave(&self, group: Arc<SocketAddr>) -> Result<()> {
        let mut raw = RawAddress::new(*group);
        // SAFETY: the identifier exists and the address is valid for the call.
        let answer = unsafe { ffi::rdma_leave_multicast(self.raw(), raw.as_mut_ptr()) };
        let left = check("rdma_leave_multicast", answer);
        if left.is_err() {
            // Events about it may still come.
            std::mem::forget(group);
        }
        left
    }
}

impl QueuePair {
    /// Attaches the queue pair to a group (`ibv_attach_mcast(3)`): it receives what is sent there, if the port has joined
    /// the group, for instance by [`ConnectionId::join_multicast`]. `group` and `lid` are those of the address in its
    /// event. It is detached when it is dropped.
    ///
    /// # Errors
    /// `EINVAL` if the queue pair is not of type UD or `group` is none; `ENOMEM` if the device has no room for more.
    pub fn attach_multicast(&self, group: Gid, lid: u16) -> Result<()> {
        let call = "ibv_attach_mcast";
        if self.kind() != QueuePairKind::Ud {
            return Err(Error::invalid(call, format!("a queue pair of type {:?} receives no multicast", self.kind())));
        }
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let raw = ffi::ibv_gid { raw: group.0 };
        // SAFETY: the queue pair exists and the GID is valid for the call.
        Error::check(call, unsafe { ffi::ibv_attach_mcast(self.raw(), &raw, lid) })?;
        groups.push((group, lid));
        Ok(())
    }

    /// Detaches the queue pair from a group (`ibv_detach_mcast(3)`).
    ///
    /// # Errors
    /// `EINVAL` if it is not attached.
    pub fn detach_multicast(&self, group: Gid, lid: u16) -> Result<()> {
        let call = "ibv_detach_mcast";
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = groups.iter().position(|&attached| attached == (group, lid)) else {
            return Err(Error::invalid(call, format!("the queue pair is not attached to {group}")));
        };
        self.detach(group, lid)?;
        groups.swap_remove(index);
        Ok(())
    }

    /// Detaches the queue pair from all groups: it could not be destroyed otherwise.
    pub(super) fn detach_all(&mut self) {
        let groups = self.groups.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (group, lid) in std::mem::take(groups) {
            // Where it fails, destroying the queue pair fails, too, and says so.
            if let Err(error) = self.detach(group, lid) {
                tracing::debug!(%error, %group, "a queue pair could not be detached");
            }
        }
    }

    fn detach(&self, group: Gid, lid: u16) -> Result<()> {
        let raw = ffi::ibv_gid { raw: group.0 };
        // SAFETY: the queue pair exists and the GID is valid for the call.
        Error::check("ibv_detach_mcast", unsafe { ffi::ibv_detach_mcast(self.raw(), &raw, lid) })
    }
}
