//! What programs read of dfsctl: the shape of every command's `--output json`, exit codes, contexts,
//! completions and manual pages, and what fsck says when copies are missing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::wait::until;

pub const COMMAND_LINE: Scenario = Scenario {
    name: "command-line",
    about: "dfsctl's JSON shapes, exit codes, contexts, completions, manual pages, fsck",
    run: command_line,
};

/// A command line and the fields of its answer, sorted. Fields may be added, never renamed or taken away.
const SHAPES: &[(&str, &str)] = &[
    ("bucket create shapes", "bucket_id created_at keep_ms min_ack name owner realm target"),
    ("bucket show shapes", "bucket_id created_at keep_ms min_ack name owner realm target"),
    ("bucket ls", "buckets"),
    ("bucket set shapes --keep 1h", "bucket_id created_at keep_ms min_ack name owner realm target"),
    ("stat dfs://photos/a", "chunks content_type file_id path policy size version worst_chunk"),
    ("cp dfs://photos/a dfs://photos/b", "path size version"),
    ("mv dfs://photos/b dfs://photos/c", "from path version"),
    ("ls dfs://photos/", "entries"),
    ("node ls", "nodes"),
    ("node show n1", "address capacity chunks domain incarnation is_alive node_id state used version"),
    (
        "cluster status",
        "chunks chunks_by_copies cluster_id cluster_time_ms deficits epoch_floor files leader members nodes \
         pending_purges position term trash_bytes trash_chunks uploads",
    ),
    ("cluster members ls", "members"),
    ("cluster fsck", "bytes chunk_references files files_checked files_lacking_copies files_lost"),
    ("user ls", "users"),
    ("user whoami", "name role"),
    ("context ls", "contexts"),
    ("completions bash", "script shell"),
    ("bucket rm shapes", "name"),
];

/// Wrong inputs and the exit codes that scripts ask for.
const REFUSED: &[(&str, i32)] = &[
    ("stat dfs://photos/nothing", 3),
    ("ls dfs://nowhere/", 3),
    ("bucket create photos", 4),
    ("bucket rm photos", 4),
    ("cp dfs://photos/a nowhere", 2),
    ("mv --no-clobber dfs://photos/a dfs://photos/c", 4),
    ("node show n9", 3),
    ("context use nobody", 3),
    ("--context nobody ls", 3),
    ("--context a --config b ls", 2),
    ("context add bad/name FILE", 2),
    ("completions tcsh", 2),
    ("nonsense", 2),
];

fn command_line(context: &Context) -> Result<()> {
    let cluster = Cluster::start(
        &ClusterOptions::default().set("DFS_NODE_SUSPECT_MS", 2_000).set("DFS_NODE_DOWN_MS", 3_000),
    )?;
    let folder = cluster.scratch();
    let dfsctl = |line: &str| -> Command {
        let mut command = cluster.command(line.split(' '));
        command.env("XDG_CONFIG_HOME", folder.join("config"));
        command
    };
    cluster.dfsctl(["bucket", "create", "photos"])?;
    let local = folder.join("a");
    content::write_file(&local, context.seed, "a", 100_000)?;
    cluster.dfsctl([Path::new("put"), &local, Path::new("dfs://photos/a")])?;

    for (line, fields) in SHAPES {
        let output = dfsctl(line).args(["--output", "json"]).output()?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("{line}: {text}"))?;
        for field in fields.split_whitespace() {
            ensure!(answer.get(field).is_some(), "{line} says no {field}: {answer}");
        }
    }
    for (line, code) in REFUSED {
        let output = dfsctl(line).args(["--output", "json"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(*code), "{line}: {}, not {code}: {said}", output.status);
        ensure!(output.stdout.is_empty() && !said.is_empty(), "{line}: an error goes to stderr alone");
    }
    contexts(&cluster, &dfsctl)?;
    let pages = folder.join("man");
    ensure!(dfsctl(&format!("man {}", pages.display())).output()?.status.success());
    let page = std::fs::read_to_string(pages.join("dfsctl-cluster-fsck.1"))?;
    ensure!(page.contains("Examples"), "a page without the examples");
    let piped = dfsctl("node ls").output()?.stdout;
    ensure!(!piped.contains(&0x1b), "colour in a pipe");
    let always = dfsctl("node ls --color always").output()?.stdout;
    ensure!(always.contains(&0x1b), "no colour though asked for");
    missing_copies(&cluster)
}

/// Two names, one current; neither needs DFSCTL_CONFIG, which goes before them.
fn contexts(cluster: &Cluster, dfsctl: &impl Fn(&str) -> Command) -> Result<()> {
    let config = cluster.data_dir().join("dfsctl.toml");
    for name in ["one", "two"] {
        let added = dfsctl(&format!("context add {name} {}", config.display())).output()?;
        ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }
    let without = |line: &str| -> Result<std::process::Output> {
        Ok(dfsctl(line).env_remove("DFSCTL_CONFIG").env("XDG_DATA_HOME", cluster.scratch()).output()?)
    };
    ensure!(without("ls dfs://photos/")?.status.success(), "the current context is not used");
    ensure!(without("--context two ls dfs://photos/")?.status.success());
    ensure!(without("context use two")?.status.success());
    let shown = String::from_utf8(without("context show two")?.stdout)?;
    ensure!(shown.contains("(current)"), "{shown}");
    ensure!(without("context rm two")?.status.success());
    let none = without("ls")?;
    ensure!(none.status.code() == Some(2), "a context that is gone is still used");
    Ok(())
}

/// Two of three nodes down: fsck names the file and exits 1; with the third as well it is 7. All back:
/// nothing lacks.
fn missing_copies(cluster: &Cluster) -> Result<()> {
    let fsck = || -> Result<(Option<i32>, Value)> {
        let output = cluster.command(["cluster", "fsck", "--output", "json"]).output()?;
        Ok((output.status.code(), serde_json::from_slice(&output.stdout)?))
    };
    let finds = |code: i32, present: u64| {
        until("what fsck finds", Duration::from_secs(40), || {
            let (found, census) = fsck()?;
            ensure!(found == Some(code), "{found:?}, not {code}: {census}");
            ensure!(census["files"][0]["present"] == present && census["files_checked"] == 2, "{census}");
            Ok(())
        })
    };
    cluster.kill_and_wait("n1")?;
    cluster.kill_and_wait("n2")?;
    finds(1, 1)?;
    // The state lists a lost node's chunks in steps, a moment after the leader knows that it is down.
    until("status counts them", Duration::from_secs(40), || {
        let status = cluster.json(["cluster", "status"])?;
        let copies = &status["chunks_by_copies"][0];
        ensure!(copies["present"] == 1 && copies["wanted"] == 3, "{}", status["chunks_by_copies"]);
        Ok(())
    })?;
    cluster.kill_and_wait("n3")?;
    finds(7, 0)?;
    for node in ["n1", "n2", "n3"] {
        cluster.start_process(node)?;
    }
    until("all copies again", Duration::from_secs(40), || {
        let (code, census) = fsck()?;
        ensure!(code == Some(0) && census["files_lacking_copies"] == 0, "{code:?} {census}");
        Ok(())
    })
}
