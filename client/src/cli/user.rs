//! `dfsctl user`: principals, as far as this version has them.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{CliError, Context, format};
use crate::v1;

/// Make users and list them
#[derive(clap::Args, Debug)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Subcommand, Debug)]
enum UserCommand {
    /// Make a user; the API key is written to a file and shown nowhere
    Add {
        name: String,
        #[arg(long, value_enum, default_value_t = Role::User)]
        role: Role,
        /// Where the key goes; must not exist [default: NAME.key]
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// List users
    Ls,
    /// Who the cluster takes you for
    Whoami,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Admin,
    User,
    Readonly,
}

pub(crate) async fn run(args: UserArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    match args.command {
        UserCommand::Add { name, role, key_file } => {
            let path = key_file.unwrap_or_else(|| PathBuf::from(format!("{name}.key")));
            // The file first: a key that cannot be kept must not be made.
            let writing = |error| CliError::io(format_args!("writing {}", path.display()), error);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(writing)?;
            let role = match role {
                Role::Admin => v1::Role::Admin,
                Role::User => v1::Role::User,
                Role::Readonly => v1::Role::Readonly,
            };
            let user = match client.create_principal(&name, role).await {
                Ok(user) => user,
                Err(error) => {
                    drop(file);
                    // Empty, and ours alone: best effort.
                    let _ = std::fs::remove_file(&path);
                    return Err(error.into());
                }
            };
            writeln!(file, "{}", user.api_key).and_then(|()| file.sync_all()).map_err(writing)?;
            let mut value = user_json(&user);
            value["key_file"] = json!(path);
            context.output.result(&value, || {
                format!(
                    "{name}: the API key is in {} (name it as api_key_file in a dfsctl.toml)",
                    path.display()
                )
            })
        }
        UserCommand::Ls => {
            let users = client.principals().await?;
            let value = json!({ "users": users.iter().map(user_json).collect::<Vec<_>>() });
            context.output.result(&value, || users.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        UserCommand::Whoami => {
            let user = client.who_am_i().await?;
            context.output.result(&user_json(&user), || line(&user))
        }
    }
}

fn line(user: &v1::PrincipalInfo) -> String {
    format!("{}  {:8}  {}", format::id(&user.principal_id), role(user), user.name)
}

fn role(user: &v1::PrincipalInfo) -> &'static str {
    match v1::Role::try_from(user.role) {
        Ok(v1::Role::Admin) => "admin",
        Ok(v1::Role::User) => "user",
        Ok(v1::Role::Readonly) => "readonly",
        Ok(v1::Role::Unspecified) | Err(_) => "unknown",
    }
}

fn user_json(user: &v1::PrincipalInfo) -> Value {
    json!({
        "principal_id": format::id(&user.principal_id),
        "name": user.name,
        "role": role(user),
        "created_at": format::time(user.created_unix_ms),
    })
}
