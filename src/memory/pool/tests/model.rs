//! Random sequences of everything, against a model; and bugs that it must find.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};

use super::{MIB, pool};
use crate::memory::pool::Pool;
use crate::memory::pool::planted::{self, Bug};
use crate::{Buffer, ErrorKind, SharedBuffer};

const LIMIT: usize = 2 * MIB;

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Zeroed(usize),
    Aligned(usize, u32),
    /// Of the held one with this index, modulo their number, and so on.
    Split(usize, usize),
    Slice(usize, usize, usize),
    Join(usize, usize),
    Freeze(usize),
    Thaw(usize),
    Share(usize),
    ToBytes(usize),
    Drop(usize),
    DropElsewhere(usize),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 0usize..700, 2 => 700usize..20_000, 1 => 20_000usize..400_000];
    let any = any::<usize>();
    prop_oneof![
        6 => length.clone().prop_map(Step::Allocate),
        2 => length.clone().prop_map(Step::Zeroed),
        1 => (0usize..9000, 0u32..18).prop_map(|(length, bits)| Step::Aligned(length, bits)),
        2 => (any, any).prop_map(|(index, at)| Step::Split(index, at)),
        1 => (any, any, any).prop_map(|(index, start, end)| Step::Slice(index, start, end)),
        1 => (any, any).prop_map(|(one, two)| Step::Join(one, two)),
        2 => any.prop_map(Step::Freeze),
        1 => any.prop_map(Step::Thaw),
        2 => any.prop_map(Step::Share),
        1 => any.prop_map(Step::ToBytes),
        6 => any.prop_map(Step::Drop),
        1 => any.prop_map(Step::DropElsewhere),
        1 => Just(Step::Trim),
    ]
}

enum Memory {
    Buffer(Buffer),
    Shared(SharedBuffer),
    Bytes(Bytes),
}

/// Memory, and the seed of what was written there.
struct Held {
    memory: Memory,
    seed: u8,
}

impl Held {
    fn write(mut buffer: Buffer, seed: u8) -> Self {
        let first = buffer.as_ptr().addr();
        buffer.iter_mut().enumerate().for_each(|(index, byte)| *byte = pattern(first + index, seed));
        Self { memory: Memory::Buffer(buffer), seed }
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Buffer(buffer) => buffer,
            Memory::Shared(shared) => shared,
            Memory::Bytes(bytes) => bytes,
        }
    }

    fn verify(&self) -> TestCaseResult {
        let first = self.bytes().as_ptr().addr();
        let wrong = self.bytes().iter().enumerate().position(|(at, &byte)| byte != pattern(first + at, self.seed));
        prop_assert!(wrong.is_none(), "byte {:?} of {} was overwritten", wrong, self.bytes().len());
        Ok(())
    }
}

/// What belongs at an address, so that splitting changes nothing.
fn pattern(address: usize, seed: u8) -> u8 {
    seed ^ address as u8 ^ (address >> 8) as u8 ^ (address >> 16) as u8
}

struct Model {
    pool: Pool,
    held: Vec<Held>,
    seed: u8,
}

impl Model {
    fn run(steps: &[Step]) -> TestCaseResult {
        let mut model = Self { pool: pool(LIMIT), held: Vec::new(), seed: 0 };
        for step in steps {
            model.step(step)?;
            let figures = model.pool.statistics();
            prop_assert!(
                figures.mapped_bytes <= LIMIT && figures.in_use_bytes <= figures.mapped_bytes,
                "{:?}",
                figures
            );
            let held: usize = model
                .held
                .iter()
                .filter(|held| matches!(held.memory, Memory::Buffer(_)))
                .map(|held| held.bytes().len())
                .sum();
            prop_assert!(held <= figures.in_use_bytes, "{} held, {:?}", held, figures);
        }
        for held in model.held.drain(..) {
            held.verify()?;
        }
        let figures = model.pool.statistics();
        prop_assert_eq!((figures.in_use_bytes, figures.waiting), (0, 0));
        prop_assert_eq!(model.pool.trim(), figures.mapped_bytes);
        prop_assert_eq!(model.pool.statistics().slabs, 0);
        prop_assert!(model.pool.allocate(LIMIT).is_ok());
        Ok(())
    }

