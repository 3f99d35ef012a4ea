//! What a listener is asked before it accepts a peer.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::protocol::{REPLY_PRIVATE, Refusal};

/// A peer that asks for a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<'a> {
    peer: &'a str,
    private_data: &'a [u8],
}

impl<'a> ConnectRequest<'a> {
    /// The peer's address.
    pub fn peer(&self) -> &'a str {
        self.peer
    }

    /// What it gave to [`Connector::connect_with`](super::Connector::connect_with). Anybody can send anything.
    pub fn private_data(&self) -> &'a [u8] {
        self.private_data
    }
}

/// What a listener answers to a [`ConnectRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The peer is accepted.
    Accept,
    /// The same; the peer finds up to 150 bytes in [`Connection::private_data`](super::Connection::private_data). With more it is
    /// refused.
    AcceptWith(Vec<u8>),
    /// The peer is refused: it gets [`Rejected`](crate::ErrorKind::Rejected) with this text, of up to 112 bytes.
    Refuse(String),
}

/// Decides about peers.
#[derive(Clone, Default)]
pub(super) struct Filter(Option<Arc<Judge>>);

type Judge = dyn Fn(&ConnectRequest<'_>) -> Answer + Send + Sync;

impl Filter {
    pub(super) fn new(decide: impl Fn(&ConnectRequest<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(decide)))
    }

    /// The private data for the reply, or the refusal and why.
    pub(super) fn decide(&self, peer: &str, private_data: &[u8]) -> Result<Vec<u8>, (Vec<u8>, String)> {
        let Some(decide) = &self.0 else { return Ok(Vec::new()) };
        // The application's code: what panics there must not end the listener.
        let answer = catch_unwind(AssertUnwindSafe(|| decide(&ConnectRequest { peer, private_data })));
        match answer {
            Ok(Answer::Accept) => Ok(Vec::new()),
            Ok(Answer::AcceptWith(data)) if data.len() <= REPLY_PRIVATE => Ok(data),
            Ok(Answer::AcceptWith(data)) => {
                let why =
                    format!("the filter answers {} bytes of private data; a reply carries {REPLY_PRIVATE}", data.len());
                Err((Refusal::Declined.to_bytes(), why))
            }
            Ok(Answer::Refuse(reason)) => Err((Refusal::Declined.with_reason(&reason), reason)),
            Err(_) => Err((Refusal::Declined.to_bytes(), "the filter panicked".to_owned())),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a filter" } else { "no filter" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_told_why_and_no_filter_refuses_nobody() {
        assert_eq!(Filter::default().decide("a", b"x"), Ok(Vec::new()));
        let filter = Filter::new(|request| match request.private_data() {
            b"word" => Answer::AcceptWith(request.peer().as_bytes().to_vec()),
            b"long" => Answer::AcceptWith(vec![0; 151]),
            b"panic" => panic!("in the application"),
            _ => Answer::Refuse("the word is wrong".to_owned()),
        });
        assert_eq!(filter.decide("192.0.2.1:7", b"word"), Ok(b"192.0.2.1:7".to_vec()));
        let refused = |data| filter.decide("a", data).expect_err("refused");
        let (bytes, _) = refused(b"");
        assert_eq!(Refusal::parse(&bytes), Some((Refusal::Declined, "the word is wrong".to_owned())));
        assert!(refused(b"long").1.contains("151 bytes"));
        assert_eq!(refused(b"panic").1, "the filter panicked");
    }
}
