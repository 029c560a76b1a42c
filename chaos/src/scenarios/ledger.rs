//! What the cluster acknowledged, kept outside of it, and the check that all of it is still there.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::content;

const BUCKET: &str = "ledger";
/// Inline, one chunk, several chunks.
const LENGTHS: [u64; 3] = [1000, 100_000, 9 << 20];

pub struct Ledger<'a> {
    cluster: &'a Cluster,
    seed: u64,
    acknowledged: Vec<(String, u64)>,
}

impl<'a> Ledger<'a> {
    /// Makes the bucket it keeps its files in.
    pub fn new(cluster: &'a Cluster, seed: u64) -> Result<Self> {
        cluster.dfsctl(["bucket", "create", BUCKET])?;
        Ok(Self { cluster, seed, acknowledged: Vec::new() })
    }

    fn address(label: &str) -> String {
        format!("dfs://{BUCKET}/{label}")
    }

    /// Puts one file of each size under a new label.
    pub fn put_some(&mut self, label: &str) -> Result<()> {
        for length in LENGTHS {
            let name = format!("{label} {length}");
            let source = self.cluster.scratch().join("ledger-source");
            content::write_file(&source, self.seed, &name, length)?;
            self.cluster
                .dfsctl([Path::new("put"), &source, Path::new(&Self::address(&name))])
                .with_context(|| format!("putting {name:?}"))?;
            self.acknowledged.push((name, length));
        }
        Ok(())
    }

    /// Deletes the newest file, which is then found no more.
    pub fn delete_some(&mut self) -> Result<()> {
        let (name, _) = self.acknowledged.last().context("nothing is left to delete")?;
        self.cluster.dfsctl(["rm", &Self::address(name)])?;
        let looked = self.cluster.command(["cat", &Self::address(name)]).output()?;
        ensure!(looked.status.code() == Some(3), "{name:?} was deleted: {looked:?}");
        self.acknowledged.pop();
        Ok(())
    }

    /// Reads everything back that was ever acknowledged.
    pub fn check(&self) -> Result<()> {
        for (name, length) in &self.acknowledged {
            let back = self.cluster.dfsctl(["cat", &Self::address(name)])?;
            content::check_reader(&back[..], self.seed, name, *length)
                .with_context(|| format!("{name:?} was acknowledged"))?;
        }
        Ok(())
    }
}
