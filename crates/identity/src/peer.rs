//! Who the other end of a handshake is: identities in its certificate, and the key exchange that was negotiated.

use mesh::identity::Identity;
use rustls::CommonState;
use rustls::NamedGroup;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// The verified peer's identity: the first URI name of exactly the shape Istio issues; other names are skipped.
pub fn peer_identity(connection: &CommonState) -> Option<Identity> {
    identity_of(connection.peer_certificates()?.first()?)
}

/// The identity in a peer's certificate, as [`peer_identity`] has it.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    identities(certificate).into_iter().next()
}

/// The name of the negotiated key-exchange group, as metrics and logs show it.
pub fn key_exchange_group(connection: &CommonState) -> Option<&'static str> {
    Some(match connection.negotiated_key_exchange_group()?.name() {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        _ => "other",
    })
}

/// The workload identities among a certificate's URI names, in its order; none if it can't be read, or
/// has a name with a NUL, of which some would see what is before it only.
pub fn identities(certificate: &CertificateDer<'_>) -> Vec<Identity> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = &names.value.general_names;
    if names.iter().any(has_nul) {
        return Vec::new();
    }
    names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.parse().ok(),
            _ => None,
        })
        .collect()
}

fn has_nul(name: &GeneralName<'_>) -> bool {
    match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) | GeneralName::RFC822Name(text) => {
            text.contains('\0')
        }
        _ => false,
    }
}
