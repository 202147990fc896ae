//! What a container's process is given: variables, command line, host name.
use std::collections::BTreeMap;

use istio_compat::kinds::container::Container;
use istio_compat::kinds::pod::Pod;

/// A container's variables over the few that every process expects.
pub(super) fn variables(
    pod: &Pod,
    container: &Container,
    host: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = host.clone();
    variables.insert("HOSTNAME".to_owned(), hostname(pod));
    for variable in &container.env {
        let value = match variable
            .value_from
            .as_ref()
            .and_then(|source| source.field_ref.as_ref())
        {
            Some(field) => field_value(pod, &field.field_path).unwrap_or_default(),
            None => expand(&variable.value, &variables),
        };
        variables.insert(variable.name.clone(), value);
    }
    variables
}

/// The whole command line; empty when the container names none.
pub(super) fn command(container: &Container, variables: &BTreeMap<String, String>) -> Vec<String> {
    if container.command.is_empty() {
        return Vec::new();
    }
    container
        .command
        .iter()
        .chain(&container.args)
        .map(|word| expand(word, variables))
        .collect()
}

pub(super) fn hostname(pod: &Pod) -> String {
    let name = if pod.spec.hostname.is_empty() {
        &pod.metadata.name
    } else {
        &pod.spec.hostname
    };
    // The kernel's limit; Kubernetes cuts there too.
    let mut name = name.clone();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

pub(super) fn hosts(pod: &Pod, hostname: &str) -> String {
    let mut hosts =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for ip in pod.ips() {
        hosts.push_str(&format!("{ip}\t{hostname}\n"));
    }
    hosts
}

/// The downward API's fields.
fn field_value(pod: &Pod, path: &str) -> Option<String> {
    let keyed = |map: &BTreeMap<String, String>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(map.get(key).cloned().unwrap_or_default())
    };
    let ips = pod.ips();
    Some(match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.service_account().to_owned(),
        "status.podIP" => ips.first()?.to_string(),
        "status.podIPs" => ips
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
        "status.hostIP" => pod.status.host_ip?.to_string(),
        _ => keyed(&pod.metadata.labels, "metadata.labels['")
            .or_else(|| keyed(&pod.metadata.annotations, "metadata.annotations['"))?,
    })
}

/// `$(NAME)` becomes the variable's value, `$$` one dollar; an unknown name stays as written.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(more) = after.strip_prefix('$') {
            expanded.push('$');
            rest = more;
            continue;
        }
        if let Some((name, more)) = after
            .strip_prefix('(')
            .and_then(|name| name.split_once(')'))
            && let Some(value) = variables.get(name)
        {
            expanded.push_str(value);
            rest = more;
            continue;
        }
        expanded.push('$');
        rest = after;
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1"},
            "status": {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00:244:1::2"}]},
        }))
        .unwrap()
    }

    fn container(text: serde_json::Value) -> Container {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn variables_refer_to_earlier_ones_and_to_the_pod() {
        let container = container(serde_json::json!({"name": "c", "env": [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "URL", "value": "http://$(IP)/$(APP)/$(LATER)/$$(APP)"},
            {"name": "LATER", "value": "x"},
        ]}));
        let variables = variables(&pod(), &container, &BTreeMap::new());
        assert_eq!(variables["URL"], "http://10.244.1.2/web/$(LATER)/$(APP)");
        assert_eq!(variables["HOSTNAME"], "web");
    }

    #[test]
    fn a_command_line_is_command_then_arguments_and_needs_a_command() {
        let variables = BTreeMap::from([("PORT".to_owned(), "80".to_owned())]);
        let given = container(
            serde_json::json!({"name": "c", "command": ["serve", "--port"], "args": ["$(PORT)"]}),
        );
        assert_eq!(command(&given, &variables), ["serve", "--port", "80"]);
        let none = container(serde_json::json!({"name": "c", "image": "nginx", "args": ["-g"]}));
        assert!(command(&none, &variables).is_empty());
    }

    #[test]
    fn every_field_of_the_downward_api_has_a_value() {
        for path in [
            "metadata.name",
            "metadata.uid",
            "spec.nodeName",
            "spec.serviceAccountName",
            "status.podIPs",
            "metadata.annotations['none']",
        ] {
            assert!(field_value(&pod(), path).is_some(), "{path}");
        }
        assert_eq!(
            field_value(&pod(), "status.podIPs").unwrap(),
            "10.244.1.2,fd00:244:1::2"
        );
    }
}
