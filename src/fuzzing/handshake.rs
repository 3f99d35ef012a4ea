//! Introductions and refusals.

use crate::protocol::{Handshake, LEAST_FRAME, Refusal};

/// Reads any bytes as what a peer says while it connects. What is accepted says the same when it is written and read again.
pub fn handshake(bytes: &[u8]) {
    let introduction = Handshake::parse(bytes);
    if let Ok((this, private)) = &introduction {
        let again = this.to_bytes(private);
        assert_eq!(again, bytes[..again.len()], "an introduction is not what it was read from");
        assert_eq!(Handshake::parse(&again), Ok((*this, *private)));
        assert!(this.longest > 0 && this.credits > 0 && this.window > 0 && usize::from(this.frame) >= LEAST_FRAME);
        assert_eq!(Handshake::session(this, this), this.nonce ^ this.nonce.rotate_left(32));
    }
    if let Some((refusal, reason)) = Refusal::parse(bytes) {
        assert!(introduction.is_err(), "an introduction that is a refusal too");
        let again = refusal.with_reason(&reason);
        // What was shown in place of what cannot be may be longer, and cut.
        let (same, text) = Refusal::parse(&again).expect("a refusal");
        assert_eq!(same, refusal);
        assert!(reason.starts_with(&text), "{text:?} is not {reason:?}");
        assert_eq!(again[8..16], bytes[8..16], "{refusal:?} is not the reason that was given");
        assert!(!refusal.explanation().is_empty());
    }
}
