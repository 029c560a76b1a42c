//! Keys and certificates of a new cluster, and the certificate of each server.

use dfs_types::{ClusterId, NodeId, SystemClock};
use transport::ca::Authority;
use transport::{Identity, TransportError};
use zeroize::Zeroizing;

use super::layout::{Layout, make_folder, write_private};
use super::plan::{Role, Server};
use crate::cli::CliError;
use crate::cli::pki::Secrets;

/// Draws the cluster's id and writes its authority, master key and admin key.
pub(super) fn create(layout: &Layout) -> Result<ClusterId, CliError> {
    let secrets = Secrets::draw()?;
    write_private(&layout.ca(), secrets.authority.cert_pem().as_bytes())?;
    write_private(&layout.ca_key(), Zeroizing::new(secrets.authority.key_pem()).as_bytes())?;
    write_private(&layout.master_key(), secrets.master_key.as_bytes())?;
    write_private(&layout.admin_key(), secrets.admin_key.as_bytes())?;
    Ok(secrets.authority.cluster())
}

/// Makes a server's folder with its certificate.
pub(super) fn issue(layout: &Layout, server: &Server) -> Result<(), CliError> {
    let read = |path: std::path::PathBuf| {
        std::fs::read_to_string(&path)
            .map(Zeroizing::new)
            .map_err(|error| CliError::io(format!("reading {}", path.display()), error))
    };
    let authority = Authority::load(&read(layout.ca())?, &read(layout.ca_key())?).map_err(failed)?;
    let id = NodeId::new(server.id.as_str())?;
    let role = match server.role {
        Role::MetadataServer => transport::Role::MetadataServer,
        Role::ChunkServer => transport::Role::ChunkServer,
    };
    let identity = Identity::new(authority.cluster(), role, id);
    let issued = authority.issue(&identity, &[], &SystemClock::new()).map_err(failed)?;
    let folder = layout.server(&server.id);
    make_folder(&folder.dir)?;
    make_folder(&folder.data)?;
    write_private(&folder.key, Zeroizing::new(issued.key_pem).as_bytes())?;
    write_private(&folder.cert, issued.cert_pem.as_bytes())
}

fn failed(error: TransportError) -> CliError {
    CliError::failed(format!("making certificates: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunk_format::keys::Masters;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_cluster_and_a_server() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::resolve(Some(dir.path().to_owned())).unwrap();
        let cluster = create(&layout).unwrap();
        let master = std::fs::read_to_string(layout.master_key()).unwrap();
        assert_eq!(Masters::parse(&master).unwrap().current().generation, 1);
        let admin = std::fs::read_to_string(layout.admin_key()).unwrap();
        let lengths: Vec<usize> = admin.trim().split('_').map(str::len).collect();
        assert_eq!(lengths, [3, 32, 64]);

        let mut plan = super::super::plan::Plan::new(cluster.to_string());
        plan.add(Role::ChunkServer, 1, None);
        issue(&layout, &plan.servers[0]).unwrap();
        let folder = layout.server("n1");
        let pem = |path| std::fs::read(path).unwrap();
        let tls =
            transport::Tls::server(&pem(layout.ca()), &pem(folder.cert), &pem(folder.key.clone())).unwrap();
        let identity = tls.identity().unwrap();
        assert_eq!((identity.cluster, identity.id.as_str()), (cluster, "n1"));
        for path in [layout.ca_key(), layout.master_key(), layout.admin_key(), folder.key] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
