//! The master keys, and the wrapping of every key below them.
//!
//! Owner: the serving process; read once at start from a file outside every data directory. Nothing
//! here is ever proposed, stored or logged in the clear. Without a readable file that only its owner
//! may read, the server does not start; a record under a generation that is not in the file fails,
//! there is no fallback key.

use std::path::Path;
use std::sync::Arc;

use chunk_format::keys::{self, Kek, Masters, VersionBinding, WrapKind};
use dfs_types::{
    BucketId, DfsError, Entropy, ErrorCode, Incarnation, PrincipalId, RealmId, RequestId, Secret, UploadId,
};

/// The generation a new bucket's key has.
pub const FIRST_KEK_GENERATION: u32 = 1;

/// Wraps with the highest generation, unwraps with any. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    masters: Arc<Masters>,
    entropy: Arc<dyn Entropy>,
}

impl Keyring {
    pub fn new(masters: Masters, entropy: Arc<dyn Entropy>) -> Self {
        Self { masters: Arc::new(masters), entropy }
    }

    /// Reads a master key file: lines of `GENERATION:64 hex digits`.
    ///
    /// # Errors
    /// If others than its owner may use it, it is empty or a line is not of that form. The sentence
    /// never quotes the file.
    pub fn load(path: &Path, entropy: Arc<dyn Entropy>) -> Result<Self, DfsError> {
        let text = server_kit::secret_file::read_text(path)?;
        let masters = Masters::parse(&text).map_err(|error| {
            DfsError::new(
                ErrorCode::FailedPrecondition,
                format!("master key file {}: {error}", path.display()),
            )
        })?;
        Ok(Self::new(masters, entropy))
    }

    /// The public id of the key that wraps now; committed at bootstrap.
    pub fn master_id(&self) -> [u8; 16] {
        self.masters.current().id()
    }

    /// Whether some generation here has the id.
    pub fn has_master(&self, id: &[u8]) -> bool {
        self.masters.iter().any(|master| master.id() == id)
    }

    /// What the secret of an API key made by this request is, by every master key: of the one that
    /// makes it now first, then those of earlier tries before the key was rotated.
    pub fn api_key_secrets(
        &self,
        request: RequestId,
        principal: PrincipalId,
    ) -> impl Iterator<Item = Secret<32>> {
        let newest_first: Vec<_> = self.masters.iter().collect();
        newest_first.into_iter().rev().map(move |master| keys::api_key_secret(master, &request, &principal))
    }

    /// 32 fresh random bytes.
    pub fn draw(&self) -> Secret<32> {
        keys::random_secret(&*self.entropy)
    }

    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    fn wrap(&self, kind: WrapKind, id: &[u8; 16], secret: &Secret<32>) -> Vec<u8> {
        keys::wrap(self.masters.current(), kind, id, secret, &*self.entropy)
    }

    fn unwrap(
        &self,
        kind: WrapKind,
        what: &str,
        id: &[u8; 16],
        record: &[u8],
    ) -> Result<Secret<32>, DfsError> {
        keys::unwrap(&self.masters, kind, id, record).map_err(|error| {
            DfsError::new(ErrorCode::Internal, format!("{what} cannot be unwrapped: {error}"))
        })
    }

    pub fn wrap_bucket_kek(&self, bucket: &BucketId, kek: &Kek) -> Vec<u8> {
        self.wrap(WrapKind::BucketKek, bucket.as_bytes(), &kek.secret)
    }

    pub fn bucket_kek(&self, bucket: &BucketId, generation: u32, record: &[u8]) -> Result<Kek, DfsError> {
        let secret = self.unwrap(WrapKind::BucketKek, "the bucket's key", bucket.as_bytes(), record)?;
        Ok(Kek { generation, secret })
    }

    pub fn wrap_realm_secret(&self, realm: &RealmId, secret: &Secret<32>) -> Vec<u8> {
        self.wrap(WrapKind::RealmSecret, realm.as_bytes(), secret)
    }

