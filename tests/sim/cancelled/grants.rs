//! Grants, what takes them back, and memory that is waited for.

use std::rc::Rc;
use std::time::Duration;

use zcmi::internals::simulation::{now, random, sleep, spawn};
use zcmi::{Access, Buffer, Exposed, ExposedBuffer, Grant, Pool};

use super::ends::{Ends, Got, world};
use super::{Boxed, Case, Round};

const LENGTH: usize = 512;

/// A case that makes a grant.
macro_rules! makes {
    ($names:expr, $grant:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, _| {
                    let grant = $grant;
                    Box::pin(std::future::ready(making(ends, move |ends, exposed| grant(ends, exposed))))
                })
            },
        }
    };
}

/// A case that has a grant and its memory, and ends them.
macro_rules! ends {
    ($names:expr, $end:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, _| {
                    let end = $end;
                    Box::pin(end_of_a_grant(ends, move |exposed, grant| end(exposed, grant)))
                })
            },
        }
    };
}

pub(super) const CASES: &[Case] = &[
    makes!(&["Exposed::grant"], async |ends: Ends, exposed: Rc<ExposedBuffer>| {
        exposed.grant(&ends.near.connection, 8..LENGTH, Access::ALL).await.expect("grants")
    }),
    makes!(&["Exposed::grant_leased"], async |ends: Ends, exposed: Rc<ExposedBuffer>| {
        let lease = Duration::from_micros(1 + random(100));
        exposed.grant_leased(&ends.near.connection, 0..LENGTH, Access::READ_WRITE, lease).await.expect("grants")
    }),
    makes!(&["Exposed::grant_domain"], async |ends: Ends, exposed: Rc<ExposedBuffer>| {
        exposed.grant_domain(&ends.near.connection, 0..LENGTH, Access::READ).await.expect("grants")
    }),
    ends!(&["Grant::revoke"], async |_exposed: Rc<ExposedBuffer>, grant: Grant| {
        grant.revoke().await.map(drop).expect("it ends");
    }),
    ends!(&["Grant::revoke_within"], async |_exposed: Rc<ExposedBuffer>, grant: Grant| {
        grant.revoke_within(Duration::from_secs(10)).await.map(drop).expect("it ends");
    }),
    // By its lease.
    ends!(&["Grant::ended"], async |_exposed: Rc<ExposedBuffer>, grant: Grant| {
        grant.ended().await.map(drop).expect("it ends");
    }),
    Case { names: &["Exposed::into_inner"], world: |executor, cut| world(executor, cut, into_inner) },
    Case { names: &["Exposed::into_buffer"], world: |executor, cut| world(executor, cut, into_buffer) },
    Case { names: &["Allocation"], world: |executor, cut| world(executor, cut, allocating) },
];

fn zeroed() -> Buffer {
    let mut buffer = Buffer::allocate(LENGTH).expect("memory");
    buffer.fill(0);
    buffer
}

fn expose() -> ExposedBuffer {
    zeroed().expose()
}

/// The grants of the memory end by themselves, and it comes back.
async fn comes_back(exposed: Rc<ExposedBuffer>) {
    let begun = now();
    while !format!("{exposed:?}").contains("grants: 0") {
        assert!(now() - begun < Duration::from_secs(3), "a grant is left: {exposed:?}");
        sleep(Duration::from_millis(1)).await;
    }
    let exposed = Rc::into_inner(exposed).expect("the future is gone");
    assert_eq!(exposed.into_buffer().await.expect("it comes back").len(), LENGTH);
}

fn making<F: Future<Output = Grant> + 'static>(ends: Ends, grant: impl FnOnce(Ends, Rc<ExposedBuffer>) -> F) -> Round {
    let exposed = Rc::new(expose());
    let got = Got::<Grant>::default();
    let (to, granting) = (Rc::clone(&got), grant(ends.clone(), Rc::clone(&exposed)));
    let future = async move {
        let granted = granting.await;
        *to.borrow_mut() = Some(granted);
    };
    Round::new(future, move |has_ended| async move {
        let granted = got.take();
        assert_eq!(granted.is_some(), has_ended);
        if let Some(granted) = granted
            && granted.is_live()
        {
            use_it(&ends, &granted).await;
        }
        comes_back(exposed).await;
    })
}

