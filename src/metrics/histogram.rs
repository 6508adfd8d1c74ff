//! A histogram of fixed buckets in atomics: a record costs two additions, and memory does not grow with the rate.
//!
//! The exporter's own histograms keep every sample until they are drained, which a million commands a second cannot
//! afford; so these are counted here and written onto the page as they stand.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many buckets a histogram may have, the one for +Inf included.
const MAX_BUCKETS: usize = 20;

/// The upper bounds of a histogram's buckets in its raw unit, ascending, and what one raw unit is on the page.
#[derive(Debug)]
pub struct Buckets {
    /// At most 19, ascending.
    pub bounds: &'static [u64],
    /// Raw units in one unit of the page.
    pub per_unit: f64,
}

/// Durations, recorded in nanoseconds and shown in seconds: 10 µs to 5 s.
pub static SECONDS: Buckets = Buckets {
    bounds: &[
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
    ],
    per_unit: 1e9,
};

/// Counts: rows of a batch.
pub static COUNTS: Buckets = Buckets { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], per_unit: 1.0 };

/// See the file's header.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    counts: [AtomicU64; MAX_BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new(buckets: &'static Buckets) -> Self {
        assert!(buckets.bounds.len() < MAX_BUCKETS, "room for the bucket of +Inf");
        Self { buckets, counts: [const { AtomicU64::new(0) }; MAX_BUCKETS], sum: AtomicU64::new(0) }
    }

    /// Records `times` observations of `value` raw units.
    pub fn record(&self, value: u64, times: u64) {
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Ordering::Relaxed);
    }

    /// How many observations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Writes the series of this histogram in the text format. `labels` is empty or `name="value",…`.
    pub fn write(&self, page: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (index, count) in self.counts[..=self.buckets.bounds.len()].iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self
                .buckets
                .bounds
                .get(index)
                .map_or_else(|| "+Inf".to_owned(), |bound| (*bound as f64 / self.buckets.per_unit).to_string());
            // Writing to a String cannot fail.
            let _ = writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.buckets.per_unit;
        let _ = writeln!(page, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_counts() {
        let histogram = Histogram::new(&COUNTS);
        histogram.record(1, 2);
        histogram.record(3, 1);
        histogram.record(5000, 1);
        let mut page = String::new();
        histogram.write(&mut page, "rows", "op=\"load\"");
        assert!(
            page.starts_with("rows_bucket{op=\"load\",le=\"1\"} 2\nrows_bucket{op=\"load\",le=\"2\"} 2\n"),
            "{page}"
        );
        assert!(page.ends_with(
            "le=\"1024\"} 3\nrows_bucket{op=\"load\",le=\"+Inf\"} 4\nrows_sum{op=\"load\"} 5005\nrows_count{op=\"load\"} 4\n"
        ));
        assert_eq!(histogram.count(), 4);
    }

    #[test]
    fn bounds_are_inclusive() {
        let histogram = Histogram::new(&SECONDS);
        histogram.record(10_000, 1);
        let mut page = String::new();
        histogram.write(&mut page, "d", "");
        assert!(page.starts_with("d_bucket{le=\"0.00001\"} 1\n"), "{page}");
        assert!(page.contains("\nd_sum 0.00001\nd_count 1\n"), "{page}");
    }
}
