//! Makes a metric and registers it; names are constants, so a mistake is a panic in every test.

use super::PerFamily;
use crate::model::Family;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use std::cell::RefCell;

/// The label by which upstream tells its two proxiers apart.
const IP_FAMILY: &str = "ip_family";

/// 1 ms to 16.384 s, each bucket twice as wide as the one before: upstream's choice for everything
/// that it times.
pub fn seconds_buckets() -> Vec<f64> {
    exponential(0.001, 2.0, 15)
}

/// `count` bucket bounds: `start`, then each `factor` times the one before.
pub fn exponential(start: f64, factor: f64, count: usize) -> Vec<f64> {
    prometheus::exponential_buckets(start, factor, count).expect("bucket bounds rise")
}

pub struct Register<'a> {
    pub registry: &'a Registry,
    /// The families that get series of their own.
    pub families: &'a [Family],
    /// The names of all that was registered.
    pub names: &'a RefCell<Vec<String>>,
}

impl Register<'_> {
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    /// A gauge of more than whole numbers.
    pub fn number(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }

    pub fn counter_by_family(&self, name: &str, help: &str) -> PerFamily<IntCounter> {
        self.by_family(&self.counters(name, help, &[IP_FAMILY]))
    }

    pub fn gauge_by_family(&self, name: &str, help: &str) -> PerFamily<Gauge> {
        self.by_family(&self.add(GaugeVec::new(Opts::new(name, help), &[IP_FAMILY])))
    }

    pub fn histogram_by_family(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> PerFamily<Histogram> {
        self.by_family(&self.histograms(name, help, &[IP_FAMILY], buckets))
    }

    fn by_family<B: MetricVecBuilder>(&self, vec: &MetricVec<B>) -> PerFamily<B::M> {
        PerFamily::new(self.families, |family| vec.with_label_values(&[family.to_string()]))
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a metric's name, labels and buckets are valid");
        self.put(metric.clone());
        metric
    }

    /// Registers a collector.
    pub fn put(&self, collector: impl Collector + 'static) {
        let names = collector.desc().into_iter().map(|desc| desc.fq_name.clone());
        self.names.borrow_mut().extend(names);
        self.registry.register(Box::new(collector)).expect("no two metrics of one name");
    }
}
