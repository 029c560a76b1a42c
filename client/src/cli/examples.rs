//! Examples for commands so small that their own file has no place for them. Every command has one: the
//! test below looks.

use clap::Command;

const EXAMPLES: &[(&[&str], &str)] = &[
    (
        &["bucket", "create"],
        "dfsctl bucket create photos\n  dfsctl bucket create scratch --copies 1 --keep 0",
    ),
    (&["bucket", "ls"], "dfsctl bucket ls\n  dfsctl bucket ls --output json | jq -r '.buckets[].name'"),
    (&["bucket", "show"], "dfsctl bucket show photos"),
    (&["bucket", "set"], "dfsctl bucket set photos --keep 7d\n  dfsctl bucket set photos --copies 2"),
    (&["bucket", "rm"], "dfsctl bucket rm photos"),
    (&["node", "ls"], "dfsctl node ls"),
    (&["node", "show"], "dfsctl node show n1"),
    (&["node", "drain"], "dfsctl node drain n1"),
    (&["node", "resume"], "dfsctl node resume n1"),
    (&["node", "remove"], "dfsctl node remove n1"),
    (&["node", "confirm-loss"], "dfsctl node confirm-loss n1"),
    (&["cluster", "status"], "dfsctl cluster status\n  dfsctl cluster status --output json | jq .deficits"),
    (&["cluster", "members", "ls"], "dfsctl cluster members ls"),
    (&["cluster", "members", "remove"], "dfsctl cluster members remove m4"),
    (&["chunk", "locations"], "dfsctl chunk locations 5f7a...e1 --file dfs://photos/film.mkv"),
    (&["user", "add"], "dfsctl user add ann\n  dfsctl user add backup --role readonly --key-file backup.key"),
    (&["user", "ls"], "dfsctl user ls"),
    (&["user", "whoami"], "dfsctl user whoami"),
    (&["bench", "write"], "dfsctl bench write --size 1G --files 2"),
    (&["bench", "read"], "dfsctl bench read --size 1G --files 2"),
    (&["bench", "small-write"], "dfsctl bench small-write --count 20000 --parallel 16"),
    (&["bench", "small-read"], "dfsctl bench small-read --count 20000 --parallel 16"),
    (&["bench", "rest-list"], "dfsctl bench rest-list --count 10000"),
    (&["dev", "up"], "dfsctl dev up --detach\n  dfsctl dev up --data-dir ./c --metadata 3 --chunk-servers 5"),
    (&["dev", "down"], "dfsctl dev down"),
    (&["dev", "status"], "dfsctl dev status"),
    (&["dev", "add"], "dfsctl dev add"),
    (&["dev", "stop"], "dfsctl dev stop n1"),
    (&["dev", "start"], "dfsctl dev start n1"),
    (&["dev", "kill"], "dfsctl dev kill n1 m2"),
    (&["context", "ls"], "dfsctl context ls"),
    (&["context", "use"], "dfsctl context use prod"),
    (&["context", "add"], "dfsctl context add prod ~/prod/dfsctl.toml"),
    (&["context", "show"], "dfsctl context show          the cluster that commands are for now"),
    (&["context", "rm"], "dfsctl context rm prod"),
];

/// The command with the examples that it has not got from its own file.
pub(crate) fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, text)| give(command, path, text))
}

fn give(command: Command, path: &[&str], text: &str) -> Command {
    let Some((first, rest)) = path.split_first() else {
        let own = command.get_after_help().is_some();
        return if own { command } else { command.after_help(format!("Examples:\n  {text}")) };
    };
    match command.find_subcommand(first).is_some() {
        true => command.mut_subcommand(*first, |inner| give(inner, rest, text)),
        false => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &Command, path: &str, without: &mut Vec<String>, seen: &mut usize) {
        let path = format!("{path} {}", command.get_name());
        let mut inner = command.get_subcommands().filter(|inner| inner.get_name() != "help").peekable();
        if inner.peek().is_none() {
            *seen += 1;
            let help = command.get_after_help().or(command.get_after_long_help());
            let shown = help.map(ToString::to_string).unwrap_or_default();
            if !(shown.contains("Example") && shown.contains("dfsctl ")) {
                without.push(path.clone());
            }
        }
        inner.for_each(|inner| leaves(inner, &path, without, seen));
    }

    fn names(command: &Command, path: &[&str], all: &mut Vec<String>) {
        let mut inner = command.get_subcommands().filter(|inner| inner.get_name() != "help").peekable();
        if inner.peek().is_none() || (!path.is_empty() && !command.is_subcommand_required_set()) {
            all.push(path.join(" "));
        }
        inner.for_each(|inner| names(inner, &[path, &[inner.get_name()]].concat(), all));
    }

    /// Command lines in a document: in backticks and in blocks, each up to a pipe or whatever a shell does next.
    fn command_lines(document: &str) -> Vec<String> {
        let document = document.replace("\\\n", " ");
        let in_blocks = document.lines().map(|line| line.trim_start_matches("$ "));
        let in_backticks = document.split('`').skip(1).step_by(2);
        let lines = in_blocks.chain(in_backticks).filter(|line| line.starts_with("dfsctl "));
        let first = |line: &str| {
            let words = line.split_whitespace();
            let words = words.take_while(|word| !["|", "&&", ">", "<", "#", "(", "2>"].contains(word));
            words
                .map(|word| if word == "N" { "1" } else { word.trim_matches(['\'', '"', ';']) })
                .collect::<Vec<_>>()
                .join(" ")
        };
        lines.map(first).collect()
    }

    #[test]
    fn commands_in_documents_are_commands() {
        use clap::error::ErrorKind;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut documents: Vec<_> =
            std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        documents.push(root.join("README.md"));
        documents.retain(|path| path.extension().is_some_and(|end| end == "md"));
        let (mut count, mut wrong) = (0, Vec::new());
        for path in documents {
            for line in command_lines(&std::fs::read_to_string(&path).unwrap()) {
                count += 1;
                let Err(error) = super::super::command().try_get_matches_from(line.split(' ')) else {
                    continue;
                };
                // A sentence may name a command without all it needs.
                let said_in_part = matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayVersion
                );
                if !said_in_part {
                    wrong.push(format!("{}: {line}: {error}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count > 60, "only {count} commands were found");
    }

    /// docs/dfsctl.md says what each command prints as JSON; the scenario `command-line` holds it to that.
    #[test]
    fn what_every_command_prints_is_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dfsctl.md");
        let page = std::fs::read_to_string(page).unwrap();
        let first_cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let documented: Vec<&str> =
            first_cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches(['`', ' '])).collect();
        let mut all = Vec::new();
        names(&super::super::command(), &[], &mut all);
        let is = |row: &str, name: &str| row == name || row.starts_with(&format!("{name} "));
        for name in &all {
            assert!(documented.iter().any(|row| is(row, name)), "docs/dfsctl.md has no row for {name}");
        }
        for row in documented {
            assert!(
                all.iter().any(|name| is(row, name)),
                "docs/dfsctl.md tells of {row}, which is no command"
            );
        }
    }

    #[test]
    fn every_command_has_an_example() {
        let (mut without, mut seen) = (Vec::new(), 0);
        leaves(&super::super::command(), "", &mut without, &mut seen);
        assert!(seen > 30, "{seen} commands");
        assert!(without.is_empty(), "say how to use these, in cli/examples.rs: {without:#?}");
    }
}
