//! Making authority, keys and certificates. What dfsctl draws for a new cluster, `dfsctl dev` uses too.

use std::path::Path;

use chunk_format::keys::{master_line, random_secret};
use dfs_types::ids::hex;
use dfs_types::{ClusterId, Entropy, OsEntropy, PrincipalId, SystemClock};
use transport::ca::Authority;
use transport::{Identity, Tls, TransportError};
use zeroize::Zeroizing;

use super::folder::{Folder, read};
use super::names::ServerName;
use crate::cli::{CliError, Exit};

/// What to do about a certificate that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Refuse,
    Keep,
    Renew,
}

/// The secrets of a new cluster, as the lines of their files.
pub(in crate::cli) struct Secrets {
    pub authority: Authority,
    pub master_key: Zeroizing<String>,
    pub admin_key: Zeroizing<String>,
}

impl Secrets {
    pub fn draw() -> Result<Self, CliError> {
        let (clock, entropy) = (SystemClock::new(), OsEntropy);
        let authority = Authority::create(ClusterId::generate(&clock, &entropy), &clock).map_err(failed)?;
        let line = master_line(1, &random_secret(&entropy));
        let secret = Zeroizing::new(entropy.array::<32>());
        let principal = PrincipalId::generate(&clock, &entropy);
        let admin_key =
            format!("dfs_{}_{}\n", hex(principal.as_bytes()), *Zeroizing::new(hex(secret.as_slice())));
        Ok(Self {
            authority,
            master_key: Zeroizing::new(format!("{}\n", *line)),
            admin_key: Zeroizing::new(admin_key),
        })
    }
}

/// A new cluster's `authority/`.
pub(super) fn authority(folder: &Folder) -> Result<Authority, CliError> {
    let secrets = Secrets::draw()?;
    let ca_key = Zeroizing::new(secrets.authority.key_pem());
    folder.write_authority(&[
        ("ca.key", ca_key.as_bytes()),
        ("master.key", secrets.master_key.as_bytes()),
        ("admin.key", secrets.admin_key.as_bytes()),
        ("ca.pem", secrets.authority.cert_pem().as_bytes()),
    ])?;
    Ok(secrets.authority)
}

/// The folder `client/`: what dfsctl needs.
pub(super) fn client(folder: &Folder, authority: &Authority, servers: &[ServerName]) -> Result<(), CliError> {
    let dir = folder.client();
    folder.make(&dir)?;
    folder.copy("ca.pem", &dir)?;
    folder.copy("admin.key", &dir)?;
    let config = dir.join("dfsctl.toml");
    if config.exists() {
        return Ok(());
    }
    let addresses: Vec<String> =
        servers.iter().filter(|s| s.is_metadata()).map(|s| format!("{:?}", s.address())).collect();
    let text = format!(
        "cluster_id = \"{}\"\nmetadata = [{}]\nca = \"ca.pem\"\napi_key_file = \"admin.key\"\n",
        authority.cluster(),
        addresses.join(", ")
    );
    folder.write(&config, text.as_bytes())
}

/// Refuses a server whose certificate is there, if it must not be.
pub(super) fn check_absent(folder: &Folder, server: &ServerName, existing: Existing) -> Result<(), CliError> {
    let dir = folder.server(server.id.as_str());
    if existing == Existing::Refuse && dir.join("cert.pem").exists() {
        return Err(is_there(&dir, "`dfsctl pki issue --renew` replaces it"));
    }
    Ok(())
}

/// A server's folder. Returns whether its certificate was made now.
pub(super) fn server(
    folder: &Folder,
    authority: &Authority,
    server: &ServerName,
    also: &[String],
    existing: Existing,
) -> Result<bool, CliError> {
    let dir = folder.server(server.id.as_str());
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let identity = Identity::new(authority.cluster(), server.role, server.id.clone());
    folder.make(&dir)?;
    folder.copy("ca.pem", &dir)?;
    if server.is_metadata() {
        folder.copy("master.key", &dir)?;
        folder.copy("admin.key", &dir)?;
    }
    if existing == Existing::Keep && cert.exists() && key.exists() {
        check_pair(authority, &cert, &key, &identity)?;
        return Ok(false);
    }
    let mut names = vec![server.host.clone()];
    names.extend_from_slice(also);
    let issued = authority.issue(&identity, &names, &SystemClock::new()).map_err(failed)?;
    folder.write(&key, Zeroizing::new(issued.key_pem).as_bytes())?;
    folder.write(&cert, issued.cert_pem.as_bytes())?;
    Ok(true)
}

/// Whether the pair that is there is this authority's for this server.
fn check_pair(authority: &Authority, cert: &Path, key: &Path, want: &Identity) -> Result<(), CliError> {
    let hint = "`dfsctl pki issue --renew` replaces it";
    let (cert_pem, key_pem) = (read(cert)?, read(key)?);
    let tls = Tls::server(authority.cert_pem().as_bytes(), cert_pem.as_bytes(), key_pem.as_bytes())
        .map_err(|error| CliError::failed(format!("{}: {error}", cert.display())).with_hint(hint))?;
    match tls.identity() {
        Some(have) if have == *want => Ok(()),
        _ => Err(is_there(cert, hint).with_hint(format!("it is not the one of {}; {hint}", want.uri()))),
    }
}

