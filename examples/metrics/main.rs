//! A program that serves `/metrics` for Prometheus while two ends exchange messages.
//!
//! ```sh
//! cargo run --features metrics --example metrics -- --listen 127.0.0.1:9464
//! curl http://127.0.0.1:9464/metrics
//! ```

mod page;
mod traffic;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;

/// Bounds of the classes of times, in seconds.
const TIMES: [f64; 9] = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0];

/// Serves /metrics for Prometheus while two ends exchange messages.
#[derive(Parser)]
struct Arguments {
    /// Where to serve HTTP; port 0 is any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the two ends meet: auto://HOST:PORT, rdma://HOST:PORT, tcp://HOST:PORT or shm://NAME.
    #[arg(long, default_value = "auto://127.0.0.1:0")]
    meet: String,
    /// Time between two rounds of messages, in milliseconds.
    #[arg(long, default_value_t = 10)]
    pause: u64,
    /// How long it runs, in seconds; until it is stopped if this is not given.
    #[arg(long)]
    seconds: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metrics: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Before there is anything to be told.
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &TIMES)?
        .install_recorder()?;
    let listener =
        TcpListener::bind(arguments.listen).await.map_err(|error| format!("listen {}: {error}", arguments.listen))?;
    println!("http://{}/metrics", listener.local_addr()?);
    let end = async {
        match arguments.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = page::serve(listener, recorder) => served?,
        exchanged = traffic::exchange(&arguments.meet, Duration::from_millis(arguments.pause)) => exchanged?,
        () = end => {}
    }
    Ok(())
}
