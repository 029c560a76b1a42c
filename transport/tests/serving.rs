//! Requests through the whole path: REST over HTTP/1.1 and 2, gRPC channels, limits, drain.

mod bench;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bench::{Cluster, DEADLINE, ask, node, wait};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use tower::ServiceExt;
use transport::{ChannelPool, Dialer, ListenLimits, Role, ServeOptions, TlsListener};

#[tokio::test]
async fn vectored_writes_reach_the_socket_layer() {
    let cluster = Cluster::new(1);
    let tls = cluster.server(Role::ChunkServer, "n1");
    let mut listener = TlsListener::bind("127.0.0.1:0", tls, ListenLimits::default()).await.unwrap();
    let address = listener.local_addr().to_string();
    let dialer = Dialer::new(cluster.client());
    let (expect, alpn) = (node("n1"), [&b"h2"[..]]);
    let (stream, dialled) = tokio::join!(listener.accept(), dialer.open(&address, &expect, &alpn));
    let stream = stream.unwrap();
    assert!(stream.is_write_vectored() && stream.is_http2());
    assert!(dialled.unwrap().is_write_vectored());
    assert_eq!(stream.identity(), None);
}

#[tokio::test]
async fn many_connections_and_both_protocols() {
    let cluster = Cluster::new(1);
    let serving = bench::who_am_i(cluster.server(Role::ChunkServer, "n1"), ListenLimits::default()).await;
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..100 {
        let (address, client) = (serving.address, cluster.client());
        asking.spawn(async move {
            if i % 2 == 0 {
                ask(address, &client, node("n1")).await
            } else {
                bench::ask_http1(address, &client).await
            }
        });
    }
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.unwrap().as_deref(), Ok("nobody"));
    }
    serving.stop().await;
}

#[tokio::test]
async fn the_last_places_are_for_servers() {
    let cluster = Cluster::new(1);
    let limits = ListenLimits { connections: 3, for_servers: 2, ..Default::default() };
    let serving = bench::who_am_i(cluster.server(Role::ChunkServer, "n1"), limits).await;
    let kept = Dialer::new(cluster.client()).channel(&serving.address.to_string(), node("n1")).unwrap();
    assert_eq!(bench::ask_on(kept.clone()).await.as_deref(), Ok("nobody"));
    // The one place for clients is taken; a server of the cluster still gets in.
    assert!(ask(serving.address, &cluster.client(), node("n1")).await.is_err());
    let peer = cluster.server(Role::MetadataServer, "m1");
    assert!(ask(serving.address, &peer, node("n1")).await.unwrap().ends_with("/m1"));
    assert_eq!(bench::ask_on(kept).await.as_deref(), Ok("nobody"));
    serving.stop().await;
}

