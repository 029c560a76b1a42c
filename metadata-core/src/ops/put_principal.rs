//! PutPrincipal: makes a principal, or changes the name, role or key of one.

use dfs_proto::v1;
use dfs_types::{ErrorCode, PrincipalId};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::Tail;
use crate::rows::principals::{Principals, PrincipalsByKey, PrincipalsByName};
use crate::rules::forms::{self, Check, invalid};

pub(super) fn check(c: &v1::PutPrincipal) -> Check {
    forms::id(&c.principal_id, "principal id")?;
    if c.principal_id.iter().all(|byte| *byte == 0) {
        return Err(invalid("principal id zero is the cluster itself"));
    }
    forms::principal_name(&c.name)?;
    forms::hash(&c.key_hash, "key hash")?;
    forms::id(&c.realm_id, "realm id")?;
    forms::wrapped(&c.wrapped_realm_secret, "wrapped realm secret")?;
    match c.role() {
        v1::Role::Unspecified => Err(invalid("the role is missing or unknown")),
        v1::Role::Admin | v1::Role::User | v1::Role::Readonly => Ok(()),
    }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PutPrincipal) -> OpResult {
    ctx.require(Operation::CreatePrincipal)?;
    let id = PrincipalId::from_slice(&c.principal_id)?;
    let key_hash: [u8; 32] = c.key_hash.as_ref().try_into().expect("checked");
    let name = Tail(c.name.clone());
    let taken = |row: Option<v1::IdRow>| row.is_some_and(|row| row.id != c.principal_id);
    if taken(ctx.get::<PrincipalsByName>(&name)?) {
        return refuse(ErrorCode::AlreadyExists, format!("there is a principal {:?} already", c.name));
    }
    if taken(ctx.get::<PrincipalsByKey>(&key_hash)?) {
        return refuse(ErrorCode::AlreadyExists, "the key belongs to another principal");
    }
    let mut row = v1::PrincipalRow {
        principal_id: c.principal_id.clone(),
        name: c.name.clone(),
        role: c.role,
        key_hash: c.key_hash.clone(),
        realm_id: c.realm_id.clone(),
        wrapped_realm_secret: c.wrapped_realm_secret.clone(),
        created_unix_ms: ctx.unix_ms,
        position: ctx.position,
    };
    match ctx.get::<Principals>(&id)? {
        Some(old) => {
            // Chunks are sealed under the realm: it stays.
            row.realm_id = old.realm_id;
            row.wrapped_realm_secret = old.wrapped_realm_secret;
            row.created_unix_ms = old.created_unix_ms;
            ctx.delete::<PrincipalsByName>(&Tail(old.name));
            if let Ok(hash) = old.key_hash.as_ref().try_into() {
                ctx.delete::<PrincipalsByKey>(&hash);
            }
        }
        None => ctx.count().principals += 1,
    }
    let index = v1::IdRow { id: c.principal_id.clone() };
    ctx.put::<PrincipalsByName>(&name, &index);
    ctx.put::<PrincipalsByKey>(&key_hash, &index);
    ctx.put::<Principals>(&id, &row);
    Ok(v1::CommandResult { created_id: c.principal_id.clone(), ..Default::default() })
}
