//! hyper, as it is, over streams.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{soon, streams};
use crate::common::{on_device, pattern, worker};

/// Answers the body backwards, and counts.
async fn reversed(request: Request<Incoming>, count: Arc<AtomicUsize>) -> Result<Response<Full<Bytes>>, Infallible> {
    count.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let mut body = request.into_body().collect().await.expect("a body").to_bytes().to_vec();
    body.reverse();
    Ok(Response::builder().header("path", path).body(body.into()).expect("a response"))
}

fn post(path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::post(path).header("host", "zcmi").body(body.into()).expect("a request")
}

async fn check(response: Response<Incoming>, path: &str, mut body: Vec<u8>) {
    assert_eq!((response.status().as_u16(), &response.headers()["path"]), (200, &path.parse().expect("a value")));
    let received = response.into_body().collect().await.expect("a body").to_bytes();
    body.reverse();
    assert!(received == body, "{} of {} bytes, or others", received.len(), body.len());
}

#[test]
fn http_1_keeps_the_connection_and_carries_a_large_body() {
    on_device(|address| async move {
        let (client, server) = streams(&worker(), &address).await;
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let serving = tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
            TokioIo::new(server),
            service_fn(move |request| reversed(request, Arc::clone(&counter))),
        ));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("a handshake");
        let driving = tokio::spawn(connection);
        for (number, length) in [0, 5, 3 << 20, 1000, 100_000].into_iter().enumerate() {
            let (path, body) = (format!("/{number}"), pattern(1, number as u64, length));
            soon(sender.ready()).await.expect("kept alive");
            let response = soon(sender.send_request(post(&path, body.clone()))).await.expect("a response");
            soon(check(response, &path, body)).await;
        }
        drop(sender);
        soon(driving).await.expect("the task succeeds").expect("the client ends well");
        soon(serving).await.expect("the task succeeds").expect("the server ends well");
        assert_eq!(count.load(Ordering::Relaxed), 5);
    });
}

#[test]
fn http_2_carries_fifty_requests_at_once() {
    on_device(|address| async move {
        let (client, server) = streams(&worker(), &address).await;
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        // Nobody is answered before all have asked.
        let all = Arc::new(tokio::sync::Barrier::new(50));
        let service = service_fn(move |request| {
            let (counter, all) = (Arc::clone(&counter), Arc::clone(&all));
            async move {
                let response = reversed(request, counter).await;
                all.wait().await;
                response
            }
        });
        let serving = tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(server), service),
        );
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
            .await
            .expect("a handshake");
        let driving = tokio::spawn(connection);
        let requests: Vec<_> = (0..50u64)
            .map(|number| {
                let mut sender = sender.clone();
                tokio::spawn(async move {
                    let (path, body) = (format!("/{number}"), pattern(2, number, (number * 1000) as usize));
                    let response = sender.send_request(post(&path, body.clone())).await.expect("a response");
                    check(response, &path, body).await;
                })
            })
            .collect();
        for request in requests {
            soon(request).await.expect("the request succeeds");
        }
        assert_eq!(count.load(Ordering::Relaxed), 50);
        drop(sender);
        soon(driving).await.expect("the task succeeds").expect("the client ends well");
        if let Err(error) = soon(serving).await.expect("the task succeeds") {
            // The client has gone before the server could say goodbye.
            assert!(format!("{error:?}").contains("BrokenPipe"), "{error:?}");
        }
    });
}
