//! `dfsctl dev up`.

use std::net::Ipv4Addr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::layout::Layout;
use super::plan::{Plan, Role};
use super::report::{Report, Stopwatch};
use super::servers::{Live, all_ended, end, look, running, start, wait_until_ready};
use super::signals::Signals;
use super::spawn::Spawning;
use super::{conflict, credentials, ports};
use crate::cli::{CliError, Output};

const DEFAULT_METADATA: usize = 3;
const DEFAULT_CHUNK_SERVERS: usize = 3;
/// The most servers of a role that `up` and `add` make.
pub(super) const MAX_SERVERS: usize = 99;

#[derive(clap::Args, Debug)]
pub(super) struct UpArgs {
    /// Metadata servers of a new cluster [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    metadata: Option<u8>,
    /// Chunk servers of a new cluster, or more of them for an old one [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=99))]
    chunk_servers: Option<u8>,
    /// Return when the cluster is ready and leave it running
    #[arg(long)]
    detach: bool,
    /// Give up when the cluster is not ready after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Bring the cluster down when the process that called dfsctl ends, however it ends
    #[arg(long, hide = true, conflicts_with = "detach")]
    die_with_parent: bool,
    /// Where the servers of a new cluster listen, when something stands at 127.0.0.1 between them and
    /// their callers, such as a proxy that makes faults
    #[arg(long, hide = true, value_name = "IP")]
    listen_ip: Option<Ipv4Addr>,
}

pub(super) async fn run(args: UpArgs, mut layout: Layout, output: Output) -> Result<(), CliError> {
    if args.die_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(|error| CliError::io("asking for the parent's death signal", error.into()))?;
    }
    let mut signals = Signals::watch()?;
    layout.prepare()?;
    let _only_up = layout.lock_up()?;
    let watch = Stopwatch::start();
    let stages = Stages::new(output);

    let mut begun = Begun::default();
    let ready = tokio::select! {
        ready = bring_up(&args, &layout, output, &stages, &mut begun) => ready,
        () = signals.next() => Err(CliError::interrupted("interrupted before the cluster was ready")),
    };
    let (plan, mut live) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            stages.say("bringing down what was started");
            let down = end(begun.still_running(&layout), signals.next()).await;
            stages.done();
            return down.and(Err(error));
        }
    };
    let servers = look(&layout, &plan, plan.servers.iter()).await?;
    stages.done();
    let report = Report::new(&layout, &plan, servers);
    output.result(&report, || greeting(&layout, &report, watch.seconds(), args.detach))?;
    if args.detach {
        return Ok(());
    }

    tokio::select! {
        gone = all_ended(&live) => {
            gone?;
            output.note("all servers have ended");
            return Ok(());
        }
        () = signals.next() => {}
    }
    output.note("bringing the cluster down");
    // Others may have started or added servers meanwhile.
    live.clear();
    let _lock = layout.lock().await?;
    let plan = Plan::existing(&layout)?;
    end(running(&layout, &plan), signals.next()).await
}

/// What this command started, to be ended should it fail half-way.
#[derive(Default)]
struct Begun(Vec<String>);

impl Begun {
    fn still_running(&self, layout: &Layout) -> Vec<Live> {
        let Ok(Some(plan)) = Plan::load(layout) else { return Vec::new() };
        running(layout, &plan).into_iter().filter(|live| self.0.contains(&live.id)).collect()
    }
}

async fn bring_up(
    args: &UpArgs,
    layout: &Layout,
    output: Output,
    stages: &Stages,
    begun: &mut Begun,
) -> Result<(Plan, Vec<Live>), CliError> {
    let how = Spawning { die_with_parent: args.die_with_parent };
    let (plan, mut live) = {
        let _lock = layout.lock().await?;
        let mut plan = match Plan::load(layout)? {
            Some(plan) => grow(plan, args, layout)?,
            None => {
                stages.say("making keys and certificates");
                create(args, layout)?
            }
        };
        plan.save(layout)?;
        let mut live = running(layout, &plan);
        let missing: Vec<String> = plan
            .servers
            .iter()
            .map(|server| server.id.clone())
            .filter(|id| !live.iter().any(|live| live.id == *id))
            .collect();
        for id in missing {
            stages.say(&format!("starting {id}"));
            begun.0.push(id.clone());
            live.push(start(layout, &mut plan, &id, how, output)?);
            // A moment for Ctrl-C to be heard.
            tokio::task::yield_now().await;
        }
        // What was found running may be recorded under a stale process.
        for live in &live {
            if let Some(server) = plan.server_mut(&live.id) {
                server.process = Some(live.running.record());
            }
        }
        plan.save(layout)?;
        (plan, live)
    };
    let tell = |about: &str| stages.say(&format!("waiting for {about}"));
    wait_until_ready(layout, &plan, &mut live, Duration::from_secs(args.wait), tell).await?;
    Ok((plan, live))
}

