//! What registering, granting and revoking cost on a device, both ends in one process and in turn:
//! `soft-roce-setup/run -- target/release/deps/memory_device-…`, see `benches/README.md`.
//!
//! `--json` prints one object a line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zcmi::verbs::{Access as Rights, Device, MemoryRegion, ProtectionDomain, SharedBytes};
use zcmi::{
    Access, Buffer, Config, Connection, Connector, ExposedBuffer, Listener, Polling, Result, SharedMemory, Worker,
    internals,
};

const ROUNDS: usize = 201;
const LENGTH: usize = 64 << 10;

type Case = (&'static str, Vec<f64>);

fn main() {
    let is_json = std::env::args().any(|argument| argument == "--json");
    let Some(address) = device_address() else {
        eprintln!("there is no RDMA device with an IPv4 address; soft-roce-setup/run gives one");
        std::process::exit(1);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cases = runtime.block_on(measure(&address)).expect("measures");
    let median = |name: &str| cases.iter().find(|(case, _)| *case == name).map(|(_, samples)| at(samples, 50));
    for (name, samples) in &cases {
        let (low, middle, high) = (at(samples, 10), at(samples, 50), at(samples, 90));
        if is_json {
            println!(r#"{{"test":"{name}","unit":"ns","p10":{low:.0},"p50":{middle:.0},"p90":{high:.0}}}"#);
        } else {
            println!("{name:<44}{low:>12.0}{middle:>12.0}{high:>12.0} ns");
        }
    }
    if let (Some(each), Some(cached), false) =
        (median("register and deregister 64 KiB"), median("cached 64 KiB"), is_json)
    {
        println!("setting a send of 64 KiB up is {:.0} times faster from the cache (aim 20)", each / cached);
    }
}

async fn measure(address: &str) -> Result<Vec<Case>> {
    let worker = Worker::new(Config { polling: Polling::Busy, ..Config::default() })?;
    let listener = Listener::bind(&worker, &format!("rdma://{address}:0")).await?;
    let (connector, uri) = (Connector::new(&worker), listener.uri());
    let (client, server) = tokio::try_join!(connector.connect(&uri), listener.accept())?;
    let memory = SharedMemory::from(vec![7; LENGTH]);
    let domain = domain(client.device());
    let bytes = SharedBytes::new(vec![7u8; LENGTH]);
    let exposed = Buffer::allocate(LENGTH)?.expose();
    drop(internals::lease(&client, &memory)?);

    let mut cases: Vec<Case> = Vec::new();
    // In turn, so that what disturbs the machine disturbs all alike; the first round only warms up.
    for round in 0..=ROUNDS {
        let mut note = |name: &'static str, taken: Duration, times: u32| {
            if round > 0 {
                let sample = taken.as_nanos() as f64 / f64::from(times);
                match cases.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, samples)) => samples.push(sample),
                    None => cases.push((name, vec![sample])),
                }
            }
        };
        let begun = Instant::now();
        for _ in 0..1000 {
            std::hint::black_box(internals::lease(&client, &memory)?.key());
        }
        note("cached 64 KiB", begun.elapsed(), 1000);

        let begun = Instant::now();
        let region = MemoryRegion::register(&domain, Arc::clone(&bytes) as _, 0..LENGTH, Rights::LOCAL_READ);
        region.and_then(MemoryRegion::deregister).expect("registers and deregisters");
        note("register and deregister 64 KiB", begun.elapsed(), 1);

        let (granted, revoked) = by_window(&exposed, &server).await?;
        note("grant 64 KiB by window", granted, 1);
        note("revoke a window, agreed", revoked, 1);
        let (granted, revoked) = by_region(&exposed, &server).await?;
        note("grant 64 KiB by region", granted, 1);
        note("revoke a region, agreed", revoked, 1);
    }
    client.close().await?;
    Ok(cases)
}

async fn by_window(exposed: &ExposedBuffer, owner: &Connection) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    let grant = exposed.grant(owner, 0..LENGTH, Access::READ_WRITE).await?;
    let granted = begun.elapsed();
    let begun = Instant::now();
    grant.revoke().await?;
    Ok((granted, begun.elapsed()))
}

async fn by_region(exposed: &ExposedBuffer, owner: &Connection) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    let grant = exposed.grant_domain(owner, 0..LENGTH, Access::READ_WRITE).await?;
    let granted = begun.elapsed();
    let begun = Instant::now();
    grant.revoke().await?;
    Ok((granted, begun.elapsed()))
}

fn at(samples: &[f64], percent: usize) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    samples[samples.len() * percent / 100]
}

fn domain(device: &str) -> Arc<ProtectionDomain> {
    let devices = Device::list().expect("lists");
    let device = devices.into_iter().find(|known| known.name() == device).expect("the connection's");
    ProtectionDomain::allocate(&device.open().expect("opens")).expect("a domain")
}

fn device_address() -> Option<String> {
    if let Ok(address) = std::env::var("ZCMI_HOST1") {
        return Some(address);
    }
    Device::list().ok()?.into_iter().find_map(|device| {
        let table = device.open().ok()?.gid_table().ok()?;
        table.entries().iter().filter_map(|entry| entry.gid.ip()).find(|ip| ip.is_ipv4()).map(|ip| ip.to_string())
    })
}
