//! HMAC-SHA256 at the end of grants and receipts, and the keys for it.

use dfs_types::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::aead::expand;

pub(crate) const MAC_BYTES: usize = 32;

/// Under which the metadata leader signs a node's grants.
#[derive(Clone)]
pub struct GrantKey(pub(crate) Secret<32>);

/// Under which a node signs its receipts.
#[derive(Clone)]
pub struct ReceiptKey(pub(crate) Secret<32>);

/// What a node and the metadata service derive from the node's secret: one key a purpose.
#[derive(Clone)]
pub struct NodeKeys {
    pub grant: GrantKey,
    pub receipt: ReceiptKey,
}

impl NodeKeys {
    pub fn derive(node_secret: &Secret<32>) -> Self {
        Self {
            grant: GrantKey(expand(node_secret, &[b"dfs node v1 grant\0"])),
            receipt: ReceiptKey(expand(node_secret, &[b"dfs node v1 receipt\0"])),
        }
    }
}

/// Appends the MAC of everything in `message`.
pub(crate) fn sign(key: &Secret<32>, message: &mut Vec<u8>) {
    let mac = mac_of(key, message);
    message.extend_from_slice(&mac);
}

/// Whether `mac` is that of `body`, in constant time.
pub(crate) fn is_signed(key: &Secret<32>, body: &[u8], mac: &[u8; MAC_BYTES]) -> bool {
    mac_of(key, body).ct_eq(mac).into()
}

fn mac_of(key: &Secret<32>, body: &[u8]) -> [u8; MAC_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
    mac.update(body);
    mac.finalize().into_bytes().into()
}
