//! Descriptors over the socket of a connection, on which otherwise only doorbells are rung.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::transport::framed::Socket;
use crate::transport::{Courier, MOST_GIFTS};

/// Descriptors of one gift.
const MOST_GIVEN: usize = 2;
/// Doorbells that are taken off the socket at once.
const BELLS: usize = 64;

pub(super) struct ShmCourier {
    socket: Arc<Socket>,
    came: Mutex<Came>,
    /// Bells that were rung may have been taken off by who took a gift.
    was_rung: AtomicBool,
}

#[derive(Default)]
struct Came {
    gifts: VecDeque<Vec<OwnedFd>>,
    /// What is wrong with what has come.
    wrong: Option<&'static str>,
}

impl ShmCourier {
    pub(super) fn new(socket: &Arc<Socket>) -> Arc<Self> {
        let (came, was_rung) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { socket: Arc::clone(socket), came, was_rung })
    }

    /// Takes off the socket what is there; answers whether that is its end.
    pub(super) fn hear(&self) -> bool {
        matches!(self.hear_once(&mut lock(&self.came)), Heard::End)
    }

    /// Whether bells have been taken off since that was asked last.
    pub(super) fn was_rung(&self) -> bool {
        self.is_rung() && self.was_rung.swap(false, Ordering::AcqRel)
    }

    /// The same, which is still to be asked.
    pub(super) fn is_rung(&self) -> bool {
        self.was_rung.load(Ordering::Relaxed)
    }

    fn hear_once(&self, came: &mut Came) -> Heard {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_GIVEN))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let (mut bytes, flags) = ([0; BELLS], RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT);
        let heard = rustix::net::recvmsg(&*self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut along, flags);
        let heard = match heard {
            Ok(heard) if heard.bytes > 0 => heard,
            Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
            Ok(_) | Err(_) => return Heard::End,
        };
        let mut gift = Vec::new();
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                gift.extend(given);
            }
        }
        if heard.flags.contains(ReturnFlags::CTRUNC) || gift.len() > MOST_GIVEN {
            came.wrong = Some("more descriptors at once than there may be");
        } else if !gift.is_empty() && came.gifts.len() >= MOST_GIFTS {
            came.wrong = Some("descriptors that it does not speak of");
        } else if !gift.is_empty() && came.wrong.is_none() {
            came.gifts.push_back(gift);
        }
        Heard::Something
    }
}

enum Heard {
    End,
    Nothing,
    Something,
}