    fn step(&mut self, step: &Step) -> TestCaseResult {
        match *step {
            Step::Allocate(length) => self.add(self.pool.allocate(length), length)?,
            Step::Zeroed(length) => {
                let result = self.pool.allocate_zeroed(length);
                let is_zero = result.as_ref().is_ok_and(|buffer| buffer.iter().all(|&byte| byte == 0));
                prop_assert!(is_zero || result.is_err(), "not zeroed");
                self.add(result, length)?;
            }
            Step::Aligned(length, bits) => {
                let result = self.pool.allocate_aligned(length, 1 << bits);
                let is_aligned = result.as_ref().is_ok_and(|buffer| buffer.as_ptr().addr().is_multiple_of(1 << bits));
                prop_assert!(is_aligned || result.is_err(), "not aligned to {}", 1 << bits);
                self.add(result, length)?;
            }
            Step::Split(index, at) => self.change(index, |held| match held.memory {
                Memory::Buffer(buffer) => {
                    let mid = at % (buffer.len() + 1);
                    let (one, two) = buffer.split_at(mid);
                    [one, two].map(|buffer| Held { memory: Memory::Buffer(buffer), seed: held.seed }).into()
                }
                memory => vec![Held { memory, ..held }],
            }),
            Step::Slice(index, start, end) => self.change(index, |held| {
                let length = held.bytes().len();
                let (start, end) = (start % (length + 1), end % (length + 1));
                let range = start.min(end)..start.max(end);
                let memory = match held.memory {
                    Memory::Buffer(buffer) => Memory::Buffer(buffer.slice(range)),
                    Memory::Shared(shared) => Memory::Shared(shared.slice(range)),
                    Memory::Bytes(bytes) => Memory::Bytes(bytes.slice(range)),
                };
                vec![Held { memory, ..held }]
            }),
            Step::Join(one, two) => self.join(one, two)?,
            Step::Freeze(index) => self.change(index, |held| match held.memory {
                Memory::Buffer(buffer) => vec![Held { memory: Memory::Shared(buffer.freeze()), ..held }],
                memory => vec![Held { memory, ..held }],
            }),
            Step::Thaw(index) => {
                let seed = self.next_seed();
                self.change(index, |held| match held.memory {
                    Memory::Shared(shared) => vec![match shared.try_into_buffer() {
                        Ok(buffer) => Held::write(buffer, seed),
                        Err(shared) => Held { memory: Memory::Shared(shared), ..held },
                    }],
                    memory => vec![Held { memory, ..held }],
                });
            }
            Step::Share(index) => self.change(index, |held| {
                let copy = match &held.memory {
                    Memory::Buffer(_) => return vec![held],
                    Memory::Shared(shared) => Memory::Shared(shared.clone()),
                    Memory::Bytes(bytes) => Memory::Bytes(bytes.clone()),
                };
                let copy = Held { memory: copy, seed: held.seed };
                vec![held, copy]
            }),
            Step::ToBytes(index) => self.change(index, |held| {
                let memory = match held.memory {
                    Memory::Buffer(buffer) => Memory::Bytes(buffer.into()),
                    Memory::Shared(shared) => Memory::Bytes(shared.into()),
                    bytes => bytes,
                };
                vec![Held { memory, ..held }]
            }),
            Step::Drop(index) => {
                if let Some(held) = self.take(index) {
                    held.verify()?;
                }
            }
            Step::DropElsewhere(index) => {
                if let Some(held) = self.take(index) {
                    let verified = std::thread::spawn(move || held.verify()).join();
                    verified.map_err(|_| TestCaseError::fail("a panic while dropping"))??;
                }
            }
            Step::Trim => drop(self.pool.trim()),
        }
        Ok(())
    }

    fn add(&mut self, result: crate::Result<Buffer>, length: usize) -> TestCaseResult {
        let buffer = match result {
            Ok(buffer) => buffer,
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::PoolExhausted);
                prop_assert!(!self.held.is_empty(), "nothing is in use: {}", error);
                return Ok(());
            }
        };
        prop_assert_eq!(buffer.len(), length);
        let range = buffer.as_ptr_range();
        for held in self.held.iter().map(|held| held.bytes().as_ptr_range()) {
            let apart = range.is_empty() || held.is_empty() || range.end <= held.start || held.end <= range.start;
            prop_assert!(apart, "{:?} is in use as {:?}", range, held);
        }
        let seed = self.next_seed();
        self.held.push(Held::write(buffer, seed));
        Ok(())
    }

    fn join(&mut self, one: usize, two: usize) -> TestCaseResult {
        let (Some(one), Some(two)) = (self.take(one), self.take(two)) else { return Ok(()) };
        one.verify()?;
        two.verify()?;
        let seed = self.next_seed();
        match (one.memory, two.memory) {
            (Memory::Buffer(mut first), Memory::Buffer(second)) => match first.unsplit(second) {
                Ok(()) => self.held.push(Held::write(first, seed)),
                Err(second) => {
                    self.held.push(Held { memory: Memory::Buffer(first), seed: one.seed });
                    self.held.push(Held { memory: Memory::Buffer(second), seed: two.seed });
                }
            },
            (first, second) => {
                self.held.push(Held { memory: first, seed: one.seed });
                self.held.push(Held { memory: second, seed: two.seed });
            }
        }
        Ok(())
    }

    fn change(&mut self, index: usize, change: impl FnOnce(Held) -> Vec<Held>) {
        if let Some(held) = self.take(index) {
            self.held.extend(change(held));
        }
    }

    fn take(&mut self, index: usize) -> Option<Held> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(index % count))
    }

    fn next_seed(&mut self) -> u8 {
        self.seed = self.seed.wrapping_add(37);
        self.seed
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..120)
}

proptest! {
    #![proptest_config(Config::with_cases(200))]
    #[test]
    fn a_pool_does_what_its_model_does(steps in steps()) {
        Model::run(&steps)?;
    }
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [Bug::CarvedTwice, Bug::ClassTooSmall, Bug::NotZeroed, Bug::ReturnedEarly, Bug::ReturnedTwice];
    for bug in bugs {
        let config = Config { failure_persistence: None, max_shrink_iters: 0, ..Config::with_cases(200) };
        let result = TestRunner::new(config).run(&steps(), |steps| planted::with(bug, || Model::run(&steps)));
        assert!(result.is_err(), "{bug:?} was not found");
    }
}
