//! What the commands do with servers: start those that do not run, wait until they are ready, end
//! them.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::layout::Layout;
use super::plan::{Plan, Role, Server};
use super::process::{Running, find};
use super::ready::{Prober, Readiness};
use super::report::ServerReport;
use super::spawn::{Spawning, last_lines, log_hint, spawn};
use super::{conflict, ports, unavailable};
use crate::cli::{CliError, Output};

/// How long a server may take to end in good order before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(15);
/// How long a killed process may take to be gone: the kernel finishes its disk writes first.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(100);

/// A server that a command started or found.
pub(super) struct Live {
    pub id: String,
    pub running: Running,
    /// Of those this process started: to learn how they ended.
    child: Option<Child>,
}

impl Live {
    /// How it ended, for people.
    fn ending(&mut self) -> String {
        match self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            Some(status) => format!("ended ({status})"),
            None => "ended".into(),
        }
    }
}

/// Starts one server and notes it in the plan, which is saved. The caller holds the lock.
pub(super) fn start(
    layout: &Layout,
    plan: &mut Plan,
    id: &str,
    how: Spawning,
    output: Output,
) -> Result<Live, CliError> {
    let ip = plan.listen_ip();
    let server = plan.server_mut(id).expect("the caller took the name from the plan");
    if !ports::is_free(ip, server.port) {
        take_another_port(server, output)?;
        plan.save(layout)?;
    }
    let server = plan.servers.iter().find(|server| server.id == id).expect("as above");
    let (child, running) = spawn(layout, plan, server, how)?;
    let record = running.record();
    plan.server_mut(id).expect("as above").process = Some(record);
    if let Err(error) = plan.save(layout) {
        // Nobody would know of it.
        let _ = running.signal(Signal::KILL);
        return Err(error);
    }
    Ok(Live { id: id.to_owned(), running, child: Some(child) })
}

/// Somebody took a stopped server's port. A chunk server may move, a metadata server's address is
/// known to the other members.
fn take_another_port(server: &mut Server, output: Output) -> Result<(), CliError> {
    let held = format!("port {} of {} is in use by another process", server.port, server.id);
    if server.role == Role::MetadataServer {
        return Err(conflict(held).with_hint(format!("`ss -ltnp 'sport = :{}'` shows which", server.port)));
    }
    let taken = std::collections::BTreeSet::from([server.port]);
    server.port = ports::choose(1, &taken, false)?[0];
    output.note(format!("{held}: it gets port {}", server.port));
    Ok(())
}

/// Every server of the plan that runs.
pub(super) fn running(layout: &Layout, plan: &Plan) -> Vec<Live> {
    let live =
        |server: &Server| Some(Live { id: server.id.clone(), running: find(layout, server)?, child: None });
    plan.servers.iter().filter_map(live).collect()
}

/// Waits until all of `live` are ready; `tell` hears what is waited for, when it changes.
pub(super) async fn wait_until_ready(
    layout: &Layout,
    plan: &Plan,
    live: &mut [Live],
    patience: Duration,
    mut tell: impl FnMut(&str),
) -> Result<(), CliError> {
    let prober = Prober::new(layout, plan)?;
    let deadline = Instant::now() + patience;
    let mut told = String::new();
    loop {
        let ended = live.iter_mut().find(|live| !live.running.is_alive());
        if let Some(ended) = ended {
            let log = layout.server(&ended.id).log;
            let tail = last_lines(&log, 5);
            let ending = ended.ending();
            let message = format!("{} {ending} before it was ready{tail}", ended.id);
            return Err(CliError::failed(message).with_hint(log_hint(&log)));
        }
        let waiting = not_ready(&prober, plan, live).await;
        if waiting.is_empty() {
            return Ok(());
        }
        let about: Vec<String> = waiting.iter().map(|(id, reason)| format!("{id} ({reason})")).collect();
        let about = about.join(", ");
        if Instant::now() >= deadline {
            let seconds = patience.as_secs();
            let logs = layout.root().join("*/server.log");
            return Err(unavailable(format!("not ready after {seconds} s: {about}"))
                .with_hint(format!("the logs: {}", logs.display())));
        }
        if about != told {
            tell(&about);
            told = about;
        }
        sleep(READY_POLL).await;
    }
}

