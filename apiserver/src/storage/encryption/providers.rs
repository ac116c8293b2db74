//! The ciphers that upstream has for values at rest, in upstream's layouts. Pure but for the random numbers of each sealing.

use std::marker::PhantomData;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, AeadCore, KeyInit, Payload};
use bytes::Bytes;
use crypto_secretbox::XSalsa20Poly1305;

use super::{OpenError, SEALED};

const GCM_NONCE_BYTES: usize = 12;
const CBC_BLOCK_BYTES: usize = 16;
const SECRETBOX_NONCE_BYTES: usize = 24;

/// A cipher with its secret.
trait Cipher: Send + Sync {
    /// What is stored, but for the prefix.
    fn seal(&self, key: &[u8], plain: &[u8]) -> Vec<u8>;

    /// What was sealed; `None` if this is not what the cipher made of it.
    fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// One key with its cipher, or none at all.
pub(super) struct Provider(Option<Named>);

struct Named {
    /// `k8s:enc:PROVIDER:v1:KEY:`.
    prefix: Vec<u8>,
    cipher: Box<dyn Cipher>,
}

impl Provider {
    /// Values stay plain.
    pub(super) const IDENTITY: Self = Self(None);

    /// AES-GCM: nonce, text and tag; the store's key is authenticated with it. `None` if the secret is not of 16, 24 or 32 bytes.
    pub(super) fn aes_gcm(name: &str, secret: &[u8]) -> Option<Self> {
        let cipher: Box<dyn Cipher> = match secret.len() {
            16 => Box::new(Gcm(AesGcm::<Aes128, U12>::new_from_slice(secret).ok()?)),
            24 => Box::new(Gcm(AesGcm::<Aes192, U12>::new_from_slice(secret).ok()?)),
            32 => Box::new(Gcm(AesGcm::<Aes256, U12>::new_from_slice(secret).ok()?)),
            _ => return None,
        };
        Some(Self::named("aesgcm", name, cipher))
    }

    /// AES-CBC with PKCS #7 padding: initial vector and text. `None` if the secret is not of 16, 24 or 32 bytes.
    pub(super) fn aes_cbc(name: &str, secret: &[u8]) -> Option<Self> {
        let own = secret.to_vec();
        let cipher: Box<dyn Cipher> = match secret.len() {
            16 => Box::new(Cbc::<Aes128>(own, PhantomData)),
            24 => Box::new(Cbc::<Aes192>(own, PhantomData)),
            32 => Box::new(Cbc::<Aes256>(own, PhantomData)),
            _ => return None,
        };
        Some(Self::named("aescbc", name, cipher))
    }

    /// XSalsa20 and Poly1305: nonce, tag and text. `None` if the secret is not of 32 bytes.
    pub(super) fn secret_box(name: &str, secret: &[u8]) -> Option<Self> {
        let cipher = XSalsa20Poly1305::new_from_slice(secret).ok()?;
        Some(Self::named("secretbox", name, Box::new(SecretBox(cipher))))
    }

    fn named(kind: &str, name: &str, cipher: Box<dyn Cipher>) -> Self {
        Self(Some(Named { prefix: format!("k8s:enc:{kind}:v1:{name}:").into_bytes(), cipher }))
    }

    /// See [`super::Encryption::seal`].
    pub(super) fn seal(&self, key: &[u8], plain: Bytes) -> Bytes {
        match &self.0 {
            None => plain,
            Some(Named { prefix, cipher }) => [prefix.as_slice(), &cipher.seal(key, &plain)].concat().into(),
        }
    }

    /// See [`super::Encryption::open`].
    pub(super) fn open(&self, key: &[u8], stored: &Bytes) -> Result<Bytes, OpenError> {
        match &self.0 {
            None if stored.starts_with(SEALED) => Err(OpenError::NoMatchingPrefix),
            None => Ok(stored.clone()),
            Some(Named { prefix, cipher }) => {
                let sealed = stored.strip_prefix(prefix.as_slice()).ok_or(OpenError::NoMatchingPrefix)?;
                cipher.open(key, sealed).map(Bytes::from).ok_or(OpenError::Unauthentic)
            }
        }
    }
}

struct Gcm<A>(AesGcm<A, U12>);

impl<A: Send + Sync> Cipher for Gcm<A>
where
    AesGcm<A, U12>: Aead + AeadCore<NonceSize = U12> + Send + Sync,
{
    fn seal(&self, key: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; GCM_NONCE_BYTES] = random();
        let text = self.0.encrypt(&nonce.into(), Payload { msg: plain, aad: key });
        [&nonce[..], &text.expect("a value is far smaller than 64 GiB")].concat()
    }

    fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<GCM_NONCE_BYTES>()?;
        self.0.decrypt(&(*nonce).into(), Payload { msg: text, aad: key }).ok()
    }
}

struct Cbc<A>(Vec<u8>, PhantomData<A>);

impl<A: Send + Sync> Cipher for Cbc<A>
where
    A: aes::cipher::BlockCipher + aes::cipher::BlockEncryptMut + aes::cipher::BlockDecryptMut,
    cbc::Encryptor<A>: KeyIvInit + BlockEncryptMut,
    cbc::Decryptor<A>: KeyIvInit + BlockDecryptMut,
{
    fn seal(&self, _: &[u8], plain: &[u8]) -> Vec<u8> {
        let vector: [u8; CBC_BLOCK_BYTES] = random();
        let cipher = cbc::Encryptor::<A>::new_from_slices(&self.0, &vector);
        let cipher = cipher.expect("secret and vector have the cipher's lengths");
        [&vector[..], &cipher.encrypt_padded_vec_mut::<Pkcs7>(plain)].concat()
    }

    fn open(&self, _: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (vector, text) = sealed.split_first_chunk::<CBC_BLOCK_BYTES>()?;
        cbc::Decryptor::<A>::new_from_slices(&self.0, vector).ok()?.decrypt_padded_vec_mut::<Pkcs7>(text).ok()
    }
}

struct SecretBox(XSalsa20Poly1305);

impl Cipher for SecretBox {
    fn seal(&self, _: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; SECRETBOX_NONCE_BYTES] = random();
        let text = self.0.encrypt(&nonce.into(), plain).expect("a value is far smaller than 256 GiB");
        [&nonce[..], &text].concat()
    }

    fn open(&self, _: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<SECRETBOX_NONCE_BYTES>()?;
        self.0.decrypt(&(*nonce).into(), text).ok()
    }
}

/// Bytes that nobody can foretell.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}
