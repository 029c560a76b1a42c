//! The seam to AES-256-GCM and the key derivation: everything else in the crate is written against
//! these few functions, so that another backend changes this file alone.
//!
//! The backend is aws-lc, which the transport's TLS brings along anyway and which takes a quarter of the
//! time of `aes-gcm`; tests compare the two byte for byte.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use dfs_types::{Entropy, Secret};
use hkdf::Hkdf;
use sha2::Sha256;

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = dfs_types::limits::TAG_BYTES;
/// What one message with its own random nonce takes beyond its plaintext.
pub(crate) const MESSAGE_OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

/// One AES-256-GCM key, expanded. The backend overwrites its schedule when dropped.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &Secret<32>) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 bytes are a key of AES-256");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `text` where it lies and returns its tag.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        // That no nonce comes twice is the caller's part: see `seal::nonce` and `seal_message`.
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            .expect("a message is far shorter than GCM's 64 GiB");
        tag.as_ref().try_into().expect("a tag of GCM has 16 bytes")
    }

    /// Decrypts `text` where it lies if its tag is right; otherwise says false and leaves zeros, so
    /// that what was not verified is not to be had.
    #[must_use]
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text).is_ok();
        if !opened {
            text.fill(0);
        }
        opened
    }
}

/// `nonce || ciphertext || tag` of one message under a random nonce. For keys that seal a handful of
/// messages in their life: wraps, pages, roots.
pub(crate) fn seal_message(key: &Secret<32>, aad: &[u8], plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let mut nonce = [0u8; NONCE_BYTES];
    entropy.fill(&mut nonce);
    let mut message = Vec::with_capacity(plain.len() + MESSAGE_OVERHEAD);
    message.extend_from_slice(&nonce);
    message.extend_from_slice(plain);
    let tag = Cipher::new(key).seal(&nonce, aad, &mut message[NONCE_BYTES..]);
    message.extend_from_slice(&tag);
    message
}

/// The plaintext of [`seal_message`], to be overwritten by the caller's use of `Zeroizing`.
pub(crate) fn open_message(
    key: &Secret<32>,
    aad: &[u8],
    message: &[u8],
) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (nonce, rest) = message.split_first_chunk::<NONCE_BYTES>()?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let mut plain = zeroize::Zeroizing::new(text.to_vec());
    Cipher::new(key).open(nonce, aad, &mut plain, tag).then_some(plain)
}

/// `E(k, info, N)`: HKDF-Expand-SHA256 with `k` as the pseudorandom key. `k` is always 32 uniformly
/// random bytes, so there is nothing to extract. `info` is the concatenation of its parts.
pub(crate) fn expand<const N: usize>(key: &Secret<32>, info: &[&[u8]]) -> Secret<N> {
    let mut output = zeroize::Zeroizing::new([0u8; N]);
    Hkdf::<Sha256>::from_prk(key.expose())
        .expect("32 bytes are a whole SHA-256 output")
        .expand_multi_info(info, output.as_mut_slice())
        .expect("N is far below HKDF's 8,160 bytes");
    Secret::new(*output)
}
