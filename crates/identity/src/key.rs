//! Keys: made and used in memory only. BoringSSL wipes what it frees, and we never serialize a workload's key.

use std::fmt;

use boring::ec::{EcGroup, EcKey};
use boring::error::ErrorStack;
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{HasPublic, Id, PKey, PKeyRef, Private};
use boring::sign::Signer;
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

/// The kinds of key we sign with and certify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    P256,
    P384,
    Rsa,
}

/// A private key that stays in memory.
pub struct PrivateKey {
    key: PKey<Private>,
    public: PublicKey,
}

/// The public half of a key, as certificates carry it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    der: Vec<u8>,
    bits: Vec<u8>,
}

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a usable key: {0}")]
    Crypto(#[from] ErrorStack),
    #[error("a key must be ECDSA P-256 or P-384, or RSA of at least 2048 bits")]
    Kind,
}

/// Signs handshakes with a workload's P-256 key.
#[derive(Debug)]
pub(crate) struct HandshakeKey(PrivateKey);

struct HandshakeSigner(PKey<Private>);

// === impl PrivateKey ===

impl PrivateKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        Self::new(PKey::from_ec_key(EcKey::generate(&group)?)?)
    }

    /// Reads a PEM private key (PKCS#8, SEC1 or PKCS#1).
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        Self::new(PKey::private_key_from_pem(pem)?)
    }

    fn new(key: PKey<Private>) -> Result<Self, KeyError> {
        let public = PublicKey::new(&key)?;
        Ok(Self { key, public })
    }

    /// PKCS#8 PEM; only a signer's own key is ever written out.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        Ok(Zeroizing::new(self.key.private_key_to_pem_pkcs8()?))
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    fn digest(&self) -> MessageDigest {
        match self.public.kind {
            KeyKind::P256 | KeyKind::Rsa => MessageDigest::sha256(),
            KeyKind::P384 => MessageDigest::sha384(),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.public.kind)
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Signer::new(self.digest(), &self.key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(message))
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// The public half of `key`, if it is of a kind we certify.
    pub fn new<T: HasPublic>(key: &PKeyRef<T>) -> Result<Self, KeyError> {
        let kind = match key.id() {
            Id::EC => match key.ec_key()?.group().curve_name() {
                Some(Nid::X9_62_PRIME256V1) => KeyKind::P256,
                Some(Nid::SECP384R1) => KeyKind::P384,
                _ => return Err(KeyError::Kind),
            },
            Id::RSA if key.bits() >= 2048 => KeyKind::Rsa,
            _ => return Err(KeyError::Kind),
        };
        let der = key.public_key_to_der()?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| KeyError::Kind)?;
        let bits = info.subject_public_key.data.to_vec();
        Ok(Self { kind, der, bits })
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The SubjectPublicKeyInfo.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key itself as the info's bit string holds it: for an ECDSA key, its uncompressed point.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The key identifier of RFC 7093 §2 method 1: the leftmost 160 bits of the key's SHA-256.
    pub(crate) fn identifier(&self) -> Vec<u8> {
        boring::sha::sha256(&self.bits)[..20].to_vec()
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.kind {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.kind)
    }
}

// === impl HandshakeKey ===

impl HandshakeKey {
    pub(crate) fn new(key: PrivateKey) -> Result<Self, KeyError> {
        match key.public.kind {
            KeyKind::P256 => Ok(Self(key)),
            KeyKind::P384 | KeyKind::Rsa => Err(KeyError::Kind),
        }
    }
}

impl rustls::sign::SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(HandshakeSigner(self.0.key.clone())) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.public.der()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

// === impl HandshakeSigner ===

impl rustls::sign::Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Signer::new(MessageDigest::sha256(), &self.0)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(message))
            .map_err(|error| rustls::Error::General(format!("signing failed: {error}")))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for HandshakeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeSigner")
    }
}

#[cfg(test)]
mod tests {
    use rcgen::SigningKey;

    use super::*;
    use crate::memory::Needle;

    #[test]
    fn a_key_is_wiped_with_its_last_user() {
        let key = PrivateKey::generate().expect("a key");
        // As it lies there: words of the machine's own order.
        let needle = {
            let ec = key.key.ec_key().expect("a curve's");
            let mut scalar = Zeroizing::new(ec.private_key().to_vec_padded(32).expect("fits"));
            if cfg!(target_endian = "little") {
                scalar.reverse();
            }
            Needle::new(&scalar)
        };
        key.sign(b"a certificate").expect("signed");
        assert!(needle.is_in_memory());
        let user = HandshakeKey::new(key).expect("a workload's");
        let signer = rustls::sign::SigningKey::choose_scheme(
            &user,
            &[SignatureScheme::ECDSA_NISTP256_SHA256],
        );
        drop(user);
        assert!(needle.is_in_memory());
        drop(signer);
        assert!(!needle.is_in_memory());
    }
}
