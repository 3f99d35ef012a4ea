//! Smoke.
use zcmi::*;
#[tokio::test]
async fn smoke() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let worker = Worker::new(Config::default()).unwrap();
    let listener = Listener::bind(&worker, "rdma://192.0.2.1:0").await.unwrap();
    let uri = listener.uri();
    let connector = Connector::new(&worker);
    let (a, b) = tokio::join!(connector.connect(&uri), listener.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    a.send(b"hello").await.unwrap();
    assert_eq!(&*b.recv().await.unwrap(), b"hello");
    let exposed = Buffer::allocate(4096).unwrap().expose();
    let grant = exposed.grant(&b, 0..4096, Access::READ_WRITE).unwrap();
    b.send(&grant.remote_buffer().to_bytes()).await.unwrap();
    let handle = RemoteBuffer::from_bytes(&a.recv().await.unwrap()).unwrap();
    let mut buf = Buffer::allocate(4096).unwrap();
    buf.fill(7);
    let mut buf = a.write(buf, &handle).await.unwrap();
    let mut seen = [0; 4096];
    exposed.read_at(0, &mut seen);
    assert_eq!(seen, [7; 4096]);
    exposed.write_at(100, &[9; 50]);
    buf.fill(0);
    let buf = a.read(buf, &handle).await.unwrap();
    assert_eq!(&buf[95..105], &[7, 7, 7, 7, 7, 9, 9, 9, 9, 9]);
    for i in 0..1000u32 { a.send(&[i as u8; 300]).await.unwrap(); assert_eq!(&*b.recv().await.unwrap(), &[i as u8; 300]); }
    a.close().await.unwrap();
    println!("{}", b.recv().await.unwrap_err());
}
