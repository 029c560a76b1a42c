//! What comes over the wire that no client library would send, and clients that are slow on purpose.

mod support;

use std::time::Duration;

use support::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends it and gives what comes back until the server closes; `None` if it does not.
async fn say(server: &TestServer, text: &str) -> Option<String> {
    let mut stream = server.raw().await;
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A close without TLS's goodbye is a close.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_that_does_not_add_up_ends_the_connection() {
    let server = TestServer::start().await;
    let key = &server.admin_key;
    let head = format!("POST /files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n");
    let hidden = format!("DELETE /buckets/kept HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let made = server.rest("POST", "/buckets", Some(key), r#"{"name":"kept"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for (what, text, status) in [
        ("two lengths", format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "400"),
        ("a length that is none", format!("{head}content-length: -1\r\n\r\n"), "400"),
        ("a length beyond counting", format!("{head}content-length: 18446744073709551616\r\n\r\n"), "400"),
        (
            "chunks of no size",
            format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
            "400",
        ),
        (
            "a size beyond counting",
            format!("{head}transfer-encoding: chunked\r\n\r\n{}\r\n", "f".repeat(40)),
            "400",
        ),
        ("another coding", format!("{head}transfer-encoding: gzip\r\n\r\n"), "400"),
        ("no version", "GET /health\r\n\r\n".to_owned(), "400"),
        ("a space in a name", "GET /health HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), "400"),
        (
            "both lengths: chunks end before the length, a request hides behind",
            format!("{head}content-length: 400\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            "the same the other way round",
            format!("{head}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
    ] {
        refused(&server, what, &text, status).await;
    }
    still_kept(&server).await;
    server.stop().await;
}

/// One answer with this status, and the connection ends.
async fn refused(server: &TestServer, what: &str, text: &str, status: &str) {
    let answer = say(server, text).await.unwrap_or_else(|| panic!("{what}: the connection stays open"));
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: more than one answer: {answer}");
}

/// What the hidden requests would delete is there.
async fn still_kept(server: &TestServer) {
    let kept = server.rest("GET", "/buckets/kept", Some(&server.admin_key), "").await;
    assert_eq!(kept.status, 200, "a hidden request ran: {}", kept.text);
}

/// The parser takes a bare LF for the end of a line; a machine in front may not, and see other headers.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_line_feed_ends_the_connection() {
    let server = TestServer::start().await;
    let key = &server.admin_key;
    let fields = format!("host: x\r\nauthorization: Bearer {key}\r\n");
    let hidden = format!("DELETE /buckets/kept HTTP/1.1\r\n{fields}\r\n");
    let body = "{\n\"name\":\n\"kept\"\n}\n";
    let made = format!("POST /buckets HTTP/1.1\r\n{fields}content-length: {}\r\n\r\n{body}", body.len());
    let answer =
        say(&server, &format!("{made}GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains("HTTP/1.1 200"), "LF in a body: {answer}");
    for (what, text) in [
        ("after the request line", format!("GET /whoami HTTP/1.1\n{fields}\r\n")),
        ("after a header", format!("GET /whoami HTTP/1.1\r\n{fields}x: y\n\r\n")),
        ("at the end of the head", format!("GET /whoami HTTP/1.1\r\n{fields}\n")),
        ("everywhere", format!("GET /whoami HTTP/1.1\n{}\n", fields.replace('\r', ""))),
        ("before the request", format!("\nGET /whoami HTTP/1.1\r\n{fields}\r\n")),
        (
            "a length hides behind it",
            format!(
                "POST /files HTTP/1.1\r\n{fields}x: y\ncontent-length: 0\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
        ),
        (
            "chunks hide behind it, and a request behind them",
            format!(
                "POST /files HTTP/1.1\r\n{fields}x: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        ("a bare CR", format!("GET /whoami HTTP/1.1\r\n{fields}x: y\rz: 1\r\n\r\n")),
    ] {
        refused(&server, what, &text, "400").await;
    }
    // In the second request of a connection, behind a body.
    let answer =
        say(&server, &format!("{made}GET /whoami HTTP/1.1\r\n{fields}x: y\n\r\n{hidden}")).await.unwrap();
    assert!(answer.contains("HTTP/1.1 400") && answer.matches("HTTP/1.1 ").count() == 2, "{answer}");
    still_kept(&server).await;
    server.stop().await;
}

/// A request that called itself gRPC went past the credential check, whatever it asked for: `/metrics` answered it,
/// and the other routes failed for want of a caller. Now it is no method that exists, and nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn calling_itself_grpc_opens_no_route() {
    let server = TestServer::start().await;
    for line in ["GET /metrics", "GET /nodes", "POST /buckets", "DELETE /nodes", "GET /nowhere"] {
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        let answer = say(&server, &format!("{head}content-type: application/grpc\r\n\r\n")).await.unwrap();
        assert!(answer.contains("grpc-status: 12\r\n"), "{line}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!body.contains("dfs_") && !body.contains("fs_"), "{line}: {answer}");
        let refused = say(&server, &format!("{head}\r\n")).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 401"), "{line}: {refused}");
    }
    server.stop().await;
}

/// Heads beyond the parser's own bounds, and those that only we bound.
#[tokio::test(flavor = "multi_thread")]
async fn long_heads_are_refused() {
    let server = TestServer::start().await;
    let url = |bytes: usize| {
        format!("GET /health?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(bytes))
    };
    let header = |bytes: usize| {
        format!(
            "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: {}\r\n\r\n",
            "a".repeat(bytes)
        )
    };
    let many = format!(
        "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n",
        (0..5000).map(|n| format!("x-{n}: 1\r\n")).collect::<String>()
    );
    for (what, text, status, problem) in [
        ("a short one", url(10), "200", false),
        ("URL of 20 KiB", url(20 << 10), "414", true),
        ("URL of 100 KiB", url(100 << 10), "414", false),
        ("header of 40 KiB", header(40 << 10), "431", true),
        ("header of 1 MiB", header(1 << 20), "431", false),
        ("5,000 headers", many, "431", false),
    ] {
        let answer = say(&server, &text).await.unwrap_or_else(|| panic!("{what}: the connection stays open"));
        // Told while the rest is still under way, the answer may get lost with the connection.
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || (!problem && answer.is_empty()),
            "{what}: {answer}"
        );
        assert_eq!(answer.contains("application/problem+json"), problem, "{what}: {answer}");
        assert!(!problem || answer.contains("x-request-id: "), "{what}: {answer}");
    }
    server.stop().await;
}

/// Heads that never end are given up after ten seconds, and hold up nobody meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_given_up() {
    let server = TestServer::start().await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = server.raw().await;
        stream.write_all(b"GET /files HTTP/1.1\r\nhost: x\r\nx-a: ").await.unwrap();
        slow.push(stream);
    }
    let quick = server.rest("GET", "/whoami", Some(&server.admin_key), "").await;
    assert_eq!(quick.status, 200, "{}", quick.text);
    for mut stream in slow {
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "a head that never ends is waited for");
    }
    let limit = Duration::from_millis(dfs_types::limits::HEADER_READ_DEADLINE_MS) + PATIENCE;
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    server.stop().await;
}
