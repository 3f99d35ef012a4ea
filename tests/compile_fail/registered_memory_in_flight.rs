//! An operation owns registered memory until it is done.

async fn misuse(connection: zcmi::Connection, remote: zcmi::RemoteBuffer) {
    let mut memory = zcmi::Registered::new(vec![0; 64]);
    let operation = connection.read(memory, &remote);
    memory[0] = 1;
    let _ = operation.await;
}

fn main() {
    let _ = misuse;
}
