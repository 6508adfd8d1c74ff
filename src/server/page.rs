//! Which counts go where on the metrics page.

use std::sync::atomic::Ordering::Relaxed;

use crate::keyspace::Keyspace;
use crate::keyspace::coherence::status::{Figures, State};
use crate::keyspace::stats::{OperationStats, Stats};
use crate::metrics::names::{self, Metric};
use crate::metrics::page::{Page, Scrape};
use crate::metrics::process::Process;
use crate::server::shared::Shared;

/// Renders the page.
#[must_use]
pub fn render(page: &Page, shared: &Shared) -> String {
    let mut scrape = page.scrape();
    scrape.gauge(
        &names::BUILD_INFO,
        &[("version", env!("CARGO_PKG_VERSION")), ("store", shared.info.settings.store)],
        1.0,
    );
    scrape.gauge(&names::CONNECTIONS, &[], shared.info.clients.count() as f64);
    scrape.counter(&names::CONNECTIONS_ACCEPTED, &[], shared.info.counters.connections.load(Relaxed));
    scrape.counter(&names::CONNECTIONS_REFUSED, &[], shared.info.counters.rejected.load(Relaxed));
    scrape.counter(&names::PANICS, &[], shared.panics.load(Relaxed));
    commands(&mut scrape, shared);
    process(&mut scrape);
    match shared.keyspace.get() {
        Some(keyspace) => self::keyspace(&mut scrape, keyspace),
        None => scrape.gauge(&names::STORE_UP, &[], 0.0),
    }
    scrape.finish()
}

fn commands(scrape: &mut Scrape<'_>, shared: &Shared) {
    for (command, stats) in shared.commands.iter() {
        for (outcome, count) in [("ok", &stats.ok), ("error", &stats.error)] {
            scrape.counter(&names::COMMANDS, &[("command", command), ("outcome", outcome)], count.load(Relaxed));
        }
    }
    // A histogram has many series: only commands that somebody uses have one.
    for (command, stats) in shared.commands.iter().filter(|(_, stats)| stats.duration.count() > 0) {
        scrape.histogram(&names::COMMAND_DURATION, &[("command", command)], &stats.duration);
    }
}

fn process(scrape: &mut Scrape<'_>) {
    let process = Process::read();
    if let Some(seconds) = process.cpu_seconds {
        scrape.float_counter(&names::PROCESS_CPU, seconds);
    }
    let gauges: [(&Metric, Option<f64>); 4] = [
        (&names::PROCESS_MEMORY, process.resident_bytes.map(|bytes| bytes as f64)),
        (&names::PROCESS_FDS, process.open_fds.map(|count| count as f64)),
        (&names::PROCESS_MAX_FDS, process.max_fds.map(|count| count as f64)),
        (&names::PROCESS_START, process.start_seconds),
    ];
    for (metric, value) in gauges {
        if let Some(value) = value {
            scrape.gauge(metric, &[], value);
        }
    }
}

fn keyspace(scrape: &mut Scrape<'_>, keyspace: &Keyspace) {
    let figures = keyspace.figures();
    let stats = keyspace.stats();
    let (waiting, waiting_bytes) = keyspace.waiting_writes();
    for (metric, value) in [
        (&names::CACHE_HITS, figures.hits),
        (&names::CACHE_MISSES, figures.misses),
        (&names::CACHE_EVICTIONS, figures.evicted),
        (&names::WRITES_REFUSED, stats.refused.load(Relaxed)),
        (&names::WRITES_ABSORBED, stats.absorbed.load(Relaxed)),
        (&names::WRITES_ELIDED, figures.elided),
        (&names::UPDATE_CONFLICTS, stats.conflicts.load(Relaxed)),
        (&names::AUDITS, stats.audits.load(Relaxed)),
        (&names::AUDIT_STALE, stats.audits_stale.load(Relaxed)),
        (&names::SWEEPER_REMOVED, figures.expired),
        (&names::SWEEPER_PASSES, stats.sweeper_passes.load(Relaxed)),
    ] {
        scrape.counter(metric, &[], value);
    }
    for (metric, value) in [
        (&names::CACHE_ENTRIES, figures.cache_entries),
        (&names::CACHE_BYTES, figures.cache_bytes),
        (&names::CACHE_MAX_BYTES, figures.cache_max_bytes),
        (&names::CACHE_ROOM, figures.cache_room),
        (&names::STORE_UP, u64::from(figures.store_up)),
        (&names::WRITES_QUEUED, waiting as u64),
        (&names::WRITES_QUEUED_BYTES, waiting_bytes as u64),
    ] {
        scrape.gauge(metric, &[], value as f64);
    }
    let pool = keyspace.pool();
    for (state, count) in [("idle", pool.idle), ("busy", pool.open.saturating_sub(pool.idle))] {
        scrape.gauge(&names::STORE_CONNECTIONS, &[("state", state)], f64::from(count));
    }
    operations(scrape, stats);
    scrape.gauge(&names::AUDIT_STALE_AGE, &[], stats.audit_stale_age_ms.load(Relaxed) as f64 / 1000.0);
    coherence(scrape, &keyspace.coherence());
}

fn coherence(scrape: &mut Scrape<'_>, figures: &Figures) {
    scrape.gauge(&names::COHERENCE_TRUSTED, &[], f64::from(u8::from(figures.covered)));
    for state in State::ALL {
        let is = figures.state == state;
        scrape.gauge(&names::COHERENCE_STATE, &[("state", state.label())], f64::from(u8::from(is)));
    }
    if let Some(staleness) = figures.staleness {
        scrape.gauge(&names::COHERENCE_STALENESS, &[], staleness.as_secs_f64());
    }
    scrape.gauge(&names::COHERENCE_EPOCH, &[], figures.epoch as f64);
    scrape.gauge(&names::COHERENCE_PEERS, &[], figures.peers as f64);
    scrape.counter(&names::COHERENCE_SENT, &[], figures.sent);
    scrape.counter(&names::COHERENCE_RECEIVED, &[], figures.received);
    scrape.counter(&names::COHERENCE_KILLED, &[], figures.killed);
    scrape.counter(&names::STALE_READS, &[], figures.stale);
}

fn operations(scrape: &mut Scrape<'_>, stats: &Stats) {
    let operations: [(&str, &OperationStats); 4] =
        [("load", &stats.loads), ("commit", &stats.commits), ("sweep", &stats.sweeps), ("other", &stats.others)];
    for (operation, stats) in operations {
        scrape.histogram(&names::STORE_DURATION, &[("operation", operation)], &stats.duration);
    }
    for (operation, stats) in operations {
        scrape.histogram(&names::STORE_ROWS, &[("operation", operation)], &stats.rows);
    }
    for (operation, stats) in operations {
        for (kind, count) in stats.errors() {
            scrape.counter(&names::STORE_ERRORS, &[("operation", operation), ("kind", kind.label())], count);
        }
    }
}
