//! The `object_store` trait on a real cluster: that crate's own tests of behaviour, each in a bucket of
//! its own, and what they leave out.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use dfs_client::{BucketOptions, Client};
use dfs_object_store::DfsObjectStore;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, TagSet, integration,
};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;

pub const BEHAVIOUR: Scenario = Scenario {
    name: "object-store",
    about: "the object_store crate's integration tests, races, aborts and lost uploads, through the SDK",
    run: behaviour,
};

type Check = fn(Arc<DfsObjectStore>) -> BoxFuture<'static, ()>;

macro_rules! published {
    ($($name:ident $(, $more:expr)*;)*) => {
        &[$((stringify!($name), |store| Box::pin(async move {
            integration::$name(store.as_ref() $(, $more)*).await;
        }) as BoxFuture<'static, ()>),)*]
    };
}

/// They panic when something is not as it should be.
const PUBLISHED: &[(&str, Check)] = published! {
    put_get_delete_list;
    put_get_attributes;
    get_opts;
    put_opts, true;
    stream_get;
    list_uses_directories_correctly;
    list_with_delimiter;
    list_with_offset_exclusivity;
    rename_and_copy;
    copy_if_not_exists;
    copy_rename_nonexistent_object;
    multipart_race_condition, true;
    multipart_out_of_order;
};

/// Those that want the store twice, or tell by what they return.
const PUBLISHED_TWICE: &[(&str, Check)] = &[
    ("multipart", |store| Box::pin(async move { integration::multipart(&*store, &*store).await })),
    ("multipart_with_opts", |store| {
        Box::pin(async move { integration::multipart_with_opts(&*store, &*store).await })
    }),
    ("multipart_put_part_out_of_order", |store| {
        Box::pin(async move { integration::multipart_put_part_out_of_order(&*store, &*store).await })
    }),
    ("list_paginated", |store| Box::pin(async move { integration::list_paginated(&*store, &*store).await })),
    ("get_nonexistent_object", |store| {
        Box::pin(async move {
            let answer = integration::get_nonexistent_object(&*store, None).await;
            assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
        })
    }),
];

fn behaviour(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let config = cluster.data_dir().join("dfsctl.toml");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seed = context.seed;
    let outcome = runtime.block_on(async {
        let client = Client::from_config_file(config).await?;
        let mut number = 0;
        for (name, check) in PUBLISHED.iter().chain(PUBLISHED_TWICE) {
            let store = fresh(&client, &mut number).await?;
            // A task of its own, so that a panic is this check's failure and not the scenario's end.
            tokio::spawn(check(store)).await.with_context(|| format!("integration::{name}"))?;
        }
        one_of_many_creates_wins(fresh(&client, &mut number).await?).await.context("creates")?;
        what_is_not_completed_is_not_there(fresh(&client, &mut number).await?).await.context("aborts")?;
        changes_say_what_they_found(fresh(&client, &mut number).await?).await.context("changes")?;
        ranges(fresh(&client, &mut number).await?, seed).await.context("ranges")?;
        odd_keys(fresh(&client, &mut number).await?).await.context("odd keys")?;
        nobody_and_nowhere(&client).await.context("errors")
    });
    runtime.shutdown_background();
    outcome.map_err(|error: anyhow::Error| error.context(cluster.log_tails(20)))
}

async fn fresh(client: &Client, number: &mut u32) -> Result<Arc<DfsObjectStore>> {
    *number += 1;
    let bucket = format!("store-{number}");
    client.create_bucket(&bucket, BucketOptions::default()).await?;
    Ok(Arc::new(DfsObjectStore::new(client.clone(), bucket)))
}

async fn names(store: &DfsObjectStore) -> Result<Vec<String>> {
    Ok(store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await?)
}

/// Small and large content alike: the condition is decided where the name is.
async fn one_of_many_creates_wins(store: Arc<DfsObjectStore>) -> Result<()> {
    for (name, length) in [("small", 10), ("large", 100_000)] {
        let location = Path::from(name);
        let puts = (0..8u8).map(|n| {
            let (store, location) = (store.clone(), location.clone());
            async move {
                let payload = PutPayload::from(vec![n; length]);
                (n, store.put_opts(&location, payload, PutMode::Create.into()).await)
            }
        });
        let mut won = Vec::new();
        for (n, answer) in futures::future::join_all(puts).await {
            match answer {
                Ok(_) => won.push(n),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(won.len() == 1, "{name}: {won:?} all created it");
        let content = store.get(&location).await?.bytes().await?;
        ensure!(content == vec![won[0]; length], "{name}: not what the winner put");
    }
    Ok(())
}

/// Dropped, aborted, or abandoned: an upload without `complete` leaves no file, and a part too few is
/// never a shorter file.
async fn what_is_not_completed_is_not_there(store: Arc<DfsObjectStore>) -> Result<()> {
    let part = || PutPayload::from(vec![7u8; 5 << 20]);
    let (dropped, aborted, empty) = (Path::from("dropped"), Path::from("aborted"), Path::from("empty"));
    let mut upload = store.put_multipart(&dropped).await?;
    upload.put_part(part()).await?;
    drop(upload);
    let mut upload: Box<dyn MultipartUpload> = store.put_multipart(&aborted).await?;
    upload.put_part(part()).await?;
    upload.abort().await?;
    ensure!(upload.put_part(part()).await.is_err(), "a part after the abort");
    ensure!(upload.complete().await.is_err(), "a complete after the abort");
    let id = store.create_multipart(&aborted).await?;
    let sent = store.put_part(&aborted, &id, 0, part()).await?;
    ensure!(store.complete_multipart(&dropped, &id, vec![sent.clone()]).await.is_err(), "another path");
    store.abort_multipart(&aborted, &id).await?;
    let late = store.complete_multipart(&aborted, &id, vec![sent]).await;
    ensure!(matches!(late, Err(Error::NotFound { .. })), "a complete after the abort: {late:?}");
    ensure!(names(&store).await?.is_empty(), "{:?}", names(&store).await?);
    store.put_multipart(&empty).await?.complete().await?;
    ensure!(store.head(&empty).await?.size == 0);
    Ok(())
}

async fn changes_say_what_they_found(store: Arc<DfsObjectStore>) -> Result<()> {
    let (a, b) = (Path::from("a"), Path::from("b"));
    store.put(&a, "a".into()).await?;
    store.put(&b, "b".into()).await?;
    let create = CopyOptions::new().with_mode(CopyMode::Create);
    let taken = store.copy_opts(&a, &b, create).await;
    ensure!(matches!(taken, Err(Error::AlreadyExists { ref path, .. }) if path == "b"), "{taken:?}");
    let taken = store.rename_if_not_exists(&a, &b).await;
    ensure!(matches!(taken, Err(Error::AlreadyExists { ref path, .. }) if path == "b"), "{taken:?}");
    ensure!(names(&store).await? == ["a", "b"], "refused changes changed something");
    // Onto itself: whatever the answer, the content stays.
    let (copied, renamed) = (store.copy(&a, &a).await, store.rename(&a, &a).await);
    let content = store.get(&a).await.with_context(|| format!("{copied:?} {renamed:?}"))?.bytes().await?;
    ensure!(content == "a", "copied or renamed onto itself: {content:?}");
    store.rename_if_not_exists(&a, &Path::from("c")).await?;
    ensure!(names(&store).await? == ["b", "c"]);
    let tagged: PutOptions = {
        let mut tags = TagSet::default();
        tags.push("team", "blue");
        tags.into()
    };
    let refused = store.put_opts(&a, "a".into(), tagged).await;
    ensure!(matches!(refused, Err(Error::NotImplemented { .. })), "tags: {refused:?}");
    Ok(())
}

/// Every range of one file is of one version, whatever is put meanwhile.
async fn ranges(store: Arc<DfsObjectStore>, seed: u64) -> Result<()> {
    let location = Path::from("ranges");
    let length = 9 << 20;
    let versions: Vec<Bytes> =
        ["x", "y"].iter().map(|label| content::bytes(seed, label, length).into()).collect();
    store.put(&location, versions[0].clone().into()).await?;
    let wanted: Vec<_> = (0..20u64).map(|n| (n * 400_000)..(n * 400_000 + 70_000)).collect();
    let writer = async {
        for n in 0..6 {
            store.put(&location, versions[(n + 1) % 2].clone().into()).await?;
        }
        Ok::<_, Error>(())
    };
    let reader = async {
        for _ in 0..6 {
            let parts = store.get_ranges(&location, &wanted).await?;
            let of = |version: &Bytes| {
                wanted
                    .iter()
                    .zip(&parts)
                    .all(|(range, part)| version.slice(range.start as usize..range.end as usize) == *part)
            };
            ensure!(versions.iter().any(of), "ranges of two versions in one answer");
        }
        Ok(())
    };
    let (wrote, read) = tokio::join!(writer, reader);
    wrote?;
    read
}

/// Keys that other clients made and that no `Path` can say: an error, not a file left out.
async fn odd_keys(store: Arc<DfsObjectStore>) -> Result<()> {
    let odd = format!("/{}/a//b", store.bucket());
    store.client().put(&odd, "odd", Default::default()).await?;
    ensure!(names(&store).await.is_err(), "a key that is no location was left out");
    store.client().delete(&odd, Default::default(), true).await?;
    ensure!(names(&store).await?.is_empty());
    Ok(())
}

async fn nobody_and_nowhere(client: &Client) -> Result<()> {
    let nowhere = DfsObjectStore::new(client.clone(), "nowhere");
    let answer = nowhere.put(&Path::from("a"), "a".into()).await;
    ensure!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    let answer = nowhere.list_with_delimiter(None).await;
    ensure!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    let mut upload = nowhere.put_multipart(&Path::from("a")).await?;
    let _ = upload.put_part("a".into()).await;
    let answer = upload.complete().await;
    ensure!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    let mut config = client.config().clone();
    config.api_key = format!("dfs_{}_{}", "00".repeat(16), "00".repeat(32)).into();
    let stranger = DfsObjectStore::new(Client::connect(config).await?, "store-1");
    let answer = stranger.get(&Path::from("a")).await;
    ensure!(matches!(answer, Err(Error::Unauthenticated { .. })), "{answer:?}");
    Ok(())
}