async fn not_ready(prober: &Prober, plan: &Plan, live: &[Live]) -> Vec<(String, String)> {
    let servers = plan.servers.iter().filter(|server| live.iter().any(|live| live.id == server.id));
    let asked = servers.map(|server| async {
        let readiness = prober.ask(server).await;
        Some((server.id.clone(), readiness.reason()?.to_owned()))
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Ends servers: asked first, killed when they take too long or `hurry` resolves.
pub(super) async fn end(live: Vec<Live>, hurry: impl Future<Output = ()>) -> Result<(), CliError> {
    signal_all(&live, Signal::TERM)?;
    // A stopped process hears nothing until it goes on.
    signal_all(&live, Signal::CONT)?;
    tokio::select! {
        all = timeout(END_PATIENCE, all_ended(&live)) => {
            if let Ok(all) = all {
                return all;
            }
        }
        () = hurry => {}
    }
    kill(live).await
}

/// Ends servers at once.
pub(super) async fn kill(live: Vec<Live>) -> Result<(), CliError> {
    signal_all(&live, Signal::KILL)?;
    match timeout(KILL_PATIENCE, all_ended(&live)).await {
        Ok(all) => all,
        Err(_) => {
            let left: Vec<&str> =
                live.iter().filter(|live| live.running.is_alive()).map(|live| live.id.as_str()).collect();
            Err(CliError::failed(format!("killed, but not gone yet: {}", left.join(", "))))
        }
    }
}

fn signal_all(live: &[Live], signal: Signal) -> Result<(), CliError> {
    for live in live {
        live.running
            .signal(signal)
            .map_err(|error| CliError::io(format!("signalling {}", live.id), error))?;
    }
    Ok(())
}

pub(super) async fn all_ended(live: &[Live]) -> Result<(), CliError> {
    for live in live {
        live.running
            .ended()
            .await
            .map_err(|error| CliError::io(format!("waiting for {}", live.id), error))?;
    }
    Ok(())
}

/// The servers with what they say of themselves now.
pub(super) async fn look<'a>(
    layout: &Layout,
    plan: &Plan,
    servers: impl Iterator<Item = &'a Server>,
) -> Result<Vec<ServerReport>, CliError> {
    let prober = Prober::new(layout, plan)?;
    let prober = &prober;
    let looks = servers.map(|server| async move {
        let running = find(layout, server);
        let readiness: Option<Readiness> = match &running {
            Some(_) => Some(prober.ask(server).await),
            None => None,
        };
        ServerReport::new(layout, server, running.as_ref(), readiness.as_ref())
    });
    Ok(futures::future::join_all(looks).await)
}

/// Names with their servers, each checked to be one of the plan's, none twice.
pub(super) fn named<'a>(plan: &'a Plan, names: &[String]) -> Result<Vec<&'a Server>, CliError> {
    let mut servers = BTreeMap::new();
    for name in names {
        let found = plan.servers.iter().find(|server| server.id == *name).ok_or_else(|| {
            let ids: Vec<&str> = plan.servers.iter().map(|server| server.id.as_str()).collect();
            super::not_found(format!("there is no server {name:?}"))
                .with_hint(format!("the cluster has {}", ids.join(", ")))
        })?;
        servers.insert(name, found);
    }
    Ok(servers.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_plans() {
        let mut plan = Plan::new(String::new());
        plan.add(Role::ChunkServer, 1, None);
        plan.add(Role::ChunkServer, 2, None);
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            named(&plan, &names).map(|found| found.iter().map(|server| server.id.clone()).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["n2", "n1", "n2"]).unwrap(), ["n1", "n2"]);
        assert_eq!(ids(&["n3"]).unwrap_err().exit, crate::cli::Exit::NotFound);
    }

    #[test]
    fn a_taken_port() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let mut plan = Plan::new(String::new());
        plan.add(Role::MetadataServer, port, None);
        plan.add(Role::ChunkServer, port, None);
        let output = Output { quiet: true, ..Output::default() };
        let refused = take_another_port(&mut plan.servers[0], output).unwrap_err();
        assert_eq!(refused.exit, crate::cli::Exit::Conflict);
        take_another_port(&mut plan.servers[1], output).unwrap();
        assert_ne!(plan.servers[1].port, port);
    }
}
