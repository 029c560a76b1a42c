//! `dfsctl dev status`: exits 0 when all servers are ready, 6 otherwise.

use super::layout::Layout;
use super::plan::Plan;
use super::report::Report;
use super::servers::look;
use super::unavailable;
use crate::cli::{CliError, Output};

pub(super) async fn run(layout: Layout, output: Output) -> Result<(), CliError> {
    let layout = layout.existing()?;
    let plan = Plan::existing(&layout)?;
    let servers = look(&layout, &plan, plan.servers.iter()).await?;
    let report = Report::new(&layout, &plan, servers);
    output.result(&report, || format!("{}\n{}", layout.root().display(), report.table()))?;
    if report.ready {
        return Ok(());
    }
    let not: Vec<&str> =
        report.servers.iter().filter(|server| !server.ready).map(|server| server.id.as_str()).collect();
    Err(unavailable(format!("not ready: {}", not.join(", ")))
        .with_hint("`dfsctl dev up` starts what does not run"))
}
