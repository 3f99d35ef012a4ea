//! The C inline functions without this library, to compare with. Nothing is destroyed: the process ends.

use std::ffi::CStr;
use std::mem::zeroed;
use std::ptr::null_mut;

use rdma_sys as ffi;
use zcmi::verbs::{Endpoint, Gid, LocalEnd, Remote};

use crate::tier::{INLINE, Place, Polled, Sizes, Tier, Work};

/// Marks a receive; a send request's id is the number of requests that it completes.
const RECEIVE: u64 = u64::MAX;
/// Completions taken by one look.
const BATCH: usize = 16;

pub(crate) struct Raw {
    pair: *mut ffi::ibv_qp,
    completions: *mut ffi::ibv_cq,
    entries: [ffi::ibv_wc; BATCH],
    list: Vec<ffi::ibv_send_wr>,
    segment: ffi::ibv_sge,
    exposed: Remote,
    mailbox: *const u8,
    remote: Remote,
    local: LocalEnd,
    gid: Gid,
    reads: u8,
}

impl Raw {
    fn modify(&self, mut attributes: ffi::ibv_qp_attr, mask: ffi::ibv_qp_attr_mask) {
        let mask = mask | ffi::ibv_qp_attr_mask::IBV_QP_STATE;
        // SAFETY: the queue pair exists and the structure is valid for the call.
        assert_eq!(unsafe { ffi::ibv_modify_qp(self.pair, &mut attributes, mask.0 as i32) }, 0);
    }

    /// The request that every post begins with.
    #[inline]
    fn request(&self, work: Work, segment: *mut ffi::ibv_sge, completes: u32) -> ffi::ibv_send_wr {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut request: ffi::ibv_send_wr = unsafe { zeroed() };
        request.wr_id = completes.into();
        request.sg_list = segment;
        request.num_sge = 1;
        request.send_flags = if completes == 0 { 0 } else { ffi::ibv_send_flags::IBV_SEND_SIGNALED.0 };
        request.opcode = match work {
            Work::Read => ffi::ibv_wr_opcode::IBV_WR_RDMA_READ,
            Work::Send => ffi::ibv_wr_opcode::IBV_WR_SEND,
            Work::Write => ffi::ibv_wr_opcode::IBV_WR_RDMA_WRITE,
        };
        if work != Work::Send {
            request.wr.rdma = ffi::rdma_t { remote_addr: self.remote.address, rkey: self.remote.key };
        }
        request
    }

    #[inline]
    fn post_chain(&self, first: *mut ffi::ibv_send_wr) {
        let mut bad = null_mut();
        // SAFETY: the chain lives during the call, and the memory it names for ever.
        assert_eq!(unsafe { ffi::ibv_post_send(self.pair, first, &mut bad) }, 0);
    }
}

/// Allocates and registers memory.
fn register(domain: *mut ffi::ibv_pd, size: usize) -> &'static ffi::ibv_mr {
    let memory = vec![0_u64; size.div_ceil(8)].leak();
    let access = ffi::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE
        | ffi::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE
        | ffi::ibv_access_flags::IBV_ACCESS_REMOTE_READ;
    // SAFETY: the memory is never freed.
    let region = unsafe { ffi::ibv_reg_mr(domain, memory.as_mut_ptr().cast(), size, access.0 as i32) };
    // SAFETY: the region is never deregistered.
    unsafe { region.as_ref() }.expect("registers")
}

fn open(name: &str) -> *mut ffi::ibv_context {
    let mut count = 0;
    // SAFETY: `count` is writable for the call.
    let list = unsafe { ffi::ibv_get_device_list(&mut count) };
    assert!(!list.is_null());
    for index in 0..count as usize {
        // SAFETY: the list has that many entries.
        let device = unsafe { *list.wrapping_add(index) };
        // SAFETY: the device is of the list.
        let found = unsafe { ffi::ibv_get_device_name(device) };
        // SAFETY: a device has a name that ends in zero.
        if unsafe { CStr::from_ptr(found) }.to_str() == Ok(name) {
            // SAFETY: the device is of the list.
            let context = unsafe { ffi::ibv_open_device(device) };
            assert!(!context.is_null());
            return context;
        }
    }
    panic!("{name} is gone");
}

impl Tier for Raw {
    fn create(place: &Place, sizes: Sizes) -> Self {
        let context = open(place.context.name());
        // SAFETY: the context is open.
        let domain = unsafe { ffi::ibv_alloc_pd(context) };
        let entries = (sizes.sends + sizes.receives) as i32;
        // SAFETY: as above.
        let completions = unsafe { ffi::ibv_create_cq(context, entries, null_mut(), null_mut(), 0) };
        assert!(!domain.is_null() && !completions.is_null());
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_init_attr = unsafe { zeroed() };
        attributes.send_cq = completions;
        attributes.recv_cq = completions;
        attributes.qp_type = ffi::ibv_qp_type::IBV_QPT_RC;
        attributes.cap = ffi::ibv_qp_cap {
            max_send_wr: sizes.sends,
            max_recv_wr: sizes.receives,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: INLINE,
        };
        // SAFETY: all that the structure names exists.
        let pair = unsafe { ffi::ibv_create_qp(domain, &mut attributes) };
        assert!(!pair.is_null());
        let (memory, exposed) = (register(domain, sizes.size), register(domain, sizes.size));
        let this = Self {
            pair,
            completions,
            // SAFETY: all-zero bytes are a valid value of this plain C structure.
            entries: [unsafe { zeroed() }; BATCH],
            list: Vec::new(),
            segment: ffi::ibv_sge { addr: memory.addr as u64, length: sizes.size as u32, lkey: memory.lkey },
            exposed: Remote { address: exposed.addr as u64, key: exposed.rkey },
            mailbox: exposed.addr.cast::<u8>().wrapping_add(sizes.size - 1),
            remote: Remote::default(),
            local: place.local,
            gid: place.context.gid(place.local.port, place.local.gid_index).expect("a GID"),
            reads: place.reads,
        };
        use ffi::ibv_qp_attr_mask as mask;
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_attr = unsafe { zeroed() };
        attributes.qp_state = ffi::ibv_qp_state::IBV_QPS_INIT;
        attributes.port_num = place.local.port;
        let access = ffi::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE | ffi::ibv_access_flags::IBV_ACCESS_REMOTE_READ;
        attributes.qp_access_flags = access.0;
        this.modify(attributes, mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS);
        this
    }

