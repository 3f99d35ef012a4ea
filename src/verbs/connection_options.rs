//! Options of an rdma_cm identifier.

use rdma_sys as ffi;

use super::connection_id::check;
use super::{ConnectionId, Error, Result, librdmacm};

// <rdma/rdma_cma.h> has these as anonymous enums.
const LEVEL_ID: i32 = 0;
const TYPE_OF_SERVICE: i32 = 0;
const REUSE_ADDRESS: i32 = 1;
const IPV6_ONLY: i32 = 2;
const ACK_TIMEOUT: i32 = 3;

/// A vendor's extensions of connection establishment (`rdma_set_local_ece(3)`), passed on to the peer as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ece {
    /// Whose extensions they are; 0 is nobody's.
    pub vendor_id: u32,
    /// Which, in the vendor's own terms; 0 without a vendor.
    pub options: u32,
}

impl ConnectionId {
    /// What the next [`connect`](Self::connect) or [`accept`](Self::accept) tells the peer of extensions.
    ///
    /// # Errors
    /// `EINVAL` for options without a vendor, `EOPNOTSUPP` if librdmacm is older than 31.
    pub fn set_ece(&self, ece: Ece) -> Result<()> {
        let mut raw = ffi::ibv_ece { vendor_id: ece.vendor_id, options: ece.options, comp_mask: 0 };
        // SAFETY: the identifier exists and the structure is valid for the call.
        check("rdma_set_local_ece", unsafe { librdmacm::set_local_ece(self.raw(), &mut raw) }?)
    }

    /// What the peer's request or response told of extensions.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if librdmacm is older than 31.
    pub fn peer_ece(&self) -> Result<Ece> {
        let mut raw = ffi::ibv_ece { vendor_id: 0, options: 0, comp_mask: 0 };
        let _quiet = self.channel().lock();
        // SAFETY: the identifier exists, no event is under way to change it, and the structure is writable for the call.
        check("rdma_get_remote_ece", unsafe { librdmacm::get_remote_ece(self.raw(), &mut raw) }?)?;
        Ok(Ece { vendor_id: raw.vendor_id, options: raw.options })
    }

    /// The type of service of the connection's packets (`RDMA_OPTION_ID_TOS`), to be set before the route is resolved;
    /// [`PathRecord::traffic_class`](super::PathRecord::traffic_class) then has it.
    ///
    /// # Errors
    /// As [`set_ack_timeout`](Self::set_ack_timeout), without the limit.
    pub fn set_type_of_service(&self, value: u8) -> Result<()> {
        self.set_option(TYPE_OF_SERVICE, "type of service", value)
    }

    /// Whether the address may be bound while another identifier that allows it, too, has it (`RDMA_OPTION_ID_REUSEADDR`).
    /// A listener is alone at its address nevertheless. To be set before [`bind`](Self::bind).
    ///
    /// # Errors
    /// `EINVAL` when it is too late, `EOPNOTSUPP` if the kernel has no such option.
    pub fn set_reuse_address(&self, allowed: bool) -> Result<()> {
        self.set_option(REUSE_ADDRESS, "reuse of addresses", i32::from(allowed))
    }

    /// Whether listening at all IPv6 addresses leaves IPv4 alone (`RDMA_OPTION_ID_AFONLY`). To be set before
    /// [`listen`](Self::listen).
    ///
    /// # Errors
    /// As [`set_reuse_address`](Self::set_reuse_address).
    pub fn set_ipv6_only(&self, only: bool) -> Result<()> {
        self.set_option(IPV6_ONLY, "one address family only", i32::from(only))
    }

    /// How long the queue pair waits for an acknowledgement: 4.096 µs times 2 to this power; at most 31, and 0 for
    /// ever (`RDMA_OPTION_ID_ACK_TIMEOUT`). To be set before the route is resolved; half of it is then
    /// [`PathRecord::packet_life_time`](super::PathRecord::packet_life_time). [`Tuning`](super::Tuning) has the last word.
    ///
    /// # Errors
    /// `EINVAL` if it is more than 31 or the port space is UDP, `EOPNOTSUPP` if the kernel has no such option, `EIO`
    /// after the device was removed.
    pub fn set_ack_timeout(&self, exponent: u8) -> Result<()> {
        if exponent > 31 {
            let detail = format!("an acknowledgement timeout of {exponent}; the most is 31");
            return Err(Error::invalid("rdma_set_option", detail));
        }
        self.set_option(ACK_TIMEOUT, "acknowledgement timeout", exponent)
    }

    fn set_option<T>(&self, option: i32, name: &'static str, mut value: T) -> Result<()> {
        let pointer = (&raw mut value).cast();
        // SAFETY: the identifier exists; the value is of the size given and read during the call.
        let answer = unsafe { ffi::rdma_set_option(self.raw(), LEVEL_ID, option, pointer, size_of::<T>()) };
        check("rdma_set_option", answer).map_err(|error| match error.errno() {
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => Error::returned("rdma_set_option", libc::EOPNOTSUPP)
                .with_detail(format!("this kernel's rdma_cm does not know the option: {name}")),
            Some(libc::EINVAL) => error.with_detail(format!("it is too late, or the value is not valid, for: {name}")),
            _ => error,
        })
    }
}
