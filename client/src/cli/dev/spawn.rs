//! Starting one server.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::layout::{Layout, ServerFolder};
use super::plan::{Plan, Role, Server};
use super::process::Running;
use crate::cli::CliError;

/// A log longer than this is set aside when its server starts; one older log is kept.
const MAX_LOG_BYTES: u64 = 64 << 20;

/// How servers are started by one command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spawning {
    /// The kernel kills them when this process ends. Holds for servers started on a thread that lives
    /// as long as the process: the main one.
    pub die_with_parent: bool,
}

/// Starts a server of the plan. Its settings beyond the plan come from `DFS_*` variables.
pub(super) fn spawn(
    layout: &Layout,
    plan: &Plan,
    server: &Server,
    how: Spawning,
) -> Result<(Child, Running), CliError> {
    let folder = layout.server(&server.id);
    let program = find_program(server.role)?;
    let mut command = Command::new(&program);
    command.args(arguments(layout, plan, server, &folder));
    // One value for all servers would make them meet at one port or file.
    for name in ["DFS_METRICS_LISTEN", "DFS_LOG_FILE"] {
        command.env_remove(name);
    }
    let log = open_log(&folder.log)?;
    let also = log.try_clone().map_err(|error| CliError::io("sharing the log", error))?;
    command.stdin(Stdio::null()).stdout(also).stderr(log).current_dir(layout.root());
    set_up_child(&mut command, how);
    let mut child = command
        .spawn()
        .map_err(|error| CliError::io(format!("starting {} ({})", server.id, program.display()), error))?;
    // Our own child keeps its pid until we reap it, so it can be taken hold of unless it ended.
    if let Some(running) = Running::open(child.id() as i32) {
        return Ok((child, running));
    }
    let ending = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    let tail = last_lines(&folder.log, 5);
    let message = format!("{} ended ({ending}) before it was ready{tail}", server.id);
    Err(CliError::failed(message).with_hint(log_hint(&folder.log)))
}

pub(super) fn log_hint(log: &Path) -> String {
    format!("its log: {}", log.display())
}

/// The end of a log, each line on one of its own.
pub(super) fn last_lines(log: &Path, count: usize) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(8192)));
        let _ = file.take(8192).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("\n    {line}")).collect()
}

fn arguments(
    layout: &Layout,
    plan: &Plan,
    server: &Server,
    folder: &ServerFolder,
) -> Vec<std::ffi::OsString> {
    let address = server.address();
    let path = |path: &Path| path.as_os_str().to_owned();
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: std::ffi::OsString| {
        arguments.push(format!("--{name}").into());
        arguments.push(value);
    };
    add("id", server.id.clone().into());
    add("data-dir", path(&folder.data));
    add("listen", plan.listen_address(server).into());
    add("advertise", address.into());
    add("ca", path(&layout.ca()));
    add("cert", path(&folder.cert));
    add("key", path(&folder.key));
    match server.role {
        Role::MetadataServer => {
            add("master-key-file", path(&layout.master_key()));
            add("admin-key-file", path(&layout.admin_key()));
            add("initial-members", members(plan, server).into());
        }
        Role::ChunkServer => {
            add("metadata", plan.metadata_addresses().join(",").into());
            if let Some(domain) = &server.domain {
                add("domain", domain.into());
            }
        }
    }
    arguments
}

/// The members the cluster began with, and the server itself if it came later.
fn members(plan: &Plan, server: &Server) -> String {
    let counts = |other: &&Server| plan.initial_members.contains(&other.id) || other.id == server.id;
    let entries: Vec<String> = plan
        .of(Role::MetadataServer)
        .filter(counts)
        .map(|other| format!("{}={}", other.id, other.address()))
        .collect();
    entries.join(",")
}

fn set_up_child(command: &mut Command, how: Spawning) {
    let parent = std::process::id();
    let set_up = move || {
        // A session of its own: neither Ctrl-C at our terminal nor its end reaches the server.
        rustix::process::setsid()?;
        if how.die_with_parent {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // Were we killed before the line above, nobody would send that signal.
            let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
            if now != i32::try_from(parent).ok() {
                return Err(rustix::io::Errno::SRCH.into());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made (setsid, prctl, getppid); nothing is
    // allocated, locked or freed: errors are bare numbers.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(set_up);
    }
}

fn open_log(path: &Path) -> Result<File, CliError> {
    let doing = |error| CliError::io(format!("opening {}", path.display()), error);
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
        std::fs::rename(path, path.with_extension("log.1")).map_err(doing)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(doing)
}

/// The server's program: beside this one, else on the PATH.
fn find_program(role: Role) -> Result<PathBuf, CliError> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(role.word())));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(role.word()));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
        CliError::failed(format!(
            "the program {} was found neither beside dfsctl nor on the PATH",
            role.word()
        ))
        .with_hint("`make build` builds it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_lines(&log, 2), "");
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(last_lines(&log, 2), "\n    two\n    three");
        assert_eq!(last_lines(&log, 9), "\n    one\n    two\n    three");
    }

    #[test]
    fn arguments_follow_the_plan() {
        let layout = Layout::resolve(Some("/nowhere/c".into())).unwrap();
        let mut plan = Plan::new(String::new());
        for port in 1..=3 {
            plan.add(Role::MetadataServer, port, None);
        }
        plan.initial_members = vec!["m1".into(), "m2".into(), "m3".into()];
        plan.add(Role::MetadataServer, 4, None);
        plan.add(Role::MetadataServer, 5, None);
        plan.add(Role::ChunkServer, 6, Some("rack".into()));
        let line = |id: &str| {
            let server = plan.servers.iter().find(|server| server.id == id).unwrap();
            let all = arguments(&layout, &plan, server, &layout.server(id));
            all.into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line("m5"),
            "--id m5 --data-dir /nowhere/c/m5/data --listen 127.0.0.1:5 --advertise 127.0.0.1:5 \
             --ca /nowhere/c/ca.pem --cert /nowhere/c/m5/cert.pem --key /nowhere/c/m5/key.pem \
             --master-key-file /nowhere/c/master.key --admin-key-file /nowhere/c/admin.key \
             --initial-members m1=127.0.0.1:1,m2=127.0.0.1:2,m3=127.0.0.1:3,m5=127.0.0.1:5"
        );
        assert!(line("n1").contains("--listen 127.0.0.1:6 --advertise 127.0.0.1:6"));
        assert!(line("m1").ends_with("--initial-members m1=127.0.0.1:1,m2=127.0.0.1:2,m3=127.0.0.1:3"));
        let metadata = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4,127.0.0.1:5";
        assert!(line("n1").ends_with(&format!("--metadata {metadata} --domain rack")));

        let apart = Plan { listen_ip: Some(std::net::Ipv4Addr::new(127, 0, 0, 2)), ..plan };
        let all = arguments(&layout, &apart, &apart.servers[0], &layout.server("m1"));
        let all: Vec<_> = all.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        assert!(all.join(" ").contains("--listen 127.0.0.2:1 --advertise 127.0.0.1:1"));
    }
}
