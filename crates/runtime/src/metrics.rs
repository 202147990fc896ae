//! Metrics: the process's recorder, and its rendering for Prometheus.
//!
//! Counters and histograms that nobody changed for [`Settings::idle`] leave the registry, so that
//! series are bounded. Whoever keeps a handle across quiet times must touch it (`increment(0)`)
//! more often than that; everybody else asks the `metrics` macros at the point of use.
//! Counters are named with their `_total`.
//!
//! - `exposition`: text and OpenMetrics.
//! - `scrape`: who asks is answered in the format and coding that it takes.
//! - `process`: file descriptors, memory, CPU time of the process; tokio's own numbers.

mod exposition;

mod scrape;

mod process;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::sync::Semaphore;

pub use self::exposition::{Exposition, Kind, escape};

/// The media type of Prometheus's text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How often idle series are looked for at least, when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(60);

/// What a program says about its metrics.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ztunnel`, as `istio_build` shows it.
    pub component: &'static str,
    pub version: &'static str,
    /// Upper bounds of histograms' buckets by full metric name; others get [`LATENCY_BUCKETS`].
    pub buckets: &'static [(&'static str, &'static [f64])],
    /// Counters and histograms unchanged for so long are forgotten.
    pub idle: Duration,
}

/// Bounds in seconds that suit most latencies.
pub const LATENCY_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Renders the process's metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    collectors: Arc<Mutex<Vec<Collector>>>,
    /// Scrapes are answered one after the other.
    turns: Arc<Semaphore>,
    upkeep: Duration,
}

type Collector = Box<dyn Fn(&mut Exposition) + Send>;

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("metrics: {0}")]
    Build(#[from] metrics_exporter_prometheus::BuildError),
    #[error("metrics are already set up")]
    Twice,
}

// === impl Metrics ===

impl Metrics {
    /// Sets up the recorder behind the `metrics` macros of the whole process.
    pub fn install(settings: &Settings) -> Result<Self, MetricsError> {
        let recorder = builder(settings)?.build_recorder();
        let metrics = Self::over(recorder.handle(), settings);
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)?;
        Ok(metrics)
    }

    fn over(recorder: PrometheusHandle, settings: &Settings) -> Self {
        let metrics = Self {
            recorder,
            collectors: Arc::default(),
            turns: Arc::new(Semaphore::new(1)),
            upkeep: UPKEEP.min(settings.idle / 2),
        };
        let (component, version) = (settings.component, settings.version);
        metrics.add_collector(move |exposition| {
            exposition
                .family("istio_build", Kind::Gauge, "Version of the program")
                .sample(&[("component", component), ("tag", version)], 1);
        });
        metrics.add_collector(process::collect);
        metrics
    }

    /// Adds families that are computed when they are asked for.
    pub fn add_collector(&self, collect: impl Fn(&mut Exposition) + Send + 'static) {
        self.collectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(collect));
    }

    /// Adds what tokio knows of a runtime.
    pub fn add_runtime(&self, runtime: &tokio::runtime::Handle) {
        let runtime = runtime.metrics();
        self.add_collector(move |exposition| process::collect_runtime(&runtime, exposition));
    }

    /// Adds the count of the tasks that [`crate::tasks`] spawned.
    pub fn add_worker_tasks(&self) {
        self.add_collector(process::collect_tasks);
    }

    /// The Prometheus text format.
    pub fn text(&self) -> String {
        let mut exposition = Exposition::new(self.recorder.render());
        let collectors = self
            .collectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for collect in collectors.iter() {
            collect(&mut exposition);
        }
        exposition.into_text()
    }

    /// The OpenMetrics format.
    pub fn open_metrics(&self) -> String {
        exposition::open_metrics(&self.text())
    }

    /// `/metrics` and `/stats/prometheus`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(scrape::answer))
            .route("/stats/prometheus", get(scrape::answer))
            .with_state(self.clone())
    }

    /// Forgets idle series also while nobody scrapes; runs until dropped.
    pub async fn upkeep(self) {
        let mut ticks = tokio::time::interval(self.upkeep);
        loop {
            ticks.tick().await;
            let recorder = self.recorder.clone();
            // The recorder looks for idle series only when it renders, which takes its time.
            let rendering = move || recorder.render_to_write(&mut std::io::sink());
            let _ = tokio::task::spawn_blocking(rendering).await;
        }
    }
}

/// `/metrics` of what computes all it tells when it is asked, and has no recorder.
pub fn router_of(collect: impl Fn(&mut Exposition) + Send + Sync + 'static) -> Router {
    let collect = Arc::new(collect);
    let answer = move || {
        let mut exposition = Exposition::default();
        collect(&mut exposition);
        std::future::ready(([(header::CONTENT_TYPE, TEXT)], exposition.into_text()))
    };
    Router::new().route("/metrics", get(answer))
}

fn builder(settings: &Settings) -> Result<PrometheusBuilder, MetricsError> {
    let idle = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
    let mut builder = PrometheusBuilder::new()
        .set_buckets(LATENCY_BUCKETS)?
        .idle_timeout(idle, Some(settings.idle));
    for (name, bounds) in settings.buckets {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
    }
    Ok(builder)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(idle: Duration) -> Settings {
        Settings {
            component: "test",
            version: "1.2.3",
            buckets: &[("dns_seconds", &[0.1, 1.0])],
            idle,
        }
    }

    #[test]
    fn series_render_with_labels_and_buckets() {
        let settings = settings(Duration::from_secs(3600));
        let recorder = builder(&settings).expect("valid").build_recorder();
        let metrics = Metrics::over(recorder.handle(), &settings);
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("opened_total", "reporter" => "source").increment(2);
            metrics::histogram!("dns_seconds").record(0.5);
        });
        let text = metrics.text();
        for line in [
            "# TYPE opened_total counter",
            "opened_total{reporter=\"source\"} 2",
            "dns_seconds_bucket{le=\"0.1\"} 0",
            "dns_seconds_bucket{le=\"1\"} 1",
            "istio_build{component=\"test\",tag=\"1.2.3\"} 1",
            "# TYPE process_open_fds gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        let open = metrics.open_metrics();
        assert!(open.lines().any(|l| l == "# TYPE opened counter"));
        assert!(open.ends_with("# EOF\n"));
        assert!(!open.contains("\n\n"));
    }

    #[test]
    fn idle_series_are_forgotten() {
        let settings = settings(Duration::from_millis(1));
        let recorder = builder(&settings).expect("valid").build_recorder();
        let metrics = Metrics::over(recorder.handle(), &settings);
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("opened_total").increment(1);
        });
        assert!(metrics.text().contains("opened_total 1"));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!metrics.text().contains("opened_total"));
    }
}
