//! `baggage`: the workload at one end, for the other end's telemetry.

use http::{HeaderMap, HeaderValue};
use mesh::workload::{Workload, WorkloadType};

use super::BAGGAGE;

/// What one end says of its workload. Absent and empty are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Baggage {
    pub cluster_id: Option<String>,
    pub namespace: Option<String>,
    pub workload_name: Option<String>,
    pub service_name: Option<String>,
    pub revision: Option<String>,
    pub region: Option<String>,
    pub zone: Option<String>,
}

// === impl Baggage ===

impl Baggage {
    /// The header that describes a workload; none where a name can't be in a header.
    pub fn header(workload: &Workload) -> Option<HeaderValue> {
        let name_key = match workload.workload_type {
            WorkloadType::Deployment => "k8s.deployment.name",
            WorkloadType::CronJob => "k8s.cronjob.name",
            WorkloadType::Pod => "k8s.pod.name",
            WorkloadType::Job => "k8s.job.name",
        };
        let pairs = [
            ("k8s.cluster.name", &workload.cluster_id),
            ("k8s.namespace.name", &workload.namespace),
            (name_key, &workload.workload_name),
            ("service.name", &workload.canonical_name),
            ("service.version", &workload.canonical_revision),
            ("cloud.region", &workload.locality.region),
            ("cloud.availability_zone", &workload.locality.zone),
        ];
        let mut text = String::with_capacity(192);
        for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        HeaderValue::from_str(&text).ok()
    }

    /// Reads every `baggage` line; what can't be understood is left out.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut baggage = Self::default();
        let lines = headers.get_all(BAGGAGE).into_iter();
        for line in lines.filter_map(|value| value.to_str().ok()) {
            for (key, value) in line.split(',').filter_map(|pair| pair.split_once('=')) {
                let value = value.trim();
                let field = match key.trim() {
                    "k8s.cluster.name" => &mut baggage.cluster_id,
                    "k8s.namespace.name" => &mut baggage.namespace,
                    "k8s.deployment.name"
                    | "k8s.cronjob.name"
                    | "k8s.pod.name"
                    | "k8s.job.name" => &mut baggage.workload_name,
                    "service.name" => &mut baggage.service_name,
                    "service.version" => &mut baggage.revision,
                    "cloud.region" => &mut baggage.region,
                    "cloud.availability_zone" => &mut baggage.zone,
                    _ => continue,
                };
                *field = (!value.is_empty()).then(|| value.to_owned());
            }
        }
        baggage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        let mut workload = Workload::new("Kubernetes//Pod/shop/web-0", "web-0", "shop");
        workload.workload_name = "web".into();
        workload.workload_type = WorkloadType::Deployment;
        workload.canonical_name = "web".into();
        workload.canonical_revision = "v2".into();
        workload
    }

    #[test]
    fn a_workload_is_described_in_order_without_absent_values() {
        assert_eq!(
            Baggage::header(&workload()).expect("ascii"),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v2"
        );
    }

    #[test]
    fn several_lines_merge_and_junk_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.append(
            BAGGAGE,
            HeaderValue::from_static("k8s.job.name=nightly,=,x"),
        );
        headers.append(
            BAGGAGE,
            HeaderValue::from_static("service.version=,cloud.region=eu, unknown=1"),
        );
        let expected = Baggage {
            workload_name: Some("nightly".into()),
            region: Some("eu".into()),
            ..Baggage::default()
        };
        assert_eq!(Baggage::parse(&headers), expected);
    }
}
