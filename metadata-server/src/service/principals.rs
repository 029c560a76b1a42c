//! Principals: create, list, and who the caller is.

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_PRINCIPAL_NAME_BYTES;
use dfs_types::{DfsError, ErrorCode, PrincipalId, RealmId, RequestId};
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
    /// Makes a principal and its API key. The key follows from the master key and the request's id and
    /// is kept nowhere: a repetition of the request, whose first answer may be lost, gives the same one.
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
        let request_id = request.mutation.as_ref().map_or(&[][..], |mutation| mutation.request_id.as_ref());
        let keys = keyring.api_key_secrets(RequestId::from_slice(request_id)?, id);
        let mut keys = keys.map(|secret| ApiKey { principal: id, secret }).peekable();
        let newest = keys.peek().expect("there is at least one master key");
        let kind = Kind::PutPrincipal(v1::PutPrincipal {
            principal_id: id.to_vec().into(),
            name: name.clone(),
            role: role.into(),
            key_hash: key_hash(newest).to_vec().into(),
            realm_id: realm.to_vec().into(),
            wrapped_realm_secret: keyring.wrap_realm_secret(&realm, &keyring.draw()).into(),
        });
        let result = self.propose(&request.mutation, kind).await?;
        let row = query::principal(&self.local()?, id)?
            .ok_or_else(|| DfsError::new(ErrorCode::PrincipalNotFound, "the principal was removed again"))?;
        let key = keys.find(|key| equal(&row.key_hash, &key_hash(key))).ok_or_else(|| {
            // An earlier try did it, under a master key that is not on file any more.
            DfsError::new(
                ErrorCode::AlreadyExists,
                format!("principal {name} was made by an earlier try whose answer, with the key, was lost"),
            )
        })?;
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
