//! What memory costs: `cargo bench --bench memory -- [WHAT…]`, all by default. One object a line.

#[allow(unsafe_code, reason = "a counting allocator; each block carries its proof")]
#[path = "../../tests/common/allocations.rs"]
mod allocations;
mod measure;
mod pool;

fn main() {
    let benches: [(&str, fn()); 1] = [("pool", pool::run)];
    // Cargo passes `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|&wanted| benches.iter().all(|(name, _)| name != wanted)) {
        eprintln!("no bench {unknown}; there are {:?}", benches.map(|(name, _)| name));
        std::process::exit(2);
    }
    for (name, run) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}
