//! The certificate signing request for a workload identity.

use mesh::identity::Identity;
use rcgen::{CertificateParams, DistinguishedName, SanType};

use crate::key::PrivateKey;

/// A PEM request with an empty subject and the identity as its one, critical, alternative name.
pub fn signing_request(key: &PrivateKey, identity: &Identity) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    params.serialize_request(key)?.pem()
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn a_request_names_the_identity_and_proves_the_key() {
        let key = PrivateKey::generate().expect("a key");
        let identity = Identity::new("cluster.local", "shop", "web");
        let pem = signing_request(&key, &identity).expect("a request");
        let pem = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .expect("PEM")
            .1;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).expect("a request");
        let info = &request.certification_request_info;
        assert_eq!(info.subject.iter().count(), 0);
        assert_eq!(info.subject_pki.raw, key.public().der());
        let extensions: Vec<_> = request.requested_extensions().expect("present").collect();
        let [ParsedExtension::SubjectAlternativeName(names)] = extensions[..] else {
            panic!("{extensions:?}");
        };
        assert_eq!(
            names.general_names,
            [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web")]
        );
    }
}
