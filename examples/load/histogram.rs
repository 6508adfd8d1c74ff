//! Durations by size, in buckets whose width grows with the duration: any quantile to within 1 %, in constant memory.

/// Buckets per doubling.
const FINE: u64 = 128;

/// Up to 2^40 ns, 18 minutes; what takes longer counts as that.
const DOUBLINGS: u64 = 40;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; (FINE * DOUBLINGS) as usize], total: 0, largest: 0 }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket(nanos).min(last)] += 1;
        self.total += 1;
        self.largest = self.largest.max(nanos);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The smallest duration, in microseconds, that at least this share of all does not exceed.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_end(bucket).min(self.largest) as f64 / 1e3;
            }
        }
        0.0
    }

    pub(crate) fn largest_us(&self) -> f64 {
        self.largest as f64 / 1e3
    }

    /// Members of a JSON object: the quantiles and the largest.
    pub(crate) fn json(&self) -> String {
        format!(
            "\"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}, \"max_us\": {:.1}",
            self.quantile_us(0.5),
            self.quantile_us(0.9),
            self.quantile_us(0.99),
            self.quantile_us(0.999),
            self.largest_us(),
        )
    }
}

/// Durations below `FINE` have a bucket each; above, the bits after the leading one pick the bucket of the doubling.
fn bucket(nanos: u64) -> usize {
    if nanos < FINE {
        return nanos as usize;
    }
    let doubling = u64::from(nanos.ilog2() - FINE.ilog2());
    ((doubling + 1) * FINE + (nanos >> doubling) - FINE) as usize
}

/// The largest duration of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let doubling = bucket / FINE - 1;
    ((bucket % FINE + FINE + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_their_durations() {
        for nanos in (0..2000).chain((11..39).map(|power| (1 << power) - 1)).chain((11..39).map(|power| 1 << power)) {
            let own = bucket(nanos);
            assert!(nanos <= upper_end(own), "{nanos} is beyond its bucket");
            assert!(own == 0 || nanos > upper_end(own - 1), "{nanos} belongs into an earlier bucket");
            assert!(upper_end(own) as f64 <= nanos as f64 * 1.01 + 1.0, "{nanos}: a bucket is too wide");
        }
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list() {
        let mut histogram = Histogram::new();
        let durations: Vec<u64> = (1..=1000).map(|n| n * n * 10).collect();
        durations.iter().rev().for_each(|nanos| histogram.record(*nanos));
        for (share, rank) in [(0.5, 500), (0.9, 900), (0.99, 990), (0.999, 999)] {
            let exact = durations[rank - 1] as f64 / 1e3;
            let found = histogram.quantile_us(share);
            assert!(found >= exact && found <= exact * 1.01, "{share}: {found} for {exact}");
        }
        assert!((histogram.quantile_us(1.0) - histogram.largest_us()).abs() < f64::EPSILON);
        assert_eq!(histogram.total(), 1000);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        assert!(Histogram::new().quantile_us(0.99).abs() < f64::EPSILON);
    }
}
