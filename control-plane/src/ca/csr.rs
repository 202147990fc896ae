//! What a certificate signing request must be. Only its key counts: the names in it are never looked at.

use boring::x509::X509Req;
use identity::key::PublicKey;

/// A P-256 request is half a kilobyte, an RSA-4096 one below two.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// Why a request is no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum CsrError {
    #[error("the certificate request is larger than {MAX_BYTES} bytes")]
    Size,
    #[error("the certificate request can't be read")]
    Malformed,
    #[error(
        "the certificate request must be for an ECDSA P-256 or P-384 key, or RSA of at least 2048 bits"
    )]
    Key,
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

/// The request's key, proven to be in the asker's hands.
pub(super) fn public_key(pem: &str) -> Result<PublicKey, CsrError> {
    if pem.len() > MAX_BYTES {
        return Err(CsrError::Size);
    }
    let request = X509Req::from_pem(pem.as_bytes()).map_err(|_| CsrError::Malformed)?;
    let key = request.public_key().map_err(|_| CsrError::Malformed)?;
    let public = PublicKey::new(&key).map_err(|_| CsrError::Key)?;
    match request.verify(&key) {
        Ok(true) => Ok(public),
        Ok(false) | Err(_) => Err(CsrError::Signature),
    }
}

#[cfg(test)]
mod tests {
    use boring::ec::{EcGroup, EcKey};
    use boring::hash::MessageDigest;
    use boring::nid::Nid;
    use boring::pkey::{PKey, Private};
    use boring::rsa::Rsa;
    use identity::key::KeyKind;

    use super::*;

    fn ecdsa(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).expect("a curve");
        PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
    }

    fn rsa(bits: u32) -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(bits).expect("a key")).expect("a key")
    }

    fn request(key: &PKey<Private>, signed_by: &PKey<Private>) -> String {
        let mut builder = X509Req::builder().expect("a builder");
        builder.set_pubkey(key).expect("set");
        builder
            .sign(signed_by, MessageDigest::sha256())
            .expect("signed");
        String::from_utf8(builder.build().to_pem().expect("PEM")).expect("ASCII")
    }

    #[test]
    fn the_three_kinds_of_key_are_taken() {
        for (key, kind) in [
            (ecdsa(Nid::X9_62_PRIME256V1), KeyKind::P256),
            (ecdsa(Nid::SECP384R1), KeyKind::P384),
            (rsa(2048), KeyKind::Rsa),
        ] {
            let public = public_key(&request(&key, &key)).expect("taken");
            assert_eq!(public.kind(), kind);
            assert_eq!(public.der(), key.public_key_to_der().expect("DER"));
        }
    }

    #[test]
    fn weak_keys_and_other_curves_are_not() {
        for key in [rsa(1024), ecdsa(Nid::SECP521R1)] {
            assert!(matches!(
                public_key(&request(&key, &key)),
                Err(CsrError::Key)
            ));
        }
    }

    #[test]
    fn a_key_must_be_in_the_askers_hands() {
        let (theirs, mine) = (ecdsa(Nid::X9_62_PRIME256V1), ecdsa(Nid::X9_62_PRIME256V1));
        let stolen = request(&theirs, &mine);
        assert!(matches!(public_key(&stolen), Err(CsrError::Signature)));
    }

    #[test]
    fn rubbish_is_refused() {
        let key = ecdsa(Nid::X9_62_PRIME256V1);
        let good = request(&key, &key);
        let cut = &good[..good.len() / 2];
        let empty = "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n";
        for bad in ["", "rubbish", cut, empty] {
            assert!(matches!(public_key(bad), Err(CsrError::Malformed)), "{bad}");
        }
        let padded = format!("{good}{}", " ".repeat(MAX_BYTES));
        assert!(matches!(public_key(&padded), Err(CsrError::Size)));
    }
}
