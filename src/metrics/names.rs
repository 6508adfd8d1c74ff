//! Every metric that exists: name, type, help. Names are namespace, noun, base unit, and `total` for counters.

/// A metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name on the page.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Its help line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric { name: $name, kind: Type::$kind, help: $help };)*
        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "cloakroom_build_info" "1, with the version of the daemon and the kind of its store as labels.";
    COMMANDS: Counter "cloakroom_commands_total" "Commands answered, by name and outcome (ok, error).";
    COMMAND_DURATION: Histogram "cloakroom_command_duration_seconds"
        "Time from the arrival of a command's batch of input to the hand-over of its reply to the socket.";
    CONNECTIONS: Gauge "cloakroom_connections" "Clients connected.";
    CONNECTIONS_ACCEPTED: Counter "cloakroom_connections_accepted_total" "Connections accepted.";
    CONNECTIONS_REFUSED: Counter "cloakroom_connections_refused_total"
        "Connections refused, because of too many clients or of protected mode.";
    CACHE_HITS: Counter "cloakroom_cache_hits_total" "Keys answered from the cache, known absences included.";
    CACHE_MISSES: Counter "cloakroom_cache_misses_total" "Keys for which the store had to be asked.";
    CACHE_EVICTIONS: Counter "cloakroom_cache_evictions_total" "Entries dropped from the cache for room.";
    CACHE_ENTRIES: Gauge "cloakroom_cache_entries" "Entries in the cache, known absences included.";
    CACHE_BYTES: Gauge "cloakroom_cache_bytes" "Bytes of the entries in the cache.";
    CACHE_MAX_BYTES: Gauge "cloakroom_cache_max_bytes" "Bound on the bytes of the cache.";
    CACHE_ROOM: Gauge "cloakroom_cache_room_bytes"
        "What of the bound the cache may use now, so that the process's memory keeps to it, too.";
    STORE_UP: Gauge "cloakroom_store_up" "1 if the store answered when it was last asked, else 0.";
    STORE_CONNECTIONS: Gauge "cloakroom_store_connections" "Connections to the store, by state (idle, busy).";
    STORE_DURATION: Histogram "cloakroom_store_operation_duration_seconds"
        "Time of one operation of the store, by operation (load, commit, sweep, other).";
    STORE_ROWS: Histogram "cloakroom_store_operation_rows"
        "Rows of one operation of the store: keys of a load, mutations of a commit, entries removed by a sweep.";
    STORE_ERRORS: Counter "cloakroom_store_errors_total" "Failures of the store, by operation and kind.";
    WRITES_QUEUED: Gauge "cloakroom_writes_queued" "Writes waiting for a commit.";
    WRITES_QUEUED_BYTES: Gauge "cloakroom_writes_queued_bytes" "Bytes of the writes waiting for a commit.";
    WRITES_REFUSED: Counter "cloakroom_writes_refused_total" "Writes refused because the queue was full.";
    WRITES_ABSORBED: Counter "cloakroom_writes_absorbed_total"
        "Writes that were overwritten by a later one of the same commit and so needed no row of their own.";
    WRITES_ELIDED: Counter "cloakroom_writes_elided_total"
        "Touches answered from memory, because the committed expiry was within the slack.";
    UPDATE_CONFLICTS: Counter "cloakroom_update_conflicts_total"
        "Tries of read-modify-write commands that met another daemon's write.";
    SWEEPER_REMOVED: Counter "cloakroom_sweeper_removed_total" "Expired entries removed from the store.";
    SWEEPER_PASSES: Counter "cloakroom_sweeper_passes_total" "Passes of the sweeper over the whole store.";
    COHERENCE_TRUSTED: Gauge "cloakroom_coherence_trusted"
        "1 if what is cached is proven current and used, else 0.";
    COHERENCE_STATE: Gauge "cloakroom_coherence_state"
        "1 for how the daemon stands towards the others on its store: off, connecting, linked, late, unreachable, unheard, standby.";
    COHERENCE_STALENESS: Gauge "cloakroom_coherence_staleness_seconds"
        "How far what is cached may lag behind the store, as proven by the last heartbeat.";
    COHERENCE_EPOCH: Gauge "cloakroom_coherence_epoch" "How often the daemon began to hear of others, with an empty cache.";
    COHERENCE_PEERS: Gauge "cloakroom_coherence_peers" "Other daemons heard of lately.";
    COHERENCE_SENT: Counter "cloakroom_coherence_invalidations_sent_total" "Announcements of changes sent to other daemons.";
    COHERENCE_RECEIVED: Counter "cloakroom_coherence_invalidations_received_total"
        "Announcements of changes heard from other daemons.";
    COHERENCE_KILLED: Counter "cloakroom_coherence_tokens_killed_total"
        "Loads and writes on their way that another daemon's change kept out of the cache.";
    AUDITS: Counter "cloakroom_audits_total" "Cached entries that were compared with the store.";
    AUDIT_STALE: Counter "cloakroom_audit_stale_total"
        "Cached entries that were found not to be what the store has, for longer than they may be; each is a bug.";
    AUDIT_STALE_AGE: Gauge "cloakroom_audit_stale_age_seconds" "For how long at most such an entry had been so when it was found.";
    STALE_READS: Counter "cloakroom_outage_stale_reads_total"
        "Keys answered from the cache beyond its proof, because the store was away.";
    PANICS: Counter "cloakroom_panics_total" "Panics of the daemon, each of which is a bug.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" "User and system CPU time of the process.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" "Resident memory of the process.";
    PROCESS_FDS: Gauge "process_open_fds" "Open file descriptors of the process.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" "Limit on open file descriptors of the process.";
    PROCESS_START: Gauge "process_start_time_seconds" "Start of the process, in seconds since the Unix epoch.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_keep_to_the_rules() {
        let mut seen = HashSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert!(metric.name.starts_with("cloakroom_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.kind == Type::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