pub(super) fn is_there(path: &Path, hint: &str) -> CliError {
    CliError {
        exit: Exit::Conflict,
        code: "already_exists",
        message: format!("{} is there already", path.display()),
        hint: Some(hint.to_owned()),
    }
}

pub(super) fn no_authority(folder: &Folder) -> CliError {
    CliError {
        exit: Exit::NotFound,
        code: "not_found",
        message: format!("there is no authority in {}", folder.root().display()),
        hint: Some("`dfsctl pki init` makes a new cluster's; this one's is where that was run".into()),
    }
}

fn failed(error: TransportError) -> CliError {
    CliError::failed(format!("making certificates: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;
    use chunk_format::keys::Masters;
    use std::os::unix::fs::PermissionsExt;

    fn servers(metadata: &[&str], chunk: &[&str]) -> Vec<ServerName> {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        names::parse(&list(metadata), &list(chunk)).unwrap()
    }

    fn files(dir: &Path) -> Vec<(String, u32)> {
        let mut found: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn each_server_gets_what_it_may_know_and_no_more() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = Folder::new(&tmp.path().join("secrets"), true).unwrap();
        let authority = authority(&folder).unwrap();
        let all = servers(&["m1=m1.example:7000"], &["n1=n1.example"]);
        client(&folder, &authority, &all).unwrap();
        for one in &all {
            assert!(server(&folder, &authority, one, &["10.0.0.9".into()], Existing::Refuse).unwrap());
        }
        let names = |mode: u32, texts: &[&str]| {
            texts.iter().map(|text| ((*text).to_owned(), mode)).collect::<Vec<_>>()
        };
        assert_eq!(
            files(&folder.authority_dir()),
            names(0o600, &["admin.key", "ca.key", "ca.pem", "master.key"])
        );
        assert_eq!(
            files(&folder.server("m1")),
            names(0o640, &["admin.key", "ca.pem", "cert.pem", "key.pem", "master.key"])
        );
        assert_eq!(files(&folder.server("n1")), names(0o640, &["ca.pem", "cert.pem", "key.pem"]));
        assert_eq!(files(&folder.client()), names(0o640, &["admin.key", "ca.pem", "dfsctl.toml"]));
        assert_eq!(files(tmp.path()), [("secrets".to_owned(), 0o750)]);

        let master = read(&folder.server("m1").join("master.key")).unwrap();
        assert_eq!(Masters::parse(&master).unwrap().current().generation, 1);
        let config = crate::Config::from_file(folder.client().join("dfsctl.toml")).unwrap();
        assert_eq!(
            (config.cluster_id, config.metadata),
            (authority.cluster(), vec!["m1.example:7000".into()])
        );
        for (one, role) in all.iter().zip(["metadata-server", "chunk-server"]) {
            let dir = folder.server(one.id.as_str());
            let uri = format!("dfs://{}/{role}/{}", authority.cluster(), one.id);
            let identity = Identity::new(authority.cluster(), one.role, one.id.clone());
            assert_eq!(identity.uri(), uri);
            check_pair(&authority, &dir.join("cert.pem"), &dir.join("key.pem"), &identity).unwrap();
        }
    }

    #[test]
    fn nothing_is_overwritten_but_by_renewing() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = Folder::new(tmp.path(), false).unwrap();
        let first = authority(&folder).unwrap();
        assert!(authority(&folder).is_err());
        assert_eq!(folder.authority().unwrap().unwrap().cluster(), first.cluster());

        let all = servers(&[], &["n1=n1.example"]);
        let cert = folder.server("n1").join("cert.pem");
        assert!(server(&folder, &first, &all[0], &[], Existing::Keep).unwrap());
        let made = read(&cert).unwrap();
        assert!(!server(&folder, &first, &all[0], &[], Existing::Keep).unwrap());
        assert!(check_absent(&folder, &all[0], Existing::Refuse).is_err());
        assert_eq!(read(&cert).unwrap(), made);
        assert!(server(&folder, &first, &all[0], &[], Existing::Renew).unwrap());
        assert_ne!(read(&cert).unwrap(), made);

        // A key whose certificate a crash kept from being written is no pair yet.
        std::fs::remove_file(&cert).unwrap();
        check_absent(&folder, &all[0], Existing::Refuse).unwrap();
        assert!(server(&folder, &first, &all[0], &[], Existing::Keep).unwrap());

        // The same name in another role, or a pair that is none, is said, not kept.
        let other = servers(&["n1=n1.example"], &[]);
        assert!(server(&folder, &first, &other[0], &[], Existing::Keep).is_err());
        std::fs::write(&cert, "none").unwrap();
        assert!(server(&folder, &first, &all[0], &[], Existing::Keep).is_err());
    }

    #[test]
    fn what_a_crash_left_of_an_authority_is_no_authority() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = Folder::new(tmp.path(), false).unwrap();
        std::fs::create_dir(tmp.path().join("authority.new")).unwrap();
        std::fs::write(tmp.path().join("authority.new/ca.key"), "half").unwrap();
        assert!(folder.authority().unwrap().is_none());
        authority(&folder).unwrap();
        assert!(folder.authority().unwrap().is_some());
    }
}
