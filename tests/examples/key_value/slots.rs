//! Images of slots that are of no one moment.

use crate::slot::{Image, LONGEST_ENTRY, SLOT, Slot, Torn, fits, home, steps};

/// Bytes that one access of memory brings at least.
const WORD: usize = 8;

#[test]
fn a_mixture_of_two_images_is_noticed() {
    let (old, new) = (slot(6, 4), slot(8, 4));
    for [first, second] in [[&old, &new], [&new, &old]] {
        let (from, to) = (first.to_image(), second.to_image());
        let mut torn = 0;
        for cut in (0..=SLOT).step_by(WORD) {
            let mixed: Vec<u8> = [&from[..cut], &to[cut..]].concat();
            torn += check(&mixed, &[first, second]);
        }
        // All but the two that are whole. The last word is the version.
        assert_eq!(torn, SLOT / WORD - 1);
    }
    // In no order at all.
    let (from, to) = (old.to_image(), new.to_image());
    let mut random = 1u64;
    for _ in 0..2000 {
        let mut mixed = from;
        for (mixed, to) in mixed.chunks_mut(WORD).zip(to.chunks(WORD)) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if random >> 63 == 1 {
                mixed.copy_from_slice(to);
            }
        }
        check(&mixed, &[&old, &new]);
    }
}

#[test]
fn an_image_between_two_steps_is_noticed() {
    let (old, new) = (slot(6, 4), slot(8, 4));
    let mut memory = old.to_image();
    let steps = steps(&new.to_image());
    assert_eq!(Slot::of_image(&memory), Ok(old));
    for (offset, bytes) in &steps {
        assert!(memory != new.to_image());
        memory[*offset..offset + bytes.len()].copy_from_slice(bytes);
        let is_last = memory == new.to_image();
        assert_eq!(Slot::of_image(&memory), if is_last { Ok(new.clone()) } else { Err(Torn) });
    }
    assert_eq!(memory, new.to_image());
    // An odd version is one that is being written, even if all the rest fits.
    assert_eq!(Slot::of_image(&slot(7, 4).to_image()), Err(Torn));
}

#[test]
fn lengths_that_leave_the_slot_are_noticed() {
    for (at, bytes) in [(14, &[0xff, 0xff][..]), (16, &[0xff; 4])] {
        let mut image = slot(6, 4).to_image();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut image);
        assert_eq!(Slot::of_image(&image), Err(Torn));
    }
}

#[test]
fn what_fits_comes_back_and_the_rest_is_refused() {
    let most = LONGEST_ENTRY - 3;
    for length in [0, 1, most] {
        let slot = Slot { version: 2, neighbours: 0x8001, entry: Some((b"key".to_vec(), vec![7; length])) };
        assert_eq!(Slot::of_image(&slot.to_image()), Ok(slot));
    }
    assert!(fits(b"key", &vec![0; most]).is_ok());
    assert!(fits(b"key", &vec![0; most + 1]).unwrap_err().contains(&format!("room for {most}")));
    assert!(fits(b"", b"").is_err() && fits(&[1; 257], b"").is_err() && fits(&[1; 256], b"").is_ok());
}

#[test]
fn homes_are_spread() {
    let mut count = [0; 64];
    (0..6400).for_each(|key| count[home(1, format!("key {key}").as_bytes(), 64) as usize] += 1);
    assert!(count.iter().all(|&count| (50..200).contains(&count)), "{count:?}");
}

/// Whether an image is torn; panics if it is neither that nor one of those that it is made of.
fn check(image: &[u8], parts: &[&Slot]) -> usize {
    match Slot::of_image(image) {
        Ok(slot) => {
            assert!(parts.contains(&&slot), "a mixture passed for a slot: {slot:?}");
            0
        }
        Err(Torn) => 1,
    }
}

/// A slot of that version, full of bytes that other versions do not have.
fn slot(version: u64, key_length: usize) -> Slot {
    let value = (0..LONGEST_ENTRY - key_length).map(|at| (version as usize * 37 + at) as u8).collect();
    Slot { version, neighbours: 1, entry: Some((vec![b'k'; key_length], value)) }
}

/// Puts the right checksum into an image.
fn seal(image: &mut Image) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&image[..8]), &image[12..]);
    image[8..12].copy_from_slice(&checksum.to_le_bytes());
}
