//! Counters, gauges and histograms under the names of their area.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper ends of the classes of durations, in seconds: from a transaction's check to a halted chain.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The first of the fine classes, what each is times the one before, and how many: from a message on one machine to a minute.
const FINE_FIRST: f64 = 0.000_05;
const FINE_STEP: f64 = 1.25;
const FINE_COUNT: u16 = 64;

/// A count that only grows.
pub(super) type Total = Counter;

/// Seconds with their fractions.
pub(super) type Level = Gauge<f64, AtomicU64>;

/// A distribution.
pub(super) type Times = Histogram;

/// A label and its value, both of this program.
type Labels = [(&'static str, &'static str); 1];

/// Counts that only grow, told apart by one label.
pub(super) struct Totals {
    label: &'static str,
    family: Family<Labels, Counter>,
}

impl Totals {
    pub(super) fn add(&self, value: &'static str) {
        self.family.get_or_create(&[(self.label, value)]).inc();
    }

    /// Copies a count that is kept elsewhere.
    pub(super) fn set(&self, value: &'static str, count: u64) {
        self.family.get_or_create(&[(self.label, value)]).inner().store(count, Ordering::Relaxed);
    }
}

/// Gauges, told apart by one label.
pub(super) struct Levels {
    label: &'static str,
    family: Family<Labels, Gauge>,
}

impl Levels {
    pub(super) fn set(&self, value: &'static str, level: impl TryInto<i64>) {
        self.family.get_or_create(&[(self.label, value)]).set(level.try_into().unwrap_or(i64::MAX));
    }
}

/// One area of names.
pub(super) struct Area<'a>(&'a mut Registry);

impl<'a> Area<'a> {
    pub(super) fn of(registry: &'a mut Registry, name: &str) -> Self {
        Self(registry.sub_registry_with_prefix(name))
    }

    pub(super) fn registry(&mut self) -> &mut Registry {
        self.0
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, unit: Option<Unit>, help: &str, metric: M) -> M {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric.clone()),
            None => self.0.register(name, help, metric.clone()),
        }
        metric
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, None, help, Gauge::default())
    }

    pub(super) fn gauge_of(&mut self, name: &str, unit: Unit, help: &str) -> Gauge {
        self.add(name, Some(unit), help, Gauge::default())
    }

    pub(super) fn level(&mut self, name: &str, unit: Unit, help: &str) -> Level {
        self.add(name, Some(unit), help, Level::default())
    }

    pub(super) fn levels(&mut self, name: &str, unit: Option<Unit>, label: &'static str, help: &str) -> Levels {
        Levels { label, family: self.add(name, unit, help, Family::default()) }
    }

    pub(super) fn total(&mut self, name: &str, help: &str) -> Total {
        self.add(name, None, help, Counter::default())
    }

    pub(super) fn totals(&mut self, name: &str, label: &'static str, help: &str) -> Totals {
        Totals { label, family: self.add(name, None, help, Family::default()) }
    }

    /// Durations in seconds.
    pub(super) fn times(&mut self, name: &str, help: &str) -> Times {
        self.add(name, Some(Unit::Seconds), help, Histogram::new(SECONDS))
    }

    /// Durations in seconds, of which medians can be told apart.
    pub(super) fn fine_times(&mut self, name: &str, help: &str) -> Times {
        let classes = exponential_buckets(FINE_FIRST, FINE_STEP, FINE_COUNT);
        self.add(name, Some(Unit::Seconds), help, Histogram::new(classes))
    }

    pub(super) fn sizes(&mut self, name: &str, unit: Option<Unit>, classes: &[f64], help: &str) -> Times {
        self.add(name, unit, help, Histogram::new(classes.iter().copied()))
    }
}
