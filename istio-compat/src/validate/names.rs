//! The grammars of names: RFC 1123 labels and subdomains, label keys and values, ports,
//! hosts, addresses. Each check says what is wrong and what would be right.

use std::net::IpAddr;

use ipnet::IpNet;

type Check = Result<(), String>;

/// RFC 1123 label: namespaces, services, containers.
pub(crate) fn label(text: &str) -> Check {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 63 || !text.chars().all(letters) || !bounded(text) {
        return Err(format!(
            "{text:?} is not a name: use at most 63 lower-case letters, digits and '-', \
             with a letter or digit at both ends"
        ));
    }
    Ok(())
}

/// RFC 1123 subdomain: most names.
pub(crate) fn subdomain(text: &str) -> Check {
    if text.len() > 253 || text.split('.').any(|part| label(part).is_err()) {
        return Err(format!(
            "{text:?} is not a name: use at most 253 lower-case letters, digits, '-' and '.', \
             with a letter or digit at both ends of each part"
        ));
    }
    Ok(())
}

/// Name of a container's port: RFC 6335 service name.
pub(crate) fn port_name(text: &str) -> Check {
    if text.len() > 15
        || label(text).is_err()
        || !text.chars().any(|c| c.is_ascii_lowercase())
        || text.contains("--")
    {
        return Err(format!(
            "{text:?} is not a port's name: use at most 15 lower-case letters, digits and '-', \
             with at least one letter"
        ));
    }
    Ok(())
}

/// Key of a label or annotation: `name` or `prefix/name`.
pub(crate) fn qualified(text: &str) -> Check {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if prefix.is_some_and(|prefix| subdomain(&prefix.to_ascii_lowercase()).is_err())
        || name.is_empty()
        || !label_text(name)
    {
        return Err(format!(
            "{text:?} is not a key: use at most 63 letters, digits, '-', '_' and '.', with a \
             letter or digit at both ends, and before a '/' a DNS name"
        ));
    }
    Ok(())
}

pub(crate) fn label_value(text: &str) -> Check {
    if !text.is_empty() && !label_text(text) {
        return Err(format!(
            "{text:?} is not a label's value: use at most 63 letters, digits, '-', '_' and '.', \
             with a letter or digit at both ends"
        ));
    }
    Ok(())
}

fn label_text(text: &str) -> bool {
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && bounded(text)
}

fn bounded(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    end(text.chars().next()) && end(text.chars().next_back())
}

pub(crate) fn port(number: i64) -> Check {
    if !(1..=65535).contains(&number) {
        return Err(format!(
            "{number} is not a port: use a number from 1 to 65535"
        ));
    }
    Ok(())
}

/// An address, or a range of them.
pub(crate) fn cidr(text: &str) -> Check {
    match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Err(_), Err(_)) => Err(format!(
            "{text:?} is not an IP address or range: write 10.0.0.1, 10.0.0.0/8 or fd00::/8"
        )),
        _ => Ok(()),
    }
}

/// A DNS name in any letter case; underscores, which hosts out there have, are taken.
pub(crate) fn host(text: &str) -> Check {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() || name.len() > 253 || !name.split('.').all(part) {
        return Err(format!("{text:?} is not a DNS name: write api.example.com"));
    }
    Ok(())
}
