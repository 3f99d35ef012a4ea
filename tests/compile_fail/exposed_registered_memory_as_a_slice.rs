//! Memory that a peer may write is never a slice, whoever allocated it.

fn misuse(exposed: &zcmi::Exposed<zcmi::Registered<Vec<u8>>>) -> u8 {
    exposed[0]
}

fn main() {
    let _ = misuse;
}
