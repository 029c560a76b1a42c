//! The rendered manifests of k8s/, read into the typed bindings of the Kubernetes API and written again:
//! whatever the types do not know (a misspelt field, a value of another type) is lost on the way or
//! refused, so what comes out must say what went in. `scripts/k8s.sh check` does the rest: schemas of three
//! versions, rules of our own, and that these files are what the overlays render to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s")
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What typed reading and writing makes of it.
fn through<T: DeserializeOwned + Serialize>(document: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(&typed).map_err(|error| error.to_string())
}

fn round_trip(document: &Value) -> Result<Value, String> {
    match document["kind"].as_str().unwrap_or_default() {
        "ConfigMap" => through::<ConfigMap>(document),
        "Namespace" => through::<Namespace>(document),
        "NetworkPolicy" => through::<NetworkPolicy>(document),
        "Pod" => through::<Pod>(document),
        "PodDisruptionBudget" => through::<PodDisruptionBudget>(document),
        "Service" => through::<Service>(document),
        "ServiceAccount" => through::<ServiceAccount>(document),
        "StatefulSet" => through::<StatefulSet>(document),
        // The Prometheus operator's own kind; `k8s/check.py` looks at it.
        "ServiceMonitor" => Ok(document.clone()),
        other => Err(format!("the kind {other:?} is not looked at: add it here")),
    }
}

#[test]
fn manifests_say_the_same_after_the_typed_bindings() {
    let mut kinds = BTreeMap::<String, u32>::new();
    for file in ["rendered/small.yaml", "rendered/production.yaml", "rendered/zones.yaml", "client/pod.yaml"]
    {
        for document in documents(&folder().join(file)) {
            let name = format!("{file}: {} {}", document["kind"], document["metadata"]["name"]);
            let again = round_trip(&document).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(again, document, "{name} says something else after reading and writing");
            *kinds.entry(document["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(kinds["StatefulSet"], 6, "{kinds:?}");
    assert_eq!(kinds["PodDisruptionBudget"], 6, "{kinds:?}");
    assert!(!kinds.contains_key("Secret"), "no key is kept in a manifest");
}

/// The round trip finds what it is for.
#[test]
fn a_misspelt_field_and_a_wrong_type_do_not_come_through() {
    let all = documents(&folder().join("rendered/small.yaml"));
    let stateful_set = all.iter().find(|document| document["kind"] == "StatefulSet").unwrap();
    let mut misspelt = stateful_set.clone();
    misspelt["spec"]["podManagmentPolicy"] = "Parallel".into();
    assert_ne!(round_trip(&misspelt).unwrap(), misspelt);
    let mut wrong = stateful_set.clone();
    wrong["spec"]["replicas"] = "three".into();
    assert!(round_trip(&wrong).is_err());
}

/// An image of another version than the programs would be found only in the cluster.
#[test]
fn images_have_the_version_of_this_source() {
    let tag = format!(":{}", env!("CARGO_PKG_VERSION"));
    for file in ["rendered/small.yaml", "rendered/production.yaml", "client/pod.yaml"] {
        for document in documents(&folder().join(file)) {
            let pod = match document["kind"].as_str() {
                Some("StatefulSet") => &document["spec"]["template"]["spec"],
                Some("Pod") => &document["spec"],
                _ => continue,
            };
            let image = pod["containers"][0]["image"].as_str().unwrap();
            assert!(image.ends_with(&tag), "{file}: {image}");
        }
    }
}
