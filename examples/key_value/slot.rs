//! A slot of the table: how an entry lies in memory that others read while it is written.
//!
//! ```text
//! 0       8       12           14          16            20   24               1016      1024
//! version checksum neighbours  key length  value length  0    key, value, 0s   version
//! ```
//!
//! Numbers are little endian. The version is odd while the slot is being written. A READ is not atomic over a slot, and may
//! fetch its parts in any order: so the version is at both ends, and the checksum is over all the rest and the version.

/// Bytes of a slot.
pub(crate) const SLOT: usize = 1024;
/// Bytes of a key at most; it has one at least.
pub(crate) const LONGEST_KEY: usize = 256;
/// Bytes of a key and its value at most.
pub(crate) const LONGEST_ENTRY: usize = TRAILER - HEADER;
/// Slots from its home on in which a key may be.
pub(crate) const NEIGHBOURHOOD: usize = u16::BITS as usize;

const HEADER: usize = 24;
const TRAILER: usize = SLOT - 8;

/// The image of a slot, as it lies in memory.
pub(crate) type Image = [u8; SLOT];

/// What a slot has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Even; counts how often it was written.
    pub(crate) version: u64,
    /// Bit n: the slot n after this one has a key whose home is this one.
    pub(crate) neighbours: u16,
    /// The key and its value, if there is one.
    pub(crate) entry: Option<(Vec<u8>, Vec<u8>)>,
}

/// The image is of no one moment: it was read while the slot was being written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Torn;

impl Slot {
    /// The image of the slot.
    ///
    /// # Panics
    /// If key and value do not fit; `fits` tells.
    pub(crate) fn to_image(&self) -> Image {
        let mut image = [0; SLOT];
        image[..8].copy_from_slice(&self.version.to_le_bytes());
        image[12..14].copy_from_slice(&self.neighbours.to_le_bytes());
        if let Some((key, value)) = &self.entry {
            assert!(fits(key, value).is_ok(), "it was checked");
            image[14..16].copy_from_slice(&(key.len() as u16).to_le_bytes());
            image[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
            image[HEADER..][..key.len()].copy_from_slice(key);
            image[HEADER + key.len()..][..value.len()].copy_from_slice(value);
        }
        image[TRAILER..].copy_from_slice(&self.version.to_le_bytes());
        let checksum = checksum(&image);
        image[8..12].copy_from_slice(&checksum.to_le_bytes());
        image
    }

    /// Reads an image, which others may have been writing meanwhile.
    ///
    /// # Errors
    /// If it is not the image of one moment.
    ///
    /// # Panics
    /// If it has not the length of a slot.
    pub(crate) fn of_image(image: &[u8]) -> Result<Self, Torn> {
        let version = u64::from_le_bytes(word(image, 0));
        let is_of_one_moment = version.is_multiple_of(2)
            && version == u64::from_le_bytes(word(image, TRAILER))
            && checksum(image) == u32::from_le_bytes(word(image, 8));
        if !is_of_one_moment {
            return Err(Torn);
        }
        let neighbours = u16::from_le_bytes(word(image, 12));
        let key_length = usize::from(u16::from_le_bytes(word(image, 14)));
        let value_length = u32::from_le_bytes(word(image, 16)) as usize;
        if key_length == 0 {
            return Ok(Self { version, neighbours, entry: None });
        }
        // Who wrote it may be hostile.
        let bytes = image[HEADER..TRAILER].get(..key_length.saturating_add(value_length)).ok_or(Torn)?;
        let (key, value) = bytes.split_at(key_length);
        Ok(Self { version, neighbours, entry: Some((key.to_vec(), value.to_vec())) })
    }

    /// The value, if the key is this one.
    pub(crate) fn value_of(&self, key: &[u8]) -> Option<&[u8]> {
        self.entry.as_ref().filter(|(own, _)| own == key).map(|(_, value)| &value[..])
    }
}

/// The steps by which a slot gets a new image: each is an offset and what to write there, and all of it is written before the next
/// begins. Whoever sees some of the bytes sees an odd version, or versions that differ, or a checksum that is wrong.
pub(crate) fn steps(image: &Image) -> [(usize, Vec<u8>); 3] {
    let being_written = u64::from_le_bytes(word(image, 0)).wrapping_sub(1);
    [(0, being_written.to_le_bytes().to_vec()), (8, image[8..].to_vec()), (0, image[..8].to_vec())]
}

/// Whether key and value fit a slot, and why not.
pub(crate) fn fits(key: &[u8], value: &[u8]) -> Result<(), String> {
    if !(1..=LONGEST_KEY).contains(&key.len()) {
        return Err(format!("a key of {} bytes: it must have 1 to {LONGEST_KEY}", key.len()));
    }
    let most = LONGEST_ENTRY - key.len();
    if value.len() > most {
        return Err(format!(
            "a value of {} bytes: beside this key of {} there is room for {most}",
            value.len(),
            key.len()
        ));
    }
    Ok(())
}

/// Where a key's neighbourhood begins, in a table of so many homes. The seed is the server's own, so that nobody can choose keys
/// beforehand that all have one home.
pub(crate) fn home(seed: u64, key: &[u8], homes: u64) -> u64 {
    // FNV-1a, and the last step of splitmix64 so that all bits count.
    let hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) % homes
}

fn checksum(image: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&image[..8]), &image[12..])
}

fn word<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    image[at..at + N].try_into().expect("a slice of that length")
}
