//! Principals: create, list, and who the caller is.

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_PRINCIPAL_NAME_BYTES;
use dfs_types::{DfsError, ErrorCode, PrincipalId, RealmId};
use metadata_core::query;
use server_kit::credentials::{ApiKey, equal};

use super::auth::key_hash;
use super::buckets::list_limit;
use super::session::Session;

fn info(row: &v1::PrincipalRow, position: u64) -> v1::PrincipalInfo {
    v1::PrincipalInfo {
        principal_id: row.principal_id.clone(),
        name: row.name.clone(),
        role: row.role,
        api_key: String::new(),
        created_unix_ms: row.created_unix_ms,
        position,
    }
}

impl Session {
    pub(super) async fn create_principal(
        &self,
        request: v1::CreatePrincipalRequest,
    ) -> Result<v1::PrincipalInfo, DfsError> {
        let role = v1::Role::try_from(request.role).unwrap_or_default();
        let name = &request.name;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
        if role == v1::Role::Unspecified
            || name.is_empty()
            || name.len() > MAX_PRINCIPAL_NAME_BYTES
            || !name.bytes().all(plain)
        {
            return Err(DfsError::new(
                ErrorCode::InvalidArgument,
                "a principal needs a role and a name of 1-63 letters, digits or . _ - @",
            ));
        }
        let keyring = &self.parts().keyring;
        let id = PrincipalId(self.id_of_mutation(&request.mutation, "principal")?);
        let realm = RealmId::generate(&*self.parts().clock, &*self.parts().entropy);
        let key = ApiKey { principal: id, secret: keyring.draw() };
        let kind = Kind::PutPrincipal(v1::PutPrincipal {
            principal_id: id.to_vec().into(),
            name: name.clone(),
            role: role.into(),
            key_hash: key_hash(&key).to_vec().into(),
            realm_id: realm.to_vec().into(),
            wrapped_realm_secret: keyring.wrap_realm_secret(&realm, &keyring.draw()).into(),
        });
        let result = self.propose(&request.mutation, kind).await?;
        let row = query::principal(&self.local()?, id)?
            .ok_or_else(|| DfsError::new(ErrorCode::PrincipalNotFound, "the principal was removed again"))?;
        if !equal(&row.key_hash, &key_hash(&key)) {
            // An earlier try of this call did it, and its key went with its lost answer.
            return Err(DfsError::new(
                ErrorCode::AlreadyExists,
                format!("principal {name} was made by an earlier try whose answer, with the key, was lost"),
            ));
        }
        Ok(v1::PrincipalInfo { api_key: key.to_text().to_string(), ..info(&row, result.position) })
    }

    pub(super) async fn list_principals(
        &self,
        request: v1::ListPrincipalsRequest,
    ) -> Result<v1::ListPrincipalsResponse, DfsError> {
        let limit = list_limit(request.limit)?;
        let after = match request.cursor.as_str() {
            "" => None,
            text => Some(text.parse::<PrincipalId>()?),
        };
        let view = self.view().await?;
        let page = query::principals_page(&view, after, limit)?;
        let next_cursor = match page.last() {
            Some(last) if page.len() == limit => PrincipalId::from_slice(&last.principal_id)?.to_string(),
            _ => String::new(),
        };
        let position = view.position().0;
        Ok(v1::ListPrincipalsResponse {
            principals: page.iter().map(|row| info(row, position)).collect(),
            next_cursor,
            position,
        })
    }

    pub(super) async fn who_am_i(&self, _: v1::WhoAmIRequest) -> Result<v1::PrincipalInfo, DfsError> {
        let view = self.view().await?;
        let row = query::principal(&view, self.principal_id()?)?
            .ok_or_else(|| DfsError::new(ErrorCode::Unauthenticated, "the caller is not known any more"))?;
        Ok(info(&row, view.position().0))
    }
}
