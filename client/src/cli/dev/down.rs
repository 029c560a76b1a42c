//! `dfsctl dev down`.

use super::layout::Layout;
use super::plan::Plan;
use super::report::{Report, ServerReport};
use super::servers::{end, running};
use super::signals::Signals;
use crate::cli::{CliError, Output};

pub(super) async fn run(layout: Layout, output: Output) -> Result<(), CliError> {
    let layout = layout.existing()?;
    let mut signals = Signals::watch()?;
    let _lock = layout.lock().await?;
    let plan = Plan::existing(&layout)?;
    let live = running(&layout, &plan);
    let count = live.len();
    if count > 0 {
        output.note(format!("stopping {count} servers"));
    }
    end(live, signals.next()).await?;
    let servers = plan.servers.iter().map(|server| ServerReport::new(&layout, server, None, None)).collect();
    output.result(&Report::new(&layout, &plan, servers), || match count {
        0 => "Nothing was running.".into(),
        count => format!("{count} servers stopped; the data stays in {}.", layout.root().display()),
    })
}