#[tokio::test]
async fn many_megabytes_come_back_as_they_went() {
    let cluster = Cluster::new(1);
    let router = Router::new()
        .route("/echo", post(|body: Bytes| async move { body }))
        .layer(axum::extract::DefaultBodyLimit::disable());
    let serving =
        bench::start(cluster.server(Role::ChunkServer, "n1"), ListenLimits::default(), router).await;
    let channel = Dialer::new(cluster.client()).channel(&serving.address.to_string(), node("n1")).unwrap();
    let sent: Bytes = (0..20 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    let request = http::Request::post("/echo").body(tonic::body::Body::new(Full::new(sent.clone()))).unwrap();
    let response = wait(channel.oneshot(request)).await.unwrap();
    let received = wait(response.into_body().collect()).await.unwrap().to_bytes();
    assert!(received == sent, "{} bytes came back", received.len());
    serving.stop().await;
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_and_no_more() {
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let cluster = Cluster::new(1);
    let router = Router::new().route("/who", get(bench::who)).route("/broken", get(broken));
    let serving =
        bench::start(cluster.server(Role::ChunkServer, "n1"), ListenLimits::default(), router).await;
    let channel = Dialer::new(cluster.client()).channel(&serving.address.to_string(), node("n1")).unwrap();
    let request = http::Request::get("/broken").body(tonic::body::Body::empty()).unwrap();
    let response = wait(channel.clone().oneshot(request)).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(bench::ask_on(channel).await.as_deref(), Ok("nobody"));
    serving.stop().await;
}

#[tokio::test]
async fn stopping_lets_open_requests_finish_and_takes_no_new_ones() {
    let cluster = Cluster::new(1);
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (began, go_on) = (Arc::clone(&began), Arc::clone(&go_on));
        move || async move {
            began.notify_one();
            go_on.notified().await;
            "finished"
        }
    };
    let router = Router::new().route("/who", get(handler));
    let serving =
        bench::start(cluster.server(Role::ChunkServer, "n1"), ListenLimits::default(), router).await;
    let channel = Dialer::new(cluster.client()).channel(&serving.address.to_string(), node("n1")).unwrap();
    let asked = tokio::spawn(bench::ask_on(channel));
    wait(began.notified()).await;
    let address = serving.address;
    let stopping = tokio::spawn(serving.stop());
    // The port closes first; then the request in flight may end.
    wait(async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await
        }
    })
    .await;
    go_on.notify_one();
    assert_eq!(wait(asked).await.unwrap().as_deref(), Ok("finished"));
    wait(stopping).await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let cluster = Cluster::new(1);
    let router = Router::new().route("/who", get(std::future::pending::<&'static str>));
    let options = ServeOptions { drain: Duration::from_millis(50), ..Default::default() };
    let tls = cluster.server(Role::ChunkServer, "n1");
    let serving = bench::start_with(tls, ListenLimits::default(), router, options).await;
    let asked = tokio::spawn(ask(serving.address, &cluster.client(), node("n1")));
    wait(serving.stop()).await;
    assert!(wait(asked).await.unwrap().is_err());
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    use tokio::io::AsyncReadExt;
    let cluster = Cluster::new(1);
    let options = ServeOptions { first_request: Duration::from_millis(50), ..Default::default() };
    let router = Router::new().route("/who", get(bench::who));
    let tls = cluster.server(Role::ChunkServer, "n1");
    let serving = bench::start_with(tls, ListenLimits::default(), router, options).await;
    let dialer = Dialer::new(cluster.client());
    let mut idle = dialer.open(&serving.address.to_string(), &node("n1"), &[b"h2"]).await.unwrap();
    let _ = wait(idle.read_to_end(&mut Vec::new())).await;
    serving.stop().await;
}

#[tokio::test]
async fn a_pooled_channel_follows_a_restarted_server() {
    let cluster = Cluster::new(1);
    let server = cluster.server(Role::ChunkServer, "n1");
    let first = bench::who_am_i(server.clone(), ListenLimits::default()).await;
    let address = first.address.to_string();
    let pool = ChannelPool::new(Dialer::new(cluster.client()));
    assert_eq!(bench::ask_on(pool.get(&address, &node("n1")).unwrap()).await.as_deref(), Ok("nobody"));
    first.stop().await;
    assert!(bench::ask_on(pool.get(&address, &node("n1")).unwrap()).await.is_err());
    let router = Router::new().route("/who", get(bench::who));
    let listener = wait(async {
        loop {
            match TlsListener::bind(&address, server.clone(), ListenLimits::default()).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let second = bench::start_on(listener, cluster.client(), router, ServeOptions::default());
    assert_eq!(bench::ask_on(pool.get(&address, &node("n1")).unwrap()).await.as_deref(), Ok("nobody"));
    pool.discard(&address, &node("n1"));
    assert_eq!(bench::ask_on(pool.get(&address, &node("n1")).unwrap()).await.as_deref(), Ok("nobody"));
    second.stop().await;
}

#[tokio::test]
async fn dialling_gives_up_in_time() {
    let cluster = Cluster::new(1);
    // Listens, but nobody ever shakes hands.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let dialer = Dialer::new(cluster.client()).with_deadline(Duration::from_millis(50));
    let error = tokio::time::timeout(DEADLINE, dialer.open(&address, &node("n1"), &[b"h2"])).await.unwrap();
    assert!(matches!(error, Err(transport::TransportError::Deadline { .. })));
}
