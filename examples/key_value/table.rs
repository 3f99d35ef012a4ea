//! The server's table: slots in memory that clients read, written by the server alone.
//!
//! Hopscotch hashing: a key is in one of the `NEIGHBOURHOOD` slots that begin with its home, and the home tells in which of
//! them keys of its own are. So who looks for a key reads its home, and seldom more.

use zcmi::{Buffer, ExposedBuffer};

use crate::slot::{NEIGHBOURHOOD, SLOT, Slot, fits, home, steps};

/// How far from its home a free slot is looked for.
const SEARCH: usize = 1024;

/// The table. Whoever has it by `&mut` is its only writer.
pub(crate) struct Table {
    memory: std::sync::Arc<ExposedBuffer>,
    homes: u64,
    seed: u64,
    entries: u64,
}

/// Why an entry was not put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room near the key's home.
    Full(String),
    /// Key or value are too long, or the key is empty.
    TooLong(String),
}

impl Table {
    /// An empty table for about `entries` keys, in exposed memory.
    pub(crate) fn new(entries: u64, seed: u64) -> zcmi::Result<Self> {
        // Four fifths full it takes all but the most unlucky keys.
        let homes = entries + entries / 4 + 1;
        let slots = homes as usize + NEIGHBOURHOOD - 1;
        let mut memory = Buffer::allocate(slots * SLOT)?;
        let empty = Slot::default().to_image();
        memory.chunks_exact_mut(SLOT).for_each(|slot| slot.copy_from_slice(&empty));
        Ok(Self { memory: std::sync::Arc::new(memory.expose()), homes, seed, entries: 0 })
    }

    /// Where the slots are; to be granted for reading only.
    pub(crate) fn memory(&self) -> &std::sync::Arc<ExposedBuffer> {
        &self.memory
    }

    /// Homes there are; there are `NEIGHBOURHOOD - 1` slots more.
    pub(crate) fn homes(&self) -> u64 {
        self.homes
    }

    /// What the hash begins with.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let at = self.find(key)?;
        self.slot(at).value_of(key).map(<[u8]>::to_vec)
    }

    /// Puts the value of a key, in place of the one before it if there is one.
    ///
    /// # Errors
    /// If it does not fit a slot, or there is no room near the key's home.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refused> {
        fits(key, value).map_err(Refused::TooLong)?;
        let entry = Some((key.to_vec(), value.to_vec()));
        if let Some(at) = self.find(key) {
            self.change(at, |slot| slot.entry = entry);
            return Ok(());
        }
        let home = self.home(key);
        let at = self.make_room(home).ok_or_else(|| {
            let (entries, homes) = (self.entries, self.homes);
            Refused::Full(format!("no room near this key's place: {entries} entries in a table with {homes} homes"))
        })?;
        // First the entry, then the sign to it.
        self.change(at, |slot| slot.entry = entry);
        self.change(home, |slot| slot.neighbours |= 1 << (at - home));
        self.entries += 1;
        Ok(())
    }

    /// Removes a key; answers whether it was there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(at) = self.find(key) else { return false };
        let home = self.home(key);
        self.change(at, |slot| slot.entry = None);
        self.change(home, |slot| slot.neighbours &= !(1 << (at - home)));
        self.entries -= 1;
        true
    }

    fn home(&self, key: &[u8]) -> usize {
        home(self.seed, key, self.homes) as usize
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let home = self.home(key);
        neighbours(home, self.slot(home).neighbours).find(|&at| self.slot(at).value_of(key).is_some())
    }

    /// A free slot in the neighbourhood of `home`, for which others move if they must.
    fn make_room(&mut self, home: usize) -> Option<usize> {
        let end = (home + SEARCH).min(self.homes as usize + NEIGHBOURHOOD - 1);
        let mut free = (home..end).find(|&at| self.slot(at).entry.is_none())?;
        while free - home >= NEIGHBOURHOOD {
            free = self.move_to(free)?;
        }
        Some(free)
    }

    /// Moves an entry to the free slot from the farthest place from which it may; answers the place that is free now.
    fn move_to(&mut self, free: usize) -> Option<usize> {
        let homes = free.saturating_sub(NEIGHBOURHOOD - 1)..free;
        let (home, from) = homes.filter(|&home| home < self.homes as usize).find_map(|home| {
            let from = neighbours(home, self.slot(home).neighbours).find(|&at| at < free)?;
            Some((home, from))
        })?;
        let entry = self.slot(from).entry;
        // It is at two places for a while, with one value, and never at none.
        self.change(free, |slot| slot.entry = entry);
        self.change(home, |slot| slot.neighbours |= 1 << (free - home));
        self.change(from, |slot| slot.entry = None);
        self.change(home, |slot| slot.neighbours &= !(1 << (from - home)));
        Some(from)
    }

    fn slot(&self, at: usize) -> Slot {
        let mut image = [0; SLOT];
        self.memory.read_at(at * SLOT, &mut image);
        Slot::of_image(&image).expect("only this process writes, and one at a time")
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Slot)) {
        let mut slot = self.slot(at);
        change(&mut slot);
        slot.version += 2;
        for (offset, bytes) in steps(&slot.to_image()) {
            self.memory.write_at(at * SLOT + offset, &bytes);
        }
    }
}

/// The slots that a home's bits name.
pub(crate) fn neighbours(home: usize, bits: u16) -> impl Iterator<Item = usize> {
    (0..NEIGHBOURHOOD).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| home + bit)
}