/// A new cluster's plan, keys and certificates. The plan is written by the caller, last of all: until
/// then a crash leaves a folder that is begun anew.
fn create(args: &UpArgs, layout: &Layout) -> Result<Plan, CliError> {
    let metadata = args.metadata.map_or(DEFAULT_METADATA, usize::from);
    let chunk_servers = args.chunk_servers.map_or(DEFAULT_CHUNK_SERVERS, usize::from);
    let cluster = credentials::create(layout)?;
    let mut plan = Plan::new(cluster.to_string());
    plan.listen_ip = args.listen_ip;
    let ports = ports::choose(metadata + chunk_servers, &plan.ports(), layout.is_default())?;
    for (place, port) in ports.into_iter().enumerate() {
        let role = if place < metadata { Role::MetadataServer } else { Role::ChunkServer };
        plan.add(role, port, None);
    }
    plan.initial_members = plan.of(Role::MetadataServer).map(|server| server.id.clone()).collect();
    for server in &plan.servers {
        credentials::issue(layout, server)?;
    }
    Ok(plan)
}

/// An old cluster's plan, with more chunk servers if so many were asked for.
fn grow(mut plan: Plan, args: &UpArgs, layout: &Layout) -> Result<Plan, CliError> {
    let metadata = plan.of(Role::MetadataServer).count();
    if args.metadata.is_some_and(|wanted| usize::from(wanted) != metadata) {
        return Err(conflict(format!("this cluster has {metadata} metadata servers"))
            .with_hint("`dfsctl dev add --metadata` adds one to a running cluster"));
    }
    let have = plan.of(Role::ChunkServer).count();
    let wanted = args.chunk_servers.map_or(have, usize::from);
    if wanted < have {
        return Err(conflict(format!("this cluster has {have} chunk servers"))
            .with_hint("`dfsctl dev stop NAME` stops one"));
    }
    for port in ports::choose(wanted - have, &plan.ports(), layout.is_default())? {
        let id = plan.add(Role::ChunkServer, port, None);
        let server = plan.server_mut(&id).expect("it was just added");
        credentials::issue(layout, server)?;
    }
    Ok(plan)
}

fn greeting(layout: &Layout, report: &Report, seconds: f64, detach: bool) -> String {
    let mut lines =
        vec![report.table(), String::new(), format!("The cluster is ready after {seconds:.1} s.")];
    if !layout.is_default() {
        lines.push(format!("To use it: export DFSCTL_CONFIG={}", layout.config().display()));
    }
    lines.push(
        "To try it: dfsctl bucket create demo && dfsctl put FILE dfs://demo/ && dfsctl ls -l dfs://demo/"
            .into(),
    );
    lines.push(match (detach, layout.is_default()) {
        (false, _) => "Ctrl-C brings it down; the data stays.".into(),
        (true, true) => "`dfsctl dev down` brings it down; the data stays.".into(),
        (true, false) => {
            format!(
                "`dfsctl dev down --data-dir {}` brings it down; the data stays.",
                layout.root().display()
            )
        }
    });
    lines.join("\n")
}

/// Where `up` is: a line that changes on a terminal, a line each elsewhere.
struct Stages {
    output: Output,
    bar: Option<ProgressBar>,
}

impl Stages {
    fn new(output: Output) -> Self {
        let bar = output.draws_progress().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { output, bar }
    }

    fn say(&self, stage: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(stage.to_owned()),
            None => self.output.note(stage),
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(metadata: Option<u8>, chunk_servers: Option<u8>) -> UpArgs {
        UpArgs { metadata, chunk_servers, detach: true, wait: 1, die_with_parent: false, listen_ip: None }
    }

    #[test]
    fn a_cluster_is_made_once_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::resolve(Some(dir.path().to_owned())).unwrap();
        layout.prepare().unwrap();
        let plan = create(&args(Some(1), Some(2)), &layout).unwrap();
        assert_eq!(plan.initial_members, ["m1"]);
        let distinct = plan.ports().len();
        assert_eq!((plan.servers.len(), distinct), (3, 3));

        assert_eq!(grow(plan.clone(), &args(None, None), &layout).unwrap(), plan);
        assert_eq!(grow(plan.clone(), &args(Some(1), Some(2)), &layout).unwrap(), plan);
        assert!(grow(plan.clone(), &args(Some(3), None), &layout).is_err());
        assert!(grow(plan.clone(), &args(None, Some(1)), &layout).is_err());
        let grown = grow(plan.clone(), &args(None, Some(4)), &layout).unwrap();
        assert_eq!(grown.servers[..3], plan.servers[..]);
        assert_eq!((grown.servers.len(), grown.ports().len()), (5, 5));
        assert!(layout.server("n4").cert.is_file());
    }
}
