//! The REST face: the walk a person makes with curl, and what bad input gets.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chunk_format::seal::{plain_hash, seal};
use dfs_proto::v1;
use dfs_types::{RealmId, Secret, UploadId};
use serde_json::{Value, json};
use support::{TestServer, mutation};

async fn bucket(server: &TestServer, name: &str) {
    let request = v1::CreateBucketRequest { mutation: mutation(), name: name.into(), ..Default::default() };
    server.admin().create_bucket(request).await.unwrap();
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk() {
    let mut server = TestServer::start().await;
    let key = server.admin_key.clone();
    let key = Some(key.as_str());
    bucket(&server, "photos").await;
    for (name, domain) in [("n1", "a"), ("n2", "b"), ("n3", "c")] {
        server.add_node(name, domain).await;
    }

    let plan = server
        .rest("POST", "/init_upload", key, json!({"path": "/photos/cat.jpg", "size": 9_000}).to_string())
        .await;
    assert_eq!(plan.status, 201, "{}", plan.text);
    assert_eq!(plan.headers["x-request-id"], "test-1");
    let plan = plan.json;
    let chunk = &plan["chunks"][0];
    assert_eq!((&chunk["index"], &chunk["size"]), (&json!(0), &json!(9_000)));
    assert_eq!(chunk["replicas"].as_array().unwrap().len(), 2);
    let primary = text(&chunk["primary"]);
    assert!(!STANDARD.decode(text(&chunk["grants"][primary])).unwrap().is_empty());

    // What `dfsctl chunk put` does.
    let plain = vec![5u8; 9_000];
    let upload: UploadId = text(&plan["upload_id"]).parse().unwrap();
    let realm: RealmId = text(&plan["realm_id"]).parse().unwrap();
    let request = v1::PlanChunksRequest {
        upload_id: upload.to_vec().into(),
        hashes: vec![v1::PlainChunk { index: 0, plain_hash: plain_hash(&plain).to_vec().into() }],
        ..Default::default()
    };
    let answer = server.admin().plan_chunks(request).await.unwrap().into_inner();
    let secret = Secret::from_slice(&answer.secrets[0].secret).unwrap();
    let sealed = seal(&secret, &plain).unwrap();
    let receipts: Vec<String> = ["n1", "n2", "n3"]
        .iter()
        .map(|node| {
            STANDARD.encode(server.fleet.receipt(
                node,
                realm,
                upload.0,
                answer.position,
                sealed.id,
                sealed.bytes.len() as u64,
            ))
        })
        .collect();
    let commit = json!({
        "upload_id": upload.to_string(),
        "chunks": [{
            "index": 0, "chunk_id": sealed.id.to_string(), "size": 9_000,
            "secret": STANDARD.encode(secret.expose()), "receipts": receipts,
        }],
        "if_version": 0,
    });
    let done = server.rest("POST", "/commit_upload", key, commit.to_string()).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!((&done.json["copies"], &done.json["target"]), (&json!(3), &json!(3)));
    let again = server.rest("POST", "/commit_upload", key, commit.to_string()).await;
    assert_eq!((again.status, &again.json["version"]), (200, &done.json["version"]), "{}", again.text);

    let id = text(&done.json["file_id"]);
    let file = server.rest("GET", &format!("/files/{id}"), key, "").await;
    assert_eq!(file.status, 200, "{}", file.text);
    assert_eq!(file.json["path"], "/photos/cat.jpg");
    let first = &file.json["chunks"][0];
    assert_eq!(first["chunk_id"], sealed.id.to_string());
    assert_eq!(first["sealed_size"], sealed.bytes.len());
    assert_eq!(first["locations"].as_array().unwrap().len(), 3);
    assert!(text(&file.json["created_at"]).ends_with('Z'));
    assert!(!file.text.contains("secret"));

    let made = server.rest("POST", "/files", key, json!({"path": "/photos/dir/empty"}).to_string()).await;
    assert_eq!((made.status, &made.json["size"]), (201, &json!(0)), "{}", made.text);
    let copy = json!({"path": "/photos/dir/copy", "source": {"file_id": id}});
    let copied = server.rest("POST", "/files", key, copy.to_string()).await;
    assert_eq!((copied.status, &copied.json["size"]), (201, &json!(9_000)), "{}", copied.text);
    let list = server.rest("GET", "/files?prefix=/photos/&delimiter=/", key, "").await;
    assert_eq!(list.json["files"].as_array().unwrap().len(), 1);
    assert_eq!(list.json["common_prefixes"], json!(["/photos/dir/"]));
    let page = server.rest("GET", "/files?prefix=/photos/&limit=2", key, "").await;
    let cursor = text(&page.json["next_cursor"]);
    let rest = server.rest("GET", &format!("/files?prefix=/photos/&limit=2&cursor={cursor}"), key, "").await;
    assert_eq!(
        (page.json["files"].as_array().unwrap().len(), rest.json["files"].as_array().unwrap().len()),
        (2, 1)
    );

    let nodes = server.rest("GET", "/nodes", key, "").await;
    assert_eq!(nodes.json["nodes"].as_array().unwrap().len(), 3);
    let node = server.rest("GET", "/nodes/n1", key, "").await;
    assert_eq!((&node.json["state"], &node.json["is_alive"]), (&json!("up"), &json!(true)));
    let path = format!("/chunks/{}/locations", sealed.id);
    let locations = server.rest("GET", &path, key, "").await;
    assert_eq!(
        (&locations.json["present"], &locations.json["wanted"]),
        (&json!(3), &json!(3)),
        "{}",
        locations.text
    );
    let put = server.rest("PUT", &path, key, json!({"node_id": "n2"}).to_string()).await;
    assert_eq!(put.status, 200, "{}", put.text);

    let gone = server.rest("DELETE", &format!("/files/{id}"), key, "").await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let again = server.rest("DELETE", &format!("/files/{id}"), key, "").await;
    assert_eq!(again.status, 404, "{}", again.text);
    let metrics = server.rest("GET", "/metrics", key, "").await;
    assert!(metrics.text.contains("fs_operations_total"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_problem_document_and_never_a_500() {
    let server = TestServer::start().await;
    let key = Some(server.admin_key.as_str());
    bucket(&server, "photos").await;
    let long = "k".repeat(5_000);
    let deep = "[".repeat(100_000);
    let unknown = "00000000-0000-7000-8000-000000000000";
    let chunk = "ab".repeat(32);
    let receipt = STANDARD.encode([1; 80]);
    let secret = STANDARD.encode([1; 32]);
    let one = |change: &str, value: Value| {
        let mut chunk = json!({"index": 0, "chunk_id": "ab".repeat(32), "size": 1, "secret": secret, "receipts": [receipt]});
        chunk[change] = value;
        json!({"upload_id": unknown, "chunks": [chunk]}).to_string()
    };
    let cases: Vec<(&str, String, String, u16, &str)> = vec![
        ("GET", "/nowhere".into(), "".into(), 404, "not_found"),
        ("PATCH", "/files".into(), "".into(), 405, "invalid_argument"),
        ("DELETE", "/nodes".into(), "".into(), 405, "invalid_argument"),
        ("GET", "/files".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files?prefix=photos".into(), "".into(), 400, "invalid_name"),
        ("GET", "/files?prefix=/PHOTOS/".into(), "".into(), 400, "invalid_name"),
        ("GET", "/files?prefix=/../x".into(), "".into(), 400, "invalid_name"),
        ("GET", "/files?prefix=/absent/".into(), "".into(), 404, "bucket_not_found"),
        ("GET", "/files?prefix=/photos/&limit=-1".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files?prefix=/photos/&limit=0".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files?prefix=/photos/&limit=1001".into(), "".into(), 400, "invalid_argument"),
        (
            "GET",
            "/files?prefix=/photos/&limit=18446744073709551616".into(),
            "".into(),
            400,
            "invalid_argument",
        ),
        ("GET", "/files?prefix=/photos/&cursor=zz".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files?prefix=/photos/&colour=red".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files?prefix=/photos/&prefix=/photos/".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files?prefix=/photos/%ff".into(), "".into(), 400, "invalid_argument"),
        ("GET", format!("/files?prefix=/photos/{long}"), "".into(), 400, "invalid_argument"),
        ("GET", format!("/files?prefix=/photos/&delimiter={long}"), "".into(), 400, "invalid_argument"),
        ("GET", "/files/7".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/files/%ff".into(), "".into(), 400, "invalid_argument"),
        ("GET", format!("/files/{unknown}"), "".into(), 404, "not_found"),
        ("GET", format!("/files/{unknown}?version=-1"), "".into(), 400, "invalid_argument"),
        ("DELETE", format!("/files/{unknown}"), "".into(), 404, "not_found"),
        ("POST", "/files".into(), "".into(), 400, "invalid_argument"),
        ("POST", "/files".into(), "{".into(), 400, "invalid_argument"),
        ("POST", "/files".into(), "[]".into(), 400, "invalid_argument"),
        ("POST", "/files".into(), deep, 400, "invalid_argument"),
        (
            "POST",
            "/files".into(),
            r#"{"path":"/photos/a","path":"/photos/b"}"#.into(),
            400,
            "invalid_argument",
        ),
        ("POST", "/files".into(), r#"{"path":"/photos/a","owner":"me"}"#.into(), 400, "invalid_argument"),
        ("POST", "/files".into(), r#"{"path":"/photos/a\u0000b"}"#.into(), 400, "invalid_name"),
        (
            "POST",
            "/files".into(),
            json!({"path": format!("/photos/{long}")}).to_string(),
            400,
            "invalid_name",
        ),
        ("POST", "/files".into(), json!({"path": "/photos/"}).to_string(), 400, "invalid_name"),
        (
            "POST",
            "/files".into(),
            json!({"path": "/photos/a", "if_version": 7}).to_string(),
            412,
            "version_mismatch",
        ),
        (
            "POST",
            "/files".into(),
            json!({"path": "/photos/a", "source": {"file_id": unknown}}).to_string(),
            404,
            "not_found",
        ),
        ("POST", "/files".into(), "x".repeat(5 << 20), 413, "limit_exceeded"),
        ("POST", "/init_upload".into(), json!({"path": "/photos/a"}).to_string(), 400, "invalid_argument"),
        (
            "POST",
            "/init_upload".into(),
            json!({"path": "/photos/a", "size": -1}).to_string(),
            400,
            "invalid_argument",
        ),
        (
            "POST",
            "/init_upload".into(),
            r#"{"path":"/photos/a","size":18446744073709551616}"#.into(),
            400,
            "invalid_argument",
        ),
        (
            "POST",
            "/init_upload".into(),
            json!({"path": "/photos/a", "size": u64::MAX}).to_string(),
            413,
            "limit_exceeded",
        ),
        (
            "POST",
            "/init_upload".into(),
            json!({"path": "/photos/a", "size": 1, "policy": {"target": 99}}).to_string(),
            400,
            "invalid_argument",
        ),
        (
            "POST",
            "/init_upload".into(),
            json!({"path": "/absent/a", "size": 1}).to_string(),
            404,
            "bucket_not_found",
        ),
        (
            "POST",
            "/init_upload".into(),
            json!({"path": "/photos/a", "size": 1}).to_string(),
            503,
            "not_enough_nodes",
        ),
        (
            "POST",
            "/init_upload".into(),
            json!({"upload_id": unknown, "size": 1}).to_string(),
            404,
            "upload_not_found",
        ),
        (
            "POST",
            "/commit_upload".into(),
            json!({"upload_id": unknown, "chunks": []}).to_string(),
            404,
            "upload_not_found",
        ),
        (
            "POST",
            "/commit_upload".into(),
            json!({"upload_id": "x", "chunks": []}).to_string(),
            400,
            "invalid_argument",
        ),
        ("POST", "/commit_upload".into(), one("index", json!(1)), 409, "manifest_mismatch"),
        ("POST", "/commit_upload".into(), one("index", json!(-1)), 400, "invalid_argument"),
        ("POST", "/commit_upload".into(), one("chunk_id", json!("zz")), 400, "invalid_argument"),
        ("POST", "/commit_upload".into(), one("secret", json!("?")), 400, "invalid_argument"),
        ("POST", "/commit_upload".into(), one("receipts", json!(["?"])), 400, "invalid_argument"),
        ("POST", "/commit_upload".into(), one("size", json!(u64::MAX)), 413, "limit_exceeded"),
        ("GET", "/nodes/N1".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/nodes/n9".into(), "".into(), 404, "node_not_found"),
        ("GET", "/nodes?x=1".into(), "".into(), 400, "invalid_argument"),
        ("GET", "/chunks/ab/locations".into(), "".into(), 400, "invalid_argument"),
        ("GET", format!("/chunks/{chunk}/locations"), "".into(), 404, "chunk_not_found"),
        ("GET", format!("/chunks/{chunk}/locations?file_id={unknown}"), "".into(), 404, "not_found"),
        ("PUT", format!("/chunks/{chunk}/locations"), "{}".into(), 400, "invalid_argument"),
        (
            "PUT",
            format!("/chunks/{chunk}/locations"),
            json!({"node_id": "n1"}).to_string(),
            404,
            "chunk_not_found",
        ),
    ];
    let open = async || server.rest("GET", "/cluster", key, "").await.json["uploads_open"].clone();
    let open_before = open().await;
    for (method, path, body, status, code) in cases {
        let shown: String = path.chars().take(80).collect();
        let answer = server.rest(method, &path, key, body).await;
        assert_eq!(
            (answer.status, answer.json["code"].as_str()),
            (status, Some(code)),
            "{method} {shown}: {}",
            answer.text
        );
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{method} {shown}");
        assert_eq!(answer.json["status"], status, "{method} {shown}");
        assert_eq!(answer.json["request_id"], "test-1", "{method} {shown}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{method} {shown}");
        for field in ["type", "title", "detail"] {
            assert!(answer.json[field].is_string(), "{method} {shown}: {field}");
        }
        if status >= 500 {
            assert_eq!(code, "not_enough_nodes", "{method} {shown}");
        }
    }
    // An upload whose plan failed was begun all the same, and nobody was told its id.
    assert_eq!(open().await, open_before, "an upload is left");
    server.stop().await;
}
