//! The metrics page in Prometheus's text format. It knows no metric's meaning.

use std::fmt::Write;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::metrics::histogram::Histogram;
use crate::metrics::names::{ALL, Metric, Type};

/// Builds the page at each scrape from counts that live where they are counted.
///
/// Counters and gauges are shown by the exporter; histograms are written as they stand (see [`Histogram`]).
pub struct Page {
    recorder: PrometheusRecorder,
}

/// One scrape: set every value, then [`Scrape::finish`].
pub struct Scrape<'a> {
    recorder: &'a PrometheusRecorder,
    text: String,
    described: &'static str,
}

/// Labels of one series; values must come from closed sets.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

const METADATA: Metadata<'static> = Metadata::new("cloakroom", Level::INFO, None);

impl Page {
    /// A page without values.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in ALL {
            let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
            match metric.kind {
                Type::Counter => recorder.describe_counter(name, None, help),
                Type::Gauge => recorder.describe_gauge(name, None, help),
                Type::Histogram => {}
            }
        }
        Self { recorder }
    }

    /// Begins a scrape.
    #[must_use]
    pub fn scrape(&self) -> Scrape<'_> {
        Scrape { recorder: &self.recorder, text: String::new(), described: "" }
    }
}

impl Scrape<'_> {
    /// Sets a counter to what has been counted.
    pub fn counter(&mut self, metric: &Metric, labels: Labels<'_>, value: u64) {
        debug_assert_eq!(metric.kind, Type::Counter);
        self.recorder.register_counter(&key(metric, labels), &METADATA).absolute(value);
    }

    /// Sets a gauge.
    pub fn gauge(&mut self, metric: &Metric, labels: Labels<'_>, value: f64) {
        debug_assert_eq!(metric.kind, Type::Gauge);
        self.recorder.register_gauge(&key(metric, labels), &METADATA).set(value);
    }

    /// Writes a histogram. All series of one metric must follow each other.
    pub fn histogram(&mut self, metric: &Metric, labels: Labels<'_>, histogram: &Histogram) {
        debug_assert_eq!(metric.kind, Type::Histogram);
        if self.described != metric.name {
            self.described = metric.name;
            self.describe(metric, "histogram");
        }
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        histogram.write(&mut self.text, metric.name, &labels.join(","));
    }

    /// Sets a counter of a continuous quantity, such as seconds; the exporter's counters are whole numbers.
    pub fn float_counter(&mut self, metric: &Metric, value: f64) {
        debug_assert_eq!(metric.kind, Type::Counter);
        self.describe(metric, "counter");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{} {value}", metric.name);
    }

    fn describe(&mut self, Metric { name, help, .. }: &Metric, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        let mut page = self.recorder.handle().render();
        page.push_str(&self.text);
        page
    }
}

fn key(metric: &Metric, labels: Labels<'_>) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}
