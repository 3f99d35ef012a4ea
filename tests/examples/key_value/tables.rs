//! The table: against a model, full, and read while it is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use zcmi::ExposedBuffer;

use crate::slot::{Image, SLOT, Slot, home};
use crate::table::{Refused, Table};

/// Bytes that a device reads at once.
const LINE: usize = 64;

#[test]
fn it_has_what_was_put_and_not_deleted() {
    let mut table = Table::new(64, 7).expect("memory");
    let mut model = HashMap::new();
    let mut random = 3u64;
    for step in 0..6_000u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
        let key = format!("{}", (random >> 40) % 80).into_bytes();
        if (random >> 20) % 8 < 5 {
            let value = step.to_le_bytes().to_vec();
            match table.put(&key, &value) {
                Ok(()) => drop(model.insert(key, value)),
                // It has 81 homes and 15 slots more.
                Err(refused) => assert!(matches!(refused, Refused::Full(_)) && model.len() > 60, "{refused:?}"),
            }
        } else {
            assert_eq!(table.delete(&key), model.remove(&key).is_some());
        }
        if step % 100 == 0 {
            for key in 0..80 {
                let key = format!("{key}").into_bytes();
                assert_eq!(table.get(&key).as_ref(), model.get(&key), "after {step} steps");
            }
        }
    }
}

#[test]
fn it_takes_as_many_as_it_was_made_for_and_then_says_that_it_is_full() {
    let mut table = Table::new(1000, 1).expect("memory");
    let key = |number: u64| number.to_le_bytes();
    for number in 0..1000 {
        assert_eq!(table.put(&key(number), b"value"), Ok(()), "key {number}");
    }
    let full = (1000..3000).find_map(|number| table.put(&key(number), b"value").err());
    assert!(matches!(&full, Some(Refused::Full(reason)) if reason.contains("no room")), "{full:?}");
    // Those that are there can be changed, and nothing was lost.
    assert_eq!(table.put(&key(0), b"other"), Ok(()));
    assert!((1..1000).all(|number| table.get(&key(number)).as_deref() == Some(b"value")));
}

#[test]
fn readers_see_whole_values_while_they_are_written() {
    let mut table = Table::new(1, 1).expect("memory");
    let memory = std::sync::Arc::clone(table.memory());
    let at = home(table.seed(), b"key", table.homes()) as usize * SLOT;
    let value = |number: u64| number.to_le_bytes().repeat(120);
    table.put(b"key", &value(0)).expect("room");
    let (is_over, answered, torn, whole) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut image = [0; SLOT];
                while !is_over.load(Ordering::SeqCst) {
                    let least = answered.load(Ordering::SeqCst);
                    read_as_a_device(&memory, at, &mut image);
                    let Ok(slot) = Slot::of_image(&image) else {
                        torn.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let found = slot.value_of(b"key").expect("it is there all the time").to_vec();
                    let number = u64::from_le_bytes(found[..8].try_into().expect("8 bytes"));
                    if found != value(number) || number < least {
                        is_over.store(true, Ordering::SeqCst);
                        panic!("a value that was never there, or {number} after {least}");
                    }
                    whole.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        for number in 1.. {
            if is_over.load(Ordering::SeqCst) || Instant::now() > deadline {
                break;
            }
            table.put(b"key", &value(number)).expect("room");
            answered.store(number, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let [torn, whole, puts] = [torn, whole, answered].map(AtomicU64::into_inner);
    println!("{puts} PUTs, {whole} whole reads, {torn} torn");
    assert!(whole > 100 && puts > 100, "{puts} PUTs, {whole} whole reads, {torn} torn");
}

/// Reads line by line, as a device may; one `read_at` would have its turn between two `write_at`s. Up and down in turn: no order is
/// promised.
fn read_as_a_device(memory: &ExposedBuffer, at: usize, image: &mut Image) {
    let is_up = image[0].is_multiple_of(4);
    let lines = image.chunks_mut(LINE).enumerate();
    let read = |(index, line): (usize, &mut [u8])| memory.read_at(at + index * LINE, line);
    if is_up { lines.for_each(read) } else { lines.rev().for_each(read) }
}