    pub fn realm_secret(&self, realm: &RealmId, record: &[u8]) -> Result<Secret<32>, DfsError> {
        self.unwrap(WrapKind::RealmSecret, "the realm's secret", realm.as_bytes(), record)
    }

    pub fn wrap_upload_secret(&self, upload: &UploadId, secret: &Secret<32>) -> Vec<u8> {
        self.wrap(WrapKind::UploadSecret, upload.as_bytes(), secret)
    }

    pub fn upload_secret(&self, upload: &UploadId, record: &[u8]) -> Result<Secret<32>, DfsError> {
        self.unwrap(WrapKind::UploadSecret, "the upload's secret", upload.as_bytes(), record)
    }

    pub fn wrap_node_secret(&self, incarnation: &Incarnation, secret: &Secret<32>) -> Vec<u8> {
        self.wrap(WrapKind::NodeSecret, incarnation.as_bytes(), secret)
    }

    pub fn node_secret(&self, incarnation: &Incarnation, record: &[u8]) -> Result<Secret<32>, DfsError> {
        self.unwrap(WrapKind::NodeSecret, "the node's secret", incarnation.as_bytes(), record)
    }

    pub fn wrap_version_key(&self, kek: &Kek, bound: &VersionBinding, key: &Secret<32>) -> Vec<u8> {
        keys::wrap_version_key(kek, bound, key, &*self.entropy)
    }

    pub fn version_key(
        &self,
        kek: &Kek,
        bound: &VersionBinding,
        record: &[u8],
    ) -> Result<Secret<32>, DfsError> {
        keys::unwrap_version_key(kek, bound, record).map_err(|error| {
            DfsError::new(ErrorCode::Internal, format!("the version's key cannot be unwrapped: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::OsEntropy;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(dir: &Path, text: &str, mode: u32) -> std::path::PathBuf {
        let path = dir.join("master.key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn reads_only_a_private_well_formed_file() {
        let dir = tempfile::tempdir().unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let good = format!("1:{}\n2:{}\n", "11".repeat(32), "22".repeat(32));
        for (text, mode, works) in [
            (good.as_str(), 0o600, true),
            (good.as_str(), 0o400, true),
            (good.as_str(), 0o640, false),
            (good.as_str(), 0o604, false),
            ("", 0o600, false),
            ("1:zz\n", 0o600, false),
            ("1:11\n", 0o600, false),
        ] {
            let path = write(dir.path(), text, mode);
            let loaded = Keyring::load(&path, entropy.clone());
            assert_eq!(loaded.is_ok(), works, "{text:?} {mode:o}");
            if let Err(error) = loaded {
                assert!(!error.to_string().contains("1111"), "the error quotes the key");
            }
            std::fs::remove_file(&path).unwrap();
        }
        assert!(Keyring::load(&dir.path().join("absent"), entropy.clone()).is_err());
        assert!(Keyring::load(dir.path(), entropy).is_err());
    }

    #[test]
    fn a_wrapped_secret_opens_only_under_its_id_and_master() {
        let keyring = |text: &str| Keyring::new(Masters::parse(text).unwrap(), Arc::new(OsEntropy));
        let (one, two) = (format!("1:{}\n", "11".repeat(32)), format!("2:{}\n", "22".repeat(32)));
        let old = keyring(&one);
        let realm = RealmId([3; 16]);
        let secret = old.draw();
        let record = old.wrap_realm_secret(&realm, &secret);
        let both = keyring(&format!("{one}{two}"));
        assert!(both.realm_secret(&realm, &record).unwrap().expose() == secret.expose());
        assert!(both.realm_secret(&RealmId([4; 16]), &record).is_err());
        assert!(both.upload_secret(&UploadId([3; 16]), &record).is_err());
        assert!(keyring(&two).realm_secret(&realm, &record).is_err());
        assert!(both.has_master(&old.master_id()));
    }
}
