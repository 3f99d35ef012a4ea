//! Half of a round trip of iceoryx2 between two processes: a sample of so many bytes is lent, sent and answered; nobody touches its bytes.
//!
//! `iceoryx2-round-trip BYTES ITERATIONS` prints the median in nanoseconds; it starts itself once more as the other process.

use std::process::Command;
use std::time::Instant;

use iceoryx2::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (size, iterations) = (arguments[0].parse::<usize>()?, arguments[1].parse::<usize>()?);
    let name = arguments.get(2).cloned().unwrap_or_else(|| format!("zcmi-bench-{}", std::process::id()));
    let is_server = arguments.len() > 2;
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let service = |direction: &str| -> Result<_> {
        let name = format!("{name}/{direction}");
        Ok(node.service_builder(&name.as_str().try_into()?).publish_subscribe::<[u8]>().open_or_create()?)
    };
    let (there, back) = (service("there")?, service("back")?);
    let (outgoing, incoming) = if is_server { (&back, &there) } else { (&there, &back) };
    let publisher = outgoing.publisher_builder().initial_max_slice_len(size).create()?;
    let subscriber = incoming.subscriber_builder().create()?;
    let receive = || -> Result<()> {
        loop {
            if let Some(sample) = subscriber.receive()? {
                assert_eq!(sample.payload().len(), size);
                return Ok(());
            }
            std::hint::spin_loop();
        }
    };
    let send = || -> Result<()> {
        // Its bytes are whatever they were; zeroing them once is not part of what is measured.
        let sample = publisher.loan_slice_uninit(size)?;
        // SAFETY: every bit pattern is a byte.
        unsafe { sample.assume_init() }.send()?;
        Ok(())
    };
    if is_server {
        for _ in 0..iterations + iterations / 10 {
            receive()?;
            send()?;
        }
        return Ok(());
    }
    let mut server = Command::new(std::env::current_exe()?).args(&arguments[..2]).arg(&name).spawn()?;
    while there.dynamic_config().number_of_subscribers() == 0 || back.dynamic_config().number_of_publishers() == 0 {
        std::thread::yield_now();
    }
    let mut nanoseconds = Vec::with_capacity(iterations);
    for rounds in [iterations / 10, iterations] {
        nanoseconds.clear();
        for _ in 0..rounds {
            let begun = Instant::now();
            send()?;
            receive()?;
            nanoseconds.push(begun.elapsed().as_nanos() as u64);
        }
    }
    server.wait()?;
    nanoseconds.sort_unstable();
    println!("{}", nanoseconds[nanoseconds.len() / 2] / 2);
    Ok(())
}
