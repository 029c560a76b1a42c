//! Key material that cannot be printed by mistake.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes: no Debug, no Display, no serialization, overwritten when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize = 32>([u8; N]);

impl<const N: usize> Secret<N> {
    pub fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes themselves: only for handing to a cipher, a MAC or an encrypted channel.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}
