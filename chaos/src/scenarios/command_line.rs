//! What programs read of dfsctl: the shape of every command's `--output json`, exit codes, contexts,
//! completions and manual pages, and what fsck says when copies are missing.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::shapes::Shapes;
use crate::wait::until;

pub const COMMAND_LINE: Scenario = Scenario {
    name: "command-line",
    about: "dfsctl's JSON shapes, exit codes, contexts, completions, manual pages, fsck",
    run: command_line,
};

/// A row of the table in docs/dfsctl.md and a command line of that row, in an order that works. `@` is the
/// scenario's folder, `#` the chunk of the file `a`.
const SHOWN: &[(&str, &str)] = &[
    ("put", "put @/a dfs://photos/a"),
    ("put -r", "put -r @/tree dfs://photos/tree"),
    ("get", "get dfs://photos/a @/b"),
    ("get -r", "get -r dfs://photos/tree @/fetched"),
    ("ls", "ls"),
    ("ls dfs://BUCKET/", "ls dfs://photos/"),
    ("stat", "stat dfs://photos/a"),
    ("stat", "stat dfs://photos/tree/small"),
    ("stat --versions", "stat --versions dfs://photos/a"),
    ("cp", "cp dfs://photos/a dfs://photos/b"),
    ("cp -r", "cp -r dfs://photos/tree dfs://photos/copy"),
    ("mv", "mv dfs://photos/b dfs://photos/c"),
    ("rm", "rm dfs://photos/tree/small"),
    ("rm", "rm -r dfs://photos/copy"),
    ("stat --deleted", "stat --deleted dfs://photos/tree/small"),
    ("bucket create", "bucket create shapes"),
    ("bucket show", "bucket show shapes"),
    ("bucket ls", "bucket ls"),
    ("bucket set", "bucket set shapes --keep 1h"),
    ("bucket rm", "bucket rm shapes"),
    ("node ls", "node ls"),
    ("node show", "node show n1"),
    ("cluster status", "cluster status"),
    ("cluster members ls", "cluster members ls"),
    ("cluster feature-level", "cluster feature-level"),
    ("chunk put", "chunk put --plan @/plan.json --index 0 @/a"),
    ("chunk locations", "chunk locations # --file dfs://photos/a"),
    ("user add", "user add ann --key-file @/ann.key"),
    ("user ls", "user ls"),
    ("user whoami", "user whoami"),
    ("bench small-write", "bench small-write --count 20 --no-raw --clean"),
    ("bench rest-list", "bench rest-list --count 20"),
    ("pki init", "pki init @/pki --metadata m1=localhost --chunk-server n1=localhost"),
    ("explain", "explain"),
    ("explain CODE", "explain not_found"),
    ("dev status", "dev status --data-dir %"),
    ("context add", "context add shown %/dfsctl.toml"),
    ("context use", "context use shown"),
    ("context ls", "context ls"),
    ("context rm", "context rm shown"),
    ("completions", "completions bash"),
    ("man", "man @/man"),
];

/// Rows that have no line above: fsck comes at the end, and what `node remove` takes away is needed until then.
const NOT_SHOWN: &[&str] = &["cluster fsck", "node remove"];

/// Wrong inputs and the exit codes that scripts ask for.
const REFUSED: &[(&str, i32)] = &[
    ("stat dfs://photos/nothing", 3),
    ("ls dfs://nowhere/", 3),
    ("bucket create photos", 4),
    ("bucket rm photos", 4),
    ("cp dfs://photos/a nowhere", 2),
    ("put -r . dfs://nowhere/", 3),
    ("get dfs://photos/tree elsewhere", 3),
    ("get -r dfs://photos/none/ elsewhere", 3),
    ("cp -r dfs://photos/none/ dfs://photos/some", 3),
    ("rm -r dfs://photos/none/", 3),
    ("mv --no-clobber dfs://photos/a dfs://photos/c", 4),
    ("node show n9", 3),
    ("context use nobody", 3),
    ("--context nobody ls", 3),
    ("--context a --config b ls", 2),
    ("context add bad/name FILE", 2),
    ("completions tcsh", 2),
    ("nonsense", 2),
    ("get dfs://photos/a", 2),
    ("bucket", 2),
    ("ls --no-such", 2),
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
    shapes(&cluster, &dfsctl)?;
    for (line, code) in REFUSED {
        let output = dfsctl(line).args(["--output", "json"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(*code), "{line}: {}, not {code}: {said}", output.status);
        ensure!(output.stdout.is_empty() && !said.is_empty(), "{line}: an error goes to stderr alone");
        let error: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
            .with_context(|| format!("{line}: no JSON: {said}"))?;
        let error = &error["error"];
        ensure!(
            error["exit"] == *code && error["code"].is_string() && error["message"].is_string(),
            "{said}"
        );
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

/// Every row of the documented table has a command that was run and printed just that.
fn shapes(cluster: &Cluster, dfsctl: &impl Fn(&str) -> Command) -> Result<()> {
    let (folder, data) = (cluster.scratch(), cluster.data_dir());
    let shapes = Shapes::documented()?;
    for name in ["small", "other"] {
        std::fs::create_dir_all(folder.join("tree"))?;
        std::fs::write(folder.join("tree").join(name), name)?;
    }
    let mut chunk = String::new();
    let mut rows = BTreeSet::new();
    for (row, line) in SHOWN {
        if *row == "chunk put" {
            let order = r#"curl -X POST -d {"path":"/photos/planned","size":100000} /init_upload"#;
            let plan = dfsctl(order).output()?;
            ensure!(plan.status.success(), "{order}: {}", String::from_utf8_lossy(&plan.stderr));
            std::fs::write(folder.join("plan.json"), plan.stdout)?;
        }
        let line = line.replace('@', &folder.display().to_string());
        let line = line.replace('%', &data.display().to_string()).replace('#', &chunk);
        let answer =
            printed(dfsctl(&line).args(["--output", "json"]).output()?).with_context(|| line.clone())?;
        shapes.check(shapes.of(row)?, &answer, &[]).with_context(|| format!("{line}: {answer}"))?;
        if let Some(id) = answer["worst_chunk"]["chunk_id"].as_str() {
            chunk = id.to_owned();
        }
        rows.insert(*row);
    }
    let fsck = printed(cluster.command(["cluster", "fsck", "--output", "json"]).output()?)?;
    shapes.check(shapes.of("cluster fsck")?, &fsck, &[])?;
    rows.extend(NOT_SHOWN);
    for (commands, fields) in &shapes.rows {
        let shown = fields.starts_with('(') || commands.iter().any(|command| rows.contains(command.as_str()));
        ensure!(shown, "no command of the row {commands:?} was run");
    }
    Ok(())
}

fn printed(output: std::process::Output) -> Result<Value> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
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
            ensure!(
                census["files"][0]["present"] == present && census["files_lacking_copies"] == 2,
                "{census}"
            );
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
