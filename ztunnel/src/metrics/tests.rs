//! The label set as dashboards expect it, and how long series live.

use super::*;

fn workloads() -> (Arc<Workload>, Arc<Workload>, Arc<Service>) {
    let mut web = Workload::new("Kubernetes//Pod/shop/web-0", "web-0", "shop");
    web.workload_name = "web".into();
    web.canonical_name = "web".into();
    web.canonical_revision = "v1".into();
    Arc::make_mut(&mut web.locality).region = "r1".into();
    let api = Workload::new("Kubernetes//Pod/shop/api-0", "api-0", "shop");
    let service = Service::new("api", "shop", "api.shop.svc.cluster.local");
    (Arc::new(web), Arc::new(api), Arc::new(service))
}

fn check_labels(flags: ResponseFlags, check: impl FnOnce(Labels<'_>)) {
    let (web, api, service) = workloads();
    let identity = Identity::new("cluster.local", "shop", "web");
    check(Labels {
        reporter: Reporter::Source,
        security: ConnectionSecurityPolicy::MutualTls,
        flags,
        source: Some(&web),
        source_identity: Some(&identity),
        service: Some(&service),
        destination: Some(&api),
        destination_identity: None,
    });
}

#[test]
fn labels_are_istios_in_istios_order() {
    let mut text = Vec::new();
    check_labels(ResponseFlags::Deny, |labels| {
        let labels = render(&labels);
        text.extend(labels.iter().map(|l| format!("{}={}", l.key(), l.value())));
    });
    assert_eq!(
        text.join(" "),
        "reporter=source source_workload=web source_canonical_service=web \
         source_canonical_revision=v1 source_workload_namespace=shop \
         source_principal=spiffe://cluster.local/ns/shop/sa/web source_app=web \
         source_version=v1 source_cluster=Kubernetes \
         destination_service=api.shop.svc.cluster.local destination_service_namespace=shop \
         destination_service_name=api destination_workload=api-0 \
         destination_canonical_service=unknown destination_canonical_revision=unknown \
         destination_workload_namespace=shop destination_principal=unknown \
         destination_app=unknown destination_version=unknown destination_cluster=Kubernetes \
         request_protocol=tcp response_flags=DENY connection_security_policy=mutual_tls \
         source_region=r1"
    );
}

#[test]
fn one_series_serves_all_connections_alike_and_goes_with_the_last() {
    check_labels(ResponseFlags::None, |labels| {
        let cache = SeriesCache::new(IDLE);
        let first = cache.series(&labels);
        let second = cache.series(&labels);
        assert!(Arc::ptr_eq(&first, &second));
        let failed = cache.series(&Labels {
            flags: ResponseFlags::Connect,
            ..labels
        });
        assert!(!Arc::ptr_eq(&first, &failed));

        drop((second, failed));
        cache.upkeep();
        assert_eq!(cache.lock().series.len(), 1);
        assert!(Arc::ptr_eq(&first, &cache.series(&labels)));
        drop(first);
        cache.upkeep();
        assert!(cache.lock().series.is_empty());
    });
}

#[tokio::test(start_paused = true)]
async fn label_sets_are_bounded_and_make_room_when_they_have_been_idle() {
    let (_, api, service) = workloads();
    let callers: Vec<Arc<Workload>> = (0..5)
        .map(|n| Arc::new(Workload::new(&format!("w{n}"), &format!("w{n}"), "shop")))
        .collect();
    let cache = SeriesCache::with_maximum(IDLE, 3);
    let series_of = |source: &Arc<Workload>| {
        cache.series(&Labels {
            reporter: Reporter::Destination,
            security: ConnectionSecurityPolicy::Unknown,
            flags: ResponseFlags::None,
            source: Some(source),
            source_identity: None,
            service: Some(&service),
            destination: Some(&api),
            destination_identity: None,
        })
    };
    let first = series_of(&callers[0]);
    drop((series_of(&callers[1]), series_of(&callers[2])));
    // The others share one that tells nothing of them.
    let overflow = series_of(&callers[3]);
    assert!(Arc::ptr_eq(&overflow, &series_of(&callers[4])));
    assert!(!Arc::ptr_eq(&overflow, &first));
    // The same label set of another object takes no room.
    let again = series_of(&Arc::new(Workload::clone(&callers[1])));
    assert!(!Arc::ptr_eq(&overflow, &again));
    drop((overflow, again));

    // A connection is open all the time; nobody else comes.
    for _ in 0..8 {
        cache.upkeep();
        tokio::time::advance(IDLE / 4).await;
    }
    cache.upkeep();
    assert!(Arc::ptr_eq(&first, &series_of(&callers[0])));
    let (third, fourth) = (series_of(&callers[3]), series_of(&callers[4]));
    assert!(!Arc::ptr_eq(&third, &fourth));
}
