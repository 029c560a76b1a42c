//! What the server says about its REST face: the OpenAPI document, docs/rest.md made from it, and that
//! both agree with what the routes do.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::TestServer;

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "patch", "head", "options"];

fn document() -> Value {
    serde_json::to_value(metadata_server::rest::document()).unwrap()
}

/// `make docs` writes the file, this test holds it to the code.
#[test]
fn the_committed_book_is_the_codes() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rest.md");
    let made = metadata_server::rest::book::markdown(&document());
    if std::env::var_os("DFS_WRITE_DOCS").is_some() {
        std::fs::write(file, &made).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap();
    assert!(committed == made, "docs/rest.md is not what the code says: `make docs` writes it anew");
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    let mut references: BTreeSet<&str> = text
        .split("\"$ref\":\"#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(references.remove("ProblemDocument"), "no error refers to its schema");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in references {
        assert!(schemas.contains_key(name), "{name} has no schema");
    }
    let mut names = BTreeSet::new();
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            assert!(names.insert(operation["operationId"].to_string()), "{at}: its name is taken");
            assert!(tags.contains(&operation["tags"][0].to_string()), "{at}: no known tag");
            assert!(operation["summary"].is_string(), "{at}: no summary");
            let open = operation["security"][0].as_object().is_some_and(|object| object.is_empty());
            let answers = operation["responses"].as_object().unwrap();
            assert_eq!(answers.contains_key("401"), !open, "{at}: 401 goes with a credential");
            assert!(answers.keys().any(|status| status.starts_with('2')), "{at}: no success");
            for (status, answer) in answers {
                let problem = answer["content"]["application/problem+json"].is_object();
                let health = path == "/health" || path == "/ready";
                assert_eq!(
                    problem,
                    status.as_str() >= "400" && !(health && status == "503"),
                    "{at} {status}"
                );
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(body.is_object(), answers.contains_key("415"), "{at}: 415 goes with a body");
            if let Some(name) = body["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
                assert_eq!(
                    schemas[name]["additionalProperties"], false,
                    "{at}: unknown fields are refused, and said to be"
                );
                assert!(schemas[name]["example"].is_object(), "{at}: the book shows an example");
            }
        }
    }
}

/// Every path takes exactly the methods that the document lists, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn routes_and_document_agree() {
    let server = TestServer::start().await;
    let key = Some(server.admin_key.as_str());
    let document = document();
    let paths: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| {
            let mut methods: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
            if methods.contains("get") {
                methods.insert("head".into());
            }
            (path.clone(), methods)
        })
        .collect();
    for wanted in [
        "/files",
        "/files/{id}",
        "/init_upload",
        "/commit_upload",
        "/nodes",
        "/nodes/{id}",
        "/chunks/{id}/locations",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
    ] {
        assert!(paths.contains_key(wanted), "{wanted} is promised");
    }
    for (path, methods) in &paths {
        // No id is like this, so nothing is found and nothing changed.
        let at = path.replace("{id}", "~").replace("{name}", "~").replace("{code}", "~");
        for method in METHODS {
            let answer = server.rest(&method.to_uppercase(), &at, key, "").await;
            let shown = format!("{method} {path}: {} {}", answer.status, answer.text);
            match (method, methods.contains(method)) {
                ("options", false) => assert_eq!(answer.status, 204, "{shown}"),
                (_, true) => {
                    assert_ne!(answer.status, 405, "{shown}");
                    continue;
                }
                (_, false) => assert_eq!(answer.status, 405, "{shown}"),
            }
            let allow = answer.headers["allow"].to_str().unwrap().to_ascii_lowercase();
            let allowed: BTreeSet<String> = allow.split(',').map(|word| word.trim().to_owned()).collect();
            assert_eq!(&allowed, methods, "{shown}");
        }
    }
    let served = server.rest("GET", "/openapi.json", None, "").await;
    assert_eq!((served.status, &served.json), (200, &document));
    server.stop().await;
}

/// Pages for people run nothing and load nothing, and need no key.
#[tokio::test(flavor = "multi_thread")]
async fn pages() {
    let server = TestServer::start().await;
    for (path, part) in [("/docs", "id=\"get-filesid\""), ("/docs/errors", "id=\"not_found\"")] {
        let page = server.rest("GET", path, None, "").await;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        assert!(page.text.contains(part), "{part} is not in {path}");
        for bad in ["<script", "src=", "http://", "@import"] {
            assert!(!page.text.contains(bad), "{bad} in {path}");
        }
        // Whatever is between angle brackets is markup of ours.
        assert!(!page.text.contains("**"), "{path}: emphasis was not read");
    }
    // The `type` of an error leads to what to do.
    let problem = server.rest("GET", "/files?prefix=/absent/", Some(&server.admin_key), "").await;
    assert_eq!(problem.status, 404, "{}", problem.text);
    let entry = server.rest("GET", problem.json["type"].as_str().unwrap(), None, "").await;
    assert_eq!(entry.status, 200);
    assert!(entry.text.starts_with("## bucket_not_found\n"), "{}", entry.text);
    assert!(entry.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let unknown = server.rest("GET", "/docs/errors/nonsense", None, "").await;
    assert_eq!((unknown.status, unknown.json["code"].as_str()), (404, Some("not_found")));
    server.stop().await;
}