impl Courier for ShmCourier {
    fn give(&self, files: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_GIVEN))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        if !along.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        // One byte, as bells are; it is one.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&*self.socket, &[IoSlice::new(&[0])], &mut along, flags)?;
        Ok(())
    }

    fn take(&self) -> Result<Vec<OwnedFd>, &'static str> {
        let mut came = lock(&self.came);
        loop {
            if let Some(wrong) = came.wrong {
                return Err(wrong);
            }
            if let Some(gift) = came.gifts.pop_front() {
                return Ok(gift);
            }
            match self.hear_once(&mut came) {
                Heard::Something => self.was_rung.store(true, Ordering::Release),
                Heard::End | Heard::Nothing => return Err("pages whose descriptor it has not given"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::super::ShmCarrier;
    use super::super::tests::sockets;
    use super::*;
    use crate::transport::MOST_SEGMENTS;
    use crate::transport::framed::tests::TestCarrier;
    use crate::transport::framed::{Carrier, Interest};

    fn files(count: usize, name: &str) -> Vec<OwnedFd> {
        (0..count).map(|_| memfd_create(name, MemfdFlags::CLOEXEC).expect("a memfd")).collect()
    }

    fn give(courier: &ShmCourier, files: &[OwnedFd]) {
        courier.give(&files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).expect("gives");
    }

    fn open(name: &str) -> usize {
        let files = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
        let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.filter(|to| to.to_string_lossy().contains(name)).count()
    }

    #[test]
    fn gifts_stay_together_and_in_order_whatever_is_rung_between_them() {
        let (one, other) = sockets();
        let (gives, takes) = (ShmCourier::new(&one), ShmCourier::new(&other));
        assert!(takes.take().is_err_and(|reason| reason.contains("has not given")));
        for count in [1, 2, 1] {
            rustix::net::send(&*one, &[0, 0, 0], SendFlags::NOSIGNAL).expect("rings");
            give(&gives, &files(count, "zcmi-in-order"));
        }
        assert!(!takes.was_rung());
        for count in [1, 2, 1] {
            assert_eq!(takes.take().expect("it was given").len(), count);
        }
        assert!(takes.was_rung() && !takes.was_rung());
        assert!(takes.take().is_err());
        one.shut();
        assert!(takes.hear() && takes.take().is_err());
    }

    #[test]
    fn what_is_too_many_is_wrong_and_closed() {
        const NAME: &str = "zcmi-too-many";
        let (one, other) = sockets();
        let takes = ShmCourier::new(&other);
        let many = files(MOST_GIVEN + 1, NAME);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_GIVEN + 1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<_> = many.iter().map(AsFd::as_fd).collect();
        assert!(along.push(SendAncillaryMessage::ScmRights(&borrowed)));
        rustix::net::sendmsg(&*one, &[IoSlice::new(&[0])], &mut along, SendFlags::NOSIGNAL).expect("sends");
        drop(many);
        assert!(takes.take().is_err_and(|reason| reason.contains("at once")));
        assert_eq!(open(NAME), 0);

        let (one, other) = sockets();
        let (gives, takes) = (ShmCourier::new(&one), ShmCourier::new(&other));
        for _ in 0..=MOST_GIFTS {
            give(&gives, &files(1, NAME));
            assert!(!takes.hear());
        }
        assert!(takes.take().is_err_and(|reason| reason.contains("does not speak of")));
        assert_eq!(open(NAME), MOST_GIFTS);
        drop(takes);
        assert_eq!(open(NAME), 0);
    }

    #[test]
    fn all_that_may_be_there_at_once_can_be_given_before_it_is_spoken_of() {
        let (one, other) = sockets();
        let (gives, takes) = (ShmCourier::new(&one), ShmCourier::new(&other));
        for _ in 0..MOST_SEGMENTS {
            give(&gives, &files(1, "zcmi-all"));
            assert!(!takes.hear());
        }
        for number in 0..MOST_SEGMENTS {
            assert!(takes.take().is_ok_and(|gift| gift.len() == 1), "{number}");
        }
        assert!(takes.take().is_err());
    }

    #[test]
    fn who_dozes_again_is_rung_for_again_though_a_bell_was_taken_off_with_a_gift() {
        const READING: Interest = Interest { reading: true, writing: false };
        let (mut peer, socket, mut carrier, gift) = ShmCarrier::ends();
        carrier.attach(gift);
        let (takes, gives) = (carrier.courier().expect("one"), peer.carrier().courier().expect("one"));
        let write = |peer: &mut ShmCarrier| {
            peer.write(&[IoSlice::new(b"bytes")], false).expect("there is room");
            peer.flush();
        };
        assert!(!carrier.doze(READING));
        write(peer.carrier());
        gives.give(&[files(1, "zcmi-bell")[0].as_fd()]).expect("gives");
        // The bell is before it on the socket.
        assert_eq!(takes.take().expect("it was given").len(), 1);
        assert_eq!(carrier.read(&mut [0; 16]).expect("bytes"), 5);
        // A poll looks at the channel though there are no bytes, and so has it doze again.
        assert!(carrier.has_something());
        assert!(!carrier.doze(READING));
        assert!(!carrier.has_something());
        write(peer.carrier());
        let heard = rustix::net::recv(&*socket, &mut [0; 8][..], RecvFlags::DONTWAIT);
        assert!(matches!(heard, Ok((_, 1))), "nobody has rung: {heard:?}");
    }
}