    fn endpoint(&self) -> Endpoint {
        // SAFETY: the queue pair exists.
        let queue_pair = unsafe { (*self.pair).qp_num };
        Endpoint { gid: self.gid, lid: 0, queue_pair, psn: self.local.psn }
    }

    fn exposed(&self) -> Remote {
        self.exposed
    }

    fn connect(&mut self, peer: &Endpoint, remote: Remote) {
        use ffi::ibv_qp_attr_mask as mask;
        self.remote = remote;
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_attr = unsafe { zeroed() };
        attributes.qp_state = ffi::ibv_qp_state::IBV_QPS_RTR;
        attributes.path_mtu = self.local.path_mtu.bytes().expect("a size that exists").trailing_zeros() - 7;
        attributes.dest_qp_num = peer.queue_pair;
        attributes.rq_psn = peer.psn.number();
        attributes.max_dest_rd_atomic = self.reads;
        attributes.min_rnr_timer = 12;
        attributes.ah_attr.is_global = 1;
        attributes.ah_attr.port_num = self.local.port;
        attributes.ah_attr.grh.dgid = ffi::ibv_gid { raw: peer.gid.0 };
        attributes.ah_attr.grh.sgid_index = self.local.gid_index as u8;
        attributes.ah_attr.grh.hop_limit = 64;
        let path = mask::IBV_QP_AV | mask::IBV_QP_PATH_MTU | mask::IBV_QP_DEST_QPN | mask::IBV_QP_RQ_PSN;
        self.modify(attributes, path | mask::IBV_QP_MAX_DEST_RD_ATOMIC | mask::IBV_QP_MIN_RNR_TIMER);
        // SAFETY: as above.
        let mut attributes: ffi::ibv_qp_attr = unsafe { zeroed() };
        attributes.qp_state = ffi::ibv_qp_state::IBV_QPS_RTS;
        attributes.sq_psn = self.local.psn.number();
        attributes.max_rd_atomic = self.reads;
        attributes.timeout = 14;
        attributes.retry_cnt = 7;
        attributes.rnr_retry = 7;
        let timers = mask::IBV_QP_TIMEOUT | mask::IBV_QP_RETRY_CNT | mask::IBV_QP_RNR_RETRY;
        self.modify(attributes, timers | mask::IBV_QP_SQ_PSN | mask::IBV_QP_MAX_QP_RD_ATOMIC);
    }

    #[inline]
    fn mailbox(&self) -> u8 {
        // SAFETY: the byte is within leaked memory; it is read as the device may be writing it.
        unsafe { self.mailbox.read_volatile() }
    }

    #[inline]
    fn post_receive(&mut self) {
        let mut request = ffi::ibv_recv_wr { wr_id: RECEIVE, next: null_mut(), sg_list: &mut self.segment, num_sge: 1 };
        let mut bad = null_mut();
        // SAFETY: the request lives during the call, and the memory it names for ever.
        assert_eq!(unsafe { ffi::ibv_post_recv(self.pair, &mut request, &mut bad) }, 0);
    }

    #[inline]
    fn post_inline(&mut self, work: Work, bytes: &[u8], completes: u32) {
        let mut segment = ffi::ibv_sge { addr: bytes.as_ptr() as u64, length: bytes.len() as u32, lkey: 0 };
        let mut request = self.request(work, &mut segment, completes);
        request.send_flags |= ffi::ibv_send_flags::IBV_SEND_INLINE.0;
        self.post_chain(&mut request);
    }

    #[inline]
    fn post(&mut self, work: Work, completes: u32) {
        let mut segment = self.segment;
        let mut request = self.request(work, &mut segment, completes);
        self.post_chain(&mut request);
    }

    #[inline]
    fn post_list(&mut self, work: Work, count: u32) {
        let segment = &raw mut self.segment;
        self.list.clear();
        for index in 1..=count {
            let request = self.request(work, segment, if index == count { count } else { 0 });
            self.list.push(request);
        }
        let mut next = null_mut();
        for request in self.list.iter_mut().rev() {
            request.next = next;
            next = request;
        }
        self.post_chain(next);
    }

    #[inline]
    fn poll(&mut self) -> Polled {
        let mut polled = Polled::default();
        // SAFETY: the queue exists and the array has so many entries.
        let count = unsafe { ffi::ibv_poll_cq(self.completions, BATCH as i32, self.entries.as_mut_ptr()) };
        assert!(count >= 0);
        for entry in &self.entries[..count as usize] {
            assert_eq!(entry.status, ffi::ibv_wc_status::IBV_WC_SUCCESS);
            match entry.wr_id {
                RECEIVE => polled.receives += 1,
                requests => polled.sends += requests as u32,
            }
        }
        polled
    }
}
