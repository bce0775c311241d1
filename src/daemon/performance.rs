//! What a worker has measured, in the words of the status.

use super::worker;
use super::worker::measure::{Flow, Kind, LATENCY_BOUNDS_US, Total, WINDOW, Window};
use crate::control::performance::{
    BucketStatus, FlowStatus, LatencyStatus, PerformanceStatus, TotalStatus, TotalsStatus,
    WindowStatus,
};

pub(super) fn performance(report: &worker::Report) -> PerformanceStatus {
    let report = &report.measured;
    let of = |kind: Kind| total(&report.totals[kind as usize]);
    PerformanceStatus {
        queue_depth: report.depth as u64,
        oldest_command_ms: u64::try_from(report.oldest.as_millis()).unwrap_or(u64::MAX),
        busy: report.busy,
        slow_commands: report.slow,
        window: report.window.as_ref().map(window),
        totals: TotalsStatus {
            reads: of(Kind::Read),
            writes: of(Kind::Write),
            flushes: of(Kind::Flush),
            others: of(Kind::Other),
        },
    }
}

fn window(window: &Window) -> WindowStatus {
    let of = |kind: Kind| flow(&window.flows[kind as usize]);
    WindowStatus {
        seconds: WINDOW.as_secs(),
        queue_depth_max: window.depth_max as u64,
        reads: of(Kind::Read),
        writes: of(Kind::Write),
        flushes: of(Kind::Flush),
        others: of(Kind::Other),
    }
}

fn flow(flow: &Flow) -> FlowStatus {
    FlowStatus {
        iops: flow.commands / WINDOW.as_secs(),
        bytes_per_s: flow.bytes / WINDOW.as_secs(),
        latency_us: LatencyStatus {
            p50: flow.p50_us,
            p99: flow.p99_us,
            p99_9: flow.p999_us,
            max: flow.max_us,
        },
    }
}

fn total(total: &Total) -> TotalStatus {
    let mut count = 0;
    let buckets = LATENCY_BOUNDS_US.into_iter().zip(total.latencies);
    let latency_buckets = buckets
        .map(|(up_to_us, commands)| {
            count += commands;
            BucketStatus {
                up_to_us,
                commands: count,
            }
        })
        .collect();
    TotalStatus {
        commands: total.commands,
        bytes: total.bytes,
        latency_sum_us: total.latency_sum_us,
        latency_count: total.latencies.iter().sum(),
        latency_buckets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_took_no_longer() {
        let mut measured = Total {
            commands: 9,
            bytes: 4096,
            latency_sum_us: 33_000_000,
            ..Total::default()
        };
        measured.latencies[0] = 3;
        measured.latencies[1] = 2;
        measured.latencies[20] = 1;
        let told = total(&measured);
        assert_eq!((told.commands, told.latency_count), (9, 6));
        let cumulative: Vec<(u64, u64)> = told
            .latency_buckets
            .iter()
            .map(|bucket| (bucket.up_to_us, bucket.commands))
            .collect();
        assert_eq!(cumulative[..3], [(10, 3), (25, 5), (50, 5)]);
        assert_eq!(
            cumulative[19],
            (30_000_000, 5),
            "the longest is in none of them"
        );
    }

    #[test]
    fn a_window_is_told_by_the_second() {
        let mut measured = Window {
            depth_max: 7,
            ..Window::default()
        };
        measured.flows[Kind::Write as usize] = Flow {
            commands: 1_239,
            bytes: 40_960,
            p50_us: 1,
            p99_us: 2,
            p999_us: 3,
            max_us: 4,
        };
        let told = window(&measured);
        assert_eq!((told.seconds, told.queue_depth_max), (10, 7));
        assert_eq!((told.writes.iops, told.writes.bytes_per_s), (123, 4_096));
        let expected = LatencyStatus {
            p50: 1,
            p99: 2,
            p99_9: 3,
            max: 4,
        };
        assert_eq!(told.writes.latency_us, expected);
        assert_eq!(told.reads, FlowStatus::default());
    }
}
