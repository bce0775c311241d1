//! How a logical unit performs, as an operator is told.

use serde::{Deserialize, Serialize};

/// How a logical unit performs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerformanceStatus {
    /// Commands taken from the kernel and not answered.
    pub queue_depth: u64,
    /// How long ago the oldest of them was taken.
    pub oldest_command_ms: u64,
    /// Commands answered with BUSY since the daemon started, those of an unknown nexus included.
    pub busy: u64,
    /// Commands that took longer than 10 seconds since the daemon started.
    pub slow_commands: u64,
    /// The last complete window; none as long as the first is not over.
    pub window: Option<WindowStatus>,
    /// Since the daemon started.
    pub totals: TotalsStatus,
}

/// What happened in a window of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// How long it was.
    pub seconds: u64,
    /// The most commands that were taken and not answered at a time.
    pub queue_depth_max: u64,
    /// READ.
    pub reads: FlowStatus,
    /// WRITE, WRITE AND VERIFY and WRITE ATOMIC.
    pub writes: FlowStatus,
    /// SYNCHRONIZE CACHE.
    pub flushes: FlowStatus,
    /// All other commands.
    pub others: FlowStatus,
}

/// How fast one kind of commands was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Commands a second, without those answered with BUSY or RESERVATION CONFLICT.
    pub iops: u64,
    /// Bytes read or written a second.
    pub bytes_per_s: u64,
    /// How long they took.
    pub latency_us: LatencyStatus,
}

/// Latencies in microseconds, from when a command is taken from the kernel until its answer is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// Half of the commands took no longer.
    pub p50: u64,
    /// 99 in a hundred took no longer.
    pub p99: u64,
    /// 999 in a thousand took no longer.
    pub p99_9: u64,
    /// None took longer.
    pub max: u64,
}

/// What happened since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsStatus {
    /// READ.
    pub reads: TotalStatus,
    /// WRITE, WRITE AND VERIFY and WRITE ATOMIC.
    pub writes: TotalStatus,
    /// SYNCHRONIZE CACHE.
    pub flushes: TotalStatus,
    /// All other commands.
    pub others: TotalStatus,
}

/// What happened to one kind of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalStatus {
    /// Commands answered.
    pub commands: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// All latencies together.
    pub latency_sum_us: u64,
    /// Commands that have a latency: all but those answered with BUSY or RESERVATION CONFLICT.
    pub latency_count: u64,
    /// How many of these took no longer than each of these times.
    pub latency_buckets: Vec<BucketStatus>,
}

/// How many commands took no longer than a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketStatus {
    /// The time.
    pub up_to_us: u64,
    /// How many.
    pub commands: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A unit that reads much and writes little.
    pub(crate) fn example() -> PerformanceStatus {
        let flow = |iops, bytes_per_s, [p50, p99, p99_9, max]: [u64; 4]| FlowStatus {
            iops,
            bytes_per_s,
            latency_us: LatencyStatus {
                p50,
                p99,
                p99_9,
                max,
            },
        };
        let total = |commands, bytes, latency_sum_us, counts: [u64; 2]| TotalStatus {
            commands,
            bytes,
            latency_sum_us,
            latency_count: commands,
            latency_buckets: [10, 25]
                .into_iter()
                .zip(counts)
                .map(|(up_to_us, commands)| BucketStatus { up_to_us, commands })
                .collect(),
        };
        PerformanceStatus {
            queue_depth: 32,
            oldest_command_ms: 1_500,
            busy: 5,
            slow_commands: 2,
            window: Some(WindowStatus {
                seconds: 10,
                queue_depth_max: 64,
                reads: flow(1200, 56_700_000, [120, 800, 2_100, 15_300]),
                writes: flow(3, 12_288, [9_999, 10_000, 1_234_567, 12_345_678]),
                flushes: FlowStatus::default(),
                others: flow(0, 0, [7, 7, 7, 7]),
            }),
            totals: TotalsStatus {
                reads: total(1000, 4_096_000, 20_000, [900, 990]),
                writes: total(200, 819_200, 5_500_000, [0, 1]),
                flushes: TotalStatus::default(),
                others: total(34, 0, 68, [34, 34]),
            },
        }
    }
}
