//! The page that Prometheus asks for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once; who asks for metrics needs one.
const MOST: usize = 64;
/// What a client has to send its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the metrics at `/metrics` until listening fails.
pub(crate) async fn serve(listener: TcpListener, recorder: PrometheusHandle) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // One client's, or too many open files: neither lasts.
            Err(error) => {
                eprintln!("a client could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &recorder))));
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = serving.await {
                eprintln!("a client was not served: {error}");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, recorder: &PrometheusHandle) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            // So that what is told is as of now; else `Config::metrics_interval` does it by itself.
            zcmi::telemetry::publish();
            (StatusCode::OK, recorder.render())
        }
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "there is /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8".parse().expect("it is one"));
    response
}
