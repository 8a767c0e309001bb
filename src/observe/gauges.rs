use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Gauges that are replaced as a set, which `Family` does not support: a scrape sees either the old set
/// or the new one.
#[derive(Clone, Debug)]
pub(super) struct GaugeSet<const N: usize>(Arc<Mutex<BTreeMap<Labels<N>, i64>>>);

/// Label names and values.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

impl<const N: usize> GaugeSet<N> {
    /// Replaces all gauges.
    pub(super) fn replace(&self, all: impl IntoIterator<Item = (Labels<N>, i64)>) {
        // Collected before the lock, so that a scrape does not wait for the iterator.
        let new = all.into_iter().collect();
        *self.lock() = new;
    }

    /// Sets one gauge.
    pub(super) fn set(&self, labels: Labels<N>, value: i64) {
        self.lock().insert(labels, value);
    }

    /// Removes the gauges for which `keep` returns `false`.
    pub(super) fn retain(&self, keep: impl Fn(&Labels<N>) -> bool) {
        self.lock().retain(|labels, _| keep(labels));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Labels<N>, i64>> {
        // No code under the lock can leave the map in an inconsistent state.
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
