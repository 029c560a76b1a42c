//! `dfsctl dev add`, `stop`, `start` and `kill`.

use std::time::Duration;

use super::layout::Layout;
use super::plan::{Plan, Role};
use super::report::Report;
use super::servers::{
    Live, end, kill as kill_servers, look, named, running, start as start_server, wait_until_ready,
};
use super::signals::Signals;
use super::spawn::Spawning;
use super::up::MAX_SERVERS;
use super::{conflict, credentials, ports};
use crate::cli::{CliError, Output};
use crate::{Client, Config};

/// How long `add` and `start` wait for readiness.
const READY_PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub(super) struct AddArgs {
    /// Add a metadata server and make it a member
    #[arg(long)]
    metadata: bool,
    /// Failure domain of the chunk server [default: its name]
    #[arg(long, conflicts_with = "metadata")]
    domain: Option<String>,
}

pub(super) async fn add(args: AddArgs, layout: Layout, output: Output) -> Result<(), CliError> {
    let layout = layout.existing()?;
    let role = if args.metadata { Role::MetadataServer } else { Role::ChunkServer };
    let (plan, live, address) = {
        let _lock = layout.lock().await?;
        let mut plan = Plan::existing(&layout)?;
        if !has_majority(&plan, &running(&layout, &plan)) {
            return Err(
                conflict("a server can only be added to a running cluster").with_hint("`dfsctl dev up`")
            );
        }
        if plan.of(role).count() >= MAX_SERVERS {
            return Err(conflict(format!("there are {MAX_SERVERS} servers of that role already")));
        }
        let port = ports::choose(1, &plan.ports(), layout.is_default())?[0];
        let id = plan.add(role, port, args.domain);
        let server = plan.server_mut(&id).expect("it was just added");
        let address = server.address();
        credentials::issue(&layout, server)?;
        plan.save(&layout)?;
        let live = start_server(&layout, &mut plan, &id, Spawning::default(), output)?;
        (plan, live, address)
    };
    let id = live.id.clone();
    if args.metadata {
        output.note(format!("{id} joins the metadata service"));
        let client = Client::connect(Config::from_file(layout.config())?).await?;
        client.add_member(&id, &address).await?;
    }
    let mut live = [live];
    wait_until_ready(&layout, &plan, &mut live, READY_PATIENCE, |about| {
        output.note(format!("waiting for {about}"))
    })
    .await?;
    report(&layout, &plan, &[id], output).await
}

pub(super) async fn start(names: Vec<String>, layout: Layout, output: Output) -> Result<(), CliError> {
    let layout = layout.existing()?;
    let (plan, mut started, majority) = {
        let _lock = layout.lock().await?;
        let mut plan = Plan::existing(&layout)?;
        let ids: Vec<String> = named(&plan, &names)?.iter().map(|server| server.id.clone()).collect();
        let before = running(&layout, &plan);
        let mut started = Vec::new();
        for id in ids {
            if before.iter().any(|live| live.id == id) {
                output.note(format!("{id} runs already"));
            } else {
                started.push(start_server(&layout, &mut plan, &id, Spawning::default(), output)?);
            }
        }
        let majority = has_majority(&plan, &running(&layout, &plan));
        (plan, started, majority)
    };
    if majority {
        let tell = |about: &str| output.note(format!("waiting for {about}"));
        wait_until_ready(&layout, &plan, &mut started, READY_PATIENCE, tell).await?;
    } else {
        // Nothing can be ready without a leader, so there is nothing to wait for.
        output.note("too few metadata servers run for the cluster to be ready");
    }
    report(&layout, &plan, &names, output).await
}

pub(super) async fn stop(names: Vec<String>, layout: Layout, output: Output) -> Result<(), CliError> {
    let layout = layout.existing()?;
    let mut signals = Signals::watch()?;
    let _lock = layout.lock().await?;
    let plan = Plan::existing(&layout)?;
    end(these(&layout, &plan, &names, output)?, signals.next()).await?;
    report(&layout, &plan, &names, output).await
}

pub(super) async fn kill(names: Vec<String>, layout: Layout, output: Output) -> Result<(), CliError> {
    let layout = layout.existing()?;
    let _lock = layout.lock().await?;
    let plan = Plan::existing(&layout)?;
    kill_servers(these(&layout, &plan, &names, output)?).await?;
    report(&layout, &plan, &names, output).await
}

/// Those of the named servers that run.
fn these(layout: &Layout, plan: &Plan, names: &[String], output: Output) -> Result<Vec<Live>, CliError> {
    let wanted = named(plan, names)?;
    let live: Vec<Live> = running(layout, plan)
        .into_iter()
        .filter(|live| wanted.iter().any(|server| server.id == live.id))
        .collect();
    for server in wanted {
        if !live.iter().any(|live| live.id == server.id) {
            output.note(format!("{} does not run", server.id));
        }
    }
    Ok(live)
}

fn has_majority(plan: &Plan, live: &[Live]) -> bool {
    let members = plan.of(Role::MetadataServer).count();
    let up =
        plan.of(Role::MetadataServer).filter(|server| live.iter().any(|live| live.id == server.id)).count();
    up * 2 > members
}

/// The named servers as they are now.
async fn report(layout: &Layout, plan: &Plan, names: &[String], output: Output) -> Result<(), CliError> {
    let servers = look(layout, plan, named(plan, names)?.into_iter()).await?;
    let report = Report::new(layout, plan, servers);
    output.result(&report, || report.table())
}
