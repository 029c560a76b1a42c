//! `dfsctl pki`: everything secret that a cluster on several machines, in containers or in Kubernetes
//! begins with: its authority, a certificate for each server, the master key, the first admin's key.
//!
//! One folder a server, with just what that server may know (see [`folder`]). Nothing is ever
//! overwritten but by `issue --renew`. Talks to no server.

mod folder;
mod make;
mod names;

use std::path::PathBuf;

use serde::Serialize;

use super::{CliError, Context};
use folder::Folder;
pub(super) use make::Secrets;
use names::ServerName;

const EXAMPLES: &str = "\
Examples:
  dfsctl pki init secrets --metadata m1=m1.example:8080,m2=m2.example:8080,m3=m3.example:8080 \\
      --chunk-server n1=n1.example,n2=n2.example,n3=n3.example
  scp -r secrets/m1 m1.example:/etc/dfs
  dfsctl --config secrets/client/dfsctl.toml cluster status
  dfsctl pki issue secrets --chunk-server n4=n4.example
  dfsctl pki issue secrets --renew --metadata m1=m1.example";

/// Make a cluster's keys and certificates
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct PkiArgs {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(clap::Subcommand, Debug)]
enum PkiCommand {
    /// Make a new cluster's authority, master key, admin key and the servers' certificates
    ///
    /// DIR/NAME is then what the server NAME needs: ca.pem, cert.pem, key.pem, for metadata servers
    /// also master.key and admin.key. DIR/client has a dfsctl.toml for whoever holds the admin key.
    /// DIR/authority has the originals and ca.key: keep it off the servers, and back it up.
    #[command(after_help = EXAMPLES)]
    Init(InitArgs),
    /// Make certificates for more servers of a cluster whose authority is in DIR
    #[command(after_help = EXAMPLES)]
    Issue(IssueArgs),
}

#[derive(clap::Args, Debug)]
struct InitArgs {
    #[command(flatten)]
    servers: ServerArgs,
    /// Keep what is there already and make what is missing, so that this can be run again
    #[arg(long)]
    keep: bool,
}

#[derive(clap::Args, Debug)]
struct IssueArgs {
    #[command(flatten)]
    servers: ServerArgs,
    /// Replace certificates and private keys that are there already
    #[arg(long)]
    renew: bool,
}

#[derive(clap::Args, Debug)]
struct ServerArgs {
    /// Folder of keys and certificates
    dir: PathBuf,
    /// Metadata servers and the address each is reached at [default port: 8080]
    #[arg(long, value_name = "NAME=HOST[:PORT]", value_delimiter = ',')]
    metadata: Vec<String>,
    /// Chunk servers and the host each is reached at
    #[arg(long = "chunk-server", value_name = "NAME=HOST", value_delimiter = ',')]
    chunk_servers: Vec<String>,
    /// Another host name or IP address that the certificates made now are valid for
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    also: Vec<String>,
    /// Let this process's group read the servers' folders too, for servers that run as another user of
    /// that group (they accept such a key only if it belongs to root)
    #[arg(long)]
    group_read: bool,
}

/// What was made, or found.
#[derive(Serialize)]
struct Report {
    cluster_id: String,
    dir: PathBuf,
    /// As metadata servers want it: --initial-members.
    initial_members: String,
    servers: Vec<Issued>,
}

#[derive(Serialize)]
struct Issued {
    role: &'static str,
    id: String,
    folder: PathBuf,
    /// Whether the certificate was made now; false: it was there.
    made: bool,
}

/// Runs the command.
pub async fn run(args: PkiArgs, context: &Context) -> Result<(), CliError> {
    let report = match args.command {
        PkiCommand::Init(args) => init(args)?,
        PkiCommand::Issue(args) => issue(args)?,
    };
    context.output.result(&report, || text(&report))
}

fn init(args: InitArgs) -> Result<Report, CliError> {
    let servers = names::parse(&args.servers.metadata, &args.servers.chunk_servers)?;
    if !servers.iter().any(ServerName::is_metadata) {
        return Err(CliError::usage(
            "a cluster needs at least one metadata server: --metadata NAME=HOST:PORT",
        ));
    }
    let folder = Folder::new(&args.servers.dir, args.servers.group_read)?;
    let authority = match folder.authority()? {
        Some(authority) if args.keep => authority,
        Some(_) => return Err(make::is_there(&folder.authority_dir(), "--keep makes only what is missing")),
        None => make::authority(&folder)?,
    };
    make::client(&folder, &authority, &servers)?;
    let existing = if args.keep { make::Existing::Keep } else { make::Existing::Refuse };
    report(&folder, &authority, &servers, &args.servers.also, existing)
}

fn issue(args: IssueArgs) -> Result<Report, CliError> {
    let servers = names::parse(&args.servers.metadata, &args.servers.chunk_servers)?;
    if servers.is_empty() {
        return Err(CliError::usage("name a server: --metadata NAME=HOST:PORT or --chunk-server NAME=HOST"));
    }
    let folder = Folder::new(&args.servers.dir, args.servers.group_read)?;
    let authority = folder.authority()?.ok_or_else(|| make::no_authority(&folder))?;
    let existing = if args.renew { make::Existing::Renew } else { make::Existing::Refuse };
    report(&folder, &authority, &servers, &args.servers.also, existing)
}

fn report(
    folder: &Folder,
    authority: &transport::ca::Authority,
    servers: &[ServerName],
    also: &[String],
    existing: make::Existing,
) -> Result<Report, CliError> {
    // All names are looked at before anything is made.
    for server in servers {
        make::check_absent(folder, server, existing)?;
    }
    let mut issued = Vec::new();
    for server in servers {
        let made = make::server(folder, authority, server, also, existing)?;
        issued.push(Issued {
            role: server.role.as_str(),
            id: server.id.to_string(),
            folder: folder.server(server.id.as_str()),
            made,
        });
    }
    let members = servers.iter().filter(|server| server.is_metadata());
    Ok(Report {
        cluster_id: authority.cluster().to_string(),
        dir: folder.root().to_owned(),
        initial_members: members.map(|m| format!("{}={}", m.id, m.address())).collect::<Vec<_>>().join(","),
        servers: issued,
    })
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!("cluster {} in {}", report.cluster_id, report.dir.display())];
    for server in &report.servers {
        let what = if server.made { "made" } else { "kept" };
        lines.push(format!("{what}  {:<15}  {:<12}  {}", server.role, server.id, server.folder.display()));
    }
    if !report.initial_members.is_empty() {
        lines.push(format!("--initial-members {}", report.initial_members));
    }
    lines.join("\n")
}
