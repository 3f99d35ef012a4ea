//! A grant that is being revoked names nothing any more.

async fn misuse(grant: zcmi::Grant) -> zcmi::Result<zcmi::RemoteBuffer> {
    grant.revoke().await?;
    Ok(grant.remote_buffer())
}

fn main() {
    let _ = misuse;
}
