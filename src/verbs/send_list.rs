//! Requests that are posted in one call.

use std::fmt;
use std::marker::PhantomData;

use rdma_sys as ffi;

use super::work_request::send_request;
use super::{Segment, SendFlags, SendOperation};

/// Send requests for [`QueuePair::post_send_list`](super::QueuePair::post_send_list), in order. Its memory is reused from call
/// to call.
///
/// ```
/// use zcmi::verbs::{SendFlags, SendList, SendOperation};
///
/// let mut list = SendList::new();
/// list.push(1, SendOperation::Send, &[], SendFlags::NONE);
/// list.push(2, SendOperation::SendWithImmediate(7), &[], SendFlags::SIGNALED);
/// assert_eq!(list.len(), 2);
/// ```
#[derive(Default)]
pub struct SendList<'a> {
    requests: Vec<ffi::ibv_send_wr>,
    segments: Vec<Segment>,
    /// What destinations borrow.
    borrows: PhantomData<SendOperation<'a>>,
}

// SAFETY: the pointers in `requests` are set by `link` and followed only during the call that it is made for.
unsafe impl Send for SendList<'_> {}
// SAFETY: as above; a shared list is only counted.
unsafe impl Sync for SendList<'_> {}

impl<'a> SendList<'a> {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request.
    pub fn push(&mut self, wr_id: u64, operation: SendOperation<'a>, segments: &[Segment], flags: SendFlags) {
        self.segments.extend_from_slice(segments);
        self.requests.push(send_request(wr_id, operation, std::ptr::null_mut(), segments.len(), flags));
    }

    /// Adds a request of the safe tier, which keeps what the operation borrows.
    pub(super) fn push_kept(
        &mut self,
        wr_id: u64,
        operation: SendOperation<'_>,
        segment: Segment,
        more: &[Segment],
        flags: SendFlags,
    ) {
        self.segments.push(segment);
        self.segments.extend_from_slice(more);
        self.requests.push(send_request(wr_id, operation, std::ptr::null_mut(), 1 + more.len(), flags));
    }

    /// Requests that it holds.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes all requests off.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.segments.clear();
    }

    /// Makes a chain of the requests, good until the list is changed; answers its first.
    pub(super) fn link(&mut self) -> Option<*mut ffi::ibv_send_wr> {
        let mut segment = self.segments.as_mut_ptr();
        let (first, count) = (self.requests.as_mut_ptr(), self.requests.len());
        for (index, request) in self.requests.iter_mut().enumerate() {
            request.sg_list = segment.cast();
            segment = segment.wrapping_add(request.num_sge as usize);
            request.next = if index + 1 < count { first.wrapping_add(index + 1) } else { std::ptr::null_mut() };
        }
        (count > 0).then_some(first)
    }

    /// Takes off what comes before `bad`: all if it points elsewhere, so that nothing is taken for unposted that the
    /// device may hold.
    pub(super) fn take_before(&mut self, bad: *const ffi::ibv_send_wr) -> usize {
        let posted = self.requests.iter().position(|request| std::ptr::eq(request, bad)).unwrap_or(self.requests.len());
        let segments: usize = self.requests.drain(..posted).map(|request| request.num_sge as usize).sum();
        self.segments.drain(..segments);
        posted
    }

    /// Moves the addresses of inline segments by `base`: they were pushed as offsets.
    pub(super) fn place_inline(&mut self, base: u64) {
        let mut next = 0;
        for request in &self.requests {
            let count = request.num_sge as usize;
            if request.send_flags & SendFlags::INLINE.raw() != 0 {
                for segment in &mut self.segments[next..next + count] {
                    segment.address += base;
                }
            }
            next += count;
        }
    }
}

impl fmt::Debug for SendList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendList").field("requests", &self.requests.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: u64) -> Segment {
        Segment { address, length: 1, local_key: 0 }
    }

    #[test]
    fn a_chain_leads_through_all_requests_and_their_segments() {
        let mut list = SendList::new();
        list.push(1, SendOperation::Send, &[segment(10), segment(11)], SendFlags::NONE);
        list.push(2, SendOperation::Send, &[], SendFlags::NONE);
        list.push(3, SendOperation::Send, &[segment(12)], SendFlags::NONE);
        let mut next = list.link().expect("three requests").cast_const();
        let mut seen = Vec::new();
        while !next.is_null() {
            // SAFETY: the chain is of the list, which lives and is not changed.
            let request = unsafe { &*next };
            for index in 0..request.num_sge as usize {
                // SAFETY: the request names that many segments of the list.
                let address = unsafe { (*request.sg_list.wrapping_add(index)).addr };
                seen.push((request.wr_id, address));
            }
            next = request.next;
        }
        assert_eq!(seen, [(1, 10), (1, 11), (3, 12)]);
    }

    #[test]
    fn what_was_posted_is_taken_off_with_its_segments() {
        let mut list = SendList::new();
        list.push(1, SendOperation::Send, &[segment(10), segment(11)], SendFlags::NONE);
        list.push(2, SendOperation::Send, &[segment(12)], SendFlags::NONE);
        let bad = &raw const list.requests[1];
        assert_eq!(list.take_before(bad), 1);
        assert_eq!((list.requests[0].wr_id, &list.segments[..]), (2, &[segment(12)][..]));
        assert_eq!(list.take_before(std::ptr::null()), 1, "a strange answer counts as posted");
        assert!(list.is_empty());
    }

    #[test]
    fn only_inline_segments_are_moved() {
        let mut list = SendList::new();
        list.push(1, SendOperation::Send, &[segment(1)], SendFlags::NONE);
        list.push(2, SendOperation::Send, &[segment(1)], SendFlags::INLINE);
        list.place_inline(100);
        assert_eq!(list.segments, [segment(1), segment(101)]);
    }
}
