//! Memory that is given back is exposed no longer.

async fn misuse(exposed: zcmi::ExposedBuffer, connection: zcmi::Connection) -> zcmi::Result<()> {
    let _buffer = exposed.into_buffer().await?;
    exposed.grant(&connection, 0..8, zcmi::Access::READ).await?;
    Ok(())
}

fn main() {
    let _ = misuse;
}
