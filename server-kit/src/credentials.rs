//! Reading the credential of a call: exactly one `authorization: Bearer KEY` header.

use dfs_types::ids::{from_hex, hex};
use dfs_types::{DfsError, ErrorCode, PrincipalId, Secret};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

const MAX_TOKEN_BYTES: usize = 8 * 1024;
const API_KEY_PREFIX: &str = "dfs_";

/// The token of the one `authorization` header. None, two, another scheme or strange characters
/// are `unauthenticated`; the answer never repeats what was sent. For `tonic`:
/// `bearer(request.metadata().as_ref())`.
pub fn bearer(headers: &HeaderMap) -> Result<&str, DfsError> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = match (all.next(), all.next()) {
        (Some(value), None) => value,
        (None, _) => return Err(refused("a credential is needed: authorization: Bearer KEY")),
        (Some(_), Some(_)) => return Err(refused("more than one authorization header")),
    };
    let text = value.to_str().map_err(|_| refused("the credential has strange characters"))?;
    let (scheme, token) = text.split_once(' ').ok_or_else(|| refused("not a bearer credential"))?;
    let token = token.trim_matches(' ');
    let fits = !token.is_empty()
        && token.len() <= MAX_TOKEN_BYTES
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    if scheme.eq_ignore_ascii_case("bearer") && fits {
        Ok(token)
    } else {
        Err(refused("not a bearer credential"))
    }
}

/// An API key, `dfs_<principal id, 32 hex>_<secret, 64 hex>`. Stored only as a hash of its secret.
pub struct ApiKey {
    pub principal: PrincipalId,
    pub secret: Secret<32>,
}

impl ApiKey {
    pub fn parse(token: &str) -> Result<Self, DfsError> {
        let parts = token.strip_prefix(API_KEY_PREFIX).and_then(|rest| rest.split_once('_'));
        let parsed = parts.and_then(|(principal, secret)| {
            let principal = PrincipalId(from_hex(principal)?);
            let mut bytes: [u8; 32] = from_hex(secret)?;
            let secret = Secret::new(bytes);
            bytes.zeroize();
            Some(Self { principal, secret })
        });
        parsed.ok_or_else(|| refused("not an API key"))
    }

    /// The key as its owner writes it. Secret: for a file of mode 0600 or a header.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex(self.secret.expose()));
        Zeroizing::new(format!("{API_KEY_PREFIX}{}_{}", hex(self.principal.as_bytes()), *secret))
    }
}

/// Whether two hashes or MACs are equal, in time that does not tell where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn refused(message: &str) -> DfsError {
    DfsError::new(ErrorCode::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        bearer(&headers).ok().map(str::to_owned)
    }

    #[test]
    fn one_bearer_header_and_nothing_else() {
        assert_eq!(check(&[b"Bearer abc"]), Some("abc".into()));
        assert_eq!(check(&[b"bearer  a.b-c= "]), Some("a.b-c=".into()));
        for bad in [
            &[][..],
            &[&b"Bearer a"[..], b"Bearer a"],
            &[&b"Basic abc"[..]],
            &[&b"Bearer"[..]],
            &[&b"Bearer "[..]],
            &[&b"Bearer a b"[..]],
            &[&b"Bearer \xff"[..]],
            &[&b"Bearer a,b"[..]],
        ] {
            assert_eq!(check(bad), None, "{bad:?}");
        }
        assert_eq!(check(&[format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1)).as_bytes()]), None);
    }

    #[test]
    fn an_api_key_reads_back() {
        let key = ApiKey { principal: PrincipalId([3; 16]), secret: Secret::new([9; 32]) };
        let text = key.to_text();
        let read = ApiKey::parse(&text).unwrap();
        assert_eq!(read.principal, key.principal);
        assert!(equal(read.secret.expose(), key.secret.expose()));
        for bad in ["", "dfs_", &text[1..], &text[..text.len() - 1], &text.replace("_09", "_0x")] {
            assert!(ApiKey::parse(bad).is_err(), "{bad}");
        }
    }
}