/// The holder has the handle, and reads by it or is told that it was revoked.
async fn use_it(ends: &Ends, grant: &Grant) {
    let remote = grant.remote_buffer();
    let buffer = Buffer::allocate(remote.len() as usize).expect("memory");
    if let Err(failed) = ends.far.connection.read(buffer, &remote).await {
        assert_eq!(failed.error.kind(), zcmi::ErrorKind::Revoked);
    }
}

async fn end_of_a_grant<F: Future<Output = ()> + 'static>(
    ends: Ends,
    end: impl FnOnce(Rc<ExposedBuffer>, Grant) -> F,
) -> Round {
    let exposed = Rc::new(expose());
    let lease = Duration::from_millis(20);
    let grant = exposed.grant_leased(&ends.near.connection, 0..LENGTH, Access::ALL, lease).await.expect("grants");
    let held = used_meanwhile(&ends, &grant);
    let future = end(Rc::clone(&exposed), grant);
    Round::new(future, move |_| async move {
        held.await;
        comes_back(exposed).await;
    })
}

/// The holder is at it while it is taken back.
fn used_meanwhile(ends: &Ends, grant: &Grant) -> zcmi::internals::simulation::Task<()> {
    let (far, remote) = (ends.far.connection.clone(), grant.remote_buffer());
    spawn(async move {
        for _ in 0..3 {
            let write = far.write(zeroed(), &remote);
            if let Err(failed) = write.await {
                assert_eq!(failed.error.kind(), zcmi::ErrorKind::Revoked);
            }
        }
    })
}

fn into_inner(ends: Ends, _: u64) -> Boxed<Round> {
    back(ends, async |exposed: Exposed<Buffer>| exposed.into_inner().await.map(drop).expect("it comes back"))
}

fn into_buffer(ends: Ends, _: u64) -> Boxed<Round> {
    back(ends, async |exposed: Exposed<Buffer>| exposed.into_buffer().await.map(drop).expect("it comes back"))
}

/// That the memory is given back in the background too is seen at the end of the world.
fn back<F: Future<Output = ()> + 'static>(
    ends: Ends,
    take: impl FnOnce(Exposed<Buffer>) -> F + 'static,
) -> Boxed<Round> {
    Box::pin(async move {
        let exposed = expose();
        let grant = exposed.grant(&ends.near.connection, 0..LENGTH, Access::ALL).await.expect("grants");
        let held = used_meanwhile(&ends, &grant);
        let future = take(exposed);
        Round::new(future, move |has_ended| async move {
            assert!(!has_ended || !grant.is_live());
            held.await;
            drop(grant);
        })
    })
}

/// One who waits for memory goes; others get it.
fn allocating(_: Ends, round: u64) -> Boxed<Round> {
    thread_local! {
        /// With room for one slab, and the same for all worlds of a thread.
        static POOL: Pool = Pool::builder().limit(1 << 16).build().expect("room for a slab");
    }
    Box::pin(async move {
        let pool = POOL.with(Pool::clone);
        let (mut all, length) = (Vec::new(), 1 << (10 + round % 3));
        while let Ok(buffer) = pool.allocate(length) {
            all.push(buffer);
        }
        let count = all.len();
        let released = spawn(async move {
            for buffer in all {
                sleep(Duration::from_micros(random(30))).await;
                drop(buffer);
            }
        });
        let waiting = pool.clone();
        let future = async move { drop(waiting.allocate_async(length).await.expect("there will be some")) };
        Round::new(future, move |_| async move {
            released.await;
            let again: Result<Vec<_>, _> = (0..count).map(|_| pool.allocate(length)).collect();
            assert_eq!(again.expect("all is there again").len(), count);
            assert_eq!((pool.statistics().waiting, pool.statistics().in_use_bytes), (0, 0));
        })
    })
}
