use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Gauges that are replaced as a set, which a `Family` cannot do: a scrape sees the old set or the
/// new one, never a part of either.
#[derive(Clone, Debug)]
pub(super) struct GaugeSet<const N: usize>(Arc<Mutex<BTreeMap<Labels<N>, i64>>>);

/// Names and values.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

impl<const N: usize> GaugeSet<N> {
    /// Replaces all of them.
    pub(super) fn replace(&self, all: impl IntoIterator<Item = (Labels<N>, i64)>) {
        // Collected before the lock, so that a scrape does not wait for the caller.
        let new = all.into_iter().collect();
        *self.lock() = new;
    }

    /// Sets one of them.
    pub(super) fn set(&self, labels: Labels<N>, value: i64) {
        self.lock().insert(labels, value);
    }

    /// Removes those that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&Labels<N>) -> bool) {
        self.lock().retain(|labels, _| keep(labels));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Labels<N>, i64>> {
        // No change under the lock can be left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const N: usize> Default for GaugeSet<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<const N: usize> EncodeMetric for GaugeSet<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (labels, value) in &*self.lock() {
            ConstGauge::new(*value).encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
