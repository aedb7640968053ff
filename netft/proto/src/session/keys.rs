//! The key schedule of one direction of a session: epochs, ratchet, nonces. Pure.
//!
//! ```text
//! secret 0 ──"netft ratchet"──▶ secret 1 ──"netft ratchet"──▶ secret 2 ─▶ …
//!    ├─"netft key"─▶ key 0         ├─▶ key 1                    ├─▶ key 2
//!    └─"netft iv"──▶ IV 0          └─▶ IV 1                     └─▶ IV 2
//! ```
//!
//! Each arrow is one HKDF-Expand with SHA-256 (RFC 5869 section 2.3); the nonce is IV xor counter,
//! as in TLS 1.3 (RFC 8446 section 5.3). IVs have the length that the AEAD takes. Three epochs are
//! kept, and the secret after them. Each ratchet step wipes the secret it started from, so keys
//! before the three cannot be derived again. (The AEAD library does not wipe its expanded key
//! schedules; they are freed with their epoch.)

use std::sync::Arc;

use aegis::aegis256x4::Aegis256X4;
use ring::{
    aead,
    aead::{Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use zeroize::{Zeroize, Zeroizing};

use crate::wire::{
    DropReason,
    header::{HEADER_LEN, TAG_LEN},
    hello::CipherSupport,
};

/// Longest nonce of an AEAD: AEGIS-256X4's.
const MAX_NONCE_LEN: usize = 32;

/// AEAD of a session. Both ends select the same from their hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Cipher {
    /// AEGIS-256X4 (draft-irtf-cfrg-aegis-aead): both CPUs have vector instructions for AES.
    Aegis256X4,
    /// AES-256-GCM: both CPUs have AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: at least one CPU has none.
    ChaCha20Poly1305,
}

impl Cipher {
    /// Selects the fastest AEAD that both ends support.
    pub const fn from_support(local: CipherSupport, remote: CipherSupport) -> Self {
        if local.aegis && remote.aegis {
            Self::Aegis256X4
        } else if local.aes && remote.aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aegis256X4 => "AEGIS-256X4",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}

/// Returns whether AEGIS-256X4 of this build and CPU gives the draft's test vector 2, sealed and
/// opened: its code is chosen by the CPU at run time, so no test of another machine proves it.
pub fn aegis_is_sound() -> bool {
    let key: [u8; 32] = std::array::from_fn(|i| i as u8);
    let nonce: [u8; 32] = std::array::from_fn(|i| 16 + i as u8);
    let associated = [1, 2, 3, 4, 1, 2, 3, 4];
    let plain: [u8; 120] = std::array::from_fn(|i| 4 + i as u8 % 4);
    let mut message = plain;
    let seal = || Aegis256X4::<TAG_LEN>::new(&key, &nonce);
    let tag = seal().encrypt_in_place(&mut message, &associated);
    let is_vector = tag == TEST_TAG && message[..16] == TEST_START;
    seal().decrypt_in_place(&mut message, &tag, &associated).is_ok()
        && message == plain
        && is_vector
}

/// The tag of the draft's test vector 2, and the first block of its ciphertext.
const TEST_TAG: [u8; TAG_LEN] = 0xb63b_611b_1397_5e2f_3dc3_cb6c_2397_bfcd_u128.to_be_bytes();
const TEST_START: [u8; 16] = 0xbfc2_085b_7e80_17da_99b0_b6d6_46ae_4d01_u128.to_be_bytes();

/// Null cipher, to measure the cost of the AEAD: it protects nothing. Off unless compiled in.
const NULL_CIPHER: bool = cfg!(netft_null_cipher);
const NULL_TAG: [u8; TAG_LEN] = [0; TAG_LEN];

/// A secret of 32 bytes, wiped when dropped.
type EpochSecret = Zeroizing<[u8; 32]>;

/// The key of one epoch.
pub(crate) struct EpochKey {
    epoch: u64,
    /// The expanded key; `None`: AEGIS-256X4, which expands none.
    expanded: Option<LessSafeKey>,
    iv: [u8; MAX_NONCE_LEN],
    /// The key itself: for AEGIS, and for a successor process, as `ring` does not give it back.
    material: EpochSecret,
}

impl EpochKey {
    fn derive(cipher: Cipher, epoch: u64, secret: &EpochSecret) -> Arc<Self> {
        let mut material = EpochSecret::default();
        hkdf_expand(secret, b"netft key", material.as_mut());
        // A shorter output of HKDF-Expand is the start of a longer one.
        let mut iv = [0; MAX_NONCE_LEN];
        hkdf_expand(secret, b"netft iv", &mut iv);
        Self::from_material(cipher, epoch, material, iv)
    }

    fn from_material(
        cipher: Cipher,
        epoch: u64,
        material: EpochSecret,
        iv: [u8; MAX_NONCE_LEN],
    ) -> Arc<Self> {
        let algorithm = match cipher {
            Cipher::Aegis256X4 => None,
            Cipher::Aes256Gcm => Some(&aead::AES_256_GCM),
            Cipher::ChaCha20Poly1305 => Some(&aead::CHACHA20_POLY1305),
        };
        let expand = |algorithm| {
            let key = UnboundKey::new(algorithm, material.as_ref());
            LessSafeKey::new(key.expect("both AEADs take 32 bytes"))
        };
        Arc::new(Self { epoch, expanded: algorithm.map(expand), iv, material })
    }

    fn to_saved(&self) -> SavedEpochKey {
        SavedEpochKey { epoch: self.epoch, key: *self.material, iv: self.iv }
    }

    /// IV xor counter (RFC 8446 section 5.3), in two stores of the sizes that the AEAD loads. The
    /// CPU does not forward smaller stores to a larger load; the load would stall until the store
    /// buffer, with the whole packet in it, has drained.
    #[inline]
    fn nonce_for(&self, counter: u64) -> Nonce {
        let [i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, ..] = self.iv;
        let head = u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]) ^ (counter >> 32);
        let tail = u32::from_be_bytes([i8, i9, i10, i11]) ^ counter as u32;
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[..8].copy_from_slice(&head.to_be_bytes());
        nonce[8..].copy_from_slice(&tail.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// The same for AEGIS: the counter is in the last of its 32 bytes, too.
    #[inline]
    fn aegis_nonce_for(&self, counter: u64) -> [u8; MAX_NONCE_LEN] {
        let mut nonce = self.iv;
        let mut mask = [0; MAX_NONCE_LEN];
        mask[MAX_NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
        for (byte, mask) in nonce.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        nonce
    }

    /// Seals `payload` in place, and writes its tag.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when the payload is longer than the AEAD allows (64 GiB).
    #[inline]
    pub(crate) fn seal(
        &self,
        counter: u64,
        header: [u8; HEADER_LEN],
        payload: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), DropReason> {
        if NULL_CIPHER {
            *tag = NULL_TAG;
            return Ok(());
        }
        let Some(key) = &self.expanded else {
            let nonce = self.aegis_nonce_for(counter);
            *tag = Aegis256X4::new(&self.material, &nonce).encrypt_in_place(payload, &header);
            return Ok(());
        };
        let sealed =
            key.seal_in_place_separate_tag(self.nonce_for(counter), Aad::from(header), payload);
        tag.copy_from_slice(sealed.map_err(|_| DropReason::TooBig)?.as_ref());
        Ok(())
    }

    /// Opens `sealed`, payload and tag, in place; returns the payload.
    ///
    /// # Errors
    /// [`DropReason::NotAuthentic`]; the bytes are unspecified then.
    #[inline]
    pub(crate) fn open<'a>(
        &self,
        counter: u64,
        header: [u8; HEADER_LEN],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        if NULL_CIPHER {
            let payload = sealed.split_last_chunk_mut::<TAG_LEN>().map(|(payload, _)| payload);
            return payload.ok_or(DropReason::NotAuthentic);
        }
        let Some(key) = &self.expanded else {
            let Some((payload, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
                return Err(DropReason::NotAuthentic);
            };
            let nonce = self.aegis_nonce_for(counter);
            return match Aegis256X4::new(&self.material, &nonce)
                .decrypt_in_place(payload, tag, &header)
            {
                Ok(()) => Ok(payload),
                Err(_) => Err(DropReason::NotAuthentic),
            };
        };
        key.open_in_place(self.nonce_for(counter), Aad::from(header), sealed)
            .map_err(|_| DropReason::NotAuthentic)
    }
}

/// The three key epochs in use. Immutable: [`to_next_epoch`](Self::to_next_epoch) derives the next
/// window.
pub(crate) struct KeyWindow {
    cipher: Cipher,
    previous: Option<Arc<EpochKey>>,
    current: Arc<EpochKey>,
    next: Arc<EpochKey>,
    /// The secret of the epoch after `next`.
    secret: EpochSecret,
}

impl KeyWindow {
    /// The window at epoch 0.
    pub(crate) fn new(cipher: Cipher, secret: &[u8; 32]) -> Self {
        let zero = EpochSecret::new(*secret);
        let one = ratchet_secret(&zero);
        Self {
            cipher,
            previous: None,
            current: EpochKey::derive(cipher, 0, &zero),
            next: EpochKey::derive(cipher, 1, &one),
            secret: ratchet_secret(&one),
        }
    }

    /// The newest epoch in which an authentic frame was sealed or opened.
    #[inline]
    pub(crate) fn current_epoch(&self) -> u64 {
        self.current.epoch
    }

    /// The key of `epoch`, if it is one of the three.
    #[inline]
    pub(crate) fn key_for_epoch(&self, epoch: u64) -> Option<&EpochKey> {
        if epoch == self.current.epoch {
            return Some(&self.current);
        }
        if epoch == self.next.epoch {
            return Some(&self.next);
        }
        self.previous.as_deref().filter(|previous| previous.epoch == epoch)
    }

    /// The window for a successor process.
    pub(crate) fn to_saved(&self) -> SavedKeys {
        SavedKeys {
            previous: self.previous.as_ref().map(|key| key.to_saved()),
            current: self.current.to_saved(),
            next: self.next.to_saved(),
            secret: *self.secret,
        }
    }

    /// The window of a predecessor process.
    pub(crate) fn from_saved(cipher: Cipher, saved: &SavedKeys) -> Self {
        let restore = |saved: &SavedEpochKey| {
            EpochKey::from_material(cipher, saved.epoch, EpochSecret::new(saved.key), saved.iv)
        };
        Self {
            cipher,
            previous: saved.previous.as_ref().map(restore),
            current: restore(&saved.current),
            next: restore(&saved.next),
            secret: EpochSecret::new(saved.secret),
        }
    }

    /// The AEAD.
    pub(crate) const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The window advanced by one epoch.
    pub(crate) fn to_next_epoch(&self) -> Self {
        Self {
            cipher: self.cipher,
            previous: Some(Arc::clone(&self.current)),
            current: Arc::clone(&self.next),
            next: EpochKey::derive(self.cipher, self.next.epoch + 1, &self.secret),
            secret: ratchet_secret(&self.secret),
        }
    }
}

/// The key of one epoch, for a successor process; wiped when dropped.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct SavedEpochKey {
    epoch: u64,
    key: [u8; 32],
    iv: [u8; MAX_NONCE_LEN],
}

impl Drop for SavedEpochKey {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

/// The keys of one direction, for a successor process; wiped when dropped. They are those that are
/// in use: keys of earlier epochs cannot be derived from them.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct SavedKeys {
    previous: Option<SavedEpochKey>,
    current: SavedEpochKey,
    next: SavedEpochKey,
    secret: [u8; 32],
}

impl Drop for SavedKeys {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

fn ratchet_secret(secret: &EpochSecret) -> EpochSecret {
    let mut next = EpochSecret::default();
    hkdf_expand(secret, b"netft ratchet", next.as_mut());
    next
}

/// HKDF-Expand: fills `out` from `secret` under `label`.
fn hkdf_expand(secret: &EpochSecret, label: &[u8], out: &mut [u8]) {
    struct OutputLength(usize);
    impl hkdf::KeyType for OutputLength {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret.as_ref());
    prk.expand(&[label], OutputLength(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("far shorter than HKDF's 255 blocks, and of the requested length");
}

const _: () = assert!(TAG_LEN == aead::MAX_TAG_LEN);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ring::hmac;

    use super::*;

    /// HKDF-Expand of up to 32 bytes, written out: T(1) = HMAC(secret, label | 0x01).
    fn by_hand(secret: &[u8; 32], label: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::sign(&key, &[label, &[1]].concat()).as_ref().try_into().unwrap()
    }

    #[test]
    fn keys_ivs_and_secrets_follow_the_schedule() {
        let first = [7; 32];
        let second = by_hand(&first, b"netft ratchet");
        let third = by_hand(&second, b"netft ratchet");
        let window = KeyWindow::new(Cipher::Aes256Gcm, &first);
        assert_eq!(*window.secret, third);
        assert_eq!(window.current.iv, by_hand(&first, b"netft iv"));
        assert_eq!(window.next.iv, by_hand(&second, b"netft iv"));

        let mut ours = *b"payload";
        let mut tag = [0; TAG_LEN];
        window.current.seal(5, [1; HEADER_LEN], &mut ours, &mut tag).unwrap();
        let key = UnboundKey::new(&aead::AES_256_GCM, &by_hand(&first, b"netft key")).unwrap();
        let mut nonce: [u8; 12] = by_hand(&first, b"netft iv")[..12].try_into().unwrap();
        nonce[11] ^= 5;
        let mut theirs = *b"payload";
        let expected = LessSafeKey::new(key)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from([1; HEADER_LEN]),
                &mut theirs,
            )
            .unwrap();
        assert_eq!((ours, tag.as_slice()), (theirs, expected.as_ref()));
    }

    #[test]
    fn a_nonce_is_the_iv_xor_the_counter_byte_by_byte() {
        let window = KeyWindow::new(Cipher::Aes256Gcm, &[3; 32]);
        for counter in [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x0123_4567_89ab_cdef, u64::MAX] {
            let mut expected: [u8; 12] = window.current.iv[..12].try_into().unwrap();
            for (byte, counter) in expected[4..].iter_mut().zip(counter.to_be_bytes()) {
                *byte ^= counter;
            }
            assert_eq!(*window.current.nonce_for(counter).as_ref(), expected, "{counter:x}");
        }
    }

    #[test]
    fn every_step_forward_takes_the_secret_one_ratchet_on() {
        let mut secret = [7; 32];
        let mut window = KeyWindow::new(Cipher::Aes256Gcm, &secret);
        for _ in 0..6 {
            assert_eq!(window.current.iv, by_hand(&secret, b"netft iv"));
            secret = by_hand(&secret, b"netft ratchet");
            window = window.to_next_epoch();
        }
    }

    #[test]
    fn three_epochs_are_held_and_no_other() {
        let mut window = KeyWindow::new(Cipher::ChaCha20Poly1305, &[9; 32]);
        for epoch in 0..5u64 {
            assert_eq!(window.current_epoch(), epoch);
            for other in 0..10 {
                let held = other <= epoch + 1 && other + 1 >= epoch;
                assert_eq!(window.key_for_epoch(other).map(|key| key.epoch), held.then_some(other));
            }
            window = window.to_next_epoch();
        }
    }

    #[test]
    fn the_counter_is_the_low_end_of_the_nonce() {
        let key = EpochKey::derive(Cipher::Aes256Gcm, 0, &EpochSecret::new([3; 32]));
        let counted = |len: usize| {
            let mut expected = key.iv[..len].to_vec();
            for (byte, counter) in expected[len - 8..].iter_mut().zip(1..=8) {
                *byte ^= counter;
            }
            expected
        };
        assert_eq!(key.nonce_for(0x0102_0304_0506_0708).as_ref()[..], counted(12));
        assert_eq!(key.aegis_nonce_for(0x0102_0304_0506_0708)[..], counted(32));
    }
}
