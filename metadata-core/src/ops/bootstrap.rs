//! Bootstrap: the first command of a cluster. Once.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, Fault, OpResult, refuse};
use super::put_principal;
use crate::rights::Operation;
use crate::rows::meta::{ClusterMeta, Field};
use crate::rules::features;
use crate::rules::forms::{self, Check};

pub(super) fn check(c: &v1::Bootstrap) -> Check {
    forms::id(&c.cluster_id, "cluster id")?;
    forms::id(&c.shared_realm_id, "shared realm id")?;
    forms::wrapped(&c.wrapped_shared_realm_secret, "wrapped shared realm secret")?;
    forms::id(&c.master_key_id, "master key id")?;
    put_principal::check(&admin(c))
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::Bootstrap) -> OpResult {
    ctx.require(Operation::Background)?;
    if ctx.get::<ClusterMeta>(&Field)?.is_some() {
        return refuse(ErrorCode::FailedPrecondition, "the cluster was bootstrapped already");
    }
    let feature_level = c.feature_level.max(features::FIRST);
    if feature_level > features::LATEST {
        return Err(Fault::TooNew { level: feature_level });
    }
    let row = v1::ClusterRow {
        cluster_id: c.cluster_id.clone(),
        master_key_id: c.master_key_id.clone(),
        shared_realm_id: c.shared_realm_id.clone(),
        wrapped_shared_realm_secret: c.wrapped_shared_realm_secret.clone(),
        feature_level,
        created_unix_ms: ctx.unix_ms,
    };
    ctx.put::<ClusterMeta>(&Field, &row);
    put_principal::apply(ctx, &admin(c))
}

fn admin(c: &v1::Bootstrap) -> v1::PutPrincipal {
    v1::PutPrincipal {
        principal_id: c.admin_id.clone(),
        name: c.admin_name.clone(),
        role: v1::Role::Admin.into(),
        key_hash: c.admin_key_hash.clone(),
        realm_id: c.admin_realm_id.clone(),
        wrapped_realm_secret: c.wrapped_admin_realm_secret.clone(),
    }
}
