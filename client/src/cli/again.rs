//! What to type to go on after Ctrl-C: the command that runs, with an option more, for a shell to read.

use std::ffi::OsString;

/// What to run again: the same command, or this one, put or get, with `-T`.
pub(crate) fn words(same: bool, command: &str) -> String {
    if same {
        return "the same command".to_owned();
    }
    format!("`{}`", line(std::env::args_os(), command, "-T"))
}

/// The command line with `option` behind the word `command`.
fn line(args: impl IntoIterator<Item = OsString>, command: &str, option: &str) -> String {
    let mut words = Vec::new();
    let mut given = false;
    for arg in args {
        let here = !given && arg == command;
        words.push(quoted(&arg.to_string_lossy()));
        if here {
            words.push(option.to_owned());
            given = true;
        }
    }
    words.join(" ")
}

/// As one word of a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_repeated_as_a_shell_reads_it() {
        let args = ["dfsctl", "--config", "c.toml", "put", "-r", "my pictures", "it's", "dfs://b/put"];
        let line = line(args.map(OsString::from), "put", "-T");
        assert_eq!(line, r"dfsctl --config c.toml put -T -r 'my pictures' 'it'\''s' dfs://b/put");
    }
}
