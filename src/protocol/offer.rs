//! What a listener of `auto://` offers: which ways lead to it.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The answer to who asks at the TCP port. TCP itself is at that port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The boot id of the listener's host, which no other host has, nor the same one after its next boot.
    pub(crate) boot: [u8; 16],
    /// What follows `shm://` where processes of that host meet it.
    pub(crate) shm: Option<String>,
    /// The port of rdma_cm, at the address that was asked.
    pub(crate) verbs: Option<u16>,
}

/// Little endian. The name follows.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    boot: [u8; 16],
    /// 0 for none.
    verbs: U16,
    /// Bytes of the name; 0 for none.
    shm: U16,
}

impl Offer {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let name = self.shm.as_deref().unwrap_or_default();
        let (verbs, shm) = (self.verbs.unwrap_or_default().into(), (name.len() as u16).into());
        [Wire { boot: self.boot, verbs, shm }.as_bytes(), name.as_bytes()].concat()
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (wire, name) = Wire::read_from_prefix(bytes).map_err(|_| "an offer shorter than its head")?;
        if name.len() != usize::from(wire.shm.get()) {
            return Err("an offer of another length than it says");
        }
        let name = std::str::from_utf8(name).map_err(|_| "an offer whose name is no text")?;
        let shm = (!name.is_empty()).then(|| name.to_owned());
        let verbs = Some(wire.verbs.get()).filter(|port| *port != 0);
        Ok(Self { boot: wire.boot, shm, verbs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_understood() {
        let boot = std::array::from_fn(|at| at as u8);
        for shm in [None, Some("0123".to_owned())] {
            for verbs in [None, Some(7471)] {
                let offer = Offer { boot, shm: shm.clone(), verbs };
                assert_eq!(Offer::parse(&offer.to_bytes()), Ok(offer));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let bytes = Offer { boot: [7; 16], shm: Some("name".to_owned()), verbs: None }.to_bytes();
        for (broken, word) in [
            (&bytes[..19], "shorter"),
            (&bytes[..bytes.len() - 1], "length"),
            (&[&bytes[..], b"x"].concat()[..], "length"),
            (&[&bytes[..20], &[0xff; 4]].concat()[..], "no text"),
        ] {
            let reason = Offer::parse(broken).expect_err("it is broken");
            assert!(reason.contains(word), "{reason}");
        }
    }
}
