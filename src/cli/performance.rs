//! How a logical unit performs, as a person reads it.

use crate::control::performance::{FlowStatus, LatencyStatus, PerformanceStatus, WindowStatus};

/// A command that is older than this is worth a word.
const OLD_MS: u64 = 10_000;

/// The lines of one unit, each with its title.
pub(super) fn facts(performance: Option<&PerformanceStatus>) -> Vec<(&'static str, String)> {
    let Some(performance) = performance else {
        return vec![("queue", "not known: its thread does not answer".to_owned())];
    };
    let mut facts = vec![("queue", queue(performance))];
    match &performance.window {
        None => {}
        Some(window) => facts.extend(flows(window)),
    }
    facts
}

fn queue(performance: &PerformanceStatus) -> String {
    let most = match &performance.window {
        None => String::new(),
        Some(window) => format!(", {} at most", window.queue_depth_max),
    };
    let old = match performance.oldest_command_ms {
        OLD_MS.. => format!(
            "; the oldest has waited {} s",
            performance.oldest_command_ms / 1_000
        ),
        _ => String::new(),
    };
    format!(
        "{} commands{most}{old}; {} answered with BUSY, {} slower than 10 s",
        performance.queue_depth, performance.busy, performance.slow_commands
    )
}

fn flows(window: &WindowStatus) -> Vec<(&'static str, String)> {
    let kinds = [
        ("read", &window.reads),
        ("write", &window.writes),
        ("flush", &window.flushes),
    ];
    let busy = kinds
        .into_iter()
        .filter(|(_, flow)| flow.latency_us != LatencyStatus::default() || flow.iops > 0);
    let lines: Vec<_> = busy.map(|(kind, flow)| (kind, line(kind, flow))).collect();
    if lines.is_empty() {
        return vec![(
            "idle",
            format!(
                "nothing read, written or flushed in the last {} s",
                window.seconds
            ),
        )];
    }
    lines
}

fn line(kind: &str, flow: &FlowStatus) -> String {
    let LatencyStatus {
        p50,
        p99,
        p99_9,
        max,
    } = flow.latency_us;
    let [p50, p99, p99_9, max] = [p50, p99, p99_9, max].map(time);
    let moved = match kind {
        "flush" => String::new(),
        _ => format!("{}, ", rate(flow.bytes_per_s)),
    };
    format!(
        "{} IOPS, {moved}latency p50 {p50}, p99 {p99}, p99.9 {p99_9}, greatest {max}",
        flow.iops
    )
}

/// Bytes a second, in millions.
fn rate(bytes: u64) -> String {
    format!("{}.{} MB/s", bytes / 1_000_000, bytes / 100_000 % 10)
}

fn time(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{microseconds} us"),
        10_000..10_000_000 => format!("{} ms", microseconds / 1_000),
        _ => format!("{} s", microseconds / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::performance::tests::example;

    #[test]
    fn what_went_on_has_a_line() {
        let expected = [
            (
                "queue",
                "32 commands, 64 at most; 5 answered with BUSY, 2 slower than 10 s",
            ),
            (
                "read",
                "1200 IOPS, 56.7 MB/s, latency p50 120 us, p99 800 us, p99.9 2100 us, greatest 15 ms",
            ),
            (
                "write",
                "3 IOPS, 0.0 MB/s, latency p50 9999 us, p99 10 ms, p99.9 1234 ms, greatest 12 s",
            ),
        ];
        let told = facts(Some(&example()));
        let told: Vec<(&str, &str)> = told.iter().map(|(name, fact)| (*name, &**fact)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn less_is_said_where_less_is_known() {
        let mut performance = PerformanceStatus {
            oldest_command_ms: 12_345,
            queue_depth: 1,
            ..PerformanceStatus::default()
        };
        let queue =
            "1 commands; the oldest has waited 12 s; 0 answered with BUSY, 0 slower than 10 s";
        assert_eq!(facts(Some(&performance)), [("queue", queue.to_owned())]);
        performance.window = Some(WindowStatus {
            seconds: 10,
            ..WindowStatus::default()
        });
        let idle = "nothing read, written or flushed in the last 10 s";
        assert_eq!(facts(Some(&performance))[1], ("idle", idle.to_owned()));
        let unknown = "not known: its thread does not answer";
        assert_eq!(facts(None), [("queue", unknown.to_owned())]);
    }
}
