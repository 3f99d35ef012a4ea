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
use crate::transport::Courier;
use crate::transport::framed::Socket;

/// Descriptors of one gift.
const MOST_GIVEN: usize = 2;
/// Gifts that wait until they are spoken of.
const MOST_WAITING: usize = 16;
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

    /// Whether bells have been taken off since this was asked last.
    pub(super) fn was_rung(&self) -> bool {
        self.was_rung.load(Ordering::Relaxed) && self.was_rung.swap(false, Ordering::AcqRel)
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
        } else if !gift.is_empty() && came.gifts.len() >= MOST_WAITING {
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
