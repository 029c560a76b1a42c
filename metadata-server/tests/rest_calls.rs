//! REST calls beyond the walk: conditions, buckets, versions, renames, uploads, what every answer carries;
//! and that a follower answers as the leader does.

mod support;

use serde_json::{Value, json};
use support::{Answer, TestCluster, TestServer};

async fn with(
    server: &TestServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Answer {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {}", server.admin_key));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.send(request.body(tonic::body::Body::new(axum::body::Body::from(body))).unwrap()).await
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions() {
    let server = TestServer::start().await;
    let call = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        with(&server, method, path, headers, body).await
    };
    assert_eq!(call("POST", "/buckets", &[], json!({"name": "photos"})).await.status, 201);
    let file = json!({"path": "/photos/a"});
    let first = call("POST", "/files", &[("if-none-match", "*")], file.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let (id, one) = (first.json["file_id"].as_str().unwrap().to_owned(), etag(&first));
    assert_eq!(one, format!("\"{}\"", first.json["version"]));
    let taken = call("POST", "/files", &[("if-none-match", "*")], file.clone()).await;
    assert_eq!((taken.status, taken.json["code"].as_str()), (412, Some("version_mismatch")));
    assert_eq!(
        call("POST", "/files", &[("if-match", "*")], json!({"path": "/photos/absent"})).await.status,
        412
    );

    let at = format!("/files/{id}");
    let same = call("GET", &at, &[("if-none-match", &one)], Value::Null).await;
    assert_eq!((same.status, same.text.as_str(), etag(&same)), (304, "", one.clone()));
    let second = call("POST", "/files", &[("if-match", &one)], file.clone()).await;
    assert_eq!(second.status, 201, "{}", second.text);
    let two = etag(&second);
    let changed = call("GET", &at, &[("if-none-match", &one)], Value::Null).await;
    assert_eq!((changed.status, etag(&changed)), (200, two.clone()));
    let by_path = call("GET", "/stat?path=/photos/a", &[("if-match", &two)], Value::Null).await;
    assert_eq!((by_path.status, &by_path.json), (200, &changed.json));
    assert_eq!(call("GET", &at, &[("if-match", &one)], Value::Null).await.status, 412);
    assert_eq!(call("GET", &at, &[("if-match", "nonsense")], Value::Null).await.status, 400);
    let head = call("HEAD", &at, &[], Value::Null).await;
    assert_eq!((head.status, head.text.as_str(), etag(&head)), (200, "", two.clone()));

    let to = json!({"path": "/photos/b"});
    assert_eq!(call("POST", &format!("{at}/rename"), &[("if-match", &one)], to.clone()).await.status, 412);
    let renamed = call("POST", &format!("{at}/rename"), &[("if-match", &two)], to).await;
    assert_eq!((renamed.status, &renamed.json["path"]), (200, &json!("/photos/b")), "{}", renamed.text);
    assert_eq!(renamed.json["file_id"], id.as_str());
    let versions = call("GET", &format!("{at}/versions?limit=1"), &[], Value::Null).await;
    assert_eq!(versions.status, 200, "{}", versions.text);
    assert_eq!(versions.json["versions"].as_array().unwrap().len(), 1);
    assert!(versions.json["next_cursor"].is_string(), "{}", versions.text);

    let now = etag(&call("GET", &at, &[], Value::Null).await);
    assert_eq!(call("DELETE", &at, &[("if-match", &one)], Value::Null).await.status, 412);
    assert_eq!(call("DELETE", &at, &[("if-none-match", &now)], Value::Null).await.status, 412);
    let contradiction =
        call("DELETE", &format!("{at}?if_version=1"), &[("if-match", &now)], Value::Null).await;
    assert_eq!(contradiction.status, 400, "{}", contradiction.text);
    assert_eq!(call("DELETE", &at, &[("if-match", &now)], Value::Null).await.status, 200);
    assert_eq!(call("POST", &format!("{at}/rename"), &[], json!({"path": "/photos/c"})).await.status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_and_uploads() {
    let mut server = TestServer::start().await;
    for (name, domain) in [("n1", "a"), ("n2", "b"), ("n3", "c")] {
        server.add_node(name, domain).await;
    }
    let call = async |method: &str, path: &str, body: Value| with(&server, method, path, &[], body).await;
    let made = call(
        "POST",
        "/buckets",
        json!({"name": "one", "keep_ms": 5, "realm": "none", "policy": {"target": 2}}),
    )
    .await;
    assert_eq!(
        (made.status, &made.json["realm"], &made.json["keep_ms"]),
        (201, &json!("none"), &json!(5)),
        "{}",
        made.text
    );
    assert_eq!(made.json["policy"], json!({"target": 2, "min_ack": 2}));
    assert_eq!(call("POST", "/buckets", json!({"name": "one"})).await.status, 409);
    assert_eq!(call("POST", "/buckets", json!({"name": "two"})).await.status, 201);
    assert_eq!(call("POST", "/buckets", json!({"name": "No"})).await.json["code"], "invalid_name");
    assert_eq!(call("POST", "/buckets", json!({"name": "three", "realm": "evil"})).await.status, 400);
    let page = call("GET", "/buckets?limit=1", Value::Null).await;
    assert_eq!(page.json["buckets"][0]["name"], "one", "{}", page.text);
    let cursor = page.json["next_cursor"].as_str().unwrap();
    let rest = call("GET", &format!("/buckets?limit=1&cursor={cursor}"), Value::Null).await;
    assert_eq!(rest.json["buckets"][0]["name"], "two", "{}", rest.text);
    let set = call("PATCH", "/buckets/two", json!({"keep_ms": 7})).await;
    assert_eq!((set.status, &set.json["keep_ms"]), (200, &json!(7)), "{}", set.text);

    let begun = call("POST", "/init_upload", json!({"path": "/two/f", "size": 9})).await;
    assert_eq!(begun.status, 201, "{}", begun.text);
    let at = format!("/uploads/{}", begun.json["upload_id"].as_str().unwrap());
    let shown = call("GET", &at, Value::Null).await;
    assert_eq!((shown.status, &shown.json["path"], &shown.json["size"]), (200, &json!("/two/f"), &json!(9)));
    assert_eq!(call("DELETE", &at, Value::Null).await.status, 200);
    assert_eq!(call("GET", &at, Value::Null).await.json["code"], "upload_not_found");

    assert_eq!(call("POST", "/files", json!({"path": "/two/f"})).await.status, 201);
    assert_eq!(call("DELETE", "/buckets/two", Value::Null).await.json["code"], "bucket_not_empty");
    assert_eq!(call("DELETE", "/buckets/one", Value::Null).await.status, 200);
    assert_eq!(call("GET", "/buckets/one", Value::Null).await.json["code"], "bucket_not_found");
    let status = call("GET", "/cluster", Value::Null).await;
    assert_eq!((&status.json["leader"], &status.json["files"]), (&json!("m1"), &json!(1)), "{}", status.text);
    assert_eq!(call("GET", "/cluster/members", Value::Null).await.json["members"][0]["name"], "m1");
    assert_eq!(call("GET", "/whoami", Value::Null).await.json["role"], "admin");
    server.stop().await;
}

/// What every answer carries, and what is refused before a handler runs.
#[tokio::test(flavor = "multi_thread")]
async fn heads() {
    let server = TestServer::start().await;
    let call = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        with(&server, method, path, headers, body).await
    };
    let body = json!({"name": "abc"});
    for (headers, status) in [
        (vec![("accept", "text/html")], 406),
        (vec![("content-type", "text/plain")], 415),
        (vec![("content-type", "application/xml")], 415),
        (vec![("content-encoding", "gzip")], 415),
        (vec![("content-type", "application/json; charset=utf-8"), ("accept", "text/html, */*;q=0.1")], 201),
    ] {
        let answer = call("POST", "/buckets", &headers, body.clone()).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
        assert!(status < 400 || answer.headers["content-type"] == "application/problem+json");
        assert_eq!(answer.headers["x-request-id"].len(), 36, "{headers:?}");
    }
    // Nothing is told to pages of other origins, and no proxy is believed.
    for origin in ["https://evil.example", "null"] {
        for method in ["GET", "OPTIONS"] {
            let headers = [
                ("origin", origin),
                ("access-control-request-method", "DELETE"),
                ("x-forwarded-for", "10.0.0.1"),
            ];
            let answer = call(method, "/buckets", &headers, Value::Null).await;
            assert!(answer.status < 300, "{}", answer.text);
            assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")));
        }
    }
    // Only what says nothing about what is stored is open.
    for (path, open) in [
        ("/health", true),
        ("/ready", true),
        ("/openapi.json", true),
        ("/docs", true),
        ("/docs/errors", true),
        ("/metrics", false),
        ("/nodes", false),
        ("/whoami", false),
        ("/nothing", false),
        ("/debug", false),
    ] {
        let answer = server.rest("GET", path, None, "").await;
        assert_eq!(answer.status == 200, open, "{path}: {}", answer.text);
        assert!(
            open || (answer.status == 401 && answer.json["code"] == "unauthenticated"),
            "{path}: {}",
            answer.text
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
    }
    let health = server.rest("GET", "/health", None, "").await;
    let fields: Vec<_> = health.json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["build", "id", "role", "status", "version"]);
    server.stop().await;
}

/// Every member answers, with what was written a moment before through another.
#[tokio::test(flavor = "multi_thread")]
async fn followers_answer_as_the_leader_does() {
    let cluster = TestCluster::start(3).await;
    let made = with(&cluster.servers[0], "POST", "/buckets", &[], json!({"name": "all"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for (n, server) in cluster.servers.iter().enumerate() {
        let path = json!({"path": format!("/all/{n}")});
        let made = with(server, "POST", "/files", &[("if-none-match", "*")], path.clone()).await;
        assert_eq!(made.status, 201, "m{}: {}", n + 1, made.text);
        for (m, other) in cluster.servers.iter().enumerate() {
            let list = with(other, "GET", "/files?prefix=/all/", &[], Value::Null).await;
            assert_eq!(list.json["files"].as_array().unwrap().len(), n + 1, "m{}: {}", m + 1, list.text);
            let taken = with(other, "POST", "/files", &[("if-none-match", "*")], path.clone()).await;
            assert_eq!(taken.status, 412, "m{}: {}", m + 1, taken.text);
        }
    }
    for server in cluster.servers {
        server.stop().await;
    }
}
