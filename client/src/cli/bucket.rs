//! `dfsctl bucket`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{CliError, Context, format, table};
use crate::{BucketOptions, Client, ErrorCode, Policy, v1};

/// Create, list, show, change and remove buckets
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl bucket create photos\n  dfsctl bucket create scratch --copies 1 --keep 0\n  dfsctl bucket set photos --keep 7d"
)]
pub(crate) struct BucketArgs {
    #[command(subcommand)]
    command: BucketCommand,
}

#[derive(Subcommand, Debug)]
enum BucketCommand {
    /// Make a bucket
    Create {
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Whose chunks may be stored once: the owner's, everybody's, or none
        #[arg(long, value_enum, default_value_t = Realm::Private)]
        realm: Realm,
    },
    /// List buckets
    Ls,
    /// Show a bucket
    Show { name: String },
    /// Change what new versions get
    Set {
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove an empty bucket
    Rm { name: String },
}

#[derive(clap::Args, Debug)]
struct Settings {
    /// Copies of each chunk, 1 to 16
    #[arg(long, value_name = "N")]
    copies: Option<u32>,
    /// Copies that must be durable before a put is acknowledged
    #[arg(long, value_name = "N", requires = "copies")]
    min_ack: Option<u32>,
    /// How long older versions and deleted files are kept: 24h, 7d, 0
    #[arg(long, value_name = "TIME", value_parser = format::parse_keep)]
    keep: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Realm {
    Private,
    Shared,
    None,
}

impl Settings {
    fn options(&self) -> BucketOptions {
        let min_ack = self.min_ack.unwrap_or(0);
        BucketOptions {
            policy: self.copies.map(|target| Policy { target, min_ack }),
            keep_ms: self.keep,
            ..Default::default()
        }
    }
}

pub(crate) async fn run(args: BucketArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    match args.command {
        BucketCommand::Create { name, settings, realm } => {
            let realm = match realm {
                Realm::Private => v1::RealmKind::Private,
                Realm::Shared => v1::RealmKind::Shared,
                Realm::None => v1::RealmKind::None,
            };
            let bucket = client.create_bucket(&name, BucketOptions { realm, ..settings.options() }).await?;
            context.output.result(&bucket_json(&bucket), || format!("dfs://{}/", bucket.name))
        }
        BucketCommand::Ls => list(&client, context).await,
        BucketCommand::Show { name } => show(&client.bucket(&name).await?, context),
        BucketCommand::Set { name, settings } => {
            if settings.copies.is_none() && settings.keep.is_none() {
                return Err(CliError::usage("nothing to change: give --copies or --keep"));
            }
            show(&client.set_bucket(&name, settings.options()).await?, context)
        }
        BucketCommand::Rm { name } => {
            let done = client.delete_bucket(&name).await.map_err(|error| {
                CliError::hinted(error, ErrorCode::BucketNotEmpty, || {
                    format!(
                        "`dfsctl rm -r --purge dfs://{name}/` empties it for good, deleted files that are kept too"
                    )
                })
            })?;
            context.output.result(&json!({ "name": name, "position": done.position }), String::new)
        }
    }
}

pub(crate) async fn list(client: &Client, context: &Context) -> Result<(), CliError> {
    let buckets = client.buckets().await?;
    let value = json!({ "buckets": buckets.iter().map(bucket_json).collect::<Vec<_>>() });
    context.output.result(&value, || {
        if buckets.is_empty() {
            context.output.note("there is no bucket yet: dfsctl bucket create NAME");
            return String::new();
        }
        buckets.iter().map(|bucket| format!("dfs://{}/", bucket.name)).collect::<Vec<_>>().join("\n")
    })
}

fn show(bucket: &v1::Bucket, context: &Context) -> Result<(), CliError> {
    let value = bucket_json(bucket);
    context.output.result(&value, || {
        let fields = ["name", "bucket_id", "target", "min_ack", "keep", "realm", "owner", "created_at"];
        let text =
            |field: &str| value[field].as_str().map_or_else(|| value[field].to_string(), str::to_owned);
        table::fields(fields.map(|field| [field.to_owned(), text(field)]))
    })
}

fn bucket_json(bucket: &v1::Bucket) -> Value {
    let policy = Policy::resolved(bucket.policy);
    let realm = match v1::RealmKind::try_from(bucket.realm) {
        Ok(v1::RealmKind::Shared) => "shared",
        Ok(v1::RealmKind::None) => "none",
        Ok(v1::RealmKind::Private | v1::RealmKind::Unspecified) | Err(_) => "private",
    };
    json!({
        "name": bucket.name,
        "bucket_id": format::id(&bucket.bucket_id),
        "target": policy.target,
        "min_ack": policy.min_ack,
        "keep_ms": bucket.keep_ms,
        "keep": indicatif::HumanDuration(std::time::Duration::from_millis(bucket.keep_ms)).to_string(),
        "realm": realm,
        "owner": format::id(&bucket.owner),
        "created_at": format::time(bucket.created_unix_ms),
    })
}
